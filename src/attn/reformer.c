/* Reformer: a token attends to the keys that locality-sensitive hashing puts into its bucket.
 *     hash     round r: M_r ~ N(0,1)^(d x b/2), h_r(x) = argmax [x M_r ; -x M_r]     (the length of x changes nothing)
 *     round    P_r(t) = the last 2 c keys j <= t with h_r(k_j) = h_r(q_t)
 *     token    softmax over the union of P_r(t), r < R, and itself
 * The paper sorts the sequence by (bucket, position), cuts it into chunks of c and lets each see itself and the one before: where
 * chunks end depends on tokens to come. Ours keeps a list of each bucket to which keys are appended, and a token sees the last
 * 2 c of it: strictly causal, the same in prefill and decode. The union is what the paper's multi-round average with its
 * - ln N_tj terms comes to (each key once).
 * shared_qk as the paper trains it: k_j = q_j / |q_j|, the own key only where there is no other (its logit is -1e5). Other
 * checkpoints keep their keys and logits ("Reformer-style"); one M for each KV head.
 *
 *     state   tokens | M (G, d, R b/2) | entries in each bucket (K, R, b) | their last 2 c + 128 (K, R, b, ring) | rows ...
 *             row = keys and values of a token (K d + G d); K = G, or H with shared_qk
 *
 *   source       Kitaev et al. 2020 (arXiv 2001.04451), 2; R = 8, c = 64 tokens a bucket at 8192 tokens: b = 128
 *   cost         hashing R b d flops and at most 2 c R keys a token: O(N) once lists are full (from 2 b c tokens on: 16384 with the
 *                defaults). Measured it grows faster, N^1.8 from 4k to 64k: lists fill, then rows fall out of the cache. Up to 1.1
 * MB a KV head of lists, and one copy of keys and values in float, whose rows can be read singly */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"

enum { PART = 128, HASH_ROWS = 16 }; /* tokens entered before their rows are computed; hashed together */

struct reformer_opts {
    int64_t rounds, buckets, chunk, seed;
    bool shared_qk;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct reformer_opts, rounds, 8, 1, 64, "hashes, R: keys of any of them are seen"),
    CFG_INT(struct reformer_opts, buckets, 128, 2, 65536, "buckets of a hash, even; the paper's is tokens / chunk"),
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

struct lsh {                         /* sizes, and the parts of the state */
    int64_t R, b, half, reach, ring; /* half: columns of all M, R b / 2; reach = 2 c */
    bool shared;
    int64_t H, G, K, d, row; /* K: key heads; row: floats of a token's keys and values */
    int64_t *tokens;
    float *proj;     /* (G, d, half) */
    int32_t *count;  /* (K, R, b) entries ever made */
    int32_t *recent; /* (K, R, b, ring): entry e of a bucket is at e % ring */
    float *rows;
};

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

/* Cuts the state; returns the bytes before the rows. */
static size_t state_cut(struct lsh *l, unsigned char *base, const struct reformer_opts *o, const struct attn_shape *s)
{
    size_t at = 0;
    *l = (struct lsh){.R = o->rounds, .b = o->buckets, .half = o->rounds * o->buckets / 2, .reach = 2 * o->chunk, .ring = 1};
    l->H = s->heads, l->G = s->kv_heads, l->d = s->dim;
    l->shared = o->shared_qk;
    l->K = o->shared_qk ? l->H : l->G;
    l->row = (l->K + l->G) * l->d;
    while (l->ring < l->reach + PART)
        l->ring *= 2;
    l->tokens = take(base, &at, 1, sizeof(int64_t));
    l->proj = take(base, &at, l->G * l->d * l->half, sizeof(float));
    l->count = take(base, &at, l->K * l->R * l->b, sizeof(int32_t));
    l->recent = take(base, &at, l->K * l->R * l->b * l->ring, sizeof(int32_t));
    l->rows = base ? (float *)(void *)(base + at) : NULL;
    return at;
}

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    struct lsh l;
    return state_cut(&l, NULL, opts, s) + arena_bytes(max_tokens * l.row, sizeof(float));
}

struct lane {            /* one thread's room */
    float *x, *p, *line; /* (HASH_ROWS, d), (HASH_ROWS, half), (b,) */
    int32_t *stamp, *id; /* (tokens,) last item that has seen a key; (R reach + 1,) */
    float *s, *q;        /* (R reach + 1,), (d,) */
    int32_t mark;
    double pairs;
};

