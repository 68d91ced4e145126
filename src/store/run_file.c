/* The run file. While a run lives the file is in HDF5's single-writer/multiple-reader mode: every group, column and
 * attribute exists before that mode starts, afterwards rows are appended and nothing else. A resumed run writes its
 * file anew from the rows it keeps and renames it: a reader that still holds the old one disturbs nobody, and a second
 * kill in between leaves the old file as it was. */
#include "data_tables.h"
#include "frame.h"
#include "rewrite.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LIVE_CHUNK 256  /* rows of a chunk of a live column */
#define FORMAT_VERSION 1

#define COLUMN(n, t, u, l) {.name = (n), .type = (t), .units = (u), .long_name = (l)}
#define TEXT(n, w, l) {.name = (n), .type = PX_COL_TEXT, .width = (w), .units = "1", .long_name = (l)}
static const px_column metric_front[] = {
    COLUMN("iteration", PX_COL_I64, "1", "iteration"),
    COLUMN("timestamp", PX_COL_F64, "s", "time of writing, since 1970-01-01 00:00 UTC"),
    COLUMN("segment", PX_COL_F64, "1", "segment of the run, a row of /segments")};
static const px_column evaluation_front[] = {
    COLUMN("iteration", PX_COL_I64, "1", "iteration that was evaluated, 0: before training")};
static const px_column event_columns[] = {
    COLUMN("event", PX_COL_I64, "1", "number of the event"),
    COLUMN("timestamp", PX_COL_F64, "s", "time of the event, since 1970-01-01 00:00 UTC"),
    COLUMN("iteration", PX_COL_I64, "1", "iteration in which it happened"),
    COLUMN("rank", PX_COL_I32, "1", "MPI rank that it concerns, -1: all"),
    TEXT("kind", 32, "kind of event"), TEXT("text", 240, "what happened")};
static const px_column segment_columns[] = {
    COLUMN("segment", PX_COL_I64, "1", "number of the segment: from a start to its stop"),
    COLUMN("start", PX_COL_F64, "s", "start, since 1970-01-01 00:00 UTC"),
    COLUMN("end", PX_COL_F64, "s", "end, since 1970-01-01 00:00 UTC; NaN while it runs"),
    COLUMN("first_iteration", PX_COL_I64, "1", "first iteration"),
    COLUMN("last_iteration", PX_COL_I64, "1", "last finished iteration; -1 while it runs"),
    COLUMN("num_ranks", PX_COL_I32, "1", "MPI ranks"),
    COLUMN("exit_code", PX_COL_I32, "1", "exit code; -1 while it runs and after a kill"),
    TEXT("job_id", 32, "Slurm job"), TEXT("reason", 64, "why it ended"), {.name = "commit", .type = PX_COL_TEXT, .width = 41, .whole = true, .units = "1", .long_name = "commit of the program"}};
static const px_column rank_columns[] = {COLUMN("entry", PX_COL_I64, "1", "number of the row"),
                                         COLUMN("segment", PX_COL_I32, "1", "segment of the run, a row of /segments"),
                                         COLUMN("rank", PX_COL_I32, "1", "MPI rank"),
                                         COLUMN("cpus", PX_COL_I32, "1", "CPUs it may use"),
                                         COLUMN("pid", PX_COL_I32, "1", "process id"),
                                         TEXT("host", 64, "host name"),
                                         TEXT("role", 16, "what the rank does")};

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
enum { METRIC_FRONT = COUNT(metric_front), EVALUATION_FRONT = COUNT(evaluation_front) };

struct px_run_file {
    px_h5 h5;
    char *path;
    px_table tables[PX_RUN_TABLES]; /* PX_METRICS to PX_SEGMENTS are open */
    int metric_count, evaluation_count; /* the caller's */
    int segment;
    int64_t segment_row, next_event;
    double *row;         /* one number a column, and below where each lies */
    const void **values;
};

/* ---- content before the first row -------------------------------------------------------------------------------- */

