/* Prompt templates: "Translate ...: '{source}'\n" and the like. */
#ifndef AST_TASK_PROMPT_H
#define AST_TASK_PROMPT_H

#include <stdbool.h>

#include "task/ngram.h"
#include "text/tok.h"

struct buf;
struct task_env;

struct prompt_slot {
    const char *name; /* "source" stands for {source} */
    struct span value;
};

/* Appends the template with its slots filled in; n_slots of them. An unknown {word} is ERR_ARG with those that there are. */
int prompt_fill(struct buf *out, struct span form, const struct prompt_slot *slots, int n_slots);

/* Starts a prompt: the model's BOS if it has one and bos asks for it. */
int prompt_begin(struct tok_ids *ids, const struct task_env *env, bool bos);

/* Takes ids from `from` into `to` (ERR_NOMEM). */
int prompt_append(struct tok_ids *to, const int32_t *from, int64_t n);

#endif
