/* The master's book-keeping. One heap of waiting shards a cell: inside a cell a correction changes no order. */
#include "sched/board.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "sched/policy.h"

struct heap { /* shard indices, longest on top */
    int64_t *v, n, cap;
};

struct cell {
    const struct board_cell *in;
    double *upto; /* (n_batches + 1,) sums of batch_work */
    struct heap waiting;
    double waiting_work, total_work; /* before correction */
    double seen_work, seen_s;        /* predicted and measured of what is done */
};

struct group {
    int model; /* loaded; -1: none */
    bool gone;
    int64_t *queue; /* what it has, in the order it was given */
    int n, cap;
};

struct board {
    struct board_opts o;
    struct cell *cell;
    int n_cells, live;
    struct shard *shard;
    int64_t n, cap;
    struct group *group;
    struct policy_cell *head; /* (n_cells,) what the policy sees */
    double *model_left_s;
    int *model_groups;
    double seen_work, seen_s; /* over all cells */
    struct board_counts counts;
};

/* Seconds of prediction that the general correction counts for, against a cell's own measurements. */
static const double PRIOR_S = 2;

/* ---- cost ---- */

static double overall(const struct board *b)
{
    double prior = b->o.ratio > 0 ? b->o.ratio : 1, weight = b->o.ratio > 0 ? b->o.ratio_s : 0;
    double work = b->seen_work + weight;
    return work > 0 ? (b->seen_s + prior * weight) / work : 1;
}

double board_correction(const struct board *b)
{
    return overall(b);
}

double board_ratio(const struct board *b, int cell)
{
    const struct cell *c = &b->cell[cell];
    return (c->seen_s + overall(b) * PRIOR_S) / (c->seen_work + PRIOR_S);
}

/* Predicted seconds of the first p positions; inside a batch in proportion. */
static double work_upto(const struct cell *c, int64_t p)
{
    const int64_t *at = c->in->batch_at;
    int64_t lo = 0, hi = c->in->n_batches;
    while (lo + 1 < hi) {
        int64_t mid = (lo + hi) / 2;
        if (at[mid] <= p)
            lo = mid;
        else
            hi = mid;
    }
    return c->upto[lo] + c->in->batch_work[lo] * (double)(p - at[lo]) / (double)(at[lo + 1] - at[lo]);
}

static double work_of(const struct cell *c, int64_t first, int64_t count)
{
    return work_upto(c, first + count) - work_upto(c, first);
}

double board_predict(const struct board *b, int64_t shard)
{
    return b->shard[shard].work * board_ratio(b, b->shard[shard].cell);
}

/* ---- heap ---- */

static bool longer(const struct board *b, int64_t x, int64_t y)
{
    double wx = b->shard[x].work, wy = b->shard[y].work;
    return wx > wy || (!(wx < wy) && b->shard[x].first < b->shard[y].first);
}

static int heap_reserve(struct heap *h, int64_t n)
{
    if (n <= h->cap)
        return ERR_OK;
    int64_t cap = n > 2 * h->cap ? n : 2 * h->cap;
    int64_t *v = realloc(h->v, (size_t)cap * sizeof *v);
    if (!v)
        return err_set(ERR_NOMEM, "no memory for a queue of %lld shards", (long long)cap);
    h->v = v;
    h->cap = cap;
    return ERR_OK;
}

static void heap_push(const struct board *b, struct heap *h, int64_t x)
{
    int64_t i = h->n++;
    AST_ASSERT(h->n <= h->cap);
    for (; i > 0 && longer(b, x, h->v[(i - 1) / 2]); i = (i - 1) / 2)
        h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = x;
}

static int64_t heap_pop(const struct board *b, struct heap *h)
{
    int64_t top = h->v[0], x = h->v[--h->n], i = 0;
    for (;;) {
        int64_t k = 2 * i + 1;
        if (k >= h->n)
            break;
        if (k + 1 < h->n && longer(b, h->v[k + 1], h->v[k]))
            k++;
        if (!longer(b, h->v[k], x))
            break;
        h->v[i] = h->v[k];
        i = k;
    }
    if (h->n > 0)
        h->v[i] = x;
    return top;
}

/* ---- shards ---- */

static void wait(struct board *b, int64_t i)
{
    struct shard *s = &b->shard[i];
    struct cell *c = &b->cell[s->cell];
    s->state = SHARD_WAITING;
    s->group = -1;
    c->waiting_work += s->work;
    b->counts.waiting++;
    heap_push(b, &c->waiting, i);
}

