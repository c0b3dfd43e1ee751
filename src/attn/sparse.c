/* The driver: checks, memory, features of new blocks, and the loop over units and tiles. */
#include "attn/sparse.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/sparsity.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t sparse_summary_of(const struct sparse_opts *o, const struct attn_shape *s)
{
    return o->summary.n > 0 ? o->summary.v[s->layer * o->summary.n / max64(1, s->n_layers)] : 0;
}

int64_t sparse_piece(const struct sparse_opts *o)
{
    return min64(KERN_KB, o->block);
}

static bool block_fits(int64_t b)
{
    return b == 8 || b == 16 || b == 32 || b == 64 || b == 128;
}

int sparse_check(const struct sparse_opts *o, const struct attn_shape *s)
{
    int64_t width = o->width ? o->width : s->dim;
    if (!block_fits(o->block))
        return err_set(ERR_ARG, "block = %lld: attention blocks have 8, 16, 32, 64 or 128 tokens", (long long)o->block);
    if (width > FEAT_MAX_WIDTH || s->dim > KERN_MAX_DIM)
        return err_set(ERR_ARG, "gate width %lld, head width %lld: at most %d and %d", (long long)width, (long long)s->dim,
                       FEAT_MAX_WIDTH, KERN_MAX_DIM);
    if (width % 2 && s->rot > 0)
        return err_set(ERR_ARG, "gate width %lld is odd; rotation works on pairs", (long long)width);
    for (int64_t i = 0; i < o->summary.n; i++) {
        int64_t r = o->summary.v[i];
        if (r != 0 && (r < 1 || r > 4096 || (r < o->block ? o->block % r : r % o->block)))
            return err_set(ERR_ARG, "summary of %lld tokens: 0, a divisor or a multiple of the block, %lld", (long long)r,
                           (long long)o->block);
    }
    return ERR_OK;
}

static struct feat_dims dims_of(const struct sparse_opts *o, const struct sparse_ops *ops, const struct attn_shape *s)
{
    struct feat_dims d = {.units = o->unit == SPARSE_HEAD ? s->heads : s->kv_heads, .kv_heads = s->kv_heads, .dim = s->dim};
    d.hidden = ops->context ? s->hidden : 0;
    d.width = ops->width ? ops->width(o, s) : 0;
    d.block = o->block;
    d.half = ops->rotate ? feat_half(s, d.width) : 0;
    d.summary = sparse_summary_of(o, s);
    return d;
}

size_t sparse_state_bytes(const struct sparse_opts *o, const struct sparse_ops *ops, const struct attn_shape *s, int64_t max_tokens)
{
    struct feat_dims d = dims_of(o, ops, s);
    return feat_bytes(&d, max_tokens);
}

/* n elements from the running offset; NULL base: only counts */
static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

/* Cuts a lane out of base; returns its bytes. */
static size_t lane_cut(struct sparse_lane *w, unsigned char *base, const struct sparse_run *r, int64_t tokens)
{
    const struct attn_shape *s = r->c->shape;
    int64_t d = s->dim, T = r->tile, R = KERN_MAX_ROWS, nb = tokens / r->o->block + 1, nk = tokens / sparse_piece(r->o) + 1;
    size_t at = 0;
    *w = (struct sparse_lane){.ld = (nb + FEAT_GROUP) / FEAT_GROUP * FEAT_GROUP + FEAT_GROUP};
    w->scores = take(base, &at, T * w->ld, sizeof(float));
    w->work = take(base, &at, w->ld + 64, sizeof(float));
    w->chosen = take(base, &at, nb, sizeof(int32_t));
    for (int i = 0; i < SPARSE_AHEAD; i++) {
        w->choice[i].set = take(base, &at, T, sizeof(struct select_set));
        w->choice[i].list = take(base, &at, T * max64(nb, nk), sizeof(int32_t));
        w->choice[i].ptr = take(base, &at, T + 1, sizeof(int64_t));
        struct sparse_tile *t = &w->tile[i];
        t->q = take(base, &at, R * d, sizeof(float));
        t->o = take(base, &at, R * d, sizeof(float));
        t->m = take(base, &at, R, sizeof(float));
        t->l = take(base, &at, R, sizeof(float));
        t->lse = take(base, &at, R, sizeof(float));
        t->begin = take(base, &at, R, sizeof(int64_t));
        t->end = take(base, &at, R, sizeof(int64_t));
        t->kern = take(base, &at, (int64_t)kern_tile_scratch(R, d), 1);
        t->block = take(base, &at, max64(nb, nk), sizeof(int32_t));
        t->mask = take(base, &at, nk, sizeof(uint64_t));
    }
    w->mark = take(base, &at, nb, 1);
    w->sampled = take(base, &at, sparsity_room(tokens, d), sizeof(float));
    w->extra = r->ops->extra ? take(base, &at, (int64_t)r->ops->extra(s, tokens), 1) : NULL;
    return at;
}

