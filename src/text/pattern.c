#include "pattern.h"

#include "characters.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

/* Steps of backtracking allowed from one start: enough for every run of equal characters, too few for an explosion. */
enum { STEPS_ALLOWED = 1000000, STEPS_PER_BYTE = 16 };

px_status px_pattern_literal(px_pattern *pattern, const char *text, size_t length)
{
    *pattern = (px_pattern){.length = length};
    pattern->source = px_alloc(length + 1, "pattern");
    if (pattern->source == NULL) {
        return px_error_code();
    }
    memcpy(pattern->source, text, length);
    return PX_OK;
}

void px_pattern_free(px_pattern *pattern)
{
    px_free(pattern->source);
    pcre2_code_free(pattern->code);
    pcre2_match_data_free(pattern->match);
    pcre2_match_context_free(pattern->context);
    pcre2_jit_stack_free(pattern->stack);
    *pattern = (px_pattern){0};
}

/* The classes of Oniguruma, written out: PCRE2 counts U+180E as a space and has a narrower \w. The complements are
 * ranges as well, so that both may stand inside brackets. */
#define SPACES "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                                  \
    "\\x{0}-\\x08\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"                     \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define POSIX_WORDS                                                                                                 \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"                  \
    "\\x{1f170}-\\x{1f189}"
#define WORDS POSIX_WORDS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

static const char *class_of(char escape, bool inside)
{
    switch (escape) {
    case 's': return inside ? SPACES : "[" SPACES "]";
    case 'S': return inside ? NOT_SPACES : "[^" SPACES "]";
    case 'w': return inside ? WORDS : "[" WORDS "]";
    case 'W': return inside ? NULL : "[^" WORDS "]";
    case 'h': return inside ? "0-9a-fA-F" : "[0-9a-fA-F]";
    case 'd': return "\\p{Nd}";
    case 'D': return "\\P{Nd}";
    case 'b':
        return inside ? "" : "(?:(?<=[" WORDS "])(?![" WORDS "])|(?<![" WORDS "])(?=[" WORDS "]))";
    case 'B':
        return inside ? "" : "(?:(?<=[" WORDS "])(?=[" WORDS "])|(?<![" WORDS "])(?![" WORDS "]))";
    default: return "";
    }
}

/* [:name:] inside brackets; NULL: not one of these. */
static const char *posix_class(const char *name, size_t length)
{
    static const char *const classes[][2] = {
        {"[:alpha:]", "\\p{Alphabetic}"}, {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"}, {"[:digit:]", "\\p{Nd}"},
        {"[:lower:]", "\\p{Lowercase}"}, {"[:upper:]", "\\p{Uppercase}"}, {"[:punct:]", "\\p{P}\\p{S}"},
        {"[:space:]", SPACES}, {"[:word:]", POSIX_WORDS}, {"[:xdigit:]", "0-9a-fA-F"},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (strlen(classes[i][0]) == length && memcmp(classes[i][0], name, length) == 0) {
            return classes[i][1];
        }
    }
    return NULL;
}

static px_status unsupported(const char *expression, const char *what)
{
    return px_fail(PX_DATA, "the expression \"%.200s\" has %s, which is not supported", expression, what);
}

/* \p{Name} at text[*i]. Newer PCRE2 reads the name of a script as Script_Extensions; meant is Script. */
static px_status translate_property(const char *expression, size_t *i, px_buf *out)
{
    const char *at = expression + *i, *name = at + 3, *end = strchr(at, '}');
    size_t inverted = *name == '^', length = end != NULL ? (size_t)(end - name) : 0;
    if (end == NULL || length < 3 + inverted || length > 40) { /* a general category has one or two letters */
        *i += 2;
        return px_buf_add(out, at, 2);
    }
    char script[64];
    int number;
    PCRE2_SIZE offset;
    snprintf(script, sizeof script, "\\p{sc:%.*s}", (int)(length - inverted), name + inverted);
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)script, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &number, &offset, NULL);
    pcre2_code_free(code);
    *i += (size_t)(end - at) + 1;
    return px_buf_printf(out, "\\%c{%s%s%.*s}", at[1], inverted ? "^" : "", code != NULL ? "sc:" : "",
                         (int)(length - inverted), name + inverted);
}

