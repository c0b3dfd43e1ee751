/* Attention and MLP of a layer on the way forward and back. */
#include "train/back_layer.h"

#include <string.h>

#include "base/err.h"
#include "comm/comm.h"
#include "train/back_ops.h"

enum { SMALL = 1 << 14 };

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- memory ---- */

static size_t floats(struct arena *to, float **p, bool want, int64_t n)
{
    *p = NULL;
    if (!want)
        return 0;
    if (to)
        *p = ARENA_NEW(to, n, float);
    return arena_bytes(n, sizeof(float));
}

bool layer_keeps_x1(const struct net *n)
{
    return n->group && n->group->size > 1 && !n->shape->parallel;
}

size_t layer_take(struct arena *to, const struct net *n, struct layer_work *w, int64_t N, bool backward)
{
    const struct model_shape *s = n->shape;
    int64_t q = s->heads * s->dim, kv = s->kv_heads * s->dim, D = s->hidden, half = s->rope.rot / 2, M = min64(N, LAYER_ROWS);
    int64_t most = s->heads > 1 ? s->heads : 1; /* statistics of q's norm have a row a head */
    bool gate = n->gate.layer != NULL, b = backward;
    size_t z = floats(to, &w->cs, half > 0, N * half) + floats(to, &w->sn, half > 0, N * half);
    z += floats(to, &w->ns, half > 0, N * half) + floats(to, &w->xn, true, N * D) + floats(to, &w->qkv, true, N * (q + 2 * kv));
    z += floats(to, &w->q, true, N * q) + floats(to, &w->k, true, N * kv) + floats(to, &w->v, true, N * kv);
    z += floats(to, &w->q0, gate, N * q) + floats(to, &w->k0, gate, N * kv);
    z += floats(to, &w->xm, true, M * D) + floats(to, &w->up, true, M * 2 * s->mlp) + floats(to, &w->h, true, M * s->mlp);
    z += floats(to, &w->dh, b, M * s->mlp) + floats(to, &w->dxm, b, M * D) +
         floats(to, &w->x1, b && !s->parallel && !layer_keeps_x1(n), N * D);
    z += floats(to, &w->datt, b, N * q) + floats(to, &w->dq, b, N * q) + floats(to, &w->dk, b, N * kv);
    z += floats(to, &w->dv, b, N * kv) + floats(to, &w->dq0, b && gate, N * q) + floats(to, &w->dk0, b && gate, N * kv);
    z += floats(to, &w->dqkv, b, N * (q + 2 * kv)) + floats(to, &w->dxn, b, N * D) + floats(to, &w->stat, b, 2 * N * most);
    return z;
}

/* ---- groups ---- */

/* What is there once (the residual stream, biases behind a sum) comes from the first rank. */
static bool first_rank(const struct layer_run *r)
{
    return !r->net->group || r->net->group->rank == 0;
}

static void sum(const struct layer_run *r, float *x, int64_t n)
{
    comm_sum_f32(r->net->group, x, n);
}

/* ---- forward ---- */

static struct net_part *parts(const struct layer_run *r)
{
    return r->net->layer[r->layer];
}

static struct op_linear linear_of(const struct layer_run *r, int part, int64_t m)
{
    const struct model_shape *s = r->net->shape;
    struct net_part *p = parts(r);
    int first = part == PART_UP && s->gated ? PART_GATE : part;
    struct op_linear l = {.w = &p[first], .out = p[part].rows, .m = m};
    if (part == PART_Q)
        l.out = p[PART_Q].rows + p[PART_K].rows + p[PART_V].rows;
    else if (part == PART_UP && s->gated)
        l.out = 2 * p[PART_UP].rows;
    r->s->flops += 2 * (double)m * (double)l.out * (double)l.w->cols;
    return l;
}

static struct op_norm norm_of(const struct layer_run *r, int part, int64_t m)
{
    const struct model_shape *s = r->net->shape;
    struct net_part *p = parts(r);
    return (struct op_norm){.kern = r->net->kern,
                            .w = &p[part],
                            .b = &p[part + 1],
                            .rms = s->norm == MODEL_RMSNORM,
                            .m = m,
                            .width = s->hidden,
                            .eps = (float)s->eps,
                            .stat = r->w.stat};
}

