/* store: what a run leaves on disk. The run file (HDF5, live-readable through SWMR), sample files, checkpoints with a
 * manifest, status.json, and the lock of a run directory. The only room that calls H5. It sees named arrays and columns,
 * never models. Local, nothing here is collective: one rank (the driver) calls it, others only write files between its
 * px_checkpoint_begin and px_checkpoint_commit. */
#ifndef PHALANX_STORE_H
#define PHALANX_STORE_H

#include "phalanx/base.h"

const char *px_store_version(void); /* "HDF5 1.10.8" */

typedef struct px_lock px_lock; /* of a run directory, below */

/* ---- tables --------------------------------------------------------------------------------------------------------
 * A table is a group of equally long 1-D columns. The first column is int64 (fill -1), a dimension scale, written last and
 * attached to every other column. Names with '/' are nested groups; no name may be a path prefix of another. */
typedef enum px_column_type { PX_COL_I32, PX_COL_I64, PX_COL_F32, PX_COL_F64, PX_COL_I8, PX_COL_TEXT } px_column_type;
typedef struct px_column {
    const char *name, *units, *long_name;
    px_column_type type;
    int width;  /* PX_COL_TEXT: bytes, NUL included */
    bool whole; /* PX_COL_TEXT: a text may fill its place in the file, which has no room for the NUL */
} px_column;

/* ---- run file ------------------------------------------------------------------------------------------------------- */
typedef struct px_run_file px_run_file;
typedef struct px_attribute { /* one typed attribute of /config, /build or the root */
    const char *name;
    char type; /* 'i' int64, 'f' double, 'b' bool (uint8), 's' text (NULL: "") */
    int64_t i;
    double f;
    const char *s;
} px_attribute;
typedef struct px_data_entry { /* a file of a data set, as the stage reads it */
    const char *set, *file, *shape; /* "train"; path; the record shape that was detected */
    double weight, mean_length;
    int64_t records, rows, cut, dropped_long, dropped_equal, dropped_empty, duplicate_prompts, tokens;
    int64_t min_length, max_length;
    const int64_t *histogram; /* [PX_DATA_BINS] rows of length in [2^i, 2^(i+1)); the last: and longer */
} px_data_entry;
enum { PX_DATA_BINS = 24 };
typedef struct px_run_header {
    const char *run_name, *algorithm;
    const px_attribute *config;
    int config_count;
    const char *config_hash, *yaml, *source; /* resolved and as written */
    const px_attribute *build;
    int build_count;
    const px_column *metrics;    /* without iteration, timestamp, segment, which are added in front */
    int metric_count;
    const px_column *evaluation; /* without iteration */
    int evaluation_count;
    const char *const *tokens;   /* [token_count], NULL: none */
    int token_count;
    int32_t bos_id, eos_id;
    const px_data_entry *data;   /* [data_count] */
    int data_count;
} px_run_header;
typedef struct px_segment {
    int64_t first_iteration;
    int num_ranks;
    const char *job_id, *commit;
} px_segment;
typedef struct px_rank_entry {
    int rank, cpus, pid;
    const char *host, *role;
} px_rank_entry;
/* New file, or (resume) the existing one: flags cleared after a kill, rows past last_iteration dropped from /metrics,
 * /evaluation and events of later iterations. Starts SWMR. A new segment is opened. */
px_status px_run_file_open(px_run_file **file, const char *path, const px_run_header *header, bool resume,
                           int64_t last_iteration, const px_segment *segment, const px_rank_entry *ranks, int rank_count);
/* values[metric_count] in header order, NaN = not measured. Data first, the iteration column last, one flush. */
px_status px_run_file_metrics(px_run_file *file, int64_t iteration, const double *values);
px_status px_run_file_evaluation(px_run_file *file, int64_t iteration, const double *values);
px_status px_run_file_event(px_run_file *file, int64_t iteration, int rank, const char *kind, const char *text);
/* Ends the segment. finished: also compacts (plain HDF5 that every reader opens, compressed). */
px_status px_run_file_close(px_run_file *file, int64_t last_iteration, int exit_code, const char *reason, bool finished);
int px_run_file_segment(const px_run_file *file);

/* ---- sample files ------------------------------------------------------------------------------------------------------
 * One file of several tables: columns are appended to memory and the whole file is rewritten under a temporary name and
 * renamed, so that it is always readable. */
typedef struct px_table_data {
    const char *name;            /* "/tokens" */
    const px_column *columns;    /* the first is the int64 index */
    int column_count;
    int64_t rows;
    const void *const *values;   /* [column_count], each [rows] of the column's type (text: rows * width bytes) */
} px_table_data;
/* Appends the rows to the tables of `path` (created if absent) by writing a new file and renaming it. Rows whose
 * `iteration` is above keep_iteration are dropped from the old content first (what a killed run left).
 * A column named "finish" gets @flag_values 0,1 and @flag_meanings "stop length". A lock that another run has taken over
 * keeps the new file from its name (NULL: none). */
px_status px_samples_append(const char *path, const px_table_data *tables, int table_count, int64_t keep_iteration,
                            const px_lock *lock);
/* Rows of a table that the next append with this keep_iteration would keep: where its own rows will start. 0: no file. */
px_status px_samples_rows(const char *path, const char *table, int64_t keep_iteration, int64_t *rows);

