/* dist: the only room that calls MPI. Typed collectives over the ranks of a run, sums in a fixed order, agreement on
 * errors. Everything works as one process without MPI being started. Functions are collective unless they say "local". */
#ifndef PHALANX_DIST_H
#define PHALANX_DIST_H

#include "phalanx/base.h"

/* Starts MPI when a launcher (mpirun, srun with PMI/PMIx) is seen. Sets the log's identity and the bug hook. */
px_status px_dist_start(int *argc, char ***argv);
/* Ends the job with the status all ranks agree on; prints the error once, from the rank that has it. Returns the code. */
int px_dist_finish(px_status status);
bool px_dist_launched(void); /* local: MPI runs */
int px_dist_rank(void);      /* local */
int px_dist_size(void);      /* local */
int px_dist_local_rank(void); /* local: rank among those on this node */
int px_dist_local_size(void); /* local */
const char *px_dist_version(void); /* local: the library's name and version */
const char *px_dist_host(void);    /* local */

/* Every rank passes its status; all get the worst one with its message (first of the highest code). What every stage that
 * can fail on one rank ends with, before the next collective. */
px_status px_agree(px_status status);
void px_barrier(void);
/* Seconds that a collective may wait for the others before the job is ended with a post-mortem (0: for ever). The
 * watchdog's text names the phase, set by the caller: what this rank is doing. */
void px_deadline_set(double seconds);                /* local */
void px_phase_set(const char *phase, int64_t iteration); /* local; phase outlives the call */

void px_bcast(void *data, size_t bytes, int root);
void px_sum_f64(double *values, int count);   /* in rank order: same bits on every rank, run after run */
void px_sum_i64(int64_t *values, int count);
void px_max_f64(double *values, int count);
void px_min_f64(double *values, int count);
/* Element-wise sum over ranks by a fixed binary tree over rank numbers (neighbours first): with 2^k ranks that each hold
 * the sum of an aligned 2^j block of leaves, the bits are those of one rank summing all leaves by the same tree. */
void px_sum_f32_tree(float *values, size_t count);
size_t px_sum_f32_tree_bytes(void); /* local: of its receive buffer, kept from the first sum on */
/* counts[size]: what every rank passed as `mine`. */
void px_gather_i64(int64_t mine, int64_t *counts);
/* Concatenates by rank: bytes[size] as from px_gather_i64, out holds their total; mine may be its own place in out. */
void px_gather_bytes(const void *mine, void *out, const int64_t *bytes);
/* rows[total] of row_bytes: each rank has filled its px_share of them; afterwards all ranks have all of them. */
void px_gather_shares(void *rows, size_t row_bytes, int64_t total);
/* true if all ranks pass the same bytes (a replica check; local result is the same everywhere) */
bool px_same_everywhere(uint64_t hash);

/* [first, first + count) of `total` things for this rank: contiguous, sizes differ by at most one, first ranks larger. */
void px_share(int64_t total, int rank, int size, int64_t *first, int64_t *count); /* local */

/* A stop asked for on any rank, seen by all at the same place: returns the highest stop level. */
int px_stop_agreed(void);

#endif