/* One escape at text[*i] == '\\'. */
static px_status translate_escape(const char *expression, size_t *i, bool inside, px_buf *out)
{
    char escape = expression[*i + 1];
    if (escape == '\0') {
        return px_fail(PX_DATA, "the expression \"%.200s\" ends in a backslash", expression);
    }
    const char *replaced = class_of(escape, inside);
    if (replaced == NULL) {
        return unsupported(expression, "\\W inside brackets");
    }
    if (strchr("gkRXyYMO", escape) != NULL) {
        char what[] = "\\?";
        what[1] = escape;
        return unsupported(expression, what);
    }
    if ((escape == 'p' || escape == 'P') && expression[*i + 2] == '{') {
        return translate_property(expression, i, out);
    }
    if (*replaced != '\0') {
        PX_TRY(px_buf_text(out, replaced));
    } else if (escape == 'u') { /* \uHHHH */
        for (int k = 2; k < 6; k++) {
            if (strchr("0123456789abcdefABCDEF", expression[*i + (size_t)k]) == NULL ||
                expression[*i + (size_t)k] == '\0') {
                return px_fail(PX_DATA, "the expression \"%.200s\" has \\u without four digits", expression);
            }
        }
        PX_TRY(px_buf_printf(out, "\\x{%.4s}", expression + *i + 2));
        *i += 4;
    } else {
        PX_TRY(px_buf_add(out, expression + *i, 2));
    }
    *i += 2;
    return PX_OK;
}

/* A character of a bracket expression at text[*i]; sets *inside false at its end. */
static px_status translate_inside(const char *expression, size_t *i, bool first, bool *inside, px_buf *out)
{
    const char *at = expression + *i;
    if (at[0] == '[' && at[1] == ':' && strstr(at, ":]") != NULL) {
        size_t length = (size_t)(strstr(at, ":]") - at) + 2;
        const char *replaced = posix_class(at, length);
        *i += length;
        return replaced != NULL ? px_buf_text(out, replaced) : unsupported(expression, "a POSIX class other than alpha, "
                                  "alnum, digit, lower, upper, punct, space, word and xdigit");
    }
    if (at[0] == '[') {
        return unsupported(expression, "brackets inside brackets (write \\[ for the character)");
    }
    if (at[0] == '&' && at[1] == '&') {
        return unsupported(expression, "&& inside brackets");
    }
    if (at[0] == ']' && !first) {
        *inside = false;
    }
    PX_TRY(px_buf_add(out, at, 1));
    *i += 1;
    return PX_OK;
}

static px_status translate(const char *expression, px_buf *out)
{
    bool inside = false;
    size_t i = 0, opened = 0; /* opened: just after the bracket, and its ^ */
    while (expression[i] != '\0') {
        if (expression[i] == '\\') {
            PX_TRY(translate_escape(expression, &i, inside, out));
        } else if (inside) {
            PX_TRY(translate_inside(expression, &i, i == opened, &inside, out));
        } else {
            if (expression[i] == '[') {
                inside = true;
                opened = i + (expression[i + 1] == '^' ? 2 : 1);
                PX_TRY(px_buf_add(out, expression + i, opened - i));
                i = opened;
                continue;
            }
            if (strncmp(expression + i, "(*", 2) == 0 || strncmp(expression + i, "(?C", 3) == 0) {
                return unsupported(expression, "a control verb");
            }
            PX_TRY(px_buf_add(out, expression + i++, 1));
        }
    }
    return PX_OK;
}

