/* The walk over an architecture's tensor list. One table gives each part its extent and its cut. */
#include "model/weights.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "io/safetensors.h"

enum axis { ONE, VOCAB, CONTEXT, HIDDEN, DIM, HEADS, KV, MLP }; /* HEADS, KV: heads x head width */

/* rows x columns; the axes VOCAB, HEADS, KV and MLP are the ones that are cut over ranks. */
static const struct {
    enum axis rows, cols;
} extent[PART_COUNT] = {
    [PART_EMBED] = {VOCAB, HIDDEN}, [PART_POS] = {CONTEXT, HIDDEN}, [PART_HEAD] = {VOCAB, HIDDEN},  [PART_NORM_W] = {HIDDEN, ONE},
    [PART_NORM_B] = {HIDDEN, ONE},  [PART_NORM1_W] = {HIDDEN, ONE}, [PART_NORM1_B] = {HIDDEN, ONE}, [PART_NORM2_W] = {HIDDEN, ONE},
    [PART_NORM2_B] = {HIDDEN, ONE}, [PART_Q] = {HEADS, HIDDEN},     [PART_K] = {KV, HIDDEN},        [PART_V] = {KV, HIDDEN},
    [PART_Q_B] = {HEADS, ONE},      [PART_K_B] = {KV, ONE},         [PART_V_B] = {KV, ONE},         [PART_Q_NORM] = {DIM, ONE},
    [PART_K_NORM] = {DIM, ONE},     [PART_O] = {HIDDEN, HEADS},     [PART_O_B] = {HIDDEN, ONE},     [PART_GATE] = {MLP, HIDDEN},
    [PART_UP] = {MLP, HIDDEN},      [PART_DOWN] = {HIDDEN, MLP},    [PART_GATE_B] = {MLP, ONE},     [PART_UP_B] = {MLP, ONE},
    [PART_DOWN_B] = {HIDDEN, ONE},
};

static bool wanted(const struct model_shape *s, enum model_part p)
{
    switch (p) {
    case PART_POS: return s->pos == MODEL_POS_LEARNED;
    case PART_HEAD: return !s->tied;
    case PART_NORM_B:
    case PART_NORM1_B:
    case PART_NORM2_B: return s->norm_bias;
    case PART_Q_B:
    case PART_K_B:
    case PART_V_B: return s->qkv_bias;
    case PART_Q_NORM:
    case PART_K_NORM: return s->qk_norm;
    case PART_O_B: return s->o_bias;
    case PART_GATE: return s->gated;
    case PART_GATE_B: return s->gated && s->mlp_bias;
    case PART_UP_B:
    case PART_DOWN_B: return s->mlp_bias;
    default: return true;
    }
}

static bool per_layer(enum model_part p)
{
    return p >= PART_NORM1_W;
}

static int64_t whole(const struct model_shape *s, enum axis a)
{
    const int64_t n[] = {[ONE] = 1,      [VOCAB] = s->vocab,          [CONTEXT] = s->context,      [HIDDEN] = s->hidden,
                         [DIM] = s->dim, [HEADS] = s->heads * s->dim, [KV] = s->kv_heads * s->dim, [MLP] = s->mlp};
    return n[a];
}

static struct model_range mine(const struct model_shape *s, const struct model_cut *c, enum axis a)
{
    switch (a) {
    case VOCAB: return c->vocab;
    case HEADS: return (struct model_range){c->heads.first * s->dim, c->heads.n * s->dim};
    case KV: return (struct model_range){c->kv.first * s->dim, c->kv.n * s->dim};
    case MLP: return c->mlp;
    default: return (struct model_range){0, whole(s, a)};
    }
}

/* The tensors, one after the other: the model's, each layer's (the parts of a fused one together), the head. */
struct walk {
    const struct model_arch *arch;
    const struct model_shape *shape;
    const char *prefix;
    int item;
    int64_t layer;
    /* the current one */
    enum model_part part;
    unsigned flags;
    char name[256];
};

