#include "steps_json.h"

#include "characters.h"

#include <string.h>

enum { DEPTH_LIMIT = 8 };

/* The members of a Sequence, under the key that this chain uses. */
static px_status members(const json_t *value, const char *of, const char *key, int depth, const json_t **list)
{
    *list = json_object_get(value, key);
    if (!json_is_array(*list) || depth >= DEPTH_LIMIT) {
        return px_fail(PX_DATA, "%s.%s must be an array, and Sequences nest at most %d deep", of, key, DEPTH_LIMIT);
    }
    return PX_OK;
}

static px_status room(int count, const char *of)
{
    return count < PX_STEPS_LIMIT ? PX_OK : px_fail(PX_DATA, "%s has more than %d steps", of, PX_STEPS_LIMIT);
}

static px_status copy_text(const json_t *value, const char *of, const char *key, char **out)
{
    const char *text;
    PX_TRY(px_field_text(value, of, key, true, &text, NULL));
    *out = px_strdup(text);
    return *out != NULL ? PX_OK : px_error_code();
}

/* {"String": S} or {"Regex": S} */
static px_status parse_pattern(const json_t *value, const char *of, px_pattern *pattern)
{
    const json_t *object = json_object_get(value, "pattern");
    const json_t *literal = json_object_get(object, "String"), *regex = json_object_get(object, "Regex");
    if (json_is_string(literal)) {
        return px_pattern_literal(pattern, json_string_value(literal), json_string_length(literal));
    }
    if (!json_is_string(regex)) {
        return px_fail(PX_DATA, "%s.pattern must be {\"String\": ...} or {\"Regex\": ...}", of);
    }
    px_status status = px_pattern_regex(pattern, json_string_value(regex));
    return status == PX_OK ? PX_OK : px_fail_within("%s", of);
}

/* ---- normalizer */
static const char *const normal_names[] = {
    "Sequence", "NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace", "Lowercase", "StripAccents", "Strip",
    "BertNormalizer", "ByteLevel", "Nmt",
};

static px_status add_normal(px_tokenizer *t, px_normal_kind kind, px_normal **step)
{
    PX_TRY(room(t->normal_count, "normalizer"));
    *step = &t->normals[t->normal_count++];
    (*step)->kind = kind;
    return PX_OK;
}

static px_status bert_normalizer(px_tokenizer *t, const json_t *value)
{
    bool clean, han, accents, lower;
    px_normal *step;
    PX_TRY(px_field_bool(value, "normalizer", "clean_text", true, &clean));
    PX_TRY(px_field_bool(value, "normalizer", "handle_chinese_chars", true, &han));
    PX_TRY(px_field_bool(value, "normalizer", "lowercase", true, &lower));
    PX_TRY(px_field_bool(value, "normalizer", "strip_accents", lower, &accents));
    PX_TRY(clean ? add_normal(t, PX_NORMAL_BERT_CLEAN, &step) : PX_OK);
    PX_TRY(han ? add_normal(t, PX_NORMAL_BERT_HAN, &step) : PX_OK);
    PX_TRY(accents ? add_normal(t, PX_NORMAL_NFD, &step) : PX_OK);
    PX_TRY(accents ? add_normal(t, PX_NORMAL_BERT_ACCENTS, &step) : PX_OK);
    return lower ? add_normal(t, PX_NORMAL_LOWERCASE, &step) : PX_OK;
}

static px_status parse_normal(px_tokenizer *t, const json_t *value, int depth)
{
    static const px_normal_kind kinds[] = {0, PX_NORMAL_NFC, PX_NORMAL_NFD, PX_NORMAL_NFKC, PX_NORMAL_NFKD,
        PX_NORMAL_PREPEND, PX_NORMAL_REPLACE, PX_NORMAL_LOWERCASE, PX_NORMAL_STRIP_ACCENTS, PX_NORMAL_STRIP, 0,
        PX_NORMAL_BYTE_LEVEL, PX_NORMAL_NMT};
    int which = 0;
    PX_TRY(px_field_type(value, "normalizer", normal_names, sizeof normal_names / sizeof *normal_names, &which));
    if (which == 0) {
        const json_t *list;
        PX_TRY(members(value, "normalizer", "normalizers", depth, &list));
        for (size_t i = 0; i < json_array_size(list); i++) {
            PX_TRY(parse_normal(t, json_array_get(list, i), depth + 1));
        }
        return PX_OK;
    }
    if (which == 10) {
        return bert_normalizer(t, value);
    }
    px_normal *step;
    PX_TRY(add_normal(t, kinds[which], &step));
    if (step->kind == PX_NORMAL_PREPEND) {
        return copy_text(value, "normalizer", "prepend", &step->content);
    }
    if (step->kind == PX_NORMAL_REPLACE) {
        PX_TRY(copy_text(value, "normalizer", "content", &step->content));
        return parse_pattern(value, "normalizer", &step->pattern);
    }
    PX_TRY(px_field_bool(value, "normalizer", "strip_left", true, &step->left));
    return px_field_bool(value, "normalizer", "strip_right", true, &step->right);
}

