/* Which blocks a token keeps: the forced ones, and the best of the candidates within its budget. Pure.
 *
 *     0 | lo ............ hi | hi ....... own          keys of blocks 0 .. own, all complete but own
 *     sink    candidates       local and own
 *
 *   source   ../shared/reference/ast_reference.py sets, select */
#ifndef AST_ATTN_SELECT_H
#define AST_ATTN_SELECT_H

#include <stdbool.h>
#include <stdint.h>

#include "attn/attn.h"

enum select_budget { SELECT_TOKENS, SELECT_LEARNED, SELECT_TOP_P, SELECT_CANDIDATES };

struct select_rule {
    int64_t block, local; /* B; the last `local` tokens are always kept */
    int64_t window;       /* of the architecture: keys j > t - window only; 0: none */
    int64_t all_below;    /* tokens before this position keep everything */
    int budget;           /* enum select_budget */
    int64_t keep;         /* tokens kept, forced ones included; caps learned and top-p (0: no cap) */
    double top_p;         /* mass of softmax(scores) over the candidates */
    int64_t candidates;   /* SELECT_CANDIDATES: this many blocks beyond the forced ones */
};

struct select_set {
    int64_t token;
    int64_t first, own; /* blocks that are visible at all: first .. own */
    int64_t lo, hi;     /* candidates lo .. hi-1; block 0 is forced beside them if sink */
    bool sink;
    bool all;     /* keeps everything */
    int64_t most; /* candidates it may keep: exact for tokens and candidates, a cap for learned and top-p */
};

/* What can be said of token t before its scores are known. */
void select_sets(struct select_set *out, const struct select_rule *r, int64_t t);

/* Candidates to keep: s (hi - lo,) their scores, rho the learned fraction; work (hi - lo,) floats. */
int64_t select_count(const struct select_set *set, const struct select_rule *r, const float *s, float rho, float *work);

/* The kept blocks in ascending order: `chosen` holds n candidate offsets from lo, ascending. Returns how many.
 * list has room for own - first + 1. */
int64_t select_list(const struct select_set *set, const int32_t *chosen, int64_t n, int32_t *list);

/* Keys that the listed blocks show to the token. */
int64_t select_keys(const struct select_set *set, const struct select_rule *r, const int32_t *list, int64_t n);

#endif
