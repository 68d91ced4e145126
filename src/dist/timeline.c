/* The phases of this rank as a Chrome trace: JSON arrays of events that Perfetto and chrome://tracing open. They are valid at
 * every moment, also after a kill: an event is written over the array's end together with a new end. A kill can come between
 * two pages of a write, so where it would touch two the whole file is replaced; parts keep that cheap. The phase that was cut
 * short is the one that has begun and not ended. */
#include "board.h"
#include "phalanx/dist.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PAGE = 4096, PART = 1 << 18, PREFIX = PX_PATH_MAX - 16, END = 3 };
static const char end[END + 1] = "\n]\n";

static struct {
    bool open, began; /* began: a phase that has not ended */
    int fd, part;
    char prefix[PREFIX];
    int64_t iteration; /* of the last phase */
    char names[800];  /* the events that name this rank and its rows */
    px_buf text;      /* of the part */
} timeline;

static void path_of(int part, char out[PX_PATH_MAX])
{
    snprintf(out, PX_PATH_MAX, "%s-%04d.json", timeline.prefix, part);
}

/* A new file in the place of the part, and what further events are written to. */
static px_status replace(void)
{
    char path[PX_PATH_MAX];
    path_of(timeline.part, path);
    PX_TRY(px_file_write(path, timeline.text.data, timeline.text.length));
    if (timeline.fd >= 0) {
        close(timeline.fd);
    }
    timeline.fd = open(path, O_WRONLY | O_CLOEXEC);
    return timeline.fd >= 0 ? PX_OK : px_fail(PX_IO, "%s: cannot be opened: %s", path, strerror(errno));
}

static px_status begin_part(void)
{
    px_buf_clear(&timeline.text);
    PX_TRY(px_buf_printf(&timeline.text, "[\n%s%s", timeline.names, end));
    return replace();
}

static px_status add(const char *event)
{
    if (timeline.text.length > PART) {
        timeline.part++;
        PX_TRY(begin_part());
    }
    size_t from = timeline.text.length - END;
    timeline.text.length = from;
    PX_TRY(px_buf_printf(&timeline.text, ",\n%s%s", event, end));
    size_t length = timeline.text.length - from;
    if (from / PAGE != (timeline.text.length - 1) / PAGE) {
        return replace();
    }
    if (pwrite(timeline.fd, timeline.text.data + from, length, (off_t)from) != (ssize_t)length) {
        return px_fail(PX_IO, "%s", strerror(errno));
    }
    return PX_OK;
}

static void finish(void)
{
    if (timeline.fd >= 0) {
        close(timeline.fd);
    }
    px_buf_free(&timeline.text);
    timeline.open = false;
}

static void name_rows(const char *role)
{
    static const char *const rows[] = {[PX_ROW_PHASES] = "phases", [PX_ROW_SUMS] = "sums over ranks", [PX_ROW_WEIGHTS] = "weights"};
    int rank = px_world_rank();
    size_t room = sizeof timeline.names;
    int at = snprintf(timeline.names, room, "{\"name\": \"process_name\", \"ph\": \"M\", \"pid\": %d, \"tid\": 0, "
                      "\"args\": {\"name\": \"rank %d: %.20s on %.40s\"}}", rank, rank, role, px_dist_host());
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        at += snprintf(timeline.names + at, room - (size_t)at, ",\n{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": %d, "
                       "\"tid\": %zu, \"args\": {\"name\": \"%s\"}}", rank, row, rows[row]);
    }
}

px_status px_timeline_open(const char *prefix, const char *role)
{
    char path[PX_PATH_MAX];
    if (strlen(prefix) >= PREFIX) {
        return px_fail(PX_IO, "%s: the path is too long", prefix);
    }
    memset(&timeline, 0, sizeof timeline);
    timeline.fd = -1;
    snprintf(timeline.prefix, sizeof timeline.prefix, "%s", prefix);
    name_rows(role);
    do { /* parts of an earlier start of the run stay */
        path_of(timeline.part, path);
    } while (px_file_exists(path) && ++timeline.part < 9999);
    px_status status = begin_part();
    timeline.open = true;
    if (status != PX_OK) {
        finish();
    }
    return status;
}

static void write_event(const char *event)
{
    if (add(event) != PX_OK) { /* a full disk ends the time line, not the run */
        px_log_rank(PX_WARNING, "%s: the time line of this rank ends here: %s", timeline.prefix, px_error_text());
        px_error_clear();
        finish();
    }
}

void px_timeline_turn(const char *phase, int64_t iteration)
{
    char event[400];
    double now = 1e6 * px_wall_time();
    int at = 0;
    if (!timeline.open || (!timeline.began && phase == NULL)) {
        return;
    }
    if (timeline.began) {
        at = snprintf(event, sizeof event, "{\"ph\": \"E\", \"pid\": %d, \"tid\": 0, \"ts\": %.0f}%s", px_world_rank(), now,
                      phase != NULL ? ",\n" : "");
    }
    if (phase != NULL) {
        snprintf(event + at, sizeof event - (size_t)at, "{\"name\": \"%.32s\", \"ph\": \"B\", \"pid\": %d, \"tid\": 0, \"ts\": "
                 "%.0f, \"args\": {\"iteration\": %lld}}", phase, px_world_rank(), now, (long long)iteration);
    }
    timeline.began = phase != NULL;
    timeline.iteration = iteration;
    write_event(event);
}

void px_timeline_span(px_timeline_row row, const char *name, double began)
{
    char event[300];
    if (timeline.open) {
        snprintf(event, sizeof event, "{\"name\": \"%.48s\", \"ph\": \"X\", \"pid\": %d, \"tid\": %d, \"ts\": %.0f, \"dur\": %.0f, "
                 "\"args\": {\"iteration\": %lld}}", name, px_world_rank(), (int)row, 1e6 * began,
                 1e6 * (px_wall_time() - began), (long long)timeline.iteration);
        write_event(event);
    }
}

void px_timeline_close(void)
{
    px_timeline_turn(NULL, 0);
    if (timeline.open) {
        finish();
    }
}
