/* Stage 1: gates learn where dense attention looks. The backbone is frozen and runs as in inference, with an attention
 * method that records (capture.h); the gates of all layers then learn from the record, each unit by itself. Ranks that share
 * the model (train.tensor) record the heads that they have, and teach those heads' units.
 *   source   SeerAttention 2024; the loss and its gradient in distil_gate.h */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "attn/feat.h"
#include "attn/gate.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"
#include "cfg/cfg.h"
#include "comm/comm.h"
#include "io/file.h"
#include "model/forward.h"
#include "model/gates.h"
#include "train/capture.h"
#include "train/distil_gate.h"
#include "train/gate_parts.h"
#include "train/objective.h"

struct distil_opts {
    int64_t block, local, keep, rows;
    int unit, target, weight, dtype, kv_dtype;
    double from, kl, recall, budget, noise;
    bool context, distance;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct distil_opts, block, 16, 8, 128, "tokens a block: 8, 16, 32, 64 or 128"),
    CFG_INT(struct distil_opts, local, 64, 0, 1e9, "the last tokens, whose blocks are always kept and not learned"),
    CFG_ENUM(struct distil_opts, unit, 0, "kv-head|head", "who chooses a set: a key/value head for its group, or each query head"),
    CFG_INT(struct distil_opts, rows, 384, 1, 1e6, "sampled tokens of a sequence in one step"),
    CFG_REAL(struct distil_opts, from, 0.125, 0, 1, "tokens are sampled from this share of the sequence on"),
    CFG_ENUM(struct distil_opts, target, 0, "mass|max", "what a block is worth: its share of the attention, or the largest weight in it; mean over the unit's heads"),
    CFG_ENUM(struct distil_opts, weight, DISTIL_EQUAL, "equal|mass|sharp", "weight of a row: 1; its attention outside the forced blocks; 1 - entropy / ln(blocks)"),
    CFG_REAL(struct distil_opts, kl, 1, 0, 1e6, "factor of the KL from the target to the gate's softmax"),
    CFG_REAL(struct distil_opts, recall, 0, 0, 1e6, "factor of -ln(attention kept) with a soft choice of the budget's blocks, at the schedule's temperature"),
    CFG_INT(struct distil_opts, keep, 512, 0, 1e9, "budget of the recall term and of the reported recall: tokens kept, forced ones counted"),
    CFG_REAL(struct distil_opts, budget, 0, 0, 1, "share of the attention that the learned budget (wr, br) is taught to cover; 0: it is not trained"),
    CFG_BOOL(struct distil_opts, context, false, "train the projection of the running context (Wc)"),
    CFG_BOOL(struct distil_opts, distance, true, "train a bias by the distance of blocks"),
    CFG_REAL(struct distil_opts, noise, 0.02, 0, 10, "standard deviation added to the start, which scores mean keys"),
    CFG_ENUM(struct distil_opts, dtype, KERN_F32, "f32|bf16", "weights of the frozen model in memory"),
    CFG_ENUM(struct distil_opts, kv_dtype, KERN_F32, "f32|bf16", "its keys and values in memory"),
    CFG_END,
};
/* clang-format on */

enum { PART_KL, PART_KEPT, PART_RECALL, PART_BUDGET, PART_DENSITY };
static const char *const parts[] = {"kl", "kept", "recall_loss", "budget_loss", "density", NULL};

struct distil {
    const struct distil_opts *o;
    struct train_env env;
    struct model *m;
    struct attn_params all;  /* gates of the whole group; p points into them, the rest is as it began */
    struct attn_params p, g; /* of this rank's units: values and gradients, under the same names */
    struct train_params list;
    struct capture *cap; /* (slots,) sequence number % slots: all of a batch that serves several steps */
    int64_t *captured;   /* (slots,) number of the sequence that cap holds; -1: none */
    int64_t slots;
    struct capture_opts cap_opts;
    struct arena run;
};

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- opening ---- */

