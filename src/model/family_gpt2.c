/* GPT-2 (Radford et al. 2019). */
#include "family.h"

static const px_row before[] = {
    {"transformer.wte.weight", OUTER(embed), SIZE_V, SIZE_C, ALWAYS, AS_IS},
    {"transformer.wpe.weight", OUTER(position), SIZE_P, SIZE_C, ALWAYS, AS_IS},
    {0},
};
static const px_row block[] = {
    {"ln_1.weight", BLOCK(norm1_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"ln_1.bias", BLOCK(norm1_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"attn.c_attn.weight", BLOCK(qkv_w), SIZE_QKV, SIZE_C, ALWAYS, TRANSPOSED},
    {"attn.c_attn.bias", BLOCK(qkv_b), SIZE_QKV, SIZE_NONE, ALWAYS, AS_IS},
    {"attn.c_proj.weight", BLOCK(out_w), SIZE_C, SIZE_Q, ALWAYS, TRANSPOSED},
    {"attn.c_proj.bias", BLOCK(out_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"ln_2.weight", BLOCK(norm2_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"ln_2.bias", BLOCK(norm2_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"mlp.c_fc.weight", BLOCK(up_w), SIZE_I, SIZE_C, ALWAYS, TRANSPOSED},
    {"mlp.c_fc.bias", BLOCK(up_b), SIZE_I, SIZE_NONE, ALWAYS, AS_IS},
    {"mlp.c_proj.weight", BLOCK(down_w), SIZE_C, SIZE_I, ALWAYS, TRANSPOSED},
    {"mlp.c_proj.bias", BLOCK(down_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {0},
};
static const px_row after[] = {
    {"transformer.ln_f.weight", OUTER(norm_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"transformer.ln_f.bias", OUTER(norm_b), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"lm_head.weight", OUTER(lm_head), SIZE_V, SIZE_C, IF_UNTIED, AS_IS},
    {"score.weight", OUTER(score), SIZE_ONE, SIZE_C, IF_SCALAR, AS_IS},
    {0},
};

static const px_entry entries[] = {
    {"n_embd", ENTRY_INT, FIELD(hidden_size), 1, PX_MAX_WIDTH, true, NULL},
    {"n_layer", ENTRY_INT, FIELD(layers), 1, PX_MAX_LAYERS, true, NULL},
    {"n_head", ENTRY_INT, FIELD(heads), 1, PX_MAX_WIDTH, true, NULL},
    {"n_inner", ENTRY_INT, FIELD(intermediate_size), 1, 4 * PX_MAX_WIDTH, false, NULL},
    {"n_positions", ENTRY_INT, FIELD(max_positions), 1, PX_MAX_POSITIONS, false, NULL},
    {"layer_norm_epsilon", ENTRY_REAL, FIELD(norm_eps), 1e-12, 1, false, NULL},
    {"activation_function", ENTRY_ACTIVATION, FIELD(activation), 0, 0, false, NULL},
    {"initializer_range", ENTRY_REAL, FIELD(initializer_range), 0, 1, false, NULL},
    {"scale_attn_weights", ENTRY_NEEDS, 0, 1, 0, false, "unscaled attention is not supported"},
    {"scale_attn_by_inverse_layer_idx", ENTRY_NEEDS, 0, 0, 0, false, "scaling by layer is not supported"},
    {"reorder_and_upcast_attn", ENTRY_NEEDS, 0, 0, 0, false, "reordered attention is not supported"},
    {"add_cross_attention", ENTRY_NEEDS, 0, 0, 0, false, "encoder-decoder models are not supported"},
    {"attn_pdrop", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {"embd_pdrop", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {"resid_pdrop", ENTRY_ZERO, 0, 0, 0, false, NULL},
    {0},
};

const px_family_info px_family_gpt2 = {
    .type = "gpt2",
    .model_class = "GPT2",
    .lm_suffix = "LMHeadModel",
    .base = "transformer.",
    .block_base = "transformer.h.",
    .before = before,
    .block = block,
    .after = after,
    .entries = entries,
    .traits = {.layernorm = true, .learned_positions = true},
    .square = true,
    .biases = BIASES(1, 1, 1),
    .defaults = {.tied = true,
                 .max_positions = 1024,
                 .norm_eps = 1e-5,
                 .attention_bias = true,
                 .output_bias = true,
                 .mlp_bias = true,
                 .activation = PX_GELU_TANH,
                 .bos_id = 50256,
                 .eos_ids = {50256},
                 .eos_count = 1,
                 .pad_id = -1},
};
