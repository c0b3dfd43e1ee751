/* /cells: what was crossed with what. */
#include "sched/merge_out.h"

#include <stdlib.h>

#include "io/h5.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/merge.h"
#include "sched/work.h"

void merge_cells(struct merge_out *o)
{
    static const char *const column[] = {"model", "method", "task", "signature", "length", "samples", "samples_ok", "dense"};
    int n = o->w->n_cells;
    int32_t *cell = merge_room(n), *dense = merge_room(n);
    int64_t *length = merge_room(n), *size = merge_room(n), *ok = merge_room(n);
    for (int i = 0; i < n; i++) {
        cell[i] = i;
        dense[i] = gather_dense(o->w, i);
        length[i] = o->w->cell[i].length;
        size[i] = o->i->sizes[i];
        ok[i] = o->x->total[i].ok;
    }
    h5_group(o->f, "/cells");
    merge_numbers(o, "/cells/cell", H5_I32, cell, n, "1", "model x task x length x method, in the job's order");
    h5_scale(o->f, "/cells/cell", "cell");
    merge_names(o, "/cells/model", cell, n, MERGE_MODEL);
    merge_names(o, "/cells/method", cell, n, MERGE_METHOD);
    merge_names(o, "/cells/task", cell, n, MERGE_TASK);
    merge_names(o, "/cells/signature", cell, n, MERGE_SIGNATURE);
    merge_numbers(o, "/cells/length", H5_I64, length, n, "token", "sequence length");
    merge_numbers(o, "/cells/samples", H5_I64, size, n, "1", "samples in the dataset");
    merge_numbers(o, "/cells/samples_ok", H5_I64, ok, n, "1", "samples scored");
    merge_numbers(o, "/cells/dense", H5_I32, dense, n, "1", "the dense cell it is compared with; -1: none");
    for (size_t k = 0; k < sizeof column / sizeof column[0]; k++)
        merge_attach(o, "/cells", column[k], "/cells/cell");
    free(cell);
    free(dense);
    free(length);
    free(size);
    free(ok);
}
