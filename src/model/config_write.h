#ifndef PX_MODEL_CONFIG_WRITE_H
#define PX_MODEL_CONFIG_WRITE_H

#include "phalanx/model.h"

/* config.json and generation_config.json of a directory that transformers opens. */
px_status px_model_config_write(const px_model_config *config, const char *dir, px_dtype dtype);

#endif
