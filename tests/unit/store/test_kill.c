/* A writer that is killed at any moment loses no row that it had reported, and the run goes on in the same file.
 * With arguments, `test_kill --write PATH ROWS PAUSE_MS`, it is a small writer for tests from outside;
 * `--read PATH TABLE` reads a table. */
#include "phalanx/store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { METRICS = 12 };
static const char *const names[METRICS] = {"objective/kl", "objective/scores", "objective/entropy", "loss/policy_avg",
                                           "loss/value_avg", "policy/clipfrac_avg", "val/ratio", "val/ratio_var", "lr",
                                           "time_total_s", "timers/sample", "rollout/logprob_diff_max"};
static char dir[256], path[300];

#define assert_ok(call)                                                                                             \
    do {                                                                                                           \
        if ((call) != PX_OK) fail_msg("%s", px_error_text());                                                      \
    } while (0)

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_kill_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/run.h5", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

static px_status open_run(px_run_file **file, const char *where, bool resume, int64_t last)
{
    px_column metrics[METRICS];
    static const char *const tokens[] = {"<s>", "</s>", "a"};
    const px_attribute config[] = {{.name = "training.lr", .type = 'f', .f = 1e-4},
                                   {.name = "stop.iterations", .type = 'i', .i = 100},
                                   {.name = "training.whiten_advantages", .type = 'b', .i = 1},
                                   {.name = "run.name", .type = 's', .s = "gr\xc3\xbcn"}};
    const px_column evaluation = {
        .name = "objective/scores", .type = PX_COL_F64, .units = "1", .long_name = "mean score"};
    for (int i = 0; i < METRICS; i++) {
        metrics[i] =
            (px_column){.name = names[i], .type = PX_COL_F64, .units = i == 9 ? "s" : "1", .long_name = names[i]};
    }
    const px_run_header header = {.run_name = "kill", .algorithm = "ppo", .config = config, .config_count = 4,
                                  .config_hash = "0", .yaml = "run: {name: gr\xc3\xbcn}\n", .source = "x",
                                  .metrics = metrics, .metric_count = METRICS, .evaluation = &evaluation,
                                  .evaluation_count = 1, .tokens = tokens, .token_count = 3, .bos_id = 0, .eos_id = 1};
    const px_segment segment = {.first_iteration = last + 1, .num_ranks = 1, .job_id = "", .commit = ""};
    const px_rank_entry rank = {.rank = 0, .cpus = 1, .pid = getpid(), .host = "h", .role = "driver"};
    return px_run_file_open(file, where, &header, resume, last, &segment, &rank, 1);
}

static double value(int64_t iteration, int metric)
{
    return metric == 3 ? NAN : (double)iteration + metric / 64.0;
}

static px_status write_row(px_run_file *file, int64_t iteration)
{
    double row[METRICS];
    for (int i = 0; i < METRICS; i++) row[i] = value(iteration, i);
    if (iteration % 5 == 0) PX_TRY(px_run_file_event(file, iteration, 0, "note", "a fifth"));
    return px_run_file_metrics(file, iteration, row);
}

/* All rows from 1 on are there and right; returns how many. */
static int64_t check_rows(void)
{
    px_frame frame;
    assert_ok(px_frame_read(path, "/metrics", &frame));
    int64_t rows = frame.rows;
    int columns[METRICS];
    for (int i = 0; i < METRICS; i++) columns[i] = px_frame_column(&frame, names[i]);
    for (int64_t row = 0; row < rows; row++) {
        double iteration = px_frame_number(&frame, 0, row);
        if (iteration != (double)(row + 1)) fail_msg("row %d of %d is iteration %g", (int)row, (int)rows, iteration);
        for (int i = 0; i < METRICS; i++) {
            double want = value(row + 1, i), got = px_frame_number(&frame, columns[i], row);
            assert_true(isnan(want) ? isnan(got) : want == got);
        }
    }
    px_frame_free(&frame);
    return rows;
}

static void write_for_ever(bool resume, int64_t last, volatile int64_t *reported)
{
    px_run_file *file;
    if (open_run(&file, path, resume, last) != PX_OK) _exit(1);
    for (int64_t i = last + 1;; i++) {
        if (write_row(file, i) != PX_OK) _exit(2);
        *reported = i;
    }
}

