#include "runs.h"
#include "sheet.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <time.h>

#define MAX_SHOWN 12
#define ONCE_ROWS 10
#define CELL 14 /* characters of a column */

static const char *const usual[] = {
    "objective/scores", "objective/kl",   "objective/rlhf_reward", "loss", "accuracy",        "perplexity",
    "loss/policy_avg",  "loss/value_avg", "policy/clipfrac_avg",   "lr",   "time_this_iter_s"};

typedef struct watch_state {
    char file[PX_PATH_MAX];    /* whose header was printed last */
    char without[PX_PATH_MAX]; /* the newest run file, where that was told to have no metric that was asked for */
    char names[MAX_SHOWN][128];
    int columns[MAX_SHOWN], count;
    int64_t printed;           /* rows */
} watch_state;

/* ---- columns ----------------------------------------------------------------------------------------------------- */

static void add_name(watch_state *state, const px_frame *frame, const char *name)
{
    int column = px_frame_column(frame, name);
    if (column < 0 || state->count == MAX_SHOWN) return;
    snprintf(state->names[state->count], sizeof state->names[0], "%s", name);
    state->columns[state->count++] = column;
}

/* The next name of "a,b". */
static bool next_name(const char **at, char name[128])
{
    *at += strspn(*at, ",");
    size_t length = strcspn(*at, ",");
    snprintf(name, 128, "%.*s", (int)(length < 127 ? length : 127), *at);
    *at += length;
    return length > 0;
}

/* The stages of a run have metrics of their own: a name is wrong where none of them has it. */
static px_status check_asked(const px_watch_options *options, const px_run *runs, int count)
{
    char name[128];
    px_buf valid = {0};
    px_status status = PX_OK;
    json_t *known = json_object();
    for (int r = 0; r < count && status == PX_OK; r++) {
        px_frame frame;
        status = px_frame_read(runs[r].file, "/metrics", &frame);
        for (int c = 1; c < frame.column_count && status == PX_OK; c++) {
            const char *column = frame.columns[c].name;
            if (json_object_get(known, column)) continue;
            json_object_set_new(known, column, json_true());
            status = px_buf_printf(&valid, "%s%s", valid.length ? ", " : "", column);
        }
        px_frame_free(&frame);
    }
    for (const char *at = options->metrics; status == PX_OK && next_name(&at, name);) {
        if (json_object_get(known, name)) continue;
        status = px_fail(PX_USAGE, "%s: has no metric '%s'%s; valid are %s", options->path, name,
                         count > 1 ? " in any stage" : "", valid.data ? valid.data : "none yet");
    }
    px_buf_free(&valid);
    json_decref(known);
    return status;
}

static bool has_asked(const px_frame *frame, const char *metrics)
{
    char name[128];
    while (next_name(&metrics, name)) {
        if (px_frame_column(frame, name) >= 0) return true;
    }
    return false;
}

static void choose(watch_state *state, const px_frame *frame, const px_run *run, const char *metrics)
{
    char name[128];
    state->count = 0;
    while (metrics && next_name(&metrics, name)) {
        if (px_frame_column(frame, name) < 0) px_log(PX_NOTE, "%s has no metric %s", run->name, name);
        add_name(state, frame, name);
    }
    if (metrics) return;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) add_name(state, frame, usual[i]);
    for (int c = 3; c < frame->column_count && state->count < 3; c++) add_name(state, frame, frame->columns[c].name);
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static void print_header(const watch_state *state, const char *run, FILE *out)
{
    fprintf(out, "%s\n%9s", run, "iteration");
    for (int i = 0; i < state->count; i++) {
        int width = (int)strlen(state->names[i]);
        fprintf(out, "  %*s", width > CELL ? width : CELL, state->names[i]);
    }
    fputc('\n', out);
}

static void print_row(const watch_state *state, const px_frame *frame, int64_t row, FILE *out)
{
    char text[32];
    fprintf(out, "%9.0f", px_frame_number(frame, 0, row));
    for (int i = 0; i < state->count; i++) {
        int width = (int)strlen(state->names[i]);
        px_number_text(px_frame_number(frame, state->columns[i], row), text, sizeof text);
        fprintf(out, "  %*s", width > CELL ? width : CELL, text);
    }
    fputc('\n', out);
}

