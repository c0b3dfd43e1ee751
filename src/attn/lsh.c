/* The buckets of locality-sensitive hashing; see lsh.h. */
#include "attn/lsh.h"

#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"

enum { HASH_ROWS = 16, ROOM = 1 << 21 }; /* tokens hashed together; chosen keys that a thread holds, unless one token has more */

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---- memory ---- */

static void *take(unsigned char *base, size_t *at, int64_t n, size_t size)
{
    void *p = base ? base + *at : NULL;
    *at += arena_bytes(n, size);
    return p;
}

static int64_t pad(int64_t n)
{
    return (n + 15) / 16 * 16;
}

/* The parts of a stage before its rows; at, in bytes from slot 0, moves behind them to a whole row. */
static void stage_cut(const struct lsh *l, struct lsh_stage *g, const struct lsh_opts *o, int level, size_t *at)
{
    unsigned char *base = (unsigned char *)(void *)l->rows;
    size_t row = (size_t)l->row * sizeof(float);
    g->f[0] = l->grows ? (int64_t)1 << level / 2 : 1;
    g->f[1] = l->grows ? (int64_t)1 << (level - level / 2) : o->buckets;
    g->b = g->f[0] * g->f[1];
    g->draw = l->grows ? (uint64_t)level : 0;
    g->cols = l->R * (g->f[0] / 2 + g->f[1] / 2);
    g->nodes = (g->start + g->len) / LSH_NODE + g->b; /* every bucket may have one that is not full */
    g->used = take(base, at, l->K * pad(l->R), sizeof(int32_t));
    g->newest = take(base, at, l->K * pad(l->R * g->b), sizeof(int32_t));
    g->node = take(base, at, l->K * l->R * g->nodes, sizeof(struct lsh_node));
    g->proj = take(base, at, l->G * pad(l->d * g->cols), sizeof(float));
    *at = (*at + row - 1) / row * row;
    g->gap = (int64_t)(*at / row) - g->start;
    *at += (size_t)g->len * row;
}

size_t lsh_cut(struct lsh *l, unsigned char *base, const struct lsh_opts *o, const struct attn_shape *s, int64_t tokens)
{
    size_t at = 0, head = arena_bytes(1, sizeof(int64_t));
    *l = (struct lsh){.R = o->rounds, .reach = 2 * o->chunk, .shared = o->shared_qk, .grows = o->buckets == 0};
    l->H = s->heads, l->G = s->kv_heads, l->d = s->dim;
    l->K = o->shared_qk ? l->H : l->G;
    l->row = (l->K + l->G) * l->d;
    l->tokens = (int64_t *)(void *)base;
    l->rows = base ? (float *)(void *)(base + head) : NULL;
    for (int64_t start = 0; start < max64(1, tokens) && l->n_stages < LSH_STAGES; l->n_stages++) {
        struct lsh_stage *g = &l->stage[l->n_stages];
        g->start = start;
        g->len = l->n_stages == 0 ? 2 * o->chunk : start;
        stage_cut(l, g, o, l->n_stages + 1, &at);
        start += g->len;
    }
    const struct lsh_stage *last = &l->stage[l->n_stages - 1];
    return head + at - (size_t)(max64(0, last->start + last->len - tokens) * l->row) * sizeof(float);
}

