#include "frame.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <hdf5_hl.h>

#define CHUNK_BYTES (1 << 20)
#define GZIP_LEVEL 4

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* Caller closes it. */
static hid_t text_type(const px_column *column)
{
    hid_t type = px_h5_text_type((size_t)column->width - (column->whole ? 1 : 0));
    if (column->whole) H5Tset_strpad(type, H5T_STR_NULLPAD);
    return type;
}

static hid_t file_type(const px_column *column)
{
    switch (column->type) {
    case PX_COL_I8:
        return H5Tcopy(H5T_STD_I8LE);
    case PX_COL_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case PX_COL_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case PX_COL_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case PX_COL_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    default:
        return text_type(column);
    }
}

static hid_t memory_type(const px_column *column)
{
    switch (column->type) {
    case PX_COL_I8:
        return H5Tcopy(H5T_NATIVE_INT8);
    case PX_COL_I32:
        return H5Tcopy(H5T_NATIVE_INT32);
    case PX_COL_I64:
        return H5Tcopy(H5T_NATIVE_INT64);
    case PX_COL_F32:
        return H5Tcopy(H5T_NATIVE_FLOAT);
    case PX_COL_F64:
        return H5Tcopy(H5T_NATIVE_DOUBLE);
    default:
        return px_h5_text_type((size_t)column->width);
    }
}

/* The column type a data set's type is read as; false: none. */
static bool column_type(hid_t type, px_column *column)
{
    size_t size = H5Tget_size(type);
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        column->type = size == 1 ? PX_COL_I8 : size <= 4 ? PX_COL_I32 : PX_COL_I64;
        return size <= 8;
    case H5T_FLOAT:
        column->type = size <= 4 ? PX_COL_F32 : PX_COL_F64;
        return size <= 8;
    case H5T_STRING:
        column->type = PX_COL_TEXT;
        column->whole = H5Tget_strpad(type) != H5T_STR_NULLTERM;
        column->width = (int)size + (column->whole ? 1 : 0);
        return H5Tis_variable_str(type) == 0 && size >= 1 && size < (1 << 24);
    default:
        return false;
    }
}

/* ---- creating ---------------------------------------------------------------------------------------------------- */

static hid_t creation_list(const px_column *column, int64_t rows, const px_layout *layout)
{
    unsigned char fill[16] = {0};
    size_t size = px_column_size(column);
    hsize_t chunk = layout->chunk ? layout->chunk : (hsize_t)(rows > 0 ? rows : 1), most = CHUNK_BYTES / size;
    if (chunk > most) chunk = most ? most : 1;
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), type = memory_type(column);
    H5Pset_chunk(list, 1, &chunk);
    H5Pset_fill_time(list, H5D_FILL_TIME_ALLOC);
    if (column->type != PX_COL_TEXT) {
        px_frame_fill(column, fill);
        H5Pset_fill_value(list, type, fill);
    }
    if (layout->compress) {
        H5Pset_shuffle(list);
        H5Pset_deflate(list, GZIP_LEVEL);
    }
    H5Tclose(type);
    return list;
}

static hid_t create_column(const px_h5 *file, hid_t group, const px_column *column, int64_t rows,
                           const px_layout *layout)
{
    hsize_t size = (hsize_t)rows, most = H5S_UNLIMITED;
    hid_t space = H5Screate_simple(1, &size, &most), type = file_type(column);
    hid_t list = creation_list(column, rows, layout), links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t id = H5Dcreate2(group, column->name, type, space, links, list, H5P_DEFAULT);
    if (id < 0) px_h5_fail(PX_IO, file->path, "cannot create column %s", column->name);
    H5Pclose(links);
    H5Pclose(list);
    H5Tclose(type);
    H5Sclose(space);
    return id;
}

