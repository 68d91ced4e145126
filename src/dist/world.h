/* Inside dist: how a rank waits. */
#ifndef PHALANX_DIST_WORLD_H
#define PHALANX_DIST_WORLD_H

#include <mpi.h>

/* Completes all requests, sleeping between polls; past the deadline it prints a post-mortem and ends the job. */
void px_wait_all(MPI_Request *requests, int count);

#endif
