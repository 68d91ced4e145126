#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "phalanx/text.h"

#include <stdlib.h>
#include <string.h>

static void each_epoch_visits_every_row_once(void **state)
{
    (void)state;
    for (int64_t rows = 1; rows <= 257; rows = 2 * rows + 3) {
        px_order order;
        assert_int_equal(px_order_init(&order, &(px_part){rows, 1.0}, 1, true, px_rng_make(7, "sft", PX_RNG_ORDER)), PX_OK);
        for (int64_t epoch = 0; epoch < 4; epoch++) {
            int seen[600] = {0};
            for (int64_t i = 0; i < rows; i++) {
                int64_t row = px_order_row(&order, epoch * rows + i);
                assert_in_range(row, 0, rows - 1);
                assert_int_equal(seen[row]++, 0);
            }
        }
        px_order_free(&order);
    }
}

static void a_position_is_a_function_of_seed_and_epoch_alone(void **state)
{
    (void)state;
    enum { ROWS = 50, POSITIONS = 400 };
    px_order forward, backward, other_seed, other_stage;
    int64_t row[POSITIONS];
    int same_epoch = 0, same_seed = 0, same_stage = 0;
    assert_int_equal(px_order_init(&forward, &(px_part){ROWS, 1.0}, 1, true, px_rng_make(7, "sft", PX_RNG_ORDER)), PX_OK);
    assert_int_equal(px_order_init(&backward, &(px_part){ROWS, 1.0}, 1, true, px_rng_make(7, "sft", PX_RNG_ORDER)), PX_OK);
    assert_int_equal(px_order_init(&other_seed, &(px_part){ROWS, 1.0}, 1, true, px_rng_make(8, "sft", PX_RNG_ORDER)), PX_OK);
    assert_int_equal(px_order_init(&other_stage, &(px_part){ROWS, 1.0}, 1, true, px_rng_make(7, "ppo", PX_RNG_ORDER)), PX_OK);
    for (int p = 0; p < POSITIONS; p++) row[p] = px_order_row(&forward, p);
    for (int p = POSITIONS - 1; p >= 0; p -= 7) assert_int_equal(px_order_row(&backward, p), row[p]);
    for (int p = 0; p < POSITIONS; p++) {
        same_seed += px_order_row(&other_seed, p) == row[p];
        same_stage += px_order_row(&other_stage, p) == row[p];
        if (p >= ROWS) same_epoch += row[p] == row[p - ROWS];
    }
    /* Independent permutations share one place on average in every 50: 8 of 400. */
    assert_true(same_seed < 40 && same_stage < 40 && same_epoch < 40);
    px_order_free(&forward);
    px_order_free(&backward);
    px_order_free(&other_seed);
    px_order_free(&other_stage);
}

static void without_shuffle_rows_come_in_file_order(void **state)
{
    (void)state;
    px_order order;
    assert_int_equal(px_order_init(&order, &(px_part){5, 1.0}, 1, false, px_rng_make(1, "", PX_RNG_ORDER)), PX_OK);
    for (int64_t p = 0; p < 23; p++) assert_int_equal(px_order_row(&order, p), p % 5);
    px_order_free(&order);
}

/* Weights 2, 1, 1/4 and 0.001 (never less than a row): what an epoch takes of each part, and that epochs which share a
 * pass take it in turns, each from all over the part. */
static void weights_are_passes(void **state)
{
    (void)state;
    const px_part parts[] = {{3, 2.0}, {5, 1.0}, {16, 0.25}, {2, 0.001}};
    enum { ROWS = 26, LENGTH = 6 + 5 + 4 + 1, EPOCHS = 4 };
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        px_order order;
        int seen[ROWS] = {0};
        assert_int_equal(px_order_init(&order, parts, 4, shuffle, px_rng_make(7, "sft", PX_RNG_ORDER)), PX_OK);
        assert_int_equal(order.length, LENGTH);
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
            int64_t low = ROWS, high = 0;
            for (int64_t i = 0; i < LENGTH; i++) {
                int64_t row = px_order_row(&order, epoch * LENGTH + i);
                assert_in_range(row, 0, ROWS - 1);
                seen[row]++;
                if (row >= 8 && row < 24) low = row < low ? row : low, high = row > high ? row : high;
            }
            for (int row = 0; row < 8; row++) assert_int_equal(seen[row], (epoch + 1) * (row < 3 ? 2 : 1));
            if (shuffle) assert_true(high - low >= 8);
            else assert_true(low == 8 + 4 * epoch && high == low + 3);
        }
        for (int row = 8; row < 24; row++) assert_int_equal(seen[row], 1);
        assert_int_equal(seen[24], 2);
        assert_int_equal(seen[25], 2);
        px_order_free(&order);
    }
}

