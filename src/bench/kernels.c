/* Linear layers of the benchmark shapes, and the vector kernels, each against its roofline. */
#include "bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/timer.h"
#include "kernels/blas.h"
#include "kernels/linear.h"

/* ---- linear layers ---- */

enum { COPIES = 256 };

struct linear {
    int64_t out, in, m;
    enum kern_dtype dtype;
    int n, next; /* copies of the weights: with few rows each call takes another one, so that they come from memory */
    struct kern_mat w[COPIES];
    float *x, *y, *scratch;
    float *plain; /* the weights as they come, for BLAS */
};

static int linear_open(struct bench *b, void *arg)
{
    struct linear *l = arg;
    struct kern_mat shape = {.dtype = l->dtype, .out = l->out, .in = l->in};
    size_t each = kern_mat_bytes(l->dtype, l->out, l->in);
    float *rows = l->plain = bench_numbers(l->out * l->in);
    double want = l->m <= 16 ? (double)b->buffer_bytes / (double)each : 1;
    l->n = 0;
    l->next = 0;
    l->x = bench_numbers(l->m * l->in);
    l->y = bench_bytes((size_t)(l->m * l->out) * sizeof(float));
    l->scratch = bench_bytes(kern_linear_scratch(&shape, l->m));
    bool ok = rows && l->x && l->y && l->scratch;
    for (int i = 0; ok && i < fmin(ceil(want), COPIES); i++) {
        l->w[i] = shape;
        l->w[i].data = bench_bytes(each);
        ok = l->w[i].data != NULL;
        l->n += ok;
        if (ok)
            kern_mat_set(&b->kern, &l->w[i], 0, l->out, rows, l->in);
    }
    return ok ? ERR_OK : ERR_NOMEM;
}

static void linear_close(void *arg)
{
    struct linear *l = arg;
    free(l->plain);
    l->plain = NULL;
    for (int i = 0; i < l->n; i++)
        free(l->w[i].data);
    free(l->x);
    free(l->y);
    free(l->scratch);
    l->x = l->y = l->scratch = NULL;
    l->n = 0;
}

static int linear_call(struct bench *b, void *arg)
{
    struct linear *l = arg;
    struct kern_linear c = {
        .w = &l->w[l->next], .x = l->x, .m = l->m, .ldx = l->in, .y = l->y, .ldy = l->out, .scratch = l->scratch};
    kern_linear(&b->kern, &c);
    l->next = (l->next + 1) % l->n;
    return ERR_OK;
}

/* Seconds of a call: of ours, or of BLAS's product of the same matrices. */
static double linear_time(struct bench *b, struct linear *l, bool blas)
{
    struct blas_gemm g = {.trans_b = true, .m = l->m, .n = l->out, .k = l->in, .alpha = 1, .a = l->x, .b = l->plain, .c = l->y};
    g.lda = g.ldb = l->in, g.ldc = l->out;
    double start = timer_now(), took;
    int calls = 0;
    do {
        if (blas)
            blas_gemm(&g);
        else
            linear_call(b, l);
        calls++;
        took = timer_now() - start;
    } while (took < 0.02);
    return took / calls;
}

/* In turn, so that whatever else the machine does meets both. */
static void linear_note(struct bench *b, void *arg)
{
    struct linear *l = arg;
    double ratio[BENCH_ROUNDS], rate[BENCH_ROUNDS];
    if (!b->out || b->ranks > 1)
        return;
    for (int i = 0; i < b->o.rounds; i++) {
        double theirs = linear_time(b, l, true), ours = linear_time(b, l, false);
        ratio[i] = theirs / ours;
        rate[i] = 2e-9 * (double)(l->out * l->in * l->m) / theirs;
    }
    fprintf(b->out, "    OpenBLAS's own product %.1f GFLOP/s; ours / OpenBLAS's %.2f\n", bench_median(rate, b->o.rounds),
            bench_median(ratio, b->o.rounds));
}

static int linear_row(struct bench *b, struct linear *l)
{
    double weights = (double)kern_mat_bytes(l->dtype, l->out, l->in);
    struct bench_work w = {.part = "kernel",
                           .dtype = l->dtype,
                           .flops = b->ranks * 2.0 * (double)(l->out * l->in * l->m),
                           .bytes = l->m <= 16 ? b->ranks * weights : 0,
                           .set = (double)b->buffer_bytes,
                           .open = linear_open,
                           .call = linear_call,
                           .close = linear_close,
                           .note = l->dtype == KERN_F32 && l->m >= 64 ? linear_note : NULL,
                           .arg = l};
    snprintf(w.name, sizeof w.name, "linear %s %lld x %lld, %lld row%s", l->dtype == KERN_BF16 ? "bf16" : "f32", (long long)l->out,
             (long long)l->in, (long long)l->m, l->m > 1 ? "s" : "");
    return bench_measure(b, &w);
}

