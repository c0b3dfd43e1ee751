/* Decoding behind a long context: dense attention against AST, in turn, one sequence.
 *   usage: bench_decode MODEL [context = 16384] [kept = 1024] [f32 | bf16 = bf16]
 * Each method fills a cache of its own with the same tokens; then rounds of 16 tokens by turns, of which medians are printed:
 * the whole step, its attention (choosing keys included), and keys read. Decoding of short contexts against the measured
 * bandwidth: asterism bench. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"
#include "cfg/cfg.h"
#include "model/model.h"

enum { ROUNDS = 9, TOKENS = 16, CHUNK = 1024 };

struct side {
    const struct attn_method *method;
    struct cfg *cfg; /* owns lists in opts */
    struct model_cache *cache;
    max_align_t opts[64];
    struct attn_stats *stats;
    double whole[ROUNDS], attention[ROUNDS]; /* seconds a token */
};

static void check(int rc)
{
    if (rc) {
        fprintf(stderr, "bench_decode: %s\n", err_text());
        exit(1);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *x)
{
    qsort(x, ROUNDS, sizeof *x, by_value);
    return x[ROUNDS / 2];
}

static void feed(struct model *m, struct side *s, const int32_t *token, int64_t n, struct timer *timer, struct arena *step)
{
    const int64_t at[2] = {0, n};
    size_t mark = arena_mark(step);
    float *logits = ARENA_NEW(step, model_info(m)->vocab, float);
    struct model_out out = {.logits = logits, .timer = timer, .stats = s->stats};
    check(model_set_attention(m, s->method, s->opts, NULL));
    check(model_advance(m, &s->cache, &(struct model_batch){.n_seq = 1, .at = at, .token = token}, &out, step));
    arena_release(step, mark);
}

static void one_round(struct model *m, struct side *s, int round, const int32_t *token, struct arena *step)
{
    struct timer timer = {{0}};
    double t0 = timer_now();
    for (int i = 0; i < TOKENS; i++)
        feed(m, s, token + i, 1, &timer, step);
    s->whole[round] = (timer_now() - t0) / TOKENS;
    s->attention[round] = timer.s[TIMER_ATTN] / TOKENS;
}

static void open_side(struct side *s, const char *method, const char *keep, struct model *m, int64_t context)
{
    s->method = attn_find(method);
    check(cfg_open(&s->cfg, NULL, &keep, s->method->fields != NULL));
    if (s->method->fields)
        check(cfg_load(s->cfg, "", s->method->fields, s->opts));
    check(model_set_attention(m, s->method, s->opts, NULL));
    check(model_cache_open(&s->cache, m, context + (ROUNDS + 1) * TOKENS));
    s->stats = calloc((size_t)model_info(m)->layers, sizeof *s->stats);
}

static double keys_read(const struct side *s, int64_t layers)
{
    double seen = 0, causal = 0;
    for (int64_t l = 0; l < layers; l++) {
        seen += s->stats[l].pairs_seen;
        causal += s->stats[l].pairs_causal;
    }
    return seen / causal;
}

int main(int argc, char **argv)
{
    int64_t context = argc > 2 ? atoll(argv[2]) : 16384, keep = argc > 3 ? atoll(argv[3]) : 1024;
    enum kern_dtype t = argc > 4 && !strcmp(argv[4], "f32") ? KERN_F32 : KERN_BF16;
    struct kern_table kern;
    struct model *m = NULL;
    struct arena step;
    static struct side side[2];
    char option[32];
    if (argc < 2 || context < 1 || keep < 1) {
        fprintf(stderr, "usage: bench_decode MODEL [context] [kept] [f32 | bf16]\n");
        return 2;
    }
    if (kern_select(&kern, NULL))
        return 1;
    check(model_open(&m, &(struct model_open){.path = argv[1], .dtype = t, .kv_dtype = t, .kern = &kern}));
    snprintf(option, sizeof option, "keep=%lld", (long long)keep);
    open_side(&side[0], "dense", option, m, context);
    open_side(&side[1], "ast", option, m, context);
    check(arena_open(&step, "step", (size_t)4 << 30));
    int64_t n = context + (ROUNDS + 1) * TOKENS, layers = model_info(m)->layers;
    int32_t *token = calloc((size_t)n, sizeof *token);
    for (int64_t i = 0; i < n; i++)
        token[i] = (int32_t)((i * 7919 + i / 97 * 31 + 13) % model_info(m)->vocab);
    for (int k = 0; k < 2; k++)
        for (int64_t at = 0; at < context; at += CHUNK)
            feed(m, &side[k], token + at, context - at < CHUNK ? context - at : CHUNK, NULL, &step);
    for (int r = 0; r <= ROUNDS; r++) /* the first one warms up */
        for (int k = 0; k < 2; k++) {
            if (r == 1)
                memset(side[k].stats, 0, (size_t)layers * sizeof *side[k].stats);
            one_round(m, &side[k], r ? r - 1 : 0, token + context + r * TOKENS, &step);
        }
    printf("%s, %s, %s, %d threads, %lld tokens of context, ast keeps %lld\n", argv[1], t == KERN_BF16 ? "bf16" : "f32", kern.isa,
           omp_get_max_threads(), (long long)context, (long long)keep);
    for (int k = 0; k < 2; k++) {
        printf("%-6s %8.3f ms a token (%.1f token/s), attention %8.3f ms, keys read %.1f %%\n", side[k].method->name,
               1e3 * median(side[k].whole), 1 / median(side[k].whole), 1e3 * median(side[k].attention),
               100 * keys_read(&side[k], layers));
    }
    printf("attention: dense takes %.2f times as long; the whole step %.2f times\n",
           median(side[0].attention) / median(side[1].attention), median(side[0].whole) / median(side[1].whole));
    for (int k = 0; k < 2; k++) {
        model_cache_close(side[k].cache);
        free(side[k].stats);
        cfg_close(side[k].cfg);
    }
    free(token);
    model_close(m);
    arena_close(&step);
    return 0;
}
