/* /samples/TASK: every rank writes the rows of its cells. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/h5.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/merge.h"
#include "sched/work.h"
#include "task/columns.h"

struct span { /* this rank's rows of a task's table */
    int task;
    int64_t rows, first, count;
    char folder[96];
};

static struct span span_of(const struct merge_out *o, int task)
{
    struct span s = {.task = task};
    int last = o->x->first + o->x->n_cells;
    for (int i = 0; i < o->w->n_cells; i++) {
        int64_t n = o->w->cell[i].task == task ? o->i->sizes[i] : 0;
        s.first += i < o->x->first ? n : 0;
        s.count += i >= o->x->first && i < last ? n : 0;
        s.rows += n;
    }
    snprintf(s.folder, sizeof s.folder, "/samples/%.80s", o->w->job->task[task].name);
    return s;
}

/* What stands in a column of /samples. */
enum source { SRC_CELL, SRC_ID, SRC_GROUP, SRC_TOKENS, SRC_SCORED, SRC_STATUS, SRC_COUNT, SRC_SUM, SRC_SECONDS };

static void put(const struct merge_out *o, const struct gather_cell *c, enum source src, int k, void *to)
{
    const struct work_cell *wc = &o->w->cell[c->cell];
    const struct task *t = o->w->job->task[wc->task].impl;
    for (int64_t i = 0; i < c->n; i++) {
        struct task_sample x = {0};
        if (src == SRC_ID || src == SRC_GROUP || src == SRC_TOKENS || src == SRC_SCORED)
            t->sample(o->w->set[wc->set].set, i, &x);
        if (src == SRC_CELL)
            ((int32_t *)to)[i] = c->cell;
        else if (src == SRC_STATUS)
            ((int32_t *)to)[i] = c->status[i];
        else if (src == SRC_SUM)
            ((double *)to)[i] = c->acc[i].s[k];
        else if (src == SRC_SECONDS)
            ((double *)to)[i] = c->seconds[i];
        else
            ((int64_t *)to)[i] = src == SRC_ID       ? x.id
                                 : src == SRC_GROUP  ? x.group
                                 : src == SRC_TOKENS ? x.tokens
                                 : src == SRC_SCORED ? x.scored
                                                     : c->acc[i].n[k];
    }
}

struct sample_column {
    const char *name, *unit, *about;
    enum source src;
    int k;
};

static void sample_column(struct merge_out *o, const struct span *s, const char *folder, const struct sample_column *col)
{
    char path[192], scale[128];
    bool small = col->src == SRC_CELL || col->src == SRC_STATUS, real = col->src == SRC_SUM || col->src == SRC_SECONDS;
    char *data = merge_room(s->count), *at = data;
    for (int k = 0; k < o->x->n_cells; k++) {
        const struct gather_cell *c = &o->x->cell[k];
        if (o->w->cell[c->cell].task != s->task)
            continue;
        put(o, c, col->src, col->k, at);
        at += c->n * (small ? 4 : 8);
    }
    snprintf(path, sizeof path, "%s/%s", folder, col->name);
    h5_write(o->f, &(struct h5_column){.path = path,
                                       .type = small  ? H5_I32
                                               : real ? H5_F64
                                                      : H5_I64,
                                       .rows = s->rows,
                                       .first = s->first,
                                       .count = s->count,
                                       .data = data,
                                       .unit = col->unit,
                                       .about = col->about});
    free(data);
    snprintf(scale, sizeof scale, "%s/row", folder);
    h5_attach(o->f, path, 0, scale);
}

static void sample_rows(struct merge_out *o, const struct span *s, const char *folder)
{
    char path[192];
    int64_t *row = merge_room(s->count);
    for (int64_t i = 0; i < s->count; i++)
        row[i] = s->first + i;
    snprintf(path, sizeof path, "%s/row", folder);
    h5_write(o->f, &(struct h5_column){.path = path,
                                       .type = H5_I64,
                                       .rows = s->rows,
                                       .first = s->first,
                                       .count = s->count,
                                       .data = row,
                                       .unit = "1",
                                       .about = "cell after cell, samples in the dataset's order"});
    h5_scale(o->f, path, "row");
    free(row);
}

