/* From the tree of a stage to its values: what the files that do this share. */
#ifndef PX_CONFIG_RESOLVE_H
#define PX_CONFIG_RESOLVE_H

#include "stage.h"

typedef struct px_job {
    px_stage *stage;
    px_problems *problems;
    px_pool *pool;
} px_job;

/* Gives the value what the node says, or notes why it cannot. */
void px_parse_scalar(px_job *job, px_value *value, const px_node *node);
/* "KEY: 'text' WRONG; valid is ...", or which of a list and a map stands where another thing is wanted. */
void px_bad_value(px_job *job, const px_value *value, const px_node *node, const char *wrong);
/* What is valid for a key, in words: "auto, or a whole number from 1 to 4096". */
const char *px_valid_text(px_pool *pool, const px_key *row);
bool px_looks_like_number(const char *text, bool *whole);

#endif
