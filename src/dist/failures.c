/* Ranks of the job that MPI reports dead. With ULFM (User-Level Failure Mitigation) a call that involves a dead rank returns an
 * error instead of waiting for ever, and the library lists the dead; it does so only where the launcher was told to go on
 * without them. */
#include "phalanx/dist.h"
#include "world.h"

#include <stdlib.h>
#ifdef PX_ULFM
#include <mpi-ext.h>
#endif

static struct {
    bool active; /* ULFM, in this job */
    bool *died;  /* [ranks of the job], of the process; NULL: alone */
    int first;   /* lowest rank that has died; ranks of the job: none has */
} failures;

void px_failures_open(void)
{
    failures.first = px_world_size();
    failures.died = calloc((size_t)px_world_size(), sizeof *failures.died);
    PX_CHECK(failures.died != NULL);
#ifdef PX_ULFM
    int *on = NULL, known = 0;
    failures.active = MPI_Comm_get_attr(MPI_COMM_WORLD, MPIX_FT, &on, &known) == MPI_SUCCESS && known && *on != 0;
#endif
}

void px_failures_note(int rank)
{
    if (!failures.died[rank]) {
        failures.died[rank] = true;
        failures.first = rank < failures.first ? rank : failures.first;
    }
}

/* The list is acknowledged, or receives from any rank would go on to fail. */
void px_failures_look(void)
{
#ifdef PX_ULFM
    MPI_Group dead, all;
    int count = 0, acknowledged;
    if (!failures.active || MPIX_Comm_get_failed(MPI_COMM_WORLD, &dead) != MPI_SUCCESS) {
        return;
    }
    MPI_Group_size(dead, &count);
    MPIX_Comm_ack_failed(MPI_COMM_WORLD, count, &acknowledged);
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    for (int i = 0; i < count; i++) {
        int rank;
        MPI_Group_translate_ranks(dead, 1, &i, all, &rank);
        px_failures_note(rank);
    }
    MPI_Group_free(&all);
    MPI_Group_free(&dead);
#endif
}

int px_failures_shrink(MPI_Comm *left)
{
#ifdef PX_ULFM
    return MPIX_Comm_shrink(MPI_COMM_WORLD, left);
#else
    *left = MPI_COMM_NULL;
    return MPI_ERR_COMM;
#endif
}

bool px_failures_died(int rank)
{
    return failures.died != NULL && failures.died[rank];
}

int px_failures_first(void)
{
    return failures.died != NULL ? failures.first : px_world_size();
}

bool px_request_over(MPI_Request *request, int peer)
{
    int done = 1;
    if (MPI_Test(request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) {
        px_failures_note(peer);
        *request = MPI_REQUEST_NULL;
        return true;
    }
    return done;
}

bool px_dist_survives(void)
{
    return failures.active;
}

const char *px_dist_ulfm(void)
{
#ifdef PX_ULFM
    return failures.active ? "on: a dead env runner is dropped, the job goes on" : "off: mpirun --with-ft ulfm switches it on";
#else
    return "no: not in this MPI library (Open MPI 5 has it)";
#endif
}
