/* Inside dist: what the ranks of a node know of each other. */
#ifndef PHALANX_DIST_BOARD_H
#define PHALANX_DIST_BOARD_H

#include "phalanx/base.h"

/* Collective over the job. */
px_status px_board_open(void);
/* This rank ends in good order: what becomes of its process is no news any more. */
void px_board_leave(void);
/* A line for each rank of this node: role, phase, for how long, last event. */
void px_board_describe(px_buf *text);
/* A rank of this node that the others need is gone (as px_neighbours_check has found). */
bool px_board_core_died(void);

/* usage.c: the time since the turn before belongs to the phase named then. */
void px_usage_turn(const char *phase);

/* watchdog.c: between begin and end this process may wait in MPI for so many seconds (0: for ever), then it leaves. */
void px_watchdog_begin(const char *what, double seconds);
void px_watchdog_end(void);

/* timeline.c: a phase begins (NULL: none does), the one before ends. */
void px_timeline_turn(const char *phase, int64_t iteration);

#endif
