/* Reading of Hugging Face configurations: config.json in its older flat form and in that of transformers 5, and the
 * stop ids of generation_config.json. Whatever would make our arithmetic differ from the model's is refused by name. */
#include <stdio.h>
#include <string.h>

#include "config_keys.h"
#include "config_rope.h"
#include "family.h"
#include "gguf.h"
#include "pickle.h"

/* ---- a family's entries --------------------------------------------------------------------- */
static px_status read_needs(const px_keys *keys, const px_entry *entry)
{
    bool wanted = entry->low != 0, value = wanted;
    PX_TRY(px_keys_bool(keys, entry->key, &value));
    if (value == wanted) return PX_OK;
    char valid[160];
    snprintf(valid, sizeof valid, "%s (%s)", wanted ? "true" : "false", entry->why);
    return px_keys_refuse(keys, entry->key, valid);
}

static px_status read_same(const px_keys *keys, const px_entry *entry, int wanted)
{
    int value = wanted;
    PX_TRY(px_keys_int(keys, entry->key, false, 1, INT32_MAX, &value));
    return value == wanted ? PX_OK : px_keys_refuse(keys, entry->key, entry->why);
}

static px_status read_activation(const px_keys *keys, const char *key, px_activation *activation)
{
    static const struct {
        const char *name;
        px_activation kind;
    } table[] = {{"gelu_new", PX_GELU_TANH},  {"gelu_pytorch_tanh", PX_GELU_TANH}, {"gelu_fast", PX_GELU_TANH},
                 {"gelu", PX_GELU_ERF},       {"silu", PX_SILU},                   {"swish", PX_SILU},
                 {"relu", PX_RELU}};
    const char *name = NULL;
    PX_TRY(px_keys_text(keys, key, false, &name));
    for (size_t i = 0; name && i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(name, table[i].name) != 0) continue;
        *activation = table[i].kind;
        return PX_OK;
    }
    return name ? px_keys_refuse(keys, key, "one of gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, silu, swish, relu")
                : PX_OK;
}

static px_status read_entry(const px_keys *keys, const px_entry *entry, px_model_config *config)
{
    void *field = (char *)config + entry->field;
    switch (entry->kind) {
    case ENTRY_INT:
        if (json_is_null(json_object_get(keys->object, entry->key))) *(int *)field = 0;
        return px_keys_int(keys, entry->key, entry->required, (int)entry->low, (int)entry->high, field);
    case ENTRY_REAL: return px_keys_real(keys, entry->key, entry->required, entry->low, entry->high, field);
    case ENTRY_BOOL: return px_keys_bool(keys, entry->key, field);
    case ENTRY_ACTIVATION: return read_activation(keys, entry->key, field);
    case ENTRY_SAME: return read_same(keys, entry, *(const int *)field);
    case ENTRY_NEEDS: return read_needs(keys, entry);
    case ENTRY_ZERO: break;
    }
    return PX_OK;
}

static bool has_entry(const px_family_info *family, const char *key)
{
    for (const px_entry *e = family->entries; e->key; e++) {
        if (strcmp(e->key, key) == 0) return true;
    }
    return false;
}

static const char *key_of(const px_family_info *family, size_t field)
{
    const px_entry *e = family->entries;
    while (e->key && (e->kind != ENTRY_INT || e->field != field)) e++;
    return e->key;
}

/* A window in a family that knows none is refused unless it covers every position. */
static px_status refuse_window(const px_keys *keys, const px_family_info *family, int max_positions)
{
    bool used = true;
    int window = PX_MAX_POSITIONS;
    if (!has_entry(family, "sliding_window") && !has_entry(family, "use_sliding_window")) {
        PX_TRY(px_keys_bool(keys, "use_sliding_window", &used));
        PX_TRY(px_keys_int(keys, "sliding_window", false, 1, INT32_MAX, &window));
    }
    if (used && window < max_positions) {
        return px_fail(PX_DATA,
                       "%s: key \"sliding_window\" is %d and max_position_embeddings is %d; valid is null, or a window "
                       "that covers all positions (a %s model has no sliding window)",
                       keys->path, window, max_positions, family->type);
    }
    json_t *types = px_keys_get(keys, "layer_types");
    if (types && !json_is_array(types)) return px_keys_refuse(keys, "layer_types", "a list");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0) {
            return px_keys_refuse(keys, "layer_types",
                                  "a list of \"full_attention\" (windows of some layers are not supported)");
        }
    }
    return PX_OK;
}