px_status px_normals_parse(px_tokenizer *t, const json_t *value)
{
    return value == NULL || json_is_null(value) ? PX_OK : parse_normal(t, value, 0);
}

/* ---- pre_tokenizer */
static const char *const split_names[] = {
    "Sequence", "ByteLevel", "Split", "Digits", "Whitespace", "WhitespaceSplit", "Punctuation", "Metaspace",
    "BertPreTokenizer", "CharDelimiterSplit", "FixedLength",
};
enum { SEQUENCE, BYTE_LEVEL, SPLIT, DIGITS, WHITESPACE, WHITESPACE_SPLIT, PUNCTUATION, METASPACE, BERT, DELIMITER,
       FIXED_LENGTH };

static px_status parse_behavior(const json_t *value, px_behavior fallback, px_behavior *out)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name;
    *out = fallback;
    PX_TRY(px_field_text(value, "pre_tokenizer", "behavior", false, &name, NULL));
    for (int i = 0; name != NULL && i < 5; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (px_behavior)i;
            return PX_OK;
        }
    }
    return name == NULL ? PX_OK
                        : px_fail(PX_DATA, "pre_tokenizer.behavior \"%.80s\" is not supported; supported are Isolated, "
                                  "Removed, MergedWithPrevious, MergedWithNext, Contiguous", name);
}

static px_status parse_metaspace_scheme(const json_t *value, const char *of, px_prepend *out)
{
    const char *scheme;
    bool prefix;
    PX_TRY(px_field_text(value, of, "prepend_scheme", false, &scheme, NULL));
    PX_TRY(px_field_bool(value, of, "add_prefix_space", true, &prefix));
    *out = prefix ? PX_PREPEND_ALWAYS : PX_PREPEND_NEVER;
    static const char *const names[] = {"always", "first", "never"};
    for (int i = 0; scheme != NULL && i < 3; i++) {
        if (strcmp(scheme, names[i]) == 0) {
            *out = (px_prepend)i;
            return PX_OK;
        }
    }
    return scheme == NULL ? PX_OK : px_fail(PX_DATA, "%s.prepend_scheme \"%.80s\" must be always, first or never", of,
                                            scheme);
}

static px_status parse_metaspace_mark(const json_t *value, const char *of, px_pattern *pattern)
{
    const char *mark;
    size_t length;
    PX_TRY(px_field_text(value, of, "replacement", true, &mark, &length));
    int step = 0;
    if (length == 0 || (px_char_at(mark, &step), (size_t)step != length)) {
        return px_fail(PX_DATA, "%s.replacement must be one character", of);
    }
    return px_pattern_literal(pattern, mark, length);
}

static px_status parse_delimiter(const json_t *value, px_split *step)
{
    const char *text;
    size_t length;
    step->behavior = PX_REMOVED;
    PX_TRY(px_field_text(value, "pre_tokenizer", "delimiter", true, &text, &length));
    return px_pattern_literal(&step->pattern, text, length);
}

static px_status parse_length(const json_t *value, px_split *step)
{
    int64_t characters;
    step->kind = PX_SPLIT_LENGTH;
    PX_TRY(px_field_int(value, "pre_tokenizer", "length", 5, 1, INT32_MAX, &characters));
    step->characters = (int)characters;
    return PX_OK;
}

static px_status fill_split(const json_t *value, int which, px_split *step)
{
    bool individual;
    switch (which) {
    case BYTE_LEVEL:
        step->kind = PX_SPLIT_BYTE_LEVEL;
        PX_TRY(px_field_bool(value, "pre_tokenizer", "add_prefix_space", true, &step->prefix_space));
        PX_TRY(px_field_bool(value, "pre_tokenizer", "use_regex", true, &step->use_pattern));
        return step->use_pattern ? px_pattern_regex(&step->pattern, px_gpt2_pattern) : PX_OK;
    case SPLIT:
        PX_TRY(px_field_bool(value, "pre_tokenizer", "invert", false, &step->invert));
        PX_TRY(parse_behavior(value, PX_ISOLATED, &step->behavior));
        return parse_pattern(value, "pre_tokenizer", &step->pattern);
    case DIGITS:
        step->kind = PX_SPLIT_CLASS;
        step->is_match = px_char_is_number;
        PX_TRY(px_field_bool(value, "pre_tokenizer", "individual_digits", false, &individual));
        step->behavior = individual ? PX_ISOLATED : PX_CONTIGUOUS;
        return PX_OK;
    case WHITESPACE: step->kind = PX_SPLIT_WORDS; return PX_OK;
    case WHITESPACE_SPLIT:
        step->kind = PX_SPLIT_CLASS;
        step->is_match = px_char_is_space;
        step->behavior = PX_REMOVED;
        return PX_OK;
    case PUNCTUATION:
        step->kind = PX_SPLIT_CLASS;
        step->is_match = px_char_is_punctuation;
        return parse_behavior(value, PX_ISOLATED, &step->behavior);
    case METASPACE:
        step->kind = PX_SPLIT_METASPACE;
        PX_TRY(parse_metaspace_scheme(value, "pre_tokenizer", &step->prepend));
        PX_TRY(px_field_bool(value, "pre_tokenizer", "split", true, &step->use_pattern));
        return parse_metaspace_mark(value, "pre_tokenizer", &step->pattern);
    case FIXED_LENGTH: return parse_length(value, step);
    default: return parse_delimiter(value, step);
    }
}

