/* Checkpoint directories. A new one is complete and on the disk under a temporary name before the old NAME is touched;
 * then the old one is moved to NAME.old, the new one takes the name, and the old one goes. A kill between the two renames
 * leaves NAME.old, which the search below takes for what it is and the next begin moves back. */
#include "frame.h"
#include "manifest.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static px_status with_suffix(char *out, const char *path, const char *suffix)
{
    if (snprintf(out, PX_PATH_MAX, "%s%s", path, suffix) < PX_PATH_MAX) return PX_OK;
    return px_fail(PX_IO, "%s: the path is too long", path);
}

static px_status move(const char *from, const char *to)
{
    PX_FAULT("store.rename", to);
    if (rename(from, to) == 0) return PX_OK;
    return px_fail(PX_IO, "%s: cannot rename to %s: %s", from, to, strerror(errno));
}

static px_status remove_tree(const char *path)
{
    PX_FAULT("store.remove", path);
    return px_tree_remove(path);
}

/* Out of the way at once; what of it cannot be removed, because somebody reads it, stays under a name of temporaries, which
 * the next start removes. */
static px_status discard(const char *path)
{
    char name[PX_PATH_MAX], aside[PX_PATH_MAX];
    if (!px_dir_exists(path)) return PX_OK;
    PX_TRY(px_temporary_path(aside, sizeof aside, path));
    for (int n = 1; px_dir_exists(aside); n++) {
        int length = snprintf(name, sizeof name, "%s-%d", path, n);
        if (length < 0 || (size_t)length >= sizeof name) return px_fail(PX_IO, "%s: the path is too long", path);
        PX_TRY(px_temporary_path(aside, sizeof aside, name));
    }
    PX_TRY(move(path, aside));
    if (remove_tree(aside) != PX_OK) {
        px_log(PX_WARNING, "%s: it stays there until the next start", px_error_text());
        px_error_clear();
    }
    return PX_OK;
}

px_status px_checkpoint_begin(px_checkpoint_writer *writer, const char *dir, const char *name)
{
    char old[PX_PATH_MAX];
    PX_TRY(px_path_join(writer->final_path, sizeof writer->final_path, dir, name));
    PX_TRY(px_temporary_path(writer->path, sizeof writer->path, writer->final_path));
    PX_TRY(with_suffix(old, writer->final_path, ".old"));
    if (px_dir_exists(old) && !px_dir_exists(writer->final_path)) PX_TRY(move(old, writer->final_path));
    PX_FAULT("store.begin", writer->path);
    PX_TRY(px_tree_remove(writer->path));
    return px_dir_create(writer->path);
}

px_status px_checkpoint_commit(px_checkpoint_writer *writer, int64_t iteration, int64_t fence, const px_lock *lock)
{
    char old[PX_PATH_MAX], parent[PX_PATH_MAX];
    PX_TRY(with_suffix(old, writer->final_path, ".old"));
    px_path_parent(parent, sizeof parent, writer->final_path);
    PX_TRY(px_manifest_write(writer->path, iteration, fence));
    PX_FAULT("store.dirsync", parent);
    PX_TRY(px_dir_sync(parent));
    if (lock) PX_TRY(px_lock_check(lock)); /* hashing takes its time */
    if (px_dir_exists(writer->final_path)) {
        PX_TRY(discard(old));
        PX_TRY(move(writer->final_path, old));
    }
    PX_TRY(move(writer->path, writer->final_path));
    PX_FAULT("store.dirsync", parent);
    PX_TRY(px_dir_sync(parent));
    if (remove_tree(old) != PX_OK) { /* the new one is published and whole */
        px_log(PX_WARNING, "%s: a replaced checkpoint stays there", px_error_text());
        px_error_clear();
    }
    return PX_OK;
}

px_status px_checkpoint_verify(const char *dir, int64_t *iteration)
{
    int64_t number = 0;
    PX_TRY(px_manifest_check(dir, &number));
    if (iteration) *iteration = number;
    return PX_OK;
}

px_status px_checkpoint_mark_latest(const char *dir, const char *name)
{
    char path[PX_PATH_MAX], text[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, dir, "latest"));
    int length = snprintf(text, sizeof text, "%s\n", name);
    if (length >= (int)sizeof text) return px_fail(PX_BUG, "%s: the name is too long", path);
    PX_FAULT("store.latest", path);
    return px_file_write(path, text, (size_t)length);
}

/* ---- search ------------------------------------------------------------------------------------------------------ */

typedef struct candidate {
    char name[64];
    int64_t iteration;
    int order; /* among equals: numbered ones, then recovery slots, then .old */
} candidate;

static int order_of(const char *name)
{
    static const char prefix[] = "checkpoint_";
    size_t length = strlen(name);
    bool old = length > 4 && strcmp(name + length - 4, ".old") == 0;
    size_t stem = old ? length - 4 : length;
    if (stem == strlen("recovery_a") && strncmp(name, "recovery_", 9) == 0 && (name[9] == 'a' || name[9] == 'b')) {
        return old ? 3 : 1;
    }
    if (stem < sizeof prefix - 1 + 6 || length >= 64 || strncmp(name, prefix, sizeof prefix - 1) != 0) return -1;
    for (size_t i = sizeof prefix - 1; i < stem; i++) {
        if (!isdigit((unsigned char)name[i])) return -1;
    }
    return old ? 2 : 0;
}

static int newest_first(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->iteration != y->iteration) return x->iteration < y->iteration ? 1 : -1;
    return x->order != y->order ? x->order - y->order : strcmp(x->name, y->name);
}

