/* Reading HDF5 files, serially: whole datasets, attributes as numbers or text, listings. For show, report and tests.
 * Nothing that a file says is believed: sizes are checked against memory, types against what was asked for. */
#ifndef AST_IO_H5_READ_H
#define AST_IO_H5_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct h5_reader;

/* ERR_IO, ERR_FORMAT: not an HDF5 file, or damaged. */
int h5_open(struct h5_reader **out, const char *path);
void h5_close(struct h5_reader *r); /* NULL is fine */

bool h5_exists(const struct h5_reader *r, const char *path); /* "/a/b", a group or dataset */
bool h5_has_attr(const struct h5_reader *r, const char *object, const char *name);

enum h5_class { H5_IS_GROUP, H5_IS_INTEGER, H5_IS_REAL, H5_IS_TEXT, H5_IS_OTHER };
enum { H5_MAX_RANK = 8 };

struct h5_info {
    enum h5_class class;
    int rank;
    int64_t dim[H5_MAX_RANK];
    int64_t n;    /* elements */
    size_t bytes; /* of an element in the file */
};
int h5_info(const struct h5_reader *r, const char *path, struct h5_info *out);

/* Is the dataset a dimension scale itself? And how many scales are attached to its dimension dim; -1: no such dataset. */
bool h5_is_scale(const struct h5_reader *r, const char *path);
int h5_scales_of(const struct h5_reader *r, const char *path, int dim);

/* The whole dataset in row-major order, numbers converted; the caller frees *out. n may be NULL.
 * ERR_IO absent or unreadable; ERR_FORMAT not numbers; ERR_NOMEM more than memory holds. */
int h5_read_i64(const struct h5_reader *r, const char *path, int64_t **out, int64_t *n);
int h5_read_f64(const struct h5_reader *r, const char *path, double **out, int64_t *n);
int h5_read_u8(const struct h5_reader *r, const char *path, uint8_t **out, int64_t *n);

/* Fixed-length strings: text k is at + k * width, terminated. */
struct h5_texts {
    char *at;
    size_t width;
    int64_t n;
};
int h5_read_texts(const struct h5_reader *r, const char *path, struct h5_texts *out);
const char *h5_text(const struct h5_texts *t, int64_t k);
void h5_texts_free(struct h5_texts *t);

/* Children of a group, or attributes of an object, in the order of their creation where the file has it, else by name. */
struct h5_names {
    char **name;
    int64_t n;
};
int h5_children(const struct h5_reader *r, const char *group, struct h5_names *out);
int h5_attributes(const struct h5_reader *r, const char *object, struct h5_names *out);
void h5_names_free(struct h5_names *l);

/* An attribute, appended as text: strings as they are, numbers printed exactly, lists with commas between.
 * ERR_IO if it is absent, ERR_FORMAT if it is of a kind that text cannot show. */
int h5_read_attr(const struct h5_reader *r, const char *object, const char *name, struct buf *out);
int h5_read_attr_i64(const struct h5_reader *r, const char *object, const char *name, int64_t *out);
int h5_read_attr_f64(const struct h5_reader *r, const char *object, const char *name, double *out);

#endif
