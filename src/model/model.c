/* Opening a model and the calls of model.h: checks first, agreement, then work that cannot fail. */
#include "model/layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/timer.h"
#include "comm/comm.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/sha.h"
#include "model/forward.h"
#include "model/head.h"
#include "model/share.h"
#include "model/weights.h"

/* ---- reading ---- */

struct source { /* a folder, read as far as headers */
    struct json_doc *config;
    struct safetensors *st;
    const struct model_arch *arch;
    struct model_shape shape;
};

static void source_close(struct source *s)
{
    st_close(s->st);
    json_close(s->config);
}

static int source_open(struct source *s, const char *path)
{
    char file[FILE_PATH];
    *s = (struct source){0};
    int rc = file_join(file, path, "config.json");
    if (!rc && !file_is_folder(path))
        rc =
            err_set(ERR_IO, "%s: not a folder; a Hugging Face model folder with config.json and model.safetensors is needed", path);
    if (!rc)
        rc = json_read(&s->config, file);
    if (!rc)
        rc = config_shape(s->config, &s->arch, &s->shape);
    if (!rc)
        rc = config_generation(path, &s->shape);
    if (!rc)
        rc = st_open(&s->st, path);
    return rc ? rc : weights_check(s->arch, &s->shape, s->st, path);
}

static struct model_info info_of(const struct source *s, const char *path)
{
    const struct model_shape *h = &s->shape;
    struct model_info i = {.arch = s->arch->name, .path = path, .hidden = h->hidden, .layers = h->layers, .heads = h->heads};
    i.kv_heads = h->kv_heads;
    i.dim = h->dim;
    i.mlp = h->mlp;
    i.vocab = h->vocab;
    i.context = h->context;
    i.parameters = weights_count(s->arch, h);
    i.bos = h->bos;
    i.bos_from = h->bos_from;
    i.eos_from = h->eos_from;
    i.n_eos = h->n_eos;
    memcpy(i.eos, h->eos, sizeof i.eos);
    i.window = h->window;
    i.tied = h->tied;
    double attn = (double)h->hidden * (double)h->dim * (double)(2 * h->heads + 2 * h->kv_heads);
    double mlp = (double)h->hidden * (double)h->mlp * (h->gated ? 3 : 2);
    i.flops_linear = 2 * (double)h->layers * (attn + mlp);
    i.flops_head = 2 * (double)h->hidden * (double)h->vocab;
    return i;
}

int model_peek(struct model_info *out, const char *path)
{
    struct source s;
    int rc = source_open(&s, path);
    if (!rc)
        *out = info_of(&s, path);
    source_close(&s);
    return rc;
}

/* ---- cutting ---- */

static struct model_range share(int64_t n, int64_t unit, int rank, int size)
{
    int64_t units = (n + unit - 1) / unit, a = units * rank / size * unit, b = units * (rank + 1) / size * unit;
    a = a < n ? a : n;
    b = b < n ? b : n;
    return (struct model_range){a, b - a};
}

int model_cut_for(struct model_cut *c, const struct model_shape *s, int rank, int size, const char *path)
{
    int64_t group = s->heads / s->kv_heads;
    c->sums = size > 1;
    if (size <= s->kv_heads) {
        c->kv = share(s->kv_heads, 1, rank, size);
        c->heads = (struct model_range){c->kv.first * group, c->kv.n * group};
    } else {
        int64_t per = size / s->kv_heads; /* ranks that share one key/value head */
        if (size % s->kv_heads || per > group)
            return err_set(ERR_ARG,
                           "%s: %lld heads over %lld key/value heads cannot be cut over %d ranks; up to %lld, or a multiple of it "
                           "up to %lld, can",
                           path, (long long)s->heads, (long long)s->kv_heads, size, (long long)s->kv_heads, (long long)s->heads);
        c->kv = (struct model_range){rank / per, 1};
        struct model_range h = share(group, 1, (int)(rank % per), (int)per);
        c->heads = (struct model_range){c->kv.first * group + h.first, h.n};
    }
    /* Whole cache lines of columns where there are enough of them. */
    c->mlp = share(s->mlp, s->mlp >= 16 * size ? 16 : 1, rank, size);
    c->vocab = share(s->vocab, s->vocab >= 16 * size ? 16 : 1, rank, size);
    if (c->mlp.n == 0 || c->vocab.n == 0)
        return err_set(ERR_ARG, "%s: an MLP of %lld and a vocabulary of %lld cannot be cut over %d ranks", path, (long long)s->mlp,
                       (long long)s->vocab, size);
    return ERR_OK;
}

