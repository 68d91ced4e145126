/* From files and --set to resolved stages: defaults of the table, then `defaults:`, then the stage, then --set. */
#include "stage.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

struct loader {
    px_config *config;
    const px_config_source *source;
    px_problems problems;
    px_yaml yaml;
    px_node *root;
    const char *missing; /* what the last --set did not find in a stage; NULL: all was there */
};

/* ---- --set ---------------------------------------------------------------------------------------------------------------- */

static const char *next_segment(const char *path, char *segment, size_t size)
{
    size_t length = strcspn(path, ".");
    if (length >= size) length = size - 1;
    memcpy(segment, path, length);
    segment[length] = 0;
    path += strcspn(path, ".");
    return *path == '.' ? path + 1 : NULL;
}

/* The entry of a list by its index, its name, or its kind when it has no name. */
static px_entry *list_entry(px_node *list, const char *segment)
{
    for (int i = 0; i < list->count; i++) {
        char index[16];
        snprintf(index, sizeof index, "%d", i);
        const px_node *entry = list->entries[i].node, *name = px_node_get(entry, "name");
        if (px_node_is_null(name)) name = px_node_get(entry, "kind");
        bool named = name && name->kind == PX_SCALAR && strcmp(name->text, segment) == 0;
        if (named || strcmp(index, segment) == 0) return &list->entries[i];
    }
    return NULL;
}

/* A tree that came by --set has no line: messages show the option itself. */
static void name_source(px_node *node, const char *shown)
{
    node->file = shown;
    node->line = node->column = 0;
    for (int i = 0; i < node->count; i++) {
        node->entries[i].file = shown;
        node->entries[i].line = node->entries[i].column = 0;
        name_source(node->entries[i].node, shown);
    }
}

/* What an index into `key` means where no list is written: the list by default, or the one source without brackets. */
static px_node *implied_list(struct loader *l, const px_stage *stage, const char *key, const char *segment, px_node *node,
                             const px_node *value)
{
    char hold[64];
    const px_key *row = px_key_find(key);
    if (row && row->kind == PX_KEY_SOURCES && !px_node_is_null(node) && isdigit((unsigned char)*segment)) {
        px_node *list = px_node_new(&l->config->pool, PX_LIST, node), *map = node;
        if (node->kind == PX_SCALAR) {
            map = px_node_new(&l->config->pool, PX_MAP, node);
            px_node_add(&l->config->pool, map, "file", node);
        }
        px_node_add(&l->config->pool, list, NULL, map);
        return list;
    }
    if (!px_node_is_null(node)) return NULL;
    const char *text = row ? px_key_default(row, stage->algorithm, hold) : NULL;
    if (!text || text[0] != '[') return NULL;
    px_node *list = px_yaml_text(&l->yaml, text, strlen(text), "default", l->config->dir);
    name_source(list, value->file);
    if (value->shared) px_node_share(list);
    return list;
}

/* The tree with `value` at `path`; `done` is the part of the path above `node`. */
static px_node *set_at(struct loader *l, const px_stage *stage, px_node *node, const char *done, const char *path,
                       px_node *value)
{
    px_pool *pool = &l->config->pool;
    if (!path) return px_node_merge(pool, done, node, value);
    char segment[256];
    const char *rest = next_segment(path, segment, sizeof segment);
    const char *place = px_pool_format(pool, "%s%s%s", done, *done ? "." : "", segment);
    if (strcmp(done, "stop.metrics") == 0) { /* names of metrics may hold anything */
        snprintf(segment, sizeof segment, "%s", path);
        rest = NULL;
    }
    px_node *implied = node && node->kind == PX_LIST ? NULL : implied_list(l, stage, done, segment, node, value);
    if (implied) node = implied;
    if (node && node->kind == PX_LIST) {
        px_node *copy = px_node_copy(pool, node);
        px_entry *entry = list_entry(copy, segment);
        if (entry) entry->node = set_at(l, stage, entry->node, place, rest, value);
        else l->missing = px_pool_format(pool, "%s has no entry '%s'; valid is a name or an index below %d", done, segment,
                                         node->count);
        return copy;
    }
    px_node *child = px_node_get(node, segment);
    px_node *map = px_node_new(pool, PX_MAP, value);
    px_node_add(pool, map, px_pool_text(pool, segment), set_at(l, stage, child, place, rest, value));
    return px_node_merge(pool, done, node && node->kind == PX_MAP ? node : NULL, map);
}