static px_status init_columns(px_frame *frames, const px_run_header *header)
{
    PX_TRY(px_frame_init(&frames[PX_METRICS], metric_front, METRIC_FRONT));
    PX_TRY(px_frame_join_columns(&frames[PX_METRICS], header->metrics, header->metric_count));
    PX_TRY(px_frame_init(&frames[PX_EVALUATION], evaluation_front, EVALUATION_FRONT));
    PX_TRY(px_frame_join_columns(&frames[PX_EVALUATION], header->evaluation, header->evaluation_count));
    PX_TRY(px_frame_init(&frames[PX_EVENTS], event_columns, COUNT(event_columns)));
    PX_TRY(px_frame_init(&frames[PX_SEGMENTS], segment_columns, COUNT(segment_columns)));
    return px_frame_init(&frames[PX_RANKS], rank_columns, COUNT(rank_columns));
}

static px_status init_tokenizer(px_frame *frame, const px_run_header *header)
{
    size_t width = 1;
    if (!header->tokens) return PX_OK;
    for (int i = 0; i < header->token_count; i++) {
        size_t length = header->tokens[i] ? strlen(header->tokens[i]) + 1 : 1;
        if (length > width) width = length;
    }
    const px_column columns[] = {COLUMN("id", PX_COL_I64, "1", "token id"),
                                 TEXT("text", width < 256 ? (int)width : 256, "token")};
    PX_TRY(px_frame_init(frame, columns, 2));
    for (int i = 0; i < 2; i++) {
        frame->values[i] = px_alloc_array((size_t)header->token_count + 1, px_column_size(&columns[i]), "tokens");
        if (!frame->values[i]) return px_error_code();
    }
    for (int i = 0; i < header->token_count; i++) {
        size_t size = px_column_size(&columns[1]);
        ((int64_t *)frame->values[0])[i] = i;
        px_text_fit((char *)frame->values[1] + (size_t)i * size, size, header->tokens[i] ? header->tokens[i] : "");
    }
    frame->rows = header->token_count;
    return PX_OK;
}

/* The names of the header must be new ones: px_frame_join_columns takes equal names for the same column. */
static px_status check_header(const char *path, const px_run_header *header, const px_frame *frames)
{
    if (frames[PX_METRICS].column_count != METRIC_FRONT + header->metric_count ||
        frames[PX_EVALUATION].column_count != EVALUATION_FRONT + header->evaluation_count) {
        return px_fail(PX_CONFIG, "%s: two metrics have the same name; names must differ", path);
    }
    for (int c = 0; c < frames[PX_METRICS].column_count + frames[PX_EVALUATION].column_count; c++) {
        int e = c - frames[PX_METRICS].column_count;
        const px_column *column = e < 0 ? &frames[PX_METRICS].columns[c] : &frames[PX_EVALUATION].columns[e];
        bool index = c == 0 || e == 0;
        if (column->type != (index ? PX_COL_I64 : PX_COL_F64)) {
            return px_fail(PX_BUG, "%s: metric %s must be float64", path, column->name);
        }
    }
    return PX_OK;
}

/* ---- resume ------------------------------------------------------------------------------------------------------ */

/* Rows of a later iteration than the one that is resumed are dropped. */
static px_status keep_rows(px_frame *to, const px_frame *from, int64_t last_iteration)
{
    int column = px_frame_column(from, "iteration");
    unsigned char *keep = px_alloc((size_t)from->rows + 1, "rows");
    if (!keep) return px_error_code();
    for (int64_t row = 0; row < from->rows; row++) {
        keep[row] = column < 0 || px_frame_number(from, column, row) <= (double)last_iteration;
    }
    px_status status = px_frame_join_columns(to, from->columns, from->column_count);
    if (status == PX_OK) status = px_frame_append(to, from, keep);
    px_free(keep);
    return status;
}

