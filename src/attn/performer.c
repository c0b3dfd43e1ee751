/* Performer: softmax attention through random features (FAVOR+), causal by prefix sums.
 *     phi_r(x) = M^-1/2 e^(a_r - |x'|^2/2), x' = x sqrt(scale), a_r = w_r . x'; hyperbolic: also -w_r . x', M = 2 m
 *     S_t = S_(t-1) + phi(k_t) v_t^T;  z_t = z_(t-1) + phi(k_t);  o_t = phi(q_t)^T S_t / phi(q_t)^T z_t
 * Public codes subtract the largest key exponent of the whole sequence and add an epsilon: through it the future leaks into the
 * past. Here every key has its own shift b_j = max_r (a_jr - |k'_j|^2/2) and the sums the running c = max b, which cancels:
 *
 *     tokens   ......... 64 tokens ......... | open 64: features of keys e^(a_jr - b_j), b_j, v_j          state, of each KV head
 *              S, z scaled by e^-c ----------+
 *     o_i  ~   e^(c - c_i) Pq_i S  +  sum_(j <= i in the open 64) (Pq_i . Pk_j) e^(b_j - c_i) v_j,  c_i = max(c, b_j, j <= i)
 *
 * Tokens enter the sums 64 at a time, at multiples of 64 in the sequence: any cut into chunks gives the same bits.
 *   source       Choromanski et al. 2021 (arXiv 2009.14794), 2.3-2.4, B.1; m = 256. Directions by layer, shared by its heads
 *   cost         about 8 m d flops a token and head (features, S read, S written once a KV head, 64-token triangle): O(N), below
 *                dense attention from N = 4 m on. State M (d + 1) + 64 (M + d) floats a KV head, whatever the length: no key is
 *                looked at twice. It sees all pairs through its features: no density; compare by flops.
 * It is not a drop-in: checkpoints need fine-tuning with it. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/attn.h"
#include "attn/favor.h"
#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"

enum { OPEN = 64 };

struct performer_opts {
    int64_t features, seed;
    bool hyperbolic;
    int norm;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct performer_opts, features, 256, 16, 65536, "random features m (hyperbolic: twice as many)"),
    CFG_BOOL(struct performer_opts, hyperbolic, false, "with each direction its opposite: less variance for the same directions"),
    CFG_ENUM(struct performer_opts, norm, 0, "gaussian|sqrt-dim", "length of the directions"),
    CFG_INT(struct performer_opts, seed, 1, 0, 9e15, "of the directions; another one redraws them"),
    CFG_END,
};
/* clang-format on */

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct sizes {
    int64_t m, M, d;
};

static struct sizes sizes_of(const struct performer_opts *o, const struct attn_shape *s)
{
    return (struct sizes){o->features, o->features * (o->hyperbolic ? 2 : 1), s->dim};
}

static int check(const void *opts, const struct attn_shape *s)
{
    (void)opts;
    if (s->dim > KERN_MAX_DIM)
        return err_set(ERR_ARG, "head width %lld: at most %d", (long long)s->dim, KERN_MAX_DIM);
    if (s->window > 0)
        return err_set(ERR_ARG,
                       "the model has a sliding window of %lld tokens; prefix sums of features cannot forget: use another method",
                       (long long)s->window);
    return ERR_OK;
}

/* ---- memory ---- */

struct head {          /* of one KV head, in the state */
    float *sum, *z;    /* (M, d), (M,) */
    float *pk, *b, *v; /* (M, OPEN), (OPEN,), (OPEN, d): the open tokens */
    float *c;          /* running maximum of b before them; valid once tokens are in */
};

struct state {
    int64_t *tokens;
    float *w; /* (d, m) */
    unsigned char *heads;
};

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

static size_t head_cut(struct head *h, unsigned char *base, const struct sizes *z)
{
    size_t at = 0;
    h->sum = take(base, &at, z->M * z->d, sizeof(float));
    h->z = take(base, &at, z->M, sizeof(float));
    h->pk = take(base, &at, z->M * OPEN, sizeof(float));
    h->b = take(base, &at, OPEN, sizeof(float));
    h->v = take(base, &at, OPEN * z->d, sizeof(float));
    h->c = take(base, &at, 1, sizeof(float));
    return at;
}

