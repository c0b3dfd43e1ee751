/* What choosing keys costs: products of rows, scores of blocks, the k largest. Plain. */
#include "kernels/ref/ref.h"

#include <math.h>
#include <string.h>

void ref_rows_matmul(const struct kern_rows *c)
{
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t j = 0; j < c->out; j++) {
            double s = c->accumulate ? (double)c->y[r * c->ldy + j] : 0;
            for (int64_t i = 0; i < c->in; i++)
                s += (double)c->x[r * c->ldx + i] * (double)c->w[i * c->out + j];
            c->y[r * c->ldy + j] = (float)s;
        }
}

void ref_block_scores(const struct kern_scores *c)
{
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t g = 0; g < c->groups; g++)
            for (int64_t j = 0; j < KERN_KB; j++) {
                double s = 0;
                for (int64_t i = 0; i < c->width; i++)
                    s += (double)c->u[r * c->width + i] * (double)c->v[g * c->v_stride + i * KERN_KB + j];
                c->s[r * c->ld + g * KERN_KB + j] = (float)((double)c->scale * s);
            }
}

/* The k-th largest of w[0 .. n-1], 1 <= k <= n; reorders w. Hoare 1961, algorithm 65 (Find). */
static float kth_largest(float *w, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n - 1, want = k - 1;
    while (lo < hi) {
        float pivot = w[lo + (hi - lo) / 2];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (w[i] > pivot)
                i++;
            while (w[j] < pivot)
                j--;
            if (i <= j) {
                float t = w[i];
                w[i++] = w[j];
                w[j--] = t;
            }
        }
        if (want <= j)
            hi = j;
        else if (want >= i)
            lo = i;
        else
            break;
    }
    return w[want];
}

int64_t ref_topk(const float *s, int64_t n, int64_t k, int32_t *idx, float *work, struct kern_guess *guess)
{
    (void)guess;
    if (k <= 0 || n <= 0)
        return 0;
    if (k >= n) {
        for (int64_t i = 0; i < n; i++)
            idx[i] = (int32_t)i;
        return n;
    }
    for (int64_t i = 0; i < n; i++)
        work[i] = isnan(s[i]) ? -INFINITY : s[i];
    float limit = kth_largest(work, n, k);
    int64_t above = 0, found = 0;
    for (int64_t i = 0; i < n; i++)
        above += s[i] > limit;
    int64_t ties = k - above;
    for (int64_t i = 0; i < n && found < k; i++) {
        float x = isnan(s[i]) ? -INFINITY : s[i];
        bool tie = x == limit && ties > 0;
        ties -= tie;
        if (x > limit || tie)
            idx[found++] = (int32_t)i;
    }
    return k;
}

void ref_running_mean(const struct kern_mean *c)
{
    for (int64_t t = 0; t < c->rows; t++) {
        double square = 0, n = (double)(c->before + t + 1);
        for (int64_t i = 0; i < c->dim; i++) {
            c->sum[i] += (double)c->x[t * c->ldx + i];
            square += c->sum[i] / n * (c->sum[i] / n);
            if (c->y)
                c->y[t * c->ldx + i] = (float)(c->sum[i] / n);
        }
        if (c->y)
            c->square[t] = (float)square;
    }
}

void ref_pool_rows(const struct kern_pool *c)
{
    for (int64_t j = 0; j < c->rows; j++)
        for (int64_t i = 0; i < c->dim; i++) {
            float x = c->x[j * c->ldx + i];
            c->sum[i] += x;
            c->max[i] = x > c->max[i] ? x : c->max[i];
            c->min[i] = x < c->min[i] ? x : c->min[i];
        }
}
