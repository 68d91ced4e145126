/* The policy's weights once a node, and a writer that stands still while another takes its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "phalanx/dist.h"
#include "roles/split.h"

/* Every rank must reach the same verdict, or a failed assertion would leave the others in a collective. */
static void all_true(bool mine)
{
    int64_t bad = mine ? 0 : 1;
    px_sum_i64(&bad, 1);
    assert_int_equal(bad, 0);
}

enum { BLOCK = 10000 };

/* Runs `does` on one rank, while the others wait. */
#define ON(rank, does) \
    do { \
        good = px_world_rank() != (rank) || (does); \
        all_true(good); \
    } while (0)

static bool fill(char *to, int value) { return to != NULL && memset(to, value, BLOCK) == to; }

static bool holds(const px_weights *weights, int64_t seq_no, char value)
{
    const char *bytes = px_weights_find(weights, seq_no);
    for (int i = 0; bytes != NULL && i < BLOCK; i++) {
        if (bytes[i] != value) {
            return false;
        }
    }
    return bytes != NULL;
}

static void versions_follow_each_other(void **state)
{
    (void)state;
    px_weights weights;
    bool good = px_weights_open(&weights, BLOCK, 1) == PX_OK;
    int last = px_world_size() - 1;
    all_true(good);
    ON(0, px_weights_find(&weights, 0) == NULL && fill(px_weights_begin(&weights, 4), 'a'));
    ON(last, px_weights_find(&weights, 4) == NULL && !px_weights_over(&weights, 4));
    ON(0, px_weights_seal(&weights, 4) != 0);
    ON(last, holds(&weights, 4, 'a') && px_weights_over(&weights, 3) && px_weights_begin(&weights, 4) == NULL &&
             px_weights_begin(&weights, 3) == NULL && holds(&weights, 4, 'a'));
    ON(last, fill(px_weights_begin(&weights, 5), 'b') && px_weights_find(&weights, 4) == NULL);
    ON(last, px_weights_seal(&weights, 5) != 0 && holds(&weights, 5, 'b') && !px_weights_contested(&weights));
    px_barrier();
    px_weights_close(&weights);
}

static void a_late_writer_has_lost_its_claim(void **state)
{
    (void)state;
    if (px_world_size() < 2) {
        return;
    }
    px_weights weights;
    bool good = px_weights_open(&weights, BLOCK, 1) == PX_OK;
    all_true(good);
    ON(0, fill(px_weights_begin(&weights, 7), 'a') && px_weights_writing(&weights, 7));
    ON(1, fill(px_weights_begin(&weights, 7), 'b') && px_weights_contested(&weights)); /* rank 0 stands still */
    ON(0, !px_weights_writing(&weights, 7) && px_weights_seal(&weights, 7) != 0 && px_weights_find(&weights, 7) == NULL);
    ON(1, px_weights_seal(&weights, 7) != 0);
    ON(0, holds(&weights, 7, 'b') && px_weights_begin(&weights, 7) == NULL && holds(&weights, 7, 'b'));
    ON(1, fill(px_weights_begin(&weights, 8), 'c'));
    ON(0, px_weights_begin(&weights, 7) == NULL && px_weights_writing(&weights, 7) == false);
    ON(1, px_weights_seal(&weights, 8) != 0);
    ON(0, holds(&weights, 8, 'c'));
    ON(1, (px_weights_withdraw(&weights, 7), holds(&weights, 8, 'c')));
    ON(1, (px_weights_withdraw(&weights, 8), px_weights_find(&weights, 8) == NULL && !px_weights_over(&weights, 8)));
    ON(0, fill(px_weights_begin(&weights, 8), 'd') && px_weights_seal(&weights, 8) != 0);
    ON(1, holds(&weights, 8, 'd'));
    px_barrier();
    px_weights_close(&weights);
}

int main(int argc, char **argv)
{
    px_dist_start(&argc, &argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_follow_each_other),
        cmocka_unit_test(a_late_writer_has_lost_its_claim),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return px_dist_finish(failed ? px_fail(PX_BUG, "%d tests failed", failed) : PX_OK);
}
