/* Scores of the wikitext task, from per-window counts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "task/stats.h"
#include "task/wikitext.h"

enum { REPLICATES = 1000 };

/* One row a unit of the bootstrap: a document or a window. */
struct units {
    int64_t n;
    double *col[8]; /* nll, nll2, tokens, top1, words, bytes, same, kl */
    double *memory;
    double hf_nll, hf_tokens;
};
enum { U_NLL, U_NLL2, U_TOKENS, U_TOP1, U_WORDS, U_BYTES, U_SAME, U_KL, U_COLS };

static bool unit_missing(const bool *missing, int64_t begin, int64_t end)
{
    bool any = false;
    for (int64_t i = begin; i < end; i++)
        any = any || (missing && missing[i]);
    return any;
}

/* A unit with a missing window is left out whole: a part of a document has no words of its own. */
static int gather(struct units *u, const struct task_set *set, const struct task_acc *acc, const bool *missing)
{
    int64_t n = set->windows.n;
    *u = (struct units){.memory = calloc((size_t)n * U_COLS + 1, sizeof(double))};
    if (!u->memory)
        return err_set(ERR_NOMEM, "out of memory for the scores of %lld windows", (long long)n);
    for (int c = 0; c < U_COLS; c++)
        u->col[c] = u->memory + c * n;
    for (int64_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && set->windows.v[end].doc == set->windows.v[begin].doc;)
            end++;
        if (unit_missing(missing, begin, end))
            continue;
        for (int64_t i = begin; i < end; i++) {
            u->col[U_NLL][u->n] += acc[i].s[PPL_NLL];
            u->col[U_NLL2][u->n] += acc[i].s[PPL_NLL2];
            u->col[U_TOKENS][u->n] += (double)acc[i].n[PPL_TOKENS];
            u->col[U_TOP1][u->n] += (double)acc[i].n[PPL_TOP1];
            u->col[U_WORDS][u->n] += (double)acc[i].n[PPL_WORDS];
            u->col[U_BYTES][u->n] += (double)acc[i].n[PPL_BYTES];
            u->col[U_SAME][u->n] += 100 * (double)acc[i].n[PPL_SAME];
            u->col[U_KL][u->n] += acc[i].s[PPL_KL];
            u->hf_nll += acc[i].s[PPL_HF_NLL];
            u->hf_tokens += (double)acc[i].n[PPL_HF_TOKENS];
        }
        u->n++;
    }
    /* A stream has no words of its own for each window: nll a word = nll a token x tokens a word of the whole text. */
    if (set->protocol != PPL_LM_EVAL) {
        double tokens = (double)set->corpus->ids.n;
        for (int64_t i = 0; i < u->n; i++) {
            u->col[U_WORDS][i] = u->col[U_TOKENS][i] / tokens * (double)set->corpus->total_words;
            u->col[U_BYTES][i] = u->col[U_TOKENS][i] / tokens * (double)set->corpus->total_bytes;
        }
    }
    return ERR_OK;
}

struct scores {
    struct task_score *v;
    int n;
    uint64_t seed;
};

static struct task_score *add(struct scores *s, const char *name, double value, const char *unit, bool up)
{
    AST_ASSERT(s->n < TASK_SCORES);
    struct task_score *x = &s->v[s->n++];
    *x = (struct task_score){.value = value, .lo = (double)NAN, .hi = (double)NAN, .higher_is_better = up};
    snprintf(x->name, sizeof x->name, "%s", name);
    snprintf(x->unit, sizeof x->unit, "%s", unit);
    return x;
}

/* num / den over the units, mapped, with its interval. */
static int add_ratio(struct scores *s, const struct units *u, const char *name, const char *unit, struct stats_ratio r)
{
    struct stats_plan plan = {.n = u->n, .replicates = REPLICATES, .seed = s->seed};
    struct stats_result x;
    int rc = stats_bootstrap(&x, &plan, stats_ratio, &r);
    struct task_score *t = add(s, name, x.value, unit, r.num == u->col[U_TOP1] || r.num == u->col[U_SAME]);
    t->lo = x.lo;
    t->hi = x.hi;
    return rc;
}

static double sum(const double *x, int64_t n)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += x[i];
    return total;
}

