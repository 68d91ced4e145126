#include "columns.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static px_status name_file(px_column *column, const char *dir, const char *name)
{
    char path[PX_PATH_MAX];
    *column = (px_column){0};
    PX_TRY(px_path_join(path, sizeof path, dir, name));
    column->path = px_strdup(path);
    return column->path ? PX_OK : px_error_code();
}

px_status px_column_create(px_column *column, const char *dir, const char *name)
{
    PX_TRY(name_file(column, dir, name));
    column->file = fopen(column->path, "wbx");
    return column->file ? PX_OK : px_fail(PX_IO, "%s: %s", column->path, strerror(errno));
}

px_status px_column_add(px_column *column, const void *bytes, size_t length)
{
    if (length == 0) return PX_OK;
    column->length += (int64_t)length;
    if (!column->path) return px_buf_add(&column->memory, bytes, length);
    if (fwrite(bytes, 1, length, column->file) == length) return PX_OK;
    return px_fail(PX_IO, "%s: %s", column->path, strerror(errno));
}

px_status px_column_finish(px_column *column)
{
    if (!column->file) return PX_OK;
    FILE *file = column->file;
    column->file = NULL;
    bool written = fflush(file) == 0 && fsync(fileno(file)) == 0;
    int error = errno;
    if (fclose(file) != 0 && written) {
        written = false;
        error = errno;
    }
    return written ? PX_OK : px_fail(PX_IO, "%s: %s", column->path, strerror(error));
}

px_status px_column_map(px_column *column, const char *dir, const char *name, int64_t length)
{
    size_t bytes;
    PX_TRY(name_file(column, dir, name));
    PX_TRY(px_file_map(column->path, &column->map, &bytes));
    column->length = (int64_t)bytes;
    if ((int64_t)bytes == length) return PX_OK;
    return px_fail(PX_DATA, "%s: %zu bytes, %lld were written", column->path, bytes, (long long)length);
}

const char *px_column_data(const px_column *column)
{
    return column->path ? column->map : column->memory.data;
}

void px_column_free(px_column *column)
{
    if (column->file) fclose(column->file);
    if (column->map) px_file_unmap(column->map, (size_t)column->length);
    px_free((char *)column->path);
    px_buf_free(&column->memory);
    *column = (px_column){0};
}
