/* Tiles dealt out to threads, and their sums brought together in the order of threads. */
#include "train/back_attn.h"

#include <omp.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "train/back_method.h"
#include "train/back_pattern.h"
#include "train/back_tile.h"

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

struct need { /* what rooms depend on */
    const struct attn_shape *s;
    const struct back_rule *rule;
    int64_t n, units, width, buckets;
    bool gate, backward, keys; /* keys: gradients of keys and values too */
};

static int64_t tokens_of(int64_t heads)
{
    return max64(1, TILE_ROWS / heads);
}

static float *some(unsigned char *base, size_t *at, bool want, int64_t n)
{
    return want ? take(base, at, n, sizeof(float)) : NULL;
}

static void cut_gate(struct back_room *g, unsigned char *base, size_t *at, const struct need *x)
{
    int64_t T = tokens_of(x->s->heads / x->units), nb = x->n / x->rule->select.block, groups = (nb + 15) / 16;
    int64_t ns = x->rule->summary > 0 ? (x->n / x->rule->summary + 15) / 16 * 16 : 0, sums = x->s->kv_heads * ns * x->s->dim;
    *g = (struct back_room){.ld = (nb + 1 + 15) / 16 * 16 + 16};
    g->s = some(base, at, true, T * g->ld);
    g->lm = some(base, at, true, T * g->ld);
    g->l1m = some(base, at, ns > 0, T * g->ld);
    g->a = some(base, at, x->backward, T * g->ld);
    g->b = some(base, at, x->backward && ns > 0, T * g->ld);
    g->set = take(base, at, T, sizeof *g->set);
    g->work = some(base, at, true, g->ld + 64);
    g->chosen = take(base, at, g->ld, sizeof *g->chosen);
    g->ddist = some(base, at, x->backward, x->units * x->buckets);
    g->dbeta = some(base, at, x->backward, x->s->heads);
    g->dblk = some(base, at, x->backward, x->units * groups * 16 * x->width);
    g->dkbar = some(base, at, x->backward && ns > 0, sums);
    g->dvbar = some(base, at, x->backward && ns > 0, sums);
}

/* Cuts a thread's room out of base; returns its bytes. */
static size_t cut(struct tile_room *w, unsigned char *base, const struct need *x)
{
    int64_t d = x->s->dim, heads = x->s->heads / x->units, T = tokens_of(heads), R = T * heads, nk = (x->n + KERN_KB - 1) / KERN_KB;
    size_t at = 0;
    bool back = x->backward;
    *w = (struct tile_room){0};
    w->q = some(base, &at, true, R * d);
    w->o = some(base, &at, true, R * d);
    w->dout = some(base, &at, back, R * d);
    w->s = some(base, &at, true, R * TILE_STRIDE);
    w->dp = some(base, &at, back, R * TILE_STRIDE);
    w->m = some(base, &at, true, R);
    w->l = some(base, &at, true, R);
    w->lse = some(base, &at, back, R);
    w->dot = some(base, &at, back, R);
    w->bias = some(base, &at, true, T * TILE_BLOCKS);
    w->sums = some(base, &at, back, T * TILE_BLOCKS);
    w->kt = some(base, &at, true, TILE_KEYS * d);
    w->vt = some(base, &at, true, TILE_KEYS * d);
    w->k = some(base, &at, true, TILE_KEYS * d);
    w->v = some(base, &at, true, TILE_KEYS * d);
    w->dk = some(base, &at, x->keys, TILE_KEYS * d);
    w->dv = some(base, &at, x->keys, TILE_KEYS * d);
    w->acc_k = some(base, &at, x->keys, nk * KERN_KB * d);
    w->acc_v = some(base, &at, x->keys, nk * KERN_KB * d);
    w->block = take(base, &at, nk + TILE_BLOCKS, sizeof *w->block);
    w->mark = take(base, &at, nk + TILE_BLOCKS, 1);
    if (x->rule->mask == BACK_PATTERN) {
        w->bits = take(base, &at, T * nk, sizeof *w->bits);
        w->picked = take(base, &at, back_pattern_picks(x->rule, x->s), sizeof *w->picked);
    }
    if (x->gate)
        cut_gate(&w->gate, base, &at, x);
    return at;
}

static size_t packed_bytes(const struct attn_shape *s, int64_t n)
{
    return 2 * arena_bytes(s->kv_heads * ((n + KERN_KB - 1) / KERN_KB) * KERN_KB * s->dim, sizeof(float));
}

