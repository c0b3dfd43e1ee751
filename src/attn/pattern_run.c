/* The driver of pattern.h: tiles of units, the strided part and its merge. */
#include <math.h>
#include <omp.h>
#include <string.h>

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

static int64_t most_panels(const struct pattern_ops *ops, const struct attn_shape *s)
{
    return 2 * s->heads * ops->variants;
}

/* ---- memory ---- */

struct pattern_lane { /* one thread's room */
    float *q, *turned, *o, *m, *l, *lse, *cs, *sn;
    int64_t *begin, *end, *ptr;
    int32_t *list;
    void *kern, *work;
    double pairs, gathered, items;
};

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

static struct pattern_size lane_size(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s, int64_t tokens)
{
    struct pattern_size z = {.dim = s->dim};
    for (int64_t h = 0; h < s->heads; h++)
        for (int v = 0; v < ops->variants; v++) {
            struct pattern p;
            ops->of(opts, s, s->head0 + h, v, &p);
            z.list = max64(z.list, p.picks * p.pick_block / KERN_KB);
            z.half = p.turn ? s->rot / 2 : z.half;
        }
    z.list *= ops->pick_row ? KERN_MAX_ROWS : 1;
    z.work = ops->pick_work ? ops->pick_work(opts, s, tokens) : 0;
    return z;
}

static size_t lane_cut(struct pattern_lane *w, unsigned char *base, const struct pattern_size *z)
{
    int64_t R = KERN_MAX_ROWS;
    size_t at = 0;
    *w = (struct pattern_lane){0};
    w->q = take(base, &at, R * z->dim, sizeof(float));
    w->turned = take(base, &at, z->half > 0 ? R * z->dim : 0, sizeof(float));
    w->o = take(base, &at, R * z->dim, sizeof(float));
    w->m = take(base, &at, R, sizeof(float));
    w->l = take(base, &at, R, sizeof(float));
    w->lse = take(base, &at, R, sizeof(float));
    w->cs = take(base, &at, z->half, sizeof(float));
    w->sn = take(base, &at, z->half, sizeof(float));
    w->begin = take(base, &at, R, sizeof(int64_t));
    w->end = take(base, &at, R, sizeof(int64_t));
    w->ptr = take(base, &at, R + 1, sizeof(int64_t));
    w->list = take(base, &at, z->list, sizeof(int32_t));
    w->kern = take(base, &at, (int64_t)kern_tile_scratch(R, z->dim), 1);
    w->work = take(base, &at, (int64_t)z->work, 1);
    return at;
}

size_t pattern_scratch(const struct pattern_ops *ops, const void *opts, const struct attn_shape *s, int64_t n, int64_t max_tokens)
{
    struct pattern_lane w;
    struct pattern_size z = lane_size(ops, opts, s, max_tokens);
    return arena_bytes(most_panels(ops, s), sizeof(struct pattern_panel)) + arena_bytes(s->heads, sizeof(struct pattern_unit)) +
           arena_bytes(s->heads, sizeof(int32_t)) + arena_bytes(n * s->heads, sizeof(float)) +
           arena_bytes(omp_get_max_threads(), lane_cut(&w, NULL, &z));
}

/* ---- units ---- */

static void pattern_of(const struct pattern_run *r, const int32_t *variant, int64_t h, struct pattern *out)
{
    r->ops->of(r->c->opts, r->c->shape, r->c->shape->head0 + h, variant ? variant[h] : 0, out);
}

/* Heads of a group with one pattern become one unit. variant (H,) or NULL. */
static void list_units(struct pattern_run *r, const int32_t *variant)
{
    const struct attn_shape *s = r->c->shape;
    int64_t group = s->heads / s->kv_heads, at = 0;
    r->n_units = 0;
    for (int64_t h = 0; h < s->heads; h++) {
        struct pattern p, other;
        int64_t g = h / group;
        bool known = false;
        pattern_of(r, variant, h, &p);
        for (int u = 0; u < r->n_units; u++)
            known = known || (r->unit[u].kv_head == g && !memcmp(&r->unit[u].p, &p, sizeof p));
        if (known)
            continue;
        struct pattern_unit *u = &r->unit[r->n_units++];
        *u = (struct pattern_unit){.p = p, .kv_head = g, .head = r->head + at};
        for (int64_t i = h; i < (g + 1) * group; i++) {
            pattern_of(r, variant, i, &other);
            if (!memcmp(&other, &p, sizeof p)) {
                r->head[at++] = (int32_t)i;
                u->n++;
            }
        }
        u->tokens = KERN_MAX_ROWS / min64(u->n, KERN_MAX_ROWS);
        pattern_panels_of(r, &p, g, u->panel);
    }
}

