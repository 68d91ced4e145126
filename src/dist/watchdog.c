/* Watches over calls of MPI that wait for other ranks without a deadline of their own: its start, its end, new groups. A rank that
 * never arrives there (stopped, swapped out, on a lost node) would hold all others for ever; their leaving makes the launcher
 * end the job. */
#include "phalanx/dist.h"
#include "board.h"
#include "world.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool running, over;
    double seconds;
    const char *what;
} watchdog = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Counts naps and not the clock: who was stopped himself and goes on has not waited. */
static bool wait_for_end(void)
{
    const double nap = 0.1;
    long naps = (long)(watchdog.seconds / nap);
    pthread_mutex_lock(&watchdog.mutex);
    for (long n = 0; n <= naps && !watchdog.over; n++) {
        px_condition_wait(&watchdog.changed, &watchdog.mutex, nap);
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
        px_job_leave(PX_UNHEALTHY, "another rank does not answer");
    }
    return NULL;
}

void px_watchdog_begin(const char *what, double seconds)
{
    watchdog.what = what;
    watchdog.seconds = seconds;
    watchdog.over = false;
    if (seconds <= 0.0 || seconds >= 1e8) {
        return;
    }
    px_condition_init(&watchdog.changed);
    watchdog.running = pthread_create(&watchdog.thread, NULL, watch, NULL) == 0;
    if (!watchdog.running) {
        pthread_cond_destroy(&watchdog.changed);
    }
}

void px_watchdog_end(void)
{
    if (watchdog.running) {
        pthread_mutex_lock(&watchdog.mutex);
        watchdog.over = true;
        pthread_cond_signal(&watchdog.changed);
        pthread_mutex_unlock(&watchdog.mutex);
        pthread_join(watchdog.thread, NULL);
        pthread_cond_destroy(&watchdog.changed);
        watchdog.running = false;
    }
}
