/* The list of families, and what a configuration takes from its own. */
#include "family.h"

#include <stdio.h>
#include <string.h>

static const px_family_info *const families[PX_FAMILIES] = {
    [PX_GPT2] = &px_family_gpt2,         [PX_LLAMA] = &px_family_llama, [PX_MISTRAL] = &px_family_mistral,
    [PX_QWEN2] = &px_family_qwen2,       [PX_QWEN3] = &px_family_qwen3, [PX_GEMMA] = &px_family_gemma,
    [PX_GPT_NEOX] = &px_family_gpt_neox, [PX_OPT] = &px_family_opt};

const px_family_info *px_family_get(px_family family)
{
    PX_CHECK((int)family >= 0 && (int)family < PX_FAMILIES);
    return families[family];
}

px_traits px_family_traits(px_family family)
{
    return px_family_get(family)->traits;
}

const char *px_family_name(px_family family)
{
    return px_family_get(family)->type;
}

px_status px_family_parse(const char *name, px_family *family)
{
    char valid[160];
    size_t used = 0;
    for (int i = 0; i < PX_FAMILIES; i++) {
        if (strcmp(families[i]->type, name) == 0) {
            *family = (px_family)i;
            return PX_OK;
        }
        const char *between = i == 0 ? "" : i + 1 < PX_FAMILIES ? ", " : " or ";
        int length = snprintf(valid + used, sizeof valid - used, "%s\"%s\"", between, families[i]->type);
        used += (size_t)length < sizeof valid - used ? (size_t)length : sizeof valid - used - 1;
    }
    return px_fail(PX_DATA, "\"%s\" is not a known family of models; valid is %s", name, valid);
}

void px_model_config_defaults(px_model_config *config, px_family family)
{
    *config = px_family_get(family)->defaults;
    config->family = family;
    config->bos_id = config->pad_id = -1;
    config->eos_count = 0;
    config->reward_std = 1;
    if (config->initializer_range == 0) config->initializer_range = 0.02;
    if (!px_family_traits(family).learned_positions) {
        config->rope = (px_rope){.type = PX_ROPE_DEFAULT, .theta = 10000, .factor = 1, .attention_factor = 1};
    }
}

void px_model_config_complete(px_model_config *config)
{
    const px_family_info *family = px_family_get(config->family);
    if (config->kv_heads == 0) config->kv_heads = config->heads;
    if (config->head_dim == 0) config->head_dim = config->hidden_size / config->heads;
    if (config->intermediate_size == 0) config->intermediate_size = 4 * config->hidden_size;
    px_rope *rope = &config->rope;
    if (rope->type == PX_ROPE_NONE) return;
    if (rope->rotary_dim == 0) rope->rotary_dim = (int)(config->head_dim * family->rotary_part);
    if (rope->original_positions == 0) rope->original_positions = config->max_positions;
}
