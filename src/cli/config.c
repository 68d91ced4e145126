#include "cli.h"
#include "phalanx/config.h"
#include "phalanx/roles.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const px_usage usage = {
    .synopsis = "config CONFIG [--set a.b=v]... [--diff] | --schema | --markdown | --metrics | --keys [GROUP]",
    .what = "Prints the configuration as a run would see it: defaults, the file with its includes, then --set.\n"
            "Every problem is named with file, line and column, all at once. The output loads to the same\n"
            "configuration.",
    .examples = "  phalanx config configs/quickstart.yaml --set training.lr=1e-6 --diff\n"
                "  phalanx config --schema > phalanx.schema.json\n"
                "  phalanx config --keys training",
    .exits = "0 done, 64 usage, 74 the file cannot be read, 78 configuration",
};

static px_status resolved(const char *path, const px_words *sets, bool diff, px_buf *out)
{
    px_config_source source = {path, sets->word, sets->count};
    px_config *config;
    PX_TRY(px_config_load(&config, &source));
    px_status status = px_config_dump(config, diff, out);
    px_config_destroy(config);
    return status;
}

/* The value's place: objects for names, arrays for numbers, made on the way. */
static px_status put(json_t *at, const char *key, json_t *value)
{
    char name[160];
    size_t length = strcspn(key, ".");
    bool last = key[length] == '\0', list = !last && isdigit((unsigned char)key[length + 1]);
    snprintf(name, sizeof name, "%.*s", (int)length, key);
    json_t *next = json_is_array(at) ? json_array_get(at, (size_t)atoi(name)) : json_object_get(at, name);
    if (next == NULL || last) {
        next = last ? value : list ? json_array() : json_object();
        int failed = json_is_array(at) ? json_array_append_new(at, next) : json_object_set_new(at, name, next);
        if (failed) {
            return px_fail(PX_CONFIG, "out of memory for the configuration as JSON");
        }
    }
    return last ? PX_OK : put(next, key + length + 1, value);
}

static json_t *leaf_value(const px_leaf *leaf)
{
    switch (leaf->type) {
    case PX_TYPE_INT: return json_integer((json_int_t)leaf->i);
    case PX_TYPE_FLOAT: return isfinite(leaf->f) ? json_real(leaf->f) : json_null();
    case PX_TYPE_BOOL: return json_boolean(leaf->b);
    default: return leaf->text != NULL ? json_string(leaf->text) : json_null();
    }
}

static px_status stage_json(const px_stage *stage, json_t *object)
{
    for (int i = 0; i < px_stage_leaf_count(stage); i++) {
        px_leaf leaf;
        px_stage_leaf(stage, i, &leaf);
        PX_TRY(put(object, leaf.key, leaf_value(&leaf)));
    }
    return PX_OK;
}

/* As the YAML: one stage's groups, or {"stages": {NAME: groups}}. */
static px_status resolved_json(const char *path, const px_words *sets)
{
    px_config_source source = {path, sets->word, sets->count};
    px_config *config;
    PX_TRY(px_config_load(&config, &source));
    json_t *root = json_object();
    px_status status = PX_OK;
    for (int i = 0; i < px_config_stage_count(config) && status == PX_OK; i++) {
        const px_stage *stage = px_config_stage(config, i);
        json_t *object = root;
        if (px_config_has_stages(config)) {
            json_t *stages = json_object_get(root, "stages");
            if (stages == NULL) {
                stages = json_object();
                json_object_set_new(root, "stages", stages);
            }
            object = json_object();
            json_object_set_new(stages, px_stage_name(stage), object);
        }
        status = stage_json(stage, object);
    }
    px_config_destroy(config);
    if (status != PX_OK) {
        json_decref(root);
        return status;
    }
    PX_TRY(px_print_json(root));
    return px_output_done();
}

px_status px_command_config(int argc, char **argv)
{
    px_words words = {.count = 0}, sets = {.count = 0};
    bool diff = false, schema = false, markdown = false, metrics = false, keys = false, json = false, helped;
    const px_option options[] = {
        {"set", PX_OPTION_LIST, &sets, "KEY=VALUE", "overrides a key, e.g. training.lr=1e-6", 0, 0},
        {"diff", PX_OPTION_FLAG, &diff, NULL, "only what differs from the defaults", 0, 0},
        {"schema", PX_OPTION_FLAG, &schema, NULL, "the JSON schema of the file, for editors", 0, 0},
        {"markdown", PX_OPTION_FLAG, &markdown, NULL, "all keys as a page of documentation", 0, 0},
        {"metrics", PX_OPTION_FLAG, &metrics, NULL, "all metrics as a page of documentation", 0, 0},
        {"keys", PX_OPTION_FLAG, &keys, NULL, "all keys, or those of the group given as argument", 0, 0},
        {"json", PX_OPTION_FLAG, &json, NULL, "the resolved file as JSON; without a file the schema", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    const char *word = words.count > 0 ? words.word[0] : NULL;
    px_buf out = {0};
    px_status status;
    if (words.count > 1) {
        status = px_fail(PX_USAGE, "config: one file at a time, '%s' is too much", words.word[1]);
    } else if (schema || (json && word == NULL)) {
        status = px_config_schema(&out);
    } else if (markdown) {
        status = px_config_markdown(&out);
    } else if (metrics) {
        status = px_metrics_markdown(&out);
    } else if (keys) {
        status = px_config_help(&out, word);
    } else if (word == NULL) {
        status = px_fail(PX_USAGE, "config: which file? e.g. phalanx config configs/quickstart.yaml");
    } else if (json && diff) {
        status = px_fail(PX_USAGE, "config: --diff prints YAML; valid is one of --diff and --json");
    } else if (json) {
        status = resolved_json(word, &sets);
    } else {
        status = resolved(word, &sets, diff, &out);
    }
    if (status == PX_OK && out.length > 0) {
        fwrite(out.data, 1, out.length, stdout);
        status = px_output_done();
    }
    px_buf_free(&out);
    return status;
}
