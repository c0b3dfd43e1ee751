/* HDF5 files written by all ranks of a group: columns, text, attributes, dimension scales. The only door to HDF5.
 *
 * Every call is collective over the group with the same arguments, but for the rows that a rank writes. The first failure
 * of a rank is kept and the calls go on, so that no rank leaves the others alone in a collective; h5_commit agrees on it.
 * Written under a temporary name, synced, renamed when complete: readers see a whole file or none. Byte for byte the same
 * content for any number of ranks: no times are tracked. */
#ifndef AST_IO_H5_H
#define AST_IO_H5_H

#include <stdbool.h>
#include <stdint.h>

struct comm_group;
struct h5;

enum h5_type { H5_I64, H5_I32, H5_U8, H5_F64, H5_F32 };

/* g NULL or of one rank: the serial driver. compress: deflate. ERR_IO, ERR_NOMEM. */
int h5_create(struct h5 **out, const char *path, const struct comm_group *g, bool compress);

/* Closes, syncs, renames over path; frees f in any case. ERR_IO with the first failure of any rank. */
int h5_commit(struct h5 *f);
void h5_abort(struct h5 *f); /* closes and removes the temporary file; NULL is fine */

/* "/a/b": parents are made. */
void h5_group(struct h5 *f, const char *path);

/* Attributes of a group or dataset; text is variable-length UTF-8, so that h5py gives str. */
void h5_attr_text(struct h5 *f, const char *object, const char *name, const char *text);
void h5_attr_i64(struct h5 *f, const char *object, const char *name, int64_t v);
void h5_attr_f64(struct h5 *f, const char *object, const char *name, double v);

struct h5_column {
    const char *path; /* "/metrics/value" */
    enum h5_type type;
    int64_t rows;         /* of the whole dataset */
    int64_t width;        /* elements a row; 0: the dataset has one dimension */
    int64_t first, count; /* this rank's rows */
    const void *data;     /* (count, width) */
    const char *unit;     /* "s", "1", "byte", "token/s"; NULL: none */
    const char *about;    /* long_name; NULL: none */
};
void h5_write(struct h5 *f, const struct h5_column *c);

/* n fixed-length UTF-8 strings, the same on every rank. */
void h5_strings(struct h5 *f, const char *path, const char *const *v, int64_t n, const char *about);

/* Makes dataset a dimension scale called name; attaches dimension dim of a dataset to a scale. */
void h5_scale(struct h5 *f, const char *dataset, const char *name);
void h5_attach(struct h5 *f, const char *dataset, int dim, const char *scale);

/* "1.10.8" */
const char *h5_version(void);

#endif
