/* Opening a net: weights out of the model's packed matrices, room for gradients, the list of what is trained. */
#include "train/gate_parts.h"
#include "train/net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"
#include "comm/comm.h"
#include "kernels/blas.h"
#include "model/gates.h"

/* Names in the list of parameters; the checkpoint's own are net_tensor.c's business. */
static const char *const words[PART_COUNT] = {
    [PART_EMBED] = "embed",
    [PART_POS] = "positions",
    [PART_HEAD] = "head",
    [PART_NORM_W] = "norm",
    [PART_NORM_B] = "norm.b",
    [PART_NORM1_W] = "norm1",
    [PART_NORM1_B] = "norm1.b",
    [PART_NORM2_W] = "norm2",
    [PART_NORM2_B] = "norm2.b",
    [PART_Q] = "q",
    [PART_K] = "k",
    [PART_V] = "v",
    [PART_Q_B] = "q.b",
    [PART_K_B] = "k.b",
    [PART_V_B] = "v.b",
    [PART_Q_NORM] = "q_norm",
    [PART_K_NORM] = "k_norm",
    [PART_O] = "o",
    [PART_O_B] = "o.b",
    [PART_GATE] = "gate",
    [PART_UP] = "up",
    [PART_DOWN] = "down",
    [PART_GATE_B] = "gate.b",
    [PART_UP_B] = "up.b",
    [PART_DOWN_B] = "down.b",
};

static bool is_norm(int part)
{
    return (part >= PART_NORM_W && part <= PART_NORM2_B) || part == PART_Q_NORM || part == PART_K_NORM;
}

static bool is_projection(int part)
{
    return part == PART_Q || part == PART_K || part == PART_V || part == PART_O || part == PART_GATE || part == PART_UP ||
           part == PART_DOWN;
}

/* ---- weights ---- */

/* Some parts of one fused matrix or vector, in order; `from` is the packed matrix, or vec its vector. */
struct fused {
    int part[3], n;
    int64_t rows[3], cols;
    const struct kern_mat *mat;
    const float *vec;
};

static int give(struct net *n, struct net_part *parts, const struct fused *f)
{
    int64_t rows = 0, at = 0;
    for (int i = 0; i < f->n; i++)
        rows += f->rows[i];
    float *w = ARENA_NEW(&n->run, rows * f->cols, float), *g = NULL;
    bool trained = n->train & NET_WEIGHTS || (is_norm(f->part[0]) && n->train & NET_NORMS) ||
                   (is_projection(f->part[0]) && n->train & NET_ADAPTERS);
    if (trained)
        g = ARENA_NEW0(&n->run, rows * f->cols, float);
    if (!w || (trained && !g))
        return ERR_NOMEM;
#pragma omp parallel for if (rows > 64 && f->mat)
    for (int64_t r = 0; r < (f->mat ? rows : 0); r++)
        kern_mat_row(n->kern, f->mat, r, w + r * f->cols);
    if (!f->mat)
        memcpy(w, f->vec, (size_t)rows * sizeof *w);
    for (int i = 0; i < f->n; i++) {
        parts[f->part[i]] =
            (struct net_part){.w = w + at * f->cols, .g = g ? g + at * f->cols : NULL, .rows = f->rows[i], .cols = f->cols};
        at += f->rows[i];
    }
    return ERR_OK;
}

static int give_vec(struct net *n, struct net_part *parts, int part, const float *v, int64_t rows)
{
    struct fused f = {.part = {part}, .n = 1, .rows = {rows}, .cols = 1, .vec = v};
    return v ? give(n, parts, &f) : ERR_OK;
}

static int give_mat(struct net *n, struct net_part *parts, int part, const struct kern_mat *m)
{
    struct fused f = {.part = {part}, .n = 1, .rows = {m->out}, .cols = m->in, .mat = m};
    return give(n, parts, &f);
}

