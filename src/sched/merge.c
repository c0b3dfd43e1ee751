/* results.h5. The layout is at the top of the header; rows never depend on who computed what. */
#include "sched/merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attn/attn.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/timer.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "io/h5.h"
#include "io/sha.h"
#include "kernels/linear.h"
#include "sched/gather.h"
#include "sched/job.h"
#include "sched/work.h"

struct out {
    struct h5 *f;
    const struct work *w;
    const struct gathered *x;
    const struct merge_info *i;
    const struct comm_group *g;
};

/* 8 bytes for each of n elements of a column. Inside the merge no rank can leave: a failure ends the process, and the same
 * command merges again. */
static void *room(int64_t n)
{
    void *p = calloc((size_t)n + 1, 8);
    AST_ASSERT(p != NULL);
    return p;
}

static void attach(struct out *o, const char *folder, const char *column, const char *scale)
{
    char path[192];
    snprintf(path, sizeof path, "%s/%s", folder, column);
    h5_attach(o->f, path, 0, scale);
}

/* ---- small tables: the same on every rank, rank 0 writes ---- */

static void numbers(struct out *o, const char *path, enum h5_type type, const void *v, int64_t n, const char *unit,
                    const char *about)
{
    bool first = !o->g || o->g->rank == 0;
    h5_write(o->f, &(struct h5_column){
                       .path = path, .type = type, .rows = n, .count = first ? n : 0, .data = v, .unit = unit, .about = about});
}

enum name_kind { NAME_MODEL, NAME_METHOD, NAME_TASK, NAME_SIGNATURE };

static const char *name_of(const struct work *w, int cell, enum name_kind kind)
{
    const struct work_cell *c = &w->cell[cell];
    switch (kind) {
    case NAME_MODEL: return w->job->model[c->model].name;
    case NAME_METHOD: return w->job->method[c->method].name;
    case NAME_TASK: return w->job->task[c->task].name;
    default: return w->set[c->set].signature ? w->set[c->set].signature : "";
    }
}

/* A column of names: row k is of cell[k]. */
static void names(struct out *o, const char *path, const int32_t *cell, int64_t n, enum name_kind kind)
{
    const char **v = room(n);
    for (int64_t k = 0; k < n; k++)
        v[k] = name_of(o->w, cell[k], kind);
    h5_strings(o->f, path, v, n, NULL);
    free(v);
}

static void write_cells(struct out *o)
{
    static const char *const column[] = {"model", "method", "task", "signature", "length", "samples", "samples_ok", "dense"};
    int n = o->w->n_cells;
    int32_t *cell = room(n), *dense = room(n);
    int64_t *length = room(n), *size = room(n), *ok = room(n);
    for (int i = 0; i < n; i++) {
        cell[i] = i;
        dense[i] = gather_dense(o->w, i);
        length[i] = o->w->cell[i].length;
        size[i] = o->i->sizes[i];
        ok[i] = o->x->total[i].ok;
    }
    h5_group(o->f, "/cells");
    numbers(o, "/cells/cell", H5_I32, cell, n, "1", "model x task x length x method, in the job's order");
    h5_scale(o->f, "/cells/cell", "cell");
    names(o, "/cells/model", cell, n, NAME_MODEL);
    names(o, "/cells/method", cell, n, NAME_METHOD);
    names(o, "/cells/task", cell, n, NAME_TASK);
    names(o, "/cells/signature", cell, n, NAME_SIGNATURE);
    numbers(o, "/cells/length", H5_I64, length, n, "token", "sequence length");
    numbers(o, "/cells/samples", H5_I64, size, n, "1", "samples in the dataset");
    numbers(o, "/cells/samples_ok", H5_I64, ok, n, "1", "samples scored");
    numbers(o, "/cells/dense", H5_I32, dense, n, "1", "the dense cell it is compared with; -1: none");
    for (size_t k = 0; k < sizeof column / sizeof column[0]; k++)
        attach(o, "/cells", column[k], "/cells/cell");
    free(cell);
    free(dense);
    free(length);
    free(size);
    free(ok);
}

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

