/* What the metadata of a GGUF file says, in the words of config.json, so that it is checked as any configuration is. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf.h"

typedef struct pair {
    const char *from, *to; /* behind "ARCHITECTURE."; key of config.json */
} pair;

#define GATED                                                                                                          \
    {"embedding_length", "hidden_size"}, {"block_count", "num_hidden_layers"},                                         \
        {"feed_forward_length", "intermediate_size"}, {"attention.head_count", "num_attention_heads"},                 \
        {"attention.head_count_kv", "num_key_value_heads"}, {"attention.key_length", "head_dim"},                      \
        {"context_length", "max_position_embeddings"}, {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},           \
        {"rope.freq_base", "rope_theta"}
static const pair llama[] = {GATED, {"attention.sliding_window", "sliding_window"}, {0}};
static const pair gpt2[] = {{"embedding_length", "n_embd"},
                            {"block_count", "n_layer"},
                            {"feed_forward_length", "n_inner"},
                            {"attention.head_count", "n_head"},
                            {"context_length", "n_positions"},
                            {"attention.layer_norm_epsilon", "layer_norm_epsilon"},
                            {0}};
static const pair gptneox[] = {{"embedding_length", "hidden_size"},
                               {"block_count", "num_hidden_layers"},
                               {"feed_forward_length", "intermediate_size"},
                               {"attention.head_count", "num_attention_heads"},
                               {"context_length", "max_position_embeddings"},
                               {"attention.layer_norm_epsilon", "layer_norm_eps"},
                               {"use_parallel_residual", "use_parallel_residual"},
                               {"rope.freq_base", "rotary_emb_base"},
                               {0}};

typedef struct source {
    const px_gguf *gguf;
    const char *architecture;
    json_t *out;
} source;

static json_t *meta(const source *s, const char *key)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", s->architecture, key);
    return json_object_get(s->gguf->meta, name);
}

static bool has_tensor(const source *s, const char *name)
{
    return px_gguf_tensor_named(s->gguf, name) != NULL;
}

/* ---- rotation --------------------------------------------------------------------------------------------------- */
/* Llama 3.1 and later keep, as a tensor, what each frequency is divided by. All published ones come from the same
 * numbers but for the factor, which is the largest divisor. */
#define LOW 1.0
#define HIGH 4.0
#define ORIGINAL 8192.0

static double divisor(double frequency, double factor)
{
    double turns = ORIGINAL * frequency / (2 * M_PI);
    if (turns > HIGH) return 1;
    if (turns < LOW) return factor;
    double smooth = (turns - LOW) / (HIGH - LOW);
    return 1 / ((1 - smooth) / factor + smooth);
}

static px_status read_divisors(const source *s, const px_gguf_tensor *t, json_t **scaling)
{
    json_t *base = meta(s, "rope.freq_base");
    double theta = json_is_number(base) ? json_number_value(base) : 10000, factor = 1;
    bool good = strcmp(t->type, "F32") == 0 && t->dims == 1;
    float value;
    for (int pass = 0; pass < 2 && good; pass++) {
        for (size_t i = 0; i < t->count && good; i++) {
            memcpy(&value, t->data + 4 * i, sizeof value);
            if (pass == 0) factor = fmax(factor, value);
            else good = fabs(value / divisor(pow(theta, -(double)i / (double)t->count), factor) - 1) < 1e-4;
        }
    }
    if (!good) {
        return px_fail(PX_DATA,
                       "%s: tensor \"rope_freqs.weight\" is not a rotation as in Llama 3 (low_freq_factor 1, "
                       "high_freq_factor 4, original_max_position_embeddings 8192); other ones are not supported",
                       s->gguf->path);
    }
    *scaling = json_pack("{s:s, s:f, s:f, s:f, s:f}", "rope_type", "llama3", "factor", factor, "low_freq_factor", LOW,
                         "high_freq_factor", HIGH, "original_max_position_embeddings", ORIGINAL);
    return PX_OK;
}

