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
 *     state   tokens | stage | stage | ...    a stage: tokens of one b(t), 2 c, then 2 c, 4 c, 8 c ..., whatever `buckets` says
 *     stage   used, newest, nodes of lists: all keys up to its end | M (G, d, columns) | rows (tokens, K d + G d)
 *             row = keys and values of a token; K = G, or H with shared_qk
 *
 * What stands before the rows of a stage fills whole rows, so that row `slot` of the state is found by one multiplication:
 * slot = t + the stage's gap. Gaps are the same on ranks that share the heads: each part grows with their number, padded alone.
 *
 * Rows lie anywhere, and those of a long sequence are in no cache. So the tokens of a group choose first, and then all of them
 * go over the sequence together, BLOCK slots after BLOCK slots whose rows stay in the second cache: once for scores, and once
 * for values. A token's sums run block by block, whoever is in its group.
 *
 *   source   Kitaev et al. 2020 (arXiv 2001.04451), 2; R = 8, c = 64; two factors: the authors' code
 *   cost     a token sees at most 2 c R keys, with buckets = 0 about 3/4 c R; hashing R (b_1 + b_2) d flops with b_1 b_2 ~ t/c.
 *            bench_baselines: N^1.2 from 4k to 64k (pairs alone N^1.05: the first tokens see fewer; the rest is caches).
 *            With a fixed number of buckets lists fill until 2 b c tokens, and hashing takes R b d flops
 *   memory   one copy of keys and values in float, whose rows can be read singly, and about 10 K R bytes of lists a token */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"

enum { PART = 1024, HASH_ROWS = 16 }; /* tokens entered before their rows are computed; hashed together */
enum { GROUP = 256, BLOCK = 2048 };   /* tokens that go over the keys together; slots they pass at a time */
enum { ROOM = 1 << 20 };              /* chosen keys that a thread holds, unless one token has more */

struct reformer_opts {
    int64_t rounds, buckets, chunk, seed;
    bool shared_qk;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct reformer_opts, rounds, 8, 1, 64, "hashes, R: keys of any of them are seen"),
    CFG_INT(struct reformer_opts, buckets, 0, 0, 65536, "buckets of a hash, even; 0: by the paper, growing with the position t: the power of two in (t/chunk, 2 t/chunk]"),
    CFG_INT(struct reformer_opts, chunk, 64, 1, 8192, "c: a token sees the last 2 c keys of its bucket in each round"),
    CFG_BOOL(struct reformer_opts, shared_qk, false, "keys are the normalised queries, as the paper trains it"),
    CFG_INT(struct reformer_opts, seed, 1, 0, 9e15, "of the hashes"),
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
    const struct reformer_opts *o = opts;
    if (o->buckets % 2)
        return err_set(ERR_ARG, "buckets = %lld: a hash has an even number, one for each direction and its opposite",
                       (long long)o->buckets);
    return s->dim > KERN_MAX_DIM ? err_set(ERR_ARG, "head width %lld: at most %d", (long long)s->dim, KERN_MAX_DIM) : ERR_OK;
}

/* ---- memory ---- */

enum { NODE = 15 };
struct node {                   /* of a bucket's list: a cache line */
    int32_t slot[NODE], before; /* oldest first; the full node before it, as a place; 0: none */
};

/* Place in a list: node * 16 + its keys up to there (1 .. 15); 0: none. */
struct stage {
    uint64_t draw;           /* which directions: its level if they grow, one set for all if not */
    int64_t start, len, gap; /* its tokens; slot = token + gap */
    int64_t b, f[2], cols;   /* buckets = f[0] f[1], directions of the factors; columns of M = R (f[0] / 2 + f[1] / 2) */
    int64_t nodes;
    int32_t *used, *newest; /* (K, pad(R)) nodes; (K, pad(R b)) places of the newest keys */
    struct node *node;      /* (K, R, nodes) */
    float *proj;            /* (G, pad(d cols)): columns (R, both factors) */
};

