#include "health.h"
#include "runs.h"
#include "sheet.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_SAMPLES 20

static const char *const view_names[] = {"config", "metrics", "samples", "events", "ranks", "health", "timeline", "evaluation"};
enum { VIEWS = sizeof view_names / sizeof *view_names };

px_status px_view_parse(const char *name, px_view *view)
{
    for (int i = 0; i < VIEWS; i++) {
        if (strcmp(name, view_names[i]) == 0) {
            *view = (px_view)i;
            return PX_OK;
        }
    }
    const char *near = px_nearest_name(name, view_names, VIEWS);
    return px_fail(PX_USAGE,
                   "inspect cannot show '%s'%s%s%s; valid are config, metrics, evaluation, samples, events, ranks, health, timeline",
                   name,
                   near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

/* ---- tables of several runs -------------------------------------------------------------------------------------- */

/* Frames with the run each belongs to. */
typedef struct frame_list {
    px_frame *frames;
    const char **runs;
    int count;
} frame_list;

static void free_list(frame_list *list)
{
    for (int i = 0; i < list->count; i++) px_frame_free(&list->frames[i]);
    px_free(list->frames);
    px_free((void *)list->runs);
}

static px_status add_frame(frame_list *list, const char *run, const char *path, const char *table)
{
    px_frame *frames = px_realloc(list->frames, (size_t)(list->count + 1) * sizeof *frames, "tables");
    if (!frames) return px_error_code();
    list->frames = frames;
    const char **runs = px_realloc((void *)list->runs, (size_t)(list->count + 1) * sizeof *runs, "tables");
    if (!runs) return px_error_code();
    list->runs = runs;
    PX_TRY(px_frame_read(path, table, &frames[list->count]));
    runs[list->count++] = run;
    return PX_OK;
}

static px_status add_samples(frame_list *list, const px_run *run, bool last_file)
{
    char(*files)[PX_PATH_MAX] = NULL;
    int count = 0;
    PX_TRY(px_runs_samples(run, &files, &count));
    px_status status = PX_OK;
    for (int i = last_file && count ? count - 1 : 0; status == PX_OK && i < count; i++) {
        status = add_frame(list, run->name, files[i], "/samples");
    }
    px_free(files);
    return status;
}

/* The columns of all frames in the order in which they are met first: [total] pointers into the frames. */
static const char **all_columns(const frame_list *list, int *total)
{
    int most = 0;
    *total = 0;
    for (int i = 0; i < list->count; i++) most += list->frames[i].column_count;
    const char **names = px_alloc_array((size_t)most + 1, sizeof *names, "columns");
    if (!names) return NULL;
    for (int i = 0; i < list->count; i++) {
        for (int c = 0; c < list->frames[i].column_count; c++) {
            const char *name = list->frames[i].columns[c].name;
            int at = 0;
            while (at < *total && strcmp(names[at], name) != 0) at++;
            if (at == *total) names[(*total)++] = name;
        }
    }
    return names;
}

static void add_value(px_sheet *sheet, const px_frame *frame, int column, int64_t row)
{
    if (column < 0) {
        px_sheet_number(sheet, NAN);
    } else if (frame->columns[column].type == PX_COL_TEXT) {
        px_sheet_text(sheet, px_frame_text(frame, column, row));
    } else if (frame->columns[column].type == PX_COL_F32 || frame->columns[column].type == PX_COL_F64) {
        px_sheet_number(sheet, px_frame_number(frame, column, row));
    } else {
        px_sheet_integer(sheet, (int64_t)px_frame_number(frame, column, row));
    }
}

static px_status fill_sheet(px_sheet *sheet, const frame_list *list, bool with_run)
{
    int total = 0;
    const char **names = all_columns(list, &total);
    int *at = names ? px_alloc_array((size_t)total + 1, sizeof *at, "columns") : NULL;
    if (!at) {
        px_free((void *)names);
        return px_error_code();
    }
    if (with_run) px_sheet_column(sheet, "run");
    for (int c = 0; c < total; c++) px_sheet_column(sheet, names[c]);
    for (int i = 0; i < list->count; i++) {
        const px_frame *frame = &list->frames[i];
        for (int c = 0; c < total; c++) at[c] = px_frame_column(frame, names[c]);
        for (int64_t row = 0; row < frame->rows; row++) {
            if (with_run) px_sheet_text(sheet, list->runs[i]);
            for (int c = 0; c < total; c++) add_value(sheet, frame, at[c], row);
        }
    }
    px_free(at);
    px_free((void *)names);
    return sheet->status;
}

/* ---- what people want to see of it ------------------------------------------------------------------------------- */

/* A line a metric. */
static void sum_up(px_sheet *sheet, const px_frame *frame)
{
    static const char *const names[] = {"metric", "units", "last", "mean", "least", "most", "rows"};
    for (int i = 0; i < 7; i++) px_sheet_column(sheet, names[i]);
    for (int c = 1; c < frame->column_count; c++) {
        double last = NAN, least = NAN, most = NAN, sum = 0;
        int64_t count = 0;
        for (int64_t row = 0; row < frame->rows; row++) {
            double value = px_frame_number(frame, c, row);
            if (isnan(value)) continue;
            last = value;
            sum += value;
            count++;
            least = count == 1 || value < least ? value : least;
            most = count == 1 || value > most ? value : most;
        }
        px_sheet_text(sheet, frame->columns[c].name);
        px_sheet_text(sheet, frame->columns[c].units);
        px_sheet_number(sheet, last);
        px_sheet_number(sheet, count ? sum / (double)count : NAN);
        px_sheet_number(sheet, least);
        px_sheet_number(sheet, most);
        px_sheet_integer(sheet, count);
    }
}

/* The samples of the last iteration, a part of the columns. */
static void show_samples(px_sheet *sheet, const px_frame *frame)
{
    static const char *const names[] = {"sample", "iteration", "prompt_id", "score", "completion_length",
                                        "finish", "prompt",    "completion"};
    int at[8], iteration = px_frame_column(frame, "iteration");
    double last = frame->rows ? px_frame_number(frame, iteration, frame->rows - 1) : NAN;
    int shown = 0;
    for (int i = 0; i < 8; i++) {
        px_sheet_column(sheet, names[i]);
        at[i] = px_frame_column(frame, names[i]);
    }
    for (int64_t row = 0; row < frame->rows && shown < SHOWN_SAMPLES; row++) {
        if (iteration >= 0 && px_frame_number(frame, iteration, row) != last) continue;
        for (int i = 0; i < 8; i++) add_value(sheet, frame, at[i], row);
        shown++;
    }
}

static px_status print_frames(const px_inspect_options *options, const frame_list *list)
{
    px_status status = PX_OK;
    if (options->form != PX_FORM_TABLE) {
        px_sheet sheet = {0};
        status = fill_sheet(&sheet, list, true);
        if (status == PX_OK) status = px_sheet_print(&sheet, options->form, options->out);
        px_sheet_free(&sheet);
        return status;
    }
    for (int i = 0; status == PX_OK && i < list->count; i++) {
        const px_frame *frame = &list->frames[i];
        px_sheet sheet = {0};
        if (list->count > 1) fprintf(options->out, "%s%s\n", i ? "\n" : "", list->runs[i]);
        if (options->view == PX_VIEW_METRICS) {
            sum_up(&sheet, frame);
        } else if (options->view == PX_VIEW_SAMPLES) {
            show_samples(&sheet, frame);
        } else {
            const frame_list one = {.frames = &list->frames[i], .runs = &list->runs[i], .count = 1};
            status = fill_sheet(&sheet, &one, false);
        }
        if (status == PX_OK) status = px_sheet_print(&sheet, PX_FORM_TABLE, options->out);
        px_sheet_free(&sheet);
    }
    return status;
}

static px_status inspect_tables(const px_inspect_options *options, const px_run *runs, int count)
{
    static const char *const tables[] = {"", "/metrics", "/samples", "/events", "/ranks", "", "", "/evaluation"};
    frame_list list = {0};
    px_status status = PX_OK;
    for (int i = 0; status == PX_OK && i < count; i++) {
        status = options->view == PX_VIEW_SAMPLES
                     ? add_samples(&list, &runs[i], options->form == PX_FORM_TABLE)
                     : add_frame(&list, runs[i].name, runs[i].file, tables[options->view]);
    }
    if (status == PX_OK) status = print_frames(options, &list);
    free_list(&list);
    return status;
}

/* ---- keys and values --------------------------------------------------------------------------------------------- */

static void add_json(px_sheet *sheet, const json_t *value)
{
    if (json_is_string(value)) {
        px_sheet_text(sheet, json_string_value(value));
    } else if (json_is_boolean(value)) {
        px_sheet_text(sheet, json_is_true(value) ? "true" : "false");
    } else if (json_is_integer(value)) {
        px_sheet_integer(sheet, json_integer_value(value));
    } else {
        px_sheet_number(sheet, json_is_real(value) ? json_real_value(value) : NAN);
    }
}

/* config and health are objects: a row a key, or in JSON an object a run. */
static px_status print_objects(const px_inspect_options *options, const px_run *runs, json_t *const *objects, int count)
{
    bool table = options->form == PX_FORM_TABLE;
    px_status status = PX_OK;
    if (options->form == PX_FORM_JSON) {
        json_t *all = json_array();
        for (int i = 0; i < count; i++) {
            json_t *one = json_pack("{s:s}", "run", runs[i].name);
            json_object_update(one, objects[i]);
            json_array_append_new(all, one);
        }
        json_dumpf(all, options->out, JSON_INDENT(1));
        fputc('\n', options->out);
        json_decref(all);
        return PX_OK;
    }
    px_sheet sheet = {0};
    for (int i = 0; status == PX_OK && i < count; i++) {
        const char *key;
        json_t *value;
        if (table && count > 1) fprintf(options->out, "%s%s\n", i ? "\n" : "", runs[i].name);
        if (sheet.columns == 0) {
            if (!table) px_sheet_column(&sheet, "run");
            px_sheet_column(&sheet, options->view == PX_VIEW_CONFIG ? "key" : "check");
            px_sheet_column(&sheet, "value");
        }
        json_object_foreach(objects[i], key, value)
        {
            bool document = strcmp(key, "yaml") == 0 || strcmp(key, "source") == 0;
            if (options->view == PX_VIEW_CONFIG && document) continue;
            if (!table) px_sheet_text(&sheet, runs[i].name);
            px_sheet_text(&sheet, key);
            add_json(&sheet, value);
        }
        if (!table && i + 1 < count) continue;
        status = px_sheet_print(&sheet, options->form, options->out);
        px_sheet_free(&sheet);
    }
    px_sheet_free(&sheet);
    return status;
}

static px_status inspect_objects(const px_inspect_options *options, const px_run *runs, int count)
{
    json_t **objects = px_alloc_array((size_t)count + 1, sizeof *objects, "runs");
    if (!objects) return px_error_code();
    px_status status = PX_OK;
    for (int i = 0; status == PX_OK && i < count; i++) {
        status = options->view == PX_VIEW_CONFIG ? px_attributes_read(runs[i].file, "/config", &objects[i])
                                                 : px_health(&runs[i], &objects[i]);
    }
    if (status == PX_OK) status = print_objects(options, runs, objects, count);
    for (int i = 0; i < count; i++) json_decref(objects[i]);
    px_free(objects);
    return status;
}

px_status px_inspect(const px_inspect_options *options)
{
    px_run *runs = NULL;
    int count = 0;
    bool objects = options->view == PX_VIEW_CONFIG || options->view == PX_VIEW_HEALTH;
    PX_TRY(px_runs_find(options->paths, options->path_count, &runs, &count));
    px_status status = objects ? inspect_objects(options, runs, count) : inspect_tables(options, runs, count);
    px_free(runs);
    return status;
}
