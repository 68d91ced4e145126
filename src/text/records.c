/* Records of a data file as JSON objects, one after another: lines, elements of an array, objects over several lines,
 * paragraphs of .txt. Nothing but the current record is held. */
#include "bytes.h"
#include "json_text.h"
#include "phalanx/text.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define PX_RECORD_LIMIT ((size_t)64 << 20) /* bytes of one line, element or paragraph */

typedef enum px_layout { PX_LINES, PX_ARRAY, PX_OBJECTS, PX_PARAGRAPHS } px_layout;

typedef struct px_reader {
    const char *path;
    px_record_fn fn;
    void *arg;
    px_layout layout;
    px_buf record; /* bytes of the current line, element or paragraph */
    px_buf json;   /* a paragraph as a JSON object */
    int64_t count, line, record_line; /* records so far; the current line and where the record began, from 1 */
    /* array and objects */
    bool in_string, escaped, began, ended, comma; /* inside a string; '[' seen; ']' seen; a ',' is due */
    bool wrapped;                                 /* the array is a field of an object, whose rest says nothing */
    int depth;                                    /* open brackets inside the element */
} px_reader;

/* ---- what the name says ------------------------------------------------------------------------------------------ */

static bool ends_with(const char *path, size_t length, const char *suffix)
{
    size_t n = strlen(suffix);
    return length > n && !strncasecmp(path + length - n, suffix, n);
}

/* The length of a path without the ending of what it is compressed with. */
static size_t bare_length(const char *path)
{
    size_t length = strlen(path);
    return length - (ends_with(path, length, ".gz") ? 3 : ends_with(path, length, ".zst") ? 4 : 0);
}

bool px_records_named(const char *path)
{
    size_t length = bare_length(path);
    return ends_with(path, length, ".jsonl") || ends_with(path, length, ".ndjson") || ends_with(path, length, ".json");
}

static px_status refuse_table(const char *path, const char *reader)
{
    return px_fail(PX_DATA, "%s: this format is not read here; make JSON lines of it once: python3 -c \"import pandas "
                            "as pd; pd.%s('%s').to_json('data.jsonl', orient='records', lines=True)\"",
                   path, reader, path);
}

/* A table under another name, told by its first bytes: Parquet's magic and the first field of a page or the footer. */
static px_status check_table(const char *path, const char *data, size_t length)
{
    if (length >= 5 && !memcmp(data, "PAR1\x15", 5)) return refuse_table(path, "read_parquet");
    if (length >= 6 && !memcmp(data, "ARROW1", 6)) return refuse_table(path, "read_feather");
    return PX_OK;
}

static px_status layout_of(const char *path, px_layout *layout)
{
    size_t length = bare_length(path);
    if (ends_with(path, length, ".jsonl") || ends_with(path, length, ".ndjson")) *layout = PX_LINES;
    else if (ends_with(path, length, ".json")) *layout = PX_ARRAY;
    else if (ends_with(path, length, ".txt") || ends_with(path, length, ".text")) *layout = PX_PARAGRAPHS;
    else if (ends_with(path, length, ".parquet")) return refuse_table(path, "read_parquet");
    else if (ends_with(path, length, ".arrow") || ends_with(path, length, ".feather"))
        return refuse_table(path, "read_feather");
    else if (ends_with(path, length, ".csv")) return refuse_table(path, "read_csv");
    else if (ends_with(path, length, ".tsv")) return refuse_table(path, "read_table");
    else
        return px_fail(PX_DATA, "%s: the name does not say what is in it; valid are .jsonl and .json (an object a line, "
                                "or an array of objects) and .txt (a text per blank-line-separated paragraph), each also "
                                "with .gz or .zst", path);
    return PX_OK;
}

/* ---- one record -------------------------------------------------------------------------------------------------- */

