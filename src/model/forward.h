/* The one forward pass: from tokens to the residual stream after the last layer.
 *
 *     layers outside, chunks of rows inside; the residual stream x (tokens, D) is all that lives through
 *
 *         x ──norm1──qkv──(q/k norm)──rope──┬─ keys, values of this layer ─┐
 *         │                                 └──── attention method ────────┤ one sequence's segment at a time
 *         ├──+── o ─────────────────────────────────────────────────────────┘
 *         ├──norm2──up──act──down──+
 */
#ifndef AST_MODEL_FORWARD_H
#define AST_MODEL_FORWARD_H

#include "model/cache.h"

struct forward {
    const struct model *m;
    const struct model_batch *b;
    struct model_cache *const *cache; /* (n_seq,) or NULL: keys and values of one layer, of one sequence, are enough */
    int64_t longest;                  /* of all sequences, what their caches hold counted in */
    struct timer *timer;              /* may be NULL */
    struct attn_stats *stats;         /* (layers,) or NULL */
    float *x;                         /* (tokens, D) out: the residual stream */
};

/* Fills f->x. Collective over the model's group. Takes at most forward_bytes() of step and keeps f->x's part of it.
 * ERR_NOMEM is a bug. */
int forward_run(struct forward *f, struct arena *step);

/* cached: keys and values are kept elsewhere. x is counted in. */
size_t forward_bytes(const struct model *m, int64_t tokens, int64_t longest, bool cached);

/* Before a pass: tokens within the vocabulary, positions within what is learned and what the caches take (ERR_ARG); *longest
 * as above. Room in the arena (ERR_NOMEM). Local. */
int model_check_batch(const struct model *m, const struct model_batch *b, struct model_cache *const *cache, int64_t *longest);
int model_check_room(const struct arena *step, size_t need);

#endif
