/* asterism speed: one model on the ranks of one tensor-parallel group: time a token and where it goes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "kernels/linear.h"
#include "model/model.h"

static int run(int argc, char **argv);

const struct app_command app_speed = {
    .name = "speed",
    .brief = "time a token of a model, tensor parallel over the ranks of mpirun, and the share of its all-reduces",
    .usage = "usage: [mpirun -np T] asterism speed -m DIR [options]\n\n"
             "Cuts the model over all T ranks (they form one worker group, as `run.tensor = T` does), scores a prompt and then\n"
             "decodes token by token, with dense attention. tests/bench/scaling.sh makes a table over T.\n\n"
             "  -m DIR         Hugging Face model folder\n"
             "  --tokens N     tokens of the prompt (default 512)\n"
             "  --new N        tokens that are decoded after it (default 16)\n"
             "  --runs N       median of N runs (default 3)\n"
             "  --threads N    OpenMP threads a rank (default 1)\n"
             "  --dtype T      weights, keys and values in memory: bf16 (default) or f32\n"
             "  --share S      yes: weights in memory that processes of this machine share, as `run.share_weights`; no (default)\n",
    .run = run,
};

struct options {
    const char *model;
    long tokens, new_tokens, runs, threads;
    enum kern_dtype dtype;
    bool share;
};

enum { RUNS_MAX = 101 };

struct bench {
    const struct options *o;
    const struct comm_group *world;
    struct model *m;
    struct arena step;
    int32_t *token; /* (tokens,) */
    float *logits;  /* (vocab,) */
};

struct figure { /* of one phase: prompt or decoding */
    double seconds[RUNS_MAX];
    struct timer timer;
    double busy_s; /* all runs together */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int read_number(const char *option, const char *text, long min, long max, long *out)
{
    char *end;
    *out = strtol(text, &end, 10);
    if (end == text || *end || *out < min || *out > max)
        return app_usage(&app_speed, "%s %s: a whole number from %ld to %ld is needed", option, text, min, max);
    return APP_OK;
}

static int read_options(struct options *o, int argc, char **argv)
{
    *o = (struct options){.tokens = 512, .new_tokens = 16, .runs = 3, .threads = 1, .dtype = KERN_BF16};
    for (int i = 1; i < argc; i += 2) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        int bad = APP_OK;
        if (!v)
            return app_usage(&app_speed, "option '%s' needs a value", a);
        if (!strcmp(a, "-m") || !strcmp(a, "--model"))
            o->model = v;
        else if (!strcmp(a, "--tokens"))
            bad = read_number(a, v, 1, 1 << 20, &o->tokens);
        else if (!strcmp(a, "--new"))
            bad = read_number(a, v, 0, 1 << 20, &o->new_tokens);
        else if (!strcmp(a, "--runs"))
            bad = read_number(a, v, 1, RUNS_MAX, &o->runs);
        else if (!strcmp(a, "--threads"))
            bad = read_number(a, v, 1, 4096, &o->threads);
        else if (!strcmp(a, "--dtype") && (!strcmp(v, "f32") || !strcmp(v, "bf16")))
            o->dtype = !strcmp(v, "f32") ? KERN_F32 : KERN_BF16;
        else if (!strcmp(a, "--share") && (!strcmp(v, "yes") || !strcmp(v, "no")))
            o->share = !strcmp(v, "yes");
        else
            return app_usage(&app_speed, "unknown option or value '%s %s'", a, v);
        if (bad)
            return bad;
    }
    return o->model ? APP_OK : app_usage(&app_speed, "which model? -m DIR");
}

/* The prompt from scratch, the last row's logits. Collective. */
static int prompt(struct bench *b, struct figure *f, int run)
{
    int64_t at[2] = {0, b->o->tokens}, row = b->o->tokens - 1;
    struct model_out out = {.logit_row = &row, .n_logit_rows = 1, .logits = b->logits, .timer = run < 0 ? NULL : &f->timer};
    comm_barrier(b->world);
    double t0 = timer_now();
    int rc = model_score(b->m, &(struct model_batch){.n_seq = 1, .at = at, .token = b->token}, &out, &b->step);
    if (run >= 0)
        f->busy_s += f->seconds[run] = timer_now() - t0;
    return rc;
}