size_t lsh_lane_cut(struct lsh_lane *w, unsigned char *base, const struct lsh *l, int64_t n, int64_t tokens)
{
    const struct lsh_stage *last = &l->stage[l->n_stages - 1]; /* with the most columns */
    int64_t slots = tokens + last->gap;
    size_t at = 0;
    *w =
        (struct lsh_lane){.cap = min64(tokens, l->R * l->reach) + 1, .blocks = (slots + LSH_BLOCK - 1) / LSH_BLOCK, .slots = slots};
    int64_t most = min64(n, LSH_GROUP) * (l->H / l->K), keys = min64(most * w->cap, max64(w->cap, ROOM));
    w->queries = keys / w->cap;
    w->x = take(base, &at, HASH_ROWS * l->d, sizeof(float));
    w->p = take(base, &at, HASH_ROWS * last->cols, sizeof(float));
    w->line = take(base, &at, max64(last->f[0], last->f[1]), sizeof(float));
    w->bits = take(base, &at, slots / 64 + 1, sizeof(uint64_t));
    w->list = take(base, &at, w->cap + 1, sizeof(int32_t));
    w->id = take(base, &at, keys, sizeof(int32_t));
    w->ptr = take(base, &at, most * (w->blocks + 1), sizeof(int32_t));
    w->s = take(base, &at, keys, sizeof(float));
    w->q = take(base, &at, most * l->d, sizeof(float));
    w->mix = take(base, &at, l->d, sizeof(float));
    w->copy = take(base, &at, keys > LSH_BLOCK ? min64(slots, LSH_BLOCK) * l->d : 0, sizeof(float));
    if (base)
        memset(w->bits, 0, (size_t)(slots / 64 + 1) * sizeof *w->bits);
    return at;
}

/* ---- hashing ---- */

float *lsh_row(const struct lsh *l, int64_t slot, int64_t which)
{
    return l->rows + slot * l->row + which * l->d;
}

const struct lsh_stage *lsh_stage_of(const struct lsh *l, int64_t t)
{
    const struct lsh_stage *g = &l->stage[l->n_stages - 1];
    while (t < g->start)
        g--;
    return g;
}

/* Buckets of the rows in w->x, one line (R,) each at out + x ld. */
static void hash(const struct lsh_part *t, struct lsh_lane *w, int64_t g, int32_t *out, int64_t n)
{
    const struct kern_table *k = t->c->kern;
    const struct lsh_stage *e = t->g;
    int64_t d = t->l->d, ld = (t->l->H + t->l->K) * t->l->R;
    k->rows_matmul(&(struct kern_rows){n, d, e->cols, w->x, e->proj + g * pad(d * e->cols), d, w->p, e->cols, false});
    for (int64_t x = 0; x < n; x++) {
        const float *p = w->p + x * e->cols;
        for (int64_t r = 0; r < t->l->R; r++) {
            int64_t bucket = 0;
            for (int f = 0; f < 2; f++) {
                int64_t half = e->f[f] / 2;
                for (int64_t j = 0; j < half; j++) {
                    w->line[j] = p[j];
                    w->line[half + j] = -p[j];
                }
                bucket = bucket * e->f[f] + (half > 0 ? k->argmax(w->line, 2 * half) : 0);
                p += half;
            }
            out[x * ld + r] = (int32_t)bucket;
        }
    }
}

/* Keys and values of tokens x .. x+n-1 of the part into their rows: as the cache keeps them, or keys made of queries. */
static void store(const struct lsh_part *t, struct lsh_lane *w, int64_t x, int64_t n)
{
    const struct attn_call *c = t->c;
    const struct lsh *l = t->l;
    int64_t d = l->d, pos = t->at + x, slot = pos + t->g->gap;
    for (int64_t g = 0; g < l->G; g++)
        for (int what = l->shared; what < 2; what++) {
            (what ? c->kern->kv_values : c->kern->kv_keys)(&c->kv[g], pos, n, w->x);
            for (int64_t y = 0; y < n; y++)
                memcpy(lsh_row(l, slot + y, what ? l->K + g : g), w->x + y * d, (size_t)d * sizeof(float));
        }
    for (int64_t h = 0; l->shared && h < l->H; h++)
        for (int64_t y = 0; y < n; y++) {
            const float *q = c->q + ((pos - c->pos + y) * l->H + h) * d;
            float *to = lsh_row(l, slot + y, h), norm = sqrtf(c->kern->dot(q, q, d));
            for (int64_t j = 0; j < d; j++)
                to[j] = norm > 0 ? q[j] / norm : 0;
        }
}

