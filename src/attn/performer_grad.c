/* Performer's gradient, 64 tokens at a time: forward over the sequence with the sums that inference has, for queries; then back
 * over it with sums of what comes after, for keys and values. Features are computed anew: nothing of n x M is kept.
 *     A_tj = phi(q_t) . phi(k_j),  D_t = sum_j A_tj,  e_tj = (dO_t . v_j - dO_t . O_t) / D_t
 *     d phi(q_t) = sum_(j <= t) e_tj phi(k_j)            = (S_t dO_t - (dO_t . O_t) z_t) / D_t
 *     d phi(k_j) = sum_(t >= j) e_tj phi(q_t)            = R_j v_j - y_j
 *     dv_j       = sum_(t >= j) A_tj / D_t dO_t          = R_j^T phi(k_j)
 *     R_j = sum_(t >= j) phi(q_t) dO_t^T / D_t,   y_j = sum_(t >= j) phi(q_t) (dO_t . O_t) / D_t
 *     phi_r = e^(w_r . x' - |x'|^2/2):  dx' = sum_r phi_r d phi_r (w_r - x'),  dx = dx' sqrt(scale)
 * A factor of phi(q_t) cancels in O_t, so that its sum over r of phi d phi is 0 and the -x' of queries goes.
 *
 * Shifts: phi(k_j) = Pk_j e^(b_j), and D_t is kept as den_t e^(c_t), c_t = max b_j, j <= t (attn/performer.c). c_t never falls, so
 * R and y are kept times e^(c) with the c of their first token: on the way back they are only scaled down, and what a key takes
 * from them has the factor e^(b_j - c) <= 1.
 *
 * A thread takes a KV head with its query heads; where there are more threads, some of its query heads, and what these give to
 * keys and values is added up in their order. */
#include "attn/performer_grad.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "attn/favor.h"
#include "attn/favor_sums.h"
#include "base/arena.h"
#include "base/err.h"

enum { OPEN = FAVOR_OPEN };
/* Sums of weights below this are what underflow has left; its inverse leaves room for products with gradients and values. */
#define LEAST 1e-30F

struct room { /* one thread's, of one KV head */
    struct favor_lane w;
    struct favor_head h;
    float *kp, *kx, *vt;    /* (64, M) features of keys, (64, d) scaled keys, (d, 64) values */
    float *decay;           /* (64, 64) e^(b_j - c_t) of keys j <= t, else 0 */
    float *e, *g;           /* (64, 64) e_tj with the keys' factor, (64, M) gradients of exponents */
    float *turned, *R, *y;  /* (d, M) sums, transposed; (M, d), (M,) */
    float *top, *inv, *dot; /* (n,) c_t; (n, heads of the group) 1 / den_t, or 0; dO . O */
    float *dk, *dv;         /* (64, d) */
};

struct retrace { /* what all threads share */
    struct attn_grad *a;
    struct favor_state st;
    struct favor_sizes z;
    float *wt;                /* (m, d) directions */
    int64_t group, n, slices; /* query heads of a KV head; tokens; threads of a KV head */
    float *more;              /* (G, slices - 1, 2, n, d) dk and dv of all slices but the first */
};

struct part {
    struct favor_part t;
    struct favor_head h;
    int64_t g, head0, heads; /* KV head, its query heads at hand */
    float *dk, *dv;          /* rows with a stride of ld */
    int64_t ld;
    float root;
};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static float *take(unsigned char *base, size_t *at, int64_t n)
{
    float *p = base ? (float *)(void *)(base + *at) : NULL;
    *at += arena_bytes(n, sizeof(float));
    return p;
}

