/* A training job. One libconfig file:
 *
 *     name = "train-distil";
 *     model = "data/asterism-S";
 *     objective = { objective = "distil"; rows = 384; };
 *     data = { files = ["lm.txt"]; length = 8192; };
 *     train = { steps = 100; lr = 2e-3; };
 *
 * Everything goes into the folder `output`: checkpoint-*, training.h5, and what the objective saves at the end. */
#ifndef AST_TRAIN_SPEC_H
#define AST_TRAIN_SPEC_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cfg/cfg.h"
#include "train/adamw.h"
#include "train/data.h"

struct attn_method;
struct buf;
struct train_objective;

struct train_opts { /* group `train` */
    int64_t steps, batch, micro_tokens, repeat, warmup, seed, threads, tensor;
    int schedule;
    double lr, lr_end, clip, temperature, temperature_end, hard, save_s;
    double beta1, beta2, eps, weight_decay;
    const char *isa;
};

struct train_spec {
    struct cfg *cfg;
    const char *name, *model, *gate;
    char *output; /* folder */
    const struct train_objective *objective;
    void *objective_opts;
    const struct attn_method *method; /* NULL: none given */
    void *method_opts;
    struct data_opts data;
    struct train_opts train;
};

/* Reads and checks all that can be checked without opening weights or data. Local. ERR_ARG, ERR_IO with file and line. */
int spec_open(struct train_spec **out, const char *path, const char *const *overrides, int n_overrides);
void spec_close(struct train_spec *s); /* NULL is fine */

/* What decides the result, one "group.key = value" a line: not threads, outputs or how often is saved. */
int spec_identity(const struct train_spec *s, struct buf *out);

void spec_help(FILE *f); /* all options with types, defaults and ranges */

/* sweep = ( { key = "objective.lambda"; values = ["0.1", "1"]; }, ... ): every combination of the values is a training of its
 * own, a *point*, in a folder of its own. */
struct sweep {
    int64_t points;
    int keys;
    const char *key[8];
    struct cfg_strs values[8];
};
int sweep_load(struct sweep *s, struct cfg *c); /* without a sweep: one point, no keys */
/* "key=value" of key k at point i. */
int sweep_override(const struct sweep *s, int64_t i, int k, struct buf *out);

#endif
