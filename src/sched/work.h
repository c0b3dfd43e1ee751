/* What a job comes to: datasets cut for a model and a length (*sets*), and *cells*: one set under one method.
 *
 *     set    samples ordered by length, longest first, and cut into batches; the same on every rank, for any number of ranks
 *     cell   model x task x length x method, in the order of the results
 *
 *     order    position -> sample        batch_at   | b0 | b1 |  b2  | ...   in positions */
#ifndef AST_SCHED_WORK_H
#define AST_SCHED_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "task/task.h"

struct job;

struct work_set {
    int model, task;
    int64_t length;
    struct task_env env;
    struct task_set *set; /* NULL until work_need */
    int64_t n, n_batches, tokens;
    int64_t *order, *batch_at; /* (n,) (n_batches + 1,) */
    char *signature;           /* the task's line: protocol, data, digest */
    int tensor;                /* ranks of the groups that compute it; 0 until layout_choose */
};

struct work_cell {
    int model, task, method, set;
    int64_t length;
};

struct work {
    const struct job *job;
    int n_sets, n_cells;
    struct work_set *set;
    struct work_cell *cell;
    struct task_cache *cache; /* texts, read once for all lengths */
};

int work_open(struct work **out, const struct job *job); /* no dataset is read yet. Local. ERR_NOMEM */
void work_close(struct work *w);                         /* NULL is fine */

/* Opens a set's dataset unless it is open. Local, deterministic. The task's errors; ERR_FORMAT if it has no samples. */
int work_need(struct work *w, int set);

/* Machine figures that turn operations into seconds, of one group of ranks. */
struct work_rate {
    double linear, attn; /* floating-point operations a second */
};

struct work_cost {
    double linear_flops, attn_flops, pairs, tokens;
};

/* Predicted cost of n positions from first; its set must be open. Pure. */
void work_cost(const struct work *w, int cell, int64_t first, int64_t n, struct work_cost *out);
double work_seconds(const struct work_cost *c, const struct work_rate *r);

/* "model, method, task, length" for people. */
void work_cell_name(const struct work *w, int cell, char *out, int cap);

#endif
