/* YAML 1.1/1.2 text to a tree, through libyaml's events. Refused: duplicate keys, aliases into themselves or that would
 * unfold to a flood, deep nesting, tags, several documents, anything that is not UTF-8. */
#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MOST_DEPTH = 32, MOST_NODES = 100000, MOST_ANCHORS = 1000, MOST_BYTES = 1 << 20 };

struct anchor {
    const char *name;
    px_node *node; /* NULL while it is being read */
};

struct reader {
    px_yaml *yaml;
    yaml_parser_t parser;
    const char *file, *dir, *text;
    struct anchor *anchors;
    int anchor_count, depth;
    bool broken; /* the events make no sense any more */
};

#define PROBLEM(reader, mark, ...)                                                                                  \
    px_problem_at((reader)->yaml->problems, (reader)->file, (int)(mark).line + 1, (int)(mark).column + 1, __VA_ARGS__)

static void stop_reading(struct reader *r)
{
    r->broken = true;
}

/* The mark of a byte of the text. */
static yaml_mark_t mark_at(const char *text, size_t offset)
{
    yaml_mark_t mark = {.index = offset};
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') mark.line++, mark.column = 0;
        else mark.column += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return mark;
}

static void syntax_problem(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    const char *what = p->problem ? p->problem : "cannot be parsed";
    if (p->error == YAML_READER_ERROR) { /* has no mark */
        PROBLEM(r, mark_at(r->text, p->problem_offset), "not valid YAML: %s (U+%04X); valid is text without", what,
                (unsigned)p->problem_value);
    } else if (p->context) {
        PROBLEM(r, p->problem_mark, "not valid YAML: %s, %s (begun at line %d); check indentation, quotes and brackets", what,
                p->context, (int)p->context_mark.line + 1);
    } else {
        PROBLEM(r, p->problem_mark, "not valid YAML: %s; check indentation, quotes and brackets", what);
    }
    stop_reading(r);
}

static bool next_event(struct reader *r, yaml_event_t *event)
{
    if (r->broken) return false;
    if (yaml_parser_parse(&r->parser, event)) return true;
    syntax_problem(r);
    return false;
}

/* ${VAR} becomes the variable's value; $${ stands for ${. */
static const char *expand(struct reader *r, const char *text, yaml_mark_t mark)
{
    if (!r->yaml->expand || !strstr(text, "${")) return px_pool_text(r->yaml->pool, text);
    px_buf out = {0};
    px_status status = PX_OK;
    for (const char *at = text; *at && status == PX_OK;) {
        if (strncmp(at, "$${", 3) == 0) {
            status = px_buf_text(&out, "${");
            at += 3;
        } else if (strncmp(at, "${", 2) == 0) {
            size_t length = strcspn(at + 2, "}");
            char name[128];
            snprintf(name, sizeof name, "%.*s", (int)(length < 127 ? length : 127), at + 2);
            const char *value = at[2 + length] ? getenv(name) : NULL;
            if (!at[2 + length]) {
                PROBLEM(r, mark, "'${' without '}'; valid is ${NAME}, and $${ for the two characters themselves");
            } else if (!value) {
                PROBLEM(r, mark, "environment variable %s is not set; set it, or write $${%s} for the text itself", name, name);
            } else if (px_utf8_valid(value, strlen(value)) != strlen(value)) {
                PROBLEM(r, mark, "environment variable %s is not valid UTF-8; valid is UTF-8 text", name);
            } else {
                status = px_buf_text(&out, value);
            }
            at += 2 + length + (at[2 + length] == '}');
        } else {
            status = px_buf_add(&out, at++, 1);
        }
    }
    PX_CHECK(status == PX_OK);
    const char *result = px_pool_text(r->yaml->pool, out.data ? out.data : "");
    px_buf_free(&out);
    return result;
}

static px_node *marked(struct reader *r, px_node_kind kind, yaml_mark_t mark)
{
    px_node *node = px_node_new(r->yaml->pool, kind, NULL);
    node->file = r->file;
    node->dir = r->dir;
    node->line = (int)mark.line + 1;
    node->column = (int)mark.column + 1;
    return node;
}

