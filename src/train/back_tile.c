/* A tile: its keys in chunks, the running softmax on the way forward, the recomputed one on the way back. */
#include "train/back_tile.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "train/back_pattern.h"

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

struct chunk {                    /* keys (or summaries) and what belongs to them */
    const float *kt, *vt, *k, *v; /* (blocks, d, 16) twice; rows with a stride of `step` floats */
    float *dk, *dv;               /* (cols, d) to be added to */
    int64_t step, blocks, cols;
    const int32_t *block; /* numbers of the blocks; NULL: summaries */
    int64_t first;        /* summaries: number of the first */
};

struct tile_span tile_span_of(const struct back_attn *a, int64_t t)
{
    const struct back_rule *r = a->rule;
    int64_t first = a->shape->window > 0 ? max64(0, t + 1 - a->shape->window) : 0;
    int64_t from = r->mask == BACK_DENSE && r->keep > 0 ? max64(first, t + 1 - (r->keep - r->sinks)) : first;
    return (struct tile_span){r->mask == BACK_DENSE && r->keep > 0 && first == 0 ? min64(r->sinks, from) : 0, from};
}

/* ---- which blocks ---- */

/* The pattern's bits of every token; marks the blocks that any sees. */
static void mark_pattern(const struct tile_run *r, struct tile_room *w, const struct tile *t)
{
    for (int64_t i = 0; i < t->at.count; i++) {
        uint16_t *bits = w->bits + i * r->nk;
        const int64_t head_token[2] = {t->at.unit * r->heads, t->at.t0 + i};
        back_pattern_token(r->a->rule, r->a->shape, head_token, bits, w->picked);
        for (int64_t b = 0; b <= head_token[1] / KERN_KB; b++)
            w->mark[b] |= bits[b] != 0;
    }
}

/* Marks the blocks of 16 keys that hold a part of block J of the gate. */
static void mark_block(const struct tile_run *r, struct tile_room *w, int64_t J, int64_t own)
{
    int64_t B = r->a->gate->block, first = J * B / KERN_KB, n = max64(1, B / KERN_KB);
    memset(w->mark + first, 1, (size_t)min64(n, own + 1 - first));
}

/* Blocks of 16 keys that a token of the tile may look at, ascending. */
static void list_blocks(const struct tile_run *r, struct tile_room *w, struct tile *t)
{
    const struct back_attn *a = r->a;
    int64_t last = t->at.t0 + t->at.count - 1, own = last / KERN_KB;
    struct tile_span span = tile_span_of(a, t->at.t0);
    bool hard = a->rule->mask == BACK_HARD;
    bool chosen = a->rule->mask != BACK_DENSE; /* by what the gate has left of the blocks */
    float least = hard ? -FLT_MAX : a->rule->cut < 0 ? (float)a->rule->cut : -INFINITY;
    memset(w->mark, !chosen, (size_t)(own + 1));
    if (!chosen)
        for (int64_t b = (span.sink + KERN_KB - 1) / KERN_KB; b < span.from / KERN_KB; b++)
            w->mark[b] = 0;
    if (a->rule->mask == BACK_PATTERN)
        mark_pattern(r, w, t);
    for (int64_t i = 0; chosen && a->gate && i < t->at.count; i++) {
        const struct select_set *set = &w->gate.set[i];
        const float *lm = w->gate.lm + i * w->gate.ld;
        for (int64_t J = 0; J <= set->own; J++)
            if (lm[J] >= least)
                mark_block(r, w, J, own);
    }
    t->n_blocks = 0;
    for (int64_t b = 0; b <= own; b++)
        if (w->mark[b])
            w->block[t->n_blocks++] = (int32_t)b;
}

