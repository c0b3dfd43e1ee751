/* Counters of attention: attention methods add to them, outcomes carry them off. */
#include "sched/sampled.h"

#include <stdlib.h>
#include <string.h>

#include "attn/attn.h"
#include "attn/sparsity.h"
#include "base/arena.h"
#include "base/err.h"
#include "comm/comm.h"
#include "model/model.h"
#include "sched/outcome.h"

enum { MAP_CELLS = SPARSITY_MAP * SPARSITY_MAP };

struct sampled {
    struct arena mem;
    int64_t layers, heads, span;
    struct sparsity *layer; /* (layers,) */
};

int sampled_open(struct sampled **out, const struct model_info *m, int64_t every)
{
    struct sparsity sizes = {.heads = m->heads, .every = every};
    struct sampled *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(ERR_NOMEM, "no memory for statistics of attention");
    int rc = arena_open(&s->mem, "statistics",
                        (size_t)m->layers * (sparsity_bytes(&sizes) + arena_bytes(1, sizeof *s->layer)) + arena_bytes(1, 1));
    s->layers = m->layers;
    s->heads = m->heads;
    if (!rc) {
        s->layer = ARENA_NEW0(&s->mem, s->layers, struct sparsity);
        rc = s->layer ? ERR_OK : ERR_NOMEM;
    }
    for (int64_t l = 0; l < s->layers && !rc; l++)
        rc = sparsity_make(&s->layer[l], &sizes, &s->mem);
    if (rc) {
        sampled_close(s);
        return rc;
    }
    *out = s;
    return ERR_OK;
}

void sampled_close(struct sampled *s)
{
    if (!s)
        return;
    arena_close(&s->mem);
    free(s);
}

static void clear_maps(struct sampled *s)
{
    for (int64_t l = 0; l < s->layers; l++) {
        memset(s->layer[l].map, 0, (size_t)(s->heads * MAP_CELLS) * sizeof(double));
        memset(s->layer[l].map_causal, 0, MAP_CELLS * sizeof(double));
    }
}

void sampled_begin(struct sampled *s, struct attn_stats *stats)
{
    for (int64_t l = 0; s && l < s->layers; l++) {
        memset(s->layer[l].cell, 0, (size_t)(s->heads * SPARSITY_BUCKETS) * sizeof *s->layer[l].cell);
        s->layer[l].seconds = 0;
        stats[l].more = &s->layer[l];
    }
    sampled_map(s, 0);
}

void sampled_map(struct sampled *s, int64_t span)
{
    if (!s)
        return;
    if (span > 0)
        clear_maps(s);
    s->span = span;
    for (int64_t l = 0; l < s->layers; l++)
        s->layer[l].span = span;
}

int sampled_keep_map(struct sampled *s, struct outcome *o, int64_t sample, const struct comm_group *g)
{
    if (!s || s->span == 0)
        return ERR_OK;
    float *map = NULL, *causal = NULL;
    int rc = comm_agree(g, outcome_add_map(o, &(struct outcome_map){sample, s->span}, s->heads, &map, &causal));
    if (rc)
        return rc;
    for (int64_t l = 0; l < s->layers; l++) {
        comm_sum_f64(g, s->layer[l].map, s->heads * MAP_CELLS);
        for (int64_t i = 0; i < s->heads * MAP_CELLS; i++)
            map[l * s->heads * MAP_CELLS + i] = (float)s->layer[l].map[i];
    }
    comm_sum_f64(g, s->layer[0].map_causal, MAP_CELLS);
    for (int64_t i = 0; i < MAP_CELLS; i++)
        causal[i] = (float)s->layer[0].map_causal[i];
    sampled_map(s, 0);
    return ERR_OK;
}

int sampled_end(struct sampled *s, struct outcome *o, const struct comm_group *g)
{
    int64_t each = s ? s->heads * SPARSITY_BUCKETS : 0;
    if (!s)
        return ERR_OK;
    o->sparsity.cell = calloc((size_t)(s->layers * each), sizeof *o->sparsity.cell);
    int rc = comm_agree(g, o->sparsity.cell ? ERR_OK : err_set(ERR_NOMEM, "no memory for statistics of attention"));
    if (rc)
        return rc;
    o->sparsity.heads = s->heads;
    for (int64_t l = 0; l < s->layers; l++) {
        memcpy(o->sparsity.cell + l * each, s->layer[l].cell, (size_t)each * sizeof *o->sparsity.cell);
        o->sparsity.seconds += s->layer[l].seconds;
    }
    comm_sum_f64(g, &o->sparsity.cell->rows, s->layers * each * SPARSITY_SUMS);
    comm_sum_f64(g, &o->sparsity.seconds, 1);
    return ERR_OK;
}
