/* Budgets and forced blocks. */
#include "attn/select.h"

#include <math.h>

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t first_key(const struct select_rule *r, int64_t t)
{
    return r->window > 0 ? max64(0, t - r->window + 1) : 0;
}

/* Candidates within a total of `keep` tokens, forced blocks counted. */
static int64_t room(const struct select_set *s, const struct select_rule *r)
{
    int64_t forced = s->own - s->hi + 1 + s->sink;
    return max64(0, r->keep / r->block - forced);
}

void select_sets(struct select_set *out, const struct select_rule *r, int64_t t)
{
    struct select_set s = {.token = t, .first = first_key(r, t) / r->block, .own = t / r->block};
    /* blocks that end at or before t - local are not local: J B + B <= t - local */
    int64_t hi = t >= r->local ? min64(s.own, (t - r->local) / r->block) : 0;
    s.sink = s.first == 0 && hi > 0;
    s.lo = s.sink ? 1 : s.first;
    s.hi = max64(hi, s.lo);
    int64_t n = s.hi - s.lo;
    switch (r->budget) {
    case SELECT_TOKENS: s.most = room(&s, r); break;
    case SELECT_CANDIDATES: s.most = r->candidates; break;
    default: s.most = r->keep > 0 ? room(&s, r) : n; break;
    }
    s.most = min64(s.most, n);
    bool fixed = r->budget == SELECT_TOKENS || r->budget == SELECT_CANDIDATES;
    s.all = n == 0 || t < r->all_below || (fixed && s.most == n);
    if (s.all)
        s.most = n;
    *out = s;
}

/* Of w[0 .. n-1] >= 0, the least number of largest values that sum to at least `mass`; w is reordered. */
static int64_t fewest(float *w, int64_t n, double mass)
{
    int64_t lo = 0, hi = n; /* the answer lies in lo .. hi; w[0 .. lo-1] are larger and taken */
    while (hi - lo > 1) {
        float pivot = w[lo + (hi - lo) / 2];
        int64_t a = lo, b = lo;
        double above = 0;
        for (int64_t i = lo; i < hi; i++) /* larger ones to the front */
            if (w[i] > pivot) {
                float x = w[i];
                w[i] = w[a];
                w[a++] = x;
                above += (double)x;
            }
        if (above >= mass) {
            hi = a;
            continue;
        }
        b = a;
        for (int64_t i = a; i < hi; i++) /* then those equal to the pivot */
            if (w[i] == pivot) {
                w[i] = w[b];
                w[b++] = pivot;
            }
        double equal = (double)(b - a) * (double)pivot;
        if (above + equal >= mass || b == hi) {
            double want = pivot > 0 ? fmin(ceil((mass - above) / (double)pivot), (double)(b - a)) : (double)(b - a);
            return a + max64(1, (int64_t)want);
        }
        mass -= above + equal;
        lo = b;
    }
    return hi;
}

static int64_t top_p_count(const struct select_set *set, double p, const float *s, float *work)
{
    int64_t n = set->hi - set->lo;
    float top = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        top = s[i] > top ? s[i] : top;
    if (!(top > -INFINITY) || !(top < INFINITY))
        return n;
    for (int64_t i = 0; i < n; i++) {
        work[i] = s[i] == s[i] ? expf(s[i] - top) : 0;
        sum += (double)work[i];
    }
    return p >= 1 ? n : fewest(work, n, p * sum);
}

int64_t select_count(const struct select_set *set, const struct select_rule *r, const float *s, float rho, float *work)
{
    int64_t n = set->hi - set->lo, k = set->most;
    if (set->all || n == 0)
        return n;
    if (r->budget == SELECT_LEARNED)
        k = rho > 0 ? (int64_t)floor((double)rho * (double)n + 0.5) : 0;
    else if (r->budget == SELECT_TOP_P)
        k = top_p_count(set, r->top_p, s, work);
    return max64(0, min64(k, set->most));
}

int64_t select_list(const struct select_set *set, const int32_t *restrict chosen, int64_t n, int32_t *restrict list)
{
    int64_t m = 0;
    int32_t lo = (int32_t)set->lo;
    if (set->sink)
        list[m++] = 0;
    for (int64_t i = 0; i < n; i++)
        list[m + i] = lo + chosen[i];
    m += n;
    for (int64_t j = set->hi; j <= set->own; j++)
        list[m++] = (int32_t)j;
    return m;
}

int64_t select_keys(const struct select_set *set, const struct select_rule *r, const int32_t *list, int64_t n)
{
    int64_t t = set->token, keys = n * r->block - (set->own * r->block + r->block - 1 - t);
    if (n > 0 && list[0] == set->first) /* the window may cut the first block */
        keys -= max64(0, first_key(r, t) - set->first * r->block);
    return keys;
}