/* Buckets of the keys of tokens x .. x+n-1 of the part, whose rows are stored. */
static void hash_keys(const struct lsh_part *t, struct lsh_lane *w, int64_t x, int64_t n)
{
    const struct lsh *l = t->l;
    int64_t d = l->d, slot = t->at + x + lsh_stage_of(l, t->at + x)->gap;
    int32_t *out = t->bucket + x * (l->H + l->K) * l->R;
    for (int64_t h = 0; h < l->K; h++) {
        for (int64_t y = 0; y < n; y++)
            memcpy(w->x + y * d, lsh_row(l, slot + y, h), (size_t)d * sizeof(float));
        hash(t, w, l->shared ? h / (l->H / l->G) : h, out + (l->H + h) * l->R, n);
    }
}

/* Of their queries. With shared_qk a query has its key's. */
static void hash_queries(const struct lsh_part *t, struct lsh_lane *w, int64_t x, int64_t n)
{
    const struct lsh *l = t->l;
    int64_t d = l->d, ld = (l->H + l->K) * l->R;
    int32_t *out = t->bucket + x * ld;
    for (int64_t h = 0; h < l->H; h++) {
        for (int64_t y = 0; y < n; y++) {
            memcpy(w->x + y * d, t->c->q + ((t->at - t->c->pos + x + y) * l->H + h) * d, (size_t)d * sizeof(float));
            if (l->shared)
                memcpy(out + y * ld + h * l->R, out + y * ld + (l->H + h) * l->R, (size_t)l->R * sizeof(int32_t));
        }
        if (!l->shared)
            hash(t, w, h / (l->H / l->G), out + h * l->R, n);
    }
}

static void append(struct lsh_node *node, int32_t *used, int32_t *place, int64_t slot)
{
    if (*place % (LSH_NODE + 1) == 0 || *place % (LSH_NODE + 1) == LSH_NODE) {
        node[*used].before = *place;
        *place = (*used)++ * (LSH_NODE + 1);
    }
    node[*place / (LSH_NODE + 1)].slot[*place % (LSH_NODE + 1)] = (int32_t)slot;
    ++*place;
}

/* Nodes of round r of key head kh. */
static struct lsh_node *nodes(const struct lsh_part *t, int64_t kh, int64_t r)
{
    return t->g->node + (kh * t->l->R + r) * t->g->nodes;
}

/* Appends the part's keys of key head kh to their buckets, one token after the other, and notes what each query finds. */
static void enter(const struct lsh_part *t, int64_t kh, bool queries)
{
    const struct lsh *l = t->l;
    const struct lsh_stage *g = t->g;
    int64_t each = l->H / l->K, ld = (l->H + l->K) * l->R, slot = t->at + lsh_stage_of(l, t->at)->gap;
    for (int64_t r = 0; r < l->R; r++) {
        int32_t *newest = g->newest + kh * pad(l->R * g->b) + r * g->b, *used = g->used + kh * pad(l->R) + r;
        for (int64_t x = 0; x < t->n; x++) {
            const int32_t *bucket = t->bucket + x * ld + r;
            append(nodes(t, kh, r), used, newest + bucket[(l->H + kh) * l->R], slot + x);
            for (int64_t h = kh * each; queries && h < (kh + 1) * each; h++)
                t->seen[(x * l->H + h) * l->R + r] = newest[bucket[h * l->R]];
        }
    }
}

/* ---- directions ---- */

