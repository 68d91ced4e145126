/* How a minibatch is cut into gradient leaves, and which of them a rank takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "phalanx/rlhf.h"

enum { MOST = 300 };
static px_work works[9];

/* Lengths of 1 .. spread, reproducible. */
static void lengths(int32_t *tokens, int items, uint32_t seed, int spread)
{
    uint32_t x = seed * 2654435761u + 1;
    for (int i = 0; i < items; i++) {
        x = x * 1664525u + 1013904223u;
        tokens[i] = 1 + (int32_t)((x >> 8) % (uint32_t)spread);
    }
}

static int64_t sum(const int32_t *tokens, int64_t from, int64_t to)
{
    int64_t total = 0;
    for (int64_t i = from; i < to; i++) {
        total += tokens[i];
    }
    return total;
}

/* Leaves are consecutive and cover every item once; each holds its share of the tokens up to one item. */
static void check_leaves(const px_work *work, const int32_t *tokens, int items, int largest)
{
    assert_int_equal(work->items, items);
    assert_int_equal(work->first[0], 0);
    assert_int_equal(work->first[work->leaves], items);
    double share = (double)sum(tokens, 0, items) / work->leaves;
    for (int l = 0; l < work->leaves; l++) {
        assert_true(work->first[l] <= work->first[l + 1]);
        double have = (double)sum(tokens, work->first[l], work->first[l + 1]);
        if (have > share + largest || have < share - largest) {
            fail_msg("leaf %d of %d has %g tokens, a share is %g, the largest item %d", l, work->leaves, have, share,
                     largest);
        }
    }
}

static void every_item_is_in_one_balanced_leaf(void **state)
{
    (void)state;
    int32_t tokens[MOST];
    for (int items = 1; items <= MOST; items = items * 2 + 1) {
        for (uint32_t seed = 0; seed < 5; seed++) {
            lengths(tokens, items, seed, 60);
            for (int size = 1; size <= 9; size++) {
                px_work_plan(&works[0], tokens, items, true, 0, size);
                check_leaves(&works[0], tokens, items, 60);
                px_work_plan(&works[0], tokens, items, false, 0, size);
                assert_int_equal(works[0].leaves, size);
                check_leaves(&works[0], tokens, items, 60);
            }
        }
    }
}

static void exact_leaves_do_not_depend_on_ranks(void **state)
{
    (void)state;
    int32_t tokens[MOST];
    px_work *one = &works[0], *other = &works[1];
    for (uint32_t seed = 0; seed < 20; seed++) {
        int items = 1 + (int)(seed * 37) % MOST;
        lengths(tokens, items, seed, 40);
        px_work_plan(one, tokens, items, true, 0, 1);
        assert_int_equal(one->leaves, PX_EXACT_LEAVES);
        for (int size = 2; size <= 8; size *= 2) {
            for (int rank = 0; rank < size; rank++) {
                px_work_plan(other, tokens, items, true, rank, size);
                assert_int_equal(other->leaves, one->leaves);
                assert_memory_equal(other->first, one->first, sizeof(int64_t) * (size_t)(one->leaves + 1));
            }
        }
    }
}

/* Each leaf belongs to one rank, and a rank's leaves are a whole subtree: a block of 2^k aligned at a multiple of
 * 2^k. */
static void ranks_own_aligned_blocks(void **state)
{
    (void)state;
    int32_t tokens[MOST];
    lengths(tokens, MOST, 3, 40);
    for (int size = 1; size <= 16; size++) {
        int next = 0;
        for (int rank = 0; rank < size; rank++) {
            px_work_plan(&works[0], tokens, MOST, true, rank, size);
            assert_int_equal(works[0].mine, next);
            next += works[0].mine_count;
            if ((size & (size - 1)) == 0) {
                assert_int_equal(works[0].mine_count, works[0].leaves / size);
                assert_int_equal(works[0].mine % works[0].mine_count, 0);
            }
        }
        assert_int_equal(next, works[0].leaves);
    }
}

/* A binary counter over `count` leaves holds at most this many partial sums at once, one more while a leaf is
 * computed. */
static void depth_is_enough(void **state)
{
    (void)state;
    int32_t tokens[MOST];
    lengths(tokens, MOST, 1, 40);
    for (int size = 1; size <= 40; size++) {
        for (int rank = 0; rank < size; rank++) {
            for (int exact = 0; exact < 2; exact++) {
                px_work_plan(&works[0], tokens, MOST, exact, rank, size);
                int height[PX_MAX_DEPTH], top = 0, most = 0;
                for (int l = 0; l < works[0].mine_count; l++) {
                    height[top++] = 0;
                    most = top > most ? top : most;
                    while (top >= 2 && height[top - 1] == height[top - 2]) {
                        height[top - 2]++;
                        top--;
                    }
                }
                assert_true(px_work_depth(exact, size) >= most);
                assert_true(px_work_depth(exact, size) <= PX_MAX_DEPTH);
            }
        }
    }
}

static void fewer_items_than_leaves(void **state)
{
    (void)state;
    const int32_t tokens[3] = {5, 1, 9};
    int seen[3] = {0};
    for (int rank = 0; rank < 4; rank++) {
        px_work_plan(&works[0], tokens, 3, true, rank, 4);
        for (int l = works[0].mine; l < works[0].mine + works[0].mine_count; l++) {
            for (int64_t i = works[0].first[l]; i < works[0].first[l + 1]; i++) {
                seen[i]++;
            }
        }
    }
    assert_int_equal(seen[0] + seen[1] + seen[2], 3);
    assert_true(seen[0] == 1 && seen[1] == 1);
    px_work_plan(&works[0], tokens, 0, true, 0, 1); /* nothing at all */
    assert_int_equal(works[0].first[works[0].leaves], 0);
}

/* One rank has every row already. */
static void gather_on_one_rank_changes_nothing(void **state)
{
    (void)state;
    const int32_t tokens[3] = {5, 1, 9};
    double table[6] = {1, 2, 3, 4, 5, 6};
    const double want[6] = {1, 2, 3, 4, 5, 6};
    px_work_plan(&works[0], tokens, 3, true, 0, 1);
    px_work_gather(&works[0], table, 2);
    assert_memory_equal(table, want, sizeof want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_in_one_balanced_leaf), cmocka_unit_test(exact_leaves_do_not_depend_on_ranks),
        cmocka_unit_test(ranks_own_aligned_blocks),           cmocka_unit_test(depth_is_enough),
        cmocka_unit_test(fewer_items_than_leaves),            cmocka_unit_test(gather_on_one_rank_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
