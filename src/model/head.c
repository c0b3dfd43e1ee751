/* Vocabulary projection and cross-entropy. */
#include "model/head.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"

enum { ROWS = 128, COLS = 2048 }; /* of a chunk: 1 MiB of logits, which stays in the second-level cache */

struct room {
    float *xn;         /* (ROWS, D) */
    float *y;          /* (ROWS, COLS) */
    float *max, *best; /* (ROWS,) running maximum; logit of the best so far */
    double *sum;       /* (ROWS,) of exp(logit - max) */
    double *target;    /* (ROWS,) logit of the target, 0 on ranks that do not hold it */
    double *id;        /* (ROWS,) the best's token */
    int64_t *row;      /* (ROWS,) */
    void *scratch;
};

static size_t scratch_bytes(const struct model *m)
{
    return kern_linear_scratch(&m->head, ROWS);
}

size_t head_bytes(const struct model *m)
{
    return arena_bytes(ROWS * m->shape.hidden, sizeof(float)) + arena_bytes(ROWS * COLS, sizeof(float)) +
           2 * arena_bytes(ROWS, sizeof(float)) + 3 * arena_bytes(ROWS, sizeof(double)) + arena_bytes(ROWS, sizeof(int64_t)) +
           arena_bytes((int64_t)scratch_bytes(m), 1);
}

static int room_open(struct room *r, const struct model *m, struct arena *step)
{
    r->xn = ARENA_NEW(step, ROWS * m->shape.hidden, float);
    r->y = ARENA_NEW(step, ROWS * COLS, float);
    r->max = ARENA_NEW(step, ROWS, float);
    r->best = ARENA_NEW(step, ROWS, float);
    r->sum = ARENA_NEW(step, ROWS, double);
    r->target = ARENA_NEW(step, ROWS, double);
    r->id = ARENA_NEW(step, ROWS, double);
    r->row = ARENA_NEW(step, ROWS, int64_t);
    r->scratch = arena_alloc(step, (int64_t)scratch_bytes(m), 1);
    return r->xn && r->y && r->max && r->best && r->sum && r->target && r->id && r->row && r->scratch ? ERR_OK : ERR_NOMEM;
}

static void norm_rows(const struct model *m, const struct room *r, const float *x, const int64_t *row, int64_t n)
{
    int64_t hidden = m->shape.hidden;
    float eps = (float)m->shape.eps;
#pragma omp parallel for if (n * hidden > 1 << 15)
    for (int64_t i = 0; i < n; i++) {
        if (m->shape.norm == MODEL_RMSNORM)
            m->kern->rms_norm(r->xn + i * hidden, x + row[i] * hidden, m->norm_w, hidden, eps);
        else
            m->kern->layer_norm(r->xn + i * hidden, x + row[i] * hidden, m->norm_w, m->norm_b, hidden, eps);
    }
}

/* Folds the logits of the tokens first .. first+cols-1 (model-wide numbers) into the running values of n rows. */
static void fold(const struct model *m, const struct room *r, const int32_t *target, int64_t n, struct model_range part)
{
#pragma omp parallel for if (n > 1)
    for (int64_t i = 0; i < n; i++) {
        const float *y = r->y + i * COLS;
        int64_t best = m->kern->argmax(y, part.n), t = target[r->row[i]] - part.first;
        m->kern->lse_update(y, part.n, &r->max[i], &r->sum[i]);
        if (t >= 0 && t < part.n)
            r->target[i] = (double)y[t];
        if (best >= 0 && y[best] > r->best[i]) { /* chunks ascend: a tie keeps the lower token */
            r->best[i] = y[best];
            r->id[i] = (double)(part.first + best);
        }
    }
}

/* The group's values from each rank's part of the vocabulary. */
static void join(const struct model *m, const struct room *r, int64_t n)
{
    float mine[ROWS];
    memcpy(mine, r->max, (size_t)n * sizeof(float));
    comm_max_f32(m->group, r->max, n);
    for (int64_t i = 0; i < n; i++)
        r->sum[i] = mine[i] == -INFINITY ? 0 : r->sum[i] * exp((double)mine[i] - (double)r->max[i]);
    comm_sum_f64(m->group, r->sum, n);
    comm_sum_f64(m->group, r->target, n);
    memcpy(mine, r->best, (size_t)n * sizeof(float));
    comm_max_f32(m->group, r->best, n);
    for (int64_t i = 0; i < n; i++)
        r->id[i] = mine[i] == r->best[i] ? -r->id[i] : -(double)INFINITY;
    comm_max_f64(m->group, r->id, n); /* the lowest token among equals */
    for (int64_t i = 0; i < n; i++)
        r->id[i] = -r->id[i];
}

