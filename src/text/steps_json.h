/* The chains of steps of a tokenizer.json: normalizer, pre_tokenizer, decoder. Private to text. */
#ifndef PX_TEXT_STEPS_JSON_H
#define PX_TEXT_STEPS_JSON_H

#include "fields.h"
#include "tokenizer.h"

/* Each value may be NULL or null: no steps. Sequences are flattened. */
px_status px_normals_parse(px_tokenizer *tokenizer, const json_t *value);
px_status px_splits_parse(px_tokenizer *tokenizer, const json_t *value);
px_status px_decodes_parse(px_tokenizer *tokenizer, const json_t *value);

#endif
