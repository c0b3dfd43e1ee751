/* From every rank's gradients to one: sums over replicas, beside the backward pass where possible; the norm of all. */
#ifndef AST_TRAIN_REDUCE_H
#define AST_TRAIN_REDUCE_H

#include <stdbool.h>
#include <stdint.h>

#include "train/params.h"

struct comm_group;
struct comm_sums;

struct reduce {
    struct train_params *p;
    const struct comm_group *replicas; /* ranks that hold the same part of the model; NULL: one */
    const struct comm_group *model;    /* ranks that share a model; NULL: one */
    struct comm_sums *sums;
    bool *begun; /* (params,) */
};

int reduce_open(struct reduce *r);
void reduce_close(struct reduce *r);

/* train_at.ready: starts the sums of these parameters. */
void reduce_ready(void *reduce, int64_t first, int64_t n);
/* Starts what is left, waits for all. Collective over replicas. */
void reduce_finish(struct reduce *r);

/* Euclidean norm of the whole gradient, the same bits for any number of threads. Collective over model. */
double reduce_norm(const struct reduce *r);

#endif
