/* Compute kernels: pointers and sizes in, numbers out. No MPI, files, options, malloc or mutable globals.
 *
 * ref/ is complete and plain; avx2/ and avx512/ override it entry by entry; kern_select merges them for this CPU.
 * Letters: d head width, R rows of a query tile, KB = 16 keys of a packed block. Arrays are row-major, float is
 * accumulated in float unless said. Pointers need no alignment beyond their type's, unless said. */
#ifndef AST_KERNELS_KERN_H
#define AST_KERNELS_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kern_dtype { KERN_F32, KERN_BF16 };
enum { KERN_KB = 16, KERN_MAX_ROWS = 64, KERN_MAX_DIM = 256, KERN_NARROW = 16, KERN_XLD = 400 };

/* Keys and values of one sequence, one layer, one KV head.
 *   f32    k: [block][d][KB]  (block = 16 consecutive keys, transposed)      v: [key][d]
 *   bf16   k: [block][ceil(d/2)][KB][2]  (pairs of d side by side, for dot products)   v: [key/2][d][2]
 * Space is allocated in whole blocks; keys past n inside the last block are zeros. 64-byte aligned. */
struct kern_kv {
    void *k, *v;
    int64_t dim, n;
    enum kern_dtype dtype;
};
size_t kern_kv_bytes(enum kern_dtype t, int64_t dim, int64_t keys); /* of k; v takes the same */

/* A tile of query rows that share one KV head (rows = tokens x heads of the group, any order), with its running
 * softmax. A row sees the keys begin[r] <= j < end[r].
 * m is the running maximum rounded up to a multiple of ln 2, so that rescaling multiplies by powers of two, exactly: a
 * row's result does not depend on how its keys are cut into calls, nor on the other rows of its tile, only on their
 * order. Between tile_begin and tile_end only these functions touch o, m, l and scratch; merge with others through lse.
 *   source   Milakov & Gimelshein 2018 alg. 3 (running maximum and sum) */
struct kern_tile {
    int64_t rows, dim;          /* rows <= KERN_MAX_ROWS, dim <= KERN_MAX_DIM */
    const float *q;             /* (rows, dim) already scaled by the softmax scale (1/sqrt(d)) */
    const int64_t *end;         /* (rows,) */
    const int64_t *begin;       /* (rows,) or NULL: 0 */
    float *o, *m, *l;           /* (rows, dim) unnormalised output; (rows,) maximum, see above; (rows,) sum, there after tile_end */
    void *scratch;              /* kern_tile_scratch() bytes, 64-byte aligned; keeps state from tile_begin to tile_end */
    float *const *to;           /* (rows,) where tile_end writes each row's dim numbers; NULL: they stay in o */
    const float *const *soon;   /* (rows,), a hint: dim numbers each that the caller reads soon; or NULL */
    int64_t ahead0, ahead1;     /* tile_dense, a hint: blocks of the same keys that are wanted soon; it asks for them as it goes */
    const struct kern_kv *then; /* tile_dense, a hint: keys and values, as many, that the caller goes on with; or NULL */
    int64_t share;              /* tile_gather: this many consecutive rows have one list (the heads of a token); 0: each its own */
};
size_t kern_tile_scratch(int64_t rows, int64_t dim);

/* Products of predictors. A row's bits do not depend on how many rows come with it, nor on the range of columns. */
struct kern_rows { /* y (rows, out; ldy) = x (rows, in; ldx) w (in, out), or += with accumulate */
    int64_t rows, in, out;
    const float *x, *w;
    int64_t ldx;
    float *y;
    int64_t ldy;
    bool accumulate;
};
struct kern_scores { /* s[r][16 i + j] = scale * sum_c u[r][c] v_i[c][j], i < groups; v_i = v + i * v_stride is (width, KERN_KB) */
    int64_t rows, width, groups;
    const float *u; /* (rows, width) */
    const float *v;
    int64_t v_stride; /* floats from one group of 16 columns to the next */
    float scale;
    float *s; /* (rows, ld) */
    int64_t ld;
};

