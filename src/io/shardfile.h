/* Durable files for finished work: one file a shard, complete or absent, never half.
 *
 *     | "ASTSHARD" | u32 version | u32 sections | { char name[24] | u64 bytes } ... | data, 8-aligned ... | u32 crc | "DRAHSTSA" |
 *
 * Commit: write under a name unique to the attempt, fsync, publish under the final name without replacing (link), fsync
 * the folder. So two attempts at one shard cannot overwrite each other, and what carries a final name is whole unless the
 * disk damaged it, which the CRC (zlib's crc32 over all before it) shows. What is inside is the caller's business. */
#ifndef AST_IO_SHARDFILE_H
#define AST_IO_SHARDFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHARDFILE_NAME = 24, SHARDFILE_SECTIONS = 32 };

struct shardfile_section {
    const char *name; /* at most 23 bytes */
    const void *data; /* may be NULL if bytes is 0 */
    size_t bytes;
};

/* Writes and publishes folder/name. *duplicate (may be NULL): a valid file of that name was there before and stays. A
 * damaged one is moved aside (to a temporary name) first. Local. ERR_IO (full disk, ...): nothing was published. */
int shardfile_commit(const char *folder, const char *name, const struct shardfile_section *s, int n, bool *duplicate);

struct shardfile; /* a file read whole into memory */

/* ERR_IO; ERR_FORMAT: torn, damaged or another kind of file. */
int shardfile_read(struct shardfile **out, const char *path);
void shardfile_close(struct shardfile *f); /* NULL is fine */

/* 8-byte aligned, borrowed; NULL and *bytes 0 if there is none. */
const void *shardfile_get(const struct shardfile *f, const char *name, size_t *bytes);

/* Calls fn for every published file of the folder (names that end in ".shard"), in name order. A fn that returns
 * non-zero ends the walk with that code. An absent folder has no files. */
typedef int shardfile_fn(void *context, const char *path, const char *name);
int shardfile_each(const char *folder, shardfile_fn *fn, void *context);

/* Removes what attempts that died have left ("*.tmp-*" older than the given seconds). */
void shardfile_sweep(const char *folder, double older_s);

/* One owner of a folder at a time, known alive by a lock that dies with its process (flock) and by a stamp renewed at
 * most stale_s ago where locks do not reach (other hosts). ERR_ARG names the owner. */
struct shardfile_lock;
int shardfile_lock(struct shardfile_lock **out, const char *folder, double stale_s);
void shardfile_lock_renew(struct shardfile_lock *l); /* cheap: writes only when it is time */
void shardfile_unlock(struct shardfile_lock *l);     /* NULL is fine */

#endif