/* Rows of the vocabulary: a model's ranks have some each, here all have all. */
static int give_vocab(struct net *n, int part, const struct kern_mat *m)
{
    int64_t first = n->model->cut.vocab.first, rows = n->shape->vocab, D = n->shape->hidden;
    struct net_part *p = &n->top[part];
    *p = (struct net_part){.w = ARENA_NEW0(&n->run, rows * D, float), .rows = rows, .cols = D};
    if (n->train & NET_WEIGHTS)
        p->g = ARENA_NEW0(&n->run, rows * D, float);
    if (!p->w || (n->train & NET_WEIGHTS && !p->g))
        return ERR_NOMEM;
#pragma omp parallel for if (m->out > 64)
    for (int64_t r = 0; r < m->out; r++)
        kern_mat_row(n->kern, m, r, p->w + (first + r) * D);
    comm_sum_f32(n->group, p->w, rows * D);
    return ERR_OK;
}

static int give_top(struct net *n)
{
    const struct model *m = n->model;
    int rc = give_vocab(n, PART_EMBED, &m->embed);
    if (!rc && m->shape.pos == MODEL_POS_LEARNED)
        rc = give_mat(n, n->top, PART_POS, &m->pos);
    if (!rc && !m->shape.tied)
        rc = give_vocab(n, PART_HEAD, &m->head);
    if (m->shape.tied)
        n->top[PART_HEAD] = n->top[PART_EMBED];
    rc = rc ? rc : give_vec(n, n->top, PART_NORM_W, m->norm_w, m->shape.hidden);
    return rc ? rc : give_vec(n, n->top, PART_NORM_B, m->norm_b, m->shape.hidden);
}

static int give_layer(struct net *n, int64_t l)
{
    const struct model_shape *s = n->shape;
    const struct model_layer *m = &n->model->layer[l];
    struct net_part *p = n->layer[l];
    int64_t q = s->heads * s->dim, kv = s->kv_heads * s->dim, D = s->hidden, F = s->mlp;
    struct fused qkv = {.part = {PART_Q, PART_K, PART_V}, .n = 3, .rows = {q, kv, kv}, .cols = D, .mat = &m->qkv};
    struct fused qkv_b = {.part = {PART_Q_B, PART_K_B, PART_V_B}, .n = 3, .rows = {q, kv, kv}, .cols = 1, .vec = m->qkv_b};
    struct fused up = {.part = {PART_GATE, PART_UP}, .n = 2, .rows = {F, F}, .cols = D, .mat = &m->up};
    struct fused up_b = {.part = {PART_GATE_B, PART_UP_B}, .n = 2, .rows = {F, F}, .cols = 1, .vec = m->up_b};
    if (!s->gated) {
        up.part[0] = PART_UP, up_b.part[0] = PART_UP_B;
        up.n = up_b.n = 1;
    }
    int rc = give(n, p, &qkv);
    rc = rc || !m->qkv_b ? rc : give(n, p, &qkv_b);
    rc = rc ? rc : give(n, p, &up);
    rc = rc || !m->up_b ? rc : give(n, p, &up_b);
    rc = rc ? rc : give_mat(n, p, PART_O, &m->o);
    rc = rc ? rc : give_mat(n, p, PART_DOWN, &m->down);
    const struct {
        int part;
        const float *v;
        int64_t n;
    } vec[] = {{PART_NORM1_W, m->norm1_w, D}, {PART_NORM1_B, m->norm1_b, D},    {PART_NORM2_W, m->norm2_w, D},
               {PART_NORM2_B, m->norm2_b, D}, {PART_Q_NORM, m->q_norm, s->dim}, {PART_K_NORM, m->k_norm, s->dim},
               {PART_O_B, m->o_b, D},         {PART_DOWN_B, m->down_b, D}};
    for (size_t i = 0; !rc && i < sizeof vec / sizeof vec[0]; i++)
        rc = give_vec(n, p, vec[i].part, vec[i].v, vec[i].n);
    return rc;
}

/* ---- adapters ---- */

/* Columns of the whole matrix and the first of this rank. */
static void columns_of(const struct net *n, int part, int64_t all_first[2])
{
    const struct model_cut *c = &n->model->cut;
    const struct model_shape *s = &n->model->shape;
    all_first[0] = part == PART_O ? s->heads * s->dim : part == PART_DOWN ? s->mlp : s->hidden;
    all_first[1] = part == PART_O ? c->heads.first * s->dim : part == PART_DOWN ? c->mlp.first : 0;
}

