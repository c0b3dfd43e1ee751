/* config.json -> architecture and shape. What changes the mathematics and is not known here is refused: a model that is
 * evaluated without its soft cap or its experts gives numbers that look right. */
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "cfg/cfg.h"
#include "io/json.h"
#include "model/arch.h"

#define MODEL_ARCH(n) extern const struct model_arch model_##n;
#include "model/archs.def"
#undef MODEL_ARCH

static const struct model_arch *const archs[] = {
#define MODEL_ARCH(n) &model_##n,
#include "model/archs.def"
#undef MODEL_ARCH
};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

const struct model_arch *arch_at(int i)
{
    return i >= 0 && i < N_ARCHS ? archs[i] : NULL;
}

/* Keys of architectures that this transformer cannot express. A value that means "off" (null, false, 0, 1.0 for
 * multipliers, "" or an empty list) is let pass. */
static const char *const refused[] = {"quantization_config",
                                      "num_local_experts",
                                      "num_experts",
                                      "n_routed_experts",
                                      "num_experts_per_tok",
                                      "moe_intermediate_size",
                                      "attn_logit_softcapping",
                                      "final_logit_softcapping",
                                      "query_pre_attn_scalar",
                                      "logit_scale",
                                      "logits_scaling",
                                      "embedding_multiplier",
                                      "residual_multiplier",
                                      "attention_multiplier",
                                      "scale_emb",
                                      "scale_depth",
                                      "dim_model_base",
                                      "clip_qkv",
                                      "qk_layernorm",
                                      "use_qk_norm",
                                      "alibi",
                                      "attention_chunk_size",
                                      "attn_temperature_tuning",
                                      "no_rope_layers",
                                      "no_rope_layer_interval",
                                      "q_lora_rank",
                                      "kv_lora_rank",
                                      "add_cross_attention",
                                      "is_encoder_decoder",
                                      "use_mrope",
                                      "mamba_d_state",
                                      "layer_norm_type",
                                      "position_embedding_type",
                                      "vision_config",
                                      "text_config",
                                      "attention_sink",
                                      "num_nextn_predict_layers"};

static bool is_off(const struct json *v)
{
    double x;
    bool b;
    switch (json_kind(v)) {
    case JSON_NULL: return true;
    case JSON_BOOL: return json_as_bool(v, &b) && !b;
    case JSON_INT:
    case JSON_REAL: return json_as_real(v, &x) && (x == 0 || x == 1);
    case JSON_STRING:
    case JSON_ARRAY:
    case JSON_OBJECT: return json_len(v) == 0;
    }
    return false;
}

static int refuse_unknown(const struct json_doc *d)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const struct json *v = json_get(json_root(d), refused[i]);
        if (v && !is_off(v))
            return err_set(ERR_FORMAT, "%s: %s changes the mathematics of the model and is not computed here", json_name(d),
                           refused[i]);
    }
    return ERR_OK;
}

int config_unsupported(const struct json_doc *d, struct buf *out, int *n)
{
    int rc = ERR_OK;
    *n = 0;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0] && !rc; i++) {
        const struct json *v = json_get(json_root(d), refused[i]);
        double x;
        if (!v || is_off(v))
            continue;
        ++*n;
        if (json_as_real(v, &x))
            rc = buf_printf(out, "  unsupported  %s = %g\n", refused[i], x);
        else if (json_str(v))
            rc = buf_printf(out, "  unsupported  %s = \"%.60s\"\n", refused[i], json_str(v));
        else
            rc = buf_printf(out, "  unsupported  %s\n", refused[i]);
    }
    return rc;
}

static int find_arch(const struct json_doc *d, const struct model_arch **out)
{
    const char *type = NULL, *names[N_ARCHS];
    int rc = json_string(d, json_root(d), "model_type", NULL, &type);
    if (rc)
        return rc;
    struct buf list = {0};
    for (int i = 0; i < N_ARCHS; i++) {
        names[i] = archs[i]->name;
        buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
        if (type && !strcmp(type, names[i]))
            *out = archs[i];
    }
    if (!type)
        rc = err_set(ERR_FORMAT, "%s: model_type is missing; there are: %s", json_name(d), buf_text(&list));
    else if (!*out)
        rc = err_set(ERR_FORMAT, "%s: model_type \"%s\" is not an architecture that is computed here; there are: %s", json_name(d),
                     type, buf_text(&list));
    buf_free(&list);
    return rc;
}

