/* Hybrid: a predictor that chooses, for each query head and stretch of the input, among fixed patterns.
 *     candidates   streaming {sinks, window}, window alone, strided {local l, t - m l}, blocks of 16 by mean key, dense
 *     samples      tokens t with t mod every = every - 1: each candidate's share of dense attention's mass on that row,
 *                  e^(LSE_candidate - LSE_dense), both computed exactly
 *     choice       at each multiple of `segment` tokens, from the samples of the segment before: the cheapest candidate whose mean
 *                  share is at least `mass`, else dense; or, with rule = best, the one with the largest share, dense left out.
 *                  The first segment is dense.
 * A choice follows from tokens before the segment alone: strictly causal, the same for prefill, decode and any cut. Nothing is
 * trained.
 *   source       ours: the plan's fallback. Kin: MInference (patterns by head, chosen offline), FlexPrefill (chosen by the last
 *                queries of the prompt, so not causal)
 *   cost         a chosen pattern's keys, and every `every`-th row once more with each candidate and densely: N^2 / every pairs,
 *                1.6 % of dense attention at 64. State: keys and values by residue (one copy), and a mean key for 16 tokens
 *   statistics   select_s: seconds sampling. tile_dense, tile_blocks, tile_gather: (token, head) rows computed densely, by a
 *                fixed pattern, by chosen blocks. pairs_seen: of the chosen patterns, samples not counted */
#include <math.h>
#include <string.h>

#include "attn/pattern.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"
#include "cfg/cfg.h"

enum { STREAMING, WINDOW, STRIDED, BLOCKS, DENSE, CANDIDATES };
enum { CHEAPEST, BEST };

struct hybrid_opts {
    int64_t keep, sink, local, stride, segment, every;
    double mass;
    int rule;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct hybrid_opts, keep, 512, 64, 1e9, "keys of the window, streaming and block patterns, all parts counted"),
    CFG_INT(struct hybrid_opts, sink, 16, 0, 1e9, "first tokens, of the streaming and block patterns; a multiple of 16"),
    CFG_INT(struct hybrid_opts, local, 64, 1, 1e9, "last tokens of the block pattern"),
    CFG_INT(struct hybrid_opts, stride, 128, 16, 65536, "of the strided pattern, and its local part; a multiple of 16"),
    CFG_INT(struct hybrid_opts, segment, 512, 1, 1e9, "tokens between choices, a multiple of every"),
    CFG_INT(struct hybrid_opts, every, 64, 1, 1e9, "tokens between samples"),
    CFG_REAL(struct hybrid_opts, mass, 0.95, 0, 1, "rule cheapest: share of dense attention's mass that a pattern must keep"),
    CFG_ENUM(struct hybrid_opts, rule, CHEAPEST, "cheapest|best", "the cheapest pattern that keeps enough, else dense; or the sparse one that keeps most"),
    CFG_END,
};
/* clang-format on */

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Blocks that the block pattern may pick: what sinks and the local part leave of keep. */
static int64_t picks_of(const struct hybrid_opts *o)
{
    return max64(0, (o->keep - o->sink - o->local) / KERN_KB);
}

static void of(const void *opts, const struct attn_shape *s, int64_t head, int variant, struct pattern *out)
{
    const struct hybrid_opts *o = opts;
    (void)s;
    (void)head;
    *out = (struct pattern){0};
    switch (variant) {
    case STREAMING:
        out->sink = o->sink;
        out->window = max64(1, o->keep - o->sink);
        break;
    case WINDOW: out->window = o->keep; break;
    case STRIDED:
        out->window = out->stride = o->stride;
        out->reach = INT64_MAX;
        break;
    case BLOCKS:
        out->sink = o->sink;
        out->window = o->local;
        out->picks = picks_of(o);
        out->pick_block = KERN_KB;
        break;
    default: out->full = 1;
    }
}

/* ---- state ---- */

struct own {         /* before the panels */
    double *mass;    /* (H, CANDIDATES) sums over the samples of the segment */
    double *samples; /* (1,) */
    int32_t *choice; /* (H,) */
};

static size_t own_cut(struct own *w, unsigned char *base, int64_t heads)
{
    size_t at = 0;
    w->mass = base ? (double *)(void *)(base + at) : NULL;
    at += arena_bytes(heads * CANDIDATES, sizeof(double));
    w->samples = base ? (double *)(void *)(base + at) : NULL;
    at += arena_bytes(1, sizeof(double));
    w->choice = base ? (int32_t *)(void *)(base + at) : NULL;
    return at + arena_bytes(heads, sizeof(int32_t));
}

static size_t own_bytes(const void *opts, const struct attn_shape *s)
{
    struct own w;
    (void)opts;
    return own_cut(&w, NULL, s->heads);
}

/* A record holds 16 keys of each residue, that is 16 `stride` tokens: means of `stride` blocks, (G, stride / 16, d, 16). */
static size_t record_bytes(const void *opts, const struct attn_shape *s)
{
    const struct hybrid_opts *o = opts;
    return (size_t)(s->kv_heads * o->stride * s->dim) * sizeof(float);
}

