/* The panels of pattern.h: keys and values of columns and residues, packed side by side in the method's state. */
#include "attn/pattern.h"
#include "base/arena.h"
#include "base/err.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static size_t block_bytes(enum kern_dtype t, int64_t dim)
{
    return kern_kv_bytes(t, dim, KERN_KB);
}

static size_t pair_bytes(const struct pattern_run *r) /* a block of keys and one of values */
{
    return 2 * block_bytes(r->c->kv ? r->c->kv[0].dtype : KERN_F32, r->c->shape->dim);
}

static bool same_keys(const struct pattern *a, const struct pattern *b)
{
    return a->stride == b->stride && a->period == b->period && a->from == b->from && a->to == b->to && a->n_col == b->n_col &&
           a->col == b->col;
}

/* The panel of these keys, made if it is new. */
static int panel_of(struct pattern_run *r, const struct pattern *keys, int64_t kv_head)
{
    for (int i = 0; i < min64(r->n_panels, r->most); i++)
        if (r->panel[i].kv_head == kv_head && same_keys(&r->panel[i].p, keys))
            return i;
    if (r->n_panels >= r->most)
        return r->n_panels++; /* only counted: pattern_check says no */
    struct pattern_panel *p = &r->panel[r->n_panels];
    *p = (struct pattern_panel){.p = *keys, .kv_head = kv_head, .slot = r->slots, .fixed = r->fixed};
    p->slots = keys->stride > 0 ? keys->stride : keys->period > 0;
    r->slots += p->slots;
    r->fixed += keys->stride > 0 ? 0 : (keys->n_col + KERN_KB - 1) / KERN_KB;
    return r->n_panels++;
}

void pattern_panels_of(struct pattern_run *r, const struct pattern *p, int64_t kv_head, int panel[2])
{
    struct pattern strided = {.stride = p->stride, .n_col = p->n_col, .col = p->col};
    struct pattern columns = {.period = p->period, .from = p->from, .to = p->to, .n_col = p->n_col, .col = p->col};
    panel[0] = p->stride > 0 ? panel_of(r, &strided, kv_head) : -1;
    panel[1] = p->period > 0 || p->n_col > 0 ? panel_of(r, &columns, kv_head) : -1;
}

void pattern_list_panels(struct pattern_run *r)
{
    const struct attn_shape *s = r->c->shape;
    int64_t group = s->heads / s->kv_heads;
    for (int64_t h = 0; h < s->heads; h++)
        for (int v = 0; v < r->ops->variants; v++) {
            struct pattern p;
            int panel[2];
            r->ops->of(r->c->opts, s, s->head0 + h, v, &p);
            pattern_panels_of(r, &p, h / group, panel);
        }
    r->own = r->ops->own_bytes ? arena_bytes((int64_t)r->ops->own_bytes(r->c->opts, s), 1) : 0;
    if (r->ops->record_bytes)
        r->extra = (int64_t)((r->ops->record_bytes(r->c->opts, s) + pair_bytes(r) - 1) / pair_bytes(r));
}

void *pattern_own(const struct pattern_run *r)
{
    return (unsigned char *)r->c->state + ARENA_ALIGN;
}

static unsigned char *pair_at(const struct pattern_run *r, int64_t i)
{
    return (unsigned char *)r->c->state + ARENA_ALIGN + r->own + (size_t)i * pair_bytes(r);
}

void *pattern_record(const struct pattern_run *r, int64_t record)
{
    return pair_at(r, r->fixed + record * (r->slots + r->extra) + r->slots);
}

struct pattern_view pattern_view_of(const struct pattern_run *r, const struct pattern_panel *p, int64_t sub)
{
    struct pattern_view v = {.kv = r->c->kv[0], .step = p->slots > 0 ? 2 * (r->slots + r->extra) : 2};
    unsigned char *at = pair_at(r, p->slots > 0 ? r->fixed + p->slot + sub : p->fixed);
    v.kv.k = at;
    v.kv.v = at + pair_bytes(r) / 2;
    v.kv.n = INT64_MAX;
    return v;
}

