#include "phalanx/base.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double px_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double px_wall_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void px_condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

void px_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double seconds)
{
    const double whole = floor(seconds);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)((seconds - whole) * 1e9);
    until.tv_sec += (time_t)whole + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(condition, mutex, &until);
}

static volatile sig_atomic_t stop_level;
static const char *volatile stop_reason;

static void on_signal(int number)
{
    /* mpirun passes a signal on that the user's shell has delivered as well: two of a kind within a quarter of a second
     * are one request. Signals of this process count: where a stop was asked for in another way, or of another rank, the
     * first of them asks for nothing new. */
    static volatile sig_atomic_t last_ms_set, signals;
    static struct timespec last;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double since = last_ms_set ? (double)(now.tv_sec - last.tv_sec) + (double)(now.tv_nsec - last.tv_nsec) * 1e-9 : 1e9;
    last = now;
    last_ms_set = 1;
    if (since < 0.25) {
        return;
    }
    signals = signals + 1;
    if (stop_level == 0) {
        stop_level = 1;
        stop_reason = number == SIGTERM ? "SIGTERM" : number == SIGUSR1 ? "SIGUSR1" : "SIGINT";
    }
    if (signals >= 2) {
        static const char text[] = "\nphalanx: second signal: stopping at once with what is already saved\n";
        ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
        (void)ignored;
        _exit(PX_STOPPED);
    }
}

void px_stop_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a dead reward program is an error of write, not the end of the run */
    signal(SIGXFSZ, SIG_IGN); /* so is a file that may not grow further (ulimit -f) */
}

void px_stop_request(const char *reason)
{
    if (stop_level == 0) {
        stop_reason = reason;
        stop_level = 1;
    }
}

int px_stop_level(void)
{
    return stop_level;
}

const char *px_stop_reason(void)
{
    return stop_reason;
}
