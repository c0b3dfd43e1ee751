/* Every vector kernel of the chosen instruction set against the plain one: sizes 0..131, odd offsets, NaN, infinities,
 * sentinels before and after. Tolerances: eps = 2^-23 is one ulp at 1; sums of n terms may differ by n eps/2 of the sum
 * of magnitudes when their order changes. */
#include "tests/t.h"

#include "kernels/kern.h"

enum { MAX_N = 131, PAD = 24, BIG = 3000 };
static const float eps = 1.1920929e-7F, sentinel = -12345.0F;
static struct kern_table kern, ref;
static uint64_t seed = 88172645463325252u;

static double uniform(void) /* [-1, 1), xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static void fill(float *x, int64_t n, double scale)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(uniform() * scale);
}

static void guard(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = sentinel;
}

static void check_guard(const float *x, int64_t offset, int64_t n, int64_t total)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < total; i++)
        if (i < offset || i >= offset + n)
            bad += x[i] != sentinel;
    T_EQ(bad, 0);
}

/* |got - want| <= ulps ulp of want (of the smallest normal for tiny ones); NaN and infinities must agree. */
static void check_ulp(const float *got, const float *want, int64_t n, double ulps, const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        double g = (double)got[i], w = (double)want[i], ulp = fmax(fabs(w), 1.2e-38) * (double)eps;
        bool same = isnan(w) ? isnan(g) : isinf(w) || isinf(g) ? g == w : fabs(g - w) <= ulps * ulp;
        if (!same) {
            T_FAIL("%s [%lld of %lld] = %.9g, want %.9g", what, (long long)i, (long long)n, g, w);
            return;
        }
    }
}

static float in1[BIG + PAD], in2[BIG + PAD], in3[BIG + PAD], got[BIG + PAD], want[BIG + PAD];

/* Runs body for all sizes and offsets with x, y, z inputs and g, w outputs that start as copies of one another. */
#define EACH(scale_, ...)                                                                                                          \
    for (int64_t n = 0; n <= MAX_N; n++)                                                                                           \
        for (int64_t off = 0; off < 4; off++) {                                                                                    \
            float *x = in1 + off, *y = in2 + (off + 1) % 4, *z = in3 + (off + 2) % 4, *g = got + off, *w = want + off;             \
            fill(x, n, scale_), fill(y, n, scale_), fill(z, n, scale_);                                                            \
            guard(got, n + PAD), guard(want, n + PAD);                                                                             \
            memcpy(g, z, (size_t)n * sizeof *g), memcpy(w, z, (size_t)n * sizeof *w);                                              \
            (void)x, (void)y;                                                                                                      \
            __VA_ARGS__;                                                                                                           \
            check_guard(got, off, n, n + PAD);                                                                                     \
        }

static void dot_equals_the_plain_one(void)
{
    EACH(1, {
        double mass = 0;
        for (int64_t i = 0; i < n; i++)
            mass += fabs((double)x[i] * (double)y[i]);
        double d = fabs((double)kern.dot(x, y, n) - (double)ref.dot(x, y, n));
        T_CHECK(d <= mass * (double)eps * (1 + (double)n / 8));
    });
}

static void vector_updates_equal_the_plain_ones(void)
{
    EACH(2, kern.axpy(g, 0.37F, x, n); ref.axpy(w, 0.37F, x, n); for (int64_t i = 0; i < n; i++) T_NEAR(g[i], w[i], 2e-7));
    EACH(2, kern.add(g, x, n); ref.add(w, x, n); check_ulp(g, w, n, 0, "add"));
    EACH(2, kern.scale(g, -1.7F, n); ref.scale(w, -1.7F, n); check_ulp(g, w, n, 0, "scale"));
    EACH(2, kern.relu(g, n); ref.relu(w, n); check_ulp(g, w, n, 0, "relu"));
}

static void relu_keeps_a_nan(void)
{
    EACH(2, for (int64_t i = 0; i < n; i += 5) g[i] = w[i] = NAN; kern.relu(g, n); ref.relu(w, n); check_ulp(g, w, n, 0, "relu"));
}

