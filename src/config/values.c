/* What other rooms ask a configuration. */
#include "stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *px_config_path(const px_config *config)
{
    return config->path;
}

bool px_config_has_stages(const px_config *config)
{
    return config->staged;
}

int px_config_stage_count(const px_config *config)
{
    return config->stage_count;
}

const px_stage *px_config_stage(const px_config *config, int index)
{
    PX_CHECK(index >= 0 && index < config->stage_count);
    return &config->stages[index];
}

const px_stage *px_config_stage_named(const px_config *config, const char *name)
{
    for (int i = 0; i < config->stage_count; i++) {
        if (strcmp(config->stages[i].name, name) == 0) return &config->stages[i];
    }
    return NULL;
}

const char *px_stage_name(const px_stage *stage)
{
    return stage->name;
}

const char *px_stage_algorithm(const px_stage *stage)
{
    return stage->algorithm;
}

/* ---- one value ------------------------------------------------------------------------------------------------------------- */

px_value *px_stage_find(const px_stage *stage, const char *key)
{
    for (int i = 0; i < stage->count; i++) {
        if (strcmp(stage->values[i].key, key) == 0) return &stage->values[i];
    }
    return NULL;
}

_Noreturn static void no_such(const px_stage *stage, const char *key, const char *why)
{
    char text[256];
    snprintf(text, sizeof text, "configuration key %s of stage '%s' %s", key, stage->name, why);
    px_bug(__FILE__, __LINE__, text);
}

const px_value *px_stage_value(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_find(stage, key);
    if (!value) no_such(stage, key, "is not in the table");
    return value;
}

bool px_value_is_leaf(const px_value *value)
{
    return value->form != PX_IS_LIST && value->form != PX_IS_MAP && !(value->row->kind == PX_KEY_MODULE);
}

bool px_stage_is_set(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    if (value->form == PX_IS_LIST || value->form == PX_IS_MAP) return !value->preset || value->i > 0;
    return value->form != PX_IS_NULL;
}

int64_t px_stage_int(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    if (value->row->kind != PX_KEY_INT) no_such(stage, key, "is not a whole number");
    if (value->form == PX_IS_WORD) no_such(stage, key, "is a word: ask px_stage_number");
    return value->i;
}

double px_stage_float(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    px_key_kind kind = value->row->kind;
    bool entry = kind == PX_KEY_NUMBERS && value->form != PX_IS_LIST;
    if (kind != PX_KEY_INT && kind != PX_KEY_FLOAT && !entry) no_such(stage, key, "is not a number");
    if (value->form == PX_IS_WORD) no_such(stage, key, "is a word: ask px_stage_number");
    return value->f;
}

bool px_stage_bool(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    if (value->row->kind != PX_KEY_BOOL) no_such(stage, key, "is not a truth value");
    return value->i != 0;
}

const char *px_stage_text(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    if (value->form == PX_IS_LIST && value->row->kind == PX_KEY_SOURCES) {
        char first[160];
        if (value->i == 0) return NULL;
        snprintf(first, sizeof first, "%s.0.file", key);
        return px_stage_value(stage, first)->text;
    }
    if (value->form == PX_IS_LIST || value->form == PX_IS_MAP) no_such(stage, key, "is not text");
    if (value->row->kind == PX_KEY_BOOL) no_such(stage, key, "is a truth value");
    return value->text;
}

bool px_stage_number(const px_stage *stage, const char *key, double *value)
{
    const px_value *found = px_stage_value(stage, key);
    px_key_kind kind = found->row->kind;
    if (kind != PX_KEY_INT && kind != PX_KEY_FLOAT && kind != PX_KEY_NUMBERS) no_such(stage, key, "is not a number");
    if (found->form != PX_IS_NUMBER) return false;
    *value = found->f;
    return true;
}

px_status px_stage_path(const px_stage *stage, const char *key, char *out, size_t size)
{
    if (strcmp(key, "run.dir") == 0) return px_stage_run_dir(stage, out, size);
    const px_value *value = px_stage_value(stage, key);
    px_key_kind kind = value->row->kind;
    if (kind != PX_KEY_PATH && kind != PX_KEY_SOURCES) no_such(stage, key, "is not a path");
    const char *text = px_stage_text(stage, key);
    if (!text) return px_stage_fail(stage, key, "%s is null; valid is a path", key);
    if ((size_t)snprintf(out, size, "%s", text) >= size) return px_stage_fail(stage, key, "%s: the path is too long", key);
    return PX_OK;
}

