/* Computes shards: opens the model and the dataset they need, runs batch after batch, admits each by its predicted
 * memory. What is wrong with one sample ends at that sample; what is wrong with this group ends at the shard. */
#ifndef AST_SCHED_EXEC_H
#define AST_SCHED_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm_group;
struct exec;
struct outcome;
struct work;

struct exec_opts {
    const struct comm_group *group; /* tensor parallel; NULL: one rank */
    size_t memory;                  /* bytes this rank may use for weights and activations */
    int threads;
    int rank;    /* in the world, for the record */
    int workers; /* ranks of this machine that compute, this one among them: exec_workers(); 0: not known */
};

/* How far an error reaches: EXEC_NO_METHOD, _MODEL: none of the model's cells (with this method) can run, here at least. */
enum exec_reach { EXEC_SHARD, EXEC_NO_METHOD, EXEC_NO_MODEL };

int exec_open(struct exec **out, struct work *w, const struct exec_opts *o); /* ERR_NOMEM, ERR_ARG. Local. */
void exec_close(struct exec *e);                                             /* collective over the group; NULL is fine */

/* Another group from now on, as the phases of layout.h ask for; the model is dropped. Collective over the old group. */
void exec_regroup(struct exec *e, const struct comm_group *group);

struct exec_shard {
    int cell;
    int64_t first, count;      /* positions */
    bool isolate;              /* last attempt: find the sample that fails and go on without it */
    bool (*go)(void *context); /* asked between batches on the group's rank 0; false: end here. NULL: to the end */
    void *context;
};

/* Fills o (opened by the call) with the samples that were finished, from the first on. Collective over the group; all
 * ranks return alike, sums over ranks are in o on each.
 * reach: enum exec_reach, of an error: a damaged checkpoint, options that do not fit the model. */
int exec_run(struct exec *e, const struct exec_shard *s, struct outcome *o, int *reach);

/* Predicted bytes beside the weights of the positions first .. first+count-1 at once; the cell's model must be the one that
 * ran last (0 otherwise). Local. */
size_t exec_bytes(struct exec *e, int cell, int64_t first, int64_t count);

/* This rank's memory limit: as asked for in GB, or its share of what the machine can give. Collective over g. */
size_t exec_memory(const struct comm_group *g, double memory_gb);
/* Ranks of this machine that compute. Collective over g. */
int exec_workers(const struct comm_group *g);
/* OpenMP threads: as asked for, or cores / ranks on the machine. Collective over g. */
int exec_threads(const struct comm_group *g, int64_t asked);

#endif