/* ---- tiles ---- */

/* Some rows of a unit: tokens of the chunk first, first + step, ... (n), heads h0 .. h0+heads-1 of the unit. */
struct tile {
    const struct pattern_run *r;
    const struct pattern_unit *u;
    struct pattern_lane *w;
    int64_t first, step, n, h0, heads;
    struct kern_tile k;
};

static void tile_open(struct tile *t)
{
    const struct attn_call *c = t->r->c;
    const struct attn_shape *s = c->shape;
    struct pattern_lane *w = t->w;
    int64_t d = s->dim, row = 0;
    for (int64_t x = 0; x < t->n; x++)
        for (int64_t h = 0; h < t->heads; h++, row++) {
            const float *q = c->q + ((t->first + x * t->step - c->pos) * s->heads + t->u->head[t->h0 + h]) * d;
            for (int64_t i = 0; i < d; i++)
                w->q[row * d + i] = q[i] * s->scale;
        }
    t->k = (struct kern_tile){.rows = row, .dim = d, .q = w->q, .begin = w->begin, .end = w->end, .o = w->o, .m = w->m};
    t->k.l = w->l;
    t->k.scratch = w->kern;
    c->kern->tile_begin(&t->k);
}

/* Begin and end of token x's rows. */
static void see(const struct tile *t, int64_t x, int64_t begin, int64_t end)
{
    for (int64_t h = 0; h < t->heads; h++) {
        t->w->begin[x * t->heads + h] = begin;
        t->w->end[x * t->heads + h] = end;
    }
}

/* Rows see the keys begin .. end-1 of the sequence. lo, hi: least and largest of them. */
static void over_keys(const struct tile *t, int64_t lo, int64_t hi)
{
    if (lo < hi)
        t->r->c->kern->tile_dense(&t->k, &t->r->c->kv[t->u->kv_head], lo / KERN_KB, (hi + KERN_KB - 1) / KERN_KB);
}

/* The same for keys of a panel; begin and end are in the view's coordinates, lo and hi in keys of the panel. */
static void over_panel(const struct tile *t, const struct pattern_view *v, int64_t lo, int64_t hi)
{
    enum { BATCH = 64 };
    int32_t list[BATCH];
    for (int64_t b = lo / KERN_KB; lo < hi && b < (hi + KERN_KB - 1) / KERN_KB;) {
        int64_t n = 0;
        for (; n < BATCH && b < (hi + KERN_KB - 1) / KERN_KB; n++, b++)
            list[n] = (int32_t)(b * v->step);
        t->r->c->kern->tile_blocks(&t->k, &v->kv, list, NULL, n);
    }
}

/* The queries as they meet the sinks in a cache of sink + window keys: at position sink + window - 1. */
static void turn(const struct tile *t)
{
    const struct attn_shape *s = t->r->c->shape;
    struct pattern_lane *w = t->w;
    int64_t place = t->u->p.sink + t->u->p.window - 1, d = s->dim;
    memcpy(w->turned, w->q, (size_t)(t->k.rows * d) * sizeof(float));
    for (int64_t x = 0; x < t->n; x++) {
        int64_t by = place - (t->first + x * t->step);
        if (by >= 0)
            continue;
        for (int64_t i = 0; i < s->rot / 2; i++) {
            double a = (double)by * (double)s->rope_freq[i];
            w->cs[i] = (float)cos(a);
            w->sn[i] = (float)sin(a);
        }
        for (int64_t h = 0; h < t->heads; h++)
            t->r->c->kern->rope(w->turned + (x * t->heads + h) * d, w->cs, w->sn, s->rot);
    }
}

static void sinks(struct tile *t)
{
    const struct pattern *p = &t->u->p;
    int64_t lo = INT64_MAX, hi = 0;
    for (int64_t x = 0; x < t->n; x++) {
        int64_t tok = t->first + x * t->step, first = pattern_first(t->r->c->shape, tok);
        int64_t end = min64(p->sink, pattern_begin(p, first, tok));
        see(t, x, first, end);
        lo = min64(lo, first);
        hi = max64(hi, end);
    }
    if (p->turn) {
        turn(t);
        t->k.q = t->w->turned;
    }
    over_keys(t, lo, hi);
    t->k.q = t->w->q;
}

