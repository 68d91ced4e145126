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

/* ---- placement: which rank of a job does what ---------------------------------------------------------------------------
 * Ranks take roles in this order: learners (rank 0 is the driver too), scorers, env runners, evaluators, spares. Learners
 * and scorers are the core: they may use collectives, and the death of one ends the job. The others are expendable: they only
 * sample. */
typedef enum px_role { PX_ROLE_LEARNER, PX_ROLE_SCORER, PX_ROLE_ENV_RUNNER, PX_ROLE_EVALUATOR, PX_ROLE_SPARE } px_role;
typedef struct px_placement {
    bool split; /* false: colocated, every rank does everything */
    int ranks, learners, scorers, env_runners, evaluators, spares; /* scorers 0: the learners score */
} px_placement;
static inline int px_placement_core(const px_placement *placement)
{
    return placement->learners + placement->scorers;
}
/* From the configuration, for a job of so many ranks. PX_CONFIG names the key that does not fit. Local, but where nodes say
 * who samples (placement.env_runner_nodes): then collective over the job. */
px_status px_placement_make(px_placement *placement, const px_stage *stage, int ranks);
px_role px_placement_role(const px_placement *placement, int rank); /* local */
const char *px_role_name(const px_placement *placement, int rank);  /* as in /ranks of the run file. Local */

/* ---- before a run: what it will take ------------------------------------------------------------------------------------
 * Data sets and tokenizers are read as the run will read them; no model is allocated. Stages need not have run: the model of
 * one that has not is taken to be as large as what that stage starts from. */
typedef struct px_node_group { /* equal nodes */
    int nodes, ranks_per_node, cores; /* cores of a rank */
} px_node_group;
enum { PX_MAX_NODE_GROUPS = 8 };
typedef struct px_layout { /* the nodes of a job in the order of ranks; more than one group: a heterogeneous Slurm job */
    px_node_group groups[PX_MAX_NODE_GROUPS];
    int group_count;
    size_t node_memory; /* bytes; 0: what this machine has free */
    double network;     /* bytes/s out of a node */
} px_layout;
int px_layout_nodes(const px_layout *layout);
int px_layout_ranks(const px_layout *layout);
int px_layout_cores(const px_layout *layout); /* of all ranks: what a job of this layout is billed for */
/* A node's kind and its first rank. */
const px_node_group *px_layout_node(const px_layout *layout, int node, int *first_rank);
/* px_placement_make for a job that does not run yet: a list of env_runner_nodes is as many nodes at the end. Local. */
px_status px_placement_plan(px_placement *placement, const px_stage *stage, const px_layout *layout);

enum { PX_OUTLOOK_PARTS = 16, PX_OUTLOOK_ROLES = 6 };
typedef struct px_outlook_part {
    char name[16], text[160];
    double value;
} px_outlook_part;
typedef struct px_outlook_role { /* neighbouring ranks that do the same */
    char name[16];            /* as in /ranks of the run file */
    px_role role;
    int first, count;         /* ranks */
    int threads;              /* of a rank, the fewest */
    px_outlook_part memory[PX_OUTLOOK_PARTS];
    int memory_count;
    double memory_bytes;      /* of a rank */
    double frozen_bytes;      /* weights that nobody changes, once on each node that has such ranks */
} px_outlook_role;
typedef struct px_outlook { /* of one stage */
    char stage[64];
    const char *algorithm;
    int64_t iterations;
    char schedule[256], shares[256];     /* of the stage; who does what of an iteration */
    px_outlook_role roles[PX_OUTLOOK_ROLES];
    int role_count;
    double shared_bytes;                 /* split: the policy's weights for those that sample, once a node */
    px_outlook_part time[PX_OUTLOOK_PARTS];
    int time_count;                      /* seconds of the stage by phase */
    double hidden;                       /* seconds of these that pass while others work: sampling ahead */
    double seconds;                      /* of the stage */
    double disk_bytes, disk_files;       /* at most */
    double completion_tokens;            /* ppo: assumed mean length, 0 elsewhere */
    bool completion_known;               /* from the demonstrations of an earlier stage, not the limit */
} px_outlook;
double px_outlook_node_bytes(const px_outlook *outlook, const px_layout *layout, int node);
/* outlooks[px_config_stage_count]. PX_CONFIG with the line of the file for what cannot run. Local, without MPI. */
px_status px_run_outlook(px_run *run, const px_layout *layout, px_outlook *outlooks, int *count);
/* The run's directory and the configuration as it was loaded, for a batch script. Borrowed. */
const char *px_run_directory(const px_run *run);
const px_config *px_run_config(const px_run *run);

/* docs/metrics.md: every metric with units and meaning, from the tables that name the columns. */
px_status px_metrics_markdown(px_buf *text);

/* The build and the machine, for the run file and `phalanx version`. Borrowed values; returns the count. */
struct px_attribute;
int px_build_describe(struct px_attribute *attributes, int capacity, const char *commit);

#endif