/* The slot that will hold the node once it is complete; -1 without an anchor. */
static int open_anchor(struct reader *r, const yaml_char_t *name, yaml_mark_t mark)
{
    if (!name) return -1;
    if (r->anchor_count == MOST_ANCHORS) {
        PROBLEM(r, mark, "more than %d anchors; valid is fewer", MOST_ANCHORS);
        stop_reading(r);
        return -1;
    }
    if (!r->anchors) r->anchors = px_pool_take(r->yaml->pool, MOST_ANCHORS * sizeof *r->anchors);
    r->anchors[r->anchor_count] = (struct anchor){px_pool_text(r->yaml->pool, (const char *)name), NULL};
    return r->anchor_count++;
}

static px_node *follow_alias(struct reader *r, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    for (int i = r->anchor_count - 1; i >= 0; i--) {
        if (strcmp(r->anchors[i].name, name) != 0) continue;
        if (r->anchors[i].node) return r->anchors[i].node;
        PROBLEM(r, event->start_mark, "alias *%s lies inside its own anchor; valid is an alias to something complete", name);
        stop_reading(r);
        return NULL;
    }
    PROBLEM(r, event->start_mark, "unknown alias *%s; valid is an anchor (&%s) that comes earlier in the file", name, name);
    return NULL;
}

static void check_tag(struct reader *r, const yaml_char_t *tag, yaml_mark_t mark)
{
    const char *text = (const char *)tag;
    if (!text || !strcmp(text, "!") || !strcmp(text, YAML_STR_TAG)) return;
    PROBLEM(r, mark, "tag '%s' is not supported; valid is a value without a tag", text);
}

static void weigh(struct reader *r, px_node *node, const px_node *child, yaml_mark_t mark)
{
    node->weight += child->weight;
    if (node->height <= child->height) node->height = child->height + 1;
    if (r->broken || (node->weight <= MOST_NODES && node->height <= 2 * MOST_DEPTH)) return;
    PROBLEM(r, mark, "aliases unfold to more than %d values or %d levels; valid is a smaller file", MOST_NODES, 2 * MOST_DEPTH);
    stop_reading(r);
}

static px_node *compose(struct reader *r, yaml_event_t *event);

static px_node *compose_scalar(struct reader *r, yaml_event_t *event)
{
    px_node *node = marked(r, PX_SCALAR, event->start_mark);
    const char *value = (const char *)event->data.scalar.value;
    check_tag(r, event->data.scalar.tag, event->start_mark);
    if (strlen(value) != event->data.scalar.length) {
        PROBLEM(r, event->start_mark, "text with a NUL character; valid is text without");
    }
    node->text = expand(r, value, event->start_mark);
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !event->data.scalar.tag;
    return node;
}

static px_node *compose_list(struct reader *r, yaml_event_t *start)
{
    px_node *list = marked(r, PX_LIST, start->start_mark);
    check_tag(r, start->data.sequence_start.tag, start->start_mark);
    yaml_event_t event;
    while (next_event(r, &event)) {
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return list;
        }
        px_node *child = compose(r, &event);
        if (child) {
            px_node_add(r->yaml->pool, list, NULL, child);
            weigh(r, list, child, event.start_mark);
        }
        yaml_event_delete(&event);
    }
    return NULL;
}

/* `<<: *base` or a list of such: keys that the map itself does not have. */
static void merge_key(struct reader *r, px_node *map, const px_node *base, yaml_mark_t mark)
{
    if (base->kind == PX_LIST) {
        for (int i = 0; i < base->count; i++) {
            if (base->entries[i].node->kind == PX_MAP) merge_key(r, map, base->entries[i].node, mark);
            else PROBLEM(r, mark, "'<<' with something that is no map; valid is a map or a list of maps");
        }
        return;
    }
    if (base->kind != PX_MAP) {
        PROBLEM(r, mark, "'<<' with something that is no map; valid is a map or a list of maps");
        return;
    }
    for (int i = 0; i < base->count; i++) {
        const px_entry *from = &base->entries[i];
        if (!px_node_get(map, from->name)) *px_node_add(r->yaml->pool, map, from->name, from->node) = *from;
    }
}

static px_node *include_files(struct reader *r, px_node *map, px_node *names);

