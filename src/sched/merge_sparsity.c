/* /sparsity: what sampled rows of attention look like by layer, head and length, and maps of chosen samples. */
#include "sched/merge_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/sparsity.h"
#include "base/err.h"
#include "comm/comm.h"
#include "io/h5.h"
#include "sched/gather.h"

/* Rows of one table; each rank holds a run of them. */
struct table {
    struct merge_out *o;
    const char *group;
    int64_t all, first, count;
};

static struct table table_of(struct merge_out *o, const char *group, int64_t count)
{
    struct table t = {.o = o, .group = group, .count = count};
    char *all = NULL;
    size_t bytes = 0;
    int rc = comm_allgatherv(o->g, &count, sizeof count, &all, &bytes);
    AST_ASSERT(rc == ERR_OK);
    for (size_t r = 0; r < bytes / sizeof count; r++) {
        int64_t n;
        memcpy(&n, all + r * sizeof n, sizeof n);
        t.first += r < (size_t)(o->g ? o->g->rank : 0) ? n : 0;
        t.all += n;
    }
    free(all);
    return t;
}

struct column {
    const char *name, *about, *unit;
    enum h5_type type;
    int64_t width; /* 0: one number a row */
    const char *scale;
};

static void put(const struct table *t, const struct column *c, const void *v)
{
    char path[96], row[96], scale[96];
    snprintf(path, sizeof path, "%s/%s", t->group, c->name);
    snprintf(row, sizeof row, "%s/row", t->group);
    h5_write(t->o->f, &(struct h5_column){.path = path,
                                          .type = c->type,
                                          .rows = t->all,
                                          .width = c->width,
                                          .first = t->first,
                                          .count = t->count,
                                          .data = v,
                                          .unit = c->unit,
                                          .about = c->about});
    if (!strcmp(c->name, "row"))
        h5_scale(t->o->f, path, "row");
    else
        h5_attach(t->o->f, path, 0, row);
    if (c->scale) {
        snprintf(scale, sizeof scale, "%s/%s", t->group, c->scale);
        h5_attach(t->o->f, path, 1, scale);
    }
}

/* A scale beside the rows: the same on every rank. */
static void put_scale(struct merge_out *o, const char *group, const struct column *c, const int64_t *v)
{
    char path[96];
    snprintf(path, sizeof path, "%s/%s", group, c->name);
    merge_numbers(o, path, H5_I64, v, c->width, c->unit, c->about);
    h5_scale(o->f, path, c->name);
}

/* ---- counters ---- */

enum {
    S_ROW,
    S_CELL,
    S_LAYER,
    S_HEAD,
    S_LENGTH,
    S_ROWS,
    S_WHOLE,
    S_DENSITY = S_WHOLE,
    S_RECALL,
    S_ENTROPY,
    S_SINK,
    S_HOW,
    S_END = S_HOW + 3
};

static const struct column counter[] = {
    [S_ROW] = {"row", "cell after cell, layer after layer, head after head, short queries first", "1", H5_I64, 0, NULL},
    [S_CELL] = {"cell", "row of /cells", "1", H5_I64, 0, NULL},
    [S_LAYER] = {"layer", "0 is nearest to the input", "1", H5_I64, 0, NULL},
    [S_HEAD] = {"head", "query head", "1", H5_I64, 0, NULL},
    [S_LENGTH] = {"keys_from", "class of query rows: causality allows them at least so many keys, and less than the next class",
                  "1", H5_I64, 0, NULL},
    [S_ROWS] = {"rows", "query rows sampled", "1", H5_I64, 0, NULL},
    [S_DENSITY] = {"density", "keys attended / keys that causality allows", "1", H5_F64, 0, NULL},
    [S_RECALL] = {"mass_recall", "share of dense attention's mass on the keys attended, mean over rows", "1", H5_F64, 0, NULL},
    [S_ENTROPY] = {"entropy", "of dense attention, mean over rows", "nat", H5_F64, 0, NULL},
    [S_SINK] = {"sink_mass", "dense attention's mass on the first 16 keys, mean over rows", "1", H5_F64, 0, NULL},
    [S_HOW] = {"share_dense", "of rows: computed densely", "1", H5_F64, 0, NULL},
    [S_HOW + 1] = {"share_blocks", "of rows: computed by blocks under row masks", "1", H5_F64, 0, NULL},
    [S_HOW + 2] = {"share_gather", "of rows: computed from each row's own blocks", "1", H5_F64, 0, NULL},
};
static const struct column distance = {
    "mass_by_distance", "dense attention's mass by distance to the key, mean over rows", "1", H5_F64, SPARSITY_DISTANCES,
    "distance_from"};