/* What only YaRN has. Both gains multiply what it gives attention by itself, as in llama.cpp. */
static px_status read_yarn(const source *s, double factor, json_t *scaling)
{
    static const pair betas[] = {{"rope.scaling.yarn_beta_fast", "beta_fast"}, {"rope.scaling.yarn_beta_slow", "beta_slow"}};
    json_t *gain = meta(s, "rope.scaling.attn_factor"), *yarn_gain = meta(s, "rope.scaling.yarn_attn_factor");
    json_t *ramp = meta(s, "rope.scaling.yarn_ext_factor"), *logs = meta(s, "rope.scaling.yarn_log_multiplier");
    for (int i = 0; i < 2; i++)
        if (meta(s, betas[i].from)) json_object_set(scaling, betas[i].to, meta(s, betas[i].from));
    if ((gain || yarn_gain) && factor > 0) {
        double by = (gain ? json_number_value(gain) : 1) * (yarn_gain ? json_number_value(yarn_gain) : 1);
        json_object_set_new(scaling, "attention_factor", json_real(by * (1 + 0.1 * log(factor))));
    }
    if ((ramp && json_number_value(ramp) >= 0 && json_number_value(ramp) != 1) || (logs && json_number_value(logs) != 0)) {
        return px_fail(PX_DATA, "%s: %s.rope.scaling.yarn_ext_factor or .yarn_log_multiplier is set; valid is yarn with 1 and 0",
                       s->gguf->path, s->architecture);
    }
    return PX_OK;
}

/* Without a type it is linear, in the new key or the old one; a factor of 0 is none. */
static px_status read_scaling(const source *s)
{
    const px_gguf_tensor *divisors = px_gguf_tensor_named(s->gguf, "rope_freqs.weight");
    json_t *type = meta(s, "rope.scaling.type"), *factor = meta(s, "rope.scaling.factor"), *scaling = NULL;
    const char *name = type == NULL ? "linear" : json_is_string(type) ? json_string_value(type) : "";
    px_status status = PX_OK;
    if (!factor) factor = meta(s, "rope.scale_linear");
    if (divisors) {
        PX_TRY(read_divisors(s, divisors, &scaling));
    } else if (strcmp(name, "none") != 0 && (type || (factor && json_number_value(factor) != 0))) {
        json_t *original = meta(s, "rope.scaling.original_context_length");
        scaling = json_pack("{s:s}", "rope_type", name);
        if (factor) json_object_set(scaling, "factor", factor);
        if (original) json_object_set(scaling, "original_max_position_embeddings", original);
        if (strcmp(name, "yarn") == 0) status = read_yarn(s, json_number_value(factor), scaling);
    }
    if (scaling) json_object_set_new(s->out, "rope_scaling", scaling);
    return status;
}

/* How much of a head rotates. */
static void read_rotated(const source *s, const char *key)
{
    json_t *dims = meta(s, "rope.dimension_count"), *length = meta(s, "attention.key_length");
    double heads = json_number_value(meta(s, "attention.head_count"));
    double width = length ? json_number_value(length) : json_number_value(meta(s, "embedding_length")) / fmax(heads, 1);
    if (json_is_integer(dims) && width > 0) {
        json_object_set_new(s->out, key, json_real(json_number_value(dims) / width));
    }
}

/* ---- families ----------------------------------------------------------------------------------------------------- */
/* Keys that change what a model computes and that none of the families here has. */
static px_status refuse_others(const source *s)
{
    static const char *const keys[] = {"expert_count",     "logit_scale",         "attention.scale",
                                       "residual_scale",   "embedding_scale",     "attn_logit_softcapping",
                                       "attention.clamp_kqv", "final_logit_softcapping", "attention.max_alibi_bias"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        json_t *value = meta(s, keys[i]);
        if (value && json_number_value(value) != 0) {
            return px_fail(PX_DATA, "%s: key %s.%s is set; valid is a model without it", s->gguf->path, s->architecture,
                           keys[i]);
        }
    }
    if (json_is_false(meta(s, "attention.causal"))) {
        return px_fail(PX_DATA, "%s: key %s.attention.causal is false; valid is true (attention to later tokens is not supported)",
                       s->gguf->path, s->architecture);
    }
    json_t *k = meta(s, "attention.key_length"), *v = meta(s, "attention.value_length");
    if (k && v && !json_equal(k, v)) {
        return px_fail(PX_DATA, "%s: keys %s.attention.key_length and .value_length differ; valid is one length",
                       s->gguf->path, s->architecture);
    }
    return json_object_get(s->gguf->meta, "split.count") &&
                   json_integer_value(json_object_get(s->gguf->meta, "split.count")) > 1
               ? px_fail(PX_DATA, "%s: is a part of a split model; valid is one file (gguf-split --merge joins them)",
                         s->gguf->path)
               : PX_OK;
}

static void set_default(json_t *object, const char *key, json_t *value)
{
    if (json_object_get(object, key)) json_decref(value);
    else json_object_set_new(object, key, value);
}