enum { STAGES = 40 };
struct lsh {          /* sizes, and the parts of the state */
    int64_t R, reach; /* 2 c */
    bool shared, grows;
    int64_t H, G, K, d, row; /* K: key heads; row: floats of a token's keys and values */
    int64_t *tokens;
    float *rows;
    int n_stages;
    struct stage stage[STAGES];
};

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

static int64_t pad(int64_t n)
{
    return (n + 15) / 16 * 16;
}

/* The parts of a stage before its rows; at, in bytes from slot 0, moves behind them to a whole row. */
static void stage_cut(const struct lsh *l, struct stage *g, const struct reformer_opts *o, int level, size_t *at)
{
    unsigned char *base = (unsigned char *)(void *)l->rows;
    size_t row = (size_t)l->row * sizeof(float);
    g->f[0] = l->grows ? (int64_t)1 << level / 2 : 1;
    g->f[1] = l->grows ? (int64_t)1 << (level - level / 2) : o->buckets;
    g->b = g->f[0] * g->f[1];
    g->draw = l->grows ? (uint64_t)level : 0;
    g->cols = l->R * (g->f[0] / 2 + g->f[1] / 2);
    g->nodes = (g->start + g->len) / NODE + g->b; /* every bucket may have one that is not full */
    g->used = take(base, at, l->K * pad(l->R), sizeof(int32_t));
    g->newest = take(base, at, l->K * pad(l->R * g->b), sizeof(int32_t));
    g->node = take(base, at, l->K * l->R * g->nodes, sizeof(struct node));
    g->proj = take(base, at, l->G * pad(l->d * g->cols), sizeof(float));
    *at = (*at + row - 1) / row * row;
    g->gap = (int64_t)(*at / row) - g->start;
    *at += (size_t)g->len * row;
}

/* Cuts the state as far as so many tokens need it; returns its bytes. */
static size_t state_cut(struct lsh *l, unsigned char *base, const struct reformer_opts *o, const struct attn_shape *s,
                        int64_t tokens)
{
    size_t at = 0, head = arena_bytes(1, sizeof(int64_t));
    *l = (struct lsh){.R = o->rounds, .reach = 2 * o->chunk, .shared = o->shared_qk, .grows = o->buckets == 0};
    l->H = s->heads, l->G = s->kv_heads, l->d = s->dim;
    l->K = o->shared_qk ? l->H : l->G;
    l->row = (l->K + l->G) * l->d;
    l->tokens = (int64_t *)(void *)base;
    l->rows = base ? (float *)(void *)(base + head) : NULL;
    for (int64_t start = 0; start < max64(1, tokens) && l->n_stages < STAGES; l->n_stages++) {
        struct stage *g = &l->stage[l->n_stages];
        g->start = start;
        g->len = l->n_stages == 0 ? 2 * o->chunk : start;
        stage_cut(l, g, o, l->n_stages + 1, &at);
        start += g->len;
    }
    const struct stage *last = &l->stage[l->n_stages - 1];
    return head + at - (size_t)(max64(0, last->start + last->len - tokens) * l->row) * sizeof(float);
}

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    struct lsh l;
    return state_cut(&l, NULL, opts, s, max_tokens);
}

struct lane {             /* one thread's room */
    float *x, *p, *line;  /* (HASH_ROWS, d), (HASH_ROWS, cols), (largest factor,) */
    uint64_t *bits;       /* (slots,) bits: chosen; zeros between queries */
    int32_t *list;        /* (cap + 1,) */
    int64_t cap, queries; /* keys of a query, at most; queries that fit */
    int64_t blocks;
    int32_t *id, *ptr;  /* (queries, cap) slots by block; (queries, blocks + 1) where a block's begin */
    float *s, *q, *mix; /* (queries, cap), (queries, d), (d,) */
    double pairs;
};

