/* GPT-NeoX (Black et al. 2022) and Pythia: one matrix for queries, keys and values with rows head by head, rotation of
 * a part of each head, attention and MLP side by side. */
#include "family.h"

static const px_row before[] = {
    {"gpt_neox.embed_in.weight", OUTER(embed), SIZE_V, SIZE_C, ALWAYS, AS_IS},
    {0},
};
static const px_row block[] = {
    {"input_layernorm.weight", BLOCK(norm1_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"input_layernorm.bias", BLOCK(norm1_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"attention.query_key_value.weight", BLOCK(qkv_w), SIZE_QKV, SIZE_C, ALWAYS, BY_HEAD},
    {"attention.query_key_value.bias", BLOCK(qkv_b), SIZE_QKV, SIZE_NONE, IF_QKV_BIAS, BY_HEAD},
    {"attention.dense.weight", BLOCK(out_w), SIZE_C, SIZE_Q, ALWAYS, AS_IS},
    {"attention.dense.bias", BLOCK(out_b), SIZE_C, SIZE_NONE, IF_OUT_BIAS, AS_IS},
    {"post_attention_layernorm.weight", BLOCK(norm2_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"post_attention_layernorm.bias", BLOCK(norm2_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"mlp.dense_h_to_4h.weight", BLOCK(up_w), SIZE_I, SIZE_C, ALWAYS, AS_IS},
    {"mlp.dense_h_to_4h.bias", BLOCK(up_b), SIZE_I, SIZE_NONE, ALWAYS, AS_IS},
    {"mlp.dense_4h_to_h.weight", BLOCK(down_w), SIZE_C, SIZE_I, ALWAYS, AS_IS},
    {"mlp.dense_4h_to_h.bias", BLOCK(down_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {0},
};
static const px_row after[] = {
    {"gpt_neox.final_layer_norm.weight", OUTER(norm_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"gpt_neox.final_layer_norm.bias", OUTER(norm_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"embed_out.weight", OUTER(lm_head), SIZE_V, SIZE_C, IF_UNTIED, AS_IS},
    {"score.weight", OUTER(score), SIZE_ONE, SIZE_C, IF_SCALAR, AS_IS},
    {0},
};

static const px_entry entries[] = {
    {"hidden_size", ENTRY_INT, FIELD(hidden_size), 1, PX_MAX_WIDTH, true, NULL},
    {"intermediate_size", ENTRY_INT, FIELD(intermediate_size), 1, 4 * PX_MAX_WIDTH, true, NULL},
    {"num_hidden_layers", ENTRY_INT, FIELD(layers), 1, PX_MAX_LAYERS, true, NULL},
    {"num_attention_heads", ENTRY_INT, FIELD(heads), 1, PX_MAX_WIDTH, true, NULL},
    {"max_position_embeddings", ENTRY_INT, FIELD(max_positions), 1, PX_MAX_POSITIONS, false, NULL},
    {"layer_norm_eps", ENTRY_REAL, FIELD(norm_eps), 1e-12, 1, false, NULL},
    {"hidden_act", ENTRY_ACTIVATION, FIELD(activation), 0, 0, false, NULL},
    {"use_parallel_residual", ENTRY_BOOL, FIELD(parallel_residual), 0, 0, false, NULL},
    {"attention_bias", ENTRY_BOOL, FIELD(attention_bias), 0, 0, false, NULL},
    {"attention_bias", ENTRY_BOOL, FIELD(output_bias), 0, 0, false, NULL},
    {"initializer_range", ENTRY_REAL, FIELD(initializer_range), 0, 1, false, NULL},
    {"attention_dropout", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {"hidden_dropout", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {"classifier_dropout", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {0},
};

const px_family_info px_family_gpt_neox = {
    .type = "gpt_neox",
    .model_class = "GPTNeoX",
    .lm_suffix = "ForCausalLM",
    .base = "gpt_neox.",
    .block_base = "gpt_neox.layers.",
    .before = before,
    .block = block,
    .after = after,
    .entries = entries,
    .traits = {.layernorm = true},
    .square = true,
    .rotary_part = 0.25,
    .theta_key = "rotary_emb_base",
    .part_key = "rotary_pct",
    .biases = BIASES(1, 1, 1) | BIASES(0, 0, 1),
    .defaults = {.max_positions = 2048,
                 .norm_eps = 1e-5,
                 .attention_bias = true,
                 .output_bias = true,
                 .mlp_bias = true,
                 .parallel_residual = true,
                 .activation = PX_GELU_ERF,
                 .bos_id = 0,
                 .eos_ids = {2},
                 .eos_count = 1,
                 .pad_id = -1},
};