static size_t lane_cut(struct lane *w, unsigned char *base, const struct lsh *l, int64_t tokens)
{
    size_t at = 0;
    *w = (struct lane){0};
    w->x = take(base, &at, HASH_ROWS * l->d, sizeof(float));
    w->p = take(base, &at, HASH_ROWS * l->half, sizeof(float));
    w->line = take(base, &at, l->b, sizeof(float));
    w->stamp = take(base, &at, tokens, sizeof(int32_t));
    w->id = take(base, &at, min64(tokens, l->R * l->reach) + 1, sizeof(int32_t));
    w->s = take(base, &at, min64(tokens, l->R * l->reach) + 1, sizeof(float));
    w->q = take(base, &at, l->d, sizeof(float));
    return at;
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    struct lsh l;
    struct lane w;
    state_cut(&l, NULL, opts, s);
    return arena_bytes(omp_get_max_threads(), lane_cut(&w, NULL, &l, max_tokens)) +
           arena_bytes(min64(n, PART) * (l.H + l.K) * l.R, sizeof(int32_t)) +
           arena_bytes(min64(n, PART) * l.H * l.R, sizeof(int32_t));
}

/* ---- hashing ---- */

struct part { /* tokens i .. i+n-1 of the chunk */
    const struct attn_call *c;
    struct lsh l;
    int64_t i, n;
    int32_t *bucket; /* (n, H + K, R): queries, then keys */
    int32_t *seen;   /* (n, H, R) entries of the query's bucket when its token was entered */
};

/* Keys of key head `which` of a token; values: K + KV head. */
static float *row_at(const struct lsh *l, int64_t t, int64_t which)
{
    return l->rows + t * l->row + which * l->d;
}

/* Buckets of the rows in w->x, one line (R,) each at out + x ld. */
static void hash(const struct part *t, struct lane *w, int64_t g, int32_t *out, int64_t n)
{
    const struct kern_table *k = t->c->kern;
    const struct lsh *l = &t->l;
    int64_t half = l->b / 2, ld = (l->H + l->K) * l->R;
    k->rows_matmul(&(struct kern_rows){n, l->d, l->half, w->x, l->proj + g * l->d * l->half, l->d, w->p, l->half, false});
    for (int64_t x = 0; x < n; x++)
        for (int64_t r = 0; r < l->R; r++) {
            const float *p = w->p + x * l->half + r * half;
            for (int64_t j = 0; j < half; j++) {
                w->line[j] = p[j];
                w->line[half + j] = -p[j];
            }
            out[x * ld + r] = (int32_t)k->argmax(w->line, l->b);
        }
}

/* Keys and values of tokens x .. x+n-1 of the part into their rows: as the cache keeps them, or keys made of queries. */
static void store(const struct part *t, struct lane *w, int64_t x, int64_t n)
{
    const struct attn_call *c = t->c;
    const struct lsh *l = &t->l;
    int64_t d = l->d, pos = c->pos + t->i + x;
    for (int64_t g = 0; g < l->G; g++)
        for (int what = l->shared; what < 2; what++) {
            (what ? c->kern->kv_values : c->kern->kv_keys)(&c->kv[g], pos, n, w->x);
            for (int64_t y = 0; y < n; y++)
                memcpy(row_at(l, pos + y, what ? l->K + g : g), w->x + y * d, (size_t)d * sizeof(float));
        }
    for (int64_t h = 0; l->shared && h < l->H; h++)
        for (int64_t y = 0; y < n; y++) {
            const float *q = c->q + ((t->i + x + y) * l->H + h) * d;
            float *to = row_at(l, pos + y, h), norm = sqrtf(c->kern->dot(q, q, d));
            for (int64_t j = 0; j < d; j++)
                to[j] = norm > 0 ? q[j] / norm : 0;
        }
}

