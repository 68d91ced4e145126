/* Llama (Touvron et al. 2023) and the families that share its tensors: Mistral looks back through a window, Qwen2 has
 * biases on queries, keys and values, Qwen3 norms queries and keys by head, Gemma scales its embeddings and its norms
 * multiply by 1 + w. */
#include "family.h"

static const px_row before[] = {
    {"model.embed_tokens.weight", OUTER(embed), SIZE_V, SIZE_C, ALWAYS, AS_IS},
    {0},
};
static const px_row block[] = {
    {"input_layernorm.weight", BLOCK(norm1_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"self_attn.q_proj.weight", BLOCK(qkv_w), SIZE_Q, SIZE_C, ALWAYS, AS_IS},
    {"self_attn.k_proj.weight", JOINED, SIZE_KV, SIZE_C, ALWAYS, AS_IS},
    {"self_attn.v_proj.weight", JOINED, SIZE_KV, SIZE_C, ALWAYS, AS_IS},
    {"self_attn.q_proj.bias", BLOCK(qkv_b), SIZE_Q, SIZE_NONE, IF_QKV_BIAS, AS_IS},
    {"self_attn.k_proj.bias", JOINED, SIZE_KV, SIZE_NONE, IF_QKV_BIAS, AS_IS},
    {"self_attn.v_proj.bias", JOINED, SIZE_KV, SIZE_NONE, IF_QKV_BIAS, AS_IS},
    {"self_attn.q_norm.weight", BLOCK(q_norm_w), SIZE_D, SIZE_NONE, IF_HEAD_NORM, AS_IS},
    {"self_attn.k_norm.weight", BLOCK(k_norm_w), SIZE_D, SIZE_NONE, IF_HEAD_NORM, AS_IS},
    {"self_attn.o_proj.weight", BLOCK(out_w), SIZE_C, SIZE_Q, ALWAYS, AS_IS},
    {"self_attn.o_proj.bias", BLOCK(out_b), SIZE_C, SIZE_NONE, IF_OUT_BIAS, AS_IS},
    {"post_attention_layernorm.weight", BLOCK(norm2_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"mlp.gate_proj.weight", BLOCK(up_w), SIZE_I, SIZE_C, ALWAYS, AS_IS},
    {"mlp.up_proj.weight", JOINED, SIZE_I, SIZE_C, ALWAYS, AS_IS},
    {"mlp.gate_proj.bias", BLOCK(up_b), SIZE_I, SIZE_NONE, IF_MLP_BIAS, AS_IS},
    {"mlp.up_proj.bias", JOINED, SIZE_I, SIZE_NONE, IF_MLP_BIAS, AS_IS},
    {"mlp.down_proj.weight", BLOCK(down_w), SIZE_C, SIZE_I, ALWAYS, AS_IS},
    {"mlp.down_proj.bias", BLOCK(down_b), SIZE_C, SIZE_NONE, IF_MLP_BIAS, AS_IS},
    {0},
};
static const px_row after[] = {
    {"model.norm.weight", OUTER(norm_w), SIZE_C, SIZE_NONE, ALWAYS, AS_IS},
    {"lm_head.weight", OUTER(lm_head), SIZE_V, SIZE_C, IF_UNTIED, AS_IS},
    {"score.weight", OUTER(score), SIZE_ONE, SIZE_C, IF_SCALAR, AS_IS},
    {0},
};

#define SHARED_ENTRIES                                                                                                 \
    {"hidden_size", ENTRY_INT, FIELD(hidden_size), 1, PX_MAX_WIDTH, true, NULL},                                       \
    {"intermediate_size", ENTRY_INT, FIELD(intermediate_size), 1, 4 * PX_MAX_WIDTH, true, NULL},                       \
    {"num_hidden_layers", ENTRY_INT, FIELD(layers), 1, PX_MAX_LAYERS, true, NULL},                                     \
    {"num_attention_heads", ENTRY_INT, FIELD(heads), 1, PX_MAX_WIDTH, true, NULL},                                     \
    {"num_key_value_heads", ENTRY_INT, FIELD(kv_heads), 1, PX_MAX_WIDTH, false, NULL},                                 \
    {"head_dim", ENTRY_INT, FIELD(head_dim), 2, PX_MAX_HEAD_DIM, false, NULL},                                                    \
    {"max_position_embeddings", ENTRY_INT, FIELD(max_positions), 1, PX_MAX_POSITIONS, false, NULL},                    \
    {"rms_norm_eps", ENTRY_REAL, FIELD(norm_eps), 1e-12, 1, false, NULL},                                              \
    {"hidden_act", ENTRY_ACTIVATION, FIELD(activation), 0, 0, false, NULL},                                            \
    {"initializer_range", ENTRY_REAL, FIELD(initializer_range), 0, 1, false, NULL},                                    \
    {"attention_dropout", ENTRY_ZERO, 0, 0, 0, false, NULL}
#define ATTENTION_BIAS                                                                                                 \
    {"attention_bias", ENTRY_BOOL, FIELD(attention_bias), 0, 0, false, NULL},                                          \
    {"attention_bias", ENTRY_BOOL, FIELD(output_bias), 0, 0, false, NULL}

#define SHARED_TENSORS                                                                                                 \
    .lm_suffix = "ForCausalLM", .base = "model.", .block_base = "model.layers.", .before = before, .block = block,     \
    .after = after, .rotary_part = 1

static const px_entry llama_entries[] = {
    SHARED_ENTRIES, ATTENTION_BIAS, {"mlp_bias", ENTRY_BOOL, FIELD(mlp_bias), 0, 0, false, NULL}, {0}};
const px_family_info px_family_llama = {
    SHARED_TENSORS,
    .type = "llama",
    .model_class = "Llama",
    .entries = llama_entries,
    .traits = {.gated = true},
    .biases = BIASES(0, 0, 0) | BIASES(1, 1, 0) | BIASES(0, 0, 1) | BIASES(1, 1, 1),
    .defaults = {.max_positions = 2048,
                 .norm_eps = 1e-6,
                 .activation = PX_SILU,
                 .bos_id = 1,
                 .eos_ids = {2},
                 .eos_count = 1,
                 .pad_id = -1},
};

static const px_entry mistral_entries[] = {
    SHARED_ENTRIES, {"sliding_window", ENTRY_INT, FIELD(window), 1, PX_MAX_POSITIONS, false, NULL}, {0}};
const px_family_info px_family_mistral = {
    SHARED_TENSORS,
    .type = "mistral",
    .model_class = "Mistral",
    .entries = mistral_entries,
    .traits = {.gated = true},
    .biases = BIASES(0, 0, 0),
    .defaults = {.kv_heads = 8,
                 .max_positions = 131072,
                 .window = 4096,
                 .norm_eps = 1e-6,
                 .activation = PX_SILU,
                 .bos_id = 1,
                 .eos_ids = {2},
                 .eos_count = 1,
                 .pad_id = -1},
};

/* A window of some layers only is refused, whatever its width. */
#define NO_WINDOW {"use_sliding_window", ENTRY_NEEDS, 0, 0, 0, false, "windows of some layers are not supported"}

static const px_entry qwen2_entries[] = {SHARED_ENTRIES, NO_WINDOW, {0}};
const px_family_info px_family_qwen2 = {
    SHARED_TENSORS,
    .type = "qwen2",
    .model_class = "Qwen2",
    .entries = qwen2_entries,
    .traits = {.gated = true},
    .biases = BIASES(1, 0, 0),
    .defaults = {.kv_heads = 32,
                 .max_positions = 32768,
                 .norm_eps = 1e-6,
                 .attention_bias = true,
                 .activation = PX_SILU,
                 .bos_id = -1,
                 .pad_id = -1},
};

static const px_entry qwen3_entries[] = {SHARED_ENTRIES, ATTENTION_BIAS, NO_WINDOW, {0}};
const px_family_info px_family_qwen3 = {
    SHARED_TENSORS,
    .type = "qwen3",
    .model_class = "Qwen3",
    .entries = qwen3_entries,
    .traits = {.gated = true, .head_norm = true},
    .biases = BIASES(0, 0, 0) | BIASES(1, 1, 0),
    .defaults = {.kv_heads = 32,
                 .head_dim = 128,
                 .max_positions = 32768,
                 .norm_eps = 1e-6,
                 .activation = PX_SILU,
                 .bos_id = -1,
                 .pad_id = -1},
};

static const px_entry gemma_entries[] = {
    SHARED_ENTRIES,
    ATTENTION_BIAS,
    {"use_bidirectional_attention", ENTRY_NEEDS, 0, 0, 0, false, "attention to later tokens is not supported"},
    {0}};
const px_family_info px_family_gemma = {
    SHARED_TENSORS,
    .type = "gemma",
    .model_class = "Gemma",
    .entries = gemma_entries,
    .traits = {.gated = true, .scaled_embedding = true, .norm_offset = 1},
    .biases = BIASES(0, 0, 0) | BIASES(1, 1, 0),
    .defaults = {.tied = true,
                 .kv_heads = 16,
                 .head_dim = 256,
                 .max_positions = 8192,
                 .norm_eps = 1e-6,
                 .activation = PX_GELU_TANH,
                 .bos_id = 2,
                 .eos_ids = {1},
                 .eos_count = 1,
                 .pad_id = 0},
};
