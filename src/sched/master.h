/* The master: deals shards out to groups, notices the dead, stops in order. Rank 0; computes nothing. */
#ifndef AST_SCHED_MASTER_H
#define AST_SCHED_MASTER_H

#include <stdbool.h>
#include <stdint.h>

#include "sched/worker.h"

struct board;
struct comm_group;
struct comm_link;
struct store;
struct work;

struct master_result {
    bool fatal;   /* the job cannot run: the sentence is set; code: its err */
    bool stopped; /* ended before its end: signal, deadline, disk */
    int code;
    int64_t failed_samples, tokens;
    double wall_s, master_s; /* from first to last shard; of which busy in the master's own code */
    uint8_t *dead;           /* (ranks,) 1: gone; owned by the caller (free) */
    int n_dead;
};

struct master {
    struct board *board;
    struct work *w;
    struct store *store;
    struct comm_link *link; /* NULL: one process computes all */
    const struct comm_group *world;
    worker_compute *compute; /* one process: what it computes with, and its context */
    void *context;
    int tensor;
};

/* Until everything is done, failed or stopped. ERR_NOMEM before anything has started. */
int master_run(struct master *m, struct master_result *out);

/* Tells every rank that lives to meet for the merge, or to leave. */
void master_end(struct master *m, const struct master_result *r, bool merge, int status);

#endif
