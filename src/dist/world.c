#include "phalanx/dist.h"
#include "world.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    bool launched;
    int rank, size, local_rank, local_size;
    double deadline; /* seconds */
    const char *phase;
    int64_t iteration;
    char host[128];
} world = {.size = 1, .local_size = 1, .deadline = 1800.0, .phase = "start"};

/* What launchers leave in the environment of each rank: Open MPI's mpirun, PMIx and PMI under srun, MPICH's hydra. */
static bool launcher_seen(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (getenv(names[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static void abort_job(int exit_code)
{
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

px_status px_dist_start(int *argc, char ***argv)
{
    gethostname(world.host, sizeof world.host - 1);
    if (!launcher_seen()) {
        return PX_OK;
    }
    int provided;
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        return px_fail(PX_IO, "MPI does not start");
    }
    MPI_Comm node;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world.size);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &node);
    MPI_Comm_rank(node, &world.local_rank);
    MPI_Comm_size(node, &world.local_size);
    MPI_Comm_free(&node);
    world.launched = true;
    px_log_identity(world.rank, world.size);
    px_bug_hook_set(abort_job);
    return PX_OK;
}

int px_dist_finish(px_status status)
{
    status = px_agree(status);
    if (status != PX_OK && world.rank == 0 && px_error_text()[0] != '\0') {
        px_progress(NULL);
        fprintf(stderr, "phalanx: %s\n", px_error_text());
    }
    if (world.launched) {
        fflush(NULL);
        px_barrier();
        MPI_Finalize();
        world.launched = false;
    }
    return (int)status;
}

bool px_dist_launched(void)
{
    return world.launched;
}

int px_dist_rank(void)
{
    return world.rank;
}

int px_dist_size(void)
{
    return world.size;
}

int px_dist_local_rank(void)
{
    return world.local_rank;
}

int px_dist_local_size(void)
{
    return world.local_size;
}

const char *px_dist_host(void)
{
    return world.host;
}

const char *px_dist_version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, "\n,")] = '\0';
    return text;
}

void px_deadline_set(double seconds)
{
    world.deadline = seconds;
}

void px_phase_set(const char *phase, int64_t iteration)
{
    world.phase = phase;
    world.iteration = iteration;
}

static _Noreturn void post_mortem(double waited, const char *reason)
{
    fprintf(stderr,
            "phalanx: [rank %d/%d on %s, pid %d] %s: waited %.0f s for the other ranks in phase '%s' of iteration %lld; "
            "ending the job, the same command continues from the last checkpoint\n",
            world.rank, world.size, world.host, (int)getpid(), reason, waited, world.phase, (long long)world.iteration);
    fflush(NULL);
    MPI_Abort(MPI_COMM_WORLD, PX_UNHEALTHY);
    abort();
}

/* A waiting rank gives its core away: first by yielding, then by naps of up to half a millisecond, because ranks on one
 * node share cores with the ranks they wait for. */
void px_wait_all(MPI_Request *requests, int count)
{
    double start = 0.0;
    for (long poll = 0;; poll++) {
        int done = 0;
        int code = MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
        if (code != MPI_SUCCESS) {
            post_mortem(0.0, "MPI reports an error");
        }
        if (done) {
            return;
        }
        if (poll < 200) {
            if (poll > 20) {
                sched_yield();
            }
            continue;
        }
        if (start == 0.0) {
            start = px_now();
        }
        double waited = px_now() - start;
        if (world.deadline > 0.0 && waited > world.deadline) {
            post_mortem(waited, "deadline");
        }
        long nap_ns = waited < 0.002 ? 20000 : waited < 0.05 ? 100000 : 500000;
        nanosleep(&(struct timespec){0, nap_ns}, NULL);
    }
}

void px_share(int64_t total, int rank, int size, int64_t *first, int64_t *count)
{
    int64_t each = total / size, rest = total % size;
    *first = each * rank + (rank < rest ? rank : rest);
    *count = each + (rank < rest ? 1 : 0);
}
