/* Reformer's gradient: buckets are listed once more, then every query meets its keys again.
 *     P = softmax over the union,  dS = P (dO v^T - rowsum(dO O)),  dq = scale dS k,  dk = scale dS^T q,  dv = P^T dO
 *     shared_qk: k = q / |q|, so dq += (dk - k (k . dk)) / |q|
 * Lists hold what a token saw when it was entered, and only grow: the places noted then serve after the last token too. One key
 * head after the other, its groups dealt out to threads in turn; each thread adds into keys and values of its own, which are
 * brought together in the order of threads. */
#include "attn/reformer_grad.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/lsh.h"
#include "base/arena.h"
#include "base/err.h"

struct room { /* one thread's */
    struct lsh_lane w;
    float *ds;            /* (queries, cap): dO v^T, then dS */
    float *acc_k, *acc_v; /* (slots, d) of one key head */
};

struct retrace { /* what all threads share */
    struct attn_grad *a;
    struct attn_call call; /* without lse: that of the forward pass stays */
    struct lsh l;
    struct room *room;
    int32_t *bucket, *seen; /* seen (n, H, R): of the whole sequence */
    unsigned char *memory;
    size_t each;
    int threads;
};

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

static size_t room_cut(struct room *r, unsigned char *base, const struct lsh *l, int64_t n)
{
    size_t at = lsh_lane_cut(&r->w, base, l, n, n);
    r->ds = take(base, &at, r->w.queries * r->w.cap, sizeof(float));
    r->acc_k = take(base, &at, r->w.slots * l->d, sizeof(float));
    r->acc_v = take(base, &at, r->w.slots * l->d, sizeof(float));
    return at;
}

size_t reformer_backward_bytes(const void *opts, const struct attn_shape *s, int64_t n)
{
    struct lsh l;
    struct room r;
    int threads = omp_get_max_threads();
    lsh_cut(&l, NULL, opts, s, n);
    return arena_bytes(threads, room_cut(&r, NULL, &l, n)) + arena_bytes(threads, sizeof r) +
           arena_bytes(LSH_PART * (l.H + l.K) * l.R, sizeof(int32_t)) + arena_bytes(n * l.H * l.R, sizeof(int32_t));
}

/* ---- a group ---- */

/* r->ds = dO v^T, then the gradients of the scores. */
static void scores_grad(const struct retrace *x, const struct lsh_part *t, struct room *r, const struct lsh_group *g)
{
    const struct kern_table *k = x->call.kern;
    const struct lsh *l = &x->l;
    struct lsh_lane *w = &r->w;
    int64_t d = l->d, n = g->n * g->heads;
    struct kern_list list;
    for (int64_t b = 0; b < w->blocks; b++) {
        lsh_block(t, w, n, b, l->K + g->h0 / (l->H / l->G), &list);
        for (int64_t i = 0; i < n; i++)
            if (lsh_in_block(w, i, b, &list)) {
                list.x = x->a->dout + lsh_row_of(t, g, i) * d;
                list.y = r->ds + lsh_place(w, i, b);
                k->list_scores(&list);
            }
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t row = lsh_row_of(t, g, i) * d, count = lsh_count(w, i);
        float *ds = r->ds + i * w->cap, dot = k->dot(x->a->dout + row, x->call.out + row, d);
        const float *p = w->s + i * w->cap;
        for (int64_t j = 0; j < count; j++)
            ds[j] = p[j] * (ds[j] - dot);
    }
}

static void group_grad(const struct retrace *x, const struct lsh_part *t, struct room *r, const struct lsh_group *g)
{
    const struct kern_table *k = x->call.kern;
    const struct lsh *l = &x->l;
    struct lsh_lane *w = &r->w;
    int64_t d = l->d, n = g->n * g->heads;
    struct kern_list list;
    lsh_weights(t, w, g);
    scores_grad(x, t, r, g);
    for (int64_t i = 0; i < n; i++)
        memset(x->a->dq + lsh_row_of(t, g, i) * d, 0, (size_t)d * sizeof(float));
    for (int64_t b = 0; b < w->blocks; b++) {
        int64_t first = b * LSH_BLOCK;
        lsh_block(t, w, n, b, g->h0 / (l->H / l->K), &list);
        for (int64_t i = 0; i < n; i++) {
            int64_t row = lsh_row_of(t, g, i) * d, at = lsh_place(w, i, b);
            if (!lsh_in_block(w, i, b, &list))
                continue;
            list.x = r->ds + at, list.y = w->mix;
            k->list_mix(&list);
            k->axpy(x->a->dq + row, x->call.shape->scale, w->mix, d);
            for (int64_t j = 0; j < list.n; j++) {
                k->axpy(r->acc_k + (first + list.idx[j]) * d, r->ds[at + j], w->q + i * d, d);
                k->axpy(r->acc_v + (first + list.idx[j]) * d, w->s[at + j], x->a->dout + row, d);
            }
        }
    }
}