static size_t state_cut(struct state *s, unsigned char *base, const struct sizes *z)
{
    size_t at = 0;
    s->tokens = take(base, &at, 1, sizeof(int64_t));
    s->w = take(base, &at, z->d * z->m, sizeof(float));
    s->heads = base ? base + at : NULL;
    return at;
}

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    struct sizes z = sizes_of(opts, s);
    struct state st;
    struct head h;
    (void)max_tokens;
    return state_cut(&st, NULL, &z) + (size_t)s->kv_heads * head_cut(&h, NULL, &z);
}

struct lane {         /* one thread's room; rows are tokens of one query head */
    float *x, *a, *p; /* (OPEN, d) scaled; (OPEN, m) exponents; (OPEN, M) features */
    float *tri, *o;   /* (OPEN, OPEN), (OPEN, d) */
    float *shift;     /* (OPEN,) largest exponent of a row */
};

static size_t lane_cut(struct lane *w, unsigned char *base, const struct sizes *z)
{
    size_t at = 0;
    w->x = take(base, &at, OPEN * z->d, sizeof(float));
    w->a = take(base, &at, OPEN * z->M, sizeof(float));
    w->p = take(base, &at, OPEN * z->M, sizeof(float));
    w->tri = take(base, &at, OPEN * OPEN, sizeof(float));
    w->o = take(base, &at, OPEN * z->d, sizeof(float));
    w->shift = take(base, &at, OPEN, sizeof(float));
    return at;
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    struct sizes z = sizes_of(opts, s);
    struct lane w;
    (void)n;
    (void)max_tokens;
    return arena_bytes(omp_get_max_threads(), lane_cut(&w, NULL, &z)) + arena_bytes(s->dim * s->dim, sizeof(double));
}

/* ---- features ---- */

struct part { /* tokens of the call within one open 64: slots slot .. slot+n-1, the first is row i of the chunk */
    const struct attn_call *c;
    const struct state *st;
    struct sizes z;
    int64_t i, n, slot;
};

/* w->p (n, M) = e^(a - shift) of the rows src + x ld, and half their |x'|^2 into half (OPEN,) */
static void features(const struct part *t, struct lane *w, const float *src, int64_t ld, float *half)
{
    const struct kern_table *k = t->c->kern;
    int64_t d = t->z.d, m = t->z.m, M = t->z.M;
    float root = sqrtf(t->c->shape->scale), sum;
    for (int64_t x = 0; x < t->n; x++) {
        float *row = w->x + x * d;
        for (int64_t j = 0; j < d; j++)
            row[j] = src[x * ld + j] * root;
        half[x] = k->dot(row, row, d) / 2;
    }
    k->rows_matmul(&(struct kern_rows){t->n, d, m, w->x, t->st->w, d, w->a, M, false});
    for (int64_t x = 0; x < t->n; x++) {
        float *a = w->a + x * M;
        for (int64_t r = m; r < M; r++)
            a[r] = -a[r - m];
        w->shift[x] = k->exp_row(w->p + x * M, a, M, &sum);
    }
}

static void keys(const struct part *t, struct lane *w, int64_t g, const struct head *h)
{
    const struct attn_call *c = t->c;
    int64_t d = t->z.d, M = t->z.M;
    float half[OPEN];
    if (t->slot == 0)
        memset(h->pk, 0, (size_t)(M * OPEN) * sizeof(float));
    /* as the cache keeps them: the same bits as a method that reads them back */
    c->kern->kv_values(&c->kv[g], c->pos + t->i, t->n, h->v + t->slot * d);
    c->kern->kv_keys(&c->kv[g], c->pos + t->i, t->n, w->o);
    if (t->slot == 0)
        memset(h->v + t->n * d, 0, (size_t)((OPEN - t->n) * d) * sizeof(float));
    features(t, w, w->o, d, half);
    for (int64_t x = 0; x < t->n; x++) {
        h->b[t->slot + x] = w->shift[x] - half[x];
        for (int64_t r = 0; r < M; r++)
            h->pk[r * OPEN + t->slot + x] = w->p[x * M + r];
    }
}

