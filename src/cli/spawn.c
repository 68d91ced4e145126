#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The child finds its signals as a shell would leave them: of those that this program ignores or has blocked it knows nothing. But
 * Slurm ends a job with all that runs in it: the command that asks for this, or asks about it, is not to end before its answer.
 * The error number, 0: it runs. */
static int spawn(pid_t *pid, const posix_spawn_file_actions_t *actions, char *const *argv, bool stoppable)
{
    extern char **environ;
    posix_spawnattr_t attributes;
    sigset_t ours, blocked;
    sigemptyset(&blocked);
    if (!stoppable) {
        sigaddset(&blocked, SIGTERM);
    }
    sigemptyset(&ours);
    sigaddset(&ours, SIGPIPE);
    sigaddset(&ours, SIGXFSZ);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &ours);
    posix_spawnattr_setsigmask(&attributes, &blocked);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    int error = posix_spawnp(pid, argv[0], actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    return error;
}

static const double patience = 300.0; /* seconds; Slurm's commands give up sooner where the controller does not answer */

/* Until the process has ended; PX_OK: with exit code 0. */
static px_status wait_for(pid_t pid, const char *name, bool stoppable)
{
    double since = px_now();
    px_status status = PX_OK;
    int code = 0;
    pid_t ended;
    while ((ended = waitpid(pid, &code, WNOHANG)) == 0 || (ended < 0 && errno == EINTR)) {
        if (status == PX_OK && stoppable && px_stop_level() > 0) {
            status = px_fail(PX_STOPPED, "stopped by %s before %s had answered", px_stop_reason(), name);
            kill(pid, SIGKILL);
        } else if (status == PX_OK && px_now() - since > patience) {
            status = px_fail(PX_IO, "%s has not answered for %.0f s: does 'sinfo' answer?", name, patience);
            kill(pid, SIGKILL);
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    if (status == PX_OK && (ended < 0 || !WIFEXITED(code) || WEXITSTATUS(code) != 0)) {
        return px_fail(PX_IO, "%s failed; its message is above", name);
    }
    return status;
}

static px_status read_back(FILE *file, px_buf *out)
{
    char bytes[512];
    size_t n;
    rewind(file);
    while ((n = fread(bytes, 1, sizeof bytes, file)) > 0) {
        PX_TRY(px_buf_add(out, bytes, n));
    }
    return PX_OK;
}

static px_status run(char *const *argv, FILE *in, FILE *out, bool stoppable)
{
    pid_t pid;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(in), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(out), STDOUT_FILENO);
    int failed = spawn(&pid, &actions, argv, stoppable);
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) {
        return px_fail(PX_IO, "%s cannot be started: %s", argv[0], strerror(failed));
    }
    return wait_for(pid, argv[0], stoppable);
}

px_status px_slurm_command(char *const *argv, const px_buf *input, px_buf *answer, bool stoppable)
{
    FILE *in = tmpfile(), *out = tmpfile();
    px_status status = PX_OK;
    size_t length = input != NULL ? input->length : 0;
    if (in == NULL || out == NULL || (length > 0 && fwrite(input->data, 1, length, in) != length) || fflush(in) != 0 ||
        lseek(fileno(in), 0, SEEK_SET) != 0) {
        status = px_fail(PX_IO, "nothing can be handed to %s: a temporary file: %s", argv[0], strerror(errno));
    }
    status = status == PX_OK ? run(argv, in, out, stoppable) : status;
    status = status == PX_OK && answer != NULL ? read_back(out, answer) : status;
    if (in != NULL) {
        fclose(in);
    }
    if (out != NULL) {
        fclose(out);
    }
    return status;
}
