/* From the residual stream to the vocabulary: final norm, projection, cross-entropy; in chunks of rows and of the
 * vocabulary, so that no (tokens, vocab) matrix ever exists; each rank has its part of the vocabulary. */
#ifndef AST_MODEL_HEAD_H
#define AST_MODEL_HEAD_H

#include "model/layer.h"

/* nll and top1 of the tokens that have a target. x (tokens, D): the residual stream after the last layer.
 * Collective over the model's group. Takes at most head_bytes() of step. ERR_NOMEM is a bug. */
int head_score(const struct model *m, const float *x, const struct model_batch *b, struct model_out *out, struct arena *step);

/* logits (n, vocab), whole on every rank, of the rows row[0 .. n-1] of x. Collective. */
int head_logits(const struct model *m, const float *x, const int64_t *row, int64_t n, float *logits, struct timer *timer,
                struct arena *step);

size_t head_bytes(const struct model *m);

#endif
