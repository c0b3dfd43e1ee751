/* Gate parameters: sizes, names, start values, checks. */
#include "attn/gate.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/rng.h"

void gate_tensor_at(const struct attn_params *p, int64_t layer, int i, struct gate_tensor *out)
{
    struct gate_layer *g = &p->layer[layer];
    int64_t u = p->units, e = p->width, in = p->heads / p->units * p->dim;
    const struct gate_tensor all[GATE_TENSORS] = {
        {"wq", &g->wq, 3, {u, in, e}},
        {"wk", &g->wk, 3, {u, 3 * p->dim, e}},
        {"wc", &g->wc, 3, {u, p->hidden, e}},
        {"dist", &g->dist, 2, {u, p->buckets, 1}},
        {"wr", &g->wr, 2, {u, e, 1}},
        {"br", &g->br, 1, {u, 1, 1}},
        {"beta", &g->beta, 1, {p->heads, 1, 1}},
    };
    AST_ASSERT(i >= 0 && i < GATE_TENSORS);
    *out = all[i];
}

int64_t gate_tensor_size(const struct gate_tensor *t)
{
    return t->dim[0] * t->dim[1] * t->dim[2];
}

int gate_alloc(struct attn_params *p, struct arena *run)
{
    p->layer = ARENA_NEW0(run, p->layers, struct gate_layer);
    if (!p->layer)
        return ERR_NOMEM;
    for (int64_t l = 0; l < p->layers; l++)
        for (int i = 0; i < GATE_TENSORS; i++) {
            struct gate_tensor t;
            gate_tensor_at(p, l, i, &t);
            *t.data = ARENA_NEW0(run, gate_tensor_size(&t), float);
            if (!*t.data)
                return ERR_NOMEM;
        }
    return ERR_OK;
}

/* w (rows, e) of one unit += a on the diagonal of the slice that starts at row0, plus noise everywhere on the slice */
static void add_identity(float *w, int64_t row0, int64_t e, float a)
{
    for (int64_t i = 0; i < e; i++)
        w[(row0 + i) * e + i] += a;
}

static void add_noise(float *w, int64_t n, double std, uint64_t seed, uint64_t stream)
{
    for (int64_t i = 0; i < n && std > 0; i++)
        w[i] += (float)(std * rng_normal(seed, stream, (uint64_t)i));
}

int gate_init(struct attn_params *p, double noise, uint64_t seed)
{
    if (p->width != p->dim)
        return err_set(ERR_ARG, "gate width %lld: an untrained gate starts as the mean-key score and needs the head width, %lld",
                       (long long)p->width, (long long)p->dim);
    int64_t gh = p->heads / p->units, e = p->width;
    for (int64_t l = 0; l < p->layers; l++) {
        struct gate_layer *g = &p->layer[l];
        for (int64_t u = 0; u < p->units; u++) {
            float *wq = g->wq + u * gh * e * e, *wk = g->wk + u * 3 * e * e;
            uint64_t stream = (uint64_t)((l * p->units + u) * 2);
            memset(wq, 0, (size_t)(gh * e * e) * sizeof *wq);
            memset(wk, 0, (size_t)(3 * e * e) * sizeof *wk);
            for (int64_t h = 0; h < gh; h++)
                add_identity(wq, h * e, e, 1 / (float)gh);
            add_identity(wk, 0, e, 1);
            add_noise(wq, gh * e * e, noise, seed, stream);
            add_noise(wk, 3 * e * e, noise, seed, stream + 1);
            g->br[u] = -1.0986123f; /* logit(1/4) */
        }
        for (int64_t h = 0; h < p->heads; h++)
            g->beta[h] = -6; /* next to nothing, yet with a gradient */
    }
    return ERR_OK;
}

static bool all_zero(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0)
            return false;
    return true;
}

void gate_seal(struct attn_params *p)
{
    for (int64_t l = 0; l < p->layers; l++) {
        struct gate_layer *g = &p->layer[l];
        if (g->wc && all_zero(g->wc, p->units * p->hidden * p->width))
            g->wc = NULL;
        if (g->dist && all_zero(g->dist, p->units * p->buckets))
            g->dist = NULL;
    }
}

int gate_check(const struct attn_params *p, const struct attn_shape *s)
{
    int64_t g = s->heads / s->kv_heads, gp = p->heads / p->kv_heads;
    bool per_head = p->units == p->heads && p->heads != p->kv_heads;
    if (p->layers != s->n_layers || p->dim != s->dim || p->hidden != s->hidden)
        return err_set(ERR_ARG, "the gates are for %lld layers, head width %lld, hidden width %lld; the model has %lld, %lld, %lld",
                       (long long)p->layers, (long long)p->dim, (long long)p->hidden, (long long)s->n_layers, (long long)s->dim,
                       (long long)s->hidden);
    if (s->head0 + s->heads > p->heads || s->kv_head0 + s->kv_heads > p->kv_heads)
        return err_set(ERR_ARG, "the gates are for %lld query and %lld key/value heads; the model has more", (long long)p->heads,
                       (long long)p->kv_heads);
    if (!per_head && g != gp)
        return err_set(ERR_ARG,
                       "the gates choose for %lld query heads a key/value head, this rank has %lld: use fewer ranks a group",
                       (long long)gp, (long long)g);
    return ERR_OK;
}

int64_t gate_bucket(int64_t delta, int64_t buckets)
{
    int64_t b = delta < 2 ? delta : 1;
    for (int64_t x = delta; delta >= 2 && x > 1; x >>= 1)
        b++;
    return b < buckets ? b : buckets - 1;
}
