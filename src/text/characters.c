#include "characters.h"

#include <utf8proc.h>

uint32_t px_char_at(const char *text, int *length)
{
    const uint8_t *s = (const uint8_t *)text;
    if (s[0] < 0x80) {
        *length = 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *length = 2;
        return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    }
    if (s[0] < 0xf0) {
        *length = 3;
        return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    }
    *length = 4;
    return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

uint32_t px_char_before(const char *text, size_t end, int *length)
{
    size_t start = end - 1;
    while (start > 0 && ((uint8_t)text[start] & 0xc0) == 0x80) {
        start--;
    }
    return px_char_at(text + start, length);
}

int px_char_put(uint32_t c, char out[4])
{
    return (int)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

bool px_char_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool px_char_is_word(uint32_t c)
{
    if (c < 0x80) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    }
    utf8proc_category_t k = category(c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC ||
           (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d;
}

bool px_char_is_number(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool px_char_is_punctuation(uint32_t c)
{
    if (c < 0x80) {
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    }
    utf8proc_category_t k = category(c);
    bool was = c == 0x166d || c == 0x111c9; /* it is no longer */
    return was || (k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO && !px_char_has_late_category(c));
}

bool px_char_is_mark(uint32_t c)
{
    utf8proc_category_t k = category(c);
    bool was = c == 0x1cf2 || c == 0x1cf3;
    return was || (k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME && !px_char_has_late_form(c));
}

bool px_char_is_nonspacing(uint32_t c)
{
    return c == 0x1734 || (category(c) == UTF8PROC_CATEGORY_MN && !px_char_has_late_category(c));
}

bool px_char_is_control(uint32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r') {
        return false;
    }
    return category(c) >= UTF8PROC_CATEGORY_CC && !px_char_has_late_category(c);
}

bool px_char_is_han(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

int px_char_lower(uint32_t c, uint32_t out[2])
{
    if (c == 0x130) { /* the one character whose lower case is two */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    return 1;
}

/* Printable Latin-1 stands for itself; the other 68 bytes, in order, are U+0100 and following. */
static bool is_printable(uint32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
}

uint32_t px_byte_char(uint8_t byte)
{
    if (is_printable(byte)) {
        return byte;
    }
    if (byte <= 32) {
        return 256u + byte;
    }
    return byte == 173 ? 323u : 256u + 33u + (byte - 127u);
}

int px_char_byte(uint32_t c)
{
    if (c < 256) {
        return is_printable(c) ? (int)c : -1;
    }
    if (c <= 288) {
        return (int)c - 256;
    }
    if (c < 323) {
        return (int)c - 256 - 33 + 127;
    }
    return c == 323 ? 173 : -1;
}

px_status px_byte_chars(const char *bytes, size_t length, px_buf *out)
{
    PX_TRY(px_buf_reserve(out, out->length + 2 * length + 1));
    for (size_t i = 0; i < length; i++) {
        uint32_t c = px_byte_char((uint8_t)bytes[i]);
        if (c >= 0x80) {
            out->data[out->length++] = (char)(0xc0 | c >> 6);
            c = 0x80 | (c & 0x3f);
        }
        out->data[out->length++] = (char)c;
    }
    out->data[out->length] = '\0';
    return PX_OK;
}

/* Bytes of the well-formed character at s, or minus the bytes of the maximal ill-formed part (Unicode table 3-7). */
static int character_or_error(const uint8_t *s, size_t left)
{
    if (s[0] < 0x80) {
        return 1;
    }
    if (s[0] < 0xc2 || s[0] > 0xf4) {
        return -1;
    }
    int wanted = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint8_t low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    uint8_t high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (int i = 1; i < wanted; i++) {
        if ((size_t)i >= left || s[i] < low || s[i] > high) {
            return -i;
        }
        low = 0x80;
        high = 0xbf;
    }
    return wanted;
}

px_status px_utf8_repair(const char *bytes, size_t length, px_buf *out)
{
    size_t done = 0;
    while (done < length) {
        size_t good = 0;
        int step = 1;
        while (done + good < length) {
            step = character_or_error((const uint8_t *)bytes + done + good, length - done - good);
            if (step < 0) {
                break;
            }
            good += (size_t)step;
        }
        PX_TRY(px_buf_add(out, bytes + done, good));
        done += good;
        if (done < length) {
            PX_TRY(px_buf_add(out, "\xef\xbf\xbd", 3));
            done += (size_t)-step;
        }
    }
    return PX_OK;
}
