/* What an open model holds: for src/model and for training, nobody else.
 *
 *     rank r of T:   qkv (q rows | k rows | v rows)   its heads         o     its columns
 *                    up  (gate rows | up rows)        its mlp columns   down  its columns
 *                    embed, head                      its vocabulary    norms, biases of o and down: whole */
#ifndef AST_MODEL_LAYER_H
#define AST_MODEL_LAYER_H

#include "base/arena.h"
#include "base/shared.h"
#include "kernels/linear.h"
#include "model/arch.h"

struct model_range {
    int64_t first, n;
};

struct model_cut { /* what this rank holds of the whole model */
    struct model_range heads, kv, mlp, vocab;
    bool sums; /* several ranks: partial results are added over the group */
};

struct model_layer {                              /* vectors are NULL where the architecture has none */
    float *norm1_w, *norm1_b, *norm2_w, *norm2_b; /* (D,) */
    struct kern_mat qkv;                          /* (H d + 2 G d, D) */
    float *qkv_b;                                 /* (H d + 2 G d,) */
    float *q_norm, *k_norm;                       /* (d,) */
    struct kern_mat o;                            /* (D, H d) */
    float *o_b;                                   /* (D,) */
    struct kern_mat up;                           /* (F, D), gated: (2 F, D) gate rows first */
    float *up_b;                                  /* (F,) or (2 F,) */
    struct kern_mat down;                         /* (D, F) */
    float *down_b;                                /* (D,) */
};

struct model {
    struct model_info info;
    struct model_shape shape;
    const struct model_arch *arch;
    struct model_cut cut;
    const struct comm_group *group; /* borrowed; NULL: one rank */
    const struct kern_table *kern;  /* borrowed */
    struct arena run;               /* all below but weights */
    struct arena weights;           /* this rank's own, or in what is shared */
    struct shared shared;           /* with other ranks of this machine */
    char *path;
    struct kern_mat embed, pos, head; /* (V, D) of this rank; (context, D); (V, D), tied: embed's data */
    float *norm_w, *norm_b;           /* (D,) */
    struct model_layer *layer;        /* (layers,) */
    float *rope_freq;                 /* (rot/2,) of sequences within the context */
    struct attn_shape *attn;          /* (layers,) this rank's heads */
    enum kern_dtype kv_dtype;
    const struct attn_method *method; /* borrowed, as are opts and params */
    const void *opts;
    const struct attn_params *params;
};

/* Which part of the whole rank `rank` of `size` holds: whole key/value groups while there are enough of them, else heads
 * with their keys and values replicated. ERR_ARG if it cannot be cut so. */
int model_cut_for(struct model_cut *out, const struct model_shape *s, int rank, int size, const char *path);

#endif
