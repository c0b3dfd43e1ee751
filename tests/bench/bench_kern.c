/* Speed of each kernel against this machine's limits, measured in the same run; medians of 5.
 *   bench_kern [threads]     AST_ISA chooses the instruction set */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/timer.h"
#include "kernels/linear.h"
#include "kernels/peak.h"

enum { REPEATS = 5, BUF = 64 << 20 };
static struct kern_table kern;
static double flops[2], memory_rate, cache_rate; /* limits */

static void *aligned(size_t bytes)
{
    void *at = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!at) {
        fprintf(stderr, "bench_kern: out of memory for %zu bytes\n", bytes);
        exit(1);
    }
    return at;
}

static float *numbers(int64_t n)
{
    float *x = aligned((size_t)n * sizeof *x);
    uint32_t s = 1;
    for (int64_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) / 16777216.0F - 0.5F;
    }
    return x;
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of one call. */
static double seconds_of(void (*call)(void *), void *arg)
{
    double t[REPEATS];
    int64_t n = 1;
    call(arg);
    for (double s = 0; s < 0.02; n *= 2) {
        double start = timer_now();
        for (int64_t i = 0; i < n; i++)
            call(arg);
        s = timer_now() - start;
    }
    for (int r = 0; r < REPEATS; r++) {
        double start = timer_now();
        for (int64_t i = 0; i < n; i++)
            call(arg);
        t[r] = (timer_now() - start) / (double)n;
    }
    qsort(t, REPEATS, sizeof *t, rising);
    return t[REPEATS / 2];
}

static void line(const char *name, double rate, double limit, const char *unit)
{
    printf("%-48s %9.1f %9.1f  %5.2f  %s\n", name, rate / 1e9, limit / 1e9, rate / limit, unit);
    fflush(stdout);
}

static void measure_limits(int threads)
{
    float *buf = numbers(BUF / (int64_t)sizeof(float));
    kern_threads(threads);
    for (int t = 0; t < 2; t++) {
        flops[t] = kern_peak_flops(&kern, t ? KERN_BF16 : KERN_F32, 0.2);
        printf("# peak %s, %d threads: %.1f GFLOP/s\n", t ? "bf16" : "f32", threads, flops[t] / 1e9);
    }
    for (size_t kib = 16; kib <= BUF / 1024; kib *= 4) {
        memory_rate =
            kern_peak_bandwidth(&kern, buf, kib * 1024 * (size_t)threads < BUF ? kib * 1024 * (size_t)threads : BUF, 0.05);
        cache_rate = kib == 16 ? memory_rate : cache_rate;
        printf("# read %6zu KiB a thread: %.1f GB/s\n", kib, memory_rate / 1e9);
    }
    free(buf);
}

static void call_linear(void *arg)
{
    kern_linear(&kern, arg);
}

static void bench_linear(int threads)
{
    static const int64_t shape[][2] = {{768, 768}, {2048, 768}, {768, 2048}, {5632, 2048}, {2048, 5632}};
    static const int64_t ms[] = {1, 8, 16, 512, 2048};
    kern_threads(threads);
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
            for (size_t j = 0; j < sizeof ms / sizeof *ms; j++) {
                int64_t out = shape[i][0], in = shape[i][1], m = ms[j];
                struct kern_mat w = {.dtype = t ? KERN_BF16 : KERN_F32, .out = out, .in = in};
                float *rows = numbers(out * in), *x = numbers(m * in), *y = aligned((size_t)(m * out) * sizeof *y);
                w.data = aligned(kern_mat_bytes(w.dtype, out, in));
                kern_mat_set(&kern, &w, 0, out, rows, in);
                struct kern_linear c = {
                    .w = &w, .x = x, .m = m, .ldx = in, .y = y, .ldy = out, .scratch = aligned(kern_linear_scratch(&w, m))};
                double s = seconds_of(call_linear, &c);
                char name[96];
                snprintf(name, sizeof name, "linear %s %lld x %lld, %lld rows", t ? "bf16" : "f32", (long long)out, (long long)in,
                         (long long)m);
                if (m == 1)
                    line(name, (double)kern_mat_bytes(w.dtype, out, in) / s, memory_rate,
                         "GB/s of memory (small ones lie in cache)");
                else
                    line(name, 2.0 * (double)(m * out * in) / s, flops[t], "GFLOP/s");
                free(rows), free(x), free(y), free(w.data), free(c.scratch);
            }
}

