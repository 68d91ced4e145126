/* Processes as files name them: who wrote this, and does it live? */
#include "phalanx/base.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct stat_line { /* of /proc/PID/stat */
    char state;
    unsigned long long flags;
    int64_t start;
} stat_line;

/* Fields 3, 9 and 22; the name in field 2 may hold spaces and brackets. */
static bool read_stat(long pid, stat_line *line)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *at = strrchr(text, ')');
    *line = (stat_line){.state = at != NULL && at[1] == ' ' ? at[2] : '?', .start = -1};
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
        line->flags = at != NULL && field + 1 == 9 ? strtoull(at + 1, NULL, 10) : line->flags;
    }
    line->start = at != NULL ? strtoll(at + 1, NULL, 10) : -1;
    return true;
}

/* Has it been sent SIGKILL that it has not obeyed yet? */
static bool is_killed(long pid)
{
    char path[64], text[256];
    bool killed = false;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && !killed && fgets(text, sizeof text, file) != NULL) {
        unsigned long long pending;
        killed = (sscanf(text, "SigPnd: %llx", &pending) == 1 || sscanf(text, "ShdPnd: %llx", &pending) == 1) &&
                 (pending >> (SIGKILL - 1) & 1) != 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return killed;
}

/* What tells apart two machines, two starts of one and two containers that have the same host name. */
static void describe_place(char *out, size_t size)
{
    char boot[64] = "", space[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file != NULL) {
        if (fscanf(file, "%63s", boot) != 1) {
            boot[0] = '\0';
        }
        fclose(file);
    }
    ssize_t length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    out[0] = '\0';
    if (length > 0 && boot[0] != '\0') {
        snprintf(out, size, "%s %s", boot, space);
    }
}

px_process px_process_self(void)
{
    px_process self = {.pid = (long)getpid(), .start = -1};
    stat_line line;
    gethostname(self.host, sizeof self.host - 1);
    describe_place(self.place, sizeof self.place);
    self.start = read_stat(self.pid, &line) ? line.start : -1;
    return self;
}

bool px_process_is_here(const px_process *process)
{
    px_process self = px_process_self();
    return self.place[0] != '\0' && strcmp(self.place, process->place) == 0 && strcmp(self.host, process->host) == 0;
}

static bool is_known(long pid)
{
    return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno != ESRCH);
}

bool px_process_lives(long pid, int64_t start)
{
    stat_line line;
    if (!is_known(pid)) {
        return false;
    }
    if (!read_stat(pid, &line)) {
        return is_known(pid); /* it has just ended, or /proc hides the processes of others */
    }
    bool over = line.state == 'Z' || line.state == 'X'; /* only its parent has not asked yet */
    return !over && (start < 0 || line.start < 0 || line.start == start);
}

bool px_process_is_ending(long pid)
{
    enum { EXITING = 4 }; /* PF_EXITING of Linux */
    stat_line line;
    return read_stat(pid, &line) && ((line.flags & EXITING) != 0 || is_killed(pid));
}
