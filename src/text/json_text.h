/* JSON as Python's json.dumps(value, ensure_ascii=False) writes it, which is what templates' tojson is. Private to text. */
#ifndef PX_TEXT_JSON_TEXT_H
#define PX_TEXT_JSON_TEXT_H

#include "phalanx/base.h"

#include <jansson.h>

px_status px_json_quote(px_buf *out, const char *text, size_t length); /* a string with its quotes, appended */
px_status px_json_write(px_buf *out, const json_t *value);             /* appended */

#endif
