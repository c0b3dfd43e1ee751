/* One unit's gate: scores forward, losses row by row, products backward. */
#include "train/distil_gate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attn/gate.h"
#include "attn/softtopk.h"
#include "base/arena.h"
#include "kernels/blas.h"

struct room {
    float *u, *raw, *v, *du, *dv; /* (n, e), before rotation (n, e), (blocks, e), gradients */
    float *s, *q;                 /* (n, blocks) scores, then their gradients; (blocks,) softmax */
    float *p, *work;              /* (blocks,) target; blocks + 64 */
    double *soft, *m, *dm, *ds;   /* (blocks,) scores, soft choice, gradients */
    int32_t *index;               /* (blocks,) */
};

struct cut { /* of a piece of memory; base NULL: only counts */
    unsigned char *base;
    size_t used;
};

static void *carve(struct cut *c, int64_t n, size_t size)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += arena_bytes(n, size);
    return p;
}

static size_t lay_out(const struct distil_rows *r, const struct distil_unit *u, void *base, struct room *w)
{
    struct cut c = {.base = base};
    int64_t e = u->width, nb = r->blocks;
    w->u = carve(&c, r->n * e, sizeof(float));
    w->raw = carve(&c, r->n * e, sizeof(float));
    w->v = carve(&c, nb * e, sizeof(float));
    w->du = carve(&c, r->n * e, sizeof(float));
    w->dv = carve(&c, nb * e, sizeof(float));
    w->s = carve(&c, r->n * nb, sizeof(float));
    w->q = carve(&c, nb, sizeof(float));
    w->p = carve(&c, nb, sizeof(float));
    w->work = carve(&c, nb + 64, sizeof(float));
    w->soft = carve(&c, nb, sizeof(double));
    w->m = carve(&c, nb, sizeof(double));
    w->dm = carve(&c, nb, sizeof(double));
    w->ds = carve(&c, nb, sizeof(double));
    w->index = carve(&c, nb, sizeof(int32_t));
    return c.used;
}

size_t distil_gate_scratch(const struct distil_rows *r, const struct distil_unit *u)
{
    struct room w;
    return lay_out(r, u, NULL, &w);
}

/* ---- products ---- */

static void rotate(float *x, const float *cs, const float *sn, int64_t half, float sign)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], s = sign * sn[i];
        x[i] = a * cs[i] - b * s;
        x[i + half] = b * cs[i] + a * s;
    }
}

static void rotate_rows(float *x, int64_t n, int64_t e, const struct distil_rows *r, const float *cs, const float *sn, float sign)
{
    for (int64_t i = 0; i < n; i++)
        rotate(x + i * e, cs + i * r->half, sn + i * r->half, r->half, sign);
}

static void scores(const struct distil_rows *r, const struct distil_unit *u, const struct room *w)
{
    int64_t e = u->width, in = u->heads * u->dim, d3 = 3 * u->dim;
    blas_gemm(&(struct blas_gemm){
        .m = r->n, .n = e, .k = in, .alpha = 1, .a = u->q0, .lda = u->ldq, .b = u->w.wq, .ldb = e, .c = w->u, .ldc = e});
    if (u->ctx && u->w.wc)
        blas_gemm(&(struct blas_gemm){.m = r->n,
                                      .n = e,
                                      .k = u->hidden,
                                      .alpha = 1,
                                      .beta = 1,
                                      .a = u->ctx,
                                      .lda = u->ldc,
                                      .b = u->w.wc,
                                      .ldb = e,
                                      .c = w->u,
                                      .ldc = e});
    memcpy(w->raw, w->u, (size_t)(r->n * e) * sizeof(float));
    rotate_rows(w->u, r->n, e, r, r->row_cos, r->row_sin, 1);
    blas_gemm(&(struct blas_gemm){
        .m = r->blocks, .n = e, .k = d3, .alpha = 1, .a = u->pool, .lda = d3, .b = u->w.wk, .ldb = e, .c = w->v, .ldc = e});
    rotate_rows(w->v, r->blocks, e, r, r->block_cos, r->block_sin, 1);
    blas_gemm(&(struct blas_gemm){.trans_b = true,
                                  .m = r->n,
                                  .n = r->blocks,
                                  .k = e,
                                  .alpha = u->scale,
                                  .a = w->u,
                                  .lda = e,
                                  .b = w->v,
                                  .ldb = e,
                                  .c = w->s,
                                  .ldc = r->blocks});
}

