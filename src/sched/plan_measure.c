/* Calibration: batches of the job's own, short lengths first, and from them what an operation takes in the linear layers and
 * in attention. A cell too long to be run in a few seconds is predicted from its shorter ones. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "sched/exec.h"
#include "sched/job.h"
#include "sched/outcome.h"
#include "sched/plan.h"

struct fit {                       /* what was run of a model, method and task */
    double linear_flops, linear_s; /* all but attention; sums over batches */
    double attn_flops, attn_s;     /* of the longest length alone: the nearest to what is longer still */
    int64_t attn_length;
    int n;
};

struct taken {
    double all_s, attn_s;
};

static void add(struct fit *f, const struct work_cost *c, const struct taken *t, int64_t length)
{
    if (length > f->attn_length)
        f->attn_flops = f->attn_s = 0;
    f->attn_length = length;
    f->attn_flops += c->attn_flops;
    f->attn_s += t->attn_s;
    f->linear_flops += c->linear_flops;
    f->linear_s += fmax(t->all_s - t->attn_s, 1e-6);
    f->n++;
}

static struct work_rate solve(const struct fit *f, const struct work_rate *guess)
{
    struct work_rate r = *guess;
    if (f->n == 0)
        return r;
    r.linear = f->linear_flops / f->linear_s;
    if (f->attn_flops > 0 && f->attn_s > 0)
        r.attn = f->attn_flops / f->attn_s;
    return r;
}

static void cost_of(const struct plan *p, int cell, int64_t batch, struct work_cost *c)
{
    const struct work_set *s = &p->work->set[p->work->cell[cell].set];
    work_cost(p->work, cell, s->batch_at[batch], s->batch_at[batch + 1] - s->batch_at[batch], c);
}

/* Runs one batch. */
static int run_batch(struct exec *e, struct plan *p, int cell, int64_t batch, struct taken *t)
{
    const struct work_set *s = &p->work->set[p->work->cell[cell].set];
    struct exec_shard x = {
        .cell = cell, .first = s->batch_at[batch], .count = s->batch_at[batch + 1] - s->batch_at[batch], .isolate = true};
    struct outcome o;
    int reach, rc = exec_run(e, &x, &o, &reach);
    if (!rc) {
        double *load = &p->load_s[p->work->cell[cell].model];
        *load = fmax(*load, o.timer.s[TIMER_LOAD]);
        *t = (struct taken){o.compute_s, o.timer.s[TIMER_ATTN]};
        outcome_close(&o);
    }
    return rc;
}

struct series { /* the cells of one model, method and task, by length */
    struct plan *p;
    struct exec *e;
    int model, method, task;
    struct work_rate guess;
    struct fit fit;
    double end; /* when its time is over */
    bool keep;  /* what it shows; a neighbour only keeps the machine busy */
};

/* One batch of a cell, if there is time for what it is thought to take. */
static int try_batch(struct series *s, int cell, int64_t batch)
{
    struct work_cost c;
    struct work_rate now = solve(&s->fit, &s->guess);
    cost_of(s->p, cell, batch, &c);
    if (s->fit.n > 0 && timer_now() + work_seconds(&c, &now) > s->end)
        return ERR_OK;
    struct taken t;
    int rc = ERR_OK;
    if (s->fit.n == 0) /* pages, caches, threads: not counted */
        rc = run_batch(s->e, s->p, cell, s->p->cell[cell].batches - 1, &t);
    rc = rc ? rc : run_batch(s->e, s->p, cell, batch, &t);
    if (rc)
        return rc;
    add(&s->fit, &c, &t, s->p->work->cell[cell].length);
    if (s->keep)
        s->p->cell[cell].measured++;
    return ERR_OK;
}

/* Batches from all over the order, which goes from long samples to short ones. */
static int measure_cell(struct series *s, int cell)
{
    static const double at[] = {0.5, 0.15, 0.85, 0.3, 0.7};
    int64_t n = s->p->cell[cell].batches, last = -1;
    int rc = ERR_OK;
    for (size_t k = 0; k < sizeof at / sizeof at[0] && (int64_t)k < n && !rc; k++) {
        int64_t b = (int64_t)(at[k] * (double)n);
        if (b != last)
            rc = try_batch(s, cell, b);
        last = b;
    }
    return rc;
}

static int measure_series(struct series *s)
{
    struct plan *p = s->p;
    const struct work *w = p->work;
    int64_t upto = 0;
    for (;;) { /* by length, shortest first */
        int next = -1;
        for (int i = 0; i < w->n_cells; i++)
            if (w->cell[i].model == s->model && w->cell[i].method == s->method && w->cell[i].task == s->task &&
                w->cell[i].length > upto && (next < 0 || w->cell[i].length < w->cell[next].length))
                next = i;
        if (next < 0)
            break;
        upto = w->cell[next].length;
        int rc = measure_cell(s, next);
        /* A length that is only here to be measured may be too short for the task. */
        if (rc && p->cell[next].asked)
            return rc;
        if (rc)
            err_clear();
    }
    for (int i = 0; s->keep && i < w->n_cells; i++)
        if (w->cell[i].model == s->model && w->cell[i].method == s->method && w->cell[i].task == s->task) {
            p->cell[i].rate = solve(&s->fit, &s->guess);
            p->cell[i].bytes = (double)exec_bytes(s->e, i, 0, w->set[w->cell[i].set].batch_at[1]);
        }
    return ERR_OK;
}

static int measure_all(struct plan *p, struct exec *e, double seconds, bool keep)
{
    const struct job *j = p->job;
    int left = j->n_models * j->n_methods * j->n_tasks, rc = ERR_OK;
    double end = timer_now() + seconds;
    for (int m = 0; m < j->n_models && !rc; m++)
        for (int t = 0; t < j->n_tasks && !rc; t++)
            for (int a = 0; a < j->n_methods && !rc; a++, left--) {
                double now = timer_now();
                struct series s = {.p = p, .e = e, .model = m, .method = a, .task = t, .guess = p->cell[0].rate, .keep = keep};
                s.end = now + fmax(0, end - now) / left;
                rc = measure_series(&s);
            }
    return rc;
}

static int open_exec(struct plan *p, struct exec **e)
{
    return exec_open(e, p->work, &(struct exec_opts){.memory = exec_memory(NULL, p->job->run.memory_gb), .threads = p->threads});
}

/* The other ranks of this machine as processes that do the same: cores share caches, memory and clock. */
static _Noreturn void neighbour(struct plan *p, double seconds)
{
    struct exec *e = NULL;
    double end = timer_now() + 8 * seconds + 60;
    int rc = open_exec(p, &e);
    while (!rc && timer_now() < end)
        rc = measure_all(p, e, seconds, false);
    _exit(0);
}

int plan_measure(struct plan *p, double seconds, int busy)
{
    enum { MAX = 256 };
    pid_t child[MAX];
    struct exec *e = NULL;
    int n = 0;
    fflush(NULL);
    for (; n < busy - 1 && n < MAX; n++) {
        child[n] = fork(); /* before this process has any thread */
        if (child[n] == 0)
            neighbour(p, seconds);
        if (child[n] < 0)
            break;
    }
    int rc = open_exec(p, &e);
    rc = rc ? rc : measure_all(p, e, seconds, true);
    exec_close(e);
    while (n-- > 0) {
        kill(child[n], SIGKILL);
        waitpid(child[n], NULL, 0);
    }
    return rc;
}
