/* Which rows make a step: packed or one after another, over epochs, and from wherever a run is continued. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rlhf/lm_batches.h"

enum { ROWS = 700, LONGEST = 40, TOKENS = 128, STEPS = 400 };

static char dir[] = "/tmp/phalanx-batches-XXXXXX";
static px_dataset *data;

/* Rows of 2 to LONGEST ids, whose first is the row's number. */
static int make_data(void **state)
{
    (void)state;
    px_buf text = {0};
    char path[64];
    uint32_t x = 1;
    assert_non_null(mkdtemp(dir));
    for (int r = 0; r < ROWS; r++) {
        x = x * 1664525u + 1013904223u;
        px_buf_printf(&text, "{\"ids\": [%d", r);
        for (uint32_t n = 1 + (x >> 8) % (LONGEST - 1); n > 0; n--) {
            px_buf_text(&text, ", 1");
        }
        px_buf_text(&text, "]}\n");
    }
    snprintf(path, sizeof path, "%s/rows.jsonl", dir);
    assert_int_equal(px_file_write(path, text.data, text.length), PX_OK);
    px_buf_free(&text);
    px_data_options options = {.kind = PX_ROWS_LM, .eos_id = -1};
    return px_dataset_load(&data, path, &options) == PX_OK ? 0 : -1;
}

static int drop_data(void **state)
{
    (void)state;
    px_dataset_destroy(data);
    px_tree_remove(dir);
    return px_alloc_live() == 0 ? 0 : -1;
}

static px_lm_config with(bool packing, bool shuffle, int64_t batch_tokens)
{
    return (px_lm_config){.train = data, .max_tokens = LONGEST, .packing = packing, .shuffle = shuffle, .batch_tokens = batch_tokens};
}

static int64_t tokens_of(const px_lm_batches *b)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < b->count; i++) {
        sum += b->lengths[i];
    }
    return sum;
}

/* Steps of one epoch and the least tokens of a step; every row is in the epoch once. */
static int walk_epoch(px_lm_batches *b, double *cursor, int64_t most, int64_t *least)
{
    static int seen[ROWS];
    int steps = 0;
    double end = *cursor + ROWS;
    memset(seen, 0, sizeof seen);
    *least = INT64_MAX;
    while (*cursor < end) {
        assert_int_equal(px_lm_batches_next(b, cursor), PX_OK);
        int64_t tokens = tokens_of(b);
        assert_true(tokens <= most && b->count > 0);
        *least = tokens < *least ? tokens : *least;
        for (int64_t i = 0; i < b->count; i++) {
            seen[b->pieces[i].row]++;
        }
        steps++;
    }
    assert_true(*cursor == end);
    for (int r = 0; r < ROWS; r++) {
        assert_int_equal(seen[r], 1);
    }
    return steps;
}

static void packed_steps_are_full(void **state)
{
    (void)state;
    static const int64_t sizes[] = {TOKENS, 300, 2000}; /* two windows, one, one */
    int64_t all = px_dataset_summary(data)->tokens;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        for (int shuffle = 0; shuffle < 2; shuffle++) {
            px_lm_config config = with(true, shuffle, sizes[k]), loose = with(false, shuffle, sizes[k]);
            px_lm_batches b, plain;
            assert_int_equal(px_lm_batches_init(&b, &config, 3, "s"), PX_OK);
            assert_int_equal(px_lm_batches_init(&plain, &loose, 3, "s"), PX_OK);
            int windows = (int)((ROWS + b.window - 1) / b.window), steps = 0;
            assert_int_equal(windows, k == 0 ? 2 : 1);
            double cursor = 0.0;
            int64_t least;
            for (int epoch = 0; epoch < 3; epoch++) {
                steps = walk_epoch(&b, &cursor, sizes[k], &least);
                int64_t lower = (all + sizes[k] - 1) / sizes[k]; /* no packing has fewer steps */
                assert_in_range(steps, lower, lower + windows);
                assert_true(k == 0 || (double)least > 0.8 * (double)all / steps); /* none is a small rest */
            }
            int64_t counted;
            if (k > 0) {
                assert_int_equal(px_lm_steps(&config, 2.0, 3, "s", &counted), PX_OK);
                assert_int_equal(counted, 2 * steps);
            }
            int loose_steps = 0;
            for (cursor = 0.0; cursor < ROWS; loose_steps++) {
                assert_int_equal(px_lm_batches_next(&plain, &cursor), PX_OK);
            }
            assert_true(k == 2 || loose_steps > steps);
            assert_int_equal(px_lm_steps(&loose, 1.0, 3, "s", &counted), PX_OK);
            assert_int_equal(counted, loose_steps);
            px_lm_batches_free(&b);
            px_lm_batches_free(&plain);
        }
    }
}

