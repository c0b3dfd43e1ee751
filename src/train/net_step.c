/* One pass over a batch: all layers forward, the head, all layers backward. */
#include <string.h>

#include "base/err.h"
#include "attn/feat.h"
#include "comm/comm.h"
#include "kernels/blas.h"
#include "model/forward.h"
#include "train/back_head.h"
#include "train/back_layer.h"
#include "train/back_ops.h"

enum { SMALL = 1 << 14 };

/* ---- embedding ---- */

static void embed(const struct layer_run *r, float *x)
{
    const struct net *n = r->net;
    const struct model_batch *b = r->s->b;
    int64_t D = n->shape->hidden;
#pragma omp parallel for if (r->tokens * D > SMALL)
    for (int64_t t = 0; t < r->tokens; t++)
        memcpy(x + t * D, n->top[PART_EMBED].w + b->token[t] * D, (size_t)D * sizeof(float));
    for (int64_t s = 0; n->top[PART_POS].w && s < b->n_seq; s++)
        n->kern->add(x + b->at[s] * D, n->top[PART_POS].w, (b->at[s + 1] - b->at[s]) * D);
}

/* Each thread has columns of its own, so that tokens add up in their order. */
static void embed_grad(const struct layer_run *r, const float *dx)
{
    const struct net *n = r->net;
    const struct model_batch *b = r->s->b;
    int64_t D = n->shape->hidden;
    float *g = n->top[PART_EMBED].g, *pos = n->top[PART_POS].g;
    if (!g)
        return;
#pragma omp parallel for if (r->tokens * D > SMALL)
    for (int64_t c = 0; c < D; c += 16) {
        int64_t m = D - c < 16 ? D - c : 16;
        for (int64_t t = 0; t < r->tokens; t++)
            n->kern->add(g + b->token[t] * D + c, dx + t * D + c, m);
    }
    for (int64_t s = 0; pos && s < b->n_seq; s++)
        n->kern->add(pos, dx + b->at[s] * D, (b->at[s + 1] - b->at[s]) * D);
}

/* Rotary angles, one line a row of the batch. */
static void angles(const struct layer_run *r)
{
    const struct rope *rope = &r->net->shape->rope;
    const struct model_batch *b = r->s->b;
    int64_t half = rope->rot / 2;
    for (int64_t s = 0; half && s < b->n_seq; s++) {
        int64_t n = b->at[s + 1] - b->at[s], at = b->at[s] * half;
        const float *freq = r->net->model->rope_freq;
        if (rope->kind == ROPE_DYNAMIC && n > 0) {
            rope_freq(rope, n, r->w.q); /* q is not in use yet and lends its room */
            freq = r->w.q;
        }
#pragma omp parallel for if (n * half > SMALL / 16)
        for (int64_t i = 0; i < n; i++)
            rope_angles(rope, freq, i, r->w.cs + at + i * half, r->w.sn + at + i * half);
        for (int64_t i = at; r->w.ns && i < at + n * half; i++)
            r->w.ns[i] = -r->w.sn[i];
    }
}

/* ---- adapters ---- */

/* g += a b, or its sum over the group, whose ranks have parts of the inner dimension. */
static void add_product(const struct net *n, struct blas_gemm *p, float *g, bool sum)
{
    bool group = sum && n->group && n->group->size > 1;
    p->c = group ? n->adapter_sum : g, p->beta = group ? 0 : 1;
    blas_gemm(p);
    if (!group)
        return;
    comm_sum_f32(n->group, n->adapter_sum, p->m * p->n);
    n->kern->add(g, n->adapter_sum, p->m * p->n);
}

/* dA += B^T dW, dB += dW A^T of one layer; dW, a step on the way, is cleared. */
static void adapters_grad(const struct net *n, int64_t l)
{
    for (int part = 0; n->adapter && part < PART_COUNT; part++) {
        const struct net_adapter *a = &n->adapter[l][part];
        const struct net_part *p = &n->layer[l][part];
        if (!a->base)
            continue;
        struct blas_gemm ga = {.trans_a = true, .m = n->rank, .n = p->cols, .k = p->rows, .alpha = 1, .beta = 1, .a = a->b};
        ga.lda = n->rank, ga.b = p->g, ga.ldb = p->cols, ga.ldc = p->cols;
        add_product(n, &ga, a->ga, !a->columns);
        struct blas_gemm gb = {.trans_b = true, .m = p->rows, .n = n->rank, .k = p->cols, .alpha = 1, .beta = 1, .a = p->g};
        gb.lda = p->cols, gb.b = a->a, gb.ldb = p->cols, gb.ldc = n->rank;
        add_product(n, &gb, a->gb, a->columns);
        memset(p->g, 0, (size_t)(p->rows * p->cols) * sizeof(float));
    }
}