/* transformers reads it for every family: without it a token attends to later ones as well. */
static px_status refuse_not_causal(const px_keys *keys)
{
    json_t *causal = json_object_get(keys->object, "is_causal");
    return causal == NULL || json_is_true(causal)
               ? PX_OK : px_keys_refuse(keys, "is_causal", "true (attention to later tokens is not supported)");
}

/* transformers knows no other width of a head in these families, and would ignore the key. */
static px_status refuse_head_dim(const px_keys *keys, const px_family_info *family, const px_model_config *config)
{
    int head_dim = config->hidden_size / config->heads;
    if (!family->square || has_entry(family, "head_dim")) return PX_OK;
    PX_TRY(px_keys_int(keys, "head_dim", false, 1, INT32_MAX, &head_dim));
    return head_dim == config->hidden_size / config->heads
               ? PX_OK : px_keys_refuse(keys, "head_dim", "null, or the width divided by the number of heads");
}

static px_status read_family(const px_keys *keys, const px_family_info *family, px_model_config *config)
{
    PX_TRY(refuse_not_causal(keys));
    for (const px_entry *e = family->entries; e->key; e++) PX_TRY(read_entry(keys, e, config));
    if (config->head_dim == 0 && config->hidden_size % config->heads != 0) {
        return px_keys_refuse(keys, key_of(family, FIELD(heads)), "a divisor of the width");
    }
    PX_TRY(refuse_head_dim(keys, family, config));
    px_model_config_complete(config);
    PX_TRY(refuse_window(keys, family, config->max_positions));
    /* Gemma's first files say "gelu" and mean its approximation, as transformers has it */
    if (config->family == PX_GEMMA && config->activation == PX_GELU_ERF) config->activation = PX_GELU_TANH;
    return family->traits.learned_positions ? PX_OK : px_rope_read(keys, family, config);
}

/* ---- token ids --------------------------------------------------------------------- */
/* Ids outside the vocabulary occur in files of small models that kept the defaults of large ones. They can never be
 * sampled: left out, with a warning. -1 stands for none in some older files. */
static void warn_of_id(const px_keys *keys, const char *key, long long id, int vocab_size)
{
    static uint64_t said[16]; /* a start reads a model's directory more than once */
    static int count;
    uint64_t what = px_hash(key, strlen(key), px_hash(keys->path, strlen(keys->path), (uint64_t)id));
    for (int i = 0; i < count; i++) {
        if (said[i] == what) return;
    }
    if (count < 16) said[count++] = what;
    px_log(PX_WARNING, "%s: %s %lld lies outside the vocabulary of %d tokens and is ignored", keys->path, key, id,
           vocab_size);
}

static px_status keep_id(const px_keys *keys, const char *key, json_t *value, int vocab_size, int *id)
{
    *id = -1;
    if (!json_is_integer(value) || json_integer_value(value) < -1) {
        return px_keys_refuse(keys, key, "a token id, null, or (eos_token_id) a list of token ids");
    }
    if (json_integer_value(value) < vocab_size) {
        *id = (int)json_integer_value(value);
    } else {
        warn_of_id(keys, key, (long long)json_integer_value(value), vocab_size);
    }
    return PX_OK;
}

/* Absent: the default of transformers where the vocabulary has it. null: none. */
static px_status read_id(const px_keys *keys, const char *key, int absent, int vocab_size, int *id)
{
    json_t *value = json_object_get(keys->object, key);
    *id = !value && absent < vocab_size ? absent : -1;
    return !value || json_is_null(value) ? PX_OK : keep_id(keys, key, value, vocab_size, id);
}

bool px_stop_ids_add(int ids[PX_MAX_EOS], int *count, int id)
{
    for (int i = 0; i < *count; i++) {
        if (ids[i] == id) return true;
    }
    if (id >= 0 && *count == PX_MAX_EOS) return false;
    if (id >= 0) ids[(*count)++] = id;
    return true;
}

static px_status add_eos(const px_keys *keys, json_t *value, px_model_config *config)
{
    int id;
    PX_TRY(keep_id(keys, "eos_token_id", value, config->vocab_size, &id));
    return px_stop_ids_add(config->eos_ids, &config->eos_count, id)
               ? PX_OK : px_fail(PX_DATA, "%s: key \"eos_token_id\" brings more than %d stop ids; valid is at most %d", keys->path,
                                 PX_MAX_EOS, PX_MAX_EOS);
}

