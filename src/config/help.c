/* The table of keys for people: plain text for a terminal, markdown for docs/config.md. */
#include "key.h"
#include "phalanx/config.h"

#include <string.h>

static const char *type_name(px_key_kind kind)
{
    switch (kind) {
    case PX_KEY_INT: return "int";
    case PX_KEY_FLOAT: return "float";
    case PX_KEY_BOOL: return "true or false";
    case PX_KEY_WORD: return "word";
    case PX_KEY_TEXT: return "text";
    case PX_KEY_PATH: return "path";
    case PX_KEY_NUMBERS: return "list of numbers";
    case PX_KEY_TEXTS: return "text or list of texts";
    case PX_KEY_MODULE: return "module";
    case PX_KEY_REWARDS: return "list of rewards";
    case PX_KEY_SOURCES: return "path or list";
    case PX_KEY_METRICS: return "map";
    }
    return "";
}

static bool in_group(const px_key *key, const char *group)
{
    size_t length = strlen(group);
    return strncmp(key->name, group, length) == 0 && (key->name[length] == '.' || key->name[length] == 0);
}

static px_status add_algorithms(px_buf *text, unsigned algorithms)
{
    const char *between = "";
    if (algorithms == PX_ON_ALL) return px_buf_text(text, "all");
    for (int i = 0; i < PX_ALGORITHMS; i++) {
        if (!(algorithms & (1u << i))) continue;
        PX_TRY(px_buf_printf(text, "%s%s", between, px_algorithm_names[i]));
        between = ", ";
    }
    return PX_OK;
}

static px_status add_default(px_buf *text, const px_key *key)
{
    if (key->flags & PX_NEEDED) return px_buf_text(text, "required");
    PX_TRY(px_buf_text(text, key->value ? key->value : "null"));
    return key->others ? px_buf_printf(text, " (%s)", key->others) : PX_OK;
}

/* ---- terminal ------------------------------------------------------------------------------------------------------------ */

/* Words of `doc` in lines of at most 100 columns after an indent of 6. */
static px_status add_wrapped(px_buf *text, const char *doc)
{
    size_t column = 0;
    while (*doc) {
        size_t length = strcspn(doc, " ");
        if (column == 0 || column + 1 + length > 94) {
            PX_TRY(px_buf_text(text, column ? "\n      " : "      "));
            column = 0;
        } else {
            PX_TRY(px_buf_text(text, " "));
            column++;
        }
        PX_TRY(px_buf_add(text, doc, length));
        column += length;
        doc += length + strspn(doc + length, " ");
    }
    return column ? px_buf_text(text, "\n") : PX_OK;
}

static px_status help_key(px_buf *text, const px_key *key, const char *prefix)
{
    PX_TRY(px_buf_printf(text, "  %s%s: %s, default ", prefix, key->name, type_name(key->kind)));
    PX_TRY(add_default(text, key));
    if (*key->unit && strcmp(key->unit, "1") != 0) PX_TRY(px_buf_printf(text, ", in %s", key->unit));
    if (key->valid) PX_TRY(px_buf_printf(text, ", valid %s", key->valid));
    if (key->only) PX_TRY(px_buf_printf(text, ", for %s", key->only));
    PX_TRY(px_buf_text(text, "\n"));
    return add_wrapped(text, key->doc);
}

static px_status help_fields(px_buf *text, const char *title, px_key_kind kind, const char *prefix)
{
    int count;
    const px_key *rows = px_key_fields(kind, &count);
    PX_TRY(px_buf_printf(text, "\n%s\n", title));
    for (int i = 0; i < count; i++) PX_TRY(help_key(text, &rows[i], prefix));
    return PX_OK;
}

px_status px_config_help(px_buf *text, const char *group)
{
    bool found = false;
    const char *names[32] = {NULL};
    for (int g = 0; g < px_group_count; g++) {
        names[g] = px_groups[g].name;
        if (group && strcmp(group, px_groups[g].name) != 0) continue;
        PX_TRY(px_buf_printf(text, "%s%s\n", found ? "\n" : "", px_groups[g].name));
        found = true;
        PX_TRY(add_wrapped(text, px_groups[g].doc));
        for (int i = 0; i < px_key_count; i++) {
            if (in_group(&px_keys[i], px_groups[g].name)) PX_TRY(help_key(text, &px_keys[i], ""));
        }
        if (strcmp(px_groups[g].name, "rl_module") == 0) {
            PX_TRY(help_fields(text, "a module", PX_KEY_MODULE, "rl_module.MODULE."));
        } else if (strcmp(px_groups[g].name, "environment") == 0) {
            PX_TRY(help_fields(text, "an entry of rewards", PX_KEY_REWARDS, "environment.rewards.NAME."));
        } else if (strcmp(px_groups[g].name, "data") == 0) {
            PX_TRY(help_fields(text, "an entry of train", PX_KEY_SOURCES, "data.train.N."));
        }
    }
    if (found) return PX_OK;
    const char *near = px_nearest_name(group, names, px_group_count);
    px_buf list = {0};
    for (int g = 0; g < px_group_count; g++) PX_TRY(px_buf_printf(&list, "%s%s", g ? ", " : "", names[g]));
    px_status status = px_fail(PX_USAGE, "no group of keys is called '%s'%s%s%s; valid are: %s", group, near ? ", did you mean '" : "",
                               near ? near : "", near ? "'?" : "", list.data);
    px_buf_free(&list);
    return status;
}