/* A plain word with ${VAR} in it: the reader expands it, in quotes, and it stays plain. */
static px_node *expanded(struct loader *l, const char *text, const char *shown)
{
    px_buf quoted = {0};
    px_status status = px_buf_text(&quoted, "'");
    for (; status == PX_OK && *text; text++) status = *text == '\'' ? px_buf_text(&quoted, "''") : px_buf_add(&quoted, text, 1);
    PX_CHECK(status == PX_OK && px_buf_text(&quoted, "'") == PX_OK);
    px_node *node = px_yaml_text(&l->yaml, quoted.data, quoted.length, shown, l->config->dir);
    px_buf_free(&quoted);
    if (node) node->plain = true;
    return node;
}

/* Values are what YAML would read after "key: "; flow lists, maps and quotes go through the reader, the rest is one plain
 * word, so that "> 50" and "a: b" need no quotes. */
static px_node *set_value(struct loader *l, const char *text, const char *shown)
{
    text += strspn(text, " ");
    if (*text && strchr("[{\"'", *text)) return px_yaml_text(&l->yaml, text, strlen(text), shown, l->config->dir);
    if (strstr(text, "${")) return expanded(l, text, shown);
    px_node *node = px_node_new(&l->config->pool, PX_SCALAR, NULL);
    node->file = shown;
    node->dir = l->config->dir;
    node->text = px_pool_text(&l->config->pool, text);
    node->plain = true;
    return node;
}

static void apply_set(struct loader *l, const char *set)
{
    px_config *config = l->config;
    size_t valid = px_utf8_valid(set, strlen(set));
    const char *shown = px_pool_format(&config->pool, "--set %.*s", (int)valid, set), *equals = strchr(set, '=');
    if (set[valid]) {
        px_problem_at(&l->problems, shown, 0, 0, "not UTF-8 (byte 0x%02X); valid is UTF-8 text",
                      (unsigned char)set[valid]);
        return;
    }
    if (!equals || equals == set) {
        px_problem_at(&l->problems, shown, 0, 0, "not KEY=VALUE; valid is group.key=value, as in training.lr=1e-6");
        return;
    }
    const char *path = px_pool_format(&config->pool, "%.*s", (int)(equals - set), set);
    if (path[0] == '.' || path[strlen(path) - 1] == '.' || strstr(path, "..")) {
        px_problem_at(&l->problems, shown, 0, 0, "an empty name in the key; valid is group.key=value");
        return;
    }
    px_node *value = set_value(l, equals + 1, shown);
    if (!value) return;
    name_source(value, shown);
    char first[256];
    const char *rest = next_segment(path, first, sizeof first);
    px_stage *only = config->staged ? (px_stage *)px_config_stage_named(config, first) : NULL;
    if (only && !rest) {
        px_problem_at(&l->problems, shown, 0, 0, "names a stage without a key; valid is STAGE.group.key=value");
        return;
    }
    if (config->staged && !only) px_node_share(value);
    const char *missing = NULL;
    int found = 0;
    for (int i = 0; i < config->stage_count; i++) {
        px_stage *stage = &config->stages[i];
        if (only && stage != only) continue;
        l->missing = NULL;
        px_node *tree = set_at(l, stage, stage->tree, "", only ? rest : path, value);
        if (l->missing) missing = l->missing; /* fine as long as another stage has the entry */
        else stage->tree = tree, found++;
    }
    if (!found && missing) px_problem_at(&l->problems, shown, 0, 0, "%s", missing);
}

/* ---- stages ----------------------------------------------------------------------------------------------------------------- */

static bool good_stage_name(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length <= 64 && name[0] != '.' && name[0] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == length;
}

/* Names that mean something else in --set, or lie in the run directory beside the stages. */
static bool taken_name(const char *name)
{
    static const char *const taken[] = {"algorithm", "defaults", "stages", "policy", "critic", "recovery_a", "recovery_b",
                                        "lock", "STOP", "latest", "cache"};
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        if (strcmp(taken[i], name) == 0) return true;
    }
    return px_key_is_group(name) || strncmp(name, "checkpoint_", 11) == 0;
}

static void check_root(struct loader *l)
{
    for (int i = 0; i < l->root->count; i++) {
        const px_entry *entry = &l->root->entries[i];
        if (!strcmp(entry->name, "defaults") || !strcmp(entry->name, "stages")) continue;
        px_problem_entry(&l->problems, entry, "'%s' beside 'stages:'; valid at the top of such a file are defaults, stages and "
                         "include: move it under 'defaults:' or into a stage", entry->name);
    }
}