/* tokens: of the sequence; n: of a chunk */
static size_t lane_cut(struct lane *w, unsigned char *base, const struct lsh *l, int64_t n, int64_t tokens)
{
    const struct stage *last = &l->stage[l->n_stages - 1]; /* with the most columns */
    int64_t slots = tokens + last->gap;
    size_t at = 0;
    *w = (struct lane){.cap = min64(tokens, l->R * l->reach) + 1, .blocks = (slots + BLOCK - 1) / BLOCK};
    int64_t most = min64(n, GROUP) * (l->H / l->K), keys = min64(most * w->cap, max64(w->cap, ROOM));
    w->queries = keys / w->cap;
    w->x = take(base, &at, HASH_ROWS * l->d, sizeof(float));
    w->p = take(base, &at, HASH_ROWS * last->cols, sizeof(float));
    w->line = take(base, &at, max64(last->f[0], last->f[1]), sizeof(float));
    w->bits = take(base, &at, slots / 64 + 1, sizeof(uint64_t));
    w->list = take(base, &at, w->cap + 1, sizeof(int32_t));
    w->id = take(base, &at, keys, sizeof(int32_t));
    w->ptr = take(base, &at, most * (w->blocks + 1), sizeof(int32_t));
    w->s = take(base, &at, keys, sizeof(float));
    w->q = take(base, &at, most * l->d, sizeof(float));
    w->mix = take(base, &at, l->d, sizeof(float));
    return at;
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    struct lsh l;
    struct lane w;
    state_cut(&l, NULL, opts, s, max_tokens);
    return arena_bytes(omp_get_max_threads(), lane_cut(&w, NULL, &l, n, max_tokens)) +
           arena_bytes(PART * (l.H + l.K) * l.R, sizeof(int32_t)) + arena_bytes(min64(n, PART) * l.H * l.R, sizeof(int32_t));
}

/* ---- hashing ---- */

struct part { /* tokens at .. at+n-1, of one stage */
    const struct attn_call *c;
    const struct reformer_opts *o;
    const struct lsh *l;
    const struct stage *g;
    int64_t at, n;
    int32_t *bucket; /* (n, H + K, R): queries, then keys */
    int32_t *seen;   /* (n, H, R) place of the newest key of the query's bucket when its token was entered */
};

/* Keys of key head `which` of a slot; values: K + KV head. */
static float *row_at(const struct lsh *l, int64_t slot, int64_t which)
{
    return l->rows + slot * l->row + which * l->d;
}

static const struct stage *stage_of(const struct lsh *l, int64_t t)
{
    const struct stage *g = &l->stage[l->n_stages - 1];
    while (t < g->start)
        g--;
    return g;
}

/* Buckets of the rows in w->x, one line (R,) each at out + x ld. */
static void hash(const struct part *t, struct lane *w, int64_t g, int32_t *out, int64_t n)
{
    const struct kern_table *k = t->c->kern;
    const struct stage *e = t->g;
    int64_t d = t->l->d, ld = (t->l->H + t->l->K) * t->l->R;
    k->rows_matmul(&(struct kern_rows){n, d, e->cols, w->x, e->proj + g * pad(d * e->cols), d, w->p, e->cols, false});
    for (int64_t x = 0; x < n; x++) {
        const float *p = w->p + x * e->cols;
        for (int64_t r = 0; r < t->l->R; r++) {
            int64_t bucket = 0;
            for (int f = 0; f < 2; f++) {
                int64_t half = e->f[f] / 2;
                for (int64_t j = 0; j < half; j++) {
                    w->line[j] = p[j];
                    w->line[half + j] = -p[j];
                }
                bucket = bucket * e->f[f] + (half > 0 ? k->argmax(w->line, 2 * half) : 0);
                p += half;
            }
            out[x * ld + r] = (int32_t)bucket;
        }
    }
}

