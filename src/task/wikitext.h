/* What the parts of the wikitext task share: the protocols, the counts and the scores. */
#ifndef AST_TASK_WIKITEXT_H
#define AST_TASK_WIKITEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "task/corpus.h"
#include "task/task.h"
#include "task/windows.h"

/* In the order of the option's choices.
 *   disjoint    the text as one stream of tokens, in windows of `length` side by side; each window predicts its own tokens
 *               but the first, which nothing comes before (with a BOS in front: all of them)
 *   strided     the same stream, windows `stride` apart, each token predicted once with length - stride tokens before it
 *   lm-eval     articles, detokenised, lm-evaluation-harness's rolling windows; word, byte and bit denominators
 *   hf-strided  the recipe of the transformers documentation: rows joined by blank lines, weights v-1
 *   gptq        rows joined by blank lines, whole windows only: the number of quantisation papers
 *   megatron    detokenised stream, next-token windows; perplexity adjusted to words
 *   llamacpp    whole windows of the plain file, their second half scored */
enum ppl_protocol { PPL_DISJOINT, PPL_STRIDED, PPL_LM_EVAL, PPL_HF_STRIDED, PPL_GPTQ, PPL_MEGATRON, PPL_LLAMACPP, PPL_PROTOCOLS };

enum { PPL_TOKENS, PPL_TOP1, PPL_WORDS, PPL_BYTES, PPL_DOCUMENTS, PPL_HF_TOKENS, PPL_SAME, PPL_N_COUNTS };
enum { PPL_NLL, PPL_NLL2, PPL_HF_NLL, PPL_KL, PPL_N_SUMS };

struct task_set {
    struct corpus *corpus;
    struct window_list windows;
    enum ppl_protocol protocol;
    const char *name; /* of the protocol */
    const char *bos;  /* for the signature: "none", "single", ... */
    char data[256];   /* base names of the files */
    char tok_sha[65];
    int32_t bos_id;
    bool detok;
    bool compare; /* each window goes through dense attention as well */
    int64_t length, stride, limit;
};

/* task.score: see task.h. Intervals are over documents (lm-eval) or windows, 1000 replicates. */
int ppl_score(const struct task_set *set, const struct task_acc *acc, const bool *missing, uint64_t seed, struct task_score *out);
/* Paired differences b - a; see task.h. */
int ppl_compare(const struct task_set *set, const struct task_pair *pair, const bool *missing, uint64_t seed,
                struct task_score *out);

#endif