static float *means_of(const struct pattern_run *r, int64_t kv_head, int64_t block) /* of its group of 16 blocks, (d, 16) */
{
    const struct hybrid_opts *o = r->c->opts;
    float *rec = pattern_record(r, block / o->stride);
    return rec + (kv_head * o->stride + block % o->stride / KERN_KB * KERN_KB) * r->c->shape->dim;
}

/* Means of the blocks that the chunk completes. */
static void add_means(const struct pattern_run *r)
{
    const struct attn_call *c = r->c;
    int64_t d = c->shape->dim, G = c->shape->kv_heads, b0 = c->pos / KERN_KB, n = (c->pos + c->n) / KERN_KB - b0;
#pragma omp parallel for schedule(dynamic, 1) if (G > 1 && n > 1)
    for (int64_t g = 0; g < G; g++)
        for (int64_t b = b0; b < b0 + n; b++) {
            float key[KERN_MAX_DIM], *to = means_of(r, g, b) + b % KERN_KB;
            float sum[KERN_MAX_DIM] = {0};
            for (int64_t j = 0; j < KERN_KB; j++) {
                c->kern->kv_keys(&c->kv[g], b * KERN_KB + j, 1, key);
                c->kern->add(sum, key, d);
            }
            for (int64_t i = 0; i < d; i++)
                to[i * KERN_KB] = sum[i] / KERN_KB;
        }
}

/* ---- blocks by mean key ---- */

static size_t pick_work(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    int64_t nb = (max_tokens / KERN_KB + KERN_KB) / KERN_KB * KERN_KB;
    (void)opts;
    (void)s;
    return arena_bytes(nb, sizeof(float)) + arena_bytes(nb + 64, sizeof(float));
}

static int64_t pick_row(const struct pattern_run *r, const struct pattern_unit *u, const float *q, int64_t t, int32_t *list,
                        void *work)
{
    const struct hybrid_opts *o = r->c->opts;
    const struct kern_table *k = r->c->kern;
    int64_t first = pattern_first(r->c->shape, t), begin = pattern_begin(&u->p, first, t);
    /* complete blocks wholly before the local part, after the sinks, that the architecture's window shows */
    int64_t lo = max64(o->sink / KERN_KB, first / KERN_KB), hi = begin / KERN_KB, d = r->c->shape->dim, n;
    float *s = work,
          *rest = (float *)(void *)((unsigned char *)work + arena_bytes((hi + KERN_KB) / KERN_KB * KERN_KB, sizeof(float)));
    if (lo >= hi)
        return 0;
    for (int64_t b = lo / KERN_KB * KERN_KB; b < hi;) { /* groups of 16 blocks lie side by side within a record */
        int64_t groups = min64((o->stride - b % o->stride) / KERN_KB, (hi - b + KERN_KB - 1) / KERN_KB);
        k->block_scores(&(struct kern_scores){.rows = 1,
                                              .width = d,
                                              .groups = groups,
                                              .u = q,
                                              .v = means_of(r, u->kv_head, b),
                                              .v_stride = d * KERN_KB,
                                              .scale = 1,
                                              .s = s + b,
                                              .ld = 0});
        b += groups * KERN_KB;
    }
    n = k->topk(s + lo, hi - lo, u->p.picks, list, rest, NULL);
    for (int64_t i = 0; i < n; i++)
        list[i] += (int32_t)lo;
    return n;
}

static const struct pattern_ops ops = {.variants = CANDIDATES,
                                       .of = of,
                                       .pick_row = pick_row,
                                       .pick_work = pick_work,
                                       .own_bytes = own_bytes,
                                       .record_bytes = record_bytes};

/* ---- choosing ---- */

static double keys_of(const struct hybrid_opts *o, const struct attn_shape *s, int v, int64_t t)
{
    struct pattern p;
    of(o, s, 0, v, &p);
    return (double)(pattern_keys(&p, pattern_first(s, t), t) + p.picks * p.pick_block);
}

/* For the segment that begins at t. */
static void choose(const struct attn_call *c, const struct own *w, int64_t t)
{
    const struct hybrid_opts *o = c->opts;
    for (int64_t h = 0; h < c->shape->heads; h++) {
        const double *mass = w->mass + h * CANDIDATES, samples = *w->samples;
        int best = DENSE;
        for (int v = 0; v < DENSE && samples > 0; v++) {
            if (o->rule == BEST)
                best = best == DENSE || mass[v] > mass[best] ? v : best;
            else if (mass[v] >= o->mass * samples && keys_of(o, c->shape, v, t) < keys_of(o, c->shape, best, t))
                best = v;
        }
        w->choice[h] = best;
    }
    memset(w->mass, 0, (size_t)(c->shape->heads * CANDIDATES) * sizeof(double));
    *w->samples = 0;
}

struct sample_room { /* of one row */
    float *out, *lse, *dense;
    int32_t *variant;
};

