/* What a Split or Replace looks for: a literal or a regular expression in the dialect of tokenizer.json. Private to
 * text. */
#ifndef PX_TEXT_PATTERN_H
#define PX_TEXT_PATTERN_H

#include "phalanx/base.h"

typedef struct px_pattern {
    char *source;      /* the literal, or the expression as in the file */
    size_t length;     /* of source */
    void *code;        /* pcre2_code; NULL: a literal */
    void *match, *context, *stack; /* of PCRE2 */
} px_pattern;

px_status px_pattern_literal(px_pattern *pattern, const char *text, size_t length);
/* PX_DATA: what in the expression is not supported. */
px_status px_pattern_regex(px_pattern *pattern, const char *expression);
void px_pattern_free(px_pattern *pattern);
/* Matches one after another, as Oniguruma's iterator gives them: an empty match is not taken where the one before it
 * ended. Start from {.pattern, .text, .length}. */
typedef struct px_matches {
    const px_pattern *pattern;
    const char *text;  /* valid UTF-8 */
    size_t length;
    size_t start, end; /* of the match at hand */
    size_t from;       /* where the search goes on */
    bool begun;        /* `end` is that of a match */
} px_matches;
/* *found false: there is no further one. An expression that needs too many steps on this text is PX_DATA, so that no
 * file can make a run hang. */
px_status px_matches_next(px_matches *matches, bool *found);
/* The text with every match replaced, appended to out. */
px_status px_pattern_replace(const px_pattern *pattern, const char *content, size_t content_length, const char *text,
                             size_t length, px_buf *out);

#endif
