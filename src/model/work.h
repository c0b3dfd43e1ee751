/* A pass over a batch goes through its rows chunk by chunk; threads take slices of a chunk, each to itself. */
#ifndef AST_MODEL_WORK_H
#define AST_MODEL_WORK_H

#include "model/layer.h"

struct work {               /* a chunk's activations; NULL where the architecture has no use for them */
    float *cs, *sn;         /* (tokens, rot/2) angles of every row */
    float *xn, *xn2;        /* (rows, D) normed input; of the parallel mlp */
    float *qkv;             /* (H d + 2 G d) a row as the product leaves it: of a chunk, or slice_rows for each thread's slice */
    float *q, *q0;          /* (rows, H, d) rotated; before */
    float *k, *k0, *v;      /* (rows, G, d) */
    float *att;             /* (rows, H, d) */
    float *up;              /* (rows, F) or (rows, 2 F) */
    float *sum;             /* (rows, D) partial results of this rank, when several add up */
    unsigned char *scratch; /* of the products, scratch_each bytes a slice */
    size_t scratch_each;
    int64_t slice_rows;   /* the most rows that a slice has */
    struct kern_kv *kv;   /* (G,) of one layer, without caches */
    unsigned char *state; /* of one layer, without caches */
};

/* Rows of a chunk where threads take slices. */
int64_t work_rows(void);
/* Rows of a chunk when there are `tokens` of them. */
int64_t work_chunk(const struct model *m, int64_t tokens);
/* Slices of a chunk of so many rows, several a thread so that one who is held up is helped; 0: all threads share every product. */
int64_t work_slices(const struct model *m, int64_t rows);

/* Counts the bytes of a pass over `tokens` rows, and takes them from `to` unless it is NULL. */
size_t work_take(struct arena *to, const struct model *m, struct work *w, int64_t tokens, bool own_kv, int64_t longest);

#endif
