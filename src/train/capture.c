/* Dense attention, observed. The observation waits for the sequence's last chunk, when all keys of the layer are there. */
#include "train/capture.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"

enum { TILE = 24 }; /* query rows that go through the keys together */

extern const struct attn_method attn_dense;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t padded(int64_t n)
{
    return (n + KERN_KB - 1) / KERN_KB * KERN_KB;
}

static int64_t blocks_of(const struct capture_dims *d, int64_t tokens)
{
    return (tokens + d->block - 1) / d->block;
}

/* ---- memory ---- */

static size_t take(struct arena *to, float **p, bool want, int64_t n)
{
    *p = want && to ? ARENA_NEW(to, n, float) : NULL;
    return want ? arena_bytes(n, sizeof(float)) : 0;
}

static size_t take_layer(struct arena *to, const struct capture_dims *d, struct capture_layer *l)
{
    int64_t nb = blocks_of(d, d->max_tokens), maps = d->max_rows * d->heads * nb;
    return take(to, &l->q0, true, d->max_rows * d->heads * d->dim) + take(to, &l->ctx, d->context, d->max_rows * d->hidden) +
           take(to, &l->pool, true, d->kv_heads * nb * 3 * d->dim) + take(to, &l->mass, true, maps) +
           take(to, &l->peak, d->peak, maps);
}

/* What all sequences share: the layer at hand. */
static size_t take_common(struct arena *to, const struct capture_dims *d, struct capture *c)
{
    c->sum = to ? ARENA_NEW(to, d->hidden, double) : NULL;
    return arena_bytes(d->hidden, sizeof(double)) + take(to, &c->keys, true, d->kv_heads * padded(d->max_tokens) * d->dim) +
           take(to, &c->q, true, d->max_rows * d->heads * d->dim);
}

static size_t take_sequence(struct arena *to, const struct capture_dims *d, struct capture *c)
{
    struct capture_layer none;
    c->row = to ? ARENA_NEW(to, d->max_rows, int64_t) : NULL;
    c->layer = to ? ARENA_NEW0(to, d->layers, struct capture_layer) : NULL;
    size_t n = arena_bytes(d->max_rows, sizeof(int64_t)) + arena_bytes(d->layers, sizeof(struct capture_layer));
    for (int64_t l = 0; l < d->layers; l++)
        n += take_layer(c->layer ? to : NULL, d, c->layer ? &c->layer[l] : &none);
    return n;
}

size_t capture_bytes(const struct capture_dims *d, int64_t n)
{
    struct capture c;
    return take_common(NULL, d, &c) + (size_t)n * take_sequence(NULL, d, &c);
}

int capture_alloc(struct capture *c, int64_t n, const struct capture_dims *d, struct arena *run)
{
    size_t before = run->used;
    struct capture shared = {.d = *d};
    take_common(run, d, &shared);
    for (int64_t i = 0; i < n; i++) {
        c[i] = shared;
        take_sequence(run, d, &c[i]);
    }
    return run->used - before == capture_bytes(d, n) ? ERR_OK : ERR_NOMEM;
}

void capture_begin(struct capture *c, int64_t tokens, int64_t rows)
{
    AST_ASSERT(tokens <= c->d.max_tokens && rows <= c->d.max_rows);
    c->tokens = tokens;
    c->blocks = blocks_of(&c->d, tokens);
    c->rows = rows;
}

/* ---- what a chunk adds ---- */

/* One key joins its block's pool; the block's last key makes the sum a mean. */
static void pool_key(float *pool, const float *k, int64_t d, int64_t i, int64_t block)
{
    float *mean = pool, *hi = pool + d, *lo = pool + 2 * d;
    for (int64_t x = 0; x < d; x++) {
        mean[x] = i == 0 ? k[x] : mean[x] + k[x];
        hi[x] = i == 0 || k[x] > hi[x] ? k[x] : hi[x];
        lo[x] = i == 0 || k[x] < lo[x] ? k[x] : lo[x];
        if (i == block - 1)
            mean[x] /= (float)block;
    }
}