static void all_finite_finds_a_single_bad_number_anywhere(void)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int64_t n = 0; n <= MAX_N; n++) {
        float *x = in1 + n % 4;
        fill(x, n + PAD - 4, 3e38);
        x[n] = NAN; /* past the end: not its business */
        T_CHECK(kern.all_finite(x, n));
        for (int64_t i = 0; i < n; i++) {
            float old = x[i];
            x[i] = bad[i % 3];
            T_CHECK(!kern.all_finite(x, n));
            x[i] = old;
        }
    }
}

static void argmax_takes_the_lowest_index_and_never_a_nan(void)
{
    for (int64_t n = 0; n <= MAX_N; n++)
        for (int round = 0; round < 6; round++) {
            float *x = in1 + n % 4;
            fill(x, n, 1);
            x[n] = 9; /* past the end */
            for (int64_t i = 0; i < n; i++)
                x[i] = round < 3 ? x[i] : floorf(x[i] * 4); /* many equal ones */
            for (int64_t i = round; i < n; i += 3)
                x[i] = round % 3 == 1 ? NAN : round % 3 == 2 ? -INFINITY : x[i];
            T_EQ(kern.argmax(x, n), ref.argmax(x, n));
        }
    for (int64_t i = 0; i < 40; i++)
        in1[i] = NAN;
    T_EQ(kern.argmax(in1, 40), 0);
    in1[33] = -INFINITY;
    T_EQ(kern.argmax(in1, 40), ref.argmax(in1, 40));
}

static void conversions_are_exact(void)
{
    static uint16_t half[65536 + 8], g16[65536 + 8], w16[65536 + 8];
    static float g[65536 + 8], w[65536 + 8];
    for (int i = 0; i < 65536; i++)
        half[i + 1] = (uint16_t)i;
    kern.f32_from_bf16(g, half + 1, 65536), ref.f32_from_bf16(w, half + 1, 65536);
    T_CHECK(memcmp(g, w, 65536 * sizeof *g) == 0);
    kern.f32_from_f16(g, half + 1, 65536), ref.f32_from_f16(w, half + 1, 65536);
    check_ulp(g, w, 65536, 0, "f16");
    T_CHECK(g[0x3C00] == 1 && g[0x7BFF] == 65504 && g[1] > 0 && signbit(g[0x8000]));
    for (int64_t n = 0; n <= MAX_N; n++) { /* an odd address, and nothing past the end */
        char raw[2 * MAX_N + 8];
        memcpy(raw + 1, half + 16000, 2 * (size_t)n);
        guard(got, n + PAD), guard(want, n + PAD);
        kern.f32_from_bf16(got, raw + 1, n), ref.f32_from_bf16(want, raw + 1, n);
        check_ulp(got, want, n + PAD, 0, "bf16 at an odd address");
        guard(got, n + PAD), guard(want, n + PAD);
        kern.f32_from_f16(got, raw + 1, n), ref.f32_from_f16(want, raw + 1, n);
        check_ulp(got, want, n + PAD, 0, "f16 at an odd address");
    }
    for (int i = 0; i < 65536; i++) { /* random bits: ties, NaN, subnormals, infinities */
        uniform();
        uint32_t bits = i % 4 ? (uint32_t)(seed >> 20) : (uint32_t)i << 16 | (i % 8 ? 0x8000u : 0x8001u);
        memcpy(w + i, &bits, 4);
    }
    w[7] = NAN, w[8] = INFINITY, w[9] = -INFINITY, w[10] = 3.4e38F;
    for (int64_t n = 0; n < 65536; n = n < 140 ? n + 1 : n * 3) {
        memset(g16, 0x77, sizeof g16), memset(w16, 0x77, sizeof w16);
        kern.bf16_from_f32(g16 + 1, w + n % 3, n), ref.bf16_from_f32(w16 + 1, w + n % 3, n);
        T_CHECK(memcmp(g16, w16, sizeof g16) == 0);
    }
}

