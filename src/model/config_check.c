/* What a model may look like: checks that hold for configurations from files and for those made in code, and the shapes
 * that benchmarks run with random weights. */
#include <math.h>
#include <string.h>

#include "family.h"

static px_status check_range(const char *key, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high) return PX_OK;
    return px_fail(PX_DATA, "%s is %lld; valid is an integer from %lld to %lld", key, (long long)value, (long long)low,
                   (long long)high);
}

static px_status check_sizes(const px_model_config *c)
{
    PX_TRY(check_range("vocab_size", c->vocab_size, 1, 1 << 24));
    PX_TRY(check_range("hidden_size", c->hidden_size, 1, 1 << 17));
    PX_TRY(check_range("num_hidden_layers", c->layers, 1, 1024));
    PX_TRY(check_range("num_attention_heads", c->heads, 1, c->hidden_size));
    PX_TRY(check_range("num_key_value_heads", c->kv_heads, 1, c->heads));
    PX_TRY(check_range("head_dim", c->head_dim, 1, PX_MAX_HEAD_DIM));
    PX_TRY(check_range("intermediate_size", c->intermediate_size, 1, 1 << 19));
    PX_TRY(check_range("max_position_embeddings", c->max_positions, 1, 1 << 24));
    PX_TRY(check_range("sliding_window", c->window, 0, 1 << 24));
    PX_TRY(check_range("num_attention_heads * head_dim", (int64_t)c->heads * c->head_dim, 1, 1 << 18));
    if (c->heads % c->kv_heads != 0) {
        return px_fail(PX_DATA,
                       "num_attention_heads %d is not a multiple of num_key_value_heads %d; valid is a multiple",
                       c->heads, c->kv_heads);
    }
    if (!(c->norm_eps > 0 && c->norm_eps <= 1)) {
        return px_fail(PX_DATA, "the norm's epsilon is %g; valid is a number over 0, at most 1", c->norm_eps);
    }
    if (!(c->initializer_range >= 0 && c->initializer_range <= 1)) {
        return px_fail(PX_DATA, "initializer_range is %g; valid is a number from 0 to 1", c->initializer_range);
    }
    return PX_OK;
}

static px_status check_rope(const px_model_config *c)
{
    const px_rope *r = &c->rope;
    if (r->type < PX_ROPE_DEFAULT || r->type > PX_ROPE_YARN) {
        return px_fail(PX_DATA, "rope_type is missing; valid is default, linear, llama3 or yarn");
    }
    bool whole = px_family_get(c->family)->rotary_part == 1;
    bool fits = r->rotary_dim >= 2 && r->rotary_dim % 2 == 0 && r->rotary_dim <= c->head_dim;
    if (!fits || (whole && r->rotary_dim != c->head_dim)) {
        return px_fail(PX_DATA, "head_dim is %d and %d of it rotate; valid is an even %s", c->head_dim, r->rotary_dim,
                       whole ? "head_dim that rotates as a whole" : "number from 2 to head_dim");
    }
    if (!(r->theta >= 1 && r->theta <= 1e12)) {
        return px_fail(PX_DATA, "rope_theta is %g; valid is a number from 1 to 1e12", r->theta);
    }
    if (r->type != PX_ROPE_DEFAULT && !(r->factor >= 1 && r->factor <= 1e6)) {
        return px_fail(PX_DATA, "rope_scaling.factor is %g; valid is a number from 1 to 1e6", r->factor);
    }
    bool long_context = r->type == PX_ROPE_LLAMA3 || r->type == PX_ROPE_YARN;
    if (long_context && !(r->original_positions >= 1 && r->original_positions <= 1 << 24)) {
        return px_fail(PX_DATA, "original_max_position_embeddings is %g; valid is a number from 1 to 16777216",
                       r->original_positions);
    }
    if (r->type == PX_ROPE_LLAMA3 && !(r->low_freq > 0 && r->high_freq > r->low_freq && isfinite(r->high_freq))) {
        return px_fail(PX_DATA, "low_freq_factor is %g and high_freq_factor %g; valid is 0 < low < high", r->low_freq,
                       r->high_freq);
    }
    if (r->type == PX_ROPE_YARN && !(r->beta_slow > 0 && r->beta_fast >= r->beta_slow && isfinite(r->beta_fast) &&
                                     r->attention_factor > 0 && isfinite(r->attention_factor) && r->theta > 1)) {
        return px_fail(PX_DATA,
                       "beta_slow is %g, beta_fast %g, attention_factor %g, rope_theta %g; valid is 0 < beta_slow "
                       "<= beta_fast, 0 < attention_factor, 1 < rope_theta",
                       r->beta_slow, r->beta_fast, r->attention_factor, r->theta);
    }
    return PX_OK;
}

