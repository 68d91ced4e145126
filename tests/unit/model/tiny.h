/* Tiny model shapes and ragged batches for the tests of the model. */
#ifndef PHALANX_TESTS_TINY_H
#define PHALANX_TESTS_TINY_H

#include <math.h>
#include <string.h>

#include "phalanx/model.h"

static inline px_model_config tiny_gpt2(px_head head, bool tied)
{
    return (px_model_config){.family = PX_GPT2,
                             .head = head,
                             .tied = tied,
                             .vocab_size = 37,
                             .hidden_size = 16,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 4,
                             .head_dim = 4,
                             .intermediate_size = 24,
                             .max_positions = 160,
                             .norm_eps = 1e-5,
                             .attention_bias = true,
                             .output_bias = true,
                             .mlp_bias = true,
                             .activation = PX_GELU_TANH,
                             .bos_id = -1,
                             .pad_id = -1,
                             .initializer_range = 0.3,
                             .reward_std = 1};
}

static inline px_model_config tiny_llama(px_head head, bool tied)
{
    return (px_model_config){.family = PX_LLAMA,
                             .head = head,
                             .tied = tied,
                             .vocab_size = 41,
                             .hidden_size = 12,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 6,
                             .intermediate_size = 20,
                             .max_positions = 256,
                             .norm_eps = 1e-5,
                             .activation = PX_SILU,
                             .rope = {.type = PX_ROPE_DEFAULT, .theta = 10000, .factor = 1, .rotary_dim = 6},
                             .bos_id = -1,
                             .pad_id = -1,
                             .initializer_range = 0.3,
                             .reward_std = 1};
}

/* One of each family, with what distinguishes its block. */
static inline px_model_config tiny_family(px_family family, px_head head)
{
    if (family == PX_GPT2) return tiny_gpt2(head, true);
    px_model_config c;
    px_model_config_defaults(&c, family);
    c.head = head;
    c.vocab_size = 41;
    c.hidden_size = 16;
    c.layers = 2;
    c.heads = 4;
    c.kv_heads = family == PX_GPT_NEOX || family == PX_OPT ? 4 : 2;
    c.head_dim = c.kv_heads == 4 ? 4 : 6;
    c.intermediate_size = 20;
    c.max_positions = 160;
    c.window = family == PX_MISTRAL ? 7 : 0;
    c.norm_eps = 1e-5;
    c.initializer_range = 0.3;
    if (family == PX_GPT_NEOX) c.rope.rotary_dim = 2;
    px_model_config_complete(&c);
    return c;
}

/* Weights that leave nothing at its neutral value: norms and biases too are random. */
static inline void tiny_fill(px_model *model, uint64_t seed)
{
    px_rng rng = px_rng_make(seed, "test", PX_RNG_NOISE);
    px_model_init(model, seed);
    for (int p = 0; p < model->param_count; p++) {
        const px_param *param = &model->params[p];
        for (size_t i = 0; param->dims == 1 && i < param->count; i++) {
            model->weights[param->offset + i] += (px_real)(0.2 * px_rng_normal(&rng, (uint32_t)p, (uint32_t)i, 0, 0));
        }
    }
    model->version++;
}

static inline void tiny_model(px_model *model, const px_model_config *config, uint64_t seed)
{
    if (px_model_plan(model, config) != PX_OK || px_model_alloc(model) != PX_OK) {
        px_bug(__FILE__, __LINE__, "no memory");
    }
    tiny_fill(model, seed);
}

/* Random ids; the caller's arrays hold sum(lengths) and count + 1. */
static inline px_batch tiny_batch(int32_t *ids, int32_t *starts, const int *lengths, int count, int vocab)
{
    px_rng rng = px_rng_make(11, "batch", PX_RNG_NOISE);
    starts[0] = 0;
    for (int s = 0; s < count; s++) {
        starts[s + 1] = starts[s] + lengths[s];
        for (int i = starts[s]; i < starts[s + 1]; i++) {
            ids[i] = (int32_t)(px_rng_uniform(&rng, (uint32_t)s, (uint32_t)(i - starts[s]), 0, 0) * vocab);
        }
    }
    return (px_batch){.ids = ids, .starts = starts, .sequences = count, .tokens = starts[count]};
}

/* Every row but the last of each sequence predicts the next id; returns how many. */
static inline int tiny_targets(const px_batch *batch, int32_t *rows, int32_t *targets)
{
    int n = 0;
    for (int s = 0; s < batch->sequences; s++) {
        for (int i = batch->starts[s]; i + 1 < batch->starts[s + 1]; i++) {
            rows[n] = i;
            targets[n++] = batch->ids[i + 1];
        }
    }
    return n;
}

#endif
