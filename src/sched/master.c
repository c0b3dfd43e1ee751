/* The master. One loop: take mail, fill idle groups, and now and then look at clocks: who is silent, who hangs, is it time
 * to stop. It never waits for one rank and takes part in no collective while groups work. */
#include "sched/master.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "comm/comm_msg.h"
#include "io/shardfile.h"
#include "sched/board.h"
#include "sched/exec.h"
#include "sched/job.h"
#include "sched/layout.h"
#include "sched/outcome.h"
#include "sched/proto.h"
#include "sched/status.h"
#include "sched/stop.h"
#include "sched/store.h"
#include "sched/work.h"
#include "sched/worker.h"

/* A group's queue: at least one shard behind the one that runs, more if they are short. */
static const double AHEAD_S = 0.3;
enum { AHEAD_MIN = 2, AHEAD_MAX = 64, UNABLE = -1 };
/* Clocks are looked at so often. */
static const double TICK_S = 0.1;

struct slot { /* a group, as the master sees it */
    bool gone, idle, stopped;
    int queued;      /* shards it has */
    double queued_s; /* predicted */
    double since;    /* when the shard that runs began, as far as we know */
};

struct desk {
    struct master *m;
    const struct job_run *run;
    struct master_result *out;
    struct slot *slot;
    int groups;
    double *expect; /* predicted seconds of each shard when it was handed out, by shard; grows with the board */
    int64_t expect_cap;
    bool stopping, too_late; /* too_late: what waits would not end before the deadline */
    double stop_s, next_tick, start;
    int remote_signal;
    int *unable; /* (cells,) the rank, plus 1, that could not run it at all; UNABLE: it is given up */
    struct comm_mail mail;
};

static void say_status(const struct desk *k, const char *state)
{
    const struct master *m = k->m;
    const struct board *b = m->board;
    struct board_counts c;
    int T = m->layout ? m->layout->tensor : 1, groups = board_groups(b) > 0 ? board_groups(b) : 1;
    double ratio = board_correction(b), left = board_left_s(b), after = m->after_s * ratio;
    if (!m->status)
        return;
    board_counts(b, &c);
    struct status_now n = {.state = state,
                           .left_s = left * T + after,
                           .total_s = m->before_s * ratio + board_total_s(b) * T + after,
                           .computing_s = k->out->wall_s + timer_now() - k->start,
                           .eta_s = left / groups + after / (groups * T),
                           .phase = m->phase + 1,
                           .phases = m->phases,
                           .groups = board_groups(b),
                           .dead = k->out->n_dead,
                           .waiting = c.waiting,
                           .running = c.running,
                           .done = c.done,
                           .failed = c.failed,
                           .samples_failed = k->out->failed_samples,
                           .tokens = k->out->tokens};
    status_update(m->status, &n);
}

static void cell_text(const struct desk *k, int64_t shard, char *out, int cap)
{
    const struct shard *s = board_shard(k->m->board, shard);
    work_cell_name(k->m->w, s->cell, out, cap);
}

/* Its samples are recorded as failed, with the reason, as durably as results. */
static void record_failure(struct desk *k, int64_t shard, const char *why)
{
    const struct shard *s = board_shard(k->m->board, shard);
    const struct work_set *set = &k->m->w->set[k->m->w->cell[s->cell].set];
    struct outcome o;
    int rc = outcome_open(&o, s->count, 0);
    if (!rc) {
        o.cell = s->cell;
        o.first = s->first;
        snprintf(o.job, sizeof o.job, "%s", k->m->store->job);
        for (; o.n < s->count && !rc; o.n++) {
            o.sample[o.n] = set->order[s->first + o.n];
            o.status[o.n] = OUTCOME_FAILED;
            rc = buf_puts(&o.reason[o.n], why);
        }
        o.failed = o.n;
        rc = rc ? rc : outcome_commit(&o, k->m->store->folder, NULL);
    }
    if (rc) {
        log_error("their failure cannot be recorded: %s", err_text());
        err_clear();
    }
    k->out->failed_samples += s->count;
    outcome_close(&o);
}

/* All tries are used up. */
static void give_up(struct desk *k, int64_t shard, const char *why)
{
    const struct shard *s = board_shard(k->m->board, shard);
    char name[256];
    cell_text(k, shard, name, sizeof name);
    log_error("%lld samples of %s are given up after %d attempts: %s", (long long)s->count, name, s->tries, why);
    record_failure(k, shard, why);
}

static void begin_stop(struct desk *k, const char *why)
{
    if (k->stopping)
        return;
    k->stopping = k->out->stopped = true;
    k->stop_s = timer_now();
    log_warn("stopping: %s; what is finished is kept, the same command goes on", why);
    for (int g = 0; g < k->groups; g++)
        if (!k->slot[g].gone)
            comm_link_send(k->m->link, layout_leader(k->m->layout, g), PROTO_STOP, NULL, 0);
}

