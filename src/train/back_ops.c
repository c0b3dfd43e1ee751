/* Linear layers, norms, activations: forward and backward. */
#include "train/back_ops.h"

#include <math.h>
#include <string.h>

#include "kernels/blas.h"

enum { SMALL = 1 << 14 }; /* floats below which threads cost more than they give */

void op_linear(const struct op_linear *l, const float *x, float *y, bool add)
{
    int64_t in = l->w->cols;
    struct blas_gemm g = {.trans_b = true, .m = l->m, .n = l->out, .k = in, .alpha = 1, .beta = add, .a = x, .lda = in};
    g.b = l->w->w, g.ldb = in, g.c = y, g.ldc = l->out;
    blas_gemm(&g);
}

void op_linear_input(const struct op_linear *l, const float *dy, float *dx, bool add)
{
    int64_t in = l->w->cols;
    struct blas_gemm g = {.m = l->m, .n = in, .k = l->out, .alpha = 1, .beta = add, .a = dy, .lda = l->out};
    g.b = l->w->w, g.ldb = in, g.c = dx, g.ldc = in;
    blas_gemm(&g);
}

void op_linear_weight(const struct op_linear *l, const float *dy, const float *x)
{
    int64_t in = l->w->cols;
    if (!l->w->g)
        return;
    struct blas_gemm g = {.trans_a = true, .m = l->out, .n = in, .k = l->m, .alpha = 1, .beta = 1, .a = dy, .lda = l->out};
    g.b = x, g.ldb = in, g.c = l->w->g, g.ldc = in;
    blas_gemm(&g);
}

void op_bias(const struct kern_table *k, float *y, const struct net_part *b, int64_t m, int64_t width)
{
    if (!b->w)
        return;
#pragma omp parallel for if (m * width > SMALL)
    for (int64_t i = 0; i < m; i++)
        k->add(y + i * width, b->w, width);
}

void op_bias_grad(const struct net_part *b, const float *dy, int64_t m, int64_t width)
{
    if (!b->g)
        return;
#pragma omp parallel for if (m * width > SMALL)
    for (int64_t c = 0; c < width; c += 16) {
        int64_t n = width - c < 16 ? width - c : 16;
        double sum[16] = {0};
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                sum[j] += (double)dy[i * width + c + j];
        for (int64_t j = 0; j < n; j++)
            b->g[c + j] += (float)sum[j];
    }
}

/* ---- norms ---- */

void op_norm(const struct op_norm *o, const float *x, float *y)
{
#pragma omp parallel for if (o->m * o->width > SMALL)
    for (int64_t i = 0; i < o->m; i++) {
        if (o->rms)
            o->kern->rms_norm(y + i * o->width, x + i * o->width, o->w->w, o->width, o->eps);
        else
            o->kern->layer_norm(y + i * o->width, x + i * o->width, o->w->w, o->b->w, o->width, o->eps);
    }
}

/* mean (0 for RMSNorm) and 1 / deviation of row i */
static void statistics(const struct op_norm *o, const float *x, float stat[2])
{
    double mean = 0, sq = 0, n = (double)o->width;
    for (int64_t j = 0; j < o->width && !o->rms; j++)
        mean += (double)x[j] / n;
    for (int64_t j = 0; j < o->width; j++)
        sq += ((double)x[j] - mean) * ((double)x[j] - mean);
    stat[0] = (float)mean;
    stat[1] = (float)(1 / sqrt(sq / n + (double)o->eps));
}

/* y = w xhat, xhat = (x - mean) r: dx = r (w dy - mean(w dy) - xhat mean(w dy xhat)), without the first mean for RMSNorm */
static void norm_row(const struct op_norm *o, const float *x, const float *dy, float *dx, const float stat[2])
{
    float mean = stat[0], r = stat[1];
    const float *w = o->w->w;
    double sum = 0, dot = 0;
    for (int64_t j = 0; j < o->width; j++) {
        float d = w[j] * dy[j];
        sum += (double)d;
        dot += (double)(d * (x[j] - mean));
    }
    float shift = o->rms ? 0 : (float)(sum / (double)o->width), by = (float)(dot * (double)r / (double)o->width);
    for (int64_t j = 0; j < o->width; j++)
        dx[j] += r * (w[j] * dy[j] - shift - (x[j] - mean) * r * by);
}

void op_norm_grad(const struct op_norm *o, const float *x, const float *dy, float *dx)
{
    int64_t width = o->width;
#pragma omp parallel for if (o->m * width > SMALL)
    for (int64_t i = 0; i < o->m; i++) {
        statistics(o, x + i * width, o->stat + 2 * i);
        if (dx)
            norm_row(o, x + i * width, dy + i * width, dx + i * width, o->stat + 2 * i);
    }
    if (o->b)
        op_bias_grad(o->b, dy, o->m, width);
    if (!o->w->g)
        return;
#pragma omp parallel for if (o->m * width > SMALL)
    for (int64_t c = 0; c < width; c += 16) {
        int64_t n = width - c < 16 ? width - c : 16;
        double sum[16] = {0};
        for (int64_t i = 0; i < o->m; i++)
            for (int64_t j = 0; j < n; j++)
                sum[j] += (double)(dy[i * width + c + j] * (x[i * width + c + j] - o->stat[2 * i]) * o->stat[2 * i + 1]);
        for (int64_t j = 0; j < n; j++)
            o->w->g[c + j] += (float)sum[j];
    }
}

/* ---- activations ---- */

void op_act(const struct op_act *o, const float *up, float *h)
{
    const struct kern_table *k = o->kern;
    int64_t f = o->mlp, wide = o->gated ? 2 * f : f;
#pragma omp parallel for if (o->m * wide > SMALL)
    for (int64_t i = 0; i < o->m; i++) {
        const float *x = up + i * wide;
        float *y = h + i * f;
        if (o->gated && o->act == MODEL_SILU) {
            k->silu_mul(y, x, x + f, f);
        } else if (o->gated) {
            k->gelu_mul(y, x, x + f, f, o->act == MODEL_GELU_TANH);
        } else {
            memcpy(y, x, (size_t)f * sizeof *y);
            if (o->act == MODEL_SILU)
                k->silu(y, f);
            else if (o->act == MODEL_RELU)
                k->relu(y, f);
            else
                k->gelu(y, f, o->act == MODEL_GELU_TANH);
        }
    }
}

void op_act_grad(const struct op_act *o, const float *dh, float *up)
{
    int64_t f = o->mlp, wide = o->gated ? 2 * f : f;
#pragma omp parallel for if (o->m * wide > SMALL)
    for (int64_t i = 0; i < o->m; i++) {
        float *x = up + i * wide;
        struct kern_act_grad g = {.n = f, .dh = dh + i * f, .gate = x, .dgate = x};
        if (o->gated)
            g.up = g.dup = x + f;
        if (o->act == MODEL_SILU)
            o->kern->silu_grad(&g);
        else if (o->act != MODEL_RELU || o->gated)
            o->kern->gelu_grad(&g, o->act == MODEL_GELU_TANH);
        else
            for (int64_t j = 0; j < f; j++)
                x[j] = x[j] > 0 ? g.dh[j] : 0;
    }
}
