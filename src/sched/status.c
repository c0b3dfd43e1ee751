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

void status_begin(struct status *s, const char *job, const char *folder)
{
    *s = (struct status){.job = job, .start_s = timer_now(), .next_s = timer_now() + 5, .base = -1};
    snprintf(s->path, sizeof s->path, "%s/status.json", folder);
    progress_begin(&s->bar, job, 1);
}

static void write_json(const struct status *s, const struct status_now *n)
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
                 ", \"state\": \"%s\", \"time\": \"%s\", \"elapsed_s\": %.1f, \"computing_s\": %.3f, \"eta_s\": %.1f, "
                 "\"progress\": %.4f,\n"
                 " \"phase\": %d, \"phases\": %d,\n"
                 " \"groups\": %d, \"dead_ranks\": %d, \"shards_waiting\": %lld, \"shards_running\": %lld, \"shards_done\": %lld,\n"
                 " \"shards_failed\": %lld, \"samples_failed\": %lld, \"tokens\": %lld}\n",
                 n->state, when, timer_now() - s->start_s, n->computing_s, n->eta_s,
                 n->total_s > 0 ? 1 - n->left_s / n->total_s : 0, n->phase, n->phases, n->groups, n->dead, n->waiting, n->running,
                 n->done, n->failed, n->samples_failed, n->tokens);
    /* It only informs: a disk that is full is reported where it matters. */
    if (rc || file_write_durable(s->path, b.data, b.len))
        err_clear();
    buf_free(&b);
}

void status_update(struct status *s, const struct status_now *n)
{
    double now = timer_now();
    char note[160];
    snprintf(note, sizeof note, "%lld of %lld shards, %d group%s%s", n->done, n->done + n->waiting + n->running + n->failed,
             n->groups, n->groups == 1 ? "" : "s", n->dead ? ", some ranks are gone" : "");
    s->last = *n;
    if (s->base < 0)
        s->base = n->total_s > 0 ? 1 - n->left_s / n->total_s : 0;
    s->bar.total = n->total_s * (1 - s->base); /* of this run: what an earlier one did says nothing about our speed */
    progress_update(&s->bar, n->total_s * (1 - s->base) - n->left_s, note);
    if (now < s->next_s)
        return;
    s->next_s = now + EVERY_S;
    write_json(s, n);
}

void status_end(struct status *s, const char *state)
{
    if (!s->job)
        return;
    progress_end(&s->bar);
    s->last.state = state;
    s->last.eta_s = 0;
    write_json(s, &s->last);
}
