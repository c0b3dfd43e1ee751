/* Rows of x on their way into products: rounded, cut into pieces, side by side. */
#include "kernels/rows.h"

#include <string.h>

enum { DEPTH = 24 * 16 }; /* numbers of a piece: rows lie KERN_XLD apart, an odd number of cache lines */

int64_t rows_steps(const struct kern_mat *w)
{
    return w->dtype == KERN_BF16 ? (w->in + 1) / 2 : w->in;
}

int64_t rows_numbers(const struct kern_table *k, const struct kern_mat *w)
{
    return w->dtype == KERN_BF16 && !(k && kern_has_pairs(k)) ? 2 : 1;
}

int64_t rows_pieces(const struct kern_table *k, const struct kern_mat *w)
{
    return (rows_steps(w) * rows_numbers(k, w) + DEPTH - 1) / DEPTH;
}

int64_t rows_depth(const struct kern_table *k, const struct kern_mat *w)
{
    int64_t pieces = rows_pieces(k, w), even = pieces ? (rows_steps(w) + pieces - 1) / pieces : 1;
    return (even + 15) / 16 * 16; /* tiles take 16 at once; DEPTH at most, so that something is left for the last piece */
}

size_t rows_bytes(const struct kern_mat *w, int64_t m)
{
    return (size_t)(m * rows_pieces(NULL, w) * KERN_XLD) * sizeof(float);
}

int64_t rows_round(const struct kern_table *k, float *to, const float *from, int64_t n)
{
    uint16_t half[ROWS_CHUNK + 1];
    k->bf16_from_f32(half, from, n);
    half[n] = 0; /* the pair of an odd last input */
    n += n % 2;
    if (kern_has_pairs(k))
        memcpy(to, half, (size_t)n * sizeof *half);
    else
        k->f32_from_bf16(to, half, n);
    return kern_has_pairs(k) ? n / 2 : n;
}

void rows_put(const struct kern_table *k, const struct kern_mat *w, float *rows, int64_t m, int64_t r, int64_t c0, int64_t n,
              const float *from)
{
    bool half = w->dtype == KERN_BF16;
    int64_t depth = rows_depth(k, w) * (half ? 2 : 1), per = half && kern_has_pairs(k) ? 2 : 1;
    for (int64_t end = c0 + n, part; c0 < end; c0 += part, from += part) {
        int64_t piece = c0 / depth, at = c0 % depth;
        part = end - c0 < depth - at ? end - c0 : depth - at;
        float *to = rows + (piece * m + r) * KERN_XLD + at / per;
        if (!half) {
            memcpy(to, from, (size_t)part * sizeof(float));
            continue;
        }
        for (int64_t j = 0; j < part; j += ROWS_CHUNK)
            to += rows_round(k, to, from + j, part - j < ROWS_CHUNK ? part - j : ROWS_CHUNK);
    }
}

const void *rows_weights(const struct kern_table *k, const struct kern_mat *w, int64_t piece, int64_t b)
{
    return (const float *)w->data + (b * rows_steps(w) + piece * rows_depth(k, w)) * KERN_KB;
}

void rows_multiply(const struct kern_table *k, const struct rows_call *c)
{
    int64_t steps = rows_steps(c->w), depth = rows_depth(k, c->w), s = c->piece * depth;
    struct kern_gemm g = {.dtype = c->w->dtype,
                          .rows = c->m,
                          .steps = steps - s < depth ? steps - s : depth,
                          .ldx = KERN_XLD,
                          .x = c->rows + c->piece * c->m * KERN_XLD,
                          .w = rows_weights(k, c->w, c->piece, 0),
                          .w_stride = steps,
                          .block0 = c->block0,
                          .block1 = c->block1,
                          .ahead = c->ahead,
                          .ahead_blocks = c->ahead_blocks,
                          .y = c->y,
                          .ldy = c->ldy,
                          .col0 = c->col0,
                          .cols = c->cols,
                          .accumulate = c->accumulate || c->piece > 0};
    k->gemm(&g);
}