/* ---- sums ---- */

/* The open 64 are complete: into S and z. */
static void close_open(const struct part *t, const struct head *h, bool first)
{
    const struct kern_table *k = t->c->kern;
    float top = first ? -INFINITY : *h->c, old = top, weight[OPEN];
    for (int64_t j = 0; j < OPEN; j++)
        top = fmaxf(top, h->b[j]);
    float by = first ? 0 : expf(old - top);
    for (int64_t j = 0; j < OPEN; j++) {
        weight[j] = expf(h->b[j] - top);
        k->scale(h->v + j * t->z.d, weight[j], t->z.d);
    }
    k->scale(h->sum, by, t->z.M * t->z.d);
    k->rows_matmul(&(struct kern_rows){t->z.M, OPEN, t->z.d, h->pk, h->v, OPEN, h->sum, t->z.d, true});
    for (int64_t r = 0; r < t->z.M; r++)
        h->z[r] = h->z[r] * by + k->dot(h->pk + r * OPEN, weight, OPEN);
    *h->c = top;
}

/* tri (n, OPEN), products with the open keys, become their weights: own and earlier ones, the others zeros. top: the shift
 * before the open tokens, on return that of each row; den: sums of the rows. */
static void triangle(const struct part *t, const struct head *h, float *tri, float top[OPEN], float den[OPEN])
{
    float now = top[0];
    for (int64_t j = 0; j < t->slot; j++)
        now = fmaxf(now, h->b[j]);
    for (int64_t x = 0; x < t->n; x++) {
        float *row = tri + x * OPEN, sum = 0;
        int64_t own = t->slot + x;
        now = fmaxf(now, h->b[own]);
        for (int64_t j = 0; j <= own; j++) {
            row[j] *= expf(h->b[j] - now);
            sum += row[j];
        }
        for (int64_t j = own + 1; j < OPEN; j++)
            row[j] = 0;
        top[x] = now;
        den[x] = sum;
    }
}

/* One query head's rows of the part. */
static void queries(const struct part *t, struct lane *w, int64_t head, const struct head *h)
{
    const struct attn_call *c = t->c;
    const struct kern_table *k = c->kern;
    int64_t H = c->shape->heads, d = t->z.d, M = t->z.M;
    bool past = c->pos + t->i - t->slot > 0;
    float half[OPEN], top[OPEN] = {past ? *h->c : -INFINITY}, den[OPEN];
    features(t, w, c->q + (t->i * H + head) * d, H * d, half);
    k->rows_matmul(&(struct kern_rows){t->n, M, OPEN, w->p, h->pk, M, w->tri, OPEN, false});
    triangle(t, h, w->tri, top, den);
    if (past)
        k->rows_matmul(&(struct kern_rows){t->n, M, d, w->p, h->sum, M, w->o, d, false});
    for (int64_t x = 0; past && x < t->n; x++) {
        float by = expf(*h->c - top[x]);
        k->scale(w->o + x * d, by, d);
        den[x] += by * k->dot(w->p + x * M, h->z, M);
    }
    k->rows_matmul(&(struct kern_rows){t->n, OPEN, d, w->tri, h->v, OPEN, w->o, d, past});
    for (int64_t x = 0; x < t->n; x++) {
        int64_t row = (t->i + x) * H + head;
        bool none = !(den[x] > 0); /* all products underflow: as a row that sees nothing */
        k->scale(w->o + x * d, none ? 0 : 1 / den[x], d);
        memcpy(c->out + row * d, w->o + x * d, (size_t)d * sizeof(float));
        if (c->lse)
            c->lse[row] = none ? -INFINITY : logf(den[x]) + top[x] + w->shift[x] - half[x] - logf((float)M);
    }
}

