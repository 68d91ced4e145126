/* Reading of Hugging Face configurations: config.json in its older flat form and in that of transformers 5, and the
 * stop ids of generation_config.json. Whatever would make our arithmetic differ from the model's is refused by name. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "config_keys.h"
#include "phalanx/model.h"

#define MAX_VOCABULARY (1 << 24)
#define MAX_WIDTH (1 << 17)
#define MAX_LAYERS 1024
#define MAX_POSITIONS (1 << 24)

/* What the JSON says that is not a field of the configuration. */
typedef enum source_type { SOURCE_GPT2, SOURCE_LLAMA, SOURCE_MISTRAL, SOURCE_QWEN2 } source_type;
static const char *const source_names[] = {"gpt2", "llama", "mistral", "qwen2"};
static const char supported_types[] = "\"gpt2\", \"llama\", \"mistral\" or \"qwen2\"";

/* ---- switches that must be off --------------------------------------------------------------------- */
static px_status require_bool(const px_keys *keys, const char *key, bool wanted, const char *why) {
    bool value = wanted;
    PX_TRY(px_keys_bool(keys, key, &value));
    if (value == wanted) return PX_OK;
    char valid[160];
    snprintf(valid, sizeof valid, "%s (%s)", wanted ? "true" : "false", why);
    return px_keys_refuse(keys, key, valid);
}

static px_status read_activation(const px_keys *keys, const char *key, const char *absent, px_activation *activation) {
    static const struct {
        const char *name;
        px_activation kind;
    } table[] = {{"gelu_new", PX_GELU_TANH}, {"gelu_pytorch_tanh", PX_GELU_TANH},
                 {"gelu", PX_GELU_ERF},      {"silu", PX_SILU},
                 {"swish", PX_SILU},         {"relu", PX_RELU}};
    const char *name = absent;
    PX_TRY(px_keys_text(keys, key, false, &name));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(name, table[i].name) != 0) continue;
        *activation = table[i].kind;
        return PX_OK;
    }
    return px_keys_refuse(keys, key, "one of gelu_new, gelu_pytorch_tanh, gelu, silu, swish, relu");
}

/* Attention to the last `window` positions only: refused unless the window covers every position. */
static px_status refuse_sliding_window(const px_keys *keys, source_type source, int max_positions) {
    bool used = source != SOURCE_QWEN2; /* Qwen2 has a switch beside the width, off by default */
    PX_TRY(px_keys_bool(keys, "use_sliding_window", &used));
    int window = MAX_POSITIONS;
    if (source == SOURCE_MISTRAL && !json_object_get(keys->object, "sliding_window")) window = 4096; /* its default */
    PX_TRY(px_keys_int(keys, "sliding_window", false, 1, INT32_MAX, &window));
    if (used && window < max_positions) {
        return px_fail(PX_DATA,
                       "%s: key \"sliding_window\" is %d and max_position_embeddings is %d; valid is null, or a window "
                       "that covers all positions (sliding windows are not supported)",
                       keys->path, window, max_positions);
    }
    json_t *types = px_keys_get(keys, "layer_types");
    if (types && !json_is_array(types)) return px_keys_refuse(keys, "layer_types", "a list");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0) {
            return px_keys_refuse(keys, "layer_types",
                                  "a list of \"full_attention\" (sliding windows are not supported)");
        }
    }
    return PX_OK;
}

/* ---- rotary positions --------------------------------------------------------------------- */
/* How strongly YaRN sharpens attention at a given stretch (Peng et al. 2023, section 3.4). */
static double yarn_magnitude(double factor, double weight) {
    return factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1;
}

static px_status read_yarn(const px_keys *keys, px_rope *rope) {
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    double mscale = 0, mscale_all = 0;
    PX_TRY(px_keys_real(keys, "beta_fast", false, 1e-6, 1e6, &rope->beta_fast));
    PX_TRY(px_keys_real(keys, "beta_slow", false, 1e-6, 1e6, &rope->beta_slow));
    PX_TRY(px_keys_real(keys, "mscale", false, 0, 1e6, &mscale));
    PX_TRY(px_keys_real(keys, "mscale_all_dim", false, 0, 1e6, &mscale_all));
    PX_TRY(require_bool(keys, "truncate", true, "other ramps are not supported"));
    rope->attention_factor = mscale > 0 && mscale_all > 0
                                 ? yarn_magnitude(rope->factor, mscale) / yarn_magnitude(rope->factor, mscale_all)
                                 : yarn_magnitude(rope->factor, 1);
    return px_keys_real(keys, "attention_factor", false, 1e-6, 1e6, &rope->attention_factor);
}

