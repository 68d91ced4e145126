/* GGUF files as models: what their metadata says in the words of config.json, their tensors under the names of Hugging
 * Face, and the values of quantised blocks. */
#ifndef PX_MODEL_GGUF_H
#define PX_MODEL_GGUF_H

#include "phalanx/base.h"
#include "safetensors.h"

struct json_t;
/* The object of config.json that the file's metadata amounts to; the caller json_decref's. */
px_status px_gguf_config(const char *path, struct json_t **config);

px_status px_tensors_open_gguf(px_tensors *tensors, const char *path);

#define PX_BLOCK_MAX 256 /* elements */
typedef void (*px_block_values)(const unsigned char *block, float *values);
px_block_values px_block_reader(const char *type); /* NULL: not a type of blocks */

#endif
