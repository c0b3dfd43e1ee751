/* Phases of dealing out, on rank 0. */
#include "sched/deal.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/log.h"
#include "comm/comm.h"
#include "sched/board.h"
#include "sched/job.h"
#include "sched/layout.h"
#include "sched/policy.h"
#include "sched/proto.h"
#include "sched/status.h"
#include "sched/store.h"
#include "sched/work.h"

/* Operations a second of one thread, until something is measured: what matters at first is how the cells compare. */
static const double LINEAR = 3e10, ATTN = 1e10;
/* Predicted seconds for which what earlier phases have shown counts. */
static const double KNOWN_S = 60;

struct course {
    struct deal *d;
    struct master_result *out;
    struct store_scan scan;
    struct board_cell *cell; /* (cells,) of all phases */
    double *left;            /* (phases,) predicted rank-seconds still to do */
    double ratio;            /* measured / predicted in the phases so far; 0: unknown */
};

static int cost_cell(struct course *c, int i)
{
    const struct work *w = c->d->m.w;
    const struct work_set *s = &w->set[w->cell[i].set];
    struct work_rate rate = {.linear = LINEAR * c->d->threads * s->tensor, .attn = ATTN * c->d->threads * s->tensor};
    double *cost = calloc((size_t)s->n_batches, sizeof *cost);
    int phase = 0;
    if (!cost)
        return err_set(ERR_NOMEM, "no memory for the cost of %lld batches", (long long)s->n_batches);
    while (c->d->tensor[phase] != s->tensor)
        phase++;
    for (int64_t k = 0; k < s->n_batches; k++) {
        struct work_cost x;
        int64_t n = s->batch_at[k + 1] - s->batch_at[k], todo = 0;
        work_cost(w, i, s->batch_at[k], n, &x);
        cost[k] = work_seconds(&x, &rate);
        for (int64_t p = s->batch_at[k]; p < s->batch_at[k + 1]; p++)
            todo += !c->scan.done[i][p];
        c->left[phase] += cost[k] * s->tensor * (double)todo / (double)n;
    }
    c->cell[i] = (struct board_cell){.model = w->cell[i].model,
                                     .n = s->n,
                                     .n_batches = s->n_batches,
                                     .batch_at = s->batch_at,
                                     .batch_work = cost,
                                     .done = c->scan.done[i]};
    return ERR_OK;
}

static void say_resumed(const struct course *c)
{
    const struct work *w = c->d->m.w;
    int64_t all = 0;
    for (int i = 0; i < w->n_cells; i++)
        all += w->set[w->cell[i].set].n;
    if (c->scan.samples > 0 || c->scan.damaged > 0)
        log_info("going on: %lld of %lld samples were finished before (%lld files%s)", (long long)c->scan.samples, (long long)all,
                 (long long)c->scan.files, c->scan.damaged ? ", damaged ones are computed again" : "");
}

static void say_phase(const struct course *c, const struct board *b, const struct layout *l)
{
    const struct deal *d = c->d;
    int T = l->tensor;
    if (d->n_phases > 1)
        log_info("%s, phase %d of %d: %lld shards, %d group%s of %d rank%s, %d thread%s each", d->m.w->job->name, d->m.phase + 1,
                 d->n_phases, (long long)board_shards(b), l->groups, l->groups == 1 ? "" : "s", T, T == 1 ? "" : "s", d->threads,
                 d->threads == 1 ? "" : "s");
    else
        log_info("%s: %d cells, %lld shards, %d group%s of %d rank%s, %d thread%s each", d->m.w->job->name, d->m.w->n_cells,
                 (long long)board_shards(b), l->groups, l->groups == 1 ? "" : "s", T, T == 1 ? "" : "s", d->threads,
                 d->threads == 1 ? "" : "s");
}

