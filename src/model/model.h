/* A transformer checkpoint, opened and run. An architecture is data over one transformer (archs.def); weights are cut
 * over the ranks of a tensor-parallel group; the same code serves prefill, scoring and decoding. */
#ifndef AST_MODEL_MODEL_H
#define AST_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attn/attn.h"
#include "kernels/kern.h"

struct arena;
struct buf;
struct comm_group;
struct timer;
struct model;

enum model_pos { MODEL_POS_ROPE, MODEL_POS_LEARNED };
enum model_norm { MODEL_RMSNORM, MODEL_LAYERNORM };
enum model_act { MODEL_SILU, MODEL_GELU, MODEL_GELU_TANH, MODEL_RELU };

struct model_info { /* what was read, whole model (not this rank's part) */
    const char *arch, *path;
    int64_t hidden, layers, heads, kv_heads, dim, mlp, vocab, context; /* context: max_position_embeddings */
    int64_t parameters;
    int64_t bos, eos[8], n_eos;      /* -1: none */
    const char *bos_from, *eos_from; /* the file that says so: config.json or generation_config.json; "" if none does */
    int64_t window;                  /* sliding window, 0: none */
    bool tied;
    enum kern_dtype dtype; /* of the weights in memory */
    size_t weight_bytes;   /* this rank's */
    bool shared;           /* ... which other ranks of this machine read too, or may */
    char sha256[65];       /* fingerprint of the weight files and config.json */
    double flops_linear;   /* of one token through the linear layers (2 x weights), vocabulary projection apart */
    double flops_head;     /* of one token's vocabulary projection */
};

struct model_open {
    const char *path;               /* Hugging Face folder */
    enum kern_dtype dtype;          /* of the weights in memory */
    enum kern_dtype kv_dtype;       /* of keys and values */
    const struct comm_group *group; /* tensor parallel; NULL: one rank */
    const struct kern_table *kern;
    /* Rotary frequencies rounded to the checkpoint's type (config.json's dtype), as a PyTorch module has them that was cast
     * as a whole, .to(bfloat16) or .half(); false: in float, as from_pretrained leaves them. */
    bool rope_in_dtype;
    bool check_finite; /* refuse NaN and infinity in the weights (default on in jobs) */
    /* One copy of the weights, read-only, for all processes of this user on this machine that open the same files, cut and
     * packed alike; the numbers are the same. Where that is impossible, a copy of its own. Not for those who write weights. */
    bool share;
    size_t own_max; /* with share: bytes that a copy of its own may take at most; 0: any */
};

/* Reads config.json and weights (only this rank's slices). Local checks first, then agreement: all ranks get the model
 * or all an error. Collective over group. ERR_IO, ERR_FORMAT, ERR_NOMEM, ERR_PEER. */
int model_open(struct model **out, const struct model_open *how);
void model_close(struct model *m); /* NULL is fine */
const struct model_info *model_info(const struct model *m);

/* config.json and headers only: for plan and show. Local. */
int model_peek(struct model_info *out, const char *path);

/* Attention method for the calls that follow (borrowed; opts too). ERR_ARG if it cannot run on this model.
 * Collective over the group (in that every rank calls it alike). */
int model_set_attention(struct model *m, const struct attn_method *method, const void *opts, const struct attn_params *params);

/* Sequences side by side without padding: sequence s owns tokens at[s] .. at[s+1]-1. */
struct model_batch {
    int64_t n_seq;
    const int64_t *at;     /* (n_seq + 1,) */
    const int32_t *token;  /* (at[n_seq],) */
    const int32_t *target; /* (at[n_seq],) the token to predict after this one, < 0: not scored; NULL: none */
};

struct model_out {            /* every pointer may be NULL: not wanted */
    float *nll;               /* (tokens,) -ln p(target), 0 where not scored */
    int32_t *top1;            /* (tokens,) most probable next token where scored (lowest id on ties) */
    const int64_t *logit_row; /* rows (token indices, ascending) whose logits are wanted ... */
    int64_t n_logit_rows;
    float *logits;            /* ... (n_logit_rows, vocab) whole vocabulary on every rank */
    struct timer *timer;      /* seconds by phase are added */
    struct attn_stats *stats; /* (layers,) added to */
};

/* Scores the batch from scratch (no cache kept): one layer's keys and values at a time, so that memory does not grow
 * with the number of layers. Collective over the group. All memory from step: model_score_bytes(). */
int model_score(struct model *m, const struct model_batch *b, struct model_out *out, struct arena *step);
size_t model_score_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq);

/* The method that is set against dense attention on the same batch: scores it twice and compares the two distributions
 * (p dense, q the method's) of each token that has a target. Tokens without one keep what the arrays held.
 *   source   kl = sum p (ln p - ln q) = E_p[l_p - l_q] - lse_p + lse_q, in chunks of rows and of the vocabulary: no (tokens,
 *            vocab) matrix of either */
struct model_agree {
    float *nll, *dense_nll;     /* (tokens,) -ln q(target), -ln p(target) */
    int32_t *top1, *dense_top1; /* (tokens,) */
    float *kl;                  /* (tokens,) in nats, >= 0 */
    struct timer *timer;        /* as in model_out, or NULL; both passes */
    struct attn_stats *stats;   /* of the method's pass alone, or NULL */
};
/* Collective over the group; the method stays set. With dense set there is one pass, and kl is 0. */
int model_compare(struct model *m, const struct model_batch *b, struct model_agree *out, struct arena *step);
size_t model_compare_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq);

/* KV cache of one sequence in every layer, for generation. */
struct model_cache;
int model_cache_open(struct model_cache **out, struct model *m, int64_t max_tokens); /* ERR_NOMEM */
void model_cache_close(struct model_cache *c);
size_t model_cache_bytes(const struct model *m, int64_t max_tokens);
int64_t model_cache_len(const struct model_cache *c);
void model_cache_reset(struct model_cache *c);
/* Makes `to` hold what `from` holds, of the same model and method; their first `same` tokens are known to be equal and are
 * not copied again. ERR_ARG if it does not fit. Local. */
int model_cache_copy(struct model_cache *to, const struct model_cache *from, int64_t same);

/* Feeds each sequence's new tokens (any number each: prefill chunks and decode steps mix) after what its cache holds
 * and gives the logits of each sequence's last token: logits (n_seq, vocab). Collective over the group. */
int model_feed(struct model *m, struct model_cache *const *cache, const struct model_batch *b, float *logits, struct timer *timer,
               struct arena *step);
size_t model_feed_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq);

/* model_feed with more of struct model_out: logits (n_seq, vocab), timer and stats; the rest of it is not used. */
int model_advance(struct model *m, struct model_cache *const *cache, const struct model_batch *b, struct model_out *out,
                  struct arena *step);

/* A page for people: what was read, sizes, memory, what is unsupported. */
int model_describe(struct buf *out, const char *path);

#endif
