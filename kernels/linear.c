/* Linear layers over packed weights: blocks of 16 outputs, as the keys of struct kern_kv.
 *   f32    [block][in][16]      bf16   [block][ceil(in/2)][16][2]
 * Rows of x are copied (rounded to bf16) into scratch with a stride that is an odd number of cache lines, some hundred
 * at a time, and all threads share them; each takes some blocks of weights after the other, without waiting for the others.
 * Few rows (a step of decoding): kernels/few.c. */
#include "kernels/linear.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "kernels/blas.h"
#include "kernels/few.h"
#include "kernels/rows.h"

enum {
    ROWS = 256,     /* of x at once: a piece of them is 400 KiB, for L2 */
    UNIT = 4,       /* blocks that a thread takes at once ... */
    UNITS = 1024,   /* ... or more, so that there are so many units at most */
    PATIENCE = 2000 /* looks at a unit that is not ready before the core is left to others */
};

size_t kern_mat_bytes(enum kern_dtype t, int64_t out, int64_t in)
{
    struct kern_mat w = {.dtype = t, .out = out, .in = in};
    return (size_t)((out + KERN_KB - 1) / KERN_KB * KERN_KB) * (size_t)rows_steps(&w) * sizeof(float);
}

/* Inputs c0 .. c0+n-1 of row r; c0 is even. */
static void set_part(const struct kern_table *k, struct kern_mat *w, int64_t r, int64_t c0, int64_t n, const float *row)
{
    int64_t steps = rows_steps(w), at = (r / KERN_KB * steps + (w->dtype == KERN_BF16 ? c0 / 2 : c0)) * KERN_KB + r % KERN_KB;
    if (w->dtype == KERN_F32) {
        float *to = (float *)w->data + at;
        for (int64_t i = 0; i < n; i++)
            to[i * KERN_KB] = row[c0 + i];
        return;
    }
    uint16_t half[ROWS_CHUNK + 1], *to = (uint16_t *)w->data + 2 * at;
    k->bf16_from_f32(half, row + c0, n);
    half[n] = 0; /* the pair of an odd last input */
    for (int64_t i = 0; i < n; i += 2) {
        to[i * KERN_KB] = half[i];
        to[i * KERN_KB + 1] = half[i + 1];
    }
}

void kern_mat_set(const struct kern_table *k, struct kern_mat *w, int64_t r0, int64_t n, const float *rows, int64_t stride)
{
    for (int64_t r = 0; r < n; r += KERN_KB) /* a few rows and inputs at a time: their cache lines are shared */
        for (int64_t c = 0; c < w->in; c += ROWS_CHUNK)
            for (int64_t i = r; i < r + KERN_KB && i < n; i++)
                set_part(k, w, r0 + i, c, w->in - c < ROWS_CHUNK ? w->in - c : ROWS_CHUNK, rows + i * stride);
}

