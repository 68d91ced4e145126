#include "characters.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* No character of these ranges is changed by NFC or takes part in a composition. */
static bool is_composed(const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        int step;
        uint32_t c = px_char_at(text + i, &step);
        if (c >= 0x300 && !(c >= 0x4e00 && c <= 0x9fff) && !(c >= 0x2010 && c <= 0x2027) &&
            !(c >= 0x3001 && c <= 0x3029) && !(c >= 0xff01 && c <= 0xff60)) {
            return false;
        }
        i += (size_t)step;
    }
    return true;
}

static px_status normal_form(px_normal_kind kind, px_buf *text)
{
    if (kind == PX_NORMAL_NFC && is_composed(text->data, text->length)) {
        return PX_OK;
    }
    int options = UTF8PROC_STABLE;
    options |= kind == PX_NORMAL_NFC || kind == PX_NORMAL_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    options |= kind == PX_NORMAL_NFKC || kind == PX_NORMAL_NFKD ? UTF8PROC_COMPAT : 0;
    utf8proc_uint8_t *form = NULL;
    utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text->data, (utf8proc_ssize_t)text->length, &form,
                                           (utf8proc_option_t)options);
    if (length < 0) {
        free(form);
        return px_fail(PX_DATA, "a text cannot be normalised: %s", utf8proc_errmsg(length));
    }
    text->length = 0;
    px_status status = px_buf_add(text, form, (size_t)length);
    free(form);
    return status;
}

static px_status put(px_buf *out, uint32_t c)
{
    char bytes[4];
    return px_buf_add(out, bytes, (size_t)px_char_put(c, bytes));
}

/* One character under a step that looks at characters alone. */
static px_status character(px_normal_kind kind, uint32_t c, px_buf *out)
{
    uint32_t lower[2];
    switch (kind) {
    case PX_NORMAL_LOWERCASE: {
        int count = px_char_lower(c, lower);
        for (int i = 0; i < count; i++) {
            PX_TRY(put(out, lower[i]));
        }
        return PX_OK;
    }
    case PX_NORMAL_STRIP_ACCENTS: return px_char_is_mark(c) ? PX_OK : put(out, c);
    case PX_NORMAL_CLEAN:
        if (c == 0 || c == 0xfffd || px_char_is_control(c)) {
            return PX_OK;
        }
        return put(out, px_char_is_space(c) ? ' ' : c);
    default: /* PX_NORMAL_HAN */
        if (!px_char_is_han(c)) {
            return put(out, c);
        }
        PX_TRY(put(out, ' '));
        PX_TRY(put(out, c));
        return put(out, ' ');
    }
}

static px_status replace_all(const px_normal *step, const px_buf *text, px_buf *out)
{
    size_t done = 0, from = 0, start, end;
    while (from <= text->length) {
        bool found;
        PX_TRY(px_pattern_find(&step->pattern, text->data, text->length, from, &start, &end, &found));
        if (!found) {
            break;
        }
        PX_TRY(px_buf_add(out, text->data + done, start - done));
        PX_TRY(px_buf_text(out, step->content));
        done = end;
        int skip = 1;
        if (end == start && end < text->length) {
            px_char_at(text->data + end, &skip);
        }
        from = end > start ? end : end + (size_t)skip;
    }
    return px_buf_add(out, text->data + done, text->length - done);
}

static px_status strip(const px_normal *step, const px_buf *text, px_buf *out)
{
    size_t start = 0, end = text->length;
    int length;
    while (step->left && start < end && px_char_is_space(px_char_at(text->data + start, &length))) {
        start += (size_t)length;
    }
    while (step->right && end > start && px_char_is_space(px_char_before(text->data, end, &length))) {
        end -= (size_t)length;
    }
    return px_buf_add(out, text->data + start, end - start);
}

static px_status rewrite(const px_normal *step, const px_buf *text, px_buf *out)
{
    switch (step->kind) {
    case PX_NORMAL_PREPEND:
        PX_TRY(text->length > 0 ? px_buf_text(out, step->content) : PX_OK);
        return px_buf_add(out, text->data, text->length);
    case PX_NORMAL_REPLACE: return replace_all(step, text, out);
    case PX_NORMAL_STRIP: return strip(step, text, out);
    case PX_NORMAL_BYTE_LEVEL: return px_byte_chars(text->data, text->length, out);
    default: break;
    }
    for (size_t i = 0; i < text->length;) {
        int length;
        PX_TRY(character(step->kind, px_char_at(text->data + i, &length), out));
        i += (size_t)length;
    }
    return PX_OK;
}

px_status px_normalize(const px_normal *steps, int count, px_buf *text, px_buf *spare)
{
    PX_TRY(px_buf_reserve(text, text->length + 1));
    for (int s = 0; s < count; s++) {
        if (steps[s].kind <= PX_NORMAL_NFKD) {
            PX_TRY(normal_form(steps[s].kind, text));
            continue;
        }
        PX_TRY(px_buf_reserve(spare, text->length + 1));
        spare->length = 0;
        PX_TRY(rewrite(&steps[s], text, spare));
        px_buf swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return PX_OK;
}
