/* The whole engine on checkpoints: prefill by length, decoding one and sixteen sequences, with the memory accounted for. */
#include "bench/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "io/file.h"

int bench_model_open(struct bench_model *e, struct bench *b, const char *path, enum kern_dtype t)
{
    *e = (struct bench_model){.path = path, .dtype = t};
    int rc =
        b->dry
            ? model_peek(&e->info, path)
            : model_open(&e->m, &(struct model_open){.path = path, .kern = &b->kern, .dtype = t, .kv_dtype = t, .group = b->world});
    if (!rc && !b->dry)
        e->info = *model_info(e->m);
    return rc;
}

void bench_model_close(struct bench_model *e)
{
    model_close(e->m);
    e->m = NULL;
}

static const char *type_name(enum kern_dtype t)
{
    return t == KERN_BF16 ? "bf16" : "f32";
}

/* "folder, bf16, " */
static int label(const struct bench_model *e, char *to, size_t cap)
{
    return snprintf(to, cap, "%.24s %s ", file_base(e->path), type_name(e->dtype));
}

static int32_t *token_ids(int64_t n, int64_t vocab)
{
    int32_t *id = bench_bytes((size_t)n * sizeof *id);
    for (int64_t i = 0; id && i < n; i++)
        id[i] = (int32_t)(i * 7919 % vocab);
    return id;
}

/* ---- prefill ---- */

static int prefill_open(struct bench *b, void *arg)
{
    struct bench_prefill *p = arg;
    int64_t vocab = p->e->info.vocab;
    (void)b;
    p->id = token_ids(p->n, vocab);
    int rc = p->id ? ERR_OK : ERR_NOMEM;
    if (!rc)
        rc = arena_open(&p->step, "step", model_score_bytes(p->e->m, p->n, p->n, 1) + arena_bytes(vocab, sizeof(float)));
    if (!rc)
        p->logits = ARENA_NEW(&p->step, vocab, float);
    return rc ? rc : p->logits ? ERR_OK : ERR_NOMEM;
}

static void prefill_close(void *arg)
{
    struct bench_prefill *p = arg;
    free(p->id);
    arena_close(&p->step);
}

static int prefill_call(struct bench *b, void *arg)
{
    struct bench_prefill *p = arg;
    int64_t at[2] = {0, p->n}, row = p->n - 1;
    struct model_out out = {.logit_row = &row, .n_logit_rows = 1, .logits = p->logits, .timer = &p->timer};
    (void)b;
    p->calls++;
    return model_score(p->e->m, &(struct model_batch){.n_seq = 1, .at = at, .token = p->id}, &out, &p->step);
}

static void print_phases(const struct bench *b, const struct timer *t, int calls)
{
    fprintf(b->out, "    ");
    for (int i = 0; i < TIMER_PHASES; i++)
        if (t->s[i] > 0)
            fprintf(b->out, "%s %.3g ms  ", timer_phase_name((enum timer_phase)i), 1e3 * t->s[i] / calls);
}

/* Where the time went, and the memory: what was announced beside what the system saw. */
static void prefill_note(struct bench *b, void *arg)
{
    struct bench_prefill *p = arg;
    char weights[32], step[32], peak[32];
    if (!b->out)
        return;
    print_phases(b, &p->timer, p->calls);
    log_bytes((double)p->e->info.weight_bytes, weights, sizeof weights);
    log_bytes((double)model_score_bytes(p->e->m, p->n, p->n, 1), step, sizeof step);
    log_bytes((double)mem_peak(), peak, sizeof peak);
    fprintf(b->out, "| memory a rank: weights %s, step %s; peak of the process so far %s\n", weights, step, peak);
}

/* Useful operations: the linear layers, one row of the vocabulary, and attention over the keys that causality allows. */
static double prefill_flops(const struct model_info *i, int64_t n)
{
    double pairs = (double)n * (double)(n + 1) / 2 * (double)(i->heads * i->layers);
    return (double)n * i->flops_linear + i->flops_head + 4 * pairs * (double)i->dim;
}

void bench_prefill_work(struct bench_work *w, struct bench_prefill *p)
{
    double flops = prefill_flops(&p->e->info, p->n);
    *w = (struct bench_work){.part = "engine", .dtype = p->e->dtype, .flops = flops, .tokens = (double)p->n, .arg = p};
    w->about_s = flops / (p->e->dtype == KERN_BF16 ? 2.2e11 : 1.4e11);
    w->open = prefill_open;
    w->call = prefill_call;
    w->close = prefill_close;
    w->note = prefill_note;
    int at = label(p->e, w->name, sizeof w->name);
    snprintf(w->name + at, sizeof w->name - (size_t)at, "prefill %lld", (long long)p->n);
}

/* ---- decoding ---- */