static px_status check_bytes(const px_reader *reader)
{
    const char *text = reader->record.data;
    size_t length = reader->record.length, good = px_utf8_valid(text, length);
    const char *nul = memchr(text, 0, length);
    size_t bad = nul && (size_t)(nul - text) < good ? (size_t)(nul - text) : good;
    if (bad == length) return PX_OK;
    int64_t line = reader->record_line;
    for (size_t i = 0; i < bad; i++) line += text[i] == '\n';
    if (nul && bad == (size_t)(nul - text))
        return px_fail(PX_DATA, "%s:%lld: byte %zu of the record is NUL; valid is UTF-8 text", reader->path,
                       (long long)line, bad + 1);
    return px_fail(PX_DATA, "%s:%lld: byte %zu of the record (0x%02x) is not UTF-8; convert the file (iconv -t UTF-8)",
                   reader->path, (long long)line, bad + 1, (unsigned char)text[bad]);
}

/* {"text": ...} of a paragraph. */
static px_status quote_text(px_buf *json, const char *text, size_t length)
{
    px_buf_clear(json);
    PX_TRY(px_buf_text(json, "{\"text\": "));
    PX_TRY(px_json_quote(json, text, length));
    return px_buf_text(json, "}");
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Hands the collected bytes to the caller, unless there is nothing but white space. */
static px_status emit(px_reader *reader)
{
    if (reader->record.length == 0) return PX_OK;
    PX_TRY(check_bytes(reader));
    const char *text = reader->record.data;
    size_t length = reader->record.length;
    while (length > 0 && is_blank(text[length - 1])) length--;
    while (length > 0 && reader->layout != PX_PARAGRAPHS && is_blank(*text)) text++, length--;
    if (length == 0) {
        px_buf_clear(&reader->record);
        return PX_OK;
    }
    if (reader->layout == PX_PARAGRAPHS) {
        PX_TRY(quote_text(&reader->json, text, length));
        text = reader->json.data;
        length = reader->json.length;
    } else {
        reader->record.data[(size_t)(text - reader->record.data) + length] = '\0';
    }
    px_status status = reader->fn(reader->arg, reader->count++, reader->record_line, text, length);
    px_buf_clear(&reader->record);
    return status;
}

static px_status collect(px_reader *reader, const char *bytes, size_t length)
{
    if (reader->record.length + length > PX_RECORD_LIMIT)
        return px_fail(PX_DATA, "%s:%lld: one %s of more than 64 MiB; valid is one record a %s", reader->path,
                       (long long)reader->record_line, reader->layout == PX_PARAGRAPHS ? "paragraph" : "record",
                       reader->layout == PX_PARAGRAPHS ? "paragraph, with a blank line between two" : "line");
    return px_buf_add(&reader->record, bytes, length);
}

/* ---- the layouts ------------------------------------------------------------------------------------------- */

static px_status feed_lines(px_reader *reader, const char *data, size_t length)
{
    while (length > 0) {
        const char *end = memchr(data, '\n', length);
        size_t part = end ? (size_t)(end - data) : length;
        reader->record_line = reader->line;
        PX_TRY(collect(reader, data, part));
        if (!end) return PX_OK;
        PX_TRY(emit(reader));
        reader->line++;
        data += part + 1;
        length -= part + 1;
    }
    return PX_OK;
}

/* A line of white space alone ends a paragraph; line ends of DOS become plain ones. */
static px_status feed_paragraphs(px_reader *reader, const char *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (data[i] == '\r') continue;
        if (reader->record.length == 0) reader->record_line = reader->line;
        PX_TRY(collect(reader, &data[i], 1));
        if (data[i] != '\n') continue;
        reader->line++;
        size_t start = reader->record.length - 1;
        while (start > 0 && (reader->record.data[start - 1] == ' ' || reader->record.data[start - 1] == '\t')) start--;
        if (start == 0 || reader->record.data[start - 1] == '\n') PX_TRY(emit(reader));
    }
    return PX_OK;
}

