/* From the gradients of the gate's vectors to its weights and to what it reads: queries, keys, the layer's input. */
#include <math.h>
#include <string.h>

#include "attn/feat.h"
#include "base/arena.h"
#include "base/err.h"
#include "kernels/blas.h"
#include "train/back_gate.h"

/* The rotation is orthogonal: back by its transpose. */
static void unrotate(float *x, const float *cs, const float *sn, int64_t half)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cs[i] + b * sn[i];
        x[half + i] = b * cs[i] - a * sn[i];
    }
}

/* rho = sigmoid(wr . u + br), u before rotation. du, not rotated, is added to. */
static void budget(const struct back_gate *g, int64_t u)
{
    int64_t e = g->width, half = g->angles->half;
    float root = sqrtf((float)g->shape->dim), v[FEAT_MAX_WIDTH];
    double sum = 0;
    for (int64_t t = 0; t < g->n; t++) {
        float rho = g->rho[t * g->units + u], dz = g->drho[t * g->units + u] * rho * (1 - rho);
        if (dz == 0)
            continue;
        sum += (double)dz;
        g->kern->axpy(g->du + (t * g->units + u) * e, dz, g->w->wr + u * e, e);
        if (!g->g->wr)
            continue;
        memcpy(v, g->u + (t * g->units + u) * e, (size_t)e * sizeof *v);
        unrotate(v, g->angles->cs + t * half, g->angles->sn + t * half, half);
        g->kern->axpy(g->g->wr + u * e, dz * root, v, e);
    }
    if (g->g->br)
        g->g->br[u] += (float)sum;
}

/* du of rotated, scaled vectors -> of what the products gave */
static void tokens(const struct back_gate *g)
{
    int64_t e = g->width, half = g->angles->half;
    float inv = 1 / sqrtf((float)g->shape->dim);
#pragma omp parallel for if (g->n * g->units * e > 1 << 14)
    for (int64_t i = 0; i < g->n * g->units; i++) {
        unrotate(g->du + i * e, g->angles->cs + i / g->units * half, g->angles->sn + i / g->units * half, half);
        g->kern->scale(g->du + i * e, inv, e);
    }
#pragma omp parallel for if (g->n * g->units * e > 1 << 14)
    for (int64_t u = 0; u < g->units; u++)
        budget(g, u);
}

static void query_products(const struct back_gate *g, float *dctx)
{
    int64_t d = g->shape->dim, D = g->shape->hidden, H = g->shape->heads, in = H / g->units * d, e = g->width, all = g->units * e;
    for (int64_t u = 0; u < g->units; u++) {
        const float *du = g->du + u * e;
        struct blas_gemm wq = {.trans_a = true, .m = in, .n = e, .k = g->n, .alpha = 1, .beta = 1, .a = g->q0 + u * in};
        wq.lda = H * d, wq.b = du, wq.ldb = all, wq.ldc = e;
        wq.c = g->g->wq ? g->g->wq + u * in * e : NULL;
        struct blas_gemm wc = {.trans_a = true, .m = D, .n = e, .k = g->n, .alpha = 1, .beta = 1, .a = g->ctx, .lda = D};
        wc.b = du, wc.ldb = all, wc.ldc = e;
        wc.c = g->g->wc && g->context ? g->g->wc + u * D * e : NULL;
        struct blas_gemm q = {.trans_b = true, .m = g->n, .n = in, .k = e, .alpha = 1, .beta = 1, .a = du, .lda = all};
        q.b = g->w->wq + u * in * e, q.ldb = e, q.ldc = H * d;
        q.c = g->dq0 ? g->dq0 + u * in : NULL;
        struct blas_gemm c = {.trans_b = true, .m = g->n, .n = D, .k = e, .alpha = 1, .beta = u > 0, .a = du, .lda = all};
        c.b = g->w->wc + u * D * e, c.ldb = e, c.ldc = D;
        c.c = g->dx && g->context ? dctx : NULL;
        const struct blas_gemm *const each[] = {&wq, &wc, &q, &c};
        for (int i = 0; i < 4; i++)
            if (each[i]->c)
                blas_gemm(each[i]);
    }
}

