/* Products of linear layers in the vocabulary of <isa>/simd.h. The includer defines what one 4-byte step does:
 *     STEP_F32(acc, w, x)    acc += w x
 *     STEP_BF16(acc, w, x)   acc += w.even x.even + w.odd x.odd, where the CPU has it. Otherwise a step has two parts, one after
 *                            the other: weights are widened as they are loaded, and x was when it was copied. */
#ifndef AST_KERNELS_SIMD_GEMM_H
#define AST_KERNELS_SIMD_GEMM_H

#include <string.h>

#include "kernels/gemm_out.h"

/* Rows of a register tile: with two vectors of outputs each, as many chains as leave room for the weights and a number of x. */
enum {
    GEMM_ROWS = W == 16 ? 14 : 6,
    GEMM_VECS = 2,
    GEMM_FEW = W == 16 ? 16 : 6,
    GEMM_ROOM = W == 16 ? 16 : 8,
    GEMM_MOST = 4,
    GEMM_VB = KERN_KB / W
};
#define GEMM_UNROLL _Pragma("GCC unroll 32")
#ifdef STEP_BF16
#define BF16_PAIRS
enum { BF16_PARTS = 1 };
#define BF16_PART(h, w) (w)
#else
enum { BF16_PARTS = 2 };
#define BF16_PART(h, w) ((h) ? vbf_odd(w) : vbf_even(w))
#define STEP_BF16 STEP_F32
#endif
#define F32_PART(h, w) (w)

/* mr rows and nb blocks at a time. Rows of x lie KERN_XLD apart, so that one pointer reaches all of them. Weights come from far:
 * the tiles of a panel of blocks fetch the next one into the second-level cache, `pace` floats a step. */
struct micro {
    const float *x, *w[GEMM_VECS], *ahead[GEMM_VECS];
    float *y;
    int64_t steps, pace, ldy; /* blocks of outputs lie side by side, rows ldy apart */
    bool add;                 /* y += instead of y = */
};

#define GEMM_BODY(STEP, PARTS, PART)                                                                                               \
    const float *x = c->x, *w[GEMM_VECS], *ahead[GEMM_VECS];                                                                       \
    const int64_t steps = c->steps, pace = c->pace, ldy = c->ldy;                                                                  \
    vf acc[GEMM_ROWS][GEMM_VECS];                                                                                                  \
    GEMM_UNROLL for (int b = 0; b < nb; b++)                                                                                       \
    {                                                                                                                              \
        w[b] = c->w[b];                                                                                                            \
        ahead[b] = c->ahead[b];                                                                                                    \
    }                                                                                                                              \
    GEMM_UNROLL for (int r = 0; r < mr; r++) GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) acc[r][i] =                        \
        c->add ? vload(c->y + r * ldy + i * W) : vzero();                                                                          \
    for (int64_t s = 0; s < steps; s++, x += PARTS) {                                                                              \
        GEMM_UNROLL for (int b = 0; b < nb; b++) __builtin_prefetch(ahead[b] + s * pace, 0, 2);                                    \
        GEMM_UNROLL for (int h = 0; h < PARTS; h++)                                                                                \
        {                                                                                                                          \
            vf wide[GEMM_VECS];                                                                                                    \
            GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) wide[i] =                                                           \
                PART(h, vload(w[i / GEMM_VB] + s * KERN_KB + i % GEMM_VB * W));                                                    \
            GEMM_UNROLL for (int r = 0; r < mr; r++)                                                                               \
            {                                                                                                                      \
                vf one = vset1(x[r * KERN_XLD + h]);                                                                               \
                GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) acc[r][i] = STEP(acc[r][i], wide[i], one);                      \
            }                                                                                                                      \
        }                                                                                                                          \
    }                                                                                                                              \
    GEMM_UNROLL for (int r = 0; r < mr; r++) GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++)                                    \
        vstore(c->y + r * ldy + i * W, acc[r][i]);

/* clang-format off */
INL void micro_f32(const int mr, const int nb, const struct micro *c) { GEMM_BODY(STEP_F32, 1, F32_PART) }
INL void micro_bf16(const int mr, const int nb, const struct micro *c) { GEMM_BODY(STEP_BF16, BF16_PARTS, BF16_PART) }
/* clang-format on */

