/* Training checkpoints: all that the next step depends on, bit for bit.
 *
 *     OUTPUT/checkpoint-STEP-R.safetensors   rank R of a model group: w.NAME, m.NAME, v.NAME (F32), state, curve (F64);
 *                                            metadata: format, job (what decides the result, a line each), step
 *     OUTPUT/checkpoint                      the newest STEP whose files are all there: written last, so that a crash at any
 *                                            moment leaves a complete one */
#ifndef AST_TRAIN_CKPT_H
#define AST_TRAIN_CKPT_H

#include <stdbool.h>
#include <stdint.h>

#include "train/adamw.h"
#include "train/curve.h"
#include "train/params.h"

struct comm_group;

struct ckpt {
    const char *folder;
    const char *job; /* what decides the result: lines "name = value" */
    struct train_params *params;
    struct adamw *adamw;
    struct curve *curve;
    int64_t step, steps; /* done; room in the curve */
};

/* Collective over g, the ranks of one model (NULL: one). ERR_IO, ERR_NOMEM, ERR_PEER. */
int ckpt_save(const struct ckpt *c, const struct comm_group *g);

/* *found false: there is none, nothing is changed. Every rank of every group reads its own file. Local. ERR_IO, ERR_FORMAT,
 * ERR_ARG: it is another job's; the sentence says what differs. */
int ckpt_load(struct ckpt *c, int group_rank, bool *found);

/* Removes what ckpt_save has written. */
int ckpt_remove(const char *folder);

#endif
