/* Linear layers in AMX tiles: a tile of weights is 16 steps of a block, just as it lies; one of x is 16 rows of 16 pairs. Tiles
 * have no f32 products: those stay with vectors.
 *   source   Intel Architecture Instruction Set Extensions, TDPBF16PS: pairs are added in order, below normal numbers is zero */
#include <immintrin.h>
#include <string.h>

#include "kernels/gemm_out.h"

extern const struct kern_table kern_avx512_gemm, kern_amx;

#define INL static inline __attribute__((always_inline))
/* Compilers do not see what tiles read. */
#define WRITTEN() __asm__ volatile("" ::: "memory")

enum {
    SIDE = 16,  /* rows, steps and outputs of a tile */
    LINE = 64,  /* bytes of its line */
    SOON = 64,  /* few rows: weights are asked for so many steps before, */
    STARTS = 4, /* and of the next blocks the first lines of each page: the hardware follows */
    BLOCKS = 4, /* many rows meet so many blocks before the next rows do */
    PAGE = 4096
};

/* Tiles 0 .. 3: sums of rows (0, 1) x blocks (0, 1); 4, 5: rows; 6, 7: weights. */
struct shape {
    int rows[2], steps;
};

/* How large tiles are; clears them. */
static void set_shape(struct shape *now, struct shape want)
{
    struct {
        uint8_t palette, start, zero[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1};
    if (!memcmp(now, &want, sizeof want))
        return;
    *now = want;
    for (int t = 0; t < 8; t++) {
        int of = t < 4 ? t / 2 : t - 4, rows = t < 6 ? want.rows[of] : want.steps;
        c.rows[t] = (uint8_t)rows;
        c.bytes[t] = (uint16_t)(rows ? (t == 4 || t == 5 ? want.steps * (int)sizeof(float) : LINE) : 0);
    }
    WRITTEN();
    _tile_loadconfig(&c);
}

/* Up to two tiles of rows and two blocks. */
struct square {
    const char *x[2], *w[2], *next[2]; /* next: blocks that come, NULL: nothing is asked for */
    int64_t ldx, steps;                /* bytes; of the call */
    int64_t part, parts;               /* of each 16 lines of next, this square asks for every parts-th */
    bool few;
    char *y[2], *then;  /* then: outputs that come next, `lines` rows of them */
    int64_t ldy, lines; /* bytes */
    bool add;
};

INL void ask_for(const struct square *q, int64_t s, const int blocks)
{
    for (int b = 0; b < blocks; b++) {
        for (int64_t i = 0; q->few && i < SIDE; i++)
            _mm_prefetch(q->w[b] + (s + SOON + i) * LINE, _MM_HINT_T0);
        for (int64_t i = 0; i < 2; i++) /* they have long left the cache */
            if (s / SIDE * 2 + i < q->lines)
                __builtin_prefetch(q->then + (s / SIDE * 2 + i) * q->ldy + b * LINE, 1, 2);
        for (int64_t i = q->part; q->next[b] && i < SIDE; i += q->parts)
            if (!q->few || ((uintptr_t)q->next[b] / LINE + (uintptr_t)(s + i)) % (PAGE / LINE) < STARTS)
                _mm_prefetch(q->next[b] + (s + i) * LINE, _MM_HINT_T1);
    }
}

/* Steps s .. s+SIDE-1, or fewer as the tiles are set. */
INL void multiply(const struct square *q, int64_t s, const int rows, const int blocks)
{
    int64_t x = s * (int64_t)sizeof(float), w = s * LINE;
    _tile_loadd(4, q->x[0] + x, q->ldx);
    _tile_loadd(6, q->w[0] + w, LINE);
    _tile_dpbf16ps(0, 4, 6);
    if (blocks > 1) {
        _tile_loadd(7, q->w[1] + w, LINE);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (rows > 1) {
        _tile_loadd(5, q->x[1] + x, q->ldx);
        _tile_dpbf16ps(2, 5, 6);
    }
    if (rows > 1 && blocks > 1)
        _tile_dpbf16ps(3, 5, 7);
}

INL void begin(const struct square *q, bool add, const int rows, const int blocks)
{
    if (!add) {
        _tile_zero(0);
        if (blocks > 1)
            _tile_zero(1);
        if (rows > 1)
            _tile_zero(2);
        if (rows > 1 && blocks > 1)
            _tile_zero(3);
        return;
    }
    WRITTEN();
    _tile_loadd(0, q->y[0], q->ldy);
    if (blocks > 1)
        _tile_loadd(1, q->y[0] + LINE, q->ldy);
    if (rows > 1)
        _tile_loadd(2, q->y[1], q->ldy);
    if (rows > 1 && blocks > 1)
        _tile_loadd(3, q->y[1] + LINE, q->ldy);
}

INL void end(const struct square *q, const int rows, const int blocks)
{
    _tile_stored(0, q->y[0], q->ldy);
    if (blocks > 1)
        _tile_stored(1, q->y[0] + LINE, q->ldy);
    if (rows > 1)
        _tile_stored(2, q->y[1], q->ldy);
    if (rows > 1 && blocks > 1)
        _tile_stored(3, q->y[1] + LINE, q->ldy);
}

INL void square_of(const struct square *q, struct shape *now, const struct shape *sides, const int rows, const int blocks)
{
    int64_t whole = q->steps / SIDE * SIDE;
    struct shape shape = *sides;
    bool add = q->add;
    if (whole) {
        set_shape(now, shape);
        begin(q, add, rows, blocks);
        for (int64_t s = 0; s < whole; s += SIDE) {
            ask_for(q, s, blocks);
            multiply(q, s, rows, blocks);
        }
        end(q, rows, blocks);
        add = true;
    }
    if (whole == q->steps)
        return;
    shape.steps = (int)(q->steps - whole);
    set_shape(now, shape);
    begin(q, add, rows, blocks);
    multiply(q, whole, rows, blocks);
    end(q, rows, blocks);
}

static void any_square(const struct square *q, struct shape *now, const struct shape *sides, int rows, int blocks)
{
    switch (2 * rows + blocks) {
    case 3: square_of(q, now, sides, 1, 1); break;
    case 4: square_of(q, now, sides, 1, 2); break;
    case 5: square_of(q, now, sides, 2, 1); break;
    default: square_of(q, now, sides, 2, 2);
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows from r on, blocks b .. b+nb-1. */
static void rows_and_blocks(const struct kern_gemm *g, struct shape *now, int64_t r, int64_t b, int nb)
{
    float copy[2 * SIDE][2 * KERN_KB];
    int64_t rows = g->rows - r < 2 * SIDE ? g->rows - r : 2 * SIDE, size = g->w_stride * KERN_KB;
    int64_t ldx = g->ldx ? g->ldx : kern_few_ld(g->steps);
    struct shape sides = {{rows < SIDE ? (int)rows : SIDE, rows > SIDE ? (int)rows - SIDE : 0}, SIDE};
    struct outputs o = enter(g, r, (int)rows, b, nb, copy[0], 2 * KERN_KB);
    struct square q = {.few = !g->ldx, .steps = g->steps, .add = g->accumulate, .ldx = ldx * (int64_t)sizeof(float)};
    q.part = r / (2 * SIDE), q.parts = (g->rows + 2 * SIDE - 1) / (2 * SIDE);
    q.y[0] = (char *)o.into;
    q.ldy = (int64_t)sizeof(float) * o.into_ld;
    q.y[1] = q.y[0] + SIDE * q.ldy;
    q.then = q.y[0] + 2 * SIDE * q.ldy;
    q.lines = o.whole ? least(g->rows - r - rows, 2 * SIDE) : 0;
    for (int i = 0; i < 2; i++) {
        int64_t next = b + nb + i - g->block1; /* after the call's own */
        q.x[i] = (const char *)((const float *)g->x + (r + i * SIDE) * ldx);
        q.w[i] = (const char *)((const float *)g->w + (b + i) * size);
        if (next < g->ahead_blocks)
            q.next[i] =
                next < 0 ? q.w[i] + nb * size * (int64_t)sizeof(float) : (const char *)((const float *)g->ahead + next * size);
    }
    any_square(&q, now, &sides, rows > SIDE ? 2 : 1, nb);
    leave(&o, (int)rows);
}

static void gemm(const struct kern_gemm *g)
{
    struct shape now = {{0, 0}, 0};
    if (g->dtype == KERN_F32) {
        kern_avx512_gemm.gemm(g);
        return;
    }
    for (int64_t b0 = g->block0; b0 < g->block1; b0 += BLOCKS)
        for (int64_t r = 0; r < g->rows; r += 2 * SIDE)
            for (int64_t b = b0; b < least(b0 + BLOCKS, g->block1); b += 2)
                rows_and_blocks(g, &now, r, b, (int)least(2, g->block1 - b));
    _tile_release();
}

static void lay_few(const struct kern_lay *c)
{
    if (c->dtype == KERN_F32) {
        kern_avx512_gemm.lay_few(c);
        return;
    }
    for (int64_t r = 0; r < c->rows; r++) {
        const float *x = c->x + r * c->ldx;
        char *to = (char *)(c->to + r * kern_few_ld(c->steps)) + c->first * 2;
        for (int64_t i = 0; i < c->n; i += SIDE) {
            int64_t n = c->n - i < SIDE ? c->n - i : SIDE, even = n + n % 2;
            __m512 part = _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), x + i);
            _mm256_mask_storeu_epi16(to + 2 * i, (__mmask16)((1u << even) - 1), (__m256i)_mm512_cvtneps_pbh(part));
        }
    }
}

/* Four sums, as products have them. */
static double peak(enum kern_dtype t, int64_t n)
{
    struct shape now = {{0, 0}, 0};
    if (t == KERN_F32)
        return kern_avx512_gemm.peak(t, n);
    set_shape(&now, (struct shape){{SIDE, SIDE}, SIDE});
    for (int64_t i = 0; i < n; i += 4) { /* some cycles each */
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return (double)((n + 3) / 4) * 4 * 2 * SIDE * SIDE * 2 * SIDE;
}

const struct kern_table kern_amx = {.isa = "amx", .has_tiles = true, .gemm = gemm, .lay_few = lay_few, .peak = peak};
