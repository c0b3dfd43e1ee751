/* Attention of training by a method's own passes (attn/attn.h: backward), for methods that are no mask over tiles. The way
 * forward is the very one that evaluation runs. */
#ifndef AST_TRAIN_BACK_METHOD_H
#define AST_TRAIN_BACK_METHOD_H

#include "train/back_attn.h"

/* As back_attn_forward and back_attn_backward, which call them. ERR_NOMEM. */
int back_method_run(struct back_attn *a, bool backward);
size_t back_method_bytes(const struct attn_shape *s, const struct back_rule *r, int64_t n);

#endif
