/* Whole files written anew: under a temporary name, made durable, renamed. */
#ifndef PX_STORE_REWRITE_H
#define PX_STORE_REWRITE_H

#include "frame.h"

/* Those of a run file, in the order in which they are made. */
enum { PX_METRICS, PX_EVALUATION, PX_EVENTS, PX_SEGMENTS, PX_RANKS, PX_TOKENIZER, PX_DATA_FILES, PX_DATA_LENGTHS, PX_RUN_TABLES };
extern const char *const px_run_tables[PX_RUN_TABLES];

/* `temporary` becomes `path`: fsync of the file before, of the directory after. */
px_status px_publish(const char *temporary, const char *path);
px_status px_sync_path(const char *path); /* fsync of one file */
px_status px_run_file_rewrite(const char *path, const char *out); /* as px_run_file_snapshot, also by the writer itself */

#endif
