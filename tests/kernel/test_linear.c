/* Linear layers of the chosen instruction set against products in double. Tolerance: a chain of n additions of terms of
 * size <= 1 is off by at most n^2/2 eps in theory, by a few sqrt(n) eps in practice; 2e-7 (1 + sqrt(n)) n^0.5 is used. bf16:
 * inputs are rounded here too, products of pairs are exact in float, so that the same tolerance holds. */
#include "tests/t.h"

#include "kernels/linear.h"

enum { GUARD = 8 };
static struct kern_table kern;
static uint64_t seed = 88172645463325252u;
static const float sentinel = -12345.0F;

static double uniform(void) /* [-1, 1), xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static struct {
    int64_t out, in, m;
    float *w, *x, *y, *before;
    struct kern_mat mat;
    void *scratch;
} p;

static void *aligned(size_t bytes)
{
    void *at = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!at)
        abort();
    memset(at, 0xFF, (bytes + 127) / 64 * 64);
    return at;
}

static float rounded(enum kern_dtype t, double v)
{
    float x = (float)v;
    uint16_t h;
    if (t == KERN_BF16) {
        kern.bf16_from_f32(&h, &x, 1);
        kern.f32_from_bf16(&x, &h, 1);
    }
    return x;
}

static void setup(enum kern_dtype t, int64_t out, int64_t in, int64_t m)
{
    p.out = out, p.in = in, p.m = m;
    p.w = malloc((size_t)(out * in) * sizeof(float));
    p.x = malloc((size_t)(m * in) * sizeof(float));
    p.y = malloc((size_t)(m * (out + GUARD)) * sizeof(float));
    p.before = malloc((size_t)(m * (out + GUARD)) * sizeof(float));
    p.mat = (struct kern_mat){.dtype = t, .out = out, .in = in, .data = aligned(kern_mat_bytes(t, out, in))};
    p.scratch = aligned(kern_linear_scratch(&p.mat, m));
    for (int64_t i = 0; i < out * in; i++)
        p.w[i] = rounded(t, uniform());
    for (int64_t i = 0; i < m * in; i++)
        p.x[i] = rounded(t, uniform());
    for (int64_t i = 0; i < m * (out + GUARD); i++)
        p.y[i] = p.before[i] = i % (out + GUARD) < out ? (float)uniform() : sentinel;
    int64_t half = out / 3;
    kern_mat_set(&kern, &p.mat, half, out - half, p.w + half * in, in);
    kern_mat_set(&kern, &p.mat, 0, half, p.w, in);
}

static void teardown(void)
{
    free(p.w), free(p.x), free(p.y), free(p.before), free(p.mat.data), free(p.scratch);
}

static void multiply(int64_t m0, int64_t m, int64_t r0, int64_t r1, bool accumulate)
{
    struct kern_linear c = {.w = &p.mat,
                            .r0 = r0,
                            .r1 = r1,
                            .x = p.x + m0 * p.in,
                            .m = m,
                            .ldx = p.in,
                            .y = p.y + m0 * (p.out + GUARD),
                            .ldy = p.out + GUARD,
                            .accumulate = accumulate,
                            .scratch = p.scratch};
    kern_linear(&kern, &c);
}

static void check(int64_t r0, int64_t r1, bool accumulate)
{
    int bad = 0;
    double tol = 2e-7 * (1 + sqrt((double)p.in)) * sqrt((double)p.in);
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.out + GUARD; j++) {
            double got = (double)p.y[i * (p.out + GUARD) + j], want = (double)p.before[i * (p.out + GUARD) + j];
            bool inside = j < r1 - r0;
            if (inside) {
                want = accumulate ? want : 0;
                for (int64_t c = 0; c < p.in; c++)
                    want += (double)p.x[i * p.in + c] * (double)p.w[(r0 + j) * p.in + c];
            }
            bad += !(fabs(got - want) <= (inside ? tol : 0));
        }
    if (bad)
        T_FAIL("bf16 %d, out %lld, in %lld, m %lld, rows %lld..%lld: %d of %lld numbers", p.mat.dtype, (long long)p.out,
               (long long)p.in, (long long)p.m, (long long)r0, (long long)r1, bad, (long long)(p.m * p.out));
}

static void products_equal_double_at_awkward_sizes(void)
{
    static const int64_t outs[] = {1, 15, 16, 17, 70, 131}, ins[] = {1, 2, 31, 64, 129}, ms[] = {1, 2, 3, 5, 8, 13, 16, 33};
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < 6; i++)
            for (size_t j = 0; j < 5; j++)
                for (size_t k = 0; k < 8; k++) {
                    setup(t ? KERN_BF16 : KERN_F32, outs[i], ins[j], ms[k]);
                    bool accumulate = (i + j + k) % 2;
                    multiply(0, p.m, 0, 0, accumulate);
                    check(0, p.out, accumulate);
                    teardown();
                }
}

static void products_equal_double_at_large_sizes(void)
{
    for (int t = 0; t < 2; t++) {
        setup(t ? KERN_BF16 : KERN_F32, 90, 2307, 19);
        multiply(0, p.m, 0, 0, true);
        check(0, p.out, true);
        teardown();
        setup(t ? KERN_BF16 : KERN_F32, 40, 70, 600);
        multiply(0, p.m, 0, 0, false);
        check(0, p.out, false);
        teardown();
    }
}

static void a_range_of_rows_leaves_the_rest_alone(void)
{
    for (int t = 0; t < 2; t++)
        for (int round = 0; round < 40; round++) {
            setup(t ? KERN_BF16 : KERN_F32, 100, 33, round % 11 + 1);
            int64_t r0 = (int64_t)((uniform() + 1) * 40), r1 = r0 + 1 + (int64_t)((uniform() + 1) / 2 * (double)(99 - r0));
            multiply(0, p.m, r0, r1, round % 2);
            check(r0, r1, round % 2);
            teardown();
        }
}

static void a_row_has_the_same_bits_in_any_batch(void)
{
    for (int t = 0; t < 2; t++) {
        setup(t ? KERN_BF16 : KERN_F32, 77, 1100, 200);
        multiply(0, p.m, 0, 0, false);
        float *all = malloc((size_t)(p.m * (p.out + GUARD)) * sizeof(float));
        memcpy(all, p.y, (size_t)(p.m * (p.out + GUARD)) * sizeof(float));
        for (int64_t i = 0, n = 1; i < p.m; i += n, n = n % 17 + 1)
            multiply(i, i + n > p.m ? p.m - i : n, 0, 0, false);
        T_CHECK(memcmp(all, p.y, (size_t)(p.m * (p.out + GUARD)) * sizeof(float)) == 0);
        free(all);
        teardown();
    }
}

static void rows_come_back(void)
{
    for (int t = 0; t < 2; t++) {
        setup(t ? KERN_BF16 : KERN_F32, 50, 131, 1);
        float *row = malloc((size_t)p.in * sizeof(float));
        for (int64_t r = 0; r < p.out; r++) {
            kern_mat_row(&kern, &p.mat, r, row);
            T_CHECK(memcmp(row, p.w + r * p.in, (size_t)p.in * sizeof(float)) == 0);
        }
        free(row);
        teardown();
    }
}

/* Number i of row r stands in line i, place r, or with tiles in row r, place i: as it is, rounded to bf16, or in pairs of bf16;
 * nothing else is written. In two parts, as threads do. */
