/* Dense attention: every key that causality and the architecture's own window allow. The baseline of every figure.
 *
 * The work is cut into (KV head, query tile) pairs; a tile holds up to KERN_MAX_ROWS rows = tokens x query heads of the
 * KV head's group, so that a key block that is in cache serves all of them. Tiles begin at multiples of their size in
 * the *sequence*, not in the chunk, so that a row meets the same arithmetic however the sequence is cut.
 *   source   Vaswani et al. 2017 eq. 1; running softmax in the tile kernels */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/attn.h"
#include "attn/sparsity.h"
#include "base/arena.h"
#include "base/err.h"

/* Tiles that share what they load of keys and values, and the bytes of a part that they go over in turn: with the tiles' own
 * rows and the part that comes next it has to stay in a core's second-level cache. The first part is short, since nobody has
 * asked for it before, and each is twice the one before it. */
enum { MOST_TILES = 4, PART_BYTES = 256 << 10, FIRST_PART = 16 };

struct tiling {
    int64_t group, per_tile, tokens; /* query heads of a KV head, of a tile; tokens of a tile */
    int64_t subs, first, n;          /* tiles side by side in a group; first token tile; token tiles */
    int64_t run, part, threads;      /* token tiles of an item; blocks of a part. No bit depends on them */
};

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Tiles of an item, when there are so many in all. */
static int64_t together(int64_t tiles)
{
    return max64(1, min64(MOST_TILES, tiles / (8 * (int64_t)omp_get_max_threads())));
}

static struct tiling tiling(const struct attn_shape *s, int64_t pos, int64_t n)
{
    struct tiling t = {.group = s->heads / s->kv_heads};
    t.per_tile = t.group < KERN_MAX_ROWS ? t.group : KERN_MAX_ROWS;
    t.tokens = KERN_MAX_ROWS / t.per_tile;
    t.subs = (t.group + t.per_tile - 1) / t.per_tile;
    t.first = pos / t.tokens;
    t.n = (pos + n - 1) / t.tokens - t.first + 1;
    t.part = max64(1, PART_BYTES / (s->dim * KERN_KB * 8));
    /* One by one where all keys fit a part, or where threads would wait for the last items. */
    t.run = together(t.n * s->kv_heads * t.subs);
    if ((pos + n) / KERN_KB <= t.part || t.n == 1)
        t.run = 1;
    return t;
}

/* One thread's room. */
struct room {
    float *q, *o, *m, *l, *lse;
    float *to[KERN_MAX_ROWS];         /* the rows of the call's output, */
    const float *soon[KERN_MAX_ROWS]; /* and the queries that this thread is likely to come to next */
    int64_t *begin, *end;
    void *kern;
};

static size_t room_bytes(int64_t dim)
{
    return 2 * arena_bytes(KERN_MAX_ROWS * dim, sizeof(float)) + 3 * arena_bytes(KERN_MAX_ROWS, sizeof(float)) +
           2 * arena_bytes(KERN_MAX_ROWS, sizeof(int64_t)) + arena_bytes((int64_t)kern_tile_scratch(KERN_MAX_ROWS, dim), 1);
}

static unsigned char *carve(unsigned char **at, int64_t n, size_t size)
{
    unsigned char *p = *at;
    *at += arena_bytes(n, size);
    return p;
}

static struct room room_at(unsigned char *base, int64_t dim)
{
    struct room r;
    r.q = (float *)(void *)carve(&base, KERN_MAX_ROWS * dim, sizeof(float));
    r.o = (float *)(void *)carve(&base, KERN_MAX_ROWS * dim, sizeof(float));
    r.m = (float *)(void *)carve(&base, KERN_MAX_ROWS, sizeof(float));
    r.l = (float *)(void *)carve(&base, KERN_MAX_ROWS, sizeof(float));
    r.lse = (float *)(void *)carve(&base, KERN_MAX_ROWS, sizeof(float));
    r.begin = (int64_t *)(void *)carve(&base, KERN_MAX_ROWS, sizeof(int64_t));
    r.end = (int64_t *)(void *)carve(&base, KERN_MAX_ROWS, sizeof(int64_t));
    r.kern = carve(&base, (int64_t)kern_tile_scratch(KERN_MAX_ROWS, dim), 1);
    return r;
}

/* Which tile, and what it takes: token tiles first .. first+n-1 of a slice of a KV head's query heads. */
struct item {
    int64_t g, h0, heads, first, n;
};

