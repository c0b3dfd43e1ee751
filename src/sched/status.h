/* What a running job says: the progress line, one log line and status.json a minute.
 *
 * OUTPUT.shards/status.json, replaced whole at each writing, has one object:
 *     job, state         name; "running", "stopping", "stopped" (run the same command again), "merging", then "complete",
 *                        "failed samples" or "incomplete" once results.h5 is there, "failed" if there will be none
 *     time, elapsed_s    UTC; seconds since dealing out began, the merge included
 *     computing_s        of which from the first shard to the last
 *     eta_s, progress    predicted seconds to the end; share of all work that is done, earlier runs included (0 .. 1)
 *     phase, phases      which size of groups is at work (layout.h), 1 of 1 as a rule
 *     groups, dead_ranks                        groups that live; ranks lost
 *     shards_waiting, _running, _done, _failed  of this phase
 *     samples_failed, tokens                    given up for good; through the model, in this run */
#ifndef AST_SCHED_STATUS_H
#define AST_SCHED_STATUS_H

#include "base/log.h"

struct board;

struct status_now {
    const char *state;
    double left_s, total_s; /* predicted seconds of computing of all ranks, corrected by what was measured */
    double eta_s, computing_s;
    int phase, phases; /* 1 of 1 */
    int groups, dead;
    long long waiting, running, done, failed, samples_failed, tokens;
};

struct status {
    struct progress bar;
    double start_s, next_s, base; /* base: share of the work that was done before this run; negative: not known yet */
    char path[4224];              /* status.json */
    const char *job;
    struct status_now last;
};

void status_begin(struct status *s, const char *job, const char *folder);
void status_update(struct status *s, const struct status_now *n); /* cheap: acts when it is time */
void status_end(struct status *s, const char *state);             /* what was last said, in this state now */

#endif
