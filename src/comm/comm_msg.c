/* Control messages and heartbeats. Two communicators, so that the threads never take each other's messages. */
#include "comm/comm_msg.h"

#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "comm/comm_mpi.h"

struct outgoing {
    MPI_Request req;
    struct outgoing *next;
    char data[];
};

enum { ORDER_ALIVE = -1, SPINS = 64 };

struct comm_link {
    MPI_Comm talk, beat;
    int rank, size;
    struct outgoing *out; /* sends that MPI has not finished yet */
    /* shared with the beat thread */
    _Atomic double beat_s, orphan_s, guard_s; /* guard_s 0: nobody is watched */
    atomic_int orphan_status;
    _Atomic(const char *) guarded;
    _Atomic double *heard; /* (size,) timer_now() of the last beat */
    atomic_int *order;     /* (size,) ORDER_ALIVE, or the exit status to end with */
    atomic_bool ending;
    bool threaded;
    pthread_t thread;
    double last_beat;
};

static void nap(double s)
{
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}

/* Takes all beats that have come. A rank that is ordered to end does so here, wherever its main thread is stuck. */
static void take_beats(struct comm_link *l)
{
    MPI_Message msg;
    MPI_Status st;
    int there = 1, what;
    for (;;) {
        MPI_Improbe(MPI_ANY_SOURCE, 0, l->beat, &there, &msg, &st);
        if (!there)
            return;
        MPI_Mrecv(&what, 1, MPI_INT, &msg, MPI_STATUS_IGNORE);
        atomic_store(&l->heard[st.MPI_SOURCE], timer_now());
        if (l->rank != 0 && what != ORDER_ALIVE)
            _exit(what);
    }
}

static void send_beat(struct comm_link *l, int to, int what)
{
    MPI_Request r;
    /* 4 bytes are copied out at once; the request is not waited for: the peer may be dead. */
    MPI_Isend(&what, 1, MPI_INT, to, 0, l->beat, &r);
    int done = 0;
    MPI_Test(&r, &done, MPI_STATUS_IGNORE);
    if (!done)
        MPI_Request_free(&r);
}

static void give_beats(struct comm_link *l)
{
    if (l->rank != 0) {
        send_beat(l, 0, ORDER_ALIVE);
        return;
    }
    for (int r = 1; r < l->size; r++)
        if (atomic_load(&l->order[r]) == ORDER_ALIVE)
            send_beat(l, r, ORDER_ALIVE);
}

/* A rank is dead and the others wait for it in a collective: all end. The orders need MPI's progress to go out. */
static _Noreturn void give_up(struct comm_link *l, int dead)
{
    int status = atomic_load(&l->orphan_status);
    log_error("rank %d gave no sign of life during %s: all ranks end; what was finished is kept, the same command goes on", dead,
              atomic_load(&l->guarded));
    for (int r = 1; r < l->size; r++)
        if (atomic_exchange(&l->order[r], status) == ORDER_ALIVE)
            send_beat(l, r, status);
    for (int i = 0; i < 100; i++) {
        take_beats(l);
        nap(0.01);
    }
    fflush(NULL);
    _exit(status);
}

static void beat(struct comm_link *l)
{
    double now = timer_now(), orphan_s = atomic_load(&l->orphan_s), guard_s = atomic_load(&l->guard_s);
    take_beats(l);
    if (now - l->last_beat >= atomic_load(&l->beat_s)) {
        l->last_beat = now;
        give_beats(l);
    }
    if (l->rank != 0 && orphan_s > 0 && now - atomic_load(&l->heard[0]) > orphan_s)
        _exit(atomic_load(&l->orphan_status));
    for (int r = 1; guard_s > 0 && l->rank == 0 && l->threaded && r < l->size; r++)
        if (atomic_load(&l->order[r]) == ORDER_ALIVE && now - atomic_load(&l->heard[r]) > guard_s)
            give_up(l, r);
}

static void *beat_thread(void *arg)
{
    struct comm_link *l = arg;
    while (!atomic_load(&l->ending)) {
        beat(l);
        double pause = atomic_load(&l->beat_s) / 8;
        nap(pause < 0.05 ? pause : 0.05);
    }
    return NULL;
}

void comm_link_tune(struct comm_link *l, const struct comm_link_opts *o)
{
    atomic_store(&l->beat_s, o->beat_s);
    atomic_store(&l->orphan_s, o->orphan_s);
    atomic_store(&l->orphan_status, o->orphan_status);
}

void comm_link_guard(struct comm_link *l, double silent_s, const char *what)
{
    atomic_store(&l->guarded, what);
    atomic_store(&l->guard_s, silent_s);
}

