/* What a job will take, before it is queued: operations, memory, hours on so many ranks, and which layout is best. */
#ifndef AST_SCHED_PLAN_H
#define AST_SCHED_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sched/work.h"

struct job;

struct plan_opts {
    int ranks, per_node;   /* ranks in all; on a machine (0: as many as its cores allow) */
    double seconds;        /* at most about so long measured on this machine; 0: not at all */
    struct work_rate rate; /* given figures of one rank, operations a second; 0: measured or guessed */
};

struct plan_cell {
    struct work_cost cost;
    struct work_rate rate; /* of one rank */
    bool asked;            /* by the job; else only here to be measured, at a shorter length */
    int measured;          /* batches of this cell that were run */
    int64_t samples, batches;
    double seconds; /* predicted, of one group */
    double bytes;   /* beside the weights, of its largest batch on one rank; 0: unknown */
};

struct plan_layout {            /* one way to place the job on the same cores */
    int ranks, threads, tensor; /* tensor 0: as the job says, by dataset */
    int groups;                 /* of the largest tensor */
    int64_t shards;
    double work_s, wall_s, efficiency; /* work_s: of all groups together */
    double rank_bytes;                 /* 0: unknown */
    bool fits;
};

enum { PLAN_LAYOUTS = 16 };

struct plan {
    struct job *job; /* the job with lengths to measure at beside its own */
    struct work *work;
    struct plan_cell *cell; /* (cells,) */
    double *load_s;         /* (models,) seconds to open one */
    double data_s;          /* to read and cut the datasets of the job */
    bool measured;          /* rates are this machine's, not guessed or given */
    int threads, here;      /* here: ranks that compute on one machine */
    double memory;          /* bytes a machine can give to its ranks */
    int n_layouts, best;
    struct plan_layout layout[PLAN_LAYOUTS]; /* the first: as asked for */
};

int plan_make(struct plan *p, const struct job *job, const struct plan_opts *o); /* Local. The task's and model's errors. */
void plan_free(struct plan *p);
void plan_print(FILE *f, const struct plan *p, const struct plan_opts *o, const char *job_path);

/* Inside: runs batches of the job's own for about that many seconds, beside `busy` - 1 processes that do the same, and sets
 * rate, measured and bytes of each cell. Local. */
int plan_measure(struct plan *p, double seconds, int busy);

#endif
