#ifndef PX_MODEL_CONFIG_ROPE_H
#define PX_MODEL_CONFIG_ROPE_H

#include "config_keys.h"
#include "family.h"

/* Fills config->rope, whose defaults are there, once the sizes are known. */
px_status px_rope_read(const px_keys *keys, const px_family_info *family, px_model_config *config);

#endif