/* Reads a value after its key; false at the end of what can be read. */
static bool compose_pair(struct reader *r, px_node *map, yaml_event_t *key, px_node **bases, px_node **includes)
{
    yaml_mark_t mark = key->start_mark;
    const char *name = NULL;
    if (key->type == YAML_SCALAR_EVENT) {
        name = px_pool_text(r->yaml->pool, (const char *)key->data.scalar.value);
        if (key->data.scalar.anchor) PROBLEM(r, mark, "an anchor on a key; valid is an anchor on a value");
    } else {
        PROBLEM(r, mark, "a key that is not a plain word; valid is text");
        px_node *ignored = compose(r, key);
        (void)ignored;
    }
    yaml_event_t event;
    if (!next_event(r, &event)) return false;
    px_node *value = compose(r, &event);
    yaml_event_delete(&event);
    if (!value || !name) return !r->broken;
    weigh(r, map, value, mark);
    px_node **special = strcmp(name, "<<") == 0 ? bases : strcmp(name, "include") == 0 ? includes : NULL;
    const px_entry *first = px_node_entry(map, name);
    if (first || (special && *special)) {
        int line = first ? first->line : (*special)->line;
        PROBLEM(r, mark, "duplicate key '%s'; it is already given at line %d; valid is one of the two", name, line);
    } else if (special) {
        *special = value;
    } else {
        px_entry *entry = px_node_add(r->yaml->pool, map, name, value);
        *entry = (px_entry){name, r->file, (int)mark.line + 1, (int)mark.column + 1, value};
    }
    return !r->broken;
}

static px_node *compose_map(struct reader *r, yaml_event_t *start)
{
    px_node *map = marked(r, PX_MAP, start->start_mark);
    check_tag(r, start->data.mapping_start.tag, start->start_mark);
    px_node *bases = NULL, *includes = NULL;
    yaml_event_t event;
    while (next_event(r, &event)) {
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            if (bases) merge_key(r, map, bases, start->start_mark);
            return includes ? include_files(r, map, includes) : map;
        }
        bool more = compose_pair(r, map, &event, &bases, &includes);
        yaml_event_delete(&event);
        if (!more) return NULL;
    }
    return NULL;
}

/* The node that begins with this event; NULL after a problem. The caller deletes the event. */
static px_node *compose(struct reader *r, yaml_event_t *event)
{
    if (event->type == YAML_ALIAS_EVENT) return follow_alias(r, event);
    if (r->depth == MOST_DEPTH) {
        PROBLEM(r, event->start_mark, "nested more than %d deep; valid is less", MOST_DEPTH);
        stop_reading(r);
        return NULL;
    }
    px_node *node = NULL;
    int anchor = -1;
    r->depth++;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = open_anchor(r, event->data.scalar.anchor, event->start_mark);
        node = compose_scalar(r, event);
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = open_anchor(r, event->data.sequence_start.anchor, event->start_mark);
        node = compose_list(r, event);
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = open_anchor(r, event->data.mapping_start.anchor, event->start_mark);
        node = compose_map(r, event);
    }
    r->depth--;
    if (anchor >= 0) r->anchors[anchor].node = node;
    return node;
}

/* The one document of a stream; NULL: empty, or a problem was noted. */
static px_node *compose_document(struct reader *r)
{
    px_node *root = NULL;
    int documents = 0;
    yaml_event_t event;
    while (next_event(r, &event)) {
        yaml_event_type_t type = event.type;
        bool opens = type == YAML_SCALAR_EVENT || type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT ||
                     type == YAML_ALIAS_EVENT;
        if (type == YAML_DOCUMENT_START_EVENT && ++documents == 2) {
            PROBLEM(r, event.start_mark, "a second document ('---'); valid is one document a file");
            stop_reading(r);
        }
        if (opens) root = compose(r, &event);
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) break;
    }
    return root;
}