/* From ds in w->s to gradients of the projections. */
static void backward(const struct distil_rows *r, const struct distil_unit *u, const struct room *w)
{
    int64_t e = u->width, in = u->heads * u->dim, d3 = 3 * u->dim, nb = r->blocks;
    struct blas_gemm to_u = {.m = r->n, .n = e, .k = nb, .alpha = u->scale, .a = w->s, .lda = nb, .b = w->v, .ldb = e, .c = w->du};
    struct blas_gemm to_v = {.trans_a = true, .m = nb, .n = e, .k = r->n, .alpha = u->scale, .a = w->s, .lda = nb, .b = w->u};
    to_u.ldc = e;
    to_v.ldb = to_v.ldc = e;
    to_v.c = w->dv;
    blas_gemm(&to_u);
    blas_gemm(&to_v);
    rotate_rows(w->du, r->n, e, r, r->row_cos, r->row_sin, -1);
    rotate_rows(w->dv, nb, e, r, r->block_cos, r->block_sin, -1);
    struct blas_gemm g = {.trans_a = true, .n = e, .alpha = 1, .beta = 1, .ldb = e, .ldc = e};
    if (u->g.wq) {
        g.m = in, g.k = r->n, g.a = u->q0, g.lda = u->ldq, g.b = w->du, g.c = u->g.wq;
        blas_gemm(&g);
    }
    if (u->g.wc && u->ctx) {
        g.m = u->hidden, g.k = r->n, g.a = u->ctx, g.lda = u->ldc, g.b = w->du, g.c = u->g.wc;
        blas_gemm(&g);
    }
    if (u->g.wk) {
        g.m = d3, g.k = nb, g.a = u->pool, g.lda = d3, g.b = w->dv, g.c = u->g.wk;
        blas_gemm(&g);
    }
}

/* ---- losses of one row ---- */

struct line { /* a row with candidates */
    const struct distil_rows *r;
    const struct distil_unit *u;
    const struct distil_loss *l;
    const struct room *w;
    const struct select_set *set;
    int64_t i, n;      /* the row; candidates */
    float *s;          /* (n,) scores, then gradients */
    const float *mass; /* (heads, n; blocks) of the candidates */
    double share;      /* of all attention that the candidates hold, the mean over heads */
};

/* p (n,): the target over the candidates; the share of all attention that they hold. */
static void target(struct line *x)
{
    const float *of = x->u->peak ? x->u->peak + (x->mass - x->u->mass) : x->mass;
    float *p = x->w->p;
    double sum = 0, all = 0;
    memset(p, 0, (size_t)x->n * sizeof *p);
    for (int64_t h = 0; h < x->u->heads; h++)
        for (int64_t j = 0; j < x->n; j++) {
            p[j] += of[h * x->r->blocks + j];
            all += (double)x->mass[h * x->r->blocks + j];
        }
    for (int64_t j = 0; j < x->n; j++)
        sum += (double)p[j];
    float inv = sum > 0 ? (float)(1 / sum) : 0;
    for (int64_t j = 0; j < x->n; j++)
        p[j] = sum > 0 ? p[j] * inv : 1 / (float)x->n;
    x->share = all / (double)x->u->heads;
}

static double weight(const struct line *x)
{
    const float *p = x->w->p;
    double entropy = 0;
    if (x->l->weight == DISTIL_EQUAL)
        return 1;
    if (x->l->weight == DISTIL_MASS)
        return x->share;
    for (int64_t j = 0; j < x->n; j++)
        entropy -= p[j] > 0 ? (double)p[j] * log((double)p[j]) : 0;
    return x->n > 1 ? fmax(0, 1 - entropy / log((double)x->n)) : 0;
}

/* KL(p || softmax(s)); w->q: softmax(s) */
static double kl(const struct line *x)
{
    const float *p = x->w->p;
    float *q = x->w->q, sum, top = x->u->kern->exp_row(q, x->s, x->n, &sum), inv = 1 / sum;
    double lse = (double)top + log((double)sum), loss = 0;
    for (int64_t j = 0; j < x->n; j++) {
        q[j] *= inv;
        if (p[j] > 0)
            loss += (double)p[j] * (log((double)p[j]) - ((double)x->s[j] - lse));
    }
    return loss;
}

/* Loss of a soft choice of set.most candidates; w->ds: its gradient by the scores. */
static double recall(const struct line *x)
{
    const struct room *w = x->w;
    double loss = 0, none, k = (double)x->set->most, heads = (double)x->u->heads;
    for (int64_t j = 0; j < x->n; j++)
        w->soft[j] = (double)x->s[j];
    soft_topk(w->m, w->soft, x->n, k, x->l->temperature);
    memset(w->dm, 0, (size_t)x->n * sizeof *w->dm);
    for (int64_t h = 0; h < x->u->heads; h++) {
        const float *p = x->mass + h * x->r->blocks;
        double missed = 0;
        for (int64_t j = 0; j < x->n; j++)
            missed += (1 - w->m[j]) * (double)p[j];
        double got = fmax(1 - missed, 1e-6); /* rounding could leave nothing */
        loss -= log(got) / heads;
        for (int64_t j = 0; j < x->n; j++)
            w->dm[j] -= (double)p[j] / (got * heads);
    }
    soft_topk_grad(w->ds, &none, w->m, w->dm, x->n, k, x->l->temperature);
    return loss;
}

