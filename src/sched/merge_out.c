/* What the tables of results.h5 share: memory, columns that are the same on every rank, names. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "comm/comm.h"
#include "io/h5.h"
#include "sched/job.h"
#include "sched/work.h"

void *merge_room(int64_t n)
{
    void *p = calloc((size_t)n + 1, 8);
    AST_ASSERT(p != NULL);
    return p;
}

void merge_attach(struct merge_out *o, const char *folder, const char *column, const char *scale)
{
    char path[192];
    snprintf(path, sizeof path, "%s/%s", folder, column);
    h5_attach(o->f, path, 0, scale);
}

void merge_numbers(struct merge_out *o, const char *path, enum h5_type type, const void *v, int64_t n, const char *unit,
                   const char *about)
{
    bool first = !o->g || o->g->rank == 0;
    h5_write(o->f, &(struct h5_column){
                       .path = path, .type = type, .rows = n, .count = first ? n : 0, .data = v, .unit = unit, .about = about});
}

void merge_dimension(struct merge_out *o, const char *path, int64_t n)
{
    char scale[224], name[96];
    bool first = !o->g || o->g->rank == 0;
    unsigned char *zero = merge_room(n / 8);
    snprintf(scale, sizeof scale, "%s_dim", path);
    snprintf(name, sizeof name, "This is a netCDF dimension but not a netCDF variable. %9lld", (long long)n);
    h5_write(o->f, &(struct h5_column){.path = scale,
                                       .type = H5_U8,
                                       .rows = n,
                                       .count = first ? n : 0,
                                       .data = zero,
                                       .unit = "1",
                                       .about = "names a dimension, holds nothing"});
    h5_scale(o->f, scale, name);
    h5_attach(o->f, path, 0, scale);
    free(zero);
}

static const char *name_of(const struct work *w, int cell, enum merge_name kind)
{
    const struct work_cell *c = &w->cell[cell];
    switch (kind) {
    case MERGE_MODEL: return w->job->model[c->model].name;
    case MERGE_METHOD: return w->job->method[c->method].name;
    case MERGE_TASK: return w->job->task[c->task].name;
    default: return w->set[c->set].signature ? w->set[c->set].signature : "";
    }
}

void merge_names(struct merge_out *o, const char *path, const int32_t *cell, int64_t n, enum merge_name kind)
{
    static const char *const about[] = {"model", "attention method", "task", "protocol of the score"};
    const char **v = merge_room(n);
    for (int64_t k = 0; k < n; k++)
        v[k] = name_of(o->w, cell[k], kind);
    h5_strings(o->f, path, v, n, about[kind]);
    free(v);
}
