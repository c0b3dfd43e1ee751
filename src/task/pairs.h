/* Which words of a prompt the generated words attend to: the pairs that carry most attention.
 *
 *     prompt        ... 'The quick brown ...        tokens joined to words: white space and punctuation begin a new one
 *     generated     Der schnelle braune ...         a token's attention is that of the row that produced it: the row of the
 *                                                   token before, whose output it was
 *
 * The share of a pair is the attention on all tokens of the prompt's word (mean over layers and heads), mean over the tokens
 * of the generated word. The prompt's first token, where attention rests that has nothing to look for (the sink), the row's
 * own token and words without a letter or digit are left out. */
#ifndef AST_TASK_PAIRS_H
#define AST_TASK_PAIRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct arena;
struct model;
struct tok;
struct tok_ids;

struct pair_word {
    int64_t first, n; /* tokens of the prompt, or of what was generated */
    struct buf text;
    bool named; /* has a letter or digit */
};

struct pair {
    int64_t generated, prompt; /* indices of words */
    double share;
};

struct pairs {
    struct pair_word *generated, *prompt;
    int64_t n_generated, n_prompt;
    struct pair *best; /* (n,) descending */
    int64_t n;
};

struct pairs_call {
    struct model *model; /* with its attention method */
    const struct tok *tok;
    const struct tok_ids *prompt, *made;
    int64_t most; /* pairs wanted */
    struct arena *step;
};

/* Feeds prompt and continuation once more. A generated word has one pair at most. Collective over the model's group.
 * ERR_NOMEM, ERR_ARG. */
int pairs_find(struct pairs *out, const struct pairs_call *c);
void pairs_free(struct pairs *p); /* a zeroed one is fine */
size_t pairs_bytes(const struct model *m, int64_t prompt, int64_t made);

#endif
