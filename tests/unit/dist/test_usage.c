/* A phase that computes keeps its core busy, one that sleeps does not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "phalanx/dist.h"

#include <time.h>

static void spin(double seconds)
{
    volatile double x = 1.0;
    for (double end = px_now() + seconds; px_now() < end;) {
        x = x * 1.0000001;
    }
}

static void phases_are_told_apart(void **state)
{
    (void)state;
    double wall, cpu;
    px_usage_reset();
    for (int turn = 0; turn < 2; turn++) {
        px_phase_set("spin", turn);
        spin(0.1);
        px_phase_set("sleep", turn);
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    px_phase_set("done", 0);
    px_usage_of("spin", &wall, &cpu);
    assert_true(wall >= 0.2 && cpu > 0.02 && cpu < wall * 1.05); /* a busy machine gives it little of a core */
    px_usage_of("sleep", &wall, &cpu);
    assert_true(wall >= 0.2 && cpu < 0.02);
    px_usage_of("never", &wall, &cpu);
    assert_true(wall == 0.0 && cpu == 0.0);
    px_usage_reset();
    px_usage_of("spin", &wall, &cpu);
    assert_true(wall == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(phases_are_told_apart)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
