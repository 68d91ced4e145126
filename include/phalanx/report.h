/* report: looking into runs, living, killed or finished. Reads run directories through store, prints tables, CSV and
 * JSON to the stream it is given, and makes one HTML page of several runs. Local to one process. */
#ifndef PHALANX_REPORT_H
#define PHALANX_REPORT_H

#include "phalanx/base.h"

#include <stdio.h>

/* A path is a run directory, a directory of stages or runs (each entry with a run.h5 counts), or a run file itself. */

typedef enum px_view {
    PX_VIEW_CONFIG,
    PX_VIEW_METRICS,
    PX_VIEW_SAMPLES,
    PX_VIEW_EVENTS,
    PX_VIEW_RANKS,
    PX_VIEW_HEALTH,
    PX_VIEW_TIMELINE, /* px_timeline_print: not of the run file */
    PX_VIEW_EVALUATION
} px_view;
typedef enum px_form { PX_FORM_TABLE, PX_FORM_CSV, PX_FORM_JSON } px_form;
px_status px_view_parse(const char *name, px_view *view); /* PX_USAGE lists the valid names */

typedef struct px_inspect_options {
    const char *const *paths;
    int path_count;
    px_view view;
    px_form form; /* CSV: all rows, with a column `run`; JSON: an array of objects, each with a key `run` */
    FILE *out;
} px_inspect_options;
/* Table form: metrics are summed up (last, mean, least, most), of the samples the last iteration's are shown. */
px_status px_inspect(const px_inspect_options *options);

/* The phases of all ranks of a stage, as a Chrome trace. */
px_status px_timeline_print(const char *dir, FILE *out);

typedef struct px_watch_options {
    const char *path;
    const char *metrics; /* "a,b"; NULL: the usual ones */
    bool once;           /* what is there now, without waiting for more */
    bool json;           /* an object a line; without metrics, all of them */
    double interval_s;   /* 0: 1 s */
    FILE *out;
} px_watch_options;
/* Prints a line an iteration until the run ends or somebody asks to stop. */
px_status px_watch(const px_watch_options *options);

typedef struct px_report_options {
    const char *const *paths;
    int path_count;
    const char *out;      /* F.html; the data of its plots go to F.csv */
    const char *group_by; /* a configuration key: one curve a value, mean and spread of its runs. run.seed: runs that
                             differ in the seed alone are one group. NULL: every run by itself */
    bool methods;         /* adds a paragraph and a table for a paper */
    FILE *json;           /* names what was written, as one object; NULL: nothing is said */
} px_report_options;
/* Plots need gnuplot on PATH; without it the page says so and has the tables. */
px_status px_report(const px_report_options *options);

#endif
