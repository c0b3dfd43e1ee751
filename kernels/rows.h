/* Rows of x as the products of many rows want them: rounded as the weights' type asks, cut into pieces of inputs, each row's part
 * of a piece KERN_XLD floats after the one before. Private to kernels/: linear.c and mlp.c.
 *     [piece][row][KERN_XLD]      of which a piece's numbers are used: floats, or pairs of bf16 where the CPU multiplies them */
#ifndef AST_KERNELS_ROWS_H
#define AST_KERNELS_ROWS_H

#include "kernels/linear.h"

enum { ROWS_CHUNK = 64 }; /* inputs that rows_round takes at most */

int64_t rows_steps(const struct kern_mat *w);                               /* of a row of w: one input each, or a pair of bf16 */
int64_t rows_numbers(const struct kern_table *k, const struct kern_mat *w); /* of x that a step takes; k NULL: the most */
int64_t rows_pieces(const struct kern_table *k, const struct kern_mat *w);
int64_t rows_depth(const struct kern_table *k, const struct kern_mat *w); /* steps of a piece; the last may have fewer */
size_t rows_bytes(const struct kern_mat *w, int64_t m);                   /* of m rows on any CPU */

/* n inputs, n <= ROWS_CHUNK, as the kernel of bf16 weights wants them; whole steps. Returns how many numbers that makes. */
int64_t rows_round(const struct kern_table *k, float *to, const float *from, int64_t n);

/* Inputs c0 .. c0+n-1 of row r of m, for weights w; c0 is even, and n unless it ends the row. */
void rows_put(const struct kern_table *k, const struct kern_mat *w, float *rows, int64_t m, int64_t r, int64_t c0, int64_t n,
              const float *from);

/* Rows 0 .. m-1 times the blocks block0 .. block1-1 of w, one piece: y (m, ...; ldy) whose column 0 is w's output col0. */
struct rows_call {
    const struct kern_mat *w;
    const float *rows;
    int64_t m, piece, block0, block1;
    const void *ahead; /* see struct kern_gemm */
    int64_t ahead_blocks;
    float *y;
    int64_t ldy, col0, cols;
    bool accumulate; /* or a piece after the first */
};
void rows_multiply(const struct kern_table *k, const struct rows_call *c);
/* Where a piece of block b of w begins: an `ahead`. */
const void *rows_weights(const struct kern_table *k, const struct kern_mat *w, int64_t piece, int64_t b);

#endif