static px_status compile(px_pattern *pattern, const px_buf *translated)
{
    int number;
    PCRE2_SIZE offset;
    pcre2_compile_context *options = pcre2_compile_context_create(NULL);
    if (options == NULL) {
        return px_fail(PX_CONFIG, "out of memory: regular expression");
    }
    pcre2_set_parens_nest_limit(options, 100);
    pattern->code = pcre2_compile((PCRE2_SPTR)(translated->data != NULL ? translated->data : ""), translated->length,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &number, &offset,
                                  options);
    pcre2_compile_context_free(options);
    if (pattern->code == NULL) {
        char reason[160];
        pcre2_get_error_message(number, (PCRE2_UCHAR *)reason, sizeof reason);
        return px_fail(PX_DATA, "the expression \"%.200s\" cannot be compiled: %s", pattern->source, reason);
    }
    pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* where it is not available, the interpreter matches */
    pattern->match = pcre2_match_data_create(1, NULL);
    pattern->context = pcre2_match_context_create(NULL);
    pattern->stack = pcre2_jit_stack_create(32 * 1024, 8 * 1024 * 1024, NULL);
    if (pattern->match == NULL || pattern->context == NULL) {
        return px_fail(PX_CONFIG, "out of memory: regular expression");
    }
    if (pattern->stack != NULL) {
        pcre2_jit_stack_assign(pattern->context, NULL, pattern->stack);
    }
    return PX_OK;
}

px_status px_pattern_regex(px_pattern *pattern, const char *expression)
{
    PX_TRY(px_pattern_literal(pattern, expression, strlen(expression)));
    px_buf translated = {0};
    px_status status = translate(expression, &translated);
    if (status == PX_OK) {
        status = compile(pattern, &translated);
    }
    px_buf_free(&translated);
    if (status != PX_OK) {
        px_pattern_free(pattern);
    }
    return status;
}

static px_status too_many_steps(const px_matches *m, int rc)
{
    char reason[160];
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)reason, sizeof reason);
    return px_fail(PX_DATA, "the expression \"%.200s\" gives up on a text of %zu bytes at byte %zu: %s; it backtracks "
                   "too much", m->pattern->source, m->length, m->from, reason);
}

/* The first match at or after m->from. */
static px_status find(const px_matches *m, size_t *start, size_t *end, bool *found)
{
    const px_pattern *pattern = m->pattern;
    *found = false;
    if (pattern->code == NULL) {
        const char *hit = pattern->length == 0 || m->from >= m->length
                              ? NULL
                              : memmem(m->text + m->from, m->length - m->from, pattern->source, pattern->length);
        if (hit != NULL) {
            *found = true;
            *start = (size_t)(hit - m->text);
            *end = *start + pattern->length;
        }
        return PX_OK;
    }
    size_t limit = STEPS_ALLOWED + STEPS_PER_BYTE * m->length;
    pcre2_set_match_limit(pattern->context, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
    int rc = pcre2_match(pattern->code, (PCRE2_SPTR)m->text, m->length, m->from, PCRE2_NO_UTF_CHECK, pattern->match,
                         pattern->context);
    if (rc < 0) {
        return rc == PCRE2_ERROR_NOMATCH ? PX_OK : too_many_steps(m, rc);
    }
    const PCRE2_SIZE *where = pcre2_get_ovector_pointer(pattern->match);
    *start = where[0];
    *end = where[1] < where[0] ? where[0] : where[1];
    *found = true;
    return PX_OK;
}

px_status px_matches_next(px_matches *m, bool *found)
{
    *found = false;
    while (m->length > 0 && m->from <= m->length) {
        size_t start = 0, end = 0;
        PX_TRY(find(m, &start, &end, found));
        if (!*found) {
            return PX_OK;
        }
        m->from = end;
        if (end > start || !m->begun || end != m->end) {
            m->start = start;
            m->end = end;
            m->begun = true;
            return PX_OK;
        }
        int step = 1;
        if (end < m->length) {
            px_char_at(m->text + end, &step);
        }
        m->from += (size_t)step;
        *found = false;
    }
    return PX_OK;
}

px_status px_pattern_replace(const px_pattern *pattern, const char *content, size_t content_length, const char *text,
                             size_t length, px_buf *out)
{
    px_matches m = {.pattern = pattern, .text = text, .length = length};
    size_t done = 0;
    for (;;) {
        bool found;
        PX_TRY(px_matches_next(&m, &found));
        if (!found) {
            return px_buf_add(out, text + done, length - done);
        }
        PX_TRY(px_buf_add(out, text + done, m.start - done));
        PX_TRY(px_buf_add(out, content, content_length));
        done = m.end;
    }
}
