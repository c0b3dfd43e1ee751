/* Attention tiles in the vocabulary of <isa>/simd.h: one engine for dense, block-sparse and gathered tiles.
 *
 * Work comes as a sequence of (block, mask of the rows that see it). Runs of blocks with one mask make register-blocked
 * products S = Q K^T of the masked rows alone; a row's scores lie side by side in its line of the panel. When a line is
 * full, exponentials are taken and P V is added run by run. So no work is done on a union of selections, while rows that
 * share a block share its loads. The includer defines TILE_DOT: 1 with an instruction for bf16, and then
 *     VDOT(acc, k, q)    acc += k.even q.even + k.odd q.odd
 *     STORE_BF16(p, x)   W floats to bf16 at p */
#ifndef AST_KERNELS_SIMD_TILE_H
#define AST_KERNELS_SIMD_TILE_H

#include <math.h>
#include <string.h>

#include "kernels/simd_value.h"

enum {
    FEW = 8,
    AHEAD = 4,
    RUNS = 24
}; /* rows of a tile that is decoded; blocks between one that is used and one that is asked for */

/* A run of blocks that the same rows see; columns at .. at + n in the line of row[i] start at slot[i] blocks. */
struct run {
    int64_t rows, n;
    bool beside; /* row[i] = row[0] + i, and all slots are one */
    uint8_t row[KERN_MAX_ROWS], slot[KERN_MAX_ROWS];
    int32_t block[TILE_PANEL];
};

struct engine {
    const struct kern_tile *t;
    const struct kern_kv *kv;
    const float *q, *side; /* (rows, q_len) 4-byte numbers; (q_len, KERN_MAX_ROWS): the same, or NULL */
    int64_t steps, q_len;  /* steps of a score; numbers of a query */
    int64_t v_rows, p_len; /* rows of 4-byte numbers of V in a block; numbers of P */
    int64_t min_end, max_begin;
    float *s, *lanes;
    struct run run[RUNS];
    int n_runs, longest;
    const int32_t *ahead; /* blocks that come, NULL: those from `first` on */
    int64_t first;
    int ahead_halves;            /* 1: half blocks */
    int64_t n_ahead, next[2];    /* how many; the next to fetch of keys, of values */
    int64_t line[2], pace[2];    /* where in it; how much to ask for at a time: bytes */
    uint64_t mask;               /* of the last run */
    uint8_t used[KERN_MAX_ROWS]; /* blocks in each row's line */
    int64_t far, from, last;     /* few rows: how many blocks ahead to ask for, 0: not here; they see the blocks from .. last-1 */
    const struct kern_kv *then;  /* and so do those of the next head */
};

/* Few rows wait for memory more than they compute. What is `far` blocks after this one, of this head or the next: of both the
 * products ask for as much as they read, so that memory is never idle; nothing to come: the block itself. */
INL const float *block_after(const struct engine *e, int64_t block, const int what)
{
    const struct kern_kv *kv = e->kv;
    if (block + e->far < e->last)
        block += e->far;
    else if (e->far && e->then)
        block += e->far - e->last + e->from, kv = e->then;
    return what ? (const float *)kv->v + block * e->v_rows * e->t->dim : (const float *)kv->k + block * e->steps * KERN_KB;
}

/* Asks for some lines of the keys (0) or values (1) that come: scattered blocks come from far, and a tile's list is known
 * before. A few at a time, between products: a core has room for a dozen lines on their way, and waits when it asks for more. */
INL void fetch_some(struct engine *e, const int what)
{
    int64_t i = e->next[what], half = e->ahead_halves;
    if (i >= e->n_ahead)
        return;
    int64_t block = e->ahead ? e->ahead[i] : e->first + i;
    if (half && !what && i > 0 && e->ahead[i - 1] / 2 == e->ahead[i] / 2) { /* a line of keys holds both halves of a dim */
        e->next[what]++;
        return;
    }
    int64_t bytes = e->steps * KERN_KB * (int64_t)sizeof(float) >> (what ? half : 0); /* values of an odd d in bf16 take no more */
    const char *p = (const char *)(what ? e->kv->v : e->kv->k) + (block >> (what ? 0 : half)) * bytes;
    int64_t from = e->line[what], to = from + e->pace[what] < bytes ? from + e->pace[what] : bytes;
    for (int64_t at = from; at < to; at += 64)
        __builtin_prefetch(p + at, 0, 2);
    e->line[what] = to == bytes ? 0 : to;
    e->next[what] += to == bytes;
}

