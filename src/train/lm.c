/* Stage 2, end to end: the task's loss through the soft choice of keys, annealed; then through the hard one. Any part of the
 * model can be trained with it, and any fixed mask, Reformer or Performer in place of the gates, so that comparisons are fair.
 *
 *     loss = ce nll + kl KL(dense model || net) + lambda mean density         lambda: a constant, or the multiplier of density <=
 * target
 *
 *   source   Boyd & Vandenberghe 2004, 5.5 (dual ascent); DESIGN 3 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attn/sparse.h"
#include "attn/window.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "train/net.h"
#include "train/objective.h"

struct lm_opts {
    int what;
    int64_t rank;
    double ce, kl, dense, gate_lr, lambda, density, dual_lr, noise, cut;
    bool context;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_ENUM(struct lm_opts, what, 0, "gates|gates+norms|gates+adapters|all|norms|adapters", "what is trained; `all` is every weight, gates included where the method has them"),
    CFG_INT(struct lm_opts, rank, 8, 1, 4096, "rank of the adapters on the projections, merged when saved"),
    CFG_REAL(struct lm_opts, ce, 1, 0, 1e6, "factor of the task's cross-entropy"),
    CFG_REAL(struct lm_opts, kl, 0, 0, 1e6, "factor of the divergence from the dense model as it was read; costs a dense forward pass"),
    CFG_REAL(struct lm_opts, dense, 0, 0, 1, "share of the sequences that are read with dense attention, so that weights which learn sparsity stay as good without it"),
    CFG_REAL(struct lm_opts, gate_lr, 1, 1e-6, 1e6, "learning rate of gates, relative to train.lr"),
    CFG_REAL(struct lm_opts, lambda, 0, 0, 1e6, "weight of the mean density (method.budget = learned); where a target is given, its start"),
    CFG_REAL(struct lm_opts, density, 0, 0, 1, "target of the mean density: lambda rises while it is above, falls while below; 0: lambda stays"),
    CFG_REAL(struct lm_opts, dual_lr, 1, 0, 1e6, "step of lambda: lambda += dual_lr (density - target)"),
    CFG_REAL(struct lm_opts, noise, 0.02, 0, 10, "standard deviation added to gates that start untrained"),
    CFG_REAL(struct lm_opts, cut, 12, 0, 1e6, "soft choice: blocks that all of a tile's tokens weight with less than exp(-cut) are passed over; 0: none"),
    CFG_BOOL(struct lm_opts, context, false, "train the gates' projection of the running context (Wc)"),
    CFG_END,
};
/* clang-format on */

enum { PART_NLL, PART_KL, PART_DENSITY, PART_LAMBDA };
static const char *const parts[] = {"nll", "kl", "density", "lambda", NULL};

struct lm {
    const struct lm_opts *o;
    struct train_env env;
    const struct sparse_opts *ast;    /* NULL: no gates */
    const struct window_opts *window; /* NULL: dense, or ast */
    struct net *net;
    struct back_rule *rule, *dense; /* (layers,): the method's; everything (objective.dense) */
    double lambda;
};

/* ---- opening ---- */

static unsigned trained(const struct lm *l)
{
    static const unsigned what[] = {NET_GATES, NET_GATES | NET_NORMS, NET_GATES | NET_ADAPTERS, NET_GATES | NET_WEIGHTS,
                                    NET_NORMS, NET_ADAPTERS};
    return l->ast ? what[l->o->what] : what[l->o->what] & ~(unsigned)NET_GATES;
}

static int check(const struct lm *l)
{
    const struct lm_opts *o = l->o;
    const char *name = l->env.method ? l->env.method->name : "ast";
    if (l->env.repeat > 1)
        return err_set(ERR_ARG, "train.repeat = %lld: objective lm looks at a batch once", (long long)l->env.repeat);
    if (l->env.method && !l->ast && !l->window && l->env.method != &attn_dense && !l->env.method->pattern &&
        !l->env.method->backward)
        return err_set(ERR_ARG,
                       "objective lm cannot train through method %s: it trains ast, dense, window, fixed patterns, reformer and "
                       "performer",
                       name);
    if (!trained(l))
        return err_set(ERR_ARG, "method %s has no gates: objective.what must be norms, adapters or all", name);
    if (l->ast && l->ast->budget == SELECT_TOP_P)
        return err_set(ERR_ARG, "method.budget = top-p has no gradient: tokens, candidates or learned");
    if ((o->lambda > 0 || o->density > 0) && !(l->ast && l->ast->budget == SELECT_LEARNED))
        return err_set(ERR_ARG, "objective.lambda and objective.density regulate a learned budget: method.budget is %s",
                       l->ast ? "fixed" : "not there");
    if (o->ce <= 0 && o->kl <= 0)
        return err_set(ERR_ARG, "objective.ce and objective.kl are both 0: nothing to learn from");
    return ERR_OK;
}

