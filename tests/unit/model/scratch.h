/* A temporary directory that a test fills with small files. */
#ifndef TESTS_MODEL_SCRATCH_H
#define TESTS_MODEL_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "phalanx/base.h"

static char scratch_dir[64];

static inline int scratch_open(void **state)
{
    (void)state;
    snprintf(scratch_dir, sizeof scratch_dir, "/tmp/px_model_XXXXXX");
    return mkdtemp(scratch_dir) ? 0 : -1;
}

static inline int scratch_close(void **state)
{
    (void)state;
    return px_tree_remove(scratch_dir) == PX_OK ? 0 : -1;
}

static inline const char *scratch_path(const char *name)
{
    static char path[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch_dir, name);
    return path[turn];
}

static inline void scratch_write(const char *name, const void *bytes, size_t length)
{
    assert_int_equal(px_file_write(scratch_path(name), bytes, length), PX_OK);
}

static inline void scratch_text(const char *name, const char *text)
{
    scratch_write(name, text, strlen(text));
}

/* The call failed with PX_DATA and its message names every part. */
static inline void assert_refused(px_status status, const char *what, const char *part)
{
    if (status != PX_DATA || !strstr(px_error_text(), part)) {
        fail_msg("%s: status %d, \"%s\" does not speak of \"%s\"", what, status, px_error_text(), part);
    }
    px_error_clear();
}

static inline void assert_done(px_status status)
{
    if (status != PX_OK) fail_msg("%s: %s", px_error_where(), px_error_text());
}

#endif
