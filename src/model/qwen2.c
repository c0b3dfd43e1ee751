/* Qwen 2 and 2.5: Llama's form with biases on q, k and v; later layers may have a sliding window. */
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
    {PART_O, "layers.%d.self_attn.o_proj.weight", 0},
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
    int rc = config_llama(d, s, 10000);
    if (!rc)
        rc = json_bool(d, json_root(d), "use_sliding_window", false, &use);
    if (!rc && use)
        rc = json_int(d, json_root(d), "sliding_window", 4096, 1, 1 << 30, &s->window);
    if (!rc)
        rc = json_int(d, json_root(d), "max_window_layers", 28, 0, 1 << 20, &first);
    s->qkv_bias = true;
    return rc ? rc : config_layer_types(d, s, first);
}

const struct model_arch model_qwen2 = {
    .name = "qwen2",
    .class = "Qwen2ForCausalLM",
    .family = "Llama's form with biases on q, k and v",
    .prefix = {"model.", "", NULL},
    .head = "lm_head.weight",
    .tensors = tensors,
    .shape = shape,
};
