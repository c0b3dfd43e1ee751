/* Differentiable top-k: its sum, its gradient by finite differences, its edges; and the choice of budgets. */
#include <stdint.h>

#include "attn/select.h"
#include "attn/softtopk.h"
#include "base/rng.h"
#include "tests/t.h"

enum { N = 40 };

static void fill(double *x, int n, uint64_t stream)
{
    for (int i = 0; i < n; i++)
        x[i] = rng_normal(11, stream, (uint64_t)i);
}

static void weights_sum_to_k(void)
{
    double s[1024], m[1024];
    for (uint64_t c = 0; c < 200; c++) {
        int64_t n = 2 + rng_below(1, 1, c, 1000);
        double k = (double)n * (0.001 + 0.998 * rng_uniform(1, 2, c)), T = pow(10, -2 + 2.5 * rng_uniform(1, 3, c)), sum = 0;
        fill(s, (int)n, 10 + c);
        soft_topk(m, s, n, k, T);
        for (int64_t i = 0; i < n; i++)
            sum += m[i];
        T_NEAR(sum / k, 1, 1e-11);
    }
}

static void a_shift_of_all_scores_changes_nothing(void)
{
    double s[N], m[N], shifted[N];
    fill(s, N, 1);
    soft_topk(m, s, N, 7.3, 0.3);
    for (int i = 0; i < N; i++)
        s[i] += 1000;
    soft_topk(shifted, s, N, 7.3, 0.3);
    for (int i = 0; i < N; i++)
        T_NEAR(shifted[i], m[i], 1e-10);
}

static double loss(const double *s, double k, double T, const double *g)
{
    double m[N], sum = 0;
    soft_topk(m, s, N, k, T);
    for (int i = 0; i < N; i++)
        sum += m[i] * g[i];
    return sum;
}

static void the_gradient_is_that_of_finite_differences(void)
{
    double s[N], g[N], m[N], ds[N], dk;
    static const double Ts[] = {1, 0.3, 0.1};
    for (int c = 0; c < 3; c++) {
        double T = Ts[c], k = 7.3, h = 1e-5 * T;
        fill(s, N, 2);
        fill(g, N, 3);
        soft_topk(m, s, N, k, T);
        soft_topk_grad(ds, &dk, m, g, N, k, T);
        for (int i = 0; i < N; i++) {
            double keep = s[i];
            s[i] = keep + h;
            double up = loss(s, k, T, g);
            s[i] = keep - h;
            T_NEAR(ds[i], (up - loss(s, k, T, g)) / (2 * h), 1e-6);
            s[i] = keep;
        }
        T_NEAR(dk, (loss(s, k + 1e-5, T, g) - loss(s, k - 1e-5, T, g)) / 2e-5, 1e-6);
    }
}

static void all_or_nothing_has_no_gradient(void)
{
    double s[N], g[N], m[N], ds[N], dk;
    fill(s, N, 4);
    fill(g, N, 5);
    for (int k = 0; k <= N + 1; k += N + 1) {
        soft_topk(m, s, N, k, 0.5);
        soft_topk_grad(ds, &dk, m, g, N, k, 0.5);
        T_NEAR(dk, 0, 0);
        for (int i = 0; i < N; i++) {
            T_NEAR(m[i], k > 0, 0);
            T_NEAR(ds[i], 0, 0);
        }
    }
    for (int i = 0; i < N; i++)
        s[i] = 3;
    soft_topk(m, s, N, 10, 0.01); /* all equal */
    for (int i = 0; i < N; i++)
        T_NEAR(m[i], 0.25, 1e-12);
}

static void forced_blocks_count_within_the_budget(void)
{
    struct select_rule r = {.block = 16, .local = 64, .budget = SELECT_TOKENS, .keep = 512};
    struct select_set s;
    int32_t chosen[64], list[64];
    select_sets(&s, &r, 8000); /* own block 500, local from block 496 */
    T_CHECK(s.sink && s.lo == 1 && s.hi == 496 && s.own == 500);
    T_EQ(s.most, 512 / 16 - 6);
    for (int i = 0; i < 26; i++)
        chosen[i] = 2 * i;
    T_EQ(select_list(&s, chosen, 26, list), 32);
    T_CHECK(list[0] == 0 && list[1] == 1 && list[26] == 51 && list[27] == 496 && list[31] == 500);
    T_EQ(select_keys(&s, &r, list, 32), 31 * 16 + 1);
    select_sets(&s, &r, 511);
    T_CHECK(s.all);
    select_sets(&s, &r, 512);
    T_CHECK(!s.all);
    r.window = 100; /* keys 7901 .. 8000: from block 493 on */
    select_sets(&s, &r, 8000);
    T_CHECK(!s.sink && s.first == 493 && s.lo == 493 && s.hi == 496);
}

static void top_p_is_the_smallest_set(void)
{
    struct select_rule r = {.block = 16, .budget = SELECT_TOP_P};
    float s[300], work[300];
    for (uint64_t c = 0; c < 300; c++) {
        int64_t n = 1 + rng_below(2, 1, c, 299), k = 0;
        double sum = 0, mass = 0, p = rng_uniform(2, 2, c);
        double sorted[300];
        for (int64_t i = 0; i < n; i++) {
            s[i] = (float)(rng_below(2, 3, c * 1000 + (uint64_t)i, 40)) * 0.25F; /* ties */
            int64_t j = i;
            for (; j > 0 && sorted[j - 1] < exp((double)s[i]); j--)
                sorted[j] = sorted[j - 1];
            sorted[j] = exp((double)s[i]);
            sum += exp((double)s[i]);
        }
        for (; k < n && mass < p * sum; k++)
            mass += sorted[k];
        struct select_set set = {.hi = n, .most = n, .own = n};
        r.top_p = p;
        int64_t got = select_count(&set, &r, s, 0, work);
        /* floats may round one block to the other side of p, and only one that sits on it */
        bool on_edge = fabs(mass - p * sum) < 1e-5 * sum || fabs(mass - sorted[k > 0 ? k - 1 : 0] - p * sum) < 1e-5 * sum;
        if (got != k && !(on_edge && llabs((long long)(got - k)) <= 1))
            T_FAIL("n = %lld, p = %g: %lld blocks, want %lld", (long long)n, p, (long long)got, (long long)k);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(weights_sum_to_k);
    T_RUN(a_shift_of_all_scores_changes_nothing);
    T_RUN(the_gradient_is_that_of_finite_differences);
    T_RUN(all_or_nothing_has_no_gradient);
    T_RUN(forced_blocks_count_within_the_budget);
    T_RUN(top_p_is_the_smallest_set);
    return t_done();
}
