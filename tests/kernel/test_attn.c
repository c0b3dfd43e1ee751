/* Tiles of attention: the chosen instruction set against plain softmax in double, and the promises of kern.h that hold
 * to the bit. f32 tolerance: scores of size <= 8 carry d eps/2 of rounding, so 1e-5 is loose enough for all shapes.
 * bf16 dot products: queries, keys, values and probabilities have 8 bits; inputs are rounded here too, probabilities are not,
 * so that each weight is off by at most 2^-9 and a mean of values of size 1 by 2^-8. Widened keys and values round nothing. */
#include "tests/t.h"

#include "kernels/kern.h"

enum { MAX_KEYS = 700, MAX_ROWS = KERN_MAX_ROWS, MAX_DIM = KERN_MAX_DIM, GUARD = 16 };
static struct kern_table kern, ref;
static uint64_t seed = 88172645463325252u;
static const int64_t dims[] = {1, 7, 16, 33, 64, 80, 96, 128, 256};
enum { N_DIMS = sizeof dims / sizeof *dims };

static double uniform(void) /* [-1, 1), xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static int64_t below(int64_t n)
{
    return (int64_t)((uniform() + 1) / 2 * (double)n);
}

static float to_bf16(float x)
{
    uint16_t h;
    ref.bf16_from_f32(&h, &x, 1);
    ref.f32_from_bf16(&x, &h, 1);
    return x;
}

/* One problem: keys and values, a tile of rows, two sets of outputs. */
static struct {
    int64_t d, n, rows;
    enum kern_dtype dtype;
    float keys[MAX_KEYS * MAX_DIM], values[MAX_KEYS * MAX_DIM], q[MAX_ROWS * MAX_DIM];
    int64_t begin[MAX_ROWS], end[MAX_ROWS];
    struct kern_kv kv;
} p;
struct result {
    float o[MAX_ROWS * MAX_DIM + GUARD], m[MAX_ROWS + GUARD], l[MAX_ROWS + GUARD], lse[MAX_ROWS];
};
static struct result a, b;
static unsigned char *scratch;

static void setup(int64_t d, int64_t n, int64_t rows, enum kern_dtype dtype)
{
    p.d = d, p.n = n, p.rows = rows, p.dtype = dtype;
    double size = 3 / sqrt((double)d);
    for (int64_t i = 0; i < n * d; i++) {
        p.keys[i] = (float)(2 * uniform());
        p.values[i] = (float)uniform();
        if (dtype == KERN_BF16)
            p.keys[i] = to_bf16(p.keys[i]), p.values[i] = to_bf16(p.values[i]);
    }
    for (int64_t i = 0; i < rows * d; i++)
        p.q[i] = dtype == KERN_BF16 ? to_bf16((float)(size * uniform())) : (float)(size * uniform());
    for (int64_t r = 0; r < rows; r++) {
        p.begin[r] = below(3) ? 0 : below(n / 2 + 1);
        p.end[r] = below(3) ? n : below(n + 1);
    }
    size_t bytes = kern_kv_bytes(dtype, d, n + 1);
    p.kv = (struct kern_kv){.dim = d, .dtype = dtype};
    p.kv.k = aligned_alloc(64, (bytes + 63) / 64 * 64);
    p.kv.v = aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(p.kv.k, 0xFF, bytes); /* NaN: what kv_append does not clear shows */
    memset(p.kv.v, 0xFF, bytes);
    kern.kv_append(&p.kv, p.keys, p.values, d, n);
}

static void teardown(void)
{
    free(p.kv.k);
    free(p.kv.v);
}

/* A tile over rows r0 .. r0+rows-1 of p, writing to the same rows of res. */
static struct kern_tile tile(struct result *res, int64_t r0, int64_t rows)
{
    return (struct kern_tile){.rows = rows,
                              .dim = p.d,
                              .q = p.q + r0 * p.d,
                              .end = p.end + r0,
                              .begin = p.begin + r0,
                              .o = res->o + r0 * p.d,
                              .m = res->m + r0,
                              .l = res->l + r0,
                              .scratch = scratch};
}

static void paint(struct result *res)
{
    memset(res, 0xFF, sizeof *res);
    memset(scratch, 0xFF, kern_tile_scratch(MAX_ROWS, MAX_DIM) + 64);
}

