/* Windows over token streams. */
#include "task/windows.h"

#include <stdlib.h>

#include "base/err.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int push(struct window_list *w, struct window x)
{
    if (w->n == w->cap) {
        int64_t cap = w->cap ? 2 * w->cap : 256;
        struct window *v = realloc(w->v, (size_t)cap * sizeof *v);
        if (!v)
            return err_set(ERR_NOMEM, "out of memory for %lld windows", (long long)cap);
        w->v = v;
        w->cap = cap;
    }
    w->v[w->n++] = x;
    return ERR_OK;
}

void windows_free(struct window_list *w)
{
    free(w->v);
    *w = (struct window_list){0};
}

static int need(int64_t length, int64_t least, const char *rule)
{
    return length >= least ? ERR_OK
                           : err_set(ERR_ARG, "a length of %lld is too small for %s: at least %lld tokens are needed",
                                     (long long)length, rule, (long long)least);
}

int windows_disjoint(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r, bool whole)
{
    int rc = need(r->length, r->bos ? 1 : 2, "disjoint windows");
    for (int64_t at = 0; at < n && rc == ERR_OK; at += r->length) {
        int64_t len = min64(r->length, n - at);
        if (whole && len < r->length)
            break;
        struct window w = {begin + at, len, 0, len - 1, false, r->doc};
        if (r->bos)
            w = (struct window){begin + at - 1, len, 0, len, true, r->doc};
        if (w.scored > 0)
            rc = push(out, w);
    }
    return rc;
}

int windows_strided(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r)
{
    int rc = need(r->length, 2, "strided windows");
    if (rc == ERR_OK && (r->stride < 1 || r->stride > r->length))
        rc = err_set(ERR_ARG, "stride = %lld is outside [1, %lld], the length of a window", (long long)r->stride,
                     (long long)r->length);
    int64_t done = 0; /* tokens 0 .. done-1 have been dealt with */
    for (int64_t at = 0; done < n && rc == ERR_OK; at += r->stride) {
        int64_t end = min64(at + r->length, n);
        int64_t from = done > at + 1 ? done : at + 1; /* the first input of a window is never predicted in it */
        if (end > from)
            rc = push(out, (struct window){begin + at, end - at, from - at - 1, end - from, false, r->doc});
        done = end;
    }
    return rc;
}

int windows_rolling(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r)
{
    int rc = need(r->length, 1, "rolling windows");
    if (rc == ERR_OK && (r->context < 1 || r->context > r->length))
        rc = err_set(ERR_ARG, "context = %lld is outside [1, %lld], the length of a window", (long long)r->context,
                     (long long)r->length);
    /* The token in front of the first predicted one: BOS at begin - 1, or the stream's own first. */
    int64_t front = r->bos ? begin - 1 : begin;
    n -= !r->bos;
    for (int64_t done = 0; done < n && rc == ERR_OK;) {
        int64_t scored = done == 0 ? min64(r->length, n) : min64(n - done, r->length - r->context + 1);
        int64_t end = done + scored;
        int64_t len = done == 0 ? scored : r->length;
        struct window w = {front + end - len, len, len - scored, scored, false, r->doc};
        w.bos = r->bos && w.at == begin - 1;
        rc = push(out, w);
        done = end;
    }
    return rc;
}

int windows_second_half(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r)
{
    int rc = need(r->length, 4, "windows scored in their second half");
    if (rc == ERR_OK && n < 2 * r->length)
        rc = err_set(ERR_ARG, "%lld tokens are too few: this protocol needs two windows of %lld", (long long)n,
                     (long long)r->length);
    for (int64_t at = 0; at + r->length <= n && rc == ERR_OK; at += r->length)
        rc = push(out, (struct window){begin + at, r->length, r->length / 2, r->length - 1 - r->length / 2, r->bos, r->doc});
    return rc;
}

int windows_overlap(struct window_list *out, int64_t begin, int64_t n, const struct window_rule *r)
{
    int rc = need(r->length, 1, "overlapping windows");
    if (rc == ERR_OK && (r->stride < 1 || r->stride > r->length))
        rc = err_set(ERR_ARG, "stride = %lld is outside [1, %lld], the length of a window", (long long)r->stride,
                     (long long)r->length);
    int64_t targets = n - 1;
    for (int64_t at = 0, done = 0; done < targets && rc == ERR_OK; at += r->stride) {
        int64_t end = min64(at + r->length, targets);
        rc = push(out, (struct window){begin + at, end - at, done - at, end - done, false, r->doc});
        done = end;
    }
    return rc;
}
