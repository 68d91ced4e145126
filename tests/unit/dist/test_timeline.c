/* Time lines are valid JSON at every moment: a process that writes one is killed again and again at any moment, and the next
 * one goes on with the file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <jansson.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "phalanx/dist.h"

static char dir[] = "/tmp/phalanx-timeline-XXXXXX", prefix[64];

/* Events of a kind in all files. */
static int events_of(const char *kind)
{
    int count = 0;
    for (int part = 0;; part++) {
        char path[100];
        json_error_t error;
        json_t *event;
        size_t i;
        snprintf(path, sizeof path, "%s-%04d.json", prefix, part);
        if (access(path, F_OK) != 0) return count;
        json_t *all = json_load_file(path, 0, &error);
        if (!all) fail_msg("%s: line %d: %s", path, error.line, error.text);
        assert_true(json_is_array(all));
        json_array_foreach(all, i, event) {
            const char *ph = json_string_value(json_object_get(event, "ph"));
            assert_true(ph != NULL && strlen(ph) == 1 && strchr("BEMX", ph[0]) != NULL);
            count += strcmp(ph, kind) == 0;
            assert_true(json_is_integer(json_object_get(event, "pid")));
            assert_true(json_is_integer(json_object_get(event, "tid")));
            assert_true(json_is_string(json_object_get(event, "name")) || ph[0] == 'E');
            assert_true(json_number_value(json_object_get(event, "ts")) > 1e15 || ph[0] == 'M'); /* microseconds since 1970 */
            assert_true(json_is_integer(json_object_get(event, "dur")) == (ph[0] == 'X'));
        }
        json_decref(all);
    }
}

static void test_phases(void **state)
{
    (void)state;
    assert_int_equal(px_timeline_open(prefix, "learner"), PX_OK);
    px_phase_set("generate", 1);
    px_phase_set("learn", 1);
    assert_int_equal(events_of("B"), 2);
    assert_int_equal(events_of("E"), 1);
    px_timeline_close();
    px_phase_set("learn", 2); /* into nothing */
    assert_int_equal(events_of("B"), 2);
    assert_int_equal(events_of("E"), 2);
    assert_int_equal(px_timeline_open(prefix, "learner"), PX_OK);
    px_phase_set("generate", 2);
    px_timeline_close();
    assert_int_equal(events_of("B"), 3);
    assert_int_equal(events_of("M"), 2 * 4); /* the rank and its three rows */
}

static void test_spans(void **state)
{
    (void)state;
    px_timeline_span(PX_ROW_SUMS, "sum", px_wall_time()); /* into nothing */
    assert_int_equal(px_timeline_open(prefix, "learner"), PX_OK);
    px_phase_set("learn", 1);
    double began = px_wall_time();
    nanosleep(&(struct timespec){0, 1000000}, NULL);
    px_timeline_span(PX_ROW_SUMS, "sum", began);
    px_timeline_span(PX_ROW_WEIGHTS, "publish", px_wall_time());
    assert_int_equal(events_of("X"), 2); /* while the phase goes on */
    px_timeline_close();
    assert_int_equal(events_of("E"), events_of("B"));
}

static void test_killed(void **state)
{
    (void)state;
    int before = events_of("B");
    for (int turn = 0; turn < 40; turn++) {
        pid_t child = fork();
        if (child == 0) {
            px_timeline_open(prefix, "learner");
            for (int64_t i = 0;; i++) px_phase_set(i % 2 == 0 ? "generate" : "learn", i);
        }
        nanosleep(&(struct timespec){0, 1000000 + 173000 * turn}, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        events_of("E");
    }
    assert_true(events_of("B") > before);
}

static void test_not_writable(void **state)
{
    (void)state;
    assert_int_equal(px_timeline_open("/nowhere/timeline", "learner"), PX_IO);
    px_error_clear();
    px_phase_set("generate", 1);
    px_timeline_close();
}

int main(void)
{
    if (!mkdtemp(dir)) return 1;
    snprintf(prefix, sizeof prefix, "%s/timeline-00000", dir);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_phases), cmocka_unit_test(test_spans), cmocka_unit_test(test_killed),
                                       cmocka_unit_test(test_not_writable)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    px_tree_remove(dir);
    return failed;
}