static unsigned gate_tensors(const struct lm *l, bool summaries)
{
    unsigned t = 1U | 2U | 8U; /* wq, wk, dist: bits in the order of attn/gate.h */
    t |= l->o->context ? 4U : 0;
    t |= l->ast && l->ast->budget == SELECT_LEARNED ? 16U | 32U : 0;
    return t | (summaries ? 64U : 0);
}

static bool has_summaries(const struct sparse_opts *o)
{
    for (int64_t i = 0; i < o->summary.n; i++)
        if (o->summary.v[i] > 0)
            return true;
    return false;
}

/* What does not change from step to step. */
static int make_rules(struct lm *l)
{
    int64_t L = l->net->shape->layers;
    l->rule = calloc((size_t)L, sizeof *l->rule);
    l->dense = calloc((size_t)L, sizeof *l->dense);
    if (!l->rule || !l->dense)
        return err_set(ERR_NOMEM, "no memory for %lld layers", (long long)L);
    for (int64_t i = 0; i < L; i++) {
        struct back_rule *r = &l->rule[i];
        const struct attn_shape *s = &l->net->model->attn[i];
        *r = l->dense[i] = (struct back_rule){.mask = BACK_DENSE};
        if (l->env.method->pattern)
            *r = (struct back_rule){.mask = BACK_PATTERN, .pattern = l->env.method->pattern, .opts = l->env.method_opts};
        if (l->env.method->pattern && back_pattern_check(r, s))
            return ERR_ARG;
        if (l->env.method->backward)
            *r = (struct back_rule){.mask = BACK_METHOD, .method = l->env.method, .opts = l->env.method_opts};
        if (l->window)
            r->keep = l->window->keep, r->sinks = l->window->sink;
        if (!l->ast)
            continue;
        *r = (struct back_rule){.mask = BACK_SOFT, .summary = sparse_summary_of(l->ast, s), .temperature = 1};
        r->select = (struct select_rule){.block = l->ast->block, .local = l->ast->local, .window = s->window};
        r->select.budget = l->ast->budget, r->select.keep = l->ast->keep, r->select.candidates = l->ast->candidates;
        r->select.all_below = i < l->ast->dense_layers ? INT64_MAX : l->ast->all_below;
    }
    return ERR_OK;
}

static void close_it(void *self)
{
    struct lm *l = self;
    if (!l)
        return;
    net_close(l->net);
    free(l->rule);
    free(l->dense);
    free(l);
}

static int check_gates(const struct lm *l)
{
    const struct attn_params *p = &l->net->gate;
    bool per_head = l->ast->unit == SPARSE_HEAD && p->heads != p->kv_heads;
    if (p->block != l->ast->block)
        return err_set(ERR_ARG, "%s: its gates were trained with blocks of %lld tokens, method.block is %lld", l->env.gate,
                       (long long)p->block, (long long)l->ast->block);
    if (p->units != (per_head ? p->heads : p->kv_heads))
        return err_set(ERR_ARG, "%s: its gates have %lld units, method.unit asks for %lld", l->env.gate, (long long)p->units,
                       (long long)(per_head ? p->heads : p->kv_heads));
    if (l->ast->width && l->ast->width != p->width)
        return err_set(ERR_ARG, "method.width = %lld: the gates have %lld", (long long)l->ast->width, (long long)p->width);
    return ERR_OK;
}

static int open_it(void **self, const void *opts, const struct train_env *env)
{
    struct lm *l = calloc(1, sizeof *l);
    *self = NULL;
    if (!l)
        return err_set(ERR_NOMEM, "no memory for the objective");
    l->o = opts, l->env = *env, l->lambda = l->o->lambda;
    l->ast = env->method == &attn_ast ? env->method_opts : NULL;
    l->window = env->method == &attn_window ? env->method_opts : NULL;
    int rc = env->method
                 ? check(l)
                 : err_set(ERR_ARG, "objective lm needs the attention that it trains through: method = { method = \"ast\"; ... };");
    if (!rc) {
        struct net_how how = {.path = env->model, .kern = env->kern, .rank = l->o->rank, .gate = env->gate, .seed = env->seed};
        how.group = env->group, how.train = trained(l), how.gates = l->ast != NULL, how.gate_lr = l->o->gate_lr,
        how.noise = l->o->noise;
        if (l->ast) {
            how.block = l->ast->block, how.per_head = l->ast->unit == SPARSE_HEAD;
            how.gate_tensors = gate_tensors(l, has_summaries(l->ast));
        }
        rc = net_open(&l->net, &how);
    }
    if (!rc && env->method->check)
        for (int64_t i = 0; !rc && i < l->net->shape->layers; i++)
            rc = env->method->check(env->method_opts, &l->net->model->attn[i]);
    rc = rc || !l->ast ? rc : check_gates(l);
    rc = rc ? rc : make_rules(l);
    if (!rc) {
        l->net->params.base = model_info(l->net->model)->sha256;
        l->net->params.state = &l->lambda;
        l->net->params.n_state = l->o->density > 0;
    }
    if (rc)
        close_it(l);
    else
        *self = l;
    return rc;
}

