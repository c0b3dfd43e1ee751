/* The training job's options. */
#include "train/spec.h"

#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "base/buf.h"
#include "base/err.h"
#include "train/objective.h"

struct top {
    const char *name, *output, *model, *gate;
};
struct word {
    const char *objective, *method;
};
struct sweep_key {
    const char *key;
    struct cfg_strs values;
};

/* clang-format off */
static const struct cfg_field top_fields[] = {
    CFG_STR(struct top, name, "", "name of the job; empty: the file's name"),
    CFG_STR(struct top, output, "", "folder for checkpoints, curves and what was trained; empty: results/NAME"),
    CFG_STR_REQ(struct top, model, "folder of a Hugging Face checkpoint"),
    CFG_STR(struct top, gate, "", "file of gate weights to start from; empty: untrained"),
    CFG_END,
};
static const struct cfg_field objective_fields[] = {
    CFG_STR_REQ(struct word, objective, "what is trained, and for what; its own options stand beside it"),
    CFG_END,
};
static const struct cfg_field method_fields[] = {
    CFG_STR(struct word, method, "", "attention method to train with, for objectives that run one; its own options stand beside it"),
    CFG_END,
};
static const struct cfg_field train_fields[] = {
    CFG_INT(struct train_opts, steps, 100, 1, 1e9, "optimiser steps"),
    CFG_INT(struct train_opts, batch, 1, 1, 1e6, "sequences of a step, over all ranks"),
    CFG_INT(struct train_opts, micro_tokens, 8192, 1, 1e9, "tokens that a rank works on together; gradients of several such parts are added"),
    CFG_INT(struct train_opts, repeat, 1, 1, 1000, "steps in a row that use one batch, for objectives that can look at it more than once (distil: other rows)"),
    CFG_REAL(struct train_opts, lr, 1e-3, 0, 100, "highest learning rate"),
    CFG_REAL(struct train_opts, lr_end, 0, 0, 1, "learning rate at the end, as a share of the highest"),
    CFG_INT(struct train_opts, warmup, 20, 0, 1e9, "steps in which the learning rate rises"),
    CFG_ENUM(struct train_opts, schedule, SCHEDULE_COSINE, "cosine|linear|constant", "how the learning rate falls"),
    CFG_REAL(struct train_opts, beta1, 0.9, 0, 0.999999, "AdamW: memory of the mean gradient"),
    CFG_REAL(struct train_opts, beta2, 0.999, 0, 0.9999999, "AdamW: memory of its square"),
    CFG_REAL(struct train_opts, eps, 1e-8, 1e-30, 1, "AdamW: added to the root of the square"),
    CFG_REAL(struct train_opts, weight_decay, 0, 0, 100, "AdamW: decay, times the learning rate, of matrices"),
    CFG_REAL(struct train_opts, clip, 1, 0, 1e9, "largest norm of the whole gradient; 0: no limit"),
    CFG_REAL(struct train_opts, temperature, 1, 1e-6, 1e6, "of soft choices, at the start"),
    CFG_REAL(struct train_opts, temperature_end, 0.1, 1e-6, 1e6, "... when the soft phase ends (geometric)"),
    CFG_REAL(struct train_opts, hard, 0, 0, 1, "last share of the steps, in which choices are hard"),
    CFG_REAL(struct train_opts, save_s, 300, 0, 1e9, "seconds between checkpoints; 0: after every step"),
    CFG_INT(struct train_opts, seed, 1, 0, 9e15, "seed of everything random: order of the data, start values, sampled rows"),
    CFG_INT(struct train_opts, threads, 0, 0, 4096, "OpenMP threads of a rank; 0: cores of the machine / ranks on it"),
    CFG_INT(struct train_opts, tensor, 1, 1, 1024, "ranks that share one model (tensor parallelism)"),
    CFG_STR(struct train_opts, isa, "", "instruction set of the kernels: ref, avx2, avx512, avx512bf16, amx; empty: the fastest here"),
    CFG_END,
};
static const struct cfg_field sweep_fields[] = {
    {.name = "key", .type = CFG_T_STR, .at = offsetof(struct sweep_key, key), .required = true, .help = "an option, e.g. \"objective.lambda\""},
    {.name = "values", .type = CFG_T_STRS, .at = offsetof(struct sweep_key, values), .required = true, .help = "its values, each as text"},
    CFG_END,
};
/* clang-format on */

/* Options that do not decide the result; of model and gates the contents do (train/loop.c). */
static const char *const apart[] = {"output",        "name",         "model",     "gate",
                                    "train.threads", "train.save_s", "train.isa", "train.micro_tokens"};

static char *name_of(const char *given, const char *path)
{
    const char *base = path ? strrchr(path, '/') : NULL, *dot;
    char *out;
    if (given[0])
        return strdup(given);
    base = base ? base + 1 : path ? path : "train";
    dot = strrchr(base, '.');
    out = strdup(base);
    if (out && dot)
        out[dot - base] = '\0';
    return out;
}

static int load_top(struct train_spec *s, const char *path)
{
    struct top top;
    struct buf b = {0};
    int rc = cfg_load(s->cfg, "", top_fields, &top);
    if (rc)
        return rc;
    s->model = top.model;
    s->gate = top.gate;
    s->name = name_of(top.name, path);
    rc = top.output[0] ? buf_puts(&b, top.output) : buf_printf(&b, "results/%s", s->name ? s->name : "");
    s->output = b.data;
    return rc || !s->name ? err_set(ERR_NOMEM, "no memory for the job's name") : ERR_OK;
}

