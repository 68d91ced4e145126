/* The time lines of all ranks as one, so that they are seen below each other. */
#include "phalanx/report.h"

#include <glob.h>
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

px_status px_timeline_print(const char *dir, FILE *out)
{
    char pattern[PX_PATH_MAX];
    glob_t found;
    bool first = true;
    px_status status = PX_OK;
    PX_TRY(px_path_join(pattern, sizeof pattern, dir, "timeline-*.json"));
    if (glob(pattern, 0, NULL, &found) != 0) {
        return px_fail(PX_DATA, "%s: no such file; valid is the directory of a stage that ran with debugging.timeline: true",
                       pattern);
    }
    fprintf(out, "[");
    for (size_t i = 0; i < found.gl_pathc && status == PX_OK; i++) {
        status = join(out, found.gl_pathv[i], &first);
    }
    fprintf(out, "\n]\n");
    globfree(&found);
    return status;
}
