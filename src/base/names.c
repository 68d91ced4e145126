#include "phalanx/base.h"

#include <jansson.h>
#include <string.h>

size_t px_dtype_size(px_dtype dtype)
{
    static const size_t size[] = {[PX_F32] = 4, [PX_F64] = 8, [PX_F16] = 2, [PX_BF16] = 2,
                                  [PX_I32] = 4, [PX_I64] = 8, [PX_U8] = 1};
    return size[dtype];
}

int64_t px_array_count(const px_array *array)
{
    int64_t count = 1;
    for (int i = 0; i < array->dims; i++) {
        count *= array->shape[i];
    }
    return count;
}

enum { NAME_MAX_LENGTH = 96 };

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Optimal string alignment distance (Damerau 1964). */
int px_edit_distance(const char *a, const char *b)
{
    int la = (int)strnlen(a, NAME_MAX_LENGTH), lb = (int)strnlen(b, NAME_MAX_LENGTH);
    int rows[3][NAME_MAX_LENGTH + 1];
    for (int j = 0; j <= lb; j++) {
        rows[0][j] = j;
    }
    for (int i = 1; i <= la; i++) {
        int *now = rows[i % 3], *before = rows[(i - 1) % 3], *two = rows[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= lb; j++) {
            now[j] = min3(before[j] + 1, now[j - 1] + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && two[j - 2] + 1 < now[j]) {
                now[j] = two[j - 2] + 1;
            }
        }
    }
    return rows[la % 3][lb];
}

const char *px_nearest_name(const char *name, const char *const *names, int count)
{
    const char *best = NULL;
    int least = (int)strlen(name) / 3 + 2;
    for (int i = 0; i < count; i++) {
        int distance = px_edit_distance(name, names[i]);
        if (distance < least) {
            least = distance;
            best = names[i];
        }
    }
    return best;
}

/* Well-formed UTF-8 after table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing over 10FFFF. */
size_t px_utf8_valid(const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < length) {
        unsigned char c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xC2 && c <= 0xDF ? 1 : c >= 0xE0 && c <= 0xEF ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : 9;
        if (more == 9 || i + more >= length) {
            break;
        }
        if (more > 0) {
            unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
            unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
            if (s[i + 1] < low || s[i + 1] > high) {
                break;
            }
        }
        size_t k = 2;
        while (k <= more && s[i + k] >= 0x80 && s[i + k] <= 0xBF) {
            k++;
        }
        if (k <= more) {
            break;
        }
        i += more + 1;
    }
    return i;
}

px_status px_json_parse(const char *text, size_t length, const char *path, int64_t line, struct json_t **json)
{
    json_error_t error;
    *json = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (*json != NULL) {
        return PX_OK;
    }
    const char *what = error.text; /* two of them are jansson's business alone */
    if (json_error_code(&error) == json_error_null_character) {
        what = "\\u0000 in a string; valid are texts without NUL";
    } else if (strncmp(what, "invalid Unicode", 15) == 0) {
        what = "half of a pair of surrogates (\\ud800 to \\udfff) in a string; valid are whole characters";
    }
    return px_fail(PX_DATA, "%s:%lld:%d: not valid JSON: %s", path, (long long)(line + error.line), error.column, what);
}

px_status px_json_read(const char *path, struct json_t **json)
{
    px_buf text = {0};
    px_status status = px_file_read(path, PX_TEXT_MOST, &text);
    if (status == PX_OK) {
        status = px_json_parse(text.data != NULL ? text.data : "", text.length, path, 0, json);
    }
    px_buf_free(&text);
    return status;
}
