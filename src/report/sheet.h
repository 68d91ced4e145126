/* A sheet of named columns and typed cells, printed as an aligned table, CSV or JSON. */
#ifndef PX_REPORT_SHEET_H
#define PX_REPORT_SHEET_H

#include "phalanx/report.h"

typedef struct px_sheet {
    px_buf names,
        cells; /* NUL-terminated strings in a row; a cell has its kind in front: t text, i integer, f number */
    int columns;
    int64_t cell_count;
    px_status status; /* of the first addition that failed */
} px_sheet;

void px_sheet_column(px_sheet *sheet, const char *name); /* all columns before the first cell */
void px_sheet_text(px_sheet *sheet, const char *text);
void px_sheet_integer(px_sheet *sheet, int64_t value);
void px_sheet_number(px_sheet *sheet, double value); /* NaN: empty, null in JSON */
px_status px_sheet_print(const px_sheet *sheet, px_form form, FILE *out);
void px_sheet_free(px_sheet *sheet);

/* As tables show it: six digits, integers in full, "-" for NaN. */
void px_number_text(double value, char *out, size_t size);

#endif