void kern_mat_row(const struct kern_table *k, const struct kern_mat *w, int64_t r, float *out)
{
    int64_t at = r / KERN_KB * rows_steps(w) * KERN_KB + r % KERN_KB;
    if (w->dtype == KERN_F32) {
        for (int64_t i = 0; i < w->in; i++)
            out[i] = ((const float *)w->data)[at + i * KERN_KB];
        return;
    }
    (void)k;
    const uint16_t *from = (const uint16_t *)w->data + 2 * at;
    for (int64_t i = 0; i < w->in; i++) { /* a bf16 is the upper half of a float */
        uint32_t bits = (uint32_t)from[i / 2 * 2 * KERN_KB + i % 2] << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}

size_t kern_linear_scratch(const struct kern_mat *w, int64_t m)
{
    size_t few = few_scratch(w, m < KERN_NARROW ? m : KERN_NARROW), many = m > KERN_NARROW ? rows_bytes(w, m < ROWS ? m : ROWS) : 0;
    return few > many ? few : many; /* also of fewer rows */
}

/* The rows of w that are wanted. */
static int64_t first_row(const struct kern_linear *c)
{
    return c->r1 > c->r0 ? c->r0 : 0;
}

static int64_t last_row(const struct kern_linear *c)
{
    return c->r1 > c->r0 ? c->r1 : c->w->out;
}

void kern_mat_touch(struct kern_mat *w)
{
    size_t block = (size_t)rows_steps(w) * KERN_KB * sizeof(float);
#pragma omp parallel if (kern_mat_bytes(w->dtype, w->out, w->in) > 1 << 20)
    {
        struct few_span mine = few_part(0, (w->out + KERN_KB - 1) / KERN_KB, omp_get_thread_num(), omp_get_num_threads());
        if (mine.end > mine.begin)
            memset((char *)w->data + (size_t)mine.begin * block, 0, (size_t)(mine.end - mine.begin) * block);
    }
}

/* What is taken and what is done of some rows: items are the units of the first piece of the inputs, then those of the second ...;
 * done[u] pieces have been added to unit u's outputs. */
struct items {
    atomic_llong next;
    atomic_int done[UNITS];
};

/* Pieces are added to an output in their order, and nobody waits for others' units: an item that is taken waits at most for the
 * same unit's piece before, which was taken earlier. */
static void wait_for(const atomic_int *done, int pieces)
{
    for (int looks = 0; atomic_load_explicit(done, memory_order_acquire) < pieces; looks++)
        if (looks >= PATIENCE)
            sched_yield();
}

/* The rows m0 .. m0+rows-1, which lie in scratch. Weights are read from cache most of the time, and a thread may be held up:
 * whoever is free takes the next blocks. */
static void take_items(const struct kern_table *k, const struct kern_linear *c, int64_t m0, int64_t rows, struct items *t)
{
    int64_t first = first_row(c) / KERN_KB, blocks = (last_row(c) + KERN_KB - 1) / KERN_KB - first;
    int64_t unit = blocks > (int64_t)UNIT * UNITS ? (blocks + UNITS - 1) / UNITS : UNIT, units = (blocks + unit - 1) / unit;
    int64_t n = units * rows_pieces(k, c->w), ahead = (int64_t)omp_get_num_threads() * unit;
    for (int64_t i; (i = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed)) < n;) {
        int64_t piece = i / units, u = i % units, b = first + u * unit, last = first + blocks, next = b + ahead;
        struct rows_call r = {.w = c->w,
                              .rows = c->scratch,
                              .m = rows,
                              .piece = piece,
                              .block0 = b,
                              .block1 = b + unit < last ? b + unit : last,
                              .ahead = next < last ? rows_weights(k, c->w, piece, next) : NULL,
                              .ahead_blocks = next < last ? last - next : 0,
                              .y = c->y + m0 * c->ldy,
                              .ldy = c->ldy,
                              .col0 = first_row(c),
                              .cols = last_row(c) - first_row(c),
                              .accumulate = c->accumulate};
        wait_for(&t->done[u], (int)piece);
        rows_multiply(k, &r);
        atomic_store_explicit(&t->done[u], (int)piece + 1, memory_order_release);
    }
}

static void many_rows(const struct kern_table *k, const struct kern_linear *c, struct items *t)
{
    for (int64_t m0 = 0; m0 < c->m; m0 += ROWS) {
        int64_t rows = c->m - m0 < ROWS ? c->m - m0 : ROWS;
#pragma omp single nowait
        {
            atomic_store_explicit(&t->next, 0, memory_order_relaxed);
            for (int u = 0; u < UNITS; u++)
                atomic_store_explicit(&t->done[u], 0, memory_order_relaxed);
        }
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            rows_put(k, c->w, c->scratch, rows, r, 0, c->w->in, c->x + (m0 + r) * c->ldx);
        take_items(k, c, m0, rows, t);
#pragma omp barrier
    }
}

static void few_rows(const struct kern_table *k, const struct kern_linear *c, struct few_deal *d)
{
    int64_t first = first_row(c), last = last_row(c);
    struct few_rows in = {c->x, c->ldx, c->row, c->arg};
    struct few_call f = {.k = k,
                         .w = c->w,
                         .m = c->m,
                         .x = few_input(k, c->w, c->m, &in, c->scratch),
                         .y = c->y,
                         .ldy = c->ldy,
                         .col0 = first,
                         .cols = last - first,
                         .accumulate = c->accumulate};
    few_share(d, first / KERN_KB, (last + KERN_KB - 1) / KERN_KB, few_pass(c->m), few_multiply, &f);
}

void kern_linear(const struct kern_table *k, const struct kern_linear *c)
{
    int64_t columns = last_row(c) - first_row(c);
    struct few_deal deal;
    struct items items;
    few_begin(&deal);
#pragma omp parallel if (c->m * c->w->in * columns > FEW_SERIAL)
    {
        if (c->m <= KERN_NARROW)
            few_rows(k, c, &deal);
        else
            many_rows(k, c, &items);
    }
}

void kern_threads(int n)
{
    omp_set_num_threads(n);
    blas_threads(n);
}

const char *kern_blas_info(void)
{
    return blas_info();
}

const char *kern_blas_core(void)
{
    if (!blas_is_old())
        return NULL;
    for (int i = kern_isa_count(); i-- > 0;)
        if (kern_isa_runs(i))
            return !strncmp(kern_isa_name(i), "avx512", 6) ? "SkylakeX" : !strcmp(kern_isa_name(i), "avx2") ? "Haswell" : NULL;
    return NULL;
}
