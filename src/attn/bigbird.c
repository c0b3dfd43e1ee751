/* BigBird, causal: blocks of b tokens; block I sees a window of w blocks, the first g blocks, and r random ones:
 *     S(I) = {I-w+1 .. I} u {0 .. g-1} u R(I),    R(I): r blocks without replacement from {g .. I-w}, all if there are fewer
 * The paper's is an encoder: its window looks both ways and the last block is global too. Ours keeps what causality allows.
 * Random blocks are drawn for each (seed, layer, query head, block I), model-wide, so that ranks and chunks agree.
 *   source       Zaheer et al. 2020 (arXiv 2007.14062), section 2 and appendix; google-research/bigbird core/attention.py:
 *                b = 64, g = 2 (first and last), w = 3, r = 3. Sampling: Floyd 1987 (Bentley & Floyd, CACM 30, 754)
 *   cost         (w + g + r) b keys a token: O(N); no state. Tiles of one head share their random blocks: no masks, no union */
#include "attn/pattern.h"

#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"

struct bigbird_opts {
    int64_t block, window, global, random, seed;
};

enum { MOST_RANDOM = 64 };

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct bigbird_opts, block, 64, 16, 65536, "tokens a block, a multiple of 16"),
    CFG_INT(struct bigbird_opts, window, 3, 1, 1e6, "blocks of the window, the own included"),
    CFG_INT(struct bigbird_opts, global, 2, 0, 1e6, "first blocks, kept by every query"),
    CFG_INT(struct bigbird_opts, random, 3, 0, MOST_RANDOM, "random blocks of each query head and block"),
    CFG_INT(struct bigbird_opts, seed, 1, 0, 9e15, "of the random blocks"),
    CFG_END,
};
/* clang-format on */

static void of(const void *opts, const struct attn_shape *s, int64_t head, int variant, struct pattern *out)
{
    const struct bigbird_opts *o = opts;
    (void)s;
    (void)variant;
    *out = (struct pattern){.block = o->block, .blocks = o->window, .sink = o->global * o->block};
    if (o->random > 0) {
        out->picks = o->random;
        out->pick_block = o->block;
        out->head = head;
    }
}

/* r of 0 .. n-1 without replacement, ascending */
static void draw(const struct bigbird_opts *o, uint64_t stream, int64_t block, int64_t n, int64_t *out)
{
    int64_t r = o->random;
    for (int64_t i = 0; i < r; i++) {
        int64_t top = n - r + i, at = i, x = rng_below((uint64_t)o->seed, stream, (uint64_t)(block * r + i), top + 1);
        for (int64_t j = 0; j < i; j++)
            x = out[j] == x ? top : x; /* top is larger than all before it */
        for (; at > 0 && out[at - 1] > x; at--)
            out[at] = out[at - 1];
        out[at] = x;
    }
}

static int64_t pick(const void *opts, const struct attn_shape *s, const struct pattern *p, int64_t t, int32_t *list)
{
    const struct bigbird_opts *o = opts;
    int64_t own = t / o->block, free = own - o->window + 1 - o->global, each = o->block / KERN_KB, n = 0, drawn[MOST_RANDOM];
    if (free <= 0)
        return 0;
    bool all = free <= o->random;
    if (!all)
        draw(o, (uint64_t)s->layer << 32 | (uint64_t)p->head, own, free, drawn);
    for (int64_t i = 0; i < (all ? free : o->random); i++)
        for (int64_t j = 0; j < each; j++)
            list[n++] = (int32_t)((o->global + (all ? i : drawn[i])) * each + j);
    return n;
}

static const struct pattern_ops ops = {.variants = 1, .of = of, .pick = pick};

static int check(const void *opts, const struct attn_shape *s)
{
    const struct bigbird_opts *o = opts;
    if (o->block % KERN_KB)
        return err_set(ERR_ARG, "block = %lld: a multiple of %d tokens is needed", (long long)o->block, KERN_KB);
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

const struct attn_method attn_bigbird = {
    .name = "bigbird",
    .cite = "Zaheer et al. 2020",
    .summary = "a window of blocks, the first blocks, and random ones",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct bigbird_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
    .pattern = &ops,
};
