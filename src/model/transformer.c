/* The forward pass of every architecture. Rows are tokens of all sequences side by side; nothing but attention looks
 * across rows, so that a row's result does not depend on its batch beyond rounding. */
#include "model/forward.h"

#include <omp.h>
#include <string.h>

#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "kernels/mlp.h"
#include "model/work.h"

enum {
    SMALL = 1 << 14, /* floats below which threads cost more than they give */
    DECODERS = 16    /* threads that each attend for another sequence, at most */
};

struct pass { /* one run, as its helpers see it */
    struct forward *f;
    const struct model *m;
    const struct model_layer *l;
    int64_t layer, tokens, half; /* half: rot/2 */
    int64_t row, rows;           /* the chunk: the batch's rows row .. row+rows-1 */
    int64_t q_dim, kv_dim, up_dim;
    struct work w;
    struct arena *step;
};

struct slice { /* the chunk's rows at .. at+n-1, which one thread works on, or all threads on the whole */
    int64_t at, n;
    bool whole;
    int64_t room; /* first of its rows where each thread has slice_rows of its own */
    void *scratch;
    double linear_s;
};

/* How many of a thread's sequences are taken; in a cache line of its own. */
struct turn {
    _Alignas(64) int64_t next;
};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- memory ---- */

static size_t method_scratch(const struct model *m, int64_t rows, int64_t longest)
{
    size_t most = 0;
    for (int64_t l = 0; l < m->shape.layers; l++) {
        size_t n = m->method->scratch ? m->method->scratch(m->opts, &m->attn[l], rows, longest) : 0;
        most = n > most ? n : most;
    }
    return most;
}

/* Threads that each attend for another sequence, when a step of decoding has `rows` of them. */
static int64_t decoders(int64_t rows)
{
    return min64(min64(rows, DECODERS), omp_get_max_threads());
}

size_t forward_bytes(const struct model *m, int64_t tokens, int64_t longest, bool cached)
{
    struct work w;
    size_t one = cached ? (size_t)decoders(tokens) * arena_bytes((int64_t)method_scratch(m, 1, longest), 1) : 0;
    size_t all = method_scratch(m, work_chunk(m, tokens), longest);
    return arena_bytes(tokens * m->shape.hidden, sizeof(float)) + work_take(NULL, m, &w, tokens, !cached, longest) +
           (one > all ? one : all);
}

/* ---- rows ---- */

static double *phase(const struct pass *p, enum timer_phase which)
{
    static _Thread_local double nowhere;
    return p->f->timer ? &p->f->timer->s[which] : &nowhere;
}

static int64_t seq_pos(const struct forward *f, int64_t s)
{
    return f->cache ? f->cache[s]->len : 0;
}

/* x = embed[token]; this rank's part of the vocabulary, the others' rows are zeros until the sum. */
static void embed(struct pass *p)
{
    const struct model *m = p->m;
    int64_t hidden = m->shape.hidden;
    struct model_range mine = m->cut.vocab;
#pragma omp parallel for if (p->tokens * hidden > SMALL)
    for (int64_t t = 0; t < p->tokens; t++) {
        int64_t id = p->f->b->token[t] - mine.first;
        if (id >= 0 && id < mine.n)
            kern_mat_row(m->kern, &m->embed, id, p->f->x + t * hidden);
        else
            memset(p->f->x + t * hidden, 0, (size_t)hidden * sizeof(float));
    }
    if (m->cut.sums) {
        double t0 = timer_now();
        comm_sum_f32(m->group, p->f->x, p->tokens * hidden);
        *phase(p, TIMER_COMM) += timer_now() - t0;
    }
}

/* Rotary angles, one line a row of the batch. */
static void angles(struct pass *p)
{
    const struct model *m = p->m;
    const struct model_batch *b = p->f->b;
    for (int64_t s = 0; p->half && s < b->n_seq; s++) {
        int64_t pos = seq_pos(p->f, s), n = b->at[s + 1] - b->at[s], at = b->at[s] * p->half;
        const float *freq = m->rope_freq;
        if (m->shape.rope.kind == ROPE_DYNAMIC && n > 0) {
            rope_freq(&m->shape.rope, pos + n, p->w.q); /* q is not in use yet and lends its room */
            freq = p->w.q;
        }
#pragma omp parallel for if (n * p->half > SMALL / 16)
        for (int64_t i = 0; i < n; i++)
            rope_angles(&m->shape.rope, freq, pos + i, p->w.cs + at + i * p->half, p->w.sn + at + i * p->half);
    }
}

