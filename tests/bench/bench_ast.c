/* Whole-model prefill, dense against AST (untrained gate), by length: tokens a second, share of attention, memory of a
 * step, and fitted exponents of time against length. The text is WikiText's where it is, else token ids by a formula.
 *   usage: bench_ast [MODEL FOLDER = ../shared/models/asterism-M] [longest = 32768] [kept = 1024] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

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

/* Seconds of a prefill that ends in the last token's logits; *attn: of which attention. The better of two below 16k. */
static double prefill(struct model *m, const int32_t *ids, int64_t n, double *attn)
{
    struct arena step = {0};
    int64_t at[2] = {0, n}, row = n - 1;
    double best = HUGE_VAL;
    int rc = arena_open(&step, "step", model_score_bytes(m, n, n, 1) + arena_bytes(model_info(m)->vocab, sizeof(float)));
    float *logits = rc ? NULL : ARENA_NEW(&step, model_info(m)->vocab, float);
    for (int r = 0; !rc && r < (n < 16384 ? 2 : 1); r++) {
        struct timer tm = {{0}};
        struct model_out out = {.logit_row = &row, .n_logit_rows = 1, .logits = logits, .timer = &tm};
        double t0 = timer_now();
        rc = model_score(m, &(struct model_batch){.n_seq = 1, .at = at, .token = ids}, &out, &step);
        if (timer_now() - t0 < best) {
            best = timer_now() - t0;
            *attn = tm.s[TIMER_ATTN];
        }
    }
    arena_close(&step);
    if (rc) {
        fprintf(stderr, "bench_ast: %s\n", err_text());
        exit(1);
    }
    return best;
}

static void table(struct model *m, const int32_t *ids, int64_t longest, const struct sparse_opts *o)
{
    double last[2] = {0};
    printf("%8s %12s %12s %7s %14s %14s %12s %16s\n", "tokens", "dense tok/s", "ast tok/s", "ratio", "dense in attn", "ast in attn",
           "step memory", "exponents");
    for (int64_t n = 1024; n <= longest; n *= 2) {
        double s[2], attn[2];
        char bytes[32], grows[32] = "";
        for (int ast = 0; ast < 2; ast++) {
            if (model_set_attention(m, ast ? &attn_ast : attn_find("dense"), ast ? o : NULL, NULL)) {
                fprintf(stderr, "bench_ast: %s\n", err_text());
                exit(1);
            }
            s[ast] = prefill(m, ids, n, &attn[ast]);
        }
        log_bytes((double)model_score_bytes(m, n, n, 1), bytes, sizeof bytes);
        if (last[0] > 0) /* seconds ~ tokens^x, from the length before to this one */
            snprintf(grows, sizeof grows, "%.2f, %.2f", log2(s[0] / last[0]), log2(s[1] / last[1]));
        printf("%8lld %12.0f %12.0f %7.2f %13.0f%% %13.0f%% %12s %16s\n", (long long)n, (double)n / s[0], (double)n / s[1],
               s[0] / s[1], 100 * attn[0] / s[0], 100 * attn[1] / s[1], bytes, grows);
        fflush(stdout);
        last[0] = s[0], last[1] = s[1];
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "../shared/models/asterism-M";
    int64_t longest = argc > 2 ? atoll(argv[2]) : 32768;
    struct sparse_opts o = {0};
    struct kern_table k;
    struct model *m = NULL;
    if (kern_select(&k, NULL) || cfg_defaults(attn_ast.fields, &o) || longest < 1024 || longest > 1 << 20)
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
    table(m, ids, longest, &o);
    free(ids);
    model_close(m);
    return 0;
}
