/* The scratch of an attention tile, shared by kern.c (its size) and the instruction sets (its use).
 *
 *     lanes (rows, 16)      sums of p by key mod 16: added up at the end, so that cuts into calls change no bit
 *     s     (rows, PANEL 16) scores, then probabilities, of the blocks of one panel
 *     q     (rows, ceil(d/2)) queries as pairs of bf16, for bf16 keys */
#ifndef AST_KERNELS_TILE_H
#define AST_KERNELS_TILE_H

#include "kernels/kern.h"

enum { TILE_PANEL = 8, TILE_LD = TILE_PANEL * KERN_KB };

static inline float *tile_lanes(const struct kern_tile *t)
{
    return (float *)t->scratch;
}

static inline float *tile_scores(const struct kern_tile *t)
{
    return tile_lanes(t) + t->rows * KERN_KB;
}

static inline float *tile_pairs(const struct kern_tile *t)
{
    return tile_scores(t) + t->rows * TILE_LD;
}

#endif
