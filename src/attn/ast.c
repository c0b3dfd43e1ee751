/* The Adaptive Sparse Transformer: a learned gate scores blocks of keys for each token.
 *   source   ../shared/reference/ast_reference.py; gate parameters in attn/gate.h */
#include <math.h>
#include <string.h>

#include "attn/sparse.h"

/* clang-format off */
static const struct cfg_field fields[] = {
    SPARSE_FIELDS_COMMON,
    CFG_ENUM(struct sparse_opts, budget, SELECT_TOKENS, "tokens|learned|top-p|candidates", "how much a token keeps: `keep` tokens, a learned fraction, the blocks that cover top_p, or a number of candidate blocks"),
    CFG_REAL(struct sparse_opts, top_p, 0.9, 0, 1, "budget top-p: share of the predicted mass to cover"),
    CFG_INT(struct sparse_opts, candidates, 32, 0, 1e9, "budget candidates: blocks beyond the forced ones"),
    CFG_INT(struct sparse_opts, width, 0, 0, FEAT_MAX_WIDTH, "width of the gate's vectors; 0: the head width"),
    CFG_INTS(struct sparse_opts, summary, "0", 0, 4096, "tokens a summary of what is not kept, by layer third (16, 32, 64); 0: no summaries"),
    CFG_REAL(struct sparse_opts, summary_beta, -6, -1e30, 100, "logit added to summaries where the gates have none"),
    CFG_END,
};
/* clang-format on */

static int64_t width(const struct sparse_opts *o, const struct attn_shape *s)
{
    return o->width ? o->width : s->dim;
}

static void block(const struct sparse_run *r, int64_t unit, const float *pooled, int64_t n, float *v)
{
    int64_t d = r->f.d.dim, e = r->f.d.width;
    if (r->gate && r->gate->wk) {
        struct kern_rows m = {.rows = n, .in = 3 * d, .out = e, .x = pooled, .ldx = 3 * d, .y = v, .ldy = e};
        m.w = r->gate->wk + (r->unit0 + unit) * 3 * d * e;
        r->c->kern->rows_matmul(&m);
        return;
    }
    for (int64_t j = 0; j < n; j++) /* untrained: the mean key */
        memcpy(v + j * e, pooled + j * 3 * d, (size_t)e * sizeof *v);
}

static void learned(const struct sparse_run *r, int64_t unit, int64_t n, const float *u, float *rho)
{
    int64_t e = r->f.d.width;
    for (int64_t i = 0; i < n; i++) {
        float z = 0;
        if (r->gate && r->gate->wr)
            z = r->c->kern->dot(u + i * e, r->gate->wr + (r->unit0 + unit) * e, e) + r->gate->br[r->unit0 + unit];
        rho[i] = 1 / (1 + expf(-z));
    }
}

static void query(const struct sparse_run *r, int64_t unit, int64_t i, int64_t n, float *u, float *rho)
{
    const struct attn_call *c = r->c;
    int64_t d = r->f.d.dim, e = r->f.d.width, H = c->shape->heads, in = r->heads * d, model_unit = r->unit0 + unit;
    const float *q = c->q0 + (i * H + unit * r->heads) * d;
    if (r->gate && r->gate->wq) {
        struct kern_rows m = {.rows = n, .in = in, .out = e, .x = q, .ldx = H * d, .y = u, .ldy = e};
        m.w = r->gate->wq + model_unit * in * e;
        c->kern->rows_matmul(&m);
    } else {
        for (int64_t x = 0; x < n; x++) { /* untrained: the mean over the unit's heads */
            memset(u + x * e, 0, (size_t)e * sizeof *u);
            for (int64_t h = 0; h < r->heads; h++)
                c->kern->axpy(u + x * e, 1 / (float)r->heads, q + (x * H + h) * d, d);
        }
    }
    if (r->gate && r->ctx) {
        struct kern_rows m = {.rows = n, .in = r->f.d.hidden, .out = e, .y = u, .ldy = e};
        m.x = r->ctx + (i - r->ctx0) * m.in;
        m.ldx = m.in;
        m.w = r->gate->wc + model_unit * m.in * e;
        m.accumulate = true;
        c->kern->rows_matmul(&m);
    }
    if (r->rule.budget == SELECT_LEARNED)
        learned(r, unit, n, u, rho);
}

static void raise(float *s, int64_t n, float by)
{
    for (int64_t i = 0; i < n; i++)
        s[i] += by;
}

/* Distance bias: constant over each bucket, nearest block first. */
static void bias(const struct sparse_run *r, int64_t unit, const struct select_set *set, float *s)
{
    if (!r->gate || !r->gate->dist)
        return;
    int64_t buckets = r->params->buckets;
    const float *dist = r->gate->dist + (r->unit0 + unit) * buckets;
    for (int64_t J = set->hi - 1; J >= set->lo;) {
        int64_t b = gate_bucket(set->own - J, buckets);
        int64_t far = b == buckets - 1 ? INT64_MAX : b < 2 ? b : ((int64_t)1 << b) - 1; /* the bucket's largest distance */
        int64_t to = far > set->own - set->lo ? set->lo : set->own - far;
        raise(s + to - set->lo, J - to + 1, dist[b]);
        J = to - 1;
    }
}

static const struct sparse_ops ops = {
    .raw = true, .context = true, .rotate = true, .width = width, .block = block, .query = query, .bias = bias};

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
    sparse_cost(opts, &ops, s, (struct sparse_span){pos, n}, out);
}

const struct attn_method attn_ast = {
    .name = "ast",
    .cite = "Adaptive Sparse Transformer (this work)",
    .summary = "blocks of keys chosen for each token by a learned gate; untrained it scores mean keys",
    .caps = ATTN_CAUSAL | ATTN_LEARNED | ATTN_NEEDS_RAW,
    .fields = fields,
    .opts_size = sizeof(struct sparse_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