/* ---- scores of a run ---- */

/* Of the run's blocks from `b` on, rows wherever they lie. */
static void scores_of_rows(struct engine *e, const struct run *u, int64_t from)
{
    bool bf16 = e->kv->dtype == KERN_BF16;
    int64_t block_size = e->steps * KERN_KB;
    for (int64_t i = 0; i < u->rows;) {
        int mr = u->rows - i < QK_ROWS ? (int)(u->rows - i) : QK_ROWS;
        const float *q[QK_ROWS], *k[4], *soon;
        float *s[QK_ROWS];
        int most = W == 16 ? (mr <= 4 ? 4 : 2) : mr == 1 ? 4 : mr <= 3 ? 2 : 1;
        for (int r = 0; r < mr; r++)
            q[r] = e->q + u->row[i + r] * e->q_len;
        for (int64_t b = from; b < u->n;) {
            int nb = most;
            while (nb > u->n - b)
                nb /= 2;
            for (int x = 0; x < nb; x++)
                k[x] = (const float *)e->kv->k + u->block[b + x] * block_size;
            for (int r = 0; r < mr; r++)
                s[r] = e->s + u->row[i + r] * TILE_LD + (u->slot[i + r] + b) * KERN_KB;
            fetch_some(e, 0);
            soon = block_after(e, u->block[b], 0);
            (bf16 ? qk_rows_BF16 : qk_rows_F32)(mr, nb, q, k, e->steps, s, soon, soon == k[0] ? 0 : KERN_KB);
            b += nb;
        }
        i += mr;
    }
}

#if defined(__AVX512F__)
/* Of pairs of blocks, rows side by side. Returns how many blocks this has done. */
static int64_t scores_beside(struct engine *e, const struct run *u)
{
    bool bf16 = e->kv->dtype == KERN_BF16;
    int64_t most = bf16 && !TILE_DOT ? QK_SIDE_WIDE : QK_SIDE, groups = (u->rows + most - 1) / most;
    if (!e->side || !u->beside || u->rows <= 2 * QK_ROWS)
        return 0;
    for (int64_t b = 0; b + 2 <= u->n; b += 2) { /* outside: two blocks stay in the first-level cache, and so do the queries */
        const float *k[2];
        for (int x = 0; x < 2; x++)
            k[x] = (const float *)e->kv->k + u->block[b + x] * e->steps * KERN_KB;
        for (int64_t g = 0; g < groups; g++) { /* as even as may be: 8 rows and more */
            int64_t i = g * u->rows / groups, end = (g + 1) * u->rows / groups;
            float *s[QK_SIDE];
            for (int64_t r = i; r < end; r++)
                s[r - i] = e->s + u->row[r] * TILE_LD + (u->slot[r] + b) * KERN_KB;
            fetch_some(e, 0);
            (bf16 ? qk_side_BF16 : qk_side_F32)((int)(end - i), e->side + u->row[i], k, e->steps, s);
        }
    }
    return u->n / 2 * 2;
}
#else
static int64_t scores_beside(struct engine *e, const struct run *u)
{
    (void)e, (void)u;
    return 0;
}
#endif

static void scores_of_run(struct engine *e, const struct run *u)
{
    scores_of_rows(e, u, scores_beside(e, u));
}

/* -INFINITY where a row may not look: only blocks at the edge of begin and end get here */
static void mask_edges(const struct engine *e, const struct run *u)
{
    for (int64_t b = 0; b < u->n; b++) {
        int64_t first = (int64_t)u->block[b] * KERN_KB;
        if (first >= e->max_begin && first + KERN_KB <= e->min_end)
            continue;
        for (int64_t i = 0; i < u->rows; i++) {
            int64_t r = u->row[i], end = e->t->end[r] < e->kv->n ? e->t->end[r] : e->kv->n;
            int64_t from = e->t->begin ? e->t->begin[r] - first : 0, to = end - first;
            float *s = e->s + r * TILE_LD + (u->slot[i] + b) * KERN_KB;
            if (from > 0 || to < KERN_KB)
                for (int x = 0; x < VB; x++)
                    vstore(s + x * W, vkeep(vload(s + x * W), from - x * W, to - x * W));
        }
    }
}

/* ---- exponentials of one row's line ---- */

INL float exponent_of(float m) /* M of m = M ln 2 */
{
    return m == -INFINITY ? 0 : rintf(m * LOG2E_F);
}