/* All that follows from options and shape. */
static void prepare(struct sparse_run *r, struct attn_call *c, const struct sparse_ops *ops)
{
    const struct sparse_opts *o = c->opts;
    const struct attn_shape *s = c->shape;
    struct feat_dims d = dims_of(o, ops, s);
    *r = (struct sparse_run){.c = c, .o = o, .ops = ops, .units = d.units, .heads = s->heads / d.units, .params = c->params};
    r->unit0 = o->unit == SPARSE_HEAD ? s->head0 : s->kv_head0;
    r->slice = min64(r->heads, KERN_MAX_ROWS);
    r->tile = KERN_MAX_ROWS / r->slice;
    r->gate = c->params && ops->context ? &c->params->layer[s->layer] : NULL;
    r->rule = (struct select_rule){.block = o->block, .local = o->local, .window = s->window, .budget = o->budget, .keep = o->keep};
    r->rule.top_p = o->top_p;
    r->rule.candidates = o->candidates;
    r->rule.all_below = s->layer < o->dense_layers ? INT64_MAX : o->all_below;
    r->f.d = d;
    r->inv_sqrt_dim = 1 / sqrtf((float)s->dim);
}

static size_t chunk_bytes(const struct sparse_run *r, int64_t n)
{
    const struct feat_dims *d = &r->f.d;
    return sparse_query_bytes(r, n) + arena_bytes(feat_base_rows(n) * 2 * d->half, sizeof(float)) +
           arena_bytes(d->kv_heads * FEAT_GROUP * 3 * d->dim, sizeof(float)) +
           arena_bytes(d->kv_heads * FEAT_GROUP * d->width, sizeof(float));
}

size_t sparse_scratch(const struct sparse_opts *o, const struct sparse_ops *ops, const struct attn_shape *s, int64_t n,
                      int64_t max_tokens)
{
    struct attn_call c = {.opts = o, .shape = s};
    struct sparse_run r;
    struct sparse_lane w;
    prepare(&r, &c, ops);
    return chunk_bytes(&r, n) + (size_t)omp_get_max_threads() * lane_cut(&w, NULL, &r, max_tokens) + arena_bytes(1, 1);
}

/* The rotation at block J's centre: the same bits whether the chunk's table has it or the block began in an older chunk. */
static void centre(const struct sparse_run *r, int64_t J, float *cs, float *sn)
{
    const struct feat_dims *d = &r->f.d;
    int64_t t = J * d->block + d->block / 2;
    float row[2 * FEAT_MAX_WIDTH];
    if (t / FEAT_ROT >= r->c->pos / FEAT_ROT) {
        feat_rotation(&r->f, r->base, r->c->pos, t, cs, sn);
        return;
    }
    feat_base(r->c->shape, &r->f, t / FEAT_ROT, 1, row);
    feat_rotation(&r->f, row, t, t, cs, sn);
}

/* Blocks J0 .. J0+n-1 of KV head g, pooled in r->pooled, become vectors of each unit that looks at them. */
static void store_blocks(struct sparse_run *r, int64_t g, int64_t J0, int64_t n)
{
    const struct feat_dims *d = &r->f.d;
    const float *pooled = r->pooled + g * FEAT_GROUP * 3 * d->dim;
    float *vec = r->vec + g * FEAT_GROUP * d->width;
    float cs[FEAT_MAX_WIDTH], sn[FEAT_MAX_WIDTH];
    int64_t each = d->units / d->kv_heads;
    for (int64_t unit = g * each; unit < (g + 1) * each; unit++) {
        r->ops->block(r, unit, pooled, n, vec);
        for (int64_t j = 0; j < n; j++) {
            float *v = vec + j * d->width, *to = feat_group(&r->f, unit, (J0 + j) / FEAT_GROUP) + (J0 + j) % FEAT_GROUP;
            if (d->half) {
                centre(r, J0 + j, cs, sn);
                r->c->kern->rope(v, cs, sn, 2 * d->half);
            }
            for (int64_t x = 0; x < d->width; x++)
                to[x * FEAT_GROUP] = v[x];
        }
    }
}

