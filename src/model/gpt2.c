/* GPT-2: learned positions, LayerNorm, biases everywhere, Conv1D weights (in, out), q, k and v side by side. */
#include "io/json.h"
#include "model/arch.h"

static const struct model_tensor tensors[] = {
    {PART_EMBED, "wte.weight", 0},
    {PART_POS, "wpe.weight", 0},
    {PART_NORM_W, "ln_f.weight", 0},
    {PART_NORM_B, "ln_f.bias", 0},
    {PART_NORM1_W, "h.%d.ln_1.weight", 0},
    {PART_NORM1_B, "h.%d.ln_1.bias", 0},
    {PART_Q, "h.%d.attn.c_attn.weight", TENSOR_TRANSPOSED | TENSOR_QKV_SIDE},
    {PART_K, "h.%d.attn.c_attn.weight", TENSOR_TRANSPOSED | TENSOR_QKV_SIDE},
    {PART_V, "h.%d.attn.c_attn.weight", TENSOR_TRANSPOSED | TENSOR_QKV_SIDE},
    {PART_Q_B, "h.%d.attn.c_attn.bias", TENSOR_QKV_SIDE},
    {PART_K_B, "h.%d.attn.c_attn.bias", TENSOR_QKV_SIDE},
    {PART_V_B, "h.%d.attn.c_attn.bias", TENSOR_QKV_SIDE},
    {PART_O, "h.%d.attn.c_proj.weight", TENSOR_TRANSPOSED},
    {PART_O_B, "h.%d.attn.c_proj.bias", 0},
    {PART_NORM2_W, "h.%d.ln_2.weight", 0},
    {PART_NORM2_B, "h.%d.ln_2.bias", 0},
    {PART_UP, "h.%d.mlp.c_fc.weight", TENSOR_TRANSPOSED},
    {PART_UP_B, "h.%d.mlp.c_fc.bias", 0},
    {PART_DOWN, "h.%d.mlp.c_proj.weight", TENSOR_TRANSPOSED},
    {PART_DOWN_B, "h.%d.mlp.c_proj.bias", 0},
    {PART_COUNT, NULL, 0},
};

static int shape(const struct json_doc *d, struct model_shape *s)
{
    const struct json *o = json_root(d);
    bool scaled = true;
    *s = (struct model_shape){.norm = MODEL_LAYERNORM, .pos = MODEL_POS_LEARNED, .bos = -1};
    s->qkv_bias = s->o_bias = s->mlp_bias = s->norm_bias = true;
    int rc = json_int_req(d, o, "n_embd", 1, 1 << 20, &s->hidden);
    if (!rc)
        rc = json_int_req(d, o, "n_layer", 1, MODEL_MAX_LAYERS, &s->layers);
    if (!rc)
        rc = json_int_req(d, o, "n_head", 1, s->hidden, &s->heads);
    if (!rc)
        rc = json_int_req(d, o, "vocab_size", 1, 1 << 24, &s->vocab);
    if (!rc)
        rc = json_get(o, "n_positions") ? json_int_req(d, o, "n_positions", 1, 1 << 24, &s->context)
                                        : json_int_req(d, o, "n_ctx", 1, 1 << 24, &s->context);
    if (!rc)
        rc = json_int(d, o, "n_inner", 4 * s->hidden, 1, 1 << 24, &s->mlp);
    if (!rc)
        rc = json_real(d, o, "layer_norm_epsilon", 1e-5, 0, 1, &s->eps);
    if (!rc)
        rc = config_act(d, "activation_function", "gelu_new", &s->act);
    if (!rc)
        rc = json_bool(d, o, "tie_word_embeddings", true, &s->tied);
    if (!rc)
        rc = json_bool(d, o, "scale_attn_weights", true, &scaled);
    if (!rc)
        rc = json_bool(d, o, "scale_attn_by_inverse_layer_idx", false, &s->scale_by_layer);
    s->unscaled = !scaled;
    s->kv_heads = s->heads;
    return rc ? rc : config_dim(d, s);
}

const struct model_arch model_gpt2 = {
    .name = "gpt2",
    .class = "GPT2LMHeadModel",
    .family = "LayerNorm, learned positions, biases, plain MLP",
    .prefix = {"transformer.", "", NULL},
    .head = "lm_head.weight",
    .tensors = tensors,
    .shape = shape,
};