static void check_paint(const struct result *res)
{
    const unsigned char *after_o = (const unsigned char *)(res->o + p.rows * p.d),
                        *after_m = (const unsigned char *)(res->m + p.rows);
    const unsigned char *after_l = (const unsigned char *)(res->l + p.rows), *after_s = scratch + kern_tile_scratch(p.rows, p.d);
    int bad = 0;
    for (int i = 0; i < 64; i++)
        bad += (after_o[i] != 0xFF) + (after_m[i] != 0xFF) + (after_l[i] != 0xFF) + (after_s[i] != 0xFF);
    T_EQ(bad, 0);
}

static int64_t n_blocks(void)
{
    return (p.n + KERN_KB - 1) / KERN_KB;
}

static void dense(struct result *res, int64_t r0, int64_t rows, int64_t cut)
{
    struct kern_tile t = tile(res, r0, rows);
    kern.tile_begin(&t);
    kern.tile_dense(&t, &p.kv, 0, cut);
    kern.tile_dense(&t, &p.kv, cut, n_blocks());
    kern.tile_end(&t, res->lse + r0);
}

static int64_t piece = KERN_KB; /* keys of a mask: blocks, or halves of them */

static int64_t n_pieces(void)
{
    return (p.n + piece - 1) / piece;
}

/* Plain softmax in double of row r over the pieces that bit r of mask allows (NULL: all). */
static void check_row(const struct result *res, int64_t r, const uint64_t *mask, const char *what)
{
    static double s[MAX_KEYS];
    double top = -HUGE_VAL, sum = 0, tol = p.dtype == KERN_BF16 && kern.has_bf16_dot ? 1.0 / 256 : 1e-5;
    for (int64_t j = 0; j < p.n; j++) {
        s[j] = -HUGE_VAL;
        if (j < p.begin[r] || j >= p.end[r] || (mask && !(mask[j / piece] >> r & 1u)))
            continue;
        s[j] = 0;
        for (int64_t i = 0; i < p.d; i++)
            s[j] += (double)p.q[r * p.d + i] * (double)p.keys[j * p.d + i];
        top = fmax(top, s[j]);
    }
    for (int64_t j = 0; j < p.n; j++)
        sum += s[j] > -HUGE_VAL ? exp(s[j] - top) : 0;
    for (int64_t i = 0; i < p.d; i++) {
        double want = 0, got = (double)res->o[r * p.d + i];
        for (int64_t j = 0; j < p.n && sum > 0; j++)
            want += s[j] > -HUGE_VAL ? exp(s[j] - top) / sum * (double)p.values[j * p.d + i] : 0;
        if (!(fabs(got - want) <= tol)) {
            T_FAIL("%s: d %lld n %lld rows %lld bf16 %d: row %lld dim %lld is %g, want %g", what, (long long)p.d, (long long)p.n,
                   (long long)p.rows, p.dtype, (long long)r, (long long)i, got, want);
            return;
        }
    }
    if (sum > 0)
        T_NEAR(res->lse[r], top + log(sum), tol);
    else
        T_CHECK(res->lse[r] == -INFINITY);
}

static bool same_rows(const struct result *x, const struct result *y, int64_t r0, int64_t rows)
{
    return memcmp(x->o + r0 * p.d, y->o + r0 * p.d, (size_t)(rows * p.d) * sizeof(float)) == 0 &&
           memcmp(x->lse + r0, y->lse + r0, (size_t)rows * sizeof(float)) == 0;
}

#define EACH_PROBLEM(keys_, rows_)                                                                                                 \
    for (int type = 0; type < 2; type++)                                                                                           \
        for (int i = 0; i < N_DIMS; i++)                                                                                           \
            for (int shape = 0; shape < 4; shape++)                                                                                \
                if (setup(dims[i], (keys_), (rows_), type ? KERN_BF16 : KERN_F32), 1)

