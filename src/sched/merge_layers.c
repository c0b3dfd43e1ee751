/* /layers: counters of each layer, over its heads. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/h5.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/work.h"

enum { L_ROW, L_CELL, L_LAYER, L_FIXED }; /* then those of counter() */

struct rows { /* this rank's */
    int64_t all, first, count;
};

static struct rows rows_of(const struct merge_out *o)
{
    struct rows r = {0, 0, 0};
    for (int i = 0; i < o->w->n_cells; i++) {
        int64_t l = o->w->job->model[o->w->cell[i].model].info.layers;
        r.first += i < o->x->first ? l : 0;
        r.count += i >= o->x->first && i < o->x->first + o->x->n_cells ? l : 0;
        r.all += l;
    }
    return r;
}

static double counter(const struct outcome_layer *x, int i)
{
    const double all[] = {x->pairs_seen, x->pairs_causal, x->tile_dense, x->tile_blocks, x->tile_gather};
    return all[i];
}

static void fill(const struct merge_out *o, const struct rows *r, int column, void *to)
{
    int64_t n = 0;
    for (int c = 0; c < o->x->n_cells; c++)
        for (int l = 0; l < o->x->cell[c].layers; l++, n++)
            if (column < L_FIXED)
                ((int64_t *)to)[n] = column == L_ROW ? r->first + n : column == L_CELL ? o->x->cell[c].cell : l;
            else
                ((double *)to)[n] = counter(&o->x->cell[c].layer[l], column - L_FIXED);
}

void merge_layers(struct merge_out *o)
{
    static const struct {
        const char *name, *about;
    } column[] = {
        {"row", "cell after cell, layer after layer"},
        {"cell", "row of /cells"},
        {"layer", "0 is nearest to the input"},
        {"pairs_seen", "(token, head) pairs attended"},
        {"pairs_causal", "pairs that causality allows"},
        {"tile_dense", "query tiles computed densely"},
        {"tile_blocks", "query tiles computed by blocks"},
        {"tile_gather", "query tiles computed by gathering"},
    };
    struct rows r = rows_of(o);
    void *v = merge_room(r.count);
    h5_group(o->f, "/layers");
    for (int k = 0; k < (int)(sizeof column / sizeof column[0]); k++) {
        char path[64];
        fill(o, &r, k, v);
        snprintf(path, sizeof path, "/layers/%s", column[k].name);
        h5_write(o->f, &(struct h5_column){.path = path,
                                           .type = k < L_FIXED ? H5_I64 : H5_F64,
                                           .rows = r.all,
                                           .first = r.first,
                                           .count = r.count,
                                           .data = v,
                                           .unit = "1",
                                           .about = column[k].about});
        if (k == L_ROW)
            h5_scale(o->f, path, "row");
        else
            merge_attach(o, "/layers", column[k].name, "/layers/row");
    }
    free(v);
}
