/* /metrics: scores, intervals, differences to dense attention. */
#include "sched/merge_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/work.h"

struct metrics { /* one row a cell and metric */
    int64_t n;
    int32_t *cell, *row;
    int64_t *length, *count;
    double *value, *lo, *hi, *diff, *diff_lo, *diff_hi;
    uint8_t *higher;
    const char **name, **unit;
};

static const struct task_score *against(const struct gather_total *t, const char *name)
{
    static const struct task_score none = {.value = (double)NAN, .lo = (double)NAN, .hi = (double)NAN};
    for (int64_t k = 0; k < t->n_diffs; k++)
        if (!strcmp(t->diff[k].name, name))
            return &t->diff[k];
    return &none;
}

static void fill_metrics(const struct merge_out *o, struct metrics *m)
{
    for (int i = 0; i < o->w->n_cells; i++)
        for (int64_t k = 0; k < o->x->total[i].n_scores; k++, m->n++) {
            const struct task_score *s = &o->x->total[i].score[k];
            m->row[m->n] = (int32_t)m->n;
            m->cell[m->n] = i;
            m->length[m->n] = o->w->cell[i].length;
            m->count[m->n] = o->x->total[i].ok;
            m->value[m->n] = s->value;
            m->lo[m->n] = s->lo;
            m->hi[m->n] = s->hi;
            const struct task_score *d = against(&o->x->total[i], s->name);
            m->diff[m->n] = d->value;
            m->diff_lo[m->n] = d->lo;
            m->diff_hi[m->n] = d->hi;
            m->higher[m->n] = s->higher_is_better;
            m->name[m->n] = s->name;
            m->unit[m->n] = s->unit;
        }
}

static void write_metric_columns(struct merge_out *o, const struct metrics *m)
{
    static const char *const by_row = "each row's own: see unit";
    h5_group(o->f, "/metrics");
    merge_numbers(o, "/metrics/row", H5_I32, m->row, m->n, "1", "cell after cell, a task's metrics in its own order");
    h5_scale(o->f, "/metrics/row", "row");
    merge_numbers(o, "/metrics/cell", H5_I32, m->cell, m->n, "1", "row of /cells");
    merge_names(o, "/metrics/model", m->cell, m->n, MERGE_MODEL);
    merge_names(o, "/metrics/method", m->cell, m->n, MERGE_METHOD);
    merge_names(o, "/metrics/task", m->cell, m->n, MERGE_TASK);
    merge_numbers(o, "/metrics/length", H5_I64, m->length, m->n, "token", "sequence length");
    h5_strings(o->f, "/metrics/metric", m->name, m->n, "what is measured");
    h5_strings(o->f, "/metrics/unit", m->unit, m->n, "unit of value, its interval and its difference");
    merge_numbers(o, "/metrics/value", H5_F64, m->value, m->n, by_row, "score over all samples of the cell");
    merge_numbers(o, "/metrics/ci_lo", H5_F64, m->lo, m->n, by_row, "95 % interval; NaN: none");
    merge_numbers(o, "/metrics/ci_hi", H5_F64, m->hi, m->n, by_row, "95 % interval; NaN: none");
    merge_numbers(o, "/metrics/minus_dense", H5_F64, m->diff, m->n, by_row,
                  "value minus dense attention's on the same samples; NaN: none");
    merge_numbers(o, "/metrics/minus_dense_lo", H5_F64, m->diff_lo, m->n, by_row, "95 % interval of the paired difference");
    merge_numbers(o, "/metrics/minus_dense_hi", H5_F64, m->diff_hi, m->n, by_row, "95 % interval of the paired difference");
    merge_numbers(o, "/metrics/n", H5_I64, m->count, m->n, "1", "samples");
    merge_numbers(o, "/metrics/higher_is_better", H5_U8, m->higher, m->n, "1", "1: a larger value is better, 0: a smaller one");
    static const char *const column[] = {"cell",        "model",          "method",         "task",  "length",
                                         "metric",      "unit",           "value",          "ci_lo", "ci_hi",
                                         "minus_dense", "minus_dense_lo", "minus_dense_hi", "n",     "higher_is_better"};
    for (size_t k = 0; k < sizeof column / sizeof column[0]; k++)
        merge_attach(o, "/metrics", column[k], "/metrics/row");
    h5_attr_text(o->f, "/metrics", "signal", "value");
    h5_attr_text(o->f, "/metrics", "axes", "row");
}

void merge_metrics(struct merge_out *o)
{
    int64_t n = 0;
    for (int i = 0; i < o->w->n_cells; i++)
        n += o->x->total[i].n_scores;
    struct metrics m = {.cell = merge_room(n),
                        .row = merge_room(n),
                        .length = merge_room(n),
                        .count = merge_room(n),
                        .value = merge_room(n),
                        .lo = merge_room(n),
                        .hi = merge_room(n),
                        .diff = merge_room(n),
                        .diff_lo = merge_room(n),
                        .diff_hi = merge_room(n),
                        .higher = merge_room(n),
                        .name = merge_room(n),
                        .unit = merge_room(n)};
    fill_metrics(o, &m);
    write_metric_columns(o, &m);
    free(m.cell);
    free(m.row);
    free(m.length);
    free(m.count);
    free(m.value);
    free(m.lo);
    free(m.hi);
    free(m.diff);
    free(m.diff_lo);
    free(m.diff_hi);
    free(m.higher);
    free(m.name);
    free(m.unit);
}
