#include "runs.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static px_status add_run(px_run **runs, int *count, const char *name, const char *dir, const char *file)
{
    px_run *longer = px_realloc(*runs, (size_t)(*count + 1) * sizeof **runs, "runs");
    if (!longer) return px_error_code();
    *runs = longer;
    px_run *run = &longer[*count];
    json_t *root = NULL;
    memset(run, 0, sizeof *run);
    snprintf(run->name, sizeof run->name, "%s", name);
    snprintf(run->dir, sizeof run->dir, "%s", dir);
    snprintf(run->file, sizeof run->file, "%s", file);
    PX_TRY(px_attributes_read(file, "/", &root));
    const char *created = json_string_value(json_object_get(root, "created"));
    snprintf(run->created, sizeof run->created, "%s", created ? created : "");
    json_decref(root);
    (*count)++;
    return PX_OK;
}

static int compare_runs(const void *a, const void *b)
{
    const px_run *x = a, *y = b;
    int order = strcmp(x->created, y->created);
    return order ? order : strcmp(x->name, y->name);
}

static px_status find_below(const char *path, px_run **runs, int *count)
{
    int first = *count;
    DIR *stream = opendir(path);
    if (!stream) return px_fail(PX_IO, "%s: cannot be read: %s", path, strerror(errno));
    px_status status = PX_OK;
    struct dirent *entry;
    while (status == PX_OK && (entry = readdir(stream))) {
        char dir[PX_PATH_MAX], file[PX_PATH_MAX];
        if (entry->d_name[0] == '.') continue;
        status = px_path_join(dir, sizeof dir, path, entry->d_name);
        if (status == PX_OK) status = px_path_join(file, sizeof file, dir, "run.h5");
        if (status == PX_OK && px_file_exists(file)) status = add_run(runs, count, dir, dir, file);
    }
    closedir(stream);
    if (status != PX_OK) return status;
    if (*count > first) qsort(*runs + first, (size_t)(*count - first), sizeof **runs, compare_runs);
    return PX_OK;
}

static px_status find_runs(const char *path, px_run **runs, int *count)
{
    char file[PX_PATH_MAX], dir[PX_PATH_MAX];
    if (!px_dir_exists(path)) {
        if (!px_file_exists(path)) return px_fail(PX_DATA, "%s: no such run; valid is the directory of a run or stage, or a run file", path);
        px_path_parent(dir, sizeof dir, path);
        return add_run(runs, count, path, dir, path);
    }
    PX_TRY(px_path_join(file, sizeof file, path, "run.h5"));
    return px_file_exists(file) ? add_run(runs, count, path, path, file) : find_below(path, runs, count);
}

/* Of several directories (runs/...), those without a run are left out with a note. */
static px_status find_all(const char *const *paths, int path_count, px_run **runs, int *count, px_buf *without)
{
    for (int i = 0; i < path_count; i++) {
        int before = *count;
        PX_TRY(find_runs(paths[i], runs, count));
        if (*count == before) PX_TRY(px_buf_printf(without, "%s%s", without->length ? ", " : "", paths[i]));
    }
    if (*count == 0) {
        return px_fail(PX_DATA, "%s: holds no run.h5; valid is a run's directory, one of its stages, or its run.h5",
                       without->data);
    }
    if (without->length) px_log(PX_NOTE, "left out, as there is no run.h5: %s", without->data);
    return PX_OK;
}

px_status px_runs_find(const char *const *paths, int path_count, px_run **runs, int *count)
{
    px_buf without = {0};
    *runs = NULL;
    *count = 0;
    px_status status = path_count > 0 ? find_all(paths, path_count, runs, count, &without)
                                      : px_fail(PX_USAGE, "no run was named; give its directory");
    px_buf_free(&without);
    if (status != PX_OK) {
        px_free(*runs);
        *runs = NULL;
        *count = 0;
    }
    return status;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(a, b);
}

px_status px_runs_samples(const px_run *run, char (**files)[PX_PATH_MAX], int *count)
{
    *files = NULL;
    *count = 0;
    DIR *stream = opendir(run->dir);
    if (!stream) return px_fail(PX_IO, "%s: cannot be read: %s", run->dir, strerror(errno));
    px_status status = PX_OK;
    struct dirent *entry;
    while (status == PX_OK && (entry = readdir(stream))) {
        size_t length = strlen(entry->d_name);
        if (strncmp(entry->d_name, "samples-", 8) != 0 || length < 3 || strcmp(entry->d_name + length - 3, ".h5") != 0)
            continue;
        char(*longer)[PX_PATH_MAX] = px_realloc(*files, (size_t)(*count + 1) * sizeof **files, "sample files");
        if (!longer) {
            status = px_error_code();
            break;
        }
        *files = longer;
        status = px_path_join(longer[*count], PX_PATH_MAX, run->dir, entry->d_name);
        (*count)++;
    }
    closedir(stream);
    if (*count) qsort(*files, (size_t)*count, sizeof **files, compare_paths);
    if (status != PX_OK) {
        px_free(*files);
        *files = NULL;
        *count = 0;
    }
    return status;
}
