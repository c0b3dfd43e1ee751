/* Intervals and standard errors: our own bootstrap (counter-based random numbers, so that ranks and threads change
 * nothing) and the estimates other harnesses print, to the last digit. Pure. */
#ifndef AST_TASK_STATS_H
#define AST_TASK_STATS_H

#include <stddef.h>
#include <stdint.h>

/* A statistic of a resample: units pick[0 .. n-1] (indices, with repetitions) of what ctx holds. */
typedef double (*stats_fn)(const void *ctx, const int64_t *pick, int64_t n);

struct stats_plan {
    int64_t n;          /* units: documents, segments, questions */
    int64_t replicates; /* 1000 is common */
    uint64_t seed;      /* unit u of replicate r is a function of (seed, r, u) alone */
};

struct stats_result {
    double value;  /* of the sample itself */
    double lo, hi; /* 95 % percentile interval; NaN with fewer than two units or replicates */
    double se;     /* sample standard deviation of the replicates */
    double p;      /* two-sided: 2 min(share <= 0, share >= 0), at least 1/(replicates+1), at most 1; for differences */
};

/* Non-finite replicates (an empty denominator) are left out. ERR_NOMEM. */
int stats_bootstrap(struct stats_result *out, const struct stats_plan *plan, stats_fn fn, const void *ctx);

/* Ratio of sums, with a transform: f(sum num / sum den). */
enum stats_map { STATS_PLAIN, STATS_EXP, STATS_BITS }; /* x; e^x; x / ln 2 */
struct stats_ratio {
    const double *num, *den; /* (n,) */
    enum stats_map map;
};
double stats_ratio(const void *ratio, const int64_t *pick, int64_t n); /* a stats_fn; pick NULL: every unit once */

/* Difference b - a of two ratios over the same units: what pairing is for. */
struct stats_pair {
    struct stats_ratio a, b;
};
double stats_difference(const void *pair, const int64_t *pick, int64_t n); /* a stats_fn */

/* Sample standard deviation / sqrt(n). NaN for n < 2. */
double stats_mean_stderr(const double *x, int64_t n);

/* ---- as lm-evaluation-harness prints them (lm_eval/api/metrics.py) ---- */

/* Standard error of exp(-mean x): the sample standard deviation of `iterations` replicates, drawn by Python's
 * random.Random(i).choices in chunks of 1000 (a remainder is dropped). ERR_NOMEM, ERR_ARG (n < 1). */
int stats_harness_stderr(double *out, const double *x, int64_t n, int64_t iterations);

/* Standard error of a group of k subtasks from those of its parts: se (k,), samples (k,). */
double stats_pooled_stderr(const double *se, const int64_t *samples, int64_t k);

/* CPython's generator: Mersenne Twister seeded by random.Random(seed) for a small integer. */
struct stats_python {
    uint32_t s[624];
    int at;
};
void stats_python_seed(struct stats_python *r, uint32_t seed);
double stats_python_random(struct stats_python *r); /* [0, 1) */

#endif
