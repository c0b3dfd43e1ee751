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

/* ---- the k largest: a limit that k numbers reach, found by passes that count those above a guess ---- */

/* W numbers from s[i] on; past n: -INFINITY */
INL vf load_upto(const float *s, int64_t i, int64_t n)
{
    return n - i < W ? vkeep(vload_n(s + i, n - i), 0, n - i) : vload(s + i);
}

static int64_t count_from(const float *s, int64_t n, float limit) /* s[i] >= limit > -INFINITY */
{
    int64_t count = 0, i = 0;
    vf at = vset1(limit);
    for (; i + W <= n; i += W)
        count += __builtin_popcount((unsigned)vge_mask(vload(s + i), at));
    if (i < n)
        count += __builtin_popcount((unsigned)vge_mask(load_upto(s, i, n), at));
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
        vf x = load_upto(s, i, n);
        hi = vmax(x, hi); /* a NaN is passed over, here and below */
        /* x + FLT_MAX is negative for -INFINITY alone */
        lo = vmin(vselect_neg(vadd(x, vset1(FLT_MAX)), vset1(INFINITY), x), lo);
    }
    *top = vtop(hi);
    *low = -vtop(vneg_where(lo, vset1(-1)));
}

/* Between which floats the limit lies, in their order: more than k numbers reach lo, fewer than k reach hi. over and under:
 * how many more and fewer; above: how many reach hi. */
struct bracket {
    int32_t lo, hi;
    float over, under;
    int64_t above;
};

/* Where to look next. By value first: on the line between both ends, as if numbers lay evenly; where one end was kept twice it
 * counts half (regula falsi, "Illinois"). Then by representation, which ends. */
static int32_t next_guess(const struct bracket *b, int step)
{
    float lo = float_of(b->lo), hi = float_of(b->hi - 1);
    float by = b->over / (b->over + b->under);
    int32_t mid = order_of(lo / 2 * (2 - 2 * by) + hi / 2 * (2 * by));
    if (step > 16 || mid <= b->lo || mid >= b->hi)
        mid = (int32_t)(((int64_t)b->lo + b->hi) / 2);
    return mid <= b->lo ? b->lo + 1 : mid;
}

/* Where the limit is likely to be, and how far off; NaN: not known. */
struct near {
    float value, off;
};

static struct limit search(const float *s, int64_t n, int64_t k, struct bracket b, struct near at)
{
    int32_t first = order_of(at.value);
    for (int step = 0; (int64_t)b.hi - b.lo > 1; step++) {
        int32_t mid = step == 0 ? first : step == 1 ? order_of(b.lo == first ? at.value + at.off : at.value - at.off) : 0;
        if (step >= 2 || mid <= b.lo || mid >= b.hi)
            mid = next_guess(&b, step);
        int64_t c = count_from(s, n, float_of(mid));
        if (c == k)
            return (struct limit){float_of(mid), k, true};
        if (c > k) {
            b.lo = mid;
            b.over = (float)(c - k);
            b.under /= 2;
        } else {
            b.hi = mid;
            b.under = (float)(k - c);
            b.over /= 2;
            b.above = c;
        }
    }
    return (struct limit){float_of(b.lo), b.above, false};
}