/* ---- handing out ---- */

static double *expected(struct desk *k, int64_t shard)
{
    if (shard >= k->expect_cap) {
        int64_t cap = 2 * (shard + 1);
        k->expect = realloc(k->expect, (size_t)cap * sizeof *k->expect);
        AST_ASSERT(k->expect != NULL);
        k->expect_cap = cap;
    }
    return &k->expect[shard];
}

/* Would so many seconds of work end before we have to stop? A shard's own batches can be cut off, but not in the middle. */
static bool in_time(const struct desk *k, double seconds)
{
    double end = stop_deadline();
    return !(end > 0) || timer_wall() + seconds < end - k->run->margin_s;
}

static void fill(struct desk *k, int g)
{
    struct slot *s = &k->slot[g];
    struct proto_work w[PROTO_WORK_MAX];
    int n = 0;
    if (s->gone || s->stopped || k->stopping)
        return;
    while (n < PROTO_WORK_MAX && s->queued < AHEAD_MAX && (s->queued < AHEAD_MIN || s->queued_s < AHEAD_S)) {
        int64_t i = s->queued == 0 ? board_next(k->m->board, g) : board_ahead(k->m->board, g, fmax(AHEAD_S, s->queued_s));
        if (i < 0)
            break;
        if (!in_time(k, board_predict(k->m->board, i) + s->queued_s)) {
            board_back(k->m->board, i);
            k->too_late = true;
            break;
        }
        const struct shard *x = board_shard(k->m->board, i);
        w[n++] = (struct proto_work){
            .shard = i, .first = x->first, .count = x->count, .cell = x->cell, .isolate = x->tries + 1 >= k->run->tries};
        *expected(k, i) = board_predict(k->m->board, i);
        s->queued_s += *expected(k, i);
        if (s->queued++ == 0)
            s->since = timer_now();
    }
    s->idle = s->queued == 0;
    if (n > 0)
        comm_link_send(k->m->link, layout_leader(k->m->layout, g), PROTO_WORK, w, (size_t)n * sizeof *w);
}

static void fill_idle(struct desk *k)
{
    for (int g = 0; g < k->groups; g++)
        if (k->slot[g].idle)
            fill(k, g);
}

/* ---- mail ---- */

struct refusal { /* why a cell's shards are given up together */
    struct desk *k;
    const char *why;
};

static void record_refused(void *context, int64_t shard)
{
    const struct refusal *r = context;
    record_failure(r->k, shard, r->why);
}

/* This cell cannot run at all: what waits of it is failed, the other cells go on. */
static void drop_cell(struct desk *k, int cell, const struct proto_done *d)
{
    char name[256];
    work_cell_name(k->m->w, cell, name, sizeof name);
    log_error("%s cannot run and is given up, the rest of the job goes on: %s", name, d->text);
    board_drop(k->m->board, cell, record_refused, &(struct refusal){k, d->text});
    if (k->out->unable++ == 0) {
        k->out->code = d->code;
        snprintf(k->out->why, sizeof k->out->why, "%s", d->text);
    }
}

/* The model, or the method on it, does not run on this group. That is believed when the only group says so, or a second one;
 * of damage, which every rank reads from the same files, also when one group has seen it twice (the others may be busy with
 * other models for hours). */
static bool unable(struct desk *k, int64_t shard, const struct proto_done *d, int from)
{
    const struct work *w = k->m->w;
    const struct work_cell *it = &w->cell[board_shard(k->m->board, shard)->cell];
    int mine = board_shard(k->m->board, shard)->cell;
    bool only = board_groups(k->m->board) < 2, damage = d->code == ERR_FORMAT || d->code == ERR_ARG;
    for (int c = 0; c < w->n_cells; c++) {
        const struct work_cell *x = &w->cell[c];
        if (x->model != it->model || (d->reach == EXEC_NO_METHOD && x->method != it->method) || k->unable[c] == UNABLE ||
            w->set[x->set].tensor != w->set[it->set].tensor)
            continue;
        if (only || (k->unable[c] > 0 && (damage || k->unable[c] != from + 1))) {
            k->unable[c] = UNABLE;
            drop_cell(k, c, d);
        } else {
            k->unable[c] = from + 1;
        }
    }
    return k->unable[mine] == UNABLE;
}