/* Who shares a set of keys: the gate's units, heads of one pattern, or a KV head's. */
static int64_t units_of(const struct attn_shape *s, const struct back_rule *r, int64_t gate_units)
{
    if (r->mask == BACK_PATTERN)
        return s->heads / back_pattern_heads(r, s);
    return gate_units ? gate_units : s->kv_heads;
}

size_t back_attn_bytes(const struct attn_shape *s, const struct back_rule *r, int64_t n, const struct attn_params *p)
{
    struct tile_room w;
    if (r->mask == BACK_METHOD)
        return back_method_bytes(s, r, n);
    struct need x = {.s = s, .rule = r, .n = n, .units = units_of(s, r, p ? p->units : 0), .gate = p != NULL, .backward = true};
    x.width = p ? p->width : 0, x.buckets = p ? p->buckets : 0, x.keys = true;
    return packed_bytes(s, n) + (size_t)omp_get_max_threads() * cut(&w, NULL, &x) + arena_bytes(omp_get_max_threads(), sizeof w) +
           arena_bytes(1, 1);
}

/* Keys and values by blocks of 16, transposed; zeros past the end. */
static void pack(const struct tile_run *r)
{
    const struct back_attn *a = r->a;
    int64_t d = a->shape->dim, G = a->shape->kv_heads;
#pragma omp parallel for collapse(2) if (r->nk > 4)
    for (int64_t g = 0; g < G; g++)
        for (int64_t b = 0; b < r->nk; b++)
            for (int64_t j = 0; j < KERN_KB; j++) {
                int64_t key = b * KERN_KB + j, to = (g * r->nk + b) * d * KERN_KB + j, from = (key * G + g) * d;
                for (int64_t x = 0; x < d; x++) {
                    r->kt[to + x * KERN_KB] = key < a->n ? a->k[from + x] : 0;
                    r->vt[to + x * KERN_KB] = key < a->n ? a->v[from + x] : 0;
                }
            }
}

/* Tiles of the units of KV head g; each thread takes every so many, to and fro, so that early (short) and late ones mix. */
static void run_tiles(const struct tile_run *r, struct tile_room *w, int64_t g, int64_t threads)
{
    const struct back_attn *a = r->a;
    int64_t tiles = (a->n + r->tokens - 1) / r->tokens, per = r->units / a->shape->kv_heads, items = tiles * per;
    int64_t me = omp_get_thread_num();
    for (int64_t round = 0; round * threads < items; round++) {
        int64_t item = items - 1 - (round * threads + (round % 2 ? threads - 1 - me : me));
        if (item < 0)
            continue;
        struct tile t = {.at = {.unit = g * per + item % per, .t0 = item / per * r->tokens}, .kv = g};
        t.at.count = a->n - t.at.t0 < r->tokens ? a->n - t.at.t0 : r->tokens;
        t.rows = t.at.count * r->heads;
        if (r->backward)
            tile_backward(r, w, &t);
        else
            tile_forward(r, w, &t);
    }
}

static void clear(float *x, int64_t n)
{
    if (x)
        memset(x, 0, (size_t)n * sizeof *x);
}

static void clear_gate(const struct tile_run *r, struct back_room *w)
{
    const struct back_gate *g = r->a->gate;
    int64_t sums = r->a->shape->kv_heads * g->nsg * 16 * r->a->shape->dim;
    w->dtemp = 0;
    clear(w->ddist, g->units * g->buckets);
    clear(w->dbeta, r->a->shape->heads);
    clear(w->dblk, g->units * g->ng * 16 * g->width);
    clear(w->dkbar, sums);
    clear(w->dvbar, sums);
}

/* One KV head's gradients of keys and values: the sum over threads, in their order. All threads call it. */
static void join_keys(const struct tile_run *r, const struct tile_room *rooms, int64_t g, int threads)
{
    const struct back_attn *a = r->a;
    int64_t d = a->shape->dim, G = a->shape->kv_heads;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < a->n; t++) {
        float *dk = a->dk + (t * G + g) * d, *dv = a->dv + (t * G + g) * d;
        memcpy(dk, rooms[0].acc_k + t * d, (size_t)d * sizeof *dk);
        memcpy(dv, rooms[0].acc_v + t * d, (size_t)d * sizeof *dv);
        for (int i = 1; i < threads; i++) {
            a->kern->add(dk, rooms[i].acc_k + t * d, d);
            a->kern->add(dv, rooms[i].acc_v + t * d, d);
        }
    }
}

