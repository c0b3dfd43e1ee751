/* A job: which models, attention methods and tasks to cross, and how to run them. One libconfig file:
 *
 *     name = "demo";
 *     models  = ( { path = "data/asterism-S"; } );
 *     methods = ( { method = "dense"; }, { method = "window"; width = 512; } );
 *     tasks   = ( { task = "wikitext"; lengths = [512, 2048]; } );
 *     run     = { batch_tokens = 4096; };
 *
 * Every model x task x length x method is one *cell* of the result table. */
#ifndef AST_SCHED_JOB_H
#define AST_SCHED_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cfg/cfg.h"
#include "model/model.h"

struct attn_method;
struct task;
struct tok;

struct job_model {
    const char *name, *path;
    int dtype, kv_dtype; /* enum kern_dtype */
    bool check_finite;
    struct model_info info; /* from the headers: model_peek */
    struct tok *tok;
    char weights_sha256[65]; /* on rank 0, once identity_work has read them; "" before */
};

struct job_method {
    const char *name, *method, *gate;
    const struct attn_method *impl;
    void *opts;
};

struct job_task {
    const char *name, *task;
    struct cfg_ints lengths; /* 0: the model's own context */
    struct cfg_ints tensor;  /* ranks of a group, by length or for all; 0: run.tensor */
    const struct task *impl;
    void *opts;
};

enum job_share { JOB_SHARE_AUTO, JOB_SHARE_ON, JOB_SHARE_OFF };

struct job_run {
    int64_t threads, tensor, seed, batch_tokens, batch_samples, tries, sparsity, maps;
    double beat_s, dead_s, hang_s, grace_s, shard_s, memory_gb, margin_s;
    const char *isa, *policy;
    int64_t share_weights; /* enum job_share */
    bool text, compress, calibrate;
};

struct job {
    struct cfg *cfg;
    const char *name;
    char *output; /* results.h5 to be */
    int n_models, n_methods, n_tasks;
    struct job_model *model;
    struct job_method *method;
    struct job_task *task;
    struct job_run run;
};

/* Reads and checks all that can be checked without opening weights or data: options, names, headers, tokenizers. Local.
 * ERR_ARG, ERR_IO, ERR_FORMAT with file and line. */
int job_open(struct job **out, const char *path, const char *const *overrides, int n_overrides);
void job_close(struct job *j); /* NULL is fine */

/* As job_open on every rank: rank 0 first, so that one mistake gives one sentence. Collective over g. */
struct comm_group;
int job_open_all(struct job **out, const char *path, const char *const *overrides, int n_overrides, const struct comm_group *g);

/* Bytes of a model's weights in memory, over all ranks of a group, known before they are read. */
double job_weight_bytes(const struct job_model *m);

/* All options with types, defaults and ranges. */
void job_help(FILE *f);

#endif