static void fill_metrics(const struct out *o, struct metrics *m)
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

static void write_metric_columns(struct out *o, const struct metrics *m)
{
    h5_group(o->f, "/metrics");
    numbers(o, "/metrics/row", H5_I32, m->row, m->n, "1", NULL);
    h5_scale(o->f, "/metrics/row", "row");
    numbers(o, "/metrics/cell", H5_I32, m->cell, m->n, "1", "row of /cells");
    names(o, "/metrics/model", m->cell, m->n, NAME_MODEL);
    names(o, "/metrics/method", m->cell, m->n, NAME_METHOD);
    names(o, "/metrics/task", m->cell, m->n, NAME_TASK);
    numbers(o, "/metrics/length", H5_I64, m->length, m->n, "token", "sequence length");
    h5_strings(o->f, "/metrics/metric", m->name, m->n, NULL);
    h5_strings(o->f, "/metrics/unit", m->unit, m->n, "of value");
    numbers(o, "/metrics/value", H5_F64, m->value, m->n, NULL, NULL);
    numbers(o, "/metrics/ci_lo", H5_F64, m->lo, m->n, NULL, "95 % interval; NaN: none");
    numbers(o, "/metrics/ci_hi", H5_F64, m->hi, m->n, NULL, "95 % interval; NaN: none");
    numbers(o, "/metrics/minus_dense", H5_F64, m->diff, m->n, NULL, "value minus dense attention's on the same samples; NaN: none");
    numbers(o, "/metrics/minus_dense_lo", H5_F64, m->diff_lo, m->n, NULL, "95 % interval of the paired difference");
    numbers(o, "/metrics/minus_dense_hi", H5_F64, m->diff_hi, m->n, NULL, "95 % interval of the paired difference");
    numbers(o, "/metrics/n", H5_I64, m->count, m->n, "1", "samples");
    numbers(o, "/metrics/higher_is_better", H5_U8, m->higher, m->n, "1", NULL);
    static const char *const column[] = {"cell",        "model",          "method",         "task",  "length",
                                         "metric",      "unit",           "value",          "ci_lo", "ci_hi",
                                         "minus_dense", "minus_dense_lo", "minus_dense_hi", "n",     "higher_is_better"};
    for (size_t k = 0; k < sizeof column / sizeof column[0]; k++)
        attach(o, "/metrics", column[k], "/metrics/row");
    h5_attr_text(o->f, "/metrics", "signal", "value");
    h5_attr_text(o->f, "/metrics", "axes", "row");
}

