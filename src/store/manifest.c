#include "manifest.h"
#include "h5.h"
#include "rewrite.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "MANIFEST.json"
#define FORMAT "phalanx-checkpoint"
#define MAX_DEPTH 8

/* Over the sorted, compact text without the key that holds it. */
static px_status own_hash(json_t *manifest, const char *path, char out[17])
{
    json_t *copy = json_copy(manifest);
    json_object_del(copy, "xxh3");
    char *text = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(copy);
    if (!text) return px_fail(PX_DATA, "%s: cannot be written as text", path);
    snprintf(out, 17, "%016" PRIx64, px_hash(text, strlen(text), 0));
    free(text);
    return PX_OK;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static px_status add_file(json_t *files, const char *path, const char *name)
{
    uint64_t hash = 0;
    int64_t bytes = 0;
    char text[17];
    PX_FAULT("store.hash", path);
    PX_TRY(px_hash_file(path, &hash, &bytes));
    PX_TRY(px_sync_path(path));
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    json_t *entry = json_pack("{s:I, s:s}", "bytes", (json_int_t)bytes, "xxh3", text);
    if (!entry || json_object_set_new(files, name, entry) != 0) {
        return px_fail(PX_IO, "%s: the file's name is not valid UTF-8", path);
    }
    return PX_OK;
}

static px_status add_tree(json_t *files, const char *root, const char *below, int depth);

static px_status add_entry(json_t *files, const char *root, const char *name, int depth)
{
    char path[PX_PATH_MAX];
    struct stat info;
    PX_TRY(px_path_join(path, sizeof path, root, name));
    if (lstat(path, &info) != 0) return px_fail(PX_IO, "%s: cannot be read: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) return add_tree(files, root, name, depth + 1);
    if (!S_ISREG(info.st_mode)) return px_fail(PX_IO, "%s: only files and directories belong in a checkpoint", path);
    return strcmp(name, NAME) == 0 ? PX_OK : add_file(files, path, name);
}

static px_status add_tree(json_t *files, const char *root, const char *below, int depth)
{
    char path[PX_PATH_MAX], name[PX_PATH_MAX];
    if (depth > MAX_DEPTH) return px_fail(PX_IO, "%s: directories deeper than %d", root, MAX_DEPTH);
    PX_TRY(px_path_join(path, sizeof path, root, below));
    DIR *dir = opendir(path);
    if (!dir) return px_fail(PX_IO, "%s: cannot be read: %s", path, strerror(errno));
    px_status status = PX_OK;
    struct dirent *entry;
    while (status == PX_OK && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        int length = snprintf(name, sizeof name, "%s%s%s", below, below[0] ? "/" : "", entry->d_name);
        status = length < (int)sizeof name ? add_entry(files, root, name, depth)
                                           : px_fail(PX_IO, "%s: the path is too long", path);
    }
    closedir(dir);
    return status == PX_OK ? px_dir_sync(path) : status;
}

px_status px_manifest_write(const char *dir, int64_t iteration, int64_t fence)
{
    char path[PX_PATH_MAX], hash[17];
    PX_TRY(px_path_join(path, sizeof path, dir, NAME));
    json_t *files = json_object();
    px_status status = add_tree(files, dir, "", 0);
    json_t *manifest = json_pack("{s:s, s:i, s:I, s:I, s:o}", "format", FORMAT, "format_version", 1, "iteration",
                                 (json_int_t)iteration, "fence", (json_int_t)fence, "files", files);
    if (status == PX_OK) status = own_hash(manifest, path, hash);
    if (status == PX_OK) {
        json_object_set_new(manifest, "xxh3", json_string(hash));
        char *text = json_dumps(manifest, JSON_INDENT(2) | JSON_SORT_KEYS);
        status = px_fault("store.manifest") ? px_fail(PX_IO, "%s: input/output error (injected)", path)
                                            : px_file_write(path, text, strlen(text));
        free(text);
    }
    json_decref(manifest);
    return status == PX_OK ? px_dir_sync(dir) : status;
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

static px_status check_format(json_t *manifest, const char *path, int64_t *iteration)
{
    char hash[17];
    const char *format = json_string_value(json_object_get(manifest, "format"));
    const char *said = json_string_value(json_object_get(manifest, "xxh3"));
    json_t *version = json_object_get(manifest, "format_version"), *number = json_object_get(manifest, "iteration");
    if (!format || strcmp(format, FORMAT) != 0 || !json_is_integer(version) || !json_is_integer(number) ||
        !json_is_object(json_object_get(manifest, "files"))) {
        return px_fail(PX_DATA, "%s: is not the manifest of a checkpoint", path);
    }
    if (json_integer_value(version) != 1) {
        return px_fail(PX_DATA, "%s: has format_version %lld; this version reads 1", path,
                       (long long)json_integer_value(version));
    }
    PX_TRY(own_hash(manifest, path, hash));
    if (!said || strcmp(said, hash) != 0) return px_fail(PX_DATA, "%s: does not match its own hash", path);
    *iteration = json_integer_value(number);
    return *iteration < 0 ? px_fail(PX_DATA, "%s: has a negative iteration", path) : PX_OK;
}

static px_status read_manifest(const char *dir, json_t **manifest, int64_t *iteration)
{
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, dir, NAME));
    if (!px_file_exists(path)) return px_fail(PX_DATA, "%s: is no finished checkpoint, it has no " NAME, dir);
    PX_TRY(px_json_read(path, manifest));
    px_status status = check_format(*manifest, path, iteration);
    if (status != PX_OK) {
        json_decref(*manifest);
        *manifest = NULL;
    }
    return status;
}

px_status px_manifest_numbers(const char *dir, int64_t *iteration, int64_t *fence)
{
    json_t *manifest = NULL;
    PX_TRY(read_manifest(dir, &manifest, iteration));
    json_t *number = json_object_get(manifest, "fence");
    *fence = json_is_integer(number) ? json_integer_value(number) : -1;
    json_decref(manifest);
    return PX_OK;
}

/* A relative path that stays inside. */
static bool name_is_inside(const char *name)
{
    if (!name[0] || name[0] == '/') return false;
    for (const char *at = name; at; at = strchr(at, '/')) {
        if (*at == '/') at++;
        if (strncmp(at, "..", 2) == 0 && (at[2] == '/' || at[2] == '\0')) return false;
    }
    return true;
}

/* A directory on the way that is a link may lead anywhere. */
static px_status check_way(const char *dir, const char *name)
{
    char path[PX_PATH_MAX], part[PX_PATH_MAX];
    struct stat info;
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        if (snprintf(part, sizeof part, "%.*s", (int)(slash - name), name) >= (int)sizeof part) break;
        PX_TRY(px_path_join(path, sizeof path, dir, part));
        if (lstat(path, &info) != 0) return px_fail(PX_DATA, "%s: is missing or cannot be read: %s", path, strerror(errno));
        if (!S_ISDIR(info.st_mode)) return px_fail(PX_DATA, "%s: is no directory of the checkpoint's own", path);
    }
    return PX_OK;
}

