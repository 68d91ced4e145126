#include "rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const run_groups[] = {"/config", "/build"};
const char *const px_run_tables[PX_RUN_TABLES] = {"/metrics", "/evaluation", "/events", "/segments",
                                                  "/ranks",   "/tokenizer",  "/data",   "/data_lengths"};

px_status px_sync_path(const char *path)
{
    PX_FAULT("store.fsync", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return px_fail(PX_IO, "%s: cannot open: %s", path, strerror(errno));
    int error = fsync(fd) != 0 ? errno : 0;
    close(fd);
    return error ? px_fail(PX_IO, "%s: cannot write to the disk: %s", path, strerror(error)) : PX_OK;
}

px_status px_publish(const char *temporary, const char *path)
{
    char parent[PX_PATH_MAX];
    PX_TRY(px_sync_path(temporary));
    PX_FAULT("store.rename", path);
    if (rename(temporary, path) != 0) {
        return px_fail(PX_IO, "%s: cannot rename to %s: %s", temporary, path, strerror(errno));
    }
    PX_FAULT("store.dirsync", path);
    px_path_parent(parent, sizeof parent, path);
    return px_dir_sync(parent);
}

px_status px_set_aside(const char *path, px_buf *what)
{
    char aside[PX_PATH_MAX];
    if (snprintf(aside, sizeof aside, "%s.damaged", path) >= (int)sizeof aside || rename(path, aside) != 0) {
        return px_error_code();
    }
    PX_TRY(px_buf_printf(what, "%s; kept as %s", px_error_text(), aside));
    px_error_clear();
    return PX_OK;
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

/* Number and text attributes of a group that both files have. A table's list of columns is there already. */
static px_status copy_attributes(const px_h5 *from, const px_h5 *to, const char *group)
{
    hid_t source = px_h5_find(from, group, H5I_GROUP), target = source < 0 ? -1 : px_h5_find(to, group, H5I_GROUP);
    px_status status = target < 0 ? px_error_code() : px_h5_copy_attributes(from, source, to, target, "columns");
    if (target >= 0) H5Gclose(target);
    if (source >= 0) H5Gclose(source);
    return status;
}

static px_status copy_table(const px_h5 *from, const px_h5 *to, const char *name)
{
    const px_layout layout = {.chunk = 0, .compress = true};
    px_frame frame;
    PX_TRY(px_table_read(from, name, &frame));
    px_status status = px_table_create(to, name, &frame, &layout);
    px_frame_free(&frame);
    return status == PX_OK ? copy_attributes(from, to, name) : status;
}

/* A group of attributes and scalar texts. H5Ocopy is not an option: HDF5 1.10 crashes on more than eight variable-length
 * attributes of one object, and where the disk is full. */
static px_status copy_group(const px_h5 *from, const px_h5 *to, const char *group)
{
    static const char *const texts[] = {"yaml", "source"};
    hid_t target = H5Gcreate2(to->id, group, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (target < 0) return px_h5_fail(PX_IO, to->path, "cannot create %s", group);
    px_status status = PX_OK;
    for (size_t i = 0; status == PX_OK && i < sizeof texts / sizeof *texts; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", group, texts[i]);
        if (px_h5_has(from, path)) status = px_h5_copy_scalar(from, to, target, path, texts[i]);
    }
    H5Gclose(target);
    return status == PX_OK ? copy_attributes(from, to, group) : status;
}

static px_status copy_run(const px_h5 *from, const px_h5 *to)
{
    PX_TRY(copy_attributes(from, to, "/"));
    for (size_t i = 0; i < sizeof run_groups / sizeof *run_groups; i++) {
        if (px_h5_has(from, run_groups[i])) PX_TRY(copy_group(from, to, run_groups[i]));
    }
    for (int t = 0; t < PX_RUN_TABLES; t++) {
        if (px_h5_has(from, px_run_tables[t])) PX_TRY(copy_table(from, to, px_run_tables[t]));
    }
    return PX_OK;
}

static px_status copy_file(const char *path, const char *out)
{
    px_h5 from, to;
    PX_TRY(px_h5_open(&from, path, NULL));
    px_status status = px_h5_create(&to, out);
    if (status == PX_OK) {
        status = copy_run(&from, &to);
        px_status closed = px_h5_close(&to);
        if (status == PX_OK) status = closed;
    }
    H5Fclose(from.id);
    return status;
}

/* ---- snapshot, compaction, repair -------------------------------------------------------------------------------- */

px_status px_run_file_rewrite(const char *path, const char *out)
{
    char temporary[PX_PATH_MAX];
    PX_TRY(px_temporary_path(temporary, sizeof temporary, out));
    px_status status = copy_file(path, temporary);
    if (status == PX_OK) status = px_publish(temporary, out);
    if (status != PX_OK) unlink(temporary);
    return status;
}

/* The writer's lock lies beside the file, or one above it for a stage of several. */
static px_status refuse_writer(const char *path)
{
    char dir[PX_PATH_MAX];
    px_path_parent(dir, sizeof dir, path);
    for (int level = 0; level < 2; level++) {
        char parent[PX_PATH_MAX];
        PX_TRY(px_lock_refuse_held(dir, path));
        if (strcmp(dir, ".") == 0) {
            snprintf(parent, sizeof parent, "..");
        } else {
            px_path_parent(parent, sizeof parent, dir);
        }
        memcpy(dir, parent, sizeof dir);
    }
    return PX_OK;
}

px_status px_run_file_snapshot(const char *path, const char *out)
{
    struct stat from, to;
    bool itself = stat(path, &from) == 0 && stat(out, &to) == 0 && from.st_dev == to.st_dev && from.st_ino == to.st_ino;
    PX_TRY(itself ? refuse_writer(path) : PX_OK);
    return px_run_file_rewrite(path, out);
}

px_status px_run_file_repair(const char *path) { return px_run_file_snapshot(path, path); }