/* Up to TILE_BLOCKS blocks from position i of the list: in place where they lie side by side, else copied. */
static struct chunk take_chunk(const struct tile_run *r, struct tile_room *w, const struct tile *t, int64_t i)
{
    const struct back_attn *a = r->a;
    int64_t d = a->shape->dim, G = a->shape->kv_heads, n = min64(TILE_BLOCKS, t->n_blocks - i), b0 = w->block[i];
    const float *kt = r->kt + (t->kv * r->nk) * d * KERN_KB, *vt = r->vt + (t->kv * r->nk) * d * KERN_KB;
    const float *k = a->k + t->kv * d, *v = a->v + t->kv * d;
    struct chunk c = {.block = w->block + i, .blocks = n};
    if (w->block[i + n - 1] - b0 == n - 1) {
        c.cols = min64(n * KERN_KB, a->n - b0 * KERN_KB);
        c.kt = kt + b0 * d * KERN_KB, c.vt = vt + b0 * d * KERN_KB;
        c.k = k + b0 * KERN_KB * G * d, c.v = v + b0 * KERN_KB * G * d, c.step = G * d;
        c.dk = w->acc_k ? w->acc_k + b0 * KERN_KB * d : NULL;
        c.dv = w->acc_v ? w->acc_v + b0 * KERN_KB * d : NULL;
        return c;
    }
    c.cols = n * KERN_KB;
    c.kt = w->kt, c.vt = w->vt, c.k = w->k, c.v = w->v, c.step = d;
    c.dk = w->acc_k ? w->dk : NULL;
    c.dv = w->acc_k ? w->dv : NULL;
    for (int64_t x = 0; x < n; x++) {
        int64_t b = c.block[x], keys = min64(KERN_KB, a->n - b * KERN_KB);
        memcpy(w->kt + x * d * KERN_KB, kt + b * d * KERN_KB, (size_t)(d * KERN_KB) * sizeof(float));
        memcpy(w->vt + x * d * KERN_KB, vt + b * d * KERN_KB, (size_t)(d * KERN_KB) * sizeof(float));
        for (int64_t j = 0; j < KERN_KB; j++) {
            float *to_k = w->k + (x * KERN_KB + j) * d, *to_v = w->v + (x * KERN_KB + j) * d;
            int64_t from = (b * KERN_KB + min64(j, keys - 1)) * G * d; /* past the end: any numbers, their weight is 0 */
            memcpy(to_k, k + from, (size_t)d * sizeof(float));
            memcpy(to_v, v + from, (size_t)d * sizeof(float));
        }
    }
    if (c.dk) {
        memset(w->dk, 0, (size_t)(c.cols * d) * sizeof(float));
        memset(w->dv, 0, (size_t)(c.cols * d) * sizeof(float));
    }
    return c;
}

/* Gradients of gathered blocks to where they belong. */
static void give_back(struct tile_room *w, const struct chunk *c, int64_t d, const struct kern_table *kern)
{
    for (int64_t x = 0; c->dk == w->dk && x < c->blocks; x++) {
        int64_t to = c->block[x] * KERN_KB * d;
        kern->add(w->acc_k + to, w->dk + x * KERN_KB * d, KERN_KB * d);
        kern->add(w->acc_v + to, w->dv + x * KERN_KB * d, KERN_KB * d);
    }
}

static struct chunk take_summaries(const struct tile_run *r, struct tile_room *w, const struct tile *t, int64_t first)
{
    const struct back_gate *g = r->a->gate;
    int64_t d = r->a->shape->dim, each = 16 * g->nsg * d, n = min64(TILE_BLOCKS, g->nsg - first / KERN_KB);
    struct chunk c = {.first = first, .blocks = n, .cols = n * KERN_KB, .step = d};
    c.kt = g->kbart + t->kv * each + first * d, c.vt = g->vbart + t->kv * each + first * d;
    c.k = g->kbar + t->kv * each + first * d, c.v = g->vbar + t->kv * each + first * d;
    c.dk = w->acc_k ? w->gate.dkbar + t->kv * each + first * d : NULL;
    c.dv = w->acc_k ? w->gate.dvbar + t->kv * each + first * d : NULL;
    return c;
}