px_node *px_yaml_text(px_yaml *yaml, const char *text, size_t length, const char *file, const char *dir)
{
    bool marked_utf8 = length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0; /* as editors of Windows do */
    text += marked_utf8 ? 3 : 0;
    length -= marked_utf8 ? 3 : 0;
    struct reader r = {.yaml = yaml, .text = text};
    r.file = px_pool_text(yaml->pool, file);
    r.dir = px_pool_text(yaml->pool, dir);
    size_t valid = px_utf8_valid(text, length);
    if (valid < length) {
        PROBLEM(&r, mark_at(text, valid), "not UTF-8 (byte 0x%02X); save the file as UTF-8",
                (unsigned char)text[valid]);
        return NULL;
    }
    PX_CHECK(yaml_parser_initialize(&r.parser));
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
    px_node *root = compose_document(&r);
    yaml_parser_delete(&r.parser);
    return r.broken ? NULL : root;
}

/* ---- files ------------------------------------------------------------------------------------------------------------- */

px_status px_yaml_file(px_yaml *yaml, const char *path, px_node **root)
{
    *root = NULL;
    px_buf text = {0};
    px_status status = px_file_read(path, MOST_BYTES, &text);
    if (status != PX_OK) {
        px_buf_free(&text);
        return status == PX_DATA ? px_fail(PX_CONFIG, "%s", px_error_text()) : status;
    }
    char full[PX_PATH_MAX], dir[PX_PATH_MAX];
    if (!realpath(path, full)) snprintf(full, sizeof full, "%s", path);
    px_path_parent(dir, sizeof dir, full);
    if (!yaml->main_dir) yaml->main_dir = px_pool_text(yaml->pool, dir);
    yaml->open[yaml->depth++] = px_pool_text(yaml->pool, full);
    *root = px_yaml_text(yaml, text.data ? text.data : "", text.length, path, dir);
    yaml->depth--;
    px_buf_free(&text);
    return PX_OK;
}

static px_node *include_one(struct reader *r, px_node *result, const px_node *name)
{
    px_yaml *yaml = r->yaml;
    char path[PX_PATH_MAX], parent[PX_PATH_MAX], full[PX_PATH_MAX];
    if (name->kind != PX_SCALAR || !*name->text) {
        px_problem_node(yaml->problems, name, "'include' that is no file name; valid is a file or a list of files");
        return result;
    }
    px_path_parent(parent, sizeof parent, r->file);
    if (px_path_join(path, sizeof path, parent, name->text) != PX_OK) {
        px_problem_node(yaml->problems, name, "the path is too long");
        return result;
    }
    const char *shown = strncmp(path, "./", 2) == 0 && strncmp(r->file, "./", 2) != 0 ? path + 2 : path;
    if (!realpath(path, full)) snprintf(full, sizeof full, "%s", path);
    for (int i = 0; i < yaml->depth; i++) {
        if (strcmp(yaml->open[i], full) != 0) continue;
        px_problem_node(yaml->problems, name, "%s includes itself; valid is an include without a cycle", shown);
        return result;
    }
    if (yaml->depth == (int)(sizeof yaml->open / sizeof yaml->open[0])) {
        px_problem_node(yaml->problems, name, "files include each other more than %d deep; valid is less", yaml->depth);
        return result;
    }
    px_node *root = NULL;
    if (px_yaml_file(yaml, shown, &root) != PX_OK) {
        px_problem_node(yaml->problems, name, "cannot be included: %s; the name is relative to the file that includes it",
                        px_error_text());
        px_error_clear();
        return result;
    }
    if (root && root->kind != PX_MAP) {
        px_problem_node(yaml->problems, root, "an included file must be a map; valid is KEY: VALUE");
        return result;
    }
    return root ? px_node_merge(yaml->pool, NULL, result, root) : result;
}

/* The included files in their order, then the map itself on top. */
static px_node *include_files(struct reader *r, px_node *map, px_node *names)
{
    px_node *result = marked(r, PX_MAP, (yaml_mark_t){0, (size_t)map->line - 1, (size_t)map->column - 1});
    if (names->kind == PX_LIST) {
        for (int i = 0; i < names->count; i++) result = include_one(r, result, names->entries[i].node);
    } else {
        result = include_one(r, result, names);
    }
    px_node *merged = px_node_merge(r->yaml->pool, NULL, result, map);
    weigh(r, merged, result, (yaml_mark_t){0, (size_t)names->line - 1, (size_t)names->column - 1});
    return merged;
}