/* Which tensors are trained; the others keep their start and are saved only if a gate file brought them. */
static bool trained(const struct distil_opts *o, const char *name)
{
    if (!strcmp(name, "wq") || !strcmp(name, "wk"))
        return true;
    if (!strcmp(name, "wc"))
        return o->context;
    if (!strcmp(name, "dist"))
        return o->distance;
    return (!strcmp(name, "wr") || !strcmp(name, "br")) && o->budget > 0;
}

static int add_tensor(struct distil *d, int64_t layer, int i)
{
    struct gate_tensor v, g;
    char name[TRAIN_NAME];
    struct train_shape shape;
    gate_tensor_at(&d->p, layer, i, &v);
    gate_tensor_at(&d->g, layer, i, &g);
    if (!trained(d->o, v.name))
        return ERR_OK;
    shape.rank = v.rank;
    memcpy(shape.dim, v.dim, sizeof shape.dim);
    snprintf(name, sizeof name, "layers.%lld.%s", (long long)layer, v.name);
    int rc = train_params_add(&d->list, name, &shape, *v.data, &d->run);
    if (!rc)
        *g.data = d->list.at[d->list.n - 1].g;
    return rc;
}

/* Starts from a gate file where it has a tensor (from NULL: nowhere); one that is not trained either is not there. */
static void start_tensor(const struct distil *d, const struct attn_params *from, int64_t layer, int i)
{
    struct gate_tensor to, of;
    gate_tensor_at(&d->all, layer, i, &to);
    if (from)
        gate_tensor_at(from, layer, i, &of);
    if (from && *of.data)
        memcpy(*to.data, *of.data, (size_t)gate_tensor_size(&to) * sizeof(float));
    else if (!trained(d->o, to.name))
        *to.data = NULL;
}

static int check_start(const struct attn_params *p, const struct attn_params *from, const struct distil_opts *o, const char *path)
{
    if (from->units != p->units || from->width != p->width || from->buckets != p->buckets)
        return err_set(ERR_ARG, "%s: its gates have %lld units of width %lld and %lld distances, this training %lld, %lld, %lld",
                       path, (long long)from->units, (long long)from->width, (long long)from->buckets, (long long)p->units,
                       (long long)p->width, (long long)p->buckets);
    if (from->block && from->block != o->block)
        return err_set(ERR_ARG, "%s: its gates were trained with blocks of %lld tokens, objective.block is %lld", path,
                       (long long)from->block, (long long)o->block);
    return ERR_OK;
}

static int make_gates(struct distil *d)
{
    const struct model_info *m = model_info(d->m);
    struct gates *start = NULL;
    d->all =
        (struct attn_params){.layers = m->layers, .heads = m->heads, .kv_heads = m->kv_heads, .dim = m->dim, .hidden = m->hidden};
    d->all.units = d->o->unit ? m->heads : m->kv_heads;
    d->all.width = m->dim;
    d->all.buckets = GATE_BUCKETS;
    d->all.block = d->o->block;
    memcpy(d->all.base, m->sha256, sizeof d->all.base);
    int rc = gate_alloc(&d->all, &d->run);
    rc = rc ? rc : gate_init(&d->all, d->o->noise, d->env.seed);
    if (!rc && d->env.gate[0])
        rc = gates_open(&start, d->env.gate, m);
    if (!rc && start)
        rc = check_start(&d->all, gates_params(start), d->o, d->env.gate);
    for (int64_t l = 0; !rc && l < m->layers; l++)
        for (int i = 0; i < GATE_TENSORS; i++)
            start_tensor(d, gates_params(start), l, i);
    gates_close(start);
    rc = rc ? rc : gate_parts_cut(&d->p, &d->all, d->env.group, &d->run);
    d->g = d->p;
    d->g.layer = ARENA_NEW0(&d->run, m->layers, struct gate_layer);
    rc = rc || d->g.layer ? rc : ERR_NOMEM;
    rc = rc ? rc : train_params_alloc(&d->list, m->layers * GATE_TENSORS, &d->run);
    for (int64_t l = 0; !rc && l < m->layers; l++)
        for (int i = 0; !rc && i < GATE_TENSORS; i++)
            rc = add_tensor(d, l, i);
    d->list.base = m->sha256;
    return rc;
}