/* Room for one more shard, also in its cell's heap: every shard of a cell may wait at once. */
static int reserve(struct board *b, int cell)
{
    int rc = heap_reserve(&b->cell[cell].waiting, b->cell[cell].waiting.n + 1 + b->counts.running + 1);
    if (rc || b->n < b->cap)
        return rc;
    int64_t cap = b->cap ? 2 * b->cap : 1024;
    struct shard *v = realloc(b->shard, (size_t)cap * sizeof *v);
    if (!v)
        return err_set(ERR_NOMEM, "no memory for %lld shards", (long long)cap);
    b->shard = v;
    b->cap = cap;
    return ERR_OK;
}

static int add(struct board *b, int cell, int64_t first, int64_t count)
{
    int rc = reserve(b, cell);
    if (rc)
        return rc;
    b->shard[b->n] = (struct shard){
        .first = first, .count = count, .work = work_of(&b->cell[cell], first, count), .cell = cell, .group = -1, .failed_on = -1};
    wait(b, b->n++);
    return ERR_OK;
}

/* Cuts what an earlier run has left of a cell into shards of at most target predicted seconds (at least a batch). */
static int cut_cell(struct board *b, int ci, double target)
{
    struct cell *c = &b->cell[ci];
    const struct board_cell *in = c->in;
    int rc = ERR_OK;
    int64_t first = -1, end = 0;
    double work = 0;
    for (int64_t k = 0; k < in->n_batches && !rc; k++)
        for (int64_t p = in->batch_at[k]; p < in->batch_at[k + 1] && !rc; p++) {
            bool done = in->done && in->done[p];
            bool full = first >= 0 && p == in->batch_at[k] && work + in->batch_work[k] > target;
            if (first >= 0 && (done || full)) {
                rc = add(b, ci, first, end - first);
                first = -1;
            }
            if (done)
                continue;
            if (first < 0) {
                first = p;
                work = 0;
            }
            end = p + 1;
            if (p == in->batch_at[k + 1] - 1)
                work += in->batch_work[k];
        }
    return first >= 0 && !rc ? add(b, ci, first, end - first) : rc;
}

static int open_cell(struct board *b, int i, const struct board_cell *in)
{
    struct cell *c = &b->cell[i];
    c->in = in;
    c->upto = calloc((size_t)in->n_batches + 1, sizeof *c->upto);
    if (!c->upto)
        return err_set(ERR_NOMEM, "no memory for %lld batches", (long long)in->n_batches);
    for (int64_t k = 0; k < in->n_batches; k++)
        c->upto[k + 1] = c->upto[k] + in->batch_work[k];
    c->total_work = c->upto[in->n_batches];
    return ERR_OK;
}

int board_open(struct board **out, const struct board_cell *cells, int n_cells, const struct board_opts *o)
{
    struct board *b = calloc(1, sizeof *b);
    double total = 0;
    int rc = ERR_OK;
    *out = NULL;
    AST_ASSERT(o->n_groups > 0 && o->policy);
    if (!b)
        return err_set(ERR_NOMEM, "no memory for the schedule");
    b->o = *o;
    b->n_cells = n_cells;
    b->live = o->n_groups;
    b->cell = calloc((size_t)n_cells + 1, sizeof *b->cell);
    b->head = calloc((size_t)n_cells + 1, sizeof *b->head);
    b->group = calloc((size_t)o->n_groups, sizeof *b->group);
    b->model_left_s = calloc((size_t)o->n_models + 1, sizeof *b->model_left_s);
    b->model_groups = calloc((size_t)o->n_models + 1, sizeof *b->model_groups);
    if (!b->cell || !b->head || !b->group || !b->model_left_s || !b->model_groups)
        rc = err_set(ERR_NOMEM, "no memory for a schedule of %d cells on %d groups", n_cells, o->n_groups);
    for (int g = 0; g < o->n_groups && !rc; g++)
        b->group[g].model = -1;
    for (int i = 0; i < n_cells && !rc; i++) {
        rc = open_cell(b, i, &cells[i]);
        total += rc ? 0 : b->cell[i].total_work;
    }
    /* Several shards a group even in a short job, so that uneven ones even out. */
    double target = fmin(o->shard_s, total * overall(b) / (8.0 * o->n_groups)) / overall(b);
    for (int i = 0; i < n_cells && !rc; i++)
        rc = cut_cell(b, i, target);
    if (rc) {
        board_close(b);
        return rc;
    }
    *out = b;
    return ERR_OK;
}

