/* Running sums of rows: in doubles by plain loops that each <isa> vectorises for itself, pools in the vocabulary of
 * <isa>/simd.h. */
#ifndef AST_KERNELS_SIMD_POOL_H
#define AST_KERNELS_SIMD_POOL_H

#include <math.h>

#include "kernels/kern.h"

/* Sums alone, four rows at a time: added in the order of rows, as in running_mean. */
static void running_sum(const struct kern_mean *c)
{
    int64_t d = c->dim, t = 0;
    double *restrict sum = c->sum;
    for (; t + 4 <= c->rows; t += 4) {
        const float *restrict x = c->x + t * c->ldx, *restrict y = x + c->ldx, *restrict z = y + c->ldx, *restrict w = z + c->ldx;
        for (int64_t i = 0; i < d; i++)
            sum[i] = sum[i] + (double)x[i] + (double)y[i] + (double)z[i] + (double)w[i];
    }
    for (; t < c->rows; t++)
        for (int64_t i = 0; i < d; i++)
            sum[i] += (double)c->x[t * c->ldx + i];
}

/* One row; returns the sum of its squares. */
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
    if (!c->y)
        running_sum(c);
    for (int64_t t = 0; t < c->rows && c->y; t++) {
        double inv = 1 / (double)(c->before + t + 1);
        c->square[t] = next_mean(c->sum, c->y + t * c->ldx, c->x + t * c->ldx, c->dim, inv);
    }
}

enum { POOL_VECS = 4 };
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
