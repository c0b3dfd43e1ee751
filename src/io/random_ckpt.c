/* Random checkpoints: list the tensors, cut the list into shards, stream each shard. */
#include "io/random_ckpt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "base/rng.h"
#include "io/file.h"
#include "io/json.h"

enum { NAME = 160, PIECE = 1 << 20 }; /* bytes of a name; elements made at a time */

struct list { /* the tensors to be made */
    struct st_decl *t;
    char (*name)[NAME];
    int64_t n, cap;
};

static int list_open(struct list *l, int64_t cap)
{
    l->t = calloc((size_t)cap + 1, sizeof *l->t);
    l->name = calloc((size_t)cap + 1, sizeof *l->name);
    l->cap = cap;
    return l->t && l->name ? ERR_OK : err_set(ERR_NOMEM, "out of memory for the names of %lld tensors", (long long)cap);
}

static void list_close(struct list *l)
{
    free(l->t);
    free(l->name);
}

static struct st_decl *list_add(struct list *l, enum st_dtype dtype, int rank)
{
    AST_ASSERT(l->n < l->cap);
    struct st_decl *t = &l->t[l->n];
    *t = (struct st_decl){.name = l->name[l->n], .dtype = dtype, .rank = rank};
    l->n++;
    return t;
}

/* cols 0: a vector. layer < 0: name as it is. */
static void add(struct list *l, enum st_dtype dtype, int64_t layer, const char *name, int64_t rows, int64_t cols)
{
    struct st_decl *t = list_add(l, dtype, cols ? 2 : 1);
    t->dim[0] = rows;
    t->dim[1] = cols;
    if (layer < 0)
        snprintf(l->name[l->n - 1], NAME, "%s", name);
    else
        snprintf(l->name[l->n - 1], NAME, "model.layers.%lld.%s", (long long)layer, name);
}

static const struct {
    const char *name;
    struct random_shape shape;
} presets[] = {
    {"125m", {.hidden = 768, .layers = 12, .heads = 12, .mlp = 2048, .vocab = 32000, .positions = 131072, .rope_theta = 10000}},
    {"1.1b",
     {.hidden = 2048,
      .layers = 22,
      .heads = 32,
      .kv_heads = 4,
      .mlp = 5632,
      .vocab = 32000,
      .positions = 131072,
      .rope_theta = 10000}},
    {"tiny", {.hidden = 128, .layers = 2, .heads = 4, .mlp = 256, .vocab = 512, .positions = 131072, .rope_theta = 10000}},
};

int random_preset(struct random_shape *out, const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (strcmp(presets[i].name, name) == 0) {
            *out = presets[i].shape;
            return ERR_OK;
        }
    return err_set(ERR_ARG, "--preset %s: there are 125m, 1.1b and tiny", name);
}

int random_check(const struct random_shape *s)
{
    if (s->heads % s->kv_heads)
        return err_set(ERR_ARG, "%lld heads cannot share %lld key-value heads evenly", (long long)s->heads, (long long)s->kv_heads);
    if (s->head_dim % 2)
        return err_set(ERR_ARG, "a head width of %lld is odd, rotary positions need pairs", (long long)s->head_dim);
    return ERR_OK;
}

static int list_llama(struct list *l, const struct random_shape *s, enum st_dtype d)
{
    int rc = list_open(l, 9 * s->layers + 3);
    if (rc)
        return rc;
    int64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    add(l, d, -1, "model.embed_tokens.weight", s->vocab, s->hidden);
    for (int64_t i = 0; i < s->layers; i++) {
        add(l, d, i, "input_layernorm.weight", s->hidden, 0);
        add(l, d, i, "self_attn.q_proj.weight", q, s->hidden);
        add(l, d, i, "self_attn.k_proj.weight", kv, s->hidden);
        add(l, d, i, "self_attn.v_proj.weight", kv, s->hidden);
        add(l, d, i, "self_attn.o_proj.weight", s->hidden, q);
        add(l, d, i, "post_attention_layernorm.weight", s->hidden, 0);
        add(l, d, i, "mlp.gate_proj.weight", s->mlp, s->hidden);
        add(l, d, i, "mlp.up_proj.weight", s->mlp, s->hidden);
        add(l, d, i, "mlp.down_proj.weight", s->hidden, s->mlp);
    }
    add(l, d, -1, "model.norm.weight", s->hidden, 0);
    if (!s->tied)
        add(l, d, -1, "lm_head.weight", s->vocab, s->hidden);
    return ERR_OK;
}

