/* Training objectives: what a step computes. One const struct an objective, one line in objectives.def.
 *
 *     loop:   zero gradients ── step(micro-batch) ... step(micro-batch) ── sum over ranks ── / count ── clip ── AdamW ── update
 *
 * A step ADDS to gradients and sums. Nothing is divided before the sums over micro-batches and ranks are complete, so that
 * a result does not depend, beyond rounding, on how a batch is cut. */
#ifndef AST_TRAIN_OBJECTIVE_H
#define AST_TRAIN_OBJECTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"
#include "train/params.h"

struct arena;
struct attn_method;
struct cfg_field;
struct comm_group;
struct kern_table;

struct train_env {                    /* what the loop gives an objective to open with; all borrowed, until close */
    const char *model;                /* Hugging Face folder */
    const char *gate;                 /* gate file to start from; "": none */
    const struct attn_method *method; /* attention to train with, from the job's `method`; NULL: the objective's own choice */
    const void *method_opts;
    const struct comm_group *group; /* ranks that share one model (tensor parallelism); NULL: one rank */
    const struct kern_table *kern;
    int64_t max_tokens, max_len; /* of a micro-batch, of a sequence */
    int64_t steps;               /* of the whole training */
    int64_t max_seqs;            /* sequences that this rank takes of a batch at most, in one micro-batch or several */
    int64_t repeat;              /* steps that each batch serves, one after the other; 1 as a rule */
    size_t memory;               /* bytes that this rank may take; 0: not known */
    uint64_t seed;
};

struct train_at {        /* where the training stands */
    int64_t step, steps; /* 0 .. steps-1; all */
    int64_t micro;       /* number of the micro-batch's first sequence among all of the training; sequence s: micro + s */
    int64_t repeat;      /* 0 .. env.repeat-1: how often the batch has been seen before */
    double temperature;  /* of soft choices, annealed by the loop */
    int phase;           /* 0: soft; 1: hard (the last part of a training) */
    uint64_t seed;
    /* Called when the gradients of params first .. first+n-1 are final for this step, so that their sum over ranks can
     * run beside the rest of the backward pass; each parameter exactly once. NULL: not wanted (all but the last
     * micro-batch of a step). */
    void (*ready)(void *context, int64_t first, int64_t n);
    void *context;
};

enum { TRAIN_PARTS = 8 };
struct train_sums { /* additive over micro-batches and ranks; doubles only: summed as an array */
    double count;   /* what gradients and loss are divided by: rows, or scored tokens */
    double loss;
    double tokens; /* that went through the model */
    double flops;  /* done, by count */
    struct {
        double sum, n;
    } part[TRAIN_PARTS]; /* means for people and curves, named by the objective */
};

struct train_objective {
    const char *name;               /* the word in a job */
    const char *summary;            /* one line for --help */
    const struct cfg_field *fields; /* its own options, in the job's group `objective` */
    size_t opts_size;
    const char *const *parts; /* names of train_sums.part, NULL at the end: "kl", "density", ... */
    /* Opens the model and what is trained. Collective over env->group. ERR_IO, ERR_FORMAT, ERR_ARG, ERR_NOMEM. */
    int (*open)(void **self, const void *opts, const struct train_env *env);
    void (*close)(void *self); /* NULL is fine */
    /* The same list, in the same order, from open to close. */
    struct train_params *(*params)(void *self);
    /* Bytes that a step takes at most from its arena. */
    size_t (*step_bytes)(void *self, int64_t tokens, int64_t n_seq);
    /* One micro-batch: adds to gradients and to out. Collective over env->group. b->target: the next token, < 0 none. */
    int (*step)(void *self, const struct model_batch *b, const struct train_at *at, struct train_sums *out, struct arena *step);
    /* After the parameters have changed: total holds the sums over all ranks. Derived weights are made anew, multipliers
     * move. Called once after open and after loading a checkpoint too, with total NULL. NULL: nothing to do. */
    int (*update)(void *self, const struct train_at *at, const struct train_sums *total);
    /* Writes what was trained into a folder that exists, in forms that `asterism run` reads (gates.safetensors, a Hugging
     * Face checkpoint), durably. Called on one group; collective over it, its rank 0 writes. */
    int (*save)(void *self, const char *folder);
};

const struct train_objective *objective_find(const char *name); /* NULL: unknown */
const struct train_objective *objective_at(int i);              /* NULL past the end */
int objective_unknown(const char *name);                        /* ERR_ARG naming the nearest and the list */

#endif
