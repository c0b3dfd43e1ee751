/* Bootstrap and standard errors. */
#include "task/stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/rng.h"

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* numpy's default: linear interpolation between order statistics. */
static double percentile(const double *sorted, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double deviation(const double *x, int64_t n)
{
    double mean = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        mean += x[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return n < 2 ? (double)NAN : sqrt(sum / (double)(n - 1));
}

static void summarise(struct stats_result *out, double *x, int64_t n)
{
    int64_t below = 0, above = 0;
    for (int64_t i = 0; i < n; i++) {
        below += x[i] <= 0;
        above += x[i] >= 0;
    }
    qsort(x, (size_t)n, sizeof *x, by_value);
    out->lo = percentile(x, n, 0.025);
    out->hi = percentile(x, n, 0.975);
    out->se = deviation(x, n);
    int64_t side = below < above ? below : above;
    out->p = fmin(1, 2 * (double)(side + 1) / (double)(n + 1));
}

int stats_bootstrap(struct stats_result *out, const struct stats_plan *plan, stats_fn fn, const void *ctx)
{
    int64_t n = plan->n, kept = 0;
    int64_t *pick = malloc(((size_t)n + 1) * sizeof *pick);
    double *x = malloc(((size_t)plan->replicates + 1) * sizeof *x);
    int rc = pick && x ? ERR_OK : err_set(ERR_NOMEM, "out of memory for a bootstrap over %lld units", (long long)n);
    *out = (struct stats_result){(double)NAN, (double)NAN, (double)NAN, (double)NAN, (double)NAN};
    if (rc)
        goto out;
    for (int64_t u = 0; u < n; u++)
        pick[u] = u;
    out->value = n > 0 ? fn(ctx, pick, n) : (double)NAN;
    for (int64_t r = 0; r < plan->replicates && n > 1; r++) {
        for (int64_t u = 0; u < n; u++)
            pick[u] = rng_below(plan->seed, (uint64_t)r, (uint64_t)u, n);
        double v = fn(ctx, pick, n);
        if (isfinite(v))
            x[kept++] = v;
    }
    if (kept > 1)
        summarise(out, x, kept);
out:
    free(pick);
    free(x);
    return rc;
}

double stats_ratio(const void *ratio, const int64_t *pick, int64_t n)
{
    const struct stats_ratio *r = ratio;
    double num = 0, den = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t u = pick ? pick[i] : i;
        num += r->num[u];
        den += r->den[u];
    }
    double x = den != 0 ? num / den : (double)NAN;
    return r->map == STATS_EXP ? exp(x) : r->map == STATS_BITS ? x / log(2) : x;
}

double stats_difference(const void *pair, const int64_t *pick, int64_t n)
{
    const struct stats_pair *p = pair;
    return stats_ratio(&p->b, pick, n) - stats_ratio(&p->a, pick, n);
}

double stats_mean_stderr(const double *x, int64_t n)
{
    return deviation(x, n) / sqrt((double)n);
}

/* ---- lm-evaluation-harness ---- */

static uint32_t twist(uint32_t hi, uint32_t lo)
{
    uint32_t y = (hi & 0x80000000U) | (lo & 0x7fffffffU);
    return (y >> 1) ^ (y & 1 ? 0x9908b0dfU : 0);
}

/* init_by_array of one word. Source: Matsumoto & Nishimura 2002, mt19937ar. */
void stats_python_seed(struct stats_python *r, uint32_t seed)
{
    enum { N = 624 };
    uint32_t *s = r->s;
    int i = 1;
    s[0] = 19650218U;
    for (int k = 1; k < N; k++)
        s[k] = 1812433253U * (s[k - 1] ^ (s[k - 1] >> 30)) + (uint32_t)k;
    for (int k = 0; k < N; k++) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525U)) + seed;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    for (int k = 1; k < N; k++) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941U)) - (uint32_t)i;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000U;
    r->at = N;
}

static uint32_t python_u32(struct stats_python *r)
{
    enum { N = 624, M = 397 };
    if (r->at == N) {
        for (int k = 0; k < N; k++)
            r->s[k] = r->s[(k + M) % N] ^ twist(r->s[k], r->s[(k + 1) % N]);
        r->at = 0;
    }
    uint32_t y = r->s[r->at++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680U;
    y ^= (y << 15) & 0xefc60000U;
    return y ^ (y >> 18);
}

double stats_python_random(struct stats_python *r)
{
    uint32_t a = python_u32(r) >> 5, b = python_u32(r) >> 6;
    return ((double)a * 67108864.0 + (double)b) / 9007199254740992.0;
}

int stats_harness_stderr(double *out, const double *x, int64_t n, int64_t iterations)
{
    int64_t chunk = iterations < 1000 ? iterations : 1000;
    if (n < 1 || chunk < 1)
        return err_set(ERR_ARG, "a bootstrap needs at least one value and one iteration");
    int64_t chunks = iterations / chunk;
    double *v = calloc((size_t)(chunks * chunk), sizeof *v);
    if (!v)
        return err_set(ERR_NOMEM, "out of memory for %lld bootstrap replicates", (long long)iterations);
    for (int64_t c = 0; c < chunks; c++) {
        struct stats_python rng = {0};
        stats_python_seed(&rng, (uint32_t)c);
        for (int64_t k = 0; k < chunk; k++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                sum += x[(int64_t)(stats_python_random(&rng) * (double)n)];
            v[c * chunk + k] = exp(-sum / (double)n);
        }
    }
    *out = deviation(v, chunks * chunk);
    free(v);
    return ERR_OK;
}

double stats_pooled_stderr(const double *se, const int64_t *samples, int64_t k)
{
    double sum = 0, n = 0;
    for (int64_t i = 0; i < k; i++) {
        double m = (double)samples[i];
        sum += (m - 1) * se[i] * se[i] * m;
        n += m;
    }
    return sqrt(sum / (n - (double)k) / n);
}
