/* safetensors: memory-mapped weights, single file or sharded by an index; every offset, shape and size is checked.
 *
 *     | u64 N | N bytes of JSON | tensors, little endian, no holes |
 *
 *   source   huggingface/safetensors README; ../shared notes are summarised in safetensors.c */
#ifndef AST_IO_SAFETENSORS_H
#define AST_IO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

enum st_dtype { ST_F64, ST_F32, ST_F16, ST_BF16, ST_I64, ST_I32, ST_I16, ST_I8, ST_U8, ST_BOOL, ST_OTHER };
enum { ST_MAX_RANK = 8 };

struct st_tensor {
    const char *name;
    const char *file; /* the path it was read from */
    enum st_dtype dtype;
    const char *dtype_name; /* as written: "BF16", "F8_E4M3", ... */
    int rank;
    int64_t dim[ST_MAX_RANK];
    const void *data; /* mapped, row major; NOT aligned: read it with memcpy or unaligned loads */
    size_t bytes;
};

struct safetensors; /* an open file or set of shards */

/* path: a .safetensors file, an index .json, or a folder that holds model.safetensors or model.safetensors.index.json.
 * Local. ERR_IO, ERR_FORMAT: truncated file, hole, overlap, size that contradicts the shape, duplicate key, ... */
int st_open(struct safetensors **out, const char *path);
void st_close(struct safetensors *s); /* NULL is fine */

int64_t st_count(const struct safetensors *s);
const struct st_tensor *st_at(const struct safetensors *s, int64_t i);          /* in file order */
const struct st_tensor *st_find(const struct safetensors *s, const char *name); /* NULL if absent; hashed */
const char *st_metadata(const struct safetensors *s, const char *key);          /* of __metadata__; NULL if absent */
size_t st_file_bytes(const struct safetensors *s);                              /* all files together */
size_t st_dtype_size(enum st_dtype t);                                          /* bytes an element; ST_OTHER: 0 */
const char *st_dtype_name(enum st_dtype t);

/* The kernel may drop the pages of this tensor: it has been copied. */
void st_done_with(const struct st_tensor *t);

/* Hex SHA-256 of all files' bytes in name order (a model's fingerprint); out >= 65 bytes. */
int st_sha256(const struct safetensors *s, char out[65]);

/* Adds to `to` which files these are and when they last changed (device, inode, bytes, times), without reading them: for what
 * is kept as long as this machine runs, no fingerprint. */
struct sha;
void st_identify(const struct safetensors *s, struct sha *to);

/* Writing: declare every tensor, then append the data in the same order, then commit (fsync, rename from a temporary
 * name). Closing without commit removes the temporary file. */
struct st_writer;
struct st_decl {
    const char *name;
    enum st_dtype dtype;
    int rank;
    int64_t dim[ST_MAX_RANK];
};
int st_create(struct st_writer **out, const char *path, const struct st_decl *t, int64_t n, const char *const *meta_pairs,
              int n_pairs);
int st_append(struct st_writer *w, const void *bytes, size_t n);
int st_commit(struct st_writer *w); /* ERR_FORMAT if the bytes appended are not those declared; frees w in any case */
void st_abort(struct st_writer *w); /* NULL is fine */

#endif
