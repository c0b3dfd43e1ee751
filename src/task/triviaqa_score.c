/* Scores of the triviaqa task, from per-question counts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "task/stats.h"
#include "task/triviaqa.h"

enum { REPLICATES = 1000 };

/* Length classes by tokens of the prompt before anything is cut off. */
static const char *const class_name[] = {"0-1k", "1k-2k", "2k-4k", "4k-8k", "8k-16k", "16k-"};
enum { CLASSES = sizeof class_name / sizeof *class_name };

static int class_of(const struct task_set *s, int64_t i)
{
    int64_t tokens = s->plan[i].question + s->plan[i].document;
    int k = 0;
    while (k < CLASSES - 1 && tokens >= (int64_t)1024 << k)
        k++;
    return k;
}

enum column { F1, EXACT_MATCH, EM_SQUAD, F1_SQUAD, F1_LONGBENCH, EM_LMEVAL, SUB_EM, ANSWER_KEPT, F1_IF_KEPT, COLUMNS };
static const char *const column_name[COLUMNS] = {"f1",        "exact_match", "em_squad",    "f1_squad",  "f1_longbench",
                                                 "em_lmeval", "sub_em",      "answer_kept", "f1_if_kept"};
static const enum column of_class[] = {F1, EXACT_MATCH, ANSWER_KEPT};
enum { OF_CLASS = sizeof of_class / sizeof *of_class };

/* A missing answer counts nothing but is counted: the official rule. */
static double percent(const struct task_acc *a, bool missing, enum column c)
{
    if (missing)
        return 0;
    switch (c) {
    case F1: return 100 * a->s[TQA_F1];
    case EXACT_MATCH: return 100 * (double)a->n[TQA_EM];
    case EM_SQUAD: return 100 * (double)a->n[TQA_EM_SQUAD];
    case F1_SQUAD: return 100 * a->s[TQA_F1_SQUAD];
    case F1_LONGBENCH: return 100 * a->s[TQA_F1_LONGBENCH];
    case EM_LMEVAL: return 100 * (double)a->n[TQA_EM_LMEVAL];
    case SUB_EM: return 100 * (double)a->n[TQA_SUB_EM];
    case ANSWER_KEPT: return 100 * (double)a->n[TQA_KEPT];
    default: return 100 * a->s[TQA_F1] * (double)a->n[TQA_KEPT];
    }
}

struct scores { /* being written */
    const struct task_set *set;
    const struct task_pair *pair; /* b NULL: scores of a; else differences b - a */
    const bool *missing;
    uint64_t seed;
    struct task_score *out;
    int n;
    double *memory; /* (4, questions) */
};

/* What each question of the class (-1: of all) adds to the sum and to the denominator. Returns the questions. */
static int64_t fill(const struct scores *s, const struct task_acc *acc, enum column c, int class, struct stats_ratio *out)
{
    int64_t all = s->set->qa->n, n = 0;
    double *num = s->memory + (acc == s->pair->a ? 0 : 2 * all), *den = num + all;
    for (int64_t i = 0; i < all; i++) {
        bool gone = s->missing && s->missing[i];
        if (class >= 0 && class_of(s->set, i) != class)
            continue;
        num[n] = percent(&acc[i], gone, c);
        den[n++] = c == F1_IF_KEPT ? (gone ? 0 : (double)acc[i].n[TQA_KEPT]) : 1;
    }
    *out = (struct stats_ratio){num, den, STATS_PLAIN};
    return n;
}

static int add(struct scores *s, enum column c, int class)
{
    struct stats_pair pair;
    struct stats_plan plan = {.replicates = REPLICATES, .seed = s->seed};
    struct stats_result r;
    plan.n = fill(s, s->pair->a, c, class, &pair.a);
    if (plan.n == 0)
        return ERR_OK;
    if (s->pair->b)
        fill(s, s->pair->b, c, class, &pair.b);
    int rc = s->pair->b ? stats_bootstrap(&r, &plan, stats_difference, &pair) : stats_bootstrap(&r, &plan, stats_ratio, &pair.a);
    AST_ASSERT(s->n < TASK_SCORES);
    struct task_score *t = &s->out[s->n++];
    *t = (struct task_score){.value = r.value, .lo = r.lo, .hi = r.hi, .higher_is_better = true, .unit = "%"};
    snprintf(t->name, sizeof t->name, "%s%s%s", column_name[c], class < 0 ? "" : "@", class < 0 ? "" : class_name[class]);
    return rc;
}

static void add_questions(struct scores *s, int class)
{
    struct stats_ratio unused;
    int64_t n = fill(s, s->pair->a, F1, class, &unused);
    if (n == 0 || s->pair->b)
        return;
    AST_ASSERT(s->n < TASK_SCORES);
    struct task_score *t = &s->out[s->n++];
    *t = (struct task_score){.value = (double)n, .lo = (double)n, .hi = (double)n, .unit = "1"};
    snprintf(t->name, sizeof t->name, "questions@%s", class_name[class]);
}

static int all_scores(struct scores *s)
{
    int rc = ERR_OK;
    s->memory = malloc(((size_t)s->set->qa->n * 4 + 1) * sizeof *s->memory);
    if (!s->memory)
        return err_set(ERR_NOMEM, "out of memory for the scores of %lld questions", (long long)s->set->qa->n);
    for (int c = 0; c < COLUMNS && rc == ERR_OK; c++)
        rc = add(s, (enum column)c, -1);
    for (int k = 0; k < CLASSES && rc == ERR_OK; k++) {
        add_questions(s, k);
        for (int c = 0; c < OF_CLASS && rc == ERR_OK; c++)
            rc = add(s, of_class[c], k);
    }
    free(s->memory);
    int more =
        rc ? rc : agree_score(&(struct agree_of){&triviaqa_agree, s->pair, s->missing, s->set->qa->n, s->seed}, s->out + s->n);
    return more < 0 ? more : s->n + more;
}

int triviaqa_score(const struct task_set *set, const struct task_acc *acc, const bool *missing, uint64_t seed,
                   struct task_score *out)
{
    struct task_pair pair = {acc, NULL};
    return all_scores(&(struct scores){.set = set, .pair = &pair, .missing = missing, .seed = seed, .out = out});
}

int triviaqa_compare(const struct task_set *set, const struct task_pair *pair, const bool *missing, uint64_t seed,
                     struct task_score *out)
{
    return all_scores(&(struct scores){.set = set, .pair = pair, .missing = missing, .seed = seed, .out = out});
}