/* Beyond 2^22 places the permutation has no table: still each place once, another one in each epoch, and no memory. */
static void long_epochs_have_no_table(void **state)
{
    (void)state;
    const int64_t rows = (INT64_C(1) << 22) + 12345;
    const px_part part = {rows, 1.0};
    px_order order;
    uint8_t *seen = calloc((size_t)rows / 8 + 1, 1);
    assert_int_equal(px_order_bytes(&part, 1, true), 0);
    assert_int_equal(px_order_init(&order, &part, 1, true, px_rng_make(7, "sft", PX_RNG_ORDER)), PX_OK);
    int64_t same = 0, fixed = 0, rising = 0, last = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = px_order_row(&order, i);
        assert_true(row >= 0 && row < rows && !(seen[row / 8] >> row % 8 & 1));
        seen[row / 8] |= (uint8_t)(1 << row % 8);
        fixed += row == i;
        rising += row > last;
        last = row;
        if (i % 64 == 0) same += row == px_order_row(&order, rows + i);
    }
    assert_true(same < 5 && fixed < 12); /* one each is expected */
    assert_true(llabs(rising - rows / 2) < 4000); /* standard deviation: sqrt(rows / 12), 592 */
    free(seen);
    px_order_free(&order);
}

static void far_epochs_are_orders_too(void **state)
{
    (void)state;
    px_order order;
    int seen[9] = {0};
    int64_t far = (INT64_C(1) << 40) * 9;
    assert_int_equal(px_order_init(&order, &(px_part){9, 1.0}, 1, true, px_rng_make(1, "", PX_RNG_ORDER)), PX_OK);
    for (int i = 0; i < 9; i++) seen[px_order_row(&order, far + i)]++;
    for (int i = 0; i < 9; i++) assert_int_equal(seen[i], 1);
    px_order_free(&order);
}

static void no_rows_is_an_error(void **state)
{
    (void)state;
    px_order order;
    assert_int_equal(px_order_init(&order, &(px_part){0, 1.0}, 1, true, px_rng_make(1, "", PX_RNG_ORDER)), PX_DATA);
    assert_non_null(strstr(px_error_text(), "one row or more"));
    px_order_free(&order);
}

static void places_are_uniform(void **state)
{
    (void)state;
    enum { ROWS = 6, EPOCHS = 6000 };
    px_order order;
    int at[ROWS][ROWS] = {{0}};
    assert_int_equal(px_order_init(&order, &(px_part){ROWS, 1.0}, 1, true, px_rng_make(3, "", PX_RNG_ORDER)), PX_OK);
    for (int64_t p = 0; p < (int64_t)ROWS * EPOCHS; p++) at[p % ROWS][px_order_row(&order, p)]++;
    double chi2 = 0.0, expected = (double)EPOCHS / ROWS;
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < ROWS; k++) chi2 += (at[i][k] - expected) * (at[i][k] - expected) / expected;
    assert_true(chi2 < 56.0); /* 25 degrees of freedom: 1 in 2500 */
    px_order_free(&order);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_epoch_visits_every_row_once),
        cmocka_unit_test(a_position_is_a_function_of_seed_and_epoch_alone),
        cmocka_unit_test(without_shuffle_rows_come_in_file_order),
        cmocka_unit_test(weights_are_passes),
        cmocka_unit_test(long_epochs_have_no_table),
        cmocka_unit_test(far_epochs_are_orders_too),
        cmocka_unit_test(no_rows_is_an_error),
        cmocka_unit_test(places_are_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
