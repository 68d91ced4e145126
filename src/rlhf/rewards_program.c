#include "rewards_program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 20, READ_BYTES = 1 << 16, INHERITED = 1024 };

/* ---- start ------------------------------------------------------------------------------------------------------- */

static bool runnable(const char *path)
{
    return px_file_exists(path) && access(path, X_OK) == 0;
}

/* A name with a slash is relative to the directory; another is looked for in PATH, then in the directory. */
static px_status find(const char *name, const char *dir, char *out, size_t size)
{
    if (strchr(name, '/') == NULL) {
        const char *path = getenv("PATH");
        for (const char *p = path != NULL ? path : ""; *p != '\0';) {
            size_t length = strcspn(p, ":");
            if (length > 0 && (size_t)snprintf(out, size, "%.*s/%s", (int)length, p, name) < size && runnable(out)) {
                return PX_OK;
            }
            p += length + (p[length] == ':');
        }
    }
    PX_TRY(px_path_join(out, size, dir, name));
    if (runnable(out)) {
        return PX_OK;
    }
    return px_fail(PX_CONFIG, "command '%s': no such program %s%s; valid is a name in PATH or a path from there",
                   name, strchr(name, '/') == NULL ? "in PATH or in " : "under ", dir);
}

px_status px_program_find(px_program *program, const char *const *command, const char *dir)
{
    char found[PX_PATH_MAX];
    *program = (px_program){.command = command, .dir = dir, .to = -1, .from = -1, .says = -1};
    if (!px_dir_exists(dir)) {
        return px_fail(PX_CONFIG, "%s: no such directory to run '%s' in", dir, command[0]);
    }
    PX_TRY(find(command[0], dir, found, sizeof found));
    if (realpath(found, program->path) == NULL) { /* the child changes its directory before it looks */
        return px_fail(PX_CONFIG, "%s: %s", found, strerror(errno));
    }
    return PX_OK;
}

static px_status make_pipe(int ends[2])
{
    return pipe2(ends, O_CLOEXEC) == 0 ? PX_OK : px_fail(PX_IO, "cannot make a pipe: %s", strerror(errno));
}

/* In the child: nothing but async-signal-safe calls. An error number on `report` says why exec failed. */
static _Noreturn void become(const px_program *program, int in, int out, int err, int report)
{
    setpgid(0, 0);
    /* Slurm sends what stops us (px_stop_install) to every process of a step: a program that ended before we have stopped
     * would leave samples without a reward in the state that is saved. The end of its input ends it, then SIGKILL. */
    signal(SIGUSR1, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    for (int fd = STDERR_FILENO + 1; fd < INHERITED; fd++) { /* files and locks of a run that is going on are not its own */
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0 &&
        chdir(program->dir) == 0) {
        execv(program->path, (char *const *)(uintptr_t)program->command);
    }
    int error = errno;
    ssize_t ignored = write(report, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

/* vfork: a program is started again beside MPI and a large model, of whose memory nothing may be copied. */
static px_status launch(px_program *program, int in, int out, int err, int report)
{
    pid_t pid = vfork();
    if (pid == 0) {
        become(program, in, out, err, report);
    }
    if (pid < 0) {
        return px_fail(PX_IO, "cannot start %s: %s", program->path, strerror(errno));
    }
    program->pid = pid;
    setpgid(pid, pid);
    return PX_OK;
}

static void close_end(int *end)
{
    if (*end >= 0) {
        close(*end);
        *end = -1;
    }
}

static px_status why_not(const px_program *program, int report)
{
    int error;
    ssize_t n;
    while ((n = read(report, &error, sizeof error)) < 0 && errno == EINTR) {
    }
    return n == (ssize_t)sizeof error ? px_fail(PX_CONFIG, "cannot run %s: %s", program->path, strerror(error)) : PX_OK;
}

px_status px_program_start(px_program *program)
{
    int request[2] = {-1, -1}, reply[2] = {-1, -1}, said[2] = {-1, -1}, report[2] = {-1, -1};
    px_status status = make_pipe(request);
    status = status == PX_OK ? make_pipe(reply) : status;
    status = status == PX_OK ? make_pipe(said) : status;
    status = status == PX_OK ? make_pipe(report) : status;
    status = status == PX_OK ? launch(program, request[0], reply[1], said[1], report[1]) : status;
    close_end(&request[0]);
    close_end(&reply[1]);
    close_end(&said[1]);
    close_end(&report[1]);
    program->to = request[1];
    program->from = reply[0];
    program->says = said[0];
    program->said_length = 0;
    status = status == PX_OK ? why_not(program, report[0]) : status;
    close_end(&report[0]);
    if (status != PX_OK) {
        px_program_end(program, 1.0);
        return status;
    }
    fcntl(program->says, F_SETPIPE_SZ, PIPE_BYTES); /* room for what it says while nobody listens; less is no harm */
    fcntl(program->to, F_SETFL, O_NONBLOCK);
    fcntl(program->from, F_SETFL, O_NONBLOCK);
    fcntl(program->says, F_SETFL, O_NONBLOCK);
    return PX_OK;
}

/* ---- standard error ---------------------------------------------------------------------------------------------- */

static void keep_end(px_program *program, const char *text, size_t length)
{
    size_t room = sizeof program->said, new = length < room ? length : room;
    size_t old = program->said_length < room - new ? program->said_length : room - new;
    memmove(program->said, program->said + program->said_length - old, old);
    memcpy(program->said + old, text + length - new, new);
    program->said_length = old + new;
}

void px_program_listen(px_program *program)
{
    char text[READ_BYTES];
    for (int turn = 0; turn < 2 * PIPE_BYTES / READ_BYTES && program->says >= 0; turn++) { /* it may never cease */
        ssize_t n = read(program->says, text, sizeof text);
        if (n > 0) {
            fwrite(text, 1, (size_t)n, stderr);
            keep_end(program, text, (size_t)n);
        } else if (n == 0) {
            close_end(&program->says);
        } else if (errno != EINTR) {
            return;
        }
    }
}

void px_program_quote(char *out, size_t size, const char *text, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length && n + 4 < size;) {
        unsigned char lead = (unsigned char)text[i];
        size_t step = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        if (step > length - i || px_utf8_valid(text + i, step) != step) {
            step = 1;
            out[n++] = '?';
        } else if (lead < 0x20 || lead == 0x7F) {
            out[n++] = ' ';
        } else {
            memcpy(out + n, text + i, step);
            n += step;
        }
        i += step;
    }
    out[n] = '\0';
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

bool px_program_ended(px_program *program, double seconds)
{
    double until = px_now() + seconds;
    while (program->pid > 0) {
        pid_t got = waitpid(program->pid, &program->wait_status, WNOHANG);
        px_program_listen(program);
        if (got == program->pid || (got < 0 && errno != EINTR)) {
            program->pid = 0;
        } else if (px_now() >= until) {
            return false;
        } else {
            nanosleep(&(struct timespec){0, 5000000}, NULL);
        }
    }
    return true;
}

void px_program_end(px_program *program, double seconds)
{
    close_end(&program->to);
    close_end(&program->from);
    if (!px_program_ended(program, seconds)) {
        kill(-program->pid, SIGKILL);
        kill(program->pid, SIGKILL);
        px_program_ended(program, 1.0); /* longer only where the kernel holds it, which must not hold us */
        program->pid = 0;
    }
    close_end(&program->says);
}
