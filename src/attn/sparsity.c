/* Sampled statistics of attention. */
#include "attn/sparsity.h"

#include <math.h>
#include <omp.h>

#include "attn/attn.h"
#include "attn/gate.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"

enum { CELLS = SPARSITY_MAP * SPARSITY_MAP, FIRST = 128 };

int sparsity_bucket(int64_t n)
{
    int b = 0;
    for (int64_t top = FIRST; n > top && b < SPARSITY_BUCKETS - 1; top *= 2)
        b++;
    return b;
}

int64_t sparsity_bucket_from(int bucket)
{
    return bucket == 0 ? 1 : ((int64_t)FIRST << (bucket - 1)) + 1;
}

size_t sparsity_bytes(const struct sparsity *s)
{
    return arena_bytes(s->heads * SPARSITY_BUCKETS, sizeof *s->cell) + arena_bytes(s->heads * CELLS, sizeof(double)) +
           arena_bytes(CELLS, sizeof(double));
}

int sparsity_make(struct sparsity *out, const struct sparsity *sizes, struct arena *a)
{
    *out = (struct sparsity){.heads = sizes->heads, .every = sizes->every, .span = sizes->span};
    AST_ASSERT(out->every > 0 && out->heads > 0);
    out->cell = ARENA_NEW0(a, out->heads * SPARSITY_BUCKETS, struct sparsity_cell);
    out->map = ARENA_NEW0(a, out->heads * CELLS, double);
    out->map_causal = ARENA_NEW0(a, CELLS, double);
    return out->cell && out->map && out->map_causal ? ERR_OK : ERR_NOMEM;
}

