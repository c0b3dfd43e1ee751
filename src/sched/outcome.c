/* Outcomes of shards, in memory and on disk. */
#include "sched/outcome.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/sparsity.h"
#include "base/err.h"
#include "io/shardfile.h"

const char *outcome_status_name(int status)
{
    static const char *const name[] = {"ok", "failed", "memory", "pending"};
    return status >= 0 && status < 4 ? name[status] : "?";
}

int outcome_open(struct outcome *o, int64_t cap, int layers)
{
    size_t n = cap > 0 ? (size_t)cap : 1, l = layers > 0 ? (size_t)layers : 1;
    *o = (struct outcome){.cap = cap, .layers = layers};
    o->sample = calloc(n, sizeof *o->sample);
    o->status = calloc(n, sizeof *o->status);
    o->acc = calloc(n, sizeof *o->acc);
    o->seconds = calloc(n, sizeof *o->seconds);
    o->text = calloc(n, sizeof *o->text);
    o->reason = calloc(n, sizeof *o->reason);
    o->layer = calloc(l, sizeof *o->layer);
    if (o->sample && o->status && o->acc && o->seconds && o->text && o->reason && o->layer)
        return ERR_OK;
    outcome_close(o);
    return err_set(ERR_NOMEM, "no memory for the results of %lld samples", (long long)cap);
}

void outcome_close(struct outcome *o)
{
    for (int64_t i = 0; i < o->cap; i++) {
        if (o->text)
            buf_free(&o->text[i]);
        if (o->reason)
            buf_free(&o->reason[i]);
    }
    free(o->sample);
    free(o->status);
    free(o->acc);
    free(o->seconds);
    free(o->text);
    free(o->reason);
    free(o->layer);
    outcome_free_sparsity(&o->sparsity);
    *o = (struct outcome){0};
}

void outcome_free_sparsity(struct outcome_sparsity *s)
{
    free(s->cell);
    free(s->of);
    free(s->map);
    free(s->causal);
    *s = (struct outcome_sparsity){0};
}

enum { MAP_CELLS = SPARSITY_MAP * SPARSITY_MAP };

/* One more element of size bytes at the end of n, cleared. */
static void *grow(void *p, int64_t n, size_t size)
{
    unsigned char *q = realloc(p, (size_t)(n + 1) * size);
    if (q)
        memset(q + (size_t)n * size, 0, size);
    return q;
}

int outcome_add_map(struct outcome *o, const struct outcome_map *of, int64_t heads, float **map, float **causal)
{
    struct outcome_sparsity *s = &o->sparsity;
    size_t each = (size_t)o->layers * (size_t)heads * MAP_CELLS * sizeof **map;
    void *list = grow(s->of, s->n_maps, sizeof *s->of), *maps, *all;
    s->of = list ? list : s->of;
    maps = list ? grow(s->map, s->n_maps, each) : NULL;
    s->map = maps ? maps : s->map;
    all = maps ? grow(s->causal, s->n_maps, MAP_CELLS * sizeof **causal) : NULL;
    s->causal = all ? all : s->causal;
    if (!all)
        return err_set(ERR_NOMEM, "no memory for a map of attention");
    s->of[s->n_maps] = *of;
    *map = s->map + (size_t)s->n_maps * each / sizeof **map;
    *causal = s->causal + s->n_maps * MAP_CELLS;
    s->n_maps++;
    return ERR_OK;
}

/* The fixed part, in this order on disk. */
enum { I_CELL, I_COUNTS, I_SUMS, I_RANK, I_GROUP, I_LAYERS, I_FIRST, I_N, I_TOKENS, I_FAILED, I_PEAK, N_INTS };
enum { R_BEGIN, R_END, R_COMPUTE, R_PHASES, N_REALS = R_PHASES + TIMER_PHASES };

static void name_of(const struct outcome *o, char *out, size_t cap)
{
    snprintf(out, cap, "c%05d-p%010lld-n%07lld%s.shard", o->cell, (long long)o->first, (long long)o->n, o->failed ? "-failed" : "");
}

bool outcome_parse(const char *name, struct outcome_name *out)
{
    int cell, end = 0;
    long long first, n;
    if (sscanf(name, "c%d-p%lld-n%lld%n", &cell, &first, &n, &end) != 3 || cell < 0 || first < 0 || n < 1)
        return false;
    *out = (struct outcome_name){.cell = cell, .first = first, .n = n, .failed = !strcmp(name + end, "-failed.shard")};
    return out->failed || !strcmp(name + end, ".shard");
}

/* Texts side by side: end offsets and one run of bytes. */
static int join(const struct buf *v, int64_t n, int64_t *end, struct buf *out)
{
    int rc = ERR_OK;
    for (int64_t i = 0; i < n && !rc; i++) {
        rc = v[i].len ? buf_add(out, v[i].data, v[i].len) : ERR_OK;
        end[i] = (int64_t)out->len;
    }
    return rc;
}