static struct op_act act_of(const struct layer_run *r, int64_t m)
{
    const struct model_shape *s = r->net->shape;
    return (struct op_act){.kern = r->net->kern, .act = s->act, .gated = s->gated, .m = m, .mlp = s->mlp};
}

/* Norm over each head, copy before rotation, rotation: of n heads of one row. */
static void ready_heads(const struct layer_run *r, float *to, float *raw, const float *norm, const int64_t n_row[2])
{
    const struct model_shape *s = r->net->shape;
    int64_t half = s->rope.rot / 2, n = n_row[0], at = n_row[1] * half;
    for (int64_t h = 0; norm && h < n; h++)
        r->net->kern->rms_norm(to + h * s->dim, to + h * s->dim, norm, s->dim, (float)s->eps);
    if (raw)
        memcpy(raw, to, (size_t)(n * s->dim) * sizeof(float));
    for (int64_t h = 0; half && h < n; h++)
        r->net->kern->rope(to + h * s->dim, r->w.cs + at, r->w.sn + at, s->rope.rot);
}

/* Normed input, then q, k, v of all tokens. */
static void project_qkv(const struct layer_run *r, const float *x)
{
    const struct model_shape *s = r->net->shape;
    const struct layer_work *w = &r->w;
    const struct net_part *p = parts(r);
    int64_t q = s->heads * s->dim, kv = s->kv_heads * s->dim, wide = q + 2 * kv;
    struct op_norm n = norm_of(r, PART_NORM1_W, r->tokens);
    op_norm(&n, x, w->xn);
    struct op_linear l = linear_of(r, PART_Q, r->tokens);
    op_linear(&l, w->xn, w->qkv, false);
    op_bias(r->net->kern, w->qkv, &p[PART_Q_B], r->tokens, wide);
#pragma omp parallel for if (r->tokens * wide > SMALL)
    for (int64_t t = 0; t < r->tokens; t++) {
        const float *row = w->qkv + t * wide;
        memcpy(w->q + t * q, row, (size_t)q * sizeof(float));
        memcpy(w->k + t * kv, row + q, (size_t)kv * sizeof(float));
        memcpy(w->v + t * kv, row + q + kv, (size_t)kv * sizeof(float));
        ready_heads(r, w->q + t * q, w->q0 ? w->q0 + t * q : NULL, p[PART_Q_NORM].w, (const int64_t[2]){s->heads, t});
        ready_heads(r, w->k + t * kv, w->k0 ? w->k0 + t * kv : NULL, p[PART_K_NORM].w, (const int64_t[2]){s->kv_heads, t});
    }
}

static struct back_gate gate_of(const struct layer_run *r, const struct back_attn *a, int64_t at, float *tau)
{
    const struct net *n = r->net;
    int64_t q = n->shape->heads * n->shape->dim, kv = n->shape->kv_heads * n->shape->dim;
    return (struct back_gate){.kern = n->kern,
                              .shape = a->shape,
                              .rule = a->rule,
                              .angles = &r->angles,
                              .w = &n->gate.layer[r->layer],
                              .context = n->gate_known[r->layer][2],
                              .n = a->n,
                              .units = n->gate.units,
                              .width = n->gate.width,
                              .buckets = n->gate.buckets,
                              .q0 = r->w.q0 + at * q,
                              .k0 = r->w.k0 + at * kv,
                              .x = r->w.xn + at * n->shape->hidden,
                              .k = a->k,
                              .v = a->v,
                              .tau = tau + at * n->gate.units,
                              .step = r->step};
}

static struct back_attn attn_of(const struct layer_run *r, const struct layer_keep *k, int64_t seq)
{
    const struct model_shape *s = r->net->shape;
    const int64_t *b = r->s->b->at;
    int64_t at = b[seq], q = s->heads * s->dim, kv = s->kv_heads * s->dim;
    return (struct back_attn){.kern = r->net->kern,
                              .shape = &r->net->model->attn[r->layer],
                              .rule = &r->s->rule[r->layer],
                              .n = b[seq + 1] - at,
                              .q = r->w.q + at * q,
                              .k = r->w.k + at * kv,
                              .v = r->w.v + at * kv,
                              .out = k->att + at * q,
                              .lse = k->lse + at * s->heads,
                              .step = r->step};
}

