/* The baselines' attention alone, one layer, by sequence length: processor seconds of prefill, fitted exponent, density, and
 * what each keeps in memory; then the error of Performer against dense attention as its features grow.
 *   usage: bench_baselines [longest = 65536] [method ...]
 * Processor time of one thread, so that a busy machine does not lengthen it. Lengths go up by four from 4096. Dense attention
 * above 16k tokens is timed on chunks spread over the sequence and scaled by exact pair counts, all others run whole. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"

enum { H = 6, G = 2, D = 64, CHUNK = 1024, POINTS = 8 };

struct entry {
    const char *name, *method, *set[4];
};
static const struct entry entries[] = {
    {"dense", "dense", {NULL}},
    {"window", "window", {"m.keep=512"}},
    {"streaming-llm", "streaming-llm", {"m.window=508"}},
    {"longformer", "longformer", {"m.window=[511]"}},
    {"longformer-dilated", "longformer", {"m.window=[511]", "m.dilation=4", "m.global=[0, 1, 2, 3]"}},
    {"bigbird", "bigbird", {NULL}},
    {"sparse-strided", "sparse-transformer", {"m.l=128"}},
    {"sparse-fixed", "sparse-transformer", {"m.kind=\"fixed\"", "m.l=128", "m.c=8"}},
    {"reformer", "reformer", {NULL}},
    {"performer", "performer", {NULL}},
    {"hybrid", "hybrid", {"m.rule=\"best\""}},
};
enum { ENTRIES = sizeof entries / sizeof entries[0] };

struct data {
    struct kern_table kern;
    struct arena mem, step;
    struct attn_shape s;
    struct kern_kv kv[G];
    float *q, *k, *v, *out;
};

static void die(void)
{
    fprintf(stderr, "bench_baselines: %s\n", err_text());
    exit(1);
}

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(float *x, int64_t n, uint64_t stream)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(rng_uniform(7, stream, (uint64_t)i) * 3.46 - 1.73); /* variance 1 */
}

static void data_open(struct data *b, int64_t n)
{
    static float freq[D / 2];
    memset(b, 0, sizeof *b);
    b->s = (struct attn_shape){.heads = H, .kv_heads = G, .dim = D, .n_layers = 1, .scale = 0.125F, .rot = D};
    b->s.rope_theta = 1e4, b->s.rope_freq = freq;
    for (int i = 0; i < D / 2; i++)
        freq[i] = (float)pow(1e4, -2.0 * i / D);
    if (kern_select(&b->kern, NULL) || arena_open(&b->mem, "bench", (size_t)1 << 36) ||
        arena_open(&b->step, "step", (size_t)1 << 34))
        die();
    b->q = ARENA_NEW(&b->mem, n * H * D, float);
    b->out = ARENA_NEW(&b->mem, n * H * D, float);
    b->k = ARENA_NEW(&b->mem, n * G * D, float);
    b->v = ARENA_NEW(&b->mem, n * G * D, float);
    if (!b->q || !b->out || !b->k || !b->v)
        die();
    fill(b->q, n * H * D, 1);
    fill(b->k, n * G * D, 2);
    fill(b->v, n * G * D, 3);
    for (int g = 0; g < G; g++) {
        b->kv[g] = (struct kern_kv){.dim = D, .dtype = KERN_F32};
        b->kv[g].k = arena_alloc0(&b->mem, (int64_t)kern_kv_bytes(KERN_F32, D, n), 1);
        b->kv[g].v = arena_alloc0(&b->mem, (int64_t)kern_kv_bytes(KERN_F32, D, n), 1);
        b->kern.kv_append(&b->kv[g], b->k + g * D, b->v + g * D, G * D, n);
    }
}

struct method {
    const struct attn_method *m;
    struct cfg *cfg;
    _Alignas(64) unsigned char opts[1024];
};

static void method_open(struct method *o, const struct entry *e, const struct attn_shape *s)
{
    int n = 0;
    memset(o, 0, sizeof *o);
    o->m = attn_find(e->method);
    while (n < 4 && e->set[n])
        n++;
    if (!o->m || o->m->opts_size > sizeof o->opts || cfg_open(&o->cfg, NULL, e->set, n) ||
        (o->m->fields && cfg_load(o->cfg, "m", o->m->fields, o->opts)) || (o->m->check && o->m->check(o->opts, s)))
        die();
}

/* Processor seconds of tokens pos .. pos+n-1 */
static double chunk(struct data *b, struct attn_call *c, int64_t pos, int64_t n)
{
    c->pos = pos, c->n = n;
    c->q = b->q + pos * H * D, c->k = b->k + pos * G * D, c->v = b->v + pos * G * D;
    c->out = b->out + pos * H * D;
    double t0 = cpu_now();
    if (c->method->run(c))
        die();
    return cpu_now() - t0;
}

static double causal(double n)
{
    return n * (n + 1) / 2;
}

struct result {
    double seconds, density;
    size_t state, scratch;
};