static struct train_params *params(void *self)
{
    return &((struct lm *)self)->net->params;
}

/* ---- one step ---- */

static size_t step_bytes(void *self, int64_t tokens, int64_t n_seq)
{
    const struct lm *l = self;
    (void)n_seq;
    size_t own = net_step_bytes(l->net, l->rule, tokens, l->env.max_len, l->o->kl > 0);
    size_t dense = l->o->dense > 0 ? net_step_bytes(l->net, l->dense, tokens, l->env.max_len, l->o->kl > 0) : 0;
    return dense > own ? dense : own;
}

/* The rules of this step for AST: soft or hard, at the temperature. */
static void set_rules(struct lm *l, const struct train_at *at, double scored, double tokens)
{
    int64_t L = l->net->shape->layers;
    for (int64_t i = 0; i < L && l->ast; i++) {
        struct back_rule *r = &l->rule[i];
        r->mask = at->phase ? BACK_HARD : BACK_SOFT;
        r->temperature = at->temperature;
        r->cut = -l->o->cut;
        /* the loop divides by scored tokens: lambda times the mean over tokens, units and layers */
        r->density_grad = l->lambda * scored / (tokens * (double)(L * l->net->all_gates.units));
    }
}

static int pass(struct lm *l, const struct model_batch *b, const struct train_at *at, struct train_sums *out, struct arena *arena)
{
    int64_t tokens = b->at[b->n_seq], scored = 0;
    for (int64_t t = 0; t < tokens; t++)
        scored += b->target[t] >= 0;
    /* by the sequence's number alone: the same ones on any number of ranks */
    double share = l->o->dense, number = (double)at->micro;
    bool dense = floor((number + 1) * share) > floor(number * share);
    set_rules(l, at, (double)scored, (double)tokens);
    struct net_step s = {.b = b, .rule = dense ? l->dense : l->rule, .backward = true, .ce = l->o->ce, .kl = l->o->kl};
    s.ready = at->ready, s.context = at->context;
    int rc = net_step(l->net, &s, arena);
    double density = s.seen > 0 && !dense ? s.kept / s.seen : 0;
    out->count += s.count;
    out->loss += l->o->ce * s.loss + l->o->kl * s.divergence + l->lambda * density * s.count;
    out->tokens += (double)tokens;
    out->flops += s.flops;
    out->part[PART_NLL].sum += s.loss, out->part[PART_NLL].n += s.count;
    out->part[PART_KL].sum += s.divergence, out->part[PART_KL].n += l->o->kl > 0 ? s.count : 0;
    if (l->ast && !dense)
        out->part[PART_DENSITY].sum += s.kept, out->part[PART_DENSITY].n += s.seen;
    out->part[PART_LAMBDA].sum += l->lambda, out->part[PART_LAMBDA].n += l->o->density > 0 || l->lambda > 0;
    return rc;
}

static int step(void *self, const struct model_batch *b, const struct train_at *at, struct train_sums *out, struct arena *arena)
{
    struct lm *l = self;
    if (!(l->o->dense > 0))
        return pass(l, b, at, out, arena);
    int rc = ERR_OK;
    for (int64_t i = 0; !rc && i < b->n_seq; i++) { /* one by one: each with its own attention */
        int64_t ends[2] = {0, b->at[i + 1] - b->at[i]};
        struct model_batch one = {.n_seq = 1, .at = ends, .token = b->token + b->at[i], .target = b->target + b->at[i]};
        struct train_at here = *at;
        here.micro = at->micro + i;
        here.ready = i + 1 == b->n_seq ? at->ready : NULL;
        rc = pass(l, &one, &here, out, arena);
    }
    return rc;
}

static int update(void *self, const struct train_at *at, const struct train_sums *total)
{
    struct lm *l = self;
    (void)at;
    net_refresh(l->net);
    if (total && l->o->density > 0 && total->part[PART_DENSITY].n > 0) {
        double density = total->part[PART_DENSITY].sum / total->part[PART_DENSITY].n;
        l->lambda = fmax(0, l->lambda + l->o->dual_lr * (density - l->o->density));
    }
    return ERR_OK;
}

static int save(void *self, const char *folder)
{
    return net_export(((struct lm *)self)->net, folder);
}

const struct train_objective objective_lm = {
    .name = "lm",
    .summary = "end to end: next-token loss through soft, then hard sparse attention, or through another method",
    .fields = fields,
    .opts_size = sizeof(struct lm_opts),
    .parts = parts,
    .open = open_it,
    .close = close_it,
    .params = params,
    .step_bytes = step_bytes,
    .step = step,
    .update = update,
    .save = save,
};