/* Buckets of queries and keys of tokens x .. x+n-1 of the part. With shared_qk a query has its key's. */
static void hashes(const struct part *t, struct lane *w, int64_t x, int64_t n)
{
    const struct lsh *l = &t->l;
    int64_t d = l->d, ld = (l->H + l->K) * l->R;
    int32_t *out = t->bucket + x * ld;
    for (int64_t h = 0; h < l->K; h++) {
        for (int64_t y = 0; y < n; y++)
            memcpy(w->x + y * d, row_at(l, t->c->pos + t->i + x + y, h), (size_t)d * sizeof(float));
        hash(t, w, l->shared ? h / (l->H / l->G) : h, out + (l->H + h) * l->R, n);
    }
    for (int64_t h = 0; h < l->H; h++) {
        for (int64_t y = 0; y < n; y++) {
            memcpy(w->x + y * d, t->c->q + ((t->i + x + y) * l->H + h) * d, (size_t)d * sizeof(float));
            if (l->shared)
                memcpy(out + y * ld + h * l->R, out + y * ld + (l->H + h) * l->R, (size_t)l->R * sizeof(int32_t));
        }
        if (!l->shared)
            hash(t, w, h / (l->H / l->G), out + h * l->R, n);
    }
}

/* Appends the part's keys of key head kh to their buckets, one token after the other, and notes what each query finds. */
static void enter(const struct part *t, int64_t kh)
{
    const struct lsh *l = &t->l;
    int64_t each = l->H / l->K, ld = (l->H + l->K) * l->R;
    int32_t *count = l->count + kh * l->R * l->b;
    for (int64_t x = 0; x < t->n; x++)
        for (int64_t r = 0; r < l->R; r++) {
            const int32_t *bucket = t->bucket + x * ld + r;
            int64_t own = r * l->b + bucket[(l->H + kh) * l->R];
            l->recent[(kh * l->R * l->b + own) * l->ring + count[own] % l->ring] = (int32_t)(t->c->pos + t->i + x);
            count[own]++;
            for (int64_t h = kh * each; h < (kh + 1) * each; h++)
                t->seen[(x * l->H + h) * l->R + r] = count[r * l->b + bucket[h * l->R]];
        }
}

/* ---- attention ---- */

/* Keys of the union, each once: round by round from the newest back, the own first unless it must not be seen. */
static int64_t choose(const struct part *t, struct lane *w, int64_t x, int64_t h)
{
    const struct lsh *l = &t->l;
    int64_t kh = h / (l->H / l->K), own = t->c->pos + t->i + x, n = 0, window = t->c->shape->window;
    int64_t first = window > 0 ? max64(0, own - window + 1) : 0;
    w->mark++;
    w->stamp[own] = w->mark;
    if (!l->shared)
        w->id[n++] = (int32_t)own;
    for (int64_t r = 0; r < l->R; r++) {
        int64_t bucket = (kh * l->R + r) * l->b + t->bucket[(x * (l->H + l->K) + h) * l->R + r];
        int64_t seen = t->seen[(x * l->H + h) * l->R + r];
        for (int64_t e = seen - 1; e >= max64(0, seen - l->reach); e--) {
            int32_t j = l->recent[bucket * l->ring + e % l->ring];
            if (j < first)
                break;
            if (w->stamp[j] != w->mark) {
                w->stamp[j] = w->mark;
                w->id[n++] = j;
            }
        }
    }
    if (n == 0)
        w->id[n++] = (int32_t)own;
    return n;
}

static void one_row(const struct part *t, struct lane *w, int64_t x, int64_t h)
{
    const struct attn_call *c = t->c;
    const struct kern_table *k = c->kern;
    const struct lsh *l = &t->l;
    int64_t d = l->d, row = (t->i + x) * l->H + h, n = choose(t, w, x, h);
    float sum, top, *out = c->out + row * d;
    for (int64_t j = 0; j < d; j++)
        w->q[j] = c->q[row * d + j] * c->shape->scale;
    k->list_scores(&(struct kern_list){n, d, l->row, w->id, row_at(l, 0, h / (l->H / l->K)), w->q, w->s});
    top = k->exp_row(w->s, w->s, n, &sum);
    k->list_mix(&(struct kern_list){n, d, l->row, w->id, row_at(l, 0, l->K + h / (l->H / l->G)), w->s, out});
    k->scale(out, 1 / sum, d);
    if (c->lse)
        c->lse[row] = top + logf(sum);
    w->pairs += (double)n;
}

/* ---- a call ---- */

