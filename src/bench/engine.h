/* The engine's measurements, shared by the table and by the comparison with a peer. */
#ifndef AST_BENCH_ENGINE_H
#define AST_BENCH_ENGINE_H

#include "bench/bench.h"
#include "base/arena.h"
#include "base/timer.h"
#include "model/model.h"

struct bench_model {
    const char *path;
    enum kern_dtype dtype;
    struct model *m; /* NULL in a dry run */
    struct model_info info;
};

/* In a dry run only config.json is read. Collective. */
int bench_model_open(struct bench_model *e, struct bench *b, const char *path, enum kern_dtype t);
void bench_model_close(struct bench_model *e);

/* One pass over n tokens with the logits of the last one: no cache is kept. */
struct bench_prefill {
    struct bench_model *e;
    int64_t n;
    int32_t *id;
    struct arena step;
    float *logits;
    struct timer timer;
    int calls;
};
void bench_prefill_work(struct bench_work *w, struct bench_prefill *p); /* p: e and n given, the rest zeros */

/* One more token for each of n_seq sequences, at BENCH_CONTEXT tokens of context and up to BENCH_STEPS more. */
enum { BENCH_CONTEXT = 64, BENCH_STEPS = 32, BENCH_BATCH = 16 };
struct bench_decode {
    struct bench_model *e;
    int64_t n_seq; /* <= BENCH_BATCH */
    struct model_cache *cache[BENCH_BATCH];
    struct arena step;
    int32_t *id;
    float *logits;
    struct timer timer;
    int calls;
};
void bench_decode_work(struct bench_work *w, struct bench_decode *d);

#endif
