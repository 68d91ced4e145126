#include "frame.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_WIDTH (1 << 24) /* bytes of one text */

size_t px_column_size(const px_column *column)
{
    switch (column->type) {
    case PX_COL_I8:
        return 1;
    case PX_COL_I32:
    case PX_COL_F32:
        return 4;
    case PX_COL_I64:
    case PX_COL_F64:
        return 8;
    default:
        return (size_t)column->width;
    }
}

void px_frame_fill(const px_column *column, void *value)
{
    const double nan_double = NAN;
    const float nan_float = NAN;
    switch (column->type) {
    case PX_COL_F64:
        memcpy(value, &nan_double, sizeof nan_double);
        break;
    case PX_COL_F32:
        memcpy(value, &nan_float, sizeof nan_float);
        break;
    case PX_COL_TEXT:
        memset(value, 0, (size_t)column->width);
        break;
    default:
        memset(value, 0xff, px_column_size(column)); /* -1 */
    }
}

static bool name_is_path(const char *name)
{
    if (!name || !name[0] || name[0] == '/') return false;
    for (const char *at = name;; at++) {
        const char *end = strchrnul(at, '/');
        size_t length = (size_t)(end - at);
        if (length == 0 || (length == 1 && at[0] == '.') || (length == 2 && at[0] == '.' && at[1] == '.')) return false;
        if (!*end) return strlen(name) < 256;
        at = end;
    }
}

px_status px_columns_check(const char *table, const px_column *columns, int count)
{
    if (count < 1 || columns[0].type != PX_COL_I64) {
        return px_fail(PX_BUG, "%s: the first column must be an int64 index", table);
    }
    for (int i = 0; i < count; i++) {
        if (!name_is_path(columns[i].name)) {
            return px_fail(PX_CONFIG, "%s: '%s' cannot name a column; valid are words joined by '/'", table,
                           columns[i].name ? columns[i].name : "");
        }
        if (columns[i].type == PX_COL_TEXT && (columns[i].width < 1 || columns[i].width > MAX_WIDTH)) {
            return px_fail(PX_BUG, "%s: column %s is %d bytes wide; valid is 1 to %d", table, columns[i].name,
                           columns[i].width, MAX_WIDTH);
        }
        size_t length = strlen(columns[i].name);
        for (int j = 0; j < count; j++) {
            if (j == i || strncmp(columns[i].name, columns[j].name, length) != 0) continue;
            if (columns[j].name[length] == '/') {
                return px_fail(PX_CONFIG, "%s: '%s' cannot be a column and, for '%s', a group; rename one of them",
                               table, columns[i].name, columns[j].name);
            }
            if (columns[j].name[length] == '\0') {
                return px_fail(PX_CONFIG, "%s: two columns are named '%s'", table, columns[i].name);
            }
        }
    }
    return PX_OK;
}

/* ---- columns ----------------------------------------------------------------------------------------------------- */

static px_status add_column(px_frame *frame, const px_column *column)
{
    size_t n = (size_t)frame->column_count;
    px_column *columns = px_realloc(frame->columns, (n + 1) * sizeof *columns, "columns");
    if (!columns) return px_error_code();
    frame->columns = columns;
    void **values = px_realloc(frame->values, (n + 1) * sizeof *values, "columns");
    if (!values) return px_error_code();
    frame->values = values;
    px_column *copy = &columns[n];
    *copy = *column;
    copy->name = px_strdup(column->name);
    copy->units = px_strdup(column->units ? column->units : "1");
    copy->long_name = px_strdup(column->long_name ? column->long_name : column->name);
    values[n] = NULL;
    frame->column_count++;
    return copy->name && copy->units && copy->long_name ? PX_OK : px_error_code();
}

px_status px_frame_init(px_frame *frame, const px_column *columns, int count)
{
    memset(frame, 0, sizeof *frame);
    return px_frame_join_columns(frame, columns, count);
}

px_status px_frame_join_columns(px_frame *frame, const px_column *other, int count)
{
    for (int i = 0; i < count; i++) {
        int at = px_frame_column(frame, other[i].name);
        if (at < 0) {
            px_status status = add_column(frame, &other[i]);
            if (status != PX_OK) {
                px_frame_free(frame);
                return status;
            }
        } else if (frame->columns[at].type == PX_COL_TEXT && frame->columns[at].width < other[i].width) {
            frame->columns[at].width = other[i].width;
        }
    }
    return PX_OK;
}

void px_frame_free(px_frame *frame)
{
    for (int c = 0; c < frame->column_count; c++) {
        px_free((void *)(uintptr_t)frame->columns[c].name);
        px_free((void *)(uintptr_t)frame->columns[c].units);
        px_free((void *)(uintptr_t)frame->columns[c].long_name);
        px_free(frame->values[c]);
    }
    px_free(frame->columns);
    px_free(frame->values);
    memset(frame, 0, sizeof *frame);
}