static int list_like(struct list *l, const struct random_ckpt *r)
{
    struct safetensors *s = NULL;
    int rc = st_open(&s, r->like);
    rc = rc ? rc : list_open(l, st_count(s));
    for (int64_t i = 0; rc == ERR_OK && i < st_count(s); i++) {
        const struct st_tensor *from = st_at(s, i);
        enum st_dtype d = r->dtype == ST_OTHER ? from->dtype : r->dtype;
        if (strlen(from->name) >= NAME || (d != ST_BF16 && d != ST_F16 && d != ST_F32)) {
            rc = err_set(ERR_FORMAT, "%s: tensor \"%.200s\" of %s cannot be imitated; give --dtype", from->file, from->name,
                         from->dtype_name);
            break;
        }
        struct st_decl *t = list_add(l, d, from->rank);
        memcpy(t->dim, from->dim, sizeof t->dim);
        snprintf(l->name[i], NAME, "%s", from->name);
    }
    st_close(s);
    return rc;
}

/* ---- values ---- */

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16); /* to nearest, ties to even; x is finite */
}

/* |x| < 65504; below 2^-14 subnormal. */
static uint16_t to_f16(float x)
{
    int e;
    uint16_t sign = x < 0 ? 0x8000 : 0;
    float m = frexpf(fabsf(x), &e); /* x = m 2^e, m in [1/2, 1) */
    if (m == 0)
        return sign;
    if (e < -13)
        return (uint16_t)(sign + lrintf(ldexpf(m, e + 24)));
    return (uint16_t)(sign + ((e + 13) << 10) + lrintf(ldexpf(m, 11)));
}

/* Four bytes' sum has mean 510 and variance 4 (256^2 - 1) / 12: scaled to deviation 0.02. */
static float near_normal(uint32_t u)
{
    int sum = (int)(u & 255) + (int)(u >> 8 & 255) + (int)(u >> 16 & 255) + (int)(u >> 24);
    return (float)(sum - 510) * (0.02F / 147.80053F);
}

struct maker {
    float constant; /* for norms and biases */
    bool random;
    enum st_dtype dtype;
    uint32_t key[2], tensor;
};

static void put_value(const struct maker *m, char *to, int64_t i, float v)
{
    uint16_t h = m->dtype == ST_BF16 ? to_bf16(v) : to_f16(v);
    if (m->dtype == ST_F32)
        memcpy(to + 4 * i, &v, 4);
    else
        memcpy(to + 2 * i, &h, 2);
}

/* Elements first .. first + n - 1 of a tensor, first a multiple of 4. */
static void make(const struct maker *m, char *to, int64_t first, int64_t n)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += 4) {
        uint64_t at = (uint64_t)(first + i) / 4;
        uint32_t out[4] = {0};
        if (m->random)
            rng_philox((const uint32_t[4]){(uint32_t)at, (uint32_t)(at >> 32), m->tensor, 0}, m->key, out);
        for (int64_t k = 0; k < 4 && i + k < n; k++)
            put_value(m, to, i + k, m->random ? near_normal(out[k]) : m->constant);
    }
}

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static struct maker maker_of(const struct st_decl *t, int64_t index, uint64_t seed)
{
    struct maker m = {.dtype = t->dtype, .tensor = (uint32_t)index, .key = {(uint32_t)seed, (uint32_t)(seed >> 32)}};
    m.random = t->rank > 1;
    m.constant = ends(t->name, "bias") ? 0 : 1; /* vectors are norms' weights, or biases */
    return m;
}

