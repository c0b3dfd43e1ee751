/* The job file. */
#include "sched/job.h"

#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "base/buf.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/file.h"
#include "sched/identity.h"
#include "sched/policy.h"
#include "task/task.h"
#include "text/tok.h"

struct job_top {
    const char *name, *output;
};

/* clang-format off */
static const struct cfg_field top_fields[] = {
    CFG_STR(struct job_top, name, "", "name of the job; empty: the file's name"),
    CFG_STR(struct job_top, output, "", "result file; empty: results/NAME.h5. Finished shards are kept beside it in OUTPUT.shards"),
    CFG_END,
};
static const struct cfg_field model_fields[] = {
    CFG_STR(struct job_model, name, "", "name in the results; empty: the folder's name"),
    CFG_STR_REQ(struct job_model, path, "folder of a Hugging Face checkpoint"),
    CFG_ENUM(struct job_model, dtype, KERN_F32, "f32|bf16", "weights in memory"),
    CFG_ENUM(struct job_model, kv_dtype, KERN_F32, "f32|bf16", "keys and values in memory"),
    CFG_BOOL(struct job_model, check_finite, true, "refuse NaN and infinity in the weights"),
    CFG_END,
};
static const struct cfg_field method_fields[] = {
    CFG_STR(struct job_method, name, "", "name in the results; empty: the method's name"),
    CFG_STR_REQ(struct job_method, method, "attention method; its own options stand beside it"),
    CFG_STR(struct job_method, gate, "", "file of trained gate weights, for methods that learn"),
    CFG_END,
};
static const struct cfg_field task_fields[] = {
    CFG_STR(struct job_task, name, "", "name in the results; empty: the task's name"),
    CFG_STR_REQ(struct job_task, task, "task; its own options stand beside it"),
    CFG_INTS(struct job_task, lengths, "0", 0, 1e9, "sequence lengths to run it at; 0: the model's own context"),
    CFG_INTS(struct job_task, tensor, "0", 0, 1024, "ranks of a worker group, one number for all lengths or one for each; 0: run.tensor"),
    CFG_END,
};
static const struct cfg_field run_fields[] = {
    CFG_INT(struct job_run, threads, 0, 0, 4096, "OpenMP threads of a rank; 0: cores of the machine / ranks on it"),
    CFG_INT(struct job_run, tensor, 1, 0, 1024, "ranks of a worker group, which share one model (tensor parallelism); 0: as memory and work ask for"),
    CFG_STR(struct job_run, isa, "", "instruction set of the kernels: ref, avx2, avx512, avx512bf16, amx; empty: the fastest here"),
    CFG_INT(struct job_run, seed, 1, 0, 9e15, "seed of everything random: bootstrap, sampling"),
    CFG_INT(struct job_run, batch_tokens, 4096, 1, 1e9, "tokens of samples that run together"),
    CFG_INT(struct job_run, batch_samples, 64, 1, 1e6, "at most so many samples run together"),
    CFG_REAL(struct job_run, shard_s, 10, 0, 1e6, "predicted seconds of a shard, the unit of scheduling and of durability"),
    CFG_STR(struct job_run, policy, "longest_first", "which shard next: longest_first, in_order"),
    CFG_INT(struct job_run, tries, 3, 1, 100, "attempts at a shard before its samples are marked as failed"),
    CFG_REAL(struct job_run, memory_gb, 0, 0, 1e6, "memory a rank may use for weights and activations; 0: what the machine can give"),
    CFG_ENUM(struct job_run, share_weights, JOB_SHARE_AUTO, "auto|on|off", "one copy of the weights for all ranks of a machine that hold the same part; auto: where there are several and that costs no time, or memory asks for it"),
    CFG_REAL(struct job_run, beat_s, 1, 0.01, 600, "seconds between heartbeats"),
    CFG_REAL(struct job_run, dead_s, 30, 0.1, 1e5, "a rank silent for so long is dead; its shard goes to another group"),
    CFG_REAL(struct job_run, hang_s, 600, 1, 1e6, "a shard that takes so long, and 20 times its prediction, hangs; its group is given up"),
    CFG_REAL(struct job_run, grace_s, 20, 0, 1e5, "seconds to finish what runs after a signal or before the Slurm end time"),
    CFG_REAL(struct job_run, margin_s, 60, 0, 1e5, "stop so long before the Slurm end time (merging included)"),
    CFG_INT(struct job_run, sparsity, 256, 0, 1e9, "statistics of attention from one query row in so many (under 1 % of the time at 256; its cost: /timing/cells/sparsity_s); 0: none"),
    CFG_INT(struct job_run, maps, 1, 0, 1e6, "with sparsity: maps of what the first so many samples of each dataset attend to"),
    CFG_BOOL(struct job_run, calibrate, false, "measure what attention's sparse kernels cost for the first model on rank 0 when the job first starts, instead of fixed cost_blocks and cost_gather; kept with the job. Scores are the same, counts of strategies (/layers/tile_*) then differ from machine to machine and from job to job"),
    CFG_BOOL(struct job_run, text, true, "keep generated texts in the results"),
    CFG_BOOL(struct job_run, compress, true, "compress the result file"),
    CFG_END,
};
/* clang-format on */