/* m = now ln 2, and what follows from it. */
static void set_exponent(const struct kern_tile *t, int64_t r, float now)
{
    struct tile_head *head = tile_head(t);
    t->m[r] = (float)((double)now * 0.69314718055994530942);
    head->shift[r] = vexp_shift(now);
    head->least[r] = now * 0.693147181F - 86;
}

static void raise_exponent(const struct engine *e, int64_t r, float top)
{
    const struct kern_tile *t = e->t;
    float old = exponent_of(t->m[r]), now = ceilf(top * LOG2E_F);
    if (!(top < INFINITY) || (t->m[r] != -INFINITY && now <= old))
        return;
    if (t->m[r] != -INFINITY) {
        float *o = t->o + r * t->dim, *lanes = e->lanes + r * KERN_KB;
        vf by = vscale2(vset1(1), vset1(fmaxf(old - now, -200)));
        int64_t i = 0;
        for (; i + W <= t->dim; i += W)
            vstore(o + i, vmul(vload(o + i), by));
        vstore_n(o + i, vmul(vload_n(o + i, t->dim - i), by), t->dim - i);
        for (i = 0; i < KERN_KB; i += W)
            vstore(lanes + i, vmul(vload(lanes + i), by));
    }
    set_exponent(t, r, now);
}

/* n scores, a constant. */
INL void exp_scores(const struct engine *e, int64_t r, const int64_t n)
{
    float *s = e->s + r * TILE_LD, *lanes = e->lanes + r * KERN_KB;
#if TILE_DOT
    bool bf16 = e->kv->dtype == KERN_BF16;
#endif
    const struct tile_head *head = tile_head(e->t);
    vf top = vset1(-INFINITY), sum[VB];
    UNROLL
    for (int64_t i = 0; i < n; i += W)
        top = vmax(vload(s + i), top); /* a NaN score is passed over */
    if (vany_gt(top, vset1(e->t->m[r])))
        raise_exponent(e, r, vtop(top));
    vf shift = vset1(head->shift[r]), least = vset1(head->least[r]);
    UNROLL
    for (int u = 0; u < VB; u++)
        sum[u] = vload(lanes + u * W);
    UNROLL
    for (int64_t i = 0; i < n; i += W) {
        int u = (int)(i / W % VB);
        vf p = vexp_shifted(vload(s + i), shift, least);
#if TILE_DOT
        if (bf16) {
            char *pair = (char *)s + 2 * i; /* behind what is read */
            STORE_BF16(pair, p);
            p = vload_bf16(pair);
        } else
#endif
            vstore(s + i, p);
        sum[u] = vadd(sum[u], p);
    }
    UNROLL
    for (int u = 0; u < VB; u++)
        vstore(lanes + u * W, sum[u]);
}

static void exp_line(const struct engine *e, int64_t r)
{
    switch (e->used[r]) { /* in straight code: lines are short */
#define EXP_CASE(blocks)                                                                                                           \
    case blocks: exp_scores(e, r, (blocks)*KERN_KB); break;
        EXP_CASE(1)
        EXP_CASE(2)
        EXP_CASE(3)
        EXP_CASE(4)
        EXP_CASE(5)
        EXP_CASE(6)
        EXP_CASE(7)
        EXP_CASE(TILE_PANEL)
    }
}
_Static_assert(TILE_PANEL == 8, "a case for each length of a line");

/* Rows of V in a block that hold no value: the sequence may end within. */
static int64_t rows_without_values(const struct engine *e, int64_t block)
{
    int64_t keys = e->kv->n - block * KERN_KB, each = KERN_KB / e->v_rows;
    return keys < KERN_KB ? (KERN_KB - keys) / each : 0;
}

static void values_of_run(struct engine *e, const struct run *u)
{
    bool bf16 = e->kv->dtype == KERN_BF16;
    int64_t d = e->t->dim, vecs = d / W, most = e->far ? PV_ROWS - 1 : PV_ROWS; /* fewer ask for what comes */
    struct pv c = {.n = u->n, .d = d, .v_rows = e->v_rows, .v_less = rows_without_values(e, u->block[u->n - 1])};
    for (int64_t at = 0; at * W < d;) { /* outside: these dims of the blocks stay in the first-level cache */
        int nv = vecs - at >= PV_VECS ? PV_VECS : (int)(vecs - at);
        for (int64_t b = 0; b < u->n; b++) {
            c.v[b] = (const float *)e->kv->v + u->block[b] * e->v_rows * d + at * W;
            c.soon[b] = block_after(e, u->block[b], 1) + at * W;
        }
        for (int64_t i = 0; i < u->rows; i += most) {
            int mr = (int)(u->rows - i < most ? u->rows - i : most);
            for (int r = 0; r < mr; r++) {
                c.p[r] = e->s + u->row[i + r] * TILE_LD + u->slot[i + r] * e->p_len;
                c.o[r] = e->t->o + u->row[i + r] * d + at * W;
            }
            fetch_some(e, 1);
            (bf16 ? pv_BF16 : pv_F32)(mr, nv, d - at * W, &c);
        }
        at += nv ? nv : 1;
    }
}

