/* The scratch of an attention tile, shared by kern.c (its size) and the instruction sets (its use).
 *
 *     head  which of the parts below are there, and what the exponentials of each row take
 *     lanes (rows, 16)      sums of p by key mod 16: added up at the end, so that cuts into calls change no bit
 *     s     (rows, PANEL 16) scores, then probabilities, of the blocks of one panel
 *     q     (rows, d + 1)   queries as the products take them, where that is not as they are
 *     side  (d + 1, KERN_MAX_ROWS) the same, numbers of all rows side by side; not for few rows */
#ifndef AST_KERNELS_TILE_H
#define AST_KERNELS_TILE_H

#include "kernels/kern.h"

enum { TILE_PANEL = 8, TILE_LD = TILE_PANEL * KERN_KB };

struct tile_head {
    float shift[KERN_MAX_ROWS], least[KERN_MAX_ROWS]; /* see vexp_shifted; they follow from m */
    bool queries, side;                               /* are they there? */
};
enum { TILE_HEAD = (sizeof(struct tile_head) + 63) / 64 * 16 }; /* floats */

static inline struct tile_head *tile_head(const struct kern_tile *t)
{
    return t->scratch;
}

static inline float *tile_lanes(const struct kern_tile *t)
{
    return (float *)t->scratch + TILE_HEAD;
}

static inline float *tile_scores(const struct kern_tile *t)
{
    return tile_lanes(t) + t->rows * KERN_KB;
}

static inline float *tile_queries(const struct kern_tile *t)
{
    return tile_scores(t) + t->rows * TILE_LD;
}

static inline float *tile_side(const struct kern_tile *t)
{
    return tile_queries(t) + t->rows * (t->dim + 1);
}

#endif
