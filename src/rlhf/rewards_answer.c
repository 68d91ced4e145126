/* Rewards that look for an answer in the completion: regular expressions, and equality with a field of the record. */
#include "rewards_sources.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where a pattern needs more stack than that the interpreter matches, which keeps its own on the heap. */
enum { JIT_STACK_FIRST = 32 << 10, JIT_STACK_MOST = 8 << 20 };

struct px_regex {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

px_status px_regex_open(px_regex **pattern, const char *expression)
{
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
    if (code == NULL) {
        PCRE2_UCHAR text[256];
        pcre2_get_error_message(error, text, sizeof text);
        return px_fail(PX_CONFIG, "pattern '%s': %s at character %zu; valid is a PCRE2 expression", expression,
                       (const char *)text, (size_t)offset);
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* only speed: without it the interpreter matches */
    px_regex *p = px_alloc(sizeof *p, "pattern");
    if (p == NULL) {
        pcre2_code_free(code);
        return px_error_code();
    }
    p->code = code;
    p->match = pcre2_match_data_create_from_pattern(code, NULL);
    p->context = pcre2_match_context_create(NULL);
    p->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MOST, NULL);
    if (p->match == NULL || p->context == NULL) {
        px_regex_close(p);
        return px_fail(PX_CONFIG, "out of memory: pattern '%s'", expression);
    }
    pcre2_jit_stack_assign(p->context, NULL, p->stack); /* NULL: the 32 KiB of the library */
    *pattern = p;
    return PX_OK;
}

void px_regex_close(px_regex *pattern)
{
    if (pattern != NULL) {
        pcre2_match_data_free(pattern->match);
        pcre2_match_context_free(pattern->context);
        pcre2_jit_stack_free(pattern->stack);
        pcre2_code_free(pattern->code);
        px_free(pattern);
    }
}

/* Where a match that begins behind the one that was found can begin: an empty one is stepped over by a character. */
static PCRE2_SIZE behind(const PCRE2_SIZE *at, PCRE2_SIZE from, const char *text)
{
    if (at[1] > from && at[1] > at[0]) {
        return at[1];
    }
    PCRE2_SIZE next = at[1] > from ? at[1] : from;
    next += text[next] != '\0';
    while (((unsigned char)text[next] & 0xc0) == 0x80) {
        next++;
    }
    return next;
}

px_match px_regex_find(px_regex *pattern, const char *text, bool last, size_t *begin, size_t *length)
{
    PCRE2_SIZE from = 0, all = strlen(text);
    px_match found = PX_MATCH_NONE;
    do {
        int groups = pcre2_match(pattern->code, (PCRE2_SPTR)text, all, from, 0, pattern->match, pattern->context);
        if (groups == PCRE2_ERROR_JIT_STACKLIMIT) {
            groups = pcre2_match(pattern->code, (PCRE2_SPTR)text, all, from, PCRE2_NO_JIT, pattern->match, pattern->context);
        }
        if (groups == PCRE2_ERROR_NOMATCH) {
            return found;
        }
        if (groups < 0) {
            return PX_MATCH_UNDECIDED;
        }
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(pattern->match);
        int group = groups > 1 && at[2] != PCRE2_UNSET ? 1 : 0;
        PCRE2_SIZE end = at[2 * group + 1], next = behind(at, from, text);
        found = PX_MATCH_FOUND;
        *begin = at[2 * group];
        *length = end > *begin ? end - *begin : 0; /* \K can put the begin behind the end */
        last = last && next > from;
        from = next;
    } while (last);
    return found;
}

typedef struct span {
    const char *text;
    size_t length;
} span;

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static span trimmed(span s)
{
    while (s.length > 0 && is_space(s.text[0])) {
        s.text++;
        s.length--;
    }
    while (s.length > 0 && is_space(s.text[s.length - 1])) {
        s.length--;
    }
    return s;
}

/* "... so 6 * 7 = 42. #### 42": the data sets of GSM8K's style put the answer behind the last mark. */
static span after_mark(span s)
{
    for (size_t i = s.length; i >= 4; i--) {
        if (memcmp(s.text + i - 4, "####", 4) == 0) {
            return (span){s.text + i, s.length - i};
        }
    }
    return s;
}

/* Decimal numbers as people write them: "1,200", "$42", "42.", "-3.5e2". */
static bool as_number(span s, double *value)
{
    char digits[64];
    size_t n = 0;
    for (size_t i = 0; i < s.length; i++) {
        char c = s.text[i];
        bool between = i > 0 && i + 1 < s.length;
        if ((c == ',' && between) || (c == '$' && n <= 1 && i <= 1)) {
            continue;
        }
        if (strchr("0123456789+-.eE", c) == NULL || c == '\0' || n + 1 >= sizeof digits) {
            return false;
        }
        digits[n++] = c;
    }
    digits[n] = '\0';
    char *end;
    *value = strtod(digits, &end);
    return n > 0 && end == digits + n;
}

static bool same_answer(span a, span b)
{
    double x, y;
    a = trimmed(a);
    b = trimmed(b);
    if (as_number(a, &x) && as_number(b, &y)) {
        return x == y;
    }
    return a.length == b.length && memcmp(a.text, b.text, a.length) == 0;
}

/* One wanted value: text, a number, true or false. */
static bool same_as_json(span answer, json_t *want)
{
    if (json_is_string(want)) {
        span text = {json_string_value(want), json_string_length(want)};
        return same_answer(answer, after_mark(text));
    }
    char number[64];
    if (json_is_integer(want)) {
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(want));
    } else if (json_is_real(want)) {
        snprintf(number, sizeof number, "%.17g", json_real_value(want));
    } else {
        snprintf(number, sizeof number, "%s", json_is_true(want) ? "true" : "false");
    }
    return same_answer(answer, (span){number, strlen(number)});
}

