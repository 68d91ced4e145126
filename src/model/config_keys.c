#include "config_keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *px_keys_get(const px_keys *keys, const char *key)
{
    json_t *value = json_object_get(keys->object, key);
    return json_is_null(value) ? NULL : value;
}

px_status px_keys_refuse(const px_keys *keys, const char *key, const char *valid)
{
    json_t *value = json_object_get(keys->object, key);
    char shown[64] = "missing";
    char *dump = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (dump) {
        snprintf(shown, sizeof shown, "%s", dump);
        if (strlen(dump) >= sizeof shown) memcpy(shown + sizeof shown - 4, "...", 4);
        free(dump);
    }
    return px_fail(PX_DATA, "%s: key \"%s%s\" is %s; valid is %s", keys->path, keys->group, key, shown, valid);
}

px_status px_keys_int(const px_keys *keys, const char *key, bool required, int low, int high, int *value)
{
    char valid[80];
    snprintf(valid, sizeof valid, "an integer from %d to %d", low, high);
    json_t *found = px_keys_get(keys, key);
    if (!found) return required ? px_keys_refuse(keys, key, valid) : PX_OK;
    if (!json_is_integer(found)) return px_keys_refuse(keys, key, valid);
    json_int_t number = json_integer_value(found);
    if (number < low || number > high) return px_keys_refuse(keys, key, valid);
    *value = (int)number;
    return PX_OK;
}

px_status px_keys_real(const px_keys *keys, const char *key, bool required, double low, double high, double *value)
{
    char valid[80];
    snprintf(valid, sizeof valid, "a number from %g to %g", low, high);
    json_t *found = px_keys_get(keys, key);
    if (!found) return required ? px_keys_refuse(keys, key, valid) : PX_OK;
    if (!json_is_number(found)) return px_keys_refuse(keys, key, valid);
    double number = json_number_value(found);
    if (!isfinite(number) || number < low || number > high) return px_keys_refuse(keys, key, valid);
    *value = number;
    return PX_OK;
}

px_status px_keys_bool(const px_keys *keys, const char *key, bool *value)
{
    json_t *found = px_keys_get(keys, key);
    if (!found) return PX_OK;
    if (!json_is_boolean(found)) return px_keys_refuse(keys, key, "true or false");
    *value = json_is_true(found);
    return PX_OK;
}

px_status px_keys_text(const px_keys *keys, const char *key, bool required, const char **value)
{
    json_t *found = px_keys_get(keys, key);
    if (!found) return required ? px_keys_refuse(keys, key, "a string") : PX_OK;
    if (!json_is_string(found)) return px_keys_refuse(keys, key, "a string");
    *value = json_string_value(found);
    return PX_OK;
}
