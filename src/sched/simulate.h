/* A run in virtual time: groups ask the board for shards as the real ones do. For `plan` and for tests at 10,000 groups. */
#ifndef AST_SCHED_SIMULATE_H
#define AST_SCHED_SIMULATE_H

#include <stdint.h>

struct board;
struct shard;

struct simulated {
    double makespan_s, work_s, longest_s; /* end of the last group; sum and largest of the shards' times */
    int64_t shards;
};

/* Runs the board to its end. took: what a shard really takes. Pure. ERR_NOMEM. */
int simulate(struct board *b, int groups, double (*took)(void *context, const struct shard *s), void *context,
             struct simulated *out);

#endif
