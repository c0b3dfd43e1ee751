/* Where the products of a linear layer go: whole blocks of outputs, of which the caller may want some columns only. Private to
 * kernels/: simd_gemm.h and avx512/amx_gemm.c. */
#ifndef AST_KERNELS_GEMM_OUT_H
#define AST_KERNELS_GEMM_OUT_H

#include <string.h>

#include "kernels/kern.h"

/* The part of nb blocks' outputs that is wanted: columns first .. first+n-1 of y, from output skip of the first block on. */
struct part {
    int64_t first, skip, n;
};

static inline struct part part_of(const struct kern_gemm *g, int64_t b, int nb)
{
    int64_t first = b * KERN_KB - g->col0, last = first + nb * KERN_KB;
    struct part p = {.first = first < 0 ? 0 : first, .skip = first < 0 ? -first : 0};
    p.n = (last > g->cols ? g->cols : last) - p.first;
    return p;
}

/* Where a kernel's mr rows of nb blocks go: into y, or into a copy where a block is at the edge of the wanted columns. */
struct outputs {
    float *y, *into;
    int64_t ldy, into_ld;
    struct part p;
    bool whole;
};

static inline struct outputs enter(const struct kern_gemm *g, int64_t r0, int mr, int64_t b0, int nb, float *copy, int64_t ld)
{
    struct outputs o = {.p = part_of(g, b0, nb), .ldy = g->ldy};
    o.whole = o.p.n == nb * KERN_KB;
    o.y = g->y + r0 * g->ldy + o.p.first;
    o.into = o.whole ? o.y : copy;
    o.into_ld = o.whole ? o.ldy : ld;
    for (int r = 0; !o.whole && g->accumulate && r < mr; r++) {
        memset(copy + r * ld, 0, (size_t)(nb * KERN_KB) * sizeof(float));
        memcpy(copy + r * ld + o.p.skip, o.y + r * o.ldy, (size_t)o.p.n * sizeof(float));
    }
    return o;
}

static inline void leave(const struct outputs *o, int mr)
{
    for (int r = 0; !o->whole && r < mr; r++)
        memcpy(o->y + r * o->ldy, o->into + r * o->into_ld + o->p.skip, (size_t)o->p.n * sizeof(float));
}

#endif
