/* Sample files: a few tables, grown once an iteration by writing the file anew, a few MiB of it in memory at a time. */
#include "frame.h"
#include "rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The ids of samples whose iteration is dropped, sorted. */
typedef struct id_set {
    int64_t *ids, count;
} id_set;

static int compare_ids(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool has_id(const id_set *set, int64_t id)
{
    return set->count && bsearch(&id, set->ids, (size_t)set->count, sizeof id, compare_ids);
}

/* A row goes with its iteration, or with the sample it belongs to. */
static bool row_stays(const px_frame *frame, int iteration, int sample, int64_t row, int64_t keep_iteration,
                      const id_set *dropped)
{
    if (iteration >= 0) return px_frame_number(frame, iteration, row) <= (double)keep_iteration;
    return sample < 0 || !has_id(dropped, (int64_t)px_frame_number(frame, sample, row));
}

/* ---- rows of an old table, some at a time ------------------------------------------------------------------------ */

typedef px_status (*block_fn)(void *arg, const px_frame *block);

/* A file may have more rows than memory: a few MiB of them at once. */
static px_status each_block(const px_h5 *file, const px_table *table, block_fn fn, void *arg)
{
    enum { BLOCK_BYTES = 4 << 20 };
    size_t row_bytes = 1;
    for (int c = 0; c < table->shape.column_count; c++) row_bytes += px_column_size(&table->shape.columns[c]);
    int64_t most = (int64_t)(BLOCK_BYTES / row_bytes) + 1;
    px_status status = PX_OK;
    for (int64_t first = 0; status == PX_OK && first < table->rows; first += most) {
        px_frame block;
        int64_t left = table->rows - first;
        PX_TRY(px_table_read_rows(file, table, first, left < most ? left : most, &block));
        status = fn(arg, &block);
        px_frame_free(&block);
    }
    return status;
}

typedef struct selection {
    int64_t keep_iteration;
    id_set dropped;
} selection;

static px_status add_dropped(void *arg, const px_frame *samples)
{
    selection *s = arg;
    int iteration = px_frame_column(samples, "iteration");
    if (iteration < 0 || samples->columns[0].type != PX_COL_I64) return PX_OK;
    int64_t *longer = px_realloc(s->dropped.ids, (size_t)(s->dropped.count + samples->rows) * sizeof *longer, "samples");
    if (!longer) return px_error_code();
    s->dropped.ids = longer;
    for (int64_t row = 0; row < samples->rows; row++) {
        if (px_frame_number(samples, iteration, row) > (double)s->keep_iteration)
            longer[s->dropped.count++] = ((const int64_t *)samples->values[0])[row];
    }
    return PX_OK;
}

/* Finds the samples that go, and sorts them. */
static px_status select_rows(const px_h5 *file, selection *s)
{
    px_table samples;
    if (!px_h5_has(file, "/samples")) return PX_OK;
    PX_TRY(px_table_open(file, "/samples", &samples));
    px_status status = each_block(file, &samples, add_dropped, s);
    px_table_close(&samples);
    if (s->dropped.count) qsort(s->dropped.ids, (size_t)s->dropped.count, sizeof *s->dropped.ids, compare_ids);
    return status;
}

static px_status kept_rows(const selection *s, const px_frame *block, unsigned char **keep, int64_t *count)
{
    int iteration = px_frame_column(block, "iteration"), sample = px_frame_column(block, "sample");
    *keep = px_alloc((size_t)block->rows + 1, "rows");
    *count = 0;
    if (!*keep) return px_error_code();
    for (int64_t row = 0; row < block->rows; row++) {
        (*keep)[row] = row_stays(block, iteration, sample, row, s->keep_iteration, &s->dropped);
        *count += (*keep)[row];
    }
    return PX_OK;
}

typedef struct counting {
    const selection *selection;
    int64_t rows;
} counting;

static px_status count_block(void *arg, const px_frame *block)
{
    counting *c = arg;
    unsigned char *keep;
    int64_t count;
    px_status status = kept_rows(c->selection, block, &keep, &count);
    c->rows += count;
    px_free(keep);
    return status;
}

/* ---- the file anew ----------------------------------------------------------------------------------------------- */

/* The file that this process has written last: read back before every iteration that goes to it. No row of it is newer than
 * the iteration after `kept`. */
static struct {
    dev_t device;
    ino_t inode;
    struct timespec changed; /* an inode number is used again once its file is gone */
    int64_t kept;
} last;

static bool is_last(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && info.st_dev == last.device && info.st_ino == last.inode &&
           info.st_ctim.tv_sec == last.changed.tv_sec && info.st_ctim.tv_nsec == last.changed.tv_nsec;
}

/* The file as it is, and which of its rows stay. */
static px_status open_old(px_h5 *file, const char *path, int64_t keep_iteration, selection *kept)
{
    bool own = is_last(path);
    PX_TRY(own ? px_h5_open_unprobed(file, path) : px_h5_open(file, path, NULL));
    *kept = (selection){.keep_iteration = keep_iteration};
    px_status status = own && keep_iteration > last.kept ? PX_OK : select_rows(file, kept);
    if (status != PX_OK) {
        px_free(kept->dropped.ids);
        H5Fclose(file->id);
    }
    return status;
}

typedef struct copying {
    const selection *selection;
    const px_h5 *to;
    px_table *table;
} copying;

static px_status copy_block(void *arg, const px_frame *block)
{
    copying *c = arg;
    unsigned char *keep;
    int64_t count;
    px_frame kept = {0};
    px_status status = kept_rows(c->selection, block, &keep, &count);
    if (status == PX_OK && count > 0) {
        status = px_frame_init(&kept, c->table->shape.columns, c->table->shape.column_count);
        if (status == PX_OK) status = px_frame_append(&kept, block, keep);
        if (status == PX_OK) status = px_table_append(c->to, c->table, kept.rows, (const void *const *)kept.values);
        px_frame_free(&kept);
    }
    px_free(keep);
    return status;
}

/* The caller's columns come first in a table: without others, and of the same widths, its values are the table's. */
static bool fits_as_is(const px_table *table, const px_table_data *data)
{
    bool fits = table->shape.column_count == data->column_count;
    for (int c = 0; fits && c < data->column_count; c++) {
        fits = px_column_size(&table->shape.columns[c]) == px_column_size(&data->columns[c]);
    }
    return fits;
}

static px_status append_fresh(const px_h5 *to, px_table *table, const px_table_data *data)
{
    px_frame all = {0}, fresh = {.column_count = data->column_count, .rows = data->rows,
                                 .columns = (px_column *)(uintptr_t)data->columns, .values = (void **)(uintptr_t)data->values};
    if (data->rows == 0) return PX_OK;
    if (fits_as_is(table, data)) return px_table_append(to, table, data->rows, data->values);
    px_status status = px_frame_init(&all, table->shape.columns, table->shape.column_count);
    if (status == PX_OK) status = px_frame_append(&all, &fresh, NULL);
    if (status == PX_OK) status = px_table_append(to, table, all.rows, (const void *const *)all.values);
    px_frame_free(&all);
    return status;
}

/* The caller's columns first, then what only the old rows have; old rows, then new ones. old: NULL, no such table. */
static px_status write_table(const px_h5 *from, const px_table *old, const px_h5 *to, const px_table_data *data,
                             const selection *kept)
{
    px_frame shape;
    px_table table;
    PX_TRY(px_frame_init(&shape, data->columns, data->column_count));
    px_status status = shape.column_count == data->column_count
                           ? PX_OK : px_fail(PX_CONFIG, "%s: two columns have the same name", data->name);
    if (status == PX_OK && old) status = px_frame_join_columns(&shape, old->shape.columns, old->shape.column_count);
    const px_layout layout = {.chunk = (hsize_t)(data->rows + (old ? old->rows : 0) + 1), .compress = true};
    if (status == PX_OK) status = px_table_create(to, data->name, &shape, &layout);
    px_frame_free(&shape);
    if (status != PX_OK) return status;
    PX_TRY(px_table_open(to, data->name, &table));
    if (old) status = each_block(from, old, copy_block, &(copying){kept, to, &table});
    if (status == PX_OK) status = append_fresh(to, &table, data);
    px_table_close(&table);
    return status;
}

static px_status write_tables(const px_h5 *from, const px_h5 *to, const px_table_data *tables, int table_count,
                              const selection *kept)
{
    px_status status = PX_OK;
    for (int t = 0; status == PX_OK && t < table_count; t++) {
        px_table old;
        bool there = from && px_h5_has(from, tables[t].name);
        if (there) PX_TRY(px_table_open(from, tables[t].name, &old));
        status = write_table(from, there ? &old : NULL, to, &tables[t], kept);
        if (there) px_table_close(&old);
    }
    return status;
}

/* from: the old file; NULL: there is none. */
static px_status write_file(const px_h5 *from, const char *path, const px_table_data *tables, int table_count,
                            const selection *kept)
{
    const px_attribute root[] = {{.name = "format", .type = 's', .s = "phalanx-samples"},
                                 {.name = "format_version", .type = 'i', .i = 1}};
    px_h5 file;
    PX_TRY(px_h5_create(&file, path));
    hid_t id = H5Gopen2(file.id, "/", H5P_DEFAULT);
    px_status status = px_h5_write_attributes(&file, id, root, 2);
    H5Gclose(id);
    if (status == PX_OK) status = write_tables(from, &file, tables, table_count, kept);
    px_status closed = px_h5_close(&file);
    return status == PX_OK ? closed : status;
}

px_status px_samples_append(const char *path, const px_table_data *tables, int table_count, int64_t keep_iteration,
                            const px_lock *lock)
{
    char temporary[PX_PATH_MAX];
    px_h5 old;
    selection kept = {.keep_iteration = keep_iteration};
    bool there = px_file_exists(path);
    PX_TRY(px_temporary_path(temporary, sizeof temporary, path));
    if (there) PX_TRY(open_old(&old, path, keep_iteration, &kept));
    px_status status = write_file(there ? &old : NULL, temporary, tables, table_count, &kept);
    if (there) H5Fclose(old.id);
    px_free(kept.dropped.ids);
    if (status == PX_OK && lock) status = px_lock_check(lock);
    if (status == PX_OK) status = px_publish(temporary, path);
    if (status != PX_OK) {
        unlink(temporary);
        return status;
    }
    struct stat info = {0};
    stat(path, &info); /* where it fails the file is nobody's */
    last.device = info.st_dev;
    last.inode = info.st_ino;
    last.changed = info.st_ctim;
    last.kept = keep_iteration;
    return PX_OK;
}

px_status px_samples_rows(const char *path, const char *table, int64_t keep_iteration, int64_t *rows)
{
    px_h5 file;
    px_table old;
    selection kept;
    *rows = 0;
    if (!px_file_exists(path)) return PX_OK;
    PX_TRY(open_old(&file, path, keep_iteration, &kept));
    px_status status = PX_OK;
    if (px_h5_has(&file, table) && (status = px_table_open(&file, table, &old)) == PX_OK) {
        counting c = {&kept, 0};
        status = each_block(&file, &old, count_block, &c);
        *rows = c.rows;
        px_table_close(&old);
    }
    px_free(kept.dropped.ids);
    H5Fclose(file.id);
    return status;
}
