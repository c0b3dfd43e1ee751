/* One tile of tokens and one unit: which blocks each token keeps, and attention over them. */
#include <string.h>

#include "attn/sparse.h"
#include "base/timer.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Pieces (see sparse_piece) of the listed blocks that token t may see, ascending. */
static int64_t expand(const struct sparse_run *r, int64_t t, const int32_t *blocks, int64_t n, int32_t *out)
{
    int64_t size = sparse_piece(r->o), each = r->o->block / size, m = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t x = 0; x < each; x++)
            if ((blocks[i] * each + x) * size <= t)
                out[m++] = (int32_t)(blocks[i] * each + x);
    return m;
}

/* Scores of candidates lo .. hi-1, over all tokens of the tile that choose, by the product of their vectors. */
static void products(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, struct sparse_span tok,
                     struct sparse_span blocks)
{
    const struct feat *f = &r->f;
    int64_t skip = max64(0, r->first - tok.pos), of_chunk = r->c->n - r->first, e = f->d.width;
    int64_t g0 = blocks.pos / FEAT_GROUP, g1 = (blocks.pos + blocks.n + FEAT_GROUP - 1) / FEAT_GROUP;
    w->score0 = g0 * FEAT_GROUP;
    for (int64_t g = g0; g < g1;) {
        int64_t run = min64(feat_run(f, g), g1 - g);
        struct kern_scores s = {.rows = tok.n - skip, .width = e, .groups = run, .scale = r->ops->scale};
        s.u = r->u + (unit * of_chunk + tok.pos + skip - r->first) * e;
        s.v = feat_group(f, unit, g);
        s.v_stride = feat_stride(f);
        s.s = w->scores + skip * w->ld + (g - g0) * FEAT_GROUP;
        s.ld = w->ld;
        if (s.scale == 0)
            s.scale = r->inv_sqrt_dim;
        r->c->kern->block_scores(&s);
        g += run;
    }
}

void sparse_choose(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, int64_t i, int64_t n)
{
    double start = timer_now();
    int64_t lo = INT64_MAX, hi = 0, at = 0;
    for (int64_t x = 0; x < n; x++) {
        struct select_set *s = &w->at->set[x];
        select_sets(s, &r->rule, r->c->pos + i + x);
        if (!s->all) {
            lo = min64(lo, s->lo);
            hi = max64(hi, s->hi);
        }
    }
    if (hi > 0 && !r->ops->scores)
        products(r, w, unit, (struct sparse_span){i, n}, (struct sparse_span){lo, hi - lo});
    w->at->ptr[0] = 0;
    w->at->some = hi > 0;
    for (int64_t x = 0; x < n && w->at->some; x++) {
        struct select_set *s = &w->at->set[x];
        float *score = w->scores + x * w->ld + (r->ops->scores ? 0 : s->lo - w->score0);
        int64_t count = s->hi - s->lo;
        if (!s->all) {
            if (r->ops->scores)
                r->ops->scores(r, unit, s, score, w->extra);
            if (r->ops->bias)
                r->ops->bias(r, unit, s, score);
            float rho = r->rho ? r->rho[unit * (r->c->n - r->first) + i + x - r->first] : 0;
            count = select_count(s, &r->rule, score, rho, w->work);
            count = r->c->kern->topk(score, s->hi - s->lo, count, w->chosen, w->work, &w->guess);
        } else {
            for (int64_t j = 0; j < count; j++)
                w->chosen[j] = (int32_t)j;
        }
        int32_t *list = w->at->list + at, *blocks = r->o->block == KERN_KB ? list : w->in->block; /* pieces are blocks: no detour */
        int64_t kept = select_list(s, w->chosen, count, blocks);
        w->stats.pairs_seen += (double)(r->heads * select_keys(s, &r->rule, blocks, kept));
        at += blocks == list ? kept : expand(r, s->token, blocks, kept, list);
        w->at->ptr[x + 1] = at;
    }
    w->stats.select_s += timer_now() - start;
}

