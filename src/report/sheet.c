#include "sheet.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CELL 60 /* characters of a cell of a table */

/* ---- filling ----------------------------------------------------------------------------------------------------- */

void px_sheet_column(px_sheet *sheet, const char *name)
{
    if (sheet->status == PX_OK) sheet->status = px_buf_add(&sheet->names, name, strlen(name) + 1);
    sheet->columns++;
}

static void add_cell(px_sheet *sheet, char kind, const char *text)
{
    if (sheet->status == PX_OK) sheet->status = px_buf_add(&sheet->cells, &kind, 1);
    if (sheet->status == PX_OK) sheet->status = px_buf_add(&sheet->cells, text, strlen(text) + 1);
    sheet->cell_count++;
}

void px_sheet_text(px_sheet *sheet, const char *text)
{
    add_cell(sheet, 't', text ? text : "");
}

void px_sheet_integer(px_sheet *sheet, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    add_cell(sheet, 'i', text);
}

void px_sheet_number(px_sheet *sheet, double value)
{
    char text[32] = "";
    if (!isnan(value)) snprintf(text, sizeof text, "%.17g", value);
    add_cell(sheet, 'f', text);
}

void px_sheet_free(px_sheet *sheet)
{
    px_buf_free(&sheet->names);
    px_buf_free(&sheet->cells);
    memset(sheet, 0, sizeof *sheet);
}

void px_number_text(double value, char *out, size_t size)
{
    if (isnan(value)) {
        snprintf(out, size, "-");
    } else if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(out, size, "%.0f", value);
    } else {
        snprintf(out, size, fabs(value) >= 1e6 && fabs(value) < 1e15 ? "%.2f" : "%.6g", value); /* a time in seconds */
    }
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

/* One line of at most MAX_CELL characters; returns its width on a terminal, a column a character. */
static int cell_text(char kind, const char *text, char *out, size_t size)
{
    size_t used = 0;
    int width = 0;
    if (kind == 'f') {
        px_number_text(text[0] ? strtod(text, NULL) : NAN, out, size);
        return (int)strlen(out);
    }
    for (const unsigned char *at = (const unsigned char *)text; *at && used + 8 < size; at++) {
        bool start = (*at & 0xc0) != 0x80;
        if (start && width == MAX_CELL) {
            memcpy(out + used, "...", 3);
            used += 3;
            width += 3;
            break;
        }
        if (*at == '\n' || *at == '\t' || *at == '\r') {
            out[used++] = '\\';
            out[used++] = *at == '\n' ? 'n' : *at == '\t' ? 't' : 'r';
            width += 2;
            continue;
        }
        out[used++] = *at < 0x20 || *at == 0x7f ? '?' : (char)*at;
        width += start;
    }
    out[used] = '\0';
    return width;
}

/* Over all cells: each one's column, kind and text. */
typedef struct cell_walk {
    const char *at;
    int64_t index;
} cell_walk;

static bool next_cell(const px_sheet *sheet, cell_walk *walk, char *kind, const char **text)
{
    if (walk->index >= sheet->cell_count) return false;
    if (walk->index == 0) walk->at = sheet->cells.data;
    *kind = *walk->at;
    *text = walk->at + 1;
    walk->at += strlen(walk->at) + 1;
    walk->index++;
    return true;
}

static void print_padded(FILE *out, const char *text, int width, int to, bool right, bool last)
{
    int pad = to > width ? to - width : 0;
    fprintf(out, "%*s%s%*s", right ? pad : 0, "", text, !right && !last ? pad : 0, "");
    fputs(last ? "\n" : "  ", out);
}

static px_status print_table(const px_sheet *sheet, FILE *out)
{
    char text[512], kind;
    const char *raw, *name = sheet->names.data;
    cell_walk walk = {0};
    int *widths = px_alloc_array((size_t)sheet->columns, sizeof *widths, "table");
    char *kinds = px_alloc((size_t)sheet->columns + 1, "table");
    if (!widths || !kinds) {
        px_free(widths);
        px_free(kinds);
        return px_error_code();
    }
    for (int c = 0; c < sheet->columns; c++, name += strlen(name) + 1)
        widths[c] = cell_text('t', name, text, sizeof text);
    while (next_cell(sheet, &walk, &kind, &raw)) {
        int c = (int)((walk.index - 1) % sheet->columns), width = cell_text(kind, raw, text, sizeof text);
        if (width > widths[c]) widths[c] = width;
        if (walk.index <= sheet->columns) kinds[c] = kind;
    }
    name = sheet->names.data;
    for (int c = 0; c < sheet->columns; c++, name += strlen(name) + 1) {
        int width = cell_text('t', name, text, sizeof text);
        print_padded(out, text, width, widths[c], kinds[c] == 'i' || kinds[c] == 'f', c == sheet->columns - 1);
    }
    walk = (cell_walk){0};
    while (next_cell(sheet, &walk, &kind, &raw)) {
        int c = (int)((walk.index - 1) % sheet->columns), width = cell_text(kind, raw, text, sizeof text);
        print_padded(out, text, width, widths[c], kind != 't', c == sheet->columns - 1);
    }
    px_free(widths);
    px_free(kinds);
    return PX_OK;
}

/* ---- CSV, JSON --------------------------------------------------------------------------------------------------- */

static void print_csv_text(FILE *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void print_csv(const px_sheet *sheet, FILE *out)
{
    const char *text = sheet->names.data;
    char kind;
    cell_walk walk = {0};
    for (int c = 0; c < sheet->columns; c++, text += strlen(text) + 1) {
        print_csv_text(out, text);
        fputc(c + 1 < sheet->columns ? ',' : '\n', out);
    }
    while (next_cell(sheet, &walk, &kind, &text)) {
        print_csv_text(out, text);
        fputc(walk.index % sheet->columns ? ',' : '\n', out);
    }
}

static json_t *cell_json(char kind, const char *text)
{
    double value;
    switch (kind) {
    case 't':
        return json_string(text);
    case 'i':
        return json_integer(strtoll(text, NULL, 10));
    default:
        value = text[0] ? strtod(text, NULL) : NAN;
        return isfinite(value) ? json_real(value) : json_null();
    }
}

static void print_json(const px_sheet *sheet, FILE *out)
{
    const char *text, *name = NULL;
    char kind;
    cell_walk walk = {0};
    json_t *row = NULL;
    fputs("[", out);
    while (next_cell(sheet, &walk, &kind, &text)) {
        int c = (int)((walk.index - 1) % sheet->columns);
        if (c == 0) {
            row = json_object();
            name = sheet->names.data;
        }
        json_object_set_new(row, name, cell_json(kind, text));
        name += strlen(name) + 1;
        if (c + 1 < sheet->columns) continue;
        fputs(walk.index == sheet->columns ? "\n" : ",\n", out);
        json_dumpf(row, out, JSON_COMPACT);
        json_decref(row);
    }
    fputs("\n]\n", out);
}

px_status px_sheet_print(const px_sheet *sheet, px_form form, FILE *out)
{
    if (sheet->status != PX_OK) return sheet->status;
    if (sheet->columns == 0) return PX_OK;
    if (form == PX_FORM_TABLE) {
        PX_TRY(print_table(sheet, out));
    } else if (form == PX_FORM_CSV) {
        print_csv(sheet, out);
    } else {
        print_json(sheet, out);
    }
    return ferror(out) ? px_fail(PX_IO, "cannot print: %s", strerror(errno)) : PX_OK;
}
