/* The table of keys as a JSON schema (2020-12), for editors that complete and check YAML. */
#include "key.h"
#include "phalanx/config.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *reference(const char *name)
{
    return json_pack("{s:s++}", "$ref", "#/$defs/", name, "");
}

static json_t *closed_object(void)
{
    return json_pack("{s:s, s:{}, s:b}", "type", "object", "properties", "additionalProperties", 0);
}

/* number or integer with the limits of the interval */
static json_t *number_schema(const px_key *key)
{
    double low, high;
    bool low_open, high_open;
    json_t *schema = json_pack("{s:s}", "type", key->kind == PX_KEY_INT ? "integer" : "number");
    if (px_valid_interval(key->valid, &low, &high, &low_open, &high_open)) {
        bool whole = key->kind == PX_KEY_INT;
        json_object_set_new(schema, low_open ? "exclusiveMinimum" : "minimum", whole ? json_integer((json_int_t)low) : json_real(low));
        json_object_set_new(schema, high_open ? "exclusiveMaximum" : "maximum",
                            whole ? json_integer((json_int_t)high) : json_real(high));
    }
    return schema;
}

static json_t *words_schema(const char *valid)
{
    json_t *words = json_array();
    char word[64];
    for (const char *at = valid; px_word_next(&at, word, sizeof word);) {
        if (word[0] == '[' || word[0] == '(') continue;
        json_array_append_new(words, strcmp(word, "null") == 0 ? json_null() : json_string(word));
    }
    return json_pack("{s:o}", "enum", words);
}

static bool has_words(const char *valid)
{
    return valid && (strchr("[(", valid[0]) == NULL || strchr(valid, '|') != NULL);
}

static json_t *kind_schema(const px_key *key)
{
    json_t *text = json_pack("{s:s}", "type", "string");
    json_t *result = NULL;
    switch (key->kind) {
    case PX_KEY_INT:
    case PX_KEY_FLOAT: result = number_schema(key); break;
    case PX_KEY_BOOL: result = json_pack("{s:s}", "type", "boolean"); break;
    case PX_KEY_WORD: result = words_schema(key->valid); break;
    case PX_KEY_NUMBERS:
        result = json_pack("{s:s, s:o, s:i, s:i}", "type", "array", "items", number_schema(key), "minItems", 2, "maxItems", 2);
        break;
    case PX_KEY_TEXTS: result = json_pack("{s:[O, {s:s, s:O}]}", "anyOf", text, "type", "array", "items", text); break;
    case PX_KEY_MODULE: result = reference("module"); break;
    case PX_KEY_REWARDS: result = json_pack("{s:s, s:o}", "type", "array", "items", reference("reward")); break;
    case PX_KEY_SOURCES:
        result = json_pack("{s:[O, {s:s, s:{s:[O, o]}}]}", "anyOf", text, "type", "array", "items", "anyOf", text,
                           reference("source"));
        break;
    case PX_KEY_METRICS:
        result = json_pack("{s:s, s:{s:[s,s]}}", "type", "object", "additionalProperties", "type", "string", "number");
        break;
    default: result = json_incref(text); break;
    }
    json_decref(text);
    bool plain = key->kind != PX_KEY_WORD && key->kind != PX_KEY_BOOL;
    if (plain && has_words(key->valid)) result = json_pack("{s:[o, o]}", "anyOf", words_schema(key->valid), result);
    return result;
}

/* The default as JSON; NULL where it depends on the algorithm or is a list or map. */
static json_t *default_json(const px_key *key)
{
    if (key->others || key->flags & PX_NEEDED) return NULL;
    if (!key->value) return json_null();
    if (strchr("[{", key->value[0])) return NULL;
    if (key->kind == PX_KEY_BOOL) return json_boolean(strcmp(key->value, "true") == 0);
    char *end = NULL;
    double number = strtod(key->value, &end);
    bool numeric = (key->kind == PX_KEY_INT || key->kind == PX_KEY_FLOAT) && *end == 0;
    if (!numeric) return json_string(key->value);
    return key->kind == PX_KEY_INT ? json_integer((json_int_t)number) : json_real(number);
}