/* The gate's sums over threads; summaries' gradients on to keys and values. */
static void join_gate(const struct tile_run *r, const struct tile_room *rooms, int threads)
{
    const struct back_attn *a = r->a;
    struct back_gate *g = a->gate;
    const struct kern_table *k = a->kern;
    int64_t d = a->shape->dim, G = a->shape->kv_heads, sums = G * g->nsg * 16 * d, per = g->rule->summary;
    for (int i = 0; i < threads; i++) {
        const struct back_room *w = &rooms[i].gate;
        g->dtemp += w->dtemp;
        k->add(g->dblk, w->dblk, g->units * g->ng * 16 * g->width);
        if (g->g->dist)
            k->add(g->g->dist, w->ddist, g->units * g->buckets);
        if (g->ns && g->g->beta)
            k->add(g->g->beta, w->dbeta, a->shape->heads);
        if (g->ns && a->dq) {
            k->add(g->dkbar, w->dkbar, sums);
            k->add(g->dvbar, w->dvbar, sums);
        }
    }
#pragma omp parallel for if (a->n > 256)
    for (int64_t t = 0; t < (a->dq ? g->ns * per : 0); t++)
        for (int64_t h = 0; h < G; h++) {
            int64_t from = (h * g->nsg * 16 + t / per) * d;
            k->axpy(a->dk + (t * G + h) * d, 1 / (float)per, g->dkbar + from, d);
            k->axpy(a->dv + (t * G + h) * d, 1 / (float)per, g->dvbar + from, d);
        }
}

static int run(struct back_attn *a, bool backward)
{
    const struct attn_shape *s = a->shape;
    const struct back_gate *g = a->gate;
    struct tile_run r = {
        .a = a, .units = units_of(s, a->rule, g ? g->units : 0), .nk = (a->n + KERN_KB - 1) / KERN_KB, .backward = backward};
    r.heads = s->heads / r.units;
    r.tokens = tokens_of(r.heads);
    struct need x = {.s = s, .rule = a->rule, .n = a->n, .units = r.units, .gate = g != NULL, .backward = backward};
    x.width = g ? g->width : 0, x.buckets = g ? g->buckets : 0, x.keys = backward && a->dq;
    struct tile_room first;
    size_t mark = arena_mark(a->step), each = cut(&first, NULL, &x);
    int threads = omp_get_max_threads(), used = 1;
    r.kt = ARENA_NEW(a->step, s->kv_heads * r.nk * KERN_KB * s->dim, float);
    r.vt = ARENA_NEW(a->step, s->kv_heads * r.nk * KERN_KB * s->dim, float);
    struct tile_room *rooms = ARENA_NEW(a->step, threads, struct tile_room);
    unsigned char *memory = arena_alloc(a->step, threads, each);
    if (!r.kt || !r.vt || !rooms || !memory)
        return ERR_NOMEM;
    pack(&r);
#pragma omp parallel num_threads(threads) if (a->n > r.tokens)
    {
        struct tile_room *w = &rooms[omp_get_thread_num()];
        int team = omp_get_num_threads();
        cut(w, memory + (size_t)omp_get_thread_num() * each, &x);
        if (backward && g)
            clear_gate(&r, &w->gate);
#pragma omp single
        used = team;
        for (int64_t h = 0; h < s->kv_heads; h++) {
            clear(w->acc_k, r.nk * KERN_KB * s->dim);
            clear(w->acc_v, r.nk * KERN_KB * s->dim);
            run_tiles(&r, w, h, team);
#pragma omp barrier
            if (x.keys)
                join_keys(&r, rooms, h, team);
        }
    }
    for (int i = 0; i < used; i++) {
        a->flops += rooms[i].pairs * (double)s->dim * 2 * (!backward ? 2 : a->dq ? 5 : 2);
        a->kept += backward ? 0 : rooms[i].kept;
    }
    a->seen += backward ? 0 : (double)(a->n * r.units);
    if (backward && g)
        join_gate(&r, rooms, used);
    arena_release(a->step, mark);
    return ERR_OK;
}

int back_attn_forward(struct back_attn *a)
{
    return a->rule->mask == BACK_METHOD ? back_method_run(a, false) : run(a, false);
}

int back_attn_backward(struct back_attn *a)
{
    return a->rule->mask == BACK_METHOD ? back_method_run(a, true) : run(a, true);
}
