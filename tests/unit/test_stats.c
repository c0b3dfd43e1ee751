/* Bootstrap and standard errors: vectors from lm-evaluation-harness and CPython, and properties. */
#include "base/err.h"
#include "base/rng.h"
#include "task/stats.h"
#include "tests/t.h"

static void the_generator_is_pythons(void)
{
    static const int want[2][10] = {{8, 7, 4, 2, 5, 4, 7, 3, 4, 5}, {1, 8, 7, 2, 4, 4, 6, 7, 0, 0}};
    struct stats_python r;
    stats_python_seed(&r, 0);
    T_CHECK(stats_python_random(&r) == 0.8444218515250481);
    stats_python_seed(&r, 1);
    T_CHECK(stats_python_random(&r) == 0.13436424411240122);
    for (uint32_t seed = 0; seed < 2; seed++) {
        stats_python_seed(&r, seed);
        for (int i = 0; i < 10; i++)
            T_EQ((int)(stats_python_random(&r) * 10), want[seed][i]);
    }
}

static void harness_standard_errors_agree(void)
{
    static const double x[] = {-1, -2, -3, -2.5, -1.5};
    double se = 0;
    T_EQ(stats_harness_stderr(&se, x, 5, 1000), ERR_OK);
    T_NEAR(se, 2.552034241935398, 1e-12);
    T_EQ(stats_harness_stderr(&se, x, 5, 2000), ERR_OK);
    T_NEAR(se, 2.566769536743902, 1e-12);
    T_EQ(stats_harness_stderr(&se, x, 5, 2999), ERR_OK); /* the remainder is dropped */
    T_NEAR(se, 2.566769536743902, 1e-12);
    T_NEAR(stats_mean_stderr(x, 5), .3535533905932738, 1e-12);
    T_EQ(stats_harness_stderr(&se, x, 0, 10), ERR_ARG);
    err_clear();
}

static void pooled_errors_follow_the_formula(void)
{
    static const double se[] = {0.1, 0.2};
    static const int64_t n[] = {10, 30};
    /* (9 * .01 * 10 + 29 * .04 * 30) / (40 - 2) / 40 */
    T_NEAR(stats_pooled_stderr(se, n, 2), sqrt(35.7 / 38 / 40), 1e-14);
}

enum { UNITS = 200 };
static double num_a[UNITS], num_b[UNITS], den[UNITS];

static void fill(void)
{
    for (int i = 0; i < UNITS; i++) {
        den[i] = 50 + (double)rng_below(1, 0, (uint64_t)i, 100);
        num_a[i] = den[i] * (3 + 0.5 * rng_normal(1, 1, (uint64_t)i));
        num_b[i] = num_a[i] + den[i] * (0.1 + 0.01 * rng_normal(1, 2, (uint64_t)i));
    }
}

static void intervals_have_the_size_that_theory_gives(void)
{
    struct stats_ratio r = {num_a, den, STATS_PLAIN};
    struct stats_plan plan = {UNITS, 2000, 42};
    struct stats_result out;
    fill();
    T_EQ(stats_bootstrap(&out, &plan, stats_ratio, &r), ERR_OK);
    T_NEAR(out.value, stats_ratio(&r, NULL, UNITS), 1e-14);
    T_CHECK(out.lo < out.value && out.value < out.hi);
    /* sd 0.5 over 200 units of nearly equal weight: 0.5 / sqrt(200) = 0.035, a little more for uneven weights */
    T_CHECK(out.se > 0.028 && out.se < 0.048);
    T_NEAR((out.hi - out.lo) / (2 * 1.96 * out.se), 1, 0.1);
    struct stats_result again;
    T_EQ(stats_bootstrap(&again, &plan, stats_ratio, &r), ERR_OK);
    T_CHECK(again.lo == out.lo && again.hi == out.hi);
    plan.seed = 43;
    T_EQ(stats_bootstrap(&again, &plan, stats_ratio, &r), ERR_OK);
    T_CHECK(again.lo != out.lo);
}

static void pairing_tightens_a_difference(void)
{
    struct stats_pair pair = {{num_a, den, STATS_PLAIN}, {num_b, den, STATS_PLAIN}};
    struct stats_plan plan = {UNITS, 1000, 5};
    struct stats_result d, a;
    fill();
    T_EQ(stats_bootstrap(&d, &plan, stats_difference, &pair), ERR_OK);
    T_EQ(stats_bootstrap(&a, &plan, stats_ratio, &pair.a), ERR_OK);
    T_NEAR(d.value, 0.1, 0.01);
    T_CHECK(d.se < a.se / 10);
    T_CHECK(d.lo > 0 && d.p < 0.01);
    struct stats_pair same = {{num_a, den, STATS_EXP}, {num_a, den, STATS_EXP}};
    T_EQ(stats_bootstrap(&d, &plan, stats_difference, &same), ERR_OK);
    T_CHECK(d.value == 0 && d.lo == 0 && d.hi == 0 && d.p == 1);
}

static void too_few_units_have_no_interval(void)
{
    static const double one[] = {2};
    struct stats_ratio r = {one, one, STATS_BITS};
    struct stats_result out;
    struct stats_plan plan = {1, 100, 1};
    T_EQ(stats_bootstrap(&out, &plan, stats_ratio, &r), ERR_OK);
    T_NEAR(out.value, 1 / log(2), 1e-14);
    T_CHECK(isnan(out.lo) && isnan(out.hi) && isnan(out.se));
    plan.n = 0;
    T_EQ(stats_bootstrap(&out, &plan, stats_ratio, &r), ERR_OK);
    T_CHECK(isnan(out.value));
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(the_generator_is_pythons);
    T_RUN(harness_standard_errors_agree);
    T_RUN(pooled_errors_follow_the_formula);
    T_RUN(intervals_have_the_size_that_theory_gives);
    T_RUN(pairing_tightens_a_difference);
    T_RUN(too_few_units_have_no_interval);
    return t_done();
}