/* What only one protocol has. */
static void add_special(struct scores *s, const struct units *u, const struct task_set *set)
{
    double nll = sum(u->col[U_NLL], u->n), tokens = sum(u->col[U_TOKENS], u->n);
    if (set->protocol == PPL_HF_STRIDED)
        add(s, "hf_perplexity", exp(u->hf_nll / u->hf_tokens), "1", false);
    if (set->protocol == PPL_MEGATRON)
        add(s, "adjusted_perplexity", exp(nll / tokens * (double)(set->corpus->ids.n - 1) / (double)(set->corpus->spaced - 1)), "1",
            false);
    if (set->protocol == PPL_LLAMACPP) {
        /* as llama.cpp prints it behind its estimate: tokens taken for independent, so it is too small */
        double mean = nll / tokens, square = sum(u->col[U_NLL2], u->n) / tokens;
        add(s, "perplexity_error_iid", exp(mean) * sqrt((square - mean * mean) / (tokens - 1)), "1", false);
    }
}

/* The ratios that every protocol has. */
enum { RATIOS = 6 };
struct named {
    const char *name, *unit;
    struct stats_ratio ratio;
};

static void ratios(const struct units *u, const struct task_set *set, struct named out[RATIOS])
{
    struct named token = {"token_perplexity", "1", {u->col[U_NLL], u->col[U_TOKENS], STATS_EXP}};
    struct named word = {"word_perplexity", "1", {u->col[U_NLL], u->col[U_WORDS], STATS_EXP}};
    bool documents = set->protocol == PPL_LM_EVAL; /* the number that the protocol is known for comes first */
    out[0] = documents ? word : token;
    out[1] = documents ? token : word;
    out[2] = (struct named){"byte_perplexity", "1", {u->col[U_NLL], u->col[U_BYTES], STATS_EXP}};
    out[3] = (struct named){"bits_per_byte", "bit", {u->col[U_NLL], u->col[U_BYTES], STATS_BITS}};
    out[4] = (struct named){"nll_per_token", "nat", {u->col[U_NLL], u->col[U_TOKENS], STATS_PLAIN}};
    out[5] = (struct named){"top1_accuracy", "1", {u->col[U_TOP1], u->col[U_TOKENS], STATS_PLAIN}};
}

int ppl_compare(const struct task_set *set, const struct task_pair *pair, const bool *missing, uint64_t seed,
                struct task_score *out)
{
    struct units a, b = {0};
    struct named ra[RATIOS], rb[RATIOS];
    struct scores s = {.v = out, .seed = seed};
    int rc = gather(&a, set, pair->a, missing);
    rc = rc ? rc : gather(&b, set, pair->b, missing);
    for (int i = 0; i < RATIOS && rc == ERR_OK; i++) {
        struct stats_plan plan = {.n = a.n, .replicates = REPLICATES, .seed = seed};
        struct stats_result x;
        ratios(&a, set, ra);
        ratios(&b, set, rb);
        rc = stats_bootstrap(&x, &plan, stats_difference, &(struct stats_pair){ra[i].ratio, rb[i].ratio});
        struct task_score *t = add(&s, ra[i].name, x.value, ra[i].unit, i == RATIOS - 1);
        t->lo = x.lo;
        t->hi = x.hi;
    }
    free(a.memory);
    free(b.memory);
    return rc ? rc : s.n;
}

int ppl_score(const struct task_set *set, const struct task_acc *acc, const bool *missing, uint64_t seed, struct task_score *out)
{
    struct units u;
    struct scores s = {.v = out, .seed = seed};
    int rc = gather(&u, set, acc, missing);
    if (rc)
        return rc;
    struct named r[RATIOS];
    ratios(&u, set, r);
    for (int i = 0; i < RATIOS && rc == ERR_OK; i++)
        rc = add_ratio(&s, &u, r[i].name, r[i].unit, r[i].ratio);
    if (rc == ERR_OK && set->compare)
        rc = add_ratio(&s, &u, "kl_to_dense", "nat", (struct stats_ratio){u.col[U_KL], u.col[U_TOKENS], STATS_PLAIN});
    if (rc == ERR_OK && set->compare)
        rc = add_ratio(&s, &u, "top1_agreement", "%", (struct stats_ratio){u.col[U_SAME], u.col[U_TOKENS], STATS_PLAIN});
    add_special(&s, &u, set);
    free(u.memory);
    return rc ? rc : s.n;
}