static struct capture_dims capture_of(const struct distil *d)
{
    const struct model_info *m = model_info(d->m);
    return (struct capture_dims){.heads = d->m->attn[0].heads,
                                 .kv_heads = d->m->attn[0].kv_heads,
                                 .dim = m->dim,
                                 .hidden = m->hidden,
                                 .layers = m->layers,
                                 .block = d->o->block,
                                 .max_tokens = d->env.max_len,
                                 .max_rows = min64(d->o->rows * d->env.repeat, d->env.max_len),
                                 .context = d->o->context,
                                 .peak = d->o->target == 1};
}

static size_t gate_bytes(const struct model_info *m)
{
    double each =
        (double)m->heads * ((double)m->dim * ((double)m->heads + 3) + (double)m->hidden + GATE_BUCKETS + 2) * (double)m->dim;
    return (size_t)(8 * (double)m->layers * each * sizeof(float)) + ((size_t)1 << 20);
}

static int check(const struct distil_opts *o)
{
    if (o->block & (o->block - 1))
        return err_set(ERR_ARG, "objective.block = %lld is not a power of two", (long long)o->block);
    if (o->kl <= 0 && o->recall <= 0)
        return err_set(ERR_ARG, "objective.kl and objective.recall are both 0: nothing to learn from");
    return ERR_OK;
}

/* Whole groups of heads for each rank: nobody else has then the queries and keys of its units. */
static int check_cut(const struct distil *d)
{
    const struct model_info *m = model_info(d->m);
    const struct attn_shape *s = &d->m->attn[0];
    int64_t size = d->env.group ? d->env.group->size : 1;
    if (s->heads * size == m->heads && s->kv_heads * size == m->kv_heads)
        return ERR_OK;
    return err_set(ERR_ARG,
                   "%lld heads with %lld key/value heads cannot be cut into %lld equal parts of whole groups: train.tensor",
                   (long long)m->heads, (long long)m->kv_heads, (long long)size);
}

/* Rooms for sequences: one, or, where they serve several steps, all that a batch has for this rank. Checked before: the
 * arena takes memory only as it is touched, and the system would end the process then. */
static int make_captures(struct distil *d)
{
    struct capture_dims dims = capture_of(d);
    d->slots = d->env.repeat > 1 && d->env.max_seqs > 1 ? d->env.max_seqs : 1;
    size_t kept = capture_bytes(&dims, d->slots), gates = gate_bytes(model_info(d->m));
    size_t own = arena_bytes(d->slots, sizeof *d->cap) + arena_bytes(d->slots, sizeof *d->captured);
    double all = (double)kept + (double)gates + (double)model_info(d->m)->weight_bytes;
    if (d->env.memory && all > (double)d->env.memory)
        return err_set(ERR_NOMEM,
                       "distillation keeps %.2f GB of %lld sequences (train.batch / replicas, if train.repeat > 1) x %lld rows "
                       "(objective.rows x train.repeat), %.2f GB with the model; %.2f GB are there for this rank: lower one of "
                       "train.batch, objective.rows, train.repeat",
                       (double)kept / 1e9, (long long)d->slots, (long long)dims.max_rows, all / 1e9, (double)d->env.memory / 1e9);
    int rc = arena_open(&d->run, "distillation", gates + kept + own);
    if (rc)
        return rc;
    d->cap = ARENA_NEW(&d->run, d->slots, struct capture);
    d->captured = ARENA_NEW(&d->run, d->slots, int64_t);
    rc = d->cap && d->captured ? capture_alloc(d->cap, d->slots, &dims, &d->run) : ERR_NOMEM;
    for (int64_t i = 0; !rc && i < d->slots; i++)
        d->captured[i] = -1;
    d->cap_opts.to = d->cap;
    return rc ? rc : model_set_attention(d->m, &capture_method, &d->cap_opts, NULL);
}

static void close_it(void *self)
{
    struct distil *d = self;
    if (d) {
        model_close(d->m);
        arena_close(&d->run);
    }
    free(d);
}

