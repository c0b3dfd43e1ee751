/* /timing: what differs from run to run, by cell and by rank. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/timer.h"
#include "io/h5.h"
#include "sched/gather.h"
#include "sched/merge.h"
#include "sched/work.h"

void merge_cell_times(struct merge_out *o)
{
    int n = o->w->n_cells;
    double *v = merge_room(n);
    char path[96];
    for (int k = -4; k < TIMER_PHASES; k++) {
        for (int i = 0; i < n; i++) {
            const struct gather_total *t = &o->x->total[i];
            v[i] = k == -4   ? t->compute_s
                   : k == -3 ? t->rank_s
                   : k == -2 ? (t->compute_s > 0 ? (double)t->tokens / t->compute_s : 0)
                   : k == -1 ? (double)t->peak_bytes
                             : t->phase_s[k];
        }
        snprintf(path, sizeof path, "/timing/cells/%s%s",
                 k == -4   ? "compute_s"
                 : k == -3 ? "rank_s"
                 : k == -2 ? "tokens_per_s"
                 : k == -1 ? "peak_bytes"
                           : timer_phase_name((enum timer_phase)k),
                 k >= 0 ? "_s" : "");
        merge_numbers(o, path, H5_F64, v, n,
                      k == -2   ? "token/s"
                      : k == -1 ? "byte"
                                : "s",
                      k == -4   ? "of groups"
                      : k == -3 ? "of ranks"
                      : k == -2 ? "of a group"
                                : NULL);
    }
    free(v);
}

void merge_rank_times(struct merge_out *o)
{
    static const char *const name[] = {"rank", "shards", "tokens", "peak_bytes", "compute_s", "io_s", "wait_s", "load_s"};
    static const char *const unit[] = {"1", "1", "token", "byte", "s", "s", "s", "s"};
    int n = o->i->n_ranks;
    double *v = merge_room(n);
    const char **host = merge_room(n);
    char path[96];
    for (int k = 0; k < 8; k++) {
        for (int r = 0; r < n; r++) {
            const struct merge_rank *m = &o->i->rank[r];
            const double all[] = {(double)m->rank, (double)m->shards, (double)m->tokens, (double)m->peak_bytes,
                                  m->compute_s,    m->io_s,           m->wait_s,         m->load_s};
            v[r] = all[k];
            host[r] = m->host;
        }
        snprintf(path, sizeof path, "/timing/ranks/%s", name[k]);
        merge_numbers(o, path, H5_F64, v, n, unit[k], NULL);
    }
    h5_strings(o->f, "/timing/ranks/host", host, n, NULL);
    free(v);
    free(host);
}
