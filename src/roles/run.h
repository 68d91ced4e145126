/* Inside roles: a run and the stage in hand. */
#ifndef PHALANX_ROLES_RUN_H
#define PHALANX_ROLES_RUN_H

#include "phalanx/dist.h"
#include "phalanx/rlhf.h"
#include "phalanx/roles.h"
#include "phalanx/store.h"

enum { PX_MAX_STAGES = 16, PX_MAX_REWARDS = 16, PX_EXTRA_METRICS = 16 + 2 * PX_MAX_REWARDS, PX_MAX_COLUMNS = 128 };

typedef struct px_stage_rewards { /* reward programs of a stage, started before MPI */
    px_rewards *train, *evaluation; /* evaluation may be the same */
} px_stage_rewards;

typedef struct px_stage_summary { /* for the end table */
    const px_algorithm *algorithm;
    char name[64], *dir; /* dir: its own, NULL without memory for it */
    double seconds;
    int64_t iterations;
    int metric_count;
    px_column *columns;   /* names of values */
    double *values;       /* last metrics */
    int evaluation_count;
    px_column *evaluation_columns;
    double *before, *after; /* evaluation at iteration 0 and last, NaN where absent */
} px_stage_summary;

typedef struct px_rank_facts { /* startup.c: what a rank finds where it runs */
    uint64_t cpus[PX_MOST_CPUS / 64]; /* its affinity mask */
    int offered;                      /* processors that its launcher could have given it */
    int level;                        /* px_compute_level of its own processor */
    char host[64], processor[64];
} px_rank_facts;

struct px_run {
    px_run_options options;
    px_config *config;
    px_stage_rewards rewards[PX_MAX_STAGES];
    px_stage_summary summaries[PX_MAX_STAGES];
    int summary_count;
    char dir[PX_PATH_MAX];
    px_lock *lock;          /* rank 0 */
    double started, time_limit; /* seconds; limit 0: none */
    px_rank_facts *facts;       /* [ranks of the job] */
    bool noted;             /* what startup.c has to say was said, by an earlier stage */
    bool planning;          /* nothing will run: results of earlier stages need not be there */
};

enum { PX_PLAN_ROWS = 16 };
typedef struct px_plan { /* bytes that a rank takes, by role */
    struct {
        char role[16], parts[160];
        size_t bytes;
    } rows[PX_PLAN_ROWS];
    int count;
    size_t total;
    size_t frozen; /* weights that nobody changes, once a node */
} px_plan;

typedef struct px_weights { /* weights.c: the policy's weights in memory that a node's ranks share */
    px_shared shared;
    size_t block;  /* bytes of a version */
    int buffers;   /* version s lies in buffer s % buffers */
} px_weights;

typedef struct px_rank_info { /* for the rank map */
    int cpus, pid;
    char host[64];
} px_rank_info;

typedef struct px_sample_rows { /* of a sample file's tables, whose last are those of `iteration` */
    int64_t file;               /* iteration that it begins with, 0: not known */
    int64_t iteration, prompts, tokens, updates, order;
} px_sample_rows;

enum { PX_FROZEN = 2 }; /* models of a stage that nobody changes: reference, reward model */