static int give_adapters(struct net *n, int64_t l, uint64_t seed)
{
    for (int part = 0; part < PART_COUNT; part++) {
        struct net_part *p = &n->layer[l][part];
        struct net_adapter *a = &n->adapter[l][part];
        int64_t na = n->rank * p->cols, nb = p->rows * n->rank;
        if (!is_projection(part) || !p->w)
            continue;
        a->base = ARENA_NEW(&n->run, p->rows * p->cols, float);
        a->a = ARENA_NEW(&n->run, na, float);
        a->b = ARENA_NEW0(&n->run, nb, float); /* B = 0: the start is the model as it is */
        a->ga = ARENA_NEW0(&n->run, na, float);
        a->gb = ARENA_NEW0(&n->run, nb, float);
        if (!a->base || !a->a || !a->b || !a->ga || !a->gb)
            return ERR_NOMEM;
        memcpy(a->base, p->w, (size_t)(p->rows * p->cols) * sizeof(float));
        a->columns = part == PART_O || part == PART_DOWN;
        int64_t all[2];
        columns_of(n, part, all);
        for (int64_t i = 0; i < na; i++) {
            uint64_t at = (uint64_t)(i / p->cols * all[0] + all[1] + i % p->cols);
            a->a[i] = (float)(rng_normal(seed, (uint64_t)(l * PART_COUNT + part), at) / sqrt((double)all[0]));
        }
    }
    return ERR_OK;
}

void net_refresh(struct net *n)
{
    for (int64_t l = 0; n->adapter && l < n->shape->layers; l++)
        for (int part = 0; part < PART_COUNT; part++) {
            const struct net_part *p = &n->layer[l][part];
            const struct net_adapter *a = &n->adapter[l][part];
            if (!a->base)
                continue;
            memcpy(p->w, a->base, (size_t)(p->rows * p->cols) * sizeof(float));
            struct blas_gemm g = {.m = p->rows, .n = p->cols, .k = n->rank, .alpha = 1, .beta = 1, .a = a->b, .lda = n->rank};
            g.b = a->a, g.ldb = p->cols, g.c = p->w, g.ldc = p->cols;
            blas_gemm(&g);
        }
}

/* ---- gates ---- */

static int give_gates(struct net *n, const struct net_how *how)
{
    const struct model_info *info = model_info(n->model);
    struct gates *from = NULL;
    bool load = how->gate && how->gate[0];
    int rc = load ? gates_open(&from, how->gate, info) : ERR_OK;
    if (rc)
        return rc;
    n->all_gates = (struct attn_params){.layers = info->layers, .heads = info->heads, .kv_heads = info->kv_heads, .dim = info->dim};
    n->all_gates.hidden = info->hidden, n->all_gates.width = info->dim, n->all_gates.buckets = GATE_BUCKETS,
    n->all_gates.block = how->block;
    n->all_gates.units = how->per_head ? info->heads : info->kv_heads;
    snprintf(n->all_gates.base, sizeof n->all_gates.base, "%s", info->sha256);
    if (load) {
        const struct attn_params *p = gates_params(from);
        n->all_gates.units = p->units, n->all_gates.width = p->width, n->all_gates.buckets = p->buckets;
        n->all_gates.block = p->block > 0 ? p->block : how->block;
    }
    rc = gate_alloc(&n->all_gates, &n->run);
    n->gate_known = arena_alloc0(&n->run, info->layers, sizeof n->gate_known[0]);
    rc = rc || n->gate_known ? rc : ERR_NOMEM;
    if (!rc && n->all_gates.width == n->all_gates.dim)
        rc = gate_init(&n->all_gates, how->noise, how->seed); /* what a file lacks starts untrained */
    for (int64_t l = 0; !rc && load && l < info->layers; l++)
        for (int i = 0; i < GATE_TENSORS; i++) {
            struct gate_tensor to, at;
            gate_tensor_at(&n->all_gates, l, i, &to);
            gate_tensor_at(gates_params(from), l, i, &at);
            n->gate_known[l][i] = *at.data != NULL;
            if (*at.data)
                memcpy(*to.data, *at.data, (size_t)gate_tensor_size(&to) * sizeof(float));
        }
    gates_close(from);
    return rc ? rc : gate_parts_cut(&n->gate, &n->all_gates, n->group, &n->run);
}