/* Without these keys llama.cpp takes as many heads for keys as for queries, and parts of the width. */
static px_status read_gated(const source *s)
{
    json_t *heads = json_object_get(s->out, "num_attention_heads"), *width = json_object_get(s->out, "hidden_size");
    if (heads) set_default(s->out, "num_key_value_heads", json_incref(heads));
    if (json_integer_value(heads) > 0 && json_integer_value(width) > 0) {
        set_default(s->out, "head_dim", json_integer(json_integer_value(width) / json_integer_value(heads)));
    }
    set_default(s->out, "rope_theta", json_real(10000));
    json_object_set_new(s->out, "attention_bias", json_boolean(has_tensor(s, "blk.0.attn_output.bias")));
    json_object_set_new(s->out, "mlp_bias", json_boolean(has_tensor(s, "blk.0.ffn_up.bias")));
    read_rotated(s, "partial_rotary_factor");
    return read_scaling(s);
}

/* Mistral's files call themselves llama and say nothing of a window unless they have one. */
static px_status read_family(const source *s)
{
    static const struct {
        const char *architecture, *type;
        const pair *pairs;
    } table[] = {{"llama", "llama", llama}, {"qwen2", "qwen2", llama}, {"qwen3", "qwen3", llama},
                 {"gemma", "gemma", llama}, {"gpt2", "gpt2", gpt2},    {"gptneox", "gpt_neox", gptneox}};
    size_t i = 0, count = sizeof table / sizeof table[0];
    while (i < count && strcmp(table[i].architecture, s->architecture) != 0) i++;
    if (i == count) {
        return px_fail(PX_DATA,
                       "%s: key general.architecture is \"%s\"; valid are llama, qwen2, qwen3, gemma, gpt2, gptneox",
                       s->gguf->path, s->architecture);
    }
    for (const pair *p = table[i].pairs; p->from; p++) {
        json_t *value = meta(s, p->from);
        if (value) json_object_set(s->out, p->to, value);
    }
    bool window = i == 0 && json_object_get(s->out, "sliding_window");
    json_object_set_new(s->out, "model_type", json_string(window ? "mistral" : table[i].type));
    if (table[i].pairs == llama) return read_gated(s);
    if (table[i].pairs == gptneox) {
        set_default(s->out, "use_parallel_residual", json_true());
        read_rotated(s, "rotary_pct");
        json_object_set_new(s->out, "attention_bias", json_boolean(has_tensor(s, "blk.0.attn_qkv.bias")));
        return read_scaling(s);
    }
    return PX_OK;
}

/* ---- the rest ----------------------------------------------------------------------------------------------------- */
static bool is_tied(const source *s, const px_gguf_tensor *embedding)
{
    const px_gguf_tensor *head = px_gguf_tensor_named(s->gguf, "output.weight");
    return !head || (strcmp(head->type, embedding->type) == 0 && head->bytes == embedding->bytes &&
                     memcmp(head->data, embedding->data, head->bytes) == 0);
}

static void set_ids(const source *s)
{
    static const pair ids[] = {{"bos_token_id", "bos_token_id"}, {"padding_token_id", "pad_token_id"}};
    static const char *const ends[] = {"eos_token_id", "eot_token_id", "eom_token_id"};
    char key[64];
    for (int i = 0; i < 2; i++) {
        snprintf(key, sizeof key, "tokenizer.ggml.%s", ids[i].from);
        json_t *value = json_object_get(s->gguf->meta, key);
        json_object_set_new(s->out, ids[i].to, value ? json_incref(value) : json_null());
    }
    json_t *stops = json_array();
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "tokenizer.ggml.%s", ends[i]);
        json_t *value = json_object_get(s->gguf->meta, key);
        if (value) json_array_append(stops, value);
    }
    json_object_set_new(s->out, "eos_token_id", stops);
}

static px_status translate(const source *s)
{
    PX_TRY(refuse_others(s));
    PX_TRY(read_family(s));
    const px_gguf_tensor *embedding = px_gguf_tensor_named(s->gguf, "token_embd.weight");
    if (!embedding || embedding->dims != 2) {
        return px_fail(PX_DATA, "%s: tensor \"token_embd.weight\" is missing or no matrix", s->gguf->path);
    }
    json_object_set_new(s->out, "vocab_size", json_integer(embedding->shape[0]));
    json_object_set_new(s->out, "tie_word_embeddings", json_boolean(is_tied(s, embedding)));
    set_ids(s);
    return PX_OK;
}

px_status px_gguf_config(const char *path, json_t **config)
{
    px_gguf gguf;
    PX_TRY(px_gguf_open(&gguf, path));
    const char *architecture = json_string_value(json_object_get(gguf.meta, "general.architecture"));
    source s = {&gguf, architecture ? architecture : "", json_object()};
    px_status status = translate(&s);
    px_gguf_close(&gguf);
    if (status == PX_OK) *config = s.out;
    else json_decref(s.out);
    return status;
}