static int64_t elements(const struct st_decl *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

/* ---- files ---- */

struct job {
    const struct random_ckpt *r;
    struct list list;
    int64_t *shard; /* (n,) each tensor's */
    double total;   /* bytes */
    double done;
    struct progress progress;
    char *piece;
};

/* Contiguous shards of nearly equal bytes, none empty. */
static int cut(struct job *j)
{
    double before = 0;
    int64_t n = j->list.n, shards = j->r->shards, last = 0;
    if (shards > n)
        return err_set(ERR_ARG, "%lld shards of %lld tensors: at most one shard a tensor", (long long)shards, (long long)n);
    for (int64_t i = 0; i < n; i++)
        j->total += (double)elements(&j->list.t[i]) * (double)st_dtype_size(j->list.t[i].dtype);
    for (int64_t i = 0; i < n; i++) {
        int64_t want = (int64_t)(before / j->total * (double)shards);
        if (i > 0 && want > last)
            last++;
        if (n - i < shards - last) /* as many tensors as shards are left: one each */
            last = shards - (n - i);
        j->shard[i] = last;
        before += (double)elements(&j->list.t[i]) * (double)st_dtype_size(j->list.t[i].dtype);
    }
    return ERR_OK;
}

static void shard_name(const struct job *j, int64_t shard, char out[64])
{
    if (j->r->shards == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05lld-of-%05lld.safetensors", (long long)shard + 1, (long long)j->r->shards);
}

static int write_tensor(struct job *j, struct st_writer *w, int64_t index)
{
    const struct st_decl *t = &j->list.t[index];
    struct maker m = maker_of(t, index, j->r->seed);
    int64_t n = elements(t), size = (int64_t)st_dtype_size(t->dtype);
    int rc = ERR_OK;
    for (int64_t at = 0; rc == ERR_OK && at < n; at += PIECE) {
        int64_t some = n - at < PIECE ? n - at : PIECE;
        make(&m, j->piece, at, some);
        rc = st_append(w, j->piece, (size_t)(some * size));
        j->done += (double)(some * size);
        progress_update(&j->progress, j->done, t->name);
    }
    return rc;
}

static int write_shard(struct job *j, int64_t shard)
{
    static const char *const meta[] = {"format", "pt"};
    struct st_writer *w = NULL;
    char name[64], path[FILE_PATH];
    int64_t first = 0, n = 0;
    while (j->shard[first] < shard)
        first++;
    while (first + n < j->list.n && j->shard[first + n] == shard)
        n++;
    shard_name(j, shard, name);
    int rc = file_join(path, j->r->folder, name);
    rc = rc ? rc : st_create(&w, path, j->list.t + first, n, meta, 1);
    for (int64_t i = first; rc == ERR_OK && i < first + n; i++)
        rc = write_tensor(j, w, i);
    if (rc == ERR_OK)
        return st_commit(w);
    st_abort(w);
    return rc;
}

static int write_text(const struct job *j, const char *name, const struct buf *text)
{
    char path[FILE_PATH];
    int rc = file_join(path, j->r->folder, name);
    return rc ? rc : file_write_durable(path, buf_text(text), text->len);
}

static int write_index(const struct job *j)
{
    struct buf b = {0};
    char name[64];
    int rc = buf_printf(&b, "{\n  \"metadata\": {\"total_size\": %.0f},\n  \"weight_map\": {", j->total);
    for (int64_t i = 0; rc == ERR_OK && i < j->list.n; i++) {
        shard_name(j, j->shard[i], name);
        rc = buf_puts(&b, i ? ",\n    " : "\n    ");
        rc = rc ? rc : json_quote(&b, j->list.name[i], strlen(j->list.name[i]));
        rc = rc ? rc : buf_printf(&b, ": \"%s\"", name);
    }
    rc = rc ? rc : buf_puts(&b, "\n  }\n}\n");
    rc = rc ? rc : write_text(j, "model.safetensors.index.json", &b);
    buf_free(&b);
    return rc;
}

static int write_config(const struct job *j)
{
    const struct random_shape *s = &j->r->shape;
    const char *dtype = j->r->dtype == ST_BF16 ? "bfloat16" : j->r->dtype == ST_F16 ? "float16" : "float32";
    struct buf b = {0};
    int rc = buf_printf(&b,
                        "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n"
                        "  \"vocab_size\": %lld,\n  \"hidden_size\": %lld,\n  \"intermediate_size\": %lld,\n"
                        "  \"num_hidden_layers\": %lld,\n  \"num_attention_heads\": %lld,\n  \"num_key_value_heads\": %lld,\n"
                        "  \"head_dim\": %lld,\n  \"max_position_embeddings\": %lld,\n  \"rope_theta\": %.17g,\n"
                        "  \"rms_norm_eps\": 1e-05,\n  \"hidden_act\": \"silu\",\n  \"attention_bias\": false,\n"
                        "  \"mlp_bias\": false,\n  \"tie_word_embeddings\": %s,\n  \"initializer_range\": 0.02,\n"
                        "  \"bos_token_id\": 0,\n  \"eos_token_id\": 0,\n  \"torch_dtype\": \"%s\"\n}\n",
                        (long long)s->vocab, (long long)s->hidden, (long long)s->mlp, (long long)s->layers, (long long)s->heads,
                        (long long)s->kv_heads, (long long)s->head_dim, (long long)s->positions, s->rope_theta,
                        s->tied ? "true" : "false", dtype);
    rc = rc ? rc : write_text(j, "config.json", &b);
    buf_free(&b);
    return rc;
}

/* Copies the file if it is there. */
static int copy_file(const char *from, const char *to, const char *name)
{
    char a[FILE_PATH], b[FILE_PATH];
    int rc = file_join(a, from, name);
    rc = rc ? rc : file_join(b, to, name);
    return rc || !file_exists(a) ? rc : file_copy(a, b);
}

static int copy_tokenizer(const struct random_ckpt *r)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
                                        "merges.txt"};
    const char *from = r->tokenizer ? r->tokenizer : r->like;
    int rc = ERR_OK;
    if (r->tokenizer && !file_is_folder(r->tokenizer))
        return err_set(ERR_ARG, "%s: is not a folder; name the folder that holds tokenizer.json", r->tokenizer);
    for (size_t i = 0; from && rc == ERR_OK && i < sizeof names / sizeof *names; i++)
        rc = copy_file(from, r->folder, names[i]);
    return rc;
}

