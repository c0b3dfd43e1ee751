/* models x tasks x lengths x methods, one line each. */
#include "sched/summary.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/merge.h"
#include "sched/work.h"

enum { COLUMN = 24 }; /* of a score with its interval */

/* Decimals that show four digits of a number. */
static int decimals(double v)
{
    int d = !(fabs(v) > 0) ? 2 : (int)fmax(0, 3 - floor(log10(fabs(v))));
    return d > 5 ? 5 : d;
}

/* "57.49 [52.66, 62.50]" */
static void interval(const struct task_score *s, int digits, char *out, int cap)
{
    if (s->lo <= s->hi)
        snprintf(out, (size_t)cap, "%.*f [%.*f, %.*f]", digits, s->value, digits, s->lo, digits, s->hi);
    else
        snprintf(out, (size_t)cap, "%.*f", digits, s->value);
}

/* The paired difference of the first score, in as many decimals as that: finer ones mean nothing. */
static void against_dense(const struct gather_total *t, char *out, int cap)
{
    out[0] = '\0';
    for (int64_t k = 0; k < t->n_diffs && t->n_scores > 0; k++) {
        if (!strcmp(t->diff[k].name, t->score[0].name))
            interval(&t->diff[k], decimals(t->score[0].value), out, cap);
    }
}

/* Model (where there are several), length and method of a cell. */
static void cell_head(FILE *f, const struct work *w, int cell, const int width[2])
{
    const struct work_cell *c = &w->cell[cell];
    if (w->job->n_models > 1)
        fprintf(f, "  %-*s", width[0], w->job->model[c->model].name);
    fprintf(f, "  %7lld  %-*s", (long long)c->length, width[1], w->job->method[c->method].name);
}

static void cell_line(FILE *f, const struct work *w, const struct gathered *x, int cell, const int width[2])
{
    const struct gather_total *t = &x->total[cell];
    char score[128] = "-", diff[128], rate[32] = "-", peak[32] = "-", kept[32] = "-";
    if (t->n_scores > 0)
        interval(&t->score[0], decimals(t->score[0].value), score, sizeof score);
    against_dense(t, diff, sizeof diff);
    if (t->compute_s > 0)
        snprintf(rate, sizeof rate, "%.0f", (double)t->tokens / t->compute_s);
    if (t->peak_bytes > 0)
        log_bytes((double)t->peak_bytes, peak, sizeof peak);
    if (t->pairs_causal > 0)
        snprintf(kept, sizeof kept, "%.1f %%", 100 * t->pairs_seen / t->pairs_causal);
    cell_head(f, w, cell, width);
    fprintf(f, "  %-*s  %-*s  %8s  %8s  %8s", COLUMN, score, COLUMN, diff, kept, rate, peak);
    if (t->failed > 0)
        fprintf(f, "  %lld of %lld samples FAILED", (long long)t->failed, (long long)t->n);
    if (t->pending > 0)
        fprintf(f, "  %lld of %lld samples to do", (long long)t->pending, (long long)t->n);
    fprintf(f, "\n");
}

static int widest(int now, const char *s)
{
    return (int)strlen(s) > now ? (int)strlen(s) : now;
}

/* One block for each metric that comes first in its task: a column holds one kind of number. */
static const char *metric_of(const struct gathered *x, const struct work *w, int task)
{
    for (int i = 0; i < w->n_cells; i++)
        if (w->cell[i].task == task && x->total[i].n_scores > 0)
            return x->total[i].score[0].name;
    return "score";
}

static void task_table(FILE *f, const struct work *w, const struct gathered *x, int task, const int width[2])
{
    fprintf(f, "\n  %s: %s", w->job->task[task].name, metric_of(x, w, task));
    if (w->job->n_models == 1)
        fprintf(f, " of %s", w->job->model[0].name);
    fprintf(f, "\n");
    if (w->job->n_models > 1)
        fprintf(f, "  %-*s", width[0], "model");
    fprintf(f, "  %7s  %-*s  %-*s  %-*s  %8s  %8s  %8s\n", "length", width[1], "method", COLUMN, "value [95 %]", COLUMN,
            "minus dense [95 %]", "pairs", "token/s", "peak");
    for (int i = 0; i < w->n_cells; i++)
        if (w->cell[i].task == task)
            cell_line(f, w, x, i, width);
}

static const struct task_score *score_named(const struct gather_total *t, const char *name)
{
    for (int64_t k = 0; k < t->n_scores; k++)
        if (!strcmp(t->score[k].name, name))
            return &t->score[k];
    return NULL;
}

/* The first metric over parts of the samples ("f1@1k-2k"), with how many there are, where a task has such. */
static void parts_table(FILE *f, const struct work *w, const struct gathered *x, int task, const int width[2])
{
    const char *metric = metric_of(x, w, task);
    char prefix[40];
    bool titled = false;
    snprintf(prefix, sizeof prefix, "%s@", metric);
    for (int i = 0; i < w->n_cells; i++) {
        const struct gather_total *t = &x->total[i];
        bool any = false;
        for (int64_t k = 0; k < t->n_scores && w->cell[i].task == task; k++) {
            if (strncmp(t->score[k].name, prefix, strlen(prefix)) != 0)
                continue;
            char count[40];
            double value = t->score[k].value;
            const char *part = t->score[k].name + strlen(prefix);
            snprintf(count, sizeof count, "questions@%.20s", part);
            const struct task_score *n = score_named(t, count);
            if (!titled)
                fprintf(f, "\n  %s by tokens of the whole prompt (samples)\n", metric);
            titled = true;
            if (!any)
                cell_head(f, w, i, width);
            any = true;
            fprintf(f, "  %s: %.*f (%.0f)", part, decimals(value), value, n ? n->value : 0);
        }
        if (any)
            fprintf(f, "\n");
    }
}

