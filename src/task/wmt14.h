/* What the parts of the wmt14 task share: the dataset, the counts and the scores. */
#ifndef AST_TASK_WMT14_H
#define AST_TASK_WMT14_H

#include <stdbool.h>
#include <stdint.h>

#include "task/agree.h"
#include "task/decode.h"
#include "task/lines.h"
#include "task/task.h"
#include "text/tok.h"

enum {
    CHRF_N = 6,
    N_CORRECT = 0,
    N_TOTAL = 4,
    N_HYP = 8,
    N_REF,
    N_PROMPT,
    N_NEW,
    N_CHRF,
    N_COMPARED = N_CHRF + 3 * CHRF_N,
    N_SAME
};
extern const struct agree_at wmt14_agree;

struct task_set {
    struct lines source, reference;
    struct tok_ids ids;     /* the prompts, one after the other */
    int64_t *at, n;         /* (n + 1,) */
    struct tok_ids *answer; /* (n,) the references, if they are compared */
    int64_t longest_answer; /* tokens */
    int64_t max_new, context, shots;
    bool compare;
    struct decode_opts decode;
    char shots_sha[2][9]; /* of the files that examples come from */
    char name[128];
};

/* task.score and task.compare: see task.h. BLEU, chrF2 and the ratio of lengths over the corpus, intervals over sentences. */
int wmt14_score(const struct task_set *set, const struct task_acc *acc, const bool *missing, uint64_t seed, struct task_score *out);
int wmt14_compare(const struct task_set *set, const struct task_pair *pair, const bool *missing, uint64_t seed,
                  struct task_score *out);

#endif