static void columns(const struct tile *t)
{
    const struct pattern *p = &t->u->p;
    struct pattern_view v = pattern_view_of(t->r, &t->r->panel[t->u->panel[1]], 0);
    int64_t lo = INT64_MAX, hi = 0;
    for (int64_t x = 0; x < t->n; x++) {
        int64_t tok = t->first + x * t->step, first = pattern_first(t->r->c->shape, tok);
        int64_t from = pattern_columns(p, first), to = pattern_columns(p, pattern_begin(p, first, tok));
        see(t, x, pattern_at_view(&v, from), from < to ? pattern_at_view(&v, to - 1) + 1 : 0);
        lo = min64(lo, from);
        hi = max64(hi, to);
    }
    over_panel(t, &v, lo, hi);
}

static double keys_in(const int32_t *list, int64_t n, int64_t first)
{
    double keys = 0;
    for (int64_t i = 0; i < n; i++)
        keys += (double)max64(0, min64(KERN_KB, (int64_t)(list[i] + 1) * KERN_KB - first));
    return keys;
}

/* Tokens of one pick block have one list: a call each. */
static void picked_blocks(const struct tile *t)
{
    const struct attn_call *c = t->r->c;
    const struct pattern *p = &t->u->p;
    for (int64_t x = 0; x < t->n; x++)
        see(t, x, pattern_first(c->shape, t->first + x), t->first + x + 1);
    for (int64_t x = 0, y; x < t->n; x = y) {
        uint64_t mask = 0;
        int64_t n = t->r->ops->pick(c->opts, c->shape, p, t->first + x, t->w->list);
        for (y = x; y < t->n && (t->first + y) / p->pick_block == (t->first + x) / p->pick_block; y++) {
            t->w->pairs += (double)t->heads * keys_in(t->w->list, n, t->w->begin[y * t->heads]);
            mask |= (t->heads == 64 ? ~0ull : (1ull << t->heads) - 1) << (y * t->heads);
        }
        for (int64_t i = 0; i < n; i += KERN_MAX_ROWS) {
            uint64_t masks[KERN_MAX_ROWS];
            int64_t part = min64(KERN_MAX_ROWS, n - i);
            for (int64_t j = 0; j < part; j++)
                masks[j] = mask;
            c->kern->tile_blocks(&t->k, &c->kv[t->u->kv_head], t->w->list + i, masks, part);
        }
    }
}

/* Each row has a list of its own. */
static void picked_rows(struct tile *t)
{
    const struct attn_call *c = t->r->c;
    struct pattern_lane *w = t->w;
    int64_t most = t->u->p.picks * t->u->p.pick_block / KERN_KB;
    w->ptr[0] = 0;
    for (int64_t row = 0; row < t->k.rows; row++) {
        int64_t tok = t->first + row / t->heads;
        int32_t *list = w->list + w->ptr[row];
        int64_t n = t->r->ops->pick_row(t->r, t->u, w->q + row * t->k.dim, tok, list, w->work);
        AST_ASSERT(n <= most);
        w->begin[row] = pattern_first(c->shape, tok);
        w->end[row] = tok + 1;
        w->ptr[row + 1] = w->ptr[row] + n;
        w->pairs += keys_in(list, n, w->begin[row]);
    }
    t->k.share = 0;
    c->kern->tile_gather(&t->k, &c->kv[t->u->kv_head], w->ptr, w->list);
    w->gathered++;
}

static void local(const struct tile *t)
{
    int64_t lo = INT64_MAX, hi = 0;
    for (int64_t x = 0; x < t->n; x++) {
        int64_t tok = t->first + x, begin = pattern_begin(&t->u->p, pattern_first(t->r->c->shape, tok), tok);
        see(t, x, begin, tok + 1);
        lo = min64(lo, begin);
        hi = begin <= tok ? tok + 1 : hi;
    }
    over_keys(t, lo, hi);
}