static int feed(struct bench_decode *d, int64_t each, struct timer *timer)
{
    int64_t at[BENCH_BATCH + 1];
    for (int64_t s = 0; s <= d->n_seq; s++)
        at[s] = s * each;
    struct model_batch batch = {.n_seq = d->n_seq, .at = at, .token = d->id};
    return model_feed(d->e->m, d->cache, &batch, d->logits, timer, &d->step);
}

static int decode_open(struct bench *b, void *arg)
{
    struct bench_decode *d = arg;
    int64_t vocab = d->e->info.vocab, most = BENCH_CONTEXT + BENCH_STEPS, tokens = d->n_seq * BENCH_CONTEXT;
    (void)b;
    d->id = token_ids(tokens, vocab);
    int rc = d->id ? ERR_OK : ERR_NOMEM;
    if (!rc)
        rc = arena_open(&d->step, "step",
                        model_feed_bytes(d->e->m, tokens, most, d->n_seq) + arena_bytes(d->n_seq * vocab, sizeof(float)));
    for (int64_t s = 0; !rc && s < d->n_seq; s++)
        rc = model_cache_open(&d->cache[s], d->e->m, most);
    if (!rc)
        d->logits = ARENA_NEW(&d->step, d->n_seq * vocab, float);
    return rc ? rc : d->logits ? ERR_OK : ERR_NOMEM;
}

static void decode_close(void *arg)
{
    struct bench_decode *d = arg;
    for (int64_t s = 0; s < d->n_seq; s++)
        model_cache_close(d->cache[s]);
    free(d->id);
    arena_close(&d->step);
}

static int decode_ready(struct bench *b, void *arg)
{
    struct bench_decode *d = arg;
    (void)b;
    for (int64_t s = 0; s < d->n_seq; s++)
        model_cache_reset(d->cache[s]);
    return feed(d, BENCH_CONTEXT, NULL);
}

static int decode_call(struct bench *b, void *arg)
{
    struct bench_decode *d = arg;
    (void)b;
    d->calls++;
    return feed(d, 1, &d->timer);
}

static void decode_note(struct bench *b, void *arg)
{
    struct bench_decode *d = arg;
    if (!b->out)
        return;
    print_phases(b, &d->timer, d->calls);
    fprintf(b->out, "\n");
}

/* A step reads every weight once but for the embedding's other rows, and the keys and values of each sequence. */
void bench_decode_work(struct bench_work *w, struct bench_decode *d)
{
    const struct model_info *i = &d->e->info;
    double size = d->e->dtype == KERN_BF16 ? 2 : 4, n = (double)d->n_seq, keys = BENCH_CONTEXT + BENCH_STEPS / 2.0;
    double weights = (i->flops_linear + i->flops_head) / 2 * size;
    double kv = keys * 2 * (double)(i->layers * i->kv_heads * i->dim) * size;
    double pairs = keys * (double)(i->layers * i->heads);
    *w = (struct bench_work){.part = "engine", .dtype = d->e->dtype, .tokens = n, .arg = d};
    w->flops = n * (i->flops_linear + i->flops_head + 4 * pairs * (double)i->dim);
    w->bytes = weights + n * kv;
    w->set = 1e18;
    w->about_s = w->bytes / 2e10;
    w->most_calls = BENCH_STEPS;
    w->open = decode_open;
    w->ready = decode_ready;
    w->call = decode_call;
    w->close = decode_close;
    w->note = decode_note;
    int at = label(d->e, w->name, sizeof w->name);
    snprintf(w->name + at, sizeof w->name - (size_t)at, "decode, %lld sequence%s", (long long)d->n_seq, d->n_seq > 1 ? "s" : "");
}

/* ---- all of it ---- */

static int one_model(struct bench *b, const char *path, enum kern_dtype t)
{
    struct bench_model e;
    struct bench_work w;
    int rc = bench_model_open(&e, b, path, t);
    for (int i = 0; !rc && i < b->o.n_lengths; i++) {
        struct bench_prefill p = {.e = &e, .n = b->o.length[i]};
        if (e.info.context >= p.n) {
            bench_prefill_work(&w, &p);
            rc = bench_measure(b, &w);
        }
    }
    for (int64_t n = 1; !rc && n <= BENCH_BATCH; n *= BENCH_BATCH) {
        struct bench_decode d = {.e = &e, .n_seq = n};
        bench_decode_work(&w, &d);
        rc = bench_measure(b, &w);
    }
    bench_model_close(&e);
    return rc;
}

int bench_engine(struct bench *b)
{
    int rc = ERR_OK;
    for (int i = 0; i < b->o.n_models; i++)
        for (int t = 0; t < 2; t++)
            if (!rc && b->o.dtype[t])
                rc = one_model(b, b->o.model[i], (enum kern_dtype)t);
    return rc;
}
