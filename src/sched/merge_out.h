/* Inside the merge: what each table's writer gets. One writer a file; a writer is collective over the group and every rank
 * passes through all of its calls. */
#ifndef AST_SCHED_MERGE_OUT_H
#define AST_SCHED_MERGE_OUT_H

#include <stdint.h>

#include "io/h5.h"

struct comm_group;
struct gathered;
struct merge_info;
struct work;

struct merge_out {
    struct h5 *f;
    const struct work *w;
    const struct gathered *x;
    const struct merge_info *i;
    const struct comm_group *g;
};

/* 8 bytes for each of n elements of a column, zeroed; the caller frees. No memory ends the process: inside the merge no
 * rank can leave, and the same command merges again. */
void *merge_room(int64_t n);

/* Small tables: the same on every rank, rank 0 writes. */
void merge_numbers(struct merge_out *o, const char *path, enum h5_type type, const void *v, int64_t n, const char *unit,
                   const char *about);
/* A column of names: row k is of cell[k]. */
enum merge_name { MERGE_MODEL, MERGE_METHOD, MERGE_TASK, MERGE_SIGNATURE };
void merge_names(struct merge_out *o, const char *path, const int32_t *cell, int64_t n, enum merge_name kind);
/* Dimension 0 of folder/column belongs to that scale. */
void merge_attach(struct merge_out *o, const char *folder, const char *column, const char *scale);
/* A dimension of n elements without values of its own, for dimension 0 of the dataset at path: PATH_dim, named as netCDF
 * names such dimensions, so that its readers (xarray) make no variable of it. */
void merge_dimension(struct merge_out *o, const char *path, int64_t n);

/* The tables. */
void merge_models(struct merge_out *o);
void merge_cells(struct merge_out *o);
void merge_metrics(struct merge_out *o);
void merge_samples(struct merge_out *o, int task);
void merge_layers(struct merge_out *o);
void merge_sparsity(struct merge_out *o);
void merge_cell_times(struct merge_out *o);
void merge_rank_times(struct merge_out *o);
void merge_code(struct merge_out *o);
void merge_parameters(struct merge_out *o);
void merge_environment(struct merge_out *o);

#endif
