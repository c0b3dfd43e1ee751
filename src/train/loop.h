/* The training loop: a job from start to what was trained, on any number of ranks.
 *
 *     world = replicas x tensor:  each replica (train.tensor ranks) holds the model and takes its share of a step's sequences;
 *                                 ranks of the same place in their replica sum gradients, during the last backward pass where the
 *                                 objective says when they are final
 *
 * The sequences of a step, and what is drawn for them, follow from the job alone: more ranks give the same gradients to
 * rounding; the same ranks the same bits, interrupted or not. */
#ifndef AST_TRAIN_LOOP_H
#define AST_TRAIN_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "train/curve.h"

struct comm_group;

struct loop_opts {
    const char *path; /* the job file */
    const char *const *overrides;
    int n_overrides;
    bool fresh;                  /* drop checkpoints of an earlier run */
    bool (*stop)(void *context); /* asked between steps: end in order? NULL: never */
    void *context;
    const struct curve_fact *fact; /* for training.h5 */
    int n_facts;
};

struct loop_result {
    bool stopped;  /* incomplete: run the same command again */
    int64_t steps; /* done, all runs together */
    double loss, seconds;
};

/* Collective over world. Every rank returns the same code, with the sentence of one that failed. */
int loop_train(const struct loop_opts *o, const struct comm_group *world, struct loop_result *r);

#endif
