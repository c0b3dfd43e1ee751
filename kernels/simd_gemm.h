/* Products of linear layers in the vocabulary of <isa>/simd.h. The includer defines STEP_F32 and STEP_BF16 as for
 * simd_tile.h. */
#ifndef AST_KERNELS_SIMD_GEMM_H
#define AST_KERNELS_SIMD_GEMM_H

#include <string.h>

#include "kernels/kern.h"

enum { GEMM_ROWS = W == 16 ? 8 : 6, GEMM_MOST = 4, GEMM_VB = KERN_KB / W };
#define GEMM_UNROLL _Pragma("GCC unroll 32")

/* mr rows and nb blocks at a time */
struct micro {
    const float *x[8], *w[GEMM_MOST];
    float *y[8][GEMM_MOST];
    int64_t steps;
    bool add; /* y += instead of y = */
};

#define GEMM_BODY(STEP)                                                                                                            \
    const float *x[8], *w[GEMM_MOST];                                                                                              \
    const int64_t steps = c->steps;                                                                                                \
    vf acc[8][GEMM_MOST * GEMM_VB];                                                                                                \
    GEMM_UNROLL for (int b = 0; b < nb; b++) w[b] = c->w[b];                                                                       \
    GEMM_UNROLL for (int r = 0; r < mr; r++)                                                                                       \
    {                                                                                                                              \
        x[r] = c->x[r];                                                                                                            \
        GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) acc[r][i] =                                                             \
            c->add ? vload(c->y[r][i / GEMM_VB] + i % GEMM_VB * W) : vzero();                                                      \
    }                                                                                                                              \
    for (int64_t s = 0; s < steps; s++) {                                                                                          \
        vf wide[GEMM_MOST * GEMM_VB];                                                                                              \
        GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) wide[i] = vload(w[i / GEMM_VB] + s * KERN_KB + i % GEMM_VB * W);        \
        GEMM_UNROLL for (int r = 0; r < mr; r++)                                                                                   \
        {                                                                                                                          \
            vf one = vset1(x[r][s]);                                                                                               \
            GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) acc[r][i] = STEP(acc[r][i], wide[i], one);                          \
        }                                                                                                                          \
    }                                                                                                                              \
    GEMM_UNROLL for (int r = 0; r < mr; r++) GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++)                                    \
        vstore(c->y[r][i / GEMM_VB] + i % GEMM_VB * W, acc[r][i]);

INL void micro_f32(const int mr, const int nb, const struct micro *c){GEMM_BODY(STEP_F32)} INL
    void micro_bf16(const int mr, const int nb, const struct micro *c){GEMM_BODY(STEP_BF16)}

#define GEMM_CASE(type, mr, nb)                                                                                                    \
    case (mr)*8 + (nb):                                                                                                            \
        micro_##type(mr, nb, c);                                                                                                   \
        break;
#define GEMM_SWITCH(type)                                                                                                          \
    static void micro_any_##type(int mr, int nb, const struct micro *c)                                                            \
    {                                                                                                                              \
        switch (mr * 8 + nb) {                                                                                                     \
            GEMM_CASE(type, 1, 1)                                                                                                  \
            GEMM_CASE(type, 2, 1)                                                                                                  \
            GEMM_CASE(type, 3, 1)                                                                                                  \
            GEMM_CASE(type, 4, 1)                                                                                                  \
            GEMM_CASE(type, 5, 1)                                                                                                  \
            GEMM_CASE(type, 6, 1)                                                                                                  \
            GEMM_CASE(type, 7, 1)                                                                                                  \
            GEMM_CASE(type, 8, 1)                                                                                                  \
            GEMM_CASE(type, 1, 2)                                                                                                  \
            GEMM_CASE(type, 2, 2)                                                                                                  \
            GEMM_CASE(type, 3, 2)                                                                                                  \
            GEMM_CASE(type, 4, 2)                                                                                                  \
            GEMM_CASE(type, 5, 2)                                                                                                  \
            GEMM_CASE(type, 6, 2)                                                                                                  \
            GEMM_CASE(type, 7, 2)                                                                                                  \
            GEMM_CASE(type, 8, 2)                                                                                                  \
            GEMM_CASE(type, 1, 4)                                                                                                  \
            GEMM_CASE(type, 2, 4)                                                                                                  \
            GEMM_CASE(type, 3, 4)                                                                                                  \
            GEMM_CASE(type, 4, 4)                                                                                                  \
        }                                                                                                                          \
    }