/* Puts the schema of a key where its dotted name says, with objects for the groups on the way. */
static void place(json_t *object, const px_key *key)
{
    const char *name = key->name, *dot;
    for (; (dot = strchr(name, '.')) != NULL; name = dot + 1) {
        char group[64];
        snprintf(group, sizeof group, "%.*s", (int)(dot - name), name);
        json_t *properties = json_object_get(object, "properties"), *child = json_object_get(properties, group);
        if (!child) {
            child = closed_object();
            json_object_set_new(properties, group, child);
        }
        object = child;
    }
    json_t *schema = kind_schema(key), *preset = default_json(key);
    json_object_set_new(schema, "description", json_string(key->doc));
    if (preset) json_object_set_new(schema, "default", preset);
    json_object_set_new(json_object_get(object, "properties"), name, schema);
}

static json_t *fields_schema(px_key_kind kind)
{
    int count;
    const px_key *rows = px_key_fields(kind, &count);
    json_t *object = closed_object(), *needed = json_array();
    for (int i = 0; i < count; i++) {
        place(object, &rows[i]);
        if (rows[i].flags & PX_NEEDED && !rows[i].only) json_array_append_new(needed, json_string(rows[i].name));
    }
    if (json_array_size(needed)) json_object_set_new(object, "required", needed);
    else json_decref(needed);
    return object;
}

static json_t *include_schema(void)
{
    return json_pack("{s:[{s:s}, {s:s, s:{s:s}}], s:s}", "anyOf", "type", "string", "type", "array", "items", "type", "string",
                     "description", "Files whose maps lie under this one.");
}

static json_t *stage_schema(void)
{
    json_t *stage = closed_object(), *properties = json_object_get(stage, "properties");
    json_object_set_new(properties, "include", include_schema());
    json_object_set_new(properties, "resolved_stage", json_pack("{s:s, s:s}", "type", "string", "description",
                                                                "In the config.yaml of a run: the stage that it is of."));
    for (int i = 0; i < px_key_count; i++) place(stage, &px_keys[i]);
    for (int g = 0; g < px_group_count; g++) {
        json_t *group = json_object_get(properties, px_groups[g].name);
        if (json_object_get(group, "properties")) json_object_set_new(group, "description", json_string(px_groups[g].doc));
    }
    return stage;
}

px_status px_config_schema(px_buf *json)
{
    json_t *definitions = json_pack("{s:o, s:o, s:o, s:o}", "stage", stage_schema(), "module", fields_schema(PX_KEY_MODULE),
                                    "reward", fields_schema(PX_KEY_REWARDS), "source", fields_schema(PX_KEY_SOURCES));
    json_t *module = json_object_get(definitions, "module");
    json_object_set_new(module, "minProperties", json_integer(1));
    json_object_set_new(module, "maxProperties", json_integer(1));
    json_t *staged = json_pack("{s:s, s:{s:o, s:o, s:{s:s, s:i, s:o}}, s:[s], s:b}", "type", "object", "properties", "include",
                               include_schema(), "defaults", reference("stage"), "stages", "type", "object", "minProperties", 1,
                               "additionalProperties", reference("stage"), "required", "stages", "additionalProperties", 0);
    /* "if": an editor then complains about the form that is meant, not about both */
    json_t *root = json_pack("{s:s, s:s, s:s, s:o, s:{s:[s]}, s:o, s:o}", "$schema",
                             "https://json-schema.org/draft/2020-12/schema", "title", "Phalanx experiment", "type", "object",
                             "$defs", definitions, "if", "required", "stages", "then", staged, "else", reference("stage"));
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) : NULL;
    px_status status = text ? px_buf_printf(json, "%s\n", text) : px_fail(PX_BUG, "the JSON schema cannot be made");
    free(text);
    json_decref(root);
    return status;
}