/* ---- scores under the mask ---- */

/* Two blocks of the gate share a block of 16 keys (block = 8): the weight of each goes to its own keys in the scores. */
static void weigh_halves(const struct tile_run *r, struct tile_room *w, int64_t i, int64_t x, int64_t b)
{
    const float *lm = w->gate.lm + i * w->gate.ld;
    int64_t B = r->a->gate->block, first = b * KERN_KB / B, own = w->gate.set[i].own;
    for (int64_t h = 0; h < r->heads; h++) {
        float *s = w->s + (i * r->heads + h) * TILE_STRIDE + x * KERN_KB;
        for (int64_t J = first; J <= own && J < first + KERN_KB / B; J++, s += B)
            for (int64_t j = 0; j < B; j++)
                s[j] += lm[J];
    }
}

/* Bias of each block for token i; keys of blocks that it sees in part are put to -INFINITY in its rows of S. */
static void mask_token(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c, int64_t i)
{
    int64_t tok = t->at.t0 + i, B = r->a->gate ? r->a->gate->block : KERN_KB;
    const float *lm = r->a->gate ? w->gate.lm + i * w->gate.ld : NULL;
    struct tile_span span = tile_span_of(r->a, tok);
    float *bias = w->bias + i * TILE_BLOCKS;
    for (int64_t x = 0; x < c->blocks; x++) {
        int64_t k0 = (int64_t)c->block[x] * KERN_KB, k1 = k0 + KERN_KB - 1;
        bool none = k0 > tok || (k1 < span.from && k0 >= span.sink);
        bias[x] = none ? -INFINITY : lm && B >= KERN_KB ? lm[k0 / B] : 0;
        if (!none && B < KERN_KB)
            weigh_halves(r, w, i, x, c->block[x]);
        if (none || (k1 <= tok && (k0 >= span.from || k1 < span.sink)))
            continue;
        for (int64_t h = 0; h < r->heads; h++)
            for (int64_t j = 0; j < KERN_KB; j++)
                if (k0 + j > tok || (k0 + j < span.from && k0 + j >= span.sink))
                    w->s[(i * r->heads + h) * TILE_STRIDE + x * KERN_KB + j] = -INFINITY;
    }
}

/* ln(1 - max m) over the blocks of summary s for token i; -INFINITY unless they are all candidates. *J: the block of max m. */
static float summary_weight(const struct back_gate *g, const struct tile_room *w, int64_t i, int64_t s, int64_t *J)
{
    const struct select_set *set = &w->gate.set[i];
    int64_t r = g->rule->summary, J0 = s * r / g->block, J1 = r > g->block ? (s + 1) * r / g->block : J0 + 1;
    const float *l1m = w->gate.l1m + i * w->gate.ld;
    if (s >= g->ns || J0 < set->lo || J1 > set->hi)
        return -INFINITY;
    *J = J0;
    for (int64_t x = J0 + 1; x < J1; x++)
        *J = l1m[x] < l1m[*J] ? x : *J;
    return l1m[*J];
}

/* As mask_token, by the pattern's bits. */
static void mask_pattern(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c, int64_t i)
{
    for (int64_t x = 0; x < c->blocks; x++) {
        unsigned bits = c->block[x] * KERN_KB <= t->at.t0 + i ? w->bits[i * r->nk + c->block[x]] : 0;
        w->bias[i * TILE_BLOCKS + x] = bits ? 0 : -INFINITY;
        for (int64_t h = 0; bits && bits != 0xFFFF && h < r->heads; h++)
            for (int64_t j = 0; j < KERN_KB; j++)
                if (!(bits >> j & 1))
                    w->s[(i * r->heads + h) * TILE_STRIDE + x * KERN_KB + j] = -INFINITY;
    }
}

