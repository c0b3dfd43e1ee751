/* Features of keys and queries and their sums; see favor_sums.h. */
#include "attn/favor_sums.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"

struct favor_sizes favor_sizes_of(const struct favor_opts *o, const struct attn_shape *s)
{
    return (struct favor_sizes){o->features, o->features * (o->hyperbolic ? 2 : 1), s->dim};
}

/* ---- memory ---- */

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

size_t favor_head_cut(struct favor_head *h, unsigned char *base, const struct favor_sizes *z)
{
    size_t at = 0;
    h->sum = take(base, &at, z->M * z->d, sizeof(float));
    h->z = take(base, &at, z->M, sizeof(float));
    h->pk = take(base, &at, z->M * FAVOR_OPEN, sizeof(float));
    h->b = take(base, &at, FAVOR_OPEN, sizeof(float));
    h->v = take(base, &at, FAVOR_OPEN * z->d, sizeof(float));
    h->c = take(base, &at, 1, sizeof(float));
    return at;
}

size_t favor_state_cut(struct favor_state *s, unsigned char *base, const struct favor_sizes *z)
{
    size_t at = 0;
    s->tokens = take(base, &at, 1, sizeof(int64_t));
    s->w = take(base, &at, z->d * z->m, sizeof(float));
    s->heads = base ? base + at : NULL;
    return at;
}

size_t favor_lane_cut(struct favor_lane *w, unsigned char *base, const struct favor_sizes *z)
{
    size_t at = 0;
    w->x = take(base, &at, FAVOR_OPEN * z->d, sizeof(float));
    w->a = take(base, &at, FAVOR_OPEN * z->M, sizeof(float));
    w->p = take(base, &at, FAVOR_OPEN * z->M, sizeof(float));
    w->tri = take(base, &at, (int64_t)FAVOR_OPEN * FAVOR_OPEN, sizeof(float));
    w->o = take(base, &at, FAVOR_OPEN * z->d, sizeof(float));
    w->shift = take(base, &at, FAVOR_OPEN, sizeof(float));
    return at;
}

/* ---- features ---- */

void favor_features(const struct favor_part *t, struct favor_lane *w, const float *src, int64_t ld, float *half)
{
    const struct kern_table *k = t->c->kern;
    int64_t d = t->z.d, m = t->z.m, M = t->z.M;
    float root = sqrtf(t->c->shape->scale), sum;
    for (int64_t x = 0; x < t->n; x++) {
        float *row = w->x + x * d;
        for (int64_t j = 0; j < d; j++)
            row[j] = src[x * ld + j] * root;
        half[x] = k->dot(row, row, d) / 2;
    }
    k->rows_matmul(&(struct kern_rows){t->n, d, m, w->x, t->st->w, d, w->a, M, false});
    for (int64_t x = 0; x < t->n; x++) {
        float *a = w->a + x * M;
        for (int64_t r = m; r < M; r++)
            a[r] = -a[r - m];
        w->shift[x] = k->exp_row(w->p + x * M, a, M, &sum);
    }
}

void favor_keys(const struct favor_part *t, struct favor_lane *w, int64_t g, const struct favor_head *h)
{
    const struct attn_call *c = t->c;
    int64_t d = t->z.d, M = t->z.M;
    float half[FAVOR_OPEN];
    if (t->slot == 0)
        memset(h->pk, 0, (size_t)(M * FAVOR_OPEN) * sizeof(float));
    /* as the cache keeps them: the same bits as a method that reads them back */
    c->kern->kv_values(&c->kv[g], c->pos + t->i, t->n, h->v + t->slot * d);
    c->kern->kv_keys(&c->kv[g], c->pos + t->i, t->n, w->o);
    if (t->slot == 0)
        memset(h->v + t->n * d, 0, (size_t)((FAVOR_OPEN - t->n) * d) * sizeof(float));
    favor_features(t, w, w->o, d, half);
    for (int64_t x = 0; x < t->n; x++) {
        h->b[t->slot + x] = w->shift[x] - half[x];
        for (int64_t r = 0; r < M; r++)
            h->pk[r * FAVOR_OPEN + t->slot + x] = w->p[x * M + r];
    }
}

/* ---- sums ---- */

void favor_close(const struct favor_part *t, const struct favor_head *h, bool first)
{
    const struct kern_table *k = t->c->kern;
    float top = first ? -INFINITY : *h->c, old = top, weight[FAVOR_OPEN];
    for (int64_t j = 0; j < FAVOR_OPEN; j++)
        top = fmaxf(top, h->b[j]);
    float by = first ? 0 : expf(old - top);
    for (int64_t j = 0; j < FAVOR_OPEN; j++) {
        weight[j] = expf(h->b[j] - top);
        k->scale(h->v + j * t->z.d, weight[j], t->z.d);
    }
    k->scale(h->sum, by, t->z.M * t->z.d);
    k->rows_matmul(&(struct kern_rows){t->z.M, FAVOR_OPEN, t->z.d, h->pk, h->v, FAVOR_OPEN, h->sum, t->z.d, true});
    for (int64_t r = 0; r < t->z.M; r++)
        h->z[r] = h->z[r] * by + k->dot(h->pk + r * FAVOR_OPEN, weight, FAVOR_OPEN);
    *h->c = top;
}

/* tri (n, 64), products with the open keys, become their weights. top: the shift before the open tokens, on return that of each
 * row; den: sums of the rows. */
static void triangle(const struct favor_part *t, const struct favor_head *h, float *tri, float top[FAVOR_OPEN],
                     float den[FAVOR_OPEN])
{
    float now = top[0];
    for (int64_t j = 0; j < t->slot; j++)
        now = fmaxf(now, h->b[j]);
    for (int64_t x = 0; x < t->n; x++) {
        float *row = tri + x * FAVOR_OPEN, sum = 0;
        int64_t own = t->slot + x;
        now = fmaxf(now, h->b[own]);
        for (int64_t j = 0; j <= own; j++) {
            row[j] *= expf(h->b[j] - now);
            sum += row[j];
        }
        for (int64_t j = own + 1; j < FAVOR_OPEN; j++)
            row[j] = 0;
        top[x] = now;
        den[x] = sum;
    }
}

void favor_weights(const struct favor_part *t, struct favor_lane *w, int64_t head, const struct favor_head *h, struct favor_rows *r)
{
    const struct attn_call *c = t->c;
    int64_t H = c->shape->heads, d = t->z.d, M = t->z.M;
    bool past = c->pos + t->i - t->slot > 0;
    r->top[0] = past ? *h->c : -INFINITY;
    favor_features(t, w, c->q + (t->i * H + head) * d, H * d, r->half);
    c->kern->rows_matmul(&(struct kern_rows){t->n, M, FAVOR_OPEN, w->p, h->pk, M, w->tri, FAVOR_OPEN, false});
    triangle(t, h, w->tri, r->top, r->den);
    for (int64_t x = 0; x < t->n; x++) {
        r->by[x] = past ? expf(*h->c - r->top[x]) : 0;
        r->den[x] += past ? r->by[x] * c->kern->dot(w->p + x * M, h->z, M) : 0;
    }
}
