/* Computes shards. Every rank of the group takes the same path: what may differ is agreed on first. */
#include "sched/exec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/shared.h"
#include "comm/comm.h"
#include "kernels/linear.h"
#include "model/gates.h"
#include "model/model.h"
#include "sched/job.h"
#include "sched/outcome.h"
#include "sched/sampled.h"
#include "sched/work.h"

struct exec {
    struct work *w;
    struct exec_opts o;
    struct kern_table kern;
    struct arena step;
    struct model *model;
    int model_index, method_index; /* what is loaded and set; -1: nothing */
    struct gates *gates;           /* of the method that is set, NULL: none */
    struct attn_stats *stats;      /* (layers of the model,) */
    struct sampled *sampled;       /* NULL: not asked for */
};

size_t exec_memory(const struct comm_group *g, double memory_gb)
{
    int rank, size;
    size_t there = mem_available();
    comm_node(g, &rank, &size);
    if (memory_gb > 0)
        return (size_t)(memory_gb * 1e9);
    /* A tenth stays for the system, MPI and HDF5; unknown: as if there were 4 GB. */
    return there ? (size_t)(0.9 * (double)there / size) : (size_t)4000000000;
}

int exec_workers(const struct comm_group *g)
{
    int rank, size;
    comm_node(g, &rank, &size);
    return g && g->size > 1 && size > 1 ? size - 1 : size;
}

int exec_threads(const struct comm_group *g, int64_t asked)
{
    /* Rank 0 only deals out work where there are others: its core is theirs. */
    int workers = exec_workers(g), share = mem_cores() / (workers > 0 ? workers : 1);
    return asked > 0 ? (int)asked : share > 0 ? share : 1;
}

int exec_open(struct exec **out, struct work *w, const struct exec_opts *o)
{
    const char *isa = w->job->run.isa[0] ? w->job->run.isa : NULL;
    struct exec *e = calloc(1, sizeof *e);
    int rc;
    *out = NULL;
    if (!e)
        return err_set(ERR_NOMEM, "no memory for a worker");
    e->w = w;
    e->o = *o;
    e->model_index = e->method_index = -1;
    rc = kern_select(&e->kern, isa);
    if (rc)
        rc = err_set(ERR_ARG, rc == -1 ? "there is no instruction set '%s'" : "this CPU cannot run the instruction set '%s'",
                     isa ? isa : getenv("AST_ISA"));
    if (!rc)
        rc = arena_open(&e->step, "step", o->memory);
    if (rc) {
        free(e);
        return rc;
    }
    kern_threads(o->threads);
    *out = e;
    return ERR_OK;
}

static void drop_model(struct exec *e)
{
    model_close(e->model);
    gates_close(e->gates);
    free(e->stats);
    sampled_close(e->sampled);
    e->sampled = NULL;
    e->model = NULL;
    e->gates = NULL;
    e->stats = NULL;
    e->model_index = e->method_index = -1;
}

void exec_close(struct exec *e)
{
    if (!e)
        return;
    drop_model(e);
    arena_close(&e->step);
    free(e);
}

/* The method, with its gate weights where it has any. Local. */
static int set_method(struct exec *e, const struct job_method *a)
{
    struct gates *old = e->gates;
    int rc = ERR_OK;
    e->gates = NULL;
    if (a->gate[0] && !(a->impl->caps & ATTN_LEARNED))
        rc = err_set(ERR_ARG, "gate = \"%s\": attention method %s does not learn", a->gate, a->impl->name);
    else if (a->gate[0])
        rc = gates_open(&e->gates, a->gate, model_info(e->model));
    rc = rc ? rc : model_set_attention(e->model, a->impl, a->opts, gates_params(e->gates));
    gates_close(old);
    return rc;
}

void exec_regroup(struct exec *e, const struct comm_group *group)
{
    drop_model(e);
    e->o.group = group;
}

