/* /layers: counters of each layer, over its heads. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/h5.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/work.h"

void merge_layers(struct merge_out *o)
{
    static const char *const name[] = {"pairs_seen", "pairs_causal", "tile_dense", "tile_blocks", "tile_gather"};
    static const char *const about[] = {"(token, head) pairs attended", "pairs that causality allows",
                                        "query tiles computed densely", "query tiles computed by blocks",
                                        "query tiles computed by gathering"};
    int64_t rows = 0, first = 0, count = 0, n = 0;
    for (int i = 0; i < o->w->n_cells; i++) {
        int64_t l = o->w->job->model[o->w->cell[i].model].info.layers;
        first += i < o->x->first ? l : 0;
        count += i >= o->x->first && i < o->x->first + o->x->n_cells ? l : 0;
        rows += l;
    }
    double *v = merge_room(count);
    h5_group(o->f, "/layers");
    for (int k = -2; k < 5; k++) {
        char path[64];
        n = 0;
        for (int c = 0; c < o->x->n_cells; c++)
            for (int l = 0; l < o->x->cell[c].layers; l++)
                v[n++] = k == -2 ? o->x->cell[c].cell : k == -1 ? l : (&o->x->cell[c].layer[l].pairs_seen)[k];
        snprintf(path, sizeof path, "/layers/%s", k == -2 ? "cell" : k == -1 ? "layer" : name[k]);
        h5_write(o->f, &(struct h5_column){.path = path,
                                           .type = H5_F64,
                                           .rows = rows,
                                           .first = first,
                                           .count = count,
                                           .data = v,
                                           .unit = "1",
                                           .about = k < 0 ? NULL : about[k]});
    }
    free(v);
}