/* Row i of the chunk under every candidate: shares of dense attention's mass. */
static void sample(struct pattern_run *r, const struct own *w, const struct sample_room *room, int64_t i)
{
    int64_t H = r->c->shape->heads, row0 = r->row0;
    float *out = r->out, *lse = r->lse;
    double pairs = r->pairs;
    r->out = room->out;
    r->row0 = i;
    for (int v = DENSE; v >= 0; v--) {
        r->lse = v == DENSE ? room->dense : room->lse;
        for (int64_t h = 0; h < H; h++)
            room->variant[h] = v;
        pattern_attend(r, room->variant, i, 1);
        for (int64_t h = 0; h < H; h++)
            w->mass[h * CANDIDATES + v] += fmin(1, exp((double)r->lse[h] - (double)room->dense[h]));
    }
    *w->samples += 1;
    r->out = out;
    r->lse = lse;
    r->row0 = row0;
    r->pairs = pairs; /* what was looked at in order to choose is not what was seen */
}

/* Tokens i .. i+n-1 of one segment, and their samples. */
static void stretch(struct pattern_run *r, const struct own *w, const struct sample_room *room, int64_t i, int64_t n)
{
    const struct attn_call *c = r->c;
    const struct hybrid_opts *o = c->opts;
    pattern_attend(r, w->choice, i, n);
    double t0 = timer_now();
    for (int64_t x = i; x < i + n; x++)
        if ((c->pos + x) % o->every == o->every - 1)
            sample(r, w, room, x);
    if (!c->stats)
        return;
    c->stats->select_s += timer_now() - t0;
    for (int64_t h = 0; h < c->shape->heads; h++) {
        double *to = w->choice[h] == DENSE    ? &c->stats->tile_dense
                     : w->choice[h] == BLOCKS ? &c->stats->tile_gather
                                              : &c->stats->tile_blocks;
        *to += (double)n;
    }
}

static int run(struct attn_call *c)
{
    const struct hybrid_opts *o = c->opts;
    int64_t H = c->shape->heads, n;
    struct pattern_run r;
    struct own w;
    size_t mark = arena_mark(c->step);
    struct sample_room room = {.out = ARENA_NEW(c->step, H * c->shape->dim, float), .lse = ARENA_NEW(c->step, H, float)};
    room.dense = ARENA_NEW(c->step, H, float);
    room.variant = ARENA_NEW(c->step, H, int32_t);
    int rc = room.out && room.lse && room.dense && room.variant ? pattern_open(&r, c, &ops) : ERR_NOMEM;
    if (!rc) {
        own_cut(&w, pattern_own(&r), H);
        AST_ASSERT(w.mass && w.samples && w.choice);
        add_means(&r);
        for (int64_t i = 0; i < c->n; i += n) {
            int64_t t = c->pos + i;
            if (t % o->segment == 0)
                choose(c, &w, t);
            n = min64(c->n - i, o->segment - t % o->segment);
            stretch(&r, &w, &room, i, n);
        }
        if (c->stats) {
            c->stats->pairs_seen += r.pairs;
            c->stats->pairs_causal += (double)H * ((double)c->n * (double)c->pos + (double)c->n * (double)(c->n + 1) / 2);
        }
    }
    arena_release(c->step, mark);
    return rc;
}

static int check(const void *opts, const struct attn_shape *s)
{
    const struct hybrid_opts *o = opts;
    if (o->sink % KERN_KB || o->stride % KERN_KB)
        return err_set(ERR_ARG, "sink = %lld and stride = %lld: multiples of %d are needed", (long long)o->sink,
                       (long long)o->stride, KERN_KB);
    if (o->segment % o->every)
        return err_set(ERR_ARG, "segment = %lld: a multiple of every = %lld is needed, so that each has samples",
                       (long long)o->segment, (long long)o->every);
    if (picks_of(o) < 1)
        return err_set(ERR_ARG, "keep = %lld leaves no block beside sink = %lld and local = %lld", (long long)o->keep,
                       (long long)o->sink, (long long)o->local);
    return pattern_check(&ops, opts, s);
}

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    return pattern_state_bytes(&ops, opts, s, max_tokens);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    return pattern_scratch(&ops, opts, s, n, max_tokens) + arena_bytes(s->heads * s->dim, sizeof(float)) +
           3 * arena_bytes(s->heads, sizeof(float));
}

/* As if streaming were chosen, and the samples. */
static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    const struct hybrid_opts *o = opts;
    double causal = (double)s->heads * ((double)n * (double)pos + (double)n * (double)(n + 1) / 2);
    pattern_cost(&ops, opts, s, (const int64_t[]){pos, n}, out);
    out->flops += 4 * (double)s->dim * (causal + DENSE * out->pairs) / (double)o->every;
}

const struct attn_method attn_hybrid = {
    .name = "hybrid",
    .cite = "ours",
    .summary = "chooses among fixed patterns for each head and stretch, by what they kept of dense rows before",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct hybrid_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
