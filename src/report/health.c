#include "health.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void set_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

/* Of the run's directory, or of the one above it for a stage of several. */
static px_status add_state(const px_run *run, json_t *object)
{
    char path[PX_PATH_MAX], parent[PX_PATH_MAX], holder[256] = "";
    json_t *status = NULL;
    px_path_parent(parent, sizeof parent, run->dir);
    bool held = px_lock_is_held(run->dir, holder, sizeof holder) || px_lock_is_held(parent, holder, sizeof holder);
    PX_TRY(px_path_join(path, sizeof path, run->dir, "status.json"));
    if (!px_file_exists(path)) PX_TRY(px_path_join(path, sizeof path, parent, "status.json"));
    const char *state = "unknown", *reason = "";
    if (px_file_exists(path)) PX_TRY(px_json_read(path, &status));
    const char *said = json_string_value(json_object_get(status, "state"));
    if (said) state = said;
    if (strcmp(state, "running") == 0 && !held) state = "killed";
    if (json_string_value(json_object_get(status, "reason")))
        reason = json_string_value(json_object_get(status, "reason"));
    json_object_set_new(object, "state", json_string(state));
    json_object_set_new(object, "reason", json_string(reason));
    json_object_set_new(object, "writer", json_string(held ? holder : ""));
    json_decref(status);
    return PX_OK;
}

static px_status add_metrics(const px_run *run, json_t *object)
{
    px_frame frame;
    PX_TRY(px_frame_read(run->file, "/metrics", &frame));
    int64_t last = frame.rows - 1;
    double time = px_frame_number(&frame, px_frame_column(&frame, "timestamp"), last), worst = NAN;
    json_object_set_new(object, "iteration",
                        json_integer(frame.rows ? (json_int_t)px_frame_number(&frame, 0, last) : 0));
    set_number(object, "age_s", px_wall_time() - time);
    int difference = px_frame_column(&frame, "rollout/logprob_diff_max");
    for (int64_t row = 0; row < frame.rows; row++) {
        double value = px_frame_number(&frame, difference, row);
        if (isnan(worst) || value > worst) worst = value;
    }
    if (difference >= 0) set_number(object, "rollout/logprob_diff_max", worst);
    /* A metric that is measured now and then has gaps; one that never was is not worth a line. */
    for (int c = 1; c < frame.column_count; c++) {
        char key[300];
        int64_t gaps = 0;
        for (int64_t row = 0; row < frame.rows; row++) gaps += isnan(px_frame_number(&frame, c, row));
        if (gaps == 0 || gaps == frame.rows) continue;
        snprintf(key, sizeof key, "nan/%s", frame.columns[c].name);
        json_object_set_new(object, key, json_integer(gaps));
    }
    px_frame_free(&frame);
    return PX_OK;
}

static px_status add_segments(const px_run *run, json_t *object)
{
    px_frame frame;
    PX_TRY(px_frame_read(run->file, "/segments", &frame));
    int64_t killed = 0;
    for (int64_t row = 0; row < frame.rows; row++) {
        killed += strcmp(px_frame_text(&frame, px_frame_column(&frame, "reason"), row), "killed") == 0;
    }
    json_object_set_new(object, "segments", json_integer(frame.rows));
    json_object_set_new(object, "segments_killed", json_integer(killed));
    px_frame_free(&frame);
    return PX_OK;
}

static px_status add_events(const px_run *run, json_t *object)
{
    px_frame frame;
    PX_TRY(px_frame_read(run->file, "/events", &frame));
    int kind = px_frame_column(&frame, "kind");
    json_object_set_new(object, "events", json_integer(frame.rows));
    for (int64_t row = 0; row < frame.rows; row++) {
        char key[300];
        snprintf(key, sizeof key, "events/%s", px_frame_text(&frame, kind, row));
        json_int_t before = json_integer_value(json_object_get(object, key));
        json_object_set_new(object, key, json_integer(before + 1));
    }
    px_frame_free(&frame);
    return PX_OK;
}

px_status px_health(const px_run *run, struct json_t **object)
{
    json_t *json = json_object();
    px_status status = add_state(run, json);
    if (status == PX_OK) status = add_metrics(run, json);
    if (status == PX_OK) status = add_segments(run, json);
    if (status == PX_OK) status = add_events(run, json);
    if (status != PX_OK) {
        json_decref(json);
        json = NULL;
    }
    *object = json;
    return status;
}
