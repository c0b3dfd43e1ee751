/* Rank 0's part of a run: what is finished already, phase after phase of dealing out, status. */
#ifndef AST_SCHED_DEAL_H
#define AST_SCHED_DEAL_H

#include "sched/layout.h"
#include "sched/master.h"

struct status;

struct deal {
    struct master m;   /* w, store, link, world, compute, context are set by the caller */
    const int *tensor; /* (n_phases,) */
    int n_phases, threads;
    struct layout layout; /* of the phase that runs, or ran last */
};

/* All phases; leaves the live ranks waiting for deal_end. *done: samples that were finished before. Status
 * goes on until status_end. Samples of cells that cannot run are recorded as failed. ERR_NOMEM, ERR_IO. */
int deal_job(struct deal *d, struct status *status, struct master_result *out, int64_t *done);

/* Tells the live ranks what comes next (enum proto_next) and frees what deal_job has left. */
void deal_end(struct deal *d, const struct master_result *r, int next);

#endif