static px_status read_rope_type(const px_keys *keys, px_rope_type *type) {
    static const char valid[] = "one of default, linear, llama3, yarn (dynamic and longrope change the rotation of "
                                "earlier positions as a sequence grows, so cached keys would not be those of training)";
    const char *name = "default";
    const char *key = px_keys_get(keys, "rope_type") ? "rope_type" : "type";
    PX_TRY(px_keys_text(keys, key, false, &name));
    if (strcmp(name, "default") == 0) *type = PX_ROPE_DEFAULT;
    else if (strcmp(name, "linear") == 0) *type = PX_ROPE_LINEAR;
    else if (strcmp(name, "llama3") == 0) *type = PX_ROPE_LLAMA3;
    else if (strcmp(name, "yarn") == 0) *type = PX_ROPE_YARN;
    else return px_keys_refuse(keys, key, valid);
    return PX_OK;
}

/* rope_theta and rope_scaling lie flat in older files; rope_parameters holds both since transformers 5. Where both
 * objects are given, rope_scaling counts, as in transformers. */
static px_status read_rope(const px_keys *keys, px_model_config *config) {
    px_rope *rope = &config->rope;
    *rope = (px_rope){.type = PX_ROPE_DEFAULT, .theta = 10000, .factor = 1, .attention_factor = 1};
    rope->original_positions = config->max_positions;
    rope->rotary_dim = config->head_dim;
    PX_TRY(px_keys_real(keys, "rope_theta", false, 1, 1e12, &rope->theta));
    PX_TRY(px_keys_real(keys, "original_max_position_embeddings", false, 1, MAX_POSITIONS, &rope->original_positions));
    double part = 1;
    PX_TRY(px_keys_real(keys, "partial_rotary_factor", false, 0, 1, &part));

    const char *names[] = {"rope_scaling", "rope_parameters"};
    px_keys inner = {keys->path, "", NULL};
    for (int i = 0; i < 2 && !inner.object; i++) {
        json_t *found = px_keys_get(keys, names[i]);
        if (found && !json_is_object(found)) return px_keys_refuse(keys, names[i], "an object or null");
        if (json_object_size(found) == 0) continue;
        inner.group = i == 0 ? "rope_scaling." : "rope_parameters.";
        inner.object = found;
    }
    if (inner.object) {
        PX_TRY(read_rope_type(&inner, &rope->type));
        PX_TRY(px_keys_real(&inner, "rope_theta", false, 1, 1e12, &rope->theta));
        PX_TRY(px_keys_real(&inner, "partial_rotary_factor", false, 0, 1, &part));
        if (rope->type != PX_ROPE_DEFAULT) {
            PX_TRY(px_keys_real(&inner, "factor", true, 1, 1e6, &rope->factor));
        }
        if (!px_keys_get(keys, "original_max_position_embeddings")) {
            PX_TRY(px_keys_real(&inner, "original_max_position_embeddings", false, 1, MAX_POSITIONS,
                                &rope->original_positions));
        }
        if (rope->type == PX_ROPE_YARN) PX_TRY(read_yarn(&inner, rope));
        if (rope->type == PX_ROPE_LLAMA3) {
            PX_TRY(px_keys_real(&inner, "low_freq_factor", true, 1e-6, 1e6, &rope->low_freq));
            PX_TRY(px_keys_real(&inner, "high_freq_factor", true, 1e-6, 1e6, &rope->high_freq));
        }
    }
    if (part != 1) {
        return px_fail(PX_DATA,
                       "%s: key \"partial_rotary_factor\" is %g; valid is 1 (a partial rotation is not supported)",
                       keys->path, part);
    }
    return PX_OK;
}