/* All parts but the strided one, of neighbouring tokens. */
static void one_tile(struct tile *t)
{
    const struct attn_call *c = t->r->c;
    const struct pattern *p = &t->u->p;
    int64_t d = c->shape->dim, H = c->shape->heads;
    tile_open(t);
    for (int64_t x = 0; x < t->n; x++)
        t->w->pairs += (double)(t->heads * pattern_keys(p, pattern_first(c->shape, t->first + x), t->first + x));
    if (p->sink > 0)
        sinks(t);
    if (t->u->panel[1] >= 0)
        columns(t);
    if (p->picks > 0 && t->r->ops->pick_row)
        picked_rows(t);
    else if (p->picks > 0)
        picked_blocks(t);
    local(t);
    c->kern->tile_end(&t->k, t->w->lse);
    t->w->items++;
    for (int64_t row = 0; row < t->k.rows; row++) {
        int64_t to = (t->first + row / t->heads - c->pos - t->r->row0) * H + t->u->head[t->h0 + row % t->heads];
        memcpy(t->r->out + to * d, t->w->o + row * d, (size_t)d * sizeof(float));
        if (t->r->lse)
            t->r->lse[to] = t->w->lse[row];
    }
}

/* Adds a partial result to what is there: both are averages of values, weighted by e^lse. */
static void merge(float *o, float *lse, const float *add, float add_lse, int64_t d)
{
    double top = fmax((double)*lse, (double)add_lse);
    if (add_lse == -INFINITY)
        return;
    double a = exp((double)*lse - top), b = exp((double)add_lse - top), sum = a + b;
    for (int64_t i = 0; i < d; i++)
        o[i] = (float)((a * (double)o[i] + b * (double)add[i]) / sum);
    *lse = (float)(top + log(sum));
}

/* The strided part: tokens of one residue. */
static void strided_tile(struct tile *t)
{
    const struct attn_call *c = t->r->c;
    const struct pattern *p = &t->u->p;
    int64_t d = c->shape->dim, H = c->shape->heads, res = t->first % p->stride, lo = INT64_MAX, hi = 0;
    struct pattern_view v = pattern_view_of(t->r, &t->r->panel[t->u->panel[0]], res);
    tile_open(t);
    for (int64_t x = 0; x < t->n; x++) {
        int64_t tok = t->first + x * t->step, first = pattern_first(c->shape, tok), begin = pattern_begin(p, first, tok);
        int64_t low = p->reach < tok / p->stride ? max64(first, tok - p->reach * p->stride) : first;
        int64_t from = pattern_strided(p, res, min64(low, begin)), to = pattern_strided(p, res, begin);
        see(t, x, pattern_at_view(&v, from), from < to ? pattern_at_view(&v, to - 1) + 1 : 0);
        lo = min64(lo, from);
        hi = max64(hi, to);
    }
    over_panel(t, &v, lo, hi);
    c->kern->tile_end(&t->k, t->w->lse);
    t->w->items++;
    for (int64_t row = 0; row < t->k.rows; row++) {
        int64_t to = (t->first + row / t->heads * t->step - c->pos - t->r->row0) * H + t->u->head[t->h0 + row % t->heads];
        merge(t->r->out + to * d, t->r->lse + to, t->w->o + row * d, t->w->lse[row], d);
    }
}

/* ---- a call ---- */

struct work {      /* items of a pass: units one after the other, slices of heads, tiles of tokens */
    int64_t at, n; /* tokens of the chunk, by position */
    bool strided;
};

static int64_t tiles_of(const struct pattern_unit *u, const struct work *k)
{
    int64_t slices = (u->n + KERN_MAX_ROWS - 1) / KERN_MAX_ROWS, stride = u->p.stride;
    if (!k->strided)
        return slices * ((k->at + k->n - 1) / u->tokens - k->at / u->tokens + 1);
    if (stride == 0)
        return 0;
    int64_t each = (k->n + stride - 1) / stride; /* tokens of a residue, at most */
    return slices * min64(stride, k->n) * ((each + u->tokens - 1) / u->tokens);
}

