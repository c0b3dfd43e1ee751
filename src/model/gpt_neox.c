/* GPT-NeoX and Pythia: LayerNorm, part of each head rotated, attention and MLP in parallel, q, k and v fused head by head. */
#include "io/json.h"
#include "model/arch.h"

static const struct model_tensor tensors[] = {
    {PART_EMBED, "embed_in.weight", 0},
    {PART_NORM_W, "final_layer_norm.weight", 0},
    {PART_NORM_B, "final_layer_norm.bias", 0},
    {PART_NORM1_W, "layers.%d.input_layernorm.weight", 0},
    {PART_NORM1_B, "layers.%d.input_layernorm.bias", 0},
    {PART_Q, "layers.%d.attention.query_key_value.weight", TENSOR_QKV_HEAD},
    {PART_K, "layers.%d.attention.query_key_value.weight", TENSOR_QKV_HEAD},
    {PART_V, "layers.%d.attention.query_key_value.weight", TENSOR_QKV_HEAD},
    {PART_Q_B, "layers.%d.attention.query_key_value.bias", TENSOR_QKV_HEAD},
    {PART_K_B, "layers.%d.attention.query_key_value.bias", TENSOR_QKV_HEAD},
    {PART_V_B, "layers.%d.attention.query_key_value.bias", TENSOR_QKV_HEAD},
    {PART_O, "layers.%d.attention.dense.weight", 0},
    {PART_O_B, "layers.%d.attention.dense.bias", 0},
    {PART_NORM2_W, "layers.%d.post_attention_layernorm.weight", 0},
    {PART_NORM2_B, "layers.%d.post_attention_layernorm.bias", 0},
    {PART_UP, "layers.%d.mlp.dense_h_to_4h.weight", 0},
    {PART_UP_B, "layers.%d.mlp.dense_h_to_4h.bias", 0},
    {PART_DOWN, "layers.%d.mlp.dense_4h_to_h.weight", 0},
    {PART_DOWN_B, "layers.%d.mlp.dense_4h_to_h.bias", 0},
    {PART_COUNT, NULL, 0},
};

static int sizes(const struct json_doc *d, struct model_shape *s)
{
    const struct json *o = json_root(d);
    int rc = json_int_req(d, o, "hidden_size", 1, 1 << 20, &s->hidden);
    if (!rc)
        rc = json_int_req(d, o, "num_hidden_layers", 1, MODEL_MAX_LAYERS, &s->layers);
    if (!rc)
        rc = json_int_req(d, o, "num_attention_heads", 1, s->hidden, &s->heads);
    if (!rc)
        rc = json_int_req(d, o, "intermediate_size", 1, 1 << 24, &s->mlp);
    if (!rc)
        rc = json_int_req(d, o, "vocab_size", 1, 1 << 24, &s->vocab);
    if (!rc)
        rc = json_int_req(d, o, "max_position_embeddings", 1, 1 << 30, &s->context);
    s->kv_heads = s->heads;
    return rc ? rc : config_dim(d, s);
}

static int shape(const struct json_doc *d, struct model_shape *s)
{
    const struct json *o = json_root(d);
    double theta = 10000, partial = 0.25;
    *s = (struct model_shape){.norm = MODEL_LAYERNORM, .pos = MODEL_POS_ROPE, .mlp_bias = true, .norm_bias = true, .bos = -1};
    int rc = sizes(d, s);
    if (!rc)
        rc = json_real(d, o, "layer_norm_eps", 1e-5, 0, 1, &s->eps);
    if (!rc)
        rc = config_act(d, "hidden_act", "gelu", &s->act);
    if (!rc)
        rc = json_bool(d, o, "tie_word_embeddings", false, &s->tied);
    if (!rc)
        rc = json_bool(d, o, "use_parallel_residual", true, &s->parallel);
    if (!rc)
        rc = json_bool(d, o, "attention_bias", true, &s->qkv_bias);
    if (!rc)
        rc = json_real(d, o, "rotary_pct", 0.25, 0, 1, &partial);
    if (!rc)
        rc = json_real(d, o, "rotary_emb_base", 10000, 1, 1e12, &theta);
    s->o_bias = s->qkv_bias;
    return rc ? rc : rope_read(&s->rope, d, s->dim, s->context, theta, partial);
}

const struct model_arch model_gpt_neox = {
    .name = "gpt_neox",
    .class = "GPTNeoXForCausalLM",
    .family = "LayerNorm, partial rotary embedding, parallel attention and MLP, biases",
    .prefix = {"gpt_neox.", "", NULL},
    .head = "embed_out.weight",
    .tensors = tensors,
    .shape = shape,
};
