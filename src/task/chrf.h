/* chrF and chrF++, as sacreBLEU 2.6.0 computes them: F over character (and word) n-grams, from additive counts.
 *   source   Popovic 2015, 2017; sacrebleu/metrics/chrf.py */
#ifndef AST_TASK_CHRF_H
#define AST_TASK_CHRF_H

#include <stdbool.h>
#include <stdint.h>

#include "task/ngram.h"

struct buf;

enum { CHRF_ORDERS = 8 };

struct chrf_opts {  /* zeroed: chrF2; word_order = 2: chrF++ */
    int char_order; /* 0: 6 */
    int word_order; /* 0 */
    double beta;    /* 0: 2 */
    bool keep_space, eps_smoothing;
};

struct chrf_stat { /* additive; orders: characters, then words */
    int64_t hyp[CHRF_ORDERS], ref[CHRF_ORDERS], match[CHRF_ORDERS];
};

/* Adds the counts of a segment against the reference that it is closest to (by F; the first on ties). Code points count as
 * characters. ERR_NOMEM. */
int chrf_add(struct chrf_stat *s, struct span hyp, const struct span *refs, int n_refs, const struct chrf_opts *o);
void chrf_sum(struct chrf_stat *a, const struct chrf_stat *b);
double chrf_score(const struct chrf_stat *s, const struct chrf_opts *o); /* per cent */

/* "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0" */
int chrf_signature(struct buf *out, int n_refs, const struct chrf_opts *o);

#endif
