#include "curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char evaluation_prefix[] = "evaluation/";

/* ---- keys and groups --------------------------------------------------------------------------------------------- */

/* Names, places and documents say nothing about what a run does. */
static bool key_matters(const char *key)
{
    static const char *const others[] = {"hash", "yaml", "source", "run.name", "run.dir"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(key, others[i]) == 0) return false;
    }
    return true;
}

static bool in_list(json_t *list, const char *text)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        if (strcmp(json_string_value(entry), text) == 0) return true;
    }
    return false;
}

static void find_differing(px_curves *curves)
{
    for (int a = 0; a < curves->run_count; a++) {
        const char *key;
        json_t *value;
        json_object_foreach(curves->config[a], key, value)
        {
            bool same = true;
            for (int b = 0; same && b < curves->run_count; b++) {
                json_t *other = json_object_get(curves->config[b], key);
                same = other && json_equal(other, value);
            }
            if (!same && key_matters(key) && !in_list(curves->differing, key)) {
                json_array_append_new(curves->differing, json_string(key));
            }
        }
    }
}

static px_status add_key(px_buf *label, const px_curves *curves, int run, const char *key)
{
    json_t *value = json_object_get(curves->config[run], key);
    if (label->length) PX_TRY(px_buf_text(label, ", "));
    PX_TRY(px_buf_printf(label, "%s=", key));
    if (json_is_string(value)) return px_buf_text(label, json_string_value(value));
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6)) : NULL;
    px_status status = px_buf_text(label, text ? text : "-");
    free(text);
    return status;
}

static px_status label_run(const px_curves *curves, int run, const char *group_by, px_buf *label)
{
    size_t i;
    json_t *key;
    if (!group_by) return px_buf_text(label, curves->runs[run].name);
    if (strcmp(group_by, "run.seed") != 0) return add_key(label, curves, run, group_by);
    json_array_foreach(curves->differing, i, key)
    {
        if (strcmp(json_string_value(key), "run.seed") == 0) continue;
        PX_TRY(add_key(label, curves, run, json_string_value(key)));
    }
    return label->length ? PX_OK : px_buf_text(label, "all runs");
}

static px_status find_groups(px_curves *curves, const char *group_by)
{
    for (int run = 0; run < curves->run_count; run++) {
        px_buf label = {0};
        if (group_by && !json_object_get(curves->config[run], group_by)) {
            return px_fail(PX_USAGE, "--group-by %s: %s has no such configuration key", group_by,
                           curves->runs[run].name);
        }
        px_status status = label_run(curves, run, group_by, &label);
        size_t at = 0;
        while (status == PX_OK && at < json_array_size(curves->groups) &&
               strcmp(json_string_value(json_array_get(curves->groups, at)), label.data) != 0) at++;
        if (status == PX_OK && at == json_array_size(curves->groups)) {
            json_array_append_new(curves->groups, json_string(label.data));
        }
        curves->group[run] = (int)at;
        px_buf_free(&label);
        if (status != PX_OK) return status;
    }
    return PX_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void add_names(px_curves *curves, const px_frame *frame, const char *prefix)
{
    for (int c = 1; c < frame->column_count; c++) {
        char name[300];
        bool measured = false;
        if (strcmp(frame->columns[c].name, "timestamp") == 0 || strcmp(frame->columns[c].name, "segment") == 0)
            continue;
        for (int64_t row = 0; row < frame->rows && !measured; row++)
            measured = isfinite(px_frame_number(frame, c, row));
        snprintf(name, sizeof name, "%s%s", prefix, frame->columns[c].name);
        if (measured && !in_list(curves->names, name)) json_array_append_new(curves->names, json_string(name));
    }
}

px_status px_curves_read(px_curves *curves, const px_report_options *options)
{
    memset(curves, 0, sizeof *curves);
    PX_TRY(px_runs_find(options->paths, options->path_count, &curves->runs, &curves->run_count));
    size_t n = (size_t)curves->run_count;
    curves->metrics = px_alloc_array(n, sizeof *curves->metrics, "report");
    curves->evaluation = px_alloc_array(n, sizeof *curves->evaluation, "report");
    curves->config = px_alloc_array(n, sizeof *curves->config, "report");
    curves->root = px_alloc_array(n, sizeof *curves->root, "report");
    curves->group = px_alloc_array(n, sizeof *curves->group, "report");
    if (!curves->metrics || !curves->evaluation || !curves->config || !curves->root || !curves->group) {
        return px_error_code();
    }
    curves->differing = json_array();
    curves->groups = json_array();
    curves->names = json_array();
    for (size_t i = 0; i < n; i++) {
        PX_TRY(px_frame_read(curves->runs[i].file, "/metrics", &curves->metrics[i]));
        PX_TRY(px_frame_read(curves->runs[i].file, "/evaluation", &curves->evaluation[i]));
        PX_TRY(px_attributes_read(curves->runs[i].file, "/config", &curves->config[i]));
        PX_TRY(px_attributes_read(curves->runs[i].file, "/", &curves->root[i]));
        add_names(curves, &curves->metrics[i], "");
        add_names(curves, &curves->evaluation[i], evaluation_prefix);
    }
    find_differing(curves);
    return find_groups(curves, options->group_by);
}

void px_curves_free(px_curves *curves)
{
    for (int i = 0; i < curves->run_count; i++) {
        if (curves->metrics) px_frame_free(&curves->metrics[i]);
        if (curves->evaluation) px_frame_free(&curves->evaluation[i]);
        if (curves->config) json_decref(curves->config[i]);
        if (curves->root) json_decref(curves->root[i]);
    }
    px_free(curves->metrics);
    px_free(curves->evaluation);
    px_free(curves->config);
    px_free(curves->root);
    px_free(curves->group);
    px_free(curves->runs);
    json_decref(curves->differing);
    json_decref(curves->groups);
    json_decref(curves->names);
    memset(curves, 0, sizeof *curves);
}

/* ---- curves ------------------------------------------------------------------------------------------------------ */

const px_frame *px_curves_find(const px_curves *curves, int run, const char *name, int *column)
{
    const px_frame *frame = &curves->metrics[run];
    *column = px_frame_column(frame, name);
    size_t length = sizeof evaluation_prefix - 1;
    if (*column < 0 && strncmp(name, evaluation_prefix, length) == 0) {
        frame = &curves->evaluation[run];
        *column = px_frame_column(frame, name + length);
    }
    return frame;
}

static int by_iteration(const void *a, const void *b)
{
    double x = ((const px_point *)a)->iteration, y = ((const px_point *)b)->iteration;
    return (x > y) - (x < y);
}

/* Mean and deviation of `count` single values, in two passes. */
static px_point merge(const px_point *values, int64_t count)
{
    px_point all = {.iteration = values[0].iteration, .runs = (int)count};
    for (int64_t i = 0; i < count; i++) all.mean += values[i].mean / (double)count;
    for (int64_t i = 0; i < count; i++) all.deviation += (values[i].mean - all.mean) * (values[i].mean - all.mean);
    all.deviation = count > 1 ? sqrt(all.deviation / (double)(count - 1)) : 0;
    return all;
}

px_status px_curves_points(const px_curves *curves, const char *name, int group, px_point **points, int64_t *count)
{
    int64_t most = 0, n = 0, merged = 0;
    *points = NULL;
    *count = 0;
    for (int run = 0; run < curves->run_count; run++) most += curves->metrics[run].rows + curves->evaluation[run].rows;
    px_point *all = px_alloc_array((size_t)most + 1, sizeof *all, "curve");
    if (!all) return px_error_code();
    for (int run = 0; run < curves->run_count; run++) {
        int column;
        const px_frame *frame = px_curves_find(curves, run, name, &column);
        if (curves->group[run] != group || column < 0) continue;
        for (int64_t row = 0; row < frame->rows; row++) {
            double value = px_frame_number(frame, column, row);
            if (isfinite(value)) all[n++] = (px_point){.iteration = px_frame_number(frame, 0, row), .mean = value};
        }
    }
    qsort(all, (size_t)n, sizeof *all, by_iteration);
    for (int64_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && all[end].iteration == all[first].iteration;) end++;
        all[merged++] = merge(all + first, end - first);
    }
    *points = all;
    *count = merged;
    return PX_OK;
}