static void one_item(const struct pattern_run *r, const struct pattern_unit *u, const struct work *k, int64_t item,
                     struct pattern_lane *w)
{
    int64_t slices = (u->n + KERN_MAX_ROWS - 1) / KERN_MAX_ROWS, slice = item % slices, T = u->tokens;
    struct tile t = {.r = r, .u = u, .w = w, .h0 = slice * KERN_MAX_ROWS, .step = 1};
    t.heads = min64(KERN_MAX_ROWS, u->n - t.h0);
    item /= slices;
    if (!k->strided) {
        int64_t tile = k->at / T + item;
        t.first = max64(k->at, tile * T);
        t.n = min64((tile + 1) * T, k->at + k->n) - t.first;
        one_tile(&t);
        return;
    }
    int64_t residues = min64(u->p.stride, k->n);
    t.step = u->p.stride;
    t.first = k->at + item % residues + item / residues * T * t.step;
    t.n = min64(T, (k->at + k->n - t.first + t.step - 1) / t.step);
    if (t.first < k->at + k->n)
        strided_tile(&t);
}

static void pass(struct pattern_run *r, const struct work *k)
{
    int64_t items = 0;
    for (int u = 0; u < r->n_units; u++)
        items += tiles_of(&r->unit[u], k);
    int threads = (int)max64(1, min64(r->threads, items));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        struct pattern_lane w;
        lane_cut(&w, r->lanes + (size_t)omp_get_thread_num() * r->lane, &r->size);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < items; i++) {
            int u = 0;
            int64_t item = i;
            for (; item >= tiles_of(&r->unit[u], k); u++)
                item -= tiles_of(&r->unit[u], k);
            one_item(r, &r->unit[u], k, item, &w);
        }
#pragma omp critical(pattern_count)
        { /* whole numbers: their order changes nothing */
            r->pairs += w.pairs;
            r->tiles_gather += w.gathered;
            r->tiles_dense += w.items - w.gathered;
        }
    }
}

int pattern_open(struct pattern_run *r, struct attn_call *c, const struct pattern_ops *ops)
{
    const struct attn_shape *s = c->shape;
    struct pattern_lane w;
    int64_t most = most_panels(ops, s), *tokens = c->state;
    bool strided = false;
    *r = (struct pattern_run){.c = c, .ops = ops, .most = most, .out = c->out, .lse = c->lse, .threads = omp_get_max_threads()};
    r->mark = arena_mark(c->step);
    r->size = lane_size(ops, c->opts, s, c->pos + c->n);
    r->lane = lane_cut(&w, NULL, &r->size);
    r->panel = ARENA_NEW(c->step, most, struct pattern_panel);
    r->unit = ARENA_NEW(c->step, s->heads, struct pattern_unit);
    r->head = ARENA_NEW(c->step, s->heads, int32_t);
    r->lanes = arena_alloc(c->step, r->threads, r->lane);
    if (!r->panel || !r->unit || !r->head || !r->lanes)
        return ERR_NOMEM;
    pattern_list_panels(r);
    for (int i = 0; i < r->n_panels; i++)
        strided = strided || r->panel[i].p.stride > 0;
    if (strided && !r->lse)
        r->lse = ARENA_NEW(c->step, c->n * s->heads, float);
    if (strided && !r->lse)
        return ERR_NOMEM;
    if (r->n_panels > 0 && *tokens != c->pos)
        return err_set(ERR_ARG, "attention state holds %lld tokens, the chunk begins at %lld", (long long)*tokens,
                       (long long)c->pos);
#pragma omp parallel for schedule(dynamic, 1) if (r->n_panels > 1 && c->n > 1)
    for (int i = 0; i < r->n_panels; i++)
        pattern_feed(r, &r->panel[i]);
    if (r->n_panels > 0)
        *tokens += c->n;
    return ERR_OK;
}

void pattern_attend(struct pattern_run *r, const int32_t *variant, int64_t i, int64_t n)
{
    list_units(r, variant);
    pass(r, &(struct work){r->c->pos + i, n, false});
    pass(r, &(struct work){r->c->pos + i, n, true});
}

void pattern_close(struct pattern_run *r)
{
    arena_release(r->c->step, r->mark);
}

int pattern_call(struct attn_call *c, const struct pattern_ops *ops)
{
    struct pattern_run r;
    int rc = pattern_open(&r, c, ops);
    if (!rc)
        pattern_attend(&r, NULL, 0, c->n);
    pattern_close(&r);
    if (!rc && c->stats) {
        c->stats->pairs_seen += r.pairs;
        c->stats->pairs_causal += (double)c->shape->heads * ((double)c->n * (double)c->pos + (double)c->n * (double)(c->n + 1) / 2);
        c->stats->tile_dense += r.tiles_dense;
        c->stats->tile_gather += r.tiles_gather;
    }
    return rc;
}
