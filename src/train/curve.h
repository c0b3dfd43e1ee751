/* What a training leaves to plot: one row a step, kept in memory, saved with checkpoints and written as training.h5.
 *
 *     /curve/step, loss, lr, grad_norm, temperature, tokens, count, seconds, PART ...     columns of the same length; NaN: not
 * known attributes of /: parameters (the resolved job), command_line, code and environment facts */
#ifndef AST_TRAIN_CURVE_H
#define AST_TRAIN_CURVE_H

#include <stdint.h>

#include "train/objective.h"

enum {
    CURVE_LOSS,
    CURVE_LR,
    CURVE_NORM,
    CURVE_TEMPERATURE,
    CURVE_TOKENS,
    CURVE_COUNT,
    CURVE_SECONDS,
    CURVE_PARTS,
    CURVE_COLUMNS = CURVE_PARTS + TRAIN_PARTS
};

struct curve {
    int64_t n;
    double *v; /* (steps, CURVE_COLUMNS) */
};

struct curve_fact {
    const char *key, *value;
};

/* Means of a step from its sums over all ranks; the other columns are the caller's. */
void curve_means(double row[CURVE_COLUMNS], const struct train_sums *sums);

/* parts: names, NULL at the end; facts: n of them. Local, durable. ERR_IO. */
int curve_write(const struct curve *c, const char *path, const char *const *parts, const struct curve_fact *fact, int n);

#endif
