/* Runs a job from start to result file, on any number of ranks. */
#ifndef AST_SCHED_RUN_H
#define AST_SCHED_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct comm_group;

struct run_opts {
    const char *path; /* the job file */
    const char *const *overrides;
    int n_overrides;
    bool fresh; /* drop what an earlier run has finished */
    const char *command_line;
    const char *code[8][2]; /* facts about the program: name, text; ends with a NULL name */
};

struct run_result {
    bool stopped; /* incomplete: run the same command again */
    int64_t failed_samples;
    bool lost_ranks; /* some rank is dead: leave without MPI_Finalize's collectives */
};

/* Collective over world; rank 0 prints the summary to out. The error code is every rank's, its sentence rank 0's. */
int run_job(const struct run_opts *o, const struct comm_group *world, FILE *out, struct run_result *r);

#endif