/* Keys and values of tokens x .. x+n-1 of the part into their rows: as the cache keeps them, or keys made of queries. */
static void store(const struct part *t, struct lane *w, int64_t x, int64_t n)
{
    const struct attn_call *c = t->c;
    const struct lsh *l = t->l;
    int64_t d = l->d, pos = t->at + x, slot = pos + t->g->gap;
    for (int64_t g = 0; g < l->G; g++)
        for (int what = l->shared; what < 2; what++) {
            (what ? c->kern->kv_values : c->kern->kv_keys)(&c->kv[g], pos, n, w->x);
            for (int64_t y = 0; y < n; y++)
                memcpy(row_at(l, slot + y, what ? l->K + g : g), w->x + y * d, (size_t)d * sizeof(float));
        }
    for (int64_t h = 0; l->shared && h < l->H; h++)
        for (int64_t y = 0; y < n; y++) {
            const float *q = c->q + ((pos - c->pos + y) * l->H + h) * d;
            float *to = row_at(l, slot + y, h), norm = sqrtf(c->kern->dot(q, q, d));
            for (int64_t j = 0; j < d; j++)
                to[j] = norm > 0 ? q[j] / norm : 0;
        }
}

/* Buckets of the keys of tokens x .. x+n-1 of the part, whose rows are stored. */
static void hash_keys(const struct part *t, struct lane *w, int64_t x, int64_t n)
{
    const struct lsh *l = t->l;
    int64_t d = l->d, slot = t->at + x + stage_of(l, t->at + x)->gap;
    int32_t *out = t->bucket + x * (l->H + l->K) * l->R;
    for (int64_t h = 0; h < l->K; h++) {
        for (int64_t y = 0; y < n; y++)
            memcpy(w->x + y * d, row_at(l, slot + y, h), (size_t)d * sizeof(float));
        hash(t, w, l->shared ? h / (l->H / l->G) : h, out + (l->H + h) * l->R, n);
    }
}

/* Of their queries. With shared_qk a query has its key's. */
static void hash_queries(const struct part *t, struct lane *w, int64_t x, int64_t n)
{
    const struct lsh *l = t->l;
    int64_t d = l->d, ld = (l->H + l->K) * l->R;
    int32_t *out = t->bucket + x * ld;
    for (int64_t h = 0; h < l->H; h++) {
        for (int64_t y = 0; y < n; y++) {
            memcpy(w->x + y * d, t->c->q + ((t->at - t->c->pos + x + y) * l->H + h) * d, (size_t)d * sizeof(float));
            if (l->shared)
                memcpy(out + y * ld + h * l->R, out + y * ld + (l->H + h) * l->R, (size_t)l->R * sizeof(int32_t));
        }
        if (!l->shared)
            hash(t, w, h / (l->H / l->G), out + h * l->R, n);
    }
}

static void append(struct node *node, int32_t *used, int32_t *place, int64_t slot)
{
    if (*place % (NODE + 1) == 0 || *place % (NODE + 1) == NODE) {
        node[*used].before = *place;
        *place = (*used)++ * (NODE + 1);
    }
    node[*place / (NODE + 1)].slot[*place % (NODE + 1)] = (int32_t)slot;
    ++*place;
}

/* Nodes of round r of key head kh. */
static struct node *nodes(const struct part *t, int64_t kh, int64_t r)
{
    return t->g->node + (kh * t->l->R + r) * t->g->nodes;
}

/* Appends the part's keys of key head kh to their buckets, one token after the other, and notes what each query finds. */
static void enter(const struct part *t, int64_t kh, bool queries)
{
    const struct lsh *l = t->l;
    const struct stage *g = t->g;
    int64_t each = l->H / l->K, ld = (l->H + l->K) * l->R, slot = t->at + stage_of(l, t->at)->gap;
    for (int64_t r = 0; r < l->R; r++) {
        int32_t *newest = g->newest + kh * pad(l->R * g->b) + r * g->b, *used = g->used + kh * pad(l->R) + r;
        for (int64_t x = 0; x < t->n; x++) {
            const int32_t *bucket = t->bucket + x * ld + r;
            append(nodes(t, kh, r), used, newest + bucket[(l->H + kh) * l->R], slot + x);
            for (int64_t h = kh * each; queries && h < (kh + 1) * each; h++)
                t->seen[(x * l->H + h) * l->R + r] = newest[bucket[h * l->R]];
        }
    }
}