/* 1 <= k < n */
static struct limit limit_of(const float *s, int64_t n, int64_t k, struct near at)
{
    float top, low; /* of those above -INFINITY */
    range_of(s, n, &low, &top);
    int64_t c = top == -INFINITY ? 0 : count_from(s, n, low);
    if (c < k)
        return (struct limit){-INFINITY, c, false};
    if (c == k)
        return (struct limit){low, k, true};
    struct bracket b = {.lo = order_of(low), .hi = order_of(top) + 1, .over = (float)(c - k), .under = (float)k};
    return search(s, n, k, b, at);
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
            take = (unsigned)vge_mask(load_upto(s, i, n), vset1(t->value));
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

/* ---- where a guess is known: one pass collects the few numbers that reach it, and the choice is among these ---- */

struct moments {
    float mean, std;
};

/* Of whole vectors, which will do for a guess, n >= W; about the first number, so that a common part costs no digits. */
static struct moments moments_of(const float *s, int64_t n)
{
    vf sum[2] = {vzero(), vzero()}, square[2] = {vzero(), vzero()}, first = vset1(s[0]);
    int64_t i = 0;
    for (int u = 0; i + W <= n; i += W, u ^= 1) {
        vf x = vsub(vload(s + i), first);
        sum[u] = vadd(sum[u], x);
        square[u] = vfma(x, x, square[u]);
    }
    float mean = vsum(vadd(sum[0], sum[1])) / (float)i, var = vsum(vadd(square[0], square[1])) / (float)i - mean * mean;
    return (struct moments){s[0] + mean, sqrtf(var)}; /* NaN where a number is not finite: then nothing reaches a guess */
}

/* Numbers that reach `least`, and their indices in at, which lies `cap` floats behind work; more than cap - W: -1 */
static int64_t collect(const float *s, int64_t n, float least, float *work, int64_t cap)
{
    int64_t few = 0;
    vf limit = vset1(least);
    for (int64_t i = 0; i < n; i += W) {
        vf x = load_upto(s, i, n);
        unsigned in = (unsigned)vge_mask(x, limit);
        if (few + W > cap)
            return -1;
        vpack_index(work + cap + few, i, in);
        few += vpack(work + few, x, in);
    }
    return few;
}

/* Of the few numbers, all of which reach least. */
static struct limit limit_near(const float *s, int64_t few, int64_t k, float least, float value)
{
    if (few == k)
        return (struct limit){least, k, true};
    vf hi = vset1(least);
    for (int64_t i = 0; i < few; i += W)
        hi = vmax(load_upto(s, i, few), hi);
    struct bracket b = {.lo = order_of(least), .hi = order_of(vtop(hi)) + 1, .over = (float)(few - k), .under = (float)k};
    return search(s, few, k, b, (struct near){value, value - least});
}

/* The least of what the next row is to collect: a quarter more than k. */
static float margin_of(float value, float least, int64_t few, int64_t k, float std)
{
    float each = few > k ? (value - least) / (float)(few - k) : 0, margin = each * (float)(k / 4 + 8);
    return margin > 0.01F * std ? margin : 0.01F * std;
}

/* Indices of those that reach an exact limit. They lie in at (NULL: they count from 0), and go through room for n + W. */
static void take_exact(const float *s, const float *at, int64_t n, const struct limit *t, int64_t k, int32_t *idx, float *room)
{
    int64_t found = 0;
    vf limit = vset1(t->value);
    for (int64_t i = 0; i < n; i += W) { /* at may be room: what is written lies before what is read next */
        unsigned in = (unsigned)vge_mask(load_upto(s, i, n), limit);
        found += at ? vpack(room + found, vload(at + i), in) : vpack_index(room + found, i, in);
    }
    memcpy(idx, room, (size_t)k * sizeof *idx);
}

/* work as in topk; false: the guess was wrong, nothing done. */
static bool topk_guessed(const float *s, int64_t n, int64_t k, int32_t *idx, float *work, struct moments m,
                         struct kern_guess *guess)
{
    int64_t cap = n / 2 / W * W + 2 * W; /* twice that: n + 4 W at most, and n + 64 are there */
    float value = m.mean + guess->limit * m.std, least = value - guess->margin * m.std;
    if (!(least > -INFINITY))
        return false;
    int64_t few = collect(s, n, least, work, cap);
    if (few < k)
        return false;
    struct limit t = limit_near(work, few, k, least, value);
    guess->limit = (t.value - m.mean) / m.std;
    guess->margin = margin_of(t.value, least, few, k, m.std) / m.std;
    if (t.exact)
        take_exact(work, work + cap, few, &t, k, idx, work + cap);
    else
        take_from(work, work + cap, few, &t, k, idx);
    return true;
}

static int64_t topk(const float *s, int64_t n, int64_t k, int32_t *idx, float *work, struct kern_guess *guess)
{
    if (k <= 0 || n <= 0)
        return 0;
    if (k >= n) {
        for (int64_t i = 0; i < n; i++)
            idx[i] = (int32_t)i;
        return n;
    }
    struct moments m = {NAN, NAN};
    struct near at = {NAN, NAN};
    if (guess && n >= 2 * W) {
        m = moments_of(s, n);
        if (guess->margin > 0 && n >= 3 * k && topk_guessed(s, n, k, idx, work, m, guess))
            return k;
        at = (struct near){m.mean + guess->limit * m.std, 0.1F * m.std};
    }
    struct limit t = limit_of(s, n, k, at);
    if (t.exact)
        take_exact(s, NULL, n, &t, k, idx, work);
    else
        take_from(s, NULL, n, &t, k, idx);
    if (m.std > 0)
        *guess = (struct kern_guess){(t.value - m.mean) / m.std, 0.15F};
    return k;
}

#endif
