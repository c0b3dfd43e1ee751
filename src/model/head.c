/* Vocabulary projection and cross-entropy. */
#include "model/head.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"

enum { ROWS = HEAD_ROWS, COLS = HEAD_COLS };

struct room {
    float *xn; /* (ROWS, D) */
    float *y;  /* (ROWS, COLS) */
    struct head_side side;
    int64_t *row; /* (ROWS,) */
    void *scratch;
};

size_t head_side_bytes(void)
{
    return 2 * arena_bytes(ROWS, sizeof(float)) + 3 * arena_bytes(ROWS, sizeof(double));
}

int head_side_open(struct head_side *s, struct arena *step)
{
    s->max = ARENA_NEW(step, ROWS, float);
    s->best = ARENA_NEW(step, ROWS, float);
    s->sum = ARENA_NEW(step, ROWS, double);
    s->target = ARENA_NEW(step, ROWS, double);
    s->id = ARENA_NEW(step, ROWS, double);
    return s->max && s->best && s->sum && s->target && s->id ? ERR_OK : ERR_NOMEM;
}

static size_t scratch_bytes(const struct model *m)
{
    return kern_linear_scratch(&m->head, ROWS);
}

size_t head_bytes(const struct model *m)
{
    return arena_bytes(ROWS * m->shape.hidden, sizeof(float)) + arena_bytes((int64_t)ROWS * COLS, sizeof(float)) +
           head_side_bytes() + arena_bytes(ROWS, sizeof(int64_t)) + arena_bytes((int64_t)scratch_bytes(m), 1);
}

static int room_open(struct room *r, const struct model *m, struct arena *step)
{
    r->xn = ARENA_NEW(step, ROWS * m->shape.hidden, float);
    r->y = ARENA_NEW(step, (int64_t)ROWS * COLS, float);
    r->row = ARENA_NEW(step, ROWS, int64_t);
    r->scratch = arena_alloc(step, (int64_t)scratch_bytes(m), 1);
    return head_side_open(&r->side, step) || !r->xn || !r->y || !r->row || !r->scratch ? ERR_NOMEM : ERR_OK;
}

void head_norm(const struct model *m, const float *x, const int64_t *row, int64_t n, float *y)
{
    int64_t hidden = m->shape.hidden;
    float eps = (float)m->shape.eps;
#pragma omp parallel for if (n * hidden > 1 << 15)
    for (int64_t i = 0; i < n; i++) {
        if (m->shape.norm == MODEL_RMSNORM)
            m->kern->rms_norm(y + i * hidden, x + row[i] * hidden, m->norm_w, hidden, eps);
        else
            m->kern->layer_norm(y + i * hidden, x + row[i] * hidden, m->norm_w, m->norm_b, hidden, eps);
    }
}

void head_chunk(const struct model *m, const struct head_part *p)
{
    struct kern_linear lin = {.w = &m->head,
                              .r0 = p->part.first,
                              .r1 = p->part.first + p->part.n,
                              .x = p->xn,
                              .m = p->n,
                              .ldx = m->shape.hidden,
                              .y = p->y,
                              .ldy = COLS,
                              .scratch = p->scratch};
    kern_linear(m->kern, &lin);
}

void head_side_begin(const struct head_side *s, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        s->max[i] = s->best[i] = -INFINITY;
        s->sum[i] = s->target[i] = s->id[i] = 0;
    }
}

void head_side_fold(const struct model *m, const struct head_side *s, int64_t i, const struct head_row *row)
{
    const float *y = row->y;
    struct model_range part = row->part;
    int64_t best = m->kern->argmax(y, part.n), t = row->target - part.first;
    m->kern->lse_update(y, part.n, &s->max[i], &s->sum[i]);
    if (t >= 0 && t < part.n)
        s->target[i] = (double)y[t];
    if (best >= 0 && y[best] > s->best[i]) { /* chunks ascend: a tie keeps the lower token */
        s->best[i] = y[best];
        s->id[i] = (double)(part.first + best);
    }
}

/* Seconds inside MPI; the head's own clock runs on meanwhile. */
static void count_comm(struct timer *timer, double s)
{
    if (!timer)
        return;
    timer->s[TIMER_COMM] += s;
    timer->s[TIMER_HEAD] -= s;
}

void head_side_join(const struct model *m, const struct head_side *s, int64_t n, struct timer *timer)
{
    float mine[ROWS];
    double t0 = timer_now();
    memcpy(mine, s->max, (size_t)n * sizeof(float));
    comm_max_f32(m->group, s->max, n);
    for (int64_t i = 0; i < n; i++)
        s->sum[i] = mine[i] == -INFINITY ? 0 : s->sum[i] * exp((double)mine[i] - (double)s->max[i]);
    comm_sum_f64(m->group, s->sum, n);
    comm_sum_f64(m->group, s->target, n);
    memcpy(mine, s->best, (size_t)n * sizeof(float));
    comm_max_f32(m->group, s->best, n);
    for (int64_t i = 0; i < n; i++)
        s->id[i] = mine[i] == s->best[i] ? -s->id[i] : -(double)INFINITY;
    comm_max_f64(m->group, s->id, n); /* the lowest token among equals */
    for (int64_t i = 0; i < n; i++)
        s->id[i] = -s->id[i];
    count_comm(timer, timer_now() - t0);
}

double head_side_nll(const struct head_side *s, int64_t i)
{
    return (double)s->max[i] + log(s->sum[i]) - s->target[i];
}

int64_t head_pick(const struct model_batch *b, int64_t *t, int64_t row[HEAD_ROWS])
{
    int64_t n = 0;
    for (; *t < b->at[b->n_seq] && n < ROWS; ++*t)
        if (b->target[*t] >= 0)
            row[n++] = *t;
    return n;
}

static void score_rows(const struct model *m, const struct room *r, const struct model_batch *b, struct model_out *out, int64_t n)
{
    const struct head_side *s = &r->side;
    head_side_begin(s, n);
    for (int64_t v = 0; v < m->cut.vocab.n; v += COLS) {
        struct model_range part = {v, m->cut.vocab.n - v < COLS ? m->cut.vocab.n - v : COLS};
        head_chunk(m, &(struct head_part){r->xn, n, part, r->y, r->scratch});
        part.first += m->cut.vocab.first; /* model-wide from here */
#pragma omp parallel for if (n > 1)
        for (int64_t i = 0; i < n; i++)
            head_side_fold(m, s, i, &(struct head_row){r->y + i * COLS, part, b->target[r->row[i]]});
    }
    if (m->cut.sums)
        head_side_join(m, s, n, out->timer);
    for (int64_t i = 0; i < n; i++) {
        if (out->nll)
            out->nll[r->row[i]] = (float)head_side_nll(s, i);
        if (out->top1)
            out->top1[r->row[i]] = (int32_t)s->id[i];
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
    if (out->nll)
        memset(out->nll, 0, (size_t)tokens * sizeof *out->nll);
    for (int64_t t = 0, n; t < tokens;) {
        n = head_pick(b, &t, r.row);
        head_norm(m, x, r.row, n, r.xn);
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
        head_norm(m, x, row + i, rows, r.xn);
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
