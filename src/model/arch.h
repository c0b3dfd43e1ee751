/* What an architecture is: data over one transformer (transformer.c). A file gives
 *   - the shape that config.json describes, read and checked, and
 *   - one list of its parameter tensors: their part in the transformer and their name in the checkpoint.
 * Loading, cutting over ranks, counting and `show` walk that list; nothing else names a parameter. */
#ifndef AST_MODEL_ARCH_H
#define AST_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "model/model.h"
#include "model/rope.h"

struct json_doc;

enum { MODEL_MAX_LAYERS = 1024, MODEL_MAX_EOS = 8 };

/* The sizes and switches of one transformer.
 *
 *   x = embed[token] (+ pos[t])
 *   each layer:  a = attention(norm1(x))     sequential: x += a, x += mlp(norm2(x))
 *                                            parallel:   x += a + mlp(norm2(x)), norm2 of the x before
 *   logits = head(norm(x)) */
struct model_shape {
    int64_t hidden, layers, heads, kv_heads, dim, mlp, vocab, context;
    enum model_norm norm;
    double eps;
    enum model_pos pos;
    enum model_act act;
    bool gated;    /* mlp: down(act(gate x) * up x), else down(act(up x)) */
    bool parallel; /* attention and mlp read the same x */
    bool qk_norm;  /* RMSNorm over each head of q and k, before the rotary embedding */
    bool qkv_bias, o_bias, mlp_bias, norm_bias;
    bool tied;                   /* the head is the embedding */
    int64_t window;              /* sliding window in keys, the token's own counted; 0: none */
    bool full[MODEL_MAX_LAYERS]; /* layers that do not use the window */
    bool unscaled;               /* logits of attention not divided by sqrt(dim) (gpt2: scale_attn_weights false) */
    bool scale_by_layer;         /* ... but by the layer's number too (gpt2) */
    struct rope rope;
    int64_t bos, eos[MODEL_MAX_EOS], n_eos; /* bos -1: none */
    const char *bos_from, *eos_from;        /* the file that says so; "" if none does */
};

/* The part a tensor plays; its extent and cut over ranks stand in weights.c, once. */
enum model_part {
    PART_EMBED,
    PART_POS,
    PART_HEAD,
    PART_NORM_W,
    PART_NORM_B,
    PART_NORM1_W, /* from here on: one a layer */
    PART_NORM1_B,
    PART_NORM2_W,
    PART_NORM2_B,
    PART_Q,
    PART_K,
    PART_V,
    PART_Q_B,
    PART_K_B,
    PART_V_B,
    PART_Q_NORM,
    PART_K_NORM,
    PART_O,
    PART_O_B,
    PART_GATE,
    PART_UP,
    PART_DOWN,
    PART_GATE_B,
    PART_UP_B,
    PART_DOWN_B,
    PART_COUNT
};

enum {
    TENSOR_TRANSPOSED = 1, /* (in, out) in the file: Conv1D */
    TENSOR_QKV_SIDE = 2,   /* one of [q | k | v] side by side along out */
    TENSOR_QKV_HEAD = 4    /* head 0 (q, k, v), head 1 (q, k, v), ... along out */
};

struct model_tensor {
    enum model_part part;
    const char *file; /* the checkpoint's name, after the prefix; %d is the layer */
    unsigned flags;
};

struct model_arch {
    const char *name;                   /* config.json's model_type */
    const char *class;                  /* architectures[0] */
    const char *family;                 /* one line for people: what is special about it */
    const char *prefix[3];              /* candidates, "" for none; NULL ends; the first under which the embedding is found */
    const char *head;                   /* name of the vocabulary projection, without prefix */
    const struct model_tensor *tensors; /* ends with .file = NULL */
    int (*shape)(const struct json_doc *config, struct model_shape *out); /* reads and checks; pure. ERR_FORMAT */
};

const struct model_arch *arch_at(int i); /* NULL past the end */

/* Reads config.json: which architecture, its shape; keys that change the mathematics and that we do not know are
 * refused. ERR_FORMAT with the key and what was expected. */
int config_shape(const struct json_doc *config, const struct model_arch **arch, struct model_shape *out);

/* eos_token_id (a token or a list) and bos_token_id of any of the two config files, with where they are from. */
int config_eos(const struct json_doc *d, struct model_shape *out);
/* generation_config.json beside it, where there is one: its eos go before config.json's, its bos stands in. ERR_FORMAT. */
int config_generation(const char *path, struct model_shape *s);

/* A line for each key that config_shape would refuse, for show; *n of them. ERR_NOMEM. */
struct buf;
int config_unsupported(const struct json_doc *d, struct buf *out, int *n);

/* For the architectures' shape(): the keys that the Llama family shares (sizes, norm, activation, tied, rope). */
int config_llama(const struct json_doc *config, struct model_shape *out, double def_theta);
/* hidden_act and its synonyms. key names it in errors. */
int config_act(const struct json_doc *config, const char *key, const char *def, enum model_act *out);
/* dim = hidden / heads, evenly. */
int config_dim(const struct json_doc *config, struct model_shape *out);
/* layer_types, else layers >= first use the window. */
int config_layer_types(const struct json_doc *config, struct model_shape *out, int64_t first);

#endif
