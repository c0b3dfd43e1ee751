/* The oracle: blocks chosen by the attention mass that dense attention gives them. It computes all of dense attention
 * first, so it is slow: what it shows is how good any choice of blocks can be at a budget. */
#include <math.h>

#include "attn/sparse.h"

/* clang-format off */
static const struct cfg_field fields[] = {
    SPARSE_FIELDS_COMMON,
    CFG_END,
};
/* clang-format on */

static int64_t padded(int64_t tokens)
{
    return (tokens + KERN_KB - 1) / KERN_KB * KERN_KB;
}

static size_t extra(const struct attn_shape *s, int64_t max_tokens)
{
    return (size_t)(padded(max_tokens + 1) + KERN_KB * s->dim + s->dim) * sizeof(float);
}

/* p (n,) = q . k of keys 0 .. n-1; room for whole kernel blocks */
static void logits(const struct sparse_run *r, const struct kern_kv *kv, const float *q, int64_t n, float *p)
{
    int64_t d = kv->dim;
    float *rows = p + padded(n);
    if (kv->dtype == KERN_F32) {
        struct kern_scores c = {.rows = 1, .width = d, .groups = padded(n) / KERN_KB, .u = q, .v = kv->k, .v_stride = d * KERN_KB};
        c.scale = r->c->shape->scale;
        c.s = p;
        c.ld = padded(n);
        r->c->kern->block_scores(&c);
        return;
    }
    for (int64_t first = 0; first < n; first += KERN_KB) {
        int64_t many = n - first < KERN_KB ? n - first : KERN_KB;
        r->c->kern->kv_keys(kv, first, many, rows);
        for (int64_t j = 0; j < many; j++)
            p[first + j] = r->c->shape->scale * r->c->kern->dot(q, rows + j * d, d);
    }
}

static void scores(const struct sparse_run *r, int64_t unit, const struct select_set *set, float *s, void *work)
{
    const struct attn_shape *shape = r->c->shape;
    int64_t B = r->o->block, t = set->token, n = t + 1, from = r->rule.window > 0 && n > r->rule.window ? n - r->rule.window : 0;
    const struct kern_kv *kv = &r->c->kv[unit * r->heads / (shape->heads / shape->kv_heads)];
    float *p = work;
    for (int64_t J = set->lo; J < set->hi; J++)
        s[J - set->lo] = 0;
    for (int64_t h = 0; h < r->heads; h++) {
        float sum;
        logits(r, kv, r->c->q + ((t - r->c->pos) * shape->heads + unit * r->heads + h) * shape->dim, n, p);
        r->c->kern->exp_row(p + from, p + from, n - from, &sum);
        for (int64_t J = set->lo; J < set->hi; J++) {
            float mass = 0;
            for (int64_t j = J * B < from ? from : J * B; j < J * B + B; j++)
                mass += p[j];
            s[J - set->lo] += mass / sum;
        }
    }
}

static const struct sparse_ops ops = {.scores = scores, .extra = extra};

static int check(const void *opts, const struct attn_shape *s)
{
    return sparse_check(opts, s);
}

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    return sparse_state_bytes(opts, &ops, s, max_tokens);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    return sparse_scratch(opts, &ops, s, n, max_tokens);
}

static int run(struct attn_call *c)
{
    return sparse_run(c, &ops);
}

static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    double all = (double)s->heads * ((double)n * (double)pos + (double)n * (double)(n + 1) / 2);
    sparse_cost(opts, &ops, s, (struct sparse_span){pos, n}, out);
    out->flops += 2 * all * (double)s->dim; /* the scores of dense attention, row by row from memory */
    out->bytes += all * (double)s->dim * 4;
}

const struct attn_method attn_oracle = {
    .name = "oracle",
    .cite = "upper bound of block selection",
    .summary = "blocks chosen by their true attention mass; slower than dense",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct sparse_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
