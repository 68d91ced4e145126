#include "json_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

px_status px_json_quote(px_buf *out, const char *text, size_t length)
{
    static const char plain[] = "\"\\\n\r\t\b\f", names[] = "\"\\nrtbf";
    PX_TRY(px_buf_text(out, "\""));
    for (size_t i = 0, from = 0; i <= length; i++) {
        unsigned char c = i < length ? (unsigned char)text[i] : 0;
        if (i < length && c >= 0x20 && c != '"' && c != '\\') continue;
        if (i > from) PX_TRY(px_buf_add(out, text + from, i - from));
        from = i + 1;
        if (i == length) break;
        const char *known = c ? strchr(plain, c) : NULL;
        PX_TRY(known ? px_buf_printf(out, "\\%c", names[known - plain]) : px_buf_printf(out, "\\u%04x", c));
    }
    return px_buf_text(out, "\"");
}

/* The fewest digits that give the same double; with an exponent below 1e-4 and from 1e16. */
static px_status write_real(px_buf *out, double value)
{
    char text[40];
    int digits = 1;
    do {
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
    } while (digits++ < 17 && strtod(text, NULL) != value);
    int exponent = atoi(strchr(text, 'e') + 1), decimals = digits - 2 - exponent;
    if (exponent < -4 || exponent >= 16) return px_buf_text(out, text);
    return px_buf_printf(out, "%.*f", decimals > 1 ? decimals : 1, value);
}

static px_status write_list(px_buf *out, const json_t *list)
{
    PX_TRY(px_buf_text(out, "["));
    for (size_t i = 0; i < json_array_size(list); i++) {
        PX_TRY(px_buf_text(out, i > 0 ? ", " : ""));
        PX_TRY(px_json_write(out, json_array_get(list, i)));
    }
    return px_buf_text(out, "]");
}

static px_status write_object(px_buf *out, const json_t *object)
{
    const char *key, *between = "";
    json_t *value;
    PX_TRY(px_buf_text(out, "{"));
    json_object_foreach((json_t *)object, key, value) {
        PX_TRY(px_buf_text(out, between));
        PX_TRY(px_json_quote(out, key, strlen(key)));
        PX_TRY(px_buf_text(out, ": "));
        PX_TRY(px_json_write(out, value));
        between = ", ";
    }
    return px_buf_text(out, "}");
}

px_status px_json_write(px_buf *out, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return write_object(out, value);
    case JSON_ARRAY: return write_list(out, value);
    case JSON_STRING: return px_json_quote(out, json_string_value(value), json_string_length(value));
    case JSON_INTEGER: return px_buf_printf(out, "%lld", (long long)json_integer_value(value));
    case JSON_REAL: return write_real(out, json_real_value(value));
    case JSON_TRUE: return px_buf_text(out, "true");
    case JSON_FALSE: return px_buf_text(out, "false");
    case JSON_NULL: break;
    }
    return px_buf_text(out, "null");
}
