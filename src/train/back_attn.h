/* Attention of training, forward and backward, over one sequence in one layer: any mask that is a set of keys a row, weighted
 * or not, in tiles of queries and chunks of keys; nothing n x n is kept.
 *
 *     tile    (tokens of a unit) x (its query heads) = rows; a unit is what chooses a set of keys (attn/gate.h)
 *     chunk   up to 16 blocks of 16 keys: side by side in memory, or gathered when the tile has chosen them
 *     S = q k^T + ln m,  P = exp(S - lse),  dS = P (dO v^T - rowsum(dO O)),  dq = dS k,  dk = dS^T q,  dv = P^T dO
 *
 *   source   Dao et al. 2022 (FlashAttention) alg. 4 for the recomputation from lse; ../shared/reference/ast_reference.py attend */
#ifndef AST_TRAIN_BACK_ATTN_H
#define AST_TRAIN_BACK_ATTN_H

#include "attn/attn.h"
#include "attn/select.h"

struct arena;
struct attn_params;
struct pattern;
struct pattern_ops;
struct back_gate;

/* all that may be seen; weighted by the gate; the gate's choice; a fixed pattern (attn/pattern.h); a method's own passes */
enum back_mask { BACK_DENSE, BACK_SOFT, BACK_HARD, BACK_PATTERN, BACK_METHOD };

struct back_rule { /* which keys a token sees, and how much of them */
    enum back_mask mask;
    int64_t keep, sinks;               /* BACK_DENSE: a window of keep - sinks keys and the first sinks; keep 0: everything */
    struct select_rule select;         /* the others: forced blocks, candidates and budget */
    double temperature;                /* BACK_SOFT */
    double cut;                        /* BACK_SOFT: blocks whose ln m is below this for a whole tile are passed over; 0: none */
    int64_t summary;                   /* tokens a summary of what is not kept, 0: none */
    double density_grad;               /* added to d loss / d density of every (token, unit) */
    const struct pattern_ops *pattern; /* BACK_PATTERN, with the method's options */
    const struct attn_method *method;  /* BACK_METHOD: one with a backward pass; opts as well */
    const void *opts;
};

struct back_attn {
    const struct kern_table *kern;
    const struct attn_shape *shape;
    const struct back_rule *rule;
    struct back_gate *gate;   /* NULL: BACK_DENSE */
    int64_t n;                /* tokens */
    const float *q, *k, *v;   /* (n, H, d), (n, G, d), both rotated, (n, G, d) */
    float *out, *lse;         /* (n, H, d), (n, H): written by forward, read by backward */
    const float *dout;        /* (n, H, d) */
    float *dq, *dk, *dv;      /* like q, k, v: overwritten; dq NULL: only the gate's gradients are wanted */
    double kept, seen, flops; /* added to: blocks weighted by m, blocks that may be seen, over tokens and units; work done */
    struct arena *step;
};

/* Can a pattern be trained? ERR_ARG. */
int back_pattern_check(const struct back_rule *r, const struct attn_shape *s);

/* ERR_NOMEM. Takes at most back_attn_bytes() of a->step, given back on return; the same bits for the same number of threads. */
int back_attn_forward(struct back_attn *a);
int back_attn_backward(struct back_attn *a);
/* p NULL: no gate */
size_t back_attn_bytes(const struct attn_shape *s, const struct back_rule *r, int64_t n, const struct attn_params *p);

#endif
