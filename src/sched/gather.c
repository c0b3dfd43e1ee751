/* From shard files to scored cells. */
#include "sched/gather.h"

#include <stdlib.h>
#include <string.h>

#include "attn/sparsity.h"
#include "base/err.h"
#include "base/log.h"
#include "comm/comm.h"
#include "io/shardfile.h"
#include "sched/job.h"
#include "sched/store.h"
#include "sched/work.h"

struct gather_part gather_range(const int64_t *sizes, int n_cells, int block, int r, int ranks)
{
    double total = 0, upto = 0;
    int a = n_cells, b = n_cells;
    for (int i = 0; i < n_cells; i++)
        total += (double)sizes[i];
    /* A block belongs to the rank in whose share its middle lies. */
    for (int i = 0; i < n_cells; i += block) {
        double size = 0;
        for (int k = i; k < i + block && k < n_cells; k++)
            size += (double)sizes[k];
        int owner = (int)((upto + size / 2) / (total > 0 ? total : 1) * ranks);
        if (owner >= r && a == n_cells)
            a = i;
        if (owner > r && b == n_cells)
            b = i;
        upto += size;
    }
    return (struct gather_part){a, b > a ? b - a : 0};
}

static int open_cell(struct gather_cell *c, int cell, int64_t n, int layers)
{
    *c = (struct gather_cell){.cell = cell, .layers = layers, .n = n};
    c->acc = calloc((size_t)n, sizeof *c->acc);
    c->status = calloc((size_t)n, sizeof *c->status);
    c->seconds = calloc((size_t)n, sizeof *c->seconds);
    c->text = calloc((size_t)n, sizeof *c->text);
    c->reason = calloc((size_t)n, sizeof *c->reason);
    c->layer = calloc((size_t)layers + 1, sizeof *c->layer);
    if (!c->acc || !c->status || !c->seconds || !c->text || !c->reason || !c->layer)
        return err_set(ERR_NOMEM, "no memory for the %lld samples of a cell", (long long)n);
    for (int64_t i = 0; i < n; i++)
        c->status[i] = OUTCOME_PENDING;
    return ERR_OK;
}

static void close_cell(struct gather_cell *c)
{
    for (int64_t i = 0; i < c->n; i++) {
        if (c->text)
            buf_free(&c->text[i]);
        if (c->reason)
            buf_free(&c->reason[i]);
    }
    free(c->acc);
    free(c->status);
    free(c->seconds);
    free(c->text);
    free(c->reason);
    free(c->layer);
    outcome_free_sparsity(&c->sparsity);
}

struct take {
    struct gathered *x;
    const struct store *store;
};

static void move(struct buf *to, struct buf *from)
{
    buf_free(to);
    *to = *from;
    *from = (struct buf){0};
}

/* A sample that is ok stays; two attempts never count twice. */
static bool take_sample(struct gather_cell *c, struct outcome *o, int64_t k)
{
    int64_t i = o->sample[k];
    if (i < 0 || i >= c->n || c->status[i] == OUTCOME_OK || (c->status[i] != OUTCOME_PENDING && o->status[k] != OUTCOME_OK))
        return false;
    c->status[i] = o->status[k];
    c->acc[i] = o->acc[k];
    c->seconds[i] = o->seconds[k];
    move(&c->text[i], &o->text[k]);
    move(&c->reason[i], &o->reason[k]);
    return o->status[k] == OUTCOME_OK;
}

static void add_layer(struct outcome_layer *to, const struct outcome_layer *x)
{
    to->pairs_seen += x->pairs_seen;
    to->pairs_causal += x->pairs_causal;
    to->tile_dense += x->tile_dense;
    to->tile_blocks += x->tile_blocks;
    to->tile_gather += x->tile_gather;
    to->select_s += x->select_s;
}

static void add_totals(struct gather_cell *c, struct gather_total *t, const struct outcome *o)
{
    t->shards++;
    t->tokens += o->tokens;
    t->compute_s += o->compute_s;
    t->rank_s += o->compute_s * o->group_size;
    t->peak_bytes = (int64_t)o->peak_bytes > t->peak_bytes ? (int64_t)o->peak_bytes : t->peak_bytes;
    t->sparsity_s += o->sparsity.seconds;
    for (int p = 0; p < TIMER_PHASES; p++)
        t->phase_s[p] += o->timer.s[p];
    for (int l = 0; l < o->layers && l < c->layers; l++) {
        add_layer(&c->layer[l], &o->layer[l]);
        t->pairs_seen += o->layer[l].pairs_seen;
        t->pairs_causal += o->layer[l].pairs_causal;
    }
}

