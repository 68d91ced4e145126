/* The run file: what is written is what is read, living, closed, resumed and compacted. */
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
#include <sys/wait.h>
#include <unistd.h>

static char dir[256], path[300];

static const px_column metrics[] = {
    {.name = "objective/kl", .type = PX_COL_F64, .units = "nat", .long_name = "divergence from the reference"},
    {.name = "objective/scores", .type = PX_COL_F64, .units = "1", .long_name = "mean score"},
    {.name = "lr", .type = PX_COL_F64, .units = "1", .long_name = "learning rate"}};
static const px_column evaluation[] = {
    {.name = "objective/scores", .type = PX_COL_F64, .units = "1", .long_name = "mean score"}};
static const px_attribute config[] = {{.name = "training.lr", .type = 'f', .f = 3e-6},
                                      {.name = "run.seed", .type = 'i', .i = INT64_C(1) << 40},
                                      {.name = "training.whiten", .type = 'b', .i = 1},
                                      {.name = "run.name", .type = 's', .s = "w\xc3\xa4hrung"},
                                      {.name = "empty", .type = 's'},
                                      {.name = "bound", .type = 'f', .f = -INFINITY}};
static const char *const tokens[] = {"<s>", "</s>", "\xc4\xa0the", "bad\xff", NULL};
static const px_segment segment = {.first_iteration = 1, .num_ranks = 2, .job_id = "77",
                                   .commit = "0123456789abcdef0123456789abcdef01234567"};
static const px_rank_entry ranks[] = {{.rank = 0, .cpus = 4, .pid = 11, .host = "a", .role = "driver"},
                                      {.rank = 1, .cpus = 4, .pid = 12, .host = "b", .role = "learner"}};

static const int64_t histogram[PX_DATA_BINS] = {[1] = 3, [PX_DATA_BINS - 1] = 1};
static const px_data_entry data[] = {
    {.set = "train", .file = "a.jsonl", .shape = "text", .weight = 0.5, .mean_length = 2.5, .records = 7, .rows = 4, .cut = 1,
     .dropped_long = 2, .dropped_empty = 1, .duplicate_prompts = 2, .tokens = 10, .min_length = 2, .max_length = 9000000,
     .histogram = histogram}};

