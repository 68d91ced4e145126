/* Whole files written anew: under a temporary name, made durable, renamed. */
#ifndef PX_STORE_REWRITE_H
#define PX_STORE_REWRITE_H

#include "frame.h"

/* `temporary` becomes `path`: fsync of the file before, of the directory after. */
px_status px_publish(const char *temporary, const char *path);
px_status px_sync_path(const char *path); /* fsync of one file */
px_status px_run_file_rewrite(const char *path, const char *out); /* as px_run_file_snapshot, also by the writer itself */

#endif
