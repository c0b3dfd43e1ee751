/* Event-driven: a heap of groups by the time at which they are free. */
#include "sched/simulate.h"

#include <math.h>
#include <stdlib.h>

#include "base/err.h"
#include "sched/board.h"

struct event { /* a group is done with a shard */
    double at, took;
    int64_t shard; /* -1: none yet */
    int group;
};

static void sift(struct event *h, int n)
{
    struct event x = h[0];
    int i = 0;
    for (int k = 1; k < n; k = 2 * i + 1) {
        if (k + 1 < n && h[k + 1].at < h[k].at)
            k++;
        if (x.at <= h[k].at)
            break;
        h[i] = h[k];
        i = k;
    }
    h[i] = x;
}

int simulate(struct board *b, int groups, double (*took)(void *context, const struct shard *s), void *context,
             struct simulated *out)
{
    struct event *h = calloc((size_t)groups, sizeof *h);
    int n = groups;
    *out = (struct simulated){0};
    if (!h)
        return err_set(ERR_NOMEM, "no memory to simulate %d groups", groups);
    for (int g = 0; g < groups; g++)
        h[g] = (struct event){.shard = -1, .group = g};
    while (n > 0) {
        struct event *e = &h[0];
        if (e->shard >= 0) {
            board_done(b, e->shard, board_shard(b, e->shard)->count, e->took);
            out->makespan_s = fmax(out->makespan_s, e->at);
        }
        e->shard = board_next(b, e->group);
        if (e->shard < 0) {
            h[0] = h[--n];
        } else {
            e->took = took(context, board_shard(b, e->shard));
            e->at += e->took;
            out->work_s += e->took;
            out->longest_s = fmax(out->longest_s, e->took);
            out->shards++;
        }
        if (n > 0)
            sift(h, n);
    }
    free(h);
    return ERR_OK;
}
