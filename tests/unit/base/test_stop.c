/* How requests to stop add up: of signals to a process the second ends it at once, whatever was asked for in other ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "phalanx/base.h"

static void nap(void) { nanosleep(&(struct timespec){0, 300000000}, NULL); }

/* The exit code of a process that does this; 1: it came to its end without the stop that it was to see. */
static int code_of(void (*does)(void))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        close(STDERR_FILENO);
        px_stop_install();
        does();
        _exit(px_stop_level() > 0 ? 0 : 1);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void none(void) {}
static void one(void) { raise(SIGTERM); }
static void one_twice_told(void) { raise(SIGUSR1), raise(SIGUSR1); } /* by the shell and by mpirun */
static void two(void) { raise(SIGTERM), nap(), raise(SIGTERM); }
static void one_after_a_request(void) { px_stop_request("the STOP file"), nap(), raise(SIGTERM); }
static void two_after_a_request(void) { px_stop_request("the STOP file"), raise(SIGTERM), nap(), raise(SIGINT); }

static void signals_of_the_process_count(void **state)
{
    (void)state;
    assert_int_equal(code_of(none), 1);
    assert_int_equal(code_of(one), 0);
    assert_int_equal(code_of(one_twice_told), 0);
    assert_int_equal(code_of(one_after_a_request), 0);
    assert_int_equal(code_of(two), PX_STOPPED);
    assert_int_equal(code_of(two_after_a_request), PX_STOPPED);
}

static void the_first_reason_stays(void **state)
{
    (void)state;
    px_stop_install();
    px_stop_request("the time limit");
    raise(SIGTERM);
    assert_int_equal(px_stop_level(), 1);
    assert_string_equal(px_stop_reason(), "the time limit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(signals_of_the_process_count), cmocka_unit_test(the_first_reason_stays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