struct kern_mean {                  /* adds rows to sum; y[r] = sum / (before + r + 1) and square[r] = |y[r]|^2 */
    int64_t rows, dim, ldx, before; /* rows already in sum */
    const float *x;                 /* (rows, dim; ldx) */
    double *sum;                    /* (dim,) */
    float *y, *square;              /* (rows, dim; ldx), not x; (rows,); NULL, NULL: only sums */
};
struct kern_pool { /* adds rows to a sum, a maximum and a minimum in each column, in the order of rows; a NaN is never the largest
                    */
    int64_t rows, dim, ldx;
    int64_t more;           /* rows that follow in x: a hint to fetch them */
    const float *x;         /* (rows, dim; ldx) */
    float *sum, *max, *min; /* (dim,) */
};
struct kern_guess { /* where the least of the k largest lies: standard deviations from the mean, and how sure; 0, 0: unknown */
    float limit, margin;
};

/* Single rows by index, wherever they lie (keys that hashing chose): row idx[i] begins at rows + idx[i] * stride. */
struct kern_list {
    int64_t n, dim, stride;
    const int32_t *idx; /* (n,) */
    const float *rows;
    const float *x; /* list_scores: (dim,); list_mix: (n,) weights */
    float *y;       /* list_scores: (n,) products with x; list_mix: (dim,) weighted sum; not x */
};

/* One chunk of a linear layer: y[r][16 b + j - col0] (+)= sum_c x[r][c] w_b[c][j] for the blocks b of 16 outputs of
 * struct kern_mat (kernels/linear.h), columns outside cols left alone. A step c is one input (f32) or a pair (bf16).
 * Numbers of x: floats; for bf16 weights pairs of bf16 with kern_has_pairs, else two floats a step, rounded to bf16. One chain of
 * additions for each output in the order of c, whatever the other numbers are. */
struct kern_gemm {
    enum kern_dtype dtype;
    int64_t rows, steps, ldx; /* ldx in 4-byte numbers of x: KERN_XLD, which is as many as there may be, or 0 */
    const void *x;            /* (rows, ldx), see below; ldx 0: as laid out by lay_few, up to KERN_NARROW rows */
    const void *w;            /* block 0 at this chunk's first step; w_stride steps from one block to the next */
    int64_t w_stride, block0, block1;
    const void *ahead;    /* hint: the weights that this thread is likely to go on with, of as many steps, blocks as far apart; */
    int64_t ahead_blocks; /* how many blocks of them there are, 0 for none */
    float *y;             /* y[0] is output col0 */
    int64_t ldy, col0, cols;
    bool accumulate;
};

/* Lays out some inputs of up to KERN_NARROW rows for a product: input first + i of row r, x[r ldx + i], i < n, becomes number r of
 * line first + i of `to` (numbers, rows). For bf16 weights it is rounded, pairs with kern_has_pairs are one number, and an odd last
 * input is filled up by zero to a whole step. With has_tiles pairs stay row by row: `to` is (rows, kern_few_ld(steps)). */
struct kern_lay {
    enum kern_dtype dtype; /* of the weights */
    int64_t rows, steps;   /* steps of whole rows */
    int64_t first, n, ldx; /* first is even; so is n, unless it ends the rows */
    const float *x;
    float *to;
};
/* Numbers from one row to the next: an odd number of cache lines, lest all rows contend for the same places of a cache. */
static inline int64_t kern_few_ld(int64_t steps)
{
    return ((steps + 15) / 16 | 1) * 16;
}

/* Small products of training: c[i][j] (+)= sum_s a[i a_row + s a_step] b[j / 16 b_block + s b_step + j % 16], i < m, j < n,
 * s < k. Row-major B: b_block = KERN_KB, b_step its stride; packed keys: b_block = KERN_KB k, b_step = KERN_KB; A transposed:
 * a_row = 1. Meant to be called by each thread for its own tile. */