/* One direction: Gaussian, less its part along those before it in the same d (column k of M is at k of each row). */
static void direction(const struct lsh_part *t, int64_t g, uint64_t index, float *to, int64_t before)
{
    const struct attn_shape *s = t->c->shape;
    uint64_t seed = (uint64_t)t->o->seed, stream = (uint64_t)s->layer << 32 | (uint64_t)(s->kv_head0 + g);
    int64_t d = t->l->d, ld = t->g->cols;
    double x[KERN_MAX_DIM], sum = 0;
    for (int64_t i = 0; i < d; i++)
        x[i] = rng_normal(seed, stream, index | (uint64_t)i);
    for (int64_t k = -before; k < 0; k++) {
        double p = 0;
        for (int64_t i = 0; i < d; i++)
            p += x[i] * (double)to[i * ld + k];
        for (int64_t i = 0; i < d; i++)
            x[i] -= p * (double)to[i * ld + k];
    }
    for (int64_t i = 0; i < d; i++)
        sum += x[i] * x[i];
    for (int64_t i = 0; i < d; i++)
        to[i * ld] = (float)(x[i] / sqrt(sum));
}

/* Indices: levels < 2^6, rounds < 2^7, columns of a round < 2^16, d < 2^16. */
static void draw(const struct lsh_part *t, int64_t g)
{
    const struct lsh_stage *e = t->g;
    float *to = e->proj + g * pad(t->l->d * e->cols);
    for (int64_t r = 0; r < t->l->R; r++)
        for (int64_t j = 0; j < e->cols / t->l->R; j++, to++)
            direction(t, g, e->draw << 48 | (uint64_t)r << 32 | (uint64_t)j << 16, to, j % t->l->d);
}

/* The part begins a stage: directions are drawn, and the keys before it are hashed and listed anew. By all threads. */
static void begin(const struct lsh_part *all, struct lsh_lane *w)
{
    struct lsh_part t = *all;
    if (t.at != t.g->start)
        return;
#pragma omp for schedule(dynamic, 1)
    for (int64_t g = 0; g < t.l->G; g++)
        draw(&t, g);
    for (t.at = 0; t.at < all->at; t.at += t.n) {
        const struct lsh_stage *home = lsh_stage_of(t.l, t.at);
        t.n = min64(LSH_PART, home->start + home->len - t.at);
#pragma omp for schedule(dynamic, 1)
        for (int64_t x = 0; x < t.n; x += HASH_ROWS)
            hash_keys(&t, w, x, min64(HASH_ROWS, t.n - x));
#pragma omp for schedule(dynamic, 1)
        for (int64_t kh = 0; kh < t.l->K; kh++)
            enter(&t, kh, false);
    }
}

/* ---- tokens ---- */

void lsh_enter(struct lsh_part *t, struct lsh_lane *w)
{
    begin(t, w);
#pragma omp for schedule(dynamic, 1)
    for (int64_t x = 0; x < t->n; x += HASH_ROWS) {
        int64_t n = min64(HASH_ROWS, t->n - x);
        store(t, w, x, n);
        hash_keys(t, w, x, n);
        hash_queries(t, w, x, n);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t kh = 0; kh < t->l->K; kh++)
        enter(t, kh, true);
}

bool lsh_next(struct lsh_part *t, int64_t tokens)
{
    t->at += t->n;
    if (t->at >= tokens)
        return false;
    t->g = lsh_stage_of(t->l, t->at);
    t->n = min64(LSH_PART, min64(tokens, t->g->start + t->g->len) - t->at);
    return true;
}

/* ---- lists ---- */

/* Goes back along all lists of a query, a node each: those of the next one are fetched while keys of this one are collected. */
static void fetch(const struct lsh_part *t, struct lsh_lane *w, int64_t kh)
{
    for (int64_t r = 0; r < t->l->R; r++)
        if (w->next[r] > 0) {
            const struct lsh_node *node = nodes(t, kh, r);
            w->next[r] = node[w->next[r] / (LSH_NODE + 1)].before;
            __builtin_prefetch(&node[w->next[r] / (LSH_NODE + 1)]);
            __builtin_prefetch(&node[w->next[r] / (LSH_NODE + 1)].slot[LSH_NODE - 1]);
        }
}

static const int32_t *seen_by(const struct lsh_part *t, const struct lsh_group *g, int64_t i)
{
    return t->seen + ((g->x0 + i / g->heads) * t->l->H + g->h0 + i % g->heads) * t->l->R;
}