static void shard_error(struct desk *k, int64_t shard, const struct proto_done *d, int from)
{
    char name[256];
    /* Weights or a method that do not fit into memory here may fit elsewhere; what is damaged is so for all. */
    bool whole =
        d->reach != EXEC_SHARD && (d->code == ERR_FORMAT || d->code == ERR_ARG || d->code == ERR_NOMEM || d->code == ERR_PEER);
    cell_text(k, shard, name, sizeof name);
    if (whole && unable(k, shard, d, from)) {
        board_give_up(k->m->board, shard);
        record_failure(k, shard, d->text);
        return;
    }
    log_warn("rank %d could not compute %s: %s", from, name, d->text);
    if (!board_failed(k->m->board, shard))
        give_up(k, shard, d->text);
    else
        fill_idle(k);
}

/* What a shard came to; the board is told. */
static void account(struct desk *k, const struct proto_done *d, int from)
{
    struct board *b = k->m->board;
    switch (d->kind) {
    case PROTO_FINISHED:
        k->out->tokens += d->tokens;
        k->out->failed_samples += d->failed;
        board_done(b, d->shard, d->count, d->compute_s);
        break;
    case PROTO_ERROR: shard_error(k, d->shard, d, from); break;
    default: /* PROTO_DISK */
        board_back(b, d->shard);
        log_error("rank %d: %s", from, d->text);
        k->out->full = true;
        begin_stop(k, "results cannot be written");
    }
}

static void take_done(struct desk *k, int g)
{
    struct proto_done d = {0};
    struct slot *s = &k->slot[g];
    memcpy(&d, k->mail.data, k->mail.n < sizeof d ? k->mail.n : sizeof d);
    s->queued--;
    s->queued_s = s->queued > 0 ? fmax(0, s->queued_s - *expected(k, d.shard)) : 0;
    s->since = timer_now();
    account(k, &d, k->mail.from);
    fill(k, g);
}

static void give_back(void *context, int64_t shard)
{
    give_up(context, shard, "the groups that computed it died or hung");
}

static void bury(struct desk *k, int g, const char *why)
{
    struct slot *s = &k->slot[g];
    int T = k->m->layout->tensor;
    const int *member = &k->m->layout->member[g * T];
    if (s->gone)
        return;
    if (T > 1)
        log_warn("ranks %d to %d: %s; %d of %d groups go on", member[0], member[T - 1], why, board_groups(k->m->board) - 1,
                 k->groups);
    else
        log_warn("rank %d: %s; %d of %d groups go on", member[0], why, board_groups(k->m->board) - 1, k->groups);
    s->gone = true;
    for (int i = 0; i < T; i++) {
        comm_link_bury(k->m->link, member[i], 75);
        k->out->n_dead += !k->out->dead[member[i]];
        k->out->dead[member[i]] = 1;
    }
    board_lose(k->m->board, g, give_back, k);
    fill_idle(k);
}

static void take_mail(struct desk *k)
{
    int g = k->m->layout->group_of[k->mail.from];
    if (k->mail.tag == PROTO_SIGNAL) {
        memcpy(&k->remote_signal, k->mail.data, sizeof k->remote_signal);
        return;
    }
    /* Whoever was given up for dead stays so: its shards are elsewhere, and what it finished is a file all the same. */
    if (g < 0 || k->slot[g].gone)
        return;
    if (k->mail.tag == PROTO_DONE)
        take_done(k, g);
    else if (k->mail.tag == PROTO_STOPPED)
        k->slot[g].stopped = true;
}

/* ---- clocks ---- */

static void check_ranks(struct desk *k)
{
    double now = timer_now();
    for (int r = 1; r < k->m->world->size; r++) {
        int g = k->m->layout->group_of[r];
        if (k->out->dead[r] || comm_link_silent_s(k->m->link, r) < k->run->dead_s)
            continue;
        if (g >= 0) {
            bury(k, g, "no sign of life");
        } else {
            comm_link_bury(k->m->link, r, 75);
            k->out->dead[r] = 1;
            k->out->n_dead++;
        }
    }
    for (int g = 0; g < k->groups; g++) {
        const struct slot *s = &k->slot[g];
        if (!s->gone && s->queued > 0 && now - s->since > fmax(k->run->hang_s, 20 * s->queued_s))
            bury(k, g, "hangs");
    }
}

static const char *why_stop(const struct desk *k, char *text, int cap)
{
    int sig = stop_signal() ? stop_signal() : k->remote_signal;
    double end = stop_deadline();
    if (sig) {
        snprintf(text, (size_t)cap, "signal %d (%s)", sig, strsignal(sig));
        return text;
    }
    if (end > 0 && timer_wall() > end - k->run->margin_s - k->run->grace_s)
        return "the end of the Slurm job is near";
    return NULL;
}

