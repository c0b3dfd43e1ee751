/* Prediction: the run's own cost model, calibrated (plan_measure.c), and the run's own schedule in virtual time. */
#include "sched/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/timer.h"
#include "sched/board.h"
#include "sched/exec.h"
#include "sched/job.h"
#include "sched/layout.h"
#include "sched/policy.h"
#include "sched/simulate.h"

/* Operations a second of one thread, until something is measured. */
static const double LINEAR = 3e10, ATTN = 1e10;
/* What doubling the ranks or the threads of a group leaves of its efficiency: `asterism speed` and tests/bench/scaling.sh
 * measure it. */
static const double TENSOR_KEEPS = 0.88, THREADS_KEEP = 0.92;

/* ---- lengths to measure at ---- */

enum { SHORT = 2, SHORTEST = 256 };

static int by_length(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The task's lengths, with a quarter and a sixteenth of the longest. */
static int more_lengths(struct job_task *t, const struct job *job)
{
    int64_t longest = 0, *v = calloc((size_t)t->lengths.n + SHORT, sizeof *v), n = 0;
    if (!v)
        return err_set(ERR_NOMEM, "no memory for the plan");
    for (int64_t k = 0; k < t->lengths.n; k++) {
        v[n++] = t->lengths.v[k];
        longest = t->lengths.v[k] > longest ? t->lengths.v[k] : longest;
    }
    for (int m = 0; longest == 0 && m < job->n_models; m++)
        longest = job->model[m].info.context;
    for (int k = 0; k < SHORT; k++) {
        int64_t l = longest >> (k ? 4 : 2);
        bool there = l < SHORTEST;
        for (int64_t i = 0; i < n; i++)
            there = there || v[i] == l;
        if (!there)
            v[n++] = l;
    }
    qsort(v, (size_t)n, sizeof *v, by_length);
    t->lengths.v = v;
    t->lengths.n = n;
    return ERR_OK;
}

/* A copy of the job that borrows all but the tasks' lengths. */
static int copy_job(struct plan *p, const struct job *job)
{
    int rc = ERR_OK;
    p->job = malloc(sizeof *p->job);
    struct job_task *task = calloc((size_t)job->n_tasks, sizeof *task);
    if (!p->job || !task) {
        free(task);
        free(p->job);
        p->job = NULL;
        return err_set(ERR_NOMEM, "no memory for the plan");
    }
    *p->job = *job;
    p->job->task = task;
    for (int t = 0; t < job->n_tasks; t++) {
        task[t] = job->task[t];
        task[t].lengths.v = NULL;
    }
    for (int t = 0; t < job->n_tasks && !rc; t++) {
        task[t].lengths = job->task[t].lengths;
        task[t].tensor.n = 0; /* set by choose_tensor, from the job itself */
        rc = more_lengths(&task[t], job);
        if (rc)
            task[t].lengths.v = NULL;
    }
    return rc;
}

static bool is_asked(const struct job *job, const struct work_set *s)
{
    const struct cfg_ints *l = &job->task[s->task].lengths;
    for (int64_t k = 0; k < l->n; k++)
        if (l->v[k] == s->length)
            return true;
    return false;
}

/* Sizes of groups as the run will choose them. */
static void choose_tensor(struct plan *p, const struct job *job, const struct plan_opts *o)
{
    layout_choose(p->work, o->ranks, (size_t)(p->memory / p->here));
    for (int i = 0; i < p->work->n_sets; i++) {
        struct work_set *s = &p->work->set[i];
        const struct cfg_ints *l = &job->task[s->task].lengths, *t = &job->task[s->task].tensor;
        for (int64_t k = 0; k < l->n; k++)
            if (l->v[k] == s->length && t->n > 0 && t->v[t->n > 1 ? k : 0] > 0)
                s->tensor = (int)t->v[t->n > 1 ? k : 0];
    }
}

static int open_cells(struct plan *p, const struct job *job)
{
    int rc = copy_job(p, job);
    rc = rc ? rc : work_open(&p->work, p->job);
    for (int i = 0; !rc && i < p->work->n_sets; i++) {
        double t0 = timer_now();
        rc = work_need(p->work, i);
        p->data_s += is_asked(job, &p->work->set[i]) ? timer_now() - t0 : 0;
    }
    if (rc)
        return rc;
    p->load_s = calloc((size_t)job->n_models, sizeof *p->load_s);
    if (!p->load_s)
        return err_set(ERR_NOMEM, "no memory for the plan");
    p->cell = calloc((size_t)p->work->n_cells, sizeof *p->cell);
    if (!p->cell)
        return err_set(ERR_NOMEM, "no memory for the plan");
    for (int i = 0; i < p->work->n_cells; i++) {
        const struct work_set *s = &p->work->set[p->work->cell[i].set];
        p->cell[i].asked = is_asked(job, s);
        p->cell[i].samples = s->n;
        p->cell[i].batches = s->n_batches;
        work_cost(p->work, i, 0, s->n, &p->cell[i].cost);
    }
    return ERR_OK;
}

/* ---- the schedule ---- */

static double as_predicted(void *context, const struct shard *s)
{
    (void)context;
    return s->work;
}

/* How much faster a group is than one rank with the threads that were measured. */
static double group_speed(const struct plan *p, int threads, int tensor)
{
    return tensor * pow(TENSOR_KEEPS, log2(tensor)) * threads / p->threads * pow(THREADS_KEEP, log2((double)threads / p->threads));
}

struct phase {
    const struct plan *p;
    const struct plan_layout *l;
    int tensor;
    struct board_cell *cell; /* (cells,) */
};

static int cost_phase(const struct phase *f)
{
    const struct work *w = f->p->work;
    double speed = group_speed(f->p, f->l->threads, f->tensor);
    for (int i = 0; i < w->n_cells; i++) {
        const struct work_set *s = &w->set[w->cell[i].set];
        struct plan_cell *pc = &f->p->cell[i];
        bool here = pc->asked && (f->l->tensor > 0 || s->tensor == f->tensor);
        double *cost = calloc((size_t)s->n_batches, sizeof *cost);
        if (!cost)
            return err_set(ERR_NOMEM, "no memory for the plan");
        f->cell[i] = (struct board_cell){.model = w->cell[i].model, .batch_at = s->batch_at, .batch_work = cost};
        if (!here)
            continue;
        f->cell[i].n = s->n;
        f->cell[i].n_batches = s->n_batches;
        double sum = 0;
        for (int64_t k = 0; k < s->n_batches; k++) {
            struct work_cost c;
            work_cost(w, i, s->batch_at[k], s->batch_at[k + 1] - s->batch_at[k], &c);
            sum += cost[k] = work_seconds(&c, &pc->rate) / speed;
        }
        if (f->l == f->p->layout)
            pc->seconds = sum;
    }
    return ERR_OK;
}

/* One phase in virtual time; adds to the layout. */
static int run_phase(const struct phase *f, struct plan_layout *l)
{
    const struct job *job = f->p->job;
    struct board *b = NULL;
    struct simulated r;
    int groups = l->ranks > 1 ? (l->ranks - 1) / f->tensor : 1, rc = cost_phase(f);
    struct board_opts o = {.policy = policy_find(job->run.policy),
                           .n_groups = groups,
                           .n_models = job->n_models,
                           .tries = (int)job->run.tries,
                           .shard_s = job->run.shard_s};
    rc = rc ? rc : board_open(&b, f->cell, f->p->work->n_cells, &o);
    rc = rc ? rc : simulate(b, groups, as_predicted, NULL, &r);
    if (!rc) {
        l->groups = l->groups ? l->groups : groups;
        l->shards += r.shards;
        l->work_s += r.work_s * f->tensor;
        l->wall_s += r.makespan_s;
    }
    board_close(b);
    return rc;
}

static double bytes_of(const struct plan *p, int cell, int tensor)
{
    return (p->cell[cell].bytes + job_weight_bytes(&p->job->model[p->work->cell[cell].model])) / tensor;
}

static int try_layout(struct plan *p, struct plan_layout *l)
{
    int n = p->work->n_cells, sizes[64] = {l->tensor}, phases = 1, rc = ERR_OK;
    struct board_cell *cell = calloc((size_t)n, sizeof *cell);
    bool known = true;
    if (!cell)
        return err_set(ERR_NOMEM, "no memory for the plan");
    if (l->tensor == 0) {
        int *all = calloc((size_t)p->work->n_sets, sizeof *all);
        phases = all ? layout_phases(p->work, all) : 0;
        for (int k = 0; k < phases && k < 64; k++)
            sizes[k] = all[k];
        free(all);
    }
    for (int k = 0; k < phases && k < 64 && !rc; k++) {
        rc = run_phase(&(struct phase){.p = p, .l = l, .tensor = sizes[k], .cell = cell}, l);
        for (int i = 0; i < n; i++)
            free((double *)(uintptr_t)cell[i].batch_work);
        memset(cell, 0, (size_t)n * sizeof *cell);
    }
    free(cell);
    /* A group reads the data once, and each model that it works on: all of them where there are fewer groups. */
    double load = 0;
    for (int m = 0; m < p->job->n_models; m++)
        load += p->load_s[m];
    l->wall_s += p->data_s + load / (l->groups < p->job->n_models ? l->groups : p->job->n_models);
    for (int i = 0; i < n; i++) {
        int T = l->tensor > 0 ? l->tensor : p->work->set[p->work->cell[i].set].tensor;
        known = known && (!p->cell[i].asked || p->cell[i].bytes > 0);
        if (p->cell[i].asked)
            l->rank_bytes = fmax(l->rank_bytes, bytes_of(p, i, T));
    }
    l->efficiency = l->wall_s > 0 ? l->work_s / (l->wall_s * (l->ranks > 1 ? l->ranks - 1 : 1)) : 1;
    l->fits = l->rank_bytes * p->here * p->threads / l->threads <= p->memory;
    l->rank_bytes = known ? l->rank_bytes : 0;
    return rc;
}

/* As asked for, then other ways to use as many cores: more threads, larger groups. */
static int try_layouts(struct plan *p, const struct plan_opts *o)
{
    int cores = o->ranks * p->threads, heads = INT32_MAX, same = p->work->set[0].tensor, rc;
    for (int i = 0; i < p->work->n_sets; i++)
        same = p->work->set[i].tensor == same ? same : 0;
    for (int m = 0; m < p->job->n_models; m++)
        heads = p->job->model[m].info.heads < heads ? (int)p->job->model[m].info.heads : heads;
    p->layout[p->n_layouts++] = (struct plan_layout){.ranks = o->ranks, .threads = p->threads};
    rc = try_layout(p, &p->layout[0]);
    for (int threads = p->threads; threads <= 4 * p->threads && !rc; threads *= 2)
        for (int T = 1; T <= heads && heads % T == 0 && p->n_layouts < PLAN_LAYOUTS && !rc; T *= 2) {
            int ranks = cores / threads;
            if (ranks < 2 || (ranks - 1) / T < 1)
                break;
            if (threads == p->threads && T == same) /* as asked for */
                continue;
            struct plan_layout *l = &p->layout[p->n_layouts++];
            *l = (struct plan_layout){.ranks = ranks, .threads = threads, .tensor = T};
            rc = try_layout(p, l);
        }
    for (int k = 1; k < p->n_layouts; k++) {
        const struct plan_layout *l = &p->layout[k], *best = &p->layout[p->best];
        if (l->fits && (!best->fits || l->wall_s < 0.97 * best->wall_s)) /* what was asked for, unless there is a gain */
            p->best = k;
    }
    return rc;
}

int plan_make(struct plan *p, const struct job *job, const struct plan_opts *o)
{
    int here, cores = mem_cores(), rc;
    *p = (struct plan){.memory = (double)exec_memory(NULL, job->run.memory_gb)};
    rc = layout_check(job, o->ranks);
    if (rc)
        return rc;
    here = o->per_node > 0 ? o->per_node : o->ranks < cores + 1 ? o->ranks : cores + 1;
    p->here = here > 1 ? here - 1 : 1;
    p->threads = job->run.threads > 0 ? (int)job->run.threads : cores / p->here;
    p->threads = p->threads > 0 ? p->threads : 1;
    p->here = p->here * p->threads > cores ? cores / p->threads + (cores < p->threads) : p->here;
    if (job->run.memory_gb > 0)
        p->memory *= p->here; /* it is said of a rank */
    rc = open_cells(p, job);
    if (rc)
        return rc;
    choose_tensor(p, job, o);
    for (int i = 0; i < p->work->n_cells; i++)
        p->cell[i].rate = o->rate.linear > 0 ? o->rate : (struct work_rate){LINEAR * p->threads, ATTN * p->threads};
    p->measured = o->seconds > 0 && !(o->rate.linear > 0);
    if (p->measured)
        rc = plan_measure(p, o->seconds, p->here < o->ranks - 1 ? p->here : o->ranks - 1);
    return rc ? rc : try_layouts(p, o);
}

void plan_free(struct plan *p)
{
    work_close(p->work);
    for (int t = 0; p->job && t < p->job->n_tasks; t++)
        free((int64_t *)(uintptr_t)p->job->task[t].lengths.v);
    if (p->job)
        free(p->job->task);
    free(p->job);
    free(p->cell);
    free(p->load_s);
    *p = (struct plan){0};
}
