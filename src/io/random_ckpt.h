/* Random checkpoints in Hugging Face's form, of any shape and size: for speed, memory and scaling, where weights' values do
 * not matter. Streams: little memory whatever the size. The same seed and shape give the same values on any machine. */
#ifndef AST_IO_RANDOM_CKPT_H
#define AST_IO_RANDOM_CKPT_H

#include <stdbool.h>
#include <stdint.h>

#include "io/safetensors.h"

struct random_shape { /* a llama: grouped-query attention, gated MLP, RMS norm, rotary positions */
    int64_t hidden, layers, heads, kv_heads, head_dim, mlp, vocab, positions;
    double rope_theta;
    bool tied;
};

struct random_ckpt {
    const char *folder;    /* made if it is not there; must hold no weights yet */
    const char *like;      /* copy names and shapes from this folder's weights and its config.json; NULL: from shape */
    const char *tokenizer; /* folder to copy the tokenizer's files from, or NULL */
    struct random_shape shape;
    enum st_dtype dtype; /* ST_BF16, ST_F16, ST_F32; ST_OTHER with like: as there */
    uint64_t seed;
    int64_t shards;
};

/* Shapes by name: "125m", "1.1b" and "tiny", for smoke tests. ERR_ARG lists them. */
int random_preset(struct random_shape *out, const char *name);

/* heads * head_dim and the like fit together, sizes are sane. ERR_ARG. */
int random_check(const struct random_shape *s);

/* Weights are near-normal (the sum of four uniform bytes) with mean 0 and deviation 0.02, norms 1, biases 0.
 * ERR_ARG, ERR_IO, ERR_FORMAT, ERR_NOMEM. */
int random_write(const struct random_ckpt *r, int64_t *n_params, size_t *bytes);

#endif
