/* The Slurm job that this process is in: what its controller says of it, and what it is asked to do with it. */
#include "cli.h"

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* "123", "123_4" of an array; "" outside of a job */
static void job_id(char id[64])
{
    const char *job = getenv("SLURM_JOB_ID"), *array = getenv("SLURM_ARRAY_JOB_ID"), *task = getenv("SLURM_ARRAY_TASK_ID");
    bool cell = array != NULL && task != NULL;
    snprintf(id, 64, "%.24s%s%.24s", cell ? array : job != NULL ? job : "", cell ? "_" : "", cell ? task : "");
}

/* One of Slurm's commands, which gives up by itself where the controller does not answer. Its output goes to `answer`, where
 * there is one. */
static bool tool(char *const *argv, FILE *answer)
{
    enum { LONGEST = 300 };
    pid_t pid;
    int code = -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (answer != NULL) {
        posix_spawn_file_actions_adddup2(&actions, fileno(answer), STDOUT_FILENO);
    }
    bool started = px_spawn(&pid, &actions, argv) == 0;
    posix_spawn_file_actions_destroy(&actions);
    double since = px_now();
    while (started && waitpid(pid, &code, WNOHANG) == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        if (px_now() - since > LONGEST) {
            kill(pid, SIGKILL);
        }
    }
    return started && code == 0;
}

/* Is Slurm ending the job, for another reason than its time limit? "JobState=COMPLETING Reason=None" is a job that was cancelled
 * or requeued, PENDING one that waits again already. Who cannot be asked says no. */
static bool is_ending(char *id)
{
    char scontrol[] = "scontrol", line[] = "--oneliner", show[] = "show", job[] = "job", text[8192] = " ";
    char *argv[] = {scontrol, line, show, job, id, NULL};
    FILE *answer = tmpfile();
    if (answer == NULL) {
        return false;
    }
    if (tool(argv, answer) && fseek(answer, 0, SEEK_SET) == 0) {
        text[1 + fread(text + 1, 1, sizeof text - 2, answer)] = '\0';
    }
    fclose(answer);
    bool completing = strstr(text, " JobState=COMPLETING ") != NULL || strstr(text, " JobState=CANCELLED ") != NULL;
    return strstr(text, " JobState=PENDING ") != NULL || (completing && strstr(text, " Reason=TimeLimit ") == NULL);
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
    if (!tool(argv, NULL)) {
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
    if (id[0] == '\0' || !tool(argv, NULL)) {
        return px_fail(PX_STOPPED, "stopped by its file STOP: the job is not continued; submit it again to go on");
    }
    fprintf(stderr, "phalanx: supervise: job %s was stopped by the run's file STOP and is cancelled; submit it again to go on\n", id);
    wait_for_end();
    return PX_STOPPED;
}
