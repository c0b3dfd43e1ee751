/* Sliding window with sinks: the last tokens and the first few.
 *   source   Beltagy et al. 2020 (window); Xiao et al. 2024 (sinks), keys at their original positions */
#include <omp.h>
#include <string.h>

#include "attn/window.h"
#include "attn/sparsity.h"
#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct window_opts, keep, 1024, 1, 1e9, "tokens a query keeps: itself, those before it, and the sinks"),
    CFG_INT(struct window_opts, sink, 4, 0, 1e9, "first tokens of the sequence, kept by every query"),
    CFG_END,
};
/* clang-format on */

static int check(const void *opts, const struct attn_shape *s)
{
    const struct window_opts *o = opts;
    (void)s;
    if (o->sink >= o->keep)
        return err_set(ERR_ARG, "sink = %lld leaves nothing of keep = %lld for the window", (long long)o->sink, (long long)o->keep);
    return ERR_OK;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

struct span { /* keys 0 .. sink-1 and from .. t */
    int64_t sink, from;
};

static struct span span_of(const struct window_opts *o, const struct attn_shape *s, int64_t t)
{
    int64_t from = max64(0, t + 1 - (o->keep - o->sink)), first = s->window > 0 ? max64(0, t + 1 - s->window) : 0;
    from = max64(from, first);
    return (struct span){first == 0 ? min64(o->sink, from) : 0, from};
}

struct room {
    float *q, *o, *m, *l, *lse;
    int64_t *begin, *end;
    void *kern;
};

static size_t room_bytes(int64_t dim)
{
    return 2 * arena_bytes(KERN_MAX_ROWS * dim, sizeof(float)) + 5 * arena_bytes(KERN_MAX_ROWS, sizeof(int64_t)) +
           arena_bytes((int64_t)kern_tile_scratch(KERN_MAX_ROWS, dim), 1);
}

static void *take(unsigned char **at, int64_t n, size_t size)
{
    unsigned char *p = *at;
    *at += arena_bytes(n, size);
    return p;
}

static struct room room_at(unsigned char *at, int64_t dim)
{
    struct room r;
    r.q = take(&at, KERN_MAX_ROWS * dim, sizeof(float));
    r.o = take(&at, KERN_MAX_ROWS * dim, sizeof(float));
    r.m = take(&at, KERN_MAX_ROWS, sizeof(int64_t));
    r.l = take(&at, KERN_MAX_ROWS, sizeof(int64_t));
    r.lse = take(&at, KERN_MAX_ROWS, sizeof(int64_t));
    r.begin = take(&at, KERN_MAX_ROWS, sizeof(int64_t));
    r.end = take(&at, KERN_MAX_ROWS, sizeof(int64_t));
    r.kern = take(&at, (int64_t)kern_tile_scratch(KERN_MAX_ROWS, dim), 1);
    return r;
}

struct tiling {
    int64_t group, slice, tokens, first, tiles, slices; /* heads of a group, of a tile; tokens of a tile */
};

static struct tiling tiling(const struct attn_shape *s, int64_t pos, int64_t n)
{
    struct tiling t = {.group = s->heads / s->kv_heads};
    t.slice = min64(t.group, KERN_MAX_ROWS);
    t.tokens = KERN_MAX_ROWS / t.slice;
    t.slices = (t.group + t.slice - 1) / t.slice;
    t.first = pos / t.tokens;
    t.tiles = (pos + n - 1) / t.tokens - t.first + 1;
    return t;
}

/* Sinks first, then the window: each a pass over its own range of blocks. */
static void attend(const struct attn_call *c, struct kern_tile *t, const struct room *r, int64_t kv_head, int64_t t0)
{
    const struct window_opts *o = c->opts;
    int64_t rows = t->rows, sinks = 0, from = INT64_MAX, to = 0;
    for (int64_t pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < rows; i++) {
            struct span s = span_of(o, c->shape, t0 + i / t->share);
            r->begin[i] = pass ? s.from : 0;
            r->end[i] = pass ? t0 + i / t->share + 1 : s.sink;
            sinks = max64(sinks, s.sink);
            from = min64(from, s.from);
            to = max64(to, t0 + i / t->share + 1);
        }
        if (pass == 0 && sinks > 0)
            c->kern->tile_dense(t, &c->kv[kv_head], 0, (sinks + KERN_KB - 1) / KERN_KB);
        if (pass == 1)
            c->kern->tile_dense(t, &c->kv[kv_head], from / KERN_KB, (to + KERN_KB - 1) / KERN_KB);
    }
}