px_point px_curves_end(const px_curves *curves, const char *name, int group)
{
    double sum = 0, squares = 0;
    int n = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int run = 0; run < curves->run_count; run++) {
            int column;
            const px_frame *frame = px_curves_find(curves, run, name, &column);
            if (curves->group[run] != group || column < 0) continue;
            int64_t row = frame->rows - 1;
            while (row >= 0 && !isfinite(px_frame_number(frame, column, row))) row--;
            if (row < 0) continue;
            double value = px_frame_number(frame, column, row);
            if (pass == 0) {
                sum += value;
                n++;
            } else {
                squares += (value - sum / n) * (value - sum / n);
            }
        }
    }
    return (px_point){.mean = n ? sum / n : NAN, .deviation = n > 1 ? sqrt(squares / (n - 1)) : 0, .runs = n};
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

static px_status csv_text(px_buf *csv, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) return px_buf_text(csv, text);
    PX_TRY(px_buf_text(csv, "\""));
    for (; *text; text++) {
        if (*text == '"') PX_TRY(px_buf_text(csv, "\""));
        PX_TRY(px_buf_add(csv, text, 1));
    }
    return px_buf_text(csv, "\"");
}

px_status px_curves_csv(const px_curves *curves, px_buf *csv)
{
    size_t i;
    json_t *entry;
    PX_TRY(px_buf_text(csv, "run,group,iteration,metric,value\n"));
    for (int run = 0; run < curves->run_count; run++) {
        json_array_foreach(curves->names, i, entry)
        {
            int column;
            const char *name = json_string_value(entry);
            const px_frame *frame = px_curves_find(curves, run, name, &column);
            for (int64_t row = 0; column >= 0 && row < frame->rows; row++) {
                double value = px_frame_number(frame, column, row);
                if (isnan(value)) continue;
                PX_TRY(csv_text(csv, curves->runs[run].name));
                PX_TRY(px_buf_text(csv, ","));
                PX_TRY(csv_text(csv, json_string_value(json_array_get(curves->groups, (size_t)curves->group[run]))));
                PX_TRY(px_buf_printf(csv, ",%.0f,%s,%.17g\n", px_frame_number(frame, 0, row), name, value));
            }
        }
    }
    return PX_OK;
}
