/* inspect, watch and report on runs that are made here: every number that goes in comes out, in every form. */
#include "phalanx/report.h"
#include "phalanx/store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[200], runs[3][256];
enum { ROWS = 6 };

#define assert_ok(call)                                                                                             \
    do {                                                                                                           \
        if ((call) != PX_OK) fail_msg("%s", px_error_text());                                                      \
    } while (0)

static double value(int run, int iteration)
{
    return iteration == 3 ? NAN : run * 10 + iteration / 3.0;
}

/* The third run has another metric and, as name, what could break out of a page. */
static void make_run(int run, bool finished)
{
    const px_column metrics[] = {{.name = "objective/scores", .type = PX_COL_F64, .units = "1", .long_name = "score"},
                                 {.name = run == 2 ? "it's <b>" : "rollout/logprob_diff_max",
                                  .type = PX_COL_F64,
                                  .units = "nat",
                                  .long_name = "d"},
                                 {.name = "never", .type = PX_COL_F64, .units = "1", .long_name = "not measured"}};
    const px_column evaluation = {.name = "objective/scores", .type = PX_COL_F64, .units = "1", .long_name = "score"};
    const px_attribute config[] = {{.name = "run.seed", .type = 'i', .i = run},
                                   {.name = "training.lr", .type = 'f', .f = run == 2 ? 2e-6 : 1e-6},
                                   {.name = "run.name", .type = 's', .s = runs[run]},
                                   {.name = "note", .type = 's', .s = "a \"quoted\", b"},
                                   {.name = "training.gamma", .type = 'f', .f = 0.5}};
    const px_run_header header = {.run_name = "r", .algorithm = run == 2 ? "pretrain" : "ppo", .config = config, .config_count = 5,
                                  .config_hash = "1", .yaml = "x", .source = "y", .metrics = metrics, .metric_count = 3,
                                  .evaluation = &evaluation, .evaluation_count = 1};
    const px_segment segment = {.first_iteration = 1, .num_ranks = 1};
    const px_rank_entry rank = {.rank = 0, .cpus = 2, .pid = 5, .host = "node7", .role = "driver"};
    char path[300];
    px_run_file *file;
    assert_ok(px_dir_create(runs[run]));
    snprintf(path, sizeof path, "%s/run.h5", runs[run]);
    assert_ok(px_run_file_open(&file, path, &header, false, 0, &segment, &rank, 1));
    for (int i = 1; i <= ROWS; i++) {
        const double row[] = {value(run, i), i * 1e-7, NAN};
        assert_ok(px_run_file_metrics(file, i, row));
        if (i % 2 == 0) assert_ok(px_run_file_event(file, i, -1, "reward_failed", "line\none"));
    }
    const double score = 0.25 + run;
    assert_ok(px_run_file_evaluation(file, ROWS, &score));
    assert_ok(px_run_file_close(file, ROWS, 0, "done", finished));
}

static void make_samples(void)
{
    const px_column columns[] = {{.name = "sample", .type = PX_COL_I64}, {.name = "iteration", .type = PX_COL_I64},
                                 {.name = "score", .type = PX_COL_F32},
                                 {.name = "completion", .type = PX_COL_TEXT, .width = 100}};
    static char texts[2][100] = {"first, \"one\"\nnext line", "\xc3\xa4 second"};
    for (int64_t i = 0; i < 2; i++) {
        char path[300];
        const int64_t id = 100 + i, iteration = 1 + i;
        const float score = 0.5f;
        const void *values[] = {&id, &iteration, &score, texts[i]};
        const px_table_data table = {"/samples", columns, 4, 1, values};
        snprintf(path, sizeof path, "%s/samples-%06d.h5", runs[0], (int)i + 1);
        assert_ok(px_samples_append(path, &table, 1, i, NULL));
    }
}

static int make_all(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_inspect_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    for (int run = 0; run < 3; run++) {
        snprintf(runs[run], sizeof runs[run], "%s/run%d", dir, run);
        make_run(run, run == 0);
    }
    make_samples();
    return 0;
}

static int remove_all(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

/* What is printed; free it. */
static char *show(const char *const *paths, int count, px_view view, px_form form)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    const px_inspect_options options = {.paths = paths, .path_count = count, .view = view, .form = form, .out = out};
    px_status status = px_inspect(&options);
    fclose(out);
    if (status != PX_OK) fail_msg("%s", px_error_text());
    return text;
}

static json_t *show_json(const char *const *paths, int count, px_view view)
{
    char *text = show(paths, count, view, PX_FORM_JSON);
    json_t *json = json_loads(text, 0, NULL);
    assert_true(json_is_array(json));
    free(text);
    return json;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("'%s' is not in:\n%s", part, text);
}