static size_t room_cut(struct room *r, unsigned char *base, const struct favor_sizes *z, const int64_t n_group[2])
{
    size_t at = favor_lane_cut(&r->w, base, z);
    at += favor_head_cut(&r->h, base ? base + at : NULL, z);
    int64_t n = n_group[0], rows = n * n_group[1];
    r->kp = take(base, &at, OPEN * z->M), r->kx = take(base, &at, OPEN * z->d), r->vt = take(base, &at, OPEN * z->d);
    r->decay = take(base, &at, (int64_t)OPEN * OPEN), r->e = take(base, &at, (int64_t)OPEN * OPEN),
    r->g = take(base, &at, OPEN * z->M);
    r->turned = take(base, &at, z->d * z->M), r->R = take(base, &at, z->M * z->d), r->y = take(base, &at, z->M);
    r->top = take(base, &at, n), r->inv = take(base, &at, rows), r->dot = take(base, &at, rows);
    r->dk = take(base, &at, OPEN * z->d), r->dv = take(base, &at, OPEN * z->d);
    return at;
}

/* Threads that share a KV head, each with some of its query heads. */
static int64_t slices_of(const struct attn_shape *s)
{
    int64_t per = omp_get_max_threads() / s->kv_heads;
    return per < 1 ? 1 : min64(per, s->heads / s->kv_heads);
}

size_t performer_backward_bytes(const void *opts, const struct attn_shape *s, int64_t n)
{
    struct favor_sizes z = favor_sizes_of(opts, s);
    struct room r;
    size_t each = room_cut(&r, NULL, &z, (const int64_t[2]){n, s->heads / s->kv_heads});
    return arena_bytes(omp_get_max_threads(), each) + arena_bytes(s->dim * s->dim, sizeof(double)) +
           arena_bytes(z.m * z.d, sizeof(float)) + arena_bytes((slices_of(s) - 1) * s->kv_heads * 2 * n * z.d + 1, sizeof(float));
}

/* c (m, n; ldc) (+)= a b, a transposed if so: its column s is then its row. */
struct product {
    int64_t m, n, k, lda, ldb, ldc;
    const float *a, *b;
    float *c;
    bool turned, add;
};

static void multiply(const struct kern_table *k, const struct product *p)
{
    struct kern_panel c = {.m = p->m, .n = p->n, .k = p->k, .a = p->a, .b = p->b, .c = p->c, .ldc = p->ldc};
    c.a_row = p->turned ? 1 : p->lda, c.a_step = p->turned ? p->lda : 1;
    c.b_block = KERN_KB, c.b_step = p->ldb, c.accumulate = p->add;
    k->panel(&c);
}

/* y (cols, rows) = x (rows, cols), transposed */
static void turn(float *y, const float *x, int64_t rows, int64_t cols)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            y[j * rows + i] = x[i * cols + j];
}

/* ---- both ways ---- */

/* Keys of the part: features, values, and what is left of each at the shift of each token. forward: shifts are found too. */
static void load_keys(struct part *p, struct room *r, bool forward)
{
    const struct favor_part *t = &p->t;
    int64_t d = t->z.d, M = t->z.M;
    float top = t->i > 0 ? *p->h.c : -INFINITY;
    favor_keys(t, &r->w, p->g, &p->h);
    for (int64_t x = 0; forward && x < t->n; x++)
        r->top[t->i + x] = top = fmaxf(top, p->h.b[x]);
    memcpy(r->kp, r->w.p, (size_t)(t->n * M) * sizeof(float));
    memcpy(r->kx, r->w.x, (size_t)(t->n * d) * sizeof(float));
    turn(r->vt, p->h.v, OPEN, d);
    for (int64_t x = 0; x < t->n; x++)
        for (int64_t j = 0; j < OPEN; j++)
            r->decay[x * OPEN + j] = j <= x ? expf(p->h.b[j] - r->top[t->i + x]) : 0;
}

/* r->e (n, 64): e_tj of the open keys, times what is left of them. at: of the rows' first in inv and dot */
static void scores_grad(const struct retrace *a, const struct part *p, struct room *r, int64_t head)
{
    const struct favor_part *t = &p->t;
    int64_t H = t->c->shape->heads, d = t->z.d, at = (head - p->head0) * a->n + t->i;
    const float *dout = a->a->dout + (t->i * H + head) * d;
    multiply(t->c->kern, &(struct product){t->n, OPEN, d, H * d, OPEN, OPEN, dout, r->vt, r->e, false, false});
    for (int64_t x = 0; x < t->n; x++)
        for (int64_t j = 0; j < OPEN; j++)
            r->e[x * OPEN + j] = (r->e[x * OPEN + j] - r->dot[at + x]) * r->decay[x * OPEN + j] * r->inv[at + x];
}

