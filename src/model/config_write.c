/* Writing of config.json: the older flat keys, which every version of transformers reads. */
#include "config_write.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "family.h"

/* transformers knows one function by two names; GPT-2's comes first. */
static const char *activation_name(const px_model_config *c)
{
    switch (c->activation) {
    case PX_GELU_TANH: return c->family == PX_GPT2 ? "gelu_new" : "gelu_pytorch_tanh";
    case PX_GELU_ERF: return "gelu";
    case PX_SILU: return "silu";
    case PX_RELU: return "relu";
    }
    return "";
}

static json_t *architecture(const px_model_config *c)
{
    const px_family_info *family = px_family_get(c->family);
    const char *head = c->head == PX_HEAD_SCALAR ? "ForSequenceClassification"
                       : c->head == PX_HEAD_NONE ? "Model"
                                                 : family->lm_suffix;
    return json_pack("[o]", json_sprintf("%s%s", family->model_class, head));
}

static bool is_eos(const px_model_config *c, int id)
{
    for (int i = 0; i < c->eos_count; i++) {
        if (c->eos_ids[i] == id) return true;
    }
    return false;
}

/* transformers scores a padded sequence at its right-most token that is not pad_token_id, and refuses batches without
 * one. A stop id would make it score the token before the end: where the pad id is one, or none is known, the begin id,
 * which never ends a sequence, else the highest id that stops nothing, the rarest piece of a vocabulary by merges. */
static int scoring_pad(const px_model_config *c)
{
    if (c->pad_id >= 0 && !is_eos(c, c->pad_id)) return c->pad_id;
    if (c->bos_id >= 0 && !is_eos(c, c->bos_id)) return c->bos_id;
    int id = c->vocab_size - 1;
    while (id > 0 && is_eos(c, id)) id--;
    return id;
}

static json_t *id_or_null(int id)
{
    return id >= 0 ? json_integer(id) : json_null();
}

static json_t *eos_value(const px_model_config *c)
{
    if (c->eos_count <= 1) return id_or_null(c->eos_count == 1 ? c->eos_ids[0] : -1);
    json_t *list = json_array();
    for (int i = 0; i < c->eos_count; i++) json_array_append_new(list, json_integer(c->eos_ids[i]));
    return list;
}

static json_t *entry_value(const px_entry *entry, const px_model_config *c)
{
    const void *field = (const char *)c + entry->field;
    switch (entry->kind) {
    case ENTRY_INT:
    case ENTRY_SAME: return *(const int *)field > 0 ? json_integer(*(const int *)field) : json_null();
    case ENTRY_REAL: return json_real(*(const double *)field);
    case ENTRY_BOOL: return json_boolean(*(const bool *)field);
    case ENTRY_ACTIVATION: return json_string(activation_name(c));
    case ENTRY_NEEDS: return json_boolean(entry->low != 0);
    case ENTRY_ZERO: return json_real(0);
    }
    return NULL;
}

static json_t *rope_scaling(const px_rope *rope)
{
    static const char *const names[] = {
        [PX_ROPE_LINEAR] = "linear", [PX_ROPE_LLAMA3] = "llama3", [PX_ROPE_YARN] = "yarn"};
    if (rope->type <= PX_ROPE_DEFAULT) return json_null();
    json_t *json = json_pack("{s:s, s:f}", "rope_type", names[rope->type], "factor", rope->factor);
    if (rope->type == PX_ROPE_LINEAR) return json;
    json_object_set_new(json, "original_max_position_embeddings", json_integer((json_int_t)rope->original_positions));
    if (rope->type == PX_ROPE_LLAMA3) {
        json_object_set_new(json, "low_freq_factor", json_real(rope->low_freq));
        json_object_set_new(json, "high_freq_factor", json_real(rope->high_freq));
    } else {
        json_object_set_new(json, "beta_fast", json_real(rope->beta_fast));
        json_object_set_new(json, "beta_slow", json_real(rope->beta_slow));
        json_object_set_new(json, "attention_factor", json_real(rope->attention_factor));
    }
    return json;
}

/* The part of a head that rotates; readers truncate D * part. */
static double rotary_part(const px_model_config *c)
{
    double part = (double)c->rope.rotary_dim / c->head_dim;
    return (int)(c->head_dim * part) < c->rope.rotary_dim ? nextafter(part, 1) : part;
}

static void put_rope(json_t *json, const px_model_config *c)
{
    const px_family_info *family = px_family_get(c->family);
    json_object_set_new(json, family->theta_key ? family->theta_key : "rope_theta", json_real(c->rope.theta));
    if (family->part_key) json_object_set_new(json, family->part_key, json_real(rotary_part(c)));
    json_object_set_new(json, "rope_scaling", rope_scaling(&c->rope));
}

static void put_ids(json_t *json, const px_model_config *c)
{
    json_object_set_new(json, "bos_token_id", id_or_null(c->bos_id));
    json_object_set_new(json, "eos_token_id", eos_value(c));
    json_object_set_new(json, "pad_token_id", id_or_null(c->head == PX_HEAD_SCALAR ? scoring_pad(c) : c->pad_id));
}

static json_t *config_json(const px_model_config *c, px_dtype dtype)
{
    const char *type = dtype == PX_F32 ? "float32" : dtype == PX_F16 ? "float16" : "bfloat16";
    json_t *json = json_object();
    json_object_set_new(json, "architectures", architecture(c));
    json_object_set_new(json, "model_type", json_string(px_family_name(c->family)));
    json_object_set_new(json, "vocab_size", json_integer(c->vocab_size));
    for (const px_entry *e = px_family_get(c->family)->entries; e->key; e++) {
        json_object_set_new(json, e->key, entry_value(e, c));
    }
    if (!px_family_traits(c->family).learned_positions) put_rope(json, c);
    json_object_set_new(json, "tie_word_embeddings", json_boolean(c->tied));
    put_ids(json, c);
    json_object_set_new(json, "torch_dtype", json_string(type));
    json_object_set_new(json, "use_cache", json_true());
    if (c->head == PX_HEAD_SCALAR) {
        json_object_set_new(json, "num_labels", json_integer(1));
        json_object_set_new(json, "id2label", json_pack("{s:s}", "0", "SCORE"));
        json_object_set_new(json, "label2id", json_pack("{s:i}", "SCORE", 0));
        json_object_set_new(json, "reward_mean", json_real(c->reward_mean));
        json_object_set_new(json, "reward_std", json_real(c->reward_std));
    }
    return json;
}

/* Takes json over. */
static px_status write_json(json_t *json, const char *dir, const char *name)
{
    char path[PX_PATH_MAX];
    px_buf text = {0};
    char *dump = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    px_status status = dump ? px_buf_printf(&text, "%s\n", dump) : px_fail(PX_BUG, "cannot write %s as JSON", name);
    free(dump);
    if (status == PX_OK) status = px_path_join(path, sizeof path, dir, name);
    if (status == PX_OK) status = px_file_write(path, text.data, text.length);
    px_buf_free(&text);
    return status;
}

px_status px_model_config_write(const px_model_config *config, const char *dir, px_dtype dtype)
{
    PX_TRY(write_json(config_json(config, dtype), dir, "config.json"));
    json_t *json = json_object();
    put_ids(json, config);
    return write_json(json, dir, "generation_config.json");
}