/* Query i's lists are next; their newest nodes are asked for a query before that. */
static void begin_fetch(const struct lsh_part *t, struct lsh_lane *w, const struct lsh_group *g, int64_t i)
{
    int64_t last = g->n * g->heads - 1, kh = g->h0 / (t->l->H / t->l->K);
    const int32_t *after = seen_by(t, g, min64(i + 1, last));
    memcpy(w->next, seen_by(t, g, min64(i, last)), (size_t)t->l->R * sizeof *w->next);
    for (int64_t r = 0; r < t->l->R; r++) {
        const struct lsh_node *node = nodes(t, kh, r) + after[r] / (LSH_NODE + 1);
        __builtin_prefetch(node);
        __builtin_prefetch(&node->slot[LSH_NODE - 1]);
    }
}

/* Adds the last 2 c keys of a list from `place` on to the n keys found, but none before slot `first` and none twice. */
static int64_t walk(struct lsh_lane *w, const struct lsh_node *node, int64_t place, int64_t reach, int64_t first, int64_t n)
{
    while (place > 0 && reach > 0) {
        const struct lsh_node *e = &node[place / (LSH_NODE + 1)];
        int64_t fill = place % (LSH_NODE + 1);
        place = e->before;
        for (int64_t i = fill - 1; i >= max64(0, fill - reach); i--) {
            int64_t j = e->slot[i];
            uint64_t *word = &w->bits[j / 64], bit = 1ull << j % 64;
            if (j < first)
                return n;
            w->list[n] = (int32_t)j;
            n += (*word & bit) == 0;
            *word |= bit;
        }
        reach -= fill;
    }
    return n;
}

/* Puts the list's n keys into query i's room by block, those of one block in the list's order, and clears their bits. */
static void sort(struct lsh_lane *w, int64_t i, int64_t n)
{
    int32_t *id = w->id + i * w->cap, *ptr = w->ptr + i * (w->blocks + 1);
    memset(ptr, 0, (size_t)(w->blocks + 1) * sizeof *ptr);
    for (int64_t x = 0; x < n; x++) {
        uint32_t slot = (uint32_t)w->list[x];
        w->bits[slot / 64] = 0;
        ptr[slot / LSH_BLOCK + 1]++;
    }
    for (int64_t b = 0; b < w->blocks; b++)
        ptr[b + 1] += ptr[b];
    for (int64_t x = 0; x < n; x++) {
        uint32_t slot = (uint32_t)w->list[x];
        id[ptr[slot / LSH_BLOCK]++] = (int32_t)(slot % LSH_BLOCK);
    }
    for (int64_t b = w->blocks; b > 0; b--)
        ptr[b] = ptr[b - 1];
    ptr[0] = 0;
}

/* Keys of the union, each once, for query i of the group: the own first unless it must not be seen, then round by round from
 * the newest back. */
static void choose(const struct lsh_part *t, struct lsh_lane *w, const struct lsh_group *g, int64_t i)
{
    const struct lsh *l = t->l;
    int64_t kh = g->h0 / (l->H / l->K), at = t->at + g->x0 + i / g->heads, own = at + t->g->gap, n = 0;
    int64_t window = t->c->shape->window, from = window > 0 ? max64(0, at - window + 1) : 0;
    int64_t first = from + lsh_stage_of(l, from)->gap, steps = (l->reach / LSH_NODE + l->R) / l->R;
    const int32_t *seen = seen_by(t, g, i);
    begin_fetch(t, w, g, i + 1);
    w->bits[own / 64] |= 1ull << own % 64;
    w->list[0] = (int32_t)own;
    n = l->shared ? 0 : 1;
    for (int64_t r = 0; r < l->R; r++) {
        for (int64_t k = 0; k < steps; k++)
            fetch(t, w, kh);
        n = walk(w, nodes(t, kh, r), seen[r], l->reach, first, n);
    }
    w->bits[own / 64] = 0;
    if (n == 0)
        w->list[n++] = (int32_t)own;
    sort(w, i, n);
    w->pairs += (double)n;
}

