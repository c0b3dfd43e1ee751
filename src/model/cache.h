/* Keys and values of sequences: one layer's, reused (scoring), or every layer's, kept (generation). */
#ifndef AST_MODEL_CACHE_H
#define AST_MODEL_CACHE_H

#include "model/layer.h"

struct model_cache {
    const struct model *model;
    const struct attn_method *method; /* the one whose state is kept */
    int64_t max, len;                 /* tokens */
    struct arena arena;
    struct kern_kv *kv; /* (layers, G) */
    unsigned char *state;
    size_t state_each; /* bytes of one layer's state */
};

/* Keys, values and method state of one layer for sequences of at most max tokens, in `to`; to NULL: only counts the
 * bytes. *kv (G,), *state NULL if the method keeps none. ERR_NOMEM. */
int cache_layer(struct arena *to, const struct model *m, int64_t max, struct kern_kv **kv, unsigned char **state, size_t *bytes);

size_t cache_state_bytes(const struct model *m, int64_t max); /* of one layer, as the method says */

#endif