/* architectures[0], if given, must be the language model: a classifier has no vocabulary head. */
static int check_class(const struct json_doc *d, const struct model_arch *a)
{
    const struct json *v = json_get(json_root(d), "architectures");
    if (!v)
        return ERR_OK;
    const char *class = json_kind(v) == JSON_ARRAY && json_len(v) > 0 ? json_str(json_at(v, 0)) : NULL;
    if (!class)
        return err_set(ERR_FORMAT, "%s: architectures must be a list that begins with a string", json_name(d));
    if (strcmp(class, a->class))
        return err_set(ERR_FORMAT, "%s: architectures[0] is \"%s\"; for model_type %s only \"%s\" is evaluated", json_name(d),
                       class, a->name, a->class);
    return ERR_OK;
}

/* An int, or a list of them. */
int config_eos(const struct json_doc *d, struct model_shape *out)
{
    const struct json *v = json_get(json_root(d), "eos_token_id");
    int64_t id, n = v && json_kind(v) == JSON_ARRAY ? json_len(v) : v ? 1 : 0;
    if (n > MODEL_MAX_EOS)
        return err_set(ERR_FORMAT, "%s: eos_token_id lists %lld tokens, at most %d are kept", json_name(d), (long long)n,
                       MODEL_MAX_EOS);
    for (int64_t i = 0; i < n; i++) {
        const struct json *e = json_kind(v) == JSON_ARRAY ? json_at(v, i) : v;
        if (!json_as_int(e, &id) || id < 0 || id >= out->vocab)
            return err_set(ERR_FORMAT, "%s: eos_token_id must be a token from 0 to %lld, or a list of them", json_name(d),
                           (long long)out->vocab - 1);
        out->eos[out->n_eos++] = id;
    }
    out->eos_from = out->n_eos ? "config.json" : "";
    int rc = json_int(d, json_root(d), "bos_token_id", -1, -1, out->vocab - 1, &out->bos);
    out->bos_from = !rc && out->bos >= 0 ? "config.json" : "";
    return rc;
}

static int check_shape(const struct json_doc *d, const struct model_shape *s)
{
    if (s->heads % s->kv_heads)
        return err_set(ERR_FORMAT, "%s: %lld attention heads cannot share %lld key/value heads evenly", json_name(d),
                       (long long)s->heads, (long long)s->kv_heads);
    if (s->dim % 2)
        return err_set(ERR_FORMAT, "%s: heads of width %lld; an even width is needed", json_name(d), (long long)s->dim);
    if (s->dim > KERN_MAX_DIM)
        return err_set(ERR_FORMAT, "%s: heads of width %lld; at most %d is computed here", json_name(d), (long long)s->dim,
                       KERN_MAX_DIM);
    if (s->pos == MODEL_POS_ROPE && s->rope.rot > s->dim)
        return err_set(ERR_FORMAT, "%s: %lld rotated dims in heads of %lld", json_name(d), (long long)s->rope.rot,
                       (long long)s->dim);
    return ERR_OK;
}

int config_shape(const struct json_doc *d, const struct model_arch **arch, struct model_shape *out)
{
    *arch = NULL;
    *out = (struct model_shape){.bos = -1};
    if (json_kind(json_root(d)) != JSON_OBJECT)
        return err_set(ERR_FORMAT, "%s: an object is needed", json_name(d));
    int rc = find_arch(d, arch);
    if (!rc)
        rc = check_class(d, *arch);
    if (!rc)
        rc = refuse_unknown(d);
    if (!rc)
        rc = (*arch)->shape(d, out);
    if (!rc)
        rc = config_eos(d, out);
    return rc ? rc : check_shape(d, out);
}

int config_act(const struct json_doc *d, const char *key, const char *def, enum model_act *out)
{
    static const struct {
        const char *word;
        enum model_act act;
    } known[] = {{"silu", MODEL_SILU},
                 {"swish", MODEL_SILU},
                 {"gelu", MODEL_GELU},
                 {"gelu_new", MODEL_GELU_TANH},
                 {"gelu_pytorch_tanh", MODEL_GELU_TANH},
                 {"gelu_fast", MODEL_GELU_TANH},
                 {"relu", MODEL_RELU}};
    const char *word = NULL;
    int rc = json_string(d, json_root(d), key, def, &word);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(word, known[i].word)) {
            *out = known[i].act;
            return ERR_OK;
        }
    return err_set(ERR_FORMAT,
                   "%s: %s = \"%s\" is not an activation that is computed here: silu, gelu, gelu_new, gelu_pytorch_tanh, relu",
                   json_name(d), key, word);
}

