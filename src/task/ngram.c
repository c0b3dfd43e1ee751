/* N-gram counting. */
#include "task/ngram.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "task/ws.h"

static int grow(void **v, int64_t *cap, size_t size)
{
    int64_t more = *cap ? 2 * *cap : 64;
    void *p = realloc(*v, (size_t)more * size);
    if (!p)
        return err_set(ERR_NOMEM, "out of memory for %lld n-grams", (long long)more);
    *v = p;
    *cap = more;
    return ERR_OK;
}

void ngrams_free(struct ngrams *g)
{
    free(g->sym);
    free(g->suffix);
    *g = (struct ngrams){0};
}

int ngrams_push(struct ngrams *g, uint32_t symbol)
{
    void *v = g->sym;
    int rc = g->n == g->cap ? grow(&v, &g->cap, sizeof *g->sym) : ERR_OK;
    g->sym = v;
    if (rc == ERR_OK)
        g->sym[g->n++] = symbol;
    return rc;
}

/* Order of the first k symbols; what ends early comes first. */
static int compare(const struct ngram_at *a, const struct ngram_at *b, int64_t k)
{
    for (int64_t i = 0; i < k; i++) {
        if (i >= a->left || i >= b->left)
            return (i < a->left) - (i < b->left);
        if (a->p[i] != b->p[i])
            return a->p[i] < b->p[i] ? -1 : 1;
    }
    return 0;
}

static int by_prefix(const void *a, const void *b)
{
    return compare(a, b, NGRAM_ORDERS);
}

int ngrams_sort(struct ngrams *g)
{
    free(g->suffix);
    g->suffix = malloc(((size_t)g->n + 1) * sizeof *g->suffix);
    if (!g->suffix)
        return err_set(ERR_NOMEM, "out of memory for %lld n-grams", (long long)g->n);
    for (int64_t i = 0; i < g->n; i++)
        g->suffix[i] = (struct ngram_at){g->sym + i, g->n - i};
    qsort(g->suffix, (size_t)g->n, sizeof *g->suffix, by_prefix);
    return ERR_OK;
}

int64_t ngrams_total(const struct ngrams *g, int order)
{
    return g->n >= order ? g->n - order + 1 : 0;
}

/* How often x's first k symbols occur in r. */
static int64_t occurrences(const struct ngrams *r, const struct ngram_at *x, int k)
{
    int64_t edge[2];
    for (int side = 0; side < 2; side++) { /* first suffix not before x, first after it */
        int64_t lo = 0, hi = r->n;
        while (lo < hi) {
            int64_t mid = lo + (hi - lo) / 2;
            if (compare(&r->suffix[mid], x, k) < side)
                lo = mid + 1;
            else
                hi = mid;
        }
        edge[side] = lo;
    }
    return edge[1] - edge[0];
}

int64_t ngrams_match(const struct ngrams *h, const struct ngrams *ref, int n_refs, int order)
{
    int64_t match = 0;
    for (int64_t begin = 0, end; begin < h->n; begin = end) {
        const struct ngram_at *x = &h->suffix[begin];
        for (end = begin + 1; end < h->n && compare(x, &h->suffix[end], order) == 0;)
            end++;
        if (x->left < order)
            continue;
        int64_t most = 0;
        for (int r = 0; r < n_refs; r++) {
            int64_t c = occurrences(&ref[r], x, order);
            most = c > most ? c : most;
        }
        match += most < end - begin ? most : end - begin;
    }
    return match;
}

/* ---- words ---- */

int spans_push(struct spans *w, const char *s, size_t n)
{
    void *v = w->v;
    int rc = w->n == w->cap ? grow(&v, &w->cap, sizeof *w->v) : ERR_OK;
    w->v = v;
    if (rc == ERR_OK)
        w->v[w->n++] = (struct span){s, n};
    return rc;
}

int spans_split(struct spans *w, const char *s, size_t n)
{
    size_t at = 0, len;
    const char *word;
    int rc = ERR_OK;
    while (rc == ERR_OK && ws_next(s, n, &at, &word, &len))
        rc = spans_push(w, word, len);
    return rc;
}

void spans_free(struct spans *w)
{
    free(w->v);
    *w = (struct spans){0};
}

struct place { /* a word and where its number goes */
    struct span w;
    int list;
    int64_t at;
};

static int same_word(const struct place *a, const struct place *b)
{
    size_t n = a->w.n < b->w.n ? a->w.n : b->w.n;
    int c = n ? memcmp(a->w.s, b->w.s, n) : 0;
    return c ? c : (a->w.n > b->w.n) - (a->w.n < b->w.n);
}

static int by_word(const void *a, const void *b)
{
    return same_word(a, b);
}

int ngrams_of_words(struct ngrams *out, const struct spans *lists, int n_lists)
{
    int64_t n = 0, k = 0;
    int rc = ERR_OK;
    for (int l = 0; l < n_lists; l++)
        n += lists[l].n;
    struct place *all = malloc(((size_t)n + 1) * sizeof *all);
    if (!all)
        return err_set(ERR_NOMEM, "out of memory for %lld words", (long long)n);
    for (int l = 0; l < n_lists; l++)
        for (int64_t i = 0; i < lists[l].n && rc == ERR_OK; i++) {
            all[k++] = (struct place){lists[l].v[i], l, i};
            rc = ngrams_push(&out[l], 0);
        }
    if (rc == ERR_OK) {
        uint32_t number = 0;
        qsort(all, (size_t)n, sizeof *all, by_word);
        for (int64_t i = 0; i < n; i++) {
            number += i > 0 && same_word(&all[i - 1], &all[i]) != 0;
            out[all[i].list].sym[all[i].at] = number;
        }
    }
    for (int l = 0; l < n_lists && rc == ERR_OK; l++)
        rc = ngrams_sort(&out[l]);
    free(all);
    return rc;
}
