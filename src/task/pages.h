/* WikiText's one long text, cut into its articles.
 *
 *     " \n = Title = \n \n text ... \n \n = Next title = \n ..."
 *           ^page 0 ........................^page 1
 *
 *   source   the splitter of lm-evaluation-harness's wikitext data set (until March 2023), which made the 62 test and
 *            60 validation documents that everybody's word perplexities refer to */
#ifndef AST_TASK_PAGES_H
#define AST_TASK_PAGES_H

#include <stddef.h>
#include <stdint.h>

struct buf;

struct page {
    size_t at, n; /* bytes of the text; the newline before the next heading belongs to neither */
};
struct page_list {
    struct page *v;
    int64_t n, cap;
};

/* Appends the pages of s[0 .. n-1] (UTF-8). A line is a heading if, with "= = =" and then "= =" joined and white space
 * cut off, it starts with "= " and ends with " =". A page that is only white space is dropped, the last one never.
 * ERR_NOMEM. */
int pages_split(const char *s, size_t n, struct page_list *out);
void pages_free(struct page_list *p);

/* Fields of a page split at white space, where white space at an end counts as one empty field more ("" counts 1):
 * the denominator of lm-evaluation-harness's word_perplexity. */
int64_t pages_words(const char *s, size_t n);

/* The text as the line-level Hugging Face data set gives it, rows joined by "\n\n": a line of white space only is an
 * empty row, others keep their newline. For the protocols that are defined on it. ERR_NOMEM. */
int pages_rows(const char *s, size_t n, struct buf *out);

#endif