int config_dim(const struct json_doc *d, struct model_shape *out)
{
    if (out->hidden % out->heads)
        return err_set(ERR_FORMAT, "%s: a hidden size of %lld is not a multiple of %lld heads", json_name(d),
                       (long long)out->hidden, (long long)out->heads);
    out->dim = out->hidden / out->heads;
    return ERR_OK;
}

int config_layer_types(const struct json_doc *d, struct model_shape *out, int64_t first)
{
    const struct json *v = json_get(json_root(d), "layer_types");
    if (v && (json_kind(v) != JSON_ARRAY || json_len(v) != out->layers))
        return err_set(ERR_FORMAT, "%s: layer_types must list one word for each of the %lld layers", json_name(d),
                       (long long)out->layers);
    for (int64_t l = 0; l < out->layers; l++) {
        const char *word = v ? json_str(json_at(v, l)) : l >= first ? "sliding_attention" : "full_attention";
        if (!word || (strcmp(word, "full_attention") && strcmp(word, "sliding_attention")))
            return err_set(ERR_FORMAT, "%s: layer_types[%lld] = \"%s\" is not full_attention or sliding_attention", json_name(d),
                           (long long)l, word ? word : "(not a string)");
        out->full[l] = !strcmp(word, "full_attention");
        if (!out->full[l] && v && out->window <= 0)
            return err_set(ERR_FORMAT, "%s: layer_types[%lld] is sliding_attention but no sliding window is set", json_name(d),
                           (long long)l);
    }
    return ERR_OK;
}

static int llama_sizes(const struct json_doc *d, struct model_shape *s)
{
    const struct json *o = json_root(d);
    int rc = json_int_req(d, o, "hidden_size", 1, 1 << 20, &s->hidden);
    if (!rc)
        rc = json_int_req(d, o, "intermediate_size", 1, 1 << 24, &s->mlp);
    if (!rc)
        rc = json_int_req(d, o, "num_hidden_layers", 1, MODEL_MAX_LAYERS, &s->layers);
    if (!rc)
        rc = json_int_req(d, o, "num_attention_heads", 1, 1 << 16, &s->heads);
    if (!rc)
        rc = json_int_req(d, o, "vocab_size", 1, 1 << 24, &s->vocab);
    if (!rc)
        rc = json_int_req(d, o, "max_position_embeddings", 1, 1 << 30, &s->context);
    if (!rc)
        rc = json_int(d, o, "num_key_value_heads", s->heads, 1, s->heads, &s->kv_heads);
    if (!rc && !json_get(o, "head_dim") && s->hidden % s->heads)
        rc = err_set(ERR_FORMAT, "%s: hidden_size %lld is not a multiple of %lld heads and head_dim is not given", json_name(d),
                     (long long)s->hidden, (long long)s->heads);
    if (!rc)
        rc = json_int(d, o, "head_dim", s->hidden / s->heads, 1, 1 << 16, &s->dim);
    return rc;
}

int config_llama(const struct json_doc *d, struct model_shape *s, double def_theta)
{
    const struct json *o = json_root(d);
    s->norm = MODEL_RMSNORM;
    s->pos = MODEL_POS_ROPE;
    s->gated = true;
    int rc = llama_sizes(d, s);
    if (!rc)
        rc = json_real(d, o, "rms_norm_eps", 1e-6, 0, 1, &s->eps);
    if (!rc)
        rc = config_act(d, "hidden_act", "silu", &s->act);
    if (!rc)
        rc = json_bool(d, o, "tie_word_embeddings", false, &s->tied);
    if (!rc)
        rc = rope_read(&s->rope, d, s->dim, s->context, def_theta, 1);
    if (!rc && s->rope.rot != s->dim)
        rc = err_set(ERR_FORMAT, "%s: partial_rotary_factor other than 1 is not part of this architecture", json_name(d));
    return rc;
}