static void keys_and_values_come_back(void)
{
    static float back[MAX_KEYS * MAX_DIM];
    EACH_PROBLEM(below(100) + 1, 1)
    {
        struct kern_kv one = p.kv;
        size_t bytes = kern_kv_bytes(p.dtype, p.d, p.n);
        unsigned char *k = malloc(bytes), *v = malloc(bytes);
        memset(k, 0xFF, bytes), memset(v, 0xFF, bytes);
        one.k = k, one.v = v, one.n = 0;
        for (int64_t j = 0; j < p.n;) { /* in uneven pieces */
            int64_t n = below(21) + 1;
            n = j + n > p.n ? p.n - j : n;
            kern.kv_append(&one, p.keys + j * p.d, p.values + j * p.d, p.d, n);
            j += n;
        }
        T_EQ(one.n, p.n);
        T_CHECK(memcmp(k, p.kv.k, bytes) == 0);
        size_t v_used = (size_t)(n_blocks() * KERN_KB * p.d) * (type ? 2 : 4);
        T_CHECK(memcmp(v, p.kv.v, v_used) == 0);
        int64_t first = below(p.n), n = p.n - first;
        kern.kv_keys(&p.kv, first, n, back);
        T_CHECK(memcmp(back, p.keys + first * p.d, (size_t)(n * p.d) * sizeof(float)) == 0);
        kern.kv_values(&p.kv, first, n, back);
        T_CHECK(memcmp(back, p.values + first * p.d, (size_t)(n * p.d) * sizeof(float)) == 0);
        p.kv.n = n_blocks() * KERN_KB; /* the rest of the last block is zeros */
        kern.kv_keys(&p.kv, p.n, p.kv.n - p.n, back);
        kern.kv_values(&p.kv, p.n, p.kv.n - p.n, back + KERN_KB * MAX_DIM);
        for (int64_t j = 0; j < (p.kv.n - p.n) * p.d; j++)
            T_CHECK(back[j] == 0 && back[KERN_KB * MAX_DIM + j] == 0);
        free(k), free(v);
        teardown();
    }
}

static void the_layout_is_the_documented_one(void)
{
    EACH_PROBLEM(below(60) + 1, 1)
    {
        struct kern_kv one = p.kv;
        size_t bytes = kern_kv_bytes(p.dtype, p.d, p.n);
        one.k = malloc(bytes), one.v = malloc(bytes), one.n = 0;
        ref.kv_append(&one, p.keys, p.values, p.d, p.n);
        T_CHECK(memcmp(one.k, p.kv.k, bytes) == 0);
        T_CHECK(memcmp(one.v, p.kv.v, (size_t)(n_blocks() * KERN_KB * p.d) * (type ? 2 : 4)) == 0);
        free(one.k), free(one.v);
        teardown();
    }
}

static void dense_equals_plain_softmax(void)
{
    EACH_PROBLEM(shape == 0 ? below(40) + 1 : below(MAX_KEYS - 1) + 1, shape == 3 ? MAX_ROWS : below(MAX_ROWS) + 1)
    {
        paint(&a);
        dense(&a, 0, p.rows, 0);
        for (int64_t r = 0; r < p.rows; r += 1 + p.rows / 9)
            check_row(&a, r, NULL, "dense");
        check_paint(&a);
        teardown();
    }
}

static void cutting_the_blocks_into_calls_changes_no_bit(void)
{
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, below(MAX_ROWS) + 1)
    {
        dense(&a, 0, p.rows, 0);
        for (int round = 0; round < 3; round++) {
            paint(&b);
            dense(&b, 0, p.rows, below(n_blocks() + 1));
            T_CHECK(same_rows(&a, &b, 0, p.rows));
        }
        teardown();
    }
}

static void a_row_does_not_depend_on_its_neighbours(void)
{
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, below(MAX_ROWS) + 1)
    {
        dense(&a, 0, p.rows, 0);
        for (int64_t r = 0; r < p.rows; r += 1 + p.rows / 5) {
            paint(&b);
            dense(&b, r, 1, n_blocks());
            T_CHECK(same_rows(&a, &b, r, 1));
        }
        teardown();
    }
}

static void a_later_key_changes_no_bit_before_it(void)
{
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, below(MAX_ROWS) + 1)
    {
        int64_t cut = below(p.n);
        for (int64_t r = 0; r < p.rows; r++)
            p.end[r] = p.end[r] > cut ? cut : p.end[r];
        dense(&a, 0, p.rows, 0);
        for (int64_t j = cut * p.d; j < p.n * p.d; j++)
            p.keys[j] = (float)(100 * uniform()), p.values[j] = (float)(1e9 * uniform());
        p.kv.n = 0;
        kern.kv_append(&p.kv, p.keys, p.values, p.d, p.n);
        paint(&b);
        dense(&b, 0, p.rows, 0);
        T_CHECK(same_rows(&a, &b, 0, p.rows));
        teardown();
    }
}