static void write_metrics(struct out *o)
{
    int64_t n = 0;
    for (int i = 0; i < o->w->n_cells; i++)
        n += o->x->total[i].n_scores;
    struct metrics m = {.cell = room(n),
                        .row = room(n),
                        .length = room(n),
                        .count = room(n),
                        .value = room(n),
                        .lo = room(n),
                        .hi = room(n),
                        .diff = room(n),
                        .diff_lo = room(n),
                        .diff_hi = room(n),
                        .higher = room(n),
                        .name = room(n),
                        .unit = room(n)};
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

/* ---- samples: every rank writes the rows of its cells ---- */

struct span { /* this rank's rows of a task's table */
    int task;
    int64_t rows, first, count;
    char folder[96];
};

static struct span span_of(const struct out *o, int task)
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

static void put(const struct out *o, const struct gather_cell *c, enum source src, int k, void *to)
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

static void sample_column(struct out *o, const struct span *s, const char *folder, const struct sample_column *col)
{
    char path[192], scale[128];
    bool small = col->src == SRC_CELL || col->src == SRC_STATUS, real = col->src == SRC_SUM || col->src == SRC_SECONDS;
    char *data = room(s->count), *at = data;
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
    snprintf(scale, sizeof scale, "%s/row", s->folder);
    h5_attach(o->f, path, 0, scale);
}

static void sample_rows(struct out *o, const struct span *s)
{
    char path[128];
    int64_t *row = room(s->count);
    for (int64_t i = 0; i < s->count; i++)
        row[i] = s->first + i;
    snprintf(path, sizeof path, "%s/row", s->folder);
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
static void sample_texts(struct out *o, const struct span *s, const char *name, bool reasons)
{
    int ranks = o->g ? o->g->size : 1, me = o->g ? o->g->rank : 0;
    int64_t *bytes = room(ranks), *end = room(s->count), first = 0, total = 0, n = 0;
    struct buf all = {0};
    char path[192];
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
        struct h5_column text = {
            .path = path, .type = H5_U8, .rows = total, .first = first, .count = (int64_t)all.len, .data = all.data};
        struct h5_column ends = {
            .path = path, .type = H5_I64, .rows = s->rows, .first = s->first, .count = s->count, .data = end, .unit = "byte"};
        text.about = "UTF-8 bytes of all rows";
        ends.about = "where the row's bytes end; they begin where the row before ends";
        snprintf(path, sizeof path, "%s/%s", s->folder, name);
        h5_write(o->f, &text);
        snprintf(path, sizeof path, "%s/%s_end", s->folder, name);
        h5_write(o->f, &ends);
    }
    free(bytes);
    free(end);
    buf_free(&all);
}

static void write_samples(struct out *o, int task)
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
    sample_rows(o, &s);
    for (size_t k = 0; k < sizeof fixed / sizeof fixed[0]; k++)
        sample_column(o, &s, s.folder, &fixed[k]);
    for (int k = 0; t->count_name && t->count_name[k]; k++)
        sample_column(o, &s, s.folder, &(struct sample_column){t->count_name[k], "1", NULL, SRC_COUNT, k});
    for (int k = 0; t->sum_name && t->sum_name[k]; k++)
        sample_column(o, &s, s.folder, &(struct sample_column){t->sum_name[k], "1", NULL, SRC_SUM, k});
    sample_texts(o, &s, "text", false);
    sample_texts(o, &s, "reason", true);
    snprintf(timing, sizeof timing, "/timing%s", s.folder);
    sample_column(o, &s, timing, &(struct sample_column){"seconds", "s", "its share of its batch's time", SRC_SECONDS, 0});
}

/* ---- layers ---- */

static void write_layers(struct out *o)
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
    double *v = room(count);
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

/* ---- what differs from run to run ---- */

static void write_cell_times(struct out *o)
{
    int n = o->w->n_cells;
    double *v = room(n);
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
        numbers(o, path, H5_F64, v, n,
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

static void write_rank_times(struct out *o)
{
    static const char *const name[] = {"rank", "shards", "tokens", "peak_bytes", "compute_s", "io_s", "wait_s", "load_s"};
    static const char *const unit[] = {"1", "1", "token", "byte", "s", "s", "s", "s"};
    int n = o->i->n_ranks;
    double *v = room(n);
    const char **host = room(n);
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
        numbers(o, path, H5_F64, v, n, unit[k], NULL);
    }
    h5_strings(o->f, "/timing/ranks/host", host, n, NULL);
    free(v);
    free(host);
}

/* ---- attributes ---- */

static void write_code(struct out *o)
{
    h5_group(o->f, "/code");
    for (int k = 0; k < 8 && o->i->code[k][0]; k++)
        h5_attr_text(o->f, "/code", o->i->code[k][0], o->i->code[k][1]);
    h5_attr_text(o->f, "/code", "hdf5_version", h5_version());
}

/* Only what decides the results and is the same for any number of ranks: how the job was placed stands in /environment. */
static void write_parameters(struct out *o)
{
    struct cfg_record r;
    char name[256], digest[SHA_HEX] = "";
    const char *source = cfg_source(o->w->job->cfg);
    h5_group(o->f, "/parameters");
    for (int i = 0; cfg_record_at(o->w->job->cfg, i, &r); i++) {
        if (!strcmp(r.group, "run") && (!strcmp(r.key, "threads") || !strcmp(r.key, "tensor")))
            continue;
        if (!strcmp(r.key, "output"))
            continue;
        snprintf(name, sizeof name, "%.120s%s%.120s", r.group, r.group[0] ? "." : "", r.key);
        h5_attr_text(o->f, "/parameters", name, r.text);
    }
    if (sha_bytes(source, strlen(source), digest))
        err_clear();
    h5_attr_text(o->f, "/parameters", "config_sha256", digest);
    h5_attr_text(o->f, "/parameters", "config_text", source);
}

/* Attributes are collective: all ranks pass what rank 0 has. */
static void shared_text(struct out *o, const char *name, const char *mine)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", mine ? mine : "");
    comm_bcast(o->g, text, sizeof text, 0);
    if (text[0])
        h5_attr_text(o->f, "/environment", name, text);
}

