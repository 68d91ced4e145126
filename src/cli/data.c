/* Rows of a file for a command that has no run directory: in memory, or where the file is large in temporary files that
 * are mapped and have no name any more. */
#include "cli.h"
#include "phalanx/dist.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The same name on all ranks, those of other nodes too, where it is another directory. */
static px_status temporary_dir(char *dir, size_t size)
{
    static const char pattern[] = "phalanx-data-XXXXXX";
    const char *top = getenv("TMPDIR");
    char name[sizeof pattern];
    px_status status = px_path_join(dir, size, top != NULL && *top != '\0' ? top : "/tmp", pattern);
    if (status == PX_OK && px_dist_rank() == 0 && mkdtemp(dir) == NULL) {
        status = px_fail(PX_IO, "%s: %s; TMPDIR names another place", dir, strerror(errno));
    }
    PX_TRY(px_dist_size() > 1 ? px_agree(status) : status);
    memcpy(name, dir + strlen(dir) - strlen(pattern), sizeof name);
    px_bcast(name, sizeof name, 0);
    memcpy(dir + strlen(dir) - strlen(pattern), name, sizeof name);
    return PX_OK;
}

px_status px_data_load(px_dataset **data, const char *path, px_data_options *options, int64_t memory_mib)
{
    struct stat info;
    char dir[PX_PATH_MAX];
    bool large = stat(path, &info) == 0 && info.st_size > memory_mib << 20;
    if (large) {
        PX_TRY(temporary_dir(dir, sizeof dir));
        options->cache = dir;
    }
    px_status status = px_dataset_load(data, path, options);
    options->cache = NULL;
    bool loaded = status == PX_OK;
    status = px_dist_size() > 1 ? px_agree(status) : status;
    if (large && px_dist_local_rank() == 0) { /* all ranks have mapped it */
        px_error kept = px_error_keep();
        px_tree_remove(dir);
        px_error_restore(&kept);
    }
    if (status != PX_OK && loaded) {
        px_dataset_destroy(*data);
    }
    return status;
}
