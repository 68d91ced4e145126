#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

#include "phalanx/dist.h"

/* Every rank must reach the same verdict, or a failed assertion would leave the others in a collective. */
static void all_true(bool mine)
{
    int64_t bad = mine ? 0 : 1;
    px_sum_i64(&bad, 1);
    assert_int_equal(bad, 0);
}

enum { LARGEST = 1 << 20, MESSAGES = 12 };

static unsigned char byte_of(int from, int number, size_t i)
{
    return (unsigned char)(from * 31 + number * 7 + (int)(i * 2654435761u >> 24));
}

static bool fits(const unsigned char *bytes, size_t length, int from, int number)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != byte_of(from, number, i)) {
            return false;
        }
    }
    return true;
}

static size_t length_of(int number)
{
    return number % 3 == 2 ? LARGEST - sizeof(int) : (size_t)number * 100; /* eager and rendezvous */
}

/* Rank 0 sends to all, gets everything back, in order, with more messages than there are boxes. */
static bool talk(px_post *post, int peers, bool first)
{
    unsigned char *body = px_alloc(LARGEST, "a test");
    int sent[64] = {0}, got[64] = {0}, left = peers * MESSAGES * (first ? 2 : 1);
    bool good = body != NULL;
    double start = 0.0;
    for (long poll = 0; left > 0 && good; poll++) {
        const char *message;
        size_t bytes;
        int p;
        for (p = 0; first && p < peers; p++) {
            size_t length = length_of(sent[p]);
            for (size_t i = 0; i < length && sent[p] < MESSAGES; i++) {
                body[i] = byte_of(p, sent[p], i);
            }
            if (sent[p] < MESSAGES && px_post_send(post, p, &sent[p], sizeof sent[p], body, length)) {
                sent[p]++;
                left--;
            }
        }
        while ((message = px_post_take(post, &p, &bytes)) != NULL) {
            int number;
            memcpy(&number, message, sizeof number);
            int from = first ? p : px_world_rank() - 1;
            good = good && number == got[p]++ && bytes == sizeof number + length_of(number) &&
                   fits((const unsigned char *)message + sizeof number, bytes - sizeof number, from, number);
            left--;
            double begun = 0.0;
            for (long again = 0; !first && !px_post_send(post, 0, message, sizeof number, message + sizeof number,
                                                         bytes - sizeof number); again++) {
                px_wait_nap(again, &begun);
            }
        }
        px_wait_nap(poll, &start);
    }
    px_free(body);
    return good;
}

static void messages_come_whole_and_in_order(void **state)
{
    (void)state;
    int size = px_world_size(), ranks[64];
    px_post *post = NULL;
    if (size == 1) {
        return;
    }
    for (int r = 1; r < size; r++) {
        ranks[r - 1] = r;
    }
    bool first = px_world_rank() == 0;
    px_status status = px_post_open(&post, first ? ranks : (int[]){0}, first ? size - 1 : 1, LARGEST, 2);
    bool good = status == PX_OK && talk(post, first ? size - 1 : 1, first);
    px_barrier();
    px_post_close(post);
    all_true(good);
}

static void a_silent_peer_fills_its_boxes_and_blocks_nobody(void **state)
{
    (void)state;
    px_post *post = NULL;
    const int size = px_world_size(), last = size - 1;
    if (size == 1) {
        return;
    }
    bool good = true;
    char *big = px_alloc(LARGEST, "a test");
    if (px_world_rank() == 0) { /* nobody receives while it sends */
        good = big != NULL && px_post_open(&post, &last, 1, LARGEST, 2) == PX_OK;
        int accepted = 0;
        for (int i = 0; good && i < 10; i++) {
            accepted += px_post_send(post, 0, big, LARGEST, NULL, 0);
        }
        good = good && accepted >= 2 && accepted < 10;
    }
    px_barrier();
    if (px_world_rank() == last) {
        good = px_post_open(&post, (int[]){0}, 1, LARGEST, 2) == PX_OK;
        double start = 0.0;
        int taken = 0;
        for (long poll = 0; good && taken < 2; poll++) { /* what had been accepted arrives */
            size_t bytes;
            int from;
            taken += px_post_take(post, &from, &bytes) != NULL;
            px_wait_nap(poll, &start);
        }
    }
    px_barrier();
    px_post_close(post);
    px_free(big);
    all_true(good);
}

/* More boxes than there are addresses: what was had of them goes back. */
static void boxes_that_cannot_be_had_are_freed(void **state)
{
    (void)state;
    px_post *post = NULL;
    size_t before = px_alloc_live();
    px_status status = px_post_open(&post, (int[]){0}, 1, (size_t)1 << 30, 1 << 24);
    px_post_close(post);
    all_true(status == PX_CONFIG && px_alloc_live() == before);
    px_error_clear();
}

static void groups_span_the_ranks_they_name(void **state)
{
    (void)state;
    int size = px_world_size(), rank = px_world_rank(), core = (size + 1) / 2, ranks[64];
    for (int r = 0; r < core; r++) {
        ranks[r] = r;
    }
    int64_t sum = rank;
    bool good = true;
    if (px_dist_launched()) {
        if (rank < core) {
            good = px_group_enter(ranks, core, 1) == PX_OK && px_dist_rank() == rank && px_dist_size() == core;
        } else {
            px_group_leave();
            good = px_dist_rank() < 0 && px_dist_size() == 1;
        }
        px_sum_i64(&sum, 1); /* of the core alone, and of each other rank by itself */
        good = good && sum == (rank < core ? core * (core - 1) / 2 : rank);
    }
    px_group_all();
    all_true(good && px_dist_size() == size && px_dist_rank() == rank);
}

static void memory_is_shared_by_a_node(void **state)
{
    (void)state;
    px_shared shared;
    if (!px_dist_launched()) {
        return;
    }
    bool good = px_shared_open(&shared, 1 << 20) == PX_OK && px_shared_reserve(&shared) == PX_OK;
    all_true(good);
    int *numbers = shared.data;
    numbers[px_dist_local_rank()] = px_world_rank() + 1;
    px_barrier();
    int here = 0;
    for (int r = 0; r < px_world_size(); r++) {
        if (px_world_node(r) == px_world_node(px_world_rank())) {
            good = good && numbers[here++] == r + 1;
        }
    }
    all_true(good && here == px_dist_local_size());
    px_shared_close(&shared);
}

int main(int argc, char **argv)
{
    px_dist_start(&argc, &argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_whole_and_in_order),
        cmocka_unit_test(a_silent_peer_fills_its_boxes_and_blocks_nobody),
        cmocka_unit_test(boxes_that_cannot_be_had_are_freed),
        cmocka_unit_test(groups_span_the_ranks_they_name),
        cmocka_unit_test(memory_is_shared_by_a_node),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return px_dist_finish(failed ? px_fail(PX_BUG, "%d tests failed", failed) : PX_OK);
}