/* Bytes of weights that count as this rank's: its part of what the ranks of this machine share, if they do. */
static double weight_part(const struct exec *e, double bytes, bool shared)
{
    int parts = e->o.group ? e->o.group->size : 1, alike = e->o.workers / parts;
    return shared && alike > 1 ? bytes / alike : bytes;
}

static bool wants_sharing(const struct exec *e, double bytes)
{
    bool huge;
    switch (e->w->job->run.share_weights) {
    case JOB_SHARE_ON: return true;
    case JOB_SHARE_OFF: return false;
    default: /* somebody to share with, and as fast as a copy of one's own or the only way */
        return weight_part(e, bytes, true) < bytes && ((!shared_probe(&huge) && huge) || bytes > (double)e->o.memory);
    }
}

/* Opens the cell's model and sets its method, unless they are there. Collective. */
static int prepare(struct exec *e, const struct work_cell *c, int *reach)
{
    const struct job_model *m = &e->w->job->model[c->model];
    const struct job_method *a = &e->w->job->method[c->method];
    struct model_open how = {.path = m->path,
                             .dtype = (enum kern_dtype)m->dtype,
                             .kv_dtype = (enum kern_dtype)m->kv_dtype,
                             .group = e->o.group,
                             .kern = &e->kern,
                             .check_finite = m->check_finite};
    int rc = ERR_OK;
    *reach = EXEC_NO_MODEL;
    if (e->model_index != c->model) {
        drop_model(e);
        double bytes = job_weight_bytes(m) / (e->o.group ? e->o.group->size : 1), part;
        how.share = wants_sharing(e, bytes);
        how.own_max = e->o.memory;
        part = weight_part(e, bytes, how.share);
        if (part > (double)e->o.memory)
            rc = err_set(ERR_NOMEM, "%s: its weights need %.3f GB of each rank, %.3f GB are allowed", m->path, part / 1e9,
                         (double)e->o.memory / 1e9);
        rc = comm_agree(e->o.group, rc);
        rc = rc ? rc : model_open(&e->model, &how);
        if (rc)
            return rc;
        if (e->w->job->run.share_weights == JOB_SHARE_ON && !model_info(e->model)->shared)
            log_warn("%s: run.share_weights is on, but a copy of its own is loaded; `asterism doctor` says why", m->path);
        e->stats = calloc((size_t)m->info.layers, sizeof *e->stats);
        rc = e->stats ? ERR_OK : err_set(ERR_NOMEM, "no memory for counters");
        if (!rc && e->w->job->run.sparsity > 0)
            rc = sampled_open(&e->sampled, model_info(e->model), e->w->job->run.sparsity);
        rc = comm_agree(e->o.group, rc);
        if (rc) {
            drop_model(e);
            return rc;
        }
        e->model_index = c->model;
    }
    *reach = EXEC_NO_METHOD;
    if (e->method_index != c->method) {
        rc = comm_agree(e->o.group, set_method(e, a));
        e->method_index = rc ? -1 : c->method;
    }
    return rc;
}

size_t exec_bytes(struct exec *e, int cell, int64_t first, int64_t count)
{
    const struct work_cell *c = &e->w->cell[cell];
    const struct work_set *s = &e->w->set[c->set];
    const struct task *t = e->w->job->task[c->task].impl;
    int64_t tokens = 0, longest = 0;
    if (e->model_index != c->model)
        return 0;
    for (int64_t p = first; p < first + count; p++) {
        struct task_sample x;
        t->sample(s->set, s->order[p], &x);
        tokens += x.tokens;
        longest = x.tokens + x.generate > longest ? x.tokens + x.generate : longest;
    }
    return t->run_bytes(s->set, e->model, count, tokens, longest);
}

