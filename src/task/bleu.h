/* BLEU, exactly as sacreBLEU 2.6.0 computes it. Everything that is summed is an integer, so that a corpus score is the same
 * to the last bit whatever the order and the number of ranks.
 *   source   Papineni et al. 2002; Post 2018; sacrebleu/metrics/bleu.py, tokenizers/tokenizer_13a.py */
#ifndef AST_TASK_BLEU_H
#define AST_TASK_BLEU_H

#include <stdbool.h>
#include <stdint.h>

#include "task/ngram.h"

struct buf;

enum { BLEU_ORDERS = 8 };
enum bleu_tok { BLEU_13A, BLEU_TOK_NONE, BLEU_CHAR };
enum bleu_smooth { BLEU_EXP, BLEU_FLOOR, BLEU_ADD_K, BLEU_SMOOTH_NONE };

struct bleu_opts { /* zeroed: the defaults, nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp */
    enum bleu_tok tok;
    enum bleu_smooth smooth;
    double smooth_value; /* 0: the default of the method: 0.1 of floor, 1 of add-k; < 0: zero */
    int order;           /* 0: 4 */
    bool lowercase, effective;
};

struct bleu_stat { /* additive */
    int64_t correct[BLEU_ORDERS], total[BLEU_ORDERS], sys_len, ref_len;
};

struct bleu {
    double score, bp, precision[BLEU_ORDERS]; /* per cent; brevity penalty */
};

/* Appends the tokens of a segment, joined by single spaces. ERR_NOMEM. */
int bleu_tokenise(struct buf *out, const char *s, size_t n, const struct bleu_opts *o);

/* Adds a segment's counts. The reference length is the one closest to the hypothesis's, the shorter on ties. ERR_NOMEM. */
int bleu_add(struct bleu_stat *s, struct span hyp, const struct span *refs, int n_refs, const struct bleu_opts *o);
void bleu_sum(struct bleu_stat *a, const struct bleu_stat *b); /* a += b */

void bleu_score(struct bleu *out, const struct bleu_stat *s, const struct bleu_opts *o);

/* "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0" */
int bleu_signature(struct buf *out, int n_refs, const struct bleu_opts *o);
/* "= 20.8 54.4/26.6/14.9/8.7 (BP = 1.000 ratio = 1.026 hyp_len = 62880 ref_len = 61287)" */
int bleu_line(struct buf *out, const struct bleu_stat *s, const struct bleu_opts *o);

#endif
