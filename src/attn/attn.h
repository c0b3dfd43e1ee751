/* Attention methods: which keys each token attends to, and how. One const struct a method, one line in methods.def.
 *
 * A method works on one sequence in one layer, on this rank's heads, a chunk of consecutive tokens at a time. Prefill is
 * a series of chunks and decode a chunk of one token, through the same code, so that both agree:
 *
 *     keys and values   0 ......... pos | pos ... pos+n-1 |        the chunk's own are already stored
 *     state             features of 0 .. pos-1 | run() adds the chunk's
 *
 * It never sees MPI. Letters: H query heads, G KV heads, d head width, D hidden width (all of this rank). */
#ifndef AST_ATTN_ATTN_H
#define AST_ATTN_ATTN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kern.h"

struct arena;
struct cfg_field;
struct attn_stats;

struct attn_shape {
    int64_t heads, kv_heads, dim, hidden; /* H, G, d, D */
    int64_t head0, kv_head0;              /* model-wide index of this rank's first */
    int64_t layer, n_layers;
    float scale;            /* of the logits: 1/sqrt(d) unless the architecture says otherwise */
    int64_t window;         /* the architecture's own sliding window, 0: none; every method must respect it */
    int64_t rot;            /* rotated dims; 0: no rotary embedding */
    double rope_theta;      /* for predictors that rotate their own projections */
    const float *rope_freq; /* (rot/2,) radians a position, scaling included; NULL without rotary embedding */
};

struct attn_params; /* learned gate weights, attn/gate.h; NULL unless a gate file was given */

struct attn_call {
    const struct attn_method *method;
    const void *opts;
    const struct attn_shape *shape;
    const struct attn_params *params;
    struct kern_kv *kv;         /* (G,) keys and values 0 .. pos+n-1, the chunk's own included */
    const struct kern_kv *then; /* (G,) a hint: those of the sequence that this thread attends for next, or NULL */
    void *state;                /* state_bytes() bytes, zeroed at the start of the sequence; NULL if 0 */
    int64_t pos, n;             /* the chunk's tokens */
    const float *q;             /* (n, H, d) rotated */
    const float *q0, *k0;       /* (n, H, d), (n, G, d) before rotation; NULL unless ATTN_NEEDS_RAW */
    const float *k, *v;         /* (n, G, d) rotated keys; values */
    const float *x;             /* (n, D) the layer's normed input; NULL unless ATTN_NEEDS_RAW */
    float *out;                 /* (n, H, d) */
    float *lse;                 /* (n, H) natural log, or NULL */
    const struct kern_table *kern;
    struct arena *step;
    struct attn_stats *stats; /* counters to add to, or NULL */
};

/* What a chunk costs, for the scheduler and the roofline. pairs: query-key pairs scored, over all heads. */
struct attn_cost {
    double flops, bytes, pairs;
};

/* The gradient over a whole sequence: call.pos = 0, n all its tokens, out and lse as run() left them, state zeroed again. */
struct attn_grad {
    struct attn_call *call;
    const float *dout;   /* (n, H, d) gradient of out */
    float *dq, *dk, *dv; /* like q, k, v of the call: overwritten */
};

enum attn_cap {
    ATTN_CAUSAL = 1,    /* strictly: token t+1 changes nothing at <= t */
    ATTN_EXACT = 2,     /* equals dense attention */
    ATTN_LEARNED = 4,   /* takes gate weights; without them it runs untrained, or its check() says no */
    ATTN_NEEDS_RAW = 8, /* reads q0, k0, x */
    ATTN_ALL_PAIRS = 16 /* sees every pair, though not exactly (features of a kernel): no density, compare by flops */
};

struct pattern_ops;

struct attn_method {
    const char *name;    /* the word in a job */
    const char *cite;    /* what stands under a plot */
    const char *summary; /* one line for --help */
    unsigned caps;
    const struct cfg_field *fields; /* NULL: no options */
    size_t opts_size;
    /* Can it run on this shape? ERR_ARG with what is wrong. NULL: always. */
    int (*check)(const void *opts, const struct attn_shape *s);
    /* Bytes of state for one sequence of at most max_tokens in one layer. NULL: none. */
    size_t (*state_bytes)(const void *opts, const struct attn_shape *s, int64_t max_tokens);
    /* Upper bound of what run() takes from the step arena for a chunk of n tokens at up to max_tokens. */
    size_t (*scratch)(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens);
    /* ERR_NOMEM is a bug (scratch was wrong). Same bits for any number of threads and any cut into chunks. */
    int (*run)(struct attn_call *c);
    void (*cost)(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out);
    const struct pattern_ops
        *pattern; /* its fixed mask as data (attn/pattern.h): training has a backward pass for it. NULL: none */
    /* The gradient of run(), for methods that are no fixed mask: what chooses (hashes, random directions) is a constant. Takes at
     * most backward_bytes() of the step arena; the same bits for the same number of threads. ERR_NOMEM. Both NULL: none. */
    int (*backward)(struct attn_grad *g);
    size_t (*backward_bytes)(const void *opts, const struct attn_shape *s, int64_t n);
};

const struct attn_method *attn_find(const char *name); /* NULL: unknown */
const struct attn_method *attn_at(int i);              /* NULL past the end */
int attn_unknown(const char *name);                    /* ERR_ARG naming the nearest and the list */

/* OpenMP threads for a call of `items` parts and so many products (query-key pairs times head width): one where waking others
 * costs more than they give, as for a decoded token of a short sequence. */
int attn_threads(double products, int64_t items);

/* Counters that methods add to as they run: additive over chunks, sequences and ranks. Indexed by this rank's
 * (layer, head) or (layer) by whoever owns them. */
struct attn_stats {
    double pairs_seen, pairs_causal;             /* (token, head) pairs attended / allowed by causality */
    double tile_dense, tile_blocks, tile_gather; /* query tiles by strategy */
    double select_s;                             /* seconds choosing keys */
    void *more;                                  /* attn/sparsity.h, NULL unless detailed statistics are on */
};

#endif
