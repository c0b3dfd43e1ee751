/* What choosing keys costs, against plain loops in double and a plain sort. Tolerance: chains of up to 200 terms of size
 * <= 1 in float, sqrt(n) eps of the sum of magnitudes. */
#include "tests/t.h"

#include "kernels/kern.h"

enum { MOST = 200, N = 3000 };
static struct kern_table kern, ref;
static uint64_t seed = 88172645463325252u;
static float x[MOST * MOST], w[MOST * MOST], got[MOST * MOST + 64], want[MOST * MOST + 64], alone[MOST * MOST];

static double uniform(void) /* [-1, 1), xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static void fill(float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)uniform();
}

static void check_near(int64_t rows, int64_t out, int64_t ld, int64_t in)
{
    for (int64_t i = 0; i < rows * ld + 64; i++) {
        bool inside = i % ld < out && i < rows * ld;
        if (!(fabs((double)got[i] - (double)want[i]) <= (inside ? 1.2e-7 * (double)in + 1.2e-7 : 0))) {
            T_FAIL("rows %lld out %lld in %lld: [%lld] = %g, want %g", (long long)rows, (long long)out, (long long)in, (long long)i,
                   (double)got[i], (double)want[i]);
            return;
        }
    }
}

static void products_of_rows_equal_plain_ones(void)
{
    for (int round = 0; round < 400; round++) {
        int64_t rows = round % 11, out = 1 + round * 7 % 131, in = 1 + round * 5 % 67, ldx = in + 3, ldy = out + 2;
        fill(x, rows * ldx), fill(w, in * out), fill(got, rows * ldy + 64);
        memcpy(want, got, sizeof got);
        struct kern_rows c = {
            .rows = rows, .in = in, .out = out, .x = x, .w = w, .ldx = ldx, .y = got, .ldy = ldy, .accumulate = round % 2};
        kern.rows_matmul(&c);
        c.y = want;
        ref.rows_matmul(&c);
        check_near(rows, out, ldy, in);
        for (int64_t r = 0; r < rows && !c.accumulate; r++) { /* a row alone: the same bits */
            c.rows = 1, c.x = x + r * ldx, c.y = alone;
            kern.rows_matmul(&c);
            T_CHECK(memcmp(alone, got + r * ldy, (size_t)out * sizeof(float)) == 0);
        }
    }
}

static void scores_of_blocks_equal_plain_ones(void)
{
    for (int round = 0; round < 200; round++) {
        int64_t rows = round % 11, groups = round % 9, width = 1 + round % 70, stride = (width + round % 3) * KERN_KB;
        int64_t ld = groups * KERN_KB + 1;
        fill(x, rows * width), fill(w, 9 * stride), fill(got, rows * ld + 64);
        memcpy(want, got, sizeof got);
        struct kern_scores c = {
            .rows = rows, .width = width, .groups = groups, .u = x, .v = w, .v_stride = stride, .scale = 0.3F, .s = got, .ld = ld};
        kern.block_scores(&c);
        c.s = want;
        ref.block_scores(&c);
        check_near(rows, groups * KERN_KB, ld, width);
        for (int64_t g = 0; g < groups && rows; g++) { /* another range of columns, another number of rows: the same bits */
            c.rows = 1, c.groups = 1, c.v = w + g * stride, c.s = alone;
            kern.block_scores(&c);
            T_CHECK(memcmp(alone, got + g * KERN_KB, KERN_KB * sizeof(float)) == 0);
        }
    }
}

static void the_k_largest_are_those_of_a_plain_sort(void)
{
    static float s[N + 1], work[N + 64];
    static int32_t idx[N + 1], plain[N + 1];
    struct kern_guess guess = {0, 0};
    for (int round = 0; round < 3000; round++) {
        int64_t n = round < 2600 ? round % 132 : N - round % 40, k = (int64_t)((uniform() + 1.05) / 2 * (double)(n + 2));
        if (round >= 2600 && round % 3) /* few of many, as predictors ask */
            k %= 4 + n / (round % 7 ? 100 : 7);
        fill(s, n);
        s[n] = 7; /* past the end */
        for (int64_t i = 0; i < n; i++) {
            double v = (double)s[i];
            if (round % 5 == 1)
                s[i] = (float)floor(v * 3); /* ties, zeros */
            if (round % 5 == 2)
                s[i] = (float)(v * pow(10, 30 * uniform()));
            if (round % 5 == 3 && v < 0.3)
                s[i] = i % 3 ? -INFINITY : NAN;
            if (round % 5 == 4)
                s[i] = v > 0.6 ? -0.0F : v > 0.2 ? 0.0F : v > 0.1 ? INFINITY : v > 0 ? 1e-42F : -1e-42F;
        }
        idx[n] = plain[n] = -5;
        /* what was left by another row, or anything: the same choice */
        if (round % 7 < 3)
            guess = (struct kern_guess){round % 7 == 1 ? NAN : (float)(3 * uniform()), round % 7 ? 0.2F : (float)uniform()};
        int64_t a = kern.topk(s, n, k, idx, work, round % 3 ? &guess : NULL), b = ref.topk(s, n, k, plain, work, NULL);
        T_EQ(a, b);
        T_EQ(a, k < 0 ? 0 : k < n ? k : n);
        if (memcmp(idx, plain, (size_t)b * sizeof *idx) != 0)
            T_FAIL("round %d: n %lld, k %lld", round, (long long)n, (long long)k);
        for (int64_t i = 1; i < a; i++)
            T_CHECK(idx[i] > idx[i - 1]);
        if (round < 500 && a == k && k > 0 && k < n) { /* none left out is larger than one taken */
            float least = INFINITY;
            int64_t larger = 0, at = 0;
            for (int64_t i = 0; i < a; i++)
                least = isnan(s[idx[i]]) ? -INFINITY : s[idx[i]] < least ? s[idx[i]] : least;
            for (int64_t i = 0; i < n; i++) {
                bool taken = at < a && idx[at] == i;
                at += taken;
                larger += !taken && s[i] > least;
            }
            T_EQ(larger, 0);
        }
    }
}

