/* Rows of exponentials and the running log-sum-exp, plain. */
#include "kernels/ref/ref.h"

#include <math.h>

static float row_max(const float *x, int64_t n)
{
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

float ref_exp_row(float *y, const float *x, int64_t n, float *sum)
{
    float top = row_max(x, n), from = top == -INFINITY ? 0.0F : top;
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = exp((double)(x[i] - from));
        y[i] = (float)e;
        s += e;
    }
    *sum = (float)s;
    return top;
}

/* Milakov & Gimelshein 2018, alg. 3, a chunk at a time */
void ref_lse_update(const float *x, int64_t n, float *m, double *s)
{
    float top = row_max(x, n);
    if (top > *m) {
        *s = *m == -INFINITY ? *s : *s * exp((double)*m - (double)top);
        *m = top;
    }
    double from = *m == -INFINITY ? 0 : (double)*m;
    for (int64_t i = 0; i < n; i++)
        *s += exp((double)x[i] - from);
}
