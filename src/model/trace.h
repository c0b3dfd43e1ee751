/* What a token attends to, under any attention method: its attention is asked for again with values that name their keys.
 *
 *     out = sum_j p_j v_j      with v_j = e_(j - j0) for the keys j0 .. j0+d-1 and 0 for others:  out = (p_j0 ... p_(j0+d-1))
 *
 * Keys, queries and the method's state are the real ones, so that what is selected is, too. A method that sees keys through
 * stored values (summaries) shows them under the real values: their part of the attention is missing here. */
#ifndef AST_MODEL_TRACE_H
#define AST_MODEL_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

/* Feeds the tokens one by one after what the cache holds: mass (n, ld), mass[i][j] the attention of token i on key j, mean over
 * layers and heads; 0 beyond itself. ld >= tokens in the cache at the end. Costs keys / d attention calls a token and layer.
 * Collective over the model's group. All memory from step: trace_bytes(). ERR_ARG, ERR_NOMEM. */
struct trace {
    const int32_t *token; /* (n,) */
    int64_t n, ld;
    float *mass; /* (n, ld) out */
};
int trace_run(struct model *m, struct model_cache *cache, struct trace *t, struct arena *step);
size_t trace_bytes(const struct model *m, int64_t max_tokens);

#endif
