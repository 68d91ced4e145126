/* From the tree of a stage to typed values: every row of the table gets what was written, or its default. */
#include "resolve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void resolve_row(px_job *job, const px_key *row, const char *prefix, const px_node *node, const char *which,
                        bool defaulted);

/* ---- names -------------------------------------------------------------------------------------------------------------- */

/* The last dot-separated part of a name. */
static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Names one level below `inside` ("" for the top) in a table, without repetition; returns how many. */
static int names_inside(px_pool *pool, const px_key *rows, int count, const char *inside, const char **names, int most)
{
    size_t length = strlen(inside);
    int n = 0;
    for (int i = 0; i < count; i++) {
        const char *rest = rows[i].name;
        if (length && (strncmp(rest, inside, length) != 0 || rest[length] != '.')) continue;
        rest += length ? length + 1 : 0;
        const char *name = px_pool_format(pool, "%.*s", (int)strcspn(rest, "."), rest);
        bool known = false;
        for (int j = 0; j < n; j++) known = known || strcmp(names[j], name) == 0;
        if (!known && n < most) names[n++] = name;
    }
    return n;
}

static const char *joined(px_pool *pool, const char *const *names, int count)
{
    const char *list = "";
    for (int i = 0; i < count; i++) list = px_pool_format(pool, "%s%s%s", list, i ? ", " : "", names[i]);
    return list;
}

static void unknown_key(px_job *job, const px_key *rows, int count, const char *prefix, const char *inside,
                        const px_entry *entry)
{
    const char *names[160];
    int n = names_inside(job->pool, rows, count, inside, names, 160);
    const char *place = px_pool_format(job->pool, "%s%s%s%s%s", prefix, *prefix ? "." : "", inside, *inside ? "." : "",
                                       entry->name);
    const px_key *dotted = strchr(entry->name, '.') ? px_key_find(place) : NULL;
    const char *near = dotted ? NULL : px_nearest_name(entry->name, names, n);
    if (near) {
        const char *dot = strrchr(place, '.');
        px_problem_entry(job->problems, entry, "unknown key '%s'; did you mean '%.*s%s'?", place,
                         dot ? (int)(dot + 1 - place) : 0, place, near);
        return;
    }
    const char *name = last_part(entry->name);
    for (int i = 0; i < px_key_count; i++) {
        if (strcmp(last_part(px_keys[i].name), name) != 0) continue;
        px_problem_entry(job->problems, entry, "unknown key '%s'; valid is '%s', each name a level of its own", place,
                         px_keys[i].name);
        return;
    }
    px_problem_entry(job->problems, entry, "unknown key '%s'; valid are: %s", place, joined(job->pool, names, n));
}

