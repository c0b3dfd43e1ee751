/* Queries of a chunk: what each unit of each token asks of the blocks. Many tokens at a time share a unit's weights while they
 * are in cache, and a context lives no longer than its panel. */
#include <omp.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"

enum { PANEL = 96 }; /* tokens */

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Tokens whose contexts exist at once. */
static int64_t panels_tokens(int64_t n)
{
    return min64(n, (int64_t)PANEL * omp_get_max_threads());
}

size_t sparse_query_bytes(const struct sparse_run *r, int64_t n)
{
    const struct feat_dims *d = &r->f.d;
    if (!r->ops->query)
        return 0;
    return arena_bytes(d->units * n * d->width, sizeof(float)) + arena_bytes(d->units * n, sizeof(float)) +
           arena_bytes(panels_tokens(n) * d->hidden, sizeof(float));
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

int sparse_queries(struct sparse_run *r)
{
    const struct feat_dims *d = &r->f.d;
    const struct attn_call *c = r->c;
    bool context = d->hidden && r->gate && r->gate->wc;
    r->first = first_that_chooses(r);
    int64_t n = c->n - r->first, step = panels_tokens(n);
    if (context)
        feat_context(&r->f, c->x, c->pos, r->first, NULL);
    if (n == 0 || !r->ops->query)
        return ERR_OK;
    r->u = ARENA_NEW(c->step, d->units * n * d->width, float);
    r->rho = ARENA_NEW(c->step, d->units * n, float);
    r->ctx = context ? ARENA_NEW(c->step, step * d->hidden, float) : NULL;
    if (!r->u || !r->rho || (context && !r->ctx))
        return ERR_NOMEM;
    for (int64_t i = r->first; i < c->n; i += step) {
        int64_t m = min64(step, c->n - i), panels = (m + PANEL - 1) / PANEL, items = panels * d->units;
        r->ctx0 = i;
        if (context)
            feat_context(&r->f, c->x + i * d->hidden, c->pos + i, m, r->ctx);
        int threads = attn_threads((double)(m * d->units * d->width * (r->heads * d->dim + (context ? d->hidden : 0))), items);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
        for (int64_t x = 0; x < items; x++) {
            int64_t from = i + x % panels * PANEL;
            panel(r, x / panels, from, min64(PANEL, i + m - from));
        }
    }
    return ERR_OK;
}