static int open_it(void **self, const void *opts, const struct train_env *env)
{
    struct distil *d = calloc(1, sizeof *d);
    const struct distil_opts *o = opts;
    *self = NULL;
    int rc = d ? check(o) : err_set(ERR_NOMEM, "no memory for the objective");
    if (!rc) {
        d->o = o;
        d->env = *env;
        struct model_open how = {.path = env->model, .dtype = (enum kern_dtype)o->dtype, .kv_dtype = (enum kern_dtype)o->kv_dtype};
        how.kern = env->kern;
        how.group = env->group;
        how.check_finite = true;
        rc = model_open(&d->m, &how);
    }
    rc = rc ? rc : check_cut(d);
    rc = rc ? rc : make_captures(d);
    rc = rc ? rc : make_gates(d);
    if (rc)
        close_it(d);
    else
        *self = d;
    return rc;
}

static struct train_params *params(void *self)
{
    return &((struct distil *)self)->list;
}

/* ---- one step ---- */

/* One row from each of as many spans as rows are wanted: ascending, all different, spread over the sequence. */
static int64_t sample_rows(const struct distil *d, struct capture *c, int64_t tokens, int64_t number)
{
    int64_t first = (int64_t)(d->o->from * (double)tokens), many = tokens - first, n = min64(d->o->rows * d->env.repeat, many);
    for (int64_t i = 0; i < n; i++) {
        int64_t lo = i * many / n, hi = (i + 1) * many / n;
        c->row[i] = first + lo + rng_below(d->env.seed, (uint64_t)number, (uint64_t)i, hi - lo);
    }
    return n;
}

/* Reads the sequence, unless its room holds it from an earlier step. */
static int look(struct distil *d, const struct model_batch *b, int64_t number, struct arena *step)
{
    int64_t n = b->at[1] - b->at[0], slot = number % d->slots;
    struct capture *c = &d->cap[slot];
    if (d->captured[slot] == number)
        return ERR_OK;
    d->captured[slot] = -1;
    capture_begin(c, n, sample_rows(d, c, n, number));
    d->cap_opts.to = c;
    size_t mark = arena_mark(step);
    struct forward f = {.m = d->m, .b = b, .longest = n};
    int rc = forward_run(&f, step);
    arena_release(step, mark);
    if (!rc)
        d->captured[slot] = number;
    return rc;
}

struct slice { /* the rows of one step out of the captured ones: every repeat-th */
    const struct capture *cap;
    int64_t first, by;
    struct distil_rows rows;
    const struct distil_loss *loss;
};

static int make_slice(struct distil *d, struct slice *s, int64_t repeat, struct arena *step)
{
    const struct capture *c = s->cap;
    const struct attn_shape *shape = &d->m->attn[0];
    struct feat_dims f = {.width = d->p.width, .half = feat_half(shape, d->p.width)};
    s->first = repeat;
    s->by = d->env.repeat;
    int64_t n = c->rows > repeat ? (c->rows - repeat + s->by - 1) / s->by : 0, half = f.half;
    s->rows = (struct distil_rows){.n = n, .blocks = c->blocks, .half = half};
    float *row = ARENA_NEW(step, 2 * n * half + 1, float), *block = ARENA_NEW(step, 2 * c->blocks * half + 1, float);
    if (!row || !block)
        return ERR_NOMEM;
    for (int64_t i = 0; i < n; i++)
        feat_angles(shape, &f, (double)c->row[s->first + i * s->by], row + i * half, row + (n + i) * half);
    for (int64_t J = 0; J < c->blocks; J++) {
        double centre = (double)(J * d->o->block) + (double)d->o->block / 2;
        feat_angles(shape, &f, centre, block + J * half, block + (c->blocks + J) * half);
    }
    s->rows.row_cos = row;
    s->rows.row_sin = row + n * half;
    s->rows.block_cos = block;
    s->rows.block_sin = block + c->blocks * half;
    return ERR_OK;
}

/* The row sets of one layer (its own sliding window may limit them). */
static void layer_sets(const struct distil *d, const struct slice *s, int64_t layer, struct select_set *set)
{
    struct select_rule rule = {.block = d->o->block, .local = d->o->local, .window = d->m->attn[layer].window, .keep = d->o->keep};
    rule.budget = SELECT_TOKENS;
    for (int64_t i = 0; i < s->rows.n; i++)
        select_sets(&set[i], &rule, s->cap->row[s->first + i * s->by]);
}