struct tile_arg {
    struct kern_tile t;
    struct kern_kv kv;
    const int64_t *ptr;
    const int32_t *list;
};

static void call_dense(void *arg)
{
    struct tile_arg *a = arg;
    kern.tile_begin(&a->t);
    kern.tile_dense(&a->t, &a->kv, 0, a->kv.n / KERN_KB);
    kern.tile_end(&a->t, NULL);
}

static void call_gather(void *arg)
{
    struct tile_arg *a = arg;
    kern.tile_begin(&a->t);
    kern.tile_gather(&a->t, &a->kv, a->ptr, a->list);
    kern.tile_end(&a->t, NULL);
}

/* tokens lists of `keep` of n blocks; a token's list is its neighbour's with one in ten blocks drawn anew */
static int64_t neighbours(int32_t *list, int64_t *ptr, int64_t tokens, int64_t keep, int64_t n)
{
    static uint8_t in[65536];
    uint32_t s = 7;
    memset(in, 0, sizeof in);
    for (int64_t i = 0, k = 0; k < keep; i++)
        for (s = s * 1664525u + 1013904223u; k < keep && !in[(s >> 8) % (uint32_t)n]; k++)
            in[(s >> 8) % (uint32_t)n] = 1;
    int64_t used = ptr[0] = 0;
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t moved = 0; t && moved < keep / 10;) {
            s = s * 1664525u + 1013904223u;
            int64_t from = (s >> 8) % (uint32_t)n;
            s = s * 1664525u + 1013904223u;
            int64_t to = (s >> 8) % (uint32_t)n;
            if (in[from] && !in[to])
                in[from] = 0, in[to] = 1, moved++;
        }
        for (int64_t b = 0; b < n; b++)
            if (in[b])
                list[used++] = (int32_t)b;
        ptr[t + 1] = used;
    }
    return used;
}

static void bench_tiles(void)
{
    enum { KEYS = 8192, KEEP = 64, ROWS = 64 };
    kern_threads(1);
    for (int t = 0; t < 2; t++) {
        double limit = kern_peak_flops(&kern, t ? KERN_BF16 : KERN_F32, 0.2);
        for (int64_t d = 64; d <= 128; d *= 2)
            for (int64_t rows = ROWS; rows >= 1; rows /= 4) {
                size_t bytes = kern_kv_bytes(t ? KERN_BF16 : KERN_F32, d, KEYS);
                float *x = numbers(KEYS * d), *out = aligned((size_t)(ROWS * (d + 2)) * sizeof *out);
                int64_t end[ROWS], ptr[ROWS + 1];
                static int32_t list[ROWS * KEEP];
                struct tile_arg a = {.kv = {.k = aligned(bytes), .v = aligned(bytes), .dim = d, .dtype = t ? KERN_BF16 : KERN_F32},
                                     .ptr = ptr,
                                     .list = list};
                kern.kv_append(&a.kv, x, x, d, KEYS);
                for (int r = 0; r < ROWS; r++)
                    end[r] = KEYS;
                a.t = (struct kern_tile){.rows = rows,
                                         .dim = d,
                                         .q = x,
                                         .end = end,
                                         .o = out,
                                         .m = out + ROWS * d,
                                         .l = out + ROWS * (d + 1),
                                         .share = 4};
                a.t.scratch = aligned(kern_tile_scratch(rows, d));
                char name[96];
                snprintf(name, sizeof name, "tile_dense %s d %lld, %lld rows, 8192 keys", t ? "bf16" : "f32", (long long)d,
                         (long long)rows);
                line(name, 4.0 * (double)(rows * KEYS * d) / seconds_of(call_dense, &a), limit, "GFLOP/s of one core");
                if (rows >= 4) {
                    int64_t pairs = neighbours(list, ptr, rows / 4, KEEP, KEYS / KERN_KB) * KERN_KB * 4;
                    snprintf(name, sizeof name, "tile_gather %s d %lld, %lld rows, 1024 keys each", t ? "bf16" : "f32",
                             (long long)d, (long long)rows);
                    line(name, 4.0 * (double)(pairs * d) / seconds_of(call_gather, &a), limit,
                         "GFLOP/s of one core, selected pairs");
                }
                free(x), free(out), free(a.kv.k), free(a.kv.v), free(a.t.scratch);
            }
    }
}

