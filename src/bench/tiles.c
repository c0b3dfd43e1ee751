/* Attention: the tile kernels of one core, and the dense method alone over a whole sequence. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "bench/bench.h"
#include "model/work.h"

/* ---- tiles: one core, 64 rows, every key visible ---- */

enum tile_kind { DENSE, BLOCKS, GATHER };
enum { KEYS = 8192, N_BLOCKS = KEYS / KERN_KB, ROWS = 64, SHARE = 4, KEEP = 64 };

/* Whose peak attention is held against: keys and values of bf16 are widened where only linear layers have tiles. */
static enum kern_dtype multiplies(const struct bench *b, enum kern_dtype t)
{
    return b->kern.has_tiles ? KERN_F32 : t;
}

struct tile {
    enum tile_kind kind;
    enum kern_dtype dtype;
    int64_t dim, rows;
    struct kern_tile t;
    struct kern_kv kv;
    float *x, *out;
    int64_t end[ROWS], ptr[ROWS + 1];
    int32_t list[ROWS * KEEP];
    int64_t n; /* blocks that any row sees, ... */
    int32_t block[N_BLOCKS];
    uint64_t mask[N_BLOCKS]; /* ... and which rows */
};

/* Lists of KEEP blocks, one for SHARE rows; a list is its neighbour's with one in ten blocks drawn anew. */
static void draw_lists(struct tile *a, int64_t lists)
{
    uint8_t in[N_BLOCKS] = {0};
    uint32_t s = 7;
    int64_t used = a->ptr[0] = 0;
    for (int64_t k = 0; k < KEEP; s = s * 1664525u + 1013904223u)
        if (!in[(s >> 8) % N_BLOCKS]) {
            in[(s >> 8) % N_BLOCKS] = 1;
            k++;
        }
    for (int64_t i = 0; i < lists; i++) {
        for (int64_t moved = 0; i && moved < KEEP / 10;) {
            uint32_t from, to;
            s = s * 1664525u + 1013904223u;
            from = (s >> 8) % N_BLOCKS;
            s = s * 1664525u + 1013904223u;
            to = (s >> 8) % N_BLOCKS;
            if (in[from] && !in[to]) {
                in[from] = 0;
                in[to] = 1;
                moved++;
            }
        }
        for (int32_t j = 0; j < N_BLOCKS; j++)
            if (in[j])
                a->list[used++] = j;
        a->ptr[i + 1] = used;
    }
}

static int tile_open(struct bench *b, void *arg)
{
    struct tile *a = arg;
    size_t bytes = kern_kv_bytes(a->dtype, a->dim, KEYS);
    a->kv = (struct kern_kv){.dim = a->dim, .dtype = a->dtype, .k = bench_bytes(bytes), .v = bench_bytes(bytes)};
    a->x = bench_numbers(KEYS * a->dim);
    a->out = bench_bytes((size_t)(ROWS * (a->dim + 2)) * sizeof(float));
    a->t = (struct kern_tile){.rows = a->rows, .dim = a->dim, .q = a->x, .end = a->end, .o = a->out, .share = SHARE};
    a->t.scratch = bench_bytes(kern_tile_scratch(a->rows, a->dim));
    if (!a->kv.k || !a->kv.v || !a->x || !a->out || !a->t.scratch)
        return ERR_NOMEM;
    a->t.m = a->out + ROWS * a->dim;
    a->t.l = a->t.m + ROWS;
    b->kern.kv_append(&a->kv, a->x, a->x, a->dim, KEYS);
    for (int r = 0; r < ROWS; r++)
        a->end[r] = KEYS;
    uint64_t sees[N_BLOCKS] = {0};
    draw_lists(a, a->rows / SHARE);
    for (int64_t i = 0; i < a->rows / SHARE; i++)
        for (int64_t j = a->ptr[i]; j < a->ptr[i + 1]; j++)
            sees[a->list[j]] |= (uint64_t)15 << (i * SHARE);
    for (int32_t j = 0; j < N_BLOCKS; j++)
        if (sees[j]) {
            a->block[a->n] = j;
            a->mask[a->n++] = sees[j];
        }
    return ERR_OK;
}

