/* MANIFEST.json: every file of a checkpoint with its size and xxh3, and the manifest's own hash. */
#ifndef PX_STORE_MANIFEST_H
#define PX_STORE_MANIFEST_H

#include "phalanx/store.h"

/* Hashes and fsyncs every file below dir, writes the manifest, fsyncs the directories. */
px_status px_manifest_write(const char *dir, int64_t iteration, int64_t fence);
/* Reads the manifest alone. *fence: -1 where it says none. */
px_status px_manifest_numbers(const char *dir, int64_t *iteration, int64_t *fence);
px_status px_manifest_check(const char *dir, int64_t *iteration);     /* every size and hash */

#endif