/* The cells of this phase on a board of their own; the others' are empty on it, so that their numbers stay. */
static int open_board(struct course *c, const struct layout *l, struct board_cell *cell, struct board **b)
{
    const struct work *w = c->d->m.w;
    const struct job_run *run = &w->job->run;
    struct board_opts o = {.policy = policy_find(run->policy),
                           .n_groups = l->groups,
                           .n_models = w->job->n_models,
                           .tries = (int)run->tries,
                           .shard_s = run->shard_s,
                           .ratio = c->ratio,
                           .ratio_s = KNOWN_S};
    for (int i = 0; i < w->n_cells; i++) {
        cell[i] = c->cell[i];
        if (w->set[w->cell[i].set].tensor != l->tensor)
            cell[i].n = cell[i].n_batches = 0;
    }
    return board_open(b, cell, w->n_cells, &o);
}

/* One phase. The groups' ranks make the same layout from the list of the dead that ended the phase before. */
static int play(struct course *c, int phase)
{
    struct deal *d = c->d;
    struct layout *l = &d->layout;
    struct board_cell *cell = calloc((size_t)d->m.w->n_cells, sizeof *cell);
    int rc = cell ? ERR_OK : err_set(ERR_NOMEM, "no memory for the schedule");
    d->m.phase = phase;
    d->m.before_s = d->m.after_s = 0;
    for (int p = 0; p < d->n_phases; p++)
        *(p < phase ? &d->m.before_s : &d->m.after_s) += p == phase ? 0 : c->left[p];
    layout_close(l);
    rc = rc ? rc : layout_open(l, d->m.world ? d->m.world->size : 1, d->tensor[phase], c->out->dead);
    d->m.layout = l;
    if (!rc && l->groups == 0) {
        /* Too many are dead for a group of that size: the same command completes the job. */
        log_warn("stopping: no group of %d ranks is left; what is finished is kept, the same command goes on", l->tensor);
        c->out->stopped = true;
    } else if (!rc) {
        rc = open_board(c, l, cell, &d->m.board);
    }
    if (!rc && l->groups > 0) {
        say_phase(c, d->m.board, l);
        rc = master_run(&d->m, c->out);
        c->ratio = board_correction(d->m.board);
    }
    if (!rc && d->m.link && phase + 1 < d->n_phases && !c->out->stopped)
        master_end(&d->m, c->out, PROTO_PHASE);
    board_close(d->m.board);
    d->m.board = NULL;
    free(cell);
    return rc;
}

int deal_job(struct deal *d, struct status *status, struct master_result *out, int64_t *done)
{
    int n = d->m.w->n_cells, rc;
    struct course c = {
        .d = d, .out = out, .cell = calloc((size_t)n, sizeof *c.cell), .left = calloc((size_t)d->n_phases, sizeof *c.left)};
    *done = 0;
    d->m.phases = d->n_phases;
    d->m.status = status;
    rc = c.cell && c.left ? ERR_OK : err_set(ERR_NOMEM, "no memory for the schedule");
    rc = rc ? rc : store_scan(d->m.store, d->m.w, &c.scan);
    for (int i = 0; i < n && !rc; i++)
        rc = cost_cell(&c, i);
    if (!rc) {
        say_resumed(&c);
        *done = c.scan.samples;
        status_begin(status, d->m.w->job->name, d->m.store->folder);
    }
    for (int p = 0; p < d->n_phases && !rc && !out->stopped; p++)
        rc = play(&c, p);
    for (int i = 0; i < n && c.cell; i++)
        free((double *)(uintptr_t)c.cell[i].batch_work);
    free(c.cell);
    free(c.left);
    store_scan_free(&c.scan, n);
    return rc;
}

void deal_end(struct deal *d, const struct master_result *r, int next)
{
    if (d->m.link) {
        if (d->layout.ranks == 0) /* nothing was dealt out: all wait in the first phase */
            AST_ASSERT(layout_open(&d->layout, d->m.world->size, d->tensor[0], NULL) == ERR_OK);
        d->m.layout = &d->layout;
        master_end(&d->m, r, next);
    }
    layout_close(&d->layout);
}