static void draw(const struct lsh *l, const struct reformer_opts *o, const struct attn_shape *s)
{
#pragma omp parallel for if (l->G > 1)
    for (int64_t g = 0; g < l->G; g++)
        for (int64_t i = 0; i < l->d * l->half; i++)
            l->proj[g * l->d * l->half + i] =
                (float)rng_normal((uint64_t)o->seed, (uint64_t)s->layer << 32 | (uint64_t)(s->kv_head0 + g), (uint64_t)i);
}

/* The chunk, PART tokens at a time: rows and hashes, lists, attention. Returns the pairs seen. */
static double parts(struct part *all, unsigned char *lanes, size_t lane, int threads)
{
    const struct attn_call *c = all->c;
    double pairs = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct lane w;
        struct part t = *all;
        lane_cut(&w, lanes + (size_t)omp_get_thread_num() * lane, &t.l, c->pos + c->n);
        memset(w.stamp, 0, (size_t)(c->pos + c->n) * sizeof *w.stamp);
        for (t.i = 0; t.i < c->n; t.i += t.n) {
            t.n = min64(PART, c->n - t.i);
#pragma omp for schedule(dynamic, 1)
            for (int64_t x = 0; x < t.n; x += HASH_ROWS) {
                store(&t, &w, x, min64(HASH_ROWS, t.n - x));
                hashes(&t, &w, x, min64(HASH_ROWS, t.n - x));
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t kh = 0; kh < t.l.K; kh++)
                enter(&t, kh);
#pragma omp for schedule(dynamic, 8)
            for (int64_t item = 0; item < t.n * t.l.H; item++)
                one_row(&t, &w, item % t.n, item / t.n);
        }
#pragma omp critical(reformer_count)
        pairs += w.pairs; /* whole numbers: their order changes nothing */
    }
    return pairs;
}

static int run(struct attn_call *c)
{
    const struct attn_shape *s = c->shape;
    struct part t = {.c = c};
    struct lane w;
    state_cut(&t.l, c->state, c->opts, s);
    size_t mark = arena_mark(c->step), lane = lane_cut(&w, NULL, &t.l, c->pos + c->n);
    int threads = (int)min64(omp_get_max_threads(), c->n * s->heads);
    if (*t.l.tokens != c->pos)
        return err_set(ERR_ARG, "attention state holds %lld tokens, the chunk begins at %lld", (long long)*t.l.tokens,
                       (long long)c->pos);
    t.bucket = ARENA_NEW(c->step, min64(c->n, PART) * (t.l.H + t.l.K) * t.l.R, int32_t);
    t.seen = ARENA_NEW(c->step, min64(c->n, PART) * t.l.H * t.l.R, int32_t);
    unsigned char *lanes = t.bucket && t.seen ? arena_alloc(c->step, threads, lane) : NULL;
    if (lanes) {
        if (c->pos == 0)
            draw(&t.l, c->opts, s);
        double pairs = parts(&t, lanes, lane, threads);
        *t.l.tokens += c->n;
        if (c->stats) {
            c->stats->pairs_seen += pairs;
            c->stats->pairs_causal += (double)s->heads * ((double)c->n * (double)c->pos + (double)c->n * (double)(c->n + 1) / 2);
            c->stats->tile_gather += (double)(c->n * s->heads);
        }
    }
    arena_release(c->step, mark);
    return lanes ? ERR_OK : ERR_NOMEM;
}

/* Buckets of equal size, rounds that find different keys: of t keys a round finds min(2 c, t / b), the union at most all. */
static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    struct lsh l;
    state_cut(&l, NULL, opts, s);
    double R = (double)l.R, d = (double)l.d, H = (double)s->heads, keys = 0;
    enum { SAMPLES = 256 };
    int64_t step = max64(1, n / SAMPLES), points = 0;
    for (int64_t t = pos + step / 2; t < pos + n; t += step, points++) {
        double seen = s->window > 0 ? fmin((double)t, (double)s->window) : (double)t,
               part = fmin((double)l.reach, seen / (double)l.b);
        keys += 1 + seen * (1 - pow(1 - part / fmax(1, seen), R));
    }
    out->pairs = points > 0 ? H * keys * (double)n / (double)points : 0;
    out->flops = 4 * out->pairs * d + (double)n * (double)(l.H + (l.K == l.G ? l.G : 0)) * 2 * d * (double)l.half;
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