static void add_keys(struct capture *c, const struct attn_call *a, struct capture_layer *l)
{
    int64_t d = c->d.dim, G = c->d.kv_heads, B = c->d.block, each = padded(c->d.max_tokens) * d;
    for (int64_t i = 0; i < a->n; i++)
        for (int64_t g = 0; g < G; g++) {
            int64_t t = a->pos + i;
            const float *k = a->k + (i * G + g) * d;
            float *to = c->keys + g * each + t / KERN_KB * d * KERN_KB + t % KERN_KB;
            for (int64_t x = 0; x < d; x++)
                to[x * KERN_KB] = k[x];
            pool_key(l->pool + (g * c->blocks + t / B) * 3 * d, a->k0 + (i * G + g) * d, d, t % B, B);
        }
}

static void add_rows(struct capture *c, const struct attn_call *a, struct capture_layer *l)
{
    int64_t wide = c->d.heads * c->d.dim, D = c->d.hidden;
    for (int64_t i = 0; i < a->n; i++) {
        int64_t t = a->pos + i;
        for (int64_t x = 0; l->ctx && x < D; x++)
            c->sum[x] += (double)a->x[i * D + x];
        if (c->next >= c->rows || c->row[c->next] != t)
            continue;
        int64_t r = c->next++;
        memcpy(l->q0 + r * wide, a->q0 + i * wide, (size_t)wide * sizeof(float));
        memcpy(c->q + r * wide, a->q + i * wide, (size_t)wide * sizeof(float));
        if (!l->ctx)
            continue;
        double inv = 1 / (double)(t + 1), sq = 0;
        for (int64_t x = 0; x < D; x++)
            sq += c->sum[x] * inv * (c->sum[x] * inv);
        double scale = inv / sqrt(sq / (double)D + 1e-6);
        for (int64_t x = 0; x < D; x++)
            l->ctx[r * D + x] = (float)(c->sum[x] * scale);
    }
}

/* ---- block masses, when all keys are there ---- */

struct tile { /* one thread's room */
    float *q, *s;
};

static int64_t tile_tokens(const struct attn_shape *s)
{
    int64_t group = s->heads / s->kv_heads;
    return group < TILE ? TILE / group : 1;
}

static size_t tile_bytes(const struct attn_shape *s, int64_t max_tokens)
{
    int64_t rows = tile_tokens(s) * (s->heads / s->kv_heads);
    return arena_bytes(rows * s->dim, sizeof(float)) + arena_bytes(rows * padded(max_tokens), sizeof(float));
}

/* p: the logits of one row; its block masses */
static void one_row(const struct capture *c, const struct attn_call *a, float *p, int64_t t, float *mass, float *peak)
{
    int64_t from = a->shape->window > 0 && t + 1 > a->shape->window ? t + 1 - a->shape->window : 0, B = c->d.block;
    float sum;
    a->kern->exp_row(p + from, p + from, t + 1 - from, &sum);
    float inv = 1 / sum;
    for (int64_t J = 0; J < c->blocks; J++) {
        float m = 0, top = 0;
        for (int64_t j = J * B < from ? from : J * B; j < min64(J * B + B, t + 1); j++) {
            m += p[j];
            top = p[j] > top ? p[j] : top;
        }
        mass[J] = m * inv;
        if (peak)
            peak[J] = top * inv;
    }
}

