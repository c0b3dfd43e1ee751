/* Choosing tokens from logits. */
#include "task/decode.h"

#include <math.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"

int decode_check(const struct decode_opts *o)
{
    if (o->beam > 1 && o->temperature > 0)
        return err_set(ERR_ARG, "beam = %lld and temperature = %g: beam search does not draw, one of them must be at its default",
                       (long long)o->beam, o->temperature);
    if (!(o->temperature > 0) && (o->top_k > 0 || o->top_p < 1))
        return err_set(ERR_ARG, "top_k and top_p have no meaning without drawing: set temperature = 1");
    return ERR_OK;
}

int decode_signature(const struct decode_opts *o, struct buf *out)
{
    static const char *const end[] = {"estimate", "never", "first"};
    if (o->beam > 1)
        return buf_printf(out, "beam(%lld,lp=%g,%s)", (long long)o->beam, o->length_penalty, end[o->beam_end]);
    if (o->temperature > 0)
        return buf_printf(out, "sample(t=%g,k=%lld,p=%g)", o->temperature, (long long)o->top_k, o->top_p);
    return buf_puts(out, "greedy");
}

int32_t decode_best(const float *logits, int64_t vocab)
{
    int64_t k = 0;
    for (int64_t v = 1; v < vocab; v++)
        if (logits[v] > logits[k] || logits[k] != logits[k])
            k = v;
    return (int32_t)k;
}

static bool before(struct decode_token a, struct decode_token b)
{
    return a.logit > b.logit || (!(a.logit < b.logit) && a.id < b.id);
}

/* Restores the heap (worst on top) below place i. */
static void sink(struct decode_token *heap, int64_t n, int64_t i)
{
    for (int64_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && before(heap[child], heap[child + 1]))
            child++;
        if (!before(heap[i], heap[child]))
            return;
        struct decode_token t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
        i = child;
    }
}

int64_t decode_top(const float *logits, int64_t vocab, int64_t n, struct decode_token *out)
{
    int64_t kept = 0;
    for (int64_t v = 0; v < vocab && n > 0; v++) {
        struct decode_token t = {logits[v], (int32_t)v};
        if (!(t.logit > -INFINITY))
            continue;
        if (kept < n) {
            out[kept++] = t;
            for (int64_t i = kept / 2; kept == n && i-- > 0;)
                sink(out, n, i);
        } else if (before(t, out[0])) {
            out[0] = t;
            sink(out, n, 0);
        }
    }
    for (int64_t i = kept / 2; kept < n && i-- > 0;)
        sink(out, kept, i);
    for (int64_t end = kept; end-- > 1;) { /* the worst goes last */
        struct decode_token t = out[0];
        out[0] = out[end];
        out[end] = t;
        sink(out, end, 0);
    }
    return kept;
}

static double weight(struct decode_token t, float most, double temperature)
{
    return exp(((double)t.logit - (double)most) / temperature);
}

/* The candidates in `out`, with the sum of all weights behind them in *all. Without top_k every token is one, but those that
 * cannot be in a nucleus are left out: all tokens below (1 - p) / vocab together have less than 1 - p. */
static int64_t candidates(const struct decode_opts *o, const float *logits, int64_t vocab, struct decode_token *out, double *all)
{
    int64_t n = 0;
    *all = 0;
    if (o->top_k > 0 && o->top_k < vocab) {
        n = decode_top(logits, vocab, o->top_k, out);
        for (int64_t i = 0; i < n; i++)
            *all += weight(out[i], out[0].logit, o->temperature);
        return n;
    }
    float most = logits[decode_best(logits, vocab)];
    for (int64_t v = 0; v < vocab; v++)
        if (logits[v] > -INFINITY)
            *all += weight((struct decode_token){logits[v], (int32_t)v}, most, o->temperature);
    double least = (double)most + o->temperature * log((1 - o->top_p) / (double)vocab * *all); /* -inf for top_p = 1 */
    for (int64_t v = 0; v < vocab; v++)
        if (logits[v] > -INFINITY && (double)logits[v] >= least - 1e-6) /* a few more do no harm */
            out[n++] = (struct decode_token){logits[v], (int32_t)v};
    return n;
}

static int compare(const void *a, const void *b)
{
    const struct decode_token *x = a, *y = b;
    return before(*x, *y) ? -1 : before(*y, *x);
}

/* The fewest of the n that have share p of `all`. */
static int64_t nucleus(const struct decode_opts *o, const struct decode_token *t, int64_t n, double all)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += weight(t[i], t[0].logit, o->temperature);
        if (sum >= o->top_p * all)
            return i + 1;
    }
    return n;
}

int32_t decode_draw(const struct decode_opts *o, const float *logits, int64_t vocab, double u, struct decode_token *work)
{
    double all, sum = 0, upto = 0;
    int64_t n = candidates(o, logits, vocab, work, &all);
    if (n == 0)
        return 0; /* not one number among the logits */
    if (o->top_p < 1) {
        qsort(work, (size_t)n, sizeof *work, compare);
        n = nucleus(o, work, n, all);
    }
    float most = work[0].logit;
    for (int64_t i = 1; i < n; i++)
        most = work[i].logit > most ? work[i].logit : most;
    for (int64_t i = 0; i < n && o->top_p < 1; i++)
        sum += weight(work[i], most, o->temperature);
    sum = o->top_p < 1 ? sum : all; /* nothing was left out since */
    for (int64_t i = 0; i < n; i++) {
        upto += weight(work[i], most, o->temperature);
        if (u * sum < upto)
            return work[i].id;
    }
    return work[n - 1].id;
}
