#include "h5.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

px_status px_status_write(const char *dir, const px_run_status *status)
{
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, dir, "status.json"));
    json_t *json =
        json_pack("{s:s, s:s, s:I, s:i, s:s, s:s}", "state", status->state, "stage", status->stage ? status->stage : "",
                  "iteration", (json_int_t)status->iteration, "exit_code", status->exit_code, "reason",
                  status->reason ? status->reason : "", "resume", status->resume ? status->resume : "");
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(json);
    if (!text) return px_fail(PX_BUG, "%s: the status is no valid text", path);
    PX_FAULT("store.status", path);
    px_status written = px_file_write(path, text, strlen(text));
    free(text);
    return written;
}
