#include "phalanx/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

uint64_t px_hash(const void *bytes, size_t length, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes, length, seed);
}

static px_status io_error(const char *path, const char *what)
{
    return px_fail(PX_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* Opened without waiting: a pipe that nobody writes to would hold the process here, and a device may have no end. */
px_status px_file_open(const char *path, int *fd)
{
    struct stat info;
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*fd < 0) {
        return io_error(path, "open");
    }
    px_status status = PX_OK;
    if (fstat(*fd, &info) != 0) {
        status = io_error(path, "stat");
    } else if (S_ISFIFO(info.st_mode)) {
        status = px_fail(PX_IO, "%s: is a pipe, which can be read once only; valid is a regular file: save what the "
                                "command prints first", path);
    } else if (!S_ISREG(info.st_mode)) {
        status = px_fail(PX_IO, "%s: is a %s; valid is a regular file", path,
                         S_ISDIR(info.st_mode) ? "directory" : "device");
    }
    if (status != PX_OK) {
        close(*fd);
        *fd = -1;
    }
    return status;
}

/* Reads rather than maps: a disk that fails, or a hole that a full one cannot back, is then an error and not SIGBUS. */
px_status px_hash_file(const char *path, uint64_t *hash, int64_t *bytes)
{
    enum { CHUNK = 1 << 16 };
    char chunk[CHUNK];
    int fd;
    PX_TRY(px_file_open(path, &fd));
    XXH3_state_t *state = XXH3_createState();
    px_status status = state != NULL ? PX_OK : px_fail(PX_CONFIG, "out of memory: hashing %s", path);
    if (status == PX_OK) {
        XXH3_64bits_reset(state);
        *bytes = 0;
    }
    while (status == PX_OK) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            status = io_error(path, "read");
        }
        if (n <= 0) {
            break;
        }
        XXH3_64bits_update(state, chunk, (size_t)n);
        *bytes += n;
    }
    if (status == PX_OK) {
        *hash = XXH3_64bits_digest(state);
    }
    XXH3_freeState(state);
    close(fd);
    return status;
}

static px_status too_large(const char *path, size_t most)
{
    return px_fail(PX_DATA, "%s: more than %zu %s; valid is less", path, most >= 1 << 20 ? most >> 20 : most >> 10,
                   most >= 1 << 20 ? "MiB" : "KiB");
}

px_status px_file_read(const char *path, size_t most, px_buf *buf)
{
    int fd;
    struct stat info;
    size_t begin = buf->length;
    PX_TRY(px_file_open(path, &fd));
    px_status status = fstat(fd, &info) == 0 && info.st_size > (off_t)most ? too_large(path, most) : PX_OK;
    while (status == PX_OK) {
        status = buf->length - begin <= most ? px_buf_reserve(buf, buf->length + (1 << 16)) : too_large(path, most);
        if (status != PX_OK) {
            break;
        }
        ssize_t n = read(fd, buf->data + buf->length, buf->capacity - buf->length - 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            status = io_error(path, "read");
        }
        if (n <= 0) {
            break;
        }
        buf->length += (size_t)n;
    }
    if (buf->data != NULL) {
        buf->data[buf->length] = '\0';
    }
    close(fd);
    return status;
}

static px_status write_all(int fd, const char *path, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return io_error(path, "write");
        }
        bytes += n;
        length -= (size_t)n;
    }
    return fsync(fd) == 0 ? PX_OK : io_error(path, "sync");
}

static const char temporary_mark[] = ".px-", temporary_end[] = ".tmp";

px_status px_temporary_path(char *out, size_t size, const char *path)
{
    char host[256] = {0};
    gethostname(host, sizeof host - 1);
    unsigned where = (unsigned)px_hash(host, strlen(host), 0);
    int n = snprintf(out, size, "%s%s%08x-%ld%s", path, temporary_mark, where, (long)getpid(), temporary_end);
    return n >= 0 && (size_t)n < size ? PX_OK : px_fail(PX_IO, "%s: the path is too long", path);
}