/* ---- the list ---- */

/* The same on all ranks of a group. */
static bool is_whole(int part)
{
    return is_norm(part) || part == PART_EMBED || part == PART_POS || part == PART_HEAD || part == PART_O_B || part == PART_DOWN_B;
}

static int list(struct net *n, const char *name, const struct net_part *p, bool decay, bool whole)
{
    if (!p->w || !p->g)
        return ERR_OK;
    struct train_param *to = &n->params.at[n->params.n++];
    *to = (struct train_param){.rank = p->cols > 1 ? 2 : 1, .dim = {p->rows, p->cols, 1}, .n = p->rows * p->cols};
    to->w = p->w, to->g = p->g, to->decay = decay && p->cols > 1, to->lr = 1, to->shared = whole;
    AST_ASSERT(snprintf(to->name, sizeof to->name, "%s", name) < TRAIN_NAME);
    return ERR_OK;
}

static void list_adapters(struct net *n, int64_t l)
{
    char name[TRAIN_NAME];
    for (int part = 0; part < PART_COUNT; part++) {
        const struct net_adapter *a = &n->adapter[l][part];
        const struct net_part *p = &n->layer[l][part];
        if (!a->base)
            continue;
        snprintf(name, sizeof name, "layers.%lld.%s.lora_a", (long long)l, words[part]);
        list(n, name, &(struct net_part){.w = a->a, .g = a->ga, .rows = n->rank, .cols = p->cols}, false, !a->columns);
        snprintf(name, sizeof name, "layers.%lld.%s.lora_b", (long long)l, words[part]);
        list(n, name, &(struct net_part){.w = a->b, .g = a->gb, .rows = p->rows, .cols = n->rank}, false, a->columns);
    }
}

static int list_gates(struct net *n, int64_t l, const struct net_how *how)
{
    for (int i = 0; i < GATE_TENSORS; i++) {
        if (!(how->gate_tensors >> i & 1))
            continue;
        n->gate_known[l][i] = true;
        struct gate_tensor t, g;
        struct attn_params grads = n->gate;
        grads.layer = n->gate_grad;
        gate_tensor_at(&n->gate, l, i, &t);
        gate_tensor_at(&grads, l, i, &g);
        struct train_param *to = &n->params.at[n->params.n++];
        *to = (struct train_param){.rank = t.rank, .n = gate_tensor_size(&t), .w = *t.data, .decay = t.rank == 3, .lr = 1};
        to->lr = how->gate_lr > 0 ? (float)how->gate_lr : 1;
        memcpy(to->dim, t.dim, sizeof to->dim);
        snprintf(to->name, sizeof to->name, "layers.%lld.gates.%s", (long long)l, t.name);
        to->g = *g.data = ARENA_NEW0(&n->run, to->n, float);
        if (!to->g)
            return ERR_NOMEM;
    }
    return ERR_OK;
}

static int list_all(struct net *n, const struct net_how *how)
{
    static const int tops[] = {PART_EMBED, PART_POS, PART_HEAD, PART_NORM_W, PART_NORM_B};
    int64_t L = n->shape->layers;
    char name[TRAIN_NAME];
    int rc = train_params_alloc(&n->params, (L + 1) * (3 * PART_COUNT + GATE_TENSORS), &n->run);
    for (size_t i = 0; !rc && i < sizeof tops / sizeof tops[0]; i++)
        if (tops[i] != PART_HEAD || !n->shape->tied)
            rc = list(n, words[tops[i]], &n->top[tops[i]], true, true);
    for (int64_t l = 0; !rc && l < L; l++) {
        n->first_param[l] = n->params.n;
        for (int part = 0; !rc && part < PART_COUNT; part++) {
            snprintf(name, sizeof name, "layers.%lld.%s", (long long)l, words[part] ? words[part] : "");
            if (!(n->adapter && n->adapter[l][part].base)) /* an adapted matrix's gradient is a step on the way */
                rc = list(n, name, &n->layer[l][part], true, is_whole(part));
        }
        if (!rc && n->adapter)
            list_adapters(n, l);
        if (!rc && n->gate.layer && n->train & NET_GATES)
            rc = list_gates(n, l, how);
    }
    n->first_param[L] = n->params.n;
    return rc;
}