static void tile_close(void *arg)
{
    struct tile *a = arg;
    free(a->kv.k);
    free(a->kv.v);
    free(a->x);
    free(a->out);
    free(a->t.scratch);
}

static int tile_call(struct bench *b, void *arg)
{
    struct tile *a = arg;
    b->kern.tile_begin(&a->t);
    if (a->kind == DENSE)
        b->kern.tile_dense(&a->t, &a->kv, 0, N_BLOCKS);
    else if (a->kind == BLOCKS)
        b->kern.tile_blocks(&a->t, &a->kv, a->block, a->mask, a->n);
    else
        b->kern.tile_gather(&a->t, &a->kv, a->ptr, a->list);
    b->kern.tile_end(&a->t, NULL);
    return ERR_OK;
}

static int tile_row(struct bench *b, struct tile *a)
{
    static const char *const kind[] = {"dense", "blocks", "gather"};
    double pairs = (double)a->rows * (a->kind == DENSE ? KEYS : KEEP * KERN_KB);
    struct bench_work w = {.part = "kernel",
                           .dtype = multiplies(b, a->dtype),
                           .flops = b->ranks * 4 * pairs * (double)a->dim,
                           .one_thread = true,
                           .open = tile_open,
                           .call = tile_call,
                           .close = tile_close,
                           .arg = a};
    snprintf(w.name, sizeof w.name, "tile_%s %s d %lld, %lld row%s, %d keys, 1 thread", kind[a->kind],
             a->dtype == KERN_BF16 ? "bf16" : "f32", (long long)a->dim, (long long)a->rows, a->rows > 1 ? "s" : "",
             a->kind == DENSE ? KEYS : KEEP * KERN_KB);
    return bench_measure(b, &w);
}

static int tiles(struct bench *b, struct tile *a)
{
    int rc = ERR_OK;
    for (int t = 0; t < 2; t++)
        for (int64_t d = 64; b->o.dtype[t] && d <= (b->o.quick ? 64 : 128); d *= 2)
            for (int64_t rows = ROWS; rows >= 1; rows = rows > 16 ? rows / 4 : rows / 16)
                for (int kind = DENSE; !rc && kind <= (rows < SHARE ? DENSE : GATHER); kind++) {
                    *a = (struct tile){.kind = (enum tile_kind)kind, .dtype = (enum kern_dtype)t, .dim = d, .rows = rows};
                    rc = tile_row(b, a);
                }
    return rc;
}

/* ---- the dense method over a sequence: 12 heads of 64, as the 125M shape; and 32 over 4 key/value heads, as 1.1B ---- */

struct whole {
    struct attn_shape s;
    enum kern_dtype dtype;
    int64_t n;
    struct arena mem, step;
    struct kern_kv *kv;
    float *q, *k, *v, *out;
};

static size_t whole_bytes(const struct whole *a)
{
    size_t n = arena_bytes(a->s.kv_heads, sizeof(struct kern_kv)) + 2 * arena_bytes(a->n * a->s.heads * a->s.dim, sizeof(float)) +
               2 * arena_bytes(a->n * a->s.kv_heads * a->s.dim, sizeof(float));
    return n + 2 * (size_t)a->s.kv_heads * arena_bytes((int64_t)kern_kv_bytes(a->dtype, a->s.dim, a->n), 1);
}

static void fill(float *x, int64_t n)
{
    uint32_t s = 1;
    for (int64_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = 2 * ((float)(s >> 8) / 16777216.0F - 0.5F);
    }
}

