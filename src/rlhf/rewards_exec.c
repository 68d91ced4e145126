/* A reward computed by a program: requests go to its standard input, replies come from its standard output, both
 * without blocking, so that neither side can wait for the other whatever the program buffers. Its standard error
 * is ours. */
#include "rewards_sources.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE_LIMIT = 1 << 20, READ_BYTES = 1 << 16, POLL_MS = 100 };

struct px_exec {
    const px_reward_spec *spec;
    px_reward_spec copy;
    pid_t pid;        /* leader of its own process group; 0: ended and waited for */
    int wait_status;  /* once pid is 0 */
    int to, from;     /* our ends of the pipes */
    px_buf requests;  /* what is still to be written starts at `sent` */
    size_t sent;
    px_buf replies;   /* the beginning of a line that is not complete yet */
    char last[160];   /* beginning of the last line it printed */
    int64_t next_id;  /* ids run on over batches, so that a late reply is known as one */
};

/* ---- start and end ----------------------------------------------------------------------------------------------- */

static bool runnable(const char *path)
{
    return px_file_exists(path) && access(path, X_OK) == 0;
}

/* A name with a slash is relative to the directory; another is looked for in PATH, then in the directory. */
static px_status find_program(const char *name, const char *dir, char *out, size_t size)
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

static px_status make_pipe(int ends[2])
{
    return pipe2(ends, O_CLOEXEC) == 0 ? PX_OK : px_fail(PX_IO, "cannot make a pipe: %s", strerror(errno));
}

/* In the child: nothing but async-signal-safe calls. An error number on `report` says why exec failed. */
static _Noreturn void become(const char *program, const char *dir, const char *const *command, int in, int out,
                             int report)
{
    setpgid(0, 0);
    signal(SIGUSR1, SIG_IGN); /* Slurm sends it to every process of a step, and it is meant for us alone */
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 && chdir(dir) == 0) {
        execv(program, (char *const *)(uintptr_t)command);
    }
    int error = errno;
    ssize_t ignored = write(report, &error, sizeof error);
    (void)ignored;
    _exit(127);
}

static px_status launch(px_exec *exec, const char *program, const char *dir)
{
    int request[2] = {-1, -1}, reply[2] = {-1, -1}, report[2] = {-1, -1};
    px_status status = make_pipe(request);
    status = status == PX_OK ? make_pipe(reply) : status;
    status = status == PX_OK ? make_pipe(report) : status;
    if (status == PX_OK) {
        fflush(NULL);
        exec->pid = fork();
        if (exec->pid == 0) {
            become(program, dir, exec->spec->command, request[0], reply[1], report[1]);
        }
        if (exec->pid < 0) {
            exec->pid = 0;
            status = px_fail(PX_IO, "cannot start %s: %s", program, strerror(errno));
        }
    }
    close(request[0]);
    close(reply[1]);
    close(report[1]);
    exec->to = request[1];
    exec->from = reply[0];
    if (status == PX_OK) {
        setpgid(exec->pid, exec->pid);
        int error;
        ssize_t n;
        while ((n = read(report[0], &error, sizeof error)) < 0 && errno == EINTR) {
        }
        if (n == (ssize_t)sizeof error) {
            status = px_fail(PX_CONFIG, "cannot run %s: %s", program, strerror(error));
        }
    }
    close(report[0]);
    return status;
}