static px_status skip(px_buf *skipped, const char *name)
{
    px_status status = skipped ? px_buf_printf(skipped, "%s: %s\n", name, px_error_text()) : PX_OK;
    if (status == PX_OK) px_error_clear();
    return status;
}

/* Whether a segment after the writer's began from an earlier iteration: then the run went on without this checkpoint. */
static px_status check_fence(const px_frame *segments, const char *path, int64_t iteration, int64_t fence)
{
    int number = px_frame_column(segments, "segment"), first = px_frame_column(segments, "first_iteration");
    for (int64_t row = 0; fence >= 0 && row < segments->rows; row++) {
        double segment = px_frame_number(segments, number, row), start = px_frame_number(segments, first, row);
        if (segment > (double)fence && start <= (double)iteration) {
            return px_fail(PX_DATA, "%s: iteration %lld was published by segment %lld after segment %.0f had gone on from "
                           "iteration %.0f without it", path, (long long)iteration, (long long)fence, segment, start - 1.0);
        }
    }
    return PX_OK;
}

static px_status add_candidate(const char *dir, const char *name, const px_frame *segments, candidate **list, int *count,
                               int *damaged, px_buf *skipped)
{
    char path[PX_PATH_MAX];
    int order = order_of(name);
    int64_t iteration = 0, fence = -1;
    if (order < 0) return PX_OK;
    PX_TRY(px_path_join(path, sizeof path, dir, name));
    if (px_manifest_numbers(path, &iteration, &fence) != PX_OK) {
        (*damaged)++;
        return skip(skipped, name);
    }
    if (check_fence(segments, path, iteration, fence) != PX_OK) {
        return skip(skipped, name);
    }
    candidate *longer = px_realloc(*list, (size_t)(*count + 1) * sizeof **list, "checkpoints");
    if (!longer) return px_error_code();
    *list = longer;
    snprintf(longer[*count].name, sizeof longer[*count].name, "%s", name);
    longer[*count].iteration = iteration;
    longer[*count].order = order;
    (*count)++;
    return PX_OK;
}

/* The starts of this run; none where the run file cannot be read. */
static void read_segments(const char *dir, px_frame *segments)
{
    char path[PX_PATH_MAX];
    memset(segments, 0, sizeof *segments);
    if (px_path_join(path, sizeof path, dir, "run.h5") != PX_OK ||
        (px_file_exists(path) && px_frame_read(path, "/segments", segments) != PX_OK)) {
        px_error_clear();
    }
}

static px_status list_candidates(const char *dir, candidate **list, int *count, int *damaged, px_buf *skipped)
{
    px_frame segments;
    DIR *stream = opendir(dir);
    if (!stream) return errno == ENOENT ? PX_OK : px_fail(PX_IO, "%s: cannot be read: %s", dir, strerror(errno));
    read_segments(dir, &segments);
    px_status status = PX_OK;
    struct dirent *entry;
    while (status == PX_OK && (entry = readdir(stream))) {
        status = add_candidate(dir, entry->d_name, &segments, list, count, damaged, skipped);
    }
    closedir(stream);
    px_frame_free(&segments);
    if (*count) qsort(*list, (size_t)*count, sizeof **list, newest_first);
    return status;
}

px_status px_checkpoint_latest(const char *dir, char *out, size_t size, int64_t *iteration, bool *found, int *damaged,
                               px_buf *skipped)
{
    candidate *list = NULL;
    int count = 0;
    *found = false;
    *damaged = 0;
    px_status status = list_candidates(dir, &list, &count, damaged, skipped);
    for (int i = 0; status == PX_OK && i < count && !*found; i++) {
        status = px_path_join(out, size, dir, list[i].name);
        if (status != PX_OK) break;
        if (px_checkpoint_verify(out, iteration) == PX_OK) {
            *found = true;
        } else {
            (*damaged)++;
            status = skip(skipped, list[i].name);
        }
    }
    px_free(list);
    return status;
}

/* ---- pruning ----------------------------------------------------------------------------------------------------- */

/* Iterations of all numbered checkpoints, by name alone: one that is damaged grows old like the others. */
static px_status list_numbered(const char *dir, int64_t **numbers, int *count)
{
    DIR *stream = opendir(dir);
    if (!stream) return px_fail(PX_IO, "%s: cannot be read: %s", dir, strerror(errno));
    px_status status = PX_OK;
    struct dirent *entry;
    while (status == PX_OK && (entry = readdir(stream))) {
        if (order_of(entry->d_name) != 0) continue;
        int64_t *longer = px_realloc(*numbers, (size_t)(*count + 1) * sizeof **numbers, "checkpoints");
        if (!longer) {
            status = px_error_code();
            break;
        }
        *numbers = longer;
        longer[(*count)++] = strtoll(entry->d_name + strlen("checkpoint_"), NULL, 10);
    }
    closedir(stream);
    return status;
}

static int largest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

px_status px_checkpoint_prune(const char *dir, int64_t keep, bool (*spared)(void *arg, int64_t iteration), void *arg)
{
    int64_t *numbers = NULL;
    int count = 0;
    px_status status = list_numbered(dir, &numbers, &count);
    if (count) qsort(numbers, (size_t)count, sizeof *numbers, largest_first);
    for (int i = 0; status == PX_OK && i < count; i++) {
        char name[64], path[PX_PATH_MAX];
        if (i < keep || spared(arg, numbers[i])) continue;
        snprintf(name, sizeof name, "checkpoint_%06lld", (long long)numbers[i]);
        status = px_path_join(path, sizeof path, dir, name);
        if (status == PX_OK) status = discard(path);
    }
    px_free(numbers);
    return status;
}
