/* What `plan` and `submit` share: the plan itself, and the batch script that runs it. */
#ifndef PHALANX_CLI_BATCH_H
#define PHALANX_CLI_BATCH_H

#include "cli.h"
#include "phalanx/config.h"
#include "phalanx/roles.h"

#include <stdio.h>

enum { PX_PLAN_OPTIONS = 9, PX_MAX_CELLS = 1000 };
typedef struct px_planned {
    px_words words, sets, het_groups;
    const char *run_dir, *stage, *time, *site_path;
    int64_t nodes, ntasks_per_node, cpus_per_task; /* 0: as site.yaml says, else one node, one task, all cores */
    /* filled by px_planned_make */
    px_site site;
    px_run *run;
    px_layout layout;
    px_outlook *stages;
    int stage_count;
    double seconds, disk_bytes, disk_files, node_bytes; /* sums; memory of the fullest node */
    char limit[32];                                       /* time limit of a job */
} px_planned;
/* The options that both have, into options[PX_PLAN_OPTIONS]. */
void px_planned_options(px_planned *plan, px_option *options);
/* command: for messages. PX_CONFIG with the line of the file for what cannot run. */
px_status px_planned_make(px_planned *plan, const char *command);
void px_planned_free(px_planned *plan);
px_status px_planned_print(const px_planned *plan, FILE *out);
double px_planned_core_hours(const px_planned *plan); /* of all cores of the layout, as the metric core_hours */

typedef enum px_on_stop { PX_STOP_EXIT, PX_STOP_REQUEUE, PX_STOP_SUCCEED } px_on_stop; /* of `phalanx supervise` */
/* arrays: "run.seed=1:5", "training.lr=1e-6,3e-6"; their product is an array job, each cell with a run directory of its own. */
px_status px_batch_script(const px_planned *plan, const px_words *arrays, px_on_stop on_stop, px_buf *script);

#endif