void board_close(struct board *b)
{
    if (!b)
        return;
    for (int i = 0; i < b->n_cells && b->cell; i++) {
        free(b->cell[i].upto);
        free(b->cell[i].waiting.v);
    }
    for (int g = 0; g < b->o.n_groups && b->group; g++)
        free(b->group[g].queue);
    free(b->cell);
    free(b->head);
    free(b->group);
    free(b->model_left_s);
    free(b->model_groups);
    free(b->shard);
    free(b);
}

/* ---- handing out ---- */

static void look(struct board *b, struct policy_view *v)
{
    *v = (struct policy_view){.n_cells = b->n_cells,
                              .n_models = b->o.n_models,
                              .n_groups = b->live > 0 ? b->live : 1,
                              .cell = b->head,
                              .model_left_s = b->model_left_s,
                              .model_groups = b->model_groups};
    double general = overall(b);
    for (int m = 0; m < b->o.n_models; m++)
        b->model_left_s[m] = 0;
    for (int i = 0; i < b->n_cells; i++) {
        const struct cell *c = &b->cell[i];
        struct policy_cell *h = &b->head[i];
        *h = (struct policy_cell){.model = c->in->model, .head_s = -1};
        if (c->waiting.n == 0)
            continue;
        double ratio = (c->seen_s + general * PRIOR_S) / (c->seen_work + PRIOR_S);
        h->head_s = b->shard[c->waiting.v[0]].work * ratio;
        h->left_s = c->waiting_work * ratio;
        b->model_left_s[h->model] += fmax(h->left_s, 1e-12); /* free work is work all the same */
        v->left_s += h->left_s;
    }
}

static void enqueue(struct group *g, int64_t shard)
{
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 8;
        g->queue = realloc(g->queue, (size_t)g->cap * sizeof *g->queue);
        AST_ASSERT(g->queue != NULL); /* a few bytes a group */
    }
    g->queue[g->n++] = shard;
}

static void dequeue(struct board *b, int64_t shard)
{
    struct group *g = &b->group[b->shard[shard].group];
    int at = 0;
    while (at < g->n && g->queue[at] != shard)
        at++;
    AST_ASSERT(at < g->n);
    g->n--;
    memmove(&g->queue[at], &g->queue[at + 1], (size_t)(g->n - at) * sizeof *g->queue);
}

/* Keeps of the shard what fits into limit_s, at least a batch; the rest waits as a shard of its own. */
static void split(struct board *b, int64_t i, double limit_s)
{
    struct shard *s = &b->shard[i];
    struct cell *c = &b->cell[s->cell];
    const int64_t *at = c->in->batch_at;
    double target = limit_s / board_ratio(b, s->cell), start = work_upto(c, s->first);
    int64_t lo = 0, hi = c->in->n_batches, end = s->first + s->count;
    if (s->work <= target * 1.25)
        return;
    while (lo < hi) { /* the first batch that ends past the target */
        int64_t mid = (lo + hi) / 2;
        if (at[mid + 1] <= s->first || c->upto[mid + 1] - start <= target)
            lo = mid + 1;
        else
            hi = mid;
    }
    int64_t cut = at[lo] > s->first ? at[lo] : at[lo + 1];
    if (cut >= end || reserve(b, s->cell))
        return;
    s = &b->shard[i];
    s->count = cut - s->first;
    s->work = work_of(c, s->first, s->count);
    add(b, s->cell, cut, end - cut);
    b->shard[b->n - 1].tries = b->shard[i].tries;
}

/* The longest; the next one if this group has failed on the longest and there is a choice. */
static int64_t pop_for(const struct board *b, struct heap *h, int group)
{
    int64_t i = heap_pop(b, h), j;
    if (b->shard[i].failed_on != group || h->n == 0 || b->live < 2)
        return i;
    j = heap_pop(b, h);
    heap_push(b, h, i);
    return j;
}

static int64_t take(struct board *b, int group, const struct policy_view *v)
{
    struct group *g = &b->group[group];
    int ci = b->o.policy->pick(v, g->model);
    if (ci < 0)
        return -1;
    struct cell *c = &b->cell[ci];
    int64_t i = pop_for(b, &c->waiting, group);
    struct shard *s = &b->shard[i];
    c->waiting_work = c->waiting.n ? c->waiting_work - s->work : 0;
    b->counts.waiting--;
    b->counts.running++;
    split(b, i, b->o.policy->limit(v));
    s = &b->shard[i];
    s->state = SHARD_RUNNING;
    s->group = group;
    enqueue(g, i);
    if (g->model != c->in->model) {
        if (g->model >= 0)
            b->model_groups[g->model]--;
        b->model_groups[c->in->model]++;
        g->model = c->in->model;
    }
    return i;
}