/* Everything of one stage while it runs. */
typedef struct px_session {
    px_run *run;
    const px_stage *stage;
    int number;                 /* of the stage in the run */
    px_placement placement;
    px_rank_info *ranks;        /* [ranks of the job] */
    int cores;                  /* that the job holds */
    px_stage_rewards *rewards;
    const px_algorithm *algorithm;
    char dir[PX_PATH_MAX];
    int64_t reached;            /* iteration of the last status; -1: there was none */
    int threads;
    px_dtype learner_precision, sampler_precision; /* in use: PX_F32 where bf16 is wanted and cannot be had */
    const char *no_bf16;        /* why; NULL: it is in use as wanted */
    int64_t total;              /* iterations or steps */
    bool end_moved;             /* rank 0: stop.* has another total than at the last start */
    /* inputs */
    char tokenizer_dir[PX_PATH_MAX]; /* "": none */
    px_tokenizer *tokenizer;
    const px_renderer *renderer; /* of conversations; NULL: none */
    px_dataset *train, *validation, *demonstrations;
    uint64_t data_hash;
    px_data_entry *data;        /* [data_count] files of the data sets, for the run file */
    int data_count;
    px_lm_config lm;            /* what the trainer is made from: one of lm; rm; ppo and parts */
    px_rm_config rm;
    px_ppo_config ppo;
    px_ppo_parts parts;
    px_model model;             /* of lm and rm */
    const char *critic_module;  /* whose weights the critic starts from */
    uint64_t frozen_hash[PX_FROZEN]; /* of the reference's and the reward model's weights, 0: none or new ones; rank 0 */
    px_map_bytes reference_weights, reward_weights; /* frozen */
    px_shared frozen;           /* what of them does not lie in files as it is used; while they are loaded, where ranks share it */
    px_plan plan, scorer_plan, runner_plan; /* of a rank that learns; in split stages, of one that scores, one that samples */
    char **stop_strings;        /* [stop_string_count] that are looked for in text */
    int stop_string_count;
    px_trainer trainer;
    px_weights weights;         /* split stages: these three */
    px_collect collect;
    struct px_collector *collector; /* rank 0 */
    /* outputs, rank 0 */
    px_run_file *file;
    px_column *columns, *evaluation_columns; /* algorithm's and ours */
    int column_count, evaluation_count;
    double *row, *evaluation_row, *first_evaluation;
    double stage_seconds;       /* in earlier segments too */
    double mark;                /* px_now() when the newest row of metrics was written */
    double writing, evaluating, saving; /* seconds since then */
    double evaluation_flops;    /* of this rank since then */
    double *phases;             /* [column_count] in this segment: seconds of timers/, 1e9 operations of _gflop_per_s */
    double roof;                /* GFLOP/s of products, all ranks at once */
    const char *roof_of;        /* what it was measured of */
    int64_t start;              /* iteration that this segment continues from */
    bool branches;              /* begins from the checkpoint of --from; rank 0 */
    bool over;                  /* an earlier start finished the stage, and its checkpoints were removed since */
    int64_t saved;              /* iteration of the newest checkpoint, -1: none */
    int64_t evaluated;          /* iteration of the last evaluation in the run file, -1: none */
    int recovery_slot;
    int writers, writer;        /* ranks that write a checkpoint, 0: not known yet; this rank's number among them, -1: none */
    px_sample_rows samples_end; /* of the file that this start has written last */
    int64_t unwritten;          /* iteration whose samples are not in their file yet, 0: none */
    char isa_before[24];        /* that the checkpoint was computed with, "": none or unknown */
    double best;                /* of the metric that checkpointing.keep_best names, NaN: none yet */
    int64_t best_iteration;     /* its checkpoint's, -1: none */
    px_buf skipped, changed;    /* checkpoints that the start passed over; settings that are not as before; one a line */
} px_session;

/* run.c: fills run->dir. Local. */
/* startup.c: what the ranks find where they run. They agree on one instruction set. Collective over the job. */
px_status px_startup_agree(px_run *run);
/* Cores that the job holds, used or not: Slurm's allocation, else the processors that ranks may use. */
int px_startup_cores(const px_run *run);
/* Threads of this rank: run.threads_per_rank, or its share of the processors that it may use. */
int px_startup_threads(const px_session *session);
/* One line for each thing that costs speed or safety, with the remedy. After px_session_ranks. */
void px_startup_notes(const px_session *session);
/* placement.c: whether two ranks of a node compute at the same time: roles take turns, unless they sample ahead. */
bool px_placement_together(const px_placement *placement, bool ahead, int one, int other);
/* Does a rank have the frozen models? The first that does, of the ranks on the node of `rank`, which does. */
bool px_placement_scores(const px_placement *placement, int rank);
int px_placement_first_to_score(const px_placement *placement, int rank);
px_status px_run_locate(px_run *run);

