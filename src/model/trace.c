/* Attention probabilities by one-hot values. */
#include "model/trace.h"

#include <string.h>

#include "base/err.h"
#include "comm/comm.h"
#include "model/forward.h"

struct tracer { /* stands where the method's options are */
    const struct attn_method *inner;
    const void *opts;
    size_t state_bytes;
    float *mass; /* (keys,) sums over this rank's layers and heads */
};

static size_t value_bytes(const struct kern_kv *kv)
{
    int64_t keys = (kv->n + KERN_KB - 1) / KERN_KB * KERN_KB;
    return (size_t)(keys * kv->dim) * (kv->dtype == KERN_F32 ? sizeof(float) : sizeof(uint16_t));
}

/* v[key][i] = x, 0 or 1; layout: struct kern_kv. */
static void put(const struct kern_kv *kv, void *v, int64_t key, int64_t i, int x)
{
    if (kv->dtype == KERN_F32)
        ((float *)v)[key * kv->dim + i] = (float)x;
    else
        ((uint16_t *)v)[(key / 2 * kv->dim + i) * 2 + key % 2] = x ? 0x3f80 : 0;
}

/* The call again on copies, once for each d keys. */
static int ask(const struct attn_call *c, const struct tracer *t, const void *state)
{
    const struct attn_shape *s = c->shape;
    int64_t keys = c->pos + 1, dim = s->dim;
    void *v = arena_alloc0(c->step, (int64_t)value_bytes(&c->kv[0]), 1);
    void *copy = t->state_bytes ? arena_alloc(c->step, (int64_t)t->state_bytes, 1) : NULL;
    struct kern_kv *kv = ARENA_NEW(c->step, s->kv_heads, struct kern_kv);
    float *out = ARENA_NEW(c->step, s->heads * dim, float);
    int rc = v && kv && out && (copy || !t->state_bytes) ? ERR_OK : ERR_NOMEM;
    for (int64_t g = 0; g < s->kv_heads && rc == ERR_OK; g++) {
        kv[g] = c->kv[g];
        kv[g].v = v;
    }
    for (int64_t j0 = 0; j0 < keys && rc == ERR_OK; j0 += dim) {
        struct attn_call again = *c;
        int64_t n = keys - j0 < dim ? keys - j0 : dim;
        again.method = t->inner;
        again.opts = t->opts;
        again.kv = kv;
        again.out = out;
        again.lse = NULL;
        again.stats = NULL;
        again.state = copy;
        if (copy)
            memcpy(copy, state, t->state_bytes);
        for (int64_t i = 0; i < n; i++)
            put(&kv[0], v, j0 + i, i, 1);
        rc = t->inner->run(&again);
        for (int64_t i = 0; i < n && rc == ERR_OK; i++) {
            put(&kv[0], v, j0 + i, i, 0);
            for (int64_t h = 0; h < s->heads; h++)
                t->mass[j0 + i] += out[h * dim + i];
        }
    }
    return rc;
}

static int run(struct attn_call *c)
{
    const struct tracer *t = c->opts;
    struct attn_call real = *c;
    size_t mark = arena_mark(c->step);
    void *before = t->state_bytes ? arena_alloc(c->step, (int64_t)t->state_bytes, 1) : NULL;
    if (t->state_bytes && !before)
        return ERR_NOMEM;
    if (before)
        memcpy(before, c->state, t->state_bytes);
    real.method = t->inner;
    real.opts = t->opts;
    int rc = t->inner->run(&real);
    rc = rc ? rc : ask(c, t, before);
    arena_release(c->step, mark);
    return rc;
}

static size_t scratch(const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    const struct tracer *t = opts;
    int64_t keys = (max_tokens + KERN_KB - 1) / KERN_KB * KERN_KB;
    return (t->inner->scratch ? t->inner->scratch(t->opts, s, n, max_tokens) : 0) +
           2 * arena_bytes((int64_t)t->state_bytes + 1, 1) + arena_bytes(keys * s->dim, sizeof(float)) +
           arena_bytes(s->kv_heads, sizeof(struct kern_kv)) + arena_bytes(s->heads * s->dim, sizeof(float));
}

/* A model beside m whose method is the tracer. */
static void wrap(const struct model *m, int64_t max_tokens, struct tracer *t, struct attn_method *method, struct model *out)
{
    *t = (struct tracer){.inner = m->method, .opts = m->opts, .state_bytes = cache_state_bytes(m, max_tokens)};
    *method = *m->method;
    method->run = run;
    method->scratch = scratch;
    *out = *m;
    out->method = method;
    out->opts = t;
}

size_t trace_bytes(const struct model *m, int64_t max_tokens)
{
    struct tracer t;
    struct attn_method method;
    struct model with;
    wrap(m, max_tokens, &t, &method, &with);
    return forward_bytes(&with, 1, max_tokens, true);
}

int trace_run(struct model *m, struct model_cache *cache, struct trace *t, struct arena *step)
{
    struct tracer tracer;
    struct attn_method method;
    struct model with;
    const int64_t at[2] = {0, 1};
    int64_t longest, end = cache->len + t->n;
    int rc =
        t->ld >= end ? ERR_OK : err_set(ERR_ARG, "%lld columns for the attention on %lld keys", (long long)t->ld, (long long)end);
    wrap(m, cache->max, &tracer, &method, &with);
    if (!rc)
        rc = model_check_room(step, trace_bytes(m, cache->max));
    rc = comm_agree(m->group, rc);
    for (int64_t i = 0; i < t->n && !rc; i++) {
        struct model_batch b = {.n_seq = 1, .at = at, .token = t->token + i};
        struct forward f = {.m = &with, .b = &b, .cache = &cache};
        size_t mark = arena_mark(step);
        tracer.mass = t->mass + i * t->ld;
        memset(tracer.mass, 0, (size_t)t->ld * sizeof *tracer.mass);
        rc = comm_agree(m->group, model_check_batch(m, &b, &cache, &longest));
        f.longest = longest;
        rc = rc ? rc : forward_run(&f, step);
        if (!rc && m->cut.sums)
            comm_sum_f32(m->group, tracer.mass, end);
        for (int64_t j = 0; j < end && !rc; j++)
            tracer.mass[j] /= (float)(m->shape.layers * m->shape.heads);
        arena_release(step, mark);
    }
    return rc;
}