/* Predicted share of the memory that n samples from position take; the largest over the group. Collective. */
static double memory_share(struct exec *e, int cell, int64_t position, int64_t n, double *bytes)
{
    *bytes = (double)exec_bytes(e, cell, position, n);
    const struct model_info *i = model_info(e->model);
    double room = (double)e->o.memory - weight_part(e, (double)i->weight_bytes, i->shared),
           share = room > 0 ? *bytes / room : (double)INFINITY;
    comm_max_f64(e->o.group, &share, 1);
    return share;
}

static void mark(struct outcome *o, int64_t n, int status)
{
    for (int64_t i = 0; i < n; i++) {
        o->status[o->n + i] = status;
        if (buf_printf(&o->reason[o->n + i], "%s", err_text()))
            buf_clear(&o->reason[o->n + i]);
    }
    o->failed += n;
    o->n += n;
    err_clear();
}

struct piece { /* a batch, or a part of one */
    const struct exec_shard *shard;
    const struct work_cell *cell;
    struct outcome *o;
    int64_t position, n;
};

/* Is a sample of the piece one whose attention is mapped? */
static bool is_mapped(const struct exec *e, const struct piece *p)
{
    bool any = false;
    for (int64_t i = 0; i < p->n; i++)
        any = any || p->o->sample[p->o->n + i] < e->w->job->run.maps;
    return e->sampled && any;
}

static int64_t span_of(const struct work_set *s, const struct task *t, int64_t sample)
{
    struct task_sample x;
    t->sample(s->set, sample, &x);
    return x.tokens + x.generate;
}

/* Runs the samples at once. Collective. */
static int run_samples(struct exec *e, const struct piece *p)
{
    const struct work_set *s = &e->w->set[p->cell->set];
    const struct job_task *t = &e->w->job->task[p->cell->task];
    struct outcome *o = p->o;
    size_t mark_at = arena_mark(&e->step);
    int64_t tokens = 0;
    struct task_call c = {.set = s->set,
                          .model = e->model,
                          .tok = s->env.tok,
                          .env = &s->env,
                          .sample = &o->sample[o->n],
                          .n = p->n,
                          .acc = &o->acc[o->n],
                          .text = e->w->job->run.text ? &o->text[o->n] : NULL,
                          .timer = &o->timer,
                          .stats = e->stats,
                          .step = &e->step};
    memset(c.acc, 0, (size_t)p->n * sizeof *c.acc);
    for (int64_t i = 0; i < p->n; i++)
        buf_clear(&o->text[o->n + i]);
    if (is_mapped(e, p))
        sampled_map(e->sampled, span_of(s, t->impl, o->sample[o->n]));
    double t0 = timer_now();
    int rc = comm_agree(e->o.group, t->impl->run(&c));
    arena_release(&e->step, mark_at);
    rc = rc ? rc : sampled_keep_map(e->sampled, o, o->sample[o->n], e->o.group);
    sampled_map(e->sampled, 0);
    if (rc)
        return rc;
    double spent = timer_now() - t0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < p->n; i++) {
            struct task_sample x;
            t->impl->sample(s->set, o->sample[o->n + i], &x);
            if (pass == 0)
                tokens += x.tokens + x.generate;
            else
                o->seconds[o->n + i] = spent * (double)(x.tokens + x.generate) / (double)(tokens > 0 ? tokens : 1);
            o->tokens += pass ? x.tokens : 0;
        }
    o->n += p->n;
    return ERR_OK;
}

/* Admits by memory, runs, and on failure halves until the sample that fails stands alone. Collective. */
static int run_piece(struct exec *e, struct piece p)
{
    double bytes, share = memory_share(e, p.shard->cell, p.position, p.n, &bytes);
    bool split = p.n > 1 && is_mapped(e, &p); /* those run alone */
    int rc = ERR_OK;
    if (split)
        rc = ERR_NOMEM;
    else if (share > 1)
        rc = err_set(ERR_NOMEM, "needs %.3f GB beside the weights, a rank may use %.3f GB in all", bytes / 1e9,
                     (double)e->o.memory / 1e9);
    else
        rc = run_samples(e, &p);
    if (!rc)
        return ERR_OK;
    if (rc != ERR_NOMEM && share <= 1 && !p.shard->isolate)
        return rc;
    if (p.n == 1) {
        mark(p.o, 1, rc == ERR_NOMEM ? OUTCOME_MEMORY : OUTCOME_FAILED);
        return ERR_OK;
    }
    err_clear();
    int64_t half = p.n / 2;
    struct piece second = p;
    p.n = half;
    second.position += half;
    second.n -= half;
    rc = run_piece(e, p);
    return rc ? rc : run_piece(e, second);
}

