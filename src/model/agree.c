/* A method's distributions against dense attention's on the same tokens. */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "model/forward.h"
#include "model/head.h"

enum { P, Q };
static const int64_t chunk = (int64_t)HEAD_ROWS * HEAD_COLS;

struct room {
    float *xn[2];             /* (HEAD_ROWS, D) */
    float *y[2];              /* (HEAD_ROWS, HEAD_COLS) */
    struct head_side side[2]; /* dense, the method */
    double *cross;            /* (HEAD_ROWS,) sum of exp(l_p - top) (l_p - l_q) */
    float *top;               /* (HEAD_ROWS,) the largest l_p so far */
    float *e;                 /* (HEAD_ROWS, HEAD_COLS) */
    int64_t *row;             /* (HEAD_ROWS,) */
    void *scratch;
};

static size_t room_bytes(const struct model *m)
{
    return 2 * arena_bytes(HEAD_ROWS * m->shape.hidden, sizeof(float)) + 3 * arena_bytes(chunk, sizeof(float)) +
           2 * head_side_bytes() + arena_bytes(HEAD_ROWS, sizeof(double)) + arena_bytes(HEAD_ROWS, sizeof(float)) +
           arena_bytes(HEAD_ROWS, sizeof(int64_t)) + arena_bytes((int64_t)kern_linear_scratch(&m->head, HEAD_ROWS), 1);
}

static int room_open(struct room *r, const struct model *m, struct arena *step)
{
    bool bad = false;
    for (int k = 0; k < 2; k++) {
        r->xn[k] = ARENA_NEW(step, HEAD_ROWS * m->shape.hidden, float);
        r->y[k] = ARENA_NEW(step, chunk, float);
        bad = bad || head_side_open(&r->side[k], step) || !r->xn[k] || !r->y[k];
    }
    r->cross = ARENA_NEW(step, HEAD_ROWS, double);
    r->top = ARENA_NEW(step, HEAD_ROWS, float);
    r->e = ARENA_NEW(step, chunk, float);
    r->row = ARENA_NEW(step, HEAD_ROWS, int64_t);
    r->scratch = arena_alloc(step, (int64_t)kern_linear_scratch(&m->head, HEAD_ROWS), 1);
    return bad || !r->cross || !r->top || !r->e || !r->row || !r->scratch ? ERR_NOMEM : ERR_OK;
}

/* Adds n logits of row i to the cross term. */
static void cross_fold(const struct model *m, const struct room *r, int64_t i, int64_t n)
{
    const float *p = r->y[P] + i * HEAD_COLS, *q = r->y[Q] + i * HEAD_COLS;
    float *e = r->e + i * HEAD_COLS, unused, top = m->kern->exp_row(e, p, n, &unused);
    double sum = 0;
    for (int64_t v = 0; v < n; v++)
        if (e[v] > 0) /* a logit of -INFINITY has no part */
            sum += (double)e[v] * ((double)p[v] - (double)q[v]);
    if (top == -INFINITY)
        return;
    float most = top > r->top[i] ? top : r->top[i];
    r->cross[i] = r->cross[i] * exp((double)r->top[i] - (double)most) + sum * exp((double)top - (double)most);
    r->top[i] = most;
}

/* Over the group: all terms relative to the joined maximum. */
static void cross_join(const struct model *m, const struct room *r, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        r->cross[i] = r->top[i] == -INFINITY ? 0 : r->cross[i] * exp((double)r->top[i] - (double)r->side[P].max[i]);
        r->top[i] = r->side[P].max[i];
    }
    comm_sum_f64(m->group, r->cross, n);
}

static void write_rows(const struct room *r, struct model_agree *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const struct head_side *p = &r->side[P], *q = &r->side[Q];
        double lse_p = (double)p->max[i] + log(p->sum[i]), lse_q = (double)q->max[i] + log(q->sum[i]);
        double kl = r->cross[i] * exp((double)r->top[i] - lse_p) - lse_p + lse_q;
        int64_t t = r->row[i];
        out->nll[t] = (float)head_side_nll(q, i);
        out->dense_nll[t] = (float)head_side_nll(p, i);
        out->top1[t] = (int32_t)q->id[i];
        out->dense_top1[t] = (int32_t)p->id[i];
        out->kl[t] = kl < 0 ? 0 : (float)kl; /* below zero by rounding alone; a NaN stays one */
    }
}

