#include "phalanx/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
    int rank, size;
    char role[24];
    px_level level;
    FILE *file;
    char path[PX_PATH_MAX]; /* of file */
    bool file_failed;       /* said once */
    bool progress_shown;
} state = {.rank = 0, .size = 1, .role = "rank", .level = PX_INFO};

void px_log_identity(int rank, int size)
{
    state.rank = rank;
    state.size = size;
}

int px_log_rank_number(void)
{
    return state.rank;
}

void px_log_role(const char *role)
{
    snprintf(state.role, sizeof state.role, "%s", role);
}

const char *px_log_role_name(void)
{
    return state.role;
}

void px_log_level(px_level level)
{
    state.level = level;
}

px_status px_log_file(const char *path)
{
    if (state.file != NULL) {
        fclose(state.file);
        state.file = NULL;
    }
    if (path == NULL) {
        return PX_OK;
    }
    struct stat info; /* neither a link that leads elsewhere nor a pipe that nobody reads is written to */
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    bool plain = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    int error = fd < 0 && errno != ELOOP && errno != ENXIO ? errno : 0;
    state.file = plain ? fdopen(fd, "a") : NULL;
    if (state.file == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return px_fail(PX_IO, "%s: cannot open the log file: %s", path,
                       error != 0 ? strerror(error) : "it is a link, a pipe or a device; valid is a regular file");
    }
    state.file_failed = false;
    snprintf(state.path, sizeof state.path, "%s", path);
    return PX_OK;
}

bool px_log_is_terminal(void)
{
    return isatty(STDERR_FILENO) == 1;
}

static void erase_progress(void)
{
    if (state.progress_shown) {
        fputs("\r\033[K", stderr);
        state.progress_shown = false;
    }
}

static void write_line(px_level level, bool tag_rank, const char *format, va_list args)
{
    static const char *const prefix[] = {"phalanx: ", "phalanx: warning: ", "phalanx: NOTE: ", "", "debug: "};
    char line[4096];
    int n = snprintf(line, sizeof line, "%s", prefix[level]);
    if (tag_rank && state.size > 1) {
        n += snprintf(line + n, sizeof line - (size_t)n, "[rank %d/%d] ", state.rank, state.size);
    }
    vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    erase_progress();
    fprintf(stderr, "%s\n", line);
    if (state.file != NULL) {
        char stamp[32];
        time_t now = time(NULL);
        struct tm tm;
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", localtime_r(&now, &tm));
        fprintf(state.file, "%s %s\n", stamp, line);
        if (fflush(state.file) != 0 && !state.file_failed) { /* what matters more says so itself when it fails */
            state.file_failed = true;
            fprintf(stderr, "%s%s: cannot write: %s; lines are missing\n", prefix[PX_WARNING], state.path, strerror(errno));
        }
    }
}

void px_log(px_level level, const char *format, ...)
{
    if (level > state.level || state.rank != 0) {
        return;
    }
    va_list args;
    va_start(args, format);
    write_line(level, false, format, args);
    va_end(args);
}

void px_log_rank(px_level level, const char *format, ...)
{
    if (level > state.level) {
        return;
    }
    va_list args;
    va_start(args, format);
    write_line(level, true, format, args);
    va_end(args);
}

void px_progress(const char *format, ...)
{
    if (state.rank != 0 || !px_log_is_terminal()) {
        return;
    }
    erase_progress();
    if (format == NULL) {
        return;
    }
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fflush(stderr);
    state.progress_shown = true;
}
