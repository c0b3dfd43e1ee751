/* Greedy continuation of many prompts at once through KV caches.
 *
 *     prompt A  [chunk][chunk][rest]  a1 a2 a3 ...      each feed takes what every sequence has ready: a chunk of a long
 *     prompt B  [all]  b1 b2 b3 b4 ...                  prompt beside single tokens of those that decode already
 *
 * A sequence ends at an EOS id, at a stop string in its decoded text (which is cut off), or after max_new tokens. */
#ifndef AST_TASK_GENERATE_H
#define AST_TASK_GENERATE_H

#include <stddef.h>
#include <stdint.h>

#include "text/tok.h"

struct arena;
struct attn_stats;
struct buf;
struct model;
struct timer;

enum { GENERATE_CHUNK = 1024 }; /* prompt tokens in one feed, all sequences together, at most (decoding tokens not counted) */

struct generate_seq {
    const int32_t *prompt; /* (n,) n >= 1 */
    int64_t n, max_new;
    struct buf *text; /* the continuation is appended; special tokens left out */
    int64_t made;     /* tokens generated, EOS included */
};

struct generate_call {
    struct model *model;
    const struct tok *tok;
    struct generate_seq *seq; /* (n_seq,) */
    int64_t n_seq;
    const char *const *stop; /* (n_stop,) */
    int n_stop;
    const int64_t *eos; /* (n_eos,) */
    int64_t n_eos;
    struct timer *timer;      /* or NULL */
    struct attn_stats *stats; /* (layers,) added to, or NULL */
    struct arena *step;
};

/* Collective over the model's group. ERR_NOMEM, ERR_ARG (an empty prompt). */
int generate_greedy(struct generate_call *c);

/* Memory of n_seq sequences with `tokens` prompt tokens together, none longer than `longest` with what is generated. */
size_t generate_bytes(const struct model *m, int64_t n_seq, int64_t tokens, int64_t longest);

#endif
