/* The Slurm job that this process is in: what its controller says of it, and what it is asked to do with it. */
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* "123", "123_4" of an array; "" outside of a job */
static void job_id(char id[64])
{
    const char *job = getenv("SLURM_JOB_ID"), *array = getenv("SLURM_ARRAY_JOB_ID"), *task = getenv("SLURM_ARRAY_TASK_ID");
    bool cell = array != NULL && task != NULL;
    snprintf(id, 64, "%.24s%s%.24s", cell ? array : job != NULL ? job : "", cell ? "_" : "", cell ? task : "");
}

/* False where it did not work, which is no error of this program's. */
static bool ask(char *const *argv, px_buf *answer)
{
    bool worked = px_slurm_command(argv, NULL, answer, false) == PX_OK;
    if (!worked) {
        px_error_clear();
    }
    return worked;
}

/* Is Slurm ending the job, for another reason than its time limit? "JobState=COMPLETING Reason=None" is a job that was cancelled
 * or requeued, PENDING one that waits again already. Who cannot be asked says no. */
static bool is_ending(char *id)
{
    char scontrol[] = "scontrol", line[] = "--oneliner", show[] = "show", job[] = "job";
    char *argv[] = {scontrol, line, show, job, id, NULL};
    px_buf answer = {0};
    bool known = ask(argv, &answer) && answer.length > 0;
    bool completing = known && (strstr(answer.data, " JobState=COMPLETING ") || strstr(answer.data, " JobState=CANCELLED "));
    bool ending = known && (strstr(answer.data, " JobState=PENDING ") ||
                            (completing && strstr(answer.data, " Reason=TimeLimit ") == NULL));
    px_buf_free(&answer);
    return ending;
}

/* Slurm ends us next: leaving earlier would look like a failure. */
static void wait_for_end(void)
{
    sigset_t end;
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigtimedwait(&end, NULL, &(struct timespec){.tv_sec = 120});
}

px_status px_job_requeue(void)
{
    char id[64], scontrol[] = "scontrol", verb[] = "requeue";
    char *argv[] = {scontrol, verb, id, NULL};
    job_id(id);
    if (id[0] == '\0') {
        return px_fail(PX_STOPPED, "stopped, the same command continues (not in a Slurm job: nothing to requeue)");
    }
    if (is_ending(id)) {
        return px_fail(PX_STOPPED, "stopped and saved; job %s is being cancelled or requeued by Slurm, it is not put back into the queue "
                                   "from here. The same command continues the run", id);
    }
    if (!ask(argv, NULL)) {
        return px_fail(PX_STOPPED, "stopped, but 'scontrol requeue %s' failed: submit the job again, or use 'phalanx submit --chain' "
                                   "where the site forbids requeueing", id);
    }
    fprintf(stderr, "phalanx: supervise: job %s goes back into the queue and continues from there\n", id);
    wait_for_end();
    return PX_STOPPED;
}

px_status px_job_cancel(void)
{
    char id[64], scancel[] = "scancel";
    char *argv[] = {scancel, id, NULL};
    job_id(id);
    if (id[0] == '\0' || !ask(argv, NULL)) {
        return px_fail(PX_STOPPED, "stopped by its file STOP: the job is not continued; submit it again to go on");
    }
    fprintf(stderr, "phalanx: supervise: job %s was stopped by the run's file STOP and is cancelled; submit it again to go on\n", id);
    wait_for_end();
    return PX_STOPPED;
}