/* ---- the pass ---- */

static int64_t longest_of(const struct model_batch *b)
{
    int64_t n = 0;
    for (int64_t s = 0; s < b->n_seq; s++)
        n = b->at[s + 1] - b->at[s] > n ? b->at[s + 1] - b->at[s] : n;
    return n;
}

static int check(const struct net *n, const struct net_step *s)
{
    const struct model_batch *b = s->b;
    int64_t longest = longest_of(b);
    if (!b->target)
        return err_set(ERR_ARG, "training needs targets");
    if (n->shape->pos == MODEL_POS_LEARNED && longest > n->shape->context)
        return err_set(ERR_ARG, "a sequence of %lld tokens: the model has positions for %lld", (long long)longest,
                       (long long)n->shape->context);
    for (int64_t t = 0; t < b->at[b->n_seq]; t++)
        if (b->token[t] < 0 || b->token[t] >= n->shape->vocab || b->target[t] >= n->shape->vocab)
            return err_set(ERR_ARG, "token %lld is %d -> %d: the vocabulary has %lld", (long long)t, b->token[t], b->target[t],
                           (long long)n->shape->vocab);
    for (int64_t l = 0; l < n->shape->layers; l++) {
        const struct back_rule *r = &s->rule[l];
        bool gates = r->mask == BACK_SOFT || r->mask == BACK_HARD;
        if (gates && !n->gate.layer)
            return err_set(ERR_ARG, "layer %lld is to choose its keys, and the net has no gates", (long long)l);
        if (gates && (r->select.block < KERN_KB ? r->select.block != KERN_KB / 2 : r->select.block % KERN_KB))
            return err_set(ERR_ARG, "block = %lld: training works on blocks of 8, 16, 32, 64 or 128 tokens",
                           (long long)r->select.block);
        if (r->mask == BACK_SOFT && !(r->temperature > 0))
            return err_set(ERR_ARG, "a temperature of %g: it must be above 0", r->temperature);
    }
    return ERR_OK;
}

/* The teacher's residual stream, by the engine with dense attention. */
static int teach(const struct layer_run *r, float **x)
{
    struct forward f = {.m = r->net->model, .b = r->s->b, .longest = longest_of(r->s->b)};
    *x = NULL;
    if (!(r->s->kl > 0))
        return ERR_OK;
    int rc = forward_run(&f, r->step);
    *x = f.x;
    r->s->flops += (double)r->tokens * r->net->model->info.flops_linear / (r->net->group ? r->net->group->size : 1);
    return rc;
}

static int open_run(struct layer_run *r, struct layer_keep *keep, float **dx)
{
    const struct net *n = r->net;
    int64_t L = n->shape->layers, N = r->tokens, D = n->shape->hidden, H = n->shape->heads, units = n->gate.units;
    int64_t stored = r->s->backward ? L : 1, block = r->s->rule[0].select.block;
    float *x = ARENA_NEW(r->step, (r->s->backward ? L + 1 : 2) * N * D, float);
    float *att = ARENA_NEW(r->step, stored * N * H * n->shape->dim, float), *lse = ARENA_NEW(r->step, stored * N * H, float);
    float *tau = n->gate.layer ? ARENA_NEW(r->step, stored * N * units, float) : NULL;
    bool middle = r->s->backward && layer_keeps_x1(n);
    float *x1 = middle ? ARENA_NEW(r->step, L * N * D, float) : NULL;
    *dx = r->s->backward ? ARENA_NEW(r->step, N * D, float) : NULL;
    if (!x || !att || !lse || (n->gate.layer && !tau) || (r->s->backward && !*dx) || (middle && !x1))
        return ERR_NOMEM;
    for (int64_t l = 0; l <= L; l++) {
        int64_t at = r->s->backward ? l : 0;
        keep[l].x = x + (r->s->backward ? l : l % 2) * N * D;
        keep[l].att = l < L ? att + at * N * H * n->shape->dim : NULL;
        keep[l].lse = l < L ? lse + at * N * H : NULL;
        keep[l].x1 = x1 && l < L ? x1 + l * N * D : NULL;
        keep[l].tau = tau && l < L ? tau + at * N * units : NULL;
    }
    size_t before = r->step->used, need = layer_take(r->step, n, &r->w, N, r->s->backward);
    if (r->step->used - before != need)
        return ERR_NOMEM;
    int rc = ERR_OK;
    if (n->gate.layer && block > 0)
        rc = back_angles_make(&r->angles, &n->model->attn[0], (const int64_t[3]){longest_of(r->s->b), n->gate.width, block},
                              r->step);
    angles(r);
    return rc;
}

