/* A growing array of bytes: in memory, or in a file that is mapped once it is whole. Private to text. */
#ifndef PX_TEXT_COLUMNS_H
#define PX_TEXT_COLUMNS_H

#include "phalanx/base.h"

#include <stdio.h>

typedef struct px_column { /* start from {0}: in memory */
    px_buf memory;
    FILE *file;       /* while a file grows */
    const char *path; /* owned; NULL: in memory */
    const void *map;
    int64_t length;
} px_column;

px_status px_column_create(px_column *column, const char *dir, const char *name); /* an empty file dir/name */
px_status px_column_add(px_column *column, const void *bytes, size_t length);
px_status px_column_finish(px_column *column); /* file: written through to the disk and closed */
/* The finished file dir/name, which must have `length` bytes. */
px_status px_column_map(px_column *column, const char *dir, const char *name, int64_t length);
const char *px_column_data(const px_column *column); /* in memory, or mapped; NULL when empty */
void px_column_free(px_column *column);

#endif
