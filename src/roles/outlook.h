/* Inside roles: how a plan reckons time. */
#ifndef PHALANX_ROLES_OUTLOOK_H
#define PHALANX_ROLES_OUTLOOK_H

#include "run.h"

/* One thing whose speed is measured on this machine. Models are measured at one and at three layers with random weights: a
 * layer costs what the difference says, so that a plan needs little memory and time however deep the model is. */
typedef enum px_probe_kind {
    PX_PROBE_TRAIN,   /* forward and backward of a batch */
    PX_PROBE_FORWARD, /* forward of a batch and its heads */
    PX_PROBE_DECODE,  /* one token of each of `sequences` sequences, `length` tokens into them */
    PX_PROBE_PACK,    /* all matrices in the product's own layout, for forward */
    PX_PROBE_CLEAR,   /* a gradient block zeroed and another added to it */
    PX_PROBE_COPY,    /* weights copied and hashed, and hashed by who reads them */
    PX_PROBE_STEP,    /* gradient norm and AdamW */
} px_probe_kind;
typedef struct px_probe {
    px_probe_kind kind;
    px_model_config model;
    px_dtype precision;
    int sequences, length, heads; /* heads: rows of a sequence that have a loss or value */
    double seconds;               /* measured */
} px_probe;
/* Measures in processes of their own, `processes` of which do the same work at the same time, as the ranks of a node will. */
px_status px_probes_run(px_probe *probes, int count, int threads, int processes);
/* Speed of a directory, or of its nearest parent that exists. */
typedef struct px_disk_speed {
    double byte, file;           /* seconds to write, fsync and hash a byte; and a small file */
    double append, append_token; /* seconds to append to a sample file; for each token that is in it afterwards */
} px_disk_speed;
px_status px_probe_disk(const char *dir, px_disk_speed *speed);

/* The ranks of a role, all nodes together. */
typedef struct px_crew {
    int first, count;
    int threads;  /* of a rank, the fewest */
    int together; /* most ranks of a node that compute at the same time */
    int per_node; /* most ranks of the role on a node */
    int nodes;    /* that it is on */
} px_crew;
px_crew px_outlook_crew(const px_session *session, const px_layout *layout, px_role role);

/* Fills the outlook's times from measurements; its roles and the tokens of a completion are known. */
px_status px_forecast(px_session *session, const px_layout *layout, const px_disk_speed *disk, px_outlook *outlook);
void px_outlook_add(px_outlook_part *parts, int *count, const char *name, double value, const char *text);

#endif
