/* Performer's gradient. Its random directions are constants. */
#ifndef AST_ATTN_PERFORMER_GRAD_H
#define AST_ATTN_PERFORMER_GRAD_H

#include "attn/attn.h"

int performer_backward(struct attn_grad *g);
size_t performer_backward_bytes(const void *opts, const struct attn_shape *s, int64_t n);

#endif
