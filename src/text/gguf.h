/* The tokenizer in the metadata of a GGUF file. Private to text. */
#ifndef PX_TEXT_GGUF_H
#define PX_TEXT_GGUF_H

#include <jansson.h>

#include "phalanx/base.h"

/* The trees of tokenizer.json and tokenizer_config.json that the file amounts to; the caller json_decref's both. PX_DATA
 * when the metadata does not say enough. */
px_status px_gguf_tokenizer(const char *path, json_t **tokenizer, json_t **settings);

#endif