/* A segment that was killed has no end: it gets the time of its last row. */
static void end_killed_segments(px_frame *segments, const px_frame *metrics, int64_t last_iteration)
{
    int end = px_frame_column(segments, "end"), start = px_frame_column(segments, "start");
    int last = px_frame_column(segments, "last_iteration"), reason = px_frame_column(segments, "reason");
    int time_column = px_frame_column(metrics, "timestamp");
    for (int64_t row = 0; row < segments->rows; row++) {
        if (!isnan(px_frame_number(segments, end, row))) continue;
        double *ends = segments->values[end];
        int64_t *lasts = segments->values[last];
        double time_of_last = px_frame_number(metrics, time_column, metrics->rows - 1);
        double started = px_frame_number(segments, start, row);
        ends[row] = time_of_last > started ? time_of_last : started;
        lasts[row] = last_iteration;
        size_t width = px_column_size(&segments->columns[reason]);
        px_text_fit((char *)segments->values[reason] + (size_t)row * width, width, "killed");
    }
}

static px_status take_over(const char *path, px_frame *frames, int64_t last_iteration, char **created)
{
    px_h5 old;
    px_frame all_metrics = {0};
    PX_TRY(px_h5_open(&old, path, NULL));
    px_status status = PX_OK;
    for (int t = PX_METRICS; status == PX_OK && t <= PX_RANKS; t++) {
        px_frame frame;
        status = px_table_read(&old, px_run_tables[t], &frame);
        if (status != PX_OK) break;
        status = keep_rows(&frames[t], &frame, last_iteration);
        if (t == PX_METRICS) {
            all_metrics = frame;
        } else {
            px_frame_free(&frame);
        }
    }
    if (status == PX_OK) end_killed_segments(&frames[PX_SEGMENTS], &all_metrics, last_iteration);
    px_frame_free(&all_metrics);
    hid_t root = H5Gopen2(old.id, "/", H5P_DEFAULT);
    px_attribute attribute = {.name = "created", .type = 's'};
    if (status == PX_OK) status = px_h5_read_attribute(&old, root, &attribute);
    *created = (char *)(uintptr_t)attribute.s;
    if (root >= 0) H5Gclose(root);
    H5Fclose(old.id);
    return status;
}

/* ---- creation ---------------------------------------------------------------------------------------------------- */

