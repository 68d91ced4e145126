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
/* The first match at or after `from`: [*start, *end). *found false: none. An expression that needs too many steps on
 * this text is PX_DATA, so that no file can make a run hang. */
px_status px_pattern_find(const px_pattern *pattern, const char *text, size_t length, size_t from, size_t *start,
                          size_t *end, bool *found);

#endif