int64_t pattern_at_view(const struct pattern_view *v, int64_t x)
{
    return x / KERN_KB * v->step * KERN_KB + x % KERN_KB;
}

void pattern_feed(const struct pattern_run *r, const struct pattern_panel *p)
{
    const struct attn_call *c = r->c;
    int64_t G = c->shape->kv_heads, d = c->shape->dim;
    size_t block = block_bytes(c->kv[0].dtype, d);
    for (int64_t i = 0; i < c->n; i++) {
        int64_t t = c->pos + i, sub = p->p.stride > 0 ? t % p->p.stride : 0, x;
        if (pattern_is_column(&p->p, t) != (p->p.stride == 0))
            continue;
        x = p->p.stride > 0 ? pattern_strided(&p->p, sub, t) : pattern_columns(&p->p, t);
        struct pattern_view v = pattern_view_of(r, p, sub);
        struct kern_kv one = v.kv; /* begins at the block of x */
        one.k = (unsigned char *)v.kv.k + (size_t)(x / KERN_KB * v.step) * block;
        one.v = (unsigned char *)v.kv.v + (size_t)(x / KERN_KB * v.step) * block;
        one.n = x % KERN_KB;
        c->kern->kv_append(&one, c->k + (i * G + p->kv_head) * d, c->v + (i * G + p->kv_head) * d, d, 1);
    }
}

/* The panels of a shape, counted into room (PATTERN_PANELS,). */
static struct pattern_run count_panels(const struct pattern_ops *ops, struct attn_call *c, struct pattern_panel *room)
{
    struct pattern_run r = {.c = c, .ops = ops, .panel = room, .most = PATTERN_PANELS};
    pattern_list_panels(&r);
    return r;
}

int pattern_check(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s)
{
    struct pattern_panel room[PATTERN_PANELS];
    struct attn_call c = {.opts = opts, .shape = s};
    if (s->dim > KERN_MAX_DIM)
        return err_set(ERR_ARG, "head width %lld: at most %d", (long long)s->dim, KERN_MAX_DIM);
    for (int64_t h = 0; h < s->heads; h++)
        for (int v = 0; v < ops->variants; v++) {
            struct pattern p;
            ops->of(opts, s, s->head0 + h, v, &p);
            AST_ASSERT(p.period == 0 || p.n_col == 0);
            AST_ASSERT(p.sink == 0 || (p.period == 0 && p.n_col == 0 && p.stride == 0));
            if (s->dim % 2 && (p.stride > 0 || p.period > 0 || p.n_col > 0))
                return err_set(ERR_ARG, "head width %lld is odd: strides and columns keep keys in pairs of dims",
                               (long long)s->dim);
            for (int64_t i = 0; i < p.n_col; i++)
                if (p.col[i] < 0 || (i > 0 && p.col[i] <= p.col[i - 1]))
                    return err_set(ERR_ARG, "global tokens must ascend from 0 on: there is %lld after %lld", (long long)p.col[i],
                                   (long long)(i > 0 ? p.col[i - 1] : -1));
        }
    if (count_panels(ops, &c, room).n_panels > PATTERN_PANELS)
        return err_set(ERR_ARG, "%lld key/value heads with so many patterns need more than %d panels of keys",
                       (long long)s->kv_heads, PATTERN_PANELS);
    return ERR_OK;
}

size_t pattern_state_bytes(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s, int64_t max_tokens)
{
    struct pattern_panel room[PATTERN_PANELS];
    struct attn_call c = {.opts = opts, .shape = s};
    struct pattern_run r = count_panels(ops, &c, room);
    int64_t records = 0;
    for (int i = 0; i < r.n_panels; i++) {
        const struct pattern *p = &room[i].p;
        int64_t keys = p->stride > 0   ? (max_tokens + p->stride - 1) / p->stride
                       : p->period > 0 ? pattern_columns(p, max_tokens)
                                       : 0;
        records = max64(records, (keys + KERN_KB - 1) / KERN_KB);
    }
    return r.n_panels ? ARENA_ALIGN + r.own + (size_t)(r.fixed + records * (r.slots + r.extra)) * pair_bytes(&r) : 0;
}
