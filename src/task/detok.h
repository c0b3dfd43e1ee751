/* WikiText's detokeniser, as lm-evaluation-harness applies it before its wikitext task: " @-@ " becomes "-", blanks before
 * full stops go, and so on. Order and quirks are kept, for every published word perplexity has gone through them.
 *   source   lm-evaluation-harness, tasks/wikitext/preprocess_wikitext.py (version 2.0 of the task) */
#ifndef AST_TASK_DETOK_H
#define AST_TASK_DETOK_H

#include <stddef.h>

struct buf;

/* Appends the detokenised form of s[0 .. n-1] (UTF-8) to out. ERR_NOMEM. */
int detok_wikitext(const char *s, size_t n, struct buf *out);

#endif
