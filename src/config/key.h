/* One row of the table of configuration keys. Everything that is known of a key is here. */
#ifndef PX_CONFIG_KEY_H
#define PX_CONFIG_KEY_H

#include <stdbool.h>

typedef enum px_key_kind {
    PX_KEY_INT,
    PX_KEY_FLOAT,
    PX_KEY_BOOL,
    PX_KEY_WORD,    /* one word of `valid` */
    PX_KEY_TEXT,
    PX_KEY_PATH,    /* an input: relative to the file that names it */
    PX_KEY_NUMBERS, /* a fixed-length list of numbers; `value` gives the length */
    PX_KEY_TEXTS,   /* a text or a list of texts */
    PX_KEY_MODULE,  /* a map: where a model comes from (px_module_keys) */
    PX_KEY_REWARDS, /* a list of maps (px_reward_keys) */
    PX_KEY_SOURCES, /* a path, or a list of paths and maps (px_source_keys) */
    PX_KEY_METRICS, /* a map with free keys: metric name -> condition */
} px_key_kind;

enum { PX_ON_PRETRAIN = 1, PX_ON_SFT = 2, PX_ON_REWARD = 4, PX_ON_PPO = 8 };
#define PX_ON_ALL 15u
#define PX_ON_DATA (PX_ON_PRETRAIN | PX_ON_SFT | PX_ON_REWARD) /* those that step through a data set */

enum {
    PX_MAY_CHANGE = 1, /* on resume */
    PX_NEEDED = 2,     /* has no default */
};

typedef struct px_key {
    const char *name;    /* dotted; relative in px_module_keys, px_reward_keys and px_source_keys */
    px_key_kind kind;
    const char *value;   /* default, as YAML; NULL: null */
    const char *others;  /* other defaults by algorithm, "sft=2e-5 reward=1e-4"; NULL: none */
    const char *valid;   /* words and at most one interval, '|' between: "auto|[1,inf)"; null is a word; NULL: anything */
    const char *unit;    /* "" for none */
    unsigned algorithms; /* PX_ON_*: which use it */
    unsigned flags;
    const char *only;    /* the kinds of reward or sources of a module that have this field, '|' between; NULL: all */
    const char *doc;
} px_key;

extern const px_key px_keys[];
extern const int px_key_count;
extern const px_key px_module_keys[];
extern const int px_module_key_count;
extern const px_key px_reward_keys[];
extern const int px_reward_key_count;
extern const px_key px_source_keys[];
extern const int px_source_key_count;

/* Keys of one map of which only one may be given; the later layer's choice drops the earlier layer's. */
typedef struct px_exclusive {
    const char *group; /* "rl_module.*" stands for every module */
    const char *names[5];
} px_exclusive;
extern const px_exclusive px_exclusives[];
extern const int px_exclusive_count;

/* Groups in the order of the documentation, with one line each. */
typedef struct px_group {
    const char *name, *doc;
} px_group;
extern const px_group px_groups[];
extern const int px_group_count;

/* Algorithms that are built, in the order of their bits, and the names that are known and not built yet. */
#define PX_ALGORITHMS 4
extern const char *const px_algorithm_names[PX_ALGORITHMS];
extern const char *const px_algorithms_planned[];
extern const int px_algorithm_planned_count;
unsigned px_algorithm_bit(const char *name); /* 0: not built */

const px_key *px_key_find(const char *name);     /* NULL: no such key */
bool px_key_is_group(const char *name);          /* some key starts with NAME. */
const px_key *px_key_fields(px_key_kind kind, int *count); /* the table of a kind with fields; NULL: none */

/* `valid` taken apart. */
bool px_valid_word(const char *valid, const char *word);
bool px_valid_interval(const char *valid, double *low, double *high, bool *low_open, bool *high_open);
/* One word of a '|' list after another: start with *at = list; false at the end. */
bool px_word_next(const char **at, char *word, int size);
/* The default for an algorithm as YAML text; NULL: null. Text in `hold` or in the table. */
const char *px_key_default(const px_key *key, const char *algorithm, char hold[64]);

#endif
