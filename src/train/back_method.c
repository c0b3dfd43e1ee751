/* A sequence as one call of a method: a cache of floats, an empty state, then run() or its gradient. */
#include "train/back_method.h"

#include "base/arena.h"
#include "base/err.h"

static size_t state_of(const struct attn_shape *s, const struct back_rule *r, int64_t n)
{
    return r->method->state_bytes ? r->method->state_bytes(r->opts, s, n) : 0;
}

size_t back_method_bytes(const struct attn_shape *s, const struct back_rule *r, int64_t n)
{
    size_t run = r->method->scratch(r->opts, s, n, n), back = r->method->backward_bytes(r->opts, s, n);
    size_t kv = arena_bytes((int64_t)kern_kv_bytes(KERN_F32, s->dim, n), 1);
    return (run > back ? run : back) + arena_bytes(s->kv_heads, sizeof(struct kern_kv)) + 2 * (size_t)s->kv_heads * kv +
           arena_bytes((int64_t)state_of(s, r, n), 1);
}

/* Keys and values as the cache holds them: (G,) heads. NULL: no memory. */
static struct kern_kv *cache(const struct back_attn *a)
{
    const struct attn_shape *s = a->shape;
    int64_t bytes = (int64_t)kern_kv_bytes(KERN_F32, s->dim, a->n);
    struct kern_kv *kv = ARENA_NEW(a->step, s->kv_heads, struct kern_kv);
    for (int64_t g = 0; kv && g < s->kv_heads; g++) {
        kv[g] = (struct kern_kv){.dim = s->dim, .dtype = KERN_F32};
        kv[g].k = arena_alloc0(a->step, bytes, 1);
        kv[g].v = arena_alloc0(a->step, bytes, 1);
        if (!kv[g].k || !kv[g].v)
            return NULL;
        a->kern->kv_append(&kv[g], a->k + g * s->dim, a->v + g * s->dim, s->kv_heads * s->dim, a->n);
    }
    return kv;
}

int back_method_run(struct back_attn *a, bool backward)
{
    const struct attn_method *m = a->rule->method;
    struct attn_call c = {.method = m, .opts = a->rule->opts, .shape = a->shape, .n = a->n, .q = a->q, .k = a->k, .v = a->v};
    struct attn_stats stats = {0};
    struct attn_cost cost;
    size_t mark = arena_mark(a->step), state = state_of(a->shape, a->rule, a->n);
    c.kv = cache(a), c.out = a->out, c.lse = a->lse, c.kern = a->kern, c.step = a->step;
    c.state = c.kv && state ? arena_alloc0(a->step, (int64_t)state, 1) : NULL;
    int rc = !c.kv || (state && !c.state) ? ERR_NOMEM : ERR_OK;
    if (!rc && backward && a->dq)
        rc = m->backward(&(struct attn_grad){.call = &c, .dout = a->dout, .dq = a->dq, .dk = a->dk, .dv = a->dv});
    else if (!rc && !backward) {
        c.stats = &stats;
        rc = m->run(&c);
        a->kept += stats.pairs_seen, a->seen += stats.pairs_causal;
    }
    m->cost(a->rule->opts, a->shape, 0, a->n, &cost);
    a->flops += backward && !a->dq ? 0 : cost.flops * (backward ? 2.5 : 1); /* five products in place of two */
    arena_release(a->step, mark);
    return rc;
}
