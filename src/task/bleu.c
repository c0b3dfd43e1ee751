/* BLEU from integer counts. */
#include "task/bleu.h"

#include <math.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"

static int order_of(const struct bleu_opts *o)
{
    return o->order > 0 ? o->order : 4;
}

static int64_t distance(int64_t a, int64_t b)
{
    return a > b ? a - b : b - a;
}

/* list 0: the hypothesis; the others: references */
static void count(struct bleu_stat *s, const struct ngrams *g, int n_refs, int order)
{
    int64_t hyp = g[0].n, ref = n_refs ? g[1].n : 0;
    for (int r = 2; r <= n_refs; r++) {
        int64_t d = distance(g[r].n, hyp), best = distance(ref, hyp);
        if (d < best || (d == best && g[r].n < ref))
            ref = g[r].n;
    }
    s->sys_len += hyp;
    s->ref_len += ref;
    for (int k = 1; k <= order; k++) {
        s->total[k - 1] += ngrams_total(&g[0], k);
        s->correct[k - 1] += ngrams_match(&g[0], g + 1, n_refs, k);
    }
}

int bleu_add(struct bleu_stat *s, struct span hyp, const struct span *refs, int n_refs, const struct bleu_opts *o)
{
    size_t n = (size_t)n_refs + 1;
    struct buf *text = calloc(n, sizeof *text);
    struct spans *words = calloc(n, sizeof *words);
    struct ngrams *g = calloc(n, sizeof *g);
    int rc = text && words && g ? ERR_OK : err_set(ERR_NOMEM, "out of memory for %d references", n_refs);
    AST_ASSERT(order_of(o) <= BLEU_ORDERS);
    for (size_t i = 0; i < n && rc == ERR_OK; i++) {
        struct span x = i ? refs[i - 1] : hyp;
        rc = bleu_tokenise(&text[i], x.s, x.n, o);
        if (rc == ERR_OK)
            rc = spans_split(&words[i], buf_text(&text[i]), text[i].len);
    }
    if (rc == ERR_OK)
        rc = ngrams_of_words(g, words, (int)n);
    if (rc == ERR_OK)
        count(s, g, n_refs, order_of(o));
    for (size_t i = 0; text && words && g && i < n; i++) {
        buf_free(&text[i]);
        spans_free(&words[i]);
        ngrams_free(&g[i]);
    }
    free(text);
    free(words);
    free(g);
    return rc;
}

void bleu_sum(struct bleu_stat *a, const struct bleu_stat *b)
{
    for (int k = 0; k < BLEU_ORDERS; k++) {
        a->correct[k] += b->correct[k];
        a->total[k] += b->total[k];
    }
    a->sys_len += b->sys_len;
    a->ref_len += b->ref_len;
}

static double smooth_value(const struct bleu_opts *o)
{
    if (o->smooth_value != 0)
        return o->smooth_value < 0 ? 0 : o->smooth_value;
    return o->smooth == BLEU_ADD_K ? 1 : 0.1;
}

static bool nothing_correct(const struct bleu_stat *s, int order)
{
    for (int k = 0; k < order; k++)
        if (s->correct[k])
            return false;
    return true;
}

/* sacreBLEU's log: what has no logarithm pulls the mean to nothing. */
static double safe_log(double x)
{
    return x == 0 ? -9999999999. : log(x);
}

void bleu_score(struct bleu *out, const struct bleu_stat *s, const struct bleu_opts *o)
{
    int order = order_of(o), effective = order;
    double halves = 1, sum = 0, value = smooth_value(o);
    *out = (struct bleu){.bp = 1};
    if (s->sys_len < s->ref_len)
        out->bp = s->sys_len > 0 ? exp(1 - (double)s->ref_len / (double)s->sys_len) : 0;
    if (nothing_correct(s, order))
        return;
    for (int k = 0; k < order; k++) {
        double correct = (double)s->correct[k], total = (double)s->total[k];
        if (o->smooth == BLEU_ADD_K && k > 0) {
            correct += value;
            total += value;
        }
        if (total == 0)
            break;
        if (o->effective)
            effective = k + 1;
        if (correct == 0) {
            if (o->smooth == BLEU_EXP) {
                halves *= 2;
                out->precision[k] = 100 / (halves * total);
            } else if (o->smooth == BLEU_FLOOR) {
                out->precision[k] = 100 * value / total;
            }
        } else {
            out->precision[k] = 100 * correct / total;
        }
    }
    for (int k = 0; k < effective; k++)
        sum += safe_log(out->precision[k]);
    out->score = out->bp * exp(sum / effective);
}

int bleu_signature(struct buf *out, int n_refs, const struct bleu_opts *o)
{
    static const char *const tok[] = {"13a", "none", "char"}, *const smooth[] = {"exp", "floor", "add-k", "none"};
    int rc = buf_printf(out, "nrefs:%d|case:%s|eff:%s|tok:%s|smooth:%s", n_refs, o->lowercase ? "lc" : "mixed",
                        o->effective ? "yes" : "no", tok[o->tok], smooth[o->smooth]);
    if (rc == ERR_OK && (o->smooth == BLEU_FLOOR || o->smooth == BLEU_ADD_K))
        rc = buf_printf(out, "[%.2f]", smooth_value(o));
    return rc ? rc : buf_puts(out, "|version:2.6.0");
}

int bleu_line(struct buf *out, const struct bleu_stat *s, const struct bleu_opts *o)
{
    struct bleu b;
    bleu_score(&b, s, o);
    int rc = buf_printf(out, "= %.1f ", b.score);
    for (int k = 0; k < order_of(o) && rc == ERR_OK; k++)
        rc = buf_printf(out, "%s%.1f", k ? "/" : "", b.precision[k]);
    return rc ? rc
              : buf_printf(out, " (BP = %.3f ratio = %.3f hyp_len = %lld ref_len = %lld)", b.bp,
                           s->ref_len ? (double)s->sys_len / (double)s->ref_len : 0, (long long)s->sys_len, (long long)s->ref_len);
}