static px_status describe_column(const px_h5 *file, hid_t id, const px_column *column)
{
    const px_attribute about[] = {{.name = "units", .type = 's', .s = column->units},
                                  {.name = "long_name", .type = 's', .s = column->long_name}};
    PX_TRY(px_h5_write_attributes(file, id, about, 2));
    if (strcmp(column->name, "finish") != 0 || column->type != PX_COL_I8) return PX_OK;
    const int8_t values[2] = {0, 1};
    hsize_t count = 2;
    const char *meanings = "stop length";
    hid_t space = H5Screate_simple(1, &count, NULL);
    hid_t flags = H5Acreate2(id, "flag_values", H5T_STD_I8LE, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t error = flags < 0 ? -1 : H5Awrite(flags, H5T_NATIVE_INT8, values);
    px_status status = error < 0 ? px_h5_fail(PX_IO, file->path, "cannot write attribute flag_values") : PX_OK;
    if (flags >= 0) H5Aclose(flags);
    H5Sclose(space);
    if (status != PX_OK) return status;
    return px_h5_write_texts(file, id, "flag_meanings", &meanings, 0);
}

static px_status write_rows(const px_h5 *file, hid_t id, const px_column *column, int64_t first, int64_t rows,
                            const void *values)
{
    PX_FAULT("store.write", file->path);
    if (rows == 0) return PX_OK;
    hsize_t start = (hsize_t)first, count = (hsize_t)rows;
    hid_t memory = H5Screate_simple(1, &count, NULL), space = H5Dget_space(id), type = memory_type(column);
    herr_t error = H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &count, NULL);
    if (error >= 0) error = H5Dwrite(id, type, memory, space, H5P_DEFAULT, values);
    px_status status = error < 0 ? px_h5_fail(PX_IO, file->path, "cannot write column %s", column->name) : PX_OK;
    H5Tclose(type);
    H5Sclose(space);
    H5Sclose(memory);
    return status;
}

/* Creates and fills column c. The first one, the scale, is created first and filled last. */
static px_status create_data(const px_h5 *file, hid_t group, const px_frame *frame, int c, const px_layout *layout,
                             hid_t scale)
{
    const px_column *column = &frame->columns[c];
    hid_t id = create_column(file, group, column, frame->rows, layout);
    if (id < 0) return px_error_code();
    px_status status = describe_column(file, id, column);
    if (status == PX_OK && H5DSattach_scale(id, scale, 0) < 0) {
        status = px_h5_fail(PX_IO, file->path, "cannot attach the index to column %s", column->name);
    }
    if (status == PX_OK) status = write_rows(file, id, column, 0, frame->rows, frame->values[c]);
    H5Dclose(id);
    return status;
}

static px_status create_columns(const px_h5 *file, hid_t group, const px_frame *frame, const px_layout *layout)
{
    const px_column *index = &frame->columns[0];
    hid_t scale = create_column(file, group, index, frame->rows, layout);
    if (scale < 0) return px_error_code();
    px_status status = describe_column(file, scale, index);
    if (status == PX_OK && H5DSset_scale(scale, index->name) < 0) {
        status = px_h5_fail(PX_IO, file->path, "cannot make %s the index of its table", index->name);
    }
    for (int c = 1; status == PX_OK && c < frame->column_count; c++) {
        status = create_data(file, group, frame, c, layout, scale);
    }
    if (status == PX_OK) status = write_rows(file, scale, index, 0, frame->rows, frame->values[0]);
    H5Dclose(scale);
    return status;
}

static px_status write_names(const px_h5 *file, hid_t group, const px_frame *frame)
{
    const char **names = px_alloc_array((size_t)frame->column_count, sizeof *names, "columns");
    if (!names) return px_error_code();
    for (int c = 0; c < frame->column_count; c++) names[c] = frame->columns[c].name;
    px_status status = px_h5_write_texts(file, group, "columns", names, frame->column_count);
    px_free(names);
    return status;
}