static px_status write_config(const px_h5 *h5, const px_run_header *header)
{
    hid_t config = H5Gcreate2(h5->id, "/config", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t build = H5Gcreate2(h5->id, "/build", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    const px_attribute hash = {.name = "hash", .type = 's', .s = header->config_hash};
    px_status status = config < 0 || build < 0 ? px_h5_fail(PX_IO, h5->path, "cannot create a group") : PX_OK;
    if (status == PX_OK) status = px_h5_write_attribute(h5, config, &hash);
    if (status == PX_OK) status = px_h5_write_attributes(h5, config, header->config, header->config_count);
    if (status == PX_OK) status = px_h5_write_scalar(h5, config, "yaml", header->yaml);
    if (status == PX_OK) status = px_h5_write_scalar(h5, config, "source", header->source);
    if (status == PX_OK) status = px_h5_write_attributes(h5, build, header->build, header->build_count);
    if (config >= 0) H5Gclose(config);
    if (build >= 0) H5Gclose(build);
    return status;
}

static px_status write_root(const px_h5 *h5, const px_run_header *header, const char *created)
{
    char now[32];
    time_t seconds = time(NULL);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &utc);
    const px_attribute root[] = {{.name = "format", .type = 's', .s = "phalanx-run"},
                                 {.name = "format_version", .type = 'i', .i = FORMAT_VERSION},
                                 {.name = "run_name", .type = 's', .s = header->run_name},
                                 {.name = "created", .type = 's', .s = created ? created : now},
                                 {.name = "algorithm", .type = 's', .s = header->algorithm}};
    hid_t id = H5Gopen2(h5->id, "/", H5P_DEFAULT);
    px_status status = px_h5_write_attributes(h5, id, root, COUNT(root));
    H5Gclose(id);
    return status;
}

static px_status write_tokenizer(const px_h5 *h5, const px_run_header *header, const px_frame *frame)
{
    const px_layout layout = {.chunk = 0, .compress = true}; /* never appended to */
    const px_attribute ids[] = {{.name = "bos_token_id", .type = 'i', .i = header->bos_id},
                                {.name = "eos_token_id", .type = 'i', .i = header->eos_id}};
    if (frame->column_count == 0) return PX_OK;
    PX_TRY(px_table_create(h5, px_run_tables[PX_TOKENIZER], frame, &layout));
    hid_t group = px_h5_find(h5, px_run_tables[PX_TOKENIZER], H5I_GROUP);
    if (group < 0) return px_error_code();
    px_status status = px_h5_write_attributes(h5, group, ids, 2);
    H5Gclose(group);
    return status;
}

static px_status write_all(const px_h5 *h5, const px_run_header *header, const px_frame *frames, const char *created)
{
    const px_layout live = {.chunk = LIVE_CHUNK, .compress = false};
    PX_TRY(write_root(h5, header, created));
    PX_TRY(write_config(h5, header));
    for (int t = PX_METRICS; t <= PX_RANKS; t++) PX_TRY(px_table_create(h5, px_run_tables[t], &frames[t], &live));
    const px_layout fixed = {.chunk = 0, .compress = false};
    for (int t = PX_DATA_FILES; t <= PX_DATA_LENGTHS; t++) PX_TRY(px_table_create(h5, px_run_tables[t], &frames[t], &fixed));
    return write_tokenizer(h5, header, &frames[PX_TOKENIZER]);
}

/* Durable under its name, then live. */
static px_status start(px_run_file *file, const char *temporary)
{
    PX_TRY(px_h5_sync(&file->h5));
    PX_FAULT("store.swmr", file->path);
    if (H5Fstart_swmr_write(file->h5.id) < 0) {
        return px_h5_fail(PX_IO, file->path, "cannot be made readable while it is written");
    }
    PX_TRY(px_publish(temporary, file->path));
    file->h5.path = file->path;
    for (int t = PX_METRICS; t <= PX_SEGMENTS; t++) PX_TRY(px_table_open(&file->h5, px_run_tables[t], &file->tables[t]));
    return PX_OK;
}

static px_status open_segment(px_run_file *file, px_frame *frames, const px_segment *segment,
                              const px_rank_entry *ranks, int rank_count)
{
    px_frame *segments = &frames[PX_SEGMENTS];
    int column = px_frame_column(segments, "segment");
    for (int64_t row = 0; row < segments->rows; row++) {
        int number = (int)px_frame_number(segments, column, row);
        if (number >= file->segment) file->segment = number + 1;
    }
    const double values[] = {file->segment, px_wall_time(), NAN, (double)segment->first_iteration, -1,
                             segment->num_ranks, -1, 0, 0, 0};
    const char *const texts[] = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, segment->job_id, "", segment->commit};
    file->segment_row = segments->rows;
    PX_TRY(px_frame_add_row(segments, values, texts));
    for (int i = 0; i < rank_count; i++) {
        const double numbers[] = {
            (double)frames[PX_RANKS].rows, file->segment, ranks[i].rank, ranks[i].cpus, ranks[i].pid, 0, 0};
        const char *const names[] = {NULL, NULL, NULL, NULL, NULL, ranks[i].host, ranks[i].role};
        PX_TRY(px_frame_add_row(&frames[PX_RANKS], numbers, names));
    }
    const px_frame *events = &frames[PX_EVENTS];
    if (events->rows) file->next_event = (int64_t)px_frame_number(events, 0, events->rows - 1) + 1;
    return PX_OK;
}

/* Before a run that is new takes the name: PX_DATA for what no run has written. */
static px_status look(const char *path)
{
    px_h5 old;
    px_frame segments;
    PX_TRY(px_h5_open(&old, path, NULL));
    px_status status = px_table_read(&old, px_run_tables[PX_SEGMENTS], &segments);
    if (status == PX_OK) px_frame_free(&segments);
    H5Fclose(old.id);
    return status;
}

/* The checkpoints are worth more than the log. */
static px_status set_aside(const char *path)
{
    px_buf what = {0};
    px_status status = px_set_aside(path, &what);
    if (status == PX_OK) px_log(PX_WARNING, "%s; the log starts anew", what.data);
    px_buf_free(&what);
    return status;
}

