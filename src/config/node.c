/* The tree and its memory. */
#include "node.h"

#include "key.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void *px_pool_need(px_pool *pool, void *memory)
{
    if (!memory && pool->exhausted) longjmp(*pool->exhausted, 1);
    PX_CHECK(memory != NULL);
    return memory;
}

void *px_pool_take(px_pool *pool, size_t bytes)
{
    if (pool->count == pool->capacity) {
        int capacity = pool->capacity ? 2 * pool->capacity : 64;
        pool->blocks = px_pool_need(pool, px_realloc(pool->blocks, (size_t)capacity * sizeof *pool->blocks, "configuration"));
        pool->capacity = capacity;
    }
    void *block = px_pool_need(pool, px_alloc(bytes ? bytes : 1, "configuration"));
    pool->blocks[pool->count++] = block;
    return block;
}

char *px_pool_text(px_pool *pool, const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(px_pool_take(pool, size), text, size);
}

char *px_pool_format(px_pool *pool, const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    PX_CHECK(length >= 0);
    char *text = px_pool_take(pool, (size_t)length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void px_pool_free(px_pool *pool)
{
    for (int i = 0; i < pool->count; i++) px_free(pool->blocks[i]);
    px_free(pool->blocks);
    *pool = (px_pool){0};
}

px_node *px_node_new(px_pool *pool, px_node_kind kind, const px_node *mark)
{
    px_node *node = px_pool_take(pool, sizeof *node);
    if (mark) {
        node->file = mark->file;
        node->dir = mark->dir;
        node->line = mark->line;
        node->column = mark->column;
        node->shared = mark->shared;
        node->height = mark->height;
    }
    node->kind = kind;
    node->weight = mark ? mark->weight : 1;
    return node;
}

px_entry *px_node_add(px_pool *pool, px_node *node, const char *name, px_node *child)
{
    if (node->count == node->capacity) {
        int capacity = node->capacity ? 2 * node->capacity : 8;
        px_entry *entries = px_pool_take(pool, (size_t)capacity * sizeof *entries);
        if (node->count) memcpy(entries, node->entries, (size_t)node->count * sizeof *entries);
        node->entries = entries;
        node->capacity = capacity;
    }
    px_entry *entry = &node->entries[node->count++];
    *entry = (px_entry){.name = name, .file = child->file, .line = child->line, .column = child->column, .node = child};
    return entry;
}

px_entry *px_node_entry(const px_node *map, const char *name)
{
    if (!map || map->kind != PX_MAP) return NULL;
    for (int i = 0; i < map->count; i++) {
        if (strcmp(map->entries[i].name, name) == 0) return &map->entries[i];
    }
    return NULL;
}

px_node *px_node_get(const px_node *map, const char *name)
{
    px_entry *entry = px_node_entry(map, name);
    return entry ? entry->node : NULL;
}

px_node *px_node_at(const px_node *root, const char *path)
{
    const px_node *node = root;
    while (node && *path) {
        char name[128];
        size_t length = strcspn(path, ".");
        if (length >= sizeof name) return NULL;
        memcpy(name, path, length);
        name[length] = 0;
        node = px_node_get(node, name);
        path += length + (path[length] == '.');
    }
    return (px_node *)node;
}

bool px_node_is_null(const px_node *node)
{
    if (!node) return true;
    if (node->kind != PX_SCALAR || !node->plain) return false;
    const char *text = node->text;
    return !*text || !strcmp(text, "~") || !strcmp(text, "null") || !strcmp(text, "Null") || !strcmp(text, "NULL");
}

void px_node_remove(px_node *map, const char *name)
{
    for (int i = 0; i < map->count; i++) {
        if (strcmp(map->entries[i].name, name) != 0) continue;
        memmove(&map->entries[i], &map->entries[i + 1], (size_t)(map->count - i - 1) * sizeof *map->entries);
        map->count--;
        return;
    }
}

px_node *px_node_copy(px_pool *pool, const px_node *node)
{
    if (node->kind == PX_SCALAR) return (px_node *)node;
    px_node *copy = px_node_new(pool, node->kind, node);
    for (int i = 0; i < node->count; i++) {
        const px_entry *from = &node->entries[i];
        px_entry *to = px_node_add(pool, copy, from->name, px_node_copy(pool, from->node));
        *to = (px_entry){from->name, from->file, from->line, from->column, to->node};
    }
    return copy;
}

void px_node_share(px_node *node)
{
    node->shared = true;
    for (int i = 0; i < node->count; i++) px_node_share(node->entries[i].node);
}

static bool group_matches(const char *group, const char *prefix)
{
    size_t length = strlen(group);
    if (length < 2 || strcmp(group + length - 2, ".*") != 0) return strcmp(group, prefix) == 0;
    return strncmp(group, prefix, length - 1) == 0 && !strchr(prefix + length - 1, '.');
}

static bool listed(const char *const *names, const char *name)
{
    for (; *names; names++) {
        if (strcmp(*names, name) == 0) return true;
    }
    return false;
}

/* Removes from `map` the keys that cannot stand beside `name`, which a later layer gives. */
static void drop_exclusive(px_node *map, const char *prefix, const char *name)
{
    for (int i = 0; prefix && i < px_exclusive_count; i++) {
        const px_exclusive *set = &px_exclusives[i];
        if (!group_matches(set->group, prefix) || !listed(set->names, name)) continue;
        for (const char *const *other = set->names; *other; other++) {
            if (strcmp(*other, name) != 0) px_node_remove(map, *other);
        }
    }
}

px_node *px_node_merge(px_pool *pool, const char *prefix, const px_node *under, const px_node *over)
{
    if (!under) return px_node_copy(pool, over);
    if (under->kind != PX_MAP) return px_node_copy(pool, over);
    /* an empty group ("training:" alone) hides nothing */
    bool is_group = !prefix || !*prefix || px_key_is_group(prefix);
    if (px_node_is_null(over) && is_group) return px_node_copy(pool, under);
    if (over->kind != PX_MAP) return px_node_copy(pool, over);
    px_node *result = px_node_copy(pool, under);
    result->file = over->file;
    result->line = over->line;
    result->column = over->column;
    result->shared = under->shared && over->shared;
    for (int i = 0; i < over->count; i++) {
        const px_entry *from = &over->entries[i];
        if (!px_node_is_null(from->node)) drop_exclusive(result, prefix, from->name);
    }
    for (int i = 0; i < over->count; i++) {
        const px_entry *from = &over->entries[i];
        char place[512];
        if (prefix) snprintf(place, sizeof place, "%s%s%s", prefix, *prefix ? "." : "", from->name);
        px_entry *entry = px_node_entry(result, from->name);
        px_node *merged = px_node_merge(pool, prefix ? place : NULL, entry ? entry->node : NULL, from->node);
        if (!entry) entry = px_node_add(pool, result, from->name, merged);
        *entry = (px_entry){from->name, from->file, from->line, from->column, merged};
    }
    return result;
}