/* ---- markdown ------------------------------------------------------------------------------------------------------------ */

/* A table cell: '|' would end it. */
static px_status add_cell(px_buf *text, const char *cell)
{
    for (; *cell; cell++) {
        if (*cell == '|') PX_TRY(px_buf_text(text, "\\"));
        PX_TRY(px_buf_add(text, cell, 1));
    }
    return PX_OK;
}

static px_status add_row(px_buf *text, const px_key *key, bool fields)
{
    px_buf preset = {0};
    PX_TRY(px_buf_printf(text, "| `%s` | %s", key->name, type_name(key->kind)));
    if (key->valid) {
        PX_TRY(px_buf_text(text, ": `"));
        PX_TRY(add_cell(text, key->valid));
        PX_TRY(px_buf_text(text, "`"));
    }
    PX_TRY(add_default(&preset, key));
    px_status status = px_buf_printf(text, " | %s%s%s | %s | ", key->flags & PX_NEEDED ? "" : "`", preset.data,
                                     key->flags & PX_NEEDED ? "" : "`", key->unit);
    px_buf_free(&preset);
    PX_TRY(status);
    if (fields) PX_TRY(add_cell(text, key->only ? key->only : "all"));
    else PX_TRY(add_algorithms(text, key->algorithms));
    if (!fields) PX_TRY(px_buf_text(text, key->flags & PX_MAY_CHANGE ? " | yes" : " | no"));
    PX_TRY(px_buf_text(text, " | "));
    PX_TRY(add_cell(text, key->doc));
    return px_buf_text(text, " |\n");
}

static px_status add_fields(px_buf *text, const char *title, px_key_kind kind, const char *whose)
{
    int count;
    const px_key *rows = px_key_fields(kind, &count);
    PX_TRY(px_buf_printf(text, "\n### %s\n\n| Field | Valid | Default | Unit | %s | Meaning |\n|---|---|---|---|---|---|\n", title,
                         whose));
    for (int i = 0; i < count; i++) PX_TRY(add_row(text, &rows[i], true));
    return PX_OK;
}

static const char introduction[] =
    "# Configuration\n\n"
    "Made by `phalanx config --markdown` from the program's own table of keys.\n\n"
    "One experiment is one YAML file: either one stage, whose groups stand at the top level, or `stages:`, an ordered map whose\n"
    "stages start from the shared `defaults:`. What counts, from weak to strong: the defaults below, `include:`d files in their\n"
    "order, `defaults:`, the stage, `--set`.\n\n"
    "- Input paths are relative to the file that names them, `run.dir` to the working directory.\n"
    "- `include: other.yaml` (or a list) lays this map over the maps of other files.\n"
    "- `${VAR}` is the environment variable's value; `$${` stands for `${`.\n"
    "- JSON is YAML. A word of the tables below, such as `auto`, may stand in quotes; any other value in quotes is text: `\"null\"` is\n"
    "  a file of that name, `\"1\"` no number.\n"
    "- A default that is written out means the default. So what `phalanx config FILE [--json]` prints, and the `config.yaml` of a run,\n"
    "  are files that load to the same configuration.\n"
    "- `--set group.key=value` holds for every stage, `--set STAGE.group.key=value` for one;\n"
    "  `--set environment.rewards.NAME.weight=0.3` reaches a list entry by name or index. Values are YAML.\n"
    "- `defaults:` and `--set` may hold keys that only some of the stages use.\n"
    "- *Resume* says whether a run that continues may have another value. For the rest: another `run.dir`, or `--fresh`.\n"
    "- An interval like `(0,1]` excludes 0 and includes 1. Defaults in parentheses are those of the named algorithms.\n";

px_status px_config_markdown(px_buf *text)
{
    PX_TRY(px_buf_text(text, introduction));
    for (int g = 0; g < px_group_count; g++) {
        const char *group = px_groups[g].name;
        PX_TRY(px_buf_printf(text, "\n## %s\n\n%s\n\n| Key | Valid | Default | Unit | Algorithms | Resume | Meaning |\n"
                             "|---|---|---|---|---|---|---|\n", group, px_groups[g].doc));
        for (int i = 0; i < px_key_count; i++) {
            if (in_group(&px_keys[i], group)) PX_TRY(add_row(text, &px_keys[i], false));
        }
        if (strcmp(group, "rl_module") == 0) PX_TRY(add_fields(text, "A module", PX_KEY_MODULE, "Source"));
        if (strcmp(group, "data") == 0) PX_TRY(add_fields(text, "An entry of data.train", PX_KEY_SOURCES, "For"));
        if (strcmp(group, "environment") == 0) PX_TRY(add_fields(text, "A reward", PX_KEY_REWARDS, "Kinds"));
    }
    return PX_OK;
}