static int add_stats(const struct exec *e, struct outcome *o)
{
    for (int l = 0; l < o->layers; l++) {
        const struct attn_stats *s = &e->stats[l];
        o->layer[l] =
            (struct outcome_layer){s->pairs_seen, s->pairs_causal, s->tile_dense, s->tile_blocks, s->tile_gather, s->select_s};
    }
    comm_sum_f64(e->o.group, &o->layer[0].pairs_seen, (int64_t)o->layers * 6);
    return sampled_end(e->sampled, o, e->o.group);
}

/* The batches of the shard, as far as go() lets us. Collective. */
static int run_batches(struct exec *e, const struct exec_shard *s, const struct work_cell *c, struct outcome *o)
{
    const struct work_set *set = &e->w->set[c->set];
    int64_t at = s->first, end = s->first + s->count, k = 0;
    int rc = ERR_OK;
    for (int64_t i = 0; i < s->count; i++)
        o->sample[i] = set->order[s->first + i];
    while (k < set->n_batches && set->batch_at[k + 1] <= at)
        k++;
    for (; at < end && !rc; k++) {
        int64_t stop = set->batch_at[k + 1] < end ? set->batch_at[k + 1] : end;
        int32_t go = !s->go || at == s->first || (e->o.group && e->o.group->rank > 0) || s->go(s->context);
        comm_bcast(e->o.group, &go, sizeof go, 0);
        if (!go)
            break;
        rc = run_piece(e, (struct piece){.shard = s, .cell = c, .o = o, .position = at, .n = stop - at});
        at = stop;
    }
    return rc;
}

int exec_run(struct exec *e, const struct exec_shard *s, struct outcome *o, int *reach)
{
    const struct work_cell *c = &e->w->cell[s->cell];
    const struct task *t = e->w->job->task[c->task].impl;
    double peak, t0 = timer_now();
    int rc = comm_agree(e->o.group, work_need(e->w, c->set));
    *reach = EXEC_SHARD;
    *o = (struct outcome){0};
    if (!rc)
        rc = prepare(e, c, reach);
    if (!rc) {
        *reach = EXEC_SHARD;
        rc = comm_agree(e->o.group, outcome_open(o, s->count, (int)model_info(e->model)->layers));
    }
    if (rc)
        return rc;
    o->cell = s->cell;
    o->first = s->first;
    o->rank = e->o.rank;
    o->group_size = e->o.group ? e->o.group->size : 1;
    o->begin_s = timer_wall();
    o->timer.s[TIMER_LOAD] = timer_now() - t0;
    while (t->count_name && t->count_name[o->n_counts])
        o->n_counts++;
    while (t->sum_name && t->sum_name[o->n_sums])
        o->n_sums++;
    memset(e->stats, 0, (size_t)o->layers * sizeof *e->stats);
    sampled_begin(e->sampled, e->stats);
    t0 = timer_now();
    rc = run_batches(e, s, c, o);
    o->compute_s = timer_now() - t0;
    o->end_s = timer_wall();
    rc = rc ? rc : add_stats(e, o);
    if (rc) {
        outcome_close(o);
        return rc;
    }
    peak = (double)mem_peak();
    comm_max_f64(e->o.group, &peak, 1);
    o->peak_bytes = (size_t)peak;
    return ERR_OK;
}