/* models.c: what rl_module names. head: what the caller needs. */
px_status px_module_load(const px_session *session, const char *module, px_head head, px_model *model, bool *had_score);
/* The same for a frozen module: its weights stay in the file where they can, the rest is in the node's memory from `offset`, or,
 * where no ranks of a node share it, this rank's own. And what that will take. */
px_status px_module_map(const px_session *session, const char *module, px_head head, size_t offset, px_model *model,
                        bool *had_score);
px_status px_module_map_plan(const px_session *session, const char *module, const px_model *model, px_map_bytes *bytes);
/* Its table without weights, from the same place. */
px_status px_module_plan(const px_session *session, const char *module, px_head head, px_model *model);
/* The directory that a module's weights come from ("" for new ones). */
px_status px_module_dir(const px_session *session, const char *module, char *out, size_t size);
px_status px_stage_dir(const px_run *run, const px_stage *stage, char *out, size_t size);
px_status px_session_tokenizer(px_session *session);
const char *px_reference_module(const px_session *session);
/* What the stage's frozen models are, into frozen_hash: a run that goes on must go on with the same. Of one rank, which reads
 * them all. Between px_session_prepare and px_session_build. */
px_status px_session_frozen(px_session *session);
/* A later stage that has begun from the result of this one; NULL: none. */
const char *px_stage_begun_from(const px_session *session);

/* data.c */
px_status px_session_data(px_session *session, const px_model_config *model);
/* How a model's tokenizer, of files in dir, makes ids of texts; the rest of the options stays for the caller. */
px_status px_text_options(px_data_options *options, px_tokenizer *tokenizer, const char *dir, const px_model_config *model);

/* settings.c: the resolved stage as the structs of rlhf. */
px_status px_settings_rewards(const px_stage *stage, const char *list, px_rewards **rewards);
px_learner_config px_settings_learner(const px_session *session, int64_t schedule_steps, double lr);
/* The token with which answers of conversations in the stage's data end, -1: there are none, or the template has no such token. */
px_status px_settings_end_of_turn(const px_session *session, int32_t *id);
px_status px_settings_ppo(px_session *session, px_ppo_config *config, const px_model_config *policy);

/* build.c: trainer of the stage, from scratch or from the checkpoint `from` ("" for scratch). Everything small first: data,
 * tables of the models, sizes of all buffers; then, between opening and closing what a node's ranks share of frozen weights
 * (collective), the weights and the rest of the plan. The others are local. */
px_status px_session_prepare(px_session *session, const char *from);
px_status px_session_open_frozen(px_session *session);
/* Bytes of frozen weights that do not lie in files as they are used; shared: in memory of the node, else in that of each rank
 * that scores. */
size_t px_session_converted(const px_session *session, bool *shared);
px_status px_session_build(px_session *session, const char *from);

/* checkpoint.c: a checkpoint's parts and the samples not written yet, which must be there before it, are written at the same
 * time by those ranks of the driver's node that learn; rank 0 gives it its name. */
px_status px_session_save(px_session *session, int64_t iteration, const char *name);
/* The samples not written yet alone. */
px_status px_session_save_samples(px_session *session);
px_status px_session_restore(px_session *session, const char *from, int64_t iteration);
px_status px_session_results(px_session *session);
px_status px_session_save_due(px_session *session, int64_t iteration, bool last);

