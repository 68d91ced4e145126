/* Sample files: a few tables, grown once an iteration by writing the file anew. */
#include "frame.h"
#include "rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static px_status find_dropped(const px_frame *samples, int64_t keep_iteration, id_set *set)
{
    int iteration = px_frame_column(samples, "iteration");
    set->ids = px_alloc_array((size_t)samples->rows + 1, sizeof *set->ids, "samples");
    if (!set->ids) return px_error_code();
    if (samples->column_count < 1 || samples->columns[0].type != PX_COL_I64) return PX_OK;
    for (int64_t row = 0; row < samples->rows; row++) {
        if (iteration >= 0 && px_frame_number(samples, iteration, row) > (double)keep_iteration) {
            set->ids[set->count++] = ((const int64_t *)samples->values[0])[row];
        }
    }
    qsort(set->ids, (size_t)set->count, sizeof *set->ids, compare_ids);
    return PX_OK;
}

/* A row goes with its iteration, or with the sample it belongs to. */
static bool row_stays(const px_frame *frame, int iteration, int sample, int64_t row, int64_t keep_iteration,
                      const id_set *dropped)
{
    if (iteration >= 0) return px_frame_number(frame, iteration, row) <= (double)keep_iteration;
    return sample < 0 || !has_id(dropped, (int64_t)px_frame_number(frame, sample, row));
}

static px_status drop_rows(px_frame *frame, int64_t keep_iteration, const id_set *dropped)
{
    int iteration = px_frame_column(frame, "iteration"), sample = px_frame_column(frame, "sample");
    unsigned char *keep = px_alloc((size_t)frame->rows + 1, "rows");
    px_frame kept;
    if (!keep) return px_error_code();
    bool all = true;
    for (int64_t row = 0; row < frame->rows; row++) {
        keep[row] = row_stays(frame, iteration, sample, row, keep_iteration, dropped);
        all = all && keep[row];
    }
    if (all) {
        px_free(keep);
        return PX_OK;
    }
    px_status status = px_frame_init(&kept, frame->columns, frame->column_count);
    if (status == PX_OK) status = px_frame_append(&kept, frame, keep);
    px_free(keep);
    if (status != PX_OK) {
        px_frame_free(&kept);
        return status;
    }
    px_frame_free(frame);
    *frame = kept;
    return PX_OK;
}

static char last_written[PX_PATH_MAX]; /* by this process: read back before every iteration that goes to the same file */

/* The old rows that stay, [table_count] frames; all empty when there is no file yet. */
static px_status read_old(const char *path, const px_table_data *tables, int table_count, int64_t keep_iteration,
                          px_frame *old)
{
    px_h5 file;
    id_set dropped = {NULL, 0};
    px_frame samples = {0};
    if (!px_file_exists(path)) return PX_OK;
    PX_TRY(strcmp(path, last_written) == 0 ? px_h5_open_unprobed(&file, path) : px_h5_open(&file, path, NULL));
    px_status status = PX_OK;
    if (px_h5_has(&file, "/samples")) status = px_table_read(&file, "/samples", &samples);
    if (status == PX_OK) status = find_dropped(&samples, keep_iteration, &dropped);
    for (int t = 0; status == PX_OK && t < table_count; t++) {
        if (!px_h5_has(&file, tables[t].name)) continue;
        status = px_table_read(&file, tables[t].name, &old[t]);
        if (status == PX_OK) status = drop_rows(&old[t], keep_iteration, &dropped);
    }
    px_free(dropped.ids);
    px_frame_free(&samples);
    H5Fclose(file.id);
    return status;
}

/* The caller's columns first, then what only the old rows have; old rows, then new ones. */
static px_status join(px_frame *all, const px_frame *old, const px_table_data *table)
{
    px_frame fresh = {.column_count = table->column_count, .rows = table->rows,
                      .columns = (px_column *)(uintptr_t)table->columns, .values = (void **)(uintptr_t)table->values};
    PX_TRY(px_frame_init(all, table->columns, table->column_count));
    if (all->column_count != table->column_count) {
        return px_fail(PX_CONFIG, "%s: two columns have the same name", table->name);
    }
    PX_TRY(px_frame_join_columns(all, old->columns, old->column_count));
    PX_TRY(px_frame_append(all, old, NULL));
    return px_frame_append(all, &fresh, NULL);
}

static px_status write_file(const char *path, const px_table_data *tables, int table_count, const px_frame *all)
{
    const px_layout layout = {.chunk = 0, .compress = true};
    const px_attribute root[] = {{.name = "format", .type = 's', .s = "phalanx-samples"},
                                 {.name = "format_version", .type = 'i', .i = 1}};
    px_h5 file;
    PX_TRY(px_h5_create(&file, path));
    hid_t id = H5Gopen2(file.id, "/", H5P_DEFAULT);
    px_status status = px_h5_write_attributes(&file, id, root, 2);
    H5Gclose(id);
    for (int t = 0; status == PX_OK && t < table_count; t++) {
        status = px_table_create(&file, tables[t].name, &all[t], &layout);
    }
    px_status closed = px_h5_close(&file);
    return status == PX_OK ? closed : status;
}

px_status px_samples_append(const char *path, const px_table_data *tables, int table_count, int64_t keep_iteration,
                            const px_lock *lock)
{
    char temporary[PX_PATH_MAX];
    PX_TRY(px_temporary_path(temporary, sizeof temporary, path));
    px_frame *old = px_alloc_array((size_t)table_count + 1, sizeof *old, "samples");
    px_frame *all = px_alloc_array((size_t)table_count + 1, sizeof *all, "samples");
    px_status status = old && all ? read_old(path, tables, table_count, keep_iteration, old) : px_error_code();
    for (int t = 0; status == PX_OK && t < table_count; t++) status = join(&all[t], &old[t], &tables[t]);
    if (status == PX_OK) status = write_file(temporary, tables, table_count, all);
    if (status == PX_OK && lock) status = px_lock_check(lock);
    if (status == PX_OK) status = px_publish(temporary, path);
    if (status == PX_OK) snprintf(last_written, sizeof last_written, "%s", path);
    if (status != PX_OK) unlink(temporary);
    for (int t = 0; old && all && t < table_count; t++) {
        px_frame_free(&old[t]);
        px_frame_free(&all[t]);
    }
    px_free(old);
    px_free(all);
    return status;
}

px_status px_samples_rows(const char *path, const char *table, int64_t keep_iteration, int64_t *rows)
{
    const px_table_data wanted = {.name = table};
    px_frame old = {0};
    PX_TRY(read_old(path, &wanted, 1, keep_iteration, &old));
    *rows = old.rows;
    px_frame_free(&old);
    return PX_OK;
}
