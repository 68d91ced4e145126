/* Sentences of the quickstart's language: openings of reviews (prompts), bodies of reviews (completions), stories. */
#ifndef QS_GRAMMAR_H
#define QS_GRAMMAR_H

#include "words.h"

#include <stddef.h>

typedef struct qs_subject { /* what a review is about */
    qs_domain domain;
    int woman; /* the director, author, chef or owner */
    const char *first, *last;
    const char *title[2];
} qs_subject;

typedef struct qs_style {
    double liking; /* about -1.5 .. 1.5: how pleased the writer is */
    double slips;  /* probability of a fault at each place where one can be made; 0: clean */
} qs_style;

/* heldout: from the tenth of the titles that training never sees. */
qs_subject qs_make_subject(qs_rng *rng, int heldout);
void qs_write_opening(qs_rng *rng, const qs_subject *subject, char *out, size_t size);
/* 15-40 words when clean; no space in front. */
void qs_write_body(qs_rng *rng, const qs_subject *subject, const qs_style *style, char *out, size_t size);
void qs_write_story(qs_rng *rng, char *out, size_t size);
int qs_count_words(const char *text);

#endif