/* resume.c: what an earlier start has left. *from is the checkpoint to continue from ("" for none); of rank 0. */
px_status px_session_find(px_session *session, char *from, size_t size);
/* config.yaml of an earlier start must agree in what may not change; then it becomes this start's. Of rank 0. */
px_status px_session_settle(px_session *session, bool resume);
/* The last rows of the run file, as rank 0 has read them, for all. Collective. */
px_status px_session_recall(px_session *session);
/* An event for each line of skipped and changed; config.yaml is this start's from here on. The status is this rank's own. */
px_status px_session_record_start(px_session *session);
void px_session_note_schedule(const px_session *session); /* another end of it, where that moves the learning rate */

/* record.c: the run file. Rank 0 writes, all agree. */
/* The algorithm's, ours, and two for each reward source. PX_CONFIG for a key that names another one. */
px_status px_session_columns(px_session *session);
int px_column_find(const px_column *columns, int count, const char *name); /* -1: none */
/* The last value of a metric: of a column of /metrics, or "evaluation/" and one of /evaluation. NULL: there is no such column. */
const double *px_session_metric(const px_session *session, const char *metric);
px_status px_session_open_file(px_session *session, bool resume);
/* samples.c: what an abandoned course of the run has left beyond session->start, files and rows, goes. Rank 0. */
px_status px_session_settle_samples(px_session *session);
size_t px_session_samples_bytes(const px_session *session); /* what writing them takes, of rank 0 */
px_status px_session_record(px_session *session, int64_t iteration);
px_status px_session_record_evaluation(px_session *session, int64_t iteration);
/* samples.c: whether the samples of an iteration are kept; writes those of `unwritten`. Local, the second of rank 0. */
bool px_session_samples_due(const px_session *session, int64_t iteration);
px_status px_session_write_samples(px_session *session);
px_status px_session_close_file(px_session *session, int64_t iteration, int exit_code, const char *reason, bool finished);
/* Prompts with completions before and after, kept beside the run file. */
px_status px_session_write_examples(px_session *session, bool before);

/* monitor.c: watches the STOP file and the time limit while long phases run. */
px_status px_monitor_start(const char *run_dir, const char *stage_dir, double deadline);
void px_monitor_stop(void);

/* plan.c, table.c: what a person reads. */
void px_plan_print(const px_session *session);
void px_plan_schedule(const px_session *session, char *text, size_t size);
void px_plan_shares(const px_session *session, char *text, size_t size); /* what a rank does of it */
/* Fills session->plan; local. */
void px_plan_fill(px_session *session);
/* Plans again without packed matrices: slower, the same bits. fit: where the node's `have` bytes do not do with them. */
void px_plan_unpack(px_session *session);
void px_plan_fit(px_session *session, size_t have);
/* PX_CONFIG when the ranks of this node want more than the `have` bytes it has. Local; no rank may have begun to allocate. */
px_status px_plan_check(const px_session *session, size_t have);
/* That refusal: `plan` is of the ranks that take most of a node. */
px_status px_plan_refuse(const px_session *session, const px_plan *plan, const char *node, int ranks, size_t want, size_t have);
size_t px_plan_shared(const px_session *session); /* split: what a node's ranks share, once a node */
void px_progress_line(const px_session *session, int64_t iteration);
/* The timers/ column that tells the seconds of a timers/ or _gflop_per_s column; -1: it is neither. */
int px_timer_of(const px_session *session, int column);
/* roof.c: measures it on all core ranks at once, while the others wait. Collective over the job. */
void px_session_roof(px_session *session);
void px_phases_print(const px_session *session); /* share of wall time and busy cores per phase; collective */
px_status px_table_print(px_run *run);

/* placement.c: the map of ranks. Collective over the job. */
px_status px_session_ranks(px_session *session);

/* build.c: the sampler of a rank that samples for others. */
px_sampler_plan px_session_sampler(const px_session *session);

/* build_info.c */
const char *px_processor_name(void);

/* driver.c */
px_status px_session_run(px_session *session);
/* Refuses what this build cannot run. Local. */
px_status px_session_check(px_session *session);
void px_session_precision(px_session *session); /* of learner and sampler, as configured and as can be had */
void px_session_free(px_session *session);

#endif