/* Pools KV head g's keys of the chunk block by block. */
static void pool_head(struct sparse_run *r, int64_t g)
{
    const struct attn_call *c = r->c;
    const struct feat_dims *d = &r->f.d;
    const float *keys = r->ops->raw ? c->k0 : c->k;
    int64_t B = d->block, n = 0;
    float *open = r->f.pool + g * 3 * d->dim;
    for (int64_t t = c->pos, end = c->pos + c->n; t < end;) {
        int64_t m = min64(B - t % B, end - t);
        for (int64_t x = 0; x < d->dim && t % B == 0; x++)
            open[x] = 0, open[d->dim + x] = -INFINITY, open[2 * d->dim + x] = INFINITY;
        struct kern_pool pool = {.rows = m, .dim = d->dim, .ldx = d->kv_heads * d->dim, .sum = open, .max = open + d->dim};
        pool.min = pool.max + d->dim;
        pool.more = end - t - m;
        pool.x = keys + ((t - c->pos) * d->kv_heads + g) * d->dim;
        c->kern->pool_rows(&pool);
        t += m;
        if (t % B == 0) {
            float *p = r->pooled + (g * FEAT_GROUP + n++) * 3 * d->dim;
            memcpy(p, open, (size_t)(3 * d->dim) * sizeof *p);
            c->kern->scale(p, 1 / (float)B, d->dim);
        }
        if (n == FEAT_GROUP || (t == end && n > 0)) {
            store_blocks(r, g, t / B - n, n);
            n = 0;
        }
    }
}

static int features(struct sparse_run *r)
{
    struct attn_call *c = r->c;
    const struct feat_dims *d = &r->f.d;
    if (*r->f.tokens != c->pos)
        return err_set(ERR_ARG, "attention state holds %lld tokens, the chunk begins at %lld", (long long)*r->f.tokens,
                       (long long)c->pos);
    r->base = ARENA_NEW(c->step, feat_base_rows(c->n) * 2 * d->half, float);
    r->pooled = ARENA_NEW(c->step, d->kv_heads * FEAT_GROUP * 3 * d->dim, float);
    r->vec = ARENA_NEW(c->step, d->kv_heads * FEAT_GROUP * d->width, float);
    if (!r->base || !r->pooled || !r->vec)
        return ERR_NOMEM;
    if (d->half)
        feat_bases(c->shape, &r->f, c->pos, c->n, r->base);
#pragma omp parallel for schedule(dynamic, 1) if (d->kv_heads > 1 && c->n > 1)
    for (int64_t g = 0; g < d->kv_heads; g++) {
        if (d->width)
            pool_head(r, g);
        if (d->summary)
            feat_summaries(&r->f, c, g);
    }
    *r->f.tokens = c->pos + c->n;
    return ERR_OK;
}

static void add_stats(struct attn_stats *to, const struct attn_stats *s, int threads)
{
    to->pairs_seen += s->pairs_seen;
    to->pairs_causal += s->pairs_causal;
    to->tile_dense += s->tile_dense;
    to->tile_blocks += s->tile_blocks;
    to->tile_gather += s->tile_gather;
    to->select_s += s->select_s / threads;
}

/* The sampled ones of the tile's n tokens. */
static void sample(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, int64_t n)
{
    const struct attn_shape *shape = r->c->shape;
    for (int64_t i = 0; i < n; i++) {
        if (!sparsity_wants(r->c, w->at->set[i].token))
            continue;
        struct sparsity_row x = {.token = w->at->set[i].token, .size = sparse_piece(r->o)};
        x.kv_head = unit * r->heads / (shape->heads / shape->kv_heads);
        x.from = r->rule.window > 0 ? max64(0, x.token + 1 - r->rule.window) : 0;
        x.how = w->in->how == SPARSE_DENSE ? SPARSITY_DENSE : w->in->how == SPARSE_BLOCKS ? SPARSITY_BLOCKS : SPARSITY_GATHER;
        if (w->at->some) {
            x.list = w->at->list + w->at->ptr[i];
            x.n = w->at->ptr[i + 1] - w->at->ptr[i];
        }
        for (x.head = unit * r->heads; x.head < (unit + 1) * r->heads; x.head++)
            sparsity_row(r->c, &x, w->sampled);
    }
}

/* Tiles tile .. tile-n+1 of a unit, n <= SPARSE_AHEAD: all choose, then all attend. */
static void some_tiles(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, int64_t tile, int64_t n)
{
    const struct attn_call *c = r->c;
    struct sparse_span tok[SPARSE_AHEAD];
    for (int64_t x = 0; x < n; x++) {
        int64_t from = max64((tile - x) * r->tile, c->pos), to = min64((tile - x + 1) * r->tile, c->pos + c->n);
        tok[x] = (struct sparse_span){from - c->pos, to - from};
        w->at = &w->choice[x], w->in = &w->tile[x];
        sparse_choose(r, w, unit, tok[x].pos, tok[x].n);
    }
    sparse_attend(r, w, unit, tok, n);
    for (int64_t x = 0; x < n; x++) {
        w->at = &w->choice[x], w->in = &w->tile[x];
        sample(r, w, unit, tok[x].n);
    }
}

