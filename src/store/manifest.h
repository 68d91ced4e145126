/* MANIFEST.json: every file of a checkpoint with its size and xxh3, and the manifest's own hash. */
#ifndef PX_STORE_MANIFEST_H
#define PX_STORE_MANIFEST_H

#include "phalanx/store.h"

/* Hashes and fsyncs every file below dir, writes the manifest, fsyncs the directories. */
px_status px_manifest_write(const char *dir, int64_t iteration);
px_status px_manifest_iteration(const char *dir, int64_t *iteration); /* reads the manifest alone */
px_status px_manifest_check(const char *dir, int64_t *iteration);     /* every size and hash */

#endif
