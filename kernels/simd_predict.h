/* What choosing keys costs, in the vocabulary of <isa>/simd.h: products of rows, scores of blocks, the k largest. */
#ifndef AST_KERNELS_SIMD_PREDICT_H
#define AST_KERNELS_SIMD_PREDICT_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/kern.h"

enum { PRED_ROWS = 4, PRED_VECS = W == 16 ? 4 : 2, PRED_VB = KERN_KB / W };
#define PRED_UNROLL _Pragma("GCC unroll 16")

/* y[r][0 .. nv W) += x[r] w: mr rows, one chain for each output; tail: only so many columns, nv 1 */
INL void columns(const int mr, const int nv, const int64_t tail, const struct kern_rows *c, int64_t r0, int64_t j0)
{
    vf acc[PRED_ROWS][PRED_VECS];
    bool more = mr > 1 && r0 + 2 * mr <= c->rows; /* rows come from far, weights are near: ask for the next ones */
    PRED_UNROLL for (int r = 0; r < mr; r++) PRED_UNROLL for (int i = 0; i < nv; i++)
    {
        const float *y = c->y + (r0 + r) * c->ldy + j0 + i * W;
        acc[r][i] = !c->accumulate ? vzero() : tail ? vload_n(y, tail) : vload(y);
    }
    for (int64_t s = 0; s < c->in; s++) {
        vf wide[PRED_VECS];
        const float *w = c->w + s * c->out + j0;
        if (more && s % KERN_KB == 0)
            PRED_UNROLL for (int r = 0; r < mr; r++) __builtin_prefetch(c->x + (r0 + mr + r) * c->ldx + s);
        PRED_UNROLL for (int i = 0; i < nv; i++) wide[i] = tail ? vload_n(w, tail) : vload(w + i * W);
        PRED_UNROLL for (int r = 0; r < mr; r++)
        {
            vf one = vset1(c->x[(r0 + r) * c->ldx + s]);
            PRED_UNROLL for (int i = 0; i < nv; i++) acc[r][i] = vfma(one, wide[i], acc[r][i]);
        }
    }
    PRED_UNROLL for (int r = 0; r < mr; r++) PRED_UNROLL for (int i = 0; i < nv; i++)
    {
        float *y = c->y + (r0 + r) * c->ldy + j0 + i * W;
        tail ? vstore_n(y, acc[r][i], tail) : vstore(y, acc[r][i]);
    }
}

INL void some_rows(const int mr, const struct kern_rows *c, int64_t r)
{
    int64_t j = 0;
    for (; j + PRED_VECS * W <= c->out; j += PRED_VECS * W)
        columns(mr, PRED_VECS, 0, c, r, j);
    for (; j + W <= c->out; j += W)
        columns(mr, 1, 0, c, r, j);
    if (j < c->out)
        columns(mr, 1, c->out - j, c, r, j);
}

static void rows_matmul(const struct kern_rows *c)
{
    int64_t r = 0;
    for (; r + PRED_ROWS <= c->rows; r += PRED_ROWS)
        some_rows(PRED_ROWS, c, r);
    for (; r < c->rows; r++)
        some_rows(1, c, r);
}

INL void some_scores(const int mr, const int nb, const struct kern_scores *c, int64_t r0, int64_t g)
{
    vf acc[PRED_ROWS][PRED_VECS];
    PRED_UNROLL for (int r = 0; r < mr; r++) PRED_UNROLL for (int i = 0; i < nb * PRED_VB; i++) acc[r][i] = vzero();
    for (int64_t s = 0; s < c->width; s++) {
        vf wide[PRED_VECS];
        PRED_UNROLL for (int i = 0; i < nb * PRED_VB; i++) wide[i] =
            vload(c->v + (g + i / PRED_VB) * c->v_stride + s * KERN_KB + i % PRED_VB * W);
        PRED_UNROLL for (int r = 0; r < mr; r++)
        {
            vf one = vset1(c->u[(r0 + r) * c->width + s]);
            PRED_UNROLL for (int i = 0; i < nb * PRED_VB; i++) acc[r][i] = vfma(one, wide[i], acc[r][i]);
        }
    }
    PRED_UNROLL for (int r = 0; r < mr; r++) PRED_UNROLL for (int i = 0; i < nb * PRED_VB; i++)
        vstore(c->s + (r0 + r) * c->ld + g * KERN_KB + i * W, vmul(acc[r][i], vset1(c->scale)));
}

