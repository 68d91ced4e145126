#ifndef PX_REPORT_RUNS_H
#define PX_REPORT_RUNS_H

#include "phalanx/store.h"

typedef struct px_run {
    char name[PX_PATH_MAX]; /* as the user wrote it, with the stage behind it */
    char dir[PX_PATH_MAX], file[PX_PATH_MAX];
    char created[64];
} px_run;
/* Stages of one directory come in the order in which they were started. One of the paths at least holds a run. Free *runs with
 * px_free. */
px_status px_runs_find(const char *const *paths, int path_count, px_run **runs, int *count);

/* The sample files of a run, by name; each path is PX_PATH_MAX bytes. Free with px_free. */
px_status px_runs_samples(const px_run *run, char (**files)[PX_PATH_MAX], int *count);

#endif