/* Long rows are more than one piece: all of them are an epoch. */
static void pieces_of_an_epoch(void **state)
{
    (void)state;
    px_lm_config config = {.train = data, .max_tokens = 10, .pieces = true, .shuffle = true, .batch_size = 7};
    px_lm_batches b;
    int64_t steps, walked = 0;
    static int seen[ROWS];
    assert_int_equal(px_lm_batches_init(&b, &config, 3, "s"), PX_OK);
    assert_int_equal(px_lm_steps(&config, 1.0, 3, "s", &steps), PX_OK);
    for (double cursor = 0.0; walked < steps; walked++) {
        assert_int_equal(px_lm_batches_next(&b, &cursor), PX_OK);
        for (int64_t i = 0; i < b.count; i++) {
            seen[b.pieces[i].row] += b.pieces[i].length;
        }
    }
    for (int r = 0; r < ROWS; r++) {
        px_row row;
        px_dataset_row(data, r, &row);
        assert_true(seen[r] + 1 >= row.length); /* a last token alone predicts nothing */
    }
    px_lm_batches_free(&b);
}

/* Made anew at any step, it goes on with the same pieces. */
static void a_continued_run_takes_the_same_steps(void **state)
{
    (void)state;
    px_lm_config config = with(true, true, TOKENS);
    px_lm_batches whole, part;
    double cursor = 0.0;
    bool sorted = true;
    int64_t last = -1;
    assert_int_equal(px_lm_batches_init(&whole, &config, 3, "s"), PX_OK);
    for (int step = 0; step < STEPS; step++) {
        double from = cursor, other = cursor;
        assert_int_equal(px_lm_batches_next(&whole, &cursor), PX_OK);
        sorted = sorted && whole.pieces[0].row > last;
        last = whole.pieces[0].row;
        if (step % 17 != 0) {
            continue;
        }
        assert_int_equal(px_lm_batches_init(&part, &config, 3, "s"), PX_OK);
        assert_int_equal(px_lm_batches_next(&part, &other), PX_OK);
        assert_true(other == cursor && part.count == whole.count && other > from);
        assert_memory_equal(part.pieces, whole.pieces, (size_t)whole.count * sizeof(px_piece));
        px_lm_batches_free(&part);
    }
    assert_false(sorted); /* the steps are shuffled too */
    px_lm_batches_free(&whole);
}

static void without_shuffle_steps_follow_their_first_rows(void **state)
{
    (void)state;
    px_lm_config config = with(true, false, 300);
    px_lm_batches b;
    double cursor = 0.0;
    int64_t last = -1;
    assert_int_equal(px_lm_batches_init(&b, &config, 3, "s"), PX_OK);
    while (cursor < ROWS) {
        assert_int_equal(px_lm_batches_next(&b, &cursor), PX_OK);
        assert_true(b.pieces[0].row > last);
        last = b.pieces[0].row;
        for (int64_t i = 1; i < b.count; i++) {
            assert_true(b.pieces[i].row > b.pieces[i - 1].row);
        }
    }
    px_lm_batches_free(&b);
}

static void a_longer_row_is_a_step_of_its_own(void **state)
{
    (void)state;
    px_lm_config config = with(true, true, 25);
    px_lm_batches b;
    double cursor = 0.0;
    int alone = 0;
    assert_int_equal(px_lm_batches_init(&b, &config, 3, "s"), PX_OK);
    while (cursor < ROWS) {
        assert_int_equal(px_lm_batches_next(&b, &cursor), PX_OK);
        assert_true(tokens_of(&b) <= 25 || b.count == 1);
        alone += tokens_of(&b) > 25;
    }
    assert_true(alone > ROWS / 4);
    px_lm_batches_free(&b);
}

static void batch_size_takes_rows_as_they_come(void **state)
{
    (void)state;
    px_lm_config config = with(true, false, 0);
    config.batch_size = ROWS;
    px_lm_batches b;
    double cursor = 0.0;
    assert_int_equal(px_lm_batches_init(&b, &config, 3, "s"), PX_OK);
    assert_int_equal(px_lm_batches_next(&b, &cursor), PX_OK);
    assert_int_equal(b.count, ROWS);
    for (int r = 0; r < ROWS; r++) {
        assert_int_equal(b.pieces[r].row, r);
    }
    px_lm_batches_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_steps_are_full), cmocka_unit_test(pieces_of_an_epoch),
        cmocka_unit_test(a_continued_run_takes_the_same_steps),
        cmocka_unit_test(without_shuffle_steps_follow_their_first_rows),
        cmocka_unit_test(a_longer_row_is_a_step_of_its_own),
        cmocka_unit_test(batch_size_takes_rows_as_they_come),
    };
    return cmocka_run_group_tests(tests, make_data, drop_data);
}