/* Rows first .. first+n-1 of the heads of KV head g. */
static void one_tile(const struct capture *c, const struct attn_call *a, int64_t g, int64_t first, const struct tile *w)
{
    int64_t d = c->d.dim, H = c->d.heads, group = H / c->d.kv_heads, n = min64(tile_tokens(a->shape), c->rows - first);
    int64_t keys = c->row[first + n - 1] + 1, ld = padded(keys), nb = c->blocks;
    const struct capture_layer *l = &c->layer[a->shape->layer];
    for (int64_t i = 0; i < n; i++)
        memcpy(w->q + i * group * d, c->q + ((first + i) * H + g * group) * d, (size_t)(group * d) * sizeof(float));
    struct kern_scores k = {.rows = n * group, .width = d, .groups = ld / KERN_KB, .u = w->q, .scale = a->shape->scale};
    k.v = c->keys + g * padded(c->d.max_tokens) * d;
    k.v_stride = d * KERN_KB;
    k.s = w->s;
    k.ld = ld;
    a->kern->block_scores(&k);
    for (int64_t i = 0; i < n * group; i++) {
        int64_t at = ((first + i / group) * H + g * group + i % group) * nb;
        one_row(c, a, w->s + i * ld, c->row[first + i / group], l->mass + at, l->peak ? l->peak + at : NULL);
    }
}

static int masses(const struct capture *c, const struct attn_call *a)
{
    int64_t per = tile_tokens(a->shape), tiles = (c->rows + per - 1) / per, items = tiles * c->d.kv_heads;
    if (items == 0)
        return ERR_OK;
    int threads = (int)min64(omp_get_max_threads(), items);
    size_t mark = arena_mark(a->step), each = tile_bytes(a->shape, c->tokens);
    unsigned char *room = arena_alloc(a->step, threads, each);
    if (!room)
        return ERR_NOMEM;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        unsigned char *mine = room + (size_t)omp_get_thread_num() * each;
        int64_t rows = per * (a->shape->heads / a->shape->kv_heads);
        struct tile w = {.q = (float *)(void *)mine};
        w.s = (float *)(void *)(mine + arena_bytes(rows * a->shape->dim, sizeof(float)));
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++) /* later rows see more keys: hand the long ones out first */
            one_tile(c, a, i % c->d.kv_heads, (tiles - 1 - i / c->d.kv_heads) * per, &w);
    }
    arena_release(a->step, mark);
    return ERR_OK;
}

/* ---- the method ---- */

static int run(struct attn_call *a)
{
    struct capture *c = ((const struct capture_opts *)a->opts)->to;
    struct capture_layer *l = &c->layer[a->shape->layer];
    int rc = attn_dense.run(a);
    if (a->pos == 0) {
        c->next = 0;
        memset(c->sum, 0, (size_t)c->d.hidden * sizeof *c->sum);
        /* the keys that fill the last kernel block up are scored too; whatever they are, they are never looked at */
        memset(c->keys, 0, (size_t)(c->d.kv_heads * padded(c->d.max_tokens) * c->d.dim) * sizeof(float));
    }
    add_keys(c, a, l);
    add_rows(c, a, l);
    if (a->pos + a->n < c->tokens)
        return rc;
    AST_ASSERT(c->next == c->rows); /* ascending, without repetition */
    for (int64_t g = 0; c->tokens % c->d.block && g < c->d.kv_heads; g++)
        memset(l->pool + (g * c->blocks + c->blocks - 1) * 3 * c->d.dim, 0, (size_t)(3 * c->d.dim) * sizeof(float));
    return rc ? rc : masses(c, a);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    size_t dense = attn_dense.scratch(NULL, s, n, max_tokens), own = arena_bytes(omp_get_max_threads(), tile_bytes(s, max_tokens));
    (void)opts;
    return dense > own ? dense : own;
}

static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    (void)opts;
    attn_dense.cost(NULL, s, pos, n, out);
}

const struct attn_method capture_method = {
    .name = "capture",
    .cite = "Vaswani et al. 2017",
    .summary = "dense attention that keeps what gates are distilled from",
    .caps = ATTN_CAUSAL | ATTN_EXACT | ATTN_NEEDS_RAW,
    .opts_size = sizeof(struct capture_opts),
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
