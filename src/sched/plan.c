/* Prediction: the run's own cost model, calibrated by running a few of the job's own batches, and the run's own schedule
 * in virtual time. */
#include "sched/plan.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "sched/board.h"
#include "sched/exec.h"
#include "sched/job.h"
#include "sched/outcome.h"
#include "sched/policy.h"
#include "sched/simulate.h"

/* Operations a second of one thread, until something is measured. */
static const double LINEAR = 3e10, ATTN = 1e10;

/* Runs one batch; seconds, or negative with the sentence set. */
static double time_batch(struct exec *e, const struct plan *p, int cell, int64_t batch)
{
    const struct work_set *s = &p->work->set[p->work->cell[cell].set];
    struct exec_shard x = {
        .cell = cell, .first = s->batch_at[batch], .count = s->batch_at[batch + 1] - s->batch_at[batch], .isolate = true};
    struct outcome o;
    int reach;
    if (exec_run(e, &x, &o, &reach))
        return -1;
    double t = o.compute_s;
    outcome_close(&o);
    return t;
}

/* The batch to measure: the first that is predicted to fit into the time, else the shortest. */
static int64_t affordable(const struct plan *p, int cell, double seconds)
{
    const struct work_set *s = &p->work->set[p->work->cell[cell].set];
    for (int64_t k = 0; k < s->n_batches; k++) {
        struct work_cost c;
        work_cost(p->work, cell, s->batch_at[k], s->batch_at[k + 1] - s->batch_at[k], &c);
        if (work_seconds(&c, &p->rate) * 3 < seconds)
            return k;
    }
    return s->n_batches - 1;
}

/* One pass over the cells, a batch each, until `end`. measure: keep what it shows. */
static int pass(struct plan *p, struct exec *e, double end, bool measure)
{
    int n = p->work->n_cells;
    bool warm = false;
    for (int i = 0; i < n && (timer_now() < end || !warm); i++) {
        int64_t k = affordable(p, i, fmax((end - timer_now()) / (n - i), 0.05));
        const struct work_set *s = &p->work->set[p->work->cell[i].set];
        struct work_cost c;
        if (!warm)
            time_batch(e, p, i, s->n_batches - 1); /* pages, caches, threads */
        warm = true;
        double t = time_batch(e, p, i, k);
        if (t < 0)
            return ERR_IO;
        if (!measure)
            continue;
        work_cost(p->work, i, s->batch_at[k], s->batch_at[k + 1] - s->batch_at[k], &c);
        p->cell[i].ratio = t / work_seconds(&c, &p->rate);
        p->cell[i].measured = true;
        p->cell[i].bytes = (double)exec_bytes(e, i, s->batch_at[0], s->batch_at[1]);
    }
    return ERR_OK;
}

static int open_exec(struct plan *p, struct exec **e)
{
    return exec_open(e, p->work,
                     &(struct exec_opts){.memory = exec_memory(NULL, p->work->job->run.memory_gb), .threads = p->threads});
}

/* The other ranks of this machine as processes that do the same: cores share caches, memory and clock. */
static void neighbour(struct plan *p, double seconds)
{
    struct exec *e = NULL;
    double end = timer_now() + 4 * seconds + 60;
    int rc = open_exec(p, &e);
    while (!rc && timer_now() < end)
        rc = pass(p, e, timer_now() + seconds, false);
    _exit(0);
}

static int calibrate(struct plan *p, const struct plan_opts *o)
{
    enum { MAX = 256 };
    pid_t child[MAX];
    struct exec *e = NULL;
    int n = 0, busy = p->here < p->groups * (int)p->work->job->run.tensor ? p->here : p->groups * (int)p->work->job->run.tensor;
    fflush(NULL);
    for (; n < busy - 1 && n < MAX; n++) {
        child[n] = fork(); /* before this process has any thread */
        if (child[n] == 0)
            neighbour(p, o->seconds);
        if (child[n] < 0)
            break;
    }
    int rc = open_exec(p, &e);
    rc = rc ? rc : pass(p, e, timer_now() + o->seconds, true);
    exec_close(e);
    while (n-- > 0) {
        kill(child[n], SIGKILL);
        waitpid(child[n], NULL, 0);
    }
    return rc;
}

