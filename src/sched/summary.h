/* The table at the end of a run, for people. */
#ifndef AST_SCHED_SUMMARY_H
#define AST_SCHED_SUMMARY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct gathered;
struct merge_rank;
struct work;

struct summary_info {
    const char *results, *shards; /* paths */
    bool complete;
    double wall_s;
    int ranks, groups, threads, dead;
    double busy; /* share of the workers' time that is not waiting; negative: unknown */
    const struct merge_rank *rank;
    int n_ranks;
};

void summary_print(FILE *f, const struct work *w, const struct gathered *x, const struct summary_info *i);

#endif