INL void score_rows(const int mr, const struct kern_scores *c, int64_t r, int64_t g, int64_t end)
{
    for (; g + PRED_VECS / PRED_VB <= end; g += PRED_VECS / PRED_VB)
        some_scores(mr, PRED_VECS / PRED_VB, c, r, g);
    for (; g < end; g++)
        some_scores(mr, 1, c, r, g);
}

/* A few groups at a time for all rows: they stay in the first cache, however many there are. */
static void block_scores(const struct kern_scores *c)
{
    for (int64_t g = 0; g < c->groups; g += PRED_VECS) {
        int64_t end = g + PRED_VECS < c->groups ? g + PRED_VECS : c->groups, r = 0;
        for (; r + PRED_ROWS <= c->rows; r += PRED_ROWS)
            score_rows(PRED_ROWS, c, r, g, end);
        for (; r < c->rows; r++)
            score_rows(1, c, r, g, end);
    }
}

/* ---- the k largest: bisection for a limit that k numbers reach, each step one pass of compares ---- */

static int64_t count_from(const float *s, int64_t n, float limit) /* s[i] >= limit */
{
    int64_t count = 0, i = 0;
    vf at = vset1(limit);
    for (; i + W <= n; i += W)
        count += __builtin_popcount((unsigned)vge_mask(vload(s + i), at));
    for (; i < n; i++)
        count += s[i] >= limit;
    return count;
}

/* Floats as integers in the same order. */
INL int32_t order_of(float x)
{
    int32_t b;
    memcpy(&b, &x, sizeof b);
    return b < 0 ? (int32_t)(0x80000000u - (uint32_t)b) : b;
}
INL float float_of(int32_t o)
{
    int32_t b = o < 0 ? (int32_t)(0x80000000u - (uint32_t)o) : o;
    float x;
    memcpy(&x, &b, sizeof x);
    return x;
}

struct limit {
    float value;   /* all above it are taken, */
    int64_t above; /* so many, */
    bool exact;    /* and those equal to it too; else as many of the lowest index as are missing */
};

static void range_of(const float *s, int64_t n, float *low, float *top)
{
    vf hi = vset1(-INFINITY), lo = vset1(INFINITY);
    for (int64_t i = 0; i < n; i += W) {
        vf x = n - i < W ? vkeep(vload_n(s + i, n - i), 0, n - i) : vload(s + i);
        hi = vmax(x, hi); /* a NaN is passed over, here and below */
        /* x + FLT_MAX is negative for -INFINITY alone */
        lo = vmin(vselect_neg(vadd(x, vset1(FLT_MAX)), vset1(INFINITY), x), lo);
    }
    *top = vtop(hi);
    *low = -vtop(vneg_where(lo, vset1(-1)));
}

/* 1 <= k < n */
static struct limit limit_of(const float *s, int64_t n, int64_t k)
{
    float top, low; /* of those above -INFINITY */
    range_of(s, n, &low, &top);
    int64_t c = count_from(s, n, low);
    if (top == -INFINITY || c < k)
        return (struct limit){-INFINITY, top == -INFINITY ? 0 : c, false};
    if (c == k)
        return (struct limit){low, k, true};
    int32_t lo = order_of(low), hi = order_of(top) + 1; /* count_from(lo) > k, count_from(hi) < k */
    int64_t above = 0;
    for (int step = 0; (int64_t)hi - lo > 1; step++) {
        /* by value first: scores spread evenly there; then by representation, which ends */
        float half = float_of(lo) / 2 + float_of(hi - 1) / 2;
        int32_t mid = order_of(half);
        if (step > 12 || mid <= lo || mid >= hi)
            mid = (int32_t)(((int64_t)lo + hi) / 2);
        if (mid <= lo)
            mid = lo + 1;
        c = count_from(s, n, float_of(mid));
        if (c == k)
            return (struct limit){float_of(mid), k, true};
        if (c > k) {
            lo = mid;
        } else {
            hi = mid;
            above = c;
        }
    }
    return (struct limit){float_of(lo), above, false};
}