GEMM_SWITCH(f32) GEMM_SWITCH(bf16)

    /* The part of a block's 16 outputs that is wanted: columns first .. first+n-1 of y, from output skip of the block on. */
    struct part {
    int64_t first, skip, n;
};

static struct part part_of(const struct kern_gemm *g, int64_t b)
{
    int64_t first = b * KERN_KB - g->col0, last = first + KERN_KB;
    struct part p = {.first = first < 0 ? 0 : first, .skip = first < 0 ? -first : 0};
    p.n = (last > g->cols ? g->cols : last) - p.first;
    return p;
}

/* Blocks at the edge of the wanted columns go through a copy. */
static void rows_and_blocks(const struct kern_gemm *g, int64_t r0, int mr, int64_t b0, int nb)
{
    float edge[8][GEMM_MOST][KERN_KB];
    struct micro c = {.steps = g->steps, .add = g->accumulate};
    for (int r = 0; r < mr; r++)
        c.x[r] = (const float *)g->x + (r0 + r) * g->ldx;
    for (int b = 0; b < nb; b++) {
        struct part p = part_of(g, b0 + b);
        c.w[b] = (const float *)g->w + (b0 + b) * g->w_stride * KERN_KB;
        for (int r = 0; r < mr; r++) {
            float *y = g->y + (r0 + r) * g->ldy + p.first;
            c.y[r][b] = p.n == KERN_KB ? y : edge[r][b];
            if (p.n < KERN_KB && g->accumulate) {
                memset(edge[r][b], 0, sizeof edge[r][b]);
                memcpy(edge[r][b] + p.skip, y, (size_t)p.n * sizeof(float));
            }
        }
    }
    (g->dtype == KERN_BF16 ? micro_any_bf16 : micro_any_f32)(mr, nb, &c);
    for (int b = 0; b < nb; b++) {
        struct part p = part_of(g, b0 + b);
        for (int r = 0; r < mr && p.n < KERN_KB; r++)
            memcpy(g->y + (r0 + r) * g->ldy + p.first, edge[r][b] + p.skip, (size_t)p.n * sizeof(float));
    }
}

static void gemm(const struct kern_gemm *g)
{
    int mr_most = g->rows < GEMM_ROWS ? (int)g->rows : GEMM_ROWS;
    int most = W == 16 ? (mr_most <= 4 ? 4 : 2) : mr_most == 1 ? 4 : mr_most <= 3 ? 2 : 1;
    for (int64_t b = g->block0; b < g->block1;) {
        int nb = most;
        while (nb > g->block1 - b)
            nb /= 2;
        for (int64_t r = 0; r < g->rows; r += GEMM_ROWS)
            rows_and_blocks(g, r, g->rows - r < GEMM_ROWS ? (int)(g->rows - r) : GEMM_ROWS, b, nb);
        b += nb;
    }
}

/* 12 chains hide the latency of two units; x and q stand for numbers that the compiler cannot know */
enum { PEAK_CHAINS = 12 };
#define PEAK_BODY(STEP)                                                                                                            \
    vf acc[PEAK_CHAINS], x = vset1(1e-3F), q = vset1(1e-3F), sum = vzero();                                                        \
    GEMM_UNROLL for (int j = 0; j < PEAK_CHAINS; j++) acc[j] = vset1((float)j);                                                    \
    for (int64_t i = 0; i < n; i++) {                                                                                              \
        __asm__ volatile("" : "+v"(x), "+v"(q));                                                                                   \
        GEMM_UNROLL for (int j = 0; j < PEAK_CHAINS; j++) acc[j] = STEP(acc[j], x, q);                                             \
    }                                                                                                                              \
    GEMM_UNROLL for (int j = 0; j < PEAK_CHAINS; j++) sum = vadd(sum, acc[j]);                                                     \
    __asm__ volatile("" : "+v"(sum));

static double peak(enum kern_dtype t, int64_t n)
{
    if (t == KERN_BF16) {
        PEAK_BODY(STEP_BF16)
        return 4.0 * W * PEAK_CHAINS * (double)n;
    }
    PEAK_BODY(STEP_F32)
    return 2.0 * W * PEAK_CHAINS * (double)n;
}

#endif
