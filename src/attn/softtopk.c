/* Newton on tau, kept inside a bracket by bisection; all in double. */
#include "attn/softtopk.h"

#include <math.h>
#include <stdbool.h>

#include "base/err.h"

static double sigmoid(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

/* sum of m at tau, minus k; *z = sum of m (1 - m), the negative of its slope times T */
static double excess(double *m, const double *s, int64_t n, double tau, double k, double T, double *z)
{
    double sum = 0, slope = 0;
    for (int64_t i = 0; i < n; i++) {
        m[i] = sigmoid((s[i] - tau) / T);
        sum += m[i];
        slope += m[i] * (1 - m[i]);
    }
    *z = slope;
    return sum - k;
}

double soft_topk(double *m, const double *s, int64_t n, double k, double T)
{
    AST_ASSERT(T > 0);
    if (k >= (double)n || k <= 0) {
        for (int64_t i = 0; i < n; i++)
            m[i] = k > 0;
        return k > 0 ? -(double)INFINITY : (double)INFINITY;
    }
    /* all s equal to the least (largest) would put tau at the bracket's ends */
    double lo = s[0], hi = s[0], logit = log(k / (double)n) - log1p(-k / (double)n);
    for (int64_t i = 1; i < n; i++) {
        lo = fmin(lo, s[i]);
        hi = fmax(hi, s[i]);
    }
    lo -= T * logit;
    hi -= T * logit;
    double tau = lo + (hi - lo) / 2;
    for (int i = 0; i < 200; i++) {
        double z, e = excess(m, s, n, tau, k, T, &z);
        if (fabs(e) <= 1e-14 * fmax(1, k) || lo >= hi)
            break;
        if (e > 0)
            lo = tau;
        else
            hi = tau;
        double next = z > 0 ? tau + T * e / z : lo;
        if (!(next > lo && next < hi))
            next = lo + (hi - lo) / 2;
        if (next == tau)
            break;
        tau = next;
    }
    return tau;
}

void soft_topk_grad(double *ds, double *dk, const double *m, const double *g, int64_t n, double k, double T)
{
    double sum = 0, dot = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = m[i] * (1 - m[i]);
        sum += v;
        dot += v * g[i];
    }
    bool inner = k > 0 && k < (double)n;
    double mean = inner ? dot / fmax(sum, 1e-300) : 0;
    for (int64_t i = 0; i < n; i++)
        ds[i] = inner ? m[i] * (1 - m[i]) / T * (g[i] - mean) : 0;
    *dk = mean;
}