struct place { /* of one counter row */
    int cell, layer, bucket;
    int64_t head;
    const struct sparsity_cell *at;
};

/* Calls fn for each class that has rows, in the table's order; returns how many. */
static int64_t each_row(const struct gathered *x, void (*fn)(const struct place *, int64_t n, void *), void *context)
{
    int64_t n = 0;
    struct place p;
    for (int c = 0; c < x->n_cells; c++) {
        const struct outcome_sparsity *s = &x->cell[c].sparsity;
        p.cell = x->cell[c].cell;
        for (p.layer = 0; p.layer < x->cell[c].layers; p.layer++)
            for (p.head = 0; p.head < s->heads; p.head++)
                for (p.bucket = 0; p.bucket < SPARSITY_BUCKETS; p.bucket++) {
                    p.at = &s->cell[(p.layer * s->heads + p.head) * SPARSITY_BUCKETS + p.bucket];
                    if (p.at->rows > 0 && fn)
                        fn(&p, n, context);
                    n += p.at->rows > 0;
                }
    }
    return n;
}

struct fill {
    int column;
    int64_t first;
    void *to;
};

static double value_of(const struct sparsity_cell *s, int column)
{
    switch (column) {
    case S_DENSITY: return s->seen / s->causal;
    case S_RECALL: return s->recall / s->rows;
    case S_ENTROPY: return s->entropy / s->rows;
    case S_SINK: return s->sink / s->rows;
    default: return (&s->dense)[column - S_HOW] / s->rows;
    }
}

static void fill_one(const struct place *p, int64_t n, void *context)
{
    const struct fill *f = context;
    const int64_t whole[S_WHOLE] = {f->first + n,        p->cell, p->layer, p->head, sparsity_bucket_from(p->bucket),
                                    (int64_t)p->at->rows};
    if (f->column < S_WHOLE)
        ((int64_t *)f->to)[n] = whole[f->column];
    else
        ((double *)f->to)[n] = value_of(p->at, f->column);
}

static void fill_distance(const struct place *p, int64_t n, void *context)
{
    const struct fill *f = context;
    for (int i = 0; i < SPARSITY_DISTANCES; i++)
        ((double *)f->to)[n * SPARSITY_DISTANCES + i] = p->at->distance[i] / p->at->rows;
}

static void write_counters(struct merge_out *o)
{
    struct table t = table_of(o, "/sparsity", each_row(o->x, NULL, NULL));
    int64_t from[SPARSITY_DISTANCES];
    if (t.all == 0)
        return;
    struct fill f = {.first = t.first, .to = merge_room(t.count * SPARSITY_DISTANCES)};
    h5_group(o->f, t.group);
    for (f.column = 0; f.column < S_END; f.column++) {
        each_row(o->x, fill_one, &f);
        put(&t, &counter[f.column], f.to);
    }
    for (int i = 0; i < SPARSITY_DISTANCES; i++)
        from[i] = i < 2 ? i : (int64_t)1 << (i - 1);
    put_scale(o, t.group,
              &(struct column){"distance_from", "class of distances: the least; less than the next class", "token", H5_I64,
                               SPARSITY_DISTANCES, NULL},
              from);
    each_row(o->x, fill_distance, &f);
    put(&t, &distance, f.to);
    free(f.to);
}

