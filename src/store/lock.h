#ifndef PX_STORE_LOCK_H
#define PX_STORE_LOCK_H

#include "phalanx/store.h"

/* Whether a living run holds the directory; `holder` then says which ("process 12 on host a, job 34"). */
bool px_lock_is_held(const char *dir, char *holder, size_t size);

#endif
