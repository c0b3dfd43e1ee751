/* Sampled statistics of sparse attention. */
#include "attn/sparsity.h"

#include <math.h>
#include <string.h>

#include "attn/sparse.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/timer.h"

enum { CELLS = SPARSITY_MAP * SPARSITY_MAP };

size_t sparsity_bytes(const struct sparsity *s)
{
    return arena_bytes(s->heads, sizeof *s->head) + arena_bytes((s->max_tokens / s->every + 1) * s->heads, sizeof *s->slot) +
           arena_bytes(s->heads * CELLS, sizeof(double)) + arena_bytes(CELLS, sizeof(double));
}

int sparsity_make(struct sparsity *out, const struct sparsity *sizes, struct arena *a)
{
    *out = (struct sparsity){.heads = sizes->heads, .every = sizes->every, .max_tokens = sizes->max_tokens, .span = sizes->span};
    AST_ASSERT(out->every > 0);
    out->head = ARENA_NEW0(a, out->heads, struct sparsity_head);
    out->slot = ARENA_NEW0(a, (out->max_tokens / out->every + 1) * out->heads, struct sparsity_head);
    out->map = ARENA_NEW0(a, out->heads * CELLS, double);
    out->map_causal = ARENA_NEW0(a, CELLS, double);
    return out->head && out->slot && out->map && out->map_causal ? ERR_OK : ERR_NOMEM;
}

static void add_head(struct sparsity_head *a, const struct sparsity_head *b)
{
    a->rows += b->rows;
    a->recall += b->recall;
    a->entropy += b->entropy;
    a->sink += b->sink;
    a->seen += b->seen;
    a->causal += b->causal;
    for (int i = 0; i < SPARSITY_DISTANCES; i++)
        a->distance[i] += b->distance[i];
}

void sparsity_add(struct sparsity *a, const struct sparsity *b)
{
    AST_ASSERT(a->heads == b->heads && a->every == b->every && a->span == b->span);
    for (int64_t h = 0; h < a->heads; h++)
        add_head(&a->head[h], &b->head[h]);
    for (int64_t i = 0; i < a->heads * CELLS; i++)
        a->map[i] += b->map[i];
    for (int64_t i = 0; i < CELLS; i++)
        a->map_causal[i] += b->map_causal[i];
    a->seconds += b->seconds;
}

/* One row of dense attention, 16 keys at a time. */
struct row {
    const struct sparse_run *r;
    struct sparse_lane *w;
    const float *q; /* (d,) rotated, not scaled */
    int64_t kv_head, token, from;
};

static int64_t row_logits(const struct row *x, int64_t block, double s[KERN_KB], int64_t *first)
{
    const struct attn_call *c = x->r->c;
    int64_t d = c->shape->dim, last = (block + 1) * KERN_KB < x->token + 1 ? (block + 1) * KERN_KB : x->token + 1;
    *first = block * KERN_KB > x->from ? block * KERN_KB : x->from;
    if (*first >= last)
        return 0;
    c->kern->kv_keys(&c->kv[x->kv_head], *first, last - *first, x->w->rows);
    for (int64_t j = 0; j < last - *first; j++)
        s[j] = (double)c->shape->scale * (double)c->kern->dot(x->q, x->w->rows + j * d, d);
    return last - *first;
}

/* Sums of the row into out; kept(block) by the ascending list. */
static void measure(const struct row *x, const int32_t *list, int64_t n_list, struct sparsity_head *out)
{
    double s[KERN_KB], top = -HUGE_VAL, sum = 0, mean = 0;
    int64_t first, blocks = x->token / KERN_KB + 1, size = x->r->o->block < KERN_KB ? x->r->o->block : KERN_KB, at = 0;
    for (int64_t b = x->from / KERN_KB; b < blocks; b++) {
        int64_t n = row_logits(x, b, s, &first);
        for (int64_t j = 0; j < n; j++) {
            if (s[j] > top) {
                sum *= exp(top - s[j]);
                top = s[j];
            }
            sum += exp(s[j] - top);
        }
    }
    for (int64_t b = x->from / KERN_KB; b < blocks; b++) {
        int64_t n = row_logits(x, b, s, &first);
        for (int64_t j = 0; j < n; j++) {
            double p = exp(s[j] - top) / sum;
            int64_t key = first + j;
            while (list && at < n_list && (list[at] + 1) * size <= key)
                at++;
            bool kept = !list || (at < n_list && list[at] * size <= key);
            out->recall += kept ? p : 0;
            out->seen += kept;
            out->sink += key < KERN_KB ? p : 0;
            mean += p * (s[j] - top);
            out->distance[gate_bucket(x->token - key, SPARSITY_DISTANCES)] += p;
        }
    }
    out->rows = 1;
    out->causal = (double)(x->token + 1);
    out->entropy = log(sum) - mean;
}

static int64_t cell(const struct sparsity *s, int64_t token)
{
    int64_t c = token * SPARSITY_MAP / s->span;
    return c < SPARSITY_MAP ? c : SPARSITY_MAP - 1;
}

/* Keys of the list (NULL: all up to the token) by cell of the map; whole numbers, so that any order adds up alike. */
static void draw(const struct sparsity *s, double *map, const struct row *x, const int32_t *list, int64_t n)
{
    int64_t size = x->r->o->block < KERN_KB ? x->r->o->block : KERN_KB, query = cell(s, x->token) * SPARSITY_MAP;
    for (int64_t i = 0; i < (list ? n : x->token / size + 1); i++) {
        int64_t first = (list ? list[i] : i) * size, last = first + size < x->token + 1 ? first + size : x->token + 1;
        double keys = (double)(last - (first > x->from ? first : x->from));
        if (keys > 0) {
#pragma omp atomic
            map[query + cell(s, first)] += keys;
        }
    }
}

void sparsity_rows(const struct sparse_run *r, struct sparse_lane *w, int64_t unit, int64_t n)
{
    struct sparsity *s = r->c->stats->more;
    const struct attn_shape *shape = r->c->shape;
    for (int64_t i = 0; i < n; i++) {
        int64_t t = w->set[i].token, count = w->some ? w->ptr[i + 1] - w->ptr[i] : 0;
        const int32_t *list = w->some ? w->list + w->ptr[i] : NULL;
        if (t % s->every != s->every - 1 || t >= s->max_tokens)
            continue;
        double start = timer_now();
        struct row x = {.r = r, .w = w, .token = t, .kv_head = unit * r->heads / (shape->heads / shape->kv_heads)};
        x.from = r->rule.window > 0 && t + 1 > r->rule.window ? t + 1 - r->rule.window : 0;
        for (int64_t h = unit * r->heads; h < (unit + 1) * r->heads; h++) {
            struct sparsity_head *slot = &s->slot[t / s->every * s->heads + h];
            *slot = (struct sparsity_head){0};
            x.q = r->c->q + ((t - r->c->pos) * shape->heads + h) * shape->dim;
            measure(&x, list, count, slot);
            if (s->span > 0)
                draw(s, s->map + h * CELLS, &x, list, count);
        }
        if (s->span > 0 && unit == 0)
            draw(s, s->map_causal, &x, NULL, 0);
#pragma omp atomic
        s->seconds += timer_now() - start;
    }
}

void sparsity_close_chunk(struct sparsity *s, int64_t pos, int64_t n)
{
    for (int64_t i = pos / s->every; (i + 1) * s->every <= pos + n && (i + 1) * s->every <= s->max_tokens; i++)
        for (int64_t h = 0; h < s->heads; h++)
            add_head(&s->head[h], &s->slot[i * s->heads + h]);
}