/* to (n rows, ld) = the rows' gradients from those of their exponents, r->g (n, M), which is used up. */
static void through_directions(const struct retrace *a, const struct part *p, struct room *r, float *to, int64_t ld)
{
    const struct favor_part *t = &p->t;
    int64_t d = t->z.d, m = t->z.m, M = t->z.M;
    for (int64_t x = 0; x < t->n; x++)
        for (int64_t i = m; i < M; i++)
            r->g[x * M + i - m] -= r->g[x * M + i];
    multiply(t->c->kern, &(struct product){t->n, d, m, M, d, ld, r->g, a->wt, to, false, false});
    for (int64_t x = 0; x < t->n; x++)
        t->c->kern->scale(to + x * ld, p->root, d);
}

/* ---- forward: queries ---- */

/* What the rows need on the way back too: 1 / den, dO . O, and c of each token. */
static void note(const struct retrace *a, const struct part *p, struct room *r, int64_t head, const struct favor_rows *rows)
{
    const struct favor_part *t = &p->t;
    int64_t H = t->c->shape->heads, d = t->z.d, at = (head - p->head0) * a->n + t->i;
    for (int64_t x = 0; x < t->n; x++) {
        int64_t row = ((t->i + x) * H + head) * d;
        r->inv[at + x] = rows->den[x] >= LEAST ? 1 / rows->den[x] : 0; /* a row that sees nothing has no gradient */
        r->dot[at + x] = t->c->kern->dot(a->a->dout + row, t->c->out + row, d);
    }
}

static void query_grad(const struct retrace *a, const struct part *p, struct room *r, int64_t head)
{
    const struct favor_part *t = &p->t;
    const struct kern_table *k = t->c->kern;
    int64_t H = t->c->shape->heads, d = t->z.d, M = t->z.M, at = (head - p->head0) * a->n + t->i, row = (t->i * H + head) * d;
    struct favor_rows rows;
    favor_weights(t, &r->w, head, &p->h, &rows);
    note(a, p, r, head, &rows);
    scores_grad(a, p, r, head);
    if (t->i > 0)
        multiply(k, &(struct product){t->n, M, d, H * d, M, M, a->a->dout + row, r->turned, r->g, false, false});
    for (int64_t x = 0; t->i > 0 && x < t->n; x++)
        for (int64_t i = 0; i < M; i++)
            r->g[x * M + i] = (r->g[x * M + i] - r->dot[at + x] * p->h.z[i]) * rows.by[x] * r->inv[at + x];
    multiply(k, &(struct product){t->n, M, t->n, OPEN, M, M, r->e, r->kp, r->g, false, t->i > 0});
    for (int64_t x = 0; x < t->n * M; x++)
        r->g[x] *= r->w.p[x];
    through_directions(a, p, r, a->a->dq + row, H * d);
}

/* ---- back: keys and values ---- */

/* From tokens after the part: r->dv, and r->g of the features. */
static void from_later(const struct part *p, struct room *r, float c)
{
    const struct favor_part *t = &p->t;
    const struct kern_table *k = t->c->kern;
    int64_t d = t->z.d, M = t->z.M;
    turn(r->turned, r->R, M, d);
    multiply(k, &(struct product){t->n, d, M, M, d, d, r->kp, r->R, r->dv, false, false});
    multiply(k, &(struct product){t->n, M, d, d, M, M, p->h.v, r->turned, r->g, false, false});
    for (int64_t j = 0; j < t->n; j++) {
        float by = expf(p->h.b[j] - c);
        k->scale(r->dv + j * d, by, d);
        for (int64_t i = 0; i < M; i++)
            r->g[j * M + i] = (r->g[j * M + i] - r->y[i]) * by;
    }
}

