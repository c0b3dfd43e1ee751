/* Reformer: a token attends to the keys that locality-sensitive hashing puts into its bucket.
 *     factor   of n directions: argmax [x M ; -x M], M (d, n/2)                    (the length of x changes nothing)
 *     hash     h_r(x), round r: one factor of b directions; buckets = 0: two, of b_1 b_2 = b, as the authors' code has them
 *     round    P_r(t) = the last 2 c keys j <= t with h_r(k_j) = h_r(q_t)
 *     token    softmax over the union of P_r(t), r < R, and itself
 * The paper sorts the sequence by (bucket, position), cuts it into chunks of c and lets each see itself and the one before: where
 * chunks end depends on tokens to come. Ours keeps a list of each bucket to which keys are appended, and a token sees the last
 * 2 c of it: strictly causal, the same in prefill and decode. The union is what the paper's multi-round average with its
 * - ln N_tj terms comes to (each key once).
 * The paper's number of buckets grows with the sequence, so that one holds c/2 keys (c = 2 l / b). A stream has no length yet:
 * with buckets = 0 token t has b(t) = the power of two in (t/c, 2 t/c], at least 2, and hashes with it all keys before. When b
 * doubles all keys are hashed and listed once more, which comes to one more hash a key in all: a bucket holds c/2 to c keys on
 * average at any length, and what a token sees follows from its own position.
 * All directions of a round are those of a random rotation, d at a time, as in the hash that the paper takes (Andoni et al.
 * 2015): Gaussian ones, as its code draws them, give buckets of two factors 1.3 times their share at 1024 buckets, more at more.
 * shared_qk as the paper trains it: k_j = q_j / |q_j|, the own key only where there is no other (its logit is -1e5). Other
 * checkpoints keep their keys and logits ("Reformer-style"); one M for each KV head.
 *
 * What is kept of a sequence stands in attn/lsh.h, the gradient in attn/reformer_grad.c.
 * Rows lie anywhere, and those of a long sequence are in no cache. So the tokens of a group choose first, and then all of them
 * go over the sequence together, LSH_BLOCK slots after LSH_BLOCK whose rows are copied side by side into the second cache (where
 * they stand, those of one head share few of its sets): once for scores, and once for values. While a token collects its keys
 * the nodes of the next one's lists are fetched. A token's sums run block by block, whoever is in its group.
 *
 *   source   Kitaev et al. 2020 (arXiv 2001.04451), 2; R = 8, c = 64; two factors: the authors' code
 *   cost     a token sees at most 2 c R keys, with buckets = 0 about 3/4 c R; hashing R (b_1 + b_2) d flops with b_1 b_2 ~ t/c.
 *            bench_baselines: N^1.15 from 4k to 64k (pairs alone N^1.05: the first tokens see fewer; the rest is caches).
 *            With a fixed number of buckets lists fill until 2 b c tokens, and hashing takes R b d flops
 *   memory   one copy of keys and values in float, whose rows can be read singly, and about 12 K R bytes of lists a token */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/lsh.h"
#include "attn/reformer_grad.h"
#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct lsh_opts, rounds, 8, 1, LSH_ROUNDS, "hashes, R: keys of any of them are seen"),
    CFG_INT(struct lsh_opts, buckets, 0, 0, 65536, "buckets of a hash, even; 0: by the paper, growing with the position t: the power of two in (t/chunk, 2 t/chunk]"),
    CFG_INT(struct lsh_opts, chunk, 64, 1, 8192, "c: a token sees the last 2 c keys of its bucket in each round"),
    CFG_BOOL(struct lsh_opts, shared_qk, false, "keys are the normalised queries, as the paper trains it"),
    CFG_INT(struct lsh_opts, seed, 1, 0, 9e15, "of the hashes"),
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

static int check(const void *opts, const struct attn_shape *s)
{
    const struct lsh_opts *o = opts;
    if (o->buckets % 2)
        return err_set(ERR_ARG, "buckets = %lld: a hash has an even number, one for each direction and its opposite",
                       (long long)o->buckets);
    return s->dim > KERN_MAX_DIM ? err_set(ERR_ARG, "head width %lld: at most %d", (long long)s->dim, KERN_MAX_DIM) : ERR_OK;
}

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    struct lsh l;
    return lsh_cut(&l, NULL, opts, s, max_tokens);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    struct lsh l;
    struct lsh_lane w;
    lsh_cut(&l, NULL, opts, s, max_tokens);
    return arena_bytes(omp_get_max_threads(), lsh_lane_cut(&w, NULL, &l, n, max_tokens)) +
           arena_bytes(LSH_PART * (l.H + l.K) * l.R, sizeof(int32_t)) +
           arena_bytes(min64(n, LSH_PART) * l.H * l.R, sizeof(int32_t));
}

/* ---- attention ---- */

