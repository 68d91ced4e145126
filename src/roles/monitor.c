/* A thread on every rank that raises the stop level when the STOP file appears or the time is up, so that long phases,
 * which poll the level, end as they do for a signal; and that looks whether the other ranks of the node live. */
#include "run.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static struct {
    pthread_t thread;
    atomic_bool running;
    char stop_files[2][PX_PATH_MAX];
    double deadline;
} monitor;

static void *watch(void *unused)
{
    (void)unused;
    while (atomic_load(&monitor.running)) {
        if (px_file_exists(monitor.stop_files[0]) || px_file_exists(monitor.stop_files[1])) {
            px_stop_request("the STOP file");
        }
        if (monitor.deadline > 0.0 && px_now() >= monitor.deadline) {
            px_stop_request("the time limit");
        }
        px_neighbours_check();
        nanosleep(&(struct timespec){0, 200000000}, NULL);
    }
    return NULL;
}

px_status px_monitor_start(const char *run_dir, const char *stage_dir, double deadline)
{
    px_monitor_stop();
    PX_TRY(px_path_join(monitor.stop_files[0], PX_PATH_MAX, run_dir, "STOP"));
    PX_TRY(px_path_join(monitor.stop_files[1], PX_PATH_MAX, stage_dir, "STOP"));
    monitor.deadline = deadline;
    atomic_store(&monitor.running, true);
    if (pthread_create(&monitor.thread, NULL, watch, NULL) != 0) {
        atomic_store(&monitor.running, false);
        return px_fail(PX_IO, "cannot start the thread that watches %s", monitor.stop_files[0]);
    }
    return PX_OK;
}

void px_monitor_stop(void)
{
    if (atomic_exchange(&monitor.running, false)) {
        pthread_join(monitor.thread, NULL);
    }
}
