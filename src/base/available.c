/* How much memory this process may still get: the machine's, or less where a batch system's control group bounds it. */
#include "phalanx/base.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static size_t of_machine(void)
{
    size_t kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return kib > 0 ? kib * 1024 : SIZE_MAX;
}

/* What `ulimit -v` leaves, a common bound on login nodes. */
static size_t of_address_space(void)
{
    struct rlimit limit;
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return SIZE_MAX;
    }
    bool known = fscanf(file, "%zu", &pages) == 1 && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    fclose(file);
    size_t used = pages * (size_t)sysconf(_SC_PAGESIZE);
    return !known ? SIZE_MAX : limit.rlim_cur > used ? (size_t)limit.rlim_cur - used : 0;
}

/* A file that holds one number; SIZE_MAX when it is absent or says "max". */
static size_t read_number(const char *dir, const char *name)
{
    char path[PX_PATH_MAX];
    size_t value = SIZE_MAX;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path) {
        return SIZE_MAX;
    }
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%zu", &value) != 1) {
            value = SIZE_MAX;
        }
        fclose(file);
    }
    return value;
}

/* File pages that the kernel drops before it refuses: they count as used, but are free to take. */
static size_t reclaimable(const char *dir, const char *field)
{
    char path[PX_PATH_MAX], line[128], name[64];
    size_t value, found = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/memory.stat", dir) >= sizeof path) {
        return 0;
    }
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%63s %zu", name, &value) == 2 && strcmp(name, field) == 0) {
            found = value;
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

/* The tightest of a group and those it lies in: limits of parents hold for their children. */
static size_t of_group(const char *mount, const char *group, bool second)
{
    char dir[PX_PATH_MAX];
    size_t least = SIZE_MAX, root = strlen(mount);
    if ((size_t)snprintf(dir, sizeof dir, "%s%s", mount, group) >= sizeof dir) {
        return SIZE_MAX;
    }
    while (strlen(dir) >= root) {
        size_t limit = read_number(dir, second ? "memory.max" : "memory.limit_in_bytes");
        size_t used = read_number(dir, second ? "memory.current" : "memory.usage_in_bytes");
        if (limit != SIZE_MAX && used != SIZE_MAX) {
            size_t back = reclaimable(dir, second ? "inactive_file" : "total_inactive_file");
            used -= back < used ? back : used;
            size_t rest = limit > used ? limit - used : 0;
            least = rest < least ? rest : least;
        }
        char *slash = strrchr(dir, '/');
        if (slash == NULL || slash < dir + root) {
            break;
        }
        *slash = '\0';
    }
    return least;
}

size_t px_memory_available(void)
{
    size_t machine = of_machine(), space = of_address_space(), least = machine < space ? machine : space;
    char line[PX_PATH_MAX];
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) {
            continue;
        }
        *group++ = '\0';
        size_t rest = SIZE_MAX;
        if (strcmp(controllers, ":") == 0) {
            rest = of_group("/sys/fs/cgroup", group, true);
        } else if (strcmp(controllers, ":memory") == 0) {
            rest = of_group("/sys/fs/cgroup/memory", group, false);
        }
        least = rest < least ? rest : least;
    }
    if (file != NULL) {
        fclose(file);
    }
    return least;
}
