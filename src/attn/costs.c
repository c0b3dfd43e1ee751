/* The two costs from synthetic tiles: a tile's tokens list about four times as many blocks as one of them does, as in text. */
#include "attn/costs.h"

#include <stdlib.h>
#include <string.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"

enum { KEYS = 16384, PART = 1024, NB = KEYS / KERN_KB, FAR = 16 * NB, LIST = 64, TIMES = 61 };

struct probe {
    const struct kern_table *k;
    struct kern_kv kv;
    struct kern_tile t;
    struct sparse_lane w;
    int64_t tokens, heads;
    int64_t blocks; /* in the union of the lists */
    int64_t tile;   /* how many there were */
};

static int64_t mixed(int64_t a, int64_t b)
{
    return (int64_t)(((uint32_t)a * LIST + (uint32_t)b) * 2654435761u >> 16);
}

/* The next tile. Each token lists LIST blocks of those below `past`, one of four each; the fours move on now and then. The
 * last one is the last of them. */
static void next_lists(struct probe *p, int64_t past)
{
    int64_t step = past / LIST;
    for (int64_t x = 0; x < p->tokens; x++) {
        int64_t token = p->tile * p->tokens + x;
        p->w.at->ptr[x + 1] = (x + 1) * LIST;
        for (int64_t j = 0; j < LIST; j++) {
            int64_t moved = mixed(0, j) + token / 64;
            p->w.at->list[x * LIST + j] = (int32_t)(j * step + (moved + mixed(token, j) % 4) % step);
        }
        p->w.at->list[x * LIST + LIST - 1] = (int32_t)(past - 1);
    }
    p->tile++;
}

static void by_masks(struct probe *p)
{
    p->blocks = sparse_masks(&p->w, p->tokens, p->heads);
}

static void by_blocks(struct probe *p)
{
    p->k->tile_begin(&p->t);
    p->k->tile_blocks(&p->t, &p->kv, p->w.in->block, p->w.in->mask, p->blocks);
    p->k->tile_end(&p->t, NULL);
}

static void by_gather(struct probe *p)
{
    p->k->tile_begin(&p->t);
    p->k->tile_gather(&p->t, &p->kv, p->w.at->ptr, p->w.at->list);
    p->k->tile_end(&p->t, NULL);
}

static int in_order(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

struct way {
    void (*work)(struct probe *);
    int64_t past;
};

/* By how many nanoseconds the second takes longer: in turn, by the medians, so that what disturbs does not count. */
static double difference(struct probe *p, struct way one, struct way other)
{
    struct way way[2] = {one, other};
    double t[2][TIMES];
    for (int i = 0; i < TIMES; i++)
        for (int k = 0; k < 2; k++) {
            next_lists(p, way[k].past);
            by_masks(p);
            double start = timer_now();
            way[k].work(p);
            t[k][i] = 1e9 * (timer_now() - start);
        }
    for (int k = 0; k < 2; k++)
        qsort(t[k], TIMES, sizeof t[k][0], in_order);
    return t[1][TIMES / 2] - t[0][TIMES / 2];
}

static int open_probe(struct probe *p, struct arena *a, int64_t dim)
{
    int64_t rows = p->tokens * p->heads;
    float *q = ARENA_NEW0(a, rows * dim, float), *row = ARENA_NEW0(a, PART * dim, float);
    int64_t *end = ARENA_NEW0(a, rows, int64_t);
    p->kv = (struct kern_kv){.dim = dim, .dtype = KERN_F32};
    p->kv.k = arena_alloc0(a, (int64_t)kern_kv_bytes(KERN_F32, dim, KEYS), 1);
    p->kv.v = arena_alloc0(a, (int64_t)kern_kv_bytes(KERN_F32, dim, KEYS), 1);
    p->t = (struct kern_tile){.rows = rows, .dim = dim, .q = q, .end = end, .share = p->heads};
    p->t.o = ARENA_NEW0(a, rows * dim, float);
    p->t.m = ARENA_NEW0(a, rows, float);
    p->t.l = ARENA_NEW0(a, rows, float);
    p->t.scratch = arena_alloc0(a, (int64_t)kern_tile_scratch(rows, dim), 1);
    p->w.at = &p->w.choice[0];
    p->w.in = &p->w.tile[0];
    p->w.at->list = ARENA_NEW0(a, p->tokens * LIST, int32_t);
    p->w.at->ptr = ARENA_NEW0(a, p->tokens + 1, int64_t);
    p->w.in->block = ARENA_NEW0(a, FAR, int32_t);
    p->w.in->mask = ARENA_NEW0(a, FAR, uint64_t);
    if (!q || !row || !end || !p->kv.k || !p->kv.v || !p->t.o || !p->t.m || !p->t.l || !p->t.scratch || !p->w.at->list ||
        !p->w.at->ptr || !p->w.in->block || !p->w.in->mask)
        return ERR_NOMEM;
    for (int64_t i = 0; i < rows; i++)
        end[i] = KEYS;
    for (int64_t i = 0; i < PART * dim; i++)
        row[i] = (float)(i * 37 % 101) / 101 - 0.5F;
    memcpy(q, row, (size_t)(rows * dim) * sizeof *q);
    for (int64_t i = 0; i < KEYS; i += PART)
        p->k->kv_append(&p->kv, row, row, dim, PART);
    return ERR_OK;
}

int attn_costs_measure(struct attn_costs *out, const struct kern_table *k, int64_t heads, int64_t dim)
{
    struct arena a;
    struct probe p = {.k = k, .heads = heads < KERN_MAX_ROWS ? heads : KERN_MAX_ROWS};
    p.tokens = KERN_MAX_ROWS / p.heads;
    int rc = arena_open(&a, "costs", (size_t)64 << 20);
    if (rc)
        return rc;
    rc = open_probe(&p, &a, dim < KERN_MAX_DIM ? dim : KERN_MAX_DIM);
    if (!rc) {
        double each = difference(&p, (struct way){by_masks, NB}, (struct way){by_masks, FAR}) / (FAR - NB);
        double merge = difference(&p, (struct way){by_blocks, NB}, (struct way){by_gather, NB}) / (double)(p.tokens * LIST);
        *out = (struct attn_costs){each > 0.01 ? each : 0.01, merge > 0.01 ? merge : 0.01};
    }
    arena_close(&a);
    return rc;
}
