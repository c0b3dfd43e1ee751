/* StreamingLLM: the first `sink` tokens and the last `window` tokens, itself included: {j < s} u {j > t - W}.
 * pos = cache gives keys the positions that they have in a cache of s + W keys, as the paper does: a sink keeps its own, a
 * window key has s + its place in the window, the query s + W - 1 once t >= s + W. Rotation depends on differences alone, so
 * only the sinks look different: their queries are turned back to position s + W - 1. pos = orig leaves all where they are.
 *   source       Xiao et al. 2024 (arXiv 2309.17453), section 3.2; streaming_llm/kv_cache.py: s = 4, W = 512
 *   cost         (s + W) keys a token: O(N); no state (a cache could drop all but s + W keys; ours keeps them) */
#include "attn/pattern.h"

#include "base/err.h"
#include "cfg/cfg.h"

enum { POS_CACHE, POS_ORIG };

struct streaming_opts {
    int64_t sink, window;
    int pos;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct streaming_opts, sink, 4, 0, 1e9, "first tokens of the sequence, kept by every query"),
    CFG_INT(struct streaming_opts, window, 512, 1, 1e9, "last tokens, the query's own included"),
    CFG_ENUM(struct streaming_opts, pos, POS_CACHE, "cache|orig", "positions: within the cache (the paper), or as in the text"),
    CFG_END,
};
/* clang-format on */

static void of(const void *opts, const struct attn_shape *s, int64_t head, int variant, struct pattern *out)
{
    const struct streaming_opts *o = opts;
    (void)s;
    (void)head;
    (void)variant;
    *out = (struct pattern){.window = o->window, .sink = o->sink, .turn = o->pos == POS_CACHE && o->sink > 0};
}

static const struct pattern_ops ops = {.variants = 1, .of = of};

static int check(const void *opts, const struct attn_shape *s)
{
    const struct streaming_opts *o = opts;
    if (o->pos == POS_CACHE && s->rot == 0)
        return err_set(ERR_ARG, "pos = cache turns rotary positions and this model has none: use pos = \"orig\"");
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

const struct attn_method attn_streaming_llm = {
    .name = "streaming-llm",
    .cite = "Xiao et al. 2024",
    .summary = "the first few and the last tokens, at their places in a cache of them",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct streaming_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
    .pattern = &ops,
};