/* x += pos[t] of one sequence, through xn, which is not in use yet. */
static void add_positions(struct pass *p, int64_t s)
{
    const struct model *m = p->m;
    int64_t first = p->f->b->at[s], n = p->f->b->at[s + 1] - first, pos = seq_pos(p->f, s), hidden = m->shape.hidden;
    int64_t block = work_chunk(p->m, p->tokens);
    for (int64_t i0 = 0; i0 < n; i0 += block) {
#pragma omp parallel for if (block * hidden > SMALL)
        for (int64_t i = i0; i < min64(n, i0 + block); i++) {
            float *line = p->w.xn + (i - i0) * hidden;
            kern_mat_row(m->kern, &m->pos, pos + i, line);
            m->kern->add(p->f->x + (first + i) * hidden, line, hidden);
        }
    }
}

static void norm_row(const struct pass *p, float *y, const float *x, const float *w, const float *b)
{
    const struct kern_table *k = p->m->kern;
    float eps = (float)p->m->shape.eps;
    if (p->m->shape.norm == MODEL_RMSNORM)
        k->rms_norm(y, x, w, p->m->shape.hidden, eps);
    else
        k->layer_norm(y, x, w, b, p->m->shape.hidden, eps);
}

static void norm(const struct pass *p, float *y, const float *x, const float *w, const float *b, int64_t n)
{
    int64_t hidden = p->m->shape.hidden;
#pragma omp parallel for if (n * hidden > SMALL / 2)
    for (int64_t i = 0; i < n; i++)
        norm_row(p, y + i * hidden, x + i * hidden, w, b);
}

/* Row r of the chunk normed, for products of few rows: whoever multiplies them norms them for himself. */
static void first_norm(const void *arg, float *to, int64_t r)
{
    const struct pass *p = arg;
    norm_row(p, to, p->f->x + (p->row + r) * p->m->shape.hidden, p->l->norm1_w, p->l->norm1_b);
}

static void second_norm(const void *arg, float *to, int64_t r)
{
    const struct pass *p = arg;
    norm_row(p, to, p->f->x + (p->row + r) * p->m->shape.hidden, p->l->norm2_w, p->l->norm2_b);
}

static bool few(const struct slice *s)
{
    return s->whole && s->n <= KERN_NARROW;
}

/* Rows of a slice, x and y from its first on: y = x W^T, or += with accumulate. Of c: w, x or row, ldx, y, accumulate. */
static void linear(const struct pass *p, struct slice *s, struct kern_linear c)
{
    double t0 = timer_now();
    c.arg = p, c.m = s->n, c.ldy = c.w->out, c.scratch = s->scratch;
    kern_linear(p->m->kern, &c);
    s->linear_s += timer_now() - t0;
}

static void add_bias(const struct pass *p, float *y, const float *b, int64_t n, int64_t width)
{
    if (!b)
        return;
#pragma omp parallel for if (n * width > SMALL)
    for (int64_t i = 0; i < n; i++)
        p->m->kern->add(y + i * width, b, width);
}

/* ---- attention ---- */

/* The heads of one row: norm over each, a copy before rotation where a predictor wants it, rotation. */
static void heads(const struct pass *p, float *to, float *raw, const float *weight, int64_t n, int64_t row)
{
    const struct model_shape *s = &p->m->shape;
    if (weight)
        for (int64_t h = 0; h < n; h++)
            p->m->kern->rms_norm(to + h * s->dim, to + h * s->dim, weight, s->dim, (float)s->eps);
    if (raw)
        memcpy(raw, to, (size_t)(n * s->dim) * sizeof(float));
    for (int64_t h = 0; p->half && h < n; h++)
        p->m->kern->rope(to + h * s->dim, p->w.cs + row * p->half, p->w.sn + row * p->half, s->rope.rot);
}