/* ---- a key head ---- */

/* dq of a token's head += what its normalised copy has as a key, dk (d,). */
static void through_norm(const struct retrace *x, int64_t t, int64_t head, const float *dk)
{
    const struct kern_table *k = x->call.kern;
    int64_t d = x->l.d, at = (t * x->l.H + head) * d;
    const float *key = lsh_row(&x->l, t + lsh_stage_of(&x->l, t)->gap, head);
    float norm = sqrtf(k->dot(x->call.q + at, x->call.q + at, d));
    if (!(norm > 0))
        return;
    k->axpy(x->a->dq + at, 1 / norm, dk, d);
    k->axpy(x->a->dq + at, -k->dot(key, dk, d) / norm, key, d);
}

/* Key head kh's gradients of keys and values: sums over threads, in their order. */
static void join(const struct retrace *x, int64_t kh, int team)
{
    const struct kern_table *k = x->call.kern;
    const struct lsh *l = &x->l;
    int64_t d = l->d, g = kh / (l->K / l->G);
    struct room *first = &x->room[0];
#pragma omp for schedule(static)
    for (int64_t t = 0; t < x->call.n; t++) {
        int64_t slot = (t + lsh_stage_of(l, t)->gap) * d;
        for (int i = 1; i < team; i++) {
            k->add(first->acc_k + slot, x->room[i].acc_k + slot, d);
            k->add(first->acc_v + slot, x->room[i].acc_v + slot, d);
        }
        k->add(x->a->dv + (t * l->G + g) * d, first->acc_v + slot, d);
        if (l->shared)
            through_norm(x, t, kh, first->acc_k + slot);
        else
            k->add(x->a->dk + (t * l->G + g) * d, first->acc_k + slot, d);
    }
}

/* The groups of key head kh, over the whole sequence; every thread takes every so many. */
static void key_head(const struct retrace *x, struct room *r, int64_t kh, int team)
{
    struct lsh_part t = {.c = &x->call, .o = x->call.opts, .l = &x->l};
    int64_t each = x->l.H / x->l.K, me = omp_get_thread_num(), count = 0;
    memset(r->acc_k, 0, (size_t)(r->w.slots * x->l.d) * sizeof(float));
    memset(r->acc_v, 0, (size_t)(r->w.slots * x->l.d) * sizeof(float));
    while (lsh_next(&t, x->call.n)) {
        struct lsh_group all = lsh_group_of(&t, &r->w, x->threads);
        t.seen = x->seen + t.at * x->l.H * x->l.R;
        for (int64_t at = 0; at < t.n; at += all.n)
            for (int64_t h = kh * each; h < (kh + 1) * each; h += all.heads, count++) {
                struct lsh_group g = {at, all.n < t.n - at ? all.n : t.n - at, h, all.heads};
                if (count % team == me)
                    group_grad(x, &t, r, &g);
            }
    }
#pragma omp barrier
    join(x, kh, team);
}

static void all_threads(struct retrace *x)
{
#pragma omp parallel num_threads(x->threads) if (x->threads > 1)
    {
        int me = omp_get_thread_num(), team = omp_get_num_threads();
        struct room *r = &x->room[me];
        struct lsh_part t = {.c = &x->call, .o = x->call.opts, .l = &x->l, .bucket = x->bucket, .seen = x->seen};
        room_cut(r, x->memory + (size_t)me * x->each, &x->l, x->call.n);
        while (lsh_next(&t, x->call.n)) {
            t.seen = x->seen + t.at * x->l.H * x->l.R;
            lsh_enter(&t, &r->w);
        }
        for (int64_t kh = 0; kh < x->l.K; kh++)
            key_head(x, r, kh, team);
    }
}

int reformer_backward(struct attn_grad *g)
{
    struct attn_call *c = g->call;
    const struct attn_shape *s = c->shape;
    struct retrace x = {.a = g, .call = *c, .threads = omp_get_max_threads()};
    struct room r;
    size_t mark = arena_mark(c->step), kv = (size_t)(c->n * s->kv_heads * s->dim) * sizeof(float);
    x.call.lse = NULL;
    lsh_cut(&x.l, c->state, c->opts, s, c->n);
    x.each = room_cut(&r, NULL, &x.l, c->n);
    x.room = ARENA_NEW(c->step, x.threads, struct room);
    x.bucket = ARENA_NEW(c->step, LSH_PART * (x.l.H + x.l.K) * x.l.R, int32_t);
    x.seen = ARENA_NEW(c->step, c->n * x.l.H * x.l.R, int32_t);
    x.memory = x.room && x.bucket && x.seen ? arena_alloc(c->step, x.threads, x.each) : NULL;
    if (x.memory) {
        memset(g->dk, 0, kv);
        memset(g->dv, 0, kv);
        all_threads(&x);
    }
    arena_release(c->step, mark);
    return x.memory ? ERR_OK : ERR_NOMEM;
}
