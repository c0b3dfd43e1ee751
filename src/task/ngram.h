/* N-gram counts of short symbol sequences (words or characters of a sentence), all orders from one sort.
 *
 *     symbols      a b a b c          suffixes in order:  ab.abc  abc  bab..  bc  c
 *     the suffixes with one k-symbol prefix stand side by side: a group is one k-gram with its count */
#ifndef AST_TASK_NGRAM_H
#define AST_TASK_NGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { NGRAM_ORDERS = 8 };

struct span { /* text that somebody else owns */
    const char *s;
    size_t n;
};

struct ngrams {
    uint32_t *sym; /* (n,) */
    struct ngram_at {
        const uint32_t *p;
        int64_t left; /* symbols from p to the end */
    } * suffix;       /* (n,) sorted */
    int64_t n, cap;
};
void ngrams_free(struct ngrams *g);
int ngrams_push(struct ngrams *g, uint32_t symbol); /* ERR_NOMEM */
int ngrams_sort(struct ngrams *g);                  /* after the last push; ERR_NOMEM */

int64_t ngrams_total(const struct ngrams *g, int order); /* max(0, n - order + 1) */
/* Sum over the distinct k-grams of h of min(count in h, largest count in one of the references). */
int64_t ngrams_match(const struct ngrams *h, const struct ngrams *ref, int n_refs, int order);

/* Growing list of words. */
struct spans {
    struct span *v;
    int64_t n, cap;
};
int spans_push(struct spans *w, const char *s, size_t n);  /* ERR_NOMEM */
int spans_split(struct spans *w, const char *s, size_t n); /* at white space (ws.h); ERR_NOMEM */
void spans_free(struct spans *w);

/* Numbers the words of several lists so that equal words get equal symbols; list i goes to out[i], sorted. ERR_NOMEM. */
int ngrams_of_words(struct ngrams *out, const struct spans *lists, int n_lists);

#endif