static px_status parse_split(px_tokenizer *t, const json_t *value, int depth)
{
    int which = 0;
    PX_TRY(px_field_type(value, "pre_tokenizer", split_names, sizeof split_names / sizeof *split_names, &which));
    if (which == SEQUENCE) {
        const json_t *list;
        PX_TRY(members(value, "pre_tokenizer", "pretokenizers", depth, &list));
        for (size_t i = 0; i < json_array_size(list); i++) {
            PX_TRY(parse_split(t, json_array_get(list, i), depth + 1));
        }
        return PX_OK;
    }
    PX_TRY(room(t->split_count, "pre_tokenizer"));
    if (which == BERT) { /* spaces go, punctuation stands alone */
        PX_TRY(fill_split(NULL, WHITESPACE_SPLIT, &t->splits[t->split_count++]));
        PX_TRY(room(t->split_count, "pre_tokenizer"));
        return fill_split(NULL, PUNCTUATION, &t->splits[t->split_count++]);
    }
    return fill_split(value, which, &t->splits[t->split_count++]);
}

px_status px_splits_parse(px_tokenizer *t, const json_t *value)
{
    return value == NULL || json_is_null(value) ? PX_OK : parse_split(t, value, 0);
}

/* ---- decoder */
static const char *const decode_names[] = {
    "Sequence", "ByteLevel", "Metaspace", "Replace", "ByteFallback", "Fuse", "Strip", "BPEDecoder",
    "WordPiece",
};

static px_status fill_strip(const json_t *value, px_decode *step)
{
    int64_t start, stop;
    PX_TRY(copy_text(value, "decoder", "content", &step->content));
    if (*step->content == '\0') {
        return px_fail(PX_DATA, "decoder.content must be one character");
    }
    PX_TRY(px_field_int(value, "decoder", "start", 0, 0, INT32_MAX, &start));
    PX_TRY(px_field_int(value, "decoder", "stop", 0, 0, INT32_MAX, &stop));
    step->start = (int)start;
    step->stop = (int)stop;
    return PX_OK;
}

static px_status parse_decode(px_tokenizer *t, const json_t *value, int depth)
{
    static const px_decode_kind kinds[] = {0, PX_DECODE_BYTE_LEVEL, PX_DECODE_METASPACE, PX_DECODE_REPLACE,
        PX_DECODE_BYTE_FALLBACK, PX_DECODE_FUSE, PX_DECODE_STRIP, PX_DECODE_SUFFIX,
        PX_DECODE_WORDPIECE};
    int which = 0;
    PX_TRY(px_field_type(value, "decoder", decode_names, sizeof decode_names / sizeof *decode_names, &which));
    if (which == 0) {
        const json_t *list;
        PX_TRY(members(value, "decoder", "decoders", depth, &list));
        for (size_t i = 0; i < json_array_size(list); i++) {
            PX_TRY(parse_decode(t, json_array_get(list, i), depth + 1));
        }
        return PX_OK;
    }
    PX_TRY(room(t->decode_count, "decoder"));
    px_decode *step = &t->decodes[t->decode_count++];
    step->kind = kinds[which];
    const char *text;
    size_t length;
    switch (step->kind) {
    case PX_DECODE_METASPACE:
        PX_TRY(parse_metaspace_scheme(value, "decoder", &step->prepend));
        return parse_metaspace_mark(value, "decoder", &step->pattern);
    case PX_DECODE_REPLACE:
        PX_TRY(copy_text(value, "decoder", "content", &step->content));
        return parse_pattern(value, "decoder", &step->pattern);
    case PX_DECODE_STRIP: return fill_strip(value, step);
    case PX_DECODE_SUFFIX:
        PX_TRY(px_field_text(value, "decoder", "suffix", true, &text, &length));
        return px_pattern_literal(&step->pattern, text, length);
    case PX_DECODE_WORDPIECE:
        PX_TRY(px_field_bool(value, "decoder", "cleanup", true, &step->cleanup));
        return copy_text(value, "decoder", "prefix", &step->content);
    default: return PX_OK;
    }
}

px_status px_decodes_parse(px_tokenizer *t, const json_t *value)
{
    return value == NULL || json_is_null(value) ? PX_OK : parse_decode(t, value, 0);
}
