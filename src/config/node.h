/* A tree of what was written: maps, lists and scalars that know their file, line and column. Nodes live in a pool and
 * are freed with it; a tree may share nodes (YAML aliases), so shared nodes are never changed in place but copied. */
#ifndef PX_CONFIG_NODE_H
#define PX_CONFIG_NODE_H

#include "phalanx/base.h"

#include <setjmp.h>

/* Memory that is given back all at once. Running out of it jumps to `exhausted`, with the error recorded; where that is NULL
 * it is treated as a bug. */
typedef struct px_pool {
    void **blocks;
    int count, capacity;
    jmp_buf *exhausted;
} px_pool;
void *px_pool_take(px_pool *pool, size_t bytes); /* zeroed */
void *px_pool_need(px_pool *pool, void *memory);   /* memory, where it is not NULL */
char *px_pool_text(px_pool *pool, const char *text);
char *px_pool_format(px_pool *pool, const char *format, ...) __attribute__((format(printf, 2, 3)));
void px_pool_free(px_pool *pool);

typedef enum px_node_kind { PX_SCALAR, PX_LIST, PX_MAP } px_node_kind;
typedef struct px_node px_node;
typedef struct px_entry {
    const char *name;  /* NULL in lists */
    const char *file;  /* mark of the name */
    int line, column;
    px_node *node;
} px_entry;
struct px_node {
    px_node_kind kind;
    bool plain;        /* scalar without quotes: may be null, a number, a bool */
    bool shared;       /* from `defaults:` or a --set for all stages: ignored by stages whose algorithm has no such key */
    const char *text;  /* scalar */
    const char *file;  /* as it is named in messages; "--set a.b=v" and "default" have line 0 */
    const char *dir;   /* what paths in it are relative to */
    int line, column;  /* from 1 */
    px_entry *entries; /* map, list */
    int count, capacity;
    int64_t weight;    /* nodes of the tree below with aliases written out */
    int height;        /* levels below */
};

px_node *px_node_new(px_pool *pool, px_node_kind kind, const px_node *mark); /* mark: whose place it takes; NULL */
px_entry *px_node_add(px_pool *pool, px_node *node, const char *name, px_node *child);
px_node *px_node_get(const px_node *map, const char *name);       /* NULL: absent or not a map */
px_entry *px_node_entry(const px_node *map, const char *name);
px_node *px_node_at(const px_node *root, const char *path);       /* dotted names through maps */
bool px_node_is_null(const px_node *node);                        /* absent, ~, null, or nothing */
void px_node_remove(px_node *map, const char *name);

/* A new tree: `over` laid on `under`. Maps are merged, everything else is replaced; of exclusive keys (key.h) the ones
 * of `over` win. prefix: dotted place of the two in a stage, NULL where places have no meaning (includes). */
px_node *px_node_merge(px_pool *pool, const char *prefix, const px_node *under, const px_node *over);
px_node *px_node_copy(px_pool *pool, const px_node *node); /* maps and lists; scalars stay shared */
void px_node_share(px_node *node);                         /* marks a whole tree as shared */

/* ---- problems: everything that is wrong, each a line with its place -------------------------------------------------- */
typedef struct px_problems {
    px_pool *pool;
    struct px_problem {
        const char *file, *text;
        int line, column, order;
    } *list;
    int count, capacity, dropped;
} px_problems;
/* Where: node, or entry (a map's key), or NULL for the whole file named in `file`. Equal lines are kept once. */
void px_problem_node(px_problems *problems, const px_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void px_problem_entry(px_problems *problems, const px_entry *entry, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void px_problem_at(px_problems *problems, const char *file, int line, int column, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
px_status px_problems_end(px_problems *problems); /* PX_OK, or PX_CONFIG with all of them; frees the list */

/* ---- YAML -------------------------------------------------------------------------------------------------------------- */
typedef struct px_yaml {
    px_pool *pool;
    px_problems *problems;
    bool expand;             /* ${VAR} */
    const char *open[16];    /* files being read, outermost first, as realpath gives them */
    int depth;
    const char *main_dir;    /* of the first file, absolute */
} px_yaml;
/* Reads a file with its includes. *root NULL after a problem that leaves nothing. PX_IO when the first file cannot be read. */
px_status px_yaml_file(px_yaml *yaml, const char *path, px_node **root);
/* Parses text. file, dir: for marks and paths. */
px_node *px_yaml_text(px_yaml *yaml, const char *text, size_t length, const char *file, const char *dir);

#endif
