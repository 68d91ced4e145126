#include "data_tables.h"

#define COLUMN(n, t, u, l) {.name = (n), .type = (t), .units = (u), .long_name = (l)}
#define TEXT(n, w, l) {.name = (n), .type = PX_COL_TEXT, .width = (w), .units = "1", .long_name = (l)}
static const px_column data_columns[] = {
    COLUMN("entry", PX_COL_I64, "1", "number of the file"),
    TEXT("set", 16, "data set that the file belongs to"),
    TEXT("file", 240, "path"),
    TEXT("shape", 64, "record shape that was detected"),
    COLUMN("weight", PX_COL_F64, "1", "times that an epoch goes through the file"),
    COLUMN("records", PX_COL_I64, "1", "records read"),
    COLUMN("rows", PX_COL_I64, "1", "rows kept"),
    COLUMN("cut", PX_COL_I64, "1", "rows kept that were cut at the length limit"),
    COLUMN("dropped_long", PX_COL_I64, "1", "records dropped: over the length limit"),
    COLUMN("dropped_equal", PX_COL_I64, "1", "records dropped: chosen equals rejected"),
    COLUMN("dropped_empty", PX_COL_I64, "1", "records dropped: an empty text, or nothing to learn within the length limit"),
    COLUMN("duplicate_prompts", PX_COL_I64, "1", "rows whose prompt an earlier row of the set has, kept"),
    COLUMN("tokens", PX_COL_I64, "token", "tokens of the rows, both sides of pairs"),
    COLUMN("min_length", PX_COL_I64, "token", "shortest row; of pairs the longer side"),
    COLUMN("max_length", PX_COL_I64, "token", "longest row; of pairs the longer side"),
    COLUMN("mean_length", PX_COL_F64, "token", "mean length of the rows; of pairs the longer side")};
static const px_column length_columns[] = {
    COLUMN("bin", PX_COL_I64, "1", "number of the row"),
    COLUMN("entry", PX_COL_I64, "1", "file, a row of /data"),
    COLUMN("shortest", PX_COL_I64, "token", "least length of this bin"),
    COLUMN("longest", PX_COL_I64, "token", "greatest length of this bin"),
    COLUMN("rows", PX_COL_I64, "1", "rows of these lengths")};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static px_status add_lengths(px_frame *lengths, const px_data_entry *entry, int number)
{
    for (int i = 0; i < PX_DATA_BINS; i++) {
        if (entry->histogram[i] == 0) continue;
        const double values[] = {(double)lengths->rows, number, (double)(INT64_C(1) << i),
                                 (double)(i < PX_DATA_BINS - 1 ? (INT64_C(2) << i) - 1 : entry->max_length),
                                 (double)entry->histogram[i]};
        PX_TRY(px_frame_add_row(lengths, values, NULL));
    }
    return PX_OK;
}

px_status px_data_tables_init(px_frame *data, px_frame *lengths, const px_run_header *header)
{
    PX_TRY(px_frame_init(data, data_columns, COUNT(data_columns)));
    PX_TRY(px_frame_init(lengths, length_columns, COUNT(length_columns)));
    for (int i = 0; i < header->data_count; i++) {
        const px_data_entry *e = &header->data[i];
        const double values[COUNT(data_columns)] = {
            i, 0, 0, 0, e->weight, (double)e->records, (double)e->rows, (double)e->cut, (double)e->dropped_long,
            (double)e->dropped_equal, (double)e->dropped_empty, (double)e->duplicate_prompts, (double)e->tokens,
            (double)e->min_length, (double)e->max_length, e->mean_length};
        const char *const texts[COUNT(data_columns)] = {NULL, e->set, e->file, e->shape};
        PX_TRY(px_frame_add_row(data, values, texts));
        PX_TRY(add_lengths(lengths, e, i));
    }
    return PX_OK;
}
