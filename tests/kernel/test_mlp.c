/* The MLP of a thread's own rows, or of few, against two linear layers with the activation between them: the same bits. */
#include "tests/t.h"

#include "kernels/mlp.h"

static struct kern_table kern;
static uint64_t seed = 88172645463325252u;

static float uniform(void) /* [-1, 1), xorshift64 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (float)(int32_t)(uint32_t)(seed >> 32) / 2147483648.0F;
}

static void *room(size_t bytes)
{
    void *at = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!at)
        abort();
    memset(at, 0xFF, (bytes + 127) / 64 * 64); /* NaN */
    return at;
}

static float *numbers(int64_t n)
{
    float *x = room((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = uniform();
    return x;
}

static struct kern_mat matrix(enum kern_dtype t, int64_t out, int64_t in)
{
    struct kern_mat w = {.dtype = t, .out = out, .in = in, .data = room(kern_mat_bytes(t, out, in))};
    float *rows = numbers(out * in);
    kern_mat_set(&kern, &w, 0, out, rows, in);
    free(rows);
    return w;
}

/* Rows that are made where they are needed: the numbers of x. */
struct made {
    const float *bias, *x;
    int64_t in, ldx;
};

static void make_row(const void *arg, float *to, int64_t r)
{
    const struct made *m = arg;
    memcpy(to, m->x + r * m->ldx, (size_t)m->in * sizeof *to);
}

/* Not symmetric, and of the column too: a part in the wrong place shows. */
static void act(const void *arg, float *h, float *u, int64_t first, int64_t n)
{
    const struct made *m = arg;
    for (int64_t i = 0; i < n; i++)
        h[i] = (h[i] + m->bias[first + i]) * (u ? u[i] : 0.5F);
}

struct sizes {
    int64_t m, in, f, out;
    bool gated, accumulate;
};

static void apart(const struct sizes *z, const struct kern_mlp *c)
{
    int64_t wide = c->up->out;
    float *h = room((size_t)(z->m * wide) * sizeof *h);
    void *scratch = room(kern_linear_scratch(c->up, z->m) + kern_linear_scratch(c->down, z->m));
    struct kern_linear l = {.w = c->up, .x = c->x, .m = z->m, .ldx = c->ldx, .y = h, .ldy = wide, .scratch = scratch};
    kern_linear(&kern, &l);
    for (int64_t r = 0; r < z->m; r++)
        act(c->arg, h + r * wide, z->gated ? h + r * wide + z->f : NULL, 0, z->f);
    l = (struct kern_linear){.w = c->down, .x = h, .m = z->m, .ldx = wide, .y = c->y, .ldy = c->ldy, .scratch = scratch};
    l.accumulate = z->accumulate;
    kern_linear(&kern, &l);
    free(h), free(scratch);
}

static void compare(enum kern_dtype t, const struct sizes *z, bool makes)
{
    struct kern_mat up = matrix(t, z->gated ? 2 * z->f : z->f, z->in), down = matrix(t, z->out, z->f);
    int64_t ldx = z->in + 5, ldy = z->out + 3;
    float *x = numbers(z->m * ldx), *bias = numbers(z->f), *y = numbers(z->m * ldy), *want = room((size_t)(z->m * ldy) * sizeof *y);
    memcpy(want, y, (size_t)(z->m * ldy) * sizeof *y);
    T_CHECK(kern_mlp_fits(&up, &down, z->m));
    struct made made = {bias, x, z->in, ldx};
    struct kern_mlp c = {.up = &up,
                         .down = &down,
                         .gated = z->gated,
                         .act = act,
                         .arg = &made,
                         .x = makes ? NULL : x,
                         .row = makes ? make_row : NULL,
                         .m = z->m,
                         .ldx = ldx,
                         .y = y,
                         .ldy = ldy,
                         .accumulate = z->accumulate,
                         .scratch = room(kern_mlp_scratch(&up, &down, z->m))};
    kern_mlp(&kern, &c);
    c.x = x, c.y = want;
    apart(z, &c);
    if (memcmp(y, want, (size_t)(z->m * ldy) * sizeof *y))
        T_FAIL("bf16 %d, m %lld, in %lld, F %lld, out %lld, gated %d, made %d: bits differ", t, (long long)z->m, (long long)z->in,
               (long long)z->f, (long long)z->out, z->gated, makes);
    free(up.data), free(down.data), free(x), free(bias), free(y), free(want), free(c.scratch);
}

static void parts_equal_whole_layers_bit_for_bit(void)
{
    static const struct sizes sizes[] = {
        {17, 33, 16, 20, true, false},  {40, 768, 144, 96, true, true}, {64, 1000, 80, 31, false, true},
        {29, 50, 1264, 64, true, true}, {70, 7, 784, 7, false, false},  {18, 1200, 1600, 50, true, true},
    };
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            compare(t ? KERN_BF16 : KERN_F32, &sizes[i], false);
}

/* By teams in which each thread lays out all rows for itself, and by larger ones that share the work. */
static void few_rows_equal_whole_layers_on_any_threads(void)
{
    static const int threads[] = {1, 2, 4, 5, 9};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        kern_threads(threads[i]);
        for (int64_t m = 1; m <= KERN_NARROW; m += m < 4 ? 1 : 3)
            for (int v = 0; v < 8; v++) {
                struct sizes z = {m, v & 2 ? 131 : 200, 16 * (m + 20), 75, v & 4, v & 2};
                compare(v & 1 ? KERN_BF16 : KERN_F32, &z, m % 2 == v / 2 % 2);
            }
    }
    kern_threads(1);
}

static void what_does_not_fit_is_said(void)
{
    struct kern_mat up = {.dtype = KERN_F32, .out = 40, .in = 8}, down = {.dtype = KERN_F32, .out = 8, .in = 20}, half = down;
    half.dtype = KERN_BF16, half.in = 16;
    T_CHECK(!kern_mlp_fits(&up, &down, 100)); /* a block would have gate and up rows */
    down.in = 16;
    T_CHECK(kern_mlp_fits(&up, &down, 100));
    T_CHECK(kern_mlp_fits(&up, &down, KERN_NARROW) && !kern_mlp_fits(&up, &down, 0));
    T_CHECK(!kern_mlp_fits(&up, &half, 100));
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    if (kern_select(&kern, NULL))
        return 1;
    T_RUN(parts_equal_whole_layers_bit_for_bit);
    T_RUN(few_rows_equal_whole_layers_on_any_threads);
    T_RUN(what_does_not_fit_is_said);
    return t_done();
}