px_status px_table_create(const px_h5 *file, const char *name, const px_frame *frame, const px_layout *layout)
{
    PX_TRY(px_columns_check(name, frame->columns, frame->column_count));
    PX_FAULT("store.table", file->path);
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t group = H5Gcreate2(file->id, name, links, H5P_DEFAULT, H5P_DEFAULT);
    H5Pclose(links);
    if (group < 0) return px_h5_fail(PX_IO, file->path, "cannot create table %s", name);
    px_status status = write_names(file, group, frame);
    if (status == PX_OK) status = create_columns(file, group, frame, layout);
    H5Gclose(group);
    return status;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* An attribute text into `out`; `fallback` where there is none. */
static px_status about_column(const px_h5 *file, hid_t id, const char *name, const char *fallback, char *out,
                              size_t size)
{
    snprintf(out, size, "%s", fallback);
    if (H5Aexists(id, name) <= 0) return PX_OK;
    char **texts = NULL;
    int count = 0;
    PX_TRY(px_h5_read_texts(file, id, name, &texts, &count));
    if (count == 1) px_text_fit(out, size, texts[0]);
    px_free_texts(texts, count);
    return PX_OK;
}

static px_status extent(const px_h5 *file, hid_t id, const char *name, int64_t *rows)
{
    hid_t space = H5Dget_space(id);
    hsize_t size = 0;
    int dims = H5Sget_simple_extent_ndims(space);
    if (dims == 1) H5Sget_simple_extent_dims(space, &size, NULL);
    H5Sclose(space);
    if (dims != 1 || size > ((hsize_t)1 << 40)) {
        return px_fail(PX_DATA, "%s: column %s is not a list of values", file->path, name);
    }
    *rows = (int64_t)size;
    return PX_OK;
}

static px_status open_column(const px_h5 *file, const char *table_name, const char *name, px_table *table)
{
    char path[PX_PATH_MAX], units[256], long_name[1024];
    if (!px_utf8_valid(name, strlen(name)) || name[0] == '/' || strlen(name) > 255) {
        return px_fail(PX_DATA, "%s: %s has a column with an impossible name", file->path, table_name);
    }
    PX_TRY(px_path_join(path, sizeof path, table_name, name));
    hid_t id = px_h5_find(file, path, H5I_DATASET);
    if (id < 0) return px_error_code();
    hid_t type = H5Dget_type(id);
    px_column column = {.name = name};
    px_status status = px_h5_check_storage(file, id, path);
    if (status == PX_OK && !column_type(type, &column)) {
        status = px_fail(PX_DATA, "%s: %s holds neither numbers nor fixed-length strings", file->path, path);
    }
    if (status == PX_OK) status = about_column(file, id, "units", "1", units, sizeof units);
    if (status == PX_OK) status = about_column(file, id, "long_name", name, long_name, sizeof long_name);
    column.units = units;
    column.long_name = long_name;
    if (status == PX_OK) status = px_frame_join_columns(&table->shape, &column, 1);
    H5Tclose(type);
    if (status == PX_OK) {
        table->ids[table->shape.column_count - 1] = id;
    } else {
        H5Dclose(id);
    }
    return status;
}

/* The first column first: it is written last, so every other one is at least as long. */
static px_status open_columns(const px_h5 *file, const char *name, char **names, int count, px_table *table)
{
    table->ids = px_alloc_array((size_t)count, sizeof *table->ids, "columns");
    if (!table->ids) return px_error_code();
    for (int c = 0; c < count; c++) {
        if (px_frame_column(&table->shape, names[c]) >= 0) {
            return px_fail(PX_DATA, "%s: %s names the column %s twice", file->path, name, names[c]);
        }
        PX_TRY(open_column(file, name, names[c], table));
        int64_t rows = 0;
        PX_TRY(extent(file, table->ids[c], names[c], &rows));
        if (c == 0) table->rows = rows;
        if (rows < table->rows) table->rows = rows;
    }
    return PX_OK;
}

px_status px_table_open(const px_h5 *file, const char *name, px_table *table)
{
    memset(table, 0, sizeof *table);
    hid_t group = px_h5_find(file, name, H5I_GROUP);
    if (group < 0) return px_error_code();
    char **names = NULL;
    int count = 0;
    px_status status = px_h5_read_texts(file, group, "columns", &names, &count);
    if (status == PX_OK && count < 1) status = px_fail(PX_DATA, "%s: %s has no columns", file->path, name);
    if (status == PX_OK) status = open_columns(file, name, names, count, table);
    if (status != PX_OK) px_table_close(table);
    px_free_texts(names, count);
    H5Gclose(group);
    return status;
}

void px_table_close(px_table *table)
{
    for (int c = 0; c < table->shape.column_count && table->ids; c++) {
        if (table->ids[c] > 0) H5Dclose(table->ids[c]);
    }
    px_free(table->ids);
    px_frame_free(&table->shape);
    memset(table, 0, sizeof *table);
}

/* ---- reading and appending --------------------------------------------------------------------------------------- */

static px_status read_column(const px_h5 *file, const px_table *table, int c, int64_t first, int64_t rows, px_frame *frame)
{
    const px_column *column = &table->shape.columns[c];
    hsize_t start = (hsize_t)first, count = (hsize_t)rows;
    size_t bytes;
    if (__builtin_mul_overflow((size_t)table->rows, px_column_size(column), &bytes)) bytes = SIZE_MAX;
    PX_TRY(px_h5_check_size(file, table->ids[c], column->name, bytes));
    frame->values[c] = px_alloc_array((size_t)rows + 1, px_column_size(column), column->name);
    if (!frame->values[c]) return px_error_code();
    if (rows == 0) return PX_OK;
    hid_t memory = H5Screate_simple(1, &count, NULL), space = H5Dget_space(table->ids[c]), type = memory_type(column);
    if (column->type == PX_COL_TEXT) { /* the conversion wants the character set of the file */
        hid_t stored = H5Dget_type(table->ids[c]);
        H5Tset_cset(type, H5Tget_cset(stored));
        H5Tclose(stored);
    }
    herr_t error = H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &count, NULL);
    if (error >= 0) error = H5Dread(table->ids[c], type, memory, space, H5P_DEFAULT, frame->values[c]);
    px_status status = error < 0 ? px_h5_fail(PX_DATA, file->path, "cannot read column %s", column->name) : PX_OK;
    H5Tclose(type);
    H5Sclose(space);
    H5Sclose(memory);
    return status;
}