/* ---- few rows: each number of all rows lies beside the others', and weights come from memory. One row has but one chain of
 * additions a block: several blocks at once hide its latency. The hardware follows their streams, but begins anew at each
 * page: lines are asked for SOON steps before. From FETCH rows on there is time to fetch the next blocks into the second-level
 * cache while these are multiplied: line by line, but where steps are LONG the hardware keeps up within a page and is shown
 * the first lines of each alone, which leaves the core's own requests to what it needs at once ---- */

enum { FETCH = 5, LONG = 17, SOON = 32, PAGE = 64, STARTS = 4 }; /* rows; vector multiply-adds and lines; lines of a page */

struct narrow {
    const float *x; /* of the first row */
    int64_t x_step, steps;
    const float *w[GEMM_MOST], *ahead[GEMM_MOST];
    float *y;
    int64_t ldy; /* as in struct micro */
    bool add;
};

#define NARROW_BODY(STEP, PARTS, PART)                                                                                             \
    const float *x = c->x, *w[GEMM_MOST], *ahead[GEMM_MOST];                                                                       \
    uintptr_t line[GEMM_MOST]; /* of ahead, in its page */                                                                         \
    const int64_t steps = c->steps, x_step = c->x_step, ldy = c->ldy;                                                              \
    vf acc[GEMM_ROOM][GEMM_MOST * GEMM_VB];                                                                                        \
    GEMM_UNROLL for (int b = 0; b < nb; b++)                                                                                       \
    {                                                                                                                              \
        w[b] = c->w[b];                                                                                                            \
        ahead[b] = c->ahead[b];                                                                                                    \
        line[b] = (uintptr_t)ahead[b] / 64;                                                                                        \
    }                                                                                                                              \
    GEMM_UNROLL for (int r = 0; r < mr; r++) GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) acc[r][i] =                        \
        c->add ? vload(c->y + r * ldy + i * W) : vzero();                                                                          \
    for (int64_t s = 0; s < steps; s++) {                                                                                          \
        GEMM_UNROLL for (int b = 0; b < nb; b++)                                                                                   \
        {                                                                                                                          \
            if (mr >= FETCH && (mr * PARTS * GEMM_VB < LONG || (line[b] + (uintptr_t)s) % PAGE < STARTS))                          \
                __builtin_prefetch(ahead[b] + s * KERN_KB, 0, 2);                                                                  \
            __builtin_prefetch(w[b] + (s + (mr * PARTS * GEMM_VB < LONG ? SOON : 2 * SOON)) * KERN_KB, 0, 3);                      \
        }                                                                                                                          \
        GEMM_UNROLL for (int h = 0; h < PARTS; h++, x += x_step)                                                                   \
        {                                                                                                                          \
            vf wide[GEMM_MOST * GEMM_VB];                                                                                          \
            GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) wide[i] =                                                           \
                PART(h, vload(w[i / GEMM_VB] + s * KERN_KB + i % GEMM_VB * W));                                                    \
            GEMM_UNROLL for (int r = 0; r < mr; r++)                                                                               \
            {                                                                                                                      \
                vf one = vset1(x[r]);                                                                                              \
                GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++) acc[r][i] = STEP(acc[r][i], wide[i], one);                      \
            }                                                                                                                      \
        }                                                                                                                          \
    }                                                                                                                              \
    GEMM_UNROLL for (int r = 0; r < mr; r++) GEMM_UNROLL for (int i = 0; i < nb * GEMM_VB; i++)                                    \
        vstore(c->y + r * ldy + i * W, acc[r][i]);

/* clang-format off */
INL void narrow_f32(const int mr, const int nb, const struct narrow *c) { NARROW_BODY(STEP_F32, 1, F32_PART) }
INL void narrow_bf16(const int mr, const int nb, const struct narrow *c) { NARROW_BODY(STEP_BF16, BF16_PARTS, BF16_PART) }

/* kind_any_type(rows, blocks, c): the function made for that many of both */
#define GEMM_CASE(fn, mr, nb) case (mr) * 8 + (nb): fn(mr, nb, c); break;
#define GEMM_PAIR(fn, mr) GEMM_CASE(fn, mr, 1) GEMM_CASE(fn, mr, 2)
#define GEMM_EIGHT(fn) \
    GEMM_PAIR(fn, 1) GEMM_PAIR(fn, 2) GEMM_PAIR(fn, 3) GEMM_PAIR(fn, 4) GEMM_PAIR(fn, 5) GEMM_PAIR(fn, 6) GEMM_PAIR(fn, 7) GEMM_PAIR(fn, 8)