static void add(double *to, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

void sparsity_add(struct sparsity *a, const struct sparsity *b)
{
    AST_ASSERT(a->heads == b->heads);
    add(&a->cell->rows, &b->cell->rows, a->heads * SPARSITY_BUCKETS * SPARSITY_SUMS);
    add(a->map, b->map, a->heads * CELLS);
    add(a->map_causal, b->map_causal, CELLS);
    a->seconds += b->seconds;
}

bool sparsity_wants(const struct attn_call *c, int64_t token)
{
    const struct sparsity *s = c->stats ? c->stats->more : NULL;
    return s && token % s->every == s->every - 1;
}

static int64_t up16(int64_t n)
{
    return (n + KERN_KB - 1) / KERN_KB * KERN_KB;
}

int64_t sparsity_room(int64_t tokens, int64_t dim)
{
    return 2 * up16(tokens) + KERN_KB * dim;
}

/* s (token + 1,): dense attention's logits. */
static void logits(const struct attn_call *c, const struct sparsity_row *x, float *s, float *keys)
{
    const struct attn_shape *shape = c->shape;
    const struct kern_kv *kv = &c->kv[x->kv_head];
    const float *q = c->q + ((x->token - c->pos) * shape->heads + x->head) * shape->dim;
    int64_t d = shape->dim, n = x->token + 1;
    if (kv->dtype == KERN_F32) { /* stored as vectors of predictors are */
        struct kern_scores p = {.rows = 1, .width = d, .groups = up16(n) / KERN_KB, .u = q, .v = kv->k, .v_stride = d * KERN_KB};
        p.scale = shape->scale;
        p.s = s;
        p.ld = up16(n);
        c->kern->block_scores(&p);
        return;
    }
    for (int64_t j = 0; j < n; j += KERN_KB) {
        int64_t m = n - j < KERN_KB ? n - j : KERN_KB;
        c->kern->kv_keys(kv, j, m, keys);
        for (int64_t i = 0; i < m; i++)
            s[j + i] = shape->scale * c->kern->dot(q, keys + i * d, d);
    }
}

/* Four chains: one would wait for itself. */
static double sum_of(const float *p, int64_t n)
{
    double s[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++)
            s[k] += (double)p[i + k];
    for (; i < n; i++)
        s[0] += (double)p[i];
    return s[0] + s[1] + s[2] + s[3];
}

static double mean_logit(const float *p, const float *s, float top, int64_t n)
{
    double sum[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++)
            sum[k] += p[i + k] > 0 ? (double)p[i + k] * (double)(s[i + k] - top) : 0;
    for (; i < n; i++)
        sum[0] += p[i] > 0 ? (double)p[i] * (double)(s[i] - top) : 0;
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static double exactly(double x)
{
    return nearbyint(x * 16777216) / 16777216; /* 2^24: sums of 2^20 rows stay exact */
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Keys first .. end-1 of unit i of the list, cut to what the row may see at all. */
struct range {
    int64_t first, end;
};

static struct range unit_of(const struct sparsity_row *x, int64_t i)
{
    int64_t first = (int64_t)x->list[i] * x->size;
    return (struct range){max64(first, x->from), min64(first + x->size, x->token + 1)};
}

static void measure(const struct attn_call *c, const struct sparsity_row *x, float *room, struct sparsity_cell *out)
{
    int64_t n = x->token + 1, from = x->from;
    float *s = room, *p = room + up16(n), sum;
    logits(c, x, s, p + up16(n));
    float top = c->kern->exp_row(p + from, s + from, n - from, &sum);
    double total = 0, recall = 0;
    for (int64_t d = 0, b = 0; d < n - from; b++) { /* distances d .. end-1 are bucket b */
        int64_t end = b == SPARSITY_DISTANCES - 1 ? n - from : min64(n - from, (int64_t)1 << b);
        double mass = sum_of(p + n - end, end - d);
        out->distance[gate_bucket(d, SPARSITY_DISTANCES)] += mass;
        total += mass;
        d = end;
    }
    out->seen = x->list ? 0 : (double)(n - from);
    for (int64_t i = 0; x->list && i < x->n; i++) {
        struct range r = unit_of(x, i);
        if (r.end > r.first) {
            recall += sum_of(p + r.first, r.end - r.first);
            out->seen += (double)(r.end - r.first);
        }
    }
    out->rows = 1;
    out->causal = (double)n;
    out->recall = exactly(x->list ? recall / total : 1);
    out->entropy = exactly(log(total) - mean_logit(p + from, s + from, top, n - from) / total);
    out->sink = exactly(from < KERN_KB ? sum_of(p + from, min64(KERN_KB, n) - from) / total : 0);
    for (int i = 0; i < SPARSITY_DISTANCES; i++)
        out->distance[i] = exactly(out->distance[i] / total);
    *(x->how == SPARSITY_DENSE ? &out->dense : x->how == SPARSITY_BLOCKS ? &out->blocks : &out->gather) = 1;
}

static int64_t map_cell(const struct sparsity *s, int64_t token)
{
    return min64(token * SPARSITY_MAP / s->span, SPARSITY_MAP - 1);
}

static void draw_range(const struct sparsity *s, double *map, int64_t token, struct range r)
{
    int64_t query = map_cell(s, token) * SPARSITY_MAP;
    while (r.first < r.end) {
        int64_t cell = map_cell(s, r.first),
                next = cell == SPARSITY_MAP - 1 ? r.end : ((cell + 1) * s->span + SPARSITY_MAP - 1) / SPARSITY_MAP;
        int64_t end = min64(r.end, next);
#pragma omp atomic
        map[query + cell] += (double)(end - r.first);
        r.first = end;
    }
}

void sparsity_row(const struct attn_call *c, const struct sparsity_row *x, float *room)
{
    struct sparsity *s = c->stats->more;
    int64_t head = c->shape->head0 + x->head;
    struct sparsity_cell row = {0};
    const double *from = (const double *)(const void *)&row;
    double *to = (double *)(void *)&s->cell[head * SPARSITY_BUCKETS + sparsity_bucket(x->token + 1)];
    double start = timer_now();
    measure(c, x, room, &row);
    for (int i = 0; i < SPARSITY_SUMS; i++) {
#pragma omp atomic
        to[i] += from[i];
    }
    if (s->span > 0) {
        double *map = s->map + head * CELLS;
        for (int64_t i = 0; x->list && i < x->n; i++)
            draw_range(s, map, x->token, unit_of(x, i));
        if (!x->list)
            draw_range(s, map, x->token, (struct range){x->from, x->token + 1});
        if (head == 0)
            draw_range(s, s->map_causal, x->token, (struct range){0, x->token + 1});
    }
#pragma omp atomic
    s->seconds += timer_now() - start;
}

static size_t lane_bytes(int64_t dim, int64_t tokens)
{
    return arena_bytes(sparsity_room(tokens, dim), sizeof(float)) + arena_bytes(tokens, sizeof(int32_t));
}

size_t sparsity_chunk_bytes(int64_t dim, int64_t max_tokens)
{
    return arena_bytes(omp_get_max_threads(), lane_bytes(dim, max_tokens));
}

int sparsity_chunk(const struct attn_call *c, sparsity_kept_fn kept)
{
    const struct sparsity *s = c->stats ? c->stats->more : NULL;
    const struct attn_shape *shape = c->shape;
    if (!s)
        return ERR_OK;
    int64_t first = c->pos / s->every, rows = (c->pos + c->n) / s->every - first;
    size_t mark = arena_mark(c->step), each = lane_bytes(shape->dim, c->pos + c->n);
    if (rows == 0)
        return ERR_OK;
    unsigned char *lanes = arena_alloc(c->step, omp_get_max_threads(), each);
    if (!lanes)
        return ERR_NOMEM;
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < rows * shape->heads; i++) {
        unsigned char *lane = lanes + (size_t)omp_get_thread_num() * each;
        int32_t *list = (int32_t *)(void *)(lane + arena_bytes(sparsity_room(c->pos + c->n, shape->dim), sizeof(float)));
        struct sparsity_row x = {.token = (first + i / shape->heads + 1) * s->every - 1, .head = i % shape->heads, .size = 1};
        x.kv_head = x.head / (shape->heads / shape->kv_heads);
        x.from = shape->window > 0 ? max64(0, x.token + 1 - shape->window) : 0;
        if (kept) {
            x.n = kept(c, x.head, x.token, list);
            x.list = list;
        }
        sparsity_row(c, &x, (float *)(void *)lane);
    }
    arena_release(c->step, mark);
    return ERR_OK;
}
