/* Sets, cells and their predicted cost. */
#include "sched/work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "base/buf.h"
#include "base/err.h"
#include "sched/job.h"

/* A decoded token re-reads all weights for a few rows: about so many times the cost of a prefilled one. */
static const double DECODE_WEIGHT = 4;

static void fill_env(struct work_set *s, const struct job *j)
{
    const struct job_model *m = &j->model[s->model];
    s->env = (struct task_env){.tok = m->tok,
                               .length = s->length ? s->length : m->info.context,
                               .bos = m->info.bos,
                               .vocab = m->info.vocab,
                               .n_eos = m->info.n_eos,
                               .seed = (uint64_t)j->run.seed};
    memcpy(s->env.eos, m->info.eos, sizeof s->env.eos);
}

int work_open(struct work **out, const struct job *job)
{
    struct work *w = calloc(1, sizeof *w);
    int64_t sets = 0, s = 0, c = 0;
    *out = NULL;
    for (int t = 0; t < job->n_tasks; t++)
        sets += job->n_models * job->task[t].lengths.n;
    if (w) {
        w->set = calloc((size_t)sets, sizeof *w->set);
        w->cell = calloc((size_t)(sets * job->n_methods), sizeof *w->cell);
    }
    if (!w || !w->set || !w->cell) {
        work_close(w);
        return err_set(ERR_NOMEM, "no memory for %lld datasets", (long long)sets);
    }
    w->job = job;
    if (task_cache_open(&w->cache)) {
        work_close(w);
        return ERR_NOMEM;
    }
    w->n_sets = (int)sets;
    w->n_cells = (int)sets * job->n_methods;
    for (int m = 0; m < job->n_models; m++)
        for (int t = 0; t < job->n_tasks; t++)
            for (int64_t k = 0; k < job->task[t].lengths.n; k++, s++) {
                w->set[s] = (struct work_set){.model = m, .task = t, .length = job->task[t].lengths.v[k]};
                fill_env(&w->set[s], job);
                w->set[s].env.cache = w->cache;
                for (int a = 0; a < job->n_methods; a++)
                    w->cell[c++] =
                        (struct work_cell){.model = m, .task = t, .method = a, .set = (int)s, .length = w->set[s].env.length};
            }
    *out = w;
    return ERR_OK;
}

void work_close(struct work *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n_sets && w->set; i++) {
        struct work_set *s = &w->set[i];
        if (s->set)
            w->job->task[s->task].impl->close(s->set);
        free(s->order);
        free(s->batch_at);
        free(s->signature);
    }
    task_cache_close(w->cache);
    free(w->set);
    free(w->cell);
    free(w);
}

struct by_length {
    int64_t size, id;
};