/* ---- families --------------------------------------------------------------------- */
static px_status read_gpt2(const px_keys *keys, px_model_config *config) {
    config->family = PX_GPT2;
    config->tied = true;
    config->max_positions = 1024;
    config->norm_eps = 1e-5;
    config->attention_bias = config->output_bias = config->mlp_bias = true;
    PX_TRY(px_keys_int(keys, "n_embd", true, 1, MAX_WIDTH, &config->hidden_size));
    PX_TRY(px_keys_int(keys, "n_layer", true, 1, MAX_LAYERS, &config->layers));
    PX_TRY(px_keys_int(keys, "n_head", true, 1, config->hidden_size, &config->heads));
    PX_TRY(px_keys_int(keys, "n_positions", false, 1, MAX_POSITIONS, &config->max_positions));
    if (config->hidden_size % config->heads != 0) {
        return px_keys_refuse(keys, "n_head", "a divisor of n_embd");
    }
    config->kv_heads = config->heads;
    config->head_dim = config->hidden_size / config->heads;
    config->intermediate_size = 4 * config->hidden_size;
    PX_TRY(px_keys_int(keys, "n_inner", false, 1, 4 * MAX_WIDTH, &config->intermediate_size));
    PX_TRY(px_keys_real(keys, "layer_norm_epsilon", false, 1e-12, 1, &config->norm_eps));
    PX_TRY(read_activation(keys, "activation_function", "gelu_new", &config->activation));
    PX_TRY(require_bool(keys, "scale_attn_weights", true, "unscaled attention is not supported"));
    PX_TRY(require_bool(keys, "scale_attn_by_inverse_layer_idx", false, "scaling by layer is not supported"));
    PX_TRY(require_bool(keys, "reorder_and_upcast_attn", false, "reordered attention is not supported"));
    return require_bool(keys, "add_cross_attention", false, "encoder-decoder models are not supported");
}

static px_status read_llama(const px_keys *keys, source_type source, px_model_config *config) {
    config->family = PX_LLAMA;
    config->max_positions = 2048;
    config->norm_eps = 1e-6;
    PX_TRY(px_keys_int(keys, "hidden_size", true, 1, MAX_WIDTH, &config->hidden_size));
    PX_TRY(px_keys_int(keys, "intermediate_size", true, 1, 4 * MAX_WIDTH, &config->intermediate_size));
    PX_TRY(px_keys_int(keys, "num_hidden_layers", true, 1, MAX_LAYERS, &config->layers));
    PX_TRY(px_keys_int(keys, "num_attention_heads", true, 1, config->hidden_size, &config->heads));
    if (config->hidden_size % config->heads != 0) {
        return px_keys_refuse(keys, "num_attention_heads", "a divisor of hidden_size");
    }
    config->kv_heads = config->heads;
    PX_TRY(px_keys_int(keys, "num_key_value_heads", false, 1, config->heads, &config->kv_heads));
    if (config->heads % config->kv_heads != 0) {
        return px_keys_refuse(keys, "num_key_value_heads", "a divisor of num_attention_heads");
    }
    config->head_dim = config->hidden_size / config->heads;
    PX_TRY(px_keys_int(keys, "head_dim", false, 2, 4096, &config->head_dim));
    PX_TRY(px_keys_int(keys, "max_position_embeddings", false, 1, MAX_POSITIONS, &config->max_positions));
    PX_TRY(px_keys_real(keys, "rms_norm_eps", false, 1e-12, 1, &config->norm_eps));
    PX_TRY(read_activation(keys, "hidden_act", "silu", &config->activation));
    PX_TRY(refuse_sliding_window(keys, source, config->max_positions));
    if (source == SOURCE_LLAMA) {
        PX_TRY(px_keys_bool(keys, "attention_bias", &config->attention_bias));
        PX_TRY(px_keys_bool(keys, "mlp_bias", &config->mlp_bias));
        config->output_bias = config->attention_bias;
    } else if (source == SOURCE_QWEN2) {
        config->attention_bias = true; /* wired into the architecture: queries, keys, values and nothing else */
    }
    return read_rope(keys, config);
}