/* qkv of a slice -> q, k, v apart, ready for attention. */
static void split_qkv(const struct pass *p, const struct slice *s)
{
    const struct work *w = &p->w;
    int64_t q = p->q_dim, kv = p->kv_dim, wide = q + 2 * kv;
#pragma omp parallel for if (s->n * wide > SMALL)
    for (int64_t i = s->at; i < s->at + s->n; i++) {
        float *row = w->qkv + (s->room + i - s->at) * wide;
        if (p->l->qkv_b)
            p->m->kern->add(row, p->l->qkv_b, wide);
        memcpy(w->q + i * q, row, (size_t)q * sizeof(float));
        memcpy(w->k + i * kv, row + q, (size_t)kv * sizeof(float));
        memcpy(w->v + i * kv, row + q + kv, (size_t)kv * sizeof(float));
        heads(p, w->q + i * q, w->q0 ? w->q0 + i * q : NULL, p->l->q_norm, p->m->cut.heads.n, p->row + i);
        heads(p, w->k + i * kv, w->k0 ? w->k0 + i * kv : NULL, p->l->k_norm, p->m->cut.kv.n, p->row + i);
    }
}

static void append_head(const struct pass *p, struct kern_kv *kv, int64_t g, int64_t at, int64_t n)
{
    const float *k = p->w.k + at * p->kv_dim + g * p->m->shape.dim, *v = p->w.v + at * p->kv_dim + g * p->m->shape.dim;
    p->m->kern->kv_append(&kv[g], k, v, p->kv_dim, n);
}

static void append(const struct pass *p, struct kern_kv *kv, int64_t at, int64_t n)
{
    int64_t heads = p->m->cut.kv.n;
    if (n * p->kv_dim <= SMALL || heads == 1) {
        for (int64_t g = 0; g < heads; g++)
            append_head(p, kv, g, at, n);
        return;
    }
#pragma omp parallel for
    for (int64_t g = 0; g < heads; g++)
        append_head(p, kv, g, at, n);
}

static struct kern_kv *keys_of(const struct pass *p, int64_t s)
{
    return p->f->cache ? p->f->cache[s]->kv + p->layer * p->m->cut.kv.n : p->w.kv;
}

/* One sequence's tokens pos .. pos+n-1, at row `at` of the chunk. */
static int attend(const struct pass *p, int64_t s, int64_t pos, int64_t at, int64_t n)
{
    const struct forward *f = p->f;
    const struct work *w = &p->w;
    const struct model_cache *c = f->cache ? f->cache[s] : NULL;
    struct kern_kv *kv = keys_of(p, s);
    void *state = c ? (c->state ? c->state + (size_t)p->layer * c->state_each : NULL) : w->state;
    if (pos == 0 && !c) { /* the room of the sequence before */
        for (int64_t g = 0; g < p->m->cut.kv.n; g++)
            kv[g].n = 0;
        if (state)
            memset(state, 0, cache_state_bytes(p->m, f->longest));
    }
    AST_ASSERT(kv[0].n == pos);
    append(p, kv, at, n);
    struct attn_call call = {.method = p->m->method,
                             .opts = p->m->opts,
                             .shape = &p->m->attn[p->layer],
                             .params = p->m->params,
                             .kv = kv,
                             .then = n == 1 && s + 1 < f->b->n_seq ? keys_of(p, s + 1) : NULL,
                             .state = state,
                             .pos = pos,
                             .n = n,
                             .q = w->q + at * p->q_dim,
                             .q0 = w->q0 ? w->q0 + at * p->q_dim : NULL,
                             .k0 = w->k0 ? w->k0 + at * p->kv_dim : NULL,
                             .k = w->k + at * p->kv_dim,
                             .v = w->v + at * p->kv_dim,
                             .x = w->q0 ? w->xn + at * p->m->shape.hidden : NULL,
                             .out = w->att + at * p->q_dim,
                             .kern = p->m->kern,
                             .step = p->step,
                             .stats = f->stats ? f->stats + p->layer : NULL};
    return p->m->method->run(&call);
}

