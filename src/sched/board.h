/* The master's book-keeping, without MPI, files or clocks: shards that wait, run and are done; predicted cost, corrected
 * by what is measured; who has what. The real master, the one-process run and the simulation drive the same board.
 *
 *     cell 0   [ batch | batch | batch | batch | ... ]   positions 0 .. n-1 of the cell's sample order
 *               `--- shard ---' `---- shard ----'        a shard is a run of positions, cut at batches only
 *
 * Batches are the same for any number of ranks, so that a batch's rounding is too; only shards depend on the ranks. */
#ifndef AST_SCHED_BOARD_H
#define AST_SCHED_BOARD_H

#include <stdbool.h>
#include <stdint.h>

struct policy;

enum shard_state { SHARD_WAITING, SHARD_RUNNING, SHARD_DONE, SHARD_FAILED };

struct shard {
    int64_t first, count; /* positions in the cell's order */
    double work;          /* predicted seconds before correction */
    int32_t cell, group;  /* group: who has it while it runs, else -1 */
    int32_t failed_on;    /* the group it last failed on: another one is preferred; -1: none */
    uint8_t state, tries;
};

struct board_cell { /* given by the caller and kept by it */
    int model;
    int64_t n, n_batches;
    const int64_t *batch_at;  /* (n_batches + 1,) positions, from 0 to n */
    const double *batch_work; /* (n_batches,) predicted seconds before correction */
    const bool *done;         /* (n,) by position: finished in an earlier run; NULL: none */
};

struct board_opts {
    const struct policy *policy;
    int n_groups, n_models, tries;
    double shard_s; /* predicted seconds of a shard, at most */
    double ratio;   /* measured / predicted as known before (0: 1) */
    double ratio_s; /* and the predicted seconds that this knowledge counts for */
};

struct board;

int board_open(struct board **out, const struct board_cell *cells, int n_cells, const struct board_opts *o); /* ERR_NOMEM */
void board_close(struct board *b);

/* The next shard for a group, -1 if nothing waits. It runs from now on. ERR_NOMEM cannot happen: a split that finds no
 * memory is not made. */
int64_t board_next(struct board *b, int group);

/* As board_next, for a group that still computes: -1 also when what waits should rather go to groups that are free. */
int64_t board_ahead(struct board *b, int group, double queued_s);

const struct shard *board_shard(const struct board *b, int64_t i);
int64_t board_shards(const struct board *b);

/* Its first `count` positions are finished, in so many seconds of computing; the rest, if any, waits again. */
void board_done(struct board *b, int64_t shard, int64_t count, double seconds);

/* An attempt failed. true: it waits for another; false: its tries are used up, it is failed. */
bool board_failed(struct board *b, int64_t shard);

/* It is failed whatever its tries: it would fail everywhere. */
void board_give_up(struct board *b, int64_t shard);
/* So is all of a cell that waits; calls gone() for each. */
void board_drop(struct board *b, int cell, void (*gone)(void *context, int64_t shard), void *context);

/* A group that was handed a shard gives it back untouched. */
void board_back(struct board *b, int64_t shard);

/* The group is gone: what it computed (first) has failed once, what was queued behind waits again. Calls gone(), if not
 * NULL, for each shard whose tries are used up. */
void board_lose(struct board *b, int group, void (*gone)(void *context, int64_t shard), void *context);

/* Predicted, corrected seconds of computing. */
double board_predict(const struct board *b, int64_t shard);
double board_left_s(const struct board *b);          /* waiting and running */
double board_total_s(const struct board *b);         /* with what is done */
double board_correction(const struct board *b);      /* measured / predicted so far, over all cells */
double board_ratio(const struct board *b, int cell); /* measured / predicted so far */

struct board_counts {
    int64_t waiting, running, done, failed;
};
void board_counts(const struct board *b, struct board_counts *out);
bool board_finished(const struct board *b); /* nothing waits or runs */
int board_groups(const struct board *b);    /* still with us */

#endif
