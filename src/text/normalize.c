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

static px_status append_form(px_normal_kind kind, const char *text, size_t length, px_buf *out)
{
    int options = UTF8PROC_STABLE;
    options |= kind == PX_NORMAL_NFC || kind == PX_NORMAL_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    options |= kind == PX_NORMAL_NFKC || kind == PX_NORMAL_NFKD ? UTF8PROC_COMPAT : 0;
    utf8proc_uint8_t *form = NULL;
    utf8proc_ssize_t done = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &form,
                                         (utf8proc_option_t)options);
    px_status status = done >= 0 ? px_buf_add(out, form, (size_t)done)
                                 : px_fail(PX_DATA, "a text cannot be normalised: %s", utf8proc_errmsg(done));
    free(form);
    return status;
}

/* A late character stays as it is, and nothing is reordered or composed across it. */
static px_status normal_form(px_normal_kind kind, const px_buf *text, px_buf *out)
{
    if (kind == PX_NORMAL_NFC && is_composed(text->data, text->length)) {
        return px_buf_add(out, text->data, text->length);
    }
    size_t done = 0;
    for (size_t i = 0; i < text->length;) {
        int step;
        bool late = px_char_has_late_form(px_char_at(text->data + i, &step));
        if (late) {
            PX_TRY(i > done ? append_form(kind, text->data + done, i - done, out) : PX_OK);
            PX_TRY(px_buf_add(out, text->data + i, (size_t)step));
        }
        i += (size_t)step;
        done = late ? i : done;
    }
    return text->length > done ? append_form(kind, text->data + done, text->length - done, out) : PX_OK;
}

static px_status put(px_buf *out, uint32_t c)
{
    char bytes[4];
    return px_buf_add(out, bytes, (size_t)px_char_put(c, bytes));
}

/* SentencePiece's "nmt": controls go, separators and zero-width characters become spaces. */
static px_status nmt(uint32_t c, px_buf *out)
{
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f) {
        return PX_OK;
    }
    bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
                 c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
    return put(out, space ? ' ' : c);
}

static px_status bert_clean(uint32_t c, px_buf *out)
{
    if (c == 0 || c == 0xfffd || px_char_is_control(c)) {
        return PX_OK;
    }
    return put(out, px_char_is_space(c) ? ' ' : c);
}

static px_status lowercase(uint32_t c, px_buf *out)
{
    uint32_t lower[2];
    int count = px_char_lower(c, lower);
    PX_TRY(put(out, lower[0]));
    return count > 1 ? put(out, lower[1]) : PX_OK;
}

/* One character under a step that looks at characters alone. */
static px_status character(px_normal_kind kind, uint32_t c, px_buf *out)
{
    switch (kind) {
    case PX_NORMAL_LOWERCASE: return lowercase(c, out);
    case PX_NORMAL_STRIP_ACCENTS: return px_char_is_mark(c) ? PX_OK : put(out, c);
    case PX_NORMAL_BERT_ACCENTS: return px_char_is_nonspacing(c) ? PX_OK : put(out, c);
    case PX_NORMAL_BERT_CLEAN: return bert_clean(c, out);
    case PX_NORMAL_NMT: return nmt(c, out);
    default: /* PX_NORMAL_BERT_HAN */
        PX_TRY(px_char_is_han(c) ? put(out, ' ') : PX_OK);
        PX_TRY(put(out, c));
        return px_char_is_han(c) ? put(out, ' ') : PX_OK;
    }
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
    case PX_NORMAL_REPLACE:
        return px_pattern_replace(&step->pattern, step->content, strlen(step->content), text->data, text->length, out);
    case PX_NORMAL_STRIP: return strip(step, text, out);
    case PX_NORMAL_BYTE_LEVEL: return px_byte_chars(text->data, text->length, out);
    case PX_NORMAL_NFC:
    case PX_NORMAL_NFD:
    case PX_NORMAL_NFKC:
    case PX_NORMAL_NFKD: return normal_form(step->kind, text, out);
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
        PX_TRY(px_buf_reserve(spare, text->length + 1));
        spare->length = 0;
        PX_TRY(rewrite(&steps[s], text, spare));
        px_buf swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return PX_OK;
}