static void test_metrics(void **state)
{
    (void)state;
    const char *const paths[] = {dir};
    json_t *json = show_json(paths, 1, PX_VIEW_METRICS);
    assert_int_equal(json_array_size(json), 3 * ROWS);
    for (int k = 0; k < 3 * ROWS; k++) {
        json_t *row = json_array_get(json, (size_t)k), *score = json_object_get(row, "objective/scores");
        int run = k / ROWS, iteration = k % ROWS + 1;
        assert_non_null(strstr(json_string_value(json_object_get(row, "run")), run == 0   ? "run0"
                                                                               : run == 1 ? "run1"
                                                                                          : "run2"));
        assert_int_equal(json_integer_value(json_object_get(row, "iteration")), iteration);
        assert_true(json_is_null(json_object_get(row, "never")));
        if (iteration == 3) {
            assert_true(json_is_null(score));
        } else {
            assert_true(json_real_value(score) == value(run, iteration)); /* to the last bit */
        }
        assert_int_equal(json_is_null(json_object_get(row, "it's <b>")), run != 2);
    }
    json_decref(json);

    char *text = show(paths, 1, PX_VIEW_METRICS, PX_FORM_CSV);
    assert_true(strncmp(text,
                        "run,iteration,timestamp,segment,objective/scores,rollout/logprob_diff_max,never,it's <b>\n",
                        80) == 0);
    int lines = 0;
    for (const char *at = text; *at; at++) lines += *at == '\n';
    assert_int_equal(lines, 3 * ROWS + 1);
    free(text);

    const char *const one[] = {runs[1]};
    text = show(one, 1, PX_VIEW_METRICS, PX_FORM_TABLE);
    assert_has(text, "objective/scores");
    assert_has(text, "12"); /* the last: 10 + 6 / 3 */
    free(text);
}

static void test_other_views(void **state)
{
    (void)state;
    const char *const paths[] = {runs[0], runs[2]};
    json_t *json = show_json(paths, 2, PX_VIEW_CONFIG);
    assert_int_equal(json_array_size(json), 2);
    assert_true(json_real_value(json_object_get(json_array_get(json, 1), "training.lr")) == 2e-6);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json, 0), "yaml")), "x");
    json_decref(json);
    char *text = show(paths, 2, PX_VIEW_CONFIG, PX_FORM_CSV);
    assert_has(text, ",note,\"a \"\"quoted\"\", b\"\n");
    free(text);
    text = show(paths, 2, PX_VIEW_EVENTS, PX_FORM_TABLE);
    assert_has(text, "line\\none");
    free(text);
    text = show(paths, 2, PX_VIEW_RANKS, PX_FORM_TABLE);
    assert_has(text, "node7");
    free(text);

    text = show(paths, 1, PX_VIEW_SAMPLES, PX_FORM_TABLE);
    assert_has(text, "\xc3\xa4 second");
    assert_null(strstr(text, "first"));
    free(text);
    json = show_json(paths, 1, PX_VIEW_SAMPLES);
    assert_int_equal(json_array_size(json), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json, 0), "completion")),
                        "first, \"one\"\nnext line");
    json_decref(json);
}

static void test_health(void **state)
{
    (void)state;
    const char *const paths[] = {runs[0]};
    const px_run_status running = {.state = "running", .iteration = 6};
    assert_ok(px_status_write(runs[0], &running));
    json_t *json = show_json(paths, 1, PX_VIEW_HEALTH), *health = json_array_get(json, 0);
    assert_string_equal(json_string_value(json_object_get(health, "state")), "killed"); /* nobody holds the lock */
    assert_int_equal(json_integer_value(json_object_get(health, "iteration")), ROWS);
    assert_int_equal(json_integer_value(json_object_get(health, "segments")), 1);
    assert_int_equal(json_integer_value(json_object_get(health, "events/reward_failed")), 3);
    assert_int_equal(json_integer_value(json_object_get(health, "nan/objective/scores")), 1);
    assert_null(json_object_get(health, "nan/never"));
    assert_true(json_real_value(json_object_get(health, "rollout/logprob_diff_max")) == 6 * 1e-7);
    assert_true(json_real_value(json_object_get(health, "age_s")) < 100);
    json_decref(json);
    px_lock *lock;
    assert_ok(px_lock_take(&lock, runs[0]));
    json = show_json(paths, 1, PX_VIEW_HEALTH);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json, 0), "state")), "running");
    json_decref(json);
    px_lock_release(lock);
}