/* A tile's tokens t0 .. t1-1 and their blocks from .. to-1. */
struct span {
    int64_t t0, t1, from, to;
    struct kern_tile kt;
};

static struct item item_at(const struct tiling *t, int64_t i)
{
    int64_t runs = (t->n + t->run - 1) / t->run, sub = i / runs % t->subs;
    struct item it = {.g = i / runs / t->subs, .first = t->first + i % runs * t->run};
    it.h0 = it.g * t->group + sub * t->per_tile;
    it.heads = min64(t->per_tile, t->group - sub * t->per_tile);
    it.n = min64(t->run, t->first + t->n - it.first);
    return it;
}

static int64_t offset(const struct attn_call *c, const struct item *it, int64_t token)
{
    return ((token - c->pos) * c->shape->heads + it->h0) * c->shape->dim;
}

/* Tile x of this item, and of the one that is likely to be the thread's next. */
static void point(const struct attn_call *c, const struct tiling *t, int64_t i, int64_t x, struct room *r, struct span *s)
{
    struct item it = item_at(t, i), next = item_at(t, max64(0, i - t->threads));
    int64_t dim = c->shape->dim, rows = 0, there = (next.first + min64(x, next.n - 1)) * t->tokens;
    for (int64_t p = s->t0; p < s->t1; p++, there++) {
        int64_t token = max64(c->pos, min64(there, c->pos + c->n - 1));
        for (int64_t h = 0; h < it.heads; h++, rows++) {
            r->to[rows] = c->out + offset(c, &it, p) + h * dim;
            r->soon[rows] = c->q + offset(c, &next, token) + min64(h, next.heads - 1) * dim;
        }
    }
    s->kt.to = r->to, s->kt.soon = r->soon;
    s->kt.then = i >= t->threads ? &c->kv[next.g] : c->then ? &c->then[c->shape->kv_heads - 1] : NULL;
}

/* Gathers the rows of one tile. */
static void begin(const struct attn_call *c, const struct tiling *t, const struct item *it, int64_t tile, const struct room *r,
                  struct span *s)
{
    const struct attn_shape *shape = c->shape;
    int64_t dim = shape->dim, rows = 0, window = shape->window;
    s->t0 = max64(tile * t->tokens, c->pos), s->t1 = min64((tile + 1) * t->tokens, c->pos + c->n);
    for (int64_t p = s->t0; p < s->t1; p++) {
        const float *q = c->q + offset(c, it, p);
        for (int64_t h = 0; h < it->heads; h++, rows++) {
            for (int64_t i = 0; i < dim; i++)
                r->q[rows * dim + i] = q[h * dim + i] * shape->scale;
            r->end[rows] = p + 1;
            r->begin[rows] = window > 0 ? max64(0, p + 1 - window) : 0;
        }
    }
    /* The first block follows from the whole tile's first token, present or not: same bits for any cut. */
    s->from = window > 0 ? max64(0, tile * t->tokens + 1 - window) / KERN_KB : 0;
    s->to = (s->t1 + KERN_KB - 1) / KERN_KB;
    s->kt = (struct kern_tile){.rows = rows, .dim = dim, .q = r->q, .end = r->end, .o = r->o, .m = r->m, .l = r->l};
    s->kt.begin = window > 0 ? r->begin : NULL;
    s->kt.scratch = r->kern;
    c->kern->tile_begin(&s->kt);
}

/* Divides by the sums. */
static void end(const struct attn_call *c, const struct item *it, const struct room *r, const struct span *s)
{
    c->kern->tile_end(&s->kt, c->lse ? r->lse : NULL);
    for (int64_t p = s->t0; p < s->t1 && c->lse; p++)
        memcpy(c->lse + offset(c, it, p) / c->shape->dim, r->lse + (p - s->t0) * it->heads, (size_t)it->heads * sizeof(float));
}