/* ---- token ids --------------------------------------------------------------------- */
/* Ids outside the vocabulary occur in files of small models that kept the defaults of large ones. They can never be
 * sampled: left out, with a warning. -1 stands for none in some older files. */
static px_status keep_id(const px_keys *keys, const char *key, json_t *value, int vocab_size, int *id) {
    *id = -1;
    if (!json_is_integer(value) || json_integer_value(value) < -1) {
        return px_keys_refuse(keys, key, "a token id, null, or (eos_token_id) a list of token ids");
    }
    if (json_integer_value(value) < vocab_size) {
        *id = (int)json_integer_value(value);
    } else {
        px_log(PX_WARNING, "%s: %s %lld lies outside the vocabulary of %d tokens and is ignored", keys->path, key,
               (long long)json_integer_value(value), vocab_size);
    }
    return PX_OK;
}

/* Absent: the default of transformers where the vocabulary has it. null: none. */
static px_status read_id(const px_keys *keys, const char *key, int absent, int vocab_size, int *id) {
    json_t *value = json_object_get(keys->object, key);
    *id = !value && absent < vocab_size ? absent : -1;
    return !value || json_is_null(value) ? PX_OK : keep_id(keys, key, value, vocab_size, id);
}

static px_status add_eos(const px_keys *keys, json_t *value, px_model_config *config) {
    int id;
    PX_TRY(keep_id(keys, "eos_token_id", value, config->vocab_size, &id));
    for (int i = 0; i < config->eos_count; i++) {
        if (config->eos_ids[i] == id) return PX_OK;
    }
    if (id < 0) return PX_OK;
    if (config->eos_count == PX_MAX_EOS) {
        return px_fail(PX_DATA, "%s: key \"eos_token_id\" brings more than %d stop ids; valid is at most %d",
                       keys->path, PX_MAX_EOS, PX_MAX_EOS);
    }
    config->eos_ids[config->eos_count++] = id;
    return PX_OK;
}

static px_status read_eos(const px_keys *keys, int absent, px_model_config *config) {
    json_t *value = json_object_get(keys->object, "eos_token_id");
    if (!value && absent >= 0 && absent < config->vocab_size) config->eos_ids[config->eos_count++] = absent;
    if (!value || json_is_null(value)) return PX_OK;
    if (!json_is_array(value)) return add_eos(keys, value, config);
    for (size_t i = 0; i < json_array_size(value); i++) PX_TRY(add_eos(keys, json_array_get(value, i), config));
    return PX_OK;
}

static px_status read_token_ids(const px_keys *keys, source_type source, px_model_config *config) {
    static const int bos[] = {50256, 1, 1, -1}, eos[] = {50256, 2, 2, -1}; /* by source_type, transformers' defaults */
    PX_TRY(read_id(keys, "bos_token_id", bos[source], config->vocab_size, &config->bos_id));
    PX_TRY(read_id(keys, "pad_token_id", -1, config->vocab_size, &config->pad_id));
    return read_eos(keys, eos[source], config);
}

/* ---- the file --------------------------------------------------------------------- */
static bool ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static px_status read_head(const px_keys *keys, px_model_config *config) {
    static const char valid[] =
        "a list with one ...ForCausalLM, ...LMHeadModel, ...ForSequenceClassification or ...Model";
    config->head = PX_HEAD_LM;
    json_t *list = px_keys_get(keys, "architectures");
    if (!list) return PX_OK;
    const char *name = json_string_value(json_array_get(list, 0));
    if (!name || json_array_size(list) != 1) return px_keys_refuse(keys, "architectures", valid);
    if (ends_with(name, "ForCausalLM") || ends_with(name, "LMHeadModel")) return PX_OK;
    if (ends_with(name, "ForSequenceClassification")) config->head = PX_HEAD_SCALAR;
    else if (ends_with(name, "Model") && !ends_with(name, "DoubleHeadsModel")) config->head = PX_HEAD_NONE;
    else return px_keys_refuse(keys, "architectures", valid);
    if (config->head != PX_HEAD_SCALAR) return PX_OK;

    static const char one[] = "1: a scalar score (classifiers with several labels are not reward models)";
    int labels = 1;
    PX_TRY(px_keys_int(keys, "num_labels", false, 0, INT32_MAX, &labels));
    if (labels != 1) return px_keys_refuse(keys, "num_labels", one);
    json_t *names = px_keys_get(keys, "id2label");
    if (names && json_object_size(names) != 1) return px_keys_refuse(keys, "id2label", "an object with one label");
    return PX_OK;
}

