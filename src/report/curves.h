/* The numbers of a report: runs, their groups, and each metric's curve by group. */
#ifndef PX_REPORT_CURVES_H
#define PX_REPORT_CURVES_H

#include "phalanx/report.h"
#include "runs.h"

#include <jansson.h>

typedef struct px_curves {
    px_run *runs;
    int run_count;
    px_frame *metrics, *evaluation; /* [run_count] */
    json_t **config, **root;        /* [run_count] attributes */
    json_t *differing;              /* array of the keys that are not the same in all runs */
    int *group;                     /* [run_count] */
    json_t *groups;                 /* array of labels */
    json_t *names;                  /* array of metric names with values; "evaluation/..." for those of /evaluation */
} px_curves;

typedef struct px_point {
    double iteration, mean, deviation; /* deviation: of the sample, 0 for one run */
    int runs;
} px_point;

px_status px_curves_read(px_curves *curves, const px_report_options *options);
void px_curves_free(px_curves *curves);
/* One metric of one group by iteration. Free *points with px_free. */
px_status px_curves_points(const px_curves *curves, const char *name, int group, px_point **points, int64_t *count);
/* The last measured value of each run of the group; runs 0: none has it. */
px_point px_curves_end(const px_curves *curves, const char *name, int group);
/* "run,group,iteration,metric,value" */
px_status px_curves_csv(const px_curves *curves, px_buf *csv);
/* The frame and column where run has the metric, else column -1. */
const px_frame *px_curves_find(const px_curves *curves, int run, const char *name, int *column);

#endif
