/* Key/value caches. Memory is reserved for the longest sequence and touched as tokens come. */
#include "model/cache.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

size_t cache_state_bytes(const struct model *m, int64_t max)
{
    size_t most = 0;
    /* Layers differ in their window at most; take the largest. */
    for (int64_t l = 0; m->method->state_bytes && l < m->shape.layers; l++) {
        size_t n = m->method->state_bytes(m->opts, &m->attn[l], max);
        most = n > most ? n : most;
    }
    return most;
}

static size_t kv_bytes(const struct model *m, int64_t max)
{
    return kern_kv_bytes(m->kv_dtype, m->shape.dim, max);
}

int cache_layer(struct arena *to, const struct model *m, int64_t max, struct kern_kv **kv, unsigned char **state, size_t *bytes)
{
    int64_t heads = m->cut.kv.n;
    size_t each = kv_bytes(m, max), keep = cache_state_bytes(m, max);
    *bytes = arena_bytes(heads, sizeof(struct kern_kv)) + 2 * (size_t)heads * arena_bytes((int64_t)each, 1) +
             (keep ? arena_bytes((int64_t)keep, 1) : 0);
    if (!to)
        return ERR_OK;
    *kv = ARENA_NEW(to, heads, struct kern_kv);
    if (!*kv)
        return ERR_NOMEM;
    for (int64_t g = 0; g < heads; g++) {
        (*kv)[g] = (struct kern_kv){.dim = m->shape.dim, .dtype = m->kv_dtype};
        (*kv)[g].k = arena_alloc(to, (int64_t)each, 1);
        (*kv)[g].v = arena_alloc(to, (int64_t)each, 1);
        if (!(*kv)[g].k || !(*kv)[g].v)
            return ERR_NOMEM;
    }
    *state = keep ? arena_alloc(to, (int64_t)keep, 1) : NULL;
    return keep && !*state ? ERR_NOMEM : ERR_OK;
}

size_t model_cache_bytes(const struct model *m, int64_t max)
{
    size_t each = kv_bytes(m, max), keep = cache_state_bytes(m, max);
    return arena_bytes(m->shape.layers * m->cut.kv.n, sizeof(struct kern_kv)) +
           2 * (size_t)(m->shape.layers * m->cut.kv.n) * arena_bytes((int64_t)each, 1) +
           (keep ? (size_t)m->shape.layers * arena_bytes((int64_t)keep, 1) : 0);
}

int model_cache_open(struct model_cache **out, struct model *m, int64_t max)
{
    struct model_cache *c = max > 0 ? calloc(1, sizeof *c) : NULL;
    *out = NULL;
    if (!c)
        return max > 0 ? err_set(ERR_NOMEM, "no memory for a key/value cache")
                       : err_set(ERR_ARG, "a key/value cache needs at least one token");
    *c = (struct model_cache){.model = m, .method = m->method, .max = max, .state_each = cache_state_bytes(m, max)};
    int rc = arena_open_filled(&c->arena, "cache", model_cache_bytes(m, max));
    int64_t n = m->shape.layers * m->cut.kv.n;
    int64_t each = (int64_t)kv_bytes(m, max);
    if (!rc)
        c->kv = ARENA_NEW(&c->arena, n, struct kern_kv);
    for (int64_t i = 0; !rc && c->kv && i < n; i++) {
        c->kv[i] = (struct kern_kv){.dim = m->shape.dim, .dtype = m->kv_dtype};
        c->kv[i].k = arena_alloc(&c->arena, each, 1);
        c->kv[i].v = arena_alloc(&c->arena, each, 1);
        if (!c->kv[i].k || !c->kv[i].v)
            rc = ERR_NOMEM;
    }
    c->state_each = c->state_each ? arena_bytes((int64_t)c->state_each, 1) : 0;
    if (!rc && c->state_each)
        c->state = arena_alloc0(&c->arena, m->shape.layers, c->state_each);
    if (!rc && (!c->kv || (c->state_each && !c->state)))
        rc = ERR_NOMEM;
    if (rc) {
        model_cache_close(c);
        return rc;
    }
    *out = c;
    return ERR_OK;
}

void model_cache_close(struct model_cache *c)
{
    if (c)
        arena_close(&c->arena);
    free(c);
}

int64_t model_cache_len(const struct model_cache *c)
{
    return c->len;
}

void model_cache_reset(struct model_cache *c)
{
    for (int64_t i = 0; i < c->model->shape.layers * c->model->cut.kv.n; i++)
        c->kv[i].n = 0;
    if (c->state)
        memset(c->state, 0, (size_t)c->model->shape.layers * c->state_each);
    c->len = 0;
}

/* Blocks of 16 keys, from the one that holds token `same` on. */
static void copy_blocks(struct kern_kv *to, const struct kern_kv *from, int64_t same)
{
    size_t size = from->dtype == KERN_F32 ? sizeof(float) : sizeof(uint16_t);
    size_t k_block = kern_kv_bytes(from->dtype, from->dim, KERN_KB), v_block = (size_t)(KERN_KB * from->dim) * size;
    int64_t first = same / KERN_KB, n = (from->n + KERN_KB - 1) / KERN_KB - first;
    if (n > 0) {
        memcpy((char *)to->k + (size_t)first * k_block, (const char *)from->k + (size_t)first * k_block, (size_t)n * k_block);
        memcpy((char *)to->v + (size_t)first * v_block, (const char *)from->v + (size_t)first * v_block, (size_t)n * v_block);
    }
    to->n = from->n;
}

int model_cache_copy(struct model_cache *to, const struct model_cache *from, int64_t same)
{
    const struct model *m = from->model;
    if (to->model != m || to->method != from->method)
        return err_set(ERR_ARG, "a cache of another model or attention method cannot be copied");
    if (to->max < from->len || to->state_each != from->state_each)
        return err_set(ERR_ARG, "a cache for %lld tokens cannot take the copy of one for %lld", (long long)to->max,
                       (long long)from->max);
    for (int64_t i = 0; i < m->shape.layers * m->cut.kv.n; i++)
        copy_blocks(&to->kv[i], &from->kv[i], same);
    /* A method's state is small beside keys and values, and its open sums change with every token: whole. */
    if (from->state)
        memcpy(to->state, from->state, (size_t)m->shape.layers * from->state_each);
    to->len = from->len;
    return ERR_OK;
}
