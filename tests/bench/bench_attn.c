/* Attention alone: dense against AST, one layer, by sequence length. Untrained gate, and one with all that a trained one
 * has (Wq, Wk, Wc, distances; random numbers about the untrained start).
 *   usage: bench_attn [longest = 65536] [kept = 1024] [shortest = 1024] [untrained | trained | both] [block = 16] [kv-head | head]
 * Ratios are of processor time (threads that wait sleep: OMP_WAIT_POLICY=passive), so that other programs on the machine
 * disturb them little; seconds are the clock's.
 * Queries and keys drift slowly, so that neighbouring tokens share most of their blocks, as in real text. Dense attention
 * above 16k tokens is timed on chunks spread over the sequence and scaled by exact pair counts; AST runs whole. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attn/gate.h"
#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "base/timer.h"

struct data {
    struct attn_shape s;
    struct kern_table kern;
    float *q, *k, *v, *x, *out, *freq;
    struct kern_kv kv[8];
    struct arena mem, step;
    int64_t n;
};

/* About normal: the sum of four 16-bit pieces of a counter's hash, unit variance. Data, not statistics: speed matters. */
static float noise(uint64_t seed, uint64_t at)
{
    uint64_t z = (at + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    int64_t sum = (int64_t)(z & 0xFFFF) + (int64_t)(z >> 16 & 0xFFFF) + (int64_t)(z >> 32 & 0xFFFF) + (int64_t)(z >> 48);
    return (float)(sum - 2 * 0xFFFF) / 37837.0F; /* 65536 sqrt(4 / 12) */
}

/* x (n, heads, d): a slow drift and noise of its own, unit variance. With 512 of 8192 tokens kept, 34 % of a tile's rows see a
 * block that any of them sees; of asterism-M's, on WikiText-103, 38 %. */
static void drift(float *x, int64_t n, int64_t width, uint64_t seed)
{
    for (int64_t i = 0; i < width; i++)
        x[i] = noise(seed, (uint64_t)i);
    for (int64_t at = width; at < n * width; at++) /* sqrt(1 - 0.985^2) */
        x[at] = 0.985F * x[at - width] + 0.17255F * noise(seed, (uint64_t)at);
    for (int64_t at = 0; at < n * width; at++)
        x[at] = 0.985F * x[at] + 0.17255F * noise(seed + 1000, (uint64_t)at);
}

static int data_open(struct data *b, int64_t heads, int64_t kv_heads, int64_t dim, int64_t n)
{
    *b = (struct data){.n = n};
    b->s = (struct attn_shape){.heads = heads, .kv_heads = kv_heads, .dim = dim, .hidden = heads * dim, .n_layers = 1};
    b->s.scale = (float)(1 / sqrt((double)dim));
    if (kern_select(&b->kern, NULL) || arena_open(&b->mem, "bench", (size_t)16 << 30) ||
        arena_open(&b->step, "step", (size_t)4 << 30))
        return -1;
    b->freq = ARENA_NEW(&b->mem, dim / 2, float);
    for (int64_t i = 0; i < dim / 2; i++)
        b->freq[i] = (float)pow(10000, -2.0 * (double)i / (double)dim);
    b->s.rot = dim, b->s.rope_theta = 10000, b->s.rope_freq = b->freq;
    b->q = ARENA_NEW(&b->mem, n * heads * dim, float);
    b->k = ARENA_NEW(&b->mem, n * kv_heads * dim, float);
    b->v = ARENA_NEW(&b->mem, n * kv_heads * dim, float);
    b->out = ARENA_NEW(&b->mem, n * heads * dim, float);
    b->x = ARENA_NEW(&b->mem, n * heads * dim, float);
    drift(b->x, n, heads * dim, 4);
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

/* Every layer's weights as after training: all parts present and none zero. */
static int gate_open(struct data *b, const struct sparse_opts *o, struct attn_params *p)
{
    *p = (struct attn_params){.layers = 1, .heads = b->s.heads, .kv_heads = b->s.kv_heads, .dim = b->s.dim, .hidden = b->s.hidden};
    p->units = o->unit == SPARSE_HEAD ? p->heads : p->kv_heads;
    p->width = p->dim;
    p->buckets = GATE_BUCKETS;
    p->block = o->block;
    int rc = gate_alloc(p, &b->mem);
    rc = rc ? rc : gate_init(p, 0.02, 7);
    for (int64_t i = 0; !rc && i < p->units * p->hidden * p->width; i++)
        p->layer[0].wc[i] = (float)(0.02 * rng_normal(8, 1, (uint64_t)i));
    for (int64_t i = 0; !rc && i < p->units * p->buckets; i++)
        p->layer[0].dist[i] = (float)(0.1 * rng_normal(8, 2, (uint64_t)i));
    if (!rc)
        gate_seal(p);
    return rc;
}

struct spent {
    double wall, cpu;
};

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct spent least(struct spent a, struct spent b)
{
    return (struct spent){fmin(a.wall, b.wall), fmin(a.cpu, b.cpu)};
}

static const struct spent never = {HUGE_VAL, HUGE_VAL};

/* Adds what one chunk takes. */
static void chunk(struct data *b, struct attn_call *c, int64_t pos, int64_t n, struct spent *to)
{
    int64_t H = b->s.heads, G = b->s.kv_heads, d = b->s.dim;
    c->pos = pos, c->n = n;
    c->q = c->q0 = b->q + pos * H * d;
    c->k = c->k0 = b->k + pos * G * d;
    c->v = b->v + pos * G * d;
    c->x = b->x + pos * b->s.hidden;
    c->out = b->out + pos * H * d;
    double wall = timer_now(), cpu = cpu_now();
    if (c->method->run(c)) {
        fprintf(stderr, "bench_attn: %s\n", err_text());
        exit(1);
    }
    to->wall += timer_now() - wall;
    to->cpu += cpu_now() - cpu;
}

static struct spent dense_once(struct data *b, int64_t n)
{
    struct attn_call c = {.method = attn_find("dense"), .shape = &b->s, .kv = b->kv, .kern = &b->kern, .step = &b->step};
    struct spent s = {0, 0};
    double pairs = 0;
    enum { PARTS = 4, EACH = 512 };
    if (n <= 8192) {
        chunk(b, &c, 0, n, &s);
        return s;
    }
    for (int64_t i = 0; i < PARTS; i++) {
        int64_t pos = (2 * i + 1) * n / (2 * PARTS);
        chunk(b, &c, pos, EACH, &s);
        pairs += EACH * ((double)pos + (EACH + 1) / 2.0);
    }
    double by = (double)n * (double)(n + 1) / 2 / pairs;
    return (struct spent){s.wall * by, s.cpu * by};
}

struct side { /* one way of sparse attention */
    const char *name;
    const struct sparse_opts *o;
    const struct attn_params *gate;
    struct attn_stats stats;
};

static struct spent ast_once(struct data *b, struct side *x, int64_t n)
{
    struct attn_call c = {.method = &attn_ast, .opts = x->o, .shape = &b->s, .kv = b->kv, .kern = &b->kern, .step = &b->step};
    size_t mark = arena_mark(&b->mem), bytes = attn_ast.state_bytes(x->o, &b->s, n);
    struct spent s = {0, 0};
    c.params = x->gate;
    c.state = arena_alloc(&b->mem, (int64_t)bytes, 1);
    c.stats = &x->stats;
    memset(c.state, 0, bytes);
    x->stats = (struct attn_stats){0};
    for (int64_t pos = 0; pos < n; pos += 4096)
        chunk(b, &c, pos, n - pos < 4096 ? n - pos : 4096, &s);
    arena_release(&b->mem, mark);
    return s;
}

static void line(struct data *b, struct side *x, int64_t n)
{
    struct spent dense = never, ast = never;
    double select = HUGE_VAL;
    int repeats = n <= 1024 ? 300 : n <= 4096 ? 9 : n <= 16384 ? 3 : 2;
    for (int r = 0; r < repeats; r++) { /* in turn: what disturbs one disturbs the other */
        dense = least(dense, dense_once(b, n));
        ast = least(ast, ast_once(b, x, n));
        select = fmin(select, x->stats.select_s);
    }
    double flops = 4.0 * (double)(b->s.heads * b->s.dim) * (double)n * (double)(n + 1) / 2;
    double kept = flops * x->stats.pairs_seen / x->stats.pairs_causal;
    printf("%-10s %7lld %9.4f %9.4f %7.2f %7.2f %8.2f%% %8.1f %8.1f %6.0f/%.0f/%.0f\n", x->name, (long long)n, dense.wall, ast.wall,
           dense.cpu / ast.cpu, x->stats.pairs_causal / x->stats.pairs_seen, 100 * select / dense.wall, flops / dense.cpu / 1e9,
           kept / ast.cpu / 1e9, x->stats.tile_dense, x->stats.tile_blocks, x->stats.tile_gather);
    fflush(stdout);
}

static void table(const struct attn_shape *shape, int64_t n[2], const struct sparse_opts *o, const char *gates)
{
    struct data b;
    struct attn_params gate;
    if (data_open(&b, shape->heads, shape->kv_heads, shape->dim, n[1]) || gate_open(&b, o, &gate)) {
        fprintf(stderr, "bench_attn: %s\n", err_text());
        exit(1);
    }
    struct side side[2] = {{.name = "untrained", .o = o}, {.name = "trained", .o = o, .gate = &gate}};
    printf("%lld query heads, %lld key/value heads of %lld, f32, %s, %d threads, %lld tokens kept, blocks of %lld, a set for each "
           "%s\n",
           (long long)shape->heads, (long long)shape->kv_heads, (long long)shape->dim, b.kern.isa, omp_get_max_threads(),
           (long long)o->keep, (long long)o->block, o->unit == SPARSE_HEAD ? "query head" : "key/value head");
    printf("%-10s %7s %9s %9s %7s %7s %9s %8s %8s %s\n", "gate", "tokens", "dense s", "ast s", "ratio", "pairs", "choosing",
           "GF/s den", "GF/s ast", "tiles d/b/g");
    for (int64_t t = n[0]; t <= n[1]; t *= 2)
        for (int i = 0; i < 2; i++)
            if (!strcmp(gates, "both") || !strcmp(gates, side[i].name))
                line(&b, &side[i], t);
    arena_close(&b.mem);
    arena_close(&b.step);
}

int main(int argc, char **argv)
{
    int64_t n[2] = {argc > 3 ? atoll(argv[3]) : 1024, argc > 1 ? atoll(argv[1]) : 65536};
    struct sparse_opts o = {0};
    const char *gates = argc > 4 ? argv[4] : "both";
    struct attn_shape shape[2] = {{.heads = 6, .kv_heads = 2, .dim = 64}, {.heads = 4, .kv_heads = 1, .dim = 128}};
    bool right = !cfg_defaults(attn_ast.fields, &o);
    o.keep = argc > 2 ? atoll(argv[2]) : o.keep;
    o.block = argc > 5 ? atoll(argv[5]) : o.block;
    o.unit = argc > 6 && !strcmp(argv[6], "head") ? SPARSE_HEAD : o.unit;
    if (!right || n[0] < 16 || n[1] < n[0] || n[1] > 1 << 20 || o.keep < 1 || sparse_check(&o, &shape[0])) {
        fprintf(stderr, "usage: bench_attn [longest] [kept] [shortest] [untrained | trained | both] [block] [kv-head | head]\n");
        return 2;
    }
    for (int i = 0; i < 2; i++)
        table(&shape[i], n, &o, gates);
    return 0;
}