static int32_t list[MAX_ROWS * 128];
static uint64_t masks[128];
static int64_t ptr[MAX_ROWS + 1];

/* Random masks, the share consecutive rows of a token alike; and the same as lists. Density 1/of. */
static void choose(int64_t share, int64_t of)
{
    memset(masks, 0, sizeof masks);
    for (int64_t r = 0; r < p.rows; r++)
        for (int64_t k = 0; k < n_pieces(); k++) {
            bool on = r % share == 0 ? below(of) == 0 : masks[k] >> (r - 1) & 1u;
            masks[k] |= (uint64_t)on << r;
        }
    int64_t n = 0;
    ptr[0] = 0;
    for (int64_t r = 0; r < p.rows; r += share) {
        for (int64_t k = 0; k < n_pieces(); k++)
            if (masks[k] >> r & 1u)
                list[n++] = (int32_t)k;
        ptr[r / share + 1] = n;
    }
}

static void blocks(struct result *res, int64_t r0, int64_t rows, const uint64_t *mask)
{
    static int32_t all[64];
    static uint64_t moved[64];
    for (int64_t k = 0; k < n_blocks(); k++) {
        all[k] = (int32_t)k;
        moved[k] = mask ? mask[k] >> r0 : 0;
        if (rows < 64)
            moved[k] &= (1ull << rows) - 1;
    }
    struct kern_tile t = tile(res, r0, rows);
    kern.tile_begin(&t);
    kern.tile_blocks(&t, &p.kv, all, mask ? moved : NULL, n_blocks());
    kern.tile_end(&t, res->lse + r0);
}

static void gather(struct result *res, int64_t r0, int64_t rows, int64_t share)
{
    struct kern_tile t = tile(res, r0, rows);
    t.share = share;
    kern.tile_begin(&t);
    kern.tile_gather(&t, &p.kv, ptr + r0 / share, list);
    kern.tile_end(&t, res->lse + r0);
}

static void all_blocks_selected_equals_dense_to_the_bit(void)
{
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, below(MAX_ROWS) + 1)
    {
        dense(&a, 0, p.rows, 0);
        paint(&b);
        blocks(&b, 0, p.rows, NULL);
        T_CHECK(same_rows(&a, &b, 0, p.rows));
        check_paint(&b);
        choose(1, 1);
        paint(&b);
        blocks(&b, 0, p.rows, masks);
        T_CHECK(same_rows(&a, &b, 0, p.rows));
        paint(&b);
        gather(&b, 0, p.rows, 1);
        T_CHECK(same_rows(&a, &b, 0, p.rows));
        check_paint(&b);
        teardown();
    }
}

/* As prompts have it: rows in the order of their tokens, all of the past seen. Whole panels have a way of their own. */
static void whole_panels_equal_plain_softmax_and_listed_blocks(void)
{
    static const int64_t rows[] = {9, 16, 17, 25, 40, 57, 63, 64};
    int which = 0;
    EACH_PROBLEM(400 + 60 * shape, rows[(which += 3) % 8])
    {
        int64_t heads = shape + 1, window = type ? 0 : 128 * (shape % 2);
        for (int64_t r = 0; r < p.rows; r++) {
            p.end[r] = p.n - (p.rows - 1 - r) / heads;
            p.begin[r] = window ? p.end[r] - window : 0;
        }
        paint(&a);
        dense(&a, 0, p.rows, shape * 5);
        check_paint(&a);
        for (int64_t r = 0; r < p.rows; r += 3)
            check_row(&a, r, NULL, "whole panels");
        blocks(&b, 0, p.rows, NULL);
        T_CHECK(same_rows(&a, &b, 0, p.rows));
        teardown();
    }
}

/* Rows in another order, sent to where they belong; hints change nothing. */
static void rows_go_where_they_are_sent(void)
{
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, below(MAX_ROWS) + 1)
    {
        float *to[MAX_ROWS];
        const float *soon[MAX_ROWS];
        dense(&a, 0, p.rows, 0);
        paint(&b);
        struct result *away = calloc(1, sizeof *away);
        for (int64_t r = 0; r < p.rows; r++) {
            to[r] = b.o + (p.rows - 1 - r) * p.d;
            soon[r] = p.q;
        }
        struct kern_tile t = tile(away, 0, p.rows);
        t.to = to, t.soon = soon, t.ahead1 = n_blocks();
        kern.tile_begin(&t);
        kern.tile_dense(&t, &p.kv, 0, n_blocks());
        kern.tile_end(&t, b.lse);
        for (int64_t r = 0; r < p.rows; r++)
            T_CHECK(memcmp(to[r], a.o + r * p.d, (size_t)p.d * sizeof(float)) == 0);
        T_CHECK(memcmp(a.lse, b.lse, (size_t)p.rows * sizeof(float)) == 0);
        free(away);
        teardown();
    }
}

