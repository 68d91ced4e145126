/* Memory that the ranks of a node share: a file of /dev/shm without a name, gone with the last process that has it. */
#include "phalanx/dist.h"
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct announcement { /* what a node's first rank tells the others */
    char name[64];
    int error;
} announcement;

static void tell(announcement *what)
{
    MPI_Request request;
    MPI_Ibcast(what, (int)sizeof *what, MPI_BYTE, 0, px_node_comm(), &request);
    px_wait_all(&request, 1);
}

static void wait_for_node(void)
{
    MPI_Request request;
    MPI_Ibarrier(px_node_comm(), &request);
    px_wait_all(&request, 1);
}

static int create(announcement *what, size_t bytes)
{
    for (int n = 0; n < 1000; n++) {
        snprintf(what->name, sizeof what->name, "/phalanx-%d-%d", (int)getpid(), n);
        int fd = shm_open(what->name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0) {
            return fd;
        }
        what->error = errno;
        if (fd >= 0) {
            close(fd);
            shm_unlink(what->name);
        }
        if (what->error != EEXIST) {
            break;
        }
        what->error = 0;
    }
    return -1;
}

static px_status failed(size_t bytes, int error)
{
    return px_fail(PX_IO, "/dev/shm of node %s: %zu bytes cannot be shared by its ranks: %s", px_dist_host(), bytes,
                   strerror(error));
}

static px_status map(px_shared *shared, size_t bytes, int error)
{
    if (shared->fd < 0) {
        return failed(bytes, error);
    }
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared->fd, 0);
    if (data == MAP_FAILED) {
        return failed(bytes, errno);
    }
    shared->data = data;
    shared->bytes = bytes;
    return PX_OK;
}

px_status px_shared_open(px_shared *shared, size_t bytes)
{
    announcement what = {.name = ""};
    bool first = px_dist_local_rank() == 0;
    *shared = (px_shared){.fd = -1};
    if (first) {
        shared->fd = create(&what, bytes);
    }
    tell(&what);
    if (!first && what.error == 0) {
        shared->fd = shm_open(what.name, O_RDWR, 0600);
        what.error = shared->fd < 0 ? errno : 0;
    }
    px_status status = map(shared, bytes, what.error);
    wait_for_node();
    if (first && shared->fd >= 0) {
        shm_unlink(what.name);
    }
    return status;
}

px_status px_shared_reserve(const px_shared *shared)
{
    int error = posix_fallocate(shared->fd, 0, (off_t)shared->bytes);
    return error == 0 ? PX_OK : failed(shared->bytes, error);
}

void px_shared_close(px_shared *shared)
{
    if (shared->data != NULL) {
        munmap(shared->data, shared->bytes);
        close(shared->fd);
    }
    *shared = (px_shared){.fd = -1};
}