static float *vx, *vy, *vz;
enum { VN = 2048 };
static volatile double seen;

/* clang-format off */
static void call_exp(void *arg) { float s; (void)arg; seen = (double)kern.exp_row(vz, vx, VN, &s); }
static void call_silu(void *arg) { (void)arg; kern.silu_mul(vz, vx, vy, VN); }
static void call_gelu(void *arg) { (void)arg; kern.gelu_mul(vz, vx, vy, VN, true); }
static void call_gelu_erf(void *arg) { (void)arg; kern.gelu_mul(vz, vx, vy, VN, false); }
static void call_norm(void *arg) { (void)arg; kern.rms_norm(vz, vx, vy, VN, 1e-5F); }
static void call_layer(void *arg) { (void)arg; kern.layer_norm(vz, vx, vy, NULL, VN, 1e-5F); }
static void call_dot(void *arg) { (void)arg; seen = (double)kern.dot(vx, vy, VN); }
static void call_add(void *arg) { (void)arg; kern.add(vz, vy, VN); }
static void call_argmax(void *arg) { (void)arg; seen = (double)kern.argmax(vx, VN); }
static void call_lse(void *arg) { float m = -1e30F; double s = 0; (void)arg; kern.lse_update(vx, VN, &m, &s); seen = s; }
static void call_bf16(void *arg) { (void)arg; kern.bf16_from_f32((uint16_t *)(void *)vz, vx, VN); }
static void call_topk(void *arg) { static int32_t idx[VN]; (void)arg; seen = (double)kern.topk(vx, VN, 128, idx, vz); }
/* clang-format on */

static void bench_vectors(void)
{
    static const struct {
        const char *name;
        void (*call)(void *);
        double bytes; /* an element */
    } all[] = {{"exp_row", call_exp, 8},
               {"silu_mul", call_silu, 12},
               {"gelu_mul tanh", call_gelu, 12},
               {"gelu_mul erf", call_gelu_erf, 12},
               {"rms_norm", call_norm, 12},
               {"layer_norm", call_layer, 12},
               {"dot", call_dot, 8},
               {"add", call_add, 12},
               {"argmax", call_argmax, 4},
               {"lse_update", call_lse, 4},
               {"bf16_from_f32", call_bf16, 6},
               {"topk 128 of 2048", call_topk, 4}};
    kern_threads(1);
    vx = numbers(VN), vy = numbers(VN), vz = numbers(VN + 64);
    double limit = kern_peak_bandwidth(&kern, vx, VN * sizeof(float), 0.05);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        double s = seconds_of(all[i].call, NULL);
        char name[96];
        snprintf(name, sizeof name, "%s, %d floats, %.3f ns each", all[i].name, VN, s / VN * 1e9);
        line(name, all[i].bytes * VN / s, limit, "GB/s of the first cache, one core");
    }
    free(vx), free(vy), free(vz);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || kern_select(&kern, NULL)) {
        fprintf(stderr, "usage: bench_kern [threads]; AST_ISA must name an instruction set of this CPU\n");
        return 2;
    }
    printf("# %s, bf16 dot products: %s; %s\n", kern.isa, kern.has_bf16_dot ? "yes" : "no", kern_blas_info());
    measure_limits(threads);
    printf("%-48s %9s %9s  %5s\n", "kernel", "rate", "limit", "ratio");
    bench_linear(threads);
    bench_tiles();
    bench_vectors();
    return 0;
}
