#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "phalanx/dist.h"

/* Every rank must reach the same verdict, or a failed assertion would leave the others in a collective. */
static void all_true(bool mine)
{
    int64_t bad = mine ? 0 : 1;
    px_sum_i64(&bad, 1);
    assert_int_equal(bad, 0);
}

static void agreement_takes_the_worst(void **state)
{
    (void)state;
    int rank = px_dist_rank(), last = px_dist_size() - 1;
    all_true(px_agree(PX_OK) == PX_OK);
    px_status mine = rank == last ? px_fail(PX_DATA, "file.jsonl:%d: bad", 7) : PX_OK;
    px_status agreed = px_agree(mine);
    all_true(agreed == PX_DATA && strcmp(px_error_text(), "file.jsonl:7: bad") == 0);
    px_error_clear();
}

static float leaf(int index, size_t element)
{
    return (float)((index * 2654435761u + element * 40503u) % 1000003) * 1e-3f - 400.0f;
}

/* What one process gets by adding `leaves` leaves pairwise, neighbours first. */
static float tree(int first, int leaves, size_t element)
{
    return leaves == 1 ? leaf(first, element)
                       : tree(first, leaves / 2, element) + tree(first + leaves / 2, leaves / 2, element);
}

static void tree_sum_has_the_bits_of_one_rank(void **state)
{
    (void)state;
    int size = px_dist_size(), rank = px_dist_rank();
    const size_t counts[] = {1, 3, 1000, (1 << 20) + 17};
    all_true(px_sum_f32_tree_open() == PX_OK);
    for (int c = 0; c < 4; c++) {
        float *values = malloc(counts[c] * sizeof *values);
        int each = 8 / size;
        for (size_t i = 0; i < counts[c]; i++) {
            values[i] = (size & (size - 1)) == 0 ? tree(rank * each, each, i) : 1.0f;
        }
        px_sum_f32_tree(values, counts[c]);
        bool same = true;
        for (size_t i = 0; i < counts[c]; i++) {
            same = same && values[i] == ((size & (size - 1)) == 0 ? tree(0, 8, i) : (float)size);
        }
        free(values);
        all_true(same);
    }
}

/* Ranks say at their own pace what is ready, and write into what is not: the bits are those of the sum at once. */
static void tree_sum_while_values_are_made(void **state)
{
    (void)state;
    int rank = px_dist_rank();
    const size_t counts[] = {1, 999, (1 << 18) + 1, 5 * (1 << 20) + 17}; /* the last: more than is under way at once */
    for (int c = 0; c < 4; c++) {
        size_t count = counts[c], ready = count;
        float *once = malloc(count * sizeof *once), *pieces = malloc(count * sizeof *pieces);
        for (size_t i = 0; i < count; i++) {
            once[i] = leaf(rank, i);
            pieces[i] = NAN;
        }
        px_sum_f32_tree(once, count);
        px_sum_f32_tree_begin(pieces, count);
        for (size_t step = 1; ready > count / 7; step = step * 3 + (size_t)rank) { /* the rest is ready at the end */
            size_t next = step < ready ? ready - step : 0;
            for (size_t i = next; i < ready; i++) {
                pieces[i] = leaf(rank, i);
            }
            px_sum_f32_tree_ready(ready = next);
        }
        for (size_t i = 0; i < ready; i++) {
            pieces[i] = leaf(rank, i);
        }
        px_sum_f32_tree_end();
        all_true(memcmp(once, pieces, count * sizeof *once) == 0);
        free(once);
        free(pieces);
    }
}

/* Of no power of two: what a binomial tree adds, on every rank of the group. */
static void tree_sum_of_three(void **state)
{
    (void)state;
    enum { COUNT = (1 << 18) + 3 };
    if (px_world_size() < 4) {
        return;
    }
    int rank = px_dist_rank();
    px_status status = PX_OK;
    bool same = true;
    if (rank < 3) {
        px_group_leave();
        status = px_group_enter((int[]){0, 1, 2}, 3, 9);
        float *values = malloc(COUNT * sizeof *values);
        for (size_t i = 0; i < COUNT; i++) {
            values[i] = leaf(rank, i);
        }
        if (status == PX_OK) {
            px_sum_f32_tree(values, COUNT);
        }
        for (size_t i = 0; i < COUNT; i++) {
            same = same && values[i] == (leaf(0, i) + leaf(1, i)) + leaf(2, i);
        }
        free(values);
        px_group_all();
    }
    all_true(status == PX_OK && same);
}

static void gather_and_share(void **state)
{
    (void)state;
    int size = px_dist_size(), rank = px_dist_rank();
    int64_t rows[11], first, count;
    px_share(11, rank, size, &first, &count);
    for (int64_t i = first; i < first + count; i++) {
        rows[i] = i * i;
    }
    px_gather_shares(rows, sizeof *rows, 11);
    bool good = true;
    for (int64_t i = 0; i < 11; i++) {
        good = good && rows[i] == i * i;
    }
    all_true(good);

    char mine[16], all[64] = {0}, want[64] = {0};
    int64_t bytes[64];
    snprintf(mine, sizeof mine, "%.*s", rank, "abcdef");
    px_gather_i64((int64_t)strlen(mine), bytes);
    px_gather_bytes(mine, all, bytes);
    for (int r = 0; r < size; r++) {
        strncat(want, "abcdef", (size_t)r);
    }
    all_true(strcmp(all, want) == 0);
}

static void sums(void **state)
{
    (void)state;
    int size = px_dist_size(), rank = px_dist_rank();
    double v[100];
    for (int i = 0; i < 100; i++) {
        v[i] = rank + i;
    }
    px_sum_f64(v, 100);
    bool good = true;
    for (int i = 0; i < 100; i++) {
        good = good && v[i] == size * (size - 1) / 2.0 + size * i;
    }
    all_true(good);
    double high = rank, low = rank;
    px_max_f64(&high, 1);
    px_min_f64(&low, 1);
    all_true(high == size - 1 && low == 0);
    all_true(px_same_everywhere(42));
    all_true(px_same_everywhere((uint64_t)rank) == (size == 1));
}

int main(int argc, char **argv)
{
    px_dist_start(&argc, &argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agreement_takes_the_worst), cmocka_unit_test(tree_sum_has_the_bits_of_one_rank),
        cmocka_unit_test(tree_sum_while_values_are_made), cmocka_unit_test(tree_sum_of_three),
        cmocka_unit_test(gather_and_share), cmocka_unit_test(sums),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return px_dist_finish(failed ? px_fail(PX_BUG, "%d tests failed", failed) : PX_OK);
}
