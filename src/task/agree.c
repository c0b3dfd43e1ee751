/* Teacher-forced comparison with dense attention. */
#include "task/agree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "model/model.h"
#include "task/stats.h"

struct room {
    int64_t *at;
    int32_t *token, *target, *top1, *dense_top1;
    float *nll, *dense_nll, *kl;
};

static size_t room_bytes(int64_t n, int64_t tokens)
{
    return arena_bytes(n + 1, sizeof(int64_t)) + 7 * arena_bytes(tokens, sizeof(int32_t));
}

size_t agree_bytes(const struct model *m, int64_t n, int64_t tokens, int64_t longest)
{
    return room_bytes(n, tokens) + model_compare_bytes(m, tokens, longest, n);
}

static int room_open(struct room *r, int64_t n, int64_t tokens, struct arena *step)
{
    r->at = ARENA_NEW(step, n + 1, int64_t);
    r->token = ARENA_NEW(step, tokens, int32_t);
    r->target = ARENA_NEW(step, tokens, int32_t);
    r->top1 = ARENA_NEW(step, tokens, int32_t);
    r->dense_top1 = ARENA_NEW(step, tokens, int32_t);
    r->nll = ARENA_NEW(step, tokens, float);
    r->dense_nll = ARENA_NEW(step, tokens, float);
    r->kl = ARENA_NEW(step, tokens, float);
    return r->at && r->token && r->target && r->top1 && r->dense_top1 && r->nll && r->dense_nll && r->kl ? ERR_OK : ERR_NOMEM;
}

/* The prompt's last token predicts the answer's first; the answer's last predicts nothing and is left out. */
static void fill(const struct agree_text *t, int32_t *token, int32_t *target)
{
    memcpy(token, t->prompt, (size_t)t->n * sizeof *token);
    if (t->n_answer > 1)
        memcpy(token + t->n, t->answer, (size_t)(t->n_answer - 1) * sizeof *token);
    for (int64_t i = 0; i < t->n; i++)
        target[i] = -1;
    for (int64_t i = 0; i < t->n_answer; i++)
        target[t->n - 1 + i] = t->answer[i];
}

static int64_t tokens_of(const struct agree_text *t)
{
    return t->n + (t->n_answer > 0 ? t->n_answer - 1 : 0);
}

static void add_up(const struct room *r, int64_t k, const struct agree_at *at, struct task_acc *acc)
{
    for (int64_t t = r->at[k]; t < r->at[k + 1]; t++) {
        if (r->target[t] < 0)
            continue;
        acc->n[at->tokens]++;
        acc->n[at->same] += r->top1[t] == r->dense_top1[t];
        acc->s[at->kl] += (double)r->kl[t];
        acc->s[at->nll] += (double)r->nll[t];
    }
}

int agree_run(const struct task_call *c, const struct agree_text *text, const struct agree_at *at)
{
    struct room r;
    size_t mark = arena_mark(c->step);
    int64_t tokens = 0;
    for (int64_t k = 0; k < c->n; k++)
        tokens += tokens_of(&text[k]);
    int rc = room_open(&r, c->n, tokens, c->step);
    if (rc == ERR_OK) {
        r.at[0] = 0;
        for (int64_t k = 0; k < c->n; k++) {
            fill(&text[k], r.token + r.at[k], r.target + r.at[k]);
            r.at[k + 1] = r.at[k] + tokens_of(&text[k]);
        }
        struct model_batch b = {.n_seq = c->n, .at = r.at, .token = r.token, .target = r.target};
        struct model_agree out = {
            .nll = r.nll, .dense_nll = r.dense_nll, .top1 = r.top1, .dense_top1 = r.dense_top1, .kl = r.kl, .timer = c->timer};
        rc = model_compare(c->model, &b, &out, c->step);
    }
    for (int64_t k = 0; k < c->n && rc == ERR_OK; k++)
        add_up(&r, k, at, &c->acc[k]);
    arena_release(c->step, mark);
    return rc;
}

/* ---- scores ---- */

struct columns { /* (n,) each */
    double *tokens, *same, *kl, *nll;
};

static double fill_columns(const struct columns *c, const struct agree_of *of, const struct task_acc *acc)
{
    const struct agree_at *at = of->at;
    double all = 0;
    for (int64_t i = 0; i < of->n; i++) {
        bool gone = of->missing && of->missing[i];
        c->tokens[i] = gone ? 0 : (double)acc[i].n[at->tokens];
        c->same[i] = gone ? 0 : 100 * (double)acc[i].n[at->same];
        c->kl[i] = gone ? 0 : acc[i].s[at->kl];
        c->nll[i] = gone ? 0 : acc[i].s[at->nll];
        all += c->tokens[i];
    }
    return all;
}

static int add(struct task_score *out, int *k, struct task_score form, const struct stats_plan *plan, const struct stats_pair *p)
{
    struct stats_result r;
    int rc = p->b.num ? stats_bootstrap(&r, plan, stats_difference, p) : stats_bootstrap(&r, plan, stats_ratio, &p->a);
    form.value = r.value;
    form.lo = r.lo;
    form.hi = r.hi;
    out[(*k)++] = form;
    return rc;
}

int agree_score(const struct agree_of *of, struct task_score *out)
{
    const struct task_pair *pair = of->pair;
    int64_t n = of->n;
    static const struct task_score kl = {.name = "kl_to_dense", .unit = "nat"};
    static const struct task_score same = {.name = "top1_agreement", .unit = "%", .higher_is_better = true};
    static const struct task_score ppl = {.name = "answer_perplexity", .unit = "1"};
    double *memory = malloc(((size_t)n * 8 + 1) * sizeof *memory);
    if (!memory)
        return err_set(ERR_NOMEM, "out of memory for the scores of %lld samples", (long long)n);
    struct columns a = {memory, memory + n, memory + 2 * n, memory + 3 * n},
                   b = {memory + 4 * n, memory + 5 * n, memory + 6 * n, memory + 7 * n};
    struct stats_plan plan = {.n = n, .replicates = 1000, .seed = of->seed};
    int rc = ERR_OK, k = 0;
    bool there = fill_columns(&a, of, pair->a) > 0;
    if (pair->b)
        there = fill_columns(&b, of, pair->b) > 0 && there;
    struct stats_pair p = {{a.nll, a.tokens, STATS_EXP}, {NULL, NULL, STATS_EXP}};
    if (there && !pair->b) {
        rc = add(out, &k, kl, &plan, &(struct stats_pair){{a.kl, a.tokens, STATS_PLAIN}, {NULL, NULL, STATS_PLAIN}});
        rc = rc ? rc : add(out, &k, same, &plan, &(struct stats_pair){{a.same, a.tokens, STATS_PLAIN}, {NULL, NULL, STATS_PLAIN}});
    } else if (there) {
        p.b = (struct stats_ratio){b.nll, b.tokens, STATS_EXP};
    }
    if (there && rc == ERR_OK)
        rc = add(out, &k, ppl, &plan, &p);
    free(memory);
    return rc ? rc : k;
}
