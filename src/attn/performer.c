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
 * It is not a drop-in: checkpoints need fine-tuning with it (attn/performer_grad.c). */
#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/favor.h"
#include "attn/favor_sums.h"
#include "attn/performer_grad.h"
#include "base/arena.h"
#include "base/err.h"
#include "cfg/cfg.h"

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct favor_opts, features, 256, 16, 65536, "random features m (hyperbolic: twice as many)"),
    CFG_BOOL(struct favor_opts, hyperbolic, false, "with each direction its opposite: less variance for the same directions"),
    CFG_ENUM(struct favor_opts, norm, 0, "gaussian|sqrt-dim", "length of the directions"),
    CFG_INT(struct favor_opts, seed, 1, 0, 9e15, "of the directions; another one redraws them"),
    CFG_END,
};
/* clang-format on */

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
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

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    struct favor_sizes z = favor_sizes_of(opts, s);
    struct favor_state st;
    struct favor_head h;
    (void)max_tokens;
    return favor_state_cut(&st, NULL, &z) + (size_t)s->kv_heads * favor_head_cut(&h, NULL, &z);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    struct favor_sizes z = favor_sizes_of(opts, s);
    struct favor_lane w;
    (void)n;
    (void)max_tokens;
    return arena_bytes(omp_get_max_threads(), favor_lane_cut(&w, NULL, &z)) + arena_bytes(s->dim * s->dim, sizeof(double));
}

/* One query head's rows of the part. */
static void queries(const struct favor_part *t, struct favor_lane *w, int64_t head, const struct favor_head *h)
{
    const struct attn_call *c = t->c;
    const struct kern_table *k = c->kern;
    int64_t H = c->shape->heads, d = t->z.d, M = t->z.M;
    bool past = c->pos + t->i - t->slot > 0;
    struct favor_rows r;
    favor_weights(t, w, head, h, &r);
    if (past)
        k->rows_matmul(&(struct kern_rows){t->n, M, d, w->p, h->sum, M, w->o, d, false});
    for (int64_t x = 0; past && x < t->n; x++)
        k->scale(w->o + x * d, r.by[x], d);
    k->rows_matmul(&(struct kern_rows){t->n, FAVOR_OPEN, d, w->tri, h->v, FAVOR_OPEN, w->o, d, past});
    for (int64_t x = 0; x < t->n; x++) {
        int64_t row = (t->i + x) * H + head;
        bool none = !(r.den[x] >= FLT_MIN); /* all products underflow, 1 / den may overflow: as a row that sees nothing */
        k->scale(w->o + x * d, none ? 0 : 1 / r.den[x], d);
        memcpy(c->out + row * d, w->o + x * d, (size_t)d * sizeof(float));
        if (c->lse)
            c->lse[row] = none ? -INFINITY : logf(r.den[x]) + r.top[x] + w->shift[x] - r.half[x] - logf((float)M);
    }
}

/* The tokens of the call, 64 at a time; heads side by side. */
static void parts(struct attn_call *c, const struct favor_state *st, unsigned char *lanes, int threads)
{
    const struct attn_shape *s = c->shape;
    struct favor_sizes z = favor_sizes_of(c->opts, s);
    struct favor_lane w0;
    struct favor_head h0;
    size_t lane = favor_lane_cut(&w0, NULL, &z), each = favor_head_cut(&h0, NULL, &z);
    int64_t group = s->heads / s->kv_heads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct favor_lane w;
        struct favor_head h;
        struct favor_part t = {.c = c, .st = st, .z = z};
        favor_lane_cut(&w, lanes + (size_t)omp_get_thread_num() * lane, &z);
        for (t.i = 0; t.i < c->n; t.i += t.n) {
            t.slot = (c->pos + t.i) % FAVOR_OPEN;
            t.n = min64(FAVOR_OPEN - t.slot, c->n - t.i);
#pragma omp for schedule(dynamic, 1)
            for (int64_t g = 0; g < s->kv_heads; g++) {
                favor_head_cut(&h, st->heads + (size_t)g * each, &z);
                favor_keys(&t, &w, g, &h);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t head = 0; head < s->heads; head++) {
                favor_head_cut(&h, st->heads + (size_t)(head / group) * each, &z);
                queries(&t, &w, head, &h);
            }
#pragma omp for schedule(dynamic, 1)
            for (int64_t g = 0; g < (t.slot + t.n == FAVOR_OPEN ? s->kv_heads : 0); g++) {
                favor_head_cut(&h, st->heads + (size_t)g * each, &z);
                favor_close(&t, &h, c->pos + t.i + t.n == FAVOR_OPEN);
            }
        }
    }
}

static int run(struct attn_call *c)
{
    const struct favor_opts *o = c->opts;
    const struct attn_shape *s = c->shape;
    struct favor_sizes z = favor_sizes_of(o, s);
    struct favor_state st;
    struct favor_lane w;
    int threads = omp_get_max_threads();
    size_t mark = arena_mark(c->step);
    favor_state_cut(&st, c->state, &z);
    if (*st.tokens != c->pos)
        return err_set(ERR_ARG, "attention state holds %lld tokens, the chunk begins at %lld", (long long)*st.tokens,
                       (long long)c->pos);
    double *work = ARENA_NEW(c->step, s->dim * s->dim, double);
    unsigned char *lanes = work ? arena_alloc(c->step, threads, favor_lane_cut(&w, NULL, &z)) : NULL;
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
        int64_t tiles = (c->pos + c->n - 1) / FAVOR_OPEN - c->pos / FAVOR_OPEN + 1;
        c->stats->tile_dense += (double)(s->heads * tiles);
    }
    return lanes ? ERR_OK : ERR_NOMEM;
}

static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    struct favor_sizes z = favor_sizes_of(opts, s);
    double m = (double)z.m, M = (double)z.M, d = (double)z.d, H = (double)s->heads, G = (double)s->kv_heads;
    double query = 2 * d * m + 2 * M * d + 2 * M * FAVOR_OPEN + 2 * d * FAVOR_OPEN, key = 2 * d * m + 2 * M * d;
    out->pairs = H * ((double)n * (double)pos + (double)n * (double)(n + 1) / 2);
    out->flops = (double)n * (H * query + G * key);
    out->bytes = (double)n / FAVOR_OPEN * G * M * (d + 1) * 8 + (double)n * (H + G) * d * 8;
}

const struct attn_method attn_performer = {
    .name = "performer",
    .cite = "Choromanski et al. 2021",
    .summary = "softmax through positive orthogonal random features, causal by prefix sums (FAVOR+)",
    .caps = ATTN_CAUSAL | ATTN_ALL_PAIRS,
    .fields = fields,
    .opts_size = sizeof(struct favor_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
    .backward = performer_backward,
    .backward_bytes = performer_backward_bytes,
};