#define NARROW_EIGHT(fn) \
    GEMM_EIGHT(fn) GEMM_CASE(fn, 1, 4) GEMM_CASE(fn, 2, 4) GEMM_CASE(fn, 3, 4) GEMM_CASE(fn, 4, 4)
#if defined(__AVX512F__)
#define NARROW_CASES(fn) NARROW_EIGHT(fn) \
    GEMM_CASE(fn, 9, 1) GEMM_CASE(fn, 10, 1) GEMM_CASE(fn, 11, 1) GEMM_CASE(fn, 12, 1) \
    GEMM_CASE(fn, 13, 1) GEMM_CASE(fn, 14, 1) GEMM_CASE(fn, 15, 1) GEMM_CASE(fn, 16, 1)
#define MICRO_CASES(fn) \
    GEMM_EIGHT(fn) GEMM_PAIR(fn, 9) GEMM_PAIR(fn, 10) GEMM_PAIR(fn, 11) GEMM_PAIR(fn, 12) GEMM_PAIR(fn, 13) GEMM_PAIR(fn, 14)
#else
#define NARROW_CASES(fn) NARROW_EIGHT(fn)
#define MICRO_CASES(fn) \
    GEMM_CASE(fn, 1, 1) GEMM_CASE(fn, 2, 1) GEMM_CASE(fn, 3, 1) GEMM_CASE(fn, 4, 1) GEMM_CASE(fn, 5, 1) GEMM_CASE(fn, 6, 1)
#endif
#define GEMM_SWITCH(kind, CASES, type) \
    static void kind##_any_##type(int mr, int nb, const struct kind *c) { switch (mr * 8 + nb) { CASES(kind##_##type) } }
GEMM_SWITCH(narrow, NARROW_CASES, f32)
GEMM_SWITCH(narrow, NARROW_CASES, bf16)
GEMM_SWITCH(micro, MICRO_CASES, f32)
GEMM_SWITCH(micro, MICRO_CASES, bf16)
    /* clang-format on */

    /* ---- blocks and rows ---- */

    /* Blocks of weights, or those that are likely to come next. */
    struct panel {
    const float *w;
    int64_t blocks;
};

/* Rows r0 .. r0+mr-1, the tile-th of `tiles`, with the blocks b0 .. b0+nb-1 while the next ones are fetched. */
static void rows_and_blocks(const struct kern_gemm *g, int64_t tile, int64_t tiles, int64_t b0, int nb, struct panel next)
{
    float copy[GEMM_ROWS * GEMM_VECS * W];
    int64_t r0 = g->rows * tile / tiles, size = g->w_stride * KERN_KB, pace = 1;
    int mr = (int)(g->rows * (tile + 1) / tiles - r0);
    struct micro c = {.x = (const float *)g->x + r0 * g->ldx, .steps = g->steps, .add = g->accumulate};
    struct outputs o = enter(g, r0, mr, b0, nb, copy, GEMM_VECS * W);
    while (pace * tiles < KERN_KB)
        pace *= 2;
    bool fetch = tile * pace < KERN_KB && next.blocks > 0;
    c.pace = fetch ? pace : 0;
    for (int b = 0; b < nb; b++) {
        c.w[b] = c.ahead[b] = (const float *)g->w + (b0 + b) * size;
        if (fetch && b < next.blocks)
            c.ahead[b] = next.w + b * size + tile * pace * g->steps;
    }
    c.y = o.into;
    c.ldy = o.into_ld;
    /* the next rows' outputs, which have long left the cache: they arrive while these rows are worked on */
    for (int r = 0; o.whole && r < mr && r0 + mr + r < g->rows; r++)
        for (int b = 0; b < nb; b++)
            __builtin_prefetch(o.y + (mr + r) * g->ldy + b * KERN_KB, 1);
    (g->dtype == KERN_BF16 ? micro_any_bf16 : micro_any_f32)(mr, nb, &c);
    leave(&o, mr);
}

/* The blocks after block b: those of the call, or those that are likely to come next. */
static struct panel panel_after(const struct kern_gemm *g, int64_t b)
{
    struct panel next = {(const float *)g->w + b * g->w_stride * KERN_KB, g->block1 - b};
    return next.blocks > 0 ? next : (struct panel){g->ahead, g->ahead_blocks};
}

static void wide(const struct kern_gemm *g)
{
    int64_t tiles = (g->rows + GEMM_ROWS - 1) / GEMM_ROWS;
    for (int64_t b = g->block0; b < g->block1;) {
        int nb = g->block1 - b < GEMM_VECS / GEMM_VB ? 1 : GEMM_VECS / GEMM_VB;
        struct panel next = panel_after(g, b + nb);
        for (int64_t tile = 0; tile < tiles; tile++)
            rows_and_blocks(g, tile, tiles, b, nb, next);
        b += nb;
    }
}