/* An object a line: the chosen metrics, all of them where none were asked for; null: not measured. */
static px_status print_object(const watch_state *state, const px_watch_options *options, const px_run *run, const px_frame *frame,
                              int64_t row)
{
    int count = options->metrics ? state->count : frame->column_count;
    json_t *object = json_pack("{s:s, s:I}", "run", run->name, "iteration", (json_int_t)px_frame_number(frame, 0, row));
    for (int i = options->metrics ? 0 : 1; object && i < count; i++) {
        int column = options->metrics ? state->columns[i] : i;
        double value = px_frame_number(frame, column, row);
        json_object_set_new(object, frame->columns[column].name, isfinite(value) ? json_real(value) : json_null());
    }
    bool fine = object && json_dumpf(object, options->out, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0;
    json_decref(object);
    return fine && fputc('\n', options->out) != EOF ? PX_OK : px_fail(PX_IO, "cannot print: %s", strerror(errno));
}

/* The run to show: the newest, or where that has no metric that was asked for, the newest that has one. */
static px_status find_shown(const px_watch_options *options, watch_state *state, const px_run *runs, int count, int *shown,
                            px_frame *frame)
{
    *shown = count - 1;
    PX_TRY(px_frame_read(runs[*shown].file, "/metrics", frame));
    while (options->metrics && *shown > 0 && !has_asked(frame, options->metrics)) {
        px_frame_free(frame);
        PX_TRY(px_frame_read(runs[--*shown].file, "/metrics", frame));
    }
    const px_run *newest = &runs[count - 1];
    if (*shown < count - 1 && strcmp(state->without, newest->file) != 0) {
        memcpy(state->without, newest->file, sizeof state->without);
        px_log(PX_NOTE, "%s has no metric %s; %s has", newest->name, options->metrics, runs[*shown].name);
    }
    return PX_OK;
}

/* What is new in a run since the last look. */
static px_status print_new(const px_watch_options *options, watch_state *state, const px_run *run, const px_frame *frame)
{
    px_status status = PX_OK;
    if (strcmp(state->file, run->file) != 0) {
        memcpy(state->file, run->file, sizeof state->file);
        choose(state, frame, run, options->metrics);
        state->printed = frame->rows > ONCE_ROWS ? frame->rows - ONCE_ROWS : 0;
        if (!options->json) print_header(state, run->name, options->out);
    } else if (frame->rows < state->printed) {
        state->printed = frame->rows; /* resumed a little earlier */
    }
    for (; status == PX_OK && state->printed < frame->rows; state->printed++) {
        if (options->json) {
            status = print_object(state, options, run, frame, state->printed);
        } else {
            print_row(state, frame, state->printed, options->out);
        }
    }
    return status == PX_OK && fflush(options->out) != 0 ? px_fail(PX_IO, "cannot print: %s", strerror(errno)) : status;
}

/* One look at the runs below the path. */
static px_status look(const px_watch_options *options, watch_state *state, px_run *newest)
{
    px_run *runs = NULL;
    px_frame frame = {0};
    int count = 0, shown = 0;
    PX_TRY(px_runs_find(&options->path, 1, &runs, &count));
    *newest = runs[count - 1];
    px_status status = options->metrics && !state->file[0] ? check_asked(options, runs, count) : PX_OK;
    if (status == PX_OK) status = find_shown(options, state, runs, count, &shown, &frame);
    if (status == PX_OK) status = print_new(options, state, &runs[shown], &frame);
    px_frame_free(&frame);
    px_free(runs);
    return status;
}

/* Nobody writes any more: no living holder here or one above. */
static bool has_ended(const px_run *run)
{
    char parent[PX_PATH_MAX], holder[256];
    px_path_parent(parent, sizeof parent, run->dir);
    return !px_lock_is_held(run->dir, holder, sizeof holder) && !px_lock_is_held(parent, holder, sizeof holder);
}

static void wait_a_moment(double seconds)
{
    const struct timespec tenth = {.tv_nsec = 100000000};
    double end = px_now() + seconds;
    while (px_now() < end && px_stop_level() == 0) nanosleep(&tenth, NULL);
}

px_status px_watch(const px_watch_options *options)
{
    watch_state state = {.count = 0};
    px_run run;
    double interval = options->interval_s > 0 ? options->interval_s : 1;
    PX_TRY(look(options, &state, &run));
    while (!options->once && px_stop_level() == 0) {
        bool ended = has_ended(&run);
        if (!ended) wait_a_moment(interval);
        PX_TRY(look(options, &state, &run)); /* once more after the end: its last row */
        if (ended) break;
    }
    return PX_OK;
}
