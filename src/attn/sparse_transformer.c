/* Sparse Transformer: two sets of keys that together reach everywhere in two steps.
 *     strided   A1 = {j : t - j < l}                A2 = {j : (t - j) mod l = 0}
 *     fixed     A1 = {j : j div l = t div l}        A2 = {j : j mod l >= l - c}
 * The code's window is l tokens with the own (the paper's t = max(0, i - l) would make l + 1). With verts > 1 head h looks at
 * verticals v = h mod verts: l - (v+1) c <= j mod l < l - v c. Combined as the paper's 5.1: merged (each head A1 u A2),
 * interleaved (A1 in even layers, A2 in odd ones), or split (A1 in even heads, A2 in odd ones, so that every rank has both). A
 * head that has A2 alone sees its own token besides: it would see nothing before the first column.
 *   source       Child et al. 2019 (arXiv 1904.10509), 4.2, 5.1; openai/sparse_attention attention.py. l = 128, c = 8
 *   cost         l + t / l keys a token (strided), l + c t / l (fixed): O(N sqrt N) with l = sqrt N, for a given l quadratic
 *                with a small factor. Strides run over keys packed by residue mod l, columns over packed columns: state of one
 *                copy (strided) or c / l (fixed) of keys and values */
#include "attn/pattern.h"

#include "base/err.h"
#include "cfg/cfg.h"

enum { STRIDED, FIXED };
enum { MERGED, INTERLEAVED, SPLIT };

struct child_opts {
    int64_t l, c, verts;
    int kind, heads;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_ENUM(struct child_opts, kind, STRIDED, "strided|fixed", "which pattern of the paper"),
    CFG_INT(struct child_opts, l, 128, 2, 65536, "stride, and length of the local part"),
    CFG_INT(struct child_opts, c, 8, 1, 65536, "fixed: columns at the end of each l tokens"),
    CFG_INT(struct child_opts, verts, 1, 1, 65536, "fixed: different sets of columns that heads take in turn"),
    CFG_ENUM(struct child_opts, heads, MERGED, "merged|interleaved|split", "both parts in each head, one by layer in turn, or one in each half of the heads"),
    CFG_END,
};
/* clang-format on */

static void of(const void *opts, const struct attn_shape *s, int64_t head, int variant, struct pattern *out)
{
    const struct child_opts *o = opts;
    bool first = true, second = true;
    (void)variant;
    if (o->heads == INTERLEAVED)
        first = s->layer % 2 == 0, second = !first;
    if (o->heads == SPLIT)
        first = head % 2 == 0, second = !first;
    *out = (struct pattern){.window = 1};
    if (first && o->kind == STRIDED)
        out->window = o->l;
    if (first && o->kind == FIXED)
        out->window = 0, out->block = o->l, out->blocks = 1;
    if (second && o->kind == STRIDED) {
        out->stride = o->l;
        out->reach = INT64_MAX;
    }
    if (second && o->kind == FIXED) {
        int64_t v = head % o->verts;
        out->period = o->l;
        out->from = o->l - (v + 1) * o->c;
        out->to = o->l - v * o->c;
    }
}

static const struct pattern_ops ops = {.variants = 1, .of = of};

static int check(const void *opts, const struct attn_shape *s)
{
    const struct child_opts *o = opts;
    if (o->kind == FIXED && o->verts * o->c > o->l)
        return err_set(ERR_ARG, "verts x c = %lld x %lld columns do not fit in l = %lld", (long long)o->verts, (long long)o->c,
                       (long long)o->l);
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

const struct attn_method attn_sparse_transformer = {
    .name = "sparse-transformer",
    .cite = "Child et al. 2019",
    .summary = "a local part and strides (or fixed columns)",
    .caps = ATTN_CAUSAL,
    .fields = fields,
    .opts_size = sizeof(struct child_opts),
    .check = check,
    .state_bytes = state_bytes,
    .scratch = scratch,
    .run = run,
    .cost = cost,
    .pattern = &ops,
};