/* Cells without a measurement: as the mean of those with the same method, else of all. */
static void spread_ratios(struct plan *p)
{
    for (int i = 0; i < p->work->n_cells; i++) {
        double sum[2] = {0}, n[2] = {0};
        for (int k = 0; k < p->work->n_cells; k++) {
            if (!p->cell[k].measured)
                continue;
            bool same = p->work->cell[k].method == p->work->cell[i].method;
            sum[same] += p->cell[k].ratio;
            n[same]++;
        }
        if (!p->cell[i].measured)
            p->cell[i].ratio = n[1] > 0 ? sum[1] / n[1] : n[0] > 0 ? sum[0] / n[0] : 1;
    }
}

static double as_predicted(void *context, const struct shard *s)
{
    (void)context;
    return s->work;
}

/* The schedule in virtual time, with corrected costs. */
static int schedule(struct plan *p, const struct job *job)
{
    int n = p->work->n_cells, rc = ERR_OK;
    struct board_cell *cells = calloc((size_t)n + 1, sizeof *cells);
    struct board *b = NULL;
    struct simulated r;
    struct board_opts o = {.policy = policy_find(job->run.policy),
                           .n_groups = p->groups,
                           .n_models = job->n_models,
                           .tries = (int)job->run.tries,
                           .shard_s = job->run.shard_s};
    if (!cells)
        return err_set(ERR_NOMEM, "no memory for the plan");
    for (int i = 0; i < n && !rc; i++) {
        const struct work_set *s = &p->work->set[p->work->cell[i].set];
        double *cost = calloc((size_t)s->n_batches, sizeof *cost);
        if (!cost) {
            rc = err_set(ERR_NOMEM, "no memory for the plan");
            break;
        }
        for (int64_t k = 0; k < s->n_batches; k++) {
            struct work_cost c;
            work_cost(p->work, i, s->batch_at[k], s->batch_at[k + 1] - s->batch_at[k], &c);
            cost[k] = work_seconds(&c, &p->rate) * p->cell[i].ratio;
            p->cell[i].seconds += cost[k];
        }
        cells[i] = (struct board_cell){
            .model = p->work->cell[i].model, .n = s->n, .n_batches = s->n_batches, .batch_at = s->batch_at, .batch_work = cost};
    }
    rc = rc ? rc : board_open(&b, cells, n, &o);
    rc = rc ? rc : simulate(b, p->groups, as_predicted, NULL, &r);
    if (!rc) {
        p->shards = r.shards;
        p->work_s = r.work_s;
        p->wall_s = r.makespan_s;
        p->efficiency = r.makespan_s > 0 ? r.work_s / (p->groups * r.makespan_s) : 1;
    }
    board_close(b);
    for (int i = 0; i < n; i++)
        free((double *)(uintptr_t)cells[i].batch_work);
    free(cells);
    return rc;
}

static int open_cells(struct plan *p, const struct job *job)
{
    int rc = work_open(&p->work, job);
    for (int i = 0; !rc && i < p->work->n_sets; i++)
        rc = work_need(p->work, i);
    if (rc)
        return rc;
    p->cell = calloc((size_t)p->work->n_cells, sizeof *p->cell);
    if (!p->cell)
        return err_set(ERR_NOMEM, "no memory for the plan");
    for (int i = 0; i < p->work->n_cells; i++) {
        const struct work_set *s = &p->work->set[p->work->cell[i].set];
        p->cell[i].samples = s->n;
        p->cell[i].batches = s->n_batches;
        work_cost(p->work, i, 0, s->n, &p->cell[i].cost);
    }
    return ERR_OK;
}

