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
#include "sched/outcome.h"
#include "sched/proto.h"
#include "sched/status.h"
#include "sched/stop.h"
#include "sched/store.h"
#include "sched/work.h"
#include "sched/worker.h"

/* A group's queue: at least one shard behind the one that runs, more if they are short. */
static const double AHEAD_S = 0.3;
enum { AHEAD_MIN = 2, AHEAD_MAX = 64 };
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
    struct status status;
    struct comm_mail mail;
};

static void now_of(const struct desk *k, const char *state, struct status_now *n)
{
    struct board_counts c;
    board_counts(k->m->board, &c);
    *n = (struct status_now){.state = state,
                             .left_s = board_left_s(k->m->board),
                             .total_s = board_total_s(k->m->board),
                             .groups = board_groups(k->m->board),
                             .dead = k->out->n_dead,
                             .waiting = c.waiting,
                             .running = c.running,
                             .done = c.done,
                             .failed = c.failed,
                             .samples_failed = k->out->failed_samples,
                             .tokens = k->out->tokens};
}

static void cell_text(const struct desk *k, int64_t shard, char *out, int cap)
{
    const struct shard *s = board_shard(k->m->board, shard);
    work_cell_name(k->m->w, s->cell, out, cap);
}

/* All tries are used up: its samples are recorded as failed, with the reason, as durably as results. */
static void record_failure(struct desk *k, int64_t shard, const char *why)
{
    const struct shard *s = board_shard(k->m->board, shard);
    const struct work_set *set = &k->m->w->set[k->m->w->cell[s->cell].set];
    struct outcome o;
    char name[256];
    int rc = outcome_open(&o, s->count, 0);
    cell_text(k, shard, name, sizeof name);
    log_error("%lld samples of %s are given up after %d attempts: %s", (long long)s->count, name, s->tries, why);
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

static void begin_stop(struct desk *k, const char *why)
{
    if (k->stopping)
        return;
    k->stopping = k->out->stopped = true;
    k->stop_s = timer_now();
    log_warn("stopping: %s; what is finished is kept, the same command goes on", why);
    for (int g = 0; g < k->groups; g++)
        if (!k->slot[g].gone)
            comm_link_send(k->m->link, proto_leader(g, k->m->tensor), PROTO_STOP, NULL, 0);
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
        comm_link_send(k->m->link, proto_leader(g, k->m->tensor), PROTO_WORK, w, (size_t)n * sizeof *w);
}

static void fill_idle(struct desk *k)
{
    for (int g = 0; g < k->groups; g++)
        if (k->slot[g].idle)
            fill(k, g);
}

/* ---- mail ---- */

static void shard_error(struct desk *k, int64_t shard, const struct proto_done *d, int from)
{
    char name[256];
    cell_text(k, shard, name, sizeof name);
    log_warn("rank %d could not compute %s: %s", from, name, d->text);
    if (!board_failed(k->m->board, shard))
        record_failure(k, shard, d->text);
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
    case PROTO_FATAL:
        board_back(b, d->shard);
        if (!k->out->fatal)
            k->out->code = err_set(d->code, "%s", d->text);
        k->out->fatal = true;
        begin_stop(k, "the job cannot run");
        break;
    default: /* PROTO_DISK */
        board_back(b, d->shard);
        log_error("rank %d: %s", from, d->text);
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
    record_failure(context, shard, "the groups that computed it died or hung");
}

static void bury(struct desk *k, int g, const char *why)
{
    struct slot *s = &k->slot[g];
    int T = k->m->tensor, leader = proto_leader(g, T);
    if (s->gone)
        return;
    log_warn("rank%s %d%s%.0d: %s; %d of %d groups go on", T > 1 ? "s" : "", leader, T > 1 ? " to " : "",
             T > 1 ? leader + T - 1 : 0, why, board_groups(k->m->board) - 1, k->groups);
    s->gone = true;
    for (int r = leader; r < leader + T; r++) {
        comm_link_bury(k->m->link, r, 75);
        k->out->n_dead += !k->out->dead[r];
        k->out->dead[r] = 1;
    }
    board_lose(k->m->board, g, give_back, k);
    fill_idle(k);
}

static void take_mail(struct desk *k)
{
    int g = proto_group_of(k->mail.from, k->m->world->size, k->m->tensor);
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
    int T = k->m->tensor;
    double now = timer_now();
    for (int r = 1; r < k->m->world->size; r++) {
        int g = proto_group_of(r, k->m->world->size, T);
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
    struct status_now n;
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
    now_of(k, k->stopping ? "stopping" : "running", &n);
    status_update(&k->status, &n);
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
    struct desk *k = calloc(1, sizeof *k);
    struct status_now n;
    int ranks = m->world ? m->world->size : 1;
    *out = (struct master_result){.dead = calloc((size_t)ranks, 1)};
    if (k) {
        k->groups = m->link ? proto_groups(ranks, m->tensor) : 0;
        k->slot = calloc((size_t)k->groups + 1, sizeof *k->slot);
    }
    if (!k || !k->slot || !out->dead) {
        free(k);
        return err_set(ERR_NOMEM, "no memory for the master of %d ranks", ranks);
    }
    k->m = m;
    k->run = &m->w->job->run;
    k->out = out;
    k->start = timer_now();
    status_begin(&k->status, m->w->job->name, m->store->folder, board_total_s(m->board), 0);
    if (m->link)
        run_groups(k);
    else
        run_alone(k);
    out->wall_s = timer_now() - k->start;
    now_of(k, out->stopped ? "stopped" : "merging", &n);
    status_end(&k->status, &n);
    free(k->slot);
    free(k->expect);
    free(k);
    return ERR_OK;
}

void master_end(struct master *m, const struct master_result *r, bool merge, int status)
{
    char bytes[COMM_MSG_MAX] = {0};
    struct proto_end e = {.merge = merge, .status = status};
    size_t set = ((size_t)m->world->size + 7) / 8;
    AST_ASSERT(sizeof e + set <= sizeof bytes);
    memcpy(bytes, &e, sizeof e);
    for (int i = 0; i < m->world->size; i++)
        if (r->dead[i])
            bytes[sizeof e + (size_t)i / 8] = (char)(bytes[sizeof e + (size_t)i / 8] | 1 << i % 8);
    for (int i = 1; i < m->world->size; i++) {
        int g = proto_group_of(i, m->world->size, m->tensor);
        if (!r->dead[i] && (g < 0 || proto_leader(g, m->tensor) == i))
            comm_link_send(m->link, i, PROTO_END, bytes, sizeof e + set);
    }
}