px_status px_table_read_rows(const px_h5 *file, const px_table *table, int64_t first, int64_t rows, px_frame *frame)
{
    memset(frame, 0, sizeof *frame);
    px_status status = px_frame_init(frame, table->shape.columns, table->shape.column_count);
    for (int c = 0; status == PX_OK && c < frame->column_count; c++) status = read_column(file, table, c, first, rows, frame);
    frame->rows = rows;
    if (status != PX_OK) px_frame_free(frame);
    return status;
}

px_status px_table_read(const px_h5 *file, const char *name, px_frame *frame)
{
    px_table table;
    memset(frame, 0, sizeof *frame);
    PX_TRY(px_table_open(file, name, &table));
    px_status status = px_table_read_rows(file, &table, 0, table.rows, frame);
    px_table_close(&table);
    return status;
}

static px_status append_column(const px_h5 *file, px_table *table, int c, int64_t rows, const void *values)
{
    const px_column *column = &table->shape.columns[c];
    hsize_t size = (hsize_t)(table->rows + rows);
    PX_FAULT("store.extend", file->path);
    if (H5Dset_extent(table->ids[c], &size) < 0) {
        return px_h5_fail(PX_IO, file->path, "cannot extend column %s", column->name);
    }
    PX_TRY(write_rows(file, table->ids[c], column, table->rows, rows, values));
    PX_FAULT("store.flush", file->path);
    if (H5Dflush(table->ids[c]) < 0) return px_h5_fail(PX_IO, file->path, "cannot write column %s", column->name);
    return PX_OK;
}

px_status px_table_append(const px_h5 *file, px_table *table, int64_t rows, const void *const *values)
{
    for (int c = 1; c < table->shape.column_count; c++) PX_TRY(append_column(file, table, c, rows, values[c]));
    PX_TRY(append_column(file, table, 0, rows, values[0]));
    table->rows += rows;
    return PX_OK;
}

px_status px_table_set(const px_h5 *file, px_table *table, const char *name, int64_t row, const void *value)
{
    int c = px_frame_column(&table->shape, name);
    if (c < 0 || row < 0 || row >= table->rows)
        return px_fail(PX_BUG, "%s: no value %s[%lld]", file->path, name, (long long)row);
    PX_TRY(write_rows(file, table->ids[c], &table->shape.columns[c], row, 1, value));
    if (H5Dflush(table->ids[c]) < 0) return px_h5_fail(PX_IO, file->path, "cannot write column %s", name);
    return PX_OK;
}

px_status px_frame_read(const char *path, const char *group, px_frame *frame)
{
    px_h5 file;
    memset(frame, 0, sizeof *frame);
    PX_TRY(px_h5_open(&file, path, group));
    px_status status = px_table_read(&file, group, frame);
    H5Fclose(file.id);
    return status;
}