/* ---- opening ---- */

static size_t small_bytes(const struct model_shape *s, const char *path)
{
    return arena_bytes(s->layers, sizeof(struct model_layer)) + arena_bytes(s->layers, sizeof(struct attn_shape)) +
           arena_bytes(s->rope.rot / 2 + 1, sizeof(float)) + arena_bytes((int64_t)strlen(path) + 1, 1);
}

static void attention_shapes(struct model *m)
{
    const struct model_shape *s = &m->shape;
    for (int64_t l = 0; l < s->layers; l++) {
        double scale = s->unscaled ? 1 : 1 / sqrt((double)s->dim);
        if (s->scale_by_layer)
            scale /= (double)(l + 1);
        m->attn[l] = (struct attn_shape){.heads = m->cut.heads.n,
                                         .kv_heads = m->cut.kv.n,
                                         .dim = s->dim,
                                         .hidden = s->hidden,
                                         .head0 = m->cut.heads.first,
                                         .kv_head0 = m->cut.kv.first,
                                         .layer = l,
                                         .n_layers = s->layers,
                                         .scale = (float)scale,
                                         .window = s->full[l] ? 0 : s->window,
                                         .rot = s->rope.rot,
                                         .rope_theta = s->rope.theta,
                                         .rope_freq = s->rope.rot ? m->rope_freq : NULL};
    }
}

/* All memory of the model but the weights', sized beforehand. */
static int allocate(struct model *m, const struct model_open *how)
{
    const struct model_shape *s = &m->shape;
    int rc = arena_open(&m->run, "model", weights_stage_bytes() + small_bytes(s, how->path));
    if (rc)
        return rc;
    m->layer = ARENA_NEW0(&m->run, s->layers, struct model_layer);
    m->attn = ARENA_NEW(&m->run, s->layers, struct attn_shape);
    m->rope_freq = ARENA_NEW(&m->run, s->rope.rot / 2 + 1, float);
    m->path = arena_strdup(&m->run, how->path);
    if (!m->layer || !m->attn || !m->rope_freq || !m->path)
        return ERR_NOMEM;
    if (s->rope.rot)
        rope_freq(&s->rope, 0, m->rope_freq);
    m->info.path = m->path;
    attention_shapes(m);
    return ERR_OK;
}

/* The weights, found or loaded. Local, and without a word to other ranks: these may be waiting for what is loaded here. */
static int load(struct model *m, const struct safetensors *st, const struct model_open *how)
{
    size_t bytes = weights_bytes(&m->shape, &m->cut, how->dtype);
    int rc = how->share ? model_share(m, st, how, bytes) : ERR_OK;
    bool ready = m->shared.state == SHARED_READY;
    m->info.shared = m->shared.state != SHARED_NONE;
    if (!rc && how->share && !m->info.shared && how->own_max && bytes > how->own_max)
        rc = err_set(ERR_NOMEM, "%s: its weights need %.3f GB of each rank, %.3f GB are allowed, and they cannot be shared: %s",
                     how->path, (double)bytes / 1e9, (double)how->own_max / 1e9, m->shared.why);
    if (m->info.shared)
        m->weights = arena_over(m->shared.data, bytes, "weights", ready);
    else
        rc = rc ? rc : arena_open(&m->weights, "weights", bytes);
    rc = rc ? rc : weights_alloc(m, how->dtype);
    if (rc || ready)
        return rc;
    rc = weights_load(m, st, how->check_finite);
    if (m->info.shared && !rc)
        shared_ready(&m->shared);
    else if (m->info.shared)
        shared_close(&m->shared); /* others try for themselves */
    return rc;
}

