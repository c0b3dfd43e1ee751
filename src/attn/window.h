/* Options of the sliding window: for training, which runs it with a backward pass. */
#ifndef AST_ATTN_WINDOW_H
#define AST_ATTN_WINDOW_H

#include "attn/attn.h"

struct window_opts {
    int64_t keep, sink; /* tokens kept: itself, those before it, the sinks; first tokens, kept by every query */
};
extern const struct attn_method attn_window, attn_dense;

#endif
