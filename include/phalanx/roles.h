/* roles: a run from its configuration to its files. Prepares what must exist before MPI starts, then runs the stages in
 * order: models and data in, iterations, metrics, samples, checkpoints and results out. */
#ifndef PHALANX_ROLES_H
#define PHALANX_ROLES_H

#include "phalanx/base.h"
#include "phalanx/config.h"

typedef struct px_run_options {
    const char *config_path;
    const char *const *sets;
    int set_count;
    const char *run_dir;  /* NULL: run.dir */
    const char *stage;    /* NULL: all */
    const char *from;     /* checkpoint to branch from; NULL: none */
    bool fresh;           /* start over; the old directory is kept beside it */
    bool json;            /* the end table as one JSON object on stdout */
    const char *command;  /* the command line, for status.json */
    const char *commit;   /* of the program */
} px_run_options;

typedef struct px_run px_run;
/* Local, before MPI starts: loads the configuration and starts the programs of exec rewards. */
px_status px_run_prepare(px_run **run, const px_run_options *options);
/* Collective. PX_STOPPED: a checkpoint is there and the same command continues. */
px_status px_run_execute(px_run *run);
void px_run_destroy(px_run *run);

/* docs/metrics.md: every metric with units and meaning, from the tables that name the columns. */
px_status px_metrics_markdown(px_buf *text);

/* The build and the machine, for the run file and `phalanx version`. Borrowed values; returns the count. */
struct px_attribute;
int px_build_describe(struct px_attribute *attributes, int capacity, const char *commit);

#endif
