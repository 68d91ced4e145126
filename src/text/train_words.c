#include "train.h"

#include "bytes.h"
#include "tokenizer.h"

#include <jansson.h>
#include <string.h>

void px_words_free(px_words *words)
{
    px_buf_free(&words->text);
    px_free(words->offset);
    px_free(words->length);
    px_free(words->times);
    px_free(words->slots);
    *words = (px_words){0};
}

static uint32_t find_slot(const px_words *w, const char *text, size_t length)
{
    uint32_t slot = (uint32_t)px_hash(text, length, 0) & w->mask;
    while (w->slots[slot] != 0) {
        int32_t i = w->slots[slot] - 1;
        if ((size_t)w->length[i] == length && memcmp(w->text.data + w->offset[i], text, length) == 0) {
            break;
        }
        slot = (slot + 1) & w->mask;
    }
    return slot;
}

static px_status grow(px_words *w)
{
    int32_t room = w->room == 0 ? 1 << 14 : 2 * w->room;
    if (room > 1 << 29) {
        return px_fail(PX_DATA, "the text has more than %d distinct words", w->count);
    }
    size_t *offset = px_realloc(w->offset, (size_t)room * sizeof *offset, "words");
    w->offset = offset != NULL ? offset : w->offset;
    int32_t *length = px_realloc(w->length, (size_t)room * sizeof *length, "words");
    w->length = length != NULL ? length : w->length;
    int64_t *times = px_realloc(w->times, (size_t)room * sizeof *times, "words");
    w->times = times != NULL ? times : w->times;
    int32_t *slots = px_alloc_array(2 * (size_t)room, sizeof *slots, "words");
    if (offset == NULL || length == NULL || times == NULL || slots == NULL) {
        px_free(slots);
        return px_error_code();
    }
    px_free(w->slots);
    w->slots = slots;
    w->mask = 2 * (uint32_t)room - 1;
    w->room = room;
    for (int32_t i = 0; i < w->count; i++) {
        w->slots[find_slot(w, w->text.data + w->offset[i], (size_t)w->length[i])] = i + 1;
    }
    return PX_OK;
}

static px_status add_word(px_words *w, const char *text, size_t length)
{
    if (w->count == w->room) {
        PX_TRY(grow(w));
    }
    uint32_t slot = find_slot(w, text, length);
    if (w->slots[slot] != 0) {
        w->times[w->slots[slot] - 1]++;
        return PX_OK;
    }
    if (length > INT32_MAX / 4) {
        return px_fail(PX_DATA, "a word of %zu bytes is too long to train on", length);
    }
    w->offset[w->count] = w->text.length;
    w->length[w->count] = (int32_t)length;
    w->times[w->count] = 1;
    w->slots[slot] = ++w->count;
    return px_buf_add(&w->text, text, length);
}

/* ---- one file */
typedef struct reader {
    px_words *words;
    const char *path;
    px_pattern pattern;
    int64_t line;
    px_buf rest; /* the line at hand, where it crosses a piece of the file */
} reader;

static px_status add_sequence(reader *r, const char *text, size_t length)
{
    size_t valid = px_utf8_valid(text, length);
    if (valid != length) {
        return px_fail(PX_DATA, "%s:%lld: byte %zu of the line is not UTF-8; texts must be UTF-8", r->path,
                       (long long)r->line, valid);
    }
    px_matches m = {.pattern = &r->pattern, .text = text, .length = length};
    for (;;) {
        bool found; /* the pattern covers every text: there are no gaps */
        PX_TRY(px_matches_next(&m, &found));
        if (!found) {
            return PX_OK;
        }
        PX_TRY(add_word(r->words, text + m.start, m.end - m.start));
    }
}

/* The value of a field that is text: a string, or messages with content. */
static px_status add_value(reader *r, const json_t *value, int64_t *found)
{
    if (json_is_string(value)) {
        ++*found;
        return add_sequence(r, json_string_value(value), json_string_length(value));
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *message = json_array_get(value, i), *content = json_object_get(message, "content");
        content = content != NULL ? content : json_object_get(message, "value"); /* ShareGPT */
        if (json_is_string(content)) {
            ++*found;
            PX_TRY(add_sequence(r, json_string_value(content), json_string_length(content)));
        }
    }
    return PX_OK;
}

static px_status add_record(reader *r, const json_t *record)
{
    static const char *const keys[] = {"text", "messages", "conversations", "prompt", "completion", "chosen",
                                       "rejected"};
    int64_t found = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        PX_TRY(add_value(r, json_object_get(record, keys[i]), &found));
    }
    return found > 0 ? PX_OK : px_fail(PX_DATA, "%s:%lld: no text to train on; a record has text, prompt and "
                                       "completion, messages, or chosen and rejected", r->path, (long long)r->line);
}

static px_status on_record(void *arg, int64_t number, int64_t line, const char *json, size_t length)
{
    (void)number;
    reader *r = arg;
    json_t *record;
    r->line = line;
    PX_TRY(px_json_parse(json, length, r->path, line - 1, &record));
    px_status status = add_record(r, record);
    json_decref(record);
    return status;
}

static px_status add_line(reader *r, const char *line, size_t length)
{
    r->line++;
    return add_sequence(r, line, length);
}

static px_status add_piece(reader *r, const char *data, size_t length)
{
    const char *end = data + length;
    while (data < end) {
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        const char *stop = newline != NULL ? newline + 1 : end;
        PX_TRY(px_buf_add(&r->rest, data, (size_t)(stop - data)));
        data = stop;
        if (newline != NULL) {
            PX_TRY(add_line(r, r->rest.data, r->rest.length));
            px_buf_clear(&r->rest);
        }
    }
    return PX_OK;
}

static px_status add_file(reader *r, px_bytes *bytes)
{
    const char *data;
    size_t length;
    do {
        PX_TRY(px_bytes_next(bytes, &data, &length));
        PX_TRY(add_piece(r, data, length));
    } while (length > 0);
    return r->rest.length > 0 ? add_line(r, r->rest.data, r->rest.length) : PX_OK;
}

px_status px_words_count(px_words *words, const char *path)
{
    reader r = {.words = words, .path = path};
    px_bytes *bytes = NULL;
    px_status status = px_pattern_regex(&r.pattern, px_gpt2_pattern);
    if (status == PX_OK && px_records_named(path)) {
        status = px_records_each(path, on_record, &r);
    } else if (status == PX_OK && (status = px_bytes_open(&bytes, path)) == PX_OK) {
        status = add_file(&r, bytes);
        px_bytes_close(bytes);
    }
    px_pattern_free(&r.pattern);
    px_buf_free(&r.rest);
    return status;
}
