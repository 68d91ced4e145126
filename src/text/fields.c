#include "fields.h"

#include <string.h>

static const char *kind_of(const json_t *value)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer", "a real number", "true",
                                        "false", "null"};
    return value == NULL ? "missing" : names[json_typeof(value)];
}

px_status px_field_bool(const json_t *object, const char *of, const char *key, bool fallback, bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = fallback;
    if (value == NULL || json_is_null(value)) {
        return PX_OK;
    }
    if (!json_is_boolean(value)) {
        return px_fail(PX_DATA, "%s.%s is %s; it must be true or false", of, key, kind_of(value));
    }
    *out = json_is_true(value);
    return PX_OK;
}

px_status px_field_int(const json_t *object, const char *of, const char *key, int64_t fallback, int64_t low,
                       int64_t high, int64_t *out)
{
    const json_t *value = json_object_get(object, key);
    *out = fallback;
    if (value == NULL || json_is_null(value)) {
        return PX_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high) {
        return px_fail(PX_DATA, "%s.%s must be an integer of %lld to %lld", of, key, (long long)low, (long long)high);
    }
    *out = json_integer_value(value);
    return PX_OK;
}

px_status px_field_text(const json_t *object, const char *of, const char *key, bool required, const char **out,
                        size_t *length)
{
    const json_t *value = json_object_get(object, key);
    *out = NULL;
    if (!required && (value == NULL || json_is_null(value))) {
        return PX_OK;
    }
    if (!json_is_string(value)) {
        return px_fail(PX_DATA, "%s.%s is %s; it must be a string", of, key, kind_of(value));
    }
    *out = json_string_value(value);
    if (length != NULL) {
        *length = json_string_length(value);
    }
    return PX_OK;
}

px_status px_field_type(const json_t *object, const char *of, const char *const *names, int count, int *which)
{
    if (!json_is_object(object)) {
        return px_fail(PX_DATA, "%s is %s; it must be an object with a type", of, kind_of(object));
    }
    const char *type;
    PX_TRY(px_field_text(object, of, "type", true, &type, NULL));
    char list[600] = "";
    for (int i = 0; i < count; i++) {
        if (strcmp(type, names[i]) == 0) {
            *which = i;
            return PX_OK;
        }
        if (strlen(list) + strlen(names[i]) + 3 < sizeof list) {
            strcat(strcat(list, i > 0 ? ", " : ""), names[i]);
        }
    }
    return px_fail(PX_DATA, "%s.type \"%.80s\" is not supported; supported are %s", of, type, list);
}