/* Everything the file starts with: the columns, and on resume the rows that are kept. */
static px_status gather(const char *path, const px_run_header *header, bool resume, int64_t last_iteration,
                        px_frame *frames, char **created)
{
    PX_TRY(init_columns(frames, header));
    PX_TRY(check_header(path, header, frames));
    if (px_file_exists(path)) {
        px_status status = resume ? take_over(path, frames, last_iteration, created) : look(path);
        if (status != PX_OK && status != PX_DATA) return status;
        if (status == PX_DATA) {
            PX_TRY(set_aside(path));
            for (int t = PX_METRICS; t <= PX_RANKS; t++) px_frame_free(&frames[t]);
            PX_TRY(init_columns(frames, header));
        }
    }
    PX_TRY(px_data_tables_init(&frames[PX_DATA_FILES], &frames[PX_DATA_LENGTHS], header));
    return init_tokenizer(&frames[PX_TOKENIZER], header);
}

static px_status create(px_run_file *file, const px_run_header *header, const px_frame *frames, const char *created)
{
    char temporary[PX_PATH_MAX];
    PX_TRY(px_temporary_path(temporary, sizeof temporary, file->path));
    px_status status = px_h5_create(&file->h5, temporary);
    if (status == PX_OK) status = write_all(&file->h5, header, frames, created);
    if (status == PX_OK) status = start(file, temporary);
    if (status != PX_OK) unlink(temporary);
    return status;
}

/* Room for one row of the widest table. Columns that only the old file had stay NaN. */
static px_status plan_row(px_run_file *file)
{
    size_t metrics = (size_t)file->tables[PX_METRICS].shape.column_count;
    size_t evaluation = (size_t)file->tables[PX_EVALUATION].shape.column_count;
    size_t most = metrics > evaluation ? metrics : evaluation;
    file->row = px_alloc_array(most, sizeof *file->row, "row of metrics");
    file->values = px_alloc_array(most, sizeof *file->values, "row of metrics");
    return file->row && file->values ? PX_OK : px_error_code();
}

static void destroy(px_run_file *file)
{
    for (int t = 0; t < PX_RUN_TABLES; t++) px_table_close(&file->tables[t]);
    if (file->h5.id >= 0) H5Fclose(file->h5.id);
    px_free(file->path);
    px_free(file->row);
    px_free((void *)file->values);
    px_free(file);
}

px_status px_run_file_open(px_run_file **out, const char *path, const px_run_header *header, bool resume,
                           int64_t last_iteration, const px_segment *segment, const px_rank_entry *ranks,
                           int rank_count)
{
    px_frame frames[PX_RUN_TABLES] = {{0}};
    char *created = NULL;
    *out = NULL;
    px_h5_start();
    px_run_file *file = px_alloc(sizeof *file, "run file");
    if (!file) return px_error_code();
    file->h5.id = -1;
    file->metric_count = header->metric_count;
    file->evaluation_count = header->evaluation_count;
    file->path = px_strdup(path);
    px_status status = file->path ? PX_OK : px_error_code();
    if (status == PX_OK) status = gather(file->path, header, resume, last_iteration, frames, &created);
    if (status == PX_OK) status = open_segment(file, frames, segment, ranks, rank_count);
    if (status == PX_OK) status = create(file, header, frames, created);
    if (status == PX_OK) status = plan_row(file);
    for (int t = 0; t < PX_RUN_TABLES; t++) px_frame_free(&frames[t]);
    px_free(created);
    if (status == PX_OK) {
        *out = file;
    } else {
        destroy(file);
    }
    return status;
}