static float *part(float *all, int64_t unit, int64_t each)
{
    return all ? all + unit * each : NULL;
}

static struct distil_gate unit_gate(const struct attn_params *p, int64_t layer, int64_t unit)
{
    const struct gate_layer *g = &p->layer[layer];
    int64_t e = p->width, in = p->heads / p->units * p->dim;
    return (struct distil_gate){.wq = part(g->wq, unit, in * e),
                                .wk = part(g->wk, unit, 3 * p->dim * e),
                                .wc = part(g->wc, unit, p->hidden * e),
                                .dist = part(g->dist, unit, p->buckets),
                                .wr = part(g->wr, unit, e),
                                .br = part(g->br, unit, 1)};
}

static struct distil_unit unit_of(const struct distil *d, const struct slice *s, int64_t layer, int64_t unit)
{
    const struct capture *c = s->cap;
    const struct capture_layer *l = &c->layer[layer];
    int64_t heads = d->p.heads / d->p.units, h0 = unit * heads, g = h0 / (d->p.heads / d->p.kv_heads), H = d->p.heads,
            dim = d->p.dim;
    struct distil_unit u = {.heads = heads, .dim = dim, .hidden = d->p.hidden, .width = d->p.width, .buckets = d->p.buckets};
    u.scale = (float)(1 / sqrt((double)dim));
    u.kern = d->env.kern;
    u.q0 = l->q0 + (s->first * H + h0) * dim;
    u.ldq = s->by * H * dim;
    u.ctx = l->ctx ? l->ctx + s->first * d->p.hidden : NULL;
    u.ldc = s->by * d->p.hidden;
    u.pool = l->pool + g * c->blocks * 3 * dim;
    u.mass = l->mass + (s->first * H + h0) * c->blocks;
    u.peak = l->peak && d->o->target == 1 ? l->peak + (s->first * H + h0) * c->blocks : NULL;
    u.ldm = s->by * H * c->blocks;
    u.w = unit_gate(&d->p, layer, unit);
    u.g = unit_gate(&d->g, layer, unit);
    return u;
}

static void add_sums(struct train_sums *out, const struct distil_sums *s, bool budget)
{
    out->count += s->weight;
    out->loss += s->loss;
    out->part[PART_KL].sum += s->kl;
    out->part[PART_KL].n += s->weight;
    out->part[PART_KEPT].sum += s->kept;
    out->part[PART_KEPT].n += s->rows;
    out->part[PART_RECALL].sum += s->recall_loss;
    out->part[PART_RECALL].n += s->weight;
    out->part[PART_BUDGET].sum += s->budget_loss;
    out->part[PART_BUDGET].n += budget ? s->rows : 0;
    out->part[PART_DENSITY].sum += s->density;
    out->part[PART_DENSITY].n += budget ? s->rows : 0;
}

/* Every unit of every layer, in parallel; each has its own gradients, and sums are added in order. */
static int learn(struct distil *d, struct slice *s, struct train_sums *out, struct arena *step)
{
    int64_t items = d->p.layers * d->p.units, n = s->rows.n;
    struct distil_unit first = unit_of(d, s, 0, 0);
    size_t each = distil_gate_scratch(&s->rows, &first);
    int threads = (int)min64(omp_get_max_threads(), items);
    struct select_set *set = ARENA_NEW(step, d->p.layers * n + 1, struct select_set);
    struct distil_sums *sums = ARENA_NEW0(step, items, struct distil_sums);
    unsigned char *room = arena_alloc(step, threads, each);
    if (!set || !sums || !room)
        return ERR_NOMEM;
    for (int64_t l = 0; l < d->p.layers; l++)
        layer_sets(d, s, l, set + l * n);
#pragma omp parallel num_threads(threads)
    {
        void *mine = room + (size_t)omp_get_thread_num() * each;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++) {
            struct distil_unit u = unit_of(d, s, i / d->p.units, i % d->p.units);
            struct distil_rows rows = s->rows;
            rows.set = set + i / d->p.units * n;
            distil_gate_step(&rows, &u, s->loss, &sums[i], mine);
        }
    }
    for (int64_t i = 0; i < items; i++)
        add_sums(out, &sums[i], d->o->budget > 0);
    return ERR_OK;
}