/* Counts or sums as a dense matrix (n, width). */
static void columns(const struct outcome *o, int64_t *counts, double *sums)
{
    for (int64_t i = 0; i < o->n; i++) {
        memcpy(counts + i * o->n_counts, o->acc[i].n, (size_t)o->n_counts * sizeof *counts);
        memcpy(sums + i * o->n_sums, o->acc[i].s, (size_t)o->n_sums * sizeof *sums);
    }
}

struct packed { /* what commit has to free */
    int64_t *counts, *text_end, *reason_end;
    double *sums;
    struct buf text, reason;
};

static void free_packed(struct packed *p)
{
    free(p->counts);
    free(p->sums);
    free(p->text_end);
    free(p->reason_end);
    buf_free(&p->text);
    buf_free(&p->reason);
}

int outcome_commit(const struct outcome *o, const char *folder, bool *duplicate)
{
    size_t n = (size_t)o->n, nc = (size_t)o->n_counts, ns = (size_t)o->n_sums;
    struct packed p = {
        .counts = calloc(n * nc + 1, 8), .sums = calloc(n * ns + 1, 8), .text_end = calloc(n, 8), .reason_end = calloc(n, 8)};
    int64_t ints[N_INTS] = {o->cell,  o->n_counts, o->n_sums, o->rank,   o->group_size,         o->layers,
                            o->first, o->n,        o->tokens, o->failed, (int64_t)o->peak_bytes};
    double reals[N_REALS] = {o->begin_s, o->end_s, o->compute_s};
    double sparsity_head[3] = {(double)o->sparsity.heads, (double)o->sparsity.n_maps, o->sparsity.seconds};
    size_t cells = (size_t)(o->layers * o->sparsity.heads) * SPARSITY_BUCKETS, maps = (size_t)o->sparsity.n_maps;
    char name[96];
    int rc = ERR_OK;
    AST_ASSERT(o->n > 0);
    if (!p.counts || !p.sums || !p.text_end || !p.reason_end)
        rc = err_set(ERR_NOMEM, "no memory to write %lld results", (long long)o->n);
    if (!rc) {
        columns(o, p.counts, p.sums);
        memcpy(&reals[R_PHASES], o->timer.s, sizeof o->timer.s);
        rc = join(o->text, o->n, p.text_end, &p.text);
        rc = rc ? rc : join(o->reason, o->n, p.reason_end, &p.reason);
    }
    if (!rc) {
        struct shardfile_section s[] = {
            {"job", o->job, sizeof o->job},
            {"ints", ints, sizeof ints},
            {"reals", reals, sizeof reals},
            {"sample", o->sample, n * sizeof *o->sample},
            {"status", o->status, n * sizeof *o->status},
            {"seconds", o->seconds, n * sizeof *o->seconds},
            {"counts", p.counts, n * nc * 8},
            {"sums", p.sums, n * ns * 8},
            {"layers", o->layer, (size_t)o->layers * sizeof *o->layer},
            {"text_end", p.text_end, n * 8},
            {"text", p.text.data, p.text.len},
            {"reason_end", p.reason_end, n * 8},
            {"reason", p.reason.data, p.reason.len},
            {"sparsity_head", sparsity_head, sizeof sparsity_head},
            {"sparsity", o->sparsity.cell, cells * sizeof *o->sparsity.cell},
            {"map_of", o->sparsity.of, maps * sizeof *o->sparsity.of},
            {"map", o->sparsity.map, maps * (size_t)(o->layers * o->sparsity.heads) * MAP_CELLS * sizeof(float)},
            {"map_causal", o->sparsity.causal, maps * MAP_CELLS * sizeof(float)},
        };
        name_of(o, name, sizeof name);
        rc = shardfile_commit(folder, name, s, sizeof s / sizeof s[0], duplicate);
    }
    free_packed(&p);
    return rc;
}

/* A section of exactly so many bytes, or NULL with the sentence set. */
static const void *exactly(const struct shardfile *f, const char *path, const char *name, size_t want)
{
    size_t n;
    const void *p = shardfile_get(f, name, &n);
    if (p && n == want)
        return p;
    err_set(ERR_FORMAT, "%s: section '%s' has %zu bytes, %zu are needed", path, name, n, want);
    return NULL;
}

static int take_texts(struct buf *v, int64_t n, const struct shardfile *f, const char *path, const char *what)
{
    char end_name[32];
    size_t bytes;
    const char *text = shardfile_get(f, what, &bytes);
    int64_t at = 0;
    snprintf(end_name, sizeof end_name, "%s_end", what);
    const int64_t *end = exactly(f, path, end_name, (size_t)n * 8);
    if (!end)
        return ERR_FORMAT;
    for (int64_t i = 0; i < n; at = end[i++]) {
        if (end[i] < at || (uint64_t)end[i] > bytes)
            return err_set(ERR_FORMAT, "%s: section '%s' is impossible", path, end_name);
        int rc = end[i] > at ? buf_add(&v[i], text + at, (size_t)(end[i] - at)) : ERR_OK;
        if (rc)
            return rc;
    }
    return ERR_OK;
}