/* Of the thread's own part of n sequences the next that nobody has taken, then of others' parts: a thread that goes through
 * neighbours in their order finds the next one's keys on their way. -1: all are taken. */
static int64_t next_sequence(struct turn *turn, int64_t n)
{
    int threads = omp_get_num_threads(), me = omp_get_thread_num();
    for (int i = 0; i < threads; i++) {
        int whose = (me + i) % threads;
        int64_t at;
#pragma omp atomic capture
        at = turn[whose].next++;
        at += n * whose / threads;
        if (at < n * (whose + 1) / threads)
            return at;
    }
    return -1;
}

/* A step of decoding: each of the rows r0 .. r0+n-1 is the one new token of its sequence, and the sequences share nothing.
 * Each thread attends for one after the other, with scratch of its own. */
static int attend_each(const struct pass *p, int64_t r0, int64_t n)
{
    int64_t threads = decoders(n), each = (int64_t)arena_bytes((int64_t)method_scratch(p->m, 1, p->f->longest), 1);
    size_t mark = arena_mark(p->step);
    unsigned char *room = arena_alloc(p->step, threads, (size_t)each);
    struct turn turn[DECODERS] = {{0}};
    int worst = ERR_OK;
    if (!room)
        return ERR_NOMEM;
#pragma omp parallel num_threads((int)threads)
    {
        struct arena mine = {.name = "step", .base = room + omp_get_thread_num() * each, .cap = (size_t)each};
        struct pass own = *p;
        own.step = &mine;
        for (int64_t i; (i = next_sequence(turn, n)) >= 0;) {
            int rc = attend(&own, r0 + i, seq_pos(p->f, r0 + i), i, 1);
            if (rc) {
#pragma omp atomic write
                worst = rc;
            }
        }
    }
    arena_release(p->step, mark);
    return worst;
}

/* All sequences' segments among the batch's rows r0 .. r0+n-1. *seq: the sequence that row r0 belongs to, moved on. */
static int attend_rows(const struct pass *p, int64_t r0, int64_t n, int64_t *seq)
{
    const int64_t *at = p->f->b->at;
    double t0 = timer_now();
    bool single = p->f->cache && p->tokens == p->f->b->n_seq && n > 1 && !p->f->stats && !p->m->method->state_bytes;
    int rc = single ? attend_each(p, r0, n) : ERR_OK;
    for (int64_t row = single ? r0 + n : r0; !rc && row < r0 + n;) {
        while (at[*seq + 1] <= row)
            ++*seq;
        int64_t end = min64(at[*seq + 1], r0 + n);
        rc = attend(p, *seq, seq_pos(p->f, *seq) + row - at[*seq], row - r0, end - row);
        row = end;
    }
    *phase(p, TIMER_ATTN) += timer_now() - t0;
    return rc;
}

/* ---- layers ---- */

/* Does a part of a layer for every row of the chunk: each thread slice after slice, or all threads the whole. */
static void each_slice(const struct pass *p, void (*part)(const struct pass *p, struct slice *s))
{
    int64_t slices = work_slices(p->m, p->rows);
    double linear_s = 0;
    if (!slices) {
        struct slice whole = {.n = p->rows, .whole = true, .scratch = p->w.scratch};
        part(p, &whole);
        linear_s = whole.linear_s;
    }
#pragma omp parallel for schedule(dynamic, 1) if (slices > 1)
    for (int64_t i = 0; i < slices; i++) {
        int thread = omp_get_thread_num();
        struct slice s = {.at = p->rows * i / slices, .scratch = p->w.scratch + (size_t)thread * p->w.scratch_each};
        s.n = p->rows * (i + 1) / slices - s.at;
        s.room = thread * p->w.slice_rows;
        part(p, &s);
        if (thread == 0) /* one thread's time stands for all; waiting for the others counts as the rest */
            linear_s += s.linear_s;
    }
    *phase(p, TIMER_LINEAR) += linear_s;
}

static float *residual(const struct pass *p, const struct slice *s)
{
    return p->f->x + (p->row + s->at) * p->m->shape.hidden;
}

