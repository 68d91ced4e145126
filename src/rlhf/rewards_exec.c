/* A reward computed by a program: requests go to its standard input, replies come from its standard output, both
 * without blocking, so that neither side can wait for the other whatever the program buffers. A program that is silent or
 * dies costs the scores of a batch and is started again; one that does nothing else is an error. */
#include "rewards_program.h"
#include "rewards_sources.h"

#include <errno.h>
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

enum { LINE_LIMIT = 1 << 20, READ_BYTES = 1 << 16, POLL_MS = 100, DEATHS_MOST = 3, DRAIN_READS = 64, GARBAGE_S = 2 };

struct px_exec {
    px_reward_spec spec;
    px_program program;
    px_buf requests;  /* what is still to be written starts at `sent` */
    size_t sent;
    px_buf replies;   /* the beginning of a line that is not complete yet */
    bool skipping;    /* the rest of a line that was too long */
    char last[160];   /* beginning of the last line it printed */
    bool proven;      /* has replied to a request before */
    int deaths;       /* since the last reply */
    int64_t next_id;  /* ids run on over batches, so that a late reply is known as one */
};

typedef struct batch {
    int64_t first; /* id of sample 0 */
    int count, answered;
    double *scores;
    bool *replied; /* per sample */
    bool heard;    /* a reply came, a late one of an earlier batch perhaps */
    bool closed;   /* the program has closed its input or output */
    int strays;    /* lines that are no reply */
    char stray[240]; /* what is wrong with the first */
} batch;

px_status px_exec_open(px_exec **out, const px_reward_spec *spec)
{
    if (spec->command == NULL || spec->command[0] == NULL || spec->command[0][0] == '\0') {
        return px_fail(PX_CONFIG, "command is missing; exec runs a program, e.g. [python3, score.py]");
    }
    if (!(spec->timeout_s > 0.0)) {
        return px_fail(PX_CONFIG, "timeout_s is %g; valid is a number of seconds above 0", spec->timeout_s);
    }
    px_exec *exec = px_alloc(sizeof *exec, "exec reward");
    if (exec == NULL) {
        return px_error_code();
    }
    exec->spec = *spec;
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
        signal(SIGPIPE, SIG_IGN); /* a program that died is an error of write(), not our end */
    }
    px_status status = px_program_find(&exec->program, spec->command,
                                       spec->dir != NULL && spec->dir[0] != '\0' ? spec->dir : ".");
    status = status == PX_OK ? px_program_start(&exec->program) : status;
    if (status != PX_OK) {
        px_exec_close(exec);
        return status;
    }
    *out = exec;
    return PX_OK;
}

