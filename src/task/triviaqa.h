/* What the parts of the triviaqa task share: the dataset, the counts and the scores. */
#ifndef AST_TASK_TRIVIAQA_H
#define AST_TASK_TRIVIAQA_H

#include <stdbool.h>
#include <stdint.h>

#include "task/agree.h"
#include "task/decode.h"
#include "task/qa_set.h"
#include "task/task.h"
#include "base/buf.h"

enum triviaqa_cut { CUT_MIDDLE, CUT_END, CUT_START };

enum { TQA_EM, TQA_EM_SQUAD, TQA_EM_LMEVAL, TQA_SUB_EM, TQA_KEPT, TQA_PROMPT, TQA_TRUNCATED, TQA_NEW, TQA_COMPARED, TQA_SAME };
enum { TQA_F1, TQA_F1_SQUAD, TQA_F1_LONGBENCH, TQA_KL, TQA_ANSWER_NLL };
extern const struct agree_at triviaqa_agree;

struct triviaqa_plan {      /* of one sample */
    int64_t question;       /* tokens of the parts around the document, BOS included */
    int64_t document, kept; /* its tokens; those that fit */
};

struct task_set {
    struct qa_set *qa;
    struct triviaqa_plan *plan; /* (qa->n,) */
    const struct tok *tok;
    struct task_env env;
    char *before, *after; /* the template around {document} */
    struct decode_opts decode;
    enum triviaqa_cut cut;
    int form;
    bool bos, document; /* document: the template has one */
    bool compare;
    int64_t max_new, context, shots;
    struct buf examples; /* worked examples in front of the prompt */
    char shots_sha[9];   /* of the file that they come from */
    char name[128], domain[16];
};

/* task.score and task.compare: see task.h. Scores of all questions, then of those whose prompt has less than 1024, 2048,
 * 4096, ... tokens before anything is cut off ("f1@1k-2k"); classes without a question are left out. */
int triviaqa_score(const struct task_set *set, const struct task_acc *acc, const bool *missing, uint64_t seed,
                   struct task_score *out);
int triviaqa_compare(const struct task_set *set, const struct task_pair *pair, const bool *missing, uint64_t seed,
                     struct task_score *out);

#endif