/* ---- maps ---- */

enum { M_ROW, M_CELL, M_SAMPLE, M_SPAN, M_LAYER, M_HEAD, M_QUERY, M_WHOLE, M_KEPT = M_WHOLE, M_CAUSAL, M_END };

static const struct column map_column[] = {
    [M_ROW] = {"row", "cell after cell, sample after sample, layer, head, query cell", "1", H5_I64, 0, NULL},
    [M_CELL] = {"cell", "row of /cells", "1", H5_I64, 0, NULL},
    [M_SAMPLE] = {"sample", "index in the dataset", "1", H5_I64, 0, NULL},
    [M_SPAN] = {"tokens", "tokens that the map covers, in 32 cells each way", "token", H5_I64, 0, NULL},
    [M_LAYER] = {"layer", "0 is nearest to the input", "1", H5_I64, 0, NULL},
    [M_HEAD] = {"head", "query head", "1", H5_I64, 0, NULL},
    [M_QUERY] = {"query_cell", "which part of the tokens asks", "1", H5_I64, 0, NULL},
    [M_KEPT] = {"kept", "keys attended by the sampled rows of the cell", "1", H5_F32, SPARSITY_MAP, "key_cell"},
    [M_CAUSAL] = {"causal", "keys that causality allows them", "1", H5_F32, SPARSITY_MAP, "key_cell"},
};

/* Column c of all map rows of one gathered cell, into to; returns its rows. */
static int64_t fill_map(const struct gather_cell *g, int c, int64_t first, void *to)
{
    const struct outcome_sparsity *s = &g->sparsity;
    int64_t n = 0, units = g->layers * s->heads, cells = SPARSITY_MAP * SPARSITY_MAP;
    for (int64_t m = 0; m < s->n_maps; m++)
        for (int64_t u = 0; u < units; u++)
            for (int64_t q = 0; q < SPARSITY_MAP; q++, n++) {
                const int64_t whole[M_WHOLE] = {first + n, g->cell, s->of[m].sample, s->of[m].span, u / s->heads, u % s->heads, q};
                if (c < M_WHOLE)
                    ((int64_t *)to)[n] = whole[c];
                else
                    memcpy((float *)to + n * SPARSITY_MAP,
                           (c == M_KEPT ? s->map + (m * units + u) * cells : s->causal + m * cells) + q * SPARSITY_MAP,
                           SPARSITY_MAP * sizeof(float));
            }
    return n;
}

static void write_maps(struct merge_out *o)
{
    int64_t n = 0, cell[SPARSITY_MAP];
    for (int c = 0; c < o->x->n_cells; c++)
        n += o->x->cell[c].sparsity.n_maps * o->x->cell[c].layers * o->x->cell[c].sparsity.heads * SPARSITY_MAP;
    struct table t = table_of(o, "/sparsity/map", n);
    if (t.all == 0)
        return;
    unsigned char *room = merge_room(n * SPARSITY_MAP / 2); /* floats */
    h5_group(o->f, t.group);
    for (int i = 0; i < SPARSITY_MAP; i++)
        cell[i] = i;
    put_scale(o, t.group, &(struct column){"key_cell", "which part of the tokens is seen", "1", H5_I64, SPARSITY_MAP, NULL}, cell);
    for (int k = 0; k < M_END; k++) {
        size_t each = k < M_WHOLE ? sizeof(int64_t) : SPARSITY_MAP * sizeof(float);
        n = 0;
        for (int c = 0; c < o->x->n_cells; c++)
            n += fill_map(&o->x->cell[c], k, t.first + n, room + (size_t)n * each);
        put(&t, &map_column[k], room);
    }
    free(room);
}

void merge_sparsity(struct merge_out *o)
{
    write_counters(o);
    write_maps(o);
}