/* The tokens of the call, 64 at a time; heads side by side. */
static void parts(struct attn_call *c, const struct state *st, unsigned char *lanes, int threads)
{
    const struct attn_shape *s = c->shape;
    struct sizes z = sizes_of(c->opts, s);
    struct lane w0;
    struct head h0;
    size_t lane = lane_cut(&w0, NULL, &z), each = head_cut(&h0, NULL, &z);
    int64_t group = s->heads / s->kv_heads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct lane w;
        struct head h;
        struct part t = {.c = c, .st = st, .z = z};
        lane_cut(&w, lanes + (size_t)omp_get_thread_num() * lane, &z);
        for (t.i = 0; t.i < c->n; t.i += t.n) {
            t.slot = (c->pos + t.i) % OPEN;
            t.n = min64(OPEN - t.slot, c->n - t.i);
#pragma omp for schedule(dynamic, 1)
            for (int64_t g = 0; g < s->kv_heads; g++) {
                head_cut(&h, st->heads + (size_t)g * each, &z);
                keys(&t, &w, g, &h);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t head = 0; head < s->heads; head++) {
                head_cut(&h, st->heads + (size_t)(head / group) * each, &z);
                queries(&t, &w, head, &h);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t g = 0; g < (t.slot + t.n == OPEN ? s->kv_heads : 0); g++) {
                head_cut(&h, st->heads + (size_t)g * each, &z);
                close_open(&t, &h, c->pos + t.i + t.n == OPEN);
            }
        }
    }
}

static int run(struct attn_call *c)
{
    const struct performer_opts *o = c->opts;
    const struct attn_shape *s = c->shape;
    struct sizes z = sizes_of(o, s);
    struct state st;
    struct lane w;
    int threads = omp_get_max_threads();
    size_t mark = arena_mark(c->step);
    state_cut(&st, c->state, &z);
    if (*st.tokens != c->pos)
        return err_set(ERR_ARG, "attention state holds %lld tokens, the chunk begins at %lld", (long long)*st.tokens,
                       (long long)c->pos);
    double *work = ARENA_NEW(c->step, s->dim * s->dim, double);
    unsigned char *lanes = work ? arena_alloc(c->step, threads, lane_cut(&w, NULL, &z)) : NULL;
    if (lanes && c->pos == 0)
        favor_draw(&(struct favor_draw){z.m, z.d, (uint64_t)o->seed, (uint64_t)s->layer, o->norm == 1}, st.w, work);
    if (lanes) {
        parts(c, &st, lanes, threads);
        *st.tokens += c->n;
    }
    arena_release(c->step, mark);
    if (lanes && c->stats) {
        double causal = (double)s->heads * ((double)c->n * (double)c->pos + (double)c->n * (double)(c->n + 1) / 2);
        c->stats->pairs_seen += causal;
        c->stats->pairs_causal += causal;
        c->stats->tile_dense += (double)(s->heads * ((c->pos + c->n - 1) / OPEN - c->pos / OPEN + 1));
    }
    return lanes ? ERR_OK : ERR_NOMEM;
}

static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    struct sizes z = sizes_of(opts, s);
    double m = (double)z.m, M = (double)z.M, d = (double)z.d, H = (double)s->heads, G = (double)s->kv_heads;
    double query = 2 * d * m + 2 * M * d + 2 * M * OPEN + 2 * d * OPEN, key = 2 * d * m + 2 * M * d;
    out->pairs = H * ((double)n * (double)pos + (double)n * (double)(n + 1) / 2);
    out->flops = (double)n * (H * query + G * key);
    out->bytes = (double)n / OPEN * G * M * (d + 1) * 8 + (double)n * (H + G) * d * 8;
}

const struct attn_method attn_performer = {
    .name = "performer",
    .cite = "Choromanski et al. 2021",
    .summary = "softmax through positive orthogonal random features, causal by prefix sums (FAVOR+)",
    .caps = ATTN_CAUSAL | ATTN_ALL_PAIRS,
    .fields = fields,
    .opts_size = sizeof(struct performer_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