/* Share of attention, the mean over heads, that the k best candidates and what is forced hold. */
static double kept(const struct line *x, int64_t k)
{
    int64_t n = x->u->kern->topk(x->s, x->n, k, x->w->index, x->w->work, NULL);
    double got = 0;
    for (int64_t h = 0; h < x->u->heads; h++)
        for (int64_t j = 0; j < n; j++)
            got += (double)x->mass[h * x->r->blocks + x->w->index[j]];
    return 1 - x->share + got / (double)x->u->heads;
}

/* Fraction of the candidates, best scores first, with which the kept share reaches the budget's mass. */
static double fraction(const struct line *x)
{
    int64_t lo = 0, hi = x->n;
    if (1 - x->share >= x->l->budget)
        return 0;
    while (hi - lo > 1) { /* lo: too few */
        int64_t k = (lo + hi) / 2;
        if (kept(x, k) >= x->l->budget)
            hi = k;
        else
            lo = k;
    }
    return (double)hi / (double)x->n;
}

static void budget(const struct line *x, struct distil_sums *out)
{
    const float *raw = x->w->raw + x->i * x->u->width;
    double forced = (double)(x->set->own - x->set->hi + 1 + x->set->sink), want = fraction(x), z = (double)*x->u->w.br;
    for (int64_t c = 0; c < x->u->width; c++)
        z += (double)raw[c] * (double)x->u->w.wr[c];
    double rho = 1 / (1 + exp(-z));
    out->budget_loss += fmax(z, 0) + log1p(exp(-fabs(z))) - want * z; /* log(1 + e^z) - want z, without overflow */
    out->density += (forced + rho * (double)x->n) / (double)(x->set->own + 1);
    x->u->kern->axpy(x->u->g.wr, (float)(rho - want), raw, x->u->width);
    *x->u->g.br += (float)(rho - want);
}

/* Scores become gradients. */
static void losses(struct line *x, struct distil_sums *out)
{
    const struct distil_loss *l = x->l;
    target(x);
    double wt = weight(x), by_kl = kl(x), by_recall = l->recall > 0 ? recall(x) : 0;
    out->rows += 1;
    out->kept += kept(x, x->set->most);
    if (l->budget > 0 && x->u->g.wr)
        budget(x, out);
    out->weight += wt;
    out->kl += wt * by_kl;
    out->recall_loss += wt * by_recall;
    out->loss += wt * (l->kl * by_kl + l->recall * by_recall);
    float a = (float)(wt * l->kl);
    for (int64_t j = 0; j < x->n; j++)
        x->s[j] = a * (x->w->q[j] - x->w->p[j]);
    for (int64_t j = 0; l->recall > 0 && j < x->n; j++)
        x->s[j] += (float)(wt * l->recall * x->w->ds[j]);
}

static void one_row(struct line *x, struct distil_sums *out)
{
    const struct distil_unit *u = x->u;
    int64_t lo = x->set->lo, hi = x->set->hi, nb = x->r->blocks, far = x->set->own - lo;
    float *row = x->w->s + x->i * nb;
    if (x->n < 1) {
        memset(row, 0, (size_t)nb * sizeof *row);
        return;
    }
    x->s = row + lo;
    x->mass = u->mass + x->i * u->ldm + lo;
    for (int64_t j = 0; u->w.dist && j < x->n; j++)
        x->s[j] += u->w.dist[gate_bucket(far - j, u->buckets)];
    losses(x, out);
    for (int64_t j = 0; u->g.dist && j < x->n; j++)
        u->g.dist[gate_bucket(far - j, u->buckets)] += x->s[j];
    memset(row, 0, (size_t)lo * sizeof *row);
    memset(row + hi, 0, (size_t)(nb - hi) * sizeof *row);
}

void distil_gate_step(const struct distil_rows *r, const struct distil_unit *u, const struct distil_loss *l,
                      struct distil_sums *out, void *scratch)
{
    struct room w;
    lay_out(r, u, scratch, &w);
    scores(r, u, &w);
    for (int64_t i = 0; i < r->n; i++) {
        struct line x = {.r = r, .u = u, .l = l, .w = &w, .set = &r->set[i], .i = i, .n = r->set[i].hi - r->set[i].lo};
        one_row(&x, out);
    }
    backward(r, u, &w);
}