static int linears(struct bench *b)
{
    /* qkv, up and down of the 125M shape; up and down of the 1.1B shape */
    static const int64_t shape[][2] = {{2304, 768}, {4096, 768}, {768, 2048}, {11264, 2048}, {2048, 5632}};
    static const int64_t rows[] = {1, 4, 16, 64, 512, 2048};
    int shapes = b->o.quick ? 1 : 5, sizes = b->o.quick ? 5 : 6, rc = ERR_OK;
    struct linear *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(ERR_NOMEM, "no memory to measure linear layers");
    for (int t = 0; t < 2; t++)
        for (int i = 0; b->o.dtype[t] && i < shapes; i++)
            for (int j = 0; !rc && j < sizes; j++) {
                *l = (struct linear){.out = shape[i][0], .in = shape[i][1], .m = rows[j], .dtype = (enum kern_dtype)t};
                rc = linear_row(b, l);
            }
    free(l);
    return rc;
}

/* ---- vectors: one core, everything in its first-level cache ---- */

enum { N = 2048 };

struct vectors {
    float *x, *y, *z;
    double seen;
    int32_t index[N];
};

/* clang-format off */
static int call_exp(struct bench *b, void *a) { struct vectors *v = a; float s; v->seen = (double)b->kern.exp_row(v->z, v->x, N, &s); return 0; }
static int call_silu(struct bench *b, void *a) { struct vectors *v = a; b->kern.silu_mul(v->z, v->x, v->y, N); return 0; }
static int call_gelu(struct bench *b, void *a) { struct vectors *v = a; b->kern.gelu_mul(v->z, v->x, v->y, N, true); return 0; }
static int call_gelu_erf(struct bench *b, void *a) { struct vectors *v = a; b->kern.gelu_mul(v->z, v->x, v->y, N, false); return 0; }
static int call_norm(struct bench *b, void *a) { struct vectors *v = a; b->kern.rms_norm(v->z, v->x, v->y, N, 1e-5F); return 0; }
static int call_layer(struct bench *b, void *a) { struct vectors *v = a; b->kern.layer_norm(v->z, v->x, v->y, NULL, N, 1e-5F); return 0; }
static int call_dot(struct bench *b, void *a) { struct vectors *v = a; v->seen = (double)b->kern.dot(v->x, v->y, N); return 0; }
static int call_add(struct bench *b, void *a) { struct vectors *v = a; b->kern.add(v->z, v->y, N); return 0; }
static int call_rope(struct bench *b, void *a) { struct vectors *v = a; for (int i = 0; i < N; i += 64) b->kern.rope(v->z + i, v->x, v->y, 64); return 0; }
static int call_argmax(struct bench *b, void *a) { struct vectors *v = a; v->seen = (double)b->kern.argmax(v->x, N); return 0; }
static int call_lse(struct bench *b, void *a) { struct vectors *v = a; float m = -1e30F; v->seen = 0; b->kern.lse_update(v->x, N, &m, &v->seen); return 0; }
static int call_bf16(struct bench *b, void *a) { struct vectors *v = a; b->kern.bf16_from_f32((uint16_t *)(void *)v->z, v->x, N); return 0; }
static int call_topk(struct bench *b, void *a) { struct vectors *v = a; v->seen = (double)b->kern.topk(v->x, N, 128, v->index, v->z, NULL); return 0; }
/* clang-format on */

static const struct {
    const char *name;
    int (*call)(struct bench *, void *);
    double bytes; /* an element, read and written */
} vector[] = {{"softmax row: exp_row", call_exp, 8},
              {"silu_mul", call_silu, 12},
              {"gelu_mul, tanh", call_gelu, 12},
              {"gelu_mul, erf", call_gelu_erf, 12},
              {"rms_norm", call_norm, 12},
              {"layer_norm", call_layer, 12},
              {"rope, heads of 64", call_rope, 12},
              {"dot", call_dot, 8},
              {"add", call_add, 12},
              {"argmax", call_argmax, 4},
              {"cross-entropy: lse_update", call_lse, 4},
              {"bf16_from_f32", call_bf16, 6},
              {"top-k, 128 of 2048", call_topk, 4}};

static int vectors_open(struct bench *b, void *arg)
{
    struct vectors *v = arg;
    (void)b;
    v->x = bench_numbers(N);
    v->y = bench_numbers(N);
    v->z = bench_numbers(N + 64);
    return v->x && v->y && v->z ? ERR_OK : ERR_NOMEM;
}

static void vectors_close(void *arg)
{
    struct vectors *v = arg;
    free(v->x);
    free(v->y);
    free(v->z);
}

static int vectors(struct bench *b)
{
    struct vectors v = {0};
    int rc = ERR_OK;
    for (size_t i = 0; !rc && i < sizeof vector / sizeof *vector; i++) {
        struct bench_work w = {.part = "kernel",
                               .bytes = b->ranks * vector[i].bytes * N,
                               .set = sizeof(float) * 2 * N,
                               .one_thread = true,
                               .open = vectors_open,
                               .call = vector[i].call,
                               .close = vectors_close,
                               .arg = &v};
        snprintf(w.name, sizeof w.name, "%s, 2048 floats, 1 thread", vector[i].name);
        rc = bench_measure(b, &w);
    }
    return rc;
}

int bench_kernels(struct bench *b)
{
    int rc = linears(b);
    return rc ? rc : vectors(b);
}