/* Every name in `map` must be in the table. inside: groups between the table's start and this map. */
static void check_names(px_job *job, const px_key *rows, int count, const char *prefix, const char *inside,
                        const px_node *map)
{
    for (int i = 0; i < map->count; i++) {
        const px_entry *entry = &map->entries[i];
        const char *full = px_pool_format(job->pool, "%s%s%s", inside, *inside ? "." : "", entry->name);
        size_t length = strlen(full);
        bool leaf = false, group = false;
        for (int j = 0; j < count && !strchr(entry->name, '.'); j++) {
            leaf = leaf || strcmp(rows[j].name, full) == 0;
            group = group || (strncmp(rows[j].name, full, length) == 0 && rows[j].name[length] == '.');
        }
        if (!leaf && !group) {
            unknown_key(job, rows, count, prefix, inside, entry);
        } else if (group && entry->node->kind == PX_MAP) {
            check_names(job, rows, count, prefix, full, entry->node);
        } else if (group && !px_node_is_null(entry->node)) {
            const char *names[160];
            int n = names_inside(job->pool, rows, count, full, names, 160);
            px_problem_node(job->problems, entry->node, "'%s%s%s' must be a map; valid keys in it are: %s", prefix,
                            *prefix ? "." : "", full, joined(job->pool, names, n));
        }
    }
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------- */

static px_value *new_value(px_job *job, const px_key *row, const char *key, const px_node *node, bool written)
{
    px_stage *stage = job->stage;
    if (stage->count == stage->capacity) {
        int capacity = stage->capacity ? 2 * stage->capacity : 256;
        size_t bytes = (size_t)capacity * sizeof *stage->values;
        stage->values = px_pool_need(job->pool, px_realloc(stage->values, bytes, "configuration"));
        stage->capacity = capacity;
    }
    px_value *value = &stage->values[stage->count++];
    const char *origin = "default";
    if (written && node->line) {
        origin = px_pool_format(job->pool, "%s:%d:%d", node->file, node->line, node->column);
    } else if (written) {
        origin = "--set";
    }
    *value = (px_value){.key = key, .row = row, .applies = true, .may_change = row->flags & PX_MAY_CHANGE,
                        .node = written ? node : NULL, .origin = origin};
    return value;
}

/* Fields of a map or list entry at `key`, which messages call `shown`. which: the kind or source that decides which fields
 * there are. */
static void resolve_fields(px_job *job, const px_key *rows, int count, const char *key, const char *shown, const px_node *map,
                           const char *which, bool defaulted)
{
    if (map && map->kind == PX_MAP) check_names(job, rows, count, shown, "", map);
    for (int i = 0; i < count; i++) {
        const px_node *node = map ? px_node_at(map, rows[i].name) : NULL;
        bool wanted = rows[i].flags & PX_NEEDED && (!rows[i].only || px_valid_word(rows[i].only, which));
        if (wanted && !node && map) {
            px_problem_node(job->problems, map, "%s.%s is missing; valid is %s", shown, rows[i].name,
                            px_valid_text(job->pool, &rows[i]));
        }
        resolve_row(job, &rows[i], key, node, which, defaulted);
    }
}

static void resolve_module(px_job *job, int at, const px_node *node, bool defaulted)
{
    px_value *value = &job->stage->values[at];
    const char *key = value->key, *source = NULL;
    const px_node *map = node;
    int given = 0;
    if (px_node_is_null(node)) {
        map = NULL;
    } else if (node->kind != PX_MAP) {
        px_problem_node(job->problems, node, "%s must be a map; valid is %s", key, px_valid_text(job->pool, value->row));
        map = NULL;
    } else {
        const char *const *names = px_exclusives[0].names;
        for (; *names; names++) {
            const px_node *one = px_node_get(node, *names);
            if (one && (!px_node_is_null(one) || strcmp(*names, "new") == 0)) source = *names, given++;
        }
        if (given != 1) {
            px_problem_node(job->problems, node, "%s has %s of path, stage, same_as and new; valid is exactly one", key,
                            given ? "several" : "none");
        }
    }
    value->form = source ? PX_IS_TEXT : PX_IS_NULL;
    value->text = source;
    int count;
    const px_key *rows = px_key_fields(PX_KEY_MODULE, &count);
    resolve_fields(job, rows, count, key, key, map, source ? source : "", defaulted);
}

static void resolve_rewards(px_job *job, int at, const px_node *node, bool defaulted)
{
    const char *key = job->stage->values[at].key;
    int count;
    const px_key *rows = px_key_fields(PX_KEY_REWARDS, &count);
    job->stage->values[at].form = PX_IS_LIST;
    if (px_node_is_null(node)) return;
    if (node->kind != PX_LIST) {
        px_problem_node(job->problems, node, "%s must be a list of maps; valid is [{kind: ..., weight: ...}, ...]", key);
        return;
    }
    job->stage->values[at].i = node->count;
    for (int i = 0; i < node->count; i++) {
        const px_node *map = node->entries[i].node;
        const char *place = px_pool_format(job->pool, "%s.%d", key, i);
        if (map->kind != PX_MAP) {
            px_problem_node(job->problems, map, "%s must be a map; valid is {kind: ..., weight: ...}", place);
            continue;
        }
        const px_node *kind = px_node_get(map, "kind");
        const char *which = kind && kind->kind == PX_SCALAR ? kind->text : NULL;
        if (!which) {
            px_problem_node(job->problems, map, "%s has no kind; valid is one of model, lexicon, length, regex, exact, exec", place);
        } else {
            resolve_fields(job, rows, count, place, place, map, which, defaulted);
        }
    }
}

static void resolve_sources(px_job *job, int at, const px_node *node)
{
    const char *key = job->stage->values[at].key;
    int count;
    const px_key *rows = px_key_fields(PX_KEY_SOURCES, &count);
    job->stage->values[at].form = PX_IS_LIST;
    if (px_node_is_null(node)) return;
    bool list = node->kind == PX_LIST;
    int entries = list ? node->count : 1;
    job->stage->values[at].i = entries;
    if (entries == 0) px_problem_node(job->problems, node, "%s is an empty list; valid is at least one file", key);
    for (int i = 0; i < entries; i++) {
        const px_node *one = list ? node->entries[i].node : node;
        const char *place = px_pool_format(job->pool, "%s.%d", key, i);
        if (one->kind == PX_SCALAR) {
            px_node *map = px_node_new(job->pool, PX_MAP, one);
            px_node_add(job->pool, map, "file", (px_node *)one);
            one = map;
        }
        if (one->kind == PX_MAP) resolve_fields(job, rows, count, place, list ? place : key, one, "", false);
        else px_problem_node(job->problems, one, "%s: a list where a file is wanted; valid is a file or a map {file, weight}", place);
    }
}

/* Plain lists: each entry becomes a value of its own, "training.optimizer.betas.0". */
static void resolve_list(px_job *job, int at, const px_node *node, bool defaulted, int wanted)
{
    const px_key *row = job->stage->values[at].row;
    const char *key = job->stage->values[at].key;
    job->stage->values[at].form = PX_IS_LIST;
    if (px_node_is_null(node)) return;
    bool one_text = row->kind == PX_KEY_TEXTS && node->kind == PX_SCALAR;
    if (node->kind == PX_MAP || (node->kind == PX_SCALAR && !one_text)) {
        px_bad_value(job, &job->stage->values[at], node, "is no list");
        return;
    }
    int entries = one_text ? 1 : node->count;
    if (wanted >= 0 && entries != wanted) {
        px_problem_node(job->problems, node, "%s has %d entries; valid is a list of %d", key, entries, wanted);
        return;
    }
    job->stage->values[at].i = entries;
    for (int i = 0; i < entries; i++) {
        const px_node *one = one_text ? node : node->entries[i].node;
        px_value *value = new_value(job, row, px_pool_format(job->pool, "%s.%d", key, i), one, !defaulted);
        if (row->kind == PX_KEY_NUMBERS && px_node_is_null(one)) {
            px_problem_node(job->problems, one, "%s must be a number", value->key);
        } else if (row->kind == PX_KEY_NUMBERS) {
            px_parse_scalar(job, value, one);
        } else if (one->kind != PX_SCALAR || px_node_is_null(one) || !*one->text) {
            px_problem_node(job->problems, one, "%s must be text that is not empty", value->key);
        } else {
            value->form = PX_IS_TEXT;
            value->text = one->text;
        }
    }
}

/* "> 50" as OPERATOR NUMBER with one space; no operator: >=. NULL: not a condition. */
static const char *condition(px_pool *pool, const char *text)
{
    const char *operators[] = {">=", "<=", ">", "<"}, *operator= ">=";
    bool whole;
    text += strspn(text, " ");
    for (int i = 0; i < 4; i++) {
        size_t length = strlen(operators[i]);
        if (strncmp(text, operators[i], length) != 0) continue;
        operator= operators[i];
        text += length;
        break;
    }
    text += strspn(text, " ");
    char *number = px_pool_text(pool, text);
    size_t end = strcspn(number, " ");
    if (number[end + strspn(number + end, " ")]) return NULL;
    number[end] = 0;
    if (!px_looks_like_number(number, &whole) || !isfinite(strtod(number, NULL))) return NULL;
    return px_pool_format(pool, "%s %s", operator, number);
}

static void resolve_metrics(px_job *job, int at, const px_node *node)
{
    const px_key *row = job->stage->values[at].row;
    const char *key = job->stage->values[at].key;
    job->stage->values[at].form = PX_IS_MAP;
    if (px_node_is_null(node)) return;
    if (node->kind != PX_MAP) {
        px_problem_node(job->problems, node, "%s must be a map; valid is {METRIC: \"> NUMBER\"}", key);
        return;
    }
    job->stage->values[at].i = node->count;
    for (int i = 0; i < node->count; i++) {
        const px_entry *entry = &node->entries[i];
        px_value *value = new_value(job, row, px_pool_format(job->pool, "%s.%s", key, entry->name), entry->node, true);
        value->form = PX_IS_TEXT;
        value->text = entry->node->kind == PX_SCALAR ? condition(job->pool, entry->node->text) : NULL;
        if (value->text) continue;
        value->text = "";
        px_problem_node(job->problems, entry->node, "%s: not a condition; valid is an operator (> >= < <=) and a number, as in "
                        "\"> 50\"", value->key);
    }
}

/* A default with brackets goes through the YAML reader, a plain word becomes a scalar. */
static const px_node *default_node(px_job *job, const px_key *row)
{
    char hold[64];
    const char *text = px_key_default(row, job->stage->algorithm, hold);
    if (!text) return NULL;
    /* without a reward model the critic starts as the policy */
    bool critic = strcmp(row->name, "rl_module.critic") == 0;
    if (critic && px_node_is_null(px_node_at(job->stage->tree, "rl_module.reward"))) text = "{same_as: policy}";
    px_yaml yaml = {.pool = job->pool, .problems = job->problems};
    return px_yaml_text(&yaml, text, strlen(text), "default", job->stage->config->dir);
}

static const char *algorithm_list(px_pool *pool, unsigned bits)
{
    const char *names[PX_ALGORITHMS];
    int n = 0;
    for (int i = 0; i < PX_ALGORITHMS; i++) {
        if (bits & (1u << i)) names[n++] = px_algorithm_names[i];
    }
    return joined(pool, names, n);
}

/* The node if this algorithm uses the row. Keys of other algorithms are fine in what all stages share, as long as some
 * stage uses them. */
static const px_node *applicable(px_job *job, const px_key *row, const char *key, const px_node *node)
{
    const px_stage *stage = job->stage;
    if (!node || row->algorithms & stage->bit) return node;
    if (!node->shared) {
        px_problem_node(job->problems, node, "%s does not apply to algorithm %s; it is for %s", key, stage->algorithm,
                        algorithm_list(job->pool, row->algorithms));
    } else if (!(row->algorithms & stage->config->algorithms)) {
        px_problem_node(job->problems, node, "%s applies to no stage of this file; it is for %s", key,
                        algorithm_list(job->pool, row->algorithms));
    }
    return NULL;
}

/* Whether the default of an exclusive key must step back because the user gave its alternative. */
static bool outdone(const px_stage *stage, const px_key *row)
{
    for (int i = 0; i < px_exclusive_count; i++) {
        size_t length = strlen(px_exclusives[i].group);
        if (strncmp(row->name, px_exclusives[i].group, length) != 0 || row->name[length] != '.') continue;
        bool member = false, other = false;
        for (const char *const *name = px_exclusives[i].names; *name; name++) {
            char full[128];
            snprintf(full, sizeof full, "%s.%s", px_exclusives[i].group, *name);
            bool same = strcmp(full, row->name) == 0;
            member = member || same;
            other = other || (!same && !px_node_is_null(px_node_at(stage->tree, full)));
        }
        if (member && other) return true;
    }
    return false;
}

/* An equal value of the user's is still the default: the differences leave it out. */
static bool same_node(const px_node *a, const px_node *b)
{
    if (px_node_is_null(a) || px_node_is_null(b)) return px_node_is_null(a) && px_node_is_null(b);
    if (a->kind != b->kind || a->count != b->count) return false;
    if (a->kind == PX_SCALAR) {
        bool whole;
        if (strcmp(a->text, b->text) == 0) return true;
        return a->plain && b->plain && px_looks_like_number(a->text, &whole) && px_looks_like_number(b->text, &whole) &&
               strtod(a->text, NULL) == strtod(b->text, NULL);
    }
    for (int i = 0; i < a->count; i++) {
        const px_node *other = a->kind == PX_LIST ? b->entries[i].node : px_node_get(b, a->entries[i].name);
        if (!other || !same_node(a->entries[i].node, other)) return false;
    }
    return true;
}

/* null is the value of keys without a default, and an empty list or map. */
static bool may_be_null(const px_key *row)
{
    bool empty = row->value && (strcmp(row->value, "[]") == 0 || strcmp(row->value, "{}") == 0);
    return !(row->flags & PX_NEEDED) && (!row->value || empty || px_valid_word(row->valid, "null"));
}

/* The map that a key which is not there would lie in, or the one around that. */
static const px_node *nearest_map(const px_node *tree, const char *key)
{
    char place[128];
    snprintf(place, sizeof place, "%s", key);
    for (char *dot; (dot = strrchr(place, '.')) != NULL;) {
        *dot = 0;
        const px_node *map = px_node_at(tree, place);
        if (map && map->kind == PX_MAP) return map;
    }
    return tree;
}

static void resolve_row(px_job *job, const px_key *row, const char *prefix, const px_node *node, const char *which,
                        bool defaulted)
{
    const char *key = *prefix ? px_pool_format(job->pool, "%s.%s", prefix, row->name) : row->name;
    bool fits = !row->only || px_valid_word(row->only, which);
    if (!fits && !px_node_is_null(node) && px_valid_word(px_reward_keys[0].valid, which)) {
        px_problem_node(job->problems, node, "%s does not apply to kind %s; it is for %s", key, which, row->only);
    }
    if (*prefix == 0) node = applicable(job, row, key, node);
    if (!fits) node = NULL;
    const px_node *preset = fits ? default_node(job, row) : NULL;
    if (preset && *prefix == 0 && outdone(job->stage, row)) preset = NULL;
    bool written = node && !defaulted;
    const px_node *used = node ? node : preset;
    int at = job->stage->count;
    px_value *value = new_value(job, row, key, used, written);
    value->applies = fits && (*prefix || row->algorithms & job->stage->bit);
    value->preset = !written || same_node(node, preset);
    if (*prefix == 0 && !node && row->flags & PX_NEEDED && value->applies) {
        px_problem_node(job->problems, nearest_map(job->stage->tree, key), "%s is missing; algorithm %s needs it (%s)", key,
                        job->stage->algorithm, px_valid_text(job->pool, row));
    }
    if (written && px_node_is_null(node) && !may_be_null(row)) px_bad_value(job, value, node, "is no value");
    switch (row->kind) {
    case PX_KEY_MODULE: resolve_module(job, at, used, !written); break;
    case PX_KEY_REWARDS: resolve_rewards(job, at, used, !written); break;
    case PX_KEY_SOURCES: resolve_sources(job, at, used); break;
    case PX_KEY_METRICS: resolve_metrics(job, at, node); break;
    case PX_KEY_TEXTS: resolve_list(job, at, used, !written, -1); break;
    case PX_KEY_NUMBERS: resolve_list(job, at, used, !written, 2); break;
    default:
        if (used) px_parse_scalar(job, value, used);
        break;
    }
    px_value *values = job->stage->values;
    for (int i = at + 1; i < job->stage->count; i++) {
        values[i].applies = values[i].applies && values[at].applies;
        values[i].may_change = values[at].may_change;
    }
}

/* ---- a stage ---------------------------------------------------------------------------------------------------------------- */

void px_stage_resolve_algorithm(px_stage *stage, px_problems *problems)
{
    const px_node *node = px_node_get(stage->tree, "algorithm");
    const char *names = "pretrain, sft, reward, ppo";
    if (px_node_is_null(node)) {
        px_problem_node(problems, stage->tree, "algorithm is missing%s%s; valid is one of %s", *stage->name ? " in stage " : "",
                        stage->name, names);
        return;
    }
    if (node->kind != PX_SCALAR) {
        px_problem_node(problems, node, "algorithm must be one word; valid is one of %s", names);
        return;
    }
    stage->algorithm = node->text;
    stage->bit = px_algorithm_bit(node->text);
    if (stage->bit) return;
    for (int i = 0; i < px_algorithm_planned_count; i++) {
        if (strcmp(node->text, px_algorithms_planned[i]) != 0) continue;
        px_problem_node(problems, node, "algorithm %s is not built yet; valid is one of %s", node->text, names);
        return;
    }
    const char *near = px_nearest_name(node->text, px_algorithm_names, PX_ALGORITHMS);
    px_problem_node(problems, node, "unknown algorithm '%.80s'%s%s%s; valid is one of %s", node->text, near ? ", did you mean '" : "",
                    near ? near : "", near ? "'?" : "", names);
}

void px_stage_resolve(px_stage *stage, px_problems *problems)
{
    px_job job = {stage, problems, &stage->config->pool};
    check_names(&job, px_keys, px_key_count, "", "", stage->tree);
    if (!stage->bit) return;
    for (int i = 0; i < px_key_count; i++) {
        resolve_row(&job, &px_keys[i], "", px_node_at(stage->tree, px_keys[i].name), "", false);
    }
    px_stage_derive(stage);
}