static int attend(struct layer_run *r, const struct layer_keep *k)
{
    int rc = ERR_OK;
    for (int64_t seq = 0; !rc && seq < r->s->b->n_seq; seq++) {
        struct back_attn a = attn_of(r, k, seq);
        struct back_gate g;
        size_t mark = arena_mark(r->step);
        if (a.n == 0)
            continue;
        if (a.rule->mask == BACK_SOFT || a.rule->mask == BACK_HARD) {
            g = gate_of(r, &a, r->s->b->at[seq], k->tau);
            a.gate = &g;
            rc = back_gate_open(&g, false);
        }
        rc = rc ? rc : back_attn_forward(&a);
        r->s->kept += a.kept, r->s->seen += a.seen, r->s->flops += a.flops;
        arena_release(r->step, mark);
    }
    return rc;
}

/* up and h of m rows from their normed input in xm */
static void mlp_up(const struct layer_run *r, int64_t m)
{
    struct op_linear up = linear_of(r, PART_UP, m);
    struct op_act act = act_of(r, m);
    op_linear(&up, r->w.xm, r->w.up, false);
    op_bias(r->net->kern, r->w.up, &parts(r)[r->net->shape->gated ? PART_GATE_B : PART_UP_B], m, up.out);
    op_act(&act, r->w.up, r->w.h);
}

/* x1 (rows t0 ..): x + o(att) + its bias; in parallel layers this rank's share, to which the MLP's comes */
static void after_attention(const struct layer_run *r, const struct layer_keep *k, float *x1, int64_t t0, int64_t m)
{
    int64_t D = r->net->shape->hidden, q = r->net->shape->heads * r->net->shape->dim;
    struct op_linear o = linear_of(r, PART_O, m);
    if (first_rank(r))
        memcpy(x1, k->x + t0 * D, (size_t)(m * D) * sizeof(float));
    op_linear(&o, k->att + t0 * q, x1, first_rank(r));
    if (first_rank(r))
        op_bias(r->net->kern, x1, &parts(r)[PART_O_B], m, D);
    if (!r->net->shape->parallel)
        sum(r, x1, m * D);
}

int layer_forward(struct layer_run *r, const struct layer_keep *k, float *out)
{
    bool parallel = r->net->shape->parallel;
    int64_t D = r->net->shape->hidden;
    project_qkv(r, k->x);
    int rc = attend(r, k);
    for (int64_t t = 0; !rc && t < r->tokens; t += LAYER_ROWS) {
        int64_t m = min64(LAYER_ROWS, r->tokens - t);
        float *y = out + t * D;
        struct op_norm n = norm_of(r, PART_NORM2_W, m);
        struct op_linear down = linear_of(r, PART_DOWN, m);
        after_attention(r, k, y, t, m);
        if (k->x1)
            memcpy(k->x1 + t * D, y, (size_t)(m * D) * sizeof(float));
        op_norm(&n, parallel ? k->x + t * D : y, r->w.xm);
        mlp_up(r, m);
        op_linear(&down, r->w.h, y, first_rank(r) || parallel);
        if (first_rank(r))
            op_bias(r->net->kern, y, &parts(r)[PART_DOWN_B], m, D);
        sum(r, y, m * D);
    }
    return rc;
}

/* ---- backward ---- */

/* The MLP of all rows: dx += its input's gradient (x: the input of its norm). */
static void mlp_grad(const struct layer_run *r, const float *x, float *dx)
{
    int64_t D = r->net->shape->hidden;
    const struct net_part *p = parts(r);
    int up_b = r->net->shape->gated ? PART_GATE_B : PART_UP_B;
    for (int64_t t = 0; t < r->tokens; t += LAYER_ROWS) {
        int64_t m = min64(LAYER_ROWS, r->tokens - t);
        struct op_norm n = norm_of(r, PART_NORM2_W, m);
        op_norm(&n, x + t * D, r->w.xm);
        mlp_up(r, m);
        struct op_linear down = linear_of(r, PART_DOWN, m), up = linear_of(r, PART_UP, m);
        struct op_act act = act_of(r, m);
        op_linear_input(&down, dx + t * D, r->w.dh, false);
        op_linear_weight(&down, dx + t * D, r->w.h);
        op_bias_grad(&p[PART_DOWN_B], dx + t * D, m, D);
        op_act_grad(&act, r->w.dh, r->w.up);
        op_linear_input(&up, r->w.up, r->w.dxm, false);
        sum(r, r->w.dxm, m * D);
        op_linear_weight(&up, r->w.up, r->w.xm);
        op_bias_grad(&p[up_b], r->w.up, m, up.out);
        op_norm_grad(&n, x + t * D, r->w.dxm, dx + t * D);
        for (const struct op_linear *l = &down; l; l = l == &down ? &up : NULL)
            r->s->flops += l->w->g ? 2 * (double)m * (double)l->out * (double)l->w->cols : 0;
    }
}

