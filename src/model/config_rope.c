/* Rotary positions in config.json. rope_theta and rope_scaling lie flat in older files; rope_parameters holds both
 * since transformers 5. Where both objects are given, rope_scaling counts, as in transformers. */
#include "config_rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* How strongly YaRN sharpens attention at a given stretch (Peng et al. 2023, section 3.4). */
static double yarn_magnitude(double factor, double weight)
{
    return factor <= 1 ? 1 : 0.1 * weight * log(factor) + 1;
}

static px_status read_yarn(const px_keys *keys, px_rope *rope)
{
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    double mscale = 0, mscale_all = 0;
    PX_TRY(px_keys_real(keys, "beta_fast", false, 1e-6, 1e6, &rope->beta_fast));
    PX_TRY(px_keys_real(keys, "beta_slow", false, 1e-6, 1e6, &rope->beta_slow));
    PX_TRY(px_keys_real(keys, "mscale", false, 0, 1e6, &mscale));
    PX_TRY(px_keys_real(keys, "mscale_all_dim", false, 0, 1e6, &mscale_all));
    json_t *truncate = json_object_get(keys->object, "truncate"); /* null is false, as in transformers */
    if (truncate && !json_is_true(truncate)) return px_keys_refuse(keys, "truncate", "true (other ramps are not supported)");
    rope->attention_factor = mscale > 0 && mscale_all > 0
                                 ? yarn_magnitude(rope->factor, mscale) / yarn_magnitude(rope->factor, mscale_all)
                                 : yarn_magnitude(rope->factor, 1);
    return px_keys_real(keys, "attention_factor", false, 1e-6, 1e6, &rope->attention_factor);
}

static px_status read_rope_type(const px_keys *keys, px_rope_type *type)
{
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

/* What the object says: rope_scaling, else rope_parameters. */
static px_status read_object(const px_keys *inner, px_rope *rope, double *part)
{
    PX_TRY(read_rope_type(inner, &rope->type));
    PX_TRY(px_keys_real(inner, "rope_theta", false, 1, 1e12, &rope->theta));
    PX_TRY(px_keys_real(inner, "partial_rotary_factor", false, 0, 1, part));
    if (rope->type != PX_ROPE_DEFAULT) PX_TRY(px_keys_real(inner, "factor", true, 1, 1e6, &rope->factor));
    if (rope->type == PX_ROPE_YARN) PX_TRY(read_yarn(inner, rope));
    if (rope->type == PX_ROPE_LLAMA3) {
        PX_TRY(px_keys_real(inner, "low_freq_factor", true, 1e-6, 1e6, &rope->low_freq));
        PX_TRY(px_keys_real(inner, "high_freq_factor", true, 1e-6, 1e6, &rope->high_freq));
    }
    return PX_OK;
}

px_status px_rope_read(const px_keys *keys, const px_family_info *family, px_model_config *config)
{
    static const char original[] = "original_max_position_embeddings";
    px_rope *rope = &config->rope;
    double part = family->rotary_part;
    const char *theta_key = family->theta_key ? family->theta_key : "rope_theta";
    const char *part_key = family->part_key ? family->part_key : "partial_rotary_factor";
    rope->original_positions = config->max_positions;
    PX_TRY(px_keys_real(keys, theta_key, false, 1, 1e12, &rope->theta));
    PX_TRY(px_keys_real(keys, part_key, false, 0, 1, &part));
    PX_TRY(px_keys_real(keys, original, false, 1, PX_MAX_POSITIONS, &rope->original_positions));

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
        PX_TRY(read_object(&inner, rope, &part));
        if (!px_keys_get(keys, original)) {
            PX_TRY(px_keys_real(&inner, original, false, 1, PX_MAX_POSITIONS, &rope->original_positions));
        }
    }
    if (family->rotary_part == 1 && part != 1) {
        return px_fail(PX_DATA, "%s: key \"partial_rotary_factor\" is %g; valid is 1 (heads of %s rotate as a whole)",
                       keys->path, part, family->type);
    }
    rope->rotary_dim = (int)(config->head_dim * part);
    return PX_OK;
}
