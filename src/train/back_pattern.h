/* Fixed patterns as masks: which keys of each block of 16 a token sees. */
#ifndef AST_TRAIN_BACK_PATTERN_H
#define AST_TRAIN_BACK_PATTERN_H

#include "attn/pattern.h"
#include "train/back_attn.h"

/* Query heads of a unit: a KV head's where all heads of the layer have one pattern, else 1. */
int64_t back_pattern_heads(const struct back_rule *r, const struct attn_shape *s);
/* Room for the picked blocks of a token. */
int64_t back_pattern_picks(const struct back_rule *r, const struct attn_shape *s);

/* bits (t / 16 + 1,): bit j of bits[b]: token t of rank's head h sees key 16 b + j. picked: room as above. */
void back_pattern_token(const struct back_rule *r, const struct attn_shape *s, const int64_t head_token[2], uint16_t *bits,
                        int32_t *picked);

#endif
