/* Single keys by index, every instruction set against plain loops in double, awkward sizes, sentinels after the end. */
#include "kernels/kern.h"
#include "tests/t.h"

enum { ROWS = 300, STRIDE = 271, MOST = 256 };
static float rows[ROWS * STRIDE], x[ROWS], got[ROWS + 1];
static uint64_t seed = 88172645463325252u;

static double uniform(void) /* [-1, 1), xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static void fill(void)
{
    for (int i = 0; i < ROWS * STRIDE; i++)
        rows[i] = (float)uniform();
    for (int i = 0; i < ROWS; i++)
        x[i] = (float)uniform();
}

static void check(const struct kern_table *k, int64_t n, int64_t dim)
{
    int32_t idx[ROWS];
    for (int64_t i = 0; i < n; i++)
        idx[i] = (int32_t)((uniform() + 1) / 2 * ROWS);
    struct kern_list c = {.n = n, .dim = dim, .stride = STRIDE, .idx = idx, .rows = rows, .x = x, .y = got};
    got[n] = 77;
    k->list_scores(&c);
    T_CHECK(got[n] == 77);
    for (int64_t i = 0; i < n; i++) {
        double s = 0;
        for (int64_t j = 0; j < dim; j++)
            s += (double)x[j] * (double)rows[idx[i] * STRIDE + j];
        T_NEAR(got[i], s, 6e-8 * (double)(dim + 4)); /* a float rounding for each of dim terms of at most 1 */
    }
    got[dim] = 77;
    k->list_mix(&c);
    T_CHECK(got[dim] == 77);
    for (int64_t j = 0; j < dim; j++) {
        double s = 0;
        for (int64_t i = 0; i < n; i++)
            s += (double)x[i] * (double)rows[idx[i] * STRIDE + j];
        T_NEAR(got[j], s, 6e-8 * (double)(n + 4));
    }
}

static void listed_rows_are_multiplied_and_added(void)
{
    static const int64_t dims[] = {1, 7, 16, 24, 33, 64, 65, 80, 128, 131, MOST};
    fill();
    for (int isa = 0; isa < kern_isa_count(); isa++) {
        struct kern_table k;
        if (!kern_isa_runs(isa) || kern_select(&k, kern_isa_name(isa)))
            continue;
        for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
            for (int64_t n = 0; n < 140; n += n < 10 ? 1 : 43)
                check(&k, n, dims[i]);
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    T_RUN(listed_rows_are_multiplied_and_added);
    return t_done();
}