static int take_head(struct outcome *o, const struct shardfile *f, const char *path)
{
    const int64_t *ints = exactly(f, path, "ints", N_INTS * 8);
    const double *reals = ints ? exactly(f, path, "reals", N_REALS * 8) : NULL;
    const char *job = reals ? exactly(f, path, "job", SHA_HEX) : NULL;
    if (!job)
        return ERR_FORMAT;
    if (ints[I_N] < 1 || ints[I_N] > (1LL << 32) || ints[I_COUNTS] < 0 || ints[I_COUNTS] > TASK_COUNTS || ints[I_SUMS] < 0 ||
        ints[I_SUMS] > TASK_SUMS || ints[I_LAYERS] < 0 || ints[I_LAYERS] > 1 << 20)
        return err_set(ERR_FORMAT, "%s: impossible sizes", path);
    int rc = outcome_open(o, ints[I_N], (int)ints[I_LAYERS]);
    if (rc)
        return rc;
    snprintf(o->job, sizeof o->job, "%.64s", job);
    o->cell = (int)ints[I_CELL];
    o->n_counts = (int)ints[I_COUNTS];
    o->n_sums = (int)ints[I_SUMS];
    o->rank = (int)ints[I_RANK];
    o->group_size = (int)ints[I_GROUP];
    o->first = ints[I_FIRST];
    o->n = ints[I_N];
    o->tokens = ints[I_TOKENS];
    o->failed = ints[I_FAILED];
    o->peak_bytes = (size_t)ints[I_PEAK];
    o->begin_s = reals[R_BEGIN];
    o->end_s = reals[R_END];
    o->compute_s = reals[R_COMPUTE];
    memcpy(o->timer.s, &reals[R_PHASES], sizeof o->timer.s);
    return ERR_OK;
}

static int take_columns(struct outcome *o, const struct shardfile *f, const char *path)
{
    size_t n = (size_t)o->n, nc = (size_t)o->n_counts, ns = (size_t)o->n_sums;
    const int64_t *sample = exactly(f, path, "sample", n * 8);
    const int32_t *status = sample ? exactly(f, path, "status", n * 4) : NULL;
    const double *seconds = status ? exactly(f, path, "seconds", n * 8) : NULL;
    const int64_t *counts = seconds ? exactly(f, path, "counts", n * nc * 8) : NULL;
    const double *sums = counts ? exactly(f, path, "sums", n * ns * 8) : NULL;
    const struct outcome_layer *layer = sums ? exactly(f, path, "layers", (size_t)o->layers * sizeof *layer) : NULL;
    if (!layer)
        return ERR_FORMAT;
    memcpy(o->sample, sample, n * 8);
    memcpy(o->status, status, n * 4);
    memcpy(o->seconds, seconds, n * 8);
    memcpy(o->layer, layer, (size_t)o->layers * sizeof *layer);
    for (size_t i = 0; i < n; i++) {
        memcpy(o->acc[i].n, counts + i * nc, nc * 8);
        memcpy(o->acc[i].s, sums + i * ns, ns * 8);
    }
    int rc = take_texts(o->text, o->n, f, path, "text");
    return rc ? rc : take_texts(o->reason, o->n, f, path, "reason");
}

/* A copy of a section of exactly so many bytes. */
static int take_copy(void *to, const struct shardfile *f, const char *path, const char *name, size_t bytes)
{
    void **out = to;
    const void *p = exactly(f, path, name, bytes);
    if (!p)
        return ERR_FORMAT;
    *out = malloc(bytes + 1);
    if (!*out)
        return err_set(ERR_NOMEM, "no memory for section '%s' of a shard", name);
    memcpy(*out, p, bytes);
    return ERR_OK;
}

static int take_sparsity(struct outcome *o, const struct shardfile *f, const char *path)
{
    struct outcome_sparsity *s = &o->sparsity;
    const double *head = exactly(f, path, "sparsity_head", 3 * sizeof *head);
    if (!head)
        return ERR_FORMAT;
    if (!(head[0] >= 0 && head[0] <= 1 << 20 && head[1] >= 0 && head[1] <= 1 << 20) || (head[1] > 0 && head[0] < 1))
        return err_set(ERR_FORMAT, "%s: impossible sizes of statistics", path);
    size_t units = (size_t)o->layers * (size_t)head[0], maps = (size_t)head[1], each = MAP_CELLS * sizeof(float);
    int rc = take_copy(&s->cell, f, path, "sparsity", units * SPARSITY_BUCKETS * sizeof *s->cell);
    rc = rc ? rc : take_copy(&s->of, f, path, "map_of", maps * sizeof *s->of);
    rc = rc ? rc : take_copy(&s->map, f, path, "map", maps * units * each);
    rc = rc ? rc : take_copy(&s->causal, f, path, "map_causal", maps * each);
    s->heads = (int64_t)head[0];
    s->n_maps = (int64_t)head[1];
    s->seconds = head[2];
    return rc;
}

int outcome_read(struct outcome *o, const char *path)
{
    struct shardfile *f = NULL;
    int rc = shardfile_read(&f, path);
    *o = (struct outcome){0};
    rc = rc ? rc : take_head(o, f, path);
    rc = rc ? rc : take_columns(o, f, path);
    rc = rc ? rc : take_sparsity(o, f, path);
    shardfile_close(f);
    if (rc)
        outcome_close(o);
    return rc;
}
