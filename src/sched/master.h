/* The master: deals shards out to groups, notices the dead, stops in order. Rank 0; computes nothing. */
#ifndef AST_SCHED_MASTER_H
#define AST_SCHED_MASTER_H

#include <stdbool.h>
#include <stdint.h>

#include "sched/worker.h"

struct board;
struct comm_group;
struct comm_link;
struct layout;
struct status;
struct store;
struct work;

struct master_result { /* sums over phases: zeroed by the caller before the first */
    bool stopped;      /* ended before its end: signal, deadline, disk */
    bool full;         /* results cannot be written: no use to merge */
    int unable;        /* cells that cannot run at all: a damaged model, a method that does not fit it */
    int code;          /* the err of the first of them, and its sentence */
    char why[512];
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
    const struct layout *layout;
    struct status *status;   /* NULL: nothing is said */
    worker_compute *compute; /* one process: what it computes with, and its context */
    void *context;
    int phase, phases;        /* 0 of 1 */
    double before_s, after_s; /* predicted rank-seconds of the phases before and after, uncorrected */
};

/* One phase, until everything is done, failed or stopped. ERR_NOMEM before anything has started. */
int master_run(struct master *m, struct master_result *out);

/* Tells every rank that lives what comes next: enum proto_next. */
void master_end(const struct master *m, const struct master_result *r, int next);

#endif