static int open_parts(struct net *n, const struct net_how *how)
{
    int64_t L = n->shape->layers;
    n->layer = arena_alloc0(&n->run, L, sizeof n->layer[0]);
    n->first_param = ARENA_NEW0(&n->run, L + 1, int64_t);
    n->gate_grad = ARENA_NEW0(&n->run, L, struct gate_layer);
    if (!n->layer || !n->first_param || !n->gate_grad)
        return ERR_NOMEM;
    int rc = give_top(n);
    for (int64_t l = 0; !rc && l < L; l++)
        rc = give_layer(n, l);
    if (!rc && n->train & NET_ADAPTERS) {
        n->adapter = arena_alloc0(&n->run, L, sizeof n->adapter[0]);
        int64_t D = n->shape->hidden, most = n->shape->mlp + n->shape->heads * n->shape->dim + D; /* more than any side */
        n->adapter_sum = ARENA_NEW(&n->run, n->rank * most, float);
        rc = n->adapter && n->adapter_sum ? ERR_OK : ERR_NOMEM;
        for (int64_t l = 0; !rc && l < L; l++)
            rc = give_adapters(n, l, how->seed);
    }
    if (!rc && how->gates)
        rc = give_gates(n, how);
    return rc ? rc : list_all(n, how);
}

/* Whole groups of heads for each rank: what is shared by ranks would need more sums. */
static int cut_shape(struct net *n)
{
    const struct model_cut *c = &n->model->cut;
    int64_t size = n->group ? n->group->size : 1;
    n->own = n->model->shape;
    n->shape = &n->own;
    if (c->heads.n * size != n->own.heads || c->kv.n * size != n->own.kv_heads)
        return err_set(ERR_ARG,
                       "%lld heads with %lld key/value heads cannot be cut into %lld equal parts of whole groups: train.tensor",
                       (long long)n->own.heads, (long long)n->own.kv_heads, (long long)size);
    n->own.heads = c->heads.n, n->own.kv_heads = c->kv.n, n->own.mlp = c->mlp.n;
    return ERR_OK;
}

int net_open(struct net **out, const struct net_how *how)
{
    *out = NULL;
    if (how->train & NET_ADAPTERS && (how->train & NET_WEIGHTS || how->rank < 1))
        return err_set(ERR_ARG, "adapters need a rank of at least 1 and frozen weights; rank is %lld", (long long)how->rank);
    struct net *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(ERR_NOMEM, "no memory for a net");
    n->group = how->group, n->kern = how->kern, n->train = how->train, n->rank = how->rank;
    int rc = model_open(&n->model,
                        &(struct model_open){.path = how->path, .group = how->group, .kern = how->kern, .check_finite = true});
    rc = rc ? rc : cut_shape(n);
    if (!rc) {
        const struct model_info *i = model_info(n->model);
        size_t weights = (size_t)i->parameters * sizeof(float) + ((size_t)1 << 24);
        size_t gates = (size_t)i->layers * (size_t)i->heads * (size_t)(i->hidden + 64 + 8 * i->dim) * 512 * sizeof(float);
        rc = arena_open(&n->run, "training", 8 * weights + 4 * gates); /* address space only */
    }
    rc = comm_agree(how->group, rc);
    rc = comm_agree(how->group, rc ? rc : open_parts(n, how));
    if (rc) {
        net_close(n);
        return rc;
    }
    *out = n;
    return ERR_OK;
}

void net_close(struct net *n)
{
    if (!n)
        return;
    model_close(n->model);
    arena_close(&n->run);
    free(n);
}
