/* Files as memory. A page of a map that its file has no bytes for any more (it was cut, or taken away on a network file
 * system) raises SIGBUS where it is touched: there the process says which file it was and ends, with the code of bad
 * data where it was cut and of an input/output error else, instead of dying without a word. */
#include "phalanx/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct map {
    struct map *next;
    const char *data;
    size_t bytes;
    dev_t device;
    ino_t inode;
    struct timespec changed;
    char path[];
} map;

static map *maps; /* all that are alive; the handler walks it */

static const map *map_at(const void *address)
{
    const map *m = maps;
    while (m != NULL && ((const char *)address < m->data || (const char *)address >= m->data + m->bytes)) {
        m = m->next;
    }
    return m;
}

/* Another file under the name is no change: the map keeps the old one. */
static bool is_changed(const map *m)
{
    struct stat info;
    if (stat(m->path, &info) != 0 || info.st_dev != m->device || info.st_ino != m->inode) {
        return false;
    }
    return (size_t)info.st_size != m->bytes || info.st_mtim.tv_sec != m->changed.tv_sec ||
           info.st_mtim.tv_nsec != m->changed.tv_nsec;
}

static void say(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    const map *m = map_at(info->si_addr);
    if (m == NULL) { /* not ours: die of it, as without a handler */
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    say("phalanx: ");
    say(m->path);
    say(": the file was cut or taken away while it was in use; valid is one that stays as it is until the end\n");
    _exit(is_changed(m) ? PX_DATA : PX_IO);
}

/* At every map, as MPI libraries put handlers of their own in when they start. */
static void watch(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

static px_status map_failed(const char *path, const char *what)
{
    return px_fail(PX_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static px_status enter(int fd, const struct stat *info, const char *path, const void **data)
{
    size_t length = strlen(path);
    map *m = px_alloc(sizeof *m + length + 1, "the record of a mapped file");
    if (m == NULL) {
        return px_error_code();
    }
    *m = (map){.bytes = (size_t)info->st_size, .device = info->st_dev, .inode = info->st_ino, .changed = info->st_mtim};
    memcpy(m->path, path, length + 1);
    void *at = mmap(NULL, m->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) {
        px_free(m);
        return map_failed(path, "map");
    }
    *data = m->data = at;
    m->next = maps;
    maps = m;
    watch();
    return PX_OK;
}

px_status px_file_map(const char *path, const void **data, size_t *bytes)
{
    *data = NULL;
    *bytes = 0;
    int fd;
    struct stat info;
    PX_TRY(px_file_open(path, &fd));
    px_status status = PX_OK;
    if (fstat(fd, &info) != 0) {
        status = map_failed(path, "stat");
    } else if (info.st_size > 0) {
        status = enter(fd, &info, path, data);
        *bytes = status == PX_OK ? (size_t)info.st_size : 0;
    }
    close(fd);
    return status;
}

/* The records of all maps in a range. */
static void forget(const void *from, size_t bytes)
{
    for (map **at = &maps; *at != NULL;) {
        map *m = *at;
        if (m->data >= (const char *)from && m->data < (const char *)from + bytes) {
            *at = m->next;
            px_free(m);
        } else {
            at = &m->next;
        }
    }
}

void px_file_unmap(const void *data, size_t bytes)
{
    if (data != NULL) {
        forget(data, bytes);
        munmap((void *)(uintptr_t)data, bytes);
    }
}

px_status px_file_map_move(const void **data, size_t bytes, void *to)
{
    map *m = (map *)(uintptr_t)map_at(*data);
    PX_CHECK(m != NULL && m->data == *data && m->bytes == bytes);
    /* The kernel's own: communication libraries (UCX) put a mremap of theirs in the C library's place, which forgets `to`. */
    if (syscall(SYS_mremap, *data, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == -1) {
        return map_failed(m->path, "move its map");
    }
    *data = m->data = to;
    return PX_OK;
}

px_status px_file_maps_check(const void *from, size_t bytes)
{
    for (const map *m = maps; m != NULL; m = m->next) {
        if (m->data >= (const char *)from && m->data < (const char *)from + bytes && is_changed(m)) {
            return px_fail(PX_DATA, "%s: the file was changed while it was in use; valid is one that stays as it is (write new "
                                    "weights under another name, then rename them)", m->path);
        }
    }
    return PX_OK;
}

size_t px_whole_pages(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE); /* 64 KiB on some ARM machines */
    return (bytes + page - 1) / page * page;
}

void *px_address_reserve(size_t bytes, const char *what)
{
    void *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        px_fail(PX_CONFIG, "out of memory: %s wants %zu bytes of addresses: %s", what, bytes, strerror(errno));
        return NULL;
    }
    return at;
}

px_status px_address_use(void *at, size_t bytes, const char *what)
{
    if (bytes > 0 && mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0) {
        return px_fail(PX_CONFIG, "out of memory: %s wants %.1f MiB, %.1f MiB are free", what, (double)bytes / 1048576.0,
                       (double)px_memory_available() / 1048576.0);
    }
    if (bytes > 0) {
        madvise(at, bytes, MADV_HUGEPAGE);
    }
    return PX_OK;
}

px_status px_address_share(void *at, size_t bytes, int fd, size_t offset, bool writable, const char *what)
{
    int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    if (bytes > 0 && mmap(at, bytes, access, MAP_SHARED | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED) {
        return px_fail(PX_CONFIG, "out of memory: %s cannot share %.1f MiB: %s", what, (double)bytes / 1048576.0,
                       strerror(errno));
    }
    if (bytes > 0) {
        madvise(at, bytes, MADV_HUGEPAGE);
    }
    return PX_OK;
}

void px_address_release(void *at, size_t bytes)
{
    if (at != NULL) {
        forget(at, bytes);
        munmap(at, bytes);
    }
}