static void mask_summaries(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c)
{
    const struct back_gate *g = r->a->gate;
    int64_t J;
    for (int64_t i = 0; i < t->at.count; i++)
        for (int64_t x = 0; x < c->cols; x++) {
            float add = summary_weight(g, w, i, c->first + x, &J) + logf((float)g->rule->summary);
            for (int64_t h = 0; h < r->heads; h++) {
                float beta = g->w->beta ? g->w->beta[t->at.unit * r->heads + h] : 0;
                w->s[(i * r->heads + h) * TILE_STRIDE + x] += add + beta;
            }
        }
}

/* S = q k^T, or dP = dO v^T. */
static void product(const struct tile_run *r, const struct tile_room *w, const struct tile *t, const struct chunk *c, bool grad)
{
    int64_t d = r->a->shape->dim;
    struct kern_panel p = {.m = t->rows, .n = c->blocks * KERN_KB, .k = d, .a = grad ? w->dout : w->q, .a_row = d, .a_step = 1};
    p.b = grad ? c->vt : c->kt, p.b_block = d * KERN_KB, p.b_step = KERN_KB, p.c = grad ? w->dp : w->s, p.ldc = TILE_STRIDE;
    r->a->kern->panel(&p);
}

static void scores(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c)
{
    product(r, w, t, c, false);
    if (!c->block)
        mask_summaries(r, w, t, c);
    for (int64_t i = 0; c->block && i < t->at.count; i++) {
        if (r->a->rule->mask == BACK_PATTERN)
            mask_pattern(r, w, t, c, i);
        else
            mask_token(r, w, t, c, i);
    }
}

static const float *bias_of(const struct tile_room *w, const struct chunk *c, int64_t row, int64_t heads)
{
    return c->block ? w->bias + row / heads * TILE_BLOCKS : NULL;
}

/* The tile's queries, scaled. */
static void load(const struct tile_run *r, struct tile_room *w, const struct tile *t)
{
    const struct attn_shape *s = r->a->shape;
    int64_t line = r->heads * s->dim;
    for (int64_t i = 0; i < t->at.count; i++)
        memcpy(w->q + i * line, r->a->q + (t->at.t0 + i) * s->heads * s->dim + t->at.unit * line, (size_t)line * sizeof(float));
    r->a->kern->scale(w->q, s->scale, t->rows * s->dim);
}

static int64_t summaries_of(const struct tile_run *r, const struct tile_room *w, const struct tile *t)
{
    const struct back_gate *g = r->a->gate;
    return g && g->ns ? min64(g->ns, w->gate.set[t->at.count - 1].hi * g->block / g->rule->summary) : 0;
}

static void choose(const struct tile_run *r, struct tile_room *w, struct tile *t)
{
    double kept = (double)t->at.count;
    if (r->a->gate)
        back_gate_choose(r->a->gate, &w->gate, &t->at, r->backward, &kept);
    w->kept += kept;
    list_blocks(r, w, t);
    w->pairs += (double)(t->n_blocks * KERN_KB * t->rows);
}

/* ---- forward ---- */

static void absorb(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c)
{
    const struct kern_table *k = r->a->kern;
    int64_t d = r->a->shape->dim;
    scores(r, w, t, c);
    for (int64_t i = 0; i < t->rows; i++) {
        const float *bias = bias_of(w, c, i, r->heads);
        float *s = w->s + i * TILE_STRIDE, top = k->biased_max(s, bias, c->blocks);
        if (top > w->m[i]) {
            float keep = expf(w->m[i] - top);
            k->scale(w->o + i * d, keep, d);
            w->l[i] *= keep;
            w->m[i] = top;
        }
        if (w->m[i] > -INFINITY)
            w->l[i] += k->biased_exp(s, bias, c->blocks, w->m[i]);
        else
            memset(s, 0, (size_t)(c->blocks * KERN_KB) * sizeof *s);
    }
    struct kern_panel p = {.m = t->rows, .n = d, .k = c->cols, .a = w->s, .a_row = TILE_STRIDE, .a_step = 1, .b = c->v};
    p.b_block = KERN_KB, p.b_step = c->step, p.c = w->o, p.ldc = d, p.accumulate = true;
    k->panel(&p);
}

