/* How a continuation is decoded: the most probable token, drawn tokens, or beam search; the options that every generating
 * task has, and drawing itself. Pure. */
#ifndef AST_TASK_DECODE_H
#define AST_TASK_DECODE_H

#include <stdint.h>

#include "cfg/cfg.h"

struct buf;

enum { DECODE_BEAMS = 64 }; /* at most */

enum decode_end { DECODE_ESTIMATE, DECODE_NEVER, DECODE_FIRST };

/* Put it first in a task's options: the table below has offsets in this struct.
 *   source   beam search as transformers defines it (GenerationConfig num_beams, length_penalty, early_stopping);
 *            Wu et al. 2016 for the length penalty's place, fairseq for its form, sum / length ^ penalty */
struct decode_opts {
    double temperature, top_p, length_penalty;
    int64_t top_k, beam;
    int beam_end; /* enum decode_end */
};

/* clang-format off */
#define DECODE_FIELDS \
    CFG_REAL(struct decode_opts, temperature, 0, 0, 100, "0: the most probable token; above: tokens are drawn at this temperature"), \
    CFG_INT(struct decode_opts, top_k, 0, 0, 1e9, "draw among this many most probable tokens; 0: all"), \
    CFG_REAL(struct decode_opts, top_p, 1, 0, 1, "draw among the fewest most probable tokens that have this probability together"), \
    CFG_INT(struct decode_opts, beam, 1, 1, DECODE_BEAMS, "width of beam search; 1: none"), \
    CFG_REAL(struct decode_opts, length_penalty, 1, -10, 10, "beam: a hypothesis is worth its sum of log-probabilities / its length ^ this"), \
    CFG_ENUM(struct decode_opts, beam_end, DECODE_ESTIMATE, "estimate|never|first", \
             "beam: stop when no live beam is worth more at its present length | at the greatest length (slow, exact) | at the first full set")
/* clang-format on */

int decode_check(const struct decode_opts *o); /* ERR_ARG: options that exclude each other */
int decode_signature(const struct decode_opts *o,
                     struct buf *out); /* "greedy", "sample(t=0.7,k=50,p=0.9)", "beam(4,lp=1,estimate)" */

int32_t decode_best(const float *logits, int64_t vocab); /* lowest id among equals; NaN never wins */

struct decode_token {
    float logit;
    int32_t id;
};

/* The token at u (uniform in [0, 1)) of the distribution: logits / temperature, then the top_k largest, then the fewest of
 * these whose probabilities, renormalised, reach top_p (as transformers orders them); equals rank by id. What is kept is
 * walked from the most probable down, or by id if nothing was left out. work: (vocab,). */
int32_t decode_draw(const struct decode_opts *o, const float *logits, int64_t vocab, double u, struct decode_token *work);

/* The n best tokens in order (equals by id); NaN and -INFINITY are left out. Returns how many there are, at most n. */
int64_t decode_top(const float *logits, int64_t vocab, int64_t n, struct decode_token *out);

#endif
