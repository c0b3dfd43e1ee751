/* Continuations of many prompts at once through KV caches: greedy, drawn or by beam search (decode.h).
 *
 *     prompt A  [chunk][chunk][rest]  a1 a2 a3 ...      each feed takes what every sequence has ready: a chunk of a long
 *     prompt B  [all]  b1 b2 b3 b4 ...                  prompt beside single tokens of those that decode already
 *
 * A sequence ends at an EOS id, at a stop string in its decoded text (which is cut off), or after max_new tokens. What a
 * sequence becomes does not depend on the others of its batch: token `position` of sequence `id` is drawn with a random
 * number that is a function of (seed, id, position) alone. */
#ifndef AST_TASK_GENERATE_H
#define AST_TASK_GENERATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tok.h"

struct arena;
struct attn_stats;
struct buf;
struct decode_opts;
struct model;
struct timer;

enum { GENERATE_CHUNK = 1024 }; /* prompt tokens in one feed, all sequences together, at most (decoding tokens not counted) */

struct generate_seq {
    const int32_t *prompt; /* (n,) n >= 1 */
    int64_t n, max_new;
    int64_t id;          /* key of its random numbers: the sample's number in the dataset */
    struct buf *text;    /* the continuation is appended, special tokens left out; NULL: not wanted */
    struct tok_ids *ids; /* its ids are appended, EOS left out, stop strings not cut off; NULL: not wanted */
    int64_t made;        /* out: tokens generated, EOS included */
    double first_s;      /* out: seconds from the call to its first token */
    double score;        /* out, beam search: what the best hypothesis is worth */
};

struct generate_call {
    struct model *model;
    const struct tok *tok;
    struct generate_seq *seq; /* (n_seq,) */
    int64_t n_seq;
    const struct decode_opts *how; /* NULL: greedy */
    uint64_t seed;
    const char *const *stop; /* (n_stop,) */
    int n_stop;
    const int64_t *eos; /* (n_eos,) */
    int64_t n_eos;
    struct timer *timer;      /* or NULL */
    struct attn_stats *stats; /* (layers,) added to, or NULL */
    struct arena *step;
    double begin_s; /* set by the call */
};

/* Collective over the model's group. ERR_NOMEM, ERR_ARG (an empty prompt). */
int generate_run(struct generate_call *c);

/* Beam search even if its width is 1 (generate_run decodes greedily then). Collective; errors as above.
 *
 * At each step the 2K best continuations of a sequence's live beams (K of them) are taken in order of their sums of
 * log-probabilities (equals: the better beam, then the lower id). One that ends (EOS or a stop string) becomes a finished
 * hypothesis if it is among the first K, others live on until there are K. A hypothesis is worth sum / length ^ penalty,
 * EOS counted; the K best are kept, and when they cannot be bettered (decode_opts.beam_end) or max_new is reached (live
 * beams count as finished then) the best one is the result.
 *   source   transformers generation/beam_search.py (BeamSearchScorer.process, BeamHypotheses.is_done) */
int generate_beam(struct generate_call *c);

/* Memory of n_seq sequences with `tokens` prompt tokens together, none longer than `longest` with what is generated. */
size_t generate_bytes(const struct model *m, const struct decode_opts *how, int64_t n_seq, int64_t tokens, int64_t longest);

/* ---- what generate.c and beam.c share ---- */

bool generate_is_eos(const struct generate_call *c, int32_t id);
/* Does a stop string end within the text of these ids? Looks at the last few only. */
int generate_stops(const struct generate_call *c, const int32_t *ids, int64_t n, bool *out);
/* Gives the sequence its text (up to the first stop string) and ids. */
int generate_hand_over(const struct generate_call *c, struct generate_seq *q, const int32_t *ids, int64_t n);

struct generate_step { /* one feed */
    struct model_cache **cache;
    int64_t *at, *who; /* (parts + 1,), (parts,) sequence of each part */
    int32_t *token;
    float *logits;             /* (parts, vocab) */
    struct decode_token *work; /* (vocab,) */
    int64_t n, budget;         /* parts so far; prompt tokens that still fit */
};
/* Room for n_seq sequences of `width` parts each. ERR_NOMEM. */
int generate_step_open(struct generate_step *s, const struct generate_call *c, int64_t width);
void generate_step_begin(struct generate_step *s);
/* Adds the next chunk of a prompt of which *fed tokens are through; raises *fed. */
void generate_step_prompt(struct generate_step *s, const struct generate_seq *q, int64_t *fed, struct model_cache *cache,
                          int64_t who);
void generate_step_token(struct generate_step *s, int32_t token, struct model_cache *cache, int64_t who);
int generate_step_feed(struct generate_step *s, const struct generate_call *c);

#endif