/* Item i of the call: its tiles go over the key blocks together, part by part, so that a part comes from far once. */
static void one_item(const struct attn_call *c, const struct tiling *t, int64_t i, struct room *r)
{
    struct item it = item_at(t, i);
    struct span s[MOST_TILES];
    int64_t first = INT64_MAX, last = 0;
    for (int64_t x = 0; x < it.n; x++) {
        begin(c, t, &it, it.first + x, &r[x], &s[x]);
        point(c, t, i, x, &r[x], &s[x]);
        first = min64(first, s[x].from), last = max64(last, s[x].to);
    }
    for (int64_t b = first, n = min64(FIRST_PART, t->part), next; b < last; b += n, n = next) {
        next = min64(min64(2 * n, t->part), max64(0, last - b - n));
        for (int64_t x = 0; x < it.n; x++) {
            int64_t from = max64(b, s[x].from), to = min64(b + n, s[x].to);
            s[x].kt.ahead0 = b + n + x * next / it.n, s[x].kt.ahead1 = b + n + (x + 1) * next / it.n;
            if (from < to)
                c->kern->tile_dense(&s[x].kt, &c->kv[it.g], from, to);
        }
    }
    for (int64_t x = 0; x < it.n; x++)
        end(c, &it, &r[x], &s[x]);
}

/* Head after head, so that threads find its keys in cache; later tiles see more keys: hand its long ones out first. */
static void take_items(const struct attn_call *c, const struct tiling *t, int64_t items, unsigned char *rooms, int64_t *taken)
{
    struct room r[MOST_TILES];
    for (int64_t x = 0; x < t->run; x++)
        r[x] = room_at(rooms + (size_t)x * room_bytes(c->shape->dim), c->shape->dim);
    for (int64_t i;;) {
#pragma omp atomic capture
        i = (*taken)++;
        if (i >= items)
            return;
        one_item(c, t, items - 1 - i, r);
    }
}

/* Keys that the tokens pos .. pos+n-1 of one head see. */
static double pairs(const struct attn_shape *s, int64_t pos, int64_t n)
{
    double full = (double)n * (double)pos + (double)n * (double)(n + 1) / 2;
    if (s->window <= 0 || pos + n <= s->window)
        return full;
    int64_t ramp = max64(0, s->window - pos); /* tokens that still see all their past */
    return (double)ramp * (double)pos + (double)ramp * (double)(ramp + 1) / 2 + (double)(n - ramp) * (double)s->window;
}

static int run(struct attn_call *c)
{
    const struct attn_shape *s = c->shape;
    struct tiling t = tiling(s, c->pos, c->n);
    int64_t items = (t.n + t.run - 1) / t.run * s->kv_heads * t.subs, taken = 0;
    size_t mark = arena_mark(c->step), each = room_bytes(s->dim);
    int threads = attn_threads((double)(s->heads * s->dim) * pairs(s, c->pos, c->n), items);
    t.threads = threads;
    unsigned char *rooms = arena_alloc(c->step, threads * t.run, each);
    if (!rooms)
        return ERR_NOMEM;
    if (threads == 1) /* no team of one: with a sequence a thread there would be one for each */
        take_items(c, &t, items, rooms, &taken);
    else {
#pragma omp parallel num_threads(threads)
        take_items(c, &t, items, rooms + (size_t)(omp_get_thread_num() * t.run) * each, &taken);
    }
    arena_release(c->step, mark);
    if (c->stats) {
        struct attn_shape causal = *s;
        causal.window = 0;
        c->stats->pairs_seen += (double)s->heads * pairs(s, c->pos, c->n);
        c->stats->pairs_causal += (double)s->heads * pairs(&causal, c->pos, c->n);
        c->stats->tile_dense += (double)(t.n * s->kv_heads * t.subs);
    }
    return sparsity_chunk(c, NULL);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    (void)opts;
    struct tiling t = tiling(s, 0, 1);
    int64_t tiles = ((n + t.tokens - 2) / t.tokens + 1) * s->kv_heads * t.subs; /* wherever the chunk begins */
    size_t rooms = arena_bytes(min64(omp_get_max_threads(), tiles) * together(tiles), room_bytes(s->dim)),
           sampled = sparsity_chunk_bytes(s->dim, max_tokens);
    return rooms + sampled; /* one after the other, but then it would not grow in proportion to the length */
}

static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    (void)opts;
    out->pairs = (double)s->heads * pairs(s, pos, n);
    out->flops = 4 * out->pairs * (double)s->dim;
    /* Each tile streams over the keys and values of its KV head once. */
    double tiles = (double)tiling(s, pos, n).n * (double)tiling(s, pos, n).subs;
    out->bytes = tiles * (double)s->kv_heads * (double)(pos + n) * (double)s->dim * 8;
}

const struct attn_method attn_dense = {
    .name = "dense",
    .cite = "Vaswani et al. 2017",
    .summary = "every earlier key: the exact baseline",
    .caps = ATTN_CAUSAL | ATTN_EXACT,
    .run = run,
    .scratch = scratch,
    .cost = cost,
};