static void measure(struct data *b, struct method *o, int64_t n, struct result *r)
{
    struct attn_stats stats = {0};
    struct attn_call c = {.method = o->m, .opts = o->opts, .shape = &b->s, .kv = b->kv, .kern = &b->kern, .step = &b->step};
    size_t mark = arena_mark(&b->mem);
    *r = (struct result){.state = o->m->state_bytes ? o->m->state_bytes(o->opts, &b->s, n) : 0};
    r->scratch = o->m->scratch(o->opts, &b->s, CHUNK, n);
    c.state = r->state ? arena_alloc0(&b->mem, (int64_t)r->state, 1) : NULL;
    c.stats = &stats;
    bool dense = (o->m->caps & ATTN_EXACT) != 0 && n > 16384;
    for (int64_t pos = dense ? n / 16 : 0; pos < n; pos += dense ? n / 8 : CHUNK)
        r->seconds += chunk(b, &c, pos, dense ? CHUNK / 4 : n - pos < CHUNK ? n - pos : CHUNK);
    r->seconds *= dense ? causal((double)n) * H / stats.pairs_causal : 1;
    r->density = stats.pairs_seen / stats.pairs_causal;
    arena_release(&b->mem, mark);
}

/* Slope of ln seconds over ln tokens, least squares. */
static double exponent(const double *n, const double *s, int points)
{
    double mx = 0, my = 0, xy = 0, xx = 0;
    for (int i = 0; i < points; i++)
        mx += log(n[i]) / points, my += log(s[i]) / points;
    for (int i = 0; i < points; i++)
        xy += (log(n[i]) - mx) * (log(s[i]) - my), xx += (log(n[i]) - mx) * (log(n[i]) - mx);
    return xy / xx;
}

static void row(struct data *b, const struct entry *e, int64_t longest)
{
    struct method o;
    struct result r = {0};
    double n[POINTS], s[POINTS];
    int points = 0;
    method_open(&o, e, &b->s);
    printf("%-19s", e->name);
    for (int64_t len = 4096; len <= longest && points < POINTS; len *= 4, points++) {
        measure(b, &o, len, &r);
        n[points] = (double)len;
        s[points] = r.seconds;
        printf(" %9.3f", r.seconds);
        fflush(stdout);
    }
    if (points > 1)
        printf("  %8.2f", exponent(n, s, points));
    printf("  %7.2f%%  %9.1f %9.1f\n", 100 * r.density, (double)r.state / 1048576, (double)r.scratch / 1048576);
    fflush(stdout);
    cfg_close(o.cfg);
}

/* |performer - dense| / |dense| over 2048 tokens. */
static void features(struct data *b)
{
    enum { N = 2048 };
    static const char *const sets[] = {"m.features=64", "m.features=256", "m.features=1024", "m.features=4096"};
    float *dense = ARENA_NEW(&b->mem, N * H * D, float);
    struct result r;
    struct method o;
    if (!dense)
        die();
    method_open(&o, &(struct entry){"dense", "dense", {NULL}}, &b->s);
    measure(b, &o, N, &r);
    memcpy(dense, b->out, (size_t)(N * H * D) * sizeof *dense);
    printf("\nPerformer against dense, %d tokens, queries and keys of variance 1:", N);
    for (int i = 0; i < 4; i++) {
        double num = 0, den = 0;
        method_open(&o, &(struct entry){"performer", "performer", {sets[i]}}, &b->s);
        measure(b, &o, N, &r);
        for (int64_t x = 0; x < N * H * D; x++) {
            double d = (double)b->out[x] - (double)dense[x];
            num += d * d;
            den += (double)dense[x] * (double)dense[x];
        }
        printf("  %s %.3f", sets[i] + 2, sqrt(num / den));
        cfg_close(o.cfg);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    struct data b;
    int64_t longest = argc > 1 ? atoll(argv[1]) : 65536;
    if (longest < 4096 || longest > 1 << 20) {
        fprintf(stderr, "usage: bench_baselines [longest, 4096 or more] [method ...]\n");
        return 2;
    }
    omp_set_num_threads(1);
    data_open(&b, longest);
    printf("%d query heads, %d key/value heads of %d, f32, %s, one thread, processor seconds; memory of one layer at the longest, "
           "MiB\n",
           H, G, D, b.kern.isa);
    printf("(keys and values themselves: %.1f MiB)\n%-19s", (double)(2 * G) * (double)kern_kv_bytes(KERN_F32, D, longest) / 1048576,
           "method");
    for (int64_t len = 4096; len <= longest; len *= 4)
        printf(" %9lld", (long long)len);
    printf("  exponent  density      state   scratch\n");
    for (int i = 0; i < ENTRIES; i++) {
        bool wanted = argc < 3;
        for (int a = 2; a < argc; a++)
            wanted = wanted || !strcmp(argv[a], entries[i].name);
        if (wanted)
            row(&b, &entries[i], longest);
    }
    if (argc < 3)
        features(&b);
    arena_close(&b.mem);
    arena_close(&b.step);
    return 0;
}