int px_run_file_segment(const px_run_file *file)
{
    return file->segment;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Rows for a file that has no name any more would be lost with the process. */
static px_status check_place(const px_run_file *file)
{
    void *handle = NULL;
    struct stat ours, named;
    if (H5Fget_vfd_handle(file->h5.id, H5P_DEFAULT, &handle) < 0 || fstat(*(int *)handle, &ours) != 0) {
        return px_h5_fail(PX_IO, file->path, "cannot be looked at");
    }
    if (stat(file->path, &named) == 0 && ours.st_dev == named.st_dev && ours.st_ino == named.st_ino) return PX_OK;
    return px_fail(PX_IO, "%s: was removed or replaced while the run was writing it", file->path);
}

/* One row; front: the columns that stand before the caller's, already in file->row. */
static px_status append_row(px_run_file *file, px_table *table, int64_t iteration, int front, const double *values,
                            int count)
{
    file->values[0] = &iteration;
    for (int c = 1; c < table->shape.column_count; c++) {
        if (c >= front) file->row[c] = c - front < count ? values[c - front] : NAN;
        file->values[c] = &file->row[c];
    }
    PX_TRY(px_table_append(&file->h5, table, 1, file->values));
    PX_TRY(px_h5_sync(&file->h5));
    return check_place(file);
}

px_status px_run_file_metrics(px_run_file *file, int64_t iteration, const double *values)
{
    file->row[1] = px_wall_time();
    file->row[2] = file->segment;
    return append_row(file, &file->tables[PX_METRICS], iteration, METRIC_FRONT, values, file->metric_count);
}

px_status px_run_file_evaluation(px_run_file *file, int64_t iteration, const double *values)
{
    return append_row(file, &file->tables[PX_EVALUATION], iteration, EVALUATION_FRONT, values, file->evaluation_count);
}

px_status px_run_file_event(px_run_file *file, int64_t iteration, int rank, const char *kind, const char *text)
{
    px_table *table = &file->tables[PX_EVENTS];
    const px_column *columns = table->shape.columns;
    char kind_text[256] = {0}, event_text[1024] = {0};
    double now = px_wall_time();
    int32_t rank_number = rank;
    if (table->shape.column_count != COUNT(event_columns) || columns[4].width > (int)sizeof kind_text ||
        columns[5].width > (int)sizeof event_text) {
        return px_fail(PX_DATA, "%s: /events has other columns than this version writes", file->path);
    }
    px_text_fit(kind_text, (size_t)columns[4].width, kind);
    px_text_fit(event_text, (size_t)columns[5].width, text ? text : "");
    const void *values[] = {&file->next_event, &now, &iteration, &rank_number, kind_text, event_text};
    PX_TRY(px_table_append(&file->h5, table, 1, values));
    file->next_event++;
    return PX_OK;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

static px_status end_segment(px_run_file *file, int64_t last_iteration, int exit_code, const char *reason)
{
    px_table *table = &file->tables[PX_SEGMENTS];
    int column = px_frame_column(&table->shape, "reason");
    char text[1024];
    double now = px_wall_time();
    int32_t code = exit_code;
    if (column < 0 || table->shape.columns[column].width > (int)sizeof text) {
        return px_fail(PX_DATA, "%s: /segments has other columns than this version writes", file->path);
    }
    px_text_fit(text, (size_t)table->shape.columns[column].width, reason ? reason : "");
    PX_TRY(px_table_set(&file->h5, table, "end", file->segment_row, &now));
    PX_TRY(px_table_set(&file->h5, table, "last_iteration", file->segment_row, &last_iteration));
    PX_TRY(px_table_set(&file->h5, table, "exit_code", file->segment_row, &code));
    PX_TRY(px_table_set(&file->h5, table, "reason", file->segment_row, text));
    return px_h5_sync(&file->h5);
}

px_status px_run_file_close(px_run_file *file, int64_t last_iteration, int exit_code, const char *reason, bool finished)
{
    if (!file) return PX_OK;
    px_status status = end_segment(file, last_iteration, exit_code, reason);
    for (int t = 0; t < PX_RUN_TABLES; t++) px_table_close(&file->tables[t]);
    px_status closed = px_h5_close(&file->h5);
    if (status == PX_OK) status = closed;
    /* The live file is complete: not making it smaller is no reason to fail. */
    if (status == PX_OK && finished && px_run_file_rewrite(file->path, file->path) != PX_OK) {
        px_log(PX_WARNING, "%s; the run file stays uncompressed", px_error_text());
        px_error_clear();
    }
    destroy(file);
    return status;
}