struct kern_panel {
    int64_t m, n, k, a_row, a_step, b_block, b_step, ldc;
    const float *a, *b;
    float *c;
    bool accumulate;
};
/* Gradients of act(gate) * up, or of act(gate) where up is NULL, from dh: all (n,). dgate may be gate, dup may be up. */
struct kern_act_grad {
    int64_t n;
    const float *dh, *gate, *up;
    float *dgate, *dup;
};
/* m_i = sigmoid((s_i - tau) / T) of the differentiable top-k */
struct kern_soft {
    int64_t n;
    const float *s;
    float tau, inv_T;
};

struct kern_table {
    const char *isa;
    bool has_bf16_dot; /* vdpbf16ps: linear layers multiply pairs of bf16, and so does attention */
    bool has_tiles;    /* tdpbf16ps: linear layers multiply tiles of such pairs */

    /* vectors */
    float (*dot)(const float *x, const float *y, int64_t n);
    void (*axpy)(float *y, float a, const float *x, int64_t n); /* y += a x */
    void (*add)(float *y, const float *x, int64_t n);           /* y += x */
    void (*scale)(float *y, float a, int64_t n);
    bool (*all_finite)(const float *x, int64_t n);

    /* conversions; unaligned sources allowed; to bf16: round to nearest even, NaN stays NaN */
    void (*f32_from_bf16)(float *y, const void *x, int64_t n);
    void (*f32_from_f16)(float *y, const void *x, int64_t n);
    void (*bf16_from_f32)(uint16_t *y, const float *x, int64_t n);

