#include "cli.h"

#ifdef PX_COMMIT_HEADER
#include PX_COMMIT_HEADER
#endif
#ifndef PX_COMMIT
#define PX_COMMIT ""
#endif

const char *px_program_commit(void)
{
    return PX_COMMIT;
}