static void running_means_equal_plain_ones_in_any_pieces(void)
{
    static double sum[3][MOST];
    static float square[3][MOST];
    for (int round = 0; round < 200; round++) {
        int64_t rows = round % 23, dim = 1 + round * 7 % 131, ldx = dim + round % 3, before = round % 4 * 1000, first = rows / 3;
        size_t later = (size_t)((rows - first) * ldx) * sizeof(float);
        fill(x, rows * ldx), fill(got, rows * ldx + 64);
        memcpy(want, got, sizeof got), memcpy(alone, got, sizeof alone);
        for (int64_t i = 0; i < dim; i++)
            sum[0][i] = sum[1][i] = sum[2][i] = (double)before * uniform();
        struct kern_mean c = {rows, dim, ldx, before, x, sum[0], got, square[0]};
        kern.running_mean(&c);
        c.sum = sum[1], c.y = want, c.square = square[1];
        ref.running_mean(&c);
        for (int64_t i = 0; i < rows * ldx + 64; i++) /* means of at most 1, rounded once more or less; others left alone */
            T_NEAR(got[i], want[i], i % ldx < dim && i < rows * ldx ? 1.2e-7 : 0);
        for (int64_t r = 0; r < rows; r++)
            T_NEAR(square[0][r], square[1][r], 2e-7 * (double)dim);
        c = (struct kern_mean){first, dim, ldx, before, x, sum[2], round % 2 ? alone : NULL, round % 2 ? square[2] : NULL};
        kern.running_mean(&c);
        c = (struct kern_mean){rows - first,     dim, ldx, before + first, x + first * ldx, sum[2], alone + first * ldx,
                               square[2] + first};
        kern.running_mean(&c);
        T_CHECK(memcmp(sum[0], sum[1], sizeof *sum) == 0 && memcmp(sum[0], sum[2], sizeof *sum) == 0);
        T_CHECK(memcmp(alone + first * ldx, got + first * ldx, later) == 0);
        T_CHECK(memcmp(square[0] + first, square[2] + first, (size_t)(rows - first) * sizeof(float)) == 0);
    }
}

static void pools_equal_plain_ones(void)
{
    for (int round = 0; round < 200; round++) {
        int64_t rows = round % 19, dim = 1 + round * 7 % 131, ldx = dim + round % 4;
        fill(x, rows * ldx + 1);
        if (round % 5 == 0 && rows)
            x[round % (rows * ldx)] = NAN;
        for (int64_t i = 0; i < 4 * MOST; i++)
            got[i] = want[i] = i < MOST ? 0 : i < 2 * MOST ? -INFINITY : INFINITY;
        struct kern_pool c = {.rows = rows, .dim = dim, .ldx = ldx, .x = x, .sum = got, .max = got + MOST, .min = got + 2 * MOST};
        kern.pool_rows(&c);
        c.sum = want, c.max = want + MOST, c.min = want + 2 * MOST;
        ref.pool_rows(&c);
        for (int64_t i = 0; i < 4 * MOST; i++)
            T_CHECK(got[i] == want[i] || (isnan(got[i]) && isnan(want[i])));
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (kern_select(&kern, NULL) || kern_select(&ref, "ref"))
        return 1;
    T_RUN(products_of_rows_equal_plain_ones);
    T_RUN(scores_of_blocks_equal_plain_ones);
    T_RUN(the_k_largest_are_those_of_a_plain_sort);
    T_RUN(running_means_equal_plain_ones_in_any_pieces);
    T_RUN(pools_equal_plain_ones);
    return t_done();
}
