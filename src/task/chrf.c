/* Character n-gram F score. */
#include "task/chrf.h"

#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/utf8.h"
#include "task/ws.h"

static int char_order(const struct chrf_opts *o)
{
    return o->char_order > 0 ? o->char_order : 6;
}

static int characters(struct ngrams *out, struct span x, bool keep_space)
{
    int rc = ERR_OK;
    for (size_t i = 0; i < x.n && rc == ERR_OK;) {
        uint32_t cp = (unsigned char)x.s[i];
        int k = utf8_decode(x.s + i, x.n - i, &cp);
        if (keep_space || !ws_is(cp))
            rc = ngrams_push(out, cp);
        i += k > 0 ? (size_t)k : 1;
    }
    return rc ? rc : ngrams_sort(out);
}

static bool is_punct(char c)
{
    return c != '\0' && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", c) != NULL;
}

/* Words with one punctuation mark, the last or else the first, as a token of its own. */
static int words(struct spans *out, struct span x)
{
    size_t at = 0, n;
    const char *w;
    int rc = ERR_OK;
    while (rc == ERR_OK && ws_next(x.s, x.n, &at, &w, &n)) {
        bool one = n < 2 || (n <= 4 && utf8_decode(w, n, &(uint32_t){0}) == (int)n);
        size_t cut = one ? n : is_punct(w[n - 1]) ? n - 1 : is_punct(w[0]) ? 1 : n;
        rc = spans_push(out, w, cut);
        if (rc == ERR_OK && cut < n)
            rc = spans_push(out, w + cut, n - cut);
    }
    return rc;
}

static void count(struct chrf_stat *s, const struct ngrams *hyp, const struct ngrams *ref, int from, int orders)
{
    for (int k = 1; k <= orders; k++) {
        int64_t n = ngrams_total(ref, k);
        s->ref[from + k - 1] = n;
        s->hyp[from + k - 1] = n > 0 ? ngrams_total(hyp, k) : 0;
        s->match[from + k - 1] = ngrams_match(hyp, ref, 1, k);
    }
}

static int compare(struct chrf_stat *s, struct span hyp, struct span ref, const struct chrf_opts *o)
{
    struct ngrams g[2] = {{0}}, w[2] = {{0}};
    struct spans list[2] = {{0}};
    struct span x[2] = {hyp, ref};
    int rc = ERR_OK;
    *s = (struct chrf_stat){{0}, {0}, {0}};
    for (int i = 0; i < 2 && rc == ERR_OK; i++) {
        rc = characters(&g[i], x[i], o->keep_space);
        if (rc == ERR_OK && o->word_order > 0)
            rc = words(&list[i], x[i]);
    }
    if (rc == ERR_OK)
        rc = ngrams_of_words(w, list, 2);
    if (rc == ERR_OK) {
        count(s, &g[0], &g[1], 0, char_order(o));
        count(s, &w[0], &w[1], char_order(o), o->word_order);
    }
    for (int i = 0; i < 2; i++) {
        ngrams_free(&g[i]);
        ngrams_free(&w[i]);
        spans_free(&list[i]);
    }
    return rc;
}

int chrf_add(struct chrf_stat *s, struct span hyp, const struct span *refs, int n_refs, const struct chrf_opts *o)
{
    struct chrf_stat best = {{0}, {0}, {0}}, x;
    double best_f = -1;
    AST_ASSERT(char_order(o) + o->word_order <= CHRF_ORDERS);
    for (int r = 0; r < n_refs; r++) {
        int rc = compare(&x, hyp, refs[r], o);
        if (rc)
            return rc;
        double f = chrf_score(&x, o);
        if (f > best_f) {
            best = x;
            best_f = f;
        }
    }
    chrf_sum(s, &best);
    return ERR_OK;
}

void chrf_sum(struct chrf_stat *a, const struct chrf_stat *b)
{
    for (int k = 0; k < CHRF_ORDERS; k++) {
        a->hyp[k] += b->hyp[k];
        a->ref[k] += b->ref[k];
        a->match[k] += b->match[k];
    }
}

double chrf_score(const struct chrf_stat *s, const struct chrf_opts *o)
{
    static const double eps = 1e-16;
    int orders = char_order(o) + o->word_order, effective = 0;
    double beta2 = o->beta > 0 ? o->beta * o->beta : 4, precision = 0, recall = 0, f_sum = 0;
    for (int k = 0; k < orders; k++) {
        double hyp = (double)s->hyp[k], ref = (double)s->ref[k], match = (double)s->match[k];
        double p = hyp > 0 ? match / hyp : eps, r = ref > 0 ? match / ref : eps, below = beta2 * p + r;
        f_sum += below > 0 ? (1 + beta2) * p * r / below : eps;
        if (hyp > 0 && ref > 0) {
            precision += match / hyp;
            recall += match / ref;
            effective++;
        }
    }
    if (o->eps_smoothing)
        return 100 * f_sum / orders;
    if (effective == 0 || precision + recall == 0)
        return 0;
    precision /= effective;
    recall /= effective;
    return 100 * (1 + beta2) * precision * recall / (beta2 * precision + recall);
}

int chrf_signature(struct buf *out, int n_refs, const struct chrf_opts *o)
{
    return buf_printf(out, "nrefs:%d|case:mixed|eff:%s|nc:%d|nw:%d|space:%s|version:2.6.0", n_refs, o->eps_smoothing ? "no" : "yes",
                      char_order(o), o->word_order, o->keep_space ? "yes" : "no");
}
