/* Linear layers over packed weights: blocks of 16 outputs, as the keys of struct kern_kv.
 *   f32    [block][in][16]      bf16   [block][ceil(in/2)][16][2]
 * Rows of x are copied (rounded to bf16) into scratch with a stride that is an odd number of cache lines, some hundred
 * at a time, and all threads share them; each takes some blocks of weights after the other, without waiting for the others. Few
 * rows (a step of decoding) are interleaved instead, and each block of weights is read once, from one end to the other: at the
 * speed of memory. */
#include "kernels/linear.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "kernels/blas.h"
#include "kernels/rows.h"

enum {
    ROWS = 256,      /* of x at once: a piece of them is 400 KiB, for L2 */
    STREAM = 8,      /* blocks that a thread takes at once, at most, when there are few rows ... */
    STEALERS = 512,  /* ... in up to so many parts */
    UNIT = 4,        /* blocks that a thread takes at once when there are many rows ... */
    UNITS = 1024,    /* ... or more, so that there are so many units at most */
    PATIENCE = 2000, /* looks at a unit that is not ready before the core is left to others */
    SERIAL = 1 << 15 /* products that do not pay for waking threads */
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
    int64_t few = m < KERN_NARROW ? m : KERN_NARROW;
    return m <= KERN_NARROW ? (size_t)(few * rows_steps(w) * rows_numbers(NULL, w)) * sizeof(float)
                            : rows_bytes(w, m < ROWS ? m : ROWS);
}

/* Inputs i0 .. of the few rows, ROWS_CHUNK at most. */
static void interleave_chunk(const struct kern_table *k, const struct kern_linear *c, int64_t i0)
{
    int64_t n = c->w->in - i0 < ROWS_CHUNK ? c->w->in - i0 : ROWS_CHUNK,
            at = c->w->dtype == KERN_BF16 && k->has_bf16_dot ? i0 / 2 : i0;
    k->interleave((float *)c->scratch + at * c->m, c->x + i0, c->ldx, c->m, n, c->w->dtype);
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

/* A thread's part of the blocks first .. last-1, in fours. */
struct span {
    int64_t begin, end;
};

static struct span part_of(int64_t first, int64_t last, int thread, int threads)
{
    int64_t fours = (last - first + 3) / 4;
    int64_t begin = first + fours * thread / threads * 4, end = first + fours * (thread + 1) / threads * 4;
    return (struct span){begin, end < last ? end : last};
}

void kern_mat_touch(struct kern_mat *w)
{
    size_t block = (size_t)rows_steps(w) * KERN_KB * sizeof(float);
#pragma omp parallel if (kern_mat_bytes(w->dtype, w->out, w->in) > 1 << 20)
    {
        struct span mine = part_of(0, (w->out + KERN_KB - 1) / KERN_KB, omp_get_thread_num(), omp_get_num_threads());
        if (mine.end > mine.begin)
            memset((char *)w->data + (size_t)mine.begin * block, 0, (size_t)(mine.end - mine.begin) * block);
    }
}

/* Few rows, interleaved in scratch, times the blocks of `b`; the thread is likely to go on with the `likely` ones after them. */
static void multiply_few(const struct kern_table *k, const struct kern_linear *c, struct span b, int64_t likely)
{
    struct kern_gemm g = {.dtype = c->w->dtype,
                          .rows = c->m,
                          .steps = rows_steps(c->w),
                          .x = c->scratch,
                          .w = c->w->data,
                          .w_stride = rows_steps(c->w),
                          .block0 = b.begin,
                          .block1 = b.end,
                          .ahead = (const float *)c->w->data + b.end * rows_steps(c->w) * KERN_KB,
                          .ahead_blocks = likely,
                          .y = c->y,
                          .ldy = c->ldy,
                          .col0 = first_row(c),
                          .cols = last_row(c) - first_row(c),
                          .accumulate = c->accumulate};
    k->gemm(&g);
}

/* Blocks of each thread's part that are taken; each in a cache line of its own. */
struct taken {
    _Alignas(64) int64_t n;
};

/* Of so many blocks that are left: fewer towards the end, so that nobody waits long for the last. */
static int64_t next_take(int64_t left, int64_t pass)
{
    int64_t take = left / 4 / pass * pass;
    return take < pass ? pass : take > STREAM ? STREAM : take;
}

static int parts_of(int threads)
{
    return threads < STEALERS ? threads : STEALERS;
}

/* Each thread reads the weights that it has touched first, and then helps those that are held up. */
static void few_rows(const struct kern_table *k, const struct kern_linear *c, struct taken *t)
{
    int64_t first = first_row(c) / KERN_KB, last = (last_row(c) + KERN_KB - 1) / KERN_KB;
    int me = omp_get_thread_num(), parts = parts_of(omp_get_num_threads());
    int64_t pass = c->m <= 4 ? 4 : c->m <= 8 ? 2 : 1; /* blocks that a kernel takes at once */
#pragma omp for schedule(static)
    for (int64_t i = 0; i < c->w->in; i += ROWS_CHUNK)
        interleave_chunk(k, c, i);
    for (int i = 0; i < parts; i++) {
        int whose = (me + i) % parts;
        struct span all = part_of(first, last, whose, parts);
        for (int64_t at = 0; all.begin + at < all.end;) {
            int64_t take;
#pragma omp atomic read
            at = t[whose].n;
            take = next_take(all.end - all.begin - at, pass);
#pragma omp atomic capture
            {
                at = t[whose].n;
                t[whose].n += take;
            }
            struct span b = {all.begin + at, all.begin + at + take};
            b.end = b.end < all.end ? b.end : all.end;
            if (b.begin < b.end)
                multiply_few(k, c, b, all.end - b.end);
        }
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

void kern_linear(const struct kern_table *k, const struct kern_linear *c)
{
    int64_t columns = last_row(c) - first_row(c);
    struct taken t[STEALERS];
    struct items items;
    for (int i = 0; i < parts_of(omp_get_max_threads()); i++)
        t[i].n = 0;
#pragma omp parallel if (c->m * c->w->in * columns > SERIAL)
    {
        if (c->m <= KERN_NARROW)
            few_rows(k, c, t);
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