static px_status check_file(const char *dir, const char *name, json_t *entry)
{
    char path[PX_PATH_MAX], text[17];
    struct stat info;
    json_t *bytes = json_object_get(entry, "bytes");
    const char *said = json_string_value(json_object_get(entry, "xxh3"));
    if (!name_is_inside(name) || !json_is_integer(bytes) || !said) {
        return px_fail(PX_DATA, "%s: " NAME " has an impossible entry '%s'", dir, name);
    }
    PX_TRY(check_way(dir, name));
    PX_TRY(px_path_join(path, sizeof path, dir, name));
    if (lstat(path, &info) != 0) return px_fail(PX_DATA, "%s: is missing or cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode) || info.st_size != json_integer_value(bytes)) {
        return px_fail(PX_DATA, "%s: has %lld bytes; the manifest says %lld", path, (long long)info.st_size,
                       (long long)json_integer_value(bytes));
    }
    uint64_t hash = 0;
    int64_t length = 0;
    PX_TRY(px_hash_file(path, &hash, &length));
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    if (strcmp(text, said) != 0) {
        return px_fail(PX_DATA, "%s: is damaged, its hash is %s and the manifest says %.16s", path, text, said);
    }
    return PX_OK;
}

px_status px_manifest_check(const char *dir, int64_t *iteration)
{
    json_t *manifest = NULL, *entry;
    const char *name;
    PX_TRY(read_manifest(dir, &manifest, iteration));
    px_status status = PX_OK;
    json_object_foreach(json_object_get(manifest, "files"), name, entry)
    {
        status = check_file(dir, name, entry);
        if (status != PX_OK) break;
    }
    json_decref(manifest);
    return status;
}
