/* Resolved values as YAML in block style, or as JSON, in the order of the table; both load to the same values. */
#include "stage.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dump {
    const px_stage *stage;
    px_buf *out;
    int indent;        /* of the stage itself, in spaces */
    bool differences;  /* only what is not the default */
    char open[4][64];  /* groups whose line is written, outermost first */
    int depth;
};

/* Text that every YAML reader takes for that text without quotes. */
static bool is_plain_text(const char *text)
{
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    if (!isalpha((unsigned char)*text) && *text != '/' && *text != '_') return false;
    for (const char *at = text; *at; at++) {
        if (!isalnum((unsigned char)*at) && !strchr("/._-+", *at)) return false;
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) return false;
    }
    return true;
}

/* Characters that YAML or JSON does not take bare: an escape that both know, and how many bytes it stands for. NULL: bare. */
static const char *escape(const char *at, char hold[8], int *bytes)
{
    unsigned char c = (unsigned char)*at, next = (unsigned char)(c ? at[1] : 0);
    *bytes = 1;
    if (c == '\n') return "\\n";
    if (c == '\t') return "\\t";
    if (c == '"' || c == '\\' || c < 0x20 || c == 0x7F) {
        snprintf(hold, 8, c == '"' || c == '\\' ? "\\%c" : "\\u%04X", c);
        return hold;
    }
    *bytes = 2;
    if (c == 0xC2 && next < 0xA0) { /* U+0080 to U+009F */
        snprintf(hold, 8, "\\u%04X", next);
        return hold;
    }
    *bytes = 3;
    if (strncmp(at, "\xE2\x80\xA8", 3) == 0) return "\\u2028";
    if (strncmp(at, "\xE2\x80\xA9", 3) == 0) return "\\u2029";
    if (strncmp(at, "\xEF\xBB\xBF", 3) == 0) return "\\uFEFF";
    if (strncmp(at, "\xEF\xBF\xBE", 3) == 0) return "\\uFFFE";
    if (strncmp(at, "\xEF\xBF\xBF", 3) == 0) return "\\uFFFF";
    *bytes = 1;
    return c == '$' && next == '{' ? "$$" : NULL; /* else it would be expanded again */
}

static px_status add_quoted(px_buf *out, const char *text)
{
    PX_TRY(px_buf_text(out, "\""));
    for (int bytes; *text; text += bytes) {
        char hold[8];
        const char *escaped = escape(text, hold, &bytes);
        if (escaped) PX_TRY(px_buf_text(out, escaped));
        else PX_TRY(px_buf_add(out, text, 1));
    }
    return px_buf_text(out, "\"");
}

static px_status add_text(px_buf *out, const char *text)
{
    return is_plain_text(text) ? px_buf_text(out, text) : add_quoted(out, text);
}

static px_status add_scalar(px_buf *out, const px_value *value)
{
    char text[64];
    if (value->form == PX_IS_TEXT || value->form == PX_IS_WORD) return add_text(out, value->text);
    return px_buf_text(out, px_value_text(value, text, sizeof text));
}

static px_status add_indent(struct dump *d, int depth)
{
    return px_buf_printf(d->out, "%*s", d->indent + 2 * depth, "");
}

/* Writes the lines of the groups above `key` that are not open yet, and the indented last name with its colon. */
static px_status add_name(struct dump *d, const char *key)
{
    int depth = 0;
    const char *dot;
    for (; (dot = strchr(key, '.')) != NULL; key = dot + 1, depth++) {
        PX_CHECK(depth < 4);
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
        if (depth < d->depth && strcmp(d->open[depth], name) == 0) continue;
        snprintf(d->open[depth], sizeof d->open[depth], "%s", name);
        d->depth = depth + 1;
        PX_TRY(add_indent(d, depth));
        PX_TRY(px_buf_printf(d->out, "%s:\n", name));
    }
    if (d->depth > depth) d->depth = depth;
    PX_TRY(add_indent(d, depth));
    return px_buf_printf(d->out, "%s:", key);
}

static int depth_of(const char *key)
{
    int depth = 0;
    for (; *key; key++) depth += *key == '.';
    return depth;
}

/* "[0.9, 0.95]", values[at + 1 ...] */
static px_status add_flow_list(struct dump *d, int at)
{
    const px_value *list = &d->stage->values[at];
    PX_TRY(px_buf_text(d->out, " ["));
    for (int i = 0; i < list->i; i++) {
        if (i) PX_TRY(px_buf_text(d->out, ", "));
        PX_TRY(add_scalar(d->out, list + 1 + i));
    }
    return px_buf_text(d->out, "]");
}