px_status px_exec_open(px_exec **out, const px_reward_spec *spec)
{
    if (spec->command == NULL || spec->command[0] == NULL || spec->command[0][0] == '\0') {
        return px_fail(PX_CONFIG, "command is missing; exec runs a program, e.g. [python3, score.py]");
    }
    if (!(spec->timeout_s > 0.0)) {
        return px_fail(PX_CONFIG, "timeout_s is %g; valid is a number of seconds above 0", spec->timeout_s);
    }
    const char *dir = spec->dir != NULL && spec->dir[0] != '\0' ? spec->dir : ".";
    char program[PX_PATH_MAX], absolute[PX_PATH_MAX];
    if (!px_dir_exists(dir)) {
        return px_fail(PX_CONFIG, "%s: no such directory to run '%s' in", dir, spec->command[0]);
    }
    PX_TRY(find_program(spec->command[0], dir, program, sizeof program));
    if (realpath(program, absolute) == NULL) { /* the child changes its directory before it looks */
        return px_fail(PX_CONFIG, "%s: %s", program, strerror(errno));
    }
    px_exec *exec = px_alloc(sizeof *exec, "exec reward");
    if (exec == NULL) {
        return px_error_code();
    }
    exec->copy = *spec;
    exec->spec = &exec->copy;
    exec->to = exec->from = -1;
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN); /* a program that died is an error of write(), not our end */
    }
    px_status status = launch(exec, absolute, dir);
    if (status != PX_OK) {
        px_exec_close(exec);
        return status;
    }
    fcntl(exec->to, F_SETFL, O_NONBLOCK);
    fcntl(exec->from, F_SETFL, O_NONBLOCK);
    *out = exec;
    return PX_OK;
}

/* Waits up to `seconds` for the program's end. */
static bool ended(px_exec *exec, double seconds)
{
    double until = px_now() + seconds;
    while (exec->pid > 0) {
        pid_t got = waitpid(exec->pid, &exec->wait_status, WNOHANG);
        if (got == exec->pid || (got < 0 && errno != EINTR)) {
            exec->pid = 0;
        } else if (px_now() >= until) {
            return false;
        } else {
            nanosleep(&(struct timespec){0, 5000000}, NULL);
        }
    }
    return true;
}

static void close_end(int *end)
{
    if (*end >= 0) {
        close(*end);
        *end = -1;
    }
}