    /* one row each; b may be NULL. RMSNorm: x / sqrt(mean(x^2) + eps) * w (Zhang & Sennrich 2019, eq. 4) */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t n, float eps);
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, int64_t n, float eps);

    /* activations, in place or y <- act(gate) * up; |error| <= 2 ulp of the exponential, see act.c */
    void (*silu_mul)(float *y, const float *gate, const float *up, int64_t n);
    void (*gelu_mul)(float *y, const float *gate, const float *up, int64_t n, bool tanh_form);
    void (*silu)(float *x, int64_t n);
    void (*gelu)(float *x, int64_t n, bool tanh_form);
    void (*relu)(float *x, int64_t n);

    /* half-split rotary embedding of one head: pairs (i, i + rot/2), i < rot/2; cs, sn (rot/2,); dims >= rot untouched */
    void (*rope)(float *x, const float *cs, const float *sn, int64_t rot);

    /* rows of scores: y = exp(x - max), returns max, *sum = sum of y (all -INFINITY: zeros, max -INFINITY, sum 0) */
    float (*exp_row)(float *y, const float *x, int64_t n, float *sum);
    /* running log-sum-exp over chunks of a row: updates *m (maximum) and *s (sum of exp(x - *m)); start: -INFINITY, 0 */
    void (*lse_update)(const float *x, int64_t n, float *m, double *s);
    int64_t (*argmax)(const float *x, int64_t n); /* lowest index of the largest; NaN never wins */

    /* KV cache: appends n keys and values given as rows with a stride (floats) at kv->n, and raises kv->n */
    void (*kv_append)(struct kern_kv *kv, const float *k, const float *v, int64_t stride, int64_t n);
    /* back to floats: keys (values) first .. first+n-1 as rows (n, d) */
    void (*kv_keys)(const struct kern_kv *kv, int64_t first, int64_t n, float *out);
    void (*kv_values)(const struct kern_kv *kv, int64_t first, int64_t n, float *out);

    /* attention over a tile: begin, any number of steps in any order, end */
    void (*tile_begin)(const struct kern_tile *t); /* o = 0, l = 0, m = -INFINITY */
    /* all keys of blocks block0 .. block1-1 that a row may see */
    void (*tile_dense)(const struct kern_tile *t, const struct kern_kv *kv, int64_t block0, int64_t block1);
    /* the listed blocks; bit r of mask[i] lets row r see block[i] (mask NULL: every row sees all listed) */
    void (*tile_blocks)(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *block, const uint64_t *mask, int64_t n);
    /* row r sees the blocks block[ptr[i]] .. block[ptr[i+1]-1], i = r / max(1, share): no work on a union.
     * What a row gets depends, to the bit, on its own list alone */
    void (*tile_gather)(const struct kern_tile *t, const struct kern_kv *kv, const int64_t *ptr, const int32_t *block);
    /* as tile_blocks, of half blocks: half[i] is the keys 8 half[i] .. 8 half[i] + 7. Both halves of a block side by side
     * save work; the bits are those of the same keys in the same order in any other call */
    void (*tile_halves)(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *half, const uint64_t *mask, int64_t n);
    /* o / l to o or to t->to, lse = m + ln l; a row that saw no key: zeros, lse -INFINITY. lse may be NULL */
    void (*tile_end)(const struct kern_tile *t, float *lse);

    /* predictors: see struct kern_rows and kern_scores */
    void (*rows_matmul)(const struct kern_rows *c);
    void (*block_scores)(const struct kern_scores *c);
    /* Indices of the k largest of s[0 .. n-1], ascending; ties to the lower index; NaN counts as -INFINITY.
     * work: n + 64 floats. Returns min(k, n), at least 0.
     * guess: in and out, NULL: none. What a similar row has left there saves time and changes nothing. */
    int64_t (*topk)(const float *s, int64_t n, int64_t k, int32_t *idx, float *work, struct kern_guess *guess);
    void (*running_mean)(const struct kern_mean *c);
    void (*pool_rows)(const struct kern_pool *c);

    /* see struct kern_list; same bits for the same list, whatever else there is */
    void (*list_scores)(const struct kern_list *c);
    void (*list_mix)(const struct kern_list *c);

    /* few rows as gemm wants them, see struct kern_lay */
    void (*lay_few)(const struct kern_lay *c);
    /* linear layers, see struct kern_gemm; one thread's share */
    void (*gemm)(const struct kern_gemm *g);

    /* training: see the structs above. Rows of scores are blocks of KERN_KB keys, bias has one number a block or is NULL */
    void (*panel)(const struct kern_panel *c);
    void (*silu_grad)(const struct kern_act_grad *c);
    void (*gelu_grad)(const struct kern_act_grad *c, bool tanh_form);
    float (*biased_max)(const float *s, const float *bias, int64_t blocks); /* of s + bias; -INFINITY if there is none */
    /* s = exp(s + bias - shift), returns their sum */
    float (*biased_exp)(float *s, const float *bias, int64_t blocks, float shift);
    /* dp = p (dp - dot), and sums[b] += the sum over block b unless sums is NULL: the gradient of a softmax row */
    void (*softmax_grad)(float *dp, const float *p, float dot, int64_t blocks, float *sums);
    void (*soft_sums)(const struct kern_soft *c, float *sum, float *slope);    /* of m; of m (1 - m) */
    void (*soft_logs)(const struct kern_soft *c, float *log_m, float *log_1m); /* ln m, ln(1 - m); log_1m may be NULL */

    /* n rounds of independent multiply-adds in registers; returns the floating-point operations done (kernels/peak.h) */
    double (*peak)(enum kern_dtype t, int64_t n);
};

/* Does it multiply pairs of bf16 in linear layers? */
static inline bool kern_has_pairs(const struct kern_table *k)
{
    return k->has_bf16_dot || k->has_tiles;
}
const char *kern_pairs_by(const struct kern_table *k); /* by what: "bf16 tiles", "bf16 dot products"; NULL: it widens */

/* isa NULL: the environment's AST_ISA, else kern_best(). Names: "ref", "avx2", "avx512", "avx512bf16", "amx".
 * Returns 0; -1: unknown name; -2: this CPU cannot run it. */
int kern_select(struct kern_table *out, const char *isa);
int kern_isa_count(void);
const char *kern_isa_name(int i); /* simplest first */
bool kern_isa_runs(int i);        /* can this CPU run it? */
/* The last that this CPU runs; but none whose products of bf16 are slower than multiply-adds (measured, some ms). */
int kern_best(void);

#endif