static void test_watch(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    px_watch_options options = {.path = runs[1], .metrics = "objective/scores,rollout/logprob_diff_max", .out = out};
    assert_ok(px_watch(&options)); /* ends, since nobody writes */
    fclose(out);
    assert_has(text, "objective/scores");
    assert_has(text, "6e-07");
    free(text);
    options.out = open_memstream(&text, &size);
    options.json = true;
    assert_ok(px_watch(&options));
    options.metrics = NULL;
    assert_ok(px_watch(&options));
    fclose(options.out);
    size_t at = 0;
    for (int row = 0; row < 2 * ROWS; row++) { /* an object a line: first the two that were asked for, then all metrics */
        json_error_t where;
        json_t *line = json_loadb(text + at, size - at, JSON_DISABLE_EOF_CHECK, &where);
        assert_non_null(line);
        assert_int_equal(json_integer_value(json_object_get(line, "iteration")), row % ROWS + 1);
        assert_true(json_object_get(line, "objective/scores") != NULL);
        assert_true(row < ROWS ? json_object_size(line) == 4 : json_object_size(line) > 4);
        at += (size_t)where.position;
        json_decref(line);
    }
    assert_int_equal(at + 1, size);
    free(text);
    options.json = false;
    options.out = fopen("/dev/null", "w");
    options.metrics = "nothing";
    assert_int_equal(px_watch(&options), PX_USAGE);
    assert_has(px_error_text(), "valid are timestamp, segment, objective/scores, rollout/logprob_diff_max, never");
    options.metrics = NULL;
    options.once = true;
    assert_ok(px_watch(&options));
    fclose(options.out);
}

/* What px_watch prints of a run of several stages, and on stderr. */
static void watch_stages(const char *metrics, char **text, char *notes, size_t size)
{
    size_t length;
    const px_watch_options options = {.path = dir, .metrics = metrics, .once = true, .out = open_memstream(text, &length)};
    FILE *kept = tmpfile();
    int stderr_before = dup(STDERR_FILENO);
    dup2(fileno(kept), STDERR_FILENO);
    px_status status = px_watch(&options);
    dup2(stderr_before, STDERR_FILENO);
    close(stderr_before);
    fclose(options.out);
    rewind(kept);
    notes[fread(notes, 1, size - 1, kept)] = '\0';
    fclose(kept);
    assert_ok(status);
}

static void test_watch_stages(void **state)
{
    (void)state;
    char *text, notes[2000], expected[700];
    watch_stages("rollout/logprob_diff_max", &text, notes, sizeof notes); /* the newest stage, run2, has it not */
    assert_has(text, runs[1]);
    assert_has(text, "6e-07");
    snprintf(expected, sizeof expected, "phalanx: NOTE: %s has no metric rollout/logprob_diff_max; %s has\n", runs[2], runs[1]);
    assert_string_equal(notes, expected);
    free(text);
    watch_stages("objective/scores,rollout/logprob_diff_max", &text, notes, sizeof notes); /* it has one of them */
    assert_has(text, runs[2]);
    snprintf(expected, sizeof expected, "phalanx: NOTE: %s has no metric rollout/logprob_diff_max\n", runs[2]);
    assert_string_equal(notes, expected);
    free(text);
    const px_watch_options wrong = {.path = dir, .metrics = "nothing", .once = true, .out = stdout};
    assert_int_equal(px_watch(&wrong), PX_USAGE);
    assert_has(px_error_text(), "'nothing' in any stage; valid are ");
    assert_has(px_error_text(), "it's <b>");
    assert_has(px_error_text(), "rollout/logprob_diff_max");
}

static char *read_text(const char *path)
{
    px_buf buf = {0};
    assert_ok(px_file_read(path, PX_TEXT_MOST, &buf));
    return buf.data; /* px_free */
}

