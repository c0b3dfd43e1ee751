/* Longformer: a sliding window, dilated in some heads, and global tokens.
 *     window    {t - m delta : 0 <= m <= w}: w + 1 keys (the code's attention_window is one-sided), delta = 1 but in dilated heads
 *     global    j in G is seen by all t >= j; a token in G sees all j <= t
 * The language model of the paper has no global tokens, small windows in low layers and larger ones in high layers, and
 * dilation on 2 heads of the upper layers only: window is a list by layer, dilated_heads and dilated_from say which. Global
 * tokens use the same projections as others (the paper trains separate ones, initialised from these).
 *   source       Beltagy et al. 2020 (arXiv 2004.05150), 3.1, 4.1, 4.2
 *   cost         w + 1 + |G| keys a token, t for global ones: O(N (w + |G|)). Undilated windows are contiguous tiles; a dilated
 *                one runs over keys packed by residue mod delta: state of one copy of keys and values, where there is dilation */
#include "attn/pattern.h"

#include "base/err.h"
#include "cfg/cfg.h"

struct longformer_opts {
    struct cfg_ints window, global;
    int64_t dilation, dilated_heads, dilated_from;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INTS(struct longformer_opts, window, "512", 0, 1e9, "tokens looked back to, besides the own: one number, or one for each part of the layers"),
    CFG_INTS(struct longformer_opts, global, "", 0, 1e9, "positions of global tokens, ascending"),
    CFG_INT(struct longformer_opts, dilation, 1, 1, 65536, "distance between a dilated head's keys"),
    CFG_INT(struct longformer_opts, dilated_heads, 2, 0, 1e6, "first query heads of a layer that are dilated"),
    CFG_INT(struct longformer_opts, dilated_from, 0, 0, 1e6, "first layer with dilated heads"),
    CFG_END,
};
/* clang-format on */

static void of(const void *opts, const struct attn_shape *s, int64_t head, int variant, struct pattern *out)
{
    const struct longformer_opts *o = opts;
    int64_t n = o->window.n, layers = s->n_layers > 0 ? s->n_layers : 1, w = o->window.v[s->layer * n / layers];
    (void)variant;
    *out = (struct pattern){.n_col = o->global.n, .col = o->global.n > 0 ? o->global.v : NULL};
    if (o->dilation > 1 && head < o->dilated_heads && s->layer >= o->dilated_from) {
        out->stride = o->dilation;
        out->reach = w;
    } else {
        out->window = w + 1;
    }
}

static const struct pattern_ops ops = {.variants = 1, .of = of};

static int check(const void *opts, const struct attn_shape *s)
{
    const struct longformer_opts *o = opts;
    if (o->window.n < 1)
        return err_set(ERR_ARG, "window is an empty list: give at least one width");
    return pattern_check(&ops, opts, s);
}

static size_t state_bytes(const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    return pattern_state_bytes(&ops, opts, s, max_tokens);
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    return pattern_scratch(&ops, opts, s, n, max_tokens);
}

static int run(struct attn_call *c)
{
    return pattern_call(c, &ops);
}

static void cost(const void *opts, const struct attn_shape *s, int64_t pos, int64_t n, struct attn_cost *out)
{
    pattern_cost(&ops, opts, s, (const int64_t[]){pos, n}, out);
}

const struct attn_method attn_longformer = {
    .name = "longformer",
    .cite = "Beltagy et al. 2020",
    .summary = "a sliding window, dilated in some heads, and global tokens",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct longformer_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
    .pattern = &ops,
};