int px_frame_column(const px_frame *frame, const char *name)
{
    for (int c = 0; c < frame->column_count; c++) {
        if (strcmp(frame->columns[c].name, name) == 0) return c;
    }
    return -1;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

double px_frame_number(const px_frame *frame, int column, int64_t row)
{
    if (column < 0 || column >= frame->column_count || row < 0 || row >= frame->rows) return NAN;
    const void *values = frame->values[column];
    switch (frame->columns[column].type) {
    case PX_COL_I8:
        return ((const int8_t *)values)[row];
    case PX_COL_I32:
        return ((const int32_t *)values)[row];
    case PX_COL_I64:
        return (double)((const int64_t *)values)[row];
    case PX_COL_F32:
        return (double)((const float *)values)[row];
    case PX_COL_F64:
        return ((const double *)values)[row];
    default:
        return NAN;
    }
}

const char *px_frame_text(const px_frame *frame, int column, int64_t row)
{
    if (column < 0 || column >= frame->column_count || row < 0 || row >= frame->rows) return "";
    const px_column *about = &frame->columns[column];
    if (about->type != PX_COL_TEXT) return "";
    return (const char *)frame->values[column] + (size_t)row * (size_t)about->width;
}

static void put_number(const px_column *column, void *value, double number)
{
    int8_t i8;
    int32_t i32;
    int64_t i64;
    float f32;
    if (column->type != PX_COL_F32 && column->type != PX_COL_F64 && isnan(number)) {
        px_frame_fill(column, value);
        return;
    }
    switch (column->type) {
    case PX_COL_I8:
        i8 = (int8_t)number;
        memcpy(value, &i8, sizeof i8);
        break;
    case PX_COL_I32:
        i32 = (int32_t)number;
        memcpy(value, &i32, sizeof i32);
        break;
    case PX_COL_I64:
        i64 = (int64_t)number;
        memcpy(value, &i64, sizeof i64);
        break;
    case PX_COL_F32:
        f32 = (float)number;
        memcpy(value, &f32, sizeof f32);
        break;
    default:
        memcpy(value, &number, sizeof number);
    }
}

static px_status grow(px_frame *frame, int64_t rows)
{
    for (int c = 0; c < frame->column_count; c++) {
        size_t size = px_column_size(&frame->columns[c]), total;
        if (__builtin_mul_overflow((size_t)(frame->rows + rows), size, &total)) {
            return px_fail(PX_DATA, "a table of %lld rows does not fit into memory", (long long)(frame->rows + rows));
        }
        void *values = px_realloc(frame->values[c], total ? total : 1, "table");
        if (!values) return px_error_code();
        frame->values[c] = values;
    }
    return PX_OK;
}

/* Copies column `from_column` (-1: absent) of the kept rows behind the rows of column c. */
static void append_column(px_frame *frame, int c, const px_frame *from, int from_column, const unsigned char *keep)
{
    const px_column *to = &frame->columns[c], *of = from_column < 0 ? NULL : &from->columns[from_column];
    size_t size = px_column_size(to), of_size = of ? px_column_size(of) : 0;
    char *out = (char *)frame->values[c] + (size_t)frame->rows * size;
    bool same = of && of->type == to->type && of_size == size;
    bool both_text = of && of->type == PX_COL_TEXT && to->type == PX_COL_TEXT;
    bool both_number = of && of->type != PX_COL_TEXT && to->type != PX_COL_TEXT;
    for (int64_t row = 0; row < from->rows; row++) {
        if (keep && !keep[row]) continue;
        if (same) {
            memcpy(out, (const char *)from->values[from_column] + (size_t)row * size, size);
        } else if (both_text) {
            px_text_fit(out, size, px_frame_text(from, from_column, row));
        } else if (both_number) {
            put_number(to, out, px_frame_number(from, from_column, row));
        } else {
            px_frame_fill(to, out);
        }
        out += size;
    }
}

px_status px_frame_append(px_frame *frame, const px_frame *from, const unsigned char *keep)
{
    int64_t kept = 0;
    for (int64_t row = 0; row < from->rows; row++) kept += !keep || keep[row];
    PX_TRY(grow(frame, kept));
    for (int c = 0; c < frame->column_count; c++) {
        append_column(frame, c, from, px_frame_column(from, frame->columns[c].name), keep);
    }
    frame->rows += kept;
    return PX_OK;
}

px_status px_frame_add_row(px_frame *frame, const double *values, const char *const *texts)
{
    PX_TRY(grow(frame, 1));
    for (int c = 0; c < frame->column_count; c++) {
        const px_column *column = &frame->columns[c];
        size_t size = px_column_size(column);
        char *out = (char *)frame->values[c] + (size_t)frame->rows * size;
        if (column->type == PX_COL_TEXT) {
            px_text_fit(out, size, texts && texts[c] ? texts[c] : "");
        } else {
            put_number(column, out, values[c]);
        }
    }
    frame->rows++;
    return PX_OK;
}