/* ---- attention ---- */

/* Adds the last 2 c keys of a list from `place` on to the n keys found, but none before slot `first` and none twice. */
static int64_t walk(struct lane *w, const struct node *node, int64_t place, int64_t reach, int64_t first, int64_t n)
{
    while (place > 0 && reach > 0) {
        const struct node *e = &node[place / (NODE + 1)];
        int64_t fill = place % (NODE + 1);
        place = e->before;
        __builtin_prefetch(&node[place / (NODE + 1)]);
        for (int64_t i = fill - 1; i >= max64(0, fill - reach); i--) {
            int64_t j = e->slot[i];
            uint64_t *word = &w->bits[j / 64], bit = 1ull << j % 64;
            if (j < first)
                return n;
            w->list[n] = (int32_t)j;
            n += (*word & bit) == 0;
            *word |= bit;
        }
        reach -= fill;
    }
    return n;
}

/* Puts the list's n keys into query i's room by block, those of one block in the list's order, and clears their bits. */
static void sort(struct lane *w, int64_t i, int64_t n)
{
    int32_t *id = w->id + i * w->cap, *ptr = w->ptr + i * (w->blocks + 1);
    memset(ptr, 0, (size_t)(w->blocks + 1) * sizeof *ptr);
    for (int64_t x = 0; x < n; x++) {
        w->bits[w->list[x] / 64] = 0;
        ptr[w->list[x] / BLOCK + 1]++;
    }
    for (int64_t b = 0; b < w->blocks; b++)
        ptr[b + 1] += ptr[b];
    for (int64_t x = 0; x < n; x++)
        id[ptr[w->list[x] / BLOCK]++] = w->list[x];
    for (int64_t b = w->blocks; b > 0; b--)
        ptr[b] = ptr[b - 1];
    ptr[0] = 0;
}

/* Keys of the union, each once, for query i of the group: the own first unless it must not be seen, then round by round from
 * the newest back. */
static void choose(const struct part *t, struct lane *w, int64_t i, int64_t x, int64_t h)
{
    const struct lsh *l = t->l;
    int64_t kh = h / (l->H / l->K), at = t->at + x, window = t->c->shape->window, n = 0, own = at + t->g->gap;
    int64_t from = window > 0 ? max64(0, at - window + 1) : 0, first = from + stage_of(l, from)->gap;
    const int32_t *seen = t->seen + (x * l->H + h) * l->R;
    w->bits[own / 64] |= 1ull << own % 64;
    w->list[0] = (int32_t)own;
    n = l->shared ? 0 : 1;
    for (int64_t r = 0; r < l->R; r++)
        __builtin_prefetch(&nodes(t, kh, r)[seen[r] / (NODE + 1)]);
    for (int64_t r = 0; r < l->R; r++)
        n = walk(w, nodes(t, kh, r), seen[r], l->reach, first, n);
    w->bits[own / 64] = 0;
    if (n == 0)
        w->list[n++] = (int32_t)own;
    sort(w, i, n);
    w->pairs += (double)n;
}

/* Queries of tokens x0 .. x0+n-1 of the part, heads h0 .. h0+heads-1 of one key head. */
struct group {
    int64_t x0, n, h0, heads;
};

static int64_t row_of(const struct part *t, const struct group *g, int64_t i)
{
    return (t->at - t->c->pos + g->x0 + i / g->heads) * t->l->H + g->h0 + i % g->heads;
}

/* The keys of query i in a block: false if there are none. */
static bool in_block(const struct part *t, const struct lane *w, int64_t i, int64_t block, struct kern_list *list)
{
    const int32_t *ptr = w->ptr + i * (w->blocks + 1) + block;
    *list = (struct kern_list){.n = ptr[1] - ptr[0], .dim = t->l->d, .stride = t->l->row, .idx = w->id + i * w->cap + ptr[0]};
    return list->n > 0;
}