static const char *last_part(const char *path)
{
    const char *end = path + strlen(path), *at;
    while (end > path && end[-1] == '/')
        end--;
    for (at = end; at > path && at[-1] != '/'; at--)
        ;
    return at;
}

static int load_model(struct job *j, int i)
{
    struct job_model *m = &j->model[i];
    char group[32];
    int rc;
    snprintf(group, sizeof group, "models.[%d]", i);
    rc = cfg_load(j->cfg, group, model_fields, m);
    if (rc)
        return rc;
    if (!m->name[0])
        m->name = last_part(m->path);
    rc = model_peek(&m->info, m->path);
    return rc ? rc : tok_open(&m->tok, m->path);
}

/* The plug-in's own options, from the same group. */
static int load_plugin(struct job *j, const char *group, const struct cfg_field *fields, size_t size, void **opts)
{
    *opts = calloc(1, size ? size : 1);
    if (!*opts)
        return err_set(ERR_NOMEM, "no memory for the options of %s", group);
    return fields ? cfg_load(j->cfg, group, fields, *opts) : ERR_OK;
}

static int load_method(struct job *j, int i)
{
    struct job_method *m = &j->method[i];
    char group[32];
    int rc;
    snprintf(group, sizeof group, "methods.[%d]", i);
    rc = cfg_load(j->cfg, group, method_fields, m);
    if (rc)
        return rc;
    m->impl = attn_find(m->method);
    if (!m->impl)
        return err_prefix(attn_unknown(m->method), "%s: %s", cfg_path(j->cfg), group);
    if (!m->name[0])
        m->name = m->impl->name;
    return load_plugin(j, group, m->impl->fields, m->impl->opts_size, &m->opts);
}

static int load_task(struct job *j, int i)
{
    struct job_task *t = &j->task[i];
    char group[32];
    int rc;
    snprintf(group, sizeof group, "tasks.[%d]", i);
    rc = cfg_load(j->cfg, group, task_fields, t);
    if (rc)
        return rc;
    t->impl = task_find(t->task);
    if (!t->impl)
        return err_prefix(task_unknown(t->task), "%s: %s", cfg_path(j->cfg), group);
    if (!t->name[0])
        t->name = t->impl->name;
    if (t->lengths.n < 1)
        return err_set(ERR_ARG, "%s: %s: lengths is empty", cfg_path(j->cfg), group);
    if (t->tensor.n > 1 && t->tensor.n != t->lengths.n)
        return err_set(ERR_ARG, "%s: %s: tensor has %lld numbers for %lld lengths: give one for all, or one for each",
                       cfg_path(j->cfg), group, (long long)t->tensor.n, (long long)t->lengths.n);
    return load_plugin(j, group, t->impl->fields, t->impl->opts_size, &t->opts);
}

/* Rows of the result table are named: two of one name could not be told apart. */
static int check_names(const struct job *j)
{
    for (int a = 0; a < j->n_models; a++)
        for (int b = 0; b < a; b++)
            if (!strcmp(j->model[a].name, j->model[b].name))
                return err_set(ERR_ARG, "models [%d] and [%d] are both called '%s': give one a name", b, a, j->model[a].name);
    for (int a = 0; a < j->n_methods; a++)
        for (int b = 0; b < a; b++)
            if (!strcmp(j->method[a].name, j->method[b].name))
                return err_set(ERR_ARG, "methods [%d] and [%d] are both called '%s': give one a name", b, a, j->method[a].name);
    for (int a = 0; a < j->n_tasks; a++)
        for (int b = 0; b < a; b++)
            if (!strcmp(j->task[a].name, j->task[b].name))
                return err_set(ERR_ARG, "tasks [%d] and [%d] are both called '%s': give one a name", b, a, j->task[a].name);
    return ERR_OK;
}

static int load_top(struct job *j, const char *path)
{
    struct job_top top;
    struct buf b = {0};
    int rc = cfg_load(j->cfg, "", top_fields, &top);
    if (rc)
        return rc;
    j->name = top.name;
    if (!j->name[0]) {
        const char *base = path ? last_part(path) : "job", *dot = strrchr(base, '.');
        rc = buf_add(&b, base, dot ? (size_t)(dot - base) : strlen(base));
        if (rc)
            return rc;
        j->name = b.data;
    }
    j->name = strdup(j->name);
    buf_free(&b);
    rc = top.output[0] ? buf_puts(&b, top.output) : buf_printf(&b, "results/%s.h5", j->name ? j->name : "");
    j->output = b.data;
    return rc || !j->name ? err_set(ERR_NOMEM, "no memory for the job's name") : ERR_OK;
}