int64_t sparse_masks(struct sparse_lane *w, int64_t n, int64_t heads)
{
    const struct sparse_choice *at = w->at;
    int32_t *block = w->in->block;
    uint64_t *mask = w->in->mask;
    int64_t first = INT64_MAX, last = -1, m = 0;
    for (int64_t x = 0; x < n; x++) {
        first = min64(first, at->list[at->ptr[x]]); /* never empty: a token keeps its own block */
        last = max64(last, at->list[at->ptr[x + 1] - 1]);
    }
    memset(mask + first, 0, (size_t)(last - first + 1) * sizeof *mask);
    for (int64_t x = 0; x < n; x++) {
        uint64_t rows = (heads == 64 ? ~0ull : (1ull << heads) - 1) << (x * heads);
        for (int64_t j = at->ptr[x]; j < at->ptr[x + 1]; j++)
            mask[at->list[j]] |= rows;
    }
    for (int64_t b = first; b <= last; b++)
        if (mask[b]) {
            mask[m] = mask[b]; /* m <= b - first <= b: never ahead of what is read */
            block[m++] = (int32_t)b;
        }
    return m;
}

/* Both kernels do the same arithmetic, on no union of rows; they differ in what finding the rows of a block costs: masks
 * over all of the past, or a merge of the tokens' lists. Measured on the 2-core EPYC of bench_attn: 0.5 and 10 ns. */
static int strategy(const struct sparse_run *r, const struct sparse_lane *w, int64_t n)
{
    if (r->o->strategy != SPARSE_AUTO)
        return r->o->strategy;
    if (r->o->block < KERN_KB) /* no merge of lists there: tokens would not share what they load */
        return n == 1 ? SPARSE_GATHER : SPARSE_BLOCKS;
    double past = (double)(w->at->list[w->at->ptr[n] - 1] + 1);
    return past * r->o->cost_blocks <= (double)w->at->ptr[n] * r->o->cost_gather ? SPARSE_BLOCKS : SPARSE_GATHER;
}

/* Blocks of 8, each token by itself. */
static void own_halves(const struct sparse_run *r, struct sparse_lane *w, int64_t n, const struct kern_kv *kv)
{
    const struct kern_table *k = r->c->kern;
    const struct kern_tile *t = &w->in->t;
    int64_t heads = t->rows / n;
    for (int64_t row = 0, x = 0; x < n; x++, row += heads) {
        struct kern_tile own = *t;
        own.rows = heads;
        own.q += row * t->dim;
        own.o += row * t->dim;
        own.m += row;
        own.l += row;
        own.end += row;
        own.begin = t->begin ? t->begin + row : NULL;
        k->tile_begin(&own);
        k->tile_halves(&own, kv, w->at->list + w->at->ptr[x], NULL, w->at->ptr[x + 1] - w->at->ptr[x]);
        k->tile_end(&own, w->in->lse ? w->in->lse + row : NULL);
    }
}

/* A slice of query heads of one unit: h0 .. h0+heads-1 of it are the rank's heads from `head` on. */
struct slice {
    int64_t heads, head;
    const struct kern_kv *kv;
};

/* The rows of the tile w->in, and all of its attention but what goes by masks, for which its blocks are listed. */
static void begin_tile(const struct sparse_run *r, struct sparse_lane *w, struct sparse_span tok, const struct slice *s)
{
    const struct attn_shape *shape = r->c->shape;
    const struct kern_table *k = r->c->kern;
    struct sparse_tile *in = w->in;
    int64_t d = shape->dim, n = tok.n;
    for (int64_t x = 0; x < n; x++)
        for (int64_t h = 0; h < s->heads; h++) {
            int64_t row = x * s->heads + h, seen = w->at->set[x].token + 1;
            const float *q = r->c->q + ((tok.pos + x) * shape->heads + s->head + h) * d;
            for (int64_t y = 0; y < d; y++)
                in->q[row * d + y] = q[y] * shape->scale;
            in->end[row] = seen;
            in->begin[row] = r->rule.window > 0 ? max64(0, seen - r->rule.window) : 0;
        }
    in->t = (struct kern_tile){.rows = n * s->heads, .dim = d, .q = in->q, .end = in->end, .o = in->o, .m = in->m, .l = in->l};
    in->t.begin = r->rule.window > 0 ? in->begin : NULL;
    in->t.scratch = in->kern;
    in->blocks = in->done = 0;
    in->how = w->at->some ? strategy(r, w, n) : SPARSE_DENSE;
    w->stats.tile_dense += in->how == SPARSE_DENSE;
    w->stats.tile_blocks += in->how == SPARSE_BLOCKS;
    w->stats.tile_gather += in->how == SPARSE_GATHER;
    if (in->how == SPARSE_GATHER && r->o->block < KERN_KB) {
        own_halves(r, w, n, s->kv);
        return;
    }
    k->tile_begin(&in->t);
    if (!w->at->some) {
        int64_t last = w->at->set[n - 1].token / KERN_KB + 1, first = w->at->set[0].first * r->o->block / KERN_KB;
        k->tile_dense(&in->t, s->kv, first, last);
    } else if (in->how == SPARSE_GATHER) {
        in->t.share = s->heads;
        k->tile_gather(&in->t, s->kv, w->at->ptr, w->at->list);
    } else {
        in->blocks = sparse_masks(w, n, s->heads);
    }
}

