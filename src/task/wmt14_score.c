/* Scores of the wmt14 task, from per-sentence counts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "task/bleu.h"
#include "task/chrf.h"
#include "task/stats.h"
#include "task/wmt14.h"

static const struct bleu_opts bleu_default;
static const struct chrf_opts chrf_default;

enum metric { BLEU, CHRF, LENGTH, METRICS };
static const struct task_score form[METRICS] = {{.name = "bleu", .unit = "%", .higher_is_better = true},
                                                {.name = "chrf2", .unit = "%", .higher_is_better = true},
                                                {.name = "length_ratio", .unit = "1"}};

struct units {
    const struct task_acc *acc;
    const int64_t *kept; /* samples that there are */
    enum metric metric;
};

/* The corpus score of the sentences picked. */
static double corpus_score(const void *ctx, const int64_t *pick, int64_t n)
{
    const struct units *u = ctx;
    struct bleu_stat b = {{0}, {0}, 0, 0};
    struct chrf_stat c = {{0}, {0}, {0}};
    struct bleu out;
    for (int64_t i = 0; i < n; i++) {
        const int64_t *x = u->acc[u->kept[pick[i]]].n;
        for (int k = 0; k < 4; k++) {
            b.correct[k] += x[N_CORRECT + k];
            b.total[k] += x[N_TOTAL + k];
        }
        b.sys_len += x[N_HYP];
        b.ref_len += x[N_REF];
        for (int k = 0; k < CHRF_N; k++) {
            c.hyp[k] += x[N_CHRF + k];
            c.ref[k] += x[N_CHRF + CHRF_N + k];
            c.match[k] += x[N_CHRF + 2 * CHRF_N + k];
        }
    }
    if (u->metric == LENGTH)
        return b.ref_len > 0 ? (double)b.sys_len / (double)b.ref_len : (double)NAN;
    bleu_score(&out, &b, &bleu_default);
    return u->metric == CHRF ? chrf_score(&c, &chrf_default) : out.score;
}

struct pair_units {
    struct units a, b;
};

static double corpus_difference(const void *ctx, const int64_t *pick, int64_t n)
{
    const struct pair_units *p = ctx;
    return corpus_score(&p->b, pick, n) - corpus_score(&p->a, pick, n);
}

/* b NULL: scores of a; else differences b - a. */
static int score_all(const struct agree_of *of, struct task_score *out)
{
    const struct task_pair *pair = of->pair;
    int64_t n = 0, *kept = malloc(((size_t)of->n + 1) * sizeof *kept);
    int rc = kept ? ERR_OK : err_set(ERR_NOMEM, "out of memory for the scores of %lld sentences", (long long)of->n);
    for (int64_t i = 0; i < of->n && rc == ERR_OK; i++)
        if (!of->missing || !of->missing[i])
            kept[n++] = i;
    for (int k = 0; k < METRICS && rc == ERR_OK; k++) {
        struct stats_plan plan = {.n = n, .replicates = 1000, .seed = of->seed};
        struct stats_result r;
        struct pair_units u = {{pair->a, kept, (enum metric)k}, {pair->b, kept, (enum metric)k}};
        rc = pair->b ? stats_bootstrap(&r, &plan, corpus_difference, &u) : stats_bootstrap(&r, &plan, corpus_score, &u.a);
        out[k] = form[k];
        out[k].value = r.value;
        out[k].lo = r.lo;
        out[k].hi = r.hi;
    }
    free(kept);
    int more = rc ? rc : agree_score(of, out + METRICS);
    return more < 0 ? more : METRICS + more;
}

int wmt14_score(const struct task_set *set, const struct task_acc *acc, const bool *missing, uint64_t seed, struct task_score *out)
{
    return score_all(&(struct agree_of){&wmt14_agree, &(struct task_pair){acc, NULL}, missing, set->n, seed}, out);
}

int wmt14_compare(const struct task_set *set, const struct task_pair *pair, const bool *missing, uint64_t seed,
                  struct task_score *out)
{
    return score_all(&(struct agree_of){&wmt14_agree, pair, missing, set->n, seed}, out);
}