/* Logits against dense attention's on the same tokens, where a task compared them. */
static void agree_table(FILE *f, const struct work *w, const struct gathered *x, int task, const int width[2])
{
    bool titled = false;
    for (int i = 0; i < w->n_cells; i++) {
        char kl[128], same[128];
        const struct task_score *a = score_named(&x->total[i], "kl_to_dense"), *b = score_named(&x->total[i], "top1_agreement");
        if (w->cell[i].task != task || !a || !b)
            continue;
        if (!titled)
            fprintf(f,
                    "\n  against dense attention on the same tokens: KL in nats, share with the same most probable token in %%\n");
        titled = true;
        interval(a, decimals(a->value), kl, sizeof kl);
        interval(b, decimals(b->value), same, sizeof same);
        cell_head(f, w, i, width);
        fprintf(f, "  %-28s  %s\n", kl, same);
    }
}

static void rank_line(FILE *f, const char *name, const struct merge_rank *r, double n)
{
    double all = r->compute_s + r->load_s + r->io_s + r->wait_s + r->deal_s, part = all > 0 ? 100 / all : 0;
    char peak[32] = "-";
    if (r->peak_bytes > 0)
        log_bytes((double)r->peak_bytes / n, peak, sizeof peak);
    fprintf(f, "  %-8s %-14.14s %7.0f %11.0f %8.1f %% %6.1f %% %5.1f %% %6.1f %%  %8s\n", name, r->host, (double)r->shards / n,
            (double)r->tokens / n, part * (r->compute_s + r->deal_s), part * r->load_s, part * r->io_s, part * r->wait_s, peak);
}

/* Where each rank's time went; of many ranks those that waited most, and the mean. All of them stand in /timing/ranks. */
static void rank_table(FILE *f, const struct summary_info *s)
{
    enum { SHOWN = 16 };
    struct merge_rank mean = {.host = "all workers"};
    double bound = -1;
    int shown = 0;
    char name[32];
    if (s->n_ranks < 2)
        return;
    if (s->n_ranks > SHOWN) { /* the SHOWN-th longest wait, by trying each as a bound */
        for (int i = 0; i < s->n_ranks; i++) {
            int above = 0;
            for (int k = 0; k < s->n_ranks; k++)
                above += s->rank[k].wait_s >= s->rank[i].wait_s;
            if (above >= SHOWN && s->rank[i].wait_s > bound)
                bound = s->rank[i].wait_s;
        }
    }
    fprintf(f, "\n  %-8s %-14s %7s %11s %10s %8s %7s %8s  %8s\n", "rank", "host", "shards", "tokens", "computing", "loading", "I/O",
            "waiting", "peak");
    for (int i = 0; i < s->n_ranks; i++) {
        const struct merge_rank *r = &s->rank[i];
        snprintf(name, sizeof name, "%lld%s", (long long)r->rank, r->rank == 0 ? " deals" : "");
        if (r->rank == 0 || (r->wait_s >= bound && shown++ < SHOWN))
            rank_line(f, name, r, 1);
        if (r->rank == 0)
            continue;
        mean.shards += r->shards;
        mean.tokens += r->tokens;
        mean.peak_bytes += r->peak_bytes;
        mean.compute_s += r->compute_s;
        mean.load_s += r->load_s;
        mean.io_s += r->io_s;
        mean.wait_s += r->wait_s;
    }
    if (s->n_ranks > 2)
        rank_line(f, "mean", &mean, s->n_ranks - 1);
}

void summary_print(FILE *f, const struct work *w, const struct gathered *x, const struct summary_info *s)
{
    int width[2] = {5, 6}; /* model, method */
    char took[32];
    int64_t failed = 0, pending = 0;
    for (int i = 0; i < w->job->n_models; i++)
        width[0] = widest(width[0], w->job->model[i].name);
    for (int i = 0; i < w->job->n_methods; i++)
        width[1] = widest(width[1], w->job->method[i].name);
    for (int i = 0; i < w->n_cells; i++) {
        failed += x->total[i].failed;
        pending += x->total[i].pending;
    }
    for (int t = 0; t < w->job->n_tasks; t++) {
        task_table(f, w, x, t, width);
        parts_table(f, w, x, t, width);
        agree_table(f, w, x, t, width);
    }
    log_duration(s->wall_s, took, sizeof took);
    fprintf(f, "\n%s: %s in %s on %d rank%s (%d group%s, %d thread%s each)", w->job->name, s->complete ? "complete" : "INCOMPLETE",
            took, s->ranks, s->ranks == 1 ? "" : "s", s->groups, s->groups == 1 ? "" : "s", s->threads, s->threads == 1 ? "" : "s");
    if (s->busy >= 0)
        fprintf(f, ", groups computed %.1f %% of the time", 100 * s->busy);
    if (s->dead)
        fprintf(f, ", %d rank%s lost on the way", s->dead, s->dead == 1 ? " was" : "s were");
    fprintf(f, "\n");
    rank_table(f, s);
    if (failed)
        fprintf(f, "%lld samples failed: /samples/*/status and reason say which and why; the same command tries them again\n",
                (long long)failed);
    if (pending)
        fprintf(f, "%lld samples are still to do: run the same command again\n", (long long)pending);
    fprintf(f, "results: %s   (h5dump -H %s)\n", s->results, s->results);
}
