/* Dense tiles on the engine of kernels/simd_tile.h: whole panels that every row sees, then the end where rows see each a little
 * more than the one before; what only a window's begin cuts goes block by block. */
#ifndef AST_KERNELS_SIMD_DENSE_H
#define AST_KERNELS_SIMD_DENSE_H

#include "kernels/simd_tile.h"

/* Rows r0 .. r1-1 and n blocks from `block` on, which are at slot `at` of their lines. */
static struct run *set_run(struct engine *e, int64_t r0, int64_t r1, int64_t block, int64_t n, int64_t at)
{
    struct run *u = &e->run[0];
    u->rows = r1 - r0, u->n = n;
    u->beside = true;
    for (int64_t i = 0; i < u->rows; i++)
        u->row[i] = (uint8_t)(r0 + i), u->slot[i] = (uint8_t)at;
    for (int64_t b = 0; b < n; b++)
        u->block[b] = (int32_t)(block + b);
    return u;
}

/* Whole panels that every row sees all of, block .. block1: one run each, nothing to look up. Returns where it stops. */
static int64_t whole_panels(struct engine *e, int64_t block, int64_t block1)
{
    int64_t rows = e->t->rows;
    for (; block + TILE_PANEL <= block1 && (block + TILE_PANEL) * KERN_KB <= e->min_end; block += TILE_PANEL) {
        set_run(e, 0, rows, block, TILE_PANEL, 0);
        memset(e->used, TILE_PANEL, (size_t)rows);
        e->n_runs = 1;
        flush(e);
    }
    return block;
}

/* Do rows see their past in the order that they have, from its begin on? */
static bool causal(const struct engine *e, int64_t block)
{
    bool ascend = e->max_begin <= block * KERN_KB;
    for (int64_t r = 1; r < e->t->rows; r++)
        ascend = ascend && e->t->end[r] >= e->t->end[r - 1];
    return ascend;
}

/* Where row r ends up, and what the caller reads soon. */
INL void fetch_row(const struct engine *e, int64_t r)
{
    for (int64_t i = 0; i < e->t->dim && e->t->to; i += 16)
        __builtin_prefetch(e->t->to[r] + i, 1, 2);
    for (int64_t i = 0; i < e->t->dim && e->t->soon; i += 16)
        __builtin_prefetch(e->t->soon[r] + i, 0, 2);
}

/* The end of causal rows, one panel: scores of pairs of blocks for all rows that see the first of them, values by rows that see
 * equally many. What a row has in its line past `used` is never read. */
static void last_panel(struct engine *e, int64_t block, int64_t n)
{
    int64_t rows = e->t->rows;
    for (int64_t r = 0; r < rows; r++) {
        int64_t end = e->t->end[r] < e->kv->n ? e->t->end[r] : e->kv->n, sees = (end + KERN_KB - 1) / KERN_KB - block;
        e->used[r] = (uint8_t)(sees <= 0 ? 0 : sees < n ? sees : n);
    }
    for (int64_t b = 0, r = 0; b < n; b += 2) {
        while (r < rows && e->used[r] <= b)
            r++;
        struct run *u = set_run(e, r, rows, block + b, b + 2 <= n ? 2 : 1, b);
        scores_of_run(e, u);
        mask_edges(e, u);
    }
    for (int64_t r = 0; r < rows; r++) {
        fetch_row(e, r);
        exp_line(e, r);
    }
    for (int64_t r = 0, next; r < rows; r = next) {
        for (next = r + 1; next < rows && e->used[next] == e->used[r];)
            next++;
        if (e->used[r])
            values_of_run(e, set_run(e, r, next, block, e->used[r], 0));
    }
    memset(e->used, 0, sizeof e->used);
}

/* What is to come is asked for in equal parts, one at each product of n blocks. */
static void set_pace(struct engine *e, int64_t n)
{
    enum { MOST = 20 * 64 };
    int64_t rows = e->t->rows, all = (e->t->ahead1 - e->t->ahead0) * e->steps * KERN_KB * (int64_t)sizeof(float);
    int64_t calls[2] = {(rows + QK_SIDE - 1) / QK_SIDE * ((n + 1) / 2),
                        (rows + PV_ROWS - 1) / PV_ROWS * ((n + TILE_PANEL - 1) / TILE_PANEL)};
    calls[1] *= (e->t->dim + PV_VECS * W - 1) / (PV_VECS * W);
    e->first = e->t->ahead0, e->n_ahead = e->t->ahead1 - e->t->ahead0;
    for (int what = 0; what < 2 && n > 0; what++) {
        int64_t each = (all / calls[what] + 64) / 64 * 64;
        e->pace[what] = each < MOST ? each : MOST;
    }
}

/* Few rows: so far that memory has time, so near that it stays in the second-level cache. */
static void look_ahead(struct engine *e)
{
    enum { FAR = 8 };
    const struct kern_tile *t = e->t;
    e->from = t->begin ? t->begin[0] / KERN_KB : 0;
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t end = (t->end[r] + KERN_KB - 1) / KERN_KB;
        e->last = end > e->last ? end : e->last;
        if (t->begin && t->begin[r] / KERN_KB < e->from)
            e->from = t->begin[r] / KERN_KB;
    }
    e->far = e->last - e->from < FAR ? e->last - e->from : FAR;
    e->then = t->then;
}

static void tile_dense(const struct kern_tile *t, const struct kern_kv *kv, int64_t block0, int64_t block1)
{
    struct engine e;
    start(&e, t, kv);
    if (t->rows > FEW)
        set_pace(&e, block1 - block0);
    else
        look_ahead(&e);
    int64_t b = block0;
    while (b < block1 && b * KERN_KB < e.max_begin)
        push(&e, (int32_t)b++, all_rows(t->rows));
    flush(&e);
    if (t->rows > FEW) { /* fewer wait for memory: see fetch */
        queries(&e, block1 - b);
        b = whole_panels(&e, b, block1);
        for (; causal(&e, b) && b < block1; b += TILE_PANEL)
            last_panel(&e, b, block1 - b < TILE_PANEL ? block1 - b : TILE_PANEL);
    }
    for (; b < block1; b++)
        push(&e, (int32_t)b, all_rows(t->rows));
    flush(&e);
}

#endif
