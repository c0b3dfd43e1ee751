/* Whole-model prefill, dense against AST (untrained gate), by length: tokens a second, share of attention, memory of a
 * step, and fitted exponents of time against length. The text is WikiText's where it is, else token ids by a formula.
 * Times are processor time of all threads (those that wait sleep: OMP_WAIT_POLICY=passive), the least of some runs in turn.
 *   usage: bench_ast [MODEL FOLDER = ../shared/models/asterism-M] [longest = 32768] [kept = 1024] [shortest = 256] */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "kernels/linear.h"
#include "model/model.h"
#include "text/tok.h"

static const char text[] = "../shared/data/eval/wiki.test.tokens";

static int read_ids(const char *model, int64_t vocab, int32_t *ids, int64_t n)
{
    struct tok *tok = NULL;
    struct tok_ids out = {0};
    struct buf b = {0};
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)(i * 7919 % vocab);
    bool real = !buf_read_file(&b, text, 0) && !tok_open(&tok, model) &&
                !tok_encode(tok, buf_text(&b), b.len < (size_t)(8 * n) ? b.len : (size_t)(8 * n), false, &out);
    for (int64_t i = 0; real && i < n && i < out.n; i++)
        ids[i] = out.v[i];
    err_clear();
    tok_ids_free(&out);
    tok_close(tok);
    buf_free(&b);
    return real;
}

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct took {
    double cpu, attn; /* processor seconds; share of the clock's seconds in attention */
};

/* A prefill that ends in the last token's logits; *best is replaced if this one was faster. */
static int prefill(struct model *m, const int32_t *ids, int64_t n, struct took *best)
{
    struct arena step = {0};
    int64_t at[2] = {0, n}, row = n - 1;
    int rc = arena_open(&step, "step", model_score_bytes(m, n, n, 1) + arena_bytes(model_info(m)->vocab, sizeof(float)));
    float *logits = rc ? NULL : ARENA_NEW(&step, model_info(m)->vocab, float);
    if (!rc) {
        struct timer tm = {{0}};
        struct model_out out = {.logit_row = &row, .n_logit_rows = 1, .logits = logits, .timer = &tm};
        double cpu = cpu_now(), wall = timer_now();
        rc = model_score(m, &(struct model_batch){.n_seq = 1, .at = at, .token = ids}, &out, &step);
        cpu = cpu_now() - cpu;
        if (cpu < best->cpu)
            *best = (struct took){cpu, tm.s[TIMER_ATTN] / (timer_now() - wall)};
    }
    arena_close(&step);
    return rc;
}

static void table(struct model *m, const int32_t *ids, int64_t n[2], const struct sparse_opts *o)
{
    double last[2] = {0};
    int threads = omp_get_max_threads();
    printf("%8s %12s %12s %7s %14s %14s %12s %16s\n", "tokens", "dense tok/s", "ast tok/s", "ratio", "dense in attn", "ast in attn",
           "step memory", "exponents");
    for (int64_t len = n[0]; len <= n[1]; len *= 2) {
        struct took t[2] = {{HUGE_VAL, 0}, {HUGE_VAL, 0}};
        char bytes[32], grows[32] = "";
        for (int i = 0; i < 2 * (len <= 1024 ? 12 : len <= 4096 ? 3 : len < 16384 ? 2 : 1); i++)
            if (model_set_attention(m, i % 2 ? &attn_ast : attn_find("dense"), i % 2 ? o : NULL, NULL) ||
                prefill(m, ids, len, &t[i % 2])) {
                fprintf(stderr, "bench_ast: %s\n", err_text());
                exit(1);
            }
        double s[2] = {t[0].cpu / threads, t[1].cpu / threads};
        log_bytes((double)model_score_bytes(m, len, len, 1), bytes, sizeof bytes);
        if (last[0] > 0) /* seconds ~ tokens^x, from the length before to this one */
            snprintf(grows, sizeof grows, "%.2f, %.2f", log2(s[0] / last[0]), log2(s[1] / last[1]));
        printf("%8lld %12.0f %12.0f %7.3f %13.0f%% %13.0f%% %12s %16s\n", (long long)len, (double)len / s[0], (double)len / s[1],
               s[0] / s[1], 100 * t[0].attn, 100 * t[1].attn, bytes, grows);
        fflush(stdout);
        last[0] = s[0], last[1] = s[1];
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "../shared/models/asterism-M";
    int64_t longest = argc > 2 ? atoll(argv[2]) : 32768, n[2] = {argc > 4 ? atoll(argv[4]) : 256, longest};
    struct sparse_opts o = {0};
    struct kern_table k;
    struct model *m = NULL;
    if (kern_select(&k, NULL) || cfg_defaults(attn_ast.fields, &o) || n[0] < 16 || longest < n[0] || longest > 1 << 20)
        return 2;
    o.keep = argc > 3 ? atoll(argv[3]) : 1024;
    if (model_open(&m, &(struct model_open){.path = path, .kern = &k, .dtype = KERN_F32, .kv_dtype = KERN_F32})) {
        fprintf(stderr, "bench_ast: %s: skipped\n", err_text());
        return 0;
    }
    int32_t *ids = malloc((size_t)longest * sizeof *ids);
    if (!ids)
        return 1;
    int real = read_ids(path, model_info(m)->vocab, ids, longest);
    printf("%s, f32, %s, %s, %s, %lld tokens kept, blocks of %lld\n", path, k.isa, kern_blas_info(),
           real ? "WikiText" : "made-up ids", (long long)o.keep, (long long)o.block);
    table(m, ids, n, &o);
    free(ids);
    model_close(m);
    return 0;
}
