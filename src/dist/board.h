/* Inside dist: what the ranks of a node know of each other. */
#ifndef PHALANX_DIST_BOARD_H
#define PHALANX_DIST_BOARD_H

#include "phalanx/base.h"

/* Collective over the job. */
px_status px_board_open(void);
/* This rank ends in good order: what becomes of its process is no news any more. */
void px_board_leave(void);
/* This rank ends the job; true: none of the node has before it, so it says why. */
bool px_board_end(void);
/* A line for each rank of this node: role, phase, for how long, last event. */
void px_board_describe(px_buf *text);
/* A rank of this node that the others need is gone (as px_neighbours_check has found). */
bool px_board_core_died(void);
int px_core_size(void); /* as px_role_set was told */

/* What a rank says of itself. */
typedef struct px_report {
    int rank, pid;
    bool expendable, gave_up; /* gave_up: waits for others in vain */
    char role[24], phase[32], event[128], host[64];
    int64_t iteration;
} px_report;
void px_report_describe(const px_report *report, double age, px_buf *text);
/* This rank ends the job soon, which rank 0 should do instead: it may know more. */
void px_board_give_up(void);

/* reports.c: between nodes. Open and close are collective over the job; the status is this rank's own. */
px_status px_reports_open(void);
void px_reports_close(void); /* no report is under way any more */
void px_reports_send(const px_report *report);
void px_reports_take(void);
bool px_reports_gave_up(void);   /* a rank has said so */
double px_reports_grace(void);   /* seconds by which those who know less wait longer */
/* What the rank last said; false: nothing has been heard here. */
bool px_reports_describe(int rank, px_buf *text);

/* usage.c: the time since the turn before belongs to the phase named then. */
void px_usage_turn(const char *phase);

/* watchdog.c: between begin and end this process may wait in MPI for so many seconds (0: for ever), then it leaves. */
void px_watchdog_begin(const char *what, double seconds);
void px_watchdog_end(void);

/* timeline.c: a phase begins (NULL: none does), the one before ends. */
void px_timeline_turn(const char *phase, int64_t iteration);

#endif