/* New tokens after the prompt, one a feed; the prompt's own feed is not counted. Collective. */
static int decode(struct bench *b, struct figure *f, int run)
{
    struct model_cache *cache = NULL;
    int64_t at[2] = {0, b->o->tokens};
    int rc = comm_agree(b->world, model_cache_open(&cache, b->m, b->o->tokens + b->o->new_tokens));
    if (!rc)
        rc = model_feed(b->m, &cache, &(struct model_batch){.n_seq = 1, .at = at, .token = b->token}, b->logits, NULL, &b->step);
    at[1] = 1;
    comm_barrier(b->world);
    double t0 = timer_now();
    for (long i = 0; !rc && i < b->o->new_tokens; i++) {
        struct model_batch one = {.n_seq = 1, .at = at, .token = &b->token[i % b->o->tokens]};
        rc = model_feed(b->m, &cache, &one, b->logits, run < 0 ? NULL : &f->timer, &b->step);
    }
    if (run >= 0)
        f->busy_s += f->seconds[run] = timer_now() - t0;
    model_cache_close(cache);
    return rc;
}

/* Shares of the time, over all ranks; the least of them waits least: its all-reduces are nearly transfer alone. */
static void print_figure(const struct bench *b, const char *what, const struct figure *f, long tokens)
{
    double share[TIMER_PHASES], least = -f->timer.s[TIMER_COMM] / f->busy_s, s;
    struct figure sorted = *f;
    for (int p = 0; p < TIMER_PHASES; p++)
        share[p] = f->timer.s[p] / f->busy_s;
    comm_sum_f64(b->world, share, TIMER_PHASES);
    comm_max_f64(b->world, &least, 1);
    qsort(sorted.seconds, (size_t)b->o->runs, sizeof(double), by_value);
    s = sorted.seconds[b->o->runs / 2];
    if (b->world->rank != 0)
        return;
    double n = b->world->size / 100.0;
    printf("%-7s %6d %7ld %6ld %10.3f %10.1f %10.1f %10.1f %8.1f %8.1f %8.1f\n", what, b->world->size, b->o->threads, tokens,
           1e3 * s / (double)tokens, (double)tokens / s, share[TIMER_COMM] / n, -100 * least, share[TIMER_LINEAR] / n,
           share[TIMER_ATTN] / n, share[TIMER_HEAD] / n);
}

static int measure(struct bench *b)
{
    static struct figure score, feed;
    int64_t vocab = model_info(b->m)->vocab, longest = b->o->tokens + b->o->new_tokens;
    size_t bytes = model_score_bytes(b->m, b->o->tokens, b->o->tokens, 1), more = model_feed_bytes(b->m, b->o->tokens, longest, 1);
    int rc =
        arena_open(&b->step, "step",
                   (more > bytes ? more : bytes) + arena_bytes(vocab, sizeof(float)) + arena_bytes(b->o->tokens, sizeof(int32_t)));
    if (!rc) {
        b->token = ARENA_NEW(&b->step, b->o->tokens, int32_t);
        b->logits = ARENA_NEW(&b->step, vocab, float);
    }
    rc = comm_agree(b->world, !rc && (!b->token || !b->logits) ? ERR_NOMEM : rc);
    for (long i = 0; !rc && i < b->o->tokens; i++)
        b->token[i] = (int32_t)(i * 7919 % vocab);
    for (int r = -1; !rc && r < b->o->runs; r++) { /* the first one warms up */
        rc = prompt(b, &score, r);
        if (!rc && b->o->new_tokens > 0)
            rc = decode(b, &feed, r);
    }
    if (rc)
        return rc;
    if (b->world->rank == 0)
        printf("%-7s %6s %7s %6s %10s %10s %10s %10s %8s %8s %8s\n", "phase", "ranks", "threads", "tokens", "ms/token", "tokens/s",
               "all-red. %", "least %", "linear %", "attn. %", "head %");
    print_figure(b, "prefill", &score, b->o->tokens);
    if (b->o->new_tokens > 0)
        print_figure(b, "decode", &feed, b->o->new_tokens);
    return ERR_OK;
}

static int run(int argc, char **argv)
{
    struct options o;
    struct comm_group *world = NULL;
    struct kern_table kern;
    struct bench b = {.o = &o};
    int bad = read_options(&o, argc, argv), rc;
    if (bad)
        return bad;
    rc = comm_start(&argc, &argv, &world);
    if (rc)
        return app_fail(rc);
    b.world = world;
    rc = kern_select(&kern, NULL) ? err_set(ERR_ARG, "the instruction set of AST_ISA is not known or cannot run on this CPU")
                                  : ERR_OK;
    kern_threads((int)o.threads);
    rc = comm_agree(world, rc);
    if (!rc)
        rc = model_open(
            &b.m, &(struct model_open){
                      .path = o.model, .dtype = o.dtype, .kv_dtype = o.dtype, .group = world, .kern = &kern, .share = o.share});
    if (!rc)
        rc = measure(&b);
    arena_close(&b.step);
    model_close(b.m);
    rc = app_fail(rc);
    comm_stop();
    return rc;
}
