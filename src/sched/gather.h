/* Collects finished shards into whole cells, in sample order, and scores them. Cells are spread over the ranks of the
 * merge; each rank holds a run of consecutive cells, all methods of a dataset together. Knows nothing of HDF5. */
#ifndef AST_SCHED_GATHER_H
#define AST_SCHED_GATHER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "sched/outcome.h"
#include "task/task.h"

struct comm_group;
struct store;
struct work;

struct gather_cell { /* one cell, samples in the dataset's order */
    int cell, layers;
    int64_t n;
    struct task_acc *acc;
    int32_t *status; /* enum outcome_status */
    double *seconds;
    struct buf *text, *reason;
    struct outcome_layer *layer;      /* (layers,) sums over samples */
    struct outcome_sparsity sparsity; /* maps in the dataset's order */
};

struct gather_total { /* of one cell, the same on every rank */
    int64_t n, ok, failed, pending, tokens, peak_bytes, shards;
    double compute_s; /* of groups: compute_s * group size is core time */
    double rank_s;    /* compute_s summed over the ranks of the groups */
    double phase_s[TIMER_PHASES];
    double sparsity_s; /* of the threads of all ranks: sampling statistics */
    double pairs_seen, pairs_causal;
    int64_t n_scores;
    struct task_score score[TASK_SCORES];
    int64_t n_diffs; /* against the dense cell, paired; by the scores' names */
    struct task_score diff[TASK_SCORES];
};

struct gathered {
    int first, n_cells;         /* this rank's cells: first .. first+n_cells-1 */
    struct gather_cell *cell;   /* (n_cells,) */
    struct gather_total *total; /* (cells of the job,) */
};

/* sizes: (cells,) samples of each, the same on every rank. Collective over g: all ranks or none. */
int gather_open(struct gathered **out, struct work *w, const struct store *s, const int64_t *sizes, const struct comm_group *g);
void gather_close(struct gathered *x); /* NULL is fine */

/* The dense cell that a cell is compared with: same model, task and length; -1: none, or it is that cell. */
int gather_dense(const struct work *w, int cell);

/* The cells of rank r of ranks: balanced by samples, in order, in blocks of `block` cells that stay together (the methods of
 * one dataset). Pure. */
struct gather_part {
    int first, n;
};
struct gather_part gather_range(const int64_t *sizes, int n_cells, int block, int r, int ranks);

#endif