/* Seconds inside MPI; the head's own clock runs on meanwhile. */
static void count_comm(struct timer *timer, double s)
{
    if (!timer)
        return;
    timer->s[TIMER_COMM] += s;
    timer->s[TIMER_HEAD] -= s;
}

static void score_rows(const struct model *m, const struct room *r, const struct model_batch *b, struct model_out *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        r->max[i] = r->best[i] = -INFINITY;
        r->sum[i] = r->target[i] = r->id[i] = 0;
    }
    for (int64_t v = 0; v < m->cut.vocab.n; v += COLS) {
        int64_t cols = m->cut.vocab.n - v < COLS ? m->cut.vocab.n - v : COLS;
        struct kern_linear lin = {.w = &m->head,
                                  .r0 = v,
                                  .r1 = v + cols,
                                  .x = r->xn,
                                  .m = n,
                                  .ldx = m->shape.hidden,
                                  .y = r->y,
                                  .ldy = COLS,
                                  .scratch = r->scratch};
        kern_linear(m->kern, &lin);
        fold(m, r, b->target, n, (struct model_range){m->cut.vocab.first + v, cols});
    }
    if (m->cut.sums) {
        double t0 = timer_now();
        join(m, r, n);
        count_comm(out->timer, timer_now() - t0);
    }
    for (int64_t i = 0; i < n; i++) {
        if (out->nll)
            out->nll[r->row[i]] = (float)((double)r->max[i] + log(r->sum[i]) - r->target[i]);
        if (out->top1)
            out->top1[r->row[i]] = (int32_t)r->id[i];
    }
}

int head_score(const struct model *m, const float *x, const struct model_batch *b, struct model_out *out, struct arena *step)
{
    if (!b->target || (!out->nll && !out->top1))
        return ERR_OK;
    int64_t tokens = b->at[b->n_seq];
    size_t mark = arena_mark(step);
    double t0 = timer_now();
    struct room r;
    int rc = room_open(&r, m, step);
    if (rc)
        return rc;
    for (int64_t t = 0; t < tokens;) {
        int64_t n = 0;
        for (; t < tokens && n < ROWS; t++) {
            if (b->target[t] >= 0)
                r.row[n++] = t;
            else if (out->nll)
                out->nll[t] = 0;
        }
        norm_rows(m, &r, x, r.row, n);
        if (n)
            score_rows(m, &r, b, out, n);
    }
    arena_release(step, mark);
    if (out->timer)
        out->timer->s[TIMER_HEAD] += timer_now() - t0;
    return ERR_OK;
}

int head_logits(const struct model *m, const float *x, const int64_t *row, int64_t n, float *logits, struct timer *timer,
                struct arena *step)
{
    size_t mark = arena_mark(step);
    double t0 = timer_now();
    int64_t vocab = m->shape.vocab;
    struct room r;
    int rc = room_open(&r, m, step);
    if (rc)
        return rc;
    for (int64_t i = 0; i < n; i += ROWS) {
        int64_t rows = n - i < ROWS ? n - i : ROWS;
        float *y = logits + i * vocab;
        norm_rows(m, &r, x, row + i, rows);
        if (m->cut.sums)
            memset(y, 0, (size_t)(rows * vocab) * sizeof(float));
        struct kern_linear lin = {.w = &m->head,
                                  .x = r.xn,
                                  .m = rows,
                                  .ldx = m->shape.hidden,
                                  .y = y + m->cut.vocab.first,
                                  .ldy = vocab,
                                  .scratch = r.scratch};
        kern_linear(m->kern, &lin);
        if (m->cut.sums) {
            double t1 = timer_now();
            comm_sum_f32(m->group, y, rows * vocab);
            count_comm(timer, timer_now() - t1);
        }
    }
    arena_release(step, mark);
    if (timer)
        timer->s[TIMER_HEAD] += timer_now() - t0;
    return ERR_OK;
}