int plan_make(struct plan *p, const struct job *job, const struct plan_opts *o)
{
    int tensor = (int)job->run.tensor, here, cores = mem_cores();
    *p = (struct plan){.groups = o->ranks > 1 ? (o->ranks - 1) / tensor : 1};
    if (p->groups < 1)
        return err_set(ERR_ARG, "run.tensor = %d needs at least %d ranks", tensor, tensor + 1);
    here = o->per_node > 0 ? o->per_node : o->ranks < cores + 1 ? o->ranks : cores + 1;
    p->here = here > 1 ? here - 1 : 1;
    p->threads = job->run.threads > 0 ? (int)job->run.threads : cores / p->here;
    p->threads = p->threads > 0 ? p->threads : 1;
    p->here = p->here * p->threads > cores ? cores / p->threads + (cores < p->threads) : p->here;
    p->rate.linear = o->rate.linear > 0 ? o->rate.linear : LINEAR * p->threads * tensor;
    p->rate.attn = o->rate.attn > 0 ? o->rate.attn : ATTN * p->threads * tensor;
    int rc = open_cells(p, job);
    if (!rc && o->seconds > 0 && !(o->rate.linear > 0))
        rc = calibrate(p, o);
    if (rc)
        return rc;
    spread_ratios(p);
    for (int i = 0; i < p->work->n_cells; i++)
        p->rank_bytes =
            fmax(p->rank_bytes, p->cell[i].bytes + (double)job->model[p->work->cell[i].model].info.weight_bytes / tensor);
    return schedule(p, job);
}

void plan_free(struct plan *p)
{
    work_close(p->work);
    free(p->cell);
    *p = (struct plan){0};
}

static void print_cells(FILE *f, const struct plan *p)
{
    fprintf(f, "  %-40s %8s %8s %10s %10s %10s %10s\n", "cell", "samples", "batches", "tokens", "GFLOP", "attention", "group time");
    for (int i = 0; i < p->work->n_cells; i++) {
        const struct plan_cell *c = &p->cell[i];
        double all = c->cost.linear_flops + c->cost.attn_flops;
        char name[256], took[32];
        work_cell_name(p->work, i, name, sizeof name);
        log_duration(c->seconds, took, sizeof took);
        fprintf(f, "  %-40s %8lld %8lld %10.0f %10.1f %8.0f %% %10s%s\n", name, (long long)c->samples, (long long)c->batches,
                c->cost.tokens, all / 1e9, all > 0 ? 100 * c->cost.attn_flops / all : 0, took, c->measured ? "" : " (estimated)");
    }
}

/* Time to ask for: half as much again, in whole minutes, at least five. */
static void slurm_time(double wall_s, char *out, int cap)
{
    int minutes = (int)fmax(5, ceil(wall_s * 1.5 / 60 + 2));
    snprintf(out, (size_t)cap, "%02d:%02d:00", minutes / 60, minutes % 60);
}

void plan_print(FILE *f, const struct plan *p, const struct plan_opts *o, const char *job_path)
{
    char wall[32], work[32], memory[32] = "unknown", limit[32];
    log_duration(p->wall_s, wall, sizeof wall);
    log_duration(p->work_s * (double)p->work->job->run.tensor, work, sizeof work);
    print_cells(f, p);
    if (p->rank_bytes > 0)
        log_bytes(p->rank_bytes, memory, sizeof memory);
    fprintf(f, "\non %d rank%s: %d group%s of %lld, %d thread%s each\n", o->ranks, o->ranks == 1 ? "" : "s", p->groups,
            p->groups == 1 ? "" : "s", (long long)p->work->job->run.tensor, p->threads, p->threads == 1 ? "" : "s");
    fprintf(f,
            "  shards        %lld\n  memory a rank %s\n  computing     %s of all ranks together\n  wall time     %s\n  efficiency  "
            "  %.0f %%\n",
            (long long)p->shards, memory, work, wall, 100 * p->efficiency);
    slurm_time(p->wall_s, limit, sizeof limit);
    fprintf(f, "\n  sbatch -n %d -c %d -t %s --mem-per-cpu=%.0fM slurm/run.sbatch %s\n", o->ranks, p->threads, limit,
            fmax(256, ceil(p->rank_bytes * 1.3 / 1e6 / p->threads)), job_path);
}