static void few_rows_are_laid_out(int64_t rows, int64_t n, enum kern_dtype t)
{
    enum { LD = 200, MOST = (LD + 32) * KERN_NARROW };
    static float x[MOST], to[MOST];
    static bool written[MOST];
    bool pairs = t == KERN_BF16 && kern_has_pairs(&kern), tiles = t == KERN_BF16 && kern.has_tiles;
    int64_t inputs = t == KERN_BF16 ? n + n % 2 : n, steps = t == KERN_BF16 ? inputs / 2 : n, ld = kern_few_ld(steps), bad = 0;
    for (int64_t i = 0; i < MOST; i++)
        x[i] = (float)uniform(), to[i] = sentinel, written[i] = false;
    for (int64_t first = 0, part = n / 4 * 2; first < n; first += part, part = n - first) {
        struct kern_lay c = {
            .dtype = t, .rows = rows, .steps = steps, .first = first, .n = part, .ldx = LD, .x = x + first, .to = to};
        if (part)
            kern.lay_few(&c);
    }
    for (int64_t i = 0; i < inputs; i++)
        for (int64_t r = 0; r < rows; r++) {
            int64_t number = pairs ? i / 2 : i, at = tiles ? r * ld + number : number * rows + r;
            float want = i < n ? rounded(t, (double)x[r * LD + i]) : 0, got = to[at];
            if (pairs)
                kern.f32_from_bf16(&got, (const uint16_t *)(const void *)(to + at) + i % 2, 1);
            bad += memcmp(&got, &want, sizeof got) != 0;
            written[at] = true;
        }
    for (int64_t i = 0; i < MOST; i++)
        bad += !written[i] && to[i] != sentinel;
    if (bad)
        T_FAIL("%lld rows of %lld, bf16 %d: %lld numbers", (long long)rows, (long long)n, t, (long long)bad);
}