static int attend_grad(struct layer_run *r, const struct layer_keep *k, bool last)
{
    const struct net *net = r->net;
    const struct model_shape *s = net->shape;
    int64_t q = s->heads * s->dim, kv = s->kv_heads * s->dim;
    bool inputs = !last || net->train & (NET_WEIGHTS | NET_NORMS | NET_ADAPTERS);
    int rc = ERR_OK;
    for (int64_t seq = 0; !rc && seq < r->s->b->n_seq; seq++) {
        struct back_attn a = attn_of(r, k, seq);
        struct back_gate g;
        size_t mark = arena_mark(r->step);
        int64_t at = r->s->b->at[seq];
        if (a.n == 0)
            continue;
        a.dout = r->w.datt + at * q;
        a.dq = inputs ? r->w.dq + at * q : NULL, a.dk = r->w.dk + at * kv, a.dv = r->w.dv + at * kv;
        if (a.rule->mask == BACK_SOFT || a.rule->mask == BACK_HARD) {
            g = gate_of(r, &a, at, k->tau);
            g.g = &net->gate_grad[r->layer];
            g.dq0 = inputs ? r->w.dq0 + at * q : NULL, g.dk0 = inputs ? r->w.dk0 + at * kv : NULL;
            g.dx = inputs ? r->w.dxn + at * s->hidden : NULL;
            a.gate = &g;
            rc = back_gate_open(&g, true);
        }
        rc = rc ? rc : back_attn_backward(&a);
        if (!rc && a.rule->mask == BACK_SOFT)
            rc = back_gate_close(&g);
        r->s->flops += a.flops;
        arena_release(r->step, mark);
    }
    return rc;
}

/* Rotation and its order undone for the heads of one row: dq (of rotated q) -> of q before it, the gate's share added. */
static void undo_heads(const struct layer_run *r, float *d, const float *raw, const int64_t n_row[2])
{
    const struct model_shape *s = r->net->shape;
    int64_t half = s->rope.rot / 2, n = n_row[0], at = n_row[1] * half;
    for (int64_t h = 0; half && h < n; h++)
        r->net->kern->rope(d + h * s->dim, r->w.cs + at, r->w.ns + at, s->rope.rot);
    if (raw)
        r->net->kern->add(d, raw, n * s->dim);
}

/* Gradients of the norm over heads of width `wide`, which begin at column `col` of qkv: d (N, heads, dim) in place. */
static void head_norm_grad(const struct layer_run *r, int part, float *d, int64_t heads, int64_t col)
{
    const struct model_shape *s = r->net->shape;
    int64_t wide = (s->heads + 2 * s->kv_heads) * s->dim, n = heads * s->dim;
    struct net_part p = parts(r)[part]; /* with a gradient of its own: each rank has other heads */
    float own[KERN_MAX_DIM] = {0}, *g = p.g;
    AST_ASSERT(s->dim <= KERN_MAX_DIM);
    p.g = g ? own : NULL;
    struct op_norm o = {.kern = r->net->kern, .w = &p, .rms = true, .m = heads, .width = s->dim, .eps = (float)s->eps};
    float *copy = r->w.dqkv; /* not in use yet: (N, heads, dim) inputs of the norm, side by side */
    for (int64_t t = 0; t < r->tokens; t++)
        memcpy(copy + t * n, r->w.qkv + t * wide + col, (size_t)n * sizeof(float));
    float *dx = r->w.datt; /* has served its purpose */
    memset(dx, 0, (size_t)(r->tokens * n) * sizeof(float));
    o.m = r->tokens * heads;
    o.stat = r->w.stat;
    op_norm_grad(&o, copy, d, dx);
    sum(r, own, g ? s->dim : 0);
    if (g)
        r->net->kern->add(g, own, s->dim);
    memcpy(d, dx, (size_t)(r->tokens * n) * sizeof(float));
}

