/* Scores of attention, S = Q K^T, in the vocabulary of <isa>/simd.h: one chain of steps for each score, whatever the number of
 * rows and blocks that are taken at once.
 *
 * A step c is one 4-byte number of K a lane: one dim (F32), or two dims as bf16, multiplied by a pair of bf16 (DOT) or widened
 * and multiplied by two floats (WIDE: queries are not rounded). */
#ifndef AST_KERNELS_SIMD_SCORE_H
#define AST_KERNELS_SIMD_SCORE_H

#include "kernels/tile.h"

enum form { F32, WIDE, DOT };
/* Vectors of a block; rows at once: wherever they lie, side by side */
enum { VB = KERN_KB / W, QK_ROWS = W == 16 ? 8 : 6, QK_SIDE = 14, QK_SIDE_WIDE = 12 };
#define UNROLL _Pragma("GCC unroll 32")

/* acc += the even (0) or odd (1) half of a step; all of it, unless WIDE */
INL vf step(const enum form form, const int half, vf acc, vf k, vf q)
{
    if (form == DOT)
        return VDOT(acc, k, q);
    vf key = form == F32 ? k : half ? vbf_odd(k) : vbf_even(k);
    return vfma(key, q, acc);
}

/* QUERY(r, halves * c + h): number i of row r's query */
#define QK_BODY(QUERY)                                                                                                             \
    const int halves = form == WIDE ? 2 : 1;                                                                                       \
    vf acc[QK_SIDE * 2 * VB]; /* mr nb VB of them are used and live in registers */                                                \
    UNROLL                                                                                                                         \
    for (int i = 0; i < mr * nb * VB; i++)                                                                                         \
        acc[i] = vzero();                                                                                                          \
    for (int64_t c = 0; c < steps; c++) {                                                                                          \
        vf key[4 * VB];                                                                                                            \
        UNROLL                                                                                                                     \
        for (int i = 0; i < nb * VB; i++)                                                                                          \
            key[i] = vload(k[i / VB] + c * KERN_KB + i % VB * W);                                                                  \
        FETCH_KEYS                                                                                                                 \
        UNROLL                                                                                                                     \
        for (int h = 0; h < halves; h++)                                                                                           \
            UNROLL                                                                                                                 \
        for (int r = 0; r < mr; r++) {                                                                                             \
            vf one = vset1(QUERY(r, halves * c + h));                                                                              \
            UNROLL                                                                                                                 \
            for (int i = 0; i < nb * VB; i++)                                                                                      \
                acc[r * nb * VB + i] = step(form, h, acc[r * nb * VB + i], key[i], one);                                           \
        }                                                                                                                          \
    }                                                                                                                              \
    UNROLL                                                                                                                         \
    for (int r = 0; r < mr; r++)                                                                                                   \
        UNROLL                                                                                                                     \
    for (int i = 0; i < nb * VB; i++)                                                                                              \
        vstore(s[r] + i * W, acc[r * nb * VB + i]);

/* s[r] (nb KERN_KB) = scores of query q[r] with the blocks k[0 .. nb-1]. Meanwhile as many lines are asked for from `soon` on,
 * pace floats apart: line after line, as the hardware follows them best. pace 0: nothing is wanted, and soon is any address. */
#define ANYWHERE(r, i) q[r][i]
#define FETCH_KEYS                                                                                                                 \
    UNROLL                                                                                                                         \
    for (int i = 0; i < nb; i++)                                                                                                   \
        __builtin_prefetch(soon + (c * nb + i) * pace, 0, 2);
INL void qk_rows(const enum form form, const int mr, const int nb, const float *const *q, const float *const *k, int64_t steps,
                 float *const *s, const float *soon, int64_t pace)
{
    QK_BODY(ANYWHERE)
}
#undef FETCH_KEYS
#define FETCH_KEYS

/* The same for rows that lie side by side: number i of row r's query is q[i * KERN_MAX_ROWS + r]. */
#define BESIDE(r, i) q[(i)*KERN_MAX_ROWS + (r)]
INL void qk_side(const enum form form, const int mr, const int nb, const float *q, const float *const *k, int64_t steps,
                 float *const *s){QK_BODY(BESIDE)}
#undef ANYWHERE
#undef BESIDE
#undef FETCH_KEYS

#define QK_CASE(form, mr, nb)                                                                                                      \
    case (mr)*8 + (nb):                                                                                                            \
        qk_rows(form, mr, nb, q, k, steps, s, soon, pace);                                                                         \
        break;
#define QK_CASES(form, mr) QK_CASE(form, mr, 1) QK_CASE(form, mr, 2)
#define QK_SWITCH(form)                                                                                                            \
    static void qk_rows_##form(int mr, int nb, const float *const *q, const float *const *k, int64_t steps, float *const *s,       \
                               const float *soon, int64_t pace)                                                                    \
    {                                                                                                                              \
        switch (mr * 8 + nb) {                                                                                                     \
            QK_CASES(form, 1)                                                                                                      \
            QK_CASES(form, 2)                                                                                                      \
            QK_CASES(form, 3)                                                                                                      \
            QK_CASES(form, 4)                                                                                                      \
            QK_CASES(form, 5)                                                                                                      \
            QK_CASES(form, 6)                                                                                                      \
            QK_CASES(form, 7)                                                                                                      \
            QK_CASES(form, 8)                                                                                                      \
            QK_CASE(form, 1, 4)                                                                                                    \
            QK_CASE(form, 2, 4)                                                                                                    \
            QK_CASE(form, 3, 4)                                                                                                    \
            QK_CASE(form, 4, 4)                                                                                                    \
        }                                                                                                                          \
    }
QK_SWITCH(F32)
#if TILE_DOT
    QK_SWITCH(DOT)
#define qk_rows_BF16 qk_rows_DOT
#else
    QK_SWITCH(WIDE)
#define qk_rows_BF16 qk_rows_WIDE
#endif

#if defined(__AVX512F__) /* elsewhere the registers are full with QK_ROWS rows */
#define QK_SIDE_CASE(form, mr)                                                                                                     \
    case mr:                                                                                                                       \
        qk_side(form, mr, 2, q, k, steps, s);                                                                                      \
        break;
#define QK_SIDE_SWITCH(form, more)                                                                                                 \
    static void qk_side_##form(int mr, const float *q, const float *const *k, int64_t steps, float *const *s)                      \
    {                                                                                                                              \
        switch (mr) {                                                                                                              \
            QK_SIDE_CASE(form, 8)                                                                                                  \
            QK_SIDE_CASE(form, 9)                                                                                                  \
            QK_SIDE_CASE(form, 10)                                                                                                 \
            QK_SIDE_CASE(form, 11)                                                                                                 \
            QK_SIDE_CASE(form, 12)                                                                                                 \
            more                                                                                                                   \
        }                                                                                                                          \
    }
#define QK_MORE(form) QK_SIDE_CASE(form, 13) QK_SIDE_CASE(form, 14)
        QK_SIDE_SWITCH(F32, QK_MORE(F32))
#if TILE_DOT
            QK_SIDE_SWITCH(DOT, QK_MORE(DOT))
#define qk_side_BF16 qk_side_DOT
#else
            QK_SIDE_SWITCH(WIDE, )
#define qk_side_BF16 qk_side_WIDE
#endif
#endif

#endif
