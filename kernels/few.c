/* Products of few rows: how they are laid out, and who takes which blocks. */
#include "kernels/few.h"

#include <omp.h>

#include "kernels/rows.h"

struct few_span few_part(int64_t first, int64_t last, int thread, int threads)
{
    int64_t fours = (last - first + 3) / 4;
    int64_t begin = first + fours * thread / threads * 4, end = first + fours * (thread + 1) / threads * 4;
    return (struct few_span){.begin = begin, .end = end < last ? end : last};
}

size_t few_bytes(const struct kern_mat *w, int64_t m)
{
    int64_t line = rows_steps(w) * rows_numbers(NULL, w), row = kern_few_ld(rows_steps(w));
    return (size_t)(m * (line > row ? line : row)) * sizeof(float);
}

static size_t whole_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Where the rows lie as they are made, after where they are laid out. */
static size_t rows_room(const struct kern_mat *w, int64_t m)
{
    return whole_lines((size_t)(m * w->in) * sizeof(float));
}

size_t few_scratch(const struct kern_mat *w, int64_t m)
{
    return FEW_OWN * (whole_lines(few_bytes(w, m)) + rows_room(w, m));
}

/* Inputs i .. of rows x, some of them. */
static void lay_out(const struct kern_table *k, const struct kern_mat *w, int64_t m, const float *x, int64_t ldx, int64_t i,
                    float *to)
{
    struct kern_lay c = {.dtype = w->dtype, .rows = m, .steps = rows_steps(w), .first = i, .ldx = ldx, .x = x + i, .to = to};
    c.n = w->in - i < ROWS_CHUNK ? w->in - i : ROWS_CHUNK;
    k->lay_few(&c);
}

/* A line that another core wrote costs more than making its numbers anew, as long as most lines are one's own. */
static const float *own_input(const struct kern_table *k, const struct kern_mat *w, int64_t m, const struct few_rows *in, float *to,
                              float *room)
{
    for (int64_t r = 0; in->row && r < m; r++)
        in->row(in->arg, room + r * w->in, r);
    for (int64_t i = 0; i < w->in; i += ROWS_CHUNK)
        lay_out(k, w, m, in->row ? room : in->x, in->row ? w->in : in->ldx, i, to);
    return to;
}

const float *few_input(const struct kern_table *k, const struct kern_mat *w, int64_t m, const struct few_rows *in, void *scratch)
{
    size_t each = whole_lines(few_bytes(w, m)) + rows_room(w, m);
    bool own = omp_get_num_threads() <= FEW_OWN;
    float *to = (float *)scratch + (own ? (size_t)omp_get_thread_num() * each : 0) / sizeof(float);
    float *room = to + whole_lines(few_bytes(w, m)) / sizeof *to;
    if (own)
        return own_input(k, w, m, in, to, room);
    if (in->row) {
#pragma omp for schedule(static)
        for (int64_t r = 0; r < m; r++)
            in->row(in->arg, room + r * w->in, r);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < w->in; i += ROWS_CHUNK)
        lay_out(k, w, m, in->row ? room : in->x, in->row ? w->in : in->ldx, i, to);
    return to;
}

static int parts_of(int threads)
{
    return threads < FEW_PARTS ? threads : FEW_PARTS;
}

void few_begin(struct few_deal *d)
{
    for (int i = 0; i < parts_of(omp_get_max_threads()); i++)
        d->taken[i].n = 0;
}

int64_t few_pass(int64_t m)
{
    return m <= 4 ? 4 : m <= 8 ? 2 : 1;
}

/* Of so many blocks that are left: fewer towards the end, so that nobody waits long for the last. */
static int64_t next_take(int64_t left, int64_t pass)
{
    int64_t take = left / 4 / pass * pass;
    return take < pass ? pass : take > FEW_STREAM ? FEW_STREAM : take;
}

void few_share(struct few_deal *d, int64_t first, int64_t last, int64_t pass, void (*work)(void *arg, struct few_span b), void *arg)
{
    int me = omp_get_thread_num(), parts = parts_of(omp_get_num_threads());
    for (int i = 0; i < parts; i++) {
        int whose = (me + i) % parts;
        struct few_span all = few_part(first, last, whose, parts);
        for (int64_t at = 0; all.begin + at < all.end;) {
            int64_t take;
#pragma omp atomic read
            at = d->taken[whose].n;
            take = next_take(all.end - all.begin - at, pass);
#pragma omp atomic capture
            {
                at = d->taken[whose].n;
                d->taken[whose].n += take;
            }
            struct few_span b = {.begin = all.begin + at, .end = all.begin + at + take};
            b.end = b.end < all.end ? b.end : all.end;
            b.next = b.end;
            b.likely = all.end - b.end;
            if (b.begin < b.end)
                work(arg, b);
        }
    }
}

void few_multiply(void *call, struct few_span b)
{
    const struct few_call *c = call;
    int64_t steps = rows_steps(c->w);
    struct kern_gemm g = {.dtype = c->w->dtype,
                          .rows = c->m,
                          .steps = steps,
                          .x = c->x,
                          .w = c->w->data,
                          .w_stride = steps,
                          .block0 = b.begin,
                          .block1 = b.end,
                          .ahead = (const float *)c->w->data + b.next * steps * KERN_KB,
                          .ahead_blocks = b.likely,
                          .y = c->y,
                          .ldy = c->ldy,
                          .col0 = c->col0,
                          .cols = c->cols,
                          .accumulate = c->accumulate};
    c->k->gemm(&g);
}
