/* What a configuration becomes: for each stage one value per row of the table, and one per field of each list entry. */
#ifndef PX_CONFIG_STAGE_H
#define PX_CONFIG_STAGE_H

#include "key.h"
#include "node.h"
#include "phalanx/config.h"

typedef enum px_form { PX_IS_NULL, PX_IS_WORD, PX_IS_NUMBER, PX_IS_BOOL, PX_IS_TEXT, PX_IS_LIST, PX_IS_MAP } px_form;

typedef struct px_value {
    const char *key;     /* "environment.rewards.0.kind" */
    const px_key *row;
    px_form form;
    bool preset;         /* the default of the table, written or not: the two are checked alike */
    bool applies;        /* to this algorithm, kind of reward or source of a module */
    bool may_change;     /* on resume; fields of a list entry as the list */
    int64_t i;           /* numbers of INT; bools; lists and maps: how many entries */
    double f;            /* numbers */
    const char *text;    /* words and texts; paths are absolute; modules: path, stage, same_as or new */
    const px_node *node; /* where it was written; NULL: nowhere */
    const char *origin;
} px_value;

struct px_stage {
    px_config *config;
    const char *name;      /* "" without stages */
    const char *algorithm;
    unsigned bit;
    px_node *tree;         /* defaults, stage and --set merged */
    px_value *values;
    int count, capacity;
};

struct px_config {
    px_pool pool;
    const char *path, *dir;
    bool staged;           /* the file has `stages:` */
    bool resolved;         /* the file is a dump of one stage: names of other stages cannot be checked */
    unsigned algorithms;   /* of all stages */
    px_stage *stages;
    int stage_count;
};

/* Reads `algorithm` alone: which keys apply depends on it, and on those of the other stages. */
void px_stage_resolve_algorithm(px_stage *stage, px_problems *problems);
/* tree -> values; notes every problem of single keys. */
void px_stage_resolve(px_stage *stage, px_problems *problems);
/* Defaults that follow from other keys: run.name, names of rewards, missing_eos.mode, minibatch_size, strategy. */
void px_stage_derive(px_stage *stage);
/* Problems that several keys make together; stages of one file in order. Only for values that resolved. */
void px_stage_check(px_stage *stage, px_problems *problems);
/* One config.yaml that px_stage_dump wrote, or any other file. checked false: no px_stage_check. */
px_status px_config_read(px_config **config, const px_config_source *source, bool checked);

px_value *px_stage_find(const px_stage *stage, const char *key); /* NULL: no such key */
const px_value *px_stage_value(const px_stage *stage, const char *key); /* no such key is a bug */
bool px_value_is_leaf(const px_value *value); /* no list, no map */
/* run.dir with {name}, {seed} and {hash} filled in. */
px_status px_stage_run_dir(const px_stage *stage, char *out, size_t size);
void px_config_hash(const px_config *config, char out[17]); /* over all stages */
/* The shortest decimal that reads back as the same double, with a '.' or an exponent. */
const char *px_float_text(double value, char out[40]);
/* A value as a message shows it: null, true, 0.5, text. */
const char *px_value_text(const px_value *value, char *out, size_t size);

#endif
