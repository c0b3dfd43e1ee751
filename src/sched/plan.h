/* What a job will take, before it is queued: operations, memory, hours on so many ranks. */
#ifndef AST_SCHED_PLAN_H
#define AST_SCHED_PLAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sched/work.h"

struct job;

struct plan_opts {
    int ranks, per_node;   /* ranks in all; on a machine (0: as many as its cores allow) */
    double seconds;        /* at most so long measured on this machine; 0: not at all */
    struct work_rate rate; /* given figures of one group, operations a second; 0: measured or guessed */
};

struct plan_cell {
    struct work_cost cost;
    int64_t samples, batches;
    double seconds; /* predicted, of one group */
    double ratio;   /* measured / first guess */
    bool measured;  /* by running one of its own batches */
    double bytes;   /* beside the weights, of its largest batch; 0: unknown */
};

struct plan {
    struct work *work;
    struct plan_cell *cell;    /* (cells,) */
    struct work_rate rate;     /* first guess */
    int groups, threads, here; /* here: ranks that compute on one machine */
    int64_t shards;
    double work_s, wall_s, efficiency, rank_bytes;
};

int plan_make(struct plan *p, const struct job *job, const struct plan_opts *o); /* Local. The task's and model's errors. */
void plan_free(struct plan *p);
void plan_print(FILE *f, const struct plan *p, const struct plan_opts *o, const char *job_path);

#endif
