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

typedef struct announcement { /* what a node's first rank of the group tells the others there */
    char name[64];
    int error;
} announcement;

/* all[px_dist_size]: what every rank has to say. */
static void tell(const announcement *mine, announcement *all)
{
    MPI_Request request;
    if (px_dist_size() == 1) {
        *all = *mine;
        return;
    }
    MPI_Iallgather(mine, (int)sizeof *mine, MPI_BYTE, all, (int)sizeof *all, MPI_BYTE, px_group_comm(), &request);
    px_wait_all(&request, 1);
}

/* Of this node, among the ranks of the group; nodes[px_dist_size] is scratch. */
static int first_of_node(int64_t *nodes)
{
    int64_t here = px_world_node(px_world_rank());
    int rank = 0;
    px_gather_i64(here, nodes);
    while (nodes[rank] != here) {
        rank++;
    }
    return rank;
}

static int create(announcement *what, size_t bytes)
{
    for (int n = 0; n < 1000; n++) {
        snprintf(what->name, sizeof what->name, "/phalanx-%d-%d", (int)getpid(), n);
        int fd = shm_open(what->name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0) {
            what->error = 0;
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
    }
    return -1;
}

static px_status failed(size_t bytes, int error)
{
    return px_fail(PX_IO, "/dev/shm of node %s: %zu bytes cannot be shared by its ranks: %s; valid is room for them there", px_dist_host(),
                   bytes, strerror(error));
}

static px_status map(px_shared *shared, size_t bytes, int error)
{
    if (shared->fd < 0) {
        return failed(bytes, error);
    }
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, shared->fd, 0);
    if (data == MAP_FAILED) {
        error = errno;
        close(shared->fd);
        shared->fd = -1;
        return failed(bytes, error);
    }
    shared->data = data;
    shared->bytes = bytes;
    return PX_OK;
}

px_status px_shared_open(px_shared *shared, size_t bytes)
{
    size_t ranks = (size_t)px_dist_size();
    announcement mine = {.name = ""}, *all = px_alloc_array(ranks, sizeof *all, "names of shared memory");
    int64_t *nodes = px_alloc_array(ranks, sizeof *nodes, "names of shared memory");
    *shared = (px_shared){.fd = -1};
    px_status have = px_agree(all != NULL && nodes != NULL ? PX_OK : px_error_code());
    if (have != PX_OK) {
        px_free(all);
        px_free(nodes);
        return have;
    }
    int first = first_of_node(nodes);
    if (first == px_dist_rank()) {
        shared->fd = create(&mine, bytes);
    }
    tell(&mine, all);
    int error = all[first].error;
    if (first != px_dist_rank() && error == 0) {
        shared->fd = shm_open(all[first].name, O_RDWR, 0600);
        error = shared->fd < 0 ? errno : 0;
    }
    bool made = first == px_dist_rank() && shared->fd >= 0;
    px_status status = map(shared, bytes, error);
    px_barrier();
    if (made) {
        shm_unlink(mine.name);
    }
    px_free(all);
    px_free(nodes);
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
