/* dist: the only room that calls MPI. Typed collectives over a group of ranks, sums in a fixed order, agreement on errors,
 * messages between two ranks that never block, memory that a node's ranks share. Everything works as one process without
 * MPI being started. Functions are collective over the group unless they say "local" or "of the job". */
#ifndef PHALANX_DIST_H
#define PHALANX_DIST_H

#include "phalanx/base.h"

/* Starts MPI when a launcher (mpirun, srun with PMI/PMIx) is seen. Sets the log's identity and the bug hook. */
px_status px_dist_start(int *argc, char ***argv);
/* Ends the job with the status all ranks agree on; prints the error once, from the rank that has it. Returns the code. */
int px_dist_finish(px_status status);
bool px_dist_launched(void); /* local: MPI runs */
int px_launch_rank(void);    /* local, before MPI runs: what the launcher says; 0 without one */
/* Local, without a launcher: sizes are reckoned as if there were so many ranks, nodes[size] the number of each one's node
 * (borrowed), and so many in the group. Nothing collective may be called until px_dist_assume(NULL, 1, 1). */
void px_dist_assume(int *nodes, int size, int group_size);
int px_dist_rank(void);      /* local: in the group; -1 where this rank is in none */
int px_dist_size(void);      /* local: of the group */
int px_world_rank(void);     /* local: among all ranks of the job */
int px_world_size(void);     /* local */
int px_world_node(int rank); /* local: number of the node that a rank of the job is on, from 0 */
int px_dist_local_rank(void); /* local: rank among all ranks of the job on this node */
int px_dist_local_size(void); /* local */
const char *px_dist_version(void); /* local: the library's name and version */
bool px_dist_survives(void);       /* local: MPI goes on without ranks that die, and says which (ULFM) */
const char *px_dist_ulfm(void);    /* local: that in words, or why not */
const char *px_dist_host(void);    /* local */

/* ---- groups: the ranks that collectives span, at first all of the job ------------------------------------------------- */
void px_group_all(void);   /* local: all ranks of the job again */
void px_group_leave(void); /* local: none; collectives of this rank are of it alone */
/* ranks[count] of the job, ascending, this rank among them. Collective over those ranks alone, which pass the same tag. */
px_status px_group_enter(const int *ranks, int count, int tag);
/* Makes two teams of the group: ranks [0, first) and the rest; first 0: none are made. Collective over the group. */
px_status px_team_make(int first);
/* Local: collectives span this rank's team alone, or the whole group again. Without teams it is the group all the time. */
void px_team(bool alone);
/* Local: the group is what is left of the job, for good. Where not all of the others are dead, or MPI does not survive that, the job
 * ends without waiting for them. */
void px_ranks_left(bool dead);

/* ---- collectives --------------------------------------------------------------------------------------------------------- */
/* Every rank passes its status; all get the worst one with its message (first of the highest code). What every stage that
 * can fail on one rank ends with, before the next collective. */
px_status px_agree(px_status status);
void px_barrier(void);
/* Seconds that a collective may wait for the others before the job is ended with a post-mortem (0: for ever). The
 * watchdog's text names the phase, set by the caller: what this rank is doing. */
void px_deadline_set(double seconds);                /* local */
void px_phase_set(const char *phase, int64_t iteration); /* local */
/* From now on every phase of this rank is an event of the files PREFIX-NNNN.json, valid JSON at any moment (Chrome trace; those
 * of an earlier start stay). Local. */
px_status px_timeline_open(const char *prefix, const char *role);
void px_timeline_close(void);
/* What went on beside the phases from `began` (px_wall_time) until now: an event of a row below theirs. Local. */
typedef enum px_timeline_row { PX_ROW_PHASES, PX_ROW_SUMS, PX_ROW_WEIGHTS } px_timeline_row;
void px_timeline_span(px_timeline_row row, const char *name, double began);
/* What a phase has taken in this process since px_usage_reset: seconds by the clock and of processor time. Waiting ranks sleep, so the
 * second over the first is the number of cores that it kept busy. Zeros for a phase that was never set. Local. */