/* A query head's rows: on keys and values of the part, and into the sums, which have the shift c. */
static void from_own(const struct retrace *a, const struct part *p, struct room *r, int64_t head, float c)
{
    const struct favor_part *t = &p->t;
    const struct kern_table *k = t->c->kern;
    int64_t H = t->c->shape->heads, d = t->z.d, M = t->z.M, at = (head - p->head0) * a->n + t->i, row = (t->i * H + head) * d;
    float half[OPEN];
    favor_features(t, &r->w, t->c->q + row, H * d, half);
    k->rows_matmul(&(struct kern_rows){t->n, M, OPEN, r->w.p, p->h.pk, M, r->w.tri, OPEN, false});
    for (int64_t x = 0; x < t->n; x++)
        for (int64_t j = 0; j < OPEN; j++)
            r->w.tri[x * OPEN + j] *= r->decay[x * OPEN + j] * r->inv[at + x];
    multiply(k, &(struct product){t->n, d, t->n, OPEN, H * d, d, r->w.tri, a->a->dout + row, r->dv, true, true});
    scores_grad(a, p, r, head);
    multiply(k, &(struct product){t->n, M, t->n, OPEN, M, M, r->e, r->w.p, r->g, true, true});
    for (int64_t x = 0; x < t->n; x++) {
        k->scale(r->w.p + x * M, expf(c - r->top[t->i + x]) * r->inv[at + x], M);
        k->axpy(r->y, r->dot[at + x], r->w.p + x * M, M);
    }
    multiply(k, &(struct product){M, d, t->n, M, H * d, d, r->w.p, a->a->dout + row, r->R, true, true});
}

static void key_grad(const struct retrace *a, struct part *p, struct room *r)
{
    const struct favor_part *t = &p->t;
    const struct kern_table *k = t->c->kern;
    int64_t d = t->z.d, M = t->z.M;
    bool last = t->i + t->n == a->n;
    float c = r->top[t->i], later = last ? c : r->top[t->i + t->n];
    load_keys(p, r, false);
    if (last) {
        memset(r->R, 0, (size_t)(M * d) * sizeof(float)), memset(r->y, 0, (size_t)M * sizeof(float));
        memset(r->dv, 0, (size_t)(OPEN * d) * sizeof(float)), memset(r->g, 0, (size_t)(OPEN * M) * sizeof(float));
    } else {
        from_later(p, r, later);
    }
    k->scale(r->R, expf(c - later), M * d);
    k->scale(r->y, expf(c - later), M);
    for (int64_t head = p->head0; head < p->head0 + p->heads; head++)
        from_own(a, p, r, head, c);
    for (int64_t j = 0; j < t->n; j++) {
        float sum = 0;
        for (int64_t i = 0; i < M; i++) {
            r->g[j * M + i] *= r->kp[j * M + i];
            sum += r->g[j * M + i];
        }
        k->scale(r->kx + j * d, -sum * p->root, d);
    }
    through_directions(a, p, r, r->dk, d);
    k->add(r->dk, r->kx, t->n * d);
    for (int64_t j = 0; j < t->n; j++) {
        int64_t to = (t->i + j) * p->ld;
        memcpy(p->dk + to, r->dk + j * d, (size_t)d * sizeof(float));
        memcpy(p->dv + to, r->dv + j * d, (size_t)d * sizeof(float));
    }
}

/* ---- a call ---- */

static float *more(const struct retrace *a, int64_t g, int64_t slice)
{
    return a->more + (g * (a->slices - 1) + slice - 1) * 2 * a->n * a->z.d;
}