void px_exec_close(px_exec *exec)
{
    if (exec == NULL) {
        return;
    }
    pid_t group = exec->pid;
    close_end(&exec->to);
    close_end(&exec->from);
    if (!ended(exec, 1.0)) {
        kill(-group, SIGKILL);
        kill(group, SIGKILL);
        while (waitpid(group, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    px_buf_free(&exec->requests);
    px_buf_free(&exec->replies);
    px_free(exec);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static px_status add_text(px_buf *out, const char *key, const char *text)
{
    json_t *json = json_string(text);
    char *quoted = json != NULL ? json_dumps(json, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    json_decref(json);
    if (quoted == NULL) {
        return px_fail(PX_DATA, "a %s is not valid UTF-8", key);
    }
    px_status status = px_buf_printf(out, ",\"%s\":%s", key, quoted);
    free(quoted);
    return status;
}

static px_status add_request(px_buf *out, int64_t id, const px_reward_sample *sample)
{
    PX_TRY(px_buf_printf(out, "{\"id\":%lld", (long long)id));
    PX_TRY(add_text(out, "prompt", sample->prompt != NULL ? sample->prompt : ""));
    PX_TRY(add_text(out, "completion", sample->completion));
    PX_TRY(px_buf_text(out, ",\"record\":"));
    size_t record = out->length;
    PX_TRY(px_buf_text(out, sample->record != NULL && sample->record[0] != '\0' ? sample->record : "{}"));
    for (size_t i = record; i < out->length; i++) { /* line breaks stand only between a record's tokens */
        if (out->data[i] == '\n' || out->data[i] == '\r') {
            out->data[i] = ' ';
        }
    }
    return px_buf_text(out, "}\n");
}

/* Drops what was sent; after a batch that was given up, also all but the rest of the line that is half sent. */
static void drop_requests(px_exec *exec)
{
    px_buf *r = &exec->requests;
    size_t keep = exec->sent;
    if (keep > 0 && r->data[keep - 1] != '\n') {
        while (keep < r->length && r->data[keep++] != '\n') {
        }
    }
    size_t rest = keep - exec->sent;
    if (rest > 0) {
        memmove(r->data, r->data + exec->sent, rest);
    }
    r->length = rest;
    exec->sent = 0;
}

/* ---- replies ----------------------------------------------------------------------------------------------------- */

typedef struct batch {
    int64_t first; /* id of sample 0 */
    int count, answered;
    double *scores;
    bool *replied; /* per sample */
} batch;

/* Python and others write NaN and Infinity, which JSON has not: they become "", which is no number either. */
static void replace_nonfinite(char *line)
{
    static const char *const words[] = {"-Infinity", "Infinity", "NaN", "nan", "-nan", "-inf", "inf"};
    for (char *colon = strchr(line, ':'); colon != NULL; colon = strchr(colon + 1, ':')) {
        char *value = colon + 1 + strspn(colon + 1, " ");
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            size_t length = strlen(words[i]);
            if (strncmp(value, words[i], length) == 0) {
                memset(value, ' ', length);
                memcpy(value, "\"\"", 2);
                break;
            }
        }
    }
}

static px_status garbage(const px_exec *exec, const char *what)
{
    return px_fail(PX_DATA, "the program '%s' printed %s: \"%s\"; valid is a line {\"id\": N, \"score\": X} a request",
                   exec->spec->command[0], what, exec->last);
}

static px_status take_json(px_exec *exec, batch *b, json_t *reply)
{
    json_t *id = json_object_get(reply, "id"), *score = json_object_get(reply, "score");
    if (!json_is_integer(id) || score == NULL) {
        return garbage(exec, "a line without an integer id and a score");
    }
    int64_t number = json_integer_value(id);
    if (number >= 0 && number < b->first) {
        return PX_OK; /* a late reply to a batch that is over */
    }
    if (number < 0 || number - b->first >= b->count) {
        return garbage(exec, "an id that nobody asked for");
    }
    int64_t at = number - b->first;
    if (b->replied[at]) {
        return garbage(exec, "a second reply to one request");
    }
    b->replied[at] = true;
    b->scores[at] = json_is_number(score) ? json_number_value(score) : NAN;
    b->answered++;
    return PX_OK;
}

static px_status take_line(px_exec *exec, batch *b, char *line, size_t length)
{
    line[length] = '\0';
    if (line[strspn(line, " \t\r")] == '\0') {
        return PX_OK;
    }
    snprintf(exec->last, sizeof exec->last, "%.*s", (int)px_utf8_valid(line, length < 150 ? length : 150), line);
    json_t *reply = json_loadb(line, length, 0, NULL);
    if (reply == NULL) {
        replace_nonfinite(line);
        reply = json_loadb(line, length, 0, NULL);
    }
    if (!json_is_object(reply)) {
        json_decref(reply);
        return garbage(exec, "something that is not a JSON object");
    }
    px_status status = take_json(exec, b, reply);
    json_decref(reply);
    return status;
}

/* Handles the complete lines among the bytes read so far; the rest waits for more. */
static px_status take_lines(px_exec *exec, batch *b)
{
    px_buf *r = &exec->replies;
    size_t begin = 0;
    for (char *stop; (stop = memchr(r->data + begin, '\n', r->length - begin)) != NULL;) {
        PX_TRY(take_line(exec, b, r->data + begin, (size_t)(stop - (r->data + begin))));
        begin = (size_t)(stop - r->data) + 1;
    }
    memmove(r->data, r->data + begin, r->length - begin);
    r->length -= begin;
    if (r->length > LINE_LIMIT) {
        snprintf(exec->last, sizeof exec->last, "%.60s", r->data);
        return garbage(exec, "a line of more than a mebibyte");
    }
    return PX_OK;
}

/* ---- one batch --------------------------------------------------------------------------------------------------- */

static px_status died(px_exec *exec, const batch *b)
{
    char how[64] = "closed its input or output";
    if (ended(exec, 1.0)) {
        int status = exec->wait_status;
        if (WIFSIGNALED(status)) {
            snprintf(how, sizeof how, "was ended by signal %d", WTERMSIG(status));
        } else {
            snprintf(how, sizeof how, "ended with exit status %d", WEXITSTATUS(status));
        }
    }
    if (exec->replies.length > 0) {
        snprintf(exec->last, sizeof exec->last, "%.*s", (int)px_utf8_valid(exec->replies.data, exec->replies.length),
                 exec->replies.data);
    }
    return px_fail(PX_DATA, "the program '%s' %s after %d of %d replies; the last line it printed: \"%s\"",
                   exec->spec->command[0], how, b->answered, b->count, exec->last);
}

static px_status send_some(px_exec *exec, const batch *b)
{
    const px_buf *r = &exec->requests;
    ssize_t n = write(exec->to, r->data + exec->sent, r->length - exec->sent);
    if (n >= 0) {
        exec->sent += (size_t)n;
        return PX_OK;
    }
    if (errno == EAGAIN || errno == EINTR) {
        return PX_OK;
    }
    return errno == EPIPE ? died(exec, b)
                          : px_fail(PX_IO, "cannot write to '%s': %s", exec->spec->command[0], strerror(errno));
}

static px_status receive_some(px_exec *exec, batch *b)
{
    px_buf *r = &exec->replies;
    PX_TRY(px_buf_reserve(r, r->length + READ_BYTES + 1));
    ssize_t n = read(exec->from, r->data + r->length, READ_BYTES);
    if (n > 0) {
        r->length += (size_t)n;
        return take_lines(exec, b);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return PX_OK;
    }
    return n == 0 ? died(exec, b)
                  : px_fail(PX_IO, "cannot read from '%s': %s", exec->spec->command[0], strerror(errno));
}

static px_status talk(px_exec *exec, batch *b)
{
    double until = px_now() + exec->spec->timeout_s;
    while (b->answered < b->count) {
        double left = until - px_now();
        if (left <= 0.0) {
            break;
        }
        if (px_stop_level() > 0) {
            return px_fail(PX_STOPPED, "stopped (%s) while '%s' was asked for scores",
                           px_stop_reason() != NULL ? px_stop_reason() : "signal", exec->spec->command[0]);
        }
        bool more = exec->sent < exec->requests.length;
        struct pollfd ends[2] = {{exec->from, POLLIN, 0}, {more ? exec->to : -1, POLLOUT, 0}};
        int ready = poll(ends, 2, left * 1000.0 < POLL_MS ? (int)(left * 1000.0) + 1 : POLL_MS);
        if (ready < 0 && errno != EINTR) {
            return px_fail(PX_IO, "poll: %s", strerror(errno));
        }
        if (ready > 0 && ends[0].revents != 0) {
            PX_TRY(receive_some(exec, b));
        }
        if (ready > 0 && ends[1].revents != 0) {
            /* Replies that were printed before a death are read, and named, first. */
            if ((ends[1].revents & POLLERR) == 0 || ends[0].revents == 0) {
                PX_TRY(send_some(exec, b));
            }
        }
    }
    return PX_OK;
}

/* Samples without a usable score, one line each. */
static px_status add_events(const px_exec *exec, const batch *b, const px_reward_sample *samples, px_buf *events)
{
    for (int i = 0; i < b->count; i++) {
        if (b->replied[i]) {
            PX_TRY(px_reward_usable(exec->spec, samples[i].number, &b->scores[i], events));
        } else if (events != NULL) {
            PX_TRY(px_buf_printf(events, "reward '%s': sample %d: no reply within %g s\n", exec->spec->name,
                                 samples[i].number, exec->spec->timeout_s));
        }
    }
    return PX_OK;
}

static px_status score_batch(px_exec *exec, batch *b, const px_reward_sample *samples, px_buf *events)
{
    for (int i = 0; i < b->count; i++) {
        b->scores[i] = NAN;
        PX_TRY(add_request(&exec->requests, b->first + i, &samples[i]));
    }
    PX_TRY(talk(exec, b));
    if (b->answered == 0) {
        return px_fail(PX_DATA,
                       "the program '%s' answered none of %d requests within %g s; it must flush its output after each "
                       "line and not wait for the end of its input; the last line it printed: \"%s\"",
                       exec->spec->command[0], b->count, exec->spec->timeout_s, exec->last);
    }
    return add_events(exec, b, samples, events);
}

px_status px_exec_score(px_exec *exec, const px_reward_sample *samples, int count, double *scores, px_buf *events)
{
    if (count <= 0) {
        return PX_OK;
    }
    batch b = {.first = exec->next_id, .count = count, .scores = scores};
    b.replied = px_alloc_array((size_t)count, sizeof *b.replied, "exec replies");
    if (b.replied == NULL) {
        return px_error_code();
    }
    exec->next_id += count;
    px_status status = score_batch(exec, &b, samples, events);
    drop_requests(exec);
    px_free(b.replied);
    return status;
}