static px_status stray(const px_reader *reader, char c)
{
    if (reader->layout == PX_OBJECTS)
        return px_fail(PX_DATA, "%s:%lld: '%c' where an object is due; valid are objects, one after another", reader->path,
                       (long long)reader->line, c >= ' ' && c < 127 ? c : '?');
    return px_fail(PX_DATA, "%s:%lld: '%c' where %s is due; valid is an array of objects: [{...}, {...}]", reader->path,
                   (long long)reader->line, c >= ' ' && c < 127 ? c : '?',
                   reader->ended ? "the end of the file" : reader->comma ? "',' or ']'" : "an object");
}

/* Between the elements of the array, or between objects. */
static px_status between(px_reader *reader, char c)
{
    if (is_blank(c) || (reader->ended && reader->wrapped)) return PX_OK;
    if (reader->ended) return stray(reader, c);
    if (reader->layout == PX_OBJECTS) {
        reader->began = true;
        reader->comma = false;
    }
    if (!reader->began) {
        reader->began = c == '[';
        return reader->began ? PX_OK : stray(reader, c);
    }
    if (c == ']' && reader->layout == PX_ARRAY && (reader->comma || reader->count == 0)) {
        reader->ended = true;
    } else if (c == ',' && reader->comma) {
        reader->comma = false;
    } else if (c == '{' && !reader->comma) {
        reader->depth = 1;
        reader->record_line = reader->line;
        return collect(reader, &c, 1);
    } else {
        return stray(reader, c);
    }
    return PX_OK;
}

static px_status feed_elements(px_reader *reader, const char *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        char c = data[i];
        if (c == '\n') reader->line++;
        if (reader->depth == 0) {
            PX_TRY(between(reader, c));
            continue;
        }
        PX_TRY(collect(reader, &c, 1));
        if (reader->in_string) {
            if (reader->escaped) reader->escaped = false;
            else if (c == '\\') reader->escaped = true;
            else if (c == '"') reader->in_string = false;
        } else if (c == '"') {
            reader->in_string = true;
        } else if (c == '{' || c == '[') {
            reader->depth++;
        } else if ((c == '}' || c == ']') && --reader->depth == 0) {
            PX_TRY(emit(reader));
            reader->comma = true;
        }
    }
    return PX_OK;
}

static px_status feed(px_reader *reader, const char *data, size_t length)
{
    switch (reader->layout) {
    case PX_LINES: return feed_lines(reader, data, length);
    case PX_ARRAY:
    case PX_OBJECTS: return feed_elements(reader, data, length);
    case PX_PARAGRAPHS: return feed_paragraphs(reader, data, length);
    }
    return PX_OK;
}

/* Behind the blanks that begin at i. */
static size_t skip_blanks(const char *data, size_t length, size_t i)
{
    while (i < length && is_blank(data[i])) i++;
    return i;
}

/* Is an object that begins at i still open, outside its strings, where its line ends? */
static bool goes_on(const char *data, size_t length, size_t i)
{
    bool in_string = false;
    int depth = 0;
    for (; i < length && data[i] != '\n'; i++) {
        if (data[i] == '\\' && in_string) i++;
        else if (data[i] == '"') in_string = !in_string;
        else if (!in_string && (data[i] == '{' || data[i] == '[')) depth++;
        else if (!in_string && (data[i] == '}' || data[i] == ']')) depth--;
    }
    return i < length && depth > 0 && !in_string;
}

/* Where the array of {..., "data": [ begins, in the first piece of the file and outside other values; length: nowhere. An
 * object that others follow is a record, with a field of that name. long_one: the object may be longer than the piece. */
static size_t find_wrapped(const char *data, size_t length, size_t i, bool long_one)
{
    bool in_string = false;
    int depth = 0;
    size_t array = length;
    for (; i < length; i++) {
        if (in_string) {
            if (data[i] == '\\') i++;
            else in_string = data[i] != '"';
            continue;
        }
        if (array == length && data[i] == '"' && depth == 1 && length - i > 6 && !memcmp(data + i, "\"data\"", 6)) {
            size_t colon = skip_blanks(data, length, i + 6), value = skip_blanks(data, length, colon + 1);
            size_t first = skip_blanks(data, length, value + 1);
            if (colon < length && data[colon] == ':' && value < length && data[value] == '[' && first < length &&
                data[first] == '{')
                array = value;
        }
        in_string = data[i] == '"';
        if (data[i] == '{' || data[i] == '[') depth++;
        if ((data[i] == '}' || data[i] == ']') && --depth == 0) return skip_blanks(data, length, i + 1) == length ? array : length;
    }
    return long_one ? array : length;
}