static void one_tile(const struct attn_call *c, const struct tiling *g, int64_t item, const struct room *r)
{
    const struct attn_shape *s = c->shape;
    int64_t sub = item % g->slices, kv_head = item / g->slices % s->kv_heads, tile = g->first + item / g->slices / s->kv_heads;
    int64_t t0 = max64(tile * g->tokens, c->pos), t1 = min64((tile + 1) * g->tokens, c->pos + c->n), d = s->dim;
    int64_t h0 = kv_head * g->group + sub * g->slice, heads = min64(g->slice, g->group - sub * g->slice);
    for (int64_t t = t0; t < t1; t++)
        for (int64_t i = 0; i < heads * d; i++)
            r->q[(t - t0) * heads * d + i] = s->scale * c->q[((t - c->pos) * s->heads + h0) * d + i];
    struct kern_tile k = {.rows = (t1 - t0) * heads, .dim = d, .q = r->q, .end = r->end, .begin = r->begin, .o = r->o, .m = r->m};
    k.l = r->l;
    k.scratch = r->kern;
    k.share = heads;
    c->kern->tile_begin(&k);
    attend(c, &k, r, kv_head, t0);
    c->kern->tile_end(&k, r->lse);
    for (int64_t t = t0; t < t1; t++) {
        int64_t to = (t - c->pos) * s->heads + h0;
        memcpy(c->out + to * d, r->o + (t - t0) * heads * d, (size_t)(heads * d) * sizeof(float));
        if (c->lse)
            memcpy(c->lse + to, r->lse + (t - t0) * heads, (size_t)heads * sizeof(float));
    }
}

static double pairs(const struct window_opts *o, const struct attn_shape *s, int64_t pos, int64_t n)
{
    double sum = 0;
    for (int64_t t = pos; t < pos + n; t++) {
        struct span k = span_of(o, s, t);
        sum += (double)(k.sink + t + 1 - k.from);
    }
    return sum * (double)s->heads;
}

static int64_t kept(const struct attn_call *c, int64_t head, int64_t token, int32_t *list)
{
    struct span s = span_of(c->opts, c->shape, token);
    int64_t n = 0;
    (void)head;
    for (int64_t j = 0; j < s.sink; j++)
        list[n++] = (int32_t)j;
    for (int64_t j = s.from; j <= token; j++)
        list[n++] = (int32_t)j;
    return n;
}

static int run(struct attn_call *c)
{
    const struct attn_shape *s = c->shape;
    struct tiling g = tiling(s, c->pos, c->n);
    int64_t items = g.tiles * s->kv_heads * g.slices;
    int threads = attn_threads((double)(c->n * (c->pos + c->n) * c->shape->heads * c->shape->dim), items);
    size_t mark = arena_mark(c->step), each = room_bytes(s->dim);
    unsigned char *rooms = arena_alloc(c->step, threads, each);
    if (!rooms)
        return ERR_NOMEM;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct room r = room_at(rooms + (size_t)omp_get_thread_num() * each, s->dim);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++)
            one_tile(c, &g, i, &r);
    }
    arena_release(c->step, mark);
    if (c->stats) {
        c->stats->pairs_seen += pairs(c->opts, s, c->pos, c->n);
        c->stats->pairs_causal += (double)s->heads * ((double)c->n * (double)c->pos + (double)c->n * (double)(c->n + 1) / 2);
        c->stats->tile_dense += (double)items;
    }
    return sparsity_chunk(c, kept);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    (void)opts;
    (void)n;
    size_t rooms = arena_bytes(omp_get_max_threads(), room_bytes(s->dim)), sampled = sparsity_chunk_bytes(s->dim, max_tokens);
    return rooms > sampled ? rooms : sampled; /* one after the other */
}

static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    out->pairs = pairs(opts, s, pos, n);
    out->flops = 4 * out->pairs * (double)s->dim;
    out->bytes = out->pairs * (double)s->dim * 8 / KERN_MAX_ROWS;
}

const struct attn_method attn_window = {
    .name = "window",
    .cite = "Beltagy et al. 2020; Xiao et al. 2024",
    .summary = "the last tokens and the first few",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct window_opts),
    .check = check,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