void tile_forward(const struct tile_run *r, struct tile_room *w, struct tile *t)
{
    const struct attn_shape *s = r->a->shape;
    int64_t d = s->dim;
    load(r, w, t);
    choose(r, w, t);
    memset(w->o, 0, (size_t)(t->rows * d) * sizeof(float));
    memset(w->l, 0, (size_t)t->rows * sizeof(float));
    for (int64_t i = 0; i < t->rows; i++)
        w->m[i] = -INFINITY;
    for (int64_t b = 0; b < t->n_blocks; b += TILE_BLOCKS) {
        struct chunk c = take_chunk(r, w, t, b);
        absorb(r, w, t, &c);
    }
    int64_t sums = summaries_of(r, w, t);
    for (int64_t x = 0; x < sums; x += TILE_KEYS) {
        struct chunk c = take_summaries(r, w, t, x);
        absorb(r, w, t, &c);
    }
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t at = (t->at.t0 + i / r->heads) * s->heads + t->at.unit * r->heads + i % r->heads;
        r->a->kern->scale(w->o + i * d, 1 / w->l[i], d);
        memcpy(r->a->out + at * d, w->o + i * d, (size_t)d * sizeof(float));
        r->a->lse[at] = w->m[i] + logf(w->l[i]);
    }
}

/* ---- backward ---- */

/* d ln(1 - m) and d beta from the gradients of summaries' logits, which lie in dp. */
static void credit_summaries(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c)
{
    int64_t J = 0;
    for (int64_t i = 0; i < t->at.count; i++)
        for (int64_t x = 0; x < c->cols; x++) {
            float sum = 0;
            if (!(summary_weight(r->a->gate, w, i, c->first + x, &J) > -INFINITY))
                continue;
            for (int64_t h = 0; h < r->heads; h++) {
                float ds = w->dp[(i * r->heads + h) * TILE_STRIDE + x];
                w->gate.dbeta[t->at.unit * r->heads + h] += ds;
                sum += ds;
            }
            w->gate.b[i * w->gate.ld + J] += sum;
        }
}

/* As below, for two blocks of the gate in one of 16 keys: from the gradients of the scores, which lie in dp. */
static void credit_halves(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c)
{
    int64_t B = r->a->gate->block;
    for (int64_t row = 0; row < t->rows; row++) {
        float *a = w->gate.a + row / r->heads * w->gate.ld;
        for (int64_t x = 0; x < c->blocks * KERN_KB / B; x++) {
            const float *ds = w->dp + row * TILE_STRIDE + x * B;
            float sum = 0;
            for (int64_t j = 0; j < B; j++)
                sum += ds[j];
            a[c->block[x * B / KERN_KB] * KERN_KB / B + x % (KERN_KB / B)] += sum;
        }
    }
}

/* d ln m: sums over a block of 16 keys, several of which may make a block of the gate. */
static void credit_blocks(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c)
{
    int64_t per = r->a->gate->block / KERN_KB;
    if (per == 0) {
        credit_halves(r, w, t, c);
        return;
    }
    for (int64_t i = 0; i < t->at.count; i++)
        for (int64_t x = 0; x < c->blocks; x++)
            w->gate.a[i * w->gate.ld + c->block[x] / per] += w->sums[i * TILE_BLOCKS + x];
}