static void attend(const struct part *t, struct lane *w, const struct group *g)
{
    const struct attn_call *c = t->c;
    const struct kern_table *k = c->kern;
    const struct lsh *l = t->l;
    int64_t d = l->d, n = g->n * g->heads;
    struct kern_list list;
    for (int64_t i = 0; i < n; i++) {
        choose(t, w, i, g->x0 + i / g->heads, g->h0 + i % g->heads);
        for (int64_t j = 0; j < d; j++)
            w->q[i * d + j] = c->q[row_of(t, g, i) * d + j] * c->shape->scale;
    }
    for (int64_t b = 0; b < w->blocks; b++)
        for (int64_t i = 0; i < n; i++)
            if (in_block(t, w, i, b, &list)) {
                list.rows = row_at(l, 0, g->h0 / (l->H / l->K)), list.x = w->q + i * d;
                list.y = w->s + i * w->cap + w->ptr[i * (w->blocks + 1) + b];
                k->list_scores(&list);
            }
    for (int64_t i = 0; i < n; i++) {
        float sum, *s = w->s + i * w->cap, top = k->exp_row(s, s, w->ptr[i * (w->blocks + 1) + w->blocks], &sum);
        k->scale(s, 1 / sum, w->ptr[i * (w->blocks + 1) + w->blocks]);
        memset(c->out + row_of(t, g, i) * d, 0, (size_t)d * sizeof(float));
        if (c->lse)
            c->lse[row_of(t, g, i)] = top + logf(sum);
    }
    for (int64_t b = 0; b < w->blocks; b++)
        for (int64_t i = 0; i < n; i++)
            if (in_block(t, w, i, b, &list)) {
                list.rows = row_at(l, 0, l->K + g->h0 / (l->H / l->G)), list.y = w->mix;
                list.x = w->s + i * w->cap + w->ptr[i * (w->blocks + 1) + b];
                k->list_mix(&list);
                k->add(c->out + row_of(t, g, i) * d, w->mix, d);
            }
}

/* ---- a call ---- */

/* One direction: Gaussian, less its part along those before it in the same d (column k of M is at k of each row). */
static void direction(const struct part *t, int64_t g, uint64_t index, float *to, int64_t before)
{
    const struct attn_shape *s = t->c->shape;
    uint64_t seed = (uint64_t)t->o->seed, stream = (uint64_t)s->layer << 32 | (uint64_t)(s->kv_head0 + g);
    int64_t d = t->l->d, ld = t->g->cols;
    double x[KERN_MAX_DIM], sum = 0;
    for (int64_t i = 0; i < d; i++)
        x[i] = rng_normal(seed, stream, index | (uint64_t)i);
    for (int64_t k = -before; k < 0; k++) {
        double p = 0;
        for (int64_t i = 0; i < d; i++)
            p += x[i] * (double)to[i * ld + k];
        for (int64_t i = 0; i < d; i++)
            x[i] -= p * (double)to[i * ld + k];
    }
    for (int64_t i = 0; i < d; i++)
        sum += x[i] * x[i];
    for (int64_t i = 0; i < d; i++)
        to[i * ld] = (float)(x[i] / sqrt(sum));
}

/* Indices: levels < 2^6, rounds < 2^7, columns of a round < 2^16, d < 2^16. */
static void draw(const struct part *t, int64_t g)
{
    const struct stage *e = t->g;
    float *to = e->proj + g * pad(t->l->d * e->cols);
    for (int64_t r = 0; r < t->l->R; r++)
        for (int64_t j = 0; j < e->cols / t->l->R; j++, to++)
            direction(t, g, e->draw << 48 | (uint64_t)r << 32 | (uint64_t)j << 16, to, j % t->l->d);
}