static bool walk_next(struct walk *w)
{
    while (w->layer < w->shape->layers) {
        const struct model_tensor *t = &w->arch->tensors[++w->item];
        if (!t->file) {
            w->item = -1;
            w->layer++;
            continue;
        }
        if (per_layer(t->part) != (w->layer >= 0) || !wanted(w->shape, t->part))
            continue;
        w->part = t->part;
        w->flags = t->flags;
        int at = snprintf(w->name, sizeof w->name, "%s", w->prefix);
        const char *d = strstr(t->file, "%d");
        if (d)
            snprintf(w->name + at, sizeof w->name - (size_t)at, "%.*s%lld%s", (int)(d - t->file), t->file, (long long)w->layer,
                     d + 2);
        else
            snprintf(w->name + at, sizeof w->name - (size_t)at, "%s", t->file);
        return true;
    }
    if (w->part == PART_HEAD || w->shape->tied)
        return false;
    w->part = PART_HEAD;
    w->flags = 0;
    snprintf(w->name, sizeof w->name, "%s", w->arch->head);
    return true;
}

static struct walk walk_start(const struct model_arch *a, const struct model_shape *s, const char *prefix)
{
    return (struct walk){.arch = a, .shape = s, .prefix = prefix ? prefix : "", .item = -1, .layer = -1, .part = PART_COUNT};
}

/* The first prefix under which the embedding is found; NULL if none. */
static const char *prefix_of(const struct model_arch *a, const struct safetensors *st)
{
    char name[256];
    for (int i = 0; i < 3 && a->prefix[i]; i++) {
        snprintf(name, sizeof name, "%s%s", a->prefix[i], a->tensors[0].file);
        if (st_find(st, name))
            return a->prefix[i];
    }
    return NULL;
}

