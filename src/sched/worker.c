/* A worker group. Its rank 0, the leader, talks to the master; the others follow the leader's broadcasts. */
#include "sched/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "comm/comm_msg.h"
#include "sched/exec.h"
#include "sched/outcome.h"
#include "sched/proto.h"
#include "sched/stop.h"
#include "sched/store.h"

enum { QUEUE_MAX = 1024, COMMIT_TRIES = 3 };

/* What a leader knows. */
struct desk {
    struct worker *w;
    struct comm_mail mail;
    struct proto_work queue[QUEUE_MAX];
    int at, n; /* queue: ring */
    bool stop, ended, told, orphan;
    struct worker_end *end;
};

/* What the leader tells its group. */
struct order {
    int32_t what; /* ORDER_* */
    struct proto_work work;
};
enum { ORDER_WORK, ORDER_END, ORDER_ORPHAN };

/* A disk that is full for a moment should not cost a shard. */
static int commit(struct worker *w, const struct outcome *o)
{
    int rc = ERR_OK;
    for (int i = 0; i < COMMIT_TRIES; i++) {
        bool duplicate = false;
        if (i) {
            nanosleep(&(struct timespec){1, 0}, NULL);
            err_clear();
        }
        rc = outcome_commit(o, w->store->folder, &duplicate);
        if (!rc && duplicate)
            log_debug("positions %lld.. of cell %d were finished by another attempt", (long long)o->first, o->cell);
        if (rc != ERR_IO)
            break;
    }
    return rc;
}

static void say(struct proto_done *d, int kind, int code)
{
    d->kind = kind;
    d->code = code;
    snprintf(d->text, sizeof d->text, "%s", err_text()[0] ? err_text() : err_name(code));
    err_clear();
}

void worker_shard(struct worker *w, const struct exec_shard *s, struct proto_done *d, struct worker_times *t)
{
    struct outcome o = {0};
    bool leader = !w->group || w->group->rank == 0;
    int reach = 0;
    double t0 = timer_now();
    int rc = w->compute(w->context, s, &o, &reach);
    d->count = d->tokens = d->failed = 0;
    d->compute_s = 0;
    t->compute_s += o.compute_s;
    t->load_s += timer_now() - t0 - o.compute_s;
    if (rc) {
        say(d, PROTO_ERROR, rc);
        d->reach = reach;
        return;
    }
    d->kind = PROTO_FINISHED;
    d->count = o.n;
    d->tokens = o.tokens;
    d->failed = o.failed;
    d->compute_s = o.compute_s;
    if (leader && w->store) {
        t0 = timer_now();
        snprintf(o.job, sizeof o.job, "%s", w->store->job);
        rc = commit(w, &o);
        t->io_s += timer_now() - t0;
        if (rc)
            say(d, PROTO_DISK, rc);
    }
    t->shards++;
    t->tokens += o.tokens;
    outcome_close(&o);
}

static void take_mail(struct desk *k)
{
    const struct comm_mail *m = &k->mail;
    struct proto_end e;
    switch (m->tag) {
    case PROTO_WORK:
        for (size_t i = 0; i < m->n / sizeof(struct proto_work); i++) {
            AST_ASSERT(k->n < QUEUE_MAX);
            memcpy(&k->queue[(k->at + k->n++) % QUEUE_MAX], m->data + i * sizeof(struct proto_work), sizeof(struct proto_work));
        }
        break;
    case PROTO_STOP: k->stop = true; break;
    case PROTO_END:
        memcpy(&e, m->data, sizeof e);
        k->ended = true;
        k->end->next = e.next;
        memcpy(k->end->dead, m->data + sizeof e, m->n - sizeof e);
        break;
    default: log_warn("an unknown message (tag %d) from rank %d", m->tag, m->from);
    }
}

static void look(struct desk *k)
{
    while (!k->ended && comm_link_poll(k->w->link, &k->mail)) /* what follows END is the next phase's */
        take_mail(k);
    if (stop_signal() && !k->told) {
        int32_t sig = stop_signal();
        comm_link_send(k->w->link, 0, PROTO_SIGNAL, &sig, sizeof sig);
        k->told = true;
    }
    if (comm_link_silent_s(k->w->link, 0) > k->w->dead_s)
        k->orphan = true;
}

/* Between batches: go on, unless asked to stop or left alone. */
static bool go(void *context)
{
    struct desk *k = context;
    look(k);
    return !k->stop && !k->orphan && !k->ended;
}

/* The next order, from the master's mail. */
static void next_order(struct desk *k, struct order *o, struct worker_times *t)
{
    double t0 = timer_now();
    bool answered = false;
    for (;;) {
        look(k);
        if (k->ended || k->orphan)
            break;
        if (k->stop) {
            k->n = 0;
            if (!answered)
                comm_link_send(k->w->link, 0, PROTO_STOPPED, NULL, 0);
            answered = true;
            k->stop = false;
        }
        if (k->n > 0)
            break;
        if (comm_link_wait(k->w->link, &k->mail, 0.05))
            take_mail(k);
    }
    t->wait_s += timer_now() - t0;
    *o = (struct order){.what = k->ended ? ORDER_END : k->orphan ? ORDER_ORPHAN : ORDER_WORK};
    if (o->what == ORDER_WORK) {
        o->work = k->queue[k->at];
        k->at = (k->at + 1) % QUEUE_MAX;
        k->n--;
    }
}

static void do_work(struct worker *w, struct desk *k, const struct proto_work *p, struct worker_times *t)
{
    struct exec_shard s = {.cell = p->cell, .first = p->first, .count = p->count, .isolate = p->isolate, .go = go, .context = k};
    struct proto_done d = {.shard = p->shard};
    worker_shard(w, &s, &d, t);
    if (k) /* the text only if there is one */
        comm_link_send(w->link, 0, PROTO_DONE, &d, d.kind == PROTO_FINISHED ? offsetof(struct proto_done, text) : sizeof d);
}

bool worker_run(struct worker *w, struct worker_times *t, struct worker_end *end)
{
    bool leader = !w->group || w->group->rank == 0;
    struct desk *k = NULL;
    struct order o = {.what = ORDER_WORK};
    *end = (struct worker_end){0};
    if (leader) {
        k = calloc(1, sizeof *k);
        AST_ASSERT(k != NULL);
        k->w = w;
        k->end = end;
    }
    for (;;) {
        if (leader)
            next_order(k, &o, t);
        double t0 = timer_now();
        comm_bcast(w->group, &o, sizeof o, 0);
        t->wait_s += timer_now() - t0;
        if (o.what != ORDER_WORK)
            break;
        do_work(w, k, &o.work, t);
    }
    comm_bcast(w->group, end, sizeof *end, 0);
    free(k);
    return o.what == ORDER_END;
}