/* The part begins a stage: directions are drawn, and the keys before it are hashed and listed anew. By all threads. */
static void begin(const struct part *all, struct lane *w)
{
    struct part t = *all;
    if (t.at != t.g->start)
        return;
#pragma omp for schedule(dynamic, 1)
    for (int64_t g = 0; g < t.l->G; g++)
        draw(&t, g);
    for (t.at = 0; t.at < all->at; t.at += t.n) {
        const struct stage *home = stage_of(t.l, t.at);
        t.n = min64(PART, home->start + home->len - t.at);
#pragma omp for schedule(dynamic, 1)
        for (int64_t x = 0; x < t.n; x += HASH_ROWS)
            hash_keys(&t, w, x, min64(HASH_ROWS, t.n - x));
#pragma omp for schedule(dynamic, 1)
        for (int64_t kh = 0; kh < t.l->K; kh++)
            enter(&t, kh, false);
    }
}

/* Attention of a part, in groups: large ones share more, but every thread should have some. */
static void attend_all(const struct part *t, struct lane *w, int threads)
{
    const struct lsh *l = t->l;
    int64_t heads = l->H / l->K;
    if (t->n < GROUP / 4 || heads > w->queries)
        heads = 1;
    int64_t n = min64(GROUP, max64(16, (t->n * l->H / heads + 2 * threads - 1) / (2 * threads)));
    n = max64(1, min64(n, w->queries / heads));
    int64_t across = l->H / heads, groups = (t->n + n - 1) / n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < groups * across; item++) {
        int64_t x = item / across * n;
        attend(t, w, &(struct group){x, min64(n, t->n - x), item % across * heads, heads});
    }
}

/* The chunk, up to PART tokens of a stage at a time: rows and hashes, lists, attention. Returns the pairs seen. */
static double parts(const struct part *all, unsigned char *lanes, size_t lane, int threads)
{
    const struct attn_call *c = all->c;
    int64_t tokens = c->pos + c->n;
    double pairs = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct lane w;
        struct part t = *all;
        lane_cut(&w, lanes + (size_t)omp_get_thread_num() * lane, t.l, c->n, tokens);
        memset(w.bits, 0, (size_t)((tokens + t.l->stage[t.l->n_stages - 1].gap) / 64 + 1) * sizeof *w.bits);
        for (t.at = c->pos; t.at < tokens; t.at += t.n) {
            t.g = stage_of(t.l, t.at);
            t.n = min64(PART, min64(tokens, t.g->start + t.g->len) - t.at);
            begin(&t, &w);
#pragma omp for schedule(dynamic, 1)
            for (int64_t x = 0; x < t.n; x += HASH_ROWS) {
                int64_t n = min64(HASH_ROWS, t.n - x);
                store(&t, &w, x, n);
                hash_keys(&t, &w, x, n);
                hash_queries(&t, &w, x, n);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t kh = 0; kh < t.l->K; kh++)
                enter(&t, kh, true);
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
    struct lane w;
    struct part t = {.c = c, .o = c->opts, .l = &l};
    state_cut(&l, c->state, c->opts, s, c->pos + c->n);
    size_t mark = arena_mark(c->step), lane = lane_cut(&w, NULL, &l, c->n, c->pos + c->n);
    int threads = (int)min64(omp_get_max_threads(), c->n * s->heads);
    if (*l.tokens != c->pos)
        return err_set(ERR_ARG, "attention state holds %lld tokens, the chunk begins at %lld", (long long)*l.tokens,
                       (long long)c->pos);
    t.bucket = ARENA_NEW(c->step, PART * (l.H + l.K) * l.R, int32_t);
    t.seen = ARENA_NEW(c->step, min64(c->n, PART) * l.H * l.R, int32_t);
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
    state_cut(&l, NULL, opts, s, pos + n);
    double d = (double)l.d, H = (double)s->heads, hashed = H + (double)(l.shared ? 0 : l.G), keys = 0, flops = 0;
    enum { SAMPLES = 256 };
    int64_t step = max64(1, n / SAMPLES), points = 0;
    for (int64_t t = pos + step / 2; t < pos + n; t += step, points++) {
        const struct stage *g = stage_of(&l, t);
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
    .opts_size = sizeof(struct reformer_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
