/* A thread on every rank that raises the stop level when the STOP file appears or the time is up, so that long phases,
 * which poll the level, end as they do for a signal; and that looks whether the other ranks of the node live. */
#include "run.h"

#include <pthread.h>

#define LOOK_S 0.2

static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake; /* the end need not wait for the next look */
    bool running;
    char stop_files[2][PX_PATH_MAX];
    double deadline;
} monitor = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static bool still_running(void)
{
    pthread_mutex_lock(&monitor.mutex);
    if (monitor.running) {
        px_condition_wait(&monitor.wake, &monitor.mutex, LOOK_S);
    }
    bool running = monitor.running;
    pthread_mutex_unlock(&monitor.mutex);
    return running;
}

static void *watch(void *unused)
{
    (void)unused;
    do {
        if (px_file_exists(monitor.stop_files[0]) || px_file_exists(monitor.stop_files[1])) {
            px_stop_request("the STOP file");
        }
        if (monitor.deadline > 0.0 && px_now() >= monitor.deadline) {
            px_stop_request("the time limit");
        }
        px_neighbours_check();
    } while (still_running());
    return NULL;
}

px_status px_monitor_start(const char *run_dir, const char *stage_dir, double deadline)
{
    px_monitor_stop();
    PX_TRY(px_path_join(monitor.stop_files[0], PX_PATH_MAX, run_dir, "STOP"));
    PX_TRY(px_path_join(monitor.stop_files[1], PX_PATH_MAX, stage_dir, "STOP"));
    monitor.deadline = deadline;
    monitor.running = true;
    px_condition_init(&monitor.wake);
    if (pthread_create(&monitor.thread, NULL, watch, NULL) != 0) {
        monitor.running = false;
        pthread_cond_destroy(&monitor.wake);
        return px_fail(PX_IO, "cannot start the thread that watches %s", monitor.stop_files[0]);
    }
    return PX_OK;
}

void px_monitor_stop(void)
{
    pthread_mutex_lock(&monitor.mutex);
    bool was = monitor.running;
    monitor.running = false;
    if (was) {
        pthread_cond_signal(&monitor.wake);
    }
    pthread_mutex_unlock(&monitor.mutex);
    if (was) {
        pthread_join(monitor.thread, NULL);
        pthread_cond_destroy(&monitor.wake);
    }
}