static px_run_header header(void)
{
    return (px_run_header){.run_name = "test", .algorithm = "ppo", .config = config, .config_count = 6,
                           .config_hash = "00ff", .yaml = "a: 1\n", .source = "", .build = config, .build_count = 1,
                           .metrics = metrics, .metric_count = 3, .evaluation = evaluation, .evaluation_count = 1,
                           .tokens = tokens, .token_count = 5, .bos_id = 0, .eos_id = 1,
                           .data = data, .data_count = 1};
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_run_file_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/run.h5", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

#define assert_ok(call)                                                                                             \
    do {                                                                                                           \
        if ((call) != PX_OK) fail_msg("%s", px_error_text());                                                      \
    } while (0)

static px_run_file *open_file(bool resume, int64_t last)
{
    px_run_file *file;
    const px_run_header head = header();
    px_segment part = segment;
    part.first_iteration = last + 1;
    assert_ok(px_run_file_open(&file, path, &head, resume, last, &part, ranks, 2));
    return file;
}

static void write_rows(px_run_file *file, int first, int last)
{
    for (int i = first; i <= last; i++) {
        const double row[] = {i * 0.5, NAN, 1.0 / i};
        assert_ok(px_run_file_metrics(file, i, row));
        if (i % 2 == 0) assert_ok(px_run_file_evaluation(file, i, row));
        assert_ok(px_run_file_event(file, i, i % 3 - 1, "test", "something \xc3\xbc"));
    }
}

static double number(const px_frame *frame, const char *column, int64_t row)
{
    int c = px_frame_column(frame, column);
    assert_true(c >= 0);
    return px_frame_number(frame, c, row);
}

static void check_metrics(int rows)
{
    px_frame frame;
    assert_ok(px_frame_read(path, "/metrics", &frame));
    assert_int_equal(frame.rows, rows);
    assert_int_equal(frame.column_count, 6);
    assert_string_equal(frame.columns[0].name, "iteration");
    assert_string_equal(frame.columns[3].units, "nat");
    assert_string_equal(frame.columns[3].long_name, "divergence from the reference");
    for (int i = 1; i <= rows; i++) {
        assert_true(number(&frame, "iteration", i - 1) == i);
        assert_true(number(&frame, "objective/kl", i - 1) == i * 0.5);
        assert_true(isnan(number(&frame, "objective/scores", i - 1)));
        assert_true(number(&frame, "lr", i - 1) == 1.0 / i);
        assert_true(number(&frame, "timestamp", i - 1) > 1.5e9);
    }
    px_frame_free(&frame);
}

static void check_config(void)
{
    json_t *json;
    assert_ok(px_attributes_read(path, "/config", &json));
    assert_true(json_real_value(json_object_get(json, "training.lr")) == 3e-6);
    assert_true(json_integer_value(json_object_get(json, "run.seed")) == INT64_C(1) << 40);
    assert_true(json_is_true(json_object_get(json, "training.whiten")));
    assert_string_equal(json_string_value(json_object_get(json, "run.name")), "w\xc3\xa4hrung");
    assert_string_equal(json_string_value(json_object_get(json, "empty")), "");
    assert_true(json_is_null(json_object_get(json, "bound"))); /* not finite, which JSON has no number for */
    assert_string_equal(json_string_value(json_object_get(json, "hash")), "00ff");
    assert_string_equal(json_string_value(json_object_get(json, "yaml")), "a: 1\n");
    assert_string_equal(json_string_value(json_object_get(json, "source")), "");
    json_decref(json);
    assert_ok(px_attributes_read(path, "/", &json));
    assert_string_equal(json_string_value(json_object_get(json, "format")), "phalanx-run");
    assert_string_equal(json_string_value(json_object_get(json, "algorithm")), "ppo");
    json_decref(json);
}

static void check_data(void)
{
    px_frame frame;
    assert_ok(px_frame_read(path, "/data", &frame));
    assert_int_equal(frame.rows, 1);
    assert_string_equal(px_frame_text(&frame, px_frame_column(&frame, "set"), 0), "train");
    assert_string_equal(px_frame_text(&frame, px_frame_column(&frame, "file"), 0), "a.jsonl");
    assert_string_equal(px_frame_text(&frame, px_frame_column(&frame, "shape"), 0), "text");
    static const struct { const char *column; double value; } values[] = {
        {"weight", 0.5}, {"records", 7}, {"rows", 4}, {"cut", 1}, {"dropped_long", 2}, {"dropped_equal", 0},
        {"dropped_empty", 1}, {"duplicate_prompts", 2}, {"tokens", 10}, {"min_length", 2}, {"max_length", 9000000},
        {"mean_length", 2.5}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_true(number(&frame, values[i].column, 0) == values[i].value);
    }
    px_frame_free(&frame);
    assert_ok(px_frame_read(path, "/data_lengths", &frame));
    assert_int_equal(frame.rows, 2);
    assert_true(number(&frame, "shortest", 0) == 2 && number(&frame, "longest", 0) == 3 && number(&frame, "rows", 0) == 3);
    assert_true(number(&frame, "shortest", 1) == 8388608 && number(&frame, "longest", 1) == 9000000);
    px_frame_free(&frame);
}

static void test_live_and_finished(void **state)
{
    (void)state;
    px_run_file *file = open_file(false, 0);
    write_rows(file, 1, 300); /* over a chunk */
    check_metrics(300);       /* while it is being written */
    check_config();
    check_data();
    assert_ok(px_run_file_close(file, 300, 0, "done", true));
    check_metrics(300);
    check_config();
    check_data();
    px_frame frame;
    assert_ok(px_frame_read(path, "/tokenizer", &frame));
    assert_int_equal(frame.rows, 5);
    assert_string_equal(px_frame_text(&frame, 1, 2), "\xc4\xa0the");
    assert_string_equal(px_frame_text(&frame, 1, 3), "bad?");
    assert_string_equal(px_frame_text(&frame, 1, 4), "");
    px_frame_free(&frame);
    json_t *json;
    assert_ok(px_attributes_read(path, "/tokenizer", &json));
    assert_int_equal(json_integer_value(json_object_get(json, "eos_token_id")), 1);
    json_decref(json);
    assert_ok(px_frame_read(path, "/segments", &frame));
    assert_int_equal(frame.rows, 1);
    assert_true(number(&frame, "exit_code", 0) == 0);
    assert_true(number(&frame, "last_iteration", 0) == 300);
    assert_string_equal(px_frame_text(&frame, px_frame_column(&frame, "commit"), 0), segment.commit);
    assert_string_equal(px_frame_text(&frame, px_frame_column(&frame, "reason"), 0), "done");
    px_frame_free(&frame);
}

static void test_resume(void **state)
{
    (void)state;
    px_run_file *file = open_file(false, 0);
    write_rows(file, 1, 20);
    assert_ok(px_run_file_close(file, 20, 75, "SIGTERM", false));
    file = open_file(true, 15);
    assert_int_equal(px_run_file_segment(file), 1);
    check_metrics(15);
    write_rows(file, 16, 18);
    check_metrics(18);
    assert_ok(px_run_file_close(file, 18, 0, "done", true));
    file = open_file(true, 18); /* a finished run that is extended */
    write_rows(file, 19, 19);
    assert_ok(px_run_file_close(file, 19, 0, "done", true));
    check_metrics(19);

    px_frame frame;
    assert_ok(px_frame_read(path, "/evaluation", &frame));
    assert_int_equal(frame.rows, 9);
    px_frame_free(&frame);
    assert_ok(px_frame_read(path, "/events", &frame));
    assert_int_equal(frame.rows, 19);
    for (int64_t row = 0; row < 19; row++) assert_true(number(&frame, "event", row) == (double)row);
    assert_string_equal(px_frame_text(&frame, 5, 18), "something \xc3\xbc");
    px_frame_free(&frame);
    assert_ok(px_frame_read(path, "/ranks", &frame));
    assert_int_equal(frame.rows, 6);
    px_frame_free(&frame);
    assert_ok(px_frame_read(path, "/segments", &frame));
    assert_int_equal(frame.rows, 3);
    assert_true(number(&frame, "exit_code", 0) == 75);
    px_frame_free(&frame);
    assert_ok(px_frame_read(path, "/metrics", &frame));
    assert_true(number(&frame, "segment", 18) == 2);
    px_frame_free(&frame);
}

/* As many typed attributes as a real configuration has, through every way a file is written anew. */
static void test_many_attributes(void **state)
{
    (void)state;
    enum { MANY = 150 };
    static char keys[MANY][32], texts[MANY][64];
    px_attribute many[MANY];
    for (int i = 0; i < MANY; i++) {
        snprintf(keys[i], sizeof keys[i], "group%d.key%d", i % 7, i);
        snprintf(texts[i], sizeof texts[i], "%*s", i % 60, "v");
        many[i] = (px_attribute){.name = keys[i], .type = "sifb"[i % 4], .i = i, .f = i / 7.0, .s = texts[i]};
    }
    px_run_header head = header();
    head.config = head.build = many;
    head.config_count = head.build_count = MANY;
    px_run_file *file;
    for (int part = 0; part < 4; part++) {
        if (part < 2) {
            assert_ok(px_run_file_open(&file, path, &head, part > 0, part, &segment, ranks, 2));
            write_rows(file, part + 1, part + 1);
            assert_ok(px_run_file_close(file, part + 1, 0, "", part > 0));
        } else {
            assert_ok(px_run_file_repair(path)); /* of a file that was compacted already, too */
        }
        json_t *json;
        assert_ok(px_attributes_read(path, part % 2 ? "/build" : "/config", &json));
        for (int i = 0; i < MANY; i++) {
            json_t *value = json_object_get(json, keys[i]);
            if (i % 4 == 0) assert_string_equal(json_string_value(value), texts[i]);
            if (i % 4 == 1) assert_int_equal(json_integer_value(value), i);
            if (i % 4 == 2) assert_true(json_real_value(value) == i / 7.0);
            if (i % 4 == 3) assert_true(json_is_true(value));
        }
        json_decref(json);
    }
}

/* A later version may measure more and forget some: nothing that was written is lost. */
static void test_other_columns(void **state)
{
    (void)state;
    px_run_file *file = open_file(false, 0);
    write_rows(file, 1, 3);
    assert_ok(px_run_file_close(file, 3, 75, "", false));
    const px_column other[] = {{.name = "new", .type = PX_COL_F64}, metrics[2]};
    px_run_header head = header();
    head.metrics = other;
    head.metric_count = 2;
    const double row[] = {7, 8};
    assert_ok(px_run_file_open(&file, path, &head, true, 3, &segment, ranks, 2));
    assert_ok(px_run_file_metrics(file, 4, row));
    assert_ok(px_run_file_close(file, 4, 0, "", true));
    px_frame frame;
    assert_ok(px_frame_read(path, "/metrics", &frame));
    assert_true(isnan(number(&frame, "new", 2)));
    assert_true(number(&frame, "new", 3) == 7);
    assert_true(number(&frame, "lr", 3) == 8);
    assert_true(number(&frame, "objective/kl", 2) == 1.5);
    assert_true(isnan(number(&frame, "objective/kl", 3)));
    px_frame_free(&frame);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"a", "a/b"}, {"a/b", "a"}, {"x", "x"}, {"", "y"}, {"a//b", "y"},
                                         {"/a", "y"}, {"a/", "y"}, {"../a", "y"}, {"iteration", "y"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const px_column columns[] = {{.name = bad[i][0], .type = PX_COL_F64}, {.name = bad[i][1], .type = PX_COL_F64}};
        px_run_header head = header();
        px_run_file *file;
        head.metrics = columns;
        head.metric_count = 2;
        assert_int_equal(px_run_file_open(&file, path, &head, false, 0, &segment, ranks, 2), PX_CONFIG);
        assert_null(file);
        assert_false(px_file_exists(path));
    }
    px_error_clear();
}

