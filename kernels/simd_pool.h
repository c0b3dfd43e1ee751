/* Running sums of rows: in doubles by plain loops that each <isa> vectorises for itself, pools in the vocabulary of
 * <isa>/simd.h. */
#ifndef AST_KERNELS_SIMD_POOL_H
#define AST_KERNELS_SIMD_POOL_H

#include <math.h>

#include "kernels/kern.h"

/* Rows come from memory, one after the other: asks for the row some behind t. */
INL void row_ahead(const struct kern_mean *c, int64_t t)
{
    enum { AHEAD = 4 };
    for (int64_t i = 0; i < c->dim && t + AHEAD < c->rows; i += KERN_KB)
        __builtin_prefetch(c->x + (t + AHEAD) * c->ldx + i);
}

static void next_sum(double *restrict sum, const float *restrict x, int64_t d)
{
    for (int64_t i = 0; i < d; i++)
        sum[i] += (double)x[i];
}

/* Returns the sum of the means' squares. */
static float next_mean(double *restrict sum, float *restrict y, const float *restrict x, int64_t d, double inv)
{
    float square = 0;
#pragma omp simd reduction(+ : square)
    for (int64_t i = 0; i < d; i++) {
        sum[i] += (double)x[i];
        y[i] = (float)(sum[i] * inv);
        square += y[i] * y[i];
    }
    return square;
}

static void running_mean(const struct kern_mean *c)
{
    for (int64_t t = 0; t < c->rows; t++) {
        const float *x = c->x + t * c->ldx;
        row_ahead(c, t);
        if (c->y)
            c->square[t] = next_mean(c->sum, c->y + t * c->ldx, x, c->dim, 1 / (double)(c->before + t + 1));
        else
            next_sum(c->sum, x, c->dim);
    }
}

enum { POOL_VECS = 4, POOL_AHEAD = 16 };
#define POOL_UNROLL _Pragma("GCC unroll 4")

/* Columns i .. of nv vectors (tail: only so many columns, nv 1) */
INL void pool_columns(const int nv, const int64_t tail, const struct kern_pool *c, int64_t i)
{
    vf sum[POOL_VECS], hi[POOL_VECS], lo[POOL_VECS];
    POOL_UNROLL for (int v = 0; v < nv; v++)
    {
        sum[v] = tail ? vload_n(c->sum + i, tail) : vload(c->sum + i + v * W);
        hi[v] = tail ? vload_n(c->max + i, tail) : vload(c->max + i + v * W);
        lo[v] = tail ? vload_n(c->min + i, tail) : vload(c->min + i + v * W);
    }
    for (int64_t r = 0; r < c->rows; r++) {
        if (r + POOL_AHEAD < c->rows + c->more)
            POOL_UNROLL for (int v = 0; v < nv; v++) __builtin_prefetch(c->x + (r + POOL_AHEAD) * c->ldx + i + v * W);
        POOL_UNROLL for (int v = 0; v < nv; v++)
        {
            const float *at = c->x + r * c->ldx + i + v * W;
            vf x = tail ? vload_n(at, tail) : vload(at);
            sum[v] = vadd(sum[v], x);
            hi[v] = vmax(x, hi[v]); /* a NaN in x is passed over */
            lo[v] = vmin(x, lo[v]);
        }
    }
    POOL_UNROLL for (int v = 0; v < nv; v++)
    {
        tail ? vstore_n(c->sum + i, sum[v], tail) : vstore(c->sum + i + v * W, sum[v]);
        tail ? vstore_n(c->max + i, hi[v], tail) : vstore(c->max + i + v * W, hi[v]);
        tail ? vstore_n(c->min + i, lo[v], tail) : vstore(c->min + i + v * W, lo[v]);
    }
}

static void pool_rows(const struct kern_pool *c)
{
    int64_t i = 0;
    for (; i + POOL_VECS * W <= c->dim; i += POOL_VECS * W)
        pool_columns(POOL_VECS, 0, c, i);
    for (; i + W <= c->dim; i += W)
        pool_columns(1, 0, c, i);
    if (i < c->dim)
        pool_columns(1, c->dim - i, c, i);
}

#endif
