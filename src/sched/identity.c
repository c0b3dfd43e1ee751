/* What a job is, as text. */
#include "sched/identity.h"

#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/sha.h"
#include "sched/job.h"
#include "sched/work.h"
#include "text/tok.h"

/* The resolved options of a group, but for those that only name or place things. */
static int add_group(const struct job *j, struct buf *out, const char *group, const char *label)
{
    static const char *const skip[] = {"name", "path", "gate", "lengths", "tensor", "check_finite", NULL};
    struct cfg_record r;
    int rc = ERR_OK;
    for (int i = 0; cfg_record_at(j->cfg, i, &r) && !rc; i++) {
        int k = 0;
        if (strcmp(r.group, group))
            continue;
        while (skip[k] && strcmp(skip[k], r.key))
            k++;
        if (!skip[k])
            rc = buf_printf(out, "%s: %s = %s\n", label, r.key, r.text);
    }
    return rc;
}

/* Where texts begin and end: generation_config.json may say so, which is in no digest. */
static int add_ends(const struct model_info *m, const char *label, struct buf *out)
{
    int rc = buf_printf(out, "%s: bos = %lld\n", label, (long long)m->bos);
    for (int64_t i = 0; i < m->n_eos && !rc; i++)
        rc = buf_printf(out, "%s: eos = %lld\n", label, (long long)m->eos[i]);
    return rc;
}

int identity_job(const struct job *j, struct buf *out)
{
    char group[32], label[256], digest[SHA_HEX];
    int rc = buf_printf(out, "run: seed = %lld\nrun: sparsity = %lld\n", (long long)j->run.seed, (long long)j->run.sparsity);
    if (j->run.sparsity > 0 && !rc) /* both say what /sparsity counts: shards that counted otherwise do not add up */
        rc = buf_printf(out, "run: maps = %lld\n", (long long)j->run.maps);
    if (j->run.calibrate && !rc) /* what tiles are counted by */
        rc = buf_printf(out, "run: calibrate = true\n");
    for (int i = 0; i < j->n_models && !rc; i++) {
        snprintf(group, sizeof group, "models.[%d]", i);
        snprintf(label, sizeof label, "model %s", j->model[i].name);
        rc = buf_printf(out, "%s: tokenizer = %s\n", label, tok_sha256(j->model[i].tok));
        rc = rc ? rc : add_ends(&j->model[i].info, label, out);
        rc = rc ? rc : add_group(j, out, group, label);
    }
    for (int i = 0; i < j->n_methods && !rc; i++) {
        snprintf(group, sizeof group, "methods.[%d]", i);
        snprintf(label, sizeof label, "method %s", j->method[i].name);
        rc = add_group(j, out, group, label);
        if (!rc && j->method[i].gate[0]) {
            rc = sha_file(j->method[i].gate, digest);
            rc = rc ? rc : buf_printf(out, "%s: gate = %s\n", label, digest);
        }
    }
    for (int i = 0; i < j->n_tasks && !rc; i++) {
        snprintf(group, sizeof group, "tasks.[%d]", i);
        snprintf(label, sizeof label, "task %s", j->task[i].name);
        for (int64_t k = 0; k < j->task[i].lengths.n && !rc; k++)
            rc = buf_printf(out, "%s: length = %lld\n", label, (long long)j->task[i].lengths.v[k]);
        rc = rc ? rc : add_group(j, out, group, label);
    }
    return rc;
}

static size_t line_length(const char *s)
{
    return strcspn(s, "\n");
}

static bool has_line(const char *text, const char *line, size_t n)
{
    for (const char *at = text; *at; at += line_length(at) + (at[line_length(at)] == '\n'))
        if (line_length(at) == n && !strncmp(at, line, n))
            return true;
    return false;
}

static int missing_lines(const char *from, const char *in, const char *mark, struct buf *out)
{
    int rc = ERR_OK, shown = 0;
    for (const char *at = from; *at && !rc; at += line_length(at) + (at[line_length(at)] == '\n'))
        if (!has_line(in, at, line_length(at)) && shown++ < 4)
            rc = buf_printf(out, "\n  %s %.*s", mark, (int)line_length(at), at);
    if (shown > 4 && !rc)
        rc = buf_printf(out, "\n  %s ... and %d more", mark, shown - 4);
    return rc;
}

int identity_difference(const char *was, const char *is, struct buf *out)
{
    int rc = missing_lines(was, is, "was", out);
    return rc ? rc : missing_lines(is, was, "now", out);
}

/* Every byte of the weights and of config.json: a checkpoint that was exchanged must not go on with old results. */
static int add_digests(struct job_model *m, struct buf *out)
{
    struct safetensors *st = NULL;
    char weights[SHA_HEX], config[SHA_HEX], path[FILE_PATH];
    int rc = file_join(path, m->path, "config.json");
    rc = rc ? rc : sha_file(path, config);
    rc = rc ? rc : st_open(&st, m->path);
    rc = rc ? rc : st_sha256(st, weights);
    st_close(st);
    if (!rc)
        snprintf(m->weights_sha256, sizeof m->weights_sha256, "%s", weights);
    return rc ? rc : buf_printf(out, "model %s: weights = %s\nmodel %s: config = %s\n", m->name, weights, m->name, config);
}

int identity_work(const struct work *w, struct buf *out)
{
    int rc = identity_job(w->job, out);
    for (int i = 0; i < w->job->n_models && !rc; i++)
        rc = add_digests(&w->job->model[i], out);
    for (int i = 0; i < w->n_sets && !rc; i++)
        rc = buf_printf(out, "data %s, %s, length %lld: %s\n", w->job->model[w->set[i].model].name,
                        w->job->task[w->set[i].task].name, (long long)w->set[i].env.length, w->set[i].signature);
    return rc;
}