/* What the tiles' blocks are gone over in turn, so that a block comes from far once for all tiles: as many bytes of one tile's
 * keys and values as leave room for the other tiles' and for the tiles themselves in a core's second-level cache. */
enum { PART_BYTES = 512 << 10 };

static void by_parts(const struct sparse_run *r, struct sparse_lane *w, int64_t n, const struct kern_kv *kv)
{
    int64_t per = r->o->block < KERN_KB ? 2 : 1, each = max64(1, PART_BYTES / (r->c->shape->dim * KERN_KB * 8)) * per;
    for (bool more = true; more;) {
        int64_t until = INT64_MAX; /* the first piece that waits */
        for (int64_t x = 0; x < n; x++)
            if (w->tile[x].done + each < w->tile[x].blocks)
                until = min64(until, w->tile[x].block[w->tile[x].done + each] / per * per);
        more = until < INT64_MAX;
        for (int64_t x = 0; x < n; x++) {
            struct sparse_tile *t = &w->tile[x];
            int64_t from = t->done;
            while (t->done < t->blocks && t->block[t->done] < until)
                t->done++;
            if (t->done > from)
                (per > 1 ? r->c->kern->tile_halves : r->c->kern->tile_blocks)(&t->t, kv, t->block + from, t->mask + from,
                                                                              t->done - from);
        }
    }
}

static void end_tile(const struct sparse_run *r, struct sparse_lane *w, struct sparse_span tok, const struct slice *s)
{
    struct attn_call *c = r->c;
    struct sparse_tile *in = w->in;
    int64_t d = c->shape->dim, heads = s->heads, kv_head = s->kv - c->kv;
    if (in->how != SPARSE_GATHER || r->o->block >= KERN_KB)
        c->kern->tile_end(&in->t, in->lse);
    for (int64_t x = 0; x < tok.n; x++) {
        int64_t to = (tok.pos + x) * c->shape->heads + s->head;
        if (r->f.d.summary && !w->at->set[x].all)
            sparse_mix(r, w, &(struct sparse_rows){x, x * heads, heads, s->head, kv_head});
        memcpy(c->out + to * d, in->o + x * heads * d, (size_t)(heads * d) * sizeof(float));
        if (c->lse)
            memcpy(c->lse + to, in->lse + x * heads, (size_t)heads * sizeof(float));
    }
}

static void count_pairs(const struct sparse_run *r, struct sparse_lane *w, int64_t n)
{
    for (int64_t x = 0; x < n; x++) {
        int64_t seen = w->at->set[x].token + 1, window = r->rule.window > 0 ? min64(seen, r->rule.window) : seen;
        w->stats.pairs_causal += (double)(r->heads * seen);
        w->stats.pairs_seen += w->at->some ? 0 : (double)(r->heads * window);
    }
}

void sparse_attend(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, const struct sparse_span *tok, int64_t n)
{
    const struct attn_shape *shape = r->c->shape;
    for (int64_t h0 = 0; h0 < r->heads; h0 += r->slice) {
        struct slice s = {.heads = min64(r->slice, r->heads - h0), .head = unit * r->heads + h0};
        s.kv = &r->c->kv[unit * r->heads / (shape->heads / shape->kv_heads)];
        for (int64_t x = 0; x < n; x++) {
            w->at = &w->choice[x], w->in = &w->tile[x];
            if (h0 == 0)
                count_pairs(r, w, tok[x].n);
            begin_tile(r, w, tok[x], &s);
        }
        by_parts(r, w, n, s.kv);
        for (int64_t x = 0; x < n; x++) {
            w->at = &w->choice[x], w->in = &w->tile[x];
            end_tile(r, w, tok[x], &s);
        }
    }
}
