/* A model folder explained. */
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/arch.h"
#include "model/weights.h"

static const char *act_name(enum model_act a)
{
    static const char *const names[] = {
        [MODEL_SILU] = "SiLU", [MODEL_GELU] = "GELU", [MODEL_GELU_TANH] = "GELU (tanh form)", [MODEL_RELU] = "ReLU"};
    return names[a];
}

static int say_attention(struct buf *out, const struct model_shape *s)
{
    int64_t windowed = 0;
    for (int64_t l = 0; l < s->layers; l++)
        windowed += s->window > 0 && !s->full[l];
    int rc = buf_printf(out, "  attention    %lld heads of %lld, %lld key/value heads%s%s%s\n", (long long)s->heads,
                        (long long)s->dim, (long long)s->kv_heads, s->qk_norm ? ", queries and keys normed" : "",
                        s->qkv_bias ? ", biases" : "", s->parallel ? ", parallel to the MLP" : "");
    if (!rc && windowed)
        rc = buf_printf(out, "  window       %lld keys in %lld of %lld layers\n", (long long)s->window, (long long)windowed,
                        (long long)s->layers);
    return rc;
}

static int say_positions(struct buf *out, const struct model_shape *s)
{
    const struct rope *r = &s->rope;
    if (s->pos == MODEL_POS_LEARNED)
        return buf_printf(out, "  positions    learned, %lld\n", (long long)s->context);
    int rc = buf_printf(out, "  positions    rotary, %s, theta %g, %lld of %lld dims", rope_name(r->kind), r->theta,
                        (long long)r->rot, (long long)s->dim);
    if (!rc && r->kind != ROPE_DEFAULT)
        rc = buf_printf(out, ", factor %g over %lld positions", r->factor, (long long)r->original);
    if (!rc && r->attention > 1)
        rc = buf_printf(out, ", attention factor %.4f", r->attention);
    return rc ? rc : buf_printf(out, "\n  context      %lld tokens\n", (long long)s->context);
}

static int say_sizes(struct buf *out, const struct model_arch *a, const struct model_shape *s, const struct safetensors *st)
{
    struct model_cut all;
    char f32[32], bf16[32], file[32], kv[32];
    int rc = model_cut_for(&all, s, 0, 1, "");
    if (rc)
        return rc;
    log_bytes((double)weights_bytes(s, &all, KERN_F32), f32, sizeof f32);
    log_bytes((double)weights_bytes(s, &all, KERN_BF16), bf16, sizeof bf16);
    log_bytes((double)st_file_bytes(st), file, sizeof file);
    log_bytes(2.0 * 4 * 1000 * (double)(s->layers * s->kv_heads * s->dim), kv, sizeof kv);
    rc = buf_printf(out, "  parameters   %.1f million in %lld tensors, stored as %s, %s\n", (double)weights_count(a, s) / 1e6,
                    (long long)st_count(st), st_at(st, 0)->dtype_name, file);
    return rc ? rc
              : buf_printf(out, "  memory       weights %s as f32, %s as bf16; keys and values of 1000 tokens %s as f32\n", f32,
                           bf16, kv);
}

/* Where texts begin and end, and which file says so: a wrong BOS policy shifts every score. */
static int say_vocabulary(struct buf *out, const struct model_shape *s)
{
    int rc = buf_printf(out, "  vocabulary   %lld tokens, head %s\n", (long long)s->vocab,
                        s->tied ? "tied to the embedding" : "of its own");
    if (!rc)
        rc = s->bos < 0 ? buf_puts(out, "  bos          none\n")
                        : buf_printf(out, "  bos          %lld, says %s; put in front where a task's or protocol's `bos` says so\n",
                                     (long long)s->bos, s->bos_from);
    if (!rc)
        rc = buf_puts(out, s->n_eos ? "  eos          " : "  eos          none: generation ends at its limit only");
    for (int64_t i = 0; !rc && i < s->n_eos; i++)
        rc = buf_printf(out, "%s%lld", i ? ", " : "", (long long)s->eos[i]);
    if (!rc && s->n_eos)
        rc = buf_printf(out, ", says %s", s->eos_from);
    return rc ? rc : buf_puts(out, "\n");
}

static int say(struct buf *out, const char *path, const struct model_arch *a, const struct model_shape *s,
               const struct safetensors *st)
{
    int rc = buf_printf(out, "%s: a model\n  architecture %s (%s)\n", path, a->name, a->family);
    if (!rc)
        rc = buf_printf(out, "  layers       %lld of width %lld, MLP %lld, %s%s, %s with eps %g\n", (long long)s->layers,
                        (long long)s->hidden, (long long)s->mlp, act_name(s->act), s->gated ? ", gated" : "",
                        s->norm == MODEL_RMSNORM ? "RMSNorm" : "LayerNorm", s->eps);
    if (!rc)
        rc = say_attention(out, s);
    if (!rc)
        rc = say_positions(out, s);
    rc = rc ? rc : say_vocabulary(out, s);
    return rc ? rc : say_sizes(out, a, s, st);
}

/* Why it cannot be evaluated: everything config.json asks for that is not computed here, not only the first. */
static int say_unsupported(struct buf *out, const struct json_doc *config, const char *path, int rc)
{
    struct buf list = {0};
    int n = 0;
    if (rc != ERR_FORMAT || !config || json_kind(json_root(config)) != JSON_OBJECT || config_unsupported(config, &list, &n)) {
        buf_free(&list);
        return rc;
    }
    const struct json *type = json_get(json_root(config), "model_type");
    if (buf_printf(out, "%s: a model that cannot be evaluated here\n  architecture %s\n%s", path,
                   type && json_str(type) ? json_str(type) : "?", buf_text(&list)))
        buf_clear(out);
    buf_free(&list);
    return rc;
}

int model_describe(struct buf *out, const char *path)
{
    char file[FILE_PATH];
    struct json_doc *config = NULL;
    struct safetensors *st = NULL;
    const struct model_arch *a;
    struct model_shape s;
    int rc = file_join(file, path, "config.json");
    if (!rc)
        rc = json_read(&config, file);
    if (!rc)
        rc = config_shape(config, &a, &s);
    if (!rc)
        rc = config_generation(path, &s);
    if (!rc)
        rc = st_open(&st, path);
    if (!rc)
        rc = weights_check(a, &s, st, path);
    if (!rc)
        rc = say(out, path, a, &s, st);
    if (!rc)
        rc = buf_puts(out, "  unsupported  nothing that its config.json asks for\n");
    else
        rc = say_unsupported(out, config, path, rc);
    st_close(st);
    json_close(config);
    return rc;
}