/* Texts as one run of bytes and the end of each: nothing variable-length can be written in parallel. */
static void sample_texts(struct merge_out *o, const struct span *s, const char *name, bool reasons)
{
    int ranks = o->g ? o->g->size : 1, me = o->g ? o->g->rank : 0;
    int64_t *bytes = merge_room(ranks), *end = merge_room(s->count), first = 0, total = 0, n = 0;
    struct buf all = {0};
    char path[192], scale[128];
    for (int k = 0; k < o->x->n_cells; k++) {
        const struct gather_cell *c = &o->x->cell[k];
        for (int64_t i = 0; o->w->cell[c->cell].task == s->task && i < c->n; i++) {
            const struct buf *b = reasons ? &c->reason[i] : &c->text[i];
            AST_ASSERT(!b->len || buf_add(&all, b->data, b->len) == ERR_OK);
            end[n++] = (int64_t)all.len;
        }
    }
    bytes[me] = (int64_t)all.len;
    comm_sum_i64(o->g, bytes, ranks);
    for (int r = 0; r < ranks; r++) {
        first += r < me ? bytes[r] : 0;
        total += bytes[r];
    }
    for (int64_t i = 0; i < n; i++)
        end[i] += first;
    if (total > 0) { /* every rank knows; no empty datasets */
        struct h5_column text = {.path = path,
                                 .type = H5_U8,
                                 .rows = total,
                                 .first = first,
                                 .count = (int64_t)all.len,
                                 .data = all.data,
                                 .unit = "byte"};
        struct h5_column ends = {
            .path = path, .type = H5_I64, .rows = s->rows, .first = s->first, .count = s->count, .data = end, .unit = "byte"};
        text.about = "UTF-8 bytes of all rows";
        ends.about = "where the row's bytes end; they begin where the row before ends";
        snprintf(path, sizeof path, "%s/%s", s->folder, name);
        h5_write(o->f, &text);
        merge_dimension(o, path, total);
        snprintf(path, sizeof path, "%s/%s_end", s->folder, name);
        h5_write(o->f, &ends);
        snprintf(scale, sizeof scale, "%s/row", s->folder);
        h5_attach(o->f, path, 0, scale);
    }
    free(bytes);
    free(end);
    buf_free(&all);
}

static void task_counter(struct merge_out *o, const struct span *s, const char *name, enum source src, int k)
{
    const struct task_column *c = task_column(name);
    char about[160] = "";
    if (c) /* "n-grams, n = 3" */
        snprintf(about, sizeof about, "%s%s", c->about, c->name[strlen(c->name) - 1] == '#' ? name + strlen(c->name) - 1 : "");
    sample_column(o, s, s->folder, &(struct sample_column){name, c ? c->unit : "1", c ? about : name, src, k});
}

void merge_samples(struct merge_out *o, int task)
{
    static const struct sample_column fixed[] = {
        {"cell", "1", "row of /cells", SRC_CELL, 0},
        {"id", "1", "position in the dataset", SRC_ID, 0},
        {"group", "1", "document: the unit of the bootstrap", SRC_GROUP, 0},
        {"n_tokens", "token", "through the model", SRC_TOKENS, 0},
        {"n_scored", "token", "of these, predictions that count", SRC_SCORED, 0},
        {"status", "1", "0 ok, 1 failed, 2 did not fit into memory, 3 not done yet", SRC_STATUS, 0},
    };
    const struct task *t = o->w->job->task[task].impl;
    struct span s = span_of(o, task);
    char timing[128];
    h5_group(o->f, s.folder);
    sample_rows(o, &s, s.folder);
    for (size_t k = 0; k < sizeof fixed / sizeof fixed[0]; k++)
        sample_column(o, &s, s.folder, &fixed[k]);
    for (int k = 0; t->count_name && t->count_name[k]; k++)
        task_counter(o, &s, t->count_name[k], SRC_COUNT, k);
    for (int k = 0; t->sum_name && t->sum_name[k]; k++)
        task_counter(o, &s, t->sum_name[k], SRC_SUM, k);
    sample_texts(o, &s, "text", false);
    sample_texts(o, &s, "reason", true);
    snprintf(timing, sizeof timing, "/timing%s", s.folder);
    sample_rows(o, &s, timing);
    sample_column(o, &s, timing, &(struct sample_column){"seconds", "s", "its share of its batch's time", SRC_SECONDS, 0});
}
