/* What every target shares: LLVMFuzzerTestOneInput, and the input as a file where a room reads files only. */
#ifndef PX_TESTS_FUZZ_H
#define PX_TESTS_FUZZ_H

#include "phalanx/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A directory of this process, made once; the tests' temporary directory or memory. */
static inline const char *fuzz_dir(void)
{
    static char dir[64];
    if (dir[0] == '\0') {
        snprintf(dir, sizeof dir, "%s/phalanx-fuzz-%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
        PX_CHECK(px_dir_create(dir) == PX_OK);
    }
    return dir;
}

static inline const char *fuzz_file(const char *name, const uint8_t *data, size_t size)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    PX_CHECK(file >= 0 && write(file, data, size) == (ssize_t)size && close(file) == 0);
    return path;
}

#endif
