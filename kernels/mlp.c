/* An MLP, part of its hidden layer after part: both halves of a part, the activation, and the result laid out as `down` wants
 * its rows. All pieces of a part's inputs are added before the next part begins, so that its sums stay in cache. */
#include "kernels/mlp.h"

#include "kernels/few.h"
#include "kernels/rows.h"

enum { BLOCKS = KERN_MLP_PART / KERN_KB };

bool kern_mlp_fits(const struct kern_mat *up, const struct kern_mat *down, int64_t m)
{
    return m > 0 && down->in % KERN_KB == 0 && up->dtype == down->dtype;
}

static size_t part_bytes(int64_t m)
{
    return (size_t)(m * KERN_MLP_PART) * sizeof(float);
}

size_t kern_mlp_scratch(const struct kern_mat *up, const struct kern_mat *down, int64_t m)
{
    if (m <= KERN_NARROW)
        return few_scratch(up, m) + few_bytes(down, m);
    return rows_bytes(up, m) + rows_bytes(down, m) + 2 * part_bytes(m);
}

/* Blocks b0 .. b1-1 of a layer, all pieces; `then`: the blocks from there on come next, -1 for none. */
struct stretch {
    const struct kern_mat *w;
    const float *rows;
    int64_t b0, b1, then;
    float *y;
    int64_t ldy, col0, cols;
    bool accumulate;
};

static void multiply(const struct kern_table *k, const struct stretch *s, int64_t m)
{
    int64_t pieces = rows_pieces(k, s->w), blocks = (s->w->out + KERN_KB - 1) / KERN_KB;
    for (int64_t p = 0; p < pieces; p++) {
        struct rows_call r = {.w = s->w,
                              .rows = s->rows,
                              .m = m,
                              .piece = p,
                              .block0 = s->b0,
                              .block1 = s->b1,
                              .y = s->y,
                              .ldy = s->ldy,
                              .col0 = s->col0,
                              .cols = s->cols,
                              .accumulate = s->accumulate};
        bool again = p + 1 < pieces;
        if (again || s->then >= 0) {
            r.ahead = rows_weights(k, s->w, again ? p + 1 : 0, again ? s->b0 : s->then);
            r.ahead_blocks = blocks - (again ? s->b0 : s->then);
        }
        rows_multiply(k, &r);
    }
}

/* Blocks b .. b+n-1 of the hidden layer into the rows that `down` reads. */
static void hidden_part(const struct kern_table *k, const struct kern_mlp *c, const float *x, int64_t b, int64_t n, float *to)
{
    int64_t all = c->down->in / KERN_KB, next = b + n < all ? b + n : -1;
    float *h = to + rows_bytes(c->down, c->m) / sizeof *to, *u = h + c->m * KERN_MLP_PART;
    struct stretch s = {.w = c->up, .rows = x, .b0 = b, .b1 = b + n, .y = h, .ldy = KERN_MLP_PART, .cols = n * KERN_KB};
    s.then = c->gated ? all + b : next;
    s.col0 = b * KERN_KB;
    multiply(k, &s, c->m);
    if (c->gated) {
        s.b0 = all + b, s.b1 = all + b + n, s.then = next, s.y = u;
        s.col0 = s.b0 * KERN_KB;
        multiply(k, &s, c->m);
    }
    for (int64_t r = 0; r < c->m; r++) {
        float *row = h + r * KERN_MLP_PART;
        c->act(c->arg, row, c->gated ? u + r * KERN_MLP_PART : NULL, b * KERN_KB, n * KERN_KB);
        rows_put(k, c->down, to, c->m, r, b * KERN_KB, n * KERN_KB, row);
    }
}

static void own_rows(const struct kern_table *k, const struct kern_mlp *c)
{
    float *x = c->scratch, *h = x + rows_bytes(c->up, c->m) / sizeof *x;
    int64_t all = c->down->in / KERN_KB, out = (c->down->out + KERN_KB - 1) / KERN_KB;
    for (int64_t r = 0; r < c->m; r++)
        rows_put(k, c->up, x, c->m, r, 0, c->up->in, c->x + r * c->ldx);
    for (int64_t b = 0; b < all; b += BLOCKS)
        hidden_part(k, c, x, b, all - b < BLOCKS ? all - b : BLOCKS, h);
    for (int64_t b = 0; b < out; b += BLOCKS) {
        int64_t end = b + BLOCKS < out ? b + BLOCKS : out;
        struct stretch s = {.w = c->down, .rows = h, .b0 = b, .b1 = end, .then = end < out ? end : -1};
        s.y = c->y;
        s.ldy = c->ldy;
        s.cols = c->down->out;
        s.accumulate = c->accumulate;
        multiply(k, &s, c->m);
    }
}

/* ---- few rows, all threads ---- */

struct few { /* as one thread sees it */
    const struct kern_table *k;
    const struct kern_mlp *c;
    const float *x; /* as up wants it */
    float *h;       /* as down wants it */
};

/* Blocks of the hidden layer, by whom they were multiplied: they are in his cache. */
static void hidden_blocks(void *arg, struct few_span b)
{
    enum { LD = FEW_STREAM * KERN_KB };
    const struct few *f = arg;
    const struct kern_mlp *c = f->c;
    float h[KERN_NARROW * LD], u[KERN_NARROW * LD];
    int64_t all = c->down->in / KERN_KB, n = b.end - b.begin, first = b.begin * KERN_KB;
    struct few_call call = {.k = f->k, .w = c->up, .m = c->m, .x = f->x, .y = h, .ldy = LD, .col0 = first, .cols = n * KERN_KB};
    if (c->gated) {
        few_multiply(&call, (struct few_span){b.begin, b.end, all + b.begin, n});
        call.y = u;
        call.col0 += all * KERN_KB;
        few_multiply(&call, (struct few_span){all + b.begin, all + b.end, b.next, b.likely});
    } else
        few_multiply(&call, b);
    for (int64_t r = 0; r < c->m; r++)
        c->act(c->arg, h + r * LD, c->gated ? u + r * LD : NULL, first, n * KERN_KB);
    struct kern_lay lay = {.dtype = c->down->dtype, .rows = c->m, .steps = rows_steps(c->down), .first = first};
    lay.n = n * KERN_KB, lay.ldx = LD, lay.x = h, lay.to = f->h;
    f->k->lay_few(&lay);
}

static void few_rows(const struct kern_table *k, const struct kern_mlp *c)
{
    float *h = (float *)c->scratch + few_scratch(c->up, c->m) / sizeof *h;
    struct few_rows in = {c->x, c->ldx, c->row, c->arg};
    struct few_call down = {
        .k = k, .w = c->down, .m = c->m, .x = h, .y = c->y, .ldy = c->ldy, .cols = c->down->out, .accumulate = c->accumulate};
    struct few_deal first, second;
    few_begin(&first);
    few_begin(&second);
#pragma omp parallel if (c->m * c->up->in * c->up->out > FEW_SERIAL)
    {
        struct few f = {.k = k, .c = c, .x = few_input(k, c->up, c->m, &in, c->scratch), .h = h};
        few_share(&first, 0, c->down->in / KERN_KB, few_pass(c->m), hidden_blocks, &f);
#pragma omp barrier
        few_share(&second, 0, (c->down->out + KERN_KB - 1) / KERN_KB, few_pass(c->m), few_multiply, &down);
    }
}

void kern_mlp(const struct kern_table *k, const struct kern_mlp *c)
{
    (c->m <= KERN_NARROW ? few_rows : own_rows)(k, c);
}
