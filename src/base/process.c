/* Processes as files name them: who wrote this, and does it live? */
#include "phalanx/base.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Its state and when it began (field 22) of /proc/PID/stat; the name in field 2 may hold spaces and brackets. */
static bool read_stat(long pid, char *state, int64_t *start)
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
    *state = at != NULL && at[1] == ' ' ? at[2] : '?';
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    *start = at != NULL ? strtoll(at + 1, NULL, 10) : -1;
    return true;
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
    char state;
    gethostname(self.host, sizeof self.host - 1);
    describe_place(self.place, sizeof self.place);
    read_stat(self.pid, &state, &self.start);
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
    char state;
    int64_t began;
    if (!is_known(pid)) {
        return false;
    }
    if (!read_stat(pid, &state, &began)) {
        return is_known(pid); /* it has just ended, or /proc hides the processes of others */
    }
    bool over = state == 'Z' || state == 'X'; /* only its parent has not asked yet */
    return !over && (start < 0 || began < 0 || began == start);
}
