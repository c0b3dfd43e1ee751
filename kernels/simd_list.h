/* Single keys by index, in the vocabulary of <isa>/simd.h: products with listed rows, and their weighted sum. */
#ifndef AST_KERNELS_SIMD_LIST_H
#define AST_KERNELS_SIMD_LIST_H

#include "kernels/kern.h"

enum { LIST_KEYS = 4, LIST_VECS = 4, LIST_AHEAD = 8 };
#define LIST_UNROLL _Pragma("GCC unroll 8")

/* Products of LIST_KEYS keys, a chain of steps each: idx (LIST_KEYS,) */
INL void list_products(const struct kern_list *c, const int32_t *idx, float *y)
{
    const float *row[LIST_KEYS];
    vf acc[LIST_KEYS];
    int64_t j = 0, d = c->dim;
    LIST_UNROLL for (int u = 0; u < LIST_KEYS; u++)
    {
        row[u] = c->rows + (int64_t)idx[u] * c->stride;
        acc[u] = vzero();
    }
    for (; j + W <= d; j += W) {
        vf x = vload(c->x + j);
        LIST_UNROLL for (int u = 0; u < LIST_KEYS; u++) acc[u] = vfma(vload(row[u] + j), x, acc[u]);
    }
    if (j < d) {
        vf x = vload_n(c->x + j, d - j);
        LIST_UNROLL for (int u = 0; u < LIST_KEYS; u++) acc[u] = vfma(vload_n(row[u] + j, d - j), x, acc[u]);
    }
    vsum4(acc, y);
}

/* Rows lie anywhere: ask for those to come. */
INL void list_ahead(const struct kern_list *c, int64_t i)
{
    for (int64_t x = i + LIST_AHEAD; x < i + LIST_AHEAD + LIST_KEYS && x < c->n; x++) {
        const char *p = (const char *)(c->rows + (int64_t)c->idx[x] * c->stride);
        for (int64_t b = 0; b < c->dim * (int64_t)sizeof(float); b += 64)
            __builtin_prefetch(p + b);
    }
}

static void list_scores(const struct kern_list *c)
{
    int64_t i = 0;
    for (; i + LIST_KEYS <= c->n; i += LIST_KEYS) {
        list_ahead(c, i);
        list_products(c, c->idx + i, c->y + i);
    }
    if (i < c->n) { /* the last one stands in for those that are not there: cheaper than one after the other */
        int32_t idx[LIST_KEYS];
        float y[LIST_KEYS];
        for (int64_t u = 0; u < LIST_KEYS; u++)
            idx[u] = c->idx[i + u < c->n ? i + u : c->n - 1];
        list_products(c, idx, y);
        for (int64_t u = 0; i + u < c->n; u++)
            c->y[i + u] = y[u];
    }
}

/* dims j .. of nv vectors (tail: so many dims, nv 1): even and odd keys in a chain each */
INL void list_sums(const int nv, const int64_t tail, const struct kern_list *c, int64_t j)
{
    vf even[LIST_VECS], odd[LIST_VECS];
    int64_t i = 0;
    LIST_UNROLL for (int u = 0; u < nv; u++) even[u] = odd[u] = vzero();
    for (; i + 2 <= c->n; i += 2) {
        const float *a = c->rows + (int64_t)c->idx[i] * c->stride + j, *b = c->rows + (int64_t)c->idx[i + 1] * c->stride + j;
        vf x = vset1(c->x[i]), y = vset1(c->x[i + 1]);
        LIST_UNROLL for (int u = 0; u < nv; u++)
        {
            even[u] = vfma(tail ? vload_n(a, tail) : vload(a + u * W), x, even[u]);
            odd[u] = vfma(tail ? vload_n(b, tail) : vload(b + u * W), y, odd[u]);
        }
    }
    if (i < c->n) {
        const float *a = c->rows + (int64_t)c->idx[i] * c->stride + j;
        vf x = vset1(c->x[i]);
        LIST_UNROLL for (int u = 0; u < nv; u++) even[u] = vfma(tail ? vload_n(a, tail) : vload(a + u * W), x, even[u]);
    }
    LIST_UNROLL for (int u = 0; u < nv; u++)
    {
        vf sum = vadd(even[u], odd[u]);
        tail ? vstore_n(c->y + j, sum, tail) : vstore(c->y + j + u * W, sum);
    }
}

static void list_mix(const struct kern_list *c)
{
    int64_t j = 0, d = c->dim;
    for (; j + LIST_VECS * W <= d; j += LIST_VECS * W)
        list_sums(LIST_VECS, 0, c, j);
    for (; j + W <= d; j += W)
        list_sums(1, 0, c, j);
    if (j < d)
        list_sums(1, d - j, c, j);
}

#endif