static px_status read_source(const px_keys *keys, source_type *source) {
    char valid[160];
    snprintf(valid, sizeof valid, "a supported type: %s", supported_types);
    const char *type = NULL;
    PX_TRY(px_keys_text(keys, "model_type", true, &type));
    for (int i = 0; i < 4; i++) {
        if (strcmp(type, source_names[i]) != 0) continue;
        *source = (source_type)i;
        return PX_OK;
    }
    return px_keys_refuse(keys, "model_type", valid);
}

static px_status read_dtype(const px_keys *keys) {
    const char *names[] = {"dtype", "torch_dtype"};
    for (int i = 0; i < 2; i++) {
        const char *dtype = "auto";
        PX_TRY(px_keys_text(keys, names[i], false, &dtype));
        if (strcmp(dtype, "float32") != 0 && strcmp(dtype, "float16") != 0 && strcmp(dtype, "bfloat16") != 0 &&
            strcmp(dtype, "auto") != 0) {
            return px_keys_refuse(keys, names[i], "one of float32, float16, bfloat16");
        }
    }
    return PX_OK;
}

static px_status read_root(const px_keys *keys, px_model_config *config) {
    if (!json_is_object(keys->object))
        return px_fail(PX_DATA, "%s: not a JSON object; valid is a model's config", keys->path);
    source_type source = SOURCE_GPT2;
    PX_TRY(read_source(keys, &source));
    PX_TRY(read_head(keys, config));
    PX_TRY(px_keys_int(keys, "vocab_size", true, 1, MAX_VOCABULARY, &config->vocab_size));
    PX_TRY(source == SOURCE_GPT2 ? read_gpt2(keys, config) : read_llama(keys, source, config));
    PX_TRY(px_keys_bool(keys, "tie_word_embeddings", &config->tied));
    PX_TRY(px_keys_real(keys, "initializer_range", false, 0, 1, &config->initializer_range));
    PX_TRY(px_keys_real(keys, "reward_mean", false, -1e30, 1e30, &config->reward_mean));
    PX_TRY(px_keys_real(keys, "reward_std", false, 1e-30, 1e30, &config->reward_std));
    if (px_keys_get(keys, "quantization_config")) {
        return px_fail(PX_DATA, "%s: key \"quantization_config\" is set; valid are weights in F32, F16 or BF16",
                       keys->path);
    }
    PX_TRY(read_dtype(keys));
    return read_token_ids(keys, source, config);
}

static px_status read_generation_config(const char *dir, px_model_config *config) {
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, dir, "generation_config.json"));
    if (!px_file_exists(path)) return PX_OK;
    json_t *json = NULL;
    PX_TRY(px_json_read(path, &json));
    px_keys keys = {path, "", json};
    px_status status = json_is_object(json) ? read_eos(&keys, -1, config)
                                            : px_fail(PX_DATA, "%s: not a JSON object; valid is an object", path);
    json_decref(json);
    return status;
}

px_status px_model_config_read(const char *dir, px_model_config *config) {
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, dir, "config.json"));
    if (!px_file_exists(path)) {
        return px_fail(PX_DATA, "%s: no config.json in this directory; valid is a Hugging Face model directory", dir);
    }
    memset(config, 0, sizeof *config);
    config->bos_id = config->pad_id = -1;
    config->initializer_range = 0.02;
    config->reward_std = 1;
    json_t *json = NULL;
    PX_TRY(px_json_read(path, &json));
    px_keys keys = {path, "", json};
    px_status status = read_root(&keys, config);
    if (status == PX_OK) status = px_model_config_check(config) == PX_OK ? PX_OK : px_fail_within("%s", path);
    json_decref(json);
    PX_TRY(status);
    return read_generation_config(dir, config);
}