int64_t board_next(struct board *b, int group)
{
    struct policy_view v;
    if (b->counts.waiting == 0 || b->group[group].gone)
        return -1;
    look(b, &v);
    return take(b, group, &v);
}

int64_t board_ahead(struct board *b, int group, double queued_s)
{
    struct policy_view v;
    if (b->counts.waiting == 0 || b->group[group].gone)
        return -1;
    look(b, &v);
    /* A queued shard cannot go to a group that falls idle: queue only while each group has more than this to come. */
    if (v.left_s < 4 * queued_s * v.n_groups && b->counts.waiting < 16 * (int64_t)v.n_groups)
        return -1;
    return take(b, group, &v);
}

/* ---- what came of it ---- */

static void end_run(struct board *b, int64_t shard)
{
    AST_ASSERT(shard >= 0 && shard < b->n && b->shard[shard].state == SHARD_RUNNING);
    dequeue(b, shard);
    b->counts.running--;
    b->shard[shard].group = -1;
}

void board_done(struct board *b, int64_t shard, int64_t count, double seconds)
{
    struct cell *c = &b->cell[b->shard[shard].cell];
    double work;
    end_run(b, shard);
    struct shard *s = &b->shard[shard];
    AST_ASSERT(count >= 0 && count <= s->count);
    if (count < s->count) {
        /* The rest waits under this number, the finished part needs none. */
        work = work_of(c, s->first, count);
        s->first += count;
        s->count -= count;
        s->work -= work;
        wait(b, shard);
    } else {
        work = s->work;
        s->state = SHARD_DONE;
        b->counts.done++;
    }
    c->seen_work += work;
    c->seen_s += seconds;
    b->seen_work += work;
    b->seen_s += seconds;
}

static void set_failed(struct board *b, int64_t shard)
{
    b->shard[shard].state = SHARD_FAILED;
    b->counts.failed++;
}

bool board_failed(struct board *b, int64_t shard)
{
    struct shard *s = &b->shard[shard];
    s->failed_on = s->group;
    end_run(b, shard);
    if (++s->tries < b->o.tries) {
        wait(b, shard);
        return true;
    }
    set_failed(b, shard);
    return false;
}

void board_give_up(struct board *b, int64_t shard)
{
    end_run(b, shard);
    b->shard[shard].tries++;
    set_failed(b, shard);
}

void board_drop(struct board *b, int cell, void (*gone)(void *context, int64_t shard), void *context)
{
    struct cell *c = &b->cell[cell];
    while (c->waiting.n > 0) {
        int64_t i = heap_pop(b, &c->waiting);
        b->counts.waiting--;
        set_failed(b, i);
        gone(context, i);
    }
    c->waiting_work = 0;
}

void board_back(struct board *b, int64_t shard)
{
    end_run(b, shard);
    wait(b, shard);
}

void board_lose(struct board *b, int group, void (*gone)(void *context, int64_t shard), void *context)
{
    struct group *g = &b->group[group];
    if (g->gone)
        return;
    g->gone = true;
    b->live--;
    if (g->model >= 0)
        b->model_groups[g->model]--;
    for (bool first = true; g->n > 0; first = false) {
        int64_t i = g->queue[0];
        if (!first)
            board_back(b, i);
        else if (!board_failed(b, i) && gone)
            gone(context, i);
    }
}

/* ---- questions ---- */

const struct shard *board_shard(const struct board *b, int64_t i)
{
    return &b->shard[i];
}

int64_t board_shards(const struct board *b)
{
    return b->n;
}

double board_left_s(const struct board *b)
{
    double s = 0;
    for (int i = 0; i < b->n_cells; i++)
        s += b->cell[i].waiting_work * board_ratio(b, i);
    for (int g = 0; g < b->o.n_groups; g++)
        for (int k = 0; k < b->group[g].n; k++)
            s += board_predict(b, b->group[g].queue[k]);
    return s;
}

double board_total_s(const struct board *b)
{
    double s = 0;
    for (int i = 0; i < b->n_cells; i++)
        s += b->cell[i].total_work * board_ratio(b, i);
    return s;
}

void board_counts(const struct board *b, struct board_counts *out)
{
    *out = b->counts;
}

bool board_finished(const struct board *b)
{
    return b->counts.waiting == 0 && b->counts.running == 0;
}

int board_groups(const struct board *b)
{
    return b->live;
}
