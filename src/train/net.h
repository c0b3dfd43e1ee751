/* A transformer to train: its weights in plain float matrices with a gradient beside each, the gates of AST, and one pass
 * forward and backward over a batch.
 *
 *     forward    x_0 = embed ── layer ── x_1 ── layer ── ... x_L ── head: loss, in chunks of rows
 *                kept: x_l, each layer's attention output, lse and tau; over a group what is between attention and MLP, too;
 *                the rest is computed anew, one layer at a time
 *     backward   dx_L ── layer's backward ── dx_{L-1} ... embed
 *
 * A fused matrix (q | k | v, gate | up) is one array; its parts point into it, one behind the other.
 *
 * Over a group of ranks each has whole key/value groups of heads with their gates, and columns of the MLP; embeddings, norms
 * and what is added behind a sum are on all of them, with the same values and gradients (train_param.shared). A layer sums
 * twice on the way forward (attention's output, MLP's), twice on the way back (the gradients of both inputs), and once for each
 * adapter. */
#ifndef AST_TRAIN_NET_H
#define AST_TRAIN_NET_H

#include "attn/gate.h"
#include "base/arena.h"
#include "model/layer.h"
#include "train/back_attn.h"
#include "train/params.h"

struct net_part {
    float *w, *g;       /* (rows, cols); g NULL: not trained */
    int64_t rows, cols; /* vectors: (n, 1) */
};

enum net_what { NET_GATES = 1, NET_NORMS = 2, NET_WEIGHTS = 4, NET_ADAPTERS = 8 }; /* what is trained; weights: and norms */

struct net_adapter { /* w = base + B A, A (rank, cols), B (rows, rank): Hu et al. 2021 (LoRA) */
    float *base, *a, *b, *ga, *gb;
    bool columns; /* over a group: A has this rank's columns, and B is whole; else A is whole, and B has its rows */
};

struct net_how {
    const char *path;               /* Hugging Face folder */
    const struct comm_group *group; /* ranks that share the net (below); NULL: one */
    const struct kern_table *kern;
    unsigned train;        /* enum net_what */
    int64_t rank;          /* of adapters */
    const char *gate;      /* gate file to start from, "" or NULL: an untrained start */
    bool gates;            /* has gates at all */
    unsigned gate_tensors; /* bit i: tensor i of attn/gate.h is trained, with NET_GATES */
    bool per_head;         /* an untrained start chooses for each query head */
    int64_t block;         /* tokens a block of an untrained start */
    double noise;          /* of an untrained start */
    double gate_lr;        /* factor of the learning rate for gates; 0: 1 */
    uint64_t seed;
};

struct net {
    struct model *model; /* as it was read: the teacher */
    const struct comm_group *group;
    struct model_shape own;          /* heads, kv_heads, mlp: of this rank */
    const struct model_shape *shape; /* own */
    const struct kern_table *kern;
    unsigned train;
    int64_t rank;
    struct net_part (*layer)[PART_COUNT];      /* (layers,) */
    struct net_part top[PART_COUNT];           /* embedding, positions, head (tied: the embedding's), last norm */
    struct net_adapter (*adapter)[PART_COUNT]; /* (layers,) or NULL */
    float *adapter_sum;                        /* the largest A or B */
    struct attn_params gate;                   /* this rank's units, all tensors there; layer NULL: no gates */
    struct attn_params all_gates;              /* of the whole group; gate points into it, the rest is as it began */
    struct gate_layer *gate_grad;              /* (layers,) NULL: not trained */
    bool (*gate_known)[GATE_TENSORS];          /* (layers,) trained, or read from a file: worth saving */
    struct train_params params;                /* top first, then layer by layer */
    int64_t *first_param;                      /* (layers + 1,) of each layer */
    struct arena run;
};

/* Collective over how->group. ERR_IO, ERR_FORMAT, ERR_ARG, ERR_NOMEM. */
int net_open(struct net **out, const struct net_how *how);
void net_close(struct net *n); /* NULL is fine */

/* After the parameters have changed: w of adapted matrices is made anew. */
void net_refresh(struct net *n);

struct net_step {
    const struct model_batch *b;
    const struct back_rule *rule; /* (layers,) */
    bool backward;                /* adds to gradients: d (ce sum of nll + kl sum of KL(teacher || net)) */
    double ce, kl;                /* kl > 0: the teacher is n->model with its own weights and dense attention */
    float *nll;                   /* (tokens,) or NULL: of scored tokens */
    void (*ready)(void *context, int64_t first, int64_t count); /* train/objective.h; NULL: not wanted */
    void *context;
    /* added to */
    double count, loss, divergence; /* scored tokens; sum of nll; sum of KL */
    double kept, seen;              /* density is kept / seen, over tokens, units and layers */
    double flops;
};

/* Takes at most net_step_bytes() of step and gives it back. Collective over the group: every rank has the whole batch, and
 * sums are those of all its heads. ERR_NOMEM, ERR_ARG. */
int net_step(struct net *n, struct net_step *s, struct arena *step);
size_t net_step_bytes(const struct net *n, const struct back_rule *rule, int64_t tokens, int64_t longest, bool teacher);

/* A tensor of the checkpoint by the file's name, in the file's layout: its value or its gradient, or NULL `out`: only whether
 * there is one. Whole nets only: one rank, or net_export's. ERR_ARG if not. */
int net_tensor(const struct net *n, const char *name, bool gradient, float *out);

/* Into a folder that exists, durably: gates.safetensors where there are gates, and, if weights were trained, model/: a Hugging
 * Face folder with every tensor of the original in float, config.json and the tokenizer's files. Collective over the group, its
 * rank 0 writes. ERR_IO, ERR_FORMAT, ERR_NOMEM. */
int net_export(const struct net *n, const char *folder);

#endif
