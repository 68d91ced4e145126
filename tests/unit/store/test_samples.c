/* Sample files: rows accumulate, a redone iteration replaces what a killed run left, the file is whole at any moment.
 */
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
#include <sys/wait.h>
#include <unistd.h>

static char dir[256], path[300];

#define assert_ok(call)                                                                                             \
    do {                                                                                                           \
        if ((call) != PX_OK) fail_msg("%s", px_error_text());                                                      \
    } while (0)

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_samples_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/samples-000001.h5", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

enum { SAMPLES = 4, LENGTH = 3 };

/* Sample ids are iteration * SAMPLES + i; texts get longer with the iteration. */
static px_status append(int64_t iteration, int64_t keep)
{
    const int width = (int)iteration + 8;
    const px_column samples[] = {{.name = "sample", .type = PX_COL_I64}, {.name = "iteration", .type = PX_COL_I64},
                                 {.name = "finish", .type = PX_COL_I8}, {.name = "score", .type = PX_COL_F32},
                                 {.name = "rank", .type = PX_COL_I32},
                                 {.name = "completion", .type = PX_COL_TEXT, .width = width}};
    const px_column tokens[] = {{.name = "token", .type = PX_COL_I64}, {.name = "sample", .type = PX_COL_I64},
                                {.name = "id", .type = PX_COL_I32}, {.name = "old_logprob", .type = PX_COL_F32}};
    int64_t ids[SAMPLES], iterations[SAMPLES], places[SAMPLES * LENGTH], owners[SAMPLES * LENGTH];
    int8_t finish[SAMPLES];
    float scores[SAMPLES], logprobs[SAMPLES * LENGTH];
    int32_t at_rank[SAMPLES], token_ids[SAMPLES * LENGTH];
    char texts[SAMPLES * 64] = {0};
    for (int i = 0; i < SAMPLES; i++) {
        ids[i] = iteration * SAMPLES + i;
        iterations[i] = iteration;
        finish[i] = (int8_t)(i % 2);
        scores[i] = i == 3 ? NAN : (float)ids[i] * 0.1f;
        at_rank[i] = i;
        memset(texts + i * width, 'a' + (int)iteration, (size_t)width - 1);
    }
    for (int i = 0; i < SAMPLES * LENGTH; i++) {
        places[i] = iteration * SAMPLES * LENGTH + i;
        owners[i] = ids[i / LENGTH];
        token_ids[i] = i;
        logprobs[i] = -(float)places[i];
    }
    const void *sample_values[] = {ids, iterations, finish, scores, at_rank, texts};
    const void *token_values[] = {places, owners, token_ids, logprobs};
    const px_table_data tables[] = {{"/samples", samples, 6, SAMPLES, sample_values},
                                    {"/tokens", tokens, 4, SAMPLES * LENGTH, token_values}};
    return px_samples_append(path, tables, 2, keep, NULL);
}

static void check(const int64_t *iterations, int count)
{
    px_frame frame;
    assert_ok(px_frame_read(path, "/samples", &frame));
    assert_int_equal(frame.rows, count * SAMPLES);
    for (int64_t row = 0; row < frame.rows; row++) {
        int64_t iteration = iterations[row / SAMPLES], id = iteration * SAMPLES + row % SAMPLES;
        assert_true(px_frame_number(&frame, 0, row) == (double)id);
        assert_true(px_frame_number(&frame, 1, row) == (double)iteration);
        assert_true(px_frame_number(&frame, 2, row) == (double)(row % 2));
        double score = px_frame_number(&frame, 3, row);
        if (row % SAMPLES == 3) {
            assert_true(isnan(score));
        } else {
            assert_true(score == (double)((float)id * 0.1f));
        }
        const char *text = px_frame_text(&frame, 5, row);
        assert_int_equal(strlen(text), iteration + 7);
        assert_int_equal(text[0], 'a' + iteration);
    }
    px_frame_free(&frame);
    assert_ok(px_frame_read(path, "/tokens", &frame));
    assert_int_equal(frame.rows, count * SAMPLES * LENGTH);
    for (int64_t row = 0; row < frame.rows; row++) {
        int64_t iteration = iterations[row / (SAMPLES * LENGTH)];
        double place = (double)(iteration * SAMPLES * LENGTH + row % (SAMPLES * LENGTH));
        assert_true(px_frame_number(&frame, 0, row) == place);
        assert_true(px_frame_number(&frame, 3, row) == -place);
    }
    px_frame_free(&frame);
}

static void test_append(void **state)
{
    (void)state;
    size_t before = px_alloc_live();
    assert_ok(append(1, 0));
    check((const int64_t[]){1}, 1);
    assert_ok(append(2, 1));
    assert_ok(append(3, 2));
    check((const int64_t[]){1, 2, 3}, 3);
    assert_ok(append(2, 1)); /* resumed after iteration 1: 2 and 3 go, 2 comes again */
    check((const int64_t[]){1, 2}, 2);
    assert_int_equal(px_alloc_live(), before);
}

static void test_position(void **state)
{
    (void)state;
    int64_t rows = -1;
    assert_ok(px_samples_rows(path, "/tokens", 5, &rows));
    assert_int_equal(rows, 0);
    assert_ok(append(1, 0));
    assert_ok(append(2, 1));
    assert_ok(px_samples_rows(path, "/tokens", 2, &rows));
    assert_int_equal(rows, 2 * SAMPLES * LENGTH);
    assert_ok(px_samples_rows(path, "/tokens", 1, &rows));
    assert_int_equal(rows, SAMPLES * LENGTH);
    assert_ok(px_samples_rows(path, "/samples", 0, &rows));
    assert_int_equal(rows, 0);
}

static void test_bad_names(void **state)
{
    (void)state;
    const px_column columns[] = {{.name = "sample", .type = PX_COL_I64}, {.name = "reward_a", .type = PX_COL_F32},
                                 {.name = "reward_a/b", .type = PX_COL_F32}};
    const int64_t id = 1;
    const float value = 2;
    const void *values[] = {&id, &value, &value};
    const px_table_data table = {"/samples", columns, 3, 1, values};
    assert_int_equal(px_samples_append(path, &table, 1, 0, NULL), PX_CONFIG);
    assert_false(px_file_exists(path));
    px_error_clear();
}

static void test_kill(void **state)
{
    (void)state;
    assert_ok(append(1, 0));
    for (int round = 0; round < 15; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (;;) {
                if (append(2, 1) != PX_OK) _exit(1);
            }
        }
        usleep((useconds_t)(2000 + (round * 7919) % 30000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        px_frame frame;
        assert_ok(px_frame_read(path, "/samples", &frame));
        bool first_alone = frame.rows == SAMPLES;
        px_frame_free(&frame);
        check((const int64_t[]){1, 2}, first_alone ? 1 : 2);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {TEST(test_append), TEST(test_position), TEST(test_bad_names), TEST(test_kill)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
