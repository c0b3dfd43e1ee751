/* Loss and its gradient, some rows at a time. */
#include "train/back_head.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "model/head.h"
#include "train/back_ops.h"

enum { LOGITS = 1 << 22, MOST_ROWS = 512 }; /* logits at once: 16 MiB */

struct room {
    int64_t rows;
    int64_t *row;      /* (rows,) */
    float *x, *xn;     /* (rows, D) */
    float *y, *want;   /* (rows, V) logits, then their gradient; the teacher's */
    float *stat;       /* (rows, 2) */
    double *loss, *kl; /* (rows,) */
};

static int64_t rows_of(const struct net *n)
{
    int64_t rows = LOGITS / n->shape->vocab;
    return rows < 16 ? 16 : rows > MOST_ROWS ? MOST_ROWS : rows;
}

size_t back_head_bytes(const struct net *n, bool teacher)
{
    int64_t rows = rows_of(n), D = n->shape->hidden, V = n->shape->vocab;
    return arena_bytes(rows, sizeof(int64_t)) + 2 * arena_bytes(rows * D, sizeof(float)) +
           (teacher ? 2 : 1) * arena_bytes(rows * V, sizeof(float)) + arena_bytes(2 * rows, sizeof(float)) +
           2 * arena_bytes(rows, sizeof(double)) + (teacher ? head_bytes(n->model) : 0);
}

static int open_room(struct room *r, const struct back_head *h, struct arena *step)
{
    const struct net *n = h->net;
    int64_t D = n->shape->hidden, V = n->shape->vocab;
    r->rows = rows_of(n);
    r->row = ARENA_NEW(step, r->rows, int64_t);
    r->x = ARENA_NEW(step, r->rows * D, float);
    r->xn = ARENA_NEW(step, r->rows * D, float);
    r->y = ARENA_NEW(step, r->rows * V, float);
    r->want = h->teacher ? ARENA_NEW(step, r->rows * V, float) : NULL;
    r->stat = ARENA_NEW(step, 2 * r->rows, float);
    r->loss = ARENA_NEW(step, r->rows, double);
    r->kl = ARENA_NEW(step, r->rows, double);
    return r->row && r->x && r->xn && r->y && (!h->teacher || r->want) && r->stat && r->loss && r->kl ? ERR_OK : ERR_NOMEM;
}

/* Row i: nll of the target and KL(teacher || net); logits become d (ce nll + kl KL). With p the teacher's probabilities and t
 * its logits, KL = sum p (t - y) - lse_t + lse. */
static void score_row(const struct back_head *h, const struct room *r, int64_t i)
{
    int64_t V = h->net->shape->vocab, target = h->s->b->target[r->row[i]];
    const struct kern_table *k = h->net->kern;
    float *y = r->y + i * V, *p = r->want ? r->want + i * V : NULL, hit = y[target], sum, sum_t = 1;
    double kl = p ? h->s->kl : 0, cross = 0;
    if (p) {
        const float *t = p;
        float top_t = -INFINITY;
        double all = 0;
        k->lse_update(t, V, &top_t, &all);
        double lse_t = (double)top_t + log(all);
        for (int64_t v = 0; v < V; v++)
            if (t[v] - top_t > -40) /* the others' share is below 1e-17 */
                cross += exp((double)t[v] - lse_t) * ((double)t[v] - (double)y[v]);
        cross -= lse_t;
        k->exp_row(p, p, V, &sum_t);
    }
    float top = k->exp_row(y, y, V, &sum);
    double lse = (double)top + log((double)sum);
    r->loss[i] = lse - (double)hit;
    r->kl[i] = p ? cross + lse : 0;
    if (!h->dx)
        return;
    k->scale(y, (float)((h->s->ce + kl) / (double)sum), V);
    y[target] -= (float)h->s->ce;
    if (p)
        k->axpy(y, (float)(-kl / (double)sum_t), p, V);
}

static void rows_back(const struct back_head *h, const struct room *r, const struct op_norm *norm, int64_t n)
{
    int64_t D = h->net->shape->hidden;
    struct op_linear head = {.w = &h->net->top[PART_HEAD], .out = h->net->shape->vocab, .m = n};
    op_linear_weight(&head, r->y, r->xn);
    op_linear_input(&head, r->y, r->xn, false); /* the normed input is needed no more */
    for (int64_t i = 0; i < n; i++)
        memset(h->dx + r->row[i] * D, 0, (size_t)D * sizeof(float));
    float *d = r->y; /* (n, D) */
    memset(d, 0, (size_t)(n * D) * sizeof(float));
    op_norm_grad(norm, r->x, r->xn, d);
    for (int64_t i = 0; i < n; i++)
        memcpy(h->dx + r->row[i] * D, d + i * D, (size_t)D * sizeof(float));
    h->s->flops += 2 * (double)n * (double)head.out * (double)D * (head.w->g ? 2 : 1);
}

static int chunk(const struct back_head *h, const struct room *r, int64_t n, struct arena *step)
{
    const struct net *net = h->net;
    const struct model_shape *s = net->shape;
    int64_t D = s->hidden;
    struct op_norm norm = {.kern = net->kern, .w = &net->top[PART_NORM_W], .b = &net->top[PART_NORM_B], .m = n, .width = D};
    norm.rms = s->norm == MODEL_RMSNORM, norm.eps = (float)s->eps, norm.stat = r->stat;
    for (int64_t i = 0; i < n; i++)
        memcpy(r->x + i * D, h->x + r->row[i] * D, (size_t)D * sizeof(float));
    op_norm(&norm, r->x, r->xn);
    struct op_linear head = {.w = &net->top[PART_HEAD], .out = s->vocab, .m = n};
    op_linear(&head, r->xn, r->y, false);
    h->s->flops += 2 * (double)n * (double)s->vocab * (double)D;
    int rc = h->teacher ? head_logits(net->model, h->teacher, r->row, n, r->want, NULL, step) : ERR_OK;
    if (rc)
        return rc;
#pragma omp parallel for if (n > 1)
    for (int64_t i = 0; i < n; i++)
        score_row(h, r, i);
    for (int64_t i = 0; i < n; i++) {
        h->s->loss += r->loss[i];
        h->s->divergence += r->kl[i];
        if (h->s->nll)
            h->s->nll[r->row[i]] = (float)r->loss[i];
    }
    h->s->count += (double)n;
    if (h->dx)
        rows_back(h, r, &norm, n);
    return ERR_OK;
}

int back_head(const struct back_head *h, struct arena *step)
{
    const struct model_batch *b = h->s->b;
    int64_t tokens = b->at[b->n_seq];
    size_t mark = arena_mark(step);
    struct room r;
    int rc = open_room(&r, h, step);
    if (!rc && h->dx)
        memset(h->dx, 0, (size_t)(tokens * h->net->shape->hidden) * sizeof(float));
    for (int64_t t = 0; !rc && t < tokens;) {
        int64_t n = 0;
        for (; t < tokens && n < r.rows; t++)
            if (b->target[t] >= 0)
                r.row[n++] = t;
        if (n)
            rc = chunk(h, &r, n, step);
    }
    arena_release(step, mark);
    return rc;
}
