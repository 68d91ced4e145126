/* Inside dist: the communicator of collectives, and how a rank waits. */
#ifndef PHALANX_DIST_WORLD_H
#define PHALANX_DIST_WORLD_H

#include <mpi.h>
#include <stdbool.h>

/* Of the ranks that collectives span; MPI_COMM_NULL where this rank is in none. */
MPI_Comm px_group_comm(void);

/* Ends all ranks, and this one in any case. */
_Noreturn void px_job_abort(int exit_code);

double px_deadline(void); /* seconds; 0: none */
/* Are all requests completed? An error of MPI prints a post-mortem and ends the job. */
bool px_all_done(MPI_Request *requests, int count);
/* Completes all requests, sleeping between polls; past the deadline it prints a post-mortem and ends the job. */
void px_wait_all(MPI_Request *requests, int count);

#endif
