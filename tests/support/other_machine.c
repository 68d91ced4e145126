/* Preloaded, makes a process believe it is on another machine: SHIM_CPUS=8-15 is its affinity mask, SHIM_LAUNCHER=0-15 that of
 * other processes, SHIM_MAGIC=0x6969 the kind of every file system, SHIM_CPUINFO a file that stands for /proc/cpuinfo. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

int sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set)
{
    int first, last, (*real)(pid_t, size_t, cpu_set_t *);
    const char *text = getenv(pid == 0 ? "SHIM_CPUS" : "SHIM_LAUNCHER");
    *(void **)&real = dlsym(RTLD_NEXT, "sched_getaffinity");
    if (text == NULL || sscanf(text, "%d-%d", &first, &last) != 2) {
        return real(pid, bytes, set);
    }
    CPU_ZERO_S(bytes, set);
    for (int cpu = first; cpu <= last; cpu++) {
        CPU_SET_S((size_t)cpu, bytes, set);
    }
    return 0;
}

int statfs(const char *path, struct statfs *out)
{
    int (*real)(const char *, struct statfs *);
    *(void **)&real = dlsym(RTLD_NEXT, "statfs");
    int code = real(path, out);
    const char *magic = getenv("SHIM_MAGIC");
    if (code == 0 && magic != NULL) {
        out->f_type = strtol(magic, NULL, 0);
    }
    return code;
}

FILE *fopen(const char *path, const char *mode)
{
    FILE *(*real)(const char *, const char *);
    const char *other = getenv("SHIM_CPUINFO");
    *(void **)&real = dlsym(RTLD_NEXT, "fopen");
    return real(other != NULL && strcmp(path, "/proc/cpuinfo") == 0 ? other : path, mode);
}