/* config.json's bytes, then the weights' fingerprint: rank 0 reads, the others are told. */
static int fingerprint(struct model *m, const struct source *s)
{
    char file[FILE_PATH], config[SHA_HEX], weights[SHA_HEX];
    struct sha *sha = NULL;
    int rc = ERR_OK;
    if (!m->group || m->group->rank == 0) {
        rc = file_join(file, m->path, "config.json");
        if (!rc)
            rc = sha_file(file, config);
        if (!rc)
            rc = st_sha256(s->st, weights);
        if (!rc)
            rc = sha_open(&sha);
        if (!rc) {
            sha_add(sha, config, strlen(config));
            sha_add(sha, weights, strlen(weights));
            sha_close(sha, m->info.sha256);
        }
    }
    rc = comm_agree(m->group, rc);
    if (!rc)
        comm_bcast(m->group, m->info.sha256, sizeof m->info.sha256, 0);
    return rc;
}

static int open_local(struct model *m, struct source *s, const struct model_open *how)
{
    int rc = source_open(s, how->path);
    if (rc)
        return rc;
    m->shape = s->shape;
    m->shape.rope.round = how->rope_in_dtype ? s->shape.rope.stored : ROPE_FLOAT;
    m->arch = s->arch;
    m->info = info_of(s, how->path);
    m->info.dtype = how->dtype;
    m->kv_dtype = how->kv_dtype;
    rc = model_cut_for(&m->cut, &m->shape, how->group ? how->group->rank : 0, how->group ? how->group->size : 1, how->path);
    return rc ? rc : allocate(m, how);
}

int model_open(struct model **out, const struct model_open *how)
{
    struct source s = {0};
    struct model *m = calloc(1, sizeof *m);
    *out = NULL;
    int rc = m ? ERR_OK : err_set(ERR_NOMEM, "no memory for a model");
    if (!rc) {
        m->group = how->group;
        m->kern = how->kern;
        m->method = attn_find("dense");
        rc = open_local(m, &s, how);
    }
    rc = comm_agree(how->group, rc);
    if (!rc)
        rc = comm_agree(how->group, load(m, s.st, how));
    if (!rc)
        rc = fingerprint(m, &s);
    source_close(&s);
    if (rc)
        model_close(m);
    else
        *out = m;
    return rc;
}

void model_close(struct model *m)
{
    if (m) {
        if (!m->info.shared)
            arena_close(&m->weights);
        shared_close(&m->shared);
        arena_close(&m->run);
    }
    free(m);
}

const struct model_info *model_info(const struct model *m)
{
    return &m->info;
}

int model_set_attention(struct model *m, const struct attn_method *method, const void *opts, const struct attn_params *params)
{
    for (int64_t l = 0; method->check && l < m->shape.layers; l++) {
        int rc = method->check(opts, &m->attn[l]);
        if (rc)
            return err_prefix(rc, "%s with attention method %s", m->path, method->name);
    }
    m->method = method;
    m->opts = opts;
    m->params = params;
    return ERR_OK;
}

/* ---- running ---- */

size_t model_score_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    size_t forward = forward_bytes(m, tokens, longest, false);
    (void)n_seq;
    return forward + head_bytes(m);
}

size_t model_feed_bytes(const struct model *m, int64_t tokens, int64_t longest, int64_t n_seq)
{
    return forward_bytes(m, tokens, longest, true) + head_bytes(m) + arena_bytes(n_seq, sizeof(int64_t));
}

