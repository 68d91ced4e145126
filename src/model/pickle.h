/* PyTorch's own files (torch.save) are pickles, which run code when they are read: they are known, and refused. */
#ifndef PX_MODEL_PICKLE_H
#define PX_MODEL_PICKLE_H

#include "phalanx/base.h"

/* By the first bytes: a zip archive of data.pkl (since PyTorch 1.6), or a bare pickle. */
bool px_is_pickle(const void *bytes, size_t length);
/* PX_DATA when the file is a pickle by its name or its bytes, or the directory has one; else PX_OK. */
px_status px_pickle_refuse(const char *path);
/* The refusal of a file; `dir` is what the remedy opens. */
px_status px_pickle_fail(const char *path, const char *dir);

#endif
