/* Attention alone: dense against AST (untrained gate), one layer, by sequence length.
 *   usage: bench_attn [longest = 65536] [kept = 1024]
 * Queries and keys drift slowly, so that neighbouring tokens share most of their blocks, as in real text. Dense attention
 * above 16k tokens is timed on chunks spread over the sequence and scaled by exact pair counts; AST runs whole. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "base/timer.h"

struct data {
    struct attn_shape s;
    struct kern_table kern;
    float *q, *k, *v, *out;
    struct kern_kv kv[8];
    struct arena mem, step;
    int64_t n;
};

/* x (n, heads, d): a slow drift and noise of its own, unit variance */
static void drift(float *x, int64_t n, int64_t width, uint64_t seed)
{
    for (int64_t i = 0; i < width; i++) {
        double slow = rng_normal(seed, 0, (uint64_t)i);
        for (int64_t t = 0; t < n; t++) {
            uint64_t at = (uint64_t)(t * width + i);
            slow = 0.97 * slow + 0.243 * rng_normal(seed, 1, at); /* sqrt(1 - 0.97^2) */
            x[at] = (float)(0.9 * slow + 0.436 * rng_normal(seed, 2, at));
        }
    }
}

static int data_open(struct data *b, int64_t heads, int64_t kv_heads, int64_t dim, int64_t n)
{
    *b = (struct data){.n = n};
    b->s = (struct attn_shape){.heads = heads, .kv_heads = kv_heads, .dim = dim, .hidden = heads * dim, .n_layers = 1};
    b->s.scale = (float)(1 / sqrt((double)dim));
    if (kern_select(&b->kern, NULL) || arena_open(&b->mem, "bench", (size_t)16 << 30) ||
        arena_open(&b->step, "step", (size_t)4 << 30))
        return -1;
    b->q = ARENA_NEW(&b->mem, n * heads * dim, float);
    b->k = ARENA_NEW(&b->mem, n * kv_heads * dim, float);
    b->v = ARENA_NEW(&b->mem, n * kv_heads * dim, float);
    b->out = ARENA_NEW(&b->mem, n * heads * dim, float);
    drift(b->q, n, heads * dim, 1);
    drift(b->k, n, kv_heads * dim, 2);
    drift(b->v, n, kv_heads * dim, 3);
    for (int64_t g = 0; g < kv_heads; g++) {
        b->kv[g] = (struct kern_kv){.dim = dim, .dtype = KERN_F32};
        b->kv[g].k = arena_alloc0(&b->mem, (int64_t)kern_kv_bytes(KERN_F32, dim, n), 1);
        b->kv[g].v = arena_alloc0(&b->mem, (int64_t)kern_kv_bytes(KERN_F32, dim, n), 1);
        b->kern.kv_append(&b->kv[g], b->k + g * dim, b->v + g * dim, kv_heads * dim, n);
    }
    return 0;
}

/* Seconds of one chunk; kv->n must be what the method may see, which it masks itself. */
static double chunk(struct data *b, struct attn_call *c, int64_t pos, int64_t n)
{
    int64_t H = b->s.heads, G = b->s.kv_heads, d = b->s.dim;
    c->pos = pos, c->n = n;
    c->q = c->q0 = b->q + pos * H * d;
    c->k = c->k0 = b->k + pos * G * d;
    c->v = b->v + pos * G * d;
    c->out = b->out + pos * H * d;
    double t0 = timer_now();
    if (c->method->run(c)) {
        fprintf(stderr, "bench_attn: %s\n", err_text());
        exit(1);
    }
    return timer_now() - t0;
}

static double dense_s(struct data *b, int64_t n)
{
    struct attn_call c = {.method = attn_find("dense"), .shape = &b->s, .kv = b->kv, .kern = &b->kern, .step = &b->step};
    if (n <= 16384)
        return fmin(chunk(b, &c, 0, n), n <= 8192 ? chunk(b, &c, 0, n) : HUGE_VAL);
    double s = 0, pairs = 0;
    enum { PARTS = 8, EACH = 512 };
    for (int64_t i = 0; i < PARTS; i++) {
        int64_t pos = (2 * i + 1) * n / (2 * PARTS);
        s += chunk(b, &c, pos, EACH);
        pairs += EACH * ((double)pos + (EACH + 1) / 2.0);
    }
    return s * ((double)n * (double)(n + 1) / 2) / pairs;
}

static double ast_s(struct data *b, const struct sparse_opts *o, int64_t n, struct attn_stats *stats)
{
    struct attn_call c = {.method = &attn_ast, .opts = o, .shape = &b->s, .kv = b->kv, .kern = &b->kern, .step = &b->step};
    size_t mark = arena_mark(&b->mem), bytes = attn_ast.state_bytes(o, &b->s, n);
    double best = HUGE_VAL;
    c.state = arena_alloc(&b->mem, (int64_t)bytes, 1);
    c.stats = stats;
    for (int repeat = 0; repeat < 2; repeat++) {
        double s = 0;
        memset(c.state, 0, bytes);
        *stats = (struct attn_stats){0};
        for (int64_t pos = 0; pos < n; pos += 4096)
            s += chunk(b, &c, pos, n - pos < 4096 ? n - pos : 4096);
        best = fmin(best, s);
    }
    arena_release(&b->mem, mark);
    return best;
}

static void table(int64_t heads, int64_t kv_heads, int64_t dim, int64_t longest, int64_t keep)
{
    struct data b;
    struct sparse_opts o = {0};
    if (data_open(&b, heads, kv_heads, dim, longest) || cfg_defaults(attn_ast.fields, &o)) {
        fprintf(stderr, "bench_attn: %s\n", err_text());
        exit(1);
    }
    o.keep = keep;
    printf("%lld query heads, %lld key/value heads of %lld, f32, %s, %d threads, %lld tokens kept, blocks of %lld\n",
           (long long)heads, (long long)kv_heads, (long long)dim, b.kern.isa, omp_get_max_threads(), (long long)keep,
           (long long)o.block);
    printf("%8s %10s %10s %8s %9s %9s %10s %9s\n", "tokens", "dense s", "ast s", "ratio", "pairs", "choose s", "of dense",
           "GF/s den");
    for (int64_t n = 1024; n <= longest; n *= 2) {
        struct attn_stats st;
        double dense = dense_s(&b, n), ast = ast_s(&b, &o, n, &st);
        double flops = 4.0 * (double)(heads * dim) * (double)n * (double)(n + 1) / 2;
        printf("%8lld %10.4f %10.4f %8.2f %9.2f %9.4f %9.2f%% %9.1f\n", (long long)n, dense, ast, dense / ast,
               st.pairs_causal / st.pairs_seen, st.select_s, 100 * st.select_s / dense, flops / dense / 1e9);
        fflush(stdout);
    }
    arena_close(&b.mem);
    arena_close(&b.step);
}

int main(int argc, char **argv)
{
    int64_t longest = argc > 1 ? atoll(argv[1]) : 65536, keep = argc > 2 ? atoll(argv[2]) : 1024;
    if (longest < 1024 || longest > 1 << 20 || keep < 1) {
        fprintf(stderr, "usage: bench_attn [longest, 1024 or more] [kept]\n");
        return 2;
    }
    table(6, 2, 64, longest, keep);
    table(4, 1, 128, longest, keep);
    return 0;
}