static void test_snapshot_and_repair(void **state)
{
    (void)state;
    char copy[320];
    px_frame frame;
    snprintf(copy, sizeof copy, "%s/copy.h5", dir);
    px_run_file *file = open_file(false, 0);
    write_rows(file, 1, 12);
    assert_ok(px_run_file_snapshot(path, copy));
    assert_ok(px_frame_read(copy, "/metrics", &frame));
    assert_int_equal(frame.rows, 12);
    px_frame_free(&frame);
    assert_ok(px_run_file_close(file, 12, 75, "", false));
    px_lock *lock;
    assert_ok(px_lock_take(&lock, dir));
    assert_int_equal(px_run_file_repair(path), PX_IO);
    px_lock_release(lock);
    assert_ok(px_run_file_repair(path));
    check_metrics(12);
    check_config();
}

/* PHALANX_FAULT is read once in a process: the resume that fails is another run of this program. */
static int run_with_fault(const char *site)
{
    char fault[64];
    int status = 0;
    snprintf(fault, sizeof fault, "%s:1:-1", site);
    pid_t child = fork();
    if (child == 0) {
        setenv("PHALANX_FAULT", fault, 1);
        execl("/proc/self/exe", "test_run_file", "--resume", path, (char *)NULL);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static int resume_only(const char *where)
{
    px_run_file *file;
    const px_run_header head = header();
    return px_run_file_open(&file, where, &head, true, 4, &segment, ranks, 2);
}

/* Every step of opening may fail: the old file, or the new one as a whole, is there. */
static void test_faults(void **state)
{
    (void)state;
    static const char *const sites[] = {"store.create", "store.attribute", "store.scalar", "store.table", "store.write",
                                        "store.sync", "store.swmr", "store.fsync", "store.rename"};
    px_run_file *file = open_file(false, 0);
    write_rows(file, 1, 5);
    assert_ok(px_run_file_close(file, 5, 75, "", false));
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        int code = run_with_fault(sites[i]);
        if (code != PX_IO) fail_msg("%s: exit code %d", sites[i], code);
        check_metrics(5);
    }
    assert_int_equal(run_with_fault("store.dirsync"), PX_IO);
    check_metrics(4); /* the new file had its name already */
    file = open_file(true, 3);
    check_metrics(3);
    assert_ok(px_run_file_close(file, 4, 0, "", true));
}

static void test_foreign(void **state)
{
    (void)state;
    px_frame frame;
    assert_int_equal(px_frame_read("/nowhere/run.h5", "/metrics", &frame), PX_IO);
    assert_non_null(strstr(px_error_text(), "No such file"));
    assert_int_equal(px_frame_read(dir, "/metrics", &frame), PX_IO);
    assert_ok(px_file_write(path, "not HDF5 at all", 15));
    assert_int_equal(px_frame_read(path, "/metrics", &frame), PX_DATA);
    assert_non_null(strstr(px_error_text(), path));
    /* An unreadable log does not stop a run: it is kept beside the new one. */
    px_run_file *file = open_file(true, 3);
    write_rows(file, 1, 1);
    assert_ok(px_run_file_close(file, 1, 0, "", true));
    char aside[320];
    snprintf(aside, sizeof aside, "%s.damaged", path);
    assert_true(px_file_exists(aside));
    check_metrics(1);
    assert_int_equal(px_frame_read(path, "/none", &frame), PX_DATA);
    assert_int_equal(px_frame_read(path, "/config", &frame), PX_DATA);
}

/* Nothing stays allocated. */
static void test_memory(void **state)
{
    (void)state;
    size_t before = px_alloc_live();
    px_run_file *file = open_file(false, 0);
    write_rows(file, 1, 3);
    assert_ok(px_run_file_close(file, 3, 0, "", true));
    file = open_file(true, 3);
    size_t allocations = px_alloc_count();
    write_rows(file, 4, 9);
    assert_int_equal(px_alloc_count(), allocations);
    assert_ok(px_run_file_close(file, 9, 0, "", true));
    check_metrics(9);
    assert_int_equal(px_alloc_live(), before);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--resume") == 0) return resume_only(argv[2]);
    px_log_level(PX_ERROR);
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {TEST(test_live_and_finished), TEST(test_resume), TEST(test_many_attributes),
                                       TEST(test_other_columns),
                                       TEST(test_names), TEST(test_snapshot_and_repair), TEST(test_faults),
                                       TEST(test_foreign), TEST(test_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
