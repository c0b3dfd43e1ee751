/* /timing: what differs from run to run, by cell and by rank. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/timer.h"
#include "io/h5.h"
#include "sched/gather.h"
#include "sched/merge.h"
#include "sched/work.h"

static const char *const phase_about[TIMER_PHASES] = {
    [TIMER_LOAD] = "reading weights and datasets",        [TIMER_LINEAR] = "projections and MLP; norms of few rows",
    [TIMER_ATTN] = "attention, choosing keys included",   [TIMER_SELECT] = "of attention: choosing keys",
    [TIMER_HEAD] = "vocabulary projection and loss",      [TIMER_OTHER] = "norms, rotary embedding, copies",
    [TIMER_COMM] = "inside MPI, within a group",          [TIMER_IO] = "durable files",
    [TIMER_WAIT] = "waiting for work or for other ranks",
};

static void cell_column(struct merge_out *o, const char *name, const char *unit, const char *about, const double *v)
{
    char path[96];
    snprintf(path, sizeof path, "/timing/cells/%s", name);
    merge_numbers(o, path, H5_F64, v, o->w->n_cells, unit, about);
    h5_attach(o->f, path, 0, "/timing/cells/cell");
}

void merge_cell_times(struct merge_out *o)
{
    int n = o->w->n_cells;
    int32_t *cell = merge_room(n);
    double *compute = merge_room(n), *ranks = merge_room(n), *rate = merge_room(n), *peak = merge_room(n), *phase = merge_room(n);
    for (int i = 0; i < n; i++) {
        const struct gather_total *t = &o->x->total[i];
        cell[i] = i;
        compute[i] = t->compute_s;
        ranks[i] = t->rank_s;
        rate[i] = t->compute_s > 0 ? (double)t->tokens / t->compute_s : 0;
        peak[i] = (double)t->peak_bytes;
    }
    /* a scale of its own: readers of netCDF look for dimensions in the groups above, not beside */
    merge_numbers(o, "/timing/cells/cell", H5_I32, cell, n, "1", "row of /cells");
    h5_scale(o->f, "/timing/cells/cell", "cell");
    cell_column(o, "compute_s", "s", "seconds of groups", compute);
    cell_column(o, "rank_s", "s", "seconds of ranks: those of groups times their ranks", ranks);
    cell_column(o, "tokens_per_s", "token/s", "tokens through the model a second of a group", rate);
    cell_column(o, "peak_bytes", "byte", "largest resident memory of a rank", peak);
    for (int i = 0; i < n; i++)
        phase[i] = o->x->total[i].sparsity_s;
    cell_column(o, "sparsity_s", "s", "core seconds of sampling what stands in /sparsity", phase);
    for (int k = 0; k < TIMER_PHASES; k++) {
        char name[64];
        for (int i = 0; i < n; i++)
            phase[i] = o->x->total[i].phase_s[k];
        snprintf(name, sizeof name, "%s_s", timer_phase_name((enum timer_phase)k));
        cell_column(o, name, "s", phase_about[k], phase);
    }
    free(cell);
    free(compute);
    free(ranks);
    free(rate);
    free(peak);
    free(phase);
}

void merge_rank_times(struct merge_out *o)
{
    static const struct {
        const char *name, *unit, *about;
    } column[] = {
        {"rank", "1", "rank of the run"},
        {"shards", "1", "shards computed"},
        {"tokens", "token", "tokens through the model"},
        {"peak_bytes", "byte", "largest resident memory"},
        {"compute_s", "s", "computing"},
        {"io_s", "s", "writing durable files"},
        {"wait_s", "s", "waiting for work or for other ranks"},
        {"load_s", "s", "reading weights and datasets"},
        {"deal_s", "s", "rank 0: dealing out the work"},
    };
    enum { COLUMNS = sizeof column / sizeof column[0], WHOLE = 4 }; /* the first are whole numbers */
    int n = o->i->n_ranks;
    double *real = merge_room(n);
    int64_t *whole = merge_room(n);
    const char **host = merge_room(n);
    for (int k = 0; k < COLUMNS; k++) {
        char path[96];
        for (int r = 0; r < n; r++) {
            const struct merge_rank *m = &o->i->rank[r];
            const int64_t counts[] = {m->rank, m->shards, m->tokens, m->peak_bytes};
            const double times[] = {m->compute_s, m->io_s, m->wait_s, m->load_s, m->deal_s};
            whole[r] = k < WHOLE ? counts[k] : 0;
            real[r] = k < WHOLE ? 0 : times[k - WHOLE];
            host[r] = m->host;
        }
        snprintf(path, sizeof path, "/timing/ranks/%s", column[k].name);
        merge_numbers(o, path, k < WHOLE ? H5_I64 : H5_F64, k < WHOLE ? (const void *)whole : real, n, column[k].unit,
                      column[k].about);
        if (k == 0)
            h5_scale(o->f, path, "rank");
        else
            merge_attach(o, "/timing/ranks", column[k].name, "/timing/ranks/rank");
    }
    h5_strings(o->f, "/timing/ranks/host", host, n, "machine");
    merge_attach(o, "/timing/ranks", "host", "/timing/ranks/rank");
    free(real);
    free(whole);
    free(host);
}
