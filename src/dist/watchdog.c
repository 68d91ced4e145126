/* Watches over calls of MPI that wait for other ranks without a deadline of their own: its start, its end, new groups. A rank that
 * never arrives there (stopped, swapped out, on a lost node) would hold all others for ever; their leaving makes the launcher
 * end the job. */
#include "phalanx/dist.h"
#include "board.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool running, over;
    double seconds;
    const char *what;
} watchdog = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Counts naps and not the clock: who was stopped himself and goes on has not waited. */
static bool wait_for_end(void)
{
    enum { NAP_NS = 100000000 };
    long naps = (long)(watchdog.seconds * 1e9 / NAP_NS);
    pthread_mutex_lock(&watchdog.mutex);
    for (long n = 0; n <= naps && !watchdog.over; n++) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += NAP_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&watchdog.changed, &watchdog.mutex, &until);
    }
    bool over = watchdog.over;
    pthread_mutex_unlock(&watchdog.mutex);
    return over;
}

static void *watch(void *unused)
{
    (void)unused;
    if (!wait_for_end()) { /* nothing of MPI can be called here */
        fprintf(stderr, "phalanx: [on %s, pid %d] MPI has been %s for %.0f s (fault_tolerance.wait_timeout_s): another rank does "
                "not answer; this one leaves, the same command continues from the last checkpoint\n", px_dist_host(),
                (int)getpid(), watchdog.what, watchdog.seconds);
        fflush(stderr);
        _exit(PX_UNHEALTHY);
    }
    return NULL;
}

void px_watchdog_begin(const char *what, double seconds)
{
    watchdog.what = what;
    watchdog.seconds = seconds;
    watchdog.over = false;
    watchdog.running = seconds > 0.0 && seconds < 1e8 && pthread_create(&watchdog.thread, NULL, watch, NULL) == 0;
}

void px_watchdog_end(void)
{
    if (watchdog.running) {
        pthread_mutex_lock(&watchdog.mutex);
        watchdog.over = true;
        pthread_cond_signal(&watchdog.changed);
        pthread_mutex_unlock(&watchdog.mutex);
        pthread_join(watchdog.thread, NULL);
        watchdog.running = false;
    }
}