int model_check_batch(const struct model *m, const struct model_batch *b, struct model_cache *const *cache, int64_t *longest)
{
    *longest = 0;
    for (int64_t s = 0; s < b->n_seq; s++) {
        int64_t n = b->at[s + 1] - b->at[s], end = n + (cache ? cache[s]->len : 0);
        if (n < 0 || (cache && n == 0))
            return err_set(ERR_ARG, "sequence %lld of the batch has %lld tokens", (long long)s, (long long)n);
        if (cache && end > cache[s]->max)
            return err_set(ERR_ARG, "%lld tokens do not fit into a cache of %lld", (long long)end, (long long)cache[s]->max);
        if (cache && (cache[s]->model != m || cache[s]->method != m->method))
            return err_set(ERR_ARG, "the cache of sequence %lld was made for another model or attention method", (long long)s);
        if (m->shape.pos == MODEL_POS_LEARNED && end > m->shape.context)
            return err_set(ERR_ARG, "%s: a sequence of %lld tokens, but positions are learned up to %lld", m->path, (long long)end,
                           (long long)m->shape.context);
        *longest = end > *longest ? end : *longest;
    }
    for (int64_t t = 0; t < b->at[b->n_seq]; t++)
        if (b->token[t] < 0 || b->token[t] >= m->shape.vocab || (b->target && b->target[t] >= m->shape.vocab))
            return err_set(ERR_ARG, "%s: token %lld of the batch is outside the vocabulary of %lld", m->path, (long long)t,
                           (long long)m->shape.vocab);
    return ERR_OK;
}

int model_check_room(const struct arena *step, size_t need)
{
    if (step->cap - step->used < need)
        return err_set(ERR_NOMEM, "arena %s: a step needs %zu bytes, %zu are free", step->name, need, step->cap - step->used);
    return ERR_OK;
}

int model_score(struct model *m, const struct model_batch *b, struct model_out *out, struct arena *step)
{
    int64_t longest, tokens = b->at[b->n_seq];
    int rc = model_check_batch(m, b, NULL, &longest);
    if (!rc && tokens > 0)
        rc = model_check_room(step, model_score_bytes(m, tokens, longest, b->n_seq));
    rc = comm_agree(m->group, rc);
    if (rc || tokens == 0)
        return rc;
    size_t mark = arena_mark(step);
    struct forward f = {.m = m, .b = b, .longest = longest, .timer = out->timer, .stats = out->stats};
    rc = forward_run(&f, step);
    if (!rc)
        rc = head_score(m, f.x, b, out, step);
    if (!rc && out->logits)
        rc = head_logits(m, f.x, out->logit_row, out->n_logit_rows, out->logits, out->timer, step);
    AST_ASSERT(rc != ERR_NOMEM); /* model_score_bytes is an upper bound */
    arena_release(step, mark);
    return rc;
}

int model_advance(struct model *m, struct model_cache *const *cache, const struct model_batch *b, struct model_out *out,
                  struct arena *step)
{
    int64_t longest;
    int rc = model_check_batch(m, b, cache, &longest);
    if (!rc && b->n_seq > 0)
        rc = model_check_room(step, model_feed_bytes(m, b->at[b->n_seq], longest, b->n_seq));
    rc = comm_agree(m->group, rc);
    if (rc || b->n_seq == 0)
        return rc;
    size_t mark = arena_mark(step);
    struct forward f = {.m = m, .b = b, .cache = cache, .longest = longest, .timer = out->timer, .stats = out->stats};
    rc = forward_run(&f, step);
    int64_t *row = ARENA_NEW(step, b->n_seq, int64_t);
    AST_ASSERT(row);
    for (int64_t s = 0; s < b->n_seq; s++)
        row[s] = b->at[s + 1] - 1;
    if (!rc)
        rc = head_logits(m, f.x, row, b->n_seq, out->logits, out->timer, step);
    AST_ASSERT(rc != ERR_NOMEM);
    arena_release(step, mark);
    return rc;
}

int model_feed(struct model *m, struct model_cache *const *cache, const struct model_batch *b, float *logits, struct timer *timer,
               struct arena *step)
{
    struct model_out out = {.logits = logits, .timer = timer};
    return model_advance(m, cache, b, &out, step);
}
