/* Progress for people (the bar), for batch logs (a line a minute) and for scripts (status.json). */
#include "sched/status.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/timer.h"
#include "io/file.h"
#include "io/json.h"

static const double EVERY_S = 60;

void status_begin(struct status *s, const char *job, const char *folder, double total_s, double done_s)
{
    *s = (struct status){.job = job, .start_s = timer_now(), .next_s = timer_now() + 5};
    snprintf(s->path, sizeof s->path, "%s/status.json", folder);
    progress_begin(&s->bar, job, total_s);
    (void)done_s;
}

static void write_json(const struct status *s, const struct status_now *n, double spent, double eta)
{
    struct buf b = {0};
    char when[32];
    timer_iso(timer_wall(), when, sizeof when);
    int rc = buf_puts(&b, "{\"job\": ");
    rc = rc ? rc : json_quote(&b, s->job, strlen(s->job));
    rc =
        rc ? rc
           : buf_printf(
                 &b,
                 ", \"state\": \"%s\", \"time\": \"%s\", \"elapsed_s\": %.1f, \"eta_s\": %.1f, \"progress\": %.4f,\n"
                 " \"groups\": %d, \"dead_ranks\": %d, \"shards_waiting\": %lld, \"shards_running\": %lld, \"shards_done\": %lld,\n"
                 " \"shards_failed\": %lld, \"samples_failed\": %lld, \"tokens\": %lld}\n",
                 n->state, when, spent, eta, n->total_s > 0 ? 1 - n->left_s / n->total_s : 0, n->groups, n->dead, n->waiting,
                 n->running, n->done, n->failed, n->samples_failed, n->tokens);
    /* It only informs: a disk that is full is reported where it matters. */
    if (rc || file_write_durable(s->path, b.data, b.len))
        err_clear();
    buf_free(&b);
}

void status_update(struct status *s, const struct status_now *n)
{
    double now = timer_now(), eta = n->groups > 0 ? n->left_s / n->groups : n->left_s;
    char note[160];
    snprintf(note, sizeof note, "%lld of %lld shards, %d group%s%s", n->done, n->done + n->waiting + n->running + n->failed,
             n->groups, n->groups == 1 ? "" : "s", n->dead ? ", some ranks are gone" : "");
    s->bar.total = n->total_s;
    progress_update(&s->bar, n->total_s - n->left_s, note);
    if (now < s->next_s)
        return;
    s->next_s = now + EVERY_S;
    write_json(s, n, now - s->start_s, eta);
}

void status_end(struct status *s, const struct status_now *n)
{
    progress_end(&s->bar);
    write_json(s, n, timer_now() - s->start_s, 0);
}
