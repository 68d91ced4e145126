/* config: one table of every key (type, default, range, meaning), from which come the defaults, the YAML loader's checks,
 * --set, the resolved dump, the differences, --help and the JSON schema. Errors name file:line:col, all at once. */
#ifndef PHALANX_CONFIG_H
#define PHALANX_CONFIG_H

#include "phalanx/base.h"

typedef struct px_config px_config; /* one experiment: one or more resolved stages, immutable once loaded */

typedef struct px_config_source {
    const char *path;          /* the YAML file */
    const char *const *sets;   /* "a.b=v" */
    int set_count;
} px_config_source;
/* Loads, includes, expands ${VAR}, applies --set, validates every stage. On failure the recorded message has every
 * problem, one a line. PX_CONFIG (78), PX_IO when the file cannot be read. */
px_status px_config_load(px_config **config, const px_config_source *source);
void px_config_destroy(px_config *config);

const char *px_config_path(const px_config *config);
bool px_config_has_stages(const px_config *config); /* false: one stage at the top level, name "" */
int px_config_stage_count(const px_config *config);

/* ---- one stage's resolved values. Asking for a key that the table lacks, or as another type, is a bug (aborts). ---- */
typedef struct px_stage px_stage;
const px_stage *px_config_stage(const px_config *config, int index);
const px_stage *px_config_stage_named(const px_config *config, const char *name); /* NULL: none */
const char *px_stage_name(const px_stage *stage);      /* "" for a file without stages: */
const char *px_stage_algorithm(const px_stage *stage); /* pretrain, sft, reward, ppo */

/* Not null; lists and maps: given by the user or not empty. Null numbers read as 0, null texts as NULL. A key that the
 * stage's algorithm has no use for reads as its default. "rl_module.policy" and its like read, as text, as the source that
 * was chosen: path, stage, same_as or new (NULL: no such module). */
bool px_stage_is_set(const px_stage *stage, const char *key);
int64_t px_stage_int(const px_stage *stage, const char *key);
double px_stage_float(const px_stage *stage, const char *key);
bool px_stage_bool(const px_stage *stage, const char *key);
const char *px_stage_text(const px_stage *stage, const char *key); /* NULL for null */
/* Keys of "number or word" type (time_limit_s: auto, micro_batch_tokens: auto): true and *value when it is a number. */
bool px_stage_number(const px_stage *stage, const char *key, double *value);
/* Input paths come resolved against the directory of the YAML file that names them (of the main one for --set); run.dir against the working directory, with {name},
 * {seed}, {hash} filled in. */
px_status px_stage_path(const px_stage *stage, const char *key, char *out, size_t size);

/* Lists of maps (environment.rewards, evaluation.rewards): count, then keys under "environment.rewards.0.kind". */
int px_stage_list_count(const px_stage *stage, const char *key);
/* Plain lists of numbers (training.optimizer.betas): "training.optimizer.betas.0". */
/* Maps with free keys (stop.metrics: {objective/kl: "> 50"}). */
int px_stage_map_count(const px_stage *stage, const char *key);
void px_stage_map_entry(const px_stage *stage, const char *key, int index, const char **name, const char **value);

/* Where a key was written: "FILE:LINE:COL" or "--set". "default": nowhere, or with the value that it has by default: the two
 * mean the same, so that a dump loads wherever its original does. For messages of later checks. */
const char *px_stage_origin(const px_stage *stage, const char *key);
/* px_fail with PX_CONFIG and the origin of `key` in front. */
px_status px_stage_fail(const px_stage *stage, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* px_fail_within: the key and its origin before the recorded message, whose code stays. */
px_status px_stage_fail_within(const px_stage *stage, const char *key);

/* ---- whole documents -------------------------------------------------------------------------------------------------- */
px_status px_config_dump(const px_config *config, bool only_differences, px_buf *yaml); /* loads to the same config */
px_status px_config_json(const px_config *config, px_buf *json);                       /* so does this */
/* One stage as a file of its own: the run's config.yaml. Its key `resolved_stage` keeps the stage's name, and says that
 * stages it refers to lie elsewhere. */
px_status px_stage_dump(const px_stage *stage, px_buf *yaml);
px_status px_config_schema(px_buf *json);  /* JSON schema (2020-12) of the whole file, for editors */
px_status px_config_help(px_buf *text, const char *group); /* the table as text; group NULL: all */
px_status px_config_markdown(px_buf *text);                /* docs/config.md */
/* Hash of what must not change on resume, as 16 hex digits. */
void px_stage_hash(const px_stage *stage, char out[17]);

/* Every resolved leaf in table order, typed: for /config attributes and comparisons. */
typedef enum px_type { PX_TYPE_INT, PX_TYPE_FLOAT, PX_TYPE_BOOL, PX_TYPE_TEXT } px_type;
typedef struct px_leaf {
    const char *key;
    px_type type;
    int64_t i;
    double f;
    bool b;
    const char *text;       /* NULL for null */
    bool may_change;        /* on resume */
} px_leaf;
int px_stage_leaf_count(const px_stage *stage);
void px_stage_leaf(const px_stage *stage, int index, px_leaf *leaf);
/* Compares with the config.yaml of an earlier start. An input path may differ where it leads to equal content. PX_CONFIG lists the keys that may not change and did (both values);
 * `changed`, if not NULL, gets the allowed differences, one "key: old -> new" a line. */
px_status px_stage_compare(const px_stage *stage, const char *earlier_yaml_path, px_buf *changed);

/* ---- the site: what batch scripts need to know of a cluster -------------------------------------------------------------- */
enum { PX_SITE_LINES = 32 };
typedef struct px_site_list {
    const char *line[PX_SITE_LINES];
    int count;
} px_site_list;
typedef struct px_site {
    const char *account, *partition, *qos, *constraint; /* NULL: none */
    px_site_list modules, setup, sbatch; /* to load; shell lines before the program; further options of sbatch */
    const char *launcher;                /* srun, mpirun */
    const char *mpi;                     /* srun --mpi= */
    int64_t nodes, ntasks_per_node, cpus_per_task; /* 0: not said */
    double memory_gib;                   /* of a node; 0: not known */
    double network_gbit_s;               /* out of a node */
    const char *time, *max_time;         /* D-HH:MM:SS; NULL: from the estimate; no limit known */
    int64_t signal_s;                    /* seconds before the end that a job is asked to stop */
    bool requeue;                        /* the site lets a job put itself back into the queue */
    void *memory;
} px_site;
/* path NULL: $PHALANX_SITE, else phalanx/site.yaml under $XDG_CONFIG_HOME or ~/.config; defaults where there is no file. */
px_status px_site_load(px_site *site, const char *path);
void px_site_free(px_site *site);
/* "90", "1:30:00", "2-00:00:00" in seconds, as Slurm reads them (a number alone: minutes); negative: not a time. */
double px_site_seconds(const char *time);

#endif