/* Maps of a list, one key a line: "- kind: model". */
static px_status add_map_list(struct dump *d, int at, int end)
{
    const px_value *values = d->stage->values, *list = &values[at];
    if (list->i == 0) return px_buf_text(d->out, " []\n");
    PX_TRY(px_buf_text(d->out, "\n"));
    int depth = depth_of(list->key), entry = -1;
    size_t length = strlen(list->key) + 1;
    for (int i = at + 1; i < end; i++) {
        const px_value *value = &values[i];
        const char *rest = strchr(value->key + length, '.');
        bool inside_list = strchr(rest + 1, '.') != NULL;
        if (!value->applies || value->form == PX_IS_NULL || inside_list) continue;
        int number = atoi(value->key + length);
        PX_TRY(add_indent(d, depth + 1));
        PX_TRY(px_buf_printf(d->out, "%s%s:", number != entry ? "- " : "  ", rest + 1));
        entry = number;
        if (value->form == PX_IS_LIST) {
            PX_TRY(add_flow_list(d, i));
        } else {
            PX_TRY(px_buf_text(d->out, " "));
            PX_TRY(add_scalar(d->out, value));
        }
        PX_TRY(px_buf_text(d->out, "\n"));
    }
    return PX_OK;
}

static px_status add_free_map(struct dump *d, int at)
{
    const px_value *map = &d->stage->values[at];
    if (map->i == 0) return px_buf_text(d->out, " {}\n");
    PX_TRY(px_buf_text(d->out, "\n"));
    for (int i = 0; i < map->i; i++) {
        PX_TRY(add_indent(d, depth_of(map->key) + 1));
        PX_TRY(add_text(d->out, map[1 + i].key + strlen(map->key) + 1));
        PX_TRY(px_buf_text(d->out, ": "));
        PX_TRY(add_text(d->out, map[1 + i].text));
        PX_TRY(px_buf_text(d->out, "\n"));
    }
    return PX_OK;
}

/* A module is written as its one source; new: {} when every field of it is the default and left out. */
static px_status add_module(struct dump *d, int at, int end)
{
    const px_value *values = d->stage->values, *module = &values[at];
    if (!module->text) {
        PX_TRY(add_name(d, module->key));
        return px_buf_text(d->out, " null\n");
    }
    int written = 0;
    for (int i = at + 1; i < end; i++) {
        const px_value *value = &values[i];
        bool is_new = strcmp(module->text, "new") == 0;
        if (!value->applies || value->form == PX_IS_NULL || (is_new && d->differences && value->preset)) continue;
        PX_TRY(add_name(d, value->key));
        PX_TRY(px_buf_text(d->out, " "));
        PX_TRY(add_scalar(d->out, value));
        PX_TRY(px_buf_text(d->out, "\n"));
        written++;
    }
    if (written) return PX_OK;
    char key[128];
    snprintf(key, sizeof key, "%s.new", module->key);
    PX_TRY(add_name(d, key));
    return px_buf_text(d->out, " {}\n");
}

/* One row of the table with all that lies in it: values[at .. end-1]. */
static px_status add_row(struct dump *d, int at, int end)
{
    const px_value *value = &d->stage->values[at];
    if (value->row->kind == PX_KEY_MODULE) return add_module(d, at, end);
    PX_TRY(add_name(d, value->key));
    switch (value->form) {
    case PX_IS_LIST:
        if (px_key_fields(value->row->kind, &(int){0})) return add_map_list(d, at, end);
        PX_TRY(add_flow_list(d, at));
        break;
    case PX_IS_MAP: return add_free_map(d, at);
    default:
        PX_TRY(px_buf_text(d->out, " "));
        PX_TRY(add_scalar(d->out, value));
    }
    return px_buf_text(d->out, "\n");
}

static px_status add_stage(const px_stage *stage, int indent, bool differences, px_buf *out)
{
    struct dump d = {.stage = stage, .out = out, .indent = indent, .differences = differences};
    for (int at = 0, end; at < stage->count; at = end) {
        const px_value *value = &stage->values[at];
        for (end = at + 1; end < stage->count && strncmp(stage->values[end].key, value->key, strlen(value->key)) == 0 &&
                           stage->values[end].key[strlen(value->key)] == '.';) {
            end++;
        }
        bool same = differences && value->preset;
        if (value->applies && !same) PX_TRY(add_row(&d, at, end));
    }
    return PX_OK;
}

