/* Kernels of training against the plain ones, on every instruction set of this CPU. Tolerances: chains of up to 300 terms
 * of size <= 1 in float, n eps; exponentials and logarithms a few eps of their result. */
#include "tests/t.h"

#include "kernels/kern.h"

enum { MOST = 300, N = 400 * 320 };
static struct kern_table kern, ref;
static uint64_t seed = 88172645463325252u;
static float a[N], b[N], got[N], want[N], got2[N], want2[N];

static double uniform(void) /* [-1, 1), xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static void fill(float *to, int64_t n, double size)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(size * uniform());
}

/* The first n within tol of the larger of 1 and the value, and nothing written behind them. */
static void check(const char *what, const float *x, const float *y, int64_t n, double tol)
{
    for (int64_t i = 0; i < n + 40; i++) {
        double by = i < n ? tol * fmax(1, fabs((double)y[i])) : 0;
        bool same = x[i] == y[i]; /* infinities too */
        if (!same && !(fabs((double)x[i] - (double)y[i]) <= by)) {
            T_FAIL("%s: [%lld of %lld] = %.9g, want %.9g", what, (long long)i, (long long)n, (double)x[i], (double)y[i]);
            return;
        }
    }
}

static void products_equal_plain_ones(void)
{
    for (int round = 0; round < 300; round++) {
        int64_t m = round % 23, n = 1 + round * 7 % 133, k = round * 5 % 151, ldc = n + round % 3;
        bool packed = round % 3 == 1, transposed = round % 2;
        struct kern_panel c = {.m = m, .n = n, .k = k, .ldc = ldc, .a = a, .b = b, .c = got, .accumulate = round % 4 > 1};
        c.a_row = transposed ? 1 : k + 1;
        c.a_step = transposed ? m + 2 : 1;
        c.b_block = packed ? KERN_KB * k : KERN_KB;
        c.b_step = packed ? KERN_KB : n + 5;
        fill(a, N, 1), fill(b, N, 1), fill(got, N, 1);
        memcpy(want, got, sizeof got);
        kern.panel(&c);
        c.c = want;
        ref.panel(&c);
        check("panel", got, want, m * ldc, 1.2e-7 * (double)(k + 2));
    }
}

static void gradients_of_activations_equal_plain_ones(void)
{
    for (int form = 0; form < 6; form++)
        for (int64_t n = 0; n < 70; n++) {
            fill(a, N, 1), fill(b, N, 9), fill(got, N, 1), fill(got2, N, 1);
            memcpy(want, got, sizeof got);
            memcpy(want2, got2, sizeof got2);
            struct kern_act_grad c = {.n = n, .dh = a, .gate = b, .up = form % 2 ? b + 500 : NULL, .dgate = got, .dup = got2};
            struct kern_act_grad r = c;
            r.dgate = want, r.dup = want2;
            form < 2 ? kern.silu_grad(&c) : kern.gelu_grad(&c, form < 4);
            form < 2 ? ref.silu_grad(&r) : ref.gelu_grad(&r, form < 4);
            check("dgate", got, want, n, 4e-6);
            check("dup", got2, want2, n, 4e-6);
        }
}

static void softmax_rows_equal_plain_ones(void)
{
    for (int64_t blocks = 0; blocks < 20; blocks++)
        for (int with = 0; with < 2; with++) {
            int64_t n = blocks * KERN_KB;
            fill(got, N, 20), fill(b, N, 5), fill(a, N, 1);
            if (blocks > 2)
                got[3] = got[17] = -INFINITY, b[1] = -INFINITY;
            memcpy(want, got, sizeof got);
            const float *bias = with ? b : NULL;
            float top = kern.biased_max(got, bias, blocks);
            T_CHECK(top == ref.biased_max(got, bias, blocks));
            if (blocks == 0)
                continue;
            float sum = kern.biased_exp(got, bias, blocks, top);
            T_NEAR(sum, ref.biased_exp(want, bias, blocks, top), 1e-5);
            check("exp", got, want, n, 3e-6);
            memcpy(got2, a, sizeof a), memcpy(want2, a, sizeof a);
            fill(b, 64, 1);
            float had = b[0], sums[64], plain[64];
            memcpy(sums, b, sizeof sums), memcpy(plain, b, sizeof plain);
            kern.softmax_grad(got2, got, 0.3F, blocks, with ? sums : NULL);
            ref.softmax_grad(want2, got, 0.3F, blocks, with ? plain : NULL);
            check("softmax_grad", got2, want2, n, 1e-6);
            for (int64_t i = 0; i < blocks; i++)
                T_NEAR(sums[i], plain[i], 3e-6);
            T_CHECK(with || sums[0] == had);
        }
}

static void soft_masks_equal_plain_ones(void)
{
    for (int64_t n = 0; n < MOST; n++) {
        struct kern_soft c = {.n = n, .s = a, .tau = 0.2F, .inv_T = n % 3 ? 2 : 40};
        float sum, slope, plain, plain_slope;
        fill(a, N, 4), fill(got, N, 1), fill(got2, N, 1);
        memcpy(want, got, sizeof got);
        memcpy(want2, got2, sizeof got2);
        kern.soft_sums(&c, &sum, &slope);
        ref.soft_sums(&c, &plain, &plain_slope);
        T_NEAR(sum, plain, 2e-6);
        T_NEAR(slope, plain_slope, 2e-6);
        kern.soft_logs(&c, got, n % 2 ? got2 : NULL);
        ref.soft_logs(&c, want, n % 2 ? want2 : NULL);
        check("log m", got, want, n, 1e-6);
        check("log 1-m", got2, want2, n, 1e-6);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    kern_select(&ref, "ref");
    for (int i = 0; i < kern_isa_count(); i++) {
        if (!kern_isa_runs(i)) {
            t_skip(kern_isa_name(i), "skipped: this CPU cannot run it");
            continue;
        }
        kern_select(&kern, kern_isa_name(i));
        printf("# %s\n", kern_isa_name(i));
        T_RUN(products_equal_plain_ones);
        T_RUN(gradients_of_activations_equal_plain_ones);
        T_RUN(softmax_rows_equal_plain_ones);
        T_RUN(soft_masks_equal_plain_ones);
    }
    return t_done();
}
