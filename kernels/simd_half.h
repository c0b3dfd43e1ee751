/* Lists of half blocks, 8 keys each, on the engine of kernels/simd_tile.h.
 *
 * Keys lie in blocks of 16, so scores are taken of whole blocks for all rows that see any of it, and the half that a row
 * does not see is masked: a product costs the same for 8 lanes and for 16. P V is added for the keys that are seen alone.
 * Rows of a run stand in three parts: those that see both halves, the first half only, the second only. */
#ifndef AST_KERNELS_SIMD_HALF_H
#define AST_KERNELS_SIMD_HALF_H

#include "kernels/simd_tile.h"

enum { HALF = KERN_KB / 2 };

struct halves {
    struct engine e;
    int64_t both[RUNS], first[RUNS]; /* rows of run i by part; the rest see the second half */
    uint64_t see[2];                 /* of the last run: the rows that see each half */
    const int32_t *list;             /* half blocks to come, for fetching them ahead */
    int64_t n, next[2];              /* how many; the next to fetch of keys, of values */
};

/* Adds values of half `which` of the run's blocks to its rows from .. end-1. */
static void values_of_half(struct engine *e, const struct run *u, int64_t from, int64_t end, int which)
{
    bool bf16 = e->kv->dtype == KERN_BF16;
    int64_t d = e->t->dim, vecs = d / W, skip = which * e->v_rows / 2;
    struct pv c = {.n = 1, .d = d, .v_rows = e->v_rows / 2};
    for (int64_t b = 0; b < u->n; b++)
        for (int64_t i = from; i < end; i += PV_ROWS) {
            int mr = end - i < PV_ROWS ? (int)(end - i) : PV_ROWS;
            for (int r = 0; r < mr; r++)
                c.p[r] = e->s + u->row[i + r] * TILE_LD + (u->slot[i + r] + b) * e->p_len + which * e->p_len / 2;
            for (int64_t at = 0; at * W < d;) {
                int nv = vecs - at >= PV_VECS ? PV_VECS : (int)(vecs - at);
                for (int r = 0; r < mr; r++)
                    c.o[r] = e->t->o + u->row[i + r] * d + at * W;
                c.v[0] = c.soon[0] = (const float *)e->kv->v + (u->block[b] * e->v_rows + skip) * d + at * W;
                fetch_some(e, 1);
                (bf16 ? pv_BF16 : pv_F32)(mr, nv, d - at * W, &c);
                at += nv ? nv : 1;
            }
        }
}

/* -INFINITY where rows from .. end-1 do not see a half: all but half `seen`. */
static void hide_half(const struct engine *e, const struct run *u, int64_t from, int64_t end, int seen)
{
    int64_t first = seen * HALF;
    for (int64_t i = from; i < end; i++)
        for (int64_t b = 0; b < u->n; b++) {
            float *s = e->s + u->row[i] * TILE_LD + (u->slot[i] + b) * KERN_KB;
            for (int x = 0; x < VB; x++)
                vstore(s + x * W, vkeep(vload(s + x * W), first - x * W, first + HALF - x * W));
        }
}

static void flush_halves(struct halves *h)
{
    struct engine *e = &h->e;
    for (int i = 0; i < e->n_runs; i++) {
        const struct run *u = &e->run[i];
        scores_of_run(e, u);
        mask_edges(e, u);
        hide_half(e, u, h->both[i], h->both[i] + h->first[i], 0);
        hide_half(e, u, h->both[i] + h->first[i], u->rows, 1);
    }
    for (int64_t r = 0; r < e->t->rows; r++)
        if (e->used[r])
            exp_line(e, r);
    for (int i = 0; i < e->n_runs; i++) {
        struct run *u = &e->run[i];
        int64_t rows = u->rows, one = h->both[i] + h->first[i];
        u->rows = h->both[i];
        values_of_run(e, u);
        values_of_half(e, u, u->rows, one, 0);
        values_of_half(e, u, one, rows, 1);
    }
    memset(e->used, 0, sizeof e->used);
    e->n_runs = e->longest = 0;
}

static int64_t add_rows(const struct engine *e, struct run *u, uint64_t rows)
{
    int64_t before = u->rows;
    for (; rows; rows &= rows - 1) {
        int r = __builtin_ctzll(rows);
        u->row[u->rows] = (uint8_t)r;
        u->slot[u->rows++] = e->used[r];
    }
    return u->rows - before;
}

/* A block, with the rows that see its first and its second half. */
static void push_halves(struct halves *h, int32_t block, uint64_t first, uint64_t second)
{
    struct engine *e = &h->e;
    uint64_t rows = visible(e, block, first | second);
    first &= rows, second &= rows;
    if (!rows)
        return;
    bool same = e->n_runs > 0 && first == h->see[0] && second == h->see[1];
    if (e->longest == TILE_PANEL || (!same && e->n_runs == RUNS)) {
        flush_halves(h);
        same = false;
    }
    if (!same) {
        struct run *u = &e->run[e->n_runs];
        u->rows = u->n = 0;
        u->beside = false;
        h->both[e->n_runs] = add_rows(e, u, first & second);
        h->first[e->n_runs++] = add_rows(e, u, first & ~second);
        add_rows(e, u, second & ~first);
        h->see[0] = first, h->see[1] = second;
    }
    struct run *u = &e->run[e->n_runs - 1];
    u->block[u->n++] = block;
    for (int64_t i = 0; i < u->rows; i++) {
        int used = ++e->used[u->row[i]];
        e->longest = used > e->longest ? used : e->longest;
    }
}

static void tile_halves(const struct kern_tile *t, const struct kern_kv *kv, const int32_t *half, const uint64_t *mask, int64_t n)
{
    struct halves h;
    uint64_t all = all_rows(t->rows);
    start(&h.e, t, kv);
    h.e.ahead = half, h.e.n_ahead = n, h.e.ahead_halves = 1;
    h.see[0] = h.see[1] = 0;
    for (int64_t i = 0; i < n;) {
        int32_t block = half[i] / 2;
        uint64_t see[2] = {0, 0};
        for (; i < n && half[i] / 2 == block; i++)
            see[half[i] % 2] |= mask ? mask[i] & all : all;
        for (int what = 0; what < 2; what++)
            h.e.next[what] = h.e.next[what] > i + AHEAD ? h.e.next[what] : i + AHEAD;
        push_halves(&h, block, see[0], see[1]);
    }
    flush_halves(&h);
}

#endif
