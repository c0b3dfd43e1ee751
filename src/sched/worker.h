/* A worker group: computes the shards it is given, commits each to disk, reports it. */
#ifndef AST_SCHED_WORKER_H
#define AST_SCHED_WORKER_H

#include <stdbool.h>
#include <stdint.h>

struct comm_group;
struct comm_link;
struct exec_shard;
struct outcome;
struct proto_done;
struct store;

/* Computes a shard: exec_run, or something simpler in tests. Collective over the group. */
typedef int worker_compute(void *context, const struct exec_shard *s, struct outcome *o, int *reach);

struct worker {
    worker_compute *compute;
    void *context;
    const struct store *store; /* NULL: nothing is committed (to measure the dealing out) */
    struct comm_link *link;
    const struct comm_group *group; /* tensor parallel; NULL: this rank alone */
    int rank;                       /* in the world */
    double dead_s;                  /* a master silent for so long is dead */
};

struct worker_times {
    double compute_s, io_s, wait_s, load_s;
    int64_t shards, tokens;
};

struct worker_end {
    int next;           /* enum proto_next */
    uint8_t dead[3800]; /* a bit a rank */
};

/* Until the master says END; adds to t. false: the master is gone (end this process; all that was finished is on disk). */
bool worker_run(struct worker *w, struct worker_times *t, struct worker_end *end);

/* Computes one shard and commits it (on the group's rank 0); d is filled. Collective over the group. */
void worker_shard(struct worker *w, const struct exec_shard *s, struct proto_done *d, struct worker_times *t);

#endif
