/* Reformer's gradient. What the buckets hold is a constant of the step, as the paper trains it. */
#ifndef AST_ATTN_REFORMER_GRAD_H
#define AST_ATTN_REFORMER_GRAD_H

#include "attn/attn.h"

int reformer_backward(struct attn_grad *g);
size_t reformer_backward_bytes(const void *opts, const struct attn_shape *s, int64_t n);

#endif