static int whole_open(struct bench *b, void *arg)
{
    struct whole *a = arg;
    int64_t G = a->s.kv_heads, d = a->s.dim, q = a->n * a->s.heads * d, kv = a->n * G * d;
    int rc = arena_open(&a->mem, "attention", whole_bytes(a));
    if (!rc)
        rc = arena_open(&a->step, "step", attn_find("dense")->scratch(NULL, &a->s, a->n, a->n) + 4096);
    if (rc)
        return rc;
    a->kv = ARENA_NEW(&a->mem, G, struct kern_kv);
    a->q = ARENA_NEW(&a->mem, q, float);
    a->out = ARENA_NEW(&a->mem, q, float);
    a->k = ARENA_NEW(&a->mem, kv, float);
    a->v = ARENA_NEW(&a->mem, kv, float);
    if (!a->kv || !a->q || !a->out || !a->k || !a->v)
        return ERR_NOMEM;
    fill(a->q, q);
    fill(a->k, kv);
    fill(a->v, kv);
    for (int64_t g = 0; g < G; g++) {
        int64_t bytes = (int64_t)kern_kv_bytes(a->dtype, d, a->n);
        a->kv[g] = (struct kern_kv){.dim = d, .dtype = a->dtype, .k = arena_alloc(&a->mem, bytes, 1)};
        a->kv[g].v = arena_alloc(&a->mem, bytes, 1);
        if (!a->kv[g].k || !a->kv[g].v)
            return ERR_NOMEM;
        b->kern.kv_append(&a->kv[g], a->k + g * d, a->v + g * d, G * d, a->n);
    }
    return ERR_OK;
}

static void whole_close(void *arg)
{
    struct whole *a = arg;
    arena_close(&a->mem);
    arena_close(&a->step);
}

/* In chunks, as the engine runs it. */
static int whole_call(struct bench *b, void *arg)
{
    int64_t chunk = work_rows();
    struct whole *a = arg;
    int64_t q = a->s.heads * a->s.dim, kv = a->s.kv_heads * a->s.dim;
    int rc = ERR_OK;
    for (int64_t p = 0; !rc && p < a->n; p += chunk) {
        struct attn_call c = {.method = attn_find("dense"), .shape = &a->s, .kv = a->kv, .kern = &b->kern, .step = &a->step};
        c.pos = p;
        c.n = a->n - p < chunk ? a->n - p : chunk;
        c.q = a->q + p * q;
        c.k = a->k + p * kv;
        c.v = a->v + p * kv;
        c.out = a->out + p * q;
        rc = c.method->run(&c);
    }
    return rc;
}

static int whole_row(struct bench *b, int64_t heads, int64_t kv_heads, int64_t n, enum kern_dtype t)
{
    struct whole a = {.dtype = t, .n = n, .s = {.heads = heads, .kv_heads = kv_heads, .dim = 64, .hidden = heads * 64}};
    a.s.n_layers = 1;
    a.s.scale = 0.125F;
    double flops = 4 * (double)n * (double)(n + 1) / 2 * (double)(heads * 64);
    struct bench_work w = {
        .part = "kernel", .dtype = multiplies(b, t), .flops = b->ranks * flops, .open = whole_open, .call = whole_call};
    w.close = whole_close;
    w.arg = &a;
    w.about_s = flops / (t == KERN_BF16 ? 2e11 : 1.2e11);
    snprintf(w.name, sizeof w.name, "attention %s, %lld heads over %lld of 64, %lld tokens", t == KERN_BF16 ? "bf16" : "f32",
             (long long)heads, (long long)kv_heads, (long long)n);
    return bench_measure(b, &w);
}

int bench_tiles(struct bench *b)
{
    int64_t n = b->o.quick ? 1024 : 16384;
    struct tile *a = calloc(1, sizeof *a);
    int rc = a ? tiles(b, a) : err_set(ERR_NOMEM, "no memory to measure attention tiles");
    free(a);
    for (int t = 0; !rc && t < 2; t++)
        if (b->o.dtype[t]) {
            rc = whole_row(b, 12, 12, n, (enum kern_dtype)t);
            if (!rc && !b->o.quick)
                rc = whole_row(b, 32, 4, n / 2, (enum kern_dtype)t);
        }
    return rc;
}