void px_exec_close(px_exec *exec)
{
    if (exec != NULL) {
        px_program_end(&exec->program, 1.0);
        px_buf_free(&exec->requests);
        px_buf_free(&exec->replies);
        px_free(exec);
    }
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

static void stray(px_exec *exec, batch *b, const char *what)
{
    if (b->strays++ == 0) {
        snprintf(b->stray, sizeof b->stray, "%s: \"%s\"", what, exec->last);
    }
}

static void take_reply(px_exec *exec, batch *b, json_t *reply)
{
    json_t *id = json_object_get(reply, "id"), *score = json_object_get(reply, "score");
    int64_t number = json_integer_value(id), at = number < 0 ? number : number - b->first;
    if (!json_is_object(reply)) {
        stray(exec, b, "something that is no JSON object");
    } else if (!json_is_integer(id) || score == NULL) {
        stray(exec, b, "a line without an integer id and a score");
    } else if (number < 0 || at >= b->count) {
        stray(exec, b, "an id that nobody asked for");
    } else if (at >= 0 && b->replied[at]) {
        stray(exec, b, "a second reply to one request");
    } else {
        b->heard = true;
        exec->proven = true;
        exec->deaths = 0;
        if (at >= 0) { /* else late: its batch is over */
            b->replied[at] = true;
            b->scores[at] = json_is_number(score) ? json_number_value(score) : NAN;
            b->answered++;
        }
    }
}

static void take_line(px_exec *exec, batch *b, char *line, size_t length)
{
    line[length] = '\0';
    if (line[strspn(line, " \t\r")] == '\0') {
        return;
    }
    px_program_quote(exec->last, sizeof exec->last, line, length);
    json_t *reply = json_loadb(line, length, 0, NULL);
    if (reply == NULL) {
        replace_nonfinite(line);
        reply = json_loadb(line, length, 0, NULL);
    }
    take_reply(exec, b, reply);
    json_decref(reply);
}

/* Handles the complete lines among the bytes read so far; the rest waits for more. */
static void take_lines(px_exec *exec, batch *b)
{
    px_buf *r = &exec->replies;
    size_t begin = 0;
    for (char *stop; (stop = memchr(r->data + begin, '\n', r->length - begin)) != NULL; exec->skipping = false) {
        if (!exec->skipping) {
            take_line(exec, b, r->data + begin, (size_t)(stop - (r->data + begin)));
        }
        begin = (size_t)(stop - r->data) + 1;
    }
    memmove(r->data, r->data + begin, r->length - begin);
    r->length -= begin;
    if (r->length > LINE_LIMIT && !exec->skipping) {
        px_program_quote(exec->last, sizeof exec->last, r->data, r->length);
        stray(exec, b, "a line of more than a mebibyte");
        exec->skipping = true;
    }
    r->length = exec->skipping ? 0 : r->length;
}

/* ---- one batch --------------------------------------------------------------------------------------------------- */

static px_status send_some(px_exec *exec, batch *b)
{
    const px_buf *r = &exec->requests;
    ssize_t n = write(exec->program.to, r->data + exec->sent, r->length - exec->sent);
    if (n >= 0) {
        exec->sent += (size_t)n;
    } else if (errno == EPIPE) {
        b->closed = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        return px_fail(PX_IO, "cannot write to '%s': %s", exec->spec.command[0], strerror(errno));
    }
    return PX_OK;
}

static px_status receive_some(px_exec *exec, batch *b)
{
    px_buf *r = &exec->replies;
    PX_TRY(px_buf_reserve(r, r->length + READ_BYTES + 1));
    ssize_t n = read(exec->program.from, r->data + r->length, READ_BYTES);
    if (n > 0) {
        r->length += (size_t)n;
        take_lines(exec, b);
    } else if (n == 0) {
        b->closed = true;
    } else if (errno != EAGAIN && errno != EINTR) {
        return px_fail(PX_IO, "cannot read from '%s': %s", exec->spec.command[0], strerror(errno));
    }
    return PX_OK;
}

static px_status check_stop(const px_exec *exec)
{
    return px_stop_level() == 0 ? PX_OK
                                : px_fail(PX_STOPPED, "stopped (%s) while '%s' was asked for scores",
                                          px_stop_reason() != NULL ? px_stop_reason() : "signal", exec->spec.command[0]);
}

/* Until all is answered, the program has closed an end, or the time is over. What it printed is read before it is asked
 * more, so that the end of one that died since the last batch is seen while nothing is sent yet. */
static px_status talk(px_exec *exec, batch *b)
{
    px_program *p = &exec->program;
    double left, until = px_now() + exec->spec.timeout_s;
    while (b->answered < b->count && !b->closed && (left = until - px_now()) > 0.0) {
        PX_TRY(check_stop(exec));
        bool more = exec->sent < exec->requests.length;
        struct pollfd ends[3] = {{p->from, POLLIN, 0}, {more ? p->to : -1, POLLOUT, 0}, {p->says, POLLIN, 0}};
        int ready = poll(ends, 3, left * 1000.0 < POLL_MS ? (int)(left * 1000.0) + 1 : POLL_MS);
        if (ready < 0 && errno != EINTR) {
            return px_fail(PX_IO, "poll: %s", strerror(errno));
        }
        if (ready > 0 && ends[2].revents != 0) {
            px_program_listen(p);
        }
        if (ready > 0 && ends[0].revents != 0) {
            PX_TRY(receive_some(exec, b));
            bool garbage = !exec->proven && b->strays >= b->count; /* a line a request, and none of them a reply */
            until = garbage && until > px_now() + GARBAGE_S ? px_now() + GARBAGE_S : until;
        }
        if (ready > 0 && ends[1].revents != 0 && !b->closed) {
            PX_TRY(send_some(exec, b));
        }
    }
    return PX_OK;
}

/* ---- when it fails ----------------------------------------------------------------------------------------------- */

/* Ends what is left of the program and starts it again. what: "the program 'x' ..." for the events, which may be NULL. */
static px_status start_again(px_exec *exec, const char *what, px_buf *events)
{
    px_program_end(&exec->program, 0.0);
    if (events != NULL) {
        char said[120];
        const px_program *p = &exec->program;
        size_t some = p->said_length < 100 ? p->said_length : 100;
        px_program_quote(said, sizeof said, p->said + p->said_length - some, some);
        PX_TRY(px_buf_printf(events, "reward '%s': %s and was started again; its last line: \"%.80s\", last error: \"%s\"\n",
                             exec->spec.name, what, exec->last, said));
    }
    exec->requests.length = exec->sent = exec->replies.length = 0;
    exec->skipping = false;
    exec->last[0] = '\0';
    return px_program_start(&exec->program);
}

static void describe_end(px_program *program, char *how, size_t size)
{
    snprintf(how, size, "closed its input or output");
    if (px_program_ended(program, 1.0)) {
        int status = program->wait_status;
        if (WIFSIGNALED(status)) {
            snprintf(how, size, "was ended by signal %d", WTERMSIG(status));
        } else {
            snprintf(how, size, "ended with exit status %d", WEXITSTATUS(status));
        }
    }
}

static px_status broken(px_exec *exec, const char *what)
{
    char said[2 * sizeof exec->program.said];
    px_program_listen(&exec->program);
    px_program_quote(said, sizeof said, exec->program.said, exec->program.said_length);
    return px_fail(PX_DATA, "%s; the last line it printed: \"%s\"; the end of its standard error: \"%s\"", what, exec->last,
                   said);
}

static px_status died(px_exec *exec, batch *b, px_buf *events)
{
    char how[64], what[320];
    describe_end(&exec->program, how, sizeof how);
    for (int turn = 0; turn < 30 && px_stop_level() == 0; turn++) { /* it may have had a stop's signal a moment before us */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    PX_TRY(check_stop(exec));
    for (int i = 0; i < DRAIN_READS; i++) { /* what it printed before it closed its input */
        PX_TRY(receive_some(exec, b));
    }
    if (exec->replies.length > 0) {
        px_program_quote(exec->last, sizeof exec->last, exec->replies.data, exec->replies.length);
    }
    snprintf(what, sizeof what, "the program '%.200s' %s after %d of %d replies", exec->spec.command[0], how, b->answered,
             b->count);
    return exec->proven && ++exec->deaths < DEATHS_MOST ? start_again(exec, what, events) : broken(exec, what);
}

/* A program that has never replied is wrong; another one may have hung. */
static px_status silent(px_exec *exec, const batch *b, px_buf *events)
{
    char what[640];
    if (!exec->proven) {
        int length = snprintf(what, sizeof what, "the program '%.200s' answered none of %d requests", exec->spec.command[0], b->count);
        length += b->strays > 0 ? snprintf(what + length, sizeof what - (size_t)length, ", it printed %s", b->stray)
                                : snprintf(what + length, sizeof what - (size_t)length, " within %g s", exec->spec.timeout_s);
        snprintf(what + length, sizeof what - (size_t)length, "; valid is a line {\"id\": N, \"score\": X} a request, flushed");
        return broken(exec, what);
    }
    snprintf(what, sizeof what, "no reply within %g s (each must be flushed): the program '%.200s' was killed",
             exec->spec.timeout_s, exec->spec.command[0]);
    return start_again(exec, what, events);
}

/* What the program printed that it should not have, then the samples without a usable score, one line each. */
static px_status add_events(const px_exec *exec, const batch *b, const px_reward_sample *samples, px_buf *events)
{
    if (events != NULL && b->strays > 0) {
        char more[32] = "";
        if (b->strays > 1) {
            snprintf(more, sizeof more, ", and %d more", b->strays - 1);
        }
        PX_TRY(px_buf_printf(events, "reward '%s': the program printed %s%s\n", exec->spec.name, b->stray, more));
    }
    for (int i = 0; i < b->count; i++) {
        if (b->replied[i]) {
            PX_TRY(px_reward_usable(&exec->spec, samples[i].number, &b->scores[i], events));
        } else if (events != NULL) {
            PX_TRY(b->closed ? px_buf_printf(events, "reward '%s': sample %d: no reply before the program ended\n",
                                             exec->spec.name, samples[i].number)
                             : px_buf_printf(events, "reward '%s': sample %d: no reply within %g s\n", exec->spec.name,
                                             samples[i].number, exec->spec.timeout_s));
        }
    }
    return PX_OK;
}

static px_status score_batch(px_exec *exec, batch *b, const px_reward_sample *samples, px_buf *events)
{
    bool unasked;
    do {
        for (int i = 0; i < b->count; i++) {
            b->scores[i] = NAN;
            PX_TRY(add_request(&exec->requests, b->first + i, &samples[i]));
        }
        b->closed = false;
        PX_TRY(talk(exec, b));
        unasked = b->closed && exec->sent == 0;
        if (b->closed) {
            PX_TRY(died(exec, b, events));
        } else if (b->answered < b->count && !b->heard) {
            PX_TRY(silent(exec, b, events));
        }
    } while (unasked);
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