static void read_stages(struct loader *l, px_node *stages)
{
    px_config *config = l->config;
    px_node *defaults = px_node_get(l->root, "defaults");
    config->staged = true;
    check_root(l);
    if (defaults && !px_node_is_null(defaults) && defaults->kind != PX_MAP) {
        px_problem_node(&l->problems, defaults, "'defaults' must be a map; valid is what a stage may hold");
        defaults = NULL;
    }
    if (px_node_is_null(defaults)) defaults = NULL;
    if (stages->kind != PX_MAP || stages->count == 0) {
        px_problem_node(&l->problems, stages, "'stages' must be a map with at least one entry; valid is NAME: {algorithm: ...}");
        return;
    }
    if (defaults) px_node_share(defaults);
    config->stages = px_pool_take(&config->pool, (size_t)stages->count * sizeof *config->stages);
    for (int i = 0; i < stages->count; i++) {
        const px_entry *entry = &stages->entries[i];
        if (!good_stage_name(entry->name) || taken_name(entry->name)) {
            px_problem_entry(&l->problems, entry, "'%s' cannot be a stage's name; valid are letters, digits, _ and -, and no name "
                             "of a group or of a file in the run directory", entry->name);
        }
        px_node *own = entry->node;
        if (own->kind != PX_MAP) {
            px_problem_node(&l->problems, own, "stage '%s' must be a map; valid is {algorithm: ..., ...}", entry->name);
            continue;
        }
        px_node *empty = px_node_new(&config->pool, PX_MAP, own);
        px_stage *stage = &config->stages[config->stage_count++];
        *stage = (px_stage){.config = config, .name = entry->name};
        stage->tree = px_node_merge(&config->pool, "", defaults ? defaults : empty, own);
    }
}

static void read_single(struct loader *l)
{
    px_config *config = l->config;
    px_node *defaults = px_node_get(l->root, "defaults"), *resolved = px_node_get(l->root, "resolved_stage");
    const char *name = "";
    if (defaults) {
        px_problem_node(&l->problems, defaults, "'defaults' without 'stages'; valid is both or none");
        px_node_remove(l->root, "defaults");
    }
    if (resolved) {
        config->resolved = true;
        if (resolved->kind == PX_SCALAR && (!*resolved->text || good_stage_name(resolved->text))) name = resolved->text;
        else px_problem_node(&l->problems, resolved, "'resolved_stage' must be a stage's name");
        px_node_remove(l->root, "resolved_stage");
    }
    config->stages = px_pool_take(&config->pool, sizeof *config->stages);
    config->stage_count = 1;
    config->stages[0] = (px_stage){.config = config, .name = name, .tree = px_node_copy(&config->pool, l->root)};
}

static void read_root(struct loader *l)
{
    if (!l->root || px_node_is_null(l->root)) {
        if (l->problems.count) return;
        px_problem_at(&l->problems, l->config->path, 1, 1, "the file is empty; valid is a map with 'algorithm:' or 'stages:'");
    } else if (l->root->kind != PX_MAP) {
        px_problem_node(&l->problems, l->root, "the file must be a map; valid is a map with 'algorithm:' or 'stages:'");
    } else if (px_node_get(l->root, "stages")) {
        read_stages(l, px_node_get(l->root, "stages"));
    } else {
        read_single(l);
    }
}

static px_status load(struct loader *l, bool checked)
{
    px_config *config = l->config;
    PX_TRY(px_yaml_file(&l->yaml, l->source->path, &l->root));
    config->dir = l->yaml.main_dir;
    read_root(l);
    for (int i = 0; i < l->source->set_count && config->stage_count; i++) apply_set(l, l->source->sets[i]);
    for (int i = 0; i < config->stage_count; i++) {
        px_stage_resolve_algorithm(&config->stages[i], &l->problems);
        config->algorithms |= config->stages[i].bit;
    }
    for (int i = 0; i < config->stage_count; i++) px_stage_resolve(&config->stages[i], &l->problems);
    for (int i = 0; i < config->stage_count && checked; i++) px_stage_check(&config->stages[i], &l->problems);
    return px_problems_end(&l->problems);
}

px_status px_config_read(px_config **config, const px_config_source *source, bool checked)
{
    *config = NULL;
    px_config *made = px_alloc(sizeof *made, "configuration");
    if (!made) return px_error_code();
    jmp_buf exhausted;
    if (setjmp(exhausted)) { /* the parser's own memory is lost, which the end of the program gives back */
        px_config_destroy(made);
        return px_error_code();
    }
    made->pool.exhausted = &exhausted;
    made->path = px_pool_text(&made->pool, source->path);
    struct loader l = {.config = made, .source = source};
    l.problems.pool = &made->pool;
    l.yaml = (px_yaml){.pool = &made->pool, .problems = &l.problems, .expand = true};
    px_status status = load(&l, checked);
    made->pool.exhausted = NULL;
    if (status != PX_OK) px_config_destroy(made);
    else *config = made;
    return status;
}

px_status px_config_load(px_config **config, const px_config_source *source)
{
    return px_config_read(config, source, true);
}

void px_config_destroy(px_config *config)
{
    if (!config) return;
    for (int i = 0; i < config->stage_count; i++) px_free(config->stages[i].values);
    px_pool pool = config->pool; /* the stages themselves lie in it */
    px_pool_free(&pool);
    px_free(config);
}