px_status px_config_dump(const px_config *config, bool only_differences, px_buf *yaml)
{
    if (!config->staged) {
        if (config->resolved) {
            PX_TRY(px_buf_text(yaml, "resolved_stage: "));
            PX_TRY(add_text(yaml, config->stages[0].name));
            PX_TRY(px_buf_text(yaml, "\n"));
        }
        return add_stage(&config->stages[0], 0, only_differences, yaml);
    }
    PX_TRY(px_buf_text(yaml, "stages:\n"));
    for (int i = 0; i < config->stage_count; i++) {
        PX_TRY(px_buf_text(yaml, "  "));
        PX_TRY(add_text(yaml, config->stages[i].name));
        PX_TRY(px_buf_text(yaml, ":\n"));
        PX_TRY(add_stage(&config->stages[i], 4, only_differences, yaml));
    }
    return PX_OK;
}

px_status px_stage_dump(const px_stage *stage, px_buf *yaml)
{
    PX_TRY(px_buf_text(yaml, "resolved_stage: "));
    PX_TRY(add_text(yaml, stage->name));
    PX_TRY(px_buf_text(yaml, "\n"));
    return add_stage(stage, 0, false, yaml);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------- */

static px_status json_entries(px_buf *out, const px_value *values, int count, size_t prefix, bool list);

/* One value or group with all that lies in it: values[0 .. count-1], whose keys begin with `length` equal bytes. */
static px_status json_value(px_buf *out, const px_value *values, int count, size_t length)
{
    char text[64];
    bool group = values->key[length] == '.', list = !group && values->form == PX_IS_LIST;
    bool module = values->row->kind == PX_KEY_MODULE && values->text;
    if (group || list || module || values->form == PX_IS_MAP) {
        PX_TRY(px_buf_text(out, list ? "[" : "{"));
        PX_TRY(json_entries(out, values + !group, count - !group, length + 1, list));
        return px_buf_text(out, list ? "]" : "}");
    }
    if (values->form == PX_IS_TEXT || values->form == PX_IS_WORD) return add_quoted(out, values->text);
    return px_buf_text(out, px_value_text(values, text, sizeof text));
}

/* What a map or a list holds; the keys begin with `prefix` equal bytes. */
static px_status json_entries(px_buf *out, const px_value *values, int count, size_t prefix, bool list)
{
    const char *between = "";
    for (int at = 0, end; at < count; at = end) {
        const char *name = values[at].key + prefix;
        bool metric = values[at].row->kind == PX_KEY_METRICS && values[at].form == PX_IS_TEXT; /* its name may hold dots */
        size_t length = metric ? strlen(name) : strcspn(name, ".");
        bool applies = values[at].applies;
        for (end = at + 1; end < count; end++) {
            const char *other = values[end].key + prefix;
            if (metric || strncmp(other, name, length) != 0 || other[length] != '.') break;
            applies = applies || values[end].applies;
        }
        if (!applies) continue;
        PX_TRY(px_buf_text(out, between));
        between = ", ";
        if (!list) {
            char word[PX_PATH_MAX];
            snprintf(word, sizeof word, "%.*s", (int)length, name);
            PX_TRY(add_quoted(out, word));
            PX_TRY(px_buf_text(out, ": "));
        }
        PX_TRY(json_value(out, &values[at], end - at, prefix + length));
    }
    return PX_OK;
}

px_status px_config_json(const px_config *config, px_buf *json)
{
    PX_TRY(px_buf_text(json, config->staged ? "{\"stages\": {" : "{"));
    if (config->resolved) {
        PX_TRY(px_buf_text(json, "\"resolved_stage\": "));
        PX_TRY(add_quoted(json, config->stages[0].name));
        PX_TRY(px_buf_text(json, ", "));
    }
    for (int i = 0; i < config->stage_count; i++) {
        const px_stage *stage = &config->stages[i];
        if (config->staged) {
            PX_TRY(px_buf_text(json, i ? ", " : ""));
            PX_TRY(add_quoted(json, stage->name));
            PX_TRY(px_buf_text(json, ": {"));
        }
        PX_TRY(json_entries(json, stage->values, stage->count, 0, false));
        PX_TRY(px_buf_text(json, config->staged ? "}" : ""));
    }
    return px_buf_text(json, config->staged ? "}}\n" : "}\n");
}