static void release(struct comm_link *l)
{
    if (!l)
        return;
    free(l->heard);
    free(l->order);
    free(l);
}

int comm_link_open(struct comm_link **out, const struct comm_group *world, const struct comm_link_opts *o)
{
    struct comm_link *l = calloc(1, sizeof *l);
    int level, rc = ERR_OK;
    *out = NULL;
    if (l) {
        l->heard = calloc((size_t)world->size, sizeof *l->heard);
        l->order = calloc((size_t)world->size, sizeof *l->order);
    }
    if (!l || !l->heard || !l->order)
        rc = err_set(ERR_NOMEM, "no memory for links between %d ranks", world->size);
    rc = comm_agree(world, rc);
    if (rc) {
        release(l);
        return rc;
    }
    l->rank = world->rank;
    l->size = world->size;
    comm_link_tune(l, o);
    MPI_Comm_dup(comm_mpi(world), &l->talk);
    MPI_Comm_dup(comm_mpi(world), &l->beat);
    for (int r = 0; r < l->size; r++) {
        atomic_init(&l->heard[r], timer_now());
        atomic_init(&l->order[r], ORDER_ALIVE);
    }
    MPI_Query_thread(&level);
    l->threaded = level == MPI_THREAD_MULTIPLE && l->size > 1; /* the thread reads it */
    if (l->threaded && pthread_create(&l->thread, NULL, beat_thread, l) != 0)
        l->threaded = false;
    *out = l;
    return ERR_OK;
}

static void reap(struct comm_link *l)
{
    struct outgoing **at = &l->out;
    while (*at) {
        struct outgoing *m = *at;
        int done;
        MPI_Test(&m->req, &done, MPI_STATUS_IGNORE);
        if (done) {
            *at = m->next;
            free(m);
        } else {
            at = &m->next;
        }
    }
}

void comm_link_close(struct comm_link *l)
{
    if (!l)
        return;
    atomic_store(&l->ending, true);
    if (l->threaded)
        pthread_join(l->thread, NULL);
    /* What has not gone by now goes to ranks that may be dead: left to MPI, with its bytes. The communicators too:
     * freeing them is collective. */
    for (int i = 0; l->out && i < 1000; i++) {
        reap(l);
        if (l->out)
            nap(1e-3);
    }
    release(l);
}

void comm_link_send(struct comm_link *l, int to, int tag, const void *data, size_t n)
{
    struct outgoing *m = malloc(sizeof *m + n);
    AST_ASSERT(n <= COMM_MSG_MAX);
    AST_ASSERT(m != NULL); /* a few bytes: without them nothing can go on */
    if (n)
        memcpy(m->data, data, n);
    MPI_Isend(m->data, (int)n, MPI_BYTE, to, tag, l->talk, &m->req);
    m->next = l->out;
    l->out = m;
    reap(l);
}

bool comm_link_poll(struct comm_link *l, struct comm_mail *mail)
{
    MPI_Message msg;
    MPI_Status st;
    int there = 0, n;
    if (!l->threaded && l->size > 1)
        beat(l);
    if (l->out)
        reap(l);
    MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, l->talk, &there, &msg, &st);
    if (!there)
        return false;
    MPI_Get_count(&st, MPI_BYTE, &n);
    AST_ASSERT(n <= COMM_MSG_MAX);
    MPI_Mrecv(mail->data, n, MPI_BYTE, &msg, MPI_STATUS_IGNORE);
    mail->from = st.MPI_SOURCE;
    mail->tag = st.MPI_TAG;
    mail->n = (size_t)n;
    return true;
}

bool comm_link_wait(struct comm_link *l, struct comm_mail *mail, double max_s)
{
    double end = timer_now() + max_s, pause = 20e-6;
    for (int i = 0;; i++) {
        if (comm_link_poll(l, mail))
            return true;
        if (timer_now() >= end)
            return false;
        /* At first yield, for a quick answer; then longer and longer naps, at most 1 ms. */
        if (i < SPINS) {
            sched_yield();
        } else {
            nap(pause);
            pause = pause < 5e-4 ? pause * 1.5 : 1e-3;
        }
    }
}

double comm_link_silent_s(const struct comm_link *l, int rank)
{
    return rank == l->rank ? 0 : timer_now() - atomic_load(&l->heard[rank]);
}

void comm_link_bury(struct comm_link *l, int rank, int status)
{
    AST_ASSERT(l->rank == 0 && rank > 0 && rank < l->size);
    if (atomic_exchange(&l->order[rank], status) == ORDER_ALIVE)
        send_beat(l, rank, status);
}
