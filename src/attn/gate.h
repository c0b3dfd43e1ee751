/* Gate parameters: the learned weights of the sparsity predictor, for every layer of a model, and the untrained start.
 *
 *     u_t = Wq [q_t of the unit's heads, unrotated] + Wc c_t        c_t: causal running mean of x, scaled to unit RMS
 *     v_J = Wk [mean, max, min of unrotated k over block J]          both rotated, u at t and v at the block's centre
 *     s_tJ = u_t . v_J / sqrt(d) + dist[bucket(J(t) - J)]            rho_t = sigmoid(wr . u_t + br), u_t unrotated
 *
 * A unit is what chooses a set: a KV head with its g query heads, or each query head by itself.
 *   source   ../shared/reference/ast_reference.py gate_scores; SeerAttention-R for the form */
#ifndef AST_ATTN_GATE_H
#define AST_ATTN_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "attn/attn.h"

struct arena;

struct gate_layer { /* NULL: absent; shapes over the whole model's units, gh = heads of a unit */
    float *wq;      /* (units, gh * d, e); NULL: the mean over the heads, e = d */
    float *wk;      /* (units, 3 d, e) on mean, max, min; NULL: the mean key, e = d */
    float *wc;      /* (units, D, e); NULL: no context */
    float *dist;    /* (units, buckets); NULL: none */
    float *wr, *br; /* (units, e), (units,); NULL: no learned budget */
    float *beta;    /* (H,) of the summaries; NULL: untrained */
};

struct attn_params {
    int64_t layers, heads, kv_heads, dim, hidden; /* of the model that they were made for */
    int64_t units;                                /* kv_heads, or heads */
    int64_t width, buckets;                       /* e; of distances: 0, 1, 2-3, 4-7, ... */
    int64_t block;                                /* B that they were trained with */
    struct gate_layer *layer;                     /* (layers,) */
    char base[65];                                /* fingerprint of the base model, "" unknown */
};

enum { GATE_TENSORS = 7, GATE_BUCKETS = 16 };

/* One tensor of a layer, as it is named in a file ("layers.3.wq"). data NULL: absent. */
struct gate_tensor {
    const char *name; /* "wq", ... */
    float **data;
    int rank;
    int64_t dim[3];
};
void gate_tensor_at(const struct attn_params *p, int64_t layer, int i, struct gate_tensor *out); /* i < GATE_TENSORS */
int64_t gate_tensor_size(const struct gate_tensor *t);

/* All tensors of all layers (zeros) from the sizes in p. ERR_NOMEM. */
int gate_alloc(struct attn_params *p, struct arena *run);

/* Starts as the mean-key score: Wq = I/g on each head's slice, Wk = I on the mean, all else 0, plus noise * N(0, 1) on
 * both; beta -6, br the logit of 1/4. ERR_ARG unless e = d. */
int gate_init(struct attn_params *p, double noise, uint64_t seed);

/* Drops context and distances that are all zero, so that they cost nothing. Call it when the values are final. */
void gate_seal(struct attn_params *p);

/* Do they fit this rank's heads? ERR_ARG naming what differs. */
int gate_check(const struct attn_params *p, const struct attn_shape *s);

/* Distance bucket of delta >= 0 blocks: 0, 1, then one a power of two; at most buckets - 1. */
int64_t gate_bucket(int64_t delta, int64_t buckets);

#endif