int64_t lsh_row_of(const struct lsh_part *t, const struct lsh_group *g, int64_t i)
{
    return (t->at - t->c->pos + g->x0 + i / g->heads) * t->l->H + g->h0 + i % g->heads;
}

bool lsh_in_block(const struct lsh_lane *w, int64_t i, int64_t block, struct kern_list *list)
{
    const int32_t *ptr = w->ptr + i * (w->blocks + 1) + block;
    list->n = ptr[1] - ptr[0], list->idx = w->id + i * w->cap + ptr[0];
    return list->n > 0;
}

void lsh_block(const struct lsh_part *t, struct lsh_lane *w, int64_t n, int64_t block, int64_t which, struct kern_list *list)
{
    const struct lsh *l = t->l;
    int64_t d = l->d, first = block * LSH_BLOCK, rows = min64(LSH_BLOCK, w->slots - first), keys = 0;
    *list = (struct kern_list){.dim = d, .stride = l->row, .rows = lsh_row(l, first, which)};
    for (int64_t i = 0; i < n && keys <= LSH_BLOCK; i++)
        keys += w->ptr[i * (w->blocks + 1) + block + 1] - w->ptr[i * (w->blocks + 1) + block];
    if (keys <= LSH_BLOCK)
        return;
    for (int64_t x = 0; x < rows; x++) {
        memcpy(w->copy + x * d, list->rows + x * l->row, (size_t)d * sizeof(float));
    }
    list->rows = w->copy, list->stride = d;
}

int64_t lsh_count(const struct lsh_lane *w, int64_t i)
{
    return w->ptr[i * (w->blocks + 1) + w->blocks];
}

int64_t lsh_place(const struct lsh_lane *w, int64_t i, int64_t block)
{
    return i * w->cap + w->ptr[i * (w->blocks + 1) + block];
}

/* ---- weights ---- */

struct lsh_group lsh_group_of(const struct lsh_part *t, const struct lsh_lane *w, int threads)
{
    int64_t heads = t->l->H / t->l->K;
    if (t->n < LSH_GROUP / 4 || heads > w->queries)
        heads = 1;
    int64_t n = min64(LSH_GROUP, max64(16, (t->n * t->l->H / heads + 2 * (int64_t)threads - 1) / (2 * (int64_t)threads)));
    return (struct lsh_group){.n = max64(1, min64(n, w->queries / heads)), .heads = heads};
}

void lsh_weights(const struct lsh_part *t, struct lsh_lane *w, const struct lsh_group *g)
{
    const struct attn_call *c = t->c;
    const struct lsh *l = t->l;
    int64_t d = l->d, n = g->n * g->heads;
    struct kern_list list;
    for (int64_t i = 0; i < n; i++) {
        choose(t, w, g, i);
        for (int64_t j = 0; j < d; j++)
            w->q[i * d + j] = c->q[lsh_row_of(t, g, i) * d + j] * c->shape->scale;
    }
    for (int64_t b = 0; b < w->blocks; b++) {
        lsh_block(t, w, n, b, g->h0 / (l->H / l->K), &list);
        for (int64_t i = 0; i < n; i++)
            if (lsh_in_block(w, i, b, &list)) {
                list.x = w->q + i * d;
                list.y = w->s + lsh_place(w, i, b);
                c->kern->list_scores(&list);
            }
    }
    for (int64_t i = 0; i < n; i++) {
        float sum, *s = w->s + i * w->cap, top = c->kern->exp_row(s, s, lsh_count(w, i), &sum);
        c->kern->scale(s, 1 / sum, lsh_count(w, i));
        if (c->lse)
            c->lse[lsh_row_of(t, g, i)] = top + logf(sum);
    }
}
