/* What tests of the baselines share: one random sequence, a run of a method over it in chunks, and dense attention under a
 * mask in double precision to compare with. */
#ifndef AST_TESTS_UNIT_TEST_BASE_H
#define AST_TESTS_UNIT_TEST_BASE_H

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"
#include "tests/t.h"

enum { B_N = 300, B_H = 6, B_G = 2, B_D = 24, B_LAYERS = 4 };

struct base {
    /* set by the test */
    const char *method, *isa, *set[8]; /* overrides "m.key=value" */
    int64_t chunk, window, layer;
    int64_t head_from, heads; /* a rank's heads, heads 0: all; whole groups */
    enum kern_dtype dtype;
    bool rounds; /* out: the kernels have bf16 dot products, which round queries and probabilities */
    float scale;
    /* the sequence, keys and values as the cache returns them, and the outputs */
    float q[B_N * B_H * B_D], k[B_N * B_G * B_D], v[B_N * B_G * B_D], freq[B_D / 2];
    float out[B_N * B_H * B_D], lse[B_N * B_H];
    struct attn_stats stats;
    size_t state, scratch, peak;
};

static inline float base_bf16(float x)
{
    struct kern_table kern;
    uint16_t h;
    if (kern_select(&kern, "ref"))
        return x;
    kern.bf16_from_f32(&h, &x, 1);
    kern.f32_from_bf16(&x, &h, 1);
    return x;
}

static inline void base_make(struct base *b, const char *method, const char *isa)
{
    *b = (struct base){.method = method, .isa = isa, .chunk = B_N, .layer = 1, .scale = 0.3F};
    for (int64_t i = 0; i < B_N * B_H * B_D; i++)
        b->q[i] = (float)rng_normal(11, 1, (uint64_t)i);
    for (int64_t i = 0; i < B_N * B_G * B_D; i++) {
        b->k[i] = (float)rng_normal(11, 2, (uint64_t)i);
        b->v[i] = (float)rng_normal(11, 3, (uint64_t)i);
    }
    for (int i = 0; i < B_D / 2; i++)
        b->freq[i] = (float)pow(10000, -2.0 * i / B_D);
}

/* Rows of heads from .. from + n - 1 of (B_N, all, B_D), packed. */
static inline float *base_heads(struct arena *mem, const float *x, int64_t all, int64_t from, int64_t n)
{
    float *to = ARENA_NEW(mem, B_N * n * B_D, float);
    for (int64_t t = 0; to && t < B_N; t++)
        memcpy(to + t * n * B_D, x + (t * all + from) * B_D, (size_t)(n * B_D) * sizeof *to);
    return to;
}

static inline int base_chunks(struct base *b, struct attn_call *c, struct arena *mem)
{
    const struct attn_shape *s = c->shape;
    int64_t H = s->heads, G = s->kv_heads, chunk = b->chunk;
    const float *q = base_heads(mem, b->q, B_H, s->head0, H), *k = base_heads(mem, b->k, B_G, s->kv_head0, G);
    const float *v = base_heads(mem, b->v, B_G, s->kv_head0, G);
    float *out = ARENA_NEW(mem, B_N * H * B_D, float), *lse = ARENA_NEW(mem, B_N * H, float);
    int rc = ERR_OK;
    for (; !rc && c->pos < B_N; c->pos += c->n) {
        c->n = chunk < B_N - c->pos ? chunk : B_N - c->pos;
        c->q = q + c->pos * H * B_D, c->k = k + c->pos * G * B_D, c->v = v + c->pos * G * B_D;
        c->out = out + c->pos * H * B_D, c->lse = lse + c->pos * H;
        for (int64_t g = 0; g < G; g++)
            c->kern->kv_append(&c->kv[g], c->k + g * B_D, c->v + g * B_D, G * B_D, c->n);
        rc = c->method->run(c);
    }
    for (int64_t t = 0; !rc && t < B_N; t++) {
        memcpy(b->out + (t * B_H + s->head0) * B_D, out + t * H * B_D, (size_t)(H * B_D) * sizeof *out);
        memcpy(b->lse + t * B_H + s->head0, lse + t * H, (size_t)H * sizeof *lse);
    }
    return rc;
}

/* Runs b; its heads' columns of out and lse are written. opts (NULL: not wanted) receives what the method was given. */
static inline int base_run(struct base *b)
{
    static _Alignas(64) unsigned char opts[1024];
    struct kern_table kern;
    struct arena mem, step = {0};
    struct cfg *cfg = NULL;
    struct kern_kv kv[B_G];
    int64_t heads = b->heads ? b->heads : B_H, group = B_H / B_G, n_set = 0;
    struct attn_shape s = {.heads = heads, .kv_heads = heads / group, .dim = B_D, .head0 = b->head_from, .layer = b->layer};
    struct attn_call c = {.method = attn_find(b->method), .opts = opts, .shape = &s, .kv = kv, .kern = &kern, .step = &step};
    s.kv_head0 = b->head_from / group, s.n_layers = B_LAYERS, s.scale = b->scale, s.window = b->window;
    s.rot = B_D, s.rope_theta = 10000, s.rope_freq = b->freq;
    c.stats = &b->stats;
    b->stats = (struct attn_stats){0};
    if (!c.method || kern_select(&kern, b->isa) || arena_open(&mem, "mem", (size_t)64 << 20))
        return err_set(ERR_ARG, "no method %s or instruction set %s", b->method, b->isa);
    b->rounds = kern.has_bf16_dot;
    while (n_set < 8 && b->set[n_set])
        n_set++;
    int rc = cfg_open(&cfg, NULL, b->set, (int)n_set);
    rc = rc || !c.method->fields ? rc : cfg_load(cfg, "m", c.method->fields, opts);
    rc = rc ? rc : cfg_finish(cfg); /* a misspelt option is a failed test */
    rc = rc || !c.method->check ? rc : c.method->check(opts, &s);
    if (!rc) {
        b->scratch = c.method->scratch(opts, &s, b->chunk, B_N);
        b->state = c.method->state_bytes ? c.method->state_bytes(opts, &s, B_N) : 0;
        rc = arena_open(&step, "step", b->scratch);
        c.state = b->state ? arena_alloc0(&mem, (int64_t)b->state, 1) : NULL;
        for (int64_t g = 0; g < s.kv_heads; g++) {
            kv[g] = (struct kern_kv){.dim = B_D, .dtype = b->dtype};
            kv[g].k = arena_alloc0(&mem, (int64_t)kern_kv_bytes(b->dtype, B_D, B_N), 1);
            kv[g].v = arena_alloc0(&mem, (int64_t)kern_kv_bytes(b->dtype, B_D, B_N), 1);
        }
        rc = rc ? rc : base_chunks(b, &c, &mem);
        b->peak = step.peak;
    }
    arena_close(&step);
    arena_close(&mem);
    cfg_close(cfg);
    return rc;
}

static inline bool base_same(const struct base *a, const struct base *b)
{
    return !memcmp(a->out, b->out, sizeof a->out) && !memcmp(a->lse, b->lse, sizeof a->lse);
}

/* A fast instruction set, for tests where one is enough. */
static inline const char *base_isa(void)
{
    const char *best = "ref";
    for (int i = 0; i < kern_isa_count(); i++)
        best = kern_isa_runs(i) ? kern_isa_name(i) : best;
    return best;
}

#endif
