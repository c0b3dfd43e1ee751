/* AdamW over a list of parameters, and the schedules of what changes during a training. Pure.
 *   source   Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", alg. 2 (decay times the learning rate, as in
 *            PyTorch's torch.optim.AdamW) */
#ifndef AST_TRAIN_ADAMW_H
#define AST_TRAIN_ADAMW_H

#include <stdint.h>

#include "train/params.h"

struct arena;

struct adamw_opts {
    double beta1, beta2, eps, weight_decay;
};

struct adamw {
    float **m, **v; /* (params,) each (n,) like the parameter */
};

int adamw_alloc(struct adamw *a, const struct train_params *p, struct arena *run); /* zeros; ERR_NOMEM */

/* Step number `step` (0 first) at learning rate lr; gradients are multiplied by `scale` as they are read. */
struct adamw_at {
    int64_t step;
    double lr, scale;
};
void adamw_step(struct adamw *a, struct train_params *p, const struct adamw_opts *o, const struct adamw_at *at);

enum schedule_kind { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT };
struct schedule {
    int kind;
    int64_t steps, warmup; /* all; of the rise from 0 */
    double lr, end;        /* the highest; share of it at the end */
};
double schedule_lr(const struct schedule *s, int64_t step);

/* From `from` to `to`, geometrically, over the steps before `soft_steps`; then `to`. */
double schedule_temperature(double from, double to, int64_t step, int64_t soft_steps);

#endif