/* A file of this room that cannot be read, as the recorded error says, stays as PATH.damaged. `what` gets the error and
 * that name, and the record is cleared; where it cannot be renamed the error stays. */
px_status px_set_aside(const char *path, px_buf *what);

/* ---- reading (inspect, report, tests) ---------------------------------------------------------------------------------- */
typedef struct px_frame { /* one table in memory */
    int column_count;
    int64_t rows;
    px_column *columns;
    void **values;
} px_frame;
/* Opens living, killed and finished files alike. group: "/metrics". px_frame_free. */
px_status px_frame_read(const char *path, const char *group, px_frame *frame);
void px_frame_free(px_frame *frame);
int px_frame_column(const px_frame *frame, const char *name); /* -1: none */
double px_frame_number(const px_frame *frame, int column, int64_t row);
const char *px_frame_text(const px_frame *frame, int column, int64_t row);
/* Attributes of a group as a JSON object (typed), scalar string data sets included. */
struct json_t;
px_status px_attributes_read(const char *path, const char *group, struct json_t **object);
px_status px_run_file_snapshot(const char *path, const char *out); /* a copy that every HDF5 reader opens; onto itself: repair */
px_status px_run_file_repair(const char *path);                    /* refuses while a writer lives */

/* ---- checkpoints --------------------------------------------------------------------------------------------------------
 * A directory NAME built under a temporary name, fsynced, given a MANIFEST.json (sizes, xxh3 of each file), renamed. The fence
 * is the writer's segment in the run file beside the checkpoints: what a writer publishes after a later segment has begun
 * from an earlier iteration is not this run's any more, and the search for the newest passes over it. */
typedef struct px_checkpoint_writer {
    char final_path[PX_PATH_MAX], path[PX_PATH_MAX]; /* path: where files go until commit */
} px_checkpoint_writer;
px_status px_checkpoint_begin(px_checkpoint_writer *writer, const char *dir, const char *name);
/* state.h5: arrays (1-D or 2-D data sets) and scalar attributes. */
px_status px_checkpoint_state(const px_checkpoint_writer *writer, const px_array *arrays, int array_count,
                              const px_attribute *attributes, int attribute_count);
/* Hashes, fsyncs, renames over an older one of the same name (which is removed only after), unless another run has taken
 * the lock over by then (NULL: none). */
px_status px_checkpoint_commit(px_checkpoint_writer *writer, int64_t iteration, int64_t fence, const px_lock *lock);
/* Checks every size and hash before anything is opened. PX_DATA names the file that does not match. */
px_status px_checkpoint_verify(const char *dir, int64_t *iteration);
/* Fills arrays by name (counts must match) and attributes (by name and type; text is px_strdup'ed, caller frees). */
px_status px_checkpoint_load_state(const char *dir, const px_array *arrays, int array_count, px_attribute *attributes,
                                   int attribute_count);
/* The newest valid checkpoint among checkpoint_NNNNNN, recovery_a and recovery_b under dir. *found false: none. Those that
 * were skipped are listed in `skipped`, one a line (may be NULL): *damaged of them, the others were published late. */
px_status px_checkpoint_latest(const char *dir, char *out, size_t size, int64_t *iteration, bool *found, int *damaged,
                               px_buf *skipped);
px_status px_checkpoint_mark_latest(const char *dir, const char *name); /* text file `latest` */
/* Removes the numbered checkpoints under dir that come before the `keep` newest; those for which spared() is true stay. */
px_status px_checkpoint_prune(const char *dir, int64_t keep, bool (*spared)(void *arg, int64_t iteration), void *arg);

/* ---- run directory ------------------------------------------------------------------------------------------------------ */
/* PX_CONFIG when a living run holds it. On this host and in this pid namespace, the pid and its start time decide at once, or
 * once a process that was killed has ended; elsewhere, whether the lock changes within 30 s of watching. A thread renews the
 * heartbeat every few seconds. */
px_status px_lock_take(px_lock **lock, const char *dir);
void px_lock_release(px_lock *lock);
px_status px_lock_move(px_lock *lock, const char *to); /* renames the directory that it holds and goes with it */
/* Before anything is published: PX_IO when another run took the directory over (the heartbeat raises the stop too). */
px_status px_lock_check(const px_lock *lock);
bool px_lock_is_ours(const px_lock *lock); /* the same, without recording an error */
/* Whether a living run seems to hold dir, without watching: of another host, by its clock and ours. `holder` then says
 * which one ("process 12 on host a, job 34"). */
bool px_lock_is_held(const char *dir, char *holder, size_t size);
/* The same for somebody who looks again and again, by his own clock alone: a holder of another host lives while its lock is seen to
 * change, once in 30 s at least. All zero before the first look; `now` in seconds never goes back. */
typedef struct px_lock_watch {
    bool looked, moved; /* moved: it has changed since the first look, at `changed` the last time */
    uint64_t content;
    double changed;
} px_lock_watch;
bool px_lock_is_alive(px_lock_watch *watch, const char *dir, double now, char *holder, size_t size);
typedef struct px_run_status {
    const char *state; /* "running", "done", "stopped", "failed" */
    const char *stage;
    int64_t iteration;
    int exit_code;
    const char *reason, *resume; /* resume: the command that continues, or "" */
} px_run_status;
px_status px_status_write(const char *dir, const px_run_status *status); /* status.json, atomically */

#endif
