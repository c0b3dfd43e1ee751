/* Llama 1 to 3 and what shares its form (SmolLM, TinyLlama, ...): RMSNorm, rotary embedding, grouped heads, gated MLP. */
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
    {PART_Q_B, "layers.%d.self_attn.q_proj.bias", 0},
    {PART_K_B, "layers.%d.self_attn.k_proj.bias", 0},
    {PART_V_B, "layers.%d.self_attn.v_proj.bias", 0},
    {PART_O_B, "layers.%d.self_attn.o_proj.bias", 0},
    {PART_NORM2_W, "layers.%d.post_attention_layernorm.weight", 0},
    {PART_GATE, "layers.%d.mlp.gate_proj.weight", 0},
    {PART_UP, "layers.%d.mlp.up_proj.weight", 0},
    {PART_DOWN, "layers.%d.mlp.down_proj.weight", 0},
    {PART_GATE_B, "layers.%d.mlp.gate_proj.bias", 0},
    {PART_UP_B, "layers.%d.mlp.up_proj.bias", 0},
    {PART_DOWN_B, "layers.%d.mlp.down_proj.bias", 0},
    {PART_COUNT, NULL, 0},
};

static int shape(const struct json_doc *d, struct model_shape *s)
{
    int rc = config_llama(d, s, 10000);
    if (!rc)
        rc = json_bool(d, json_root(d), "attention_bias", false, &s->qkv_bias);
    if (!rc)
        rc = json_bool(d, json_root(d), "mlp_bias", false, &s->mlp_bias);
    s->o_bias = s->qkv_bias;
    return rc;
}

const struct model_arch model_llama = {
    .name = "llama",
    .class = "LlamaForCausalLM",
    .family = "RMSNorm, rotary embedding, grouped key/value heads, gated MLP",
    .prefix = {"model.", "", NULL},
    .head = "lm_head.weight",
    .tensors = tensors,
    .shape = shape,
};