static struct part part_of(const struct retrace *a, const struct room *r, int64_t g, int64_t slice)
{
    const struct attn_call *c = a->a->call;
    int64_t from = slice * a->group / a->slices, to = (slice + 1) * a->group / a->slices, d = a->z.d;
    struct part p = {.t = {.c = c, .st = &a->st, .z = a->z}, .h = r->h, .g = g, .root = sqrtf(c->shape->scale)};
    p.head0 = g * a->group + from, p.heads = to - from;
    p.dk = slice ? more(a, g, slice) : a->a->dk + g * d;
    p.dv = slice ? more(a, g, slice) + a->n * d : a->a->dv + g * d;
    p.ld = slice ? d : c->shape->kv_heads * d;
    return p;
}

static void one_slice(const struct retrace *a, struct room *r, int64_t g, int64_t slice)
{
    struct part p = part_of(a, r, g, slice);
    struct favor_part *t = &p.t;
    memset(p.h.sum, 0, (size_t)(a->z.M * a->z.d) * sizeof(float));
    memset(p.h.z, 0, (size_t)a->z.M * sizeof(float));
    for (t->i = 0; t->i < a->n; t->i += t->n) {
        t->n = min64(OPEN, a->n - t->i);
        load_keys(&p, r, true);
        turn(r->turned, p.h.sum, a->z.M, a->z.d);
        for (int64_t head = p.head0; head < p.head0 + p.heads; head++)
            query_grad(a, &p, r, head);
        if (t->n == OPEN)
            favor_close(t, &p.h, t->i == 0);
    }
    for (t->i = (a->n - 1) / OPEN * OPEN; t->i >= 0; t->i -= OPEN) {
        t->n = min64(OPEN, a->n - t->i);
        key_grad(a, &p, r);
    }
}

/* Slices dealt out, then added up. */
static void all_slices(const struct retrace *a, unsigned char *rooms, size_t each, int threads)
{
    int64_t G = a->a->call->shape->kv_heads, d = a->z.d;
    const struct kern_table *k = a->a->call->kern;
#pragma omp parallel num_threads(threads) if (threads > 1 && G * a->slices > 1)
    {
        struct room r;
        room_cut(&r, rooms + (size_t)omp_get_thread_num() * each, &a->z, (const int64_t[2]){a->n, a->group});
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < G * a->slices; item++)
            one_slice(a, &r, item / a->slices, item % a->slices);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < a->n; t++)
            for (int64_t at = 0; at < G * (a->slices - 1); at++) {
                int64_t g = at / (a->slices - 1), to = (t * G + g) * d;
                const float *from = more(a, g, at % (a->slices - 1) + 1) + t * d;
                k->add(a->a->dk + to, from, d);
                k->add(a->a->dv + to, from + a->n * d, d);
            }
    }
}

int performer_backward(struct attn_grad *g)
{
    struct attn_call *c = g->call;
    const struct attn_shape *s = c->shape;
    const struct favor_opts *o = c->opts;
    struct retrace a = {.a = g, .z = favor_sizes_of(o, s), .group = s->heads / s->kv_heads, .n = c->n, .slices = slices_of(s)};
    struct room r0;
    int threads = omp_get_max_threads();
    const int64_t n_group[2] = {c->n, a.group};
    size_t mark = arena_mark(c->step), each = room_cut(&r0, NULL, &a.z, n_group);
    favor_state_cut(&a.st, c->state, &a.z);
    AST_ASSERT(a.st.w);
    double *work = ARENA_NEW(c->step, s->dim * s->dim, double);
    a.wt = work ? ARENA_NEW(c->step, a.z.m * a.z.d, float) : NULL;
    a.more = a.wt ? ARENA_NEW(c->step, (a.slices - 1) * s->kv_heads * 2 * a.n * a.z.d + 1, float) : NULL;
    unsigned char *rooms = a.more ? arena_alloc(c->step, threads, each) : NULL;
    if (rooms) {
        favor_draw(&(struct favor_draw){a.z.m, a.z.d, (uint64_t)o->seed, (uint64_t)s->layer, o->norm == 1}, a.st.w, work);
        turn(a.wt, a.st.w, a.z.d, a.z.m);
        all_slices(&a, rooms, each, threads);
    }
    arena_release(c->step, mark);
    return rooms ? ERR_OK : ERR_NOMEM;
}
