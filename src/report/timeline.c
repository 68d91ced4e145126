/* The time lines of all ranks as one, so that they are seen below each other. */
#include "phalanx/report.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* The events of one file: what is between its brackets. */
static px_status join(FILE *out, const char *path, bool *first)
{
    px_buf text = {0};
    px_status status = px_file_read(path, PX_TEXT_MOST, &text); /* a part has 256 KiB */
    size_t from = 0, to = text.length;
    while (status == PX_OK && to > 0 && strchr(" \n]", text.data[to - 1]) != NULL) {
        to--;
    }
    while (from < to && strchr(" \n[", text.data[from]) != NULL) {
        from++;
    }
    if (from < to) {
        fprintf(out, "%s\n%.*s", *first ? "" : ",", (int)(to - from), text.data + from);
        *first = false;
    }
    px_buf_free(&text);
    return status;
}

static bool is_timeline(const char *name)
{
    size_t length = strlen(name);
    return length > 5 && strncmp(name, "timeline-", 9) == 0 && strcmp(name + length - 5, ".json") == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Names of the parts, in order. */
static px_status find_parts(const char *dir, char (**names)[NAME_MAX + 1], size_t *count)
{
    DIR *stream = opendir(dir);
    px_status status = PX_OK;
    if (stream == NULL) {
        return px_fail(errno == ENOENT ? PX_DATA : PX_IO, "%s: cannot be read: %s", dir, strerror(errno));
    }
    for (struct dirent *entry; status == PX_OK && (entry = readdir(stream)) != NULL;) {
        if (!is_timeline(entry->d_name)) {
            continue;
        }
        char(*longer)[NAME_MAX + 1] = px_realloc(*names, (*count + 1) * sizeof **names, "names of time lines");
        if (longer == NULL) {
            status = px_error_code();
        } else {
            *names = longer;
            snprintf(longer[(*count)++], sizeof *longer, "%s", entry->d_name);
        }
    }
    closedir(stream);
    if (*count > 0) {
        qsort(*names, *count, sizeof **names, by_name);
    }
    return status;
}

static px_status print_parts(const char *dir, char (*names)[NAME_MAX + 1], size_t count, FILE *out)
{
    bool first = true;
    px_status status = PX_OK;
    fprintf(out, "[");
    for (size_t i = 0; i < count && status == PX_OK; i++) {
        char path[PX_PATH_MAX];
        status = px_path_join(path, sizeof path, dir, names[i]);
        status = status == PX_OK ? join(out, path, &first) : status;
    }
    fprintf(out, "\n]\n");
    return status;
}

px_status px_timeline_print(const char *dir, FILE *out)
{
    char(*names)[NAME_MAX + 1] = NULL;
    size_t count = 0;
    px_status status = find_parts(dir, &names, &count);
    if (status == PX_OK && count == 0) {
        status = px_fail(PX_DATA, "%s/timeline-*.json: no such file; valid is the directory of a stage that ran with "
                                  "debugging.timeline: true", dir);
    }
    if (status == PX_OK) {
        status = print_parts(dir, names, count, out);
    }
    px_free(names);
    return status;
}
