/* Typed access to the fields of a JSON object, with messages that name the field. Private to text. */
#ifndef PX_TEXT_FIELDS_H
#define PX_TEXT_FIELDS_H

#include "phalanx/base.h"

#include <jansson.h>

/* `of` names the object in messages. A missing or null field gives `fallback`; text: NULL when it may be absent. */
px_status px_field_bool(const json_t *object, const char *of, const char *key, bool fallback, bool *out);
px_status px_field_int(const json_t *object, const char *of, const char *key, int64_t fallback, int64_t low,
                       int64_t high, int64_t *out);
px_status px_field_text(const json_t *object, const char *of, const char *key, bool required, const char **out,
                        size_t *length);
/* object.type, which is one of `names`; *which its number. */
px_status px_field_type(const json_t *object, const char *of, const char *const *names, int count, int *which);

#endif