/* ctx = mean r, r = (mean(mean^2) + 1e-6)^-1/2: d mean = r (d - ctx (ctx . d) / D); a token's x is in every mean from it on. */
static void context(const struct back_gate *g, float *dctx)
{
    int64_t D = g->shape->hidden;
#pragma omp parallel for if (g->n * D > 1 << 14)
    for (int64_t t = 0; t < g->n; t++) {
        float *c = g->ctx + t * D, *d = dctx + t * D;
        g->kern->axpy(d, -g->kern->dot(c, d, D) / (float)D, c, D);
        g->kern->scale(d, g->rms[t] / (float)(t + 1), D);
    }
#pragma omp parallel for if (g->n * D > 1 << 14)
    for (int64_t c = 0; c < D; c += 16) {
        double sum[16] = {0};
        int64_t m = D - c < 16 ? D - c : 16;
        for (int64_t t = g->n - 1; t >= 0; t--)
            for (int64_t i = 0; i < m; i++) {
                sum[i] += (double)dctx[t * D + c + i];
                g->dx[t * D + c + i] += (float)sum[i];
            }
    }
}

/* mean, max and min over a block: the extremes pass their gradient to the first key that reaches them. */
static void unpool(const struct back_gate *g, const float *dfeat, int64_t h, int64_t J)
{
    int64_t d = g->shape->dim, row = g->shape->kv_heads * d, at = J * g->block * row + h * d;
    const float *f = g->feat + (h * g->nb + J) * 3 * d, *df = dfeat + (h * g->nb + J) * 3 * d;
    for (int64_t x = 0; x < d; x++) {
        bool high = false, low = false;
        for (int64_t i = 0; i < g->block; i++) {
            float k = g->k0[at + i * row + x], grad = df[x] / (float)g->block;
            if (!high && k == f[d + x])
                grad += df[d + x], high = true;
            if (!low && k == f[2 * d + x])
                grad += df[2 * d + x], low = true;
            g->dk0[at + i * row + x] += grad;
        }
    }
}

static void blocks(const struct back_gate *g, float *dfeat)
{
    int64_t d = g->shape->dim, G = g->shape->kv_heads, e = g->width, each = 16 * g->ng * e, half = g->angles->half;
    for (int64_t u = 0; u < g->units && g->nb; u++) {
        int64_t h = u / (g->units / G), first = u % (g->units / G) == 0;
        float *dv = g->dblk + u * each;
        for (int64_t J = 0; J < g->nb; J++)
            unrotate(dv + J * e, g->angles->mid_c + J * half, g->angles->mid_s + J * half, half);
        struct blas_gemm w = {.trans_a = true, .m = 3 * d, .n = e, .k = g->nb, .alpha = 1, .beta = 1, .lda = 3 * d};
        w.a = g->feat + h * g->nb * 3 * d, w.b = dv, w.ldb = e, w.ldc = e;
        w.c = g->g->wk ? g->g->wk + u * 3 * d * e : NULL;
        if (w.c)
            blas_gemm(&w);
        struct blas_gemm f = {.trans_b = true, .m = g->nb, .n = 3 * d, .k = e, .alpha = 1, .beta = !first, .a = dv, .lda = e};
        f.b = g->w->wk + u * 3 * d * e, f.ldb = e, f.c = dfeat + h * g->nb * 3 * d, f.ldc = 3 * d;
        if (g->dk0)
            blas_gemm(&f);
    }
#pragma omp parallel for if (g->nb * G > 16)
    for (int64_t i = 0; i < g->nb * G; i++)
        if (g->dk0)
            unpool(g, dfeat, i / g->nb, i % g->nb);
}

int back_gate_close(struct back_gate *g)
{
    size_t mark = arena_mark(g->step);
    float *dctx = ARENA_NEW(g->step, g->n * g->shape->hidden, float);
    float *dfeat = ARENA_NEW(g->step, g->shape->kv_heads * g->nb * 3 * g->shape->dim, float);
    if (!dctx || !dfeat)
        return ERR_NOMEM;
    tokens(g);
    query_products(g, dctx);
    if (g->dx && g->context)
        context(g, dctx);
    blocks(g, dfeat);
    arena_release(g->step, mark);
    return ERR_OK;
}