/* What is in a file of JSON, whatever its name says: an array of objects, one in {"data": [...]}, objects over several
 * lines each, or an object a line. */
static void look_at_start(px_reader *reader, const char **data, size_t *length)
{
    if (*length >= 3 && !memcmp(*data, "\xef\xbb\xbf", 3)) *data += 3, *length -= 3;
    size_t i = skip_blanks(*data, *length, 0);
    if (reader->layout == PX_PARAGRAPHS || i == *length) return;
    if ((*data)[i] == '[') {
        size_t first = skip_blanks(*data, *length, i + 1);
        if (first < *length && (*data)[first] == '{') reader->layout = PX_ARRAY;
        return;
    }
    size_t array = (*data)[i] == '{' ? find_wrapped(*data, *length, i, reader->layout == PX_ARRAY) : *length;
    if (array < *length) {
        for (size_t k = 0; k < array; k++) reader->line += (*data)[k] == '\n';
        *data += array;
        *length -= array;
        reader->layout = PX_ARRAY;
        reader->wrapped = true;
    } else if ((*data)[i] == '{') {
        reader->layout = goes_on(*data, *length, i) ? PX_OBJECTS : PX_LINES;
    }
}

static px_status read_all(px_reader *reader, px_bytes *bytes)
{
    const char *data;
    size_t length;
    for (bool first = true;; first = false) {
        PX_TRY(px_bytes_next(bytes, &data, &length));
        if (length == 0) break;
        if (first) {
            PX_TRY(check_table(reader->path, data, length));
            look_at_start(reader, &data, &length);
        }
        PX_TRY(feed(reader, data, length));
    }
    if (reader->layout == PX_OBJECTS) {
        if (reader->depth > 0)
            return px_fail(PX_DATA, "%s:%lld: the object that begins here is not closed", reader->path,
                           (long long)reader->record_line);
    } else if (reader->layout == PX_ARRAY) {
        if (reader->depth > 0 || (reader->began && !reader->ended))
            return px_fail(PX_DATA, "%s:%lld: the array is not closed; the file was cut short", reader->path,
                           (long long)reader->line);
    } else if (reader->record.length > 0) {
        PX_TRY(emit(reader));
    }
    if (reader->count == 0)
        return px_fail(PX_DATA, "%s: no records: the file is empty; valid is %s", reader->path,
                       reader->layout == PX_PARAGRAPHS ? "at least one paragraph" : "at least one JSON object");
    return PX_OK;
}

px_status px_records_each(const char *path, px_record_fn fn, void *arg)
{
    px_reader reader = {.path = path, .fn = fn, .arg = arg, .line = 1, .record_line = 1};
    px_bytes *bytes;
    PX_TRY(layout_of(path, &reader.layout));
    PX_TRY(px_bytes_open(&bytes, path));
    px_status status = read_all(&reader, bytes);
    px_bytes_close(bytes);
    px_buf_free(&reader.record);
    px_buf_free(&reader.json);
    return status;
}

typedef struct px_wanted {
    int64_t record, line;
} px_wanted;

static px_status look_for(void *arg, int64_t record, int64_t line, const char *json, size_t length)
{
    px_wanted *wanted = arg;
    (void)json;
    (void)length;
    if (record != wanted->record) return PX_OK;
    wanted->line = line;
    return PX_STOPPED; /* enough */
}

int64_t px_record_line(const char *path, int64_t record)
{
    px_wanted wanted = {.record = record};
    px_error kept = px_error_keep();
    px_records_each(path, look_for, &wanted);
    px_error_restore(&kept);
    return wanted.line;
}