static void test_kill(void **state)
{
    (void)state;
    volatile int64_t *reported =
        mmap(NULL, sizeof *reported, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(reported != MAP_FAILED);
    int64_t last = 0, before = 0;
    bool exists = false;
    int segments = 0;
    for (int round = 0; round < 30; round++) {
        *reported = last;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) write_for_ever(exists, last, reported);
        /* Every fourth is killed while it opens, the others some rows later. */
        for (int wait_ms = 0; round % 4 && *reported < last + round % 7 && wait_ms < 5000; wait_ms++) usleep(1000);
        usleep((useconds_t)((round * 7919) % 20000));
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        if (!px_file_exists(path)) continue;
        exists = true;
        int64_t rows = check_rows();
        /* What was reported is there; one more may be, whose report was cut off. Killed within the opening: as before.
         */
        bool unopened = *reported == last && rows == before;
        if (!unopened && (rows < *reported || rows > *reported + 1)) {
            fail_msg("%d rows, %d reported", (int)rows, (int)*reported);
        }
        before = rows;
        last = rows > 3 ? rows - 3 : rows; /* the checkpoint lies a little behind */
    }
    assert_true(last > 20);

    px_run_file *file;
    assert_ok(open_run(&file, path, true, last));
    segments = px_run_file_segment(file);
    assert_ok(write_row(file, last + 1));
    assert_ok(px_run_file_close(file, last + 1, 0, "done", true));
    assert_int_equal(check_rows(), last + 1);
    px_frame frame;
    assert_ok(px_frame_read(path, "/segments", &frame));
    assert_int_equal(frame.rows, segments + 1);
    for (int64_t row = 0; row < frame.rows; row++) {
        bool ended = row == frame.rows - 1;
        assert_string_equal(px_frame_text(&frame, px_frame_column(&frame, "reason"), row), ended ? "done" : "killed");
        assert_false(isnan(px_frame_number(&frame, px_frame_column(&frame, "end"), row)));
    }
    px_frame_free(&frame);
    munmap((void *)(uintptr_t)reported, sizeof *reported);
}

/* A reader beside the writer sees whole rows, and more and more of them. */
static void test_live_reader(void **state)
{
    (void)state;
    volatile int64_t *reported =
        mmap(NULL, sizeof *reported, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(reported != MAP_FAILED);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) write_for_ever(false, 0, reported);
    while (*reported < 2) usleep(1000);
    int64_t before = 0, first = 0;
    char copy[320];
    snprintf(copy, sizeof copy, "%s/copy.h5", dir);
    for (int look = 0; look < 40; look++) {
        int64_t at_least = *reported;
        int64_t rows = check_rows();
        assert_true(rows >= at_least && rows >= before);
        if (look == 0) first = rows;
        before = rows;
        if (look % 10 == 0) assert_ok(px_run_file_snapshot(path, copy));
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(before > first);
    assert_ok(px_run_file_repair(path));
    assert_true(check_rows() >= before);
    munmap((void *)(uintptr_t)reported, sizeof *reported);
}

/* Rows at a pace that a test can follow; reports each on stdout. */
static void write_slowly(const char *where, int rows, int pause_ms)
{
    px_run_file *file;
    if (open_run(&file, where, false, 0) != PX_OK) goto failed;
    puts("open");
    fflush(stdout);
    for (int i = 1; i <= rows; i++) {
        if (write_row(file, i) != PX_OK) goto failed;
        printf("%d\n", i);
        fflush(stdout);
        usleep((useconds_t)pause_ms * 1000);
    }
    if (px_run_file_close(file, rows, 0, "done", true) != PX_OK) goto failed;
    exit(0);
failed:
    fprintf(stderr, "%s\n", px_error_text());
    exit(1);
}

/* Prints the rows of a table, or why it is refused. */
static int read_table(const char *where, const char *table)
{
    px_frame frame;
    px_status status = px_frame_read(where, table, &frame);
    if (status == PX_OK) {
        printf("%lld rows\n", (long long)frame.rows);
        px_frame_free(&frame);
    } else {
        puts(px_error_text());
    }
    return status;
}

int main(int argc, char **argv)
{
    px_log_level(PX_ERROR);
    if (argc == 4 && strcmp(argv[1], "--read") == 0) return read_table(argv[2], argv[3]);
    if (argc == 5 && strcmp(argv[1], "--write") == 0) write_slowly(argv[2], atoi(argv[3]), atoi(argv[4]));
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {TEST(test_kill), TEST(test_live_reader)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