static void norms_equal_the_plain_ones(void)
{
    EACH(3, kern.rms_norm(g, x, y, n, 1e-5F); ref.rms_norm(w, x, y, n, 1e-5F);
         for (int64_t i = 0; i < n; i++) T_NEAR(g[i], w[i], 2e-6));
    EACH(3, kern.layer_norm(g, x, y, z, n, 1e-5F); ref.layer_norm(w, x, y, z, n, 1e-5F);
         for (int64_t i = 0; i < n && n > 1; i++) T_NEAR(g[i], w[i], 4e-5));
    EACH(3, kern.layer_norm(g, x, y, NULL, n, 1e-5F); ref.layer_norm(w, x, y, NULL, n, 1e-5F);
         for (int64_t i = 0; i < n && n > 1; i++) T_NEAR(g[i], w[i], 4e-5));
    EACH(3, memcpy(g, x, (size_t)n * 4); kern.rms_norm(g, g, y, n, 1e-5F); ref.rms_norm(w, x, y, n, 1e-5F);
         for (int64_t i = 0; i < n; i++) T_NEAR(g[i], w[i], 2e-6)); /* in place */
}

/* silu = x / (1 + e^-x): 2 ulp of the exponential, one each of sum, quotient, product. gelu: the cubic in the exponent
 * is rounded, which a large exponent u turns into |u| eps of the result; the erf form's Phi is good to 1.5e-7 and rounding,
 * so x Phi(x) up to 5 to 1.2e-6, and times up to 5 again to 6e-6. */
static void activations_equal_the_plain_ones(void)
{
    EACH(12, kern.silu(g, n); ref.silu(w, n); check_ulp(g, w, n, 6, "silu"));
    EACH(12, kern.silu_mul(g, x, y, n); ref.silu_mul(w, x, y, n); check_ulp(g, w, n, 7, "silu_mul"));
    for (int tanh_form = 0; tanh_form < 2; tanh_form++) {
        EACH(5, kern.gelu(g, n, tanh_form); ref.gelu(w, n, tanh_form); for (int64_t i = 0; i < n; i++) T_NEAR(g[i], w[i], 1.2e-6));
        EACH(5, kern.gelu_mul(g, x, y, n, tanh_form); ref.gelu_mul(w, x, y, n, tanh_form);
             for (int64_t i = 0; i < n; i++) T_NEAR(g[i], w[i], 6e-6));
    }
}

static void activations_hold_at_the_extremes(void)
{
    const float edge[] = {0, -0.0F, 1e-30F, -1e-30F, 20, -20, 88, -88, 104, -104, 1e4F, -1e4F, 3e38F, -3e38F, INFINITY, NAN};
    int64_t n = sizeof edge / sizeof *edge;
    for (int form = 0; form < 3; form++) {
        memcpy(got, edge, sizeof edge), memcpy(want, edge, sizeof edge);
        form == 2 ? kern.silu(got, n) : kern.gelu(got, n, form);
        form == 2 ? ref.silu(want, n) : ref.gelu(want, n, form);
        for (int64_t i = 0; i < n; i++)
            if (isfinite(want[i]))
                T_NEAR(got[i], want[i], form == 2 && fabsf(want[i]) > 1 ? 1e-6 : 6e-7);
            else
                check_ulp(got + i, want + i, 1, 0, "activation at an extreme");
    }
}

static void rope_turns_pairs_and_leaves_the_rest(void)
{
    for (int64_t half = 0; half <= 65; half++)
        for (int64_t off = 0; off < 3; off++) {
            int64_t n = 2 * half + 5;
            fill(in1, half, 1), fill(in2, half, 1), fill(in3, n, 2);
            guard(got, n + PAD), guard(want, n + PAD);
            memcpy(got + off, in3, (size_t)n * 4), memcpy(want + off, in3, (size_t)n * 4);
            kern.rope(got + off, in1, in2, 2 * half);
            ref.rope(want + off, in1, in2, 2 * half);
            for (int64_t i = 0; i < n; i++)
                T_NEAR(got[off + i], want[off + i], 3e-7);
            T_CHECK(memcmp(got + off + 2 * half, in3 + 2 * half, 5 * 4) == 0);
            check_guard(got, off, n, n + PAD);
        }
}