/* dq, dk, dv -> dqkv */
static void join_qkv(const struct layer_run *r, bool gate)
{
    const struct model_shape *s = r->net->shape;
    const struct layer_work *w = &r->w;
    int64_t q = s->heads * s->dim, kv = s->kv_heads * s->dim, wide = q + 2 * kv;
#pragma omp parallel for if (r->tokens * wide > SMALL)
    for (int64_t t = 0; t < r->tokens; t++) {
        undo_heads(r, w->dq + t * q, gate ? w->dq0 + t * q : NULL, (const int64_t[2]){s->heads, t});
        undo_heads(r, w->dk + t * kv, gate ? w->dk0 + t * kv : NULL, (const int64_t[2]){s->kv_heads, t});
    }
    if (parts(r)[PART_Q_NORM].w)
        head_norm_grad(r, PART_Q_NORM, w->dq, s->heads, 0);
    if (parts(r)[PART_K_NORM].w)
        head_norm_grad(r, PART_K_NORM, w->dk, s->kv_heads, q);
#pragma omp parallel for if (r->tokens * wide > SMALL)
    for (int64_t t = 0; t < r->tokens; t++) {
        float *row = w->dqkv + t * wide;
        memcpy(row, w->dq + t * q, (size_t)q * sizeof(float));
        memcpy(row + q, w->dk + t * kv, (size_t)kv * sizeof(float));
        memcpy(row + q + kv, w->dv + t * kv, (size_t)kv * sizeof(float));
    }
}

static void clear(float *x, int64_t n)
{
    if (x)
        memset(x, 0, (size_t)n * sizeof *x);
}

/* From datt to the gradient of the layer's input, added to dx. */
static int attention_grad(struct layer_run *r, const struct layer_keep *k, float *dx, bool last)
{
    const struct net_part *p = parts(r);
    const struct model_shape *s = r->net->shape;
    int64_t N = r->tokens, q = s->heads * s->dim, kv = s->kv_heads * s->dim;
    bool soft = r->s->rule[r->layer].mask == BACK_SOFT;
    clear(r->w.dq0, N * q);
    clear(r->w.dk0, N * kv);
    clear(r->w.dxn, N * s->hidden);
    int rc = attend_grad(r, k, last);
    if (rc || (last && !(r->net->train & (NET_WEIGHTS | NET_NORMS | NET_ADAPTERS))))
        return rc;
    join_qkv(r, soft);
    struct op_linear l = linear_of(r, PART_Q, N);
    op_linear_input(&l, r->w.dqkv, r->w.dxn, true);
    sum(r, r->w.dxn, N * s->hidden);
    op_linear_weight(&l, r->w.dqkv, r->w.xn);
    r->s->flops += l.w->g ? 2 * (double)N * (double)l.out * (double)l.w->cols : 0;
    op_bias_grad(&p[PART_Q_B], r->w.dqkv, N, q + 2 * kv);
    struct op_norm n = norm_of(r, PART_NORM1_W, N);
    op_norm_grad(&n, k->x, r->w.dxn, dx);
    return ERR_OK;
}

/* Gradient of the attention's output and of what follows it. */
static void output_grad(const struct layer_run *r, const struct layer_keep *k, const float *dx)
{
    struct op_linear o = linear_of(r, PART_O, r->tokens);
    op_linear_input(&o, dx, r->w.datt, false);
    op_linear_weight(&o, dx, k->att);
    r->s->flops += o.w->g ? 2 * (double)r->tokens * (double)o.out * (double)o.w->cols : 0;
    op_bias_grad(&parts(r)[PART_O_B], dx, r->tokens, r->net->shape->hidden);
}

int layer_backward(struct layer_run *r, const struct layer_keep *k, float *dx, bool last)
{
    project_qkv(r, k->x);
    if (r->net->shape->parallel) {
        output_grad(r, k, dx);
        mlp_grad(r, k->x, dx);
    } else {
        const float *x1 = k->x1 ? k->x1 : r->w.x1;
        for (int64_t t = 0; !k->x1 && t < r->tokens; t += LAYER_ROWS)
            after_attention(r, k, r->w.x1 + t * r->net->shape->hidden, t, min64(LAYER_ROWS, r->tokens - t));
        mlp_grad(r, x1, dx);
        output_grad(r, k, dx);
    }
    return attention_grad(r, k, dx, last);
}