/* Where the map of that sample is, or goes; the order of files is not that of samples. */
static int64_t map_place(const struct outcome_sparsity *s, int64_t sample)
{
    int64_t i = 0;
    while (i < s->n_maps && s->of[i].sample < sample)
        i++;
    return i;
}

/* Moves elements from..n-1 of size bytes up by one and puts *x at from. */
static void insert(void *v, int64_t n, int64_t from, const void *x, size_t size)
{
    unsigned char *p = (unsigned char *)v + (size_t)from * size;
    memmove(p + size, p, (size_t)(n - from) * size);
    memcpy(p, x, size);
}

static int add_map(struct gather_cell *c, const struct outcome *o, int64_t i)
{
    struct outcome_sparsity *to = &c->sparsity;
    int64_t at = map_place(to, o->sparsity.of[i].sample), n = to->n_maps;
    size_t cells = (size_t)SPARSITY_MAP * SPARSITY_MAP, each = (size_t)o->layers * (size_t)o->sparsity.heads * cells;
    if (at < n && to->of[at].sample == o->sparsity.of[i].sample)
        return ERR_OK;
    struct outcome room = {.layers = c->layers, .sparsity = *to};
    float *map, *causal;
    int rc = outcome_add_map(&room, &o->sparsity.of[i], o->sparsity.heads, &map, &causal);
    *to = room.sparsity;
    if (rc)
        return rc;
    insert(to->of, n, at, &o->sparsity.of[i], sizeof *to->of);
    insert(to->map, n, at, o->sparsity.map + (size_t)i * each, each * sizeof *map);
    insert(to->causal, n, at, o->sparsity.causal + (size_t)i * cells, cells * sizeof *causal);
    return ERR_OK;
}

static int add_sparsity(struct gather_cell *c, const struct outcome *o)
{
    const struct outcome_sparsity *from = &o->sparsity;
    int64_t n = o->layers * from->heads * SPARSITY_BUCKETS;
    int rc = ERR_OK;
    if (from->heads == 0 || o->layers != c->layers)
        return ERR_OK;
    if (!c->sparsity.cell) {
        c->sparsity.heads = from->heads;
        c->sparsity.cell = calloc((size_t)n, sizeof *c->sparsity.cell);
        if (!c->sparsity.cell)
            return err_set(ERR_NOMEM, "no memory for statistics of attention");
    }
    if (c->sparsity.heads != from->heads)
        return ERR_OK;
    for (int64_t i = 0; i < n * SPARSITY_SUMS; i++)
        (&c->sparsity.cell->rows)[i] += (&from->cell->rows)[i];
    for (int64_t i = 0; i < from->n_maps && !rc; i++)
        rc = add_map(c, o, i);
    return rc;
}

static int take_file(void *context, const char *path, const char *name)
{
    struct take *k = context;
    struct outcome_name n;
    struct outcome o;
    int64_t fresh = 0;
    if (!outcome_parse(name, &n) || n.cell < k->x->first || n.cell >= k->x->first + k->x->n_cells)
        return ERR_OK;
    int rc = outcome_read(&o, path);
    if (rc == ERR_FORMAT) {
        /* Damaged since it was written: its samples count as pending, the next run computes them. */
        log_warn("%s", err_text());
        err_clear();
        return ERR_OK;
    }
    if (rc)
        return rc;
    if (!strcmp(o.job, k->store->job) && o.cell == n.cell) {
        struct gather_cell *c = &k->x->cell[n.cell - k->x->first];
        for (int64_t i = 0; i < o.n; i++)
            fresh += take_sample(c, &o, i);
        if (fresh > 0) {
            add_totals(c, &k->x->total[n.cell], &o);
            rc = add_sparsity(c, &o);
        }
    }
    outcome_close(&o);
    return rc;
}