static void attend(const struct lsh_part *t, struct lsh_lane *w, const struct lsh_group *g)
{
    const struct attn_call *c = t->c;
    const struct kern_table *k = c->kern;
    const struct lsh *l = t->l;
    int64_t d = l->d, n = g->n * g->heads;
    struct kern_list list;
    lsh_weights(t, w, g);
    for (int64_t i = 0; i < n; i++)
        memset(c->out + lsh_row_of(t, g, i) * d, 0, (size_t)d * sizeof(float));
    for (int64_t b = 0; b < w->blocks; b++) {
        lsh_block(t, w, n, b, l->K + g->h0 / (l->H / l->G), &list);
        for (int64_t i = 0; i < n; i++)
            if (lsh_in_block(w, i, b, &list)) {
                list.x = w->s + lsh_place(w, i, b), list.y = w->mix;
                k->list_mix(&list);
                k->add(c->out + lsh_row_of(t, g, i) * d, w->mix, d);
            }
    }
}

static void attend_all(const struct lsh_part *t, struct lsh_lane *w, int threads)
{
    struct lsh_group all = lsh_group_of(t, w, threads);
    int64_t n = all.n, across = t->l->H / all.heads, groups = (t->n + n - 1) / n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < groups * across; item++) {
        int64_t x = item / across * n;
        attend(t, w, &(struct lsh_group){x, min64(n, t->n - x), item % across * all.heads, all.heads});
    }
}

/* The chunk, up to LSH_PART tokens of a stage at a time: rows and hashes, lists, attention. Returns the pairs seen. */
static double parts(const struct lsh_part *all, unsigned char *lanes, size_t lane, int threads)
{
    const struct attn_call *c = all->c;
    int64_t tokens = c->pos + c->n;
    double pairs = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct lsh_lane w;
        struct lsh_part t = *all;
        lsh_lane_cut(&w, lanes + (size_t)omp_get_thread_num() * lane, t.l, c->n, tokens);
        for (t.at = c->pos; lsh_next(&t, tokens);) {
            lsh_enter(&t, &w);
            attend_all(&t, &w, threads);
        }
#pragma omp critical(reformer_count)
        pairs += w.pairs; /* whole numbers: their order changes nothing */
    }
    return pairs;
}

static int run(struct attn_call *c)
{
    const struct attn_shape *s = c->shape;
    struct lsh l;
    struct lsh_lane w;
    struct lsh_part t = {.c = c, .o = c->opts, .l = &l};
    lsh_cut(&l, c->state, c->opts, s, c->pos + c->n);
    size_t mark = arena_mark(c->step), lane = lsh_lane_cut(&w, NULL, &l, c->n, c->pos + c->n);
    int threads = (int)min64(omp_get_max_threads(), c->n * s->heads);
    if (*l.tokens != c->pos)
        return err_set(ERR_ARG, "attention state holds %lld tokens, the chunk begins at %lld", (long long)*l.tokens,
                       (long long)c->pos);
    t.bucket = ARENA_NEW(c->step, LSH_PART * (l.H + l.K) * l.R, int32_t);
    t.seen = ARENA_NEW(c->step, min64(c->n, LSH_PART) * l.H * l.R, int32_t);
    unsigned char *lanes = t.bucket && t.seen ? arena_alloc(c->step, threads, lane) : NULL;
    if (lanes) {
        double pairs = parts(&t, lanes, lane, threads);
        *l.tokens += c->n;
        if (c->stats) {
            c->stats->pairs_seen += pairs;
            c->stats->pairs_causal += (double)s->heads * ((double)c->n * (double)c->pos + (double)c->n * (double)(c->n + 1) / 2);
            c->stats->tile_gather += (double)(c->n * s->heads);
        }
    }
    arena_release(c->step, mark);
    return lanes ? ERR_OK : ERR_NOMEM;
}

/* Buckets of equal size, rounds that find different keys: of t keys a round finds min(2 c, t / b), the union at most all.
 * A stage that begins hashes all keys before it. */
static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    struct lsh l;
    lsh_cut(&l, NULL, opts, s, pos + n);
    double d = (double)l.d, H = (double)s->heads, hashed = H + (double)(l.shared ? 0 : l.G), keys = 0, flops = 0;
    enum { SAMPLES = 256 };
    int64_t step = max64(1, n / SAMPLES), points = 0;
    for (int64_t t = pos + step / 2; t < pos + n; t += step, points++) {
        const struct lsh_stage *g = lsh_stage_of(&l, t);
        double seen = s->window > 0 ? fmin((double)t, (double)s->window) : (double)t;
        double part = fmin((double)l.reach, seen / (double)g->b);
        keys += 1 + seen * (1 - pow(1 - part / fmax(1, seen), (double)l.R));
        flops += hashed * 2 * d * (double)g->cols;
    }
    double each = points > 0 ? (double)n / (double)points : 0;
    out->pairs = H * keys * each;
    out->flops = 4 * out->pairs * d + flops * each;
    for (int i = 1; i < l.n_stages; i++)
        if (l.stage[i].start >= pos)
            out->flops += (double)l.stage[i].start * (double)l.K * 2 * d * (double)l.stage[i].cols;
    out->bytes = out->pairs * d * 8;
}

const struct attn_method attn_reformer = {
    .name = "reformer",
    .cite = "Kitaev et al. 2020",
    .summary = "keys of the same hash buckets (LSH attention), causal by append-only lists",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct lsh_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
    .backward = reformer_backward,
    .backward_bytes = reformer_backward_bytes,
};