/* ---- the sequence of blocks ---- */

static void flush(struct engine *e)
{
    for (int i = 0; i < e->n_runs; i++) {
        scores_of_run(e, &e->run[i]);
        mask_edges(e, &e->run[i]);
    }
    for (int64_t r = 0; r < e->t->rows; r++)
        if (e->used[r])
            exp_line(e, r);
    for (int i = 0; i < e->n_runs; i++) {
        values_of_run(e, &e->run[i]);
    }
    memset(e->used, 0, sizeof e->used);
    e->n_runs = e->longest = 0;
    e->mask = 0;
}

/* The rows of mask that see any key of the block. */
static uint64_t visible(const struct engine *e, int64_t block, uint64_t mask)
{
    int64_t first = block * KERN_KB, last = first + KERN_KB;
    if (first >= e->max_begin && last <= e->min_end)
        return mask;
    for (int64_t r = 0; r < e->t->rows; r++) {
        int64_t begin = e->t->begin ? e->t->begin[r] : 0;
        int64_t end = e->t->end[r] < e->kv->n ? e->t->end[r] : e->kv->n;
        bool sees = (begin > first ? begin : first) < (end < last ? end : last);
        mask &= ~((uint64_t)!sees << r);
    }
    return mask;
}

/* Few rows: a block's keys and values are asked for when the block is listed, unless they were before. */
static void fetch(const struct engine *e, int32_t block)
{
    int64_t keys = e->steps * KERN_KB, values = e->v_rows * e->t->dim;
    const float *k = (const float *)e->kv->k + block * keys, *v = (const float *)e->kv->v + block * values;
    for (int64_t i = 0; i < keys; i += 16)
        __builtin_prefetch(k + i);
    for (int64_t i = 0; i < values; i += 16)
        __builtin_prefetch(v + i);
}

static void push(struct engine *e, int32_t block, uint64_t mask)
{
    mask = visible(e, block, mask);
    if (!mask)
        return;
    if (e->longest == TILE_PANEL || (mask != e->mask && e->n_runs == RUNS))
        flush(e);
    if (mask != e->mask) {
        struct run *u = &e->run[e->n_runs++];
        u->rows = u->n = 0;
        for (uint64_t left = mask; left; left &= left - 1) {
            int r = __builtin_ctzll(left);
            u->row[u->rows] = (uint8_t)r;
            u->slot[u->rows++] = e->used[r];
        }
        u->beside = false;
        e->mask = mask;
    }
    struct run *u = &e->run[e->n_runs - 1];
    u->block[u->n++] = block;
    if (e->t->rows <= FEW && !e->far)
        fetch(e, block);
    for (int64_t i = 0; i < u->rows; i++) {
        int used = ++e->used[u->row[i]];
        e->longest = used > e->longest ? used : e->longest;
    }
}

static uint64_t all_rows(int64_t rows)
{
    return rows >= 64 ? ~0ull : (1ull << rows) - 1;
}

/* The query of row r as the products take it; TILE_DOT's pairs of bf16, and zeros up to whole steps. */
static void copy_query(const struct engine *e, int64_t r, float *to)
{
    const float *q = e->t->q + r * e->t->dim;
    int64_t d = e->t->dim, i = 0;
#if TILE_DOT
    if (e->kv->dtype == KERN_BF16) {
        float rest[W];
        for (; i + W <= d; i += W)
            STORE_BF16((char *)to + 2 * i, vload(q + i));
        if (i < d) {
            STORE_BF16(rest, vload_n(q + i, d - i));
            memcpy((char *)to + 2 * i, rest, (size_t)(4 * e->q_len - 2 * i));
        }
        return;
    }
#endif
    for (; i < d; i++)
        to[i] = q[i];
    for (; i < e->q_len; i++)
        to[i] = 0;
}