static void tick(struct desk *k)
{
    char text[128];
    double now = timer_now();
    if (now < k->next_tick)
        return;
    k->next_tick = now + TICK_S;
    shardfile_lock_renew(k->m->store->lock);
    if (k->m->link)
        check_ranks(k);
    const char *why = why_stop(k, text, sizeof text);
    if (why)
        begin_stop(k, why);
    say_status(k, k->stopping ? "stopping" : "running");
}

/* ---- one process ---- */

static bool go_alone(void *context)
{
    struct desk *k = context;
    tick(k);
    return !k->stopping;
}

/* The master computes: there is nobody else, or nobody left. */
static void run_alone(struct desk *k)
{
    struct worker w = {.compute = k->m->compute, .context = k->m->context, .store = k->m->store};
    struct worker_times t = {0};
    while (!k->stopping) {
        tick(k);
        int64_t i = k->stopping ? -1 : board_next(k->m->board, 0);
        if (i < 0)
            break;
        const struct shard *x = board_shard(k->m->board, i);
        struct exec_shard s = {.cell = x->cell,
                               .first = x->first,
                               .count = x->count,
                               .isolate = x->tries + 1 >= k->run->tries,
                               .go = go_alone,
                               .context = k};
        struct proto_done d = {.shard = i};
        worker_shard(&w, &s, &d, &t);
        account(k, &d, 0);
    }
}

/* ---- the loop ---- */

static bool all_stopped(const struct desk *k)
{
    for (int g = 0; g < k->groups; g++)
        if (!k->slot[g].gone && !k->slot[g].stopped)
            return false;
    return true;
}

static bool all_idle(const struct desk *k)
{
    for (int g = 0; g < k->groups; g++)
        if (!k->slot[g].gone && !k->slot[g].idle)
            return false;
    return true;
}

static void give_up_late(struct desk *k)
{
    if (!k->stopping || timer_now() - k->stop_s < k->run->grace_s)
        return;
    for (int g = 0; g < k->groups; g++)
        if (!k->slot[g].gone && !k->slot[g].stopped)
            bury(k, g, "still computes after the grace time");
}

static void run_groups(struct desk *k)
{
    for (int g = 0; g < k->groups; g++)
        fill(k, g);
    while (board_groups(k->m->board) > 0 && (k->stopping ? !all_stopped(k) : !board_finished(k->m->board))) {
        double t0 = timer_now();
        if (comm_link_poll(k->m->link, &k->mail)) {
            take_mail(k);
            k->out->master_s += timer_now() - t0;
        } else if (comm_link_wait(k->m->link, &k->mail, TICK_S)) {
            t0 = timer_now();
            take_mail(k);
            k->out->master_s += timer_now() - t0;
        }
        tick(k);
        if (k->too_late && all_idle(k))
            begin_stop(k, "nothing more ends before the Slurm job does");
        give_up_late(k);
    }
    if (board_groups(k->m->board) == 0 && !board_finished(k->m->board) && !k->stopping)
        begin_stop(k, "no worker is left");
}

int master_run(struct master *m, struct master_result *out)
{
    struct desk k = {.m = m, .run = &m->w->job->run, .out = out, .groups = m->link ? m->layout->groups : 0};
    int ranks = m->world ? m->world->size : 1, rc = ERR_OK;
    k.start = timer_now();
    if (!out->dead)
        out->dead = calloc((size_t)ranks, 1);
    k.slot = calloc((size_t)k.groups + 1, sizeof *k.slot);
    k.unable = calloc((size_t)m->w->n_cells + 1, sizeof *k.unable);
    if (!k.slot || !k.unable || !out->dead) {
        rc = err_set(ERR_NOMEM, "no memory for the master of %d ranks", ranks);
        goto out;
    }
    if (m->link)
        run_groups(&k);
    else
        run_alone(&k);
    say_status(&k, "running");
    out->wall_s += timer_now() - k.start;
out:
    free(k.slot);
    free(k.unable);
    free(k.expect);
    return rc;
}

void master_end(const struct master *m, const struct master_result *r, int next)
{
    char bytes[COMM_MSG_MAX] = {0};
    struct proto_end e = {.next = next};
    size_t set = ((size_t)m->world->size + 7) / 8;
    AST_ASSERT(sizeof e + set <= sizeof bytes);
    memcpy(bytes, &e, sizeof e);
    for (int i = 0; i < m->world->size; i++)
        if (r->dead[i])
            bytes[sizeof e + (size_t)i / 8] = (char)(bytes[sizeof e + (size_t)i / 8] | 1 << i % 8);
    for (int i = 1; i < m->world->size; i++) {
        int g = m->layout->group_of[i];
        if (!r->dead[i] && (g < 0 || layout_leader(m->layout, g) == i))
            comm_link_send(m->link, i, PROTO_END, bytes, sizeof e + set);
    }
}