static px_status check_family(const px_model_config *c)
{
    if (c->activation < PX_GELU_TANH || c->activation > PX_RELU) return px_fail(PX_DATA, "unknown activation");
    if ((int)c->family < 0 || (int)c->family >= PX_FAMILIES) return px_fail(PX_DATA, "unknown family");
    const px_family_info *family = px_family_get(c->family);
    if (family->square && (c->kv_heads != c->heads || c->heads * c->head_dim != c->hidden_size)) {
        return px_fail(PX_DATA,
                       "%s with %d heads of %d and %d key/value heads at width %d; valid is as many key/value heads as "
                       "heads, and heads * head_dim = hidden_size",
                       family->type, c->heads, c->head_dim, c->kv_heads, c->hidden_size);
    }
    if (!(family->biases & BIASES(c->attention_bias, c->output_bias, c->mlp_bias))) {
        return px_fail(PX_DATA,
                       "%s with%s biases on queries, keys and values, with%s one on the attention's output, with%s ones "
                       "in the MLP; valid are the biases that such models have",
                       family->type, c->attention_bias ? "" : "out", c->output_bias ? "" : "out",
                       c->mlp_bias ? "" : "out");
    }
    if (c->parallel_residual && c->family != PX_GPT_NEOX) {
        return px_fail(PX_DATA, "%s with attention and MLP side by side; valid is one after the other", family->type);
    }
    if (c->window > 0 && family->defaults.window == 0) {
        return px_fail(PX_DATA, "%s with a sliding window; valid is none", family->type);
    }
    if (!family->traits.learned_positions) return check_rope(c);
    if (c->rope.type == PX_ROPE_NONE) return PX_OK;
    return px_fail(PX_DATA, "%s with rotary positions; valid are learned ones", family->type);
}

static px_status check_ids(const px_model_config *c)
{
    PX_TRY(check_range("bos_token_id", c->bos_id, -1, c->vocab_size - 1));
    PX_TRY(check_range("pad_token_id", c->pad_id, -1, c->vocab_size - 1));
    PX_TRY(check_range("number of stop ids", c->eos_count, 0, PX_MAX_EOS));
    for (int i = 0; i < c->eos_count; i++) PX_TRY(check_range("eos_token_id", c->eos_ids[i], 0, c->vocab_size - 1));
    if (!isfinite(c->reward_mean) || !(c->reward_std > 0) || !isfinite(c->reward_std)) {
        return px_fail(PX_DATA,
                       "reward_mean is %g and reward_std %g; valid is a finite mean and a standard deviation over 0",
                       c->reward_mean, c->reward_std);
    }
    return PX_OK;
}

px_status px_model_config_check(const px_model_config *config)
{
    if (config->head < PX_HEAD_NONE || config->head > PX_HEAD_SCALAR) return px_fail(PX_DATA, "unknown head");
    PX_TRY(check_sizes(config));
    PX_TRY(check_family(config));
    return check_ids(config);
}

/* ---- shapes --------------------------------------------------------------------- */
static void shape_gpt2(px_model_config *c, int vocab_size, int positions, int width, int layers, int heads)
{
    px_model_config_defaults(c, PX_GPT2);
    c->vocab_size = vocab_size;
    c->max_positions = positions;
    c->hidden_size = width;
    c->layers = layers;
    c->heads = heads;
}

static void shape_llama(px_model_config *c, int vocab_size, int positions, int width, int inner, int layers, int heads,
                        int kv_heads, double theta)
{
    px_model_config_defaults(c, PX_LLAMA);
    c->tied = true;
    c->vocab_size = vocab_size;
    c->max_positions = positions;
    c->hidden_size = width;
    c->layers = layers;
    c->heads = heads;
    c->kv_heads = kv_heads;
    c->intermediate_size = inner;
    c->rope.theta = theta;
}

px_status px_model_config_shape(const char *name, px_model_config *config)
{
    if (strcmp(name, "gpt2-124m") == 0) shape_gpt2(config, 50257, 1024, 768, 12, 12);
    else if (strcmp(name, "nano10m") == 0) shape_gpt2(config, 65, 256, 384, 6, 6);
    else if (strcmp(name, "smollm2-135m") == 0) shape_llama(config, 49152, 8192, 576, 1536, 30, 9, 3, 100000);
    else if (strcmp(name, "stories15m") == 0) shape_llama(config, 32000, 256, 288, 768, 6, 6, 6, 10000);
    else {
        return px_fail(PX_USAGE, "unknown shape \"%s\"; valid is gpt2-124m, nano10m, smollm2-135m or stories15m", name);
    }
    config->head = PX_HEAD_LM;
    px_model_config_complete(config);
    int eos = config->family == PX_GPT2 ? 50256 : 2; /* transformers' defaults, where the vocabulary has them */
    if (eos < config->vocab_size) {
        config->bos_id = config->family == PX_GPT2 ? eos : 1;
        config->eos_ids[config->eos_count++] = eos;
    }
    return px_model_config_check(config);
}
