/* What a running job says: the progress line, one log line and status.json a minute. */
#ifndef AST_SCHED_STATUS_H
#define AST_SCHED_STATUS_H

#include "base/log.h"

struct board;

struct status {
    struct progress bar;
    double start_s, next_s;
    char path[4224]; /* status.json */
    const char *job;
};

struct status_now {
    const char *state;      /* "running", "stopping", "merging", "complete", ... */
    double left_s, total_s; /* predicted seconds of computing, corrected by what was measured */
    int groups, dead;
    long long waiting, running, done, failed, samples_failed, tokens;
};

void status_begin(struct status *s, const char *job, const char *folder, double total_s, double done_s);
void status_update(struct status *s, const struct status_now *n); /* cheap: acts when it is time */
void status_end(struct status *s, const struct status_now *n);

#endif