static int load_plugin(struct cfg *c, const char *group, const struct cfg_field *fields, size_t size, void **opts)
{
    *opts = calloc(1, size ? size : 1);
    if (!*opts)
        return err_set(ERR_NOMEM, "no memory for the options of %s", group);
    return fields ? cfg_load(c, group, fields, *opts) : ERR_OK;
}

static int load_plugins(struct train_spec *s)
{
    struct word w = {0};
    int rc = cfg_load(s->cfg, "objective", objective_fields, &w);
    if (!rc)
        s->objective = objective_find(w.objective);
    if (!rc && !s->objective)
        rc = err_prefix(objective_unknown(w.objective), "%s: objective", cfg_path(s->cfg));
    rc = rc ? rc : load_plugin(s->cfg, "objective", s->objective->fields, s->objective->opts_size, &s->objective_opts);
    rc = rc ? rc : cfg_load(s->cfg, "method", method_fields, &w);
    if (rc || !w.method[0])
        return rc;
    s->method = attn_find(w.method);
    if (!s->method)
        return err_prefix(attn_unknown(w.method), "%s: method", cfg_path(s->cfg));
    return load_plugin(s->cfg, "method", s->method->fields, s->method->opts_size, &s->method_opts);
}

static int check(const struct train_spec *s)
{
    const struct train_opts *t = &s->train;
    if (t->warmup > t->steps)
        return err_set(ERR_ARG, "%s: train.warmup = %lld is more than train.steps = %lld", cfg_path(s->cfg), (long long)t->warmup,
                       (long long)t->steps);
    if (s->data.length > t->micro_tokens)
        return err_set(ERR_ARG, "%s: a sequence of data.length = %lld tokens does not fit into train.micro_tokens = %lld",
                       cfg_path(s->cfg), (long long)s->data.length, (long long)t->micro_tokens);
    return ERR_OK;
}

int spec_open(struct train_spec **out, const char *path, const char *const *overrides, int n_overrides)
{
    struct train_spec *s = calloc(1, sizeof *s);
    struct sweep sweep;
    *out = NULL;
    if (!s)
        return err_set(ERR_NOMEM, "no memory for the job");
    int rc = cfg_open(&s->cfg, path, overrides, n_overrides);
    rc = rc ? rc : load_top(s, path);
    rc = rc ? rc : cfg_load(s->cfg, "data", data_fields, &s->data);
    rc = rc ? rc : cfg_load(s->cfg, "train", train_fields, &s->train);
    rc = rc ? rc : load_plugins(s);
    rc = rc ? rc : sweep_load(&sweep, s->cfg);
    rc = rc ? rc : cfg_finish(s->cfg);
    rc = rc ? rc : check(s);
    if (rc)
        spec_close(s);
    else
        *out = s;
    return rc;
}

void spec_close(struct train_spec *s)
{
    if (s) {
        free((char *)(uintptr_t)s->name);
        free(s->output);
        free(s->objective_opts);
        free(s->method_opts);
        cfg_close(s->cfg);
    }
    free(s);
}

int spec_identity(const struct train_spec *s, struct buf *out)
{
    struct cfg_record r;
    int rc = ERR_OK;
    for (int i = 0; !rc && cfg_record_at(s->cfg, i, &r); i++) {
        char key[256];
        bool skip = !strncmp(r.group, "sweep", 5);
        snprintf(key, sizeof key, "%s%s%s", r.group, r.group[0] ? "." : "", r.key);
        for (size_t x = 0; x < sizeof apart / sizeof apart[0]; x++)
            skip = skip || !strcmp(key, apart[x]);
        if (!skip)
            rc = buf_printf(out, "%s = %s\n", key, r.text);
    }
    return rc;
}

int sweep_load(struct sweep *s, struct cfg *c)
{
    int n = cfg_count(c, "sweep");
    *s = (struct sweep){.points = 1};
    if (n > 8)
        return err_set(ERR_ARG, "%s: sweep has %d keys; 8 are the most", cfg_path(c), n);
    for (int i = 0; i < n; i++) {
        struct sweep_key k;
        char group[32];
        snprintf(group, sizeof group, "sweep.[%d]", i);
        int rc = cfg_load(c, group, sweep_fields, &k);
        if (rc)
            return rc;
        if (k.values.n < 1)
            return err_set(ERR_ARG, "%s: %s: values is empty", cfg_path(c), group);
        s->key[i] = k.key;
        s->values[i] = k.values;
        s->points *= k.values.n;
        s->keys = i + 1;
    }
    return ERR_OK;
}

int sweep_override(const struct sweep *s, int64_t i, int k, struct buf *out)
{
    for (int x = s->keys - 1; x > k; x--) /* the last key moves fastest */
        i /= s->values[x].n;
    return buf_printf(out, "%s=%s", s->key[k], s->values[k].v[i % s->values[k].n]);
}

void spec_help(FILE *f)
{
    const char *in = "    ";
    fprintf(f, "The job file (libconfig):\n");
    cfg_help(f, in, top_fields);
    fprintf(f, "  objective = { ... }\n");
    cfg_help(f, in, objective_fields);
    for (int i = 0; objective_at(i); i++) {
        fprintf(f, "    objective = \"%s\"  %s\n", objective_at(i)->name, objective_at(i)->summary);
        if (objective_at(i)->fields)
            cfg_help(f, "        ", objective_at(i)->fields);
    }
    fprintf(f, "  method = { ... }   (options of each method: asterism run --help)\n");
    cfg_help(f, in, method_fields);
    fprintf(f, "  data = { ... }\n");
    cfg_help(f, in, data_fields);
    fprintf(f, "  train = { ... }\n");
    cfg_help(f, in, train_fields);
    fprintf(f, "  sweep = ( { ... }, ... )   every combination is trained, each in a folder OUTPUT/point-NN\n");
    cfg_help(f, in, sweep_fields);
}
