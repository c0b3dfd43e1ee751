/* Dense attention that keeps what gates are distilled from: of sampled rows of one sequence, in every layer, the queries
 * before rotation, the running context, and how much of the attention each block of keys gets; of all blocks, their pooled
 * keys. An attention method for the ordinary forward pass, not listed among the methods of jobs. */
#ifndef AST_TRAIN_CAPTURE_H
#define AST_TRAIN_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "attn/attn.h"

struct arena;

struct capture_layer {
    float *q0;   /* (rows, H, d) before rotation */
    float *ctx;  /* (rows, D) running mean of x scaled to unit RMS, see attn/feat.h; NULL: not wanted */
    float *pool; /* (G, blocks, 3, d) mean, max, min of unrotated keys; zeros where a block is not complete */
    float *mass; /* (rows, H, blocks) share of the attention; sums to 1 */
    float *peak; /* (rows, H, blocks) largest weight in the block; NULL: not wanted */
};

struct capture_dims {
    int64_t heads, kv_heads, dim, hidden, layers;
    int64_t block, max_tokens, max_rows;
    bool context, peak;
};

struct capture {
    struct capture_dims d;
    int64_t tokens, blocks; /* of the sequence at hand; blocks: counted in (the last may be incomplete) */
    int64_t rows;
    int64_t *row;                /* (rows,) tokens, ascending */
    struct capture_layer *layer; /* (layers,) */
    float *keys;                 /* (G, max_tokens / 16, d, 16) of the layer at hand; shared */
    float *q;                    /* (rows, H, d) rotated, of the layer at hand; shared */
    double *sum;                 /* (D,); shared */
    int64_t next;                /* row to come */
};

struct capture_opts { /* the method's options */
    struct capture *to;
};
extern const struct attn_method capture_method;

/* Room for what is kept of n sequences, c (n,), each as large as d allows; they are read one after the other and share the
 * room for the layer at hand. ERR_NOMEM. */
int capture_alloc(struct capture *c, int64_t n, const struct capture_dims *d, struct arena *run);
size_t capture_bytes(const struct capture_dims *d, int64_t n); /* that capture_alloc takes */

/* Before a forward pass over one sequence: c->row[0 .. rows-1] are set by the caller. */
void capture_begin(struct capture *c, int64_t tokens, int64_t rows);

#endif
