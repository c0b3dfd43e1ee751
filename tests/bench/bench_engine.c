/* Prefill of the embedded model and, where it is, asterism-M: tokens a second at three lengths, the share of this
 * machine's measured peak of multiply-adds, where the time went, and the memory of a window. Median of RUNS.
 *   usage: bench_engine [MODEL FOLDER...] */
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/timer.h"
#include "io/file.h"
#include "kernels/linear.h"
#include "kernels/peak.h"
#include "model/model.h"

enum { RUNS = 5, LENGTHS = 3, LONGEST = 8192 };
static const int64_t lengths[LENGTHS] = {512, 2048, LONGEST};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Useful operations: the linear layers, one row of the vocabulary, and attention over the keys that causality allows. */
static double flops(const struct model_info *i, int64_t n)
{
    double pairs = (double)n * (double)(n + 1) / 2 * (double)(i->heads * i->layers);
    return (double)n * i->flops_linear + i->flops_head + 4 * pairs * (double)i->dim;
}

/* Seconds of each run, ascending; phases of all runs are added to tm. */
static int prefill(struct model *m, const int32_t *ids, int64_t n, double s[RUNS], struct timer *tm)
{
    struct arena step = {0};
    int64_t at[2] = {0, n}, row = n - 1;
    int rc = arena_open(&step, "step", model_score_bytes(m, n, n, 1) + arena_bytes(model_info(m)->vocab, sizeof(float)));
    float *logits = rc ? NULL : ARENA_NEW(&step, model_info(m)->vocab, float);
    for (int r = -1; !rc && logits && r < RUNS; r++) { /* the first one warms up */
        struct model_out out = {.logit_row = &row, .n_logit_rows = 1, .logits = logits, .timer = r < 0 ? NULL : tm};
        double t0 = timer_now();
        rc = model_score(m, &(struct model_batch){.n_seq = 1, .at = at, .token = ids}, &out, &step);
        if (r >= 0)
            s[r] = timer_now() - t0;
    }
    arena_close(&step);
    qsort(s, RUNS, sizeof *s, by_value);
    return rc ? rc : logits ? ERR_OK : ERR_NOMEM;
}

static int bench_length(struct model *m, const struct kern_table *k, const int32_t *ids, int64_t n)
{
    const struct model_info *i = model_info(m);
    double s[RUNS], peak = kern_peak_flops(k, i->dtype, 0.3);
    struct timer tm = {0};
    char bytes[32];
    int rc = prefill(m, ids, n, s, &tm);
    if (rc)
        return rc;
    log_bytes((double)model_score_bytes(m, n, n, 1), bytes, sizeof bytes);
    printf("  %6lld tokens  %8.0f tokens/s  %6.1f GFLOP/s  %.2f of peak %.0f  activations, keys, values %s  |", (long long)n,
           (double)n / s[RUNS / 2], flops(i, n) / s[RUNS / 2] / 1e9, flops(i, n) / s[RUNS / 2] / peak, peak / 1e9, bytes);
    for (int p = 0; p < TIMER_PHASES; p++)
        if (tm.s[p] > 0)
            printf(" %s %.0f ms", timer_phase_name((enum timer_phase)p), 1e3 * tm.s[p] / RUNS);
    printf("\n");
    return ERR_OK;
}

static int bench_model(const char *path, const struct kern_table *k, enum kern_dtype t)
{
    static int32_t ids[LONGEST];
    struct model *m = NULL;
    char weights[32], peak[32];
    int rc = model_open(&m, &(struct model_open){.path = path, .kern = k, .dtype = t, .kv_dtype = t});
    if (rc)
        return rc;
    for (int64_t i = 0; i < LONGEST; i++)
        ids[i] = (int32_t)(i * 7919 % model_info(m)->vocab);
    log_bytes((double)model_info(m)->weight_bytes, weights, sizeof weights);
    printf("%s, %s (%s), weights %s\n", path, t == KERN_F32 ? "f32" : "bf16", k->isa, weights);
    for (int i = 0; !rc && i < LENGTHS && lengths[i] <= model_info(m)->context; i++)
        rc = bench_length(m, k, ids, lengths[i]);
    log_bytes((double)mem_peak(), peak, sizeof peak);
    printf("  peak of the process so far %s\n", peak);
    model_close(m);
    return rc;
}

int main(int argc, char **argv)
{
    static const char *const usual[] = {"data/asterism-S", "../shared/models/asterism-M"};
    struct kern_table k;
    int n = argc > 1 ? argc - 1 : 2, rc = ERR_OK;
    if (kern_select(&k, NULL)) {
        fprintf(stderr, "AST_ISA names an instruction set that is not known or cannot run here\n");
        return 1;
    }
    printf("%s\n", kern_blas_info());
    for (int i = 0; !rc && i < n; i++) {
        const char *path = argc > 1 ? argv[i + 1] : usual[i];
        if (!file_is_folder(path)) {
            printf("%s: skipped, the folder is not here\n", path);
            continue;
        }
        rc = bench_model(path, &k, KERN_F32);
        if (!rc)
            rc = bench_model(path, &k, KERN_BF16);
    }
    if (rc)
        fprintf(stderr, "%s\n", err_text());
    return rc != ERR_OK;
}
