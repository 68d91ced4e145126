/* Tables in memory: making, joining and writing them. */
#ifndef PX_STORE_FRAME_H
#define PX_STORE_FRAME_H

#include "h5.h"

size_t px_column_size(const px_column *column); /* bytes of one value */
/* No empty, doubled or prefixed names, a first column of int64, widths that make sense. PX_CONFIG: metric names come
 * from the user's reward names. */
px_status px_columns_check(const char *table, const px_column *columns, int count);

/* An empty frame with copies of the columns. */
px_status px_frame_init(px_frame *frame, const px_column *columns, int count);
/* Adds the columns of `other` that are missing and widens texts; only while the frame has no rows. */
px_status px_frame_join_columns(px_frame *frame, const px_column *other, int count);
/* Appends the rows with keep[row] != 0 (NULL: all). Columns are matched by name; the missing are filled. */
px_status px_frame_append(px_frame *frame, const px_frame *from, const unsigned char *keep);
/* One row; number columns take values[c], text columns texts[c] (may be NULL where there is none). */
px_status px_frame_add_row(px_frame *frame, const double *values, const char *const *texts);
/* What a value is before anybody measured it: NaN, -1, "". */
void px_frame_fill(const px_column *column, void *value);

/* An open table of a file. */
typedef struct px_table {
    px_frame shape; /* its columns; no rows */
    hid_t *ids;     /* [column_count] */
    int64_t rows;
} px_table;
typedef struct px_layout {
    hsize_t chunk; /* rows; 0: chosen from the rows */
    bool compress; /* gzip + shuffle */
} px_layout;

/* Creates the group, its columns (attached to the first, the dimension scale) and writes the frame's rows. */
px_status px_table_create(const px_h5 *file, const char *name, const px_frame *frame, const px_layout *layout);
px_status px_table_open(const px_h5 *file, const char *name, px_table *table);
/* Appends: all data, then the first column, each flushed on its own, which is what a reader of a live file relies on.
 */
px_status px_table_append(const px_h5 *file, px_table *table, int64_t rows, const void *const *values);
/* Overwrites one number or text. */
px_status px_table_set(const px_h5 *file, px_table *table, const char *column, int64_t row, const void *value);
px_status px_table_read(const px_h5 *file, const char *name, px_frame *frame);
px_status px_table_read_rows(const px_h5 *file, const px_table *table, int64_t first, int64_t rows, px_frame *frame);
void px_table_close(px_table *table);

#endif