/* e^x 2^-12 of 64 scores a call: key 0 has score 8 and value 0, key 1 score x and value 1. */
static void exponentials_are_within_two_ulp(void)
{
    double worst = 0;
    setup(2, 2, MAX_ROWS, KERN_F32);
    memcpy(p.keys, (float[]){0, 1, 1, 0}, 4 * sizeof(float));
    memcpy(p.values, (float[]){0, 0, 1, 1}, 4 * sizeof(float));
    p.kv.n = 0;
    kern.kv_append(&p.kv, p.keys, p.values, 2, 2);
    for (int64_t i = 0; i < 4000; i++) {
        struct kern_tile t = tile(&a, 0, MAX_ROWS);
        for (int64_t r = 0; r < MAX_ROWS; r++) {
            p.q[2 * r] = (float)(-31 + 39 * uniform());
            p.q[2 * r + 1] = 8;
            p.begin[r] = 0, p.end[r] = 2;
        }
        kern.tile_begin(&t);
        kern.tile_dense(&t, &p.kv, 0, 1);
        for (int64_t r = 0; r < MAX_ROWS; r++) {
            double want = exp((double)p.q[2 * r] - 12 * 0.69314718055994530942);
            int e;
            frexp(want, &e);
            worst = fmax(worst, fabs((double)a.o[2 * r] - want) / ldexp(1, e - 24));
        }
        kern.tile_end(&t, NULL);
    }
    printf("# exponentials of tiles: %.2f ulp at most\n", worst);
    T_CHECK(worst <= 2);
    teardown();
}

static void masked_blocks_and_gathered_lists_equal_plain_softmax(void)
{
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, 12 * (below(5) + 1))
    {
        int64_t share = shape + 1, of = shape == 2 ? 9 : 3;
        choose(share, of);
        paint(&a);
        blocks(&a, 0, p.rows, masks);
        check_paint(&a);
        paint(&b);
        gather(&b, 0, p.rows, share);
        check_paint(&b);
        for (int64_t r = 0; r < p.rows; r += 1 + p.rows / 9) {
            check_row(&a, r, masks, "blocks");
            check_row(&b, r, masks, "gather");
        }
        T_CHECK(same_rows(&a, &b, 0, p.rows));
        for (int64_t r = 0; r < p.rows; r += share) { /* a token alone */
            paint(&b);
            gather(&b, r, share, share);
            T_CHECK(same_rows(&a, &b, r, share));
        }
        teardown();
    }
}

static void halves(struct result *res, int64_t r0, int64_t rows, const int32_t *half, const uint64_t *mask, int64_t n)
{
    static uint64_t moved[128];
    for (int64_t i = 0; i < n && mask; i++)
        moved[i] = mask[i] >> r0;
    struct kern_tile t = tile(res, r0, rows);
    kern.tile_begin(&t);
    kern.tile_halves(&t, &p.kv, half, mask ? moved : NULL, n);
    kern.tile_end(&t, res->lse + r0);
}

static void half_blocks_equal_plain_softmax(void)
{
    static int32_t all[128];
    piece = KERN_KB / 2;
    for (int32_t i = 0; i < 128; i++)
        all[i] = i;
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, 12 * (below(5) + 1))
    {
        int64_t share = shape + 1;
        choose(share, shape == 2 ? 9 : 3);
        paint(&a);
        halves(&a, 0, p.rows, all, masks, n_pieces());
        check_paint(&a);
        for (int64_t r = 0; r < p.rows; r += 1 + p.rows / 9)
            check_row(&a, r, masks, "halves");
        for (int64_t r = 0; r < p.rows; r += share) { /* a token's own list, alone; the same masks of some rows alone */
            paint(&b);
            halves(&b, r, share, list + ptr[r / share], NULL, ptr[r / share + 1] - ptr[r / share]);
            T_CHECK(same_rows(&a, &b, r, share));
            paint(&b);
            halves(&b, r, share, all, masks, n_pieces());
            T_CHECK(same_rows(&a, &b, r, share));
        }
        dense(&a, 0, p.rows, 0);
        halves(&b, 0, p.rows, all, NULL, n_pieces());
        T_CHECK(same_rows(&a, &b, 0, p.rows));
        teardown();
    }
    piece = KERN_KB;
}

