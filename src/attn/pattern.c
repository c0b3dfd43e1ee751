/* What a pattern sees: pure arithmetic on positions, and its cost. */
#include "attn/pattern.h"

#include <string.h>

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t pattern_first(const struct attn_shape *s, int64_t t)
{
    return s->window > 0 ? max64(0, t - s->window + 1) : 0;
}

/* given columns below x */
static int64_t given_below(const struct pattern *p, int64_t x)
{
    int64_t lo = 0, hi = p->n_col;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (p->col[mid] < x)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool is_given(const struct pattern *p, int64_t j)
{
    int64_t k = p->n_col > 0 ? given_below(p, j) : 0;
    return k < p->n_col && p->col[k] == j;
}

bool pattern_is_column(const struct pattern *p, int64_t j)
{
    if (p->period > 0)
        return j % p->period >= p->from && j % p->period < p->to;
    return is_given(p, j);
}

int64_t pattern_columns(const struct pattern *p, int64_t x)
{
    if (p->period <= 0)
        return given_below(p, x);
    int64_t each = p->to - p->from;
    return x / p->period * each + min64(max64(0, x % p->period - p->from), each);
}

int64_t pattern_begin(const struct pattern *p, int64_t first, int64_t t)
{
    int64_t begin = t + 1;
    if (p->full || is_given(p, t))
        return first;
    if (p->window > 0)
        begin = min64(begin, t - p->window + 1);
    if (p->block > 0)
        begin = min64(begin, (t / p->block - p->blocks + 1) * p->block);
    return max64(begin, first);
}

int64_t pattern_strided(const struct pattern *p, int64_t r, int64_t x)
{
    int64_t n = x > r ? (x - r + p->stride - 1) / p->stride : 0;
    for (int64_t k = 0; k < p->n_col && p->col[k] < x; k++)
        n -= p->col[k] % p->stride == r;
    return n;
}

int64_t pattern_keys(const struct pattern *p, int64_t first, int64_t t)
{
    int64_t begin = pattern_begin(p, first, t), n = t + 1 - begin;
    n += max64(0, min64(p->sink, begin) - first);
    if (p->period > 0 || p->n_col > 0)
        n += pattern_columns(p, begin) - pattern_columns(p, first);
    if (p->stride > 0) {
        int64_t low = p->reach < t / p->stride ? max64(first, t - p->reach * p->stride) : first, r = t % p->stride;
        n += max64(0, pattern_strided(p, r, begin) - pattern_strided(p, r, min64(low, begin)));
    }
    return n;
}

/* Keys that the tokens pos .. pos+n-1 of a head see: exact up to SAMPLES tokens, beyond that from evenly spread ones (an odd
 * step, so that it does not fall in with a period). */
static double keys_of(const struct pattern *p, const struct attn_shape *s, int64_t pos, int64_t n)
{
    enum { SAMPLES = 4096 };
    int64_t step = n / SAMPLES | 1, points = 0;
    double sum = 0;
    for (int64_t t = pos + step / 2; t < pos + n; t += step, points++) {
        int64_t first = pattern_first(s, t), free = pattern_begin(p, first, t) - max64(first, p->sink);
        sum += (double)(pattern_keys(p, first, t) + min64(p->picks * p->pick_block, max64(0, free)));
    }
    return points > 0 ? sum * (double)n / (double)points : 0;
}

void pattern_cost(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s, const int64_t span[2],
                  struct attn_cost *out)
{
    struct pattern last = {0};
    double pairs = 0;
    *out = (struct attn_cost){0};
    for (int64_t h = 0; h < s->heads; h++) {
        struct pattern p;
        ops->of(opts, s, s->head0 + h, 0, &p);
        p.head = 0; /* who picks changes nothing in how many */
        if (h == 0 || memcmp(&p, &last, sizeof p))
            pairs = keys_of(&p, s, span[0], span[1]);
        last = p;
        out->pairs += pairs;
    }
    out->flops = 4 * out->pairs * (double)s->dim;
    /* keys and values are read once for each tile of up to 64 rows */
    out->bytes = out->pairs * (double)s->dim * 8 / KERN_MAX_ROWS + (double)(span[1] * s->kv_heads * s->dim) * 16;
}