static px_status read_eos(const px_keys *keys, int absent, px_model_config *config)
{
    json_t *value = json_object_get(keys->object, "eos_token_id");
    if (!value && absent >= 0 && absent < config->vocab_size) config->eos_ids[config->eos_count++] = absent;
    if (!value || json_is_null(value)) return PX_OK;
    if (!json_is_array(value)) return add_eos(keys, value, config);
    for (size_t i = 0; i < json_array_size(value); i++) PX_TRY(add_eos(keys, json_array_get(value, i), config));
    return PX_OK;
}

static px_status read_token_ids(const px_keys *keys, const px_model_config *defaults, px_model_config *config)
{
    PX_TRY(read_id(keys, "bos_token_id", defaults->bos_id, config->vocab_size, &config->bos_id));
    PX_TRY(read_id(keys, "pad_token_id", defaults->pad_id, config->vocab_size, &config->pad_id));
    return read_eos(keys, defaults->eos_count > 0 ? defaults->eos_ids[0] : -1, config);
}

/* ---- the file --------------------------------------------------------------------- */
static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static px_status read_head(const px_keys *keys, px_model_config *config)
{
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

static px_status read_dtype(const px_keys *keys)
{
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

static px_status read_root(const px_keys *keys, px_model_config *config)
{
    if (!json_is_object(keys->object))
        return px_fail(PX_DATA, "%s: not a JSON object; valid is a model's config", keys->path);
    const char *type = NULL;
    px_family which;
    PX_TRY(px_keys_text(keys, "model_type", true, &type));
    if (px_family_parse(type, &which) != PX_OK) return px_fail_within("%s: key \"model_type\"", keys->path);
    const px_family_info *family = px_family_get(which);
    px_model_config_defaults(config, which);
    PX_TRY(read_head(keys, config));
    PX_TRY(px_keys_int(keys, "vocab_size", true, 1, PX_MAX_VOCABULARY, &config->vocab_size));
    PX_TRY(read_family(keys, family, config));
    PX_TRY(px_keys_bool(keys, "tie_word_embeddings", &config->tied));
    PX_TRY(px_keys_real(keys, "reward_mean", false, -1e30, 1e30, &config->reward_mean));
    PX_TRY(px_keys_real(keys, "reward_std", false, 1e-30, 1e30, &config->reward_std));
    if (px_keys_get(keys, "quantization_config")) {
        return px_fail(PX_DATA, "%s: key \"quantization_config\" is set; valid are weights in F32, F16 or BF16",
                       keys->path);
    }
    PX_TRY(read_dtype(keys));
    return read_token_ids(keys, &family->defaults, config);
}

static px_status read_generation_config(const char *dir, px_model_config *config)
{
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

static px_status read_json(const char *path, json_t *json, px_model_config *config)
{
    px_keys keys = {path, "", json};
    memset(config, 0, sizeof *config);
    PX_TRY(read_root(&keys, config));
    return px_model_config_check(config) == PX_OK ? PX_OK : px_fail_within("%s", path);
}

px_status px_model_path_check(const char *path)
{
    char file[PX_PATH_MAX];
    static const char valid[] = "valid is a Hugging Face model directory (config.json, model.safetensors) or a .gguf file";
    if (px_dir_exists(path)) return PX_OK;
    if (!px_file_exists(path)) return px_fail(PX_DATA, "%s: no such directory; %s", path, valid);
    PX_TRY(px_gguf_find(file, sizeof file, path));
    if (file[0]) return PX_OK;
    PX_TRY(px_pickle_refuse(path));
    return px_fail(PX_DATA, "%s: is a file; %s", path, valid);
}

px_status px_model_config_read(const char *dir, px_model_config *config)
{
    char path[PX_PATH_MAX];
    json_t *json = NULL;
    PX_TRY(px_gguf_find(path, sizeof path, dir));
    if (path[0]) {
        PX_TRY(px_gguf_config(path, &json));
        px_status status = read_json(path, json, config);
        json_decref(json);
        return status;
    }
    PX_TRY(px_path_join(path, sizeof path, dir, "config.json"));
    if (!px_file_exists(path)) {
        PX_TRY(px_model_path_check(dir));
        PX_TRY(px_pickle_refuse(dir));
        return px_fail(PX_DATA,
                       "%s: no config.json in this directory; valid is a Hugging Face model directory or a .gguf file",
                       dir);
    }
    PX_TRY(px_json_read(path, &json));
    px_status status = read_json(path, json, config);
    json_decref(json);
    PX_TRY(status);
    return read_generation_config(dir, config);
}