static void before_attention(const struct pass *p, struct slice *s)
{
    int64_t hidden = p->m->shape.hidden;
    float *xn = p->w.xn + s->at * hidden;
    bool made = few(s) && !p->w.q0; /* predictors read xn */
    if (!made)
        norm(p, xn, residual(p, s), p->l->norm1_w, p->l->norm1_b, s->n);
    if (p->m->shape.parallel)
        norm(p, p->w.xn2 + s->at * hidden, residual(p, s), p->l->norm2_w, p->l->norm2_b, s->n);
    float *qkv = p->w.qkv + s->room * p->l->qkv.out;
    linear(p, s, (struct kern_linear){.w = &p->l->qkv, .x = xn, .ldx = hidden, .row = made ? first_norm : NULL, .y = qkv});
    split_qkv(p, s);
}

/* x += y W^T. One rank adds straight into x; several collect their parts in sum, which add_sums adds up. */
static void project(const struct pass *p, struct slice *s, const struct kern_mat *w, const float *y, int64_t ldy, bool first)
{
    bool sums = p->m->cut.sums;
    float *to = sums ? p->w.sum + s->at * w->out : residual(p, s);
    linear(p, s, (struct kern_linear){.w = w, .x = y + s->at * ldy, .ldx = ldy, .y = to, .accumulate = !sums || !first});
}

static void add_sums(const struct pass *p)
{
    int64_t n = p->rows * p->m->shape.hidden;
    double t0 = timer_now();
    comm_sum_f32(p->m->group, p->w.sum, n);
    *phase(p, TIMER_COMM) += timer_now() - t0;
    p->m->kern->add(p->f->x + p->row * p->m->shape.hidden, p->w.sum, n);
}

/* Columns first .. first+n-1 of a row of the hidden layer, its bias in both halves; u NULL: not gated. */
static void activate(const void *arg, float *h, float *u, int64_t first, int64_t n)
{
    const struct pass *p = arg;
    const struct kern_table *k = p->m->kern;
    enum model_act act = p->m->shape.act;
    if (p->l->up_b)
        k->add(h, p->l->up_b + first, n);
    if (p->l->up_b && u)
        k->add(u, p->l->up_b + p->m->cut.mlp.n + first, n);
    if (u && act == MODEL_SILU)
        k->silu_mul(h, h, u, n);
    else if (u)
        k->gelu_mul(h, h, u, n, act == MODEL_GELU_TANH);
    else if (act == MODEL_SILU)
        k->silu(h, n);
    else if (act == MODEL_RELU)
        k->relu(h, n);
    else
        k->gelu(h, n, act == MODEL_GELU_TANH);
}

static void activate_rows(const struct pass *p, const struct slice *s)
{
    int64_t wide = p->up_dim, f = p->m->cut.mlp.n;
#pragma omp parallel for if (s->n * wide > SMALL)
    for (int64_t i = s->at; i < s->at + s->n; i++) {
        float *y = p->w.up + i * wide;
        activate(p, y, p->m->shape.gated ? y + f : NULL, 0, f);
    }
}

static void project_heads(const struct pass *p, struct slice *s)
{
    project(p, s, &p->l->o, p->w.att, p->q_dim, true);
}

/* The MLP of a thread's own rows or of few, activation and all, from x to what project() adds to. */
static void both_products(const struct pass *p, struct slice *s, const float *x, bool made)
{
    int64_t hidden = p->m->shape.hidden;
    bool sums = p->m->cut.sums;
    double t0 = timer_now();
    struct kern_mlp c = {.up = &p->l->up,
                         .down = &p->l->down,
                         .gated = p->m->shape.gated,
                         .act = activate,
                         .arg = p,
                         .x = x + s->at * hidden,
                         .row = made ? second_norm : NULL,
                         .m = s->n,
                         .ldx = hidden,
                         .y = sums ? p->w.sum + s->at * hidden : residual(p, s),
                         .ldy = hidden,
                         .accumulate = !sums || p->m->shape.parallel,
                         .scratch = s->scratch};
    kern_mlp(p->m->kern, &c);
    s->linear_s += timer_now() - t0;
}

