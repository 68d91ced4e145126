/* The words of the quickstart's little language of reviews: what they are, how good they sound, what they fit. */
#ifndef QS_WORDS_H
#define QS_WORDS_H

typedef enum qs_domain { QS_FILM, QS_NOVEL, QS_RESTAURANT, QS_HOTEL, QS_DOMAINS } qs_domain;

enum { /* what an adjective can be said of, and what an aspect is: bit masks */
    QS_STORY = 1,
    QS_FOOD = 2,
    QS_PEOPLE = 4,
    QS_ROOM = 8,
    QS_ANY = 15,
};

typedef struct qs_aspect {
    const char *word;
    int plural;
    unsigned domains; /* bit 1 << qs_domain */
    unsigned kind;
} qs_aspect;

typedef struct qs_adjective {
    const char *word;
    double value; /* -2 .. 2; 0: neither, but bad after "too" */
    unsigned kinds;
} qs_adjective;

typedef struct qs_feeling { /* other words that say whether the writer was pleased */
    const char *word;
    double value;
} qs_feeling;

extern const qs_aspect qs_aspects[];
extern const int qs_aspect_count;
extern const qs_adjective qs_adjectives[];
extern const int qs_adjective_count;
extern const qs_feeling qs_feelings[];
extern const int qs_feeling_count;

#define QS_NAMES 10
#define QS_SURNAMES 16
#define QS_KIN 6
extern const char *const qs_women[QS_NAMES], *const qs_men[QS_NAMES], *const qs_surnames[QS_SURNAMES];
extern const char *const qs_kin_women[QS_KIN], *const qs_kin_men[QS_KIN];

#define QS_TITLE_WORDS 20
extern const char *const qs_title_first[QS_TITLE_WORDS], *const qs_title_second[QS_TITLE_WORDS];

extern const char *const qs_domain_noun[QS_DOMAINS];

/* A small generator of its own, so that the same seed makes the same bytes everywhere. */
typedef struct qs_rng {
    unsigned long long state;
} qs_rng;
unsigned long long qs_bits(qs_rng *rng);  /* splitmix64 */
double qs_uniform(qs_rng *rng);           /* [0, 1) */
double qs_normal(qs_rng *rng);            /* about N(0, 1): sum of uniforms */
int qs_below(qs_rng *rng, int n);         /* 0 .. n-1 */
int qs_chance(qs_rng *rng, double p);

#endif