static void few_rows_are_laid_out_at_any_size(void)
{
    static const int64_t ns[] = {1, 2, 7, 8, 15, 16, 17, 32, 33, 63, 64, 199};
    for (int64_t rows = 1; rows <= KERN_NARROW; rows++)
        for (size_t i = 0; i < sizeof ns / sizeof *ns; i++)
            for (int t = 0; t < 2; t++)
                few_rows_are_laid_out(rows, ns[i], t ? KERN_BF16 : KERN_F32);
}

static void threads_change_no_bit(void)
{
    for (int t = 0; t < 2; t++) {
        setup(t ? KERN_BF16 : KERN_F32, 200, 900, 37);
        kern_threads(1);
        multiply(0, p.m, 0, 0, false);
        memcpy(p.before, p.y, (size_t)(p.m * (p.out + GUARD)) * sizeof(float));
        kern_threads(3);
        multiply(0, p.m, 0, 0, false);
        T_CHECK(memcmp(p.before, p.y, (size_t)(p.m * (p.out + GUARD)) * sizeof(float)) == 0);
        T_CHECK(strstr(kern_blas_info(), "OpenBLAS") && strstr(kern_blas_info(), "3 threads"));
        kern_threads(1);
        teardown();
    }
}

static void make_row(const void *arg, float *to, int64_t r)
{
    const float *x = arg;
    memcpy(to, x + r * p.in, (size_t)p.in * sizeof *to);
}

/* Teams that lay out all rows thread by thread, and larger ones that share the work; rows given and rows made. */
static void few_rows_have_the_same_bits_on_any_threads(void)
{
    static const int threads[] = {1, 2, 4, 5, 11};
    for (int v = 0; v < 2 * KERN_NARROW; v++) {
        setup(v % 2 ? KERN_BF16 : KERN_F32, 300, v % 4 < 2 ? 270 : 333, 1 + v / 2);
        struct kern_linear c = {.w = &p.mat, .m = p.m, .row = make_row, .arg = p.x, .y = p.y, .scratch = p.scratch};
        c.ldy = p.out + GUARD;
        kern_threads(1);
        multiply(0, p.m, 0, 0, false);
        memcpy(p.before, p.y, (size_t)(p.m * (p.out + GUARD)) * sizeof(float));
        for (size_t i = 0; i < 2 * sizeof threads / sizeof *threads; i++) {
            kern_threads(threads[i / 2]);
            memset(p.scratch, 0xFF, kern_linear_scratch(&p.mat, p.m)); /* NaN */
            if (i % 2)
                kern_linear(&kern, &c);
            else
                multiply(0, p.m, 0, 0, false);
            if (memcmp(p.before, p.y, (size_t)(p.m * (p.out + GUARD)) * sizeof(float)))
                T_FAIL("bf16 %d, m %lld, %d threads, made %zu: bits differ", v % 2, (long long)p.m, threads[i / 2], i % 2);
        }
        kern_threads(1);
        teardown();
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (kern_select(&kern, NULL))
        return 1;
    T_RUN(products_equal_double_at_awkward_sizes);
    T_RUN(products_equal_double_at_large_sizes);
    T_RUN(a_range_of_rows_leaves_the_rest_alone);
    T_RUN(a_row_has_the_same_bits_in_any_batch);
    T_RUN(rows_come_back);
    T_RUN(few_rows_are_laid_out_at_any_size);
    T_RUN(threads_change_no_bit);
    T_RUN(few_rows_have_the_same_bits_on_any_threads);
    return t_done();
}
