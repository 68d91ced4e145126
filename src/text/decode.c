#include "characters.h"
#include "tokenizer.h"

#include <string.h>

px_status px_parts_end(px_parts *parts)
{
    if (parts->count == parts->capacity) {
        size_t room = parts->capacity == 0 ? 256 : 2 * parts->capacity;
        size_t *more = px_realloc(parts->ends, room * sizeof *more, "strings of tokens");
        if (more == NULL) {
            return px_error_code();
        }
        parts->ends = more;
        parts->capacity = room;
    }
    parts->ends[parts->count++] = parts->text.length;
    return PX_OK;
}

void px_parts_free(px_parts *parts)
{
    px_buf_free(&parts->text);
    px_free(parts->ends);
    *parts = (px_parts){0};
}

/* Bytes of one token, or its text as it is when a character of it stands for no byte. */
static px_status bytes_of_token(const char *text, size_t length, px_buf *out)
{
    size_t before = out->length;
    for (size_t i = 0; i < length;) {
        int step;
        int byte = px_char_byte(px_char_at(text + i, &step));
        if (byte < 0) {
            out->length = before;
            return px_buf_add(out, text, length);
        }
        char one = (char)byte;
        PX_TRY(px_buf_add(out, &one, 1));
        i += (size_t)step;
    }
    return PX_OK;
}

static px_status byte_level(const px_parts *in, px_parts *out)
{
    px_buf bytes = {0};
    px_status status = px_buf_reserve(&bytes, in->text.length + 1);
    size_t start = 0;
    for (size_t i = 0; status == PX_OK && i < in->count; i++) {
        status = bytes_of_token(in->text.data + start, in->ends[i] - start, &bytes);
        start = in->ends[i];
    }
    if (status == PX_OK) {
        status = px_utf8_repair(bytes.data, bytes.length, &out->text);
    }
    px_buf_free(&bytes);
    return status == PX_OK ? px_parts_end(out) : status;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A run of byte tokens is one string when it is valid UTF-8, else one U+FFFD a byte. */
static px_status flush_bytes(px_buf *bytes, px_parts *out)
{
    if (bytes->length == 0) {
        return PX_OK;
    }
    if (px_utf8_valid(bytes->data, bytes->length) == bytes->length) {
        PX_TRY(px_buf_add(&out->text, bytes->data, bytes->length));
        PX_TRY(px_parts_end(out));
    } else {
        for (size_t i = 0; i < bytes->length; i++) {
            PX_TRY(px_buf_add(&out->text, "\xef\xbf\xbd", 3));
            PX_TRY(px_parts_end(out));
        }
    }
    px_buf_clear(bytes);
    return PX_OK;
}

static px_status collect_bytes(const px_parts *in, px_buf *bytes, px_parts *out)
{
    size_t start = 0;
    for (size_t i = 0; i < in->count; i++) {
        const char *t = in->text.data + start;
        size_t length = in->ends[i] - start;
        start = in->ends[i];
        if (length == 6 && memcmp(t, "<0x", 3) == 0 && t[5] == '>' && hex(t[3]) >= 0 && hex(t[4]) >= 0) {
            char byte = (char)(16 * hex(t[3]) + hex(t[4]));
            PX_TRY(px_buf_add(bytes, &byte, 1));
            continue;
        }
        PX_TRY(flush_bytes(bytes, out));
        PX_TRY(px_buf_add(&out->text, t, length));
        PX_TRY(px_parts_end(out));
    }
    return flush_bytes(bytes, out);
}

static px_status byte_fallback(const px_parts *in, px_parts *out)
{
    px_buf bytes = {0};
    px_status status = collect_bytes(in, &bytes, out);
    px_buf_free(&bytes);
    return status;
}

static px_status strip(const px_decode *step, const char *text, size_t length, px_buf *out)
{
    size_t width = strlen(step->content), start = 0, end = length;
    for (int i = 0; i < step->start && start + width <= end && memcmp(text + start, step->content, width) == 0; i++) {
        start += width;
    }
    for (int i = 0; i < step->stop && end >= width && memcmp(text + end - width, step->content, width) == 0; i++) {
        end -= width;
    }
    return end > start ? px_buf_add(out, text + start, end - start) : PX_OK;
}

static px_status suffix(const px_decode *step, const char *text, size_t length, bool last, px_buf *out)
{
    return px_pattern_replace(&step->pattern, " ", last ? 0 : 1, text, length, out);
}

/* Takes the spaces away that stand before punctuation and contractions, in BERT's order. */
static void clean_up(px_buf *text, size_t from)
{
    static const char *const pairs[][2] = {{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
        size_t width = strlen(pairs[k][0]), shorter = strlen(pairs[k][1]), kept = from;
        for (size_t i = from; i < text->length;) {
            bool hit = text->length - i >= width && memcmp(text->data + i, pairs[k][0], width) == 0;
            memmove(text->data + kept, hit ? pairs[k][1] : text->data + i, hit ? shorter : 1);
            kept += hit ? shorter : 1;
            i += hit ? width : 1;
        }
        text->length = kept;
    }
}

static px_status wordpiece(const px_decode *step, const char *text, size_t length, bool first, px_buf *out)
{
    size_t prefix = strlen(step->content), from = out->length;
    bool later = !first && length >= prefix && memcmp(text, step->content, prefix) == 0;
    PX_TRY(!first && !later ? px_buf_add(out, " ", 1) : PX_OK);
    PX_TRY(px_buf_add(out, text + (later ? prefix : 0), length - (later ? prefix : 0)));
    if (step->cleanup) {
        clean_up(out, from);
    }
    return PX_OK;
}

static px_status each_token(const px_decode *step, const px_parts *in, px_parts *out)
{
    size_t start = 0;
    for (size_t i = 0; i < in->count; i++) {
        const char *text = in->text.data + start;
        size_t length = in->ends[i] - start;
        start = in->ends[i];
        switch (step->kind) {
        case PX_DECODE_METASPACE:
            PX_TRY(px_pattern_replace(&step->pattern, " ", i == 0 && step->prepend != PX_PREPEND_NEVER ? 0 : 1, text,
                                      length, &out->text));
            break;
        case PX_DECODE_REPLACE:
            PX_TRY(px_pattern_replace(&step->pattern, step->content, strlen(step->content), text, length, &out->text));
            break;
        case PX_DECODE_STRIP: PX_TRY(strip(step, text, length, &out->text)); break;
        case PX_DECODE_WORDPIECE: PX_TRY(wordpiece(step, text, length, i == 0, &out->text)); break;
        default: PX_TRY(suffix(step, text, length, i + 1 == in->count, &out->text)); break;
        }
        PX_TRY(px_parts_end(out));
    }
    return PX_OK;
}

px_status px_decode_parts(const px_decode *steps, int count, px_parts *parts, px_parts *spare)
{
    for (int s = 0; s < count; s++) {
        if (steps[s].kind == PX_DECODE_FUSE) {
            parts->count = 0;
            PX_TRY(px_parts_end(parts));
            continue;
        }
        spare->count = 0;
        spare->text.length = 0;
        if (steps[s].kind == PX_DECODE_BYTE_LEVEL) {
            PX_TRY(byte_level(parts, spare));
        } else if (steps[s].kind == PX_DECODE_BYTE_FALLBACK) {
            PX_TRY(byte_fallback(parts, spare));
        } else {
            PX_TRY(each_token(&steps[s], parts, spare));
        }
        px_parts swap = *parts;
        *parts = *spare;
        *spare = swap;
    }
    return PX_OK;
}