static bool is_answer(json_t *value)
{
    return json_is_string(value) || json_is_number(value) || json_is_boolean(value);
}

/* The field is an answer, or a list of answers of which one is enough. */
static px_status find_want(const px_reward_spec *spec, json_t *record, json_t **want)
{
    *want = json_object_get(record, spec->field);
    if (*want == NULL) {
        return px_fail(PX_DATA, "the record has no field '%s', which the answer is compared with", spec->field);
    }
    size_t answers = 0, i;
    json_t *item;
    json_array_foreach(*want, i, item) {
        answers += is_answer(item);
    }
    return is_answer(*want) || answers > 0 ? PX_OK
                                           : px_fail(PX_DATA, "field '%s' of the record is no answer; valid is text, a number, "
                                                     "true, false or a list with one of them", spec->field);
}

static px_status parse_record(const char *record, json_t **parsed)
{
    const char *text = record != NULL ? record : "{}";
    return px_json_parse(text, strlen(text), "a prompt's record", 0, parsed);
}

px_status px_exact_check(const px_reward_spec *spec, const char *record)
{
    json_t *parsed, *want;
    PX_TRY(parse_record(record, &parsed));
    px_status status = find_want(spec, parsed, &want);
    json_decref(parsed);
    return status;
}

static px_status compare(const px_reward_spec *spec, json_t *record, span answer, double *score)
{
    json_t *want, *item;
    size_t i;
    PX_TRY(find_want(spec, record, &want));
    bool same = is_answer(want) && same_as_json(answer, want);
    json_array_foreach(want, i, item) {
        same = same || (is_answer(item) && same_as_json(answer, item));
    }
    *score = same ? 1.0 : 0.0;
    return PX_OK;
}

px_status px_exact_score(const px_reward_spec *spec, px_regex *pattern, const px_reward_sample *sample, double *score)
{
    span answer = {sample->completion, strlen(sample->completion)};
    px_match found = PX_MATCH_FOUND;
    if (pattern != NULL) {
        size_t begin = 0, length = 0;
        found = px_regex_find(pattern, sample->completion, true, &begin, &length);
        answer = (span){sample->completion + begin, length};
    } else {
        answer = after_mark(answer);
    }
    json_t *record;
    PX_TRY(parse_record(sample->record, &record));
    px_status status = compare(spec, record, answer, score);
    json_decref(record);
    if (status == PX_OK && found != PX_MATCH_FOUND) {
        *score = found == PX_MATCH_NONE ? 0.0 : NAN;
    }
    return status;
}