/* Neighbouring tiles of a unit share blocks, and so the cache: a thread takes some at a time, the latest first. */
static void all_tiles(struct sparse_run *r, unsigned char *lanes, size_t lane, int threads)
{
    struct attn_call *c = r->c;
    int64_t t0 = c->pos / r->tile, tiles = (c->pos + c->n - 1) / r->tile - t0 + 1;
    int64_t each = max64(1, min64(SPARSE_AHEAD, tiles * r->units / 8 / threads)), parts = (tiles + each - 1) / each;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct sparse_lane w;
        lane_cut(&w, lanes + (size_t)omp_get_thread_num() * lane, r, c->pos + c->n);
        for (int x = 0; x < SPARSE_AHEAD && !c->lse && !r->f.d.summary; x++)
            w.tile[x].lse = NULL; /* a logarithm a row: nobody asks */
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < parts * r->units; item++) {
            int64_t left = tiles - item % parts * each;
            some_tiles(r, &w, item / parts, t0 + left - 1, min64(each, left));
        }
#pragma omp critical(sparse_stats)
        if (c->stats)
            add_stats(c->stats, &w.stats, threads);
    }
}

static int check_gates(const struct sparse_run *r)
{
    const struct attn_call *c = r->c;
    int rc = gate_check(c->params, c->shape);
    if (rc)
        return rc;
    if (c->params->width != r->f.d.width ||
        (c->params->units == c->params->kv_heads) != (r->heads == c->shape->heads / c->shape->kv_heads))
        return err_set(ERR_ARG, "the gates have width %lld and %lld units; the method's options say width %lld and %s",
                       (long long)c->params->width, (long long)c->params->units, (long long)r->f.d.width,
                       r->o->unit == SPARSE_HEAD ? "a set for each query head" : "a set for each key/value head");
    return ERR_OK;
}

int sparse_run(struct attn_call *c, const struct sparse_ops *ops)
{
    struct sparse_run r;
    struct sparse_lane first;
    prepare(&r, c, ops);
    int rc = c->params && ops->context ? check_gates(&r) : ERR_OK;
    if (rc)
        return rc;
    struct feat_dims d = r.f.d;
    feat_view(&r.f, &d, c->state);
    size_t mark = arena_mark(c->step), lane = lane_cut(&first, NULL, &r, c->pos + c->n);
    int64_t tiles = (c->pos + c->n - 1) / r.tile - c->pos / r.tile + 1;
    /* As if nothing was left out: choosing costs as well. */
    int threads = attn_threads((double)(c->n * (c->pos + c->n) * c->shape->heads * c->shape->dim), tiles * r.units);
    double start = timer_now();
    rc = features(&r);
    rc = rc ? rc : sparse_queries(&r);
    if (c->stats)
        c->stats->select_s += timer_now() - start;
    unsigned char *lanes = rc ? NULL : arena_alloc(c->step, threads, lane);
    if (lanes)
        all_tiles(&r, lanes, lane, threads);
    arena_release(c->step, mark);
    return rc ? rc : lanes ? ERR_OK : ERR_NOMEM;
}

void sparse_cost(const struct sparse_opts *o, const struct sparse_ops *ops, const struct attn_shape *s, struct sparse_span span,
                 struct attn_cost *out)
{
    struct feat_dims d = dims_of(o, ops, s);
    double pairs = 0, scored = 0, heads = (double)s->heads, e = (double)d.width;
    struct select_rule rule = {.block = o->block, .local = o->local, .window = s->window, .budget = o->budget, .keep = o->keep};
    rule.candidates = o->candidates;
    rule.all_below = s->layer < o->dense_layers ? INT64_MAX : o->all_below;
    int64_t step = max64(1, span.n / 64); /* sampled: the budget is piecewise linear in the position */
    for (int64_t i = 0; i < span.n; i += step) {
        struct select_set set;
        int64_t t = span.pos + i, many = min64(step, span.n - i);
        select_sets(&set, &rule, t);
        double kept = (double)((set.own - set.hi + 1 + set.sink + set.most) * o->block);
        double all = (double)(s->window > 0 ? min64(t + 1, s->window) : t + 1);
        pairs += (double)many * (kept < all ? kept : all);
        scored += (double)many * (set.all ? 0 : (double)(set.hi - set.lo));
    }
    double query = (double)span.n * 2 * heads * (double)s->dim * e * (scored > 0);
    out->pairs = pairs * heads;
    out->flops = 4 * out->pairs * (double)s->dim + scored * (double)d.units * 2 * e + query;
    out->bytes = out->pairs * (double)s->dim * 8 / (double)max64(1, s->heads / s->kv_heads) + scored * (double)d.units * e * 4 / 16;
}