static void lists_need_not_ascend(void)
{
    EACH_PROBLEM(below(MAX_KEYS - 1) + 1, 12)
    {
        choose(3, 2);
        for (int64_t t = 0; t < 4; t++)
            for (int64_t x = ptr[t], y = ptr[t + 1] - 1; x < y; x++, y--) {
                int32_t swap = list[x];
                list[x] = list[y], list[y] = swap;
            }
        gather(&a, 0, p.rows, 3);
        for (int64_t r = 0; r < p.rows; r++)
            check_row(&a, r, masks, "reversed lists");
        for (int64_t r = 0; r < p.rows; r += 3) {
            paint(&b);
            gather(&b, r, 3, 3);
            T_CHECK(same_rows(&a, &b, r, 3));
        }
        teardown();
    }
}

static void large_scores_neither_overflow_nor_vanish(void)
{
    EACH_PROBLEM(200, 9)
    {
        for (int64_t j = 0; j < p.rows * p.d; j++)
            p.q[j] *= j % 2 ? 64 : -64; /* scores of some hundreds, growing along the keys for some rows */
        for (int64_t r = 0; r < p.rows; r++)
            p.begin[r] = 0, p.end[r] = p.n;
        dense(&a, 0, p.rows, 3);
        for (int64_t r = 0; r < p.rows; r++)
            for (int64_t j = 0; j < p.d; j++)
                T_CHECK(fabsf(a.o[r * p.d + j]) <= 1.01F);
        for (int64_t r = 0; r < p.rows; r++) {
            double top = -HUGE_VAL;
            for (int64_t j = 0; j < p.n; j++) {
                double s = 0;
                for (int64_t x = 0; x < p.d; x++)
                    s += (double)p.q[r * p.d + x] * (double)p.keys[j * p.d + x];
                top = fmax(top, s);
            }
            T_CHECK((double)a.lse[r] >= top - 1e-4 * fabs(top) && (double)a.lse[r] <= top + log(200) + 1e-4 * fabs(top));
        }
        teardown();
    }
}

static void a_nan_in_a_query_stays_in_its_row(void)
{
    EACH_PROBLEM(300, 11)
    {
        for (int64_t r = 0; r < p.rows; r++)
            p.begin[r] = 0, p.end[r] = p.n;
        dense(&a, 0, p.rows, 0);
        p.q[5 * p.d] = NAN;
        paint(&b);
        dense(&b, 0, p.rows, 0);
        T_CHECK(same_rows(&a, &b, 0, 5) && same_rows(&a, &b, 6, 5));
        T_CHECK(isnan(b.o[5 * p.d]) && isnan(b.lse[5]));
        teardown();
    }
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (kern_select(&kern, NULL) || kern_select(&ref, "ref"))
        return 1;
    size_t bytes = (kern_tile_scratch(MAX_ROWS, MAX_DIM) + 127) / 64 * 64;
    scratch = aligned_alloc(64, bytes);
    T_RUN(keys_and_values_come_back);
    T_RUN(the_layout_is_the_documented_one);
    T_RUN(dense_equals_plain_softmax);
    T_RUN(cutting_the_blocks_into_calls_changes_no_bit);
    T_RUN(a_row_does_not_depend_on_its_neighbours);
    T_RUN(a_later_key_changes_no_bit_before_it);
    T_RUN(all_blocks_selected_equals_dense_to_the_bit);
    T_RUN(whole_panels_equal_plain_softmax_and_listed_blocks);
    T_RUN(rows_go_where_they_are_sent);
    T_RUN(exponentials_are_within_two_ulp);
    T_RUN(masked_blocks_and_gathered_lists_equal_plain_softmax);
    T_RUN(half_blocks_equal_plain_softmax);
    T_RUN(lists_need_not_ascend);
    T_RUN(large_scores_neither_overflow_nor_vanish);
    T_RUN(a_nan_in_a_query_stays_in_its_row);
    free(scratch);
    return t_done();
}