void px_usage_reset(void);
void px_usage_of(const char *phase, double *wall_s, double *cpu_s);
/* One sleep between two polls of a wait, `poll` counting from 0: a waiting rank gives its core away. *waited, 0 at first, becomes the
 * seconds that it has waited, without those in which the process itself was stopped. Ends the job with a post-mortem past the
 * deadline. Local. */
void px_wait_nap(long poll, double *waited);
/* What a rank says before it ends the job for all: after a wait in vain or an internal error, from whatever thread, at most once and
 * within some seconds. Local; NULL: nothing. */
void px_last_words_set(void (*say)(int exit_code, const char *reason));
/* What a rank does while it waits, and where it calls px_poll: between two pieces of long work. Local; NULL: nothing. */
void px_poll_set(void (*run)(void *arg), void *arg);
void px_poll(void);

void px_bcast(void *data, size_t bytes, int root);
void px_sum_f64(double *values, int count);   /* in rank order: same bits on every rank, run after run */
void px_sum_i64(int64_t *values, int count);
void px_max_f64(double *values, int count);
void px_min_f64(double *values, int count);
/* Element-wise sum over ranks by a fixed binary tree over rank numbers (neighbours first): with 2^k ranks that each hold
 * the sum of an aligned 2^j block of leaves, the bits are those of one rank summing all leaves by the same tree. */
void px_sum_f32_tree(float *values, size_t count);
/* The same sum while the values are still being made, from the last to the first: values[first, count) will not change any
 * more and may be summed from now on. All calls but the last return at once; it takes the rest as it is. One at a time. */
void px_sum_f32_tree_begin(float *values, size_t count);
void px_sum_f32_tree_ready(size_t first);
void px_sum_f32_tree_end(void);
px_status px_sum_f32_tree_open(void); /* local: its receive buffer, before the first sum; kept for the process */
size_t px_sum_f32_tree_bytes(void);   /* local: what px_sum_f32_tree_open will allocate */
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

/* ---- the ranks of a node look after each other (local) --------------------------------------------------------------- */
void px_role_set(const char *role, int core);        /* of this rank; the job needs its first `core` ranks, not the others */
void px_event_note(const char *text);                /* the last thing that happened to this rank */
/* Looks whether the other ranks of this node live, one of them reports a death; and whether one of them was asked to stop.
 * From any thread, several times a second. */
void px_neighbours_check(void);
bool px_rank_died(int rank);                         /* of the job; known on its own node, and everywhere with ULFM */
void px_rank_describe(int rank, px_buf *text);       /* role, phase, since when: as far as it is known here */

/* ---- memory that the ranks of a node share ----------------------------------------------------------------------------- */
typedef struct px_shared {
    void *data; /* zero at first; pages are taken when they are touched */
    size_t bytes;
    int fd;
} px_shared;
/* Those of the group that are on one node share it; the status is this rank's own. */
px_status px_shared_open(px_shared *shared, size_t bytes);
px_status px_shared_reserve(const px_shared *shared); /* local: takes all pages now, so that none is missing later */
void px_shared_close(px_shared *shared);              /* local */

/* ---- messages: between two ranks of the job, never collective, never blocking (local) --------------------------------- */
typedef struct px_post px_post;
/* Messages to and from ranks[count] of the job, of at most `largest` bytes; up to `outbox` to each may be under way. */
px_status px_post_open(px_post **post, const int *ranks, int count, size_t largest, int outbox);
size_t px_post_bytes(int count, size_t largest, int outbox); /* what it will allocate */
/* head and body as one message, copied; false: as many as may be are still under way to that peer (an index of ranks). */
bool px_post_send(px_post *post, int peer, const void *head, size_t head_bytes, const void *body, size_t body_bytes);
/* A message that has come, *peer says from whom; NULL: none. Valid until the next call. */
const void *px_post_take(px_post *post, int *peer, size_t *bytes);
/* Buffers that a silent rank may still write to or read from stay. NULL is fine. */
void px_post_close(px_post *post);

#endif