/* Rows r0 .. r0+mr-1 of the blocks b0 .. b0+nb-1; the first group of rows fetches the next ones. */
static void narrow_rows(const struct kern_gemm *g, int64_t r0, int mr, int64_t b0, int nb, struct panel next)
{
    float copy[GEMM_ROOM * GEMM_MOST * KERN_KB];
    struct narrow c = {.x = (const float *)g->x + r0, .x_step = g->rows, .steps = g->steps, .add = g->accumulate};
    struct outputs o = enter(g, r0, mr, b0, nb, copy, GEMM_MOST * KERN_KB);
    int64_t size = g->w_stride * KERN_KB;
    for (int b = 0; b < nb; b++) {
        c.w[b] = c.ahead[b] = (const float *)g->w + (b0 + b) * size;
        if (r0 == 0 && b < next.blocks)
            c.ahead[b] = next.w + b * size;
    }
    c.y = o.into;
    c.ldy = o.into_ld;
    (g->dtype == KERN_BF16 ? narrow_any_bf16 : narrow_any_f32)(mr, nb, &c);
    leave(&o, mr);
}

static void narrow(const struct kern_gemm *g)
{
    int mr_most = g->rows < GEMM_FEW ? (int)g->rows : GEMM_FEW; /* more than 8: each weight is loaded once for all of them */
    int most = W == 16 ? (mr_most <= 4 ? 4 : mr_most <= 8 ? 2 : 1) : mr_most == 1 ? 4 : mr_most <= 3 ? 2 : 1;
    for (int64_t b = g->block0; b < g->block1;) {
        int nb = most;
        while (nb > g->block1 - b)
            nb /= 2;
        for (int64_t r = 0; r < g->rows; r += GEMM_FEW)
            narrow_rows(g, r, g->rows - r < GEMM_FEW ? (int)(g->rows - r) : GEMM_FEW, b, nb, panel_after(g, b + nb));
        b += nb;
    }
}

/* W floats of x, of which there are `left`; zeros after those. */
INL vf some_of(const float *x, int64_t left)
{
    return left >= W ? vload(x) : vload_n(x, left > 0 ? left : 0);
}

/* W numbers of x: floats, floats rounded to bf16, or pairs of bf16. */
INL vf numbers(const float *x, int64_t left, enum kern_dtype t)
{
    uint16_t half[2 * W];
    if (t == KERN_F32)
        return some_of(x, left);
    vstore_bf16(half, some_of(x, left));
#ifdef BF16_PAIRS
    vstore_bf16(half + W, some_of(x + W, left - W));
    vf pairs;
    memcpy(&pairs, half, sizeof pairs);
    return pairs;
#else
    return vload_bf16(half);
#endif
}

/* Squares of W rows and W numbers are turned about in registers. */
static void lay_few(const struct kern_lay *c)
{
    bool half = c->dtype == KERN_BF16;
    int64_t each = half ? 2 / BF16_PARTS : 1, all = half ? (c->n + 1) / 2 * BF16_PARTS : c->n, rows = c->rows;
    float *to = c->to + c->first / each * rows;
    for (int64_t i = 0; i < all && rows == 1; i += W)
        vstore_n(to + i, numbers(c->x + i * each, c->n - i * each, c->dtype), all - i < W ? all - i : W);
    for (int64_t r = 0; r < rows && rows > 1; r += W)
        for (int64_t i = 0; i < all; i += W) {
            int64_t mr = rows - r < W ? rows - r : W, some = all - i < W ? all - i : W, left = c->n - i * each;
            vf part[W];
            for (int64_t l = 0; l < W; l++)
                part[l] = l < mr ? numbers(c->x + (r + l) * c->ldx + i * each, left, c->dtype) : vzero();
            vtranspose(part);
            for (int64_t l = 0; l < some; l++)
                vstore_n(to + (i + l) * rows + r, part[l], mr);
        }
}

static void gemm(const struct kern_gemm *g)
{
    (g->ldx ? wide : narrow)(g);
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
        return 4.0 / BF16_PARTS * W * PEAK_CHAINS * (double)n;
    }
    PEAK_BODY(STEP_F32)
    return 2.0 * W * PEAK_CHAINS * (double)n;
}

#endif