static int refuse_used_folder(const char *folder)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "config.json"};
    char path[FILE_PATH];
    int rc = ERR_OK;
    for (int i = 0; rc == ERR_OK && i < 3; i++) {
        rc = file_join(path, folder, names[i]);
        if (rc == ERR_OK && file_exists(path))
            rc = err_set(ERR_ARG, "%s: is there already and is not overwritten; name another folder", path);
    }
    return rc;
}

static int write_all(struct job *j)
{
    const struct random_ckpt *r = j->r;
    int rc = file_make_folders(r->folder);
    rc = rc ? rc : file_space(r->folder, j->total);
    progress_begin(&j->progress, "random weights", j->total);
    for (int64_t i = 0; rc == ERR_OK && i < r->shards; i++)
        rc = write_shard(j, i);
    progress_end(&j->progress);
    rc = rc ? rc : r->shards > 1 ? write_index(j) : ERR_OK;
    rc = rc ? rc : copy_tokenizer(r);
    return rc ? rc : r->like ? copy_file(r->like, r->folder, "config.json") : write_config(j);
}

int random_write(const struct random_ckpt *r, int64_t *n_params, size_t *bytes)
{
    struct job j = {.r = r};
    int rc = refuse_used_folder(r->folder);
    rc = rc ? rc : r->like ? list_like(&j.list, r) : list_llama(&j.list, &r->shape, r->dtype);
    if (rc)
        goto out;
    j.shard = calloc((size_t)j.list.n + 1, sizeof *j.shard);
    j.piece = malloc((size_t)PIECE * 4);
    rc = j.shard && j.piece ? cut(&j) : err_set(ERR_NOMEM, "out of memory");
    rc = rc ? rc : write_all(&j);
    *n_params = 0;
    for (int64_t i = 0; i < j.list.n; i++)
        *n_params += elements(&j.list.t[i]);
    *bytes = (size_t)j.total;
out:
    list_close(&j.list);
    free(j.shard);
    free(j.piece);
    return rc;
}