static void exp_row_is_within_two_ulp(void)
{
    double worst = 0;
    for (int step = 0; step < 400; step++) { /* 0 is the maximum, so y = exp(x) */
        for (int64_t i = 0; i < BIG; i++)
            in1[i] = i ? (float)(-(double)(step * BIG + i) * 7.2e-5 * (1 + uniform() * 1e-3)) : 0;
        float sum;
        T_CHECK(kern.exp_row(got, in1, BIG, &sum) == 0);
        for (int64_t i = 0; i < BIG; i++) {
            double e = exp((double)in1[i]), ulp = fmax(ldexp(1, (int)floor(log2(e)) - 23), 1.2e-38 / 8388608);
            if (e > 1.2e-38)
                worst = fmax(worst, fabs((double)got[i] - e) / ulp);
            else
                T_CHECK((double)got[i] >= 0 && (double)got[i] < 1.3e-38);
        }
    }
    printf("# exp (%s): largest error %.3f ulp\n", kern.isa, worst);
    T_CHECK(worst <= 2);
}

static void exp_row_gives_maximum_and_sum(void)
{
    EACH(20, {
        if (n > 3)
            x[n / 2] = -INFINITY;
        float gs = -1, ws = -1;
        float gm = kern.exp_row(g, x, n, &gs);
        float wm = ref.exp_row(w, x, n, &ws);
        T_CHECK(gm == wm);
        T_NEAR(gs, ws, 2e-6);
        check_ulp(g, w, n, 3, "exp_row");
        T_CHECK(n <= 3 || g[n / 2] == 0);
    });
    EACH(20, {
        for (int64_t i = 0; i < n; i++)
            x[i] = -INFINITY;
        float gs = -1;
        T_CHECK(kern.exp_row(g, x, n, &gs) == -INFINITY && gs == 0);
        for (int64_t i = 0; i < n; i++)
            T_CHECK(g[i] == 0);
    });
    EACH(20, {
        if (n) {
            float gs = 0;
            x[n - 1] = NAN;
            kern.exp_row(g, x, n, &gs);
            T_CHECK(isnan(gs) && isnan(g[n - 1]));
        }
    });
}

static void lse_update_over_chunks_equals_one_pass(void)
{
    for (int round = 0; round < 200; round++) {
        float m = -INFINITY, top = -INFINITY;
        double s = 0, all = 0;
        int64_t n = 0;
        for (int chunk = 0; chunk < 5; chunk++) {
            int64_t len = (int64_t)((uniform() + 1) * 66);
            fill(in1 + n, len, 30);
            if (round % 4 == 0)
                for (int64_t i = 0; i < len; i += 2)
                    in1[n + i] = -INFINITY;
            kern.lse_update(in1 + n, len, &m, &s);
            n += len;
        }
        for (int64_t i = 0; i < n; i++)
            top = in1[i] > top ? in1[i] : top;
        for (int64_t i = 0; i < n; i++)
            all += exp((double)in1[i] - (double)top);
        T_CHECK(m == top);
        T_NEAR(s, all, 1e-6);
    }
    float m = -INFINITY, none[20];
    double s = 0;
    for (int i = 0; i < 20; i++)
        none[i] = -INFINITY;
    kern.lse_update(none, 20, &m, &s);
    T_CHECK(m == -INFINITY && s == 0);
    none[19] = 2;
    kern.lse_update(none, 20, &m, &s);
    T_CHECK(m == 2 && s == 1);
    none[3] = NAN;
    kern.lse_update(none, 20, &m, &s);
    T_CHECK(isnan(s));
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (kern_select(&kern, NULL) || kern_select(&ref, "ref"))
        return 1;
    T_RUN(dot_equals_the_plain_one);
    T_RUN(vector_updates_equal_the_plain_ones);
    T_RUN(relu_keeps_a_nan);
    T_RUN(all_finite_finds_a_single_bad_number_anywhere);
    T_RUN(argmax_takes_the_lowest_index_and_never_a_nan);
    T_RUN(conversions_are_exact);
    T_RUN(norms_equal_the_plain_ones);
    T_RUN(activations_equal_the_plain_ones);
    T_RUN(activations_hold_at_the_extremes);
    T_RUN(rope_turns_pairs_and_leaves_the_rest);
    T_RUN(exp_row_is_within_two_ulp);
    T_RUN(exp_row_gives_maximum_and_sum);
    T_RUN(lse_update_over_chunks_equals_one_pass);
    return t_done();
}
