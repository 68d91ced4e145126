/* How a rank waits: it gives its core away, keeps a deadline, and says where it stood when the wait failed. */
#include "phalanx/dist.h"
#include "board.h"
#include "world.h"

#include <sched.h>
#include <stdio.h>
#include <time.h>

static double deadline = 1800.0; /* seconds */

static struct {
    void (*run)(void *arg);
    void *arg;
    bool running;
} hook;

void px_deadline_set(double seconds)
{
    deadline = seconds;
}

double px_deadline(void)
{
    return deadline;
}

void px_poll_set(void (*run)(void *arg), void *arg)
{
    hook.run = run;
    hook.arg = arg;
}

void px_poll(void)
{
    if (hook.run != NULL && !hook.running) {
        hook.running = true;
        hook.run(hook.arg);
        hook.running = false;
    }
}

static _Noreturn void post_mortem(double waited, const char *reason)
{
    px_buf text = {0};
    px_failures_look();
    px_board_describe(&text);
    if (px_board_end()) {
        fprintf(stderr,
                "phalanx: [rank %d/%d on %s] %s after a wait of %.0f s; ending the job, the same command continues from the last "
                "checkpoint\n%s", px_world_rank(), px_world_size(), px_dist_host(), reason, waited,
                text.data != NULL ? text.data : "");
        fflush(NULL);
    }
    px_job_abort(PX_UNHEALTHY, reason);
}

/* Past the deadline. Whoever knows most of the others speaks for all, if it is still there. */
static void check_deadline(double waited)
{
    if (px_board_core_died() || px_failures_first() < px_core_size()) {
        post_mortem(waited, "a rank that the others need has died");
    }
    if (deadline <= 0.0) {
        return;
    }
    if (waited > deadline) {
        px_board_give_up();
    }
    if (waited > deadline + px_reports_grace() || px_reports_gave_up()) {
        post_mortem(waited > deadline ? waited : deadline, "no answer from the other ranks");
    }
}

/* A waiting rank gives its core away: first by yielding, then by naps of up to half a millisecond, because ranks on one
 * node share cores with the ranks they wait for. Naps are counted, not the clock: a job that was suspended has not waited. */
void px_wait_nap(long poll, double *waited)
{
    static double before; /* px_now() at the last nap of any wait */
    if (poll < 200) {
        if (poll > 20) {
            sched_yield();
        }
        return;
    }
    px_poll();
    px_reports_take();
    double now = px_now(), passed = *waited > 0.0 ? now - before : 1e-9;
    before = now;
    *waited += passed < 1.0 ? passed : 1.0;
    check_deadline(*waited);
    long nap_ns = *waited < 0.002 ? 20000 : *waited < 0.05 ? 100000 : 500000;
    nanosleep(&(struct timespec){0, nap_ns}, NULL);
}

bool px_all_done(MPI_Request *requests, int count)
{
    bool all = true;
    for (int i = 0; i < count; i++) {
        int done = 0;
        if (MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) {
            post_mortem(0.0, "MPI reports an error");
        }
        all = all && done;
    }
    return all;
}

void px_wait_all(MPI_Request *requests, int count)
{
    double waited = 0.0;
    for (long poll = 0; !px_all_done(requests, count); poll++) {
        px_wait_nap(poll, &waited);
    }
}
