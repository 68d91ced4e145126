/* Typed access to the keys of a JSON object from an untrusted file: every reader checks type and range, and its message
 * names file, key, what was found and what is valid. A key that is absent or null leaves *value alone. */
#ifndef PX_MODEL_CONFIG_KEYS_H
#define PX_MODEL_CONFIG_KEYS_H

#include <jansson.h>

#include "phalanx/base.h"

typedef struct px_keys {
    const char *path;  /* of the file, for messages */
    const char *group; /* "rope_scaling." for nested objects, else "" */
    json_t *object;    /* borrowed */
} px_keys;

/* NULL when absent or null. */
json_t *px_keys_get(const px_keys *keys, const char *key);
px_status px_keys_int(const px_keys *keys, const char *key, bool required, int low, int high, int *value);
px_status px_keys_real(const px_keys *keys, const char *key, bool required, double low, double high, double *value);
px_status px_keys_bool(const px_keys *keys, const char *key, bool *value);
/* *value points into the JSON tree. */
px_status px_keys_text(const px_keys *keys, const char *key, bool required, const char **value);
/* Records "FILE: KEY is VALUE; valid is ..." */
px_status px_keys_refuse(const px_keys *keys, const char *key, const char *valid);

#endif