/* Appends those taken of n numbers: at[i] (NULL: i itself) goes to idx. All that reach the limit, of equal ones the first. */
static void take_from(const float *s, const float *at, int64_t n, const struct limit *t, int64_t k, int32_t *idx)
{
    int64_t found = 0, ties = t->exact ? n : k - t->above;
    for (int64_t i = 0; i < n && found < k; i += W) {
        int64_t m = n - i < W ? n - i : W;
        unsigned take;
        if (t->value == -INFINITY)
            take = (unsigned)((1u << m) - 1); /* NaN and -INFINITY tie */
        else
            take = (unsigned)vge_mask(m < W ? vkeep(vload_n(s + i, m), 0, m) : vload(s + i), vset1(t->value));
        for (; take && found < k; take &= take - 1) {
            int64_t x = i + __builtin_ctz(take);
            bool tie = !(s[x] > t->value);
            if (tie && ties <= 0)
                continue;
            ties -= tie;
            if (at)
                memcpy(&idx[found++], &at[x], sizeof *idx);
            else
                idx[found++] = (int32_t)x;
        }
    }
}

/* Maxima of disjoint sets of `each` numbers, W sets side by side; returns how many. */
static int64_t set_maxima(const float *s, int64_t n, int64_t each, float *out)
{
    int64_t m = 0;
    for (int64_t i = 0; i < n; i += each * W, m += W) {
        vf top = vset1(-INFINITY);
        for (int64_t j = i; j < n && j < i + each * W; j += W)
            top = vmax(n - j < W ? vkeep(vload_n(s + j, n - j), 0, n - j) : vload(s + j), top); /* a NaN is passed over */
        vstore(out + m, top);
    }
    return m;
}

/* The k-th largest of the sets' maxima is reached by at least k numbers, and by few more where there are many sets: the
 * choice is among these. work as in topk; false: no gain, nothing done. */
static bool topk_of_few(const float *s, int64_t n, int64_t k, int32_t *idx, float *work)
{
    int64_t each = 16, cap = n / 2, few = 0;
    while (each > 1 && n / each < 4 * k)
        each /= 2;
    if (each == 1 || n < 16 * W)
        return false;
    int64_t m = set_maxima(s, n, each, work);
    float least = limit_of(work, m, k).value;
    if (least == -INFINITY)
        return false;
    for (int64_t i = 0; i < n; i += W) {
        unsigned in = (unsigned)vge_mask(n - i < W ? vkeep(vload_n(s + i, n - i), 0, n - i) : vload(s + i), vset1(least));
        if (few + W > cap)
            return false;
        for (; in; in &= in - 1, few++) {
            int32_t x = (int32_t)(i + __builtin_ctz(in));
            work[few] = s[x];
            memcpy(&work[cap + few], &x, sizeof x);
        }
    }
    struct limit t = few > k ? limit_of(work, few, k) : (struct limit){least, few, true};
    take_from(work, work + cap, few, &t, k, idx);
    return true;
}

static int64_t topk(const float *s, int64_t n, int64_t k, int32_t *idx, float *work)
{
    if (k <= 0 || n <= 0)
        return 0;
    if (k >= n) {
        for (int64_t i = 0; i < n; i++)
            idx[i] = (int32_t)i;
        return n;
    }
    if (topk_of_few(s, n, k, idx, work))
        return k;
    struct limit t = limit_of(s, n, k);
    take_from(s, NULL, n, &t, k, idx);
    return k;
}

#endif
