/* OPT (Zhang et al. 2022): learned positions from the table's third row on, ReLU. The 350m model norms after its
 * residuals and embeds in a narrower space, and is refused. */
#include "family.h"

static const px_row before[] = {
    {"model.decoder.embed_tokens.weight", OUTER(embed), SIZE_V, SIZE_C, ALWAYS, AS_IS},
    {"model.decoder.embed_positions.weight", OUTER(position), SIZE_P, SIZE_C, ALWAYS, AS_IS},
    {0},
};
static const px_row block[] = {
    {"self_attn_layer_norm.weight", BLOCK(norm1_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"self_attn_layer_norm.bias", BLOCK(norm1_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"self_attn.q_proj.weight", BLOCK(qkv_w), SIZE_Q, SIZE_C, ALWAYS, AS_IS},
    {"self_attn.k_proj.weight", JOINED, SIZE_KV, SIZE_C, ALWAYS, AS_IS},
    {"self_attn.v_proj.weight", JOINED, SIZE_KV, SIZE_C, ALWAYS, AS_IS},
    {"self_attn.q_proj.bias", BLOCK(qkv_b), SIZE_Q, SIZE_NONE, IF_QKV_BIAS, AS_IS},
    {"self_attn.k_proj.bias", JOINED, SIZE_KV, SIZE_NONE, IF_QKV_BIAS, AS_IS},
    {"self_attn.v_proj.bias", JOINED, SIZE_KV, SIZE_NONE, IF_QKV_BIAS, AS_IS},
    {"self_attn.out_proj.weight", BLOCK(out_w), SIZE_C, SIZE_Q, ALWAYS, AS_IS},
    {"self_attn.out_proj.bias", BLOCK(out_b), SIZE_C, SIZE_NONE, IF_OUT_BIAS, AS_IS},
    {"final_layer_norm.weight", BLOCK(norm2_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"final_layer_norm.bias", BLOCK(norm2_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"fc1.weight", BLOCK(up_w), SIZE_I, SIZE_C, ALWAYS, AS_IS},
    {"fc1.bias", BLOCK(up_b), SIZE_I, SIZE_NONE, IF_MLP_BIAS, AS_IS},
    {"fc2.weight", BLOCK(down_w), SIZE_C, SIZE_I, ALWAYS, AS_IS},
    {"fc2.bias", BLOCK(down_b), SIZE_C, SIZE_NONE, IF_MLP_BIAS, AS_IS},
    {0},
};
static const px_row after[] = {
    {"model.decoder.final_layer_norm.weight", OUTER(norm_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"model.decoder.final_layer_norm.bias", OUTER(norm_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"lm_head.weight", OUTER(lm_head), SIZE_V, SIZE_C, IF_UNTIED, AS_IS},
    {"score.weight", OUTER(score), SIZE_ONE, SIZE_C, IF_SCALAR, AS_IS},
    {0},
};

static const px_entry entries[] = {
    {"hidden_size", ENTRY_INT, FIELD(hidden_size), 1, PX_MAX_WIDTH, true, NULL},
    {"ffn_dim", ENTRY_INT, FIELD(intermediate_size), 1, 4 * PX_MAX_WIDTH, true, NULL},
    {"num_hidden_layers", ENTRY_INT, FIELD(layers), 1, PX_MAX_LAYERS, true, NULL},
    {"num_attention_heads", ENTRY_INT, FIELD(heads), 1, PX_MAX_WIDTH, true, NULL},
    {"max_position_embeddings", ENTRY_INT, FIELD(max_positions), 1, PX_MAX_POSITIONS, false, NULL},
    {"activation_function", ENTRY_ACTIVATION, FIELD(activation), 0, 0, false, NULL},
    {"enable_bias", ENTRY_BOOL, FIELD(attention_bias), 0, 0, false, NULL},
    {"enable_bias", ENTRY_BOOL, FIELD(output_bias), 0, 0, false, NULL},
    {"enable_bias", ENTRY_BOOL, FIELD(mlp_bias), 0, 0, false, NULL},
    {"init_std", ENTRY_REAL, FIELD(initializer_range), 0, 1, false, NULL},
    {"word_embed_proj_dim", ENTRY_SAME, FIELD(hidden_size), 0, 0, false,
     "hidden_size (projections around a narrower embedding are not supported)"},
    {"do_layer_norm_before", ENTRY_NEEDS, 0, 1, 0, false, "norms after the residual are not supported"},
    {"_remove_final_layer_norm", ENTRY_NEEDS, 0, 0, 0, false, "a body without its final norm is not supported"},
    {"layer_norm_elementwise_affine", ENTRY_NEEDS, 0, 1, 0, false, "norms without weights are not supported"},
    {"attention_dropout", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {"dropout", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {"layerdrop", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {0},
};

const px_family_info px_family_opt = {
    .type = "opt",
    .model_class = "OPT",
    .lm_suffix = "ForCausalLM",
    .base = "model.",
    .block_base = "model.decoder.layers.",
    .before = before,
    .block = block,
    .after = after,
    .entries = entries,
    .traits = {.layernorm = true, .learned_positions = true, .position_offset = 2},
    .square = true,
    .biases = BIASES(1, 1, 1) | BIASES(0, 0, 0),
    .defaults = {.tied = true,
                 .max_positions = 2048,
                 .norm_eps = 1e-5, /* no key: PyTorch's */
                 .attention_bias = true,
                 .output_bias = true,
                 .mlp_bias = true,
                 .activation = PX_RELU,
                 .bos_id = 2,
                 .eos_ids = {2},
                 .eos_count = 1,
                 .pad_id = 1},
};
