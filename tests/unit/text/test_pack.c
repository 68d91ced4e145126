#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "phalanx/text.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 600 };

/* The same rule in its plainest form: quadratic. */
static int64_t plain_best_fit(const int32_t *lengths, int64_t count, int capacity, int32_t *bin)
{
    int64_t order[MOST], bins = 0;
    int space[MOST];
    for (int64_t i = 0; i < count; i++) { /* insertion sort is stable: ties by index */
        int64_t k = i;
        for (; k > 0 && lengths[order[k - 1]] < lengths[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t best = -1;
        for (int64_t b = 0; b < bins; b++)
            if (space[b] >= lengths[order[i]] && (best < 0 || space[b] < space[best])) best = b;
        if (best < 0) space[best = bins++] = capacity;
        space[best] -= lengths[order[i]];
        bin[order[i]] = (int32_t)best;
    }
    return bins;
}

static void agrees_with_the_plain_rule(void **state)
{
    (void)state;
    px_rng rng = px_rng_make(11, "pack", PX_RNG_NOISE);
    for (uint32_t trial = 0; trial < 400; trial++) {
        int capacity = 1 + (int)(px_rng_uniform(&rng, trial, 0, 0, 0) * 100);
        int64_t count = (int64_t)(px_rng_uniform(&rng, trial, 1, 0, 0) * MOST);
        int least = (int)(px_rng_uniform(&rng, trial, 2, 0, 0) * capacity);
        int32_t lengths[MOST], bin[MOST], expected[MOST];
        for (int64_t i = 0; i < count; i++)
            lengths[i] = least + (int32_t)(px_rng_uniform(&rng, trial, 3, (uint32_t)i, 0) * (capacity - least + 1));
        int64_t bins = px_pack(lengths, count, capacity, bin);
        assert_int_equal(bins, plain_best_fit(lengths, count, capacity, expected));
        assert_memory_equal(bin, expected, (size_t)count * sizeof *bin);
    }
}

static void no_bin_overflows_and_none_is_empty(void **state)
{
    (void)state;
    enum { COUNT = 20000, CAPACITY = 1024 };
    int32_t *lengths = calloc(COUNT, sizeof *lengths), *bin = calloc(COUNT, sizeof *bin);
    int64_t *used = calloc(COUNT, sizeof *used), total = 0;
    px_rng rng = px_rng_make(5, "", PX_RNG_NOISE);
    for (uint32_t i = 0; i < COUNT; i++) {
        lengths[i] = 1 + (int32_t)(px_rng_uniform(&rng, i, 0, 0, 0) * CAPACITY);
        total += lengths[i];
    }
    int64_t bins = px_pack(lengths, COUNT, CAPACITY, bin);
    for (int i = 0; i < COUNT; i++) {
        assert_in_range(bin[i], 0, bins - 1);
        used[bin[i]] += lengths[i];
    }
    for (int64_t b = 0; b < bins; b++) assert_in_range(used[b], 1, CAPACITY);
    /* 11/9 of the optimum + 4 is the guarantee of best fit decreasing (Johnson et al. 1974). */
    assert_true(bins <= (total + CAPACITY - 1) / CAPACITY * 11 / 9 + 4);
    free(lengths);
    free(bin);
    free(used);
}

static void small_cases(void **state)
{
    (void)state;
    int32_t bin[8];
    const int32_t known[] = {2, 5, 4, 7, 1, 3, 8}; /* capacity 10: 8+2, 7+3, 5+4+1 */
    assert_int_equal(px_pack(known, 7, 10, bin), 3);
    const int32_t expected[] = {0, 2, 2, 1, 2, 1, 0};
    assert_memory_equal(bin, expected, sizeof expected);
    const int32_t full[] = {10, 10, 10};
    assert_int_equal(px_pack(full, 3, 10, bin), 3);
    const int32_t in_order[] = {0, 1, 2};
    assert_memory_equal(bin, in_order, sizeof in_order);
    assert_int_equal(px_pack(NULL, 0, 10, NULL), 0);
}

static void a_row_over_the_capacity_is_named(void **state)
{
    (void)state;
    const int32_t lengths[] = {3, 11};
    int32_t bin[2];
    assert_int_equal(px_pack(lengths, 2, 10, bin), -1);
    assert_non_null(strstr(px_error_text(), "row 1 has 11 tokens; valid is up to 10"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_plain_rule),
        cmocka_unit_test(no_bin_overflows_and_none_is_empty),
        cmocka_unit_test(small_cases),
        cmocka_unit_test(a_row_over_the_capacity_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