static void test_report(void **state)
{
    (void)state;
    char out[300], csv[300];
    const char *const paths[] = {dir};
    snprintf(out, sizeof out, "%s/page.html", dir);
    snprintf(csv, sizeof csv, "%s/page.csv", dir);
    px_report_options options = {.paths = paths, .path_count = 1, .out = out, .group_by = "run.seed", .methods = true};
    char *said = NULL, expected[700];
    size_t size = 0;
    options.json = open_memstream(&said, &size);
    assert_ok(px_report(&options));
    fclose(options.json);
    options.json = NULL;
    snprintf(expected, sizeof expected, "{\"out\":\"%s\",\"csv\":\"%s\",\"runs\":%d}\n", out, csv,
             (int)(sizeof runs / sizeof *runs));
    assert_string_equal(said, expected);
    free(said);
    char *html = read_text(out), *data = read_text(csv);
    /* Runs 0 and 1 differ in the seed alone: 2 and 12, mean 7, deviation 10 / sqrt(2). */
    assert_has(html, "<td class=n>7 &plusmn; 7.07107 <small>(2)</small></td>");
    assert_has(html, "<td class=n>22</td>");
    assert_has(html, "it's &lt;b&gt;");
    assert_null(strstr(html, "<b>"));
    assert_has(html, "<h2>Methods</h2>");
    assert_has(html, "learning rate varied, discount 0.5");
    if (system("command -v gnuplot >/dev/null 2>&1") == 0) {
        assert_has(html, "<svg");
        assert_null(strstr(html, "<?xml"));
    } else {
        assert_has(html, "No plots");
    }
    assert_has(data, "run,group,iteration,metric,value\n");
    assert_has(data, ",6,evaluation/objective/scores,2.25\n");
    px_free(html);
    px_free(data);

    /* Without gnuplot: the tables and a note. */
    char *path = strdup(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    assert_ok(px_report(&options));
    setenv("PATH", path, 1);
    free(path);
    html = read_text(out);
    assert_has(html, "No plots");
    px_free(html);

    px_report_options other = options;
    other.group_by = "no.such";
    assert_int_equal(px_report(&other), PX_USAGE);
    other.out = "/nowhere/page.html";
    other.group_by = NULL;
    assert_int_equal(px_report(&other), PX_IO);
    assert_string_equal(px_error_text(), "/nowhere/page.html: cannot create: No such file or directory");
}

/* runs/...: what holds no run is left out, unless nothing is left. */
static void test_report_several(void **state)
{
    (void)state;
    char out[300];
    snprintf(out, sizeof out, "%s/several.html", dir);
    const char *const paths[] = {"/proc/self/task", runs[1], runs[2]}, *const empty[] = {"/proc/self/task", "/proc/self/fd"};
    px_report_options options = {.paths = paths, .path_count = 3, .out = out, .methods = true};
    assert_ok(px_report(&options));
    char *html = read_text(out);
    assert_has(html, "Report of 2 runs");
    assert_has(html, "We trained 2 runs with Phalanx (ppo, pretrain): ");
    px_free(html);
    options.paths = empty;
    options.path_count = 2;
    assert_int_equal(px_report(&options), PX_DATA);
    assert_has(px_error_text(), "/proc/self/task, /proc/self/fd: holds no run.h5");
}

/* Parts in order, below a directory whose name means something to a shell. */
static void test_timeline(void **state)
{
    (void)state;
    char odd[300], path[400], *text = NULL;
    size_t size = 0;
    snprintf(odd, sizeof odd, "%s/[a]*", dir);
    assert_ok(px_dir_create(odd));
    FILE *out = open_memstream(&text, &size);
    assert_int_equal(px_timeline_print(odd, out), PX_DATA);
    for (int part = 1; part >= 0; part--) {
        char events[32];
        int length = snprintf(events, sizeof events, "[\n{\"part\":%d}\n]\n", part);
        snprintf(path, sizeof path, "%s/timeline-%d.json", odd, part);
        assert_ok(px_file_write(path, events, (size_t)length));
    }
    assert_ok(px_timeline_print(odd, out));
    fclose(out);
    assert_string_equal(text, "[\n{\"part\":0},\n{\"part\":1}\n]\n");
    free(text);
}

static void test_wrong(void **state)
{
    (void)state;
    px_view view;
    assert_ok(px_view_parse("health", &view));
    assert_int_equal(view, PX_VIEW_HEALTH);
    assert_int_equal(px_view_parse("metric", &view), PX_USAGE);
    assert_non_null(strstr(px_error_text(), "did you mean metrics?"));
    const char *const nowhere[] = {"/nowhere"}, *const empty[] = {"/proc/self/task"};
    px_inspect_options options = {.paths = nowhere, .path_count = 1, .view = PX_VIEW_METRICS, .out = stdout};
    assert_int_equal(px_inspect(&options), PX_DATA);
    options.paths = empty;
    assert_int_equal(px_inspect(&options), PX_DATA);
    options.path_count = 0;
    assert_int_equal(px_inspect(&options), PX_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_metrics), cmocka_unit_test(test_other_views),
                                       cmocka_unit_test(test_health), cmocka_unit_test(test_watch),
                                       cmocka_unit_test(test_watch_stages), cmocka_unit_test(test_report),
                                       cmocka_unit_test(test_report_several), cmocka_unit_test(test_timeline),
                                       cmocka_unit_test(test_wrong)};
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
