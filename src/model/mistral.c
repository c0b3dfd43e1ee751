/* Mistral: Llama's form, every layer with a sliding window (v0.1) or none (later). */
#include "io/json.h"
#include "model/arch.h"

static const struct model_tensor tensors[] = {
    {PART_EMBED, "embed_tokens.weight", 0},
    {PART_NORM_W, "norm.weight", 0},
    {PART_NORM1_W, "layers.%d.input_layernorm.weight", 0},
    {PART_Q, "layers.%d.self_attn.q_proj.weight", 0},
    {PART_K, "layers.%d.self_attn.k_proj.weight", 0},
    {PART_V, "layers.%d.self_attn.v_proj.weight", 0},
    {PART_O, "layers.%d.self_attn.o_proj.weight", 0},
    {PART_NORM2_W, "layers.%d.post_attention_layernorm.weight", 0},
    {PART_GATE, "layers.%d.mlp.gate_proj.weight", 0},
    {PART_UP, "layers.%d.mlp.up_proj.weight", 0},
    {PART_DOWN, "layers.%d.mlp.down_proj.weight", 0},
    {PART_COUNT, NULL, 0},
};

static int shape(const struct json_doc *d, struct model_shape *s)
{
    int rc = config_llama(d, s, 10000);
    if (!rc)
        rc = json_int(d, json_root(d), "sliding_window", 0, 1, 1 << 30, &s->window);
    return rc ? rc : config_layer_types(d, s, 0);
}

const struct model_arch model_mistral = {
    .name = "mistral",
    .class = "MistralForCausalLM",
    .family = "Llama's form with a sliding attention window",
    .prefix = {"model.", "", NULL},
    .head = "lm_head.weight",
    .tensors = tensors,
    .shape = shape,
};
