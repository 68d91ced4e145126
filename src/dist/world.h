/* Inside dist: the communicator of collectives, and how a rank waits. */
#ifndef PHALANX_DIST_WORLD_H
#define PHALANX_DIST_WORLD_H

#include <mpi.h>
#include <stdbool.h>

/* Of the ranks that collectives span; MPI_COMM_NULL where this rank is in none. */
MPI_Comm px_group_comm(void);

/* Last words, then the end of all ranks, and of this one in any case; or of this one alone. */
_Noreturn void px_job_abort(int exit_code, const char *reason);
_Noreturn void px_job_leave(int exit_code, const char *reason);

/* failures.c: open is local, after MPI's start; the others are of no cost where nobody has died. */
void px_failures_open(void);
void px_failures_look(void);         /* after a call that failed: asks MPI who has died */
void px_failures_note(int rank);     /* what was asked of that rank alone has failed */
bool px_failures_died(int rank);
int px_failures_shrink(MPI_Comm *left); /* a communicator of all ranks that live. Collective over them; code of MPI */
int px_failures_first(void);         /* lowest rank that has died; ranks of the job: none has */
/* Is the request, to or from that rank of the job, done with? Also where it failed because the rank has died. */
bool px_request_over(MPI_Request *request, int peer);

double px_deadline(void); /* seconds; 0: none */
/* Are all requests completed? An error of MPI prints a post-mortem and ends the job. */
bool px_all_done(MPI_Request *requests, int count);
/* Completes all requests, sleeping between polls; past the deadline it prints a post-mortem and ends the job. */
void px_wait_all(MPI_Request *requests, int count);

#endif