static size_t step_bytes(void *self, int64_t tokens, int64_t n_seq)
{
    struct distil *d = self;
    int64_t longest = min64(tokens, d->env.max_len), nb = (longest + d->o->block - 1) / d->o->block, half = d->p.width / 2;
    struct distil_rows r = {.n = d->o->rows, .blocks = nb};
    struct distil_unit u = {.width = d->p.width};
    size_t n = arena_bytes(2 * r.n * half + 1, sizeof(float)) + arena_bytes(2 * nb * half + 1, sizeof(float)), f;
    n += arena_bytes(d->p.layers * r.n + 1, sizeof(struct select_set));
    n += arena_bytes(d->p.layers * d->p.units, sizeof(struct distil_sums));
    n += arena_bytes(omp_get_max_threads(), distil_gate_scratch(&r, &u));
    f = forward_bytes(d->m, longest, longest, false);
    (void)n_seq; /* one after the other */
    return n > f ? n : f;
}

/* A group's ranks have counted their own units. */
static void join_sums(const struct distil *d, struct train_sums *own)
{
    if (d->env.group && d->env.group->size > 1)
        comm_sum_f64(d->env.group, (double *)(void *)own, (int64_t)(sizeof *own / sizeof(double)));
}

static void add_all(struct train_sums *out, const struct train_sums *of)
{
    out->count += of->count;
    out->loss += of->loss;
    for (int i = 0; i < TRAIN_PARTS; i++)
        out->part[i].sum += of->part[i].sum, out->part[i].n += of->part[i].n;
}

static int step(void *self, const struct model_batch *b, const struct train_at *at, struct train_sums *out, struct arena *arena)
{
    struct distil *d = self;
    struct train_sums own = {0};
    struct distil_loss loss = {.kl = d->o->kl, .recall = d->o->recall, .weight = d->o->weight, .budget = d->o->budget};
    int rc = ERR_OK;
    loss.temperature = at->temperature;
    for (int64_t s = 0; !rc && s < b->n_seq; s++) {
        int64_t n = b->at[s + 1] - b->at[s], span[2] = {0, n};
        struct model_batch one = {.n_seq = 1, .at = span, .token = b->token + b->at[s]};
        struct slice slice = {.loss = &loss, .cap = &d->cap[(at->micro + s) % d->slots]};
        size_t mark = arena_mark(arena);
        bool fresh = d->captured[(at->micro + s) % d->slots] != at->micro + s;
        rc = look(d, &one, at->micro + s, arena);
        rc = rc ? rc : make_slice(d, &slice, at->repeat, arena);
        rc = rc ? rc : learn(d, &slice, &own, arena);
        out->tokens += fresh ? (double)n : 0;
        out->flops += fresh ? (double)n * model_info(d->m)->flops_linear +
                                  2 * (double)n * (double)n * (double)(d->all.heads * d->p.dim * d->p.layers)
                            : 0;
        arena_release(arena, mark);
    }
    join_sums(d, &own);
    add_all(out, &own);
    if (at->ready)
        at->ready(at->context, 0, d->list.n);
    return rc;
}

static int save(void *self, const char *folder)
{
    struct distil *d = self;
    const struct comm_group *g = d->env.group;
    char path[FILE_PATH];
    gate_parts_gather(&d->p, &d->all, g);
    int rc = file_join(path, folder, "gates.safetensors");
    if (!rc && (!g || g->rank == 0))
        rc = gates_save(path, &d->all);
    return comm_agree(g, rc);
}

const struct train_objective objective_distil = {
    .name = "distil",
    .summary = "gates learn where the frozen model's dense attention looks",
    .fields = fields,
    .opts_size = sizeof(struct distil_opts),
    .parts = parts,
    .open = open_it,
    .close = close_it,
    .params = params,
    .step_bytes = step_bytes,
    .step = step,
    .save = save,
};