static void retrace(const struct tile_run *r, struct tile_room *w, const struct tile *t, const struct chunk *c)
{
    const struct kern_table *k = r->a->kern;
    int64_t d = r->a->shape->dim, gate = r->a->gate && c->block;
    scores(r, w, t, c);
    product(r, w, t, c, true);
    if (gate)
        memset(w->sums, 0, (size_t)(t->at.count * TILE_BLOCKS) * sizeof(float));
    for (int64_t i = 0; i < t->rows; i++) {
        float *s = w->s + i * TILE_STRIDE;
        k->biased_exp(s, bias_of(w, c, i, r->heads), c->blocks, w->lse[i]);
        k->softmax_grad(w->dp + i * TILE_STRIDE, s, w->dot[i], c->blocks, gate ? w->sums + i / r->heads * TILE_BLOCKS : NULL);
    }
    if (gate)
        credit_blocks(r, w, t, c);
    else if (!c->block)
        credit_summaries(r, w, t, c);
    if (!r->a->dq)
        return;
    struct kern_panel q = {.m = t->rows, .n = d, .k = c->cols, .a = w->dp, .a_row = TILE_STRIDE, .a_step = 1, .b = c->k};
    q.b_block = KERN_KB, q.b_step = c->step, q.c = w->o, q.ldc = d, q.accumulate = true;
    k->panel(&q);
    struct kern_panel x = {.m = c->cols, .n = d, .k = t->rows, .a_row = 1, .a_step = TILE_STRIDE, .b_block = KERN_KB, .b_step = d};
    x.a = w->dp, x.b = w->q, x.c = c->dk, x.ldc = d, x.accumulate = true;
    k->panel(&x);
    x.a = w->s, x.b = w->dout, x.c = c->dv;
    k->panel(&x);
    if (c->block)
        give_back(w, c, d, k);
}

/* dO, lse and rowsum(dO O) of the tile; the gate's sums at zero. */
static void load_back(const struct tile_run *r, struct tile_room *w, const struct tile *t)
{
    const struct attn_shape *s = r->a->shape;
    int64_t d = s->dim;
    for (int64_t i = 0; i < t->rows; i++) {
        int64_t at = (t->at.t0 + i / r->heads) * s->heads + t->at.unit * r->heads + i % r->heads;
        memcpy(w->dout + i * d, r->a->dout + at * d, (size_t)d * sizeof(float));
        w->lse[i] = r->a->lse[at];
        w->dot[i] = r->a->kern->dot(w->dout + i * d, r->a->out + at * d, d);
    }
    memset(w->o, 0, (size_t)(t->rows * d) * sizeof(float));
    if (r->a->gate) {
        memset(w->gate.a, 0, (size_t)(t->at.count * w->gate.ld) * sizeof(float));
        if (w->gate.b)
            memset(w->gate.b, 0, (size_t)(t->at.count * w->gate.ld) * sizeof(float));
    }
}

void tile_backward(const struct tile_run *r, struct tile_room *w, struct tile *t)
{
    const struct attn_shape *s = r->a->shape;
    int64_t d = s->dim;
    load(r, w, t);
    choose(r, w, t);
    load_back(r, w, t);
    for (int64_t b = 0; b < t->n_blocks; b += TILE_BLOCKS) {
        struct chunk c = take_chunk(r, w, t, b);
        retrace(r, w, t, &c);
    }
    int64_t sums = summaries_of(r, w, t);
    for (int64_t x = 0; x < sums; x += TILE_KEYS) {
        struct chunk c = take_summaries(r, w, t, x);
        retrace(r, w, t, &c);
    }
    for (int64_t i = 0; r->a->dq && i < t->rows; i++) {
        int64_t at = (t->at.t0 + i / r->heads) * s->heads + t->at.unit * r->heads + i % r->heads;
        r->a->kern->scale(w->o + i * d, s->scale, d);
        memcpy(r->a->dq + at * d, w->o + i * d, (size_t)d * sizeof(float));
    }
    if (r->a->gate && r->a->rule->mask == BACK_SOFT)
        back_gate_chosen(r->a->gate, &w->gate, &t->at);
}
