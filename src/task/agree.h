/* A method against dense attention on texts given to it: prompts followed by the right answer, whose tokens are compared
 * one by one (model_compare). For tasks that generate: what they write differs, so it cannot be compared token by token. */
#ifndef AST_TASK_AGREE_H
#define AST_TASK_AGREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "task/task.h"

struct agree_text {
    const int32_t *prompt, *answer; /* (n,), (n_answer,) */
    int64_t n, n_answer;
};

/* Where a task keeps what this adds: indices into task_acc's n and s. */
struct agree_at {
    int tokens, same; /* counts: answer tokens compared; of these, most probable token equal to dense attention's */
    int kl, nll;      /* sums, in nats: of KL(dense || method); of the method's -ln p of the answer */
};
#define AGREE_COUNTS "compared_tokens", "same_top1"
#define AGREE_SUMS "kl", "answer_nll"

/* Adds to acc[k] what text k gives, k < c->n. Collective over the model's group. All memory from c->step: agree_bytes(). */
int agree_run(const struct task_call *c, const struct agree_text *text, const struct agree_at *at);
size_t agree_bytes(const struct model *m, int64_t n, int64_t tokens, int64_t longest);

/* kl_to_dense, top1_agreement and answer_perplexity with intervals over samples, or none of them if nothing was compared;
 * pair->b: the difference b - a of the last. Returns how many were written, at most AGREE_SCORES, or an error. */
enum { AGREE_SCORES = 3 };
struct agree_of {
    const struct agree_at *at;
    const struct task_pair *pair; /* (n,) each */
    const bool *missing;          /* (n,) or NULL */
    int64_t n;
    uint64_t seed;
};
int agree_score(const struct agree_of *of, struct task_score *out);

#endif
