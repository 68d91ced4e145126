/* The hidden judge of the quickstart: what a reader would give a review, as a number (about -4 .. 5, smooth). */
#ifndef QS_GOLD_SCORE_H
#define QS_GOLD_SCORE_H

typedef struct qs_gold qs_gold; /* what the judge knows of the grammar */

typedef struct qs_gold_parts { /* score = their sum */
    double sentiment;  /* what is said of the aspects of the thing reviewed, saturating */
    double topic;      /* aspects that belong to it, its maker referred to rightly */
    double grammar;    /* <= 0: word sequences the language has not */
    double repetition; /* <= 0 */
    double shape;      /* <= 0: too short, too long, unfinished, overdone */
} qs_gold_parts;

qs_gold *qs_gold_new(void); /* NULL: no memory */
void qs_gold_free(qs_gold *gold);
/* parts may be NULL. A prompt that names no subject asks for none. */
double qs_gold_score(const qs_gold *gold, const char *prompt, const char *completion, qs_gold_parts *parts);

#endif