static void mlp(const struct pass *p, struct slice *s)
{
    bool parallel = p->m->shape.parallel, made = few(s) && !parallel;
    int64_t hidden = p->m->shape.hidden;
    add_bias(p, residual(p, s), p->l->o_b, s->n, hidden);
    if (!parallel && !made)
        norm(p, p->w.xn + s->at * hidden, residual(p, s), p->l->norm2_w, p->l->norm2_b, s->n);
    const float *x = parallel ? p->w.xn2 : p->w.xn;
    if ((few(s) || !s->whole) && kern_mlp_fits(&p->l->up, &p->l->down, s->n)) {
        both_products(p, s, x, made);
        return;
    }
    float *up = p->w.up + s->at * p->up_dim;
    linear(p, s,
           (struct kern_linear){.w = &p->l->up, .x = x + s->at * hidden, .ldx = hidden, .row = made ? second_norm : NULL, .y = up});
    activate_rows(p, s);
    project(p, s, &p->l->down, p->w.up, p->up_dim, !parallel);
}

static void last_bias(const struct pass *p, struct slice *s)
{
    add_bias(p, residual(p, s), p->l->down_b, s->n, p->m->shape.hidden);
}

/* All that follows attention, where no sums over ranks come between. */
static void after_attention(const struct pass *p, struct slice *s)
{
    project_heads(p, s);
    mlp(p, s);
    last_bias(p, s);
}

/* One layer over the chunk. */
static int layer_rows(const struct pass *p, int64_t *seq)
{
    each_slice(p, before_attention);
    int rc = attend_rows(p, p->row, p->rows, seq);
    if (rc)
        return rc;
    if (!p->m->cut.sums) {
        each_slice(p, after_attention);
        return ERR_OK;
    }
    each_slice(p, project_heads);
    if (!p->m->shape.parallel)
        add_sums(p);
    each_slice(p, mlp);
    add_sums(p);
    each_slice(p, last_bias);
    return ERR_OK;
}

int forward_run(struct forward *f, struct arena *step)
{
    const struct model *m = f->m;
    struct pass p = {.f = f, .m = m, .tokens = f->b->at[f->b->n_seq], .half = m->shape.rope.rot / 2, .step = step};
    p.q_dim = m->cut.heads.n * m->shape.dim;
    p.kv_dim = m->cut.kv.n * m->shape.dim;
    p.up_dim = m->layer[0].up.out;
    f->x = ARENA_NEW(step, p.tokens * m->shape.hidden, float);
    size_t mark = arena_mark(step);
    double begin = timer_now(), before = 0;
    for (int i = 0; f->timer && i < TIMER_PHASES; i++)
        before += i == TIMER_SELECT ? 0 : f->timer->s[i];
    size_t need = work_take(step, m, &p.w, p.tokens, !f->cache, f->longest);
    if (!f->x || step->used - mark != need)
        return ERR_NOMEM;
    embed(&p);
    angles(&p);
    for (int64_t s = 0; m->shape.pos == MODEL_POS_LEARNED && s < f->b->n_seq; s++)
        add_positions(&p, s);
    int rc = ERR_OK;
    for (p.layer = 0; !rc && p.layer < m->shape.layers; p.layer++) {
        p.l = &m->layer[p.layer];
        int64_t seq = 0;
        for (p.row = 0; !rc && p.row < p.tokens; p.row += p.rows) {
            p.rows = min64(work_chunk(m, p.tokens), p.tokens - p.row);
            rc = layer_rows(&p, &seq);
        }
    }
    for (int64_t s = 0; !rc && f->cache && s < f->b->n_seq; s++)
        f->cache[s]->len += f->b->at[s + 1] - f->b->at[s];
    arena_release(step, mark);
    for (int i = 0; f->timer && i < TIMER_PHASES; i++)
        before -= i == TIMER_SELECT ? 0 : f->timer->s[i];
    *phase(&p, TIMER_OTHER) += timer_now() - begin + before; /* what no phase has claimed */
    return rc;
}
