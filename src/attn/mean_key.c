/* Mean-key selection: a block is scored by its mean (rotated) key, summed over the heads of a unit. No parameters.
 *   source   MoBA (Lu et al. 2025) without its training; ours: strictly per token, forced blocks within the budget */
#include <string.h>

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
    return s->dim;
}

static void block(const struct sparse_run *r, int64_t unit, const float *pooled, int64_t n, float *v)
{
    int64_t d = r->f.d.dim;
    (void)unit;
    for (int64_t j = 0; j < n; j++)
        memcpy(v + j * d, pooled + j * 3 * d, (size_t)d * sizeof *v);
}

static void query(const struct sparse_run *r, int64_t unit, int64_t i, int64_t n, float *u, float *rho)
{
    int64_t d = r->f.d.dim, H = r->c->shape->heads;
    (void)rho;
    memset(u, 0, (size_t)(n * d) * sizeof *u);
    for (int64_t x = 0; x < n; x++)
        for (int64_t h = 0; h < r->heads; h++)
            r->c->kern->add(u + x * d, r->c->q + ((i + x) * H + unit * r->heads + h) * d, d);
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

const struct attn_method attn_mean_key = {
    .name = "mean-key",
    .cite = "Lu et al. 2025 (MoBA), untrained",
    .summary = "blocks chosen by the product of query and mean key; no parameters",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct sparse_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
};
