/* Queries of a chunk: what each unit of each token asks of the blocks. Many tokens at a time share a unit's weights while they
 * are in cache, and a context lives no longer than its panel. */
#include <math.h>
#include <omp.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"

enum { PANEL = 96, SLICE = 256 }; /* tokens; columns of the context */

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t slices_of(int64_t hidden)
{
    return (hidden + SLICE - 1) / SLICE;
}

/* Tokens whose contexts exist at once. */
static int64_t room_of(int64_t n)
{
    return min64(n, (int64_t)PANEL * omp_get_max_threads());
}

size_t sparse_query_bytes(const struct sparse_run *r, int64_t n)
{
    const struct feat_dims *d = &r->f.d;
    if (!r->ops->query)
        return 0;
    return arena_bytes(d->units * n * d->width, sizeof(float)) + arena_bytes(d->units * n, sizeof(float)) +
           arena_bytes(room_of(n) * slices_of(d->hidden), sizeof(float)) + arena_bytes(room_of(n) * d->hidden, sizeof(float));
}

/* The chunk's first token that chooses. Without a window all after it choose too. */
static int64_t first_that_chooses(const struct sparse_run *r)
{
    int64_t lo = 0, hi = r->c->n;
    while (lo < hi && r->rule.window == 0) {
        int64_t mid = (lo + hi) / 2;
        struct select_set s;
        select_sets(&s, &r->rule, r->c->pos + mid);
        if (s.all)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Tokens i .. i+n-1 of the chunk for one unit. */
static void panel(const struct sparse_run *r, int64_t unit, int64_t i, int64_t n)
{
    const struct feat_dims *d = &r->f.d;
    int64_t at = unit * (r->c->n - r->first) + i - r->first;
    float *u = r->u + at * d->width, cs[FEAT_MAX_WIDTH / 2], sn[FEAT_MAX_WIDTH / 2];
    r->ops->query(r, unit, i, n, u, r->rho + at);
    for (int64_t x = 0; x < n && d->half; x++) {
        feat_rotation(&r->f, r->base, r->c->pos, r->c->pos + i + x, cs, sn);
        r->c->kern->rope(u + x * d->width, cs, sn, 2 * d->half);
    }
}

/* Columns slice * SLICE .. of the running mean of the layer's input, for the tokens i .. i+n-1; r->ctx NULL: only remembers them.
 */
static void mean(const struct sparse_run *r, int64_t slice, int64_t i, int64_t n)
{
    int64_t D = r->f.d.hidden, from = slice * SLICE;
    struct kern_mean m = {.rows = n, .dim = min64(SLICE, D - from), .ldx = D, .before = r->c->pos + i, .sum = r->f.ctx + from};
    m.x = r->c->x + i * D + from;
    if (r->ctx) {
        m.y = r->ctx + (i - r->ctx0) * D + from;
        m.square = r->square + slice * r->ctx_room;
    }
    r->c->kern->running_mean(&m);
}

/* Divides the means of token i by their root mean square. */
static void normalise(const struct sparse_run *r, int64_t i)
{
    int64_t D = r->f.d.hidden, slices = slices_of(D);
    float square = 0;
    for (int64_t s = 0; s < slices; s++)
        square += r->square[s * r->ctx_room + i - r->ctx0];
    r->c->kern->scale(r->ctx + (i - r->ctx0) * D, 1 / sqrtf(square / (float)D + 1e-6F), D);
}

/* Tokens i .. i+n-1, up to ctx_room of them: contexts by columns, then queries by panels of tokens. */
static void panels(struct sparse_run *r, int64_t i, int64_t n)
{
    const struct feat_dims *d = &r->f.d;
    int64_t parts = (n + PANEL - 1) / PANEL, items = parts * d->units, slices = r->ctx ? slices_of(d->hidden) : 0;
    double products = (double)(n * d->units * d->width) * (double)(r->heads * d->dim + (r->ctx ? d->hidden : 0));
    int threads = attn_threads(products, items);
    r->ctx0 = i;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t s = 0; s < slices; s++)
            mean(r, s, i, n);
#pragma omp for schedule(static)
        for (int64_t t = i; t < (r->ctx ? i + n : i); t++)
            normalise(r, t);
#pragma omp for schedule(dynamic, 1)
        for (int64_t x = 0; x < items; x++) {
            int64_t from = i + x % parts * PANEL;
            panel(r, x / parts, from, min64(PANEL, i + n - from));
        }
    }
}

int sparse_queries(struct sparse_run *r)
{
    const struct feat_dims *d = &r->f.d;
    const struct attn_call *c = r->c;
    bool context = d->hidden && r->gate && r->gate->wc;
    r->first = first_that_chooses(r);
    int64_t n = c->n - r->first, slices = context ? slices_of(d->hidden) : 0;
    r->ctx_room = room_of(n);
    int threads = slices ? attn_threads((double)(r->first * d->hidden), slices) : 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t s = 0; s < slices; s++)
        mean(r, s, 0, r->first);
    if (n == 0 || !r->ops->query)
        return ERR_OK;
    r->u = ARENA_NEW(c->step, d->units * n * d->width, float);
    r->rho = ARENA_NEW(c->step, d->units * n, float);
    r->square = ARENA_NEW(c->step, r->ctx_room * slices, float);
    r->ctx = context ? ARENA_NEW(c->step, r->ctx_room * d->hidden, float) : NULL;
    if (!r->u || !r->rho || !r->square || (context && !r->ctx))
        return ERR_NOMEM;
    for (int64_t i = r->first; i < c->n; i += r->ctx_room)
        panels(r, i, min64(r->ctx_room, c->n - i));
    return ERR_OK;
}