static int score_cell(struct work *w, const struct gather_cell *c, struct gather_total *t)
{
    const struct work_cell *wc = &w->cell[c->cell];
    bool *missing = calloc((size_t)c->n, sizeof *missing);
    int rc = work_need(w, wc->set);
    if (!missing)
        rc = err_set(ERR_NOMEM, "no memory to score a cell");
    t->n = c->n;
    for (int64_t i = 0; i < c->n && !rc; i++) {
        missing[i] = c->status[i] != OUTCOME_OK;
        t->ok += !missing[i];
        t->pending += c->status[i] == OUTCOME_PENDING;
        t->failed += missing[i] && c->status[i] != OUTCOME_PENDING;
    }
    if (!rc && t->ok > 0) {
        int n = w->job->task[wc->task].impl->score(w->set[wc->set].set, c->acc, missing, (uint64_t)w->job->run.seed, t->score);
        t->n_scores = n > 0 ? n : 0;
        rc = n < 0 ? n : ERR_OK;
    }
    free(missing);
    return rc;
}

int gather_dense(const struct work *w, int cell)
{
    const struct work_cell *c = &w->cell[cell];
    for (int i = 0; i < w->n_cells; i++)
        if (w->cell[i].set == c->set && !strcmp(w->job->method[w->cell[i].method].impl->name, "dense"))
            return i == cell ? -1 : i;
    return -1;
}

/* The cell against its dense one, on the samples that both have. */
static int compare_cell(struct work *w, struct gathered *x, int i)
{
    const struct gather_cell *c = &x->cell[i];
    const struct work_cell *wc = &w->cell[c->cell];
    const struct task *t = w->job->task[wc->task].impl;
    struct gather_total *total = &x->total[c->cell];
    int d = gather_dense(w, c->cell);
    if (d < 0 || !t->compare || total->ok == 0 || x->total[d].ok == 0)
        return ERR_OK;
    const struct gather_cell *dense = &x->cell[d - x->first];
    bool *missing = calloc((size_t)c->n, sizeof *missing);
    if (!missing)
        return err_set(ERR_NOMEM, "no memory to compare a cell");
    for (int64_t k = 0; k < c->n; k++)
        missing[k] = c->status[k] != OUTCOME_OK || dense->status[k] != OUTCOME_OK;
    struct task_pair pair = {dense->acc, c->acc};
    int n = t->compare(w->set[wc->set].set, &pair, missing, (uint64_t)w->job->run.seed, total->diff);
    free(missing);
    total->n_diffs = n > 0 ? n : 0;
    return n < 0 ? n : ERR_OK;
}

/* Every total on every rank. */
static int share_totals(struct gathered *x, int n_cells, const struct comm_group *g)
{
    char *all = NULL;
    size_t bytes = 0, want = (size_t)n_cells * sizeof *x->total;
    int rc = comm_allgatherv(g, &x->total[x->first < n_cells ? x->first : 0], (size_t)x->n_cells * sizeof *x->total, &all, &bytes);
    if (!rc) {
        AST_ASSERT(bytes == want);
        memcpy(x->total, all, want);
    }
    free(all);
    return rc;
}

int gather_open(struct gathered **out, struct work *w, const struct store *s, const int64_t *sizes, const struct comm_group *g)
{
    struct gathered *x = calloc(1, sizeof *x);
    struct take k = {x, s};
    int rc = ERR_OK;
    *out = NULL;
    if (x) {
        x->total = calloc((size_t)w->n_cells, sizeof *x->total);
        struct gather_part mine = gather_range(sizes, w->n_cells, w->job->n_methods, g ? g->rank : 0, g ? g->size : 1);
        x->first = mine.first;
        x->n_cells = mine.n;
        x->cell = calloc((size_t)x->n_cells + 1, sizeof *x->cell);
    }
    if (!x || !x->total || !x->cell)
        rc = err_set(ERR_NOMEM, "no memory to gather %d cells", w->n_cells);
    for (int i = 0; !rc && i < x->n_cells; i++)
        rc = open_cell(&x->cell[i], x->first + i, sizes[x->first + i], (int)w->job->model[w->cell[x->first + i].model].info.layers);
    rc = rc ? rc : shardfile_each(s->folder, take_file, &k);
    for (int i = 0; !rc && i < x->n_cells; i++)
        rc = score_cell(w, &x->cell[i], &x->total[x->first + i]);
    for (int i = 0; !rc && i < x->n_cells; i++)
        rc = compare_cell(w, x, i);
    rc = comm_agree(g, rc);
    rc = rc ? rc : share_totals(x, w->n_cells, g);
    if (rc) {
        gather_close(x);
        return rc;
    }
    *out = x;
    return ERR_OK;
}

void gather_close(struct gathered *x)
{
    if (!x)
        return;
    for (int i = 0; i < x->n_cells && x->cell; i++)
        close_cell(&x->cell[i]);
    free(x->cell);
    free(x->total);
    free(x);
}