static int check_tensor(const struct walk *w, const struct st_tensor *t, const char *path)
{
    int64_t rows = whole(w->shape, extent[w->part].rows), cols = whole(w->shape, extent[w->part].cols);
    if (w->flags & (TENSOR_QKV_SIDE | TENSOR_QKV_HEAD))
        rows = (w->shape->heads + 2 * w->shape->kv_heads) * w->shape->dim;
    int rank = extent[w->part].cols == ONE ? 1 : 2;
    int64_t want[2] = {rows, cols};
    if (rank == 2 && w->flags & TENSOR_TRANSPOSED) {
        want[0] = cols;
        want[1] = rows;
    }
    if (t->rank != rank || t->dim[0] != want[0] || (rank == 2 && t->dim[1] != want[1])) {
        char has[128] = "", need[64];
        for (int i = 0, at = 0; i < t->rank && at < (int)sizeof has - 24; i++)
            at += snprintf(has + at, sizeof has - (size_t)at, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
        if (rank == 2)
            snprintf(need, sizeof need, "%lld, %lld", (long long)want[0], (long long)want[1]);
        else
            snprintf(need, sizeof need, "%lld", (long long)want[0]);
        return err_set(ERR_FORMAT, "%s: tensor %s has the shape [%s], config.json asks for [%s]", path, w->name, has, need);
    }
    if (t->dtype != ST_F32 && t->dtype != ST_BF16 && t->dtype != ST_F16 && t->dtype != ST_F64)
        return err_set(ERR_FORMAT, "%s: tensor %s is %s; F32, BF16, F16 and F64 are read", path, w->name, t->dtype_name);
    return ERR_OK;
}

/* Tensors that checkpoints carry along and no forward pass needs: masks, tables, the copy of a tied head. */
static bool superfluous(const char *name, const struct model_arch *a, const struct model_shape *s)
{
    static const char *const tail[] = {".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias",
                                       "rotary_emb.inv_freq"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof tail / sizeof tail[0]; i++)
        if (n >= strlen(tail[i]) && !strcmp(name + n - strlen(tail[i]), tail[i]))
            return true;
    return s->tied && !strcmp(name, a->head);
}

/* The file holds more tensors than the list: fine if they are superfluous, else named. */
static int check_rest(const struct model_arch *a, const struct model_shape *s, const struct safetensors *st, const char *path)
{
    for (int64_t i = 0; i < st_count(st); i++) {
        const char *name = st_at(st, i)->name;
        bool found = superfluous(name, a, s);
        for (struct walk w = walk_start(a, s, prefix_of(a, st)); !found && walk_next(&w);)
            found = !strcmp(w.name, name);
        if (!found)
            return err_set(
                ERR_FORMAT,
                "%s: the weights hold a tensor %s that config.json's model does not have; without it the numbers would be others",
                path, name);
    }
    return ERR_OK;
}

int weights_check(const struct model_arch *a, const struct model_shape *s, const struct safetensors *st, const char *path)
{
    const char *prefix = prefix_of(a, st);
    if (!prefix)
        return err_set(ERR_FORMAT, "%s: the weights hold no tensor %s%s", path, a->prefix[0], a->tensors[0].file);
    int64_t used = 0;
    const char *last = NULL;
    for (struct walk w = walk_start(a, s, prefix); walk_next(&w);) {
        const struct st_tensor *t = st_find(st, w.name);
        if (!t)
            return err_set(ERR_FORMAT, "%s: the weights lack the tensor %s%s", path, w.name,
                           w.part == PART_HEAD ? " (and tie_word_embeddings is false)" : "");
        int rc = check_tensor(&w, t, path);
        if (rc)
            return rc;
        used += t->name != last; /* a fused tensor serves several parts */
        last = t->name;
    }
    return used == st_count(st) ? ERR_OK : check_rest(a, s, st, path);
}

int64_t weights_count(const struct model_arch *a, const struct model_shape *s)
{
    int64_t n = 0;
    for (struct walk w = walk_start(a, s, ""); walk_next(&w);)
        n += whole(s, extent[w.part].rows) * whole(s, extent[w.part].cols);
    return n;
}

/* ---- memory ---- */

/* Where one layer's matrices and vectors are, with the local extents; the same list sizes and allocates. */
static int64_t n_of(const struct model_shape *s, const struct model_cut *c, enum axis a)
{
    return mine(s, c, a).n;
}

/* Adds the bytes of a matrix, or allocates it when there is an arena. */
static size_t give_mat(struct arena *to, struct kern_mat *m, enum kern_dtype t, int64_t out, int64_t in)
{
    size_t bytes = kern_mat_bytes(t, out, in);
    *m = (struct kern_mat){.dtype = t, .out = out, .in = in};
    if (to)
        m->data = arena_alloc(to, (int64_t)bytes, 1);
    if (m->data && !to->keep)
        kern_mat_touch(m);
    return arena_bytes((int64_t)bytes, 1);
}

static size_t give_vec(struct arena *to, float **v, bool want, int64_t n)
{
    if (!want)
        return 0;
    if (to)
        *v = arena_alloc0(to, n, sizeof(float));
    return arena_bytes(n, sizeof(float));
}

static size_t give_layer(struct arena *to, struct model_layer *l, const struct model_shape *s, const struct model_cut *c,
                         enum kern_dtype t)
{
    int64_t q = n_of(s, c, HEADS), kv = n_of(s, c, KV), up = c->mlp.n * (s->gated ? 2 : 1);
    size_t n = give_mat(to, &l->qkv, t, q + 2 * kv, s->hidden);
    n += give_mat(to, &l->o, t, s->hidden, q);
    n += give_mat(to, &l->up, t, up, s->hidden);
    n += give_mat(to, &l->down, t, s->hidden, c->mlp.n);
    n += give_vec(to, &l->norm1_w, true, s->hidden) + give_vec(to, &l->norm1_b, s->norm_bias, s->hidden);
    n += give_vec(to, &l->norm2_w, true, s->hidden) + give_vec(to, &l->norm2_b, s->norm_bias, s->hidden);
    n += give_vec(to, &l->qkv_b, s->qkv_bias, q + 2 * kv) + give_vec(to, &l->o_b, s->o_bias, s->hidden);
    n += give_vec(to, &l->q_norm, s->qk_norm, s->dim) + give_vec(to, &l->k_norm, s->qk_norm, s->dim);
    n += give_vec(to, &l->up_b, s->mlp_bias, up) + give_vec(to, &l->down_b, s->mlp_bias, s->hidden);
    return n;
}

static size_t give_rest(struct arena *to, struct model *m, const struct model_shape *s, const struct model_cut *c,
                        enum kern_dtype t)
{
    size_t n = give_mat(to, &m->embed, t, c->vocab.n, s->hidden);
    if (s->pos == MODEL_POS_LEARNED)
        n += give_mat(to, &m->pos, t, s->context, s->hidden);
    if (!s->tied)
        n += give_mat(to, &m->head, t, c->vocab.n, s->hidden);
    else
        m->head = m->embed;
    return n + give_vec(to, &m->norm_w, true, s->hidden) + give_vec(to, &m->norm_b, s->norm_bias, s->hidden);
}

size_t weights_bytes(const struct model_shape *s, const struct model_cut *cut, enum kern_dtype t)
{
    struct model m = {0};
    struct model_layer l = {0};
    return give_rest(NULL, &m, s, cut, t) + (size_t)s->layers * give_layer(NULL, &l, s, cut, t);
}

int weights_alloc(struct model *m, enum kern_dtype t)
{
    give_rest(&m->weights, m, &m->shape, &m->cut, t);
    for (int64_t i = 0; i < m->shape.layers; i++)
        give_layer(&m->weights, &m->layer[i], &m->shape, &m->cut, t);
    m->info.weight_bytes = m->weights.used;
    return m->info.weight_bytes == weights_bytes(&m->shape, &m->cut, t) ? ERR_OK : ERR_NOMEM;
}

/* ---- loading ---- */

enum { STAGE = 1 << 20 }; /* floats converted at a time */

size_t weights_stage_bytes(void)
{
    return 2 * arena_bytes(STAGE, sizeof(float));
}

struct place { /* where a tensor's part goes */
    struct kern_mat *mat;
    float *vec;
    int64_t row0; /* of the first local row */
};

static struct place place_of(struct model *m, enum model_part p, int64_t layer)
{
    struct model_layer *l = &m->layer[layer];
    int64_t q = n_of(&m->shape, &m->cut, HEADS), kv = n_of(&m->shape, &m->cut, KV);
    int64_t up = m->shape.gated ? m->cut.mlp.n : 0; /* up rows stand behind the gate rows */
    switch (p) {
    case PART_EMBED: return (struct place){&m->embed, NULL, 0};
    case PART_POS: return (struct place){&m->pos, NULL, 0};
    case PART_HEAD: return (struct place){&m->head, NULL, 0};
    case PART_NORM_W: return (struct place){NULL, m->norm_w, 0};
    case PART_NORM_B: return (struct place){NULL, m->norm_b, 0};
    case PART_NORM1_W: return (struct place){NULL, l->norm1_w, 0};
    case PART_NORM1_B: return (struct place){NULL, l->norm1_b, 0};
    case PART_NORM2_W: return (struct place){NULL, l->norm2_w, 0};
    case PART_NORM2_B: return (struct place){NULL, l->norm2_b, 0};
    case PART_Q: return (struct place){&l->qkv, NULL, 0};
    case PART_K: return (struct place){&l->qkv, NULL, q};
    case PART_V: return (struct place){&l->qkv, NULL, q + kv};
    case PART_Q_B: return (struct place){NULL, l->qkv_b, 0};
    case PART_K_B: return (struct place){NULL, l->qkv_b, q};
    case PART_V_B: return (struct place){NULL, l->qkv_b, q + kv};
    case PART_Q_NORM: return (struct place){NULL, l->q_norm, 0};
    case PART_K_NORM: return (struct place){NULL, l->k_norm, 0};
    case PART_O: return (struct place){&l->o, NULL, 0};
    case PART_O_B: return (struct place){NULL, l->o_b, 0};
    case PART_GATE: return (struct place){&l->up, NULL, 0};
    case PART_UP: return (struct place){&l->up, NULL, up};
    case PART_DOWN: return (struct place){&l->down, NULL, 0};
    case PART_GATE_B: return (struct place){NULL, l->up_b, 0};
    case PART_UP_B: return (struct place){NULL, l->up_b, up};
    case PART_DOWN_B: return (struct place){NULL, l->down_b, 0};
    default: return (struct place){0};
    }
}

static void convert(const struct kern_table *k, float *y, const struct st_tensor *t, int64_t at, int64_t n)
{
    const unsigned char *src = (const unsigned char *)t->data + (size_t)at * st_dtype_size(t->dtype);
    if (t->dtype == ST_BF16)
        k->f32_from_bf16(y, src, n);
    else if (t->dtype == ST_F16)
        k->f32_from_f16(y, src, n);
    else if (t->dtype == ST_F32)
        memcpy(y, src, (size_t)n * sizeof(float));
    else
        for (int64_t i = 0; i < n; i++) {
            double v;
            memcpy(&v, src + i * 8, sizeof v);
            y[i] = (float)v;
        }
}

struct reading { /* one part of one tensor */
    struct model *m;
    const struct st_tensor *t;
    struct place to;
    struct model_range cols;
    bool transposed, check_finite;
    float *stage, *line; /* (STAGE,) each */
};

/* n rows from row `from` of the file's matrix (cols of them) -> rows of the stage. */
static void stage_rows(const struct reading *r, int64_t from, int64_t n)
{
    int64_t cols = r->cols.n, wide = r->t->rank == 2 ? r->t->dim[1] : 1;
    if (!r->transposed) {
        if (cols == wide) {
            convert(r->m->kern, r->stage, r->t, from * wide, n * cols);
            return;
        }
        for (int64_t i = 0; i < n; i++)
            convert(r->m->kern, r->stage + i * cols, r->t, (from + i) * wide + r->cols.first, cols);
        return;
    }
    for (int64_t c = 0; c < cols; c++) {
        convert(r->m->kern, r->line, r->t, (r->cols.first + c) * wide + from, n);
        for (int64_t i = 0; i < n; i++)
            r->stage[i * cols + c] = r->line[i];
    }
}

/* A run of n consecutive rows of the file -> local rows row0 + to .. */
static int read_run(const struct reading *r, int64_t from, int64_t to, int64_t n)
{
    int64_t block = STAGE / r->cols.n > 0 ? STAGE / r->cols.n : 1;
    AST_ASSERT(r->cols.n <= STAGE);
    for (int64_t i = 0; i < n; i += block) {
        int64_t rows = n - i < block ? n - i : block;
        stage_rows(r, from + i, rows);
        if (r->check_finite && !r->m->kern->all_finite(r->stage, rows * r->cols.n))
            return err_set(ERR_FORMAT, "%s: tensor %s holds a NaN or an infinity", r->t->file, r->t->name);
        if (r->to.mat)
            kern_mat_set(r->m->kern, r->to.mat, r->to.row0 + to + i, rows, r->stage, r->cols.n);
        else
            memcpy(r->to.vec + r->to.row0 + to + i, r->stage, (size_t)rows * sizeof(float));
    }
    return ERR_OK;
}

static int read_part(const struct reading *r, const struct walk *w)
{
    const struct model_shape *s = &r->m->shape;
    struct model_range rows = mine(s, &r->m->cut, extent[w->part].rows);
    int64_t which = w->part == PART_K || w->part == PART_K_B ? 1 : w->part == PART_V || w->part == PART_V_B ? 2 : 0;
    if (w->flags & TENSOR_QKV_SIDE)
        return read_run(r, rows.first + (which > 0) * s->heads * s->dim + (which > 1) * s->kv_heads * s->dim, 0, rows.n);
    if (!(w->flags & TENSOR_QKV_HEAD))
        return read_run(r, rows.first, 0, rows.n);
    int rc = ERR_OK;
    for (int64_t h = 0; !rc && h < rows.n / s->dim; h++)
        rc = read_run(r, ((rows.first / s->dim + h) * 3 + which) * s->dim, h * s->dim, s->dim);
    return rc;
}

int weights_load(struct model *m, const struct safetensors *st, bool check_finite)
{
    size_t mark = arena_mark(&m->run);
    struct reading r = {.m = m, .check_finite = check_finite};
    const struct st_tensor *last = NULL;
    int rc = ERR_OK;
    r.stage = ARENA_NEW(&m->run, STAGE, float);
    r.line = ARENA_NEW(&m->run, STAGE, float);
    if (!r.stage || !r.line)
        rc = ERR_NOMEM;
    for (struct walk w = walk_start(m->arch, &m->shape, prefix_of(m->arch, st)); !rc && walk_next(&w);) {
        r.t = st_find(st, w.name);
        AST_ASSERT(r.t); /* weights_check */
        if (last && last != r.t)
            st_done_with(last);
        last = r.t;
        r.to = place_of(m, w.part, w.part == PART_HEAD || w.layer < 0 ? 0 : w.layer);
        r.cols = mine(&m->shape, &m->cut, extent[w.part].cols);
        r.transposed = w.flags & TENSOR_TRANSPOSED && r.t->rank == 2;
        rc = read_part(&r, &w);
    }
    if (last)
        st_done_with(last);
    arena_release(&m->run, mark);
    arena_trim(&m->run);
    return rc;
}
