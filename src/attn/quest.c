/* Quest: a block is scored by an upper bound of its products, from the largest and smallest key in each dimension:
 *     sum_c max(q_c M_c, q_c m_c) = max(q, 0) . M + min(q, 0) . m        summed over the heads of a unit
 * The paper keeps its first two layers dense: dense_layers = 2.
 *   source   Tang et al. 2024, section 3.3; ours: strictly per token in prefill too, forced blocks within the budget */
#include "attn/sparse.h"

/* clang-format off */
static const struct cfg_field fields[] = {
    SPARSE_FIELDS_COMMON,
    CFG_END,
};
/* clang-format on */

static int64_t width(const struct sparse_opts *o, const struct attn_shape *s)
{
    (void)o;
    return 2 * s->dim;
}

static void block(const struct sparse_run *r, int64_t unit, const float *pooled, int64_t n, float *v)
{
    int64_t d = r->f.d.dim;
    (void)unit;
    for (int64_t j = 0; j < n; j++)
        for (int64_t x = 0; x < 2 * d; x++) /* largest, then smallest */
            v[j * 2 * d + x] = pooled[j * 3 * d + d + x];
}

static void query(const struct sparse_run *r, int64_t unit, int64_t i, int64_t n, float *u, float *rho)
{
    int64_t d = r->f.d.dim, H = r->c->shape->heads;
    (void)rho;
    for (int64_t x = 0; x < n; x++) {
        float *hi = u + x * 2 * d, *lo = hi + d;
        for (int64_t y = 0; y < d; y++)
            hi[y] = lo[y] = 0;
        for (int64_t h = 0; h < r->heads; h++) {
            const float *q = r->c->q + ((i + x) * H + unit * r->heads + h) * d;
            for (int64_t y = 0; y < d; y++) {
                hi[y] += q[y] > 0 ? q[y] : 0;
                lo[y] += q[y] < 0 ? q[y] : 0;
            }
        }
    }
}

static const struct sparse_ops ops = {.width = width, .block = block, .query = query};

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

const struct attn_method attn_quest = {
    .name = "quest",
    .cite = "Tang et al. 2024",
    .summary = "blocks chosen by an upper bound of their products; no parameters",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct sparse_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
