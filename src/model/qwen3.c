/* Qwen 3: Llama's form with an RMSNorm over each head of q and k. */
#include "io/json.h"
#include "model/arch.h"

static const struct model_tensor tensors[] = {
    {PART_EMBED, "embed_tokens.weight", 0},
    {PART_NORM_W, "norm.weight", 0},
    {PART_NORM1_W, "layers.%d.input_layernorm.weight", 0},
    {PART_Q, "layers.%d.self_attn.q_proj.weight", 0},
    {PART_K, "layers.%d.self_attn.k_proj.weight", 0},
    {PART_V, "layers.%d.self_attn.v_proj.weight", 0},
    {PART_Q_B, "layers.%d.self_attn.q_proj.bias", 0},
    {PART_K_B, "layers.%d.self_attn.k_proj.bias", 0},
    {PART_V_B, "layers.%d.self_attn.v_proj.bias", 0},
    {PART_Q_NORM, "layers.%d.self_attn.q_norm.weight", 0},
    {PART_K_NORM, "layers.%d.self_attn.k_norm.weight", 0},
    {PART_O, "layers.%d.self_attn.o_proj.weight", 0},
    {PART_O_B, "layers.%d.self_attn.o_proj.bias", 0},
    {PART_NORM2_W, "layers.%d.post_attention_layernorm.weight", 0},
    {PART_GATE, "layers.%d.mlp.gate_proj.weight", 0},
    {PART_UP, "layers.%d.mlp.up_proj.weight", 0},
    {PART_DOWN, "layers.%d.mlp.down_proj.weight", 0},
    {PART_COUNT, NULL, 0},
};

static int shape(const struct json_doc *d, struct model_shape *s)
{
    bool use = false;
    int64_t first = 0;
    int rc = config_llama(d, s, 1000000);
    if (!rc)
        rc = json_bool(d, json_root(d), "use_sliding_window", false, &use);
    if (!rc && use)
        rc = json_int(d, json_root(d), "sliding_window", 4096, 1, 1 << 30, &s->window);
    if (!rc)
        rc = json_int(d, json_root(d), "max_window_layers", 28, 0, 1 << 20, &first);
    if (!rc)
        rc = json_bool(d, json_root(d), "attention_bias", false, &s->qkv_bias);
    s->o_bias = s->qkv_bias;
    s->qk_norm = true;
    return rc ? rc : config_layer_types(d, s, first);
}

const struct model_arch model_qwen3 = {
    .name = "qwen3",
    .class = "Qwen3ForCausalLM",
    .family = "Llama's form with normed queries and keys",
    .prefix = {"model.", "", NULL},
    .head = "lm_head.weight",
    .tensors = tensors,
    .shape = shape,
};