static int backward(struct layer_run *r, const struct layer_keep *keep, float *dx)
{
    struct net *n = r->net;
    struct net_step *s = r->s;
    int64_t L = n->shape->layers, top = n->first_param[0];
    int rc = ERR_OK;
    for (r->layer = L - 1; !rc && r->layer >= 0; r->layer--) {
        bool below = n->train & (NET_NORMS | NET_WEIGHTS | NET_ADAPTERS);
        rc = layer_backward(r, &keep[r->layer], dx, r->layer == 0 && !below);
        if (rc)
            return rc;
        adapters_grad(n, r->layer);
        int64_t first = n->first_param[r->layer], count = n->first_param[r->layer + 1] - first;
        if (s->ready && count)
            s->ready(s->context, first, count);
    }
    embed_grad(r, dx);
    if (s->ready && top)
        s->ready(s->context, 0, top);
    return rc;
}

/* A group's ranks have counted their own heads: sums of what this step has added. */
static void join_counts(const struct net *n, struct net_step *s, const struct net_step *before)
{
    double x[] = {s->kept - before->kept, s->seen - before->seen, s->flops - before->flops};
    if (!n->group || n->group->size == 1)
        return;
    comm_sum_f64(n->group, x, 3);
    s->kept = before->kept + x[0], s->seen = before->seen + x[1], s->flops = before->flops + x[2];
}

int net_step(struct net *n, struct net_step *s, struct arena *step)
{
    const struct net_step before = *s;
    int64_t L = n->shape->layers;
    size_t mark = arena_mark(step);
    struct layer_run r = {.net = n, .s = s, .tokens = s->b->at[s->b->n_seq], .step = step};
    struct layer_keep *keep = ARENA_NEW0(step, L + 1, struct layer_keep);
    float *dx, *teacher;
    int rc = keep ? check(n, s) : ERR_NOMEM;
    rc = rc ? rc : teach(&r, &teacher);
    rc = rc ? rc : open_run(&r, keep, &dx);
    if (!rc)
        embed(&r, keep[0].x);
    for (r.layer = 0; !rc && r.layer < L; r.layer++)
        rc = layer_forward(&r, &keep[r.layer], keep[r.layer + 1].x);
    if (!rc) {
        struct back_head h = {.net = n, .s = s, .x = keep[L].x, .teacher = teacher, .dx = dx};
        rc = back_head(&h, step);
    }
    if (!rc && s->backward)
        rc = backward(&r, keep, dx);
    if (!rc)
        join_counts(n, s, &before);
    arena_release(step, mark);
    return rc;
}

static size_t bytes(int64_t n)
{
    return arena_bytes(n, sizeof(float));
}

size_t net_step_bytes(const struct net *n, const struct back_rule *rule, int64_t tokens, int64_t longest, bool teacher)
{
    const struct model_shape *s = n->shape;
    int64_t L = s->layers, half = feat_half(&n->model->attn[0], n->gate.width);
    size_t most = back_head_bytes(n, teacher), z;
    struct layer_work w;
    for (int64_t l = 0; l < L; l++) {
        bool gate = rule[l].mask == BACK_SOFT || rule[l].mask == BACK_HARD;
        z = back_attn_bytes(&n->model->attn[l], &rule[l], longest, gate ? &n->gate : NULL);
        z += gate ? back_gate_bytes(&n->model->attn[l], &rule[l], longest, &n->gate) : 0;
        most = z > most ? z : most;
    }
    z = most + arena_bytes(L + 1, sizeof(struct layer_keep)) + bytes((L + 2) * tokens * s->hidden);
    z += bytes(L * tokens * s->heads * s->dim) + bytes(L * tokens * s->heads) + bytes(L * tokens * n->gate.units);
    z += layer_keeps_x1(n) ? bytes(L * tokens * s->hidden) : 0;
    z += layer_take(NULL, n, &w, tokens, true) + 2 * bytes(longest * half) + 2 * bytes(longest / (KERN_KB / 2) * half) + 64;
    return z + (teacher ? forward_bytes(n->model, tokens, longest, false) : 0);
}
