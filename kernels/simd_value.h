/* The values of attention, O += P V, in the vocabulary of <isa>/simd.h: one chain of keys for each output, in their order.
 *
 * A row of V in a block is one key (F32), or a pair of keys as bf16, multiplied by a pair of bf16 (DOT) or widened and
 * multiplied by two floats (WIDE: probabilities are not rounded). */
#ifndef AST_KERNELS_SIMD_VALUE_H
#define AST_KERNELS_SIMD_VALUE_H

#include "kernels/simd_score.h"

enum { PV_ROWS = 6, PV_VECS = W == 16 ? 4 : 2, PV_MOST = 4 };

struct pv {
    const float *p[PV_ROWS], *v[TILE_PANEL]; /* probabilities of all blocks, side by side; first row of each block */
    const float *soon[TILE_PANEL];           /* as v, of blocks that fewer than PV_ROWS rows ask for meanwhile, or v itself */
    float *o[PV_ROWS];
    int64_t n, d;           /* blocks; numbers of a row of V */
    int64_t v_rows, v_less; /* rows of V a block; how many the last has fewer */
};

/* mr rows, nv vectors of dims; tail > 0: the last tail dims */
INL void pv_add(const enum form form, const int mr, const int nv, const int64_t tail, const struct pv *c)
{
    const float *const *p = c->p;
    const int64_t n = c->n, d = c->d, each = form == WIDE ? 2 : 1;
    vf acc[PV_ROWS * PV_MOST];
    UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int i = 0; i < nv; i++)
        acc[r * nv + i] = tail ? vload_n(c->o[r], tail) : vload(c->o[r] + i * W);
    for (int64_t b = 0, at = 0; b < n; b++) {
        const float *v = c->v[b], *soon = c->soon[b];
        const int64_t v_rows = c->v_rows - (b + 1 < n ? 0 : c->v_less);
        for (int64_t j = 0; j < v_rows; j++, at += each, v += d, soon += d) {
            vf val[PV_MOST];
            UNROLL
            for (int i = 0; i < nv; i++)
                val[i] = tail ? vload_n(v, tail) : vload(v + i * W);
            UNROLL
            for (int i = 0; i < nv && mr < PV_ROWS; i += 16 / W)
                __builtin_prefetch(soon + i * W, 0, 2);
            UNROLL
            for (int h = 0; h < each; h++)
                UNROLL
            for (int r = 0; r < mr; r++) {
                vf one = vset1(p[r][at + h]);
                UNROLL
                for (int i = 0; i < nv; i++)
                    acc[r * nv + i] = step(form, h, acc[r * nv + i], val[i], one);
            }
        }
    }
    UNROLL
    for (int r = 0; r < mr; r++)
        UNROLL
    for (int i = 0; i < nv; i++)
        tail ? vstore_n(c->o[r], acc[r * nv + i], tail) : vstore(c->o[r] + i * W, acc[r * nv + i]);
}

/* nv 0: the last tail dims */
#define PV_CASE(form, mr, nv)                                                                                                      \
    case (mr)*8 + (nv):                                                                                                            \
        pv_add(form, mr, nv, 0, c);                                                                                                \
        break;
#if defined(__AVX512F__)
#define PV_MORE(form, mr) PV_CASE(form, mr, 3) PV_CASE(form, mr, 4)
#else
#define PV_MORE(form, mr)
#endif
#define PV_CASES(form, mr)                                                                                                         \
    case (mr)*8:                                                                                                                   \
        pv_add(form, mr, 1, tail, c);                                                                                              \
        break;                                                                                                                     \
        PV_CASE(form, mr, 1)                                                                                                       \
        PV_CASE(form, mr, 2)                                                                                                       \
        PV_MORE(form, mr)
#define PV_SWITCH(form)                                                                                                            \
    static void pv_##form(int mr, int nv, int64_t tail, const struct pv *c)                                                        \
    {                                                                                                                              \
        switch (mr * 8 + nv) {                                                                                                     \
            PV_CASES(form, 1)                                                                                                      \
            PV_CASES(form, 2)                                                                                                      \
            PV_CASES(form, 3)                                                                                                      \
            PV_CASES(form, 4)                                                                                                      \
            PV_CASES(form, 5)                                                                                                      \
            PV_CASES(form, 6)                                                                                                      \
        }                                                                                                                          \
    }
PV_SWITCH(F32)
#if TILE_DOT
PV_SWITCH(DOT)
#define pv_BF16 pv_DOT
#else
PV_SWITCH(WIDE)
#define pv_BF16 pv_WIDE
#endif

#endif
