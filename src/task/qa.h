/* Scores of short answers: TriviaQA's official exact match and F1, and the variants that others publish under that name.
 *   source   mandarjoshi90/triviaqa evaluation/triviaqa_evaluation.py; Rajpurkar et al. 2016 (SQuAD);
 *            THUDM/LongBench metrics.py; lm-evaluation-harness tasks/triviaqa/default.yaml (version 3.0) */
#ifndef AST_TASK_QA_H
#define AST_TASK_QA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "task/ngram.h"

struct buf;

/* Appends the normal form of an answer. ERR_NOMEM.
 *   TriviaQA   _ becomes a blank; lower case; ASCII punctuation and U+2018 U+2019 U+00B4 become blanks; a, an, the go;
 *              words joined by single blanks
 *   SQuAD      (LongBench too) lower case; ASCII punctuation is deleted; a, an, the go; words joined by single blanks
 *   harness    lower case; ASCII punctuation is deleted */
int qa_normalise_triviaqa(const char *s, size_t n, struct buf *out);
int qa_normalise_squad(const char *s, size_t n, struct buf *out);
int qa_normalise_harness(const char *s, size_t n, struct buf *out);

struct qa_score { /* of one prediction against its aliases: the best alias for each number apart */
    bool em, em_squad, em_harness;
    bool contains; /* an alias, normalised as TriviaQA does, stands inside the normalised prediction */
    double f1, f1_squad;
    int64_t common, predicted, wanted; /* words of the alias with the best f1 */
};

/* The prediction is scored as it is; LongBench and the harness cut it first (qa_first_line, qa_cut). ERR_NOMEM. */
int qa_score(struct qa_score *out, struct span prediction, const struct span *aliases, int64_t n_aliases);

/* LongBench's post-processing: leading newlines away, the first line kept. */
struct span qa_first_line(struct span s);
/* Up to the first of the stop strings (n_stops of them), white space stripped: what generation until them gives. */
struct span qa_cut(struct span s, const char *const *stops, int n_stops);

/* Does one of the aliases, normalised as TriviaQA does, occur in the normalised text (as whole words)? For "has the answer
 * survived the truncation?". Negative: ERR_NOMEM. */
int qa_answer_in(struct span text, const struct span *aliases, int64_t n_aliases);

#endif