static int list_length(const struct job *j, const char *path, int *out)
{
    *out = cfg_count(j->cfg, path);
    if (*out < 1)
        return err_set(ERR_ARG, "%s: '%s' is missing: a list of groups, e.g. %s = ( { ... } );", cfg_path(j->cfg), path, path);
    return ERR_OK;
}

static int load(struct job *j, const char *path)
{
    int rc = load_top(j, path);
    rc = rc ? rc : list_length(j, "models", &j->n_models);
    rc = rc ? rc : list_length(j, "methods", &j->n_methods);
    rc = rc ? rc : list_length(j, "tasks", &j->n_tasks);
    if (rc)
        return rc;
    j->model = calloc((size_t)j->n_models, sizeof *j->model);
    j->method = calloc((size_t)j->n_methods, sizeof *j->method);
    j->task = calloc((size_t)j->n_tasks, sizeof *j->task);
    if (!j->model || !j->method || !j->task)
        return err_set(ERR_NOMEM, "no memory for the job");
    rc = cfg_load(j->cfg, "run", run_fields, &j->run);
    if (!rc && !policy_find(j->run.policy))
        rc = policy_unknown(j->run.policy);
    for (int i = 0; i < j->n_methods && !rc; i++)
        rc = load_method(j, i);
    for (int i = 0; i < j->n_tasks && !rc; i++)
        rc = load_task(j, i);
    for (int i = 0; i < j->n_models && !rc; i++)
        rc = load_model(j, i);
    rc = rc ? rc : check_names(j);
    return rc ? rc : cfg_finish(j->cfg);
}

int job_open(struct job **out, const char *path, const char *const *overrides, int n_overrides)
{
    struct job *j = calloc(1, sizeof *j);
    int rc;
    *out = NULL;
    if (!j)
        return err_set(ERR_NOMEM, "no memory for the job");
    rc = cfg_open(&j->cfg, path, overrides, n_overrides);
    if (!rc)
        rc = load(j, path);
    if (rc) {
        job_close(j);
        return rc;
    }
    *out = j;
    return ERR_OK;
}

void job_close(struct job *j)
{
    if (!j)
        return;
    for (int i = 0; i < j->n_models && j->model; i++)
        tok_close(j->model[i].tok);
    for (int i = 0; i < j->n_methods && j->method; i++)
        free(j->method[i].opts);
    for (int i = 0; i < j->n_tasks && j->task; i++)
        free(j->task[i].opts);
    free(j->model);
    free(j->method);
    free(j->task);
    free((char *)(uintptr_t)j->name);
    free(j->output);
    cfg_close(j->cfg);
    free(j);
}

double job_weight_bytes(const struct job_model *m)
{
    return (double)m->info.parameters * (m->dtype == KERN_F32 ? 4 : 2);
}

int job_open_all(struct job **out, const char *path, const char *const *overrides, int n_overrides, const struct comm_group *g)
{
    struct buf b = {0};
    int64_t same = 1, mine;
    int rc = ERR_OK;
    *out = NULL;
    if (!g || g->rank == 0)
        rc = job_open(out, path, overrides, n_overrides);
    rc = comm_agree(g, rc);
    if (!rc && g && g->rank != 0)
        rc = job_open(out, path, overrides, n_overrides);
    rc = comm_agree(g, rc);
    if (!rc)
        rc = identity_job(*out, &b);
    rc = comm_agree(g, rc);
    if (rc)
        goto out;
    /* Another node may see another file system. */
    mine = (int64_t)file_crc32(0, b.data, b.len);
    same = mine;
    comm_bcast(g, &same, sizeof same, 0);
    if (same != mine)
        rc = err_set(ERR_FORMAT, "%s: this rank reads another job or other model files than rank 0", path ? path : "job");
    rc = comm_agree(g, rc);
out:
    buf_free(&b);
    if (rc) {
        job_close(*out);
        *out = NULL;
    }
    return rc;
}

void job_help(FILE *f)
{
    const char *in = "    ";
    fprintf(f, "The job file (libconfig):\n");
    cfg_help(f, in, top_fields);
    fprintf(f, "  models = ( { ... }, ... )\n");
    cfg_help(f, in, model_fields);
    fprintf(f, "  methods = ( { ... }, ... )\n");
    cfg_help(f, in, method_fields);
    for (int i = 0; attn_at(i); i++) {
        fprintf(f, "    method = \"%s\"  %s\n", attn_at(i)->name, attn_at(i)->summary);
        if (attn_at(i)->fields)
            cfg_help(f, "        ", attn_at(i)->fields);
    }
    fprintf(f, "  tasks = ( { ... }, ... )\n");
    cfg_help(f, in, task_fields);
    for (int i = 0; task_at(i); i++) {
        fprintf(f, "    task = \"%s\"  %s\n", task_at(i)->name, task_at(i)->summary);
        if (task_at(i)->fields)
            cfg_help(f, "        ", task_at(i)->fields);
    }
    fprintf(f, "  run = { ... }\n");
    cfg_help(f, in, run_fields);
}