/* Of files in dir whose names begin with `name`. What somebody holds stays for the next time. */
static px_status remove_temporaries(const char *dir, const char *name)
{
    DIR *stream = opendir(dir);
    if (stream == NULL) {
        return errno == ENOENT ? PX_OK : io_error(dir, "read");
    }
    px_status status = PX_OK;
    for (struct dirent *entry; status == PX_OK && (entry = readdir(stream)) != NULL;) {
        char path[PX_PATH_MAX];
        const char *mark = strstr(entry->d_name, temporary_mark);
        size_t length = strlen(entry->d_name), end = sizeof temporary_end - 1;
        if (mark == NULL || strncmp(entry->d_name, name, strlen(name)) != 0 || length < end ||
            strcmp(entry->d_name + length - end, temporary_end) != 0) {
            continue;
        }
        status = px_path_join(path, sizeof path, dir, entry->d_name);
        if (status == PX_OK && px_tree_remove(path) != PX_OK) {
            px_log(PX_WARNING, "%s: it stays there", px_error_text());
            px_error_clear();
        }
    }
    closedir(stream);
    return status;
}

px_status px_temporaries_remove(const char *dir)
{
    return remove_temporaries(dir, "");
}

px_status px_temporaries_remove_of(const char *path)
{
    char dir[PX_PATH_MAX], name[PX_PATH_MAX];
    const char *slash = strrchr(path, '/');
    px_path_parent(dir, sizeof dir, path);
    int n = snprintf(name, sizeof name, "%s%s", slash != NULL ? slash + 1 : path, temporary_mark);
    return n >= 0 && (size_t)n < sizeof name ? remove_temporaries(dir, name) : px_fail(PX_IO, "%s: the path is too long", path);
}

px_status px_file_create(const char *path, int *fd)
{
    unlink(path);
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return *fd >= 0 ? PX_OK : io_error(path, "create");
}

px_status px_file_write(const char *path, const void *bytes, size_t length)
{
    char temporary[PX_PATH_MAX];
    PX_TRY(px_temporary_path(temporary, sizeof temporary, path));
    int fd;
    if (px_file_create(temporary, &fd) != PX_OK) {
        return io_error(path, "create");
    }
    px_status status = write_all(fd, path, bytes, length);
    if (close(fd) != 0 && status == PX_OK) {
        status = io_error(path, "close");
    }
    if (status == PX_OK && rename(temporary, path) != 0) {
        status = io_error(path, "rename into place");
    }
    if (status != PX_OK) {
        unlink(temporary);
    }
    return status;
}

bool px_file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode);
}

bool px_dir_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool px_same_file(const char *a, const char *b)
{
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

px_status px_dir_create(const char *path)
{
    char part[PX_PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part) {
        return px_fail(PX_IO, "%s: not a usable directory name", path);
    }
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0') {
            continue;
        }
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            return io_error(part, "create the directory");
        }
        part[i] = i < length ? '/' : '\0';
    }
    return px_dir_exists(path) ? PX_OK : px_fail(PX_IO, "%s: exists and is not a directory", path);
}

px_status px_dir_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return io_error(path, "open");
    }
    px_status status = fsync(fd) == 0 || errno == EINVAL ? PX_OK : io_error(path, "sync");
    close(fd);
    return status;
}

static px_status remove_at(int parent, const char *name, const char *path, int depth)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) {
        return PX_OK;
    }
    if (errno != EISDIR && errno != EPERM) {
        return io_error(path, "remove");
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 && depth < 64 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return io_error(path, "remove");
    }
    px_status status = PX_OK;
    for (struct dirent *entry; status == PX_OK && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            status = remove_at(dirfd(dir), entry->d_name, path, depth + 1);
        }
    }
    closedir(dir);
    if (status == PX_OK && unlinkat(parent, name, AT_REMOVEDIR) != 0) {
        status = io_error(path, "remove");
    }
    return status;
}

px_status px_tree_remove(const char *path)
{
    return remove_at(AT_FDCWD, path, path, 0);
}

px_status px_path_join(char *out, size_t size, const char *a, const char *b)
{
    size_t la = strlen(a);
    int n;
    if (b[0] == '/' || la == 0) {
        n = snprintf(out, size, "%s", b);
    } else {
        n = snprintf(out, size, "%s%s%s", a, a[la - 1] == '/' ? "" : "/", b);
    }
    return n >= 0 && (size_t)n < size ? PX_OK : px_fail(PX_IO, "%s/%s: the path is too long", a, b);
}

void px_path_parent(char *out, size_t size, const char *path)
{
    snprintf(out, size, "%s", path);
    size_t length = strlen(out);
    while (length > 1 && out[length - 1] == '/') {
        out[--length] = '\0';
    }
    char *slash = strrchr(out, '/');
    if (slash == NULL) {
        snprintf(out, size, ".");
    } else {
        slash[slash == out ? 1 : 0] = '\0';
    }
}