/* The chunk's n rows; x: residual streams under dense attention and under the method. */
static void compare_rows(const struct forward *f, const struct room *r, const float *const x[2], int64_t n)
{
    const struct model *m = f->m;
    for (int k = 0; k < 2; k++) {
        head_norm(m, x[k], r->row, n, r->xn[k]);
        head_side_begin(&r->side[k], n);
    }
    for (int64_t i = 0; i < n; i++) {
        r->cross[i] = 0;
        r->top[i] = -INFINITY;
    }
    for (int64_t v = 0; v < m->cut.vocab.n; v += HEAD_COLS) {
        struct model_range part = {v, m->cut.vocab.n - v < HEAD_COLS ? m->cut.vocab.n - v : HEAD_COLS};
        for (int k = 0; k < 2; k++)
            head_chunk(m, &(struct head_part){r->xn[k], n, part, r->y[k], r->scratch});
        part.first += m->cut.vocab.first;
#pragma omp parallel for if (n > 1)
        for (int64_t i = 0; i < n; i++) {
            for (int k = 0; k < 2; k++)
                head_side_fold(m, &r->side[k], i, &(struct head_row){r->y[k] + i * HEAD_COLS, part, f->b->target[r->row[i]]});
            cross_fold(m, r, i, part.n);
        }
    }
    if (m->cut.sums) {
        head_side_join(m, &r->side[P], n, f->timer);
        head_side_join(m, &r->side[Q], n, f->timer);
        cross_join(m, r, n);
    }
}

/* One pass under `method`; the residual stream stays in the arena. */
static int pass(struct model *m, const struct attn_method *method, struct forward *f, struct arena *step)
{
    const struct attn_method *was = m->method;
    m->method = method;
    int rc = forward_run(f, step);
    m->method = was;
    return rc;
}

static bool same_method(const struct model *m)
{
    return m->method == attn_find("dense");
}

/* The larger of the two methods' needs, and a second residual stream. */
size_t model_compare_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    struct model dense = *m;
    (void)n_seq;
    dense.method = attn_find("dense");
    size_t a = forward_bytes(m, tokens, longest, false), b = forward_bytes(&dense, tokens, longest, false);
    return (a > b ? a : b) + arena_bytes(tokens * m->shape.hidden, sizeof(float)) + room_bytes(m);
}

static int compare(struct model *m, struct model_agree *out, struct forward f[2], struct arena *step)
{
    const struct model_batch *b = f[P].b;
    struct room r;
    int rc = pass(m, attn_find("dense"), &f[P], step);
    f[Q].x = f[P].x;
    if (!rc && !same_method(m))
        rc = pass(m, m->method, &f[Q], step);
    double t0 = timer_now();
    const float *const x[2] = {f[P].x, f[Q].x};
    rc = rc ? rc : room_open(&r, m, step);
    for (int64_t t = 0, n; !rc && t < b->at[b->n_seq];) {
        n = head_pick(b, &t, r.row);
        if (n)
            compare_rows(&f[P], &r, x, n);
        write_rows(&r, out, n);
    }
    if (out->timer)
        out->timer->s[TIMER_HEAD] += timer_now() - t0;
    return rc;
}

int model_compare(struct model *m, const struct model_batch *b, struct model_agree *out, struct arena *step)
{
    int64_t longest = 0, tokens = b->at[b->n_seq];
    int rc = b->target ? model_check_batch(m, b, NULL, &longest) : err_set(ERR_ARG, "a comparison needs targets");
    if (!rc && tokens > 0)
        rc = model_check_room(step, model_compare_bytes(m, tokens, longest, b->n_seq));
    rc = comm_agree(m->group, rc);
    if (rc || tokens == 0)
        return rc;
    size_t mark = arena_mark(step);
    struct forward f[2] = {{.m = m, .b = b, .longest = longest, .timer = out->timer},
                           {.m = m, .b = b, .longest = longest, .timer = out->timer, .stats = out->stats}};
    if (same_method(m))
        f[P].stats = out->stats;
    rc = compare(m, out, f, step);
    AST_ASSERT(rc != ERR_NOMEM); /* model_compare_bytes is an upper bound */
    arena_release(step, mark);
    return rc;
}