/* Longest first; equal ones in the dataset's order. */
static int compare(const void *x, const void *y)
{
    const struct by_length *a = x, *b = y;
    if (a->size != b->size)
        return a->size > b->size ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static int bucket(int64_t size)
{
    return size < 1 ? 0 : ilogb((double)size);
}

/* Orders the samples and cuts batches: at most batch_tokens and batch_samples, of one length class (powers of two). */
static int cut_batches(struct work_set *s, const struct task *task, const struct job_run *run)
{
    struct by_length *v = calloc((size_t)s->n, sizeof *v);
    int64_t in_batch = 0, tokens = 0;
    s->order = calloc((size_t)s->n, sizeof *s->order);
    s->batch_at = calloc((size_t)s->n + 1, sizeof *s->batch_at);
    if (!v || !s->order || !s->batch_at) {
        free(v);
        return err_set(ERR_NOMEM, "no memory for %lld samples", (long long)s->n);
    }
    for (int64_t i = 0; i < s->n; i++) {
        struct task_sample x;
        task->sample(s->set, i, &x);
        v[i] = (struct by_length){.size = x.tokens + x.generate, .id = i};
        s->tokens += x.tokens;
    }
    qsort(v, (size_t)s->n, sizeof *v, compare);
    for (int64_t p = 0; p < s->n; p++) {
        s->order[p] = v[p].id;
        if (in_batch > 0 && (tokens + v[p].size > run->batch_tokens || in_batch >= run->batch_samples ||
                             bucket(v[p].size) != bucket(v[p - 1].size))) {
            s->batch_at[++s->n_batches] = p;
            in_batch = tokens = 0;
        }
        in_batch++;
        tokens += v[p].size;
    }
    s->batch_at[++s->n_batches] = s->n;
    free(v);
    return ERR_OK;
}

int work_need(struct work *w, int set)
{
    struct work_set *s = &w->set[set];
    const struct job_task *t = &w->job->task[s->task];
    struct buf b = {0};
    int rc;
    if (s->set)
        return ERR_OK;
    rc = t->impl->open(&s->set, t->opts, &s->env);
    if (rc)
        return err_prefix(rc, "task %s, length %lld", t->name, (long long)s->env.length);
    s->n = t->impl->count(s->set);
    if (s->n < 1)
        return err_set(ERR_FORMAT, "task %s, length %lld: the dataset has no samples", t->name, (long long)s->env.length);
    rc = cut_batches(s, t->impl, &w->job->run);
    rc = rc ? rc : t->impl->signature(s->set, &b);
    s->signature = rc ? NULL : strdup(buf_text(&b));
    buf_free(&b);
    return rc || s->signature ? rc : err_set(ERR_NOMEM, "no memory for a signature");
}

/* Of the whole model: a group's ranks share it. */
static struct attn_shape shape_of(const struct model_info *i)
{
    return (struct attn_shape){.heads = i->heads,
                               .kv_heads = i->kv_heads,
                               .dim = i->dim,
                               .hidden = i->hidden,
                               .n_layers = i->layers,
                               .scale = 1 / sqrtf((float)i->dim),
                               .window = i->window};
}

static void add_attention(const struct job *j, const struct work_cell *c, int64_t tokens, struct attn_cost *out)
{
    const struct job_method *m = &j->method[c->method];
    struct attn_shape shape = shape_of(&j->model[c->model].info);
    struct attn_cost one;
    *out = (struct attn_cost){0};
    for (shape.layer = 0; shape.layer < shape.n_layers; shape.layer++) {
        one = (struct attn_cost){0};
        m->impl->cost(m->opts, &shape, 0, tokens, &one);
        out->flops += one.flops;
        out->pairs += one.pairs;
    }
}

void work_cost(const struct work *w, int cell, int64_t first, int64_t n, struct work_cost *out)
{
    const struct work_cell *c = &w->cell[cell];
    const struct work_set *s = &w->set[c->set];
    const struct model_info *info = &w->job->model[c->model].info;
    const struct task *task = w->job->task[c->task].impl;
    struct attn_cost attn = {0};
    int64_t known = -1;
    *out = (struct work_cost){0};
    for (int64_t p = first; p < first + n; p++) {
        struct task_sample x;
        task->sample(s->set, s->order[p], &x);
        double generated = DECODE_WEIGHT * (double)x.generate;
        out->tokens += (double)x.tokens;
        out->linear_flops +=
            ((double)x.tokens + generated) * info->flops_linear + ((double)x.scored + generated) * info->flops_head;
        /* Sorted by length: the same question often comes again. */
        if (x.tokens + x.generate != known) {
            known = x.tokens + x.generate;
            add_attention(w->job, c, known, &attn);
        }
        out->attn_flops += attn.flops;
        out->pairs += attn.pairs;
    }
}

double work_seconds(const struct work_cost *c, const struct work_rate *r)
{
    return c->linear_flops / r->linear + c->attn_flops / r->attn;
}

void work_cell_name(const struct work *w, int cell, char *out, int cap)
{
    const struct work_cell *c = &w->cell[cell];
    snprintf(out, (size_t)cap, "%s, %s, %s, length %lld", w->job->model[c->model].name, w->job->method[c->method].name,
             w->job->task[c->task].name, (long long)c->length);
}