/* The queries, numbers of all rows side by side. */
static void turn_queries(const struct engine *e, float *side)
{
    int64_t rows = e->t->rows, c = 0;
    for (; c + W <= e->q_len; c += W)
        for (int64_t r = 0; r < rows; r += W) {
            vf x[W];
            for (int i = 0; i < W; i++)
                x[i] = r + i < rows ? vload(e->q + (r + i) * e->q_len + c) : vzero();
            vtranspose(x);
            for (int i = 0; i < W; i++)
                vstore(side + (c + i) * KERN_MAX_ROWS + r, x[i]);
        }
    for (; c < e->q_len; c++)
        for (int64_t r = 0; r < rows; r++)
            side[c * KERN_MAX_ROWS + r] = e->q[r * e->q_len + c];
}

/* Queries once a tile, however many calls it takes: its head in the scratch says that they are there. */
static void queries(struct engine *e, int64_t blocks)
{
    struct tile_head *head = tile_head(e->t);
    float *q = tile_queries(e->t), *side = tile_side(e->t);
    bool own = e->kv->dtype == KERN_BF16 && (TILE_DOT || e->t->dim % 2);
    for (int64_t r = 0; r < e->t->rows && own && !head->queries; r++)
        copy_query(e, r, q + r * e->q_len);
    e->q = own ? q : e->t->q;
    head->queries = true;
    e->side = NULL;
    if (W < 16 || e->t->rows <= 2 * QK_ROWS || blocks < TILE_PANEL)
        return;
    if (!head->side)
        turn_queries(e, side);
    head->side = true;
    e->side = side;
}

static void start(struct engine *e, const struct kern_tile *t, const struct kern_kv *kv)
{
    bool bf16 = kv->dtype == KERN_BF16;
    e->t = t;
    e->kv = kv;
    e->steps = bf16 ? (t->dim + 1) / 2 : t->dim;
    e->q_len = bf16 && !TILE_DOT ? 2 * e->steps : e->steps;
    e->v_rows = bf16 ? KERN_KB / 2 : KERN_KB;
    e->p_len = bf16 && TILE_DOT ? KERN_KB / 2 : KERN_KB;
    e->s = tile_scores(t);
    e->lanes = tile_lanes(t);
    e->n_runs = e->longest = 0;
    e->far = e->from = e->last = 0;
    e->then = NULL;
    e->ahead = NULL;
    e->ahead_halves = 0;
    e->pace[0] = e->pace[1] = 6 * 64;
    e->first = e->n_ahead = e->next[0] = e->next[1] = e->line[0] = e->line[1] = 0;
    e->mask = 0;
    memset(e->used, 0, sizeof e->used);
    e->min_end = kv->n;
    e->max_begin = 0;
    for (int64_t r = 0; r < t->rows; r++) {
        e->min_end = t->end[r] < e->min_end ? t->end[r] : e->min_end;
        if (t->begin && t->begin[r] > e->max_begin)
            e->max_begin = t->begin[r];
    }
    queries(e, 0);
}

static void tile_begin(const struct kern_tile *t)
{
    memset(t->o, 0, (size_t)(t->rows * t->dim) * sizeof(float));
    memset(tile_lanes(t), 0, (size_t)(t->rows * KERN_KB) * sizeof(float));
    tile_head(t)->queries = tile_head(t)->side = false;
    for (int64_t r = 0; r < t->rows; r++) {
        set_exponent(t, r, 0);
        t->m[r] = -INFINITY;
        t->l[r] = 0;
    }
}

static void tile_end(const struct kern_tile *t, float *lse)
{
    for (int64_t r = 0; r < t->rows; r++) {
        const float *o = t->o + r * t->dim;
        float *to = t->to ? t->to[r] : t->o + r * t->dim;
        vf sum = vload(tile_lanes(t) + r * KERN_KB);
        for (int u = 1; u < VB; u++)
            sum = vadd(sum, vload(tile_lanes(t) + r * KERN_KB + u * W));
        t->l[r] = vsum(sum);
        bool none = t->l[r] == 0;
        vf by = vset1(none ? 0 : 1 / t->l[r]);
        int64_t i = 0;
        for (; i + W <= t->dim; i += W)
            vstore(to + i, none ? vzero() : vmul(vload(o + i), by));
        vstore_n(to + i, none ? vzero() : vmul(vload_n(o + i, t->dim - i), by), t->dim - i);
        if (lse)
            lse[r] = none ? -INFINITY : t->m[r] + logf(t->l[r]);
    }
}

#endif