int px_stage_list_count(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    if (value->form != PX_IS_LIST) no_such(stage, key, "is not a list");
    return (int)value->i;
}

int px_stage_map_count(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    if (value->form != PX_IS_MAP) no_such(stage, key, "is not a map");
    return (int)value->i;
}

void px_stage_map_entry(const px_stage *stage, const char *key, int index, const char **name, const char **text)
{
    const px_value *map = px_stage_value(stage, key);
    PX_CHECK(map->form == PX_IS_MAP && index >= 0 && index < map->i);
    const px_value *entry = map + 1 + index;
    *name = entry->key + strlen(key) + 1;
    *text = entry->text;
}

const char *px_stage_origin(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    return value->preset ? "default" : value->origin;
}

static const char *place_of(const px_stage *stage, const char *key)
{
    const px_value *value = px_stage_value(stage, key);
    if (!value->node) return stage->config->path;
    return value->node->line ? value->origin : value->node->file;
}

px_status px_stage_fail(const px_stage *stage, const char *key, const char *format, ...)
{
    char text[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return px_fail(PX_CONFIG, "%s: %s", place_of(stage, key), text);
}

px_status px_stage_fail_within(const px_stage *stage, const char *key)
{
    return px_fail_within("%s: %s", place_of(stage, key), key);
}

/* ---- leaves ------------------------------------------------------------------------------------------------------------------ */

static bool is_listed(const px_value *value)
{
    return value->applies && px_value_is_leaf(value);
}

int px_stage_leaf_count(const px_stage *stage)
{
    int count = 0;
    for (int i = 0; i < stage->count; i++) count += is_listed(&stage->values[i]);
    return count;
}

void px_stage_leaf(const px_stage *stage, int index, px_leaf *leaf)
{
    const px_value *value = NULL;
    for (int i = 0; i < stage->count; i++) {
        if (is_listed(&stage->values[i]) && index-- == 0) value = &stage->values[i];
    }
    PX_CHECK(value != NULL);
    *leaf = (px_leaf){.key = value->key, .type = PX_TYPE_TEXT, .text = value->text,
                      .may_change = value->may_change};
    if (value->form == PX_IS_BOOL) {
        leaf->type = PX_TYPE_BOOL;
        leaf->b = value->i != 0;
    } else if (value->form == PX_IS_NUMBER) {
        leaf->type = value->row->kind == PX_KEY_INT ? PX_TYPE_INT : PX_TYPE_FLOAT;
        leaf->i = value->i;
        leaf->f = value->f;
    }
}

const char *px_float_text(double value, char out[40])
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, 40, "%.*g", digits, value);
        if (strtod(out, NULL) == value) break;
    }
    char *exponent = strchr(out, 'e');
    if (!strchr(out, '.')) { /* "1e-06" is text to some YAML readers, "1.0e-06" never */
        char rest[40];
        snprintf(rest, sizeof rest, "%s", exponent ? exponent : "");
        if (exponent) *exponent = 0;
        size_t length = strlen(out);
        snprintf(out + length, 40 - length, ".0%s", rest);
    }
    return out;
}

const char *px_value_text(const px_value *value, char *out, size_t size)
{
    char number[40];
    switch (value->form) {
    case PX_IS_NULL: snprintf(out, size, "null"); break;
    case PX_IS_BOOL: snprintf(out, size, "%s", value->i ? "true" : "false"); break;
    case PX_IS_NUMBER:
        if (value->row->kind == PX_KEY_INT) snprintf(out, size, "%lld", (long long)value->i);
        else snprintf(out, size, "%s", px_float_text(value->f, number));
        break;
    case PX_IS_LIST:
    case PX_IS_MAP: snprintf(out, size, "%lld entries", (long long)value->i); break;
    default: snprintf(out, size, "%s", value->text); break;
    }
    return out;
}