static void shared_number(struct out *o, const char *name, double mine)
{
    comm_bcast(o->g, &mine, sizeof mine, 0);
    h5_attr_f64(o->f, "/environment", name, mine);
}

static void write_environment(struct out *o)
{
    char host[65] = "", when[32];
    gethostname(host, sizeof host - 1);
    timer_iso(timer_wall(), when, sizeof when);
    h5_group(o->f, "/environment");
    shared_text(o, "host", host);
    shared_text(o, "date", when);
    shared_text(o, "blas", kern_blas_info());
    shared_text(o, "command_line", o->i->command_line);
    shared_text(o, "state", o->i->state);
    shared_text(o, "slurm_job_id", getenv("SLURM_JOB_ID"));
    shared_text(o, "slurm_restart_count", getenv("SLURM_RESTART_COUNT"));
    shared_text(o, "slurm_nodes", getenv("SLURM_JOB_NODELIST"));
    h5_attr_i64(o->f, "/environment", "ranks", o->i->ranks);
    h5_attr_i64(o->f, "/environment", "groups", o->i->groups);
    h5_attr_i64(o->f, "/environment", "ranks_per_group", o->i->tensor);
    h5_attr_i64(o->f, "/environment", "threads_per_rank", o->i->threads);
    shared_number(o, "ranks_lost", o->i->dead);
    shared_number(o, "wall_s", o->i->wall_s);
}

static void write_root(struct out *o)
{
    h5_attr_text(o->f, "/", "Conventions", "ASTERISM-1.0 CF-1.11");
    h5_attr_text(o->f, "/", "title", o->w->job->name);
    h5_attr_text(o->f, "/", "software", "asterism");
    h5_attr_text(o->f, "/", "softwareVersion", o->i->code[0][1] ? o->i->code[0][1] : "unknown");
    h5_attr_text(o->f, "/", "default", "/metrics");
}

/* Signatures of sets that rank 0 alone has opened. */
static int share_signatures(const struct work *w, const struct comm_group *g)
{
    for (int i = 0; i < w->n_sets; i++) {
        struct work_set *s = &w->set[i];
        int64_t n = s->signature && (!g || g->rank == 0) ? (int64_t)strlen(s->signature) + 1 : 0;
        comm_bcast(g, &n, sizeof n, 0);
        char *text = calloc((size_t)n + 1, 1);
        int rc = comm_agree(g, text ? ERR_OK : err_set(ERR_NOMEM, "no memory for a signature"));
        if (rc) {
            free(text);
            return rc;
        }
        if (!g || g->rank == 0)
            snprintf(text, (size_t)n + 1, "%s", s->signature ? s->signature : "");
        comm_bcast(g, text, (size_t)n, 0);
        free(s->signature);
        s->signature = text;
    }
    return ERR_OK;
}

int merge_write(const struct work *w, const struct gathered *x, const struct merge_info *i, const struct comm_group *g)
{
    struct out o = {.w = w, .x = x, .i = i, .g = g};
    int rc = share_signatures(w, g);
    rc = rc ? rc : h5_create(&o.f, i->path, g, w->job->run.compress);
    if (rc)
        return rc;
    write_root(&o);
    write_cells(&o);
    write_metrics(&o);
    h5_group(o.f, "/samples");
    h5_group(o.f, "/timing");
    for (int t = 0; t < w->job->n_tasks; t++)
        write_samples(&o, t);
    write_layers(&o);
    write_cell_times(&o);
    write_rank_times(&o);
    write_code(&o);
    write_parameters(&o);
    write_environment(&o);
    return h5_commit(o.f);
}
