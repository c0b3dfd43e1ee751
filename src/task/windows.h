/* How a stream of tokens is cut into model inputs, and which predictions count. Pure arithmetic on positions.
 *
 *     x[-1]  x[0]  x[1]  ...  x[n-1]          x[-1] is the BOS token
 *     window: inputs x[at] .. x[at+len-1]; input i predicts x[at+i+1];
 *     the predictions of inputs first .. first+scored-1 count; bos: the first input is BOS instead of x[at] */
#ifndef AST_TASK_WINDOWS_H
#define AST_TASK_WINDOWS_H

#include <stdbool.h>
#include <stdint.h>

struct window {
    int64_t at, len, first, scored;
    bool bos;
    int32_t doc; /* whose tokens these are */
};
struct window_list {
    struct window *v;
    int64_t n, cap;
};
void windows_free(struct window_list *w);

/* Every function appends the windows of one stream of n tokens (positions begin .. begin+n-1 of x), in order. ERR_NOMEM;
 * ERR_ARG if the length is too small for the rule. */
struct window_rule {
    int64_t length;  /* inputs of a window at most */
    int64_t stride;  /* windows_strided, windows_overlap: how far a window moves */
    int64_t context; /* windows_rolling: context_len, 1 as a rule */
    bool bos;        /* a BOS token is put in front */
    int32_t doc;
};

/* Windows of `length` tokens side by side. Without BOS a window predicts its own tokens but its first; with BOS it is
 * BOS and then its first length-1 tokens, and all of its tokens are predicted. whole: drop a shorter last window. */
int windows_disjoint(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r, bool whole);

/* Windows that start `stride` apart; each predicts what none before it has, with at least length - stride tokens of
 * context (all but the first window).
 *   source   transformers docs/source/en/perplexity.md */
int windows_strided(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r);

/* lm-evaluation-harness: the first window is BOS and the first tokens; later ones are `length` inputs that end at the last
 * predicted token but one, and predict length - context + 1 tokens; the last one is full too, with more context.
 * Without BOS the first token takes its place: it is context and not predicted.
 *   source   lm_eval/utils.py get_rolling_token_windows */
int windows_rolling(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r);

/* llama.cpp's perplexity: windows side by side, the tail dropped, the first token overwritten by BOS; predictions of
 * inputs length/2 .. length-2 count. ERR_ARG if there are fewer than 2 * length tokens.
 *   source   llama.cpp tools/perplexity */
int windows_second_half(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r);

/* Megatron's overlapping evaluation: windows start `stride` apart and predict the next token of each input; of all but
 * the first window only the last `stride` count.
 *   source   Megatron-LM tasks/zeroshot_gpt/datasets.py */
int windows_overlap(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r);

#endif
