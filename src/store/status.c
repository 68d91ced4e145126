#include "h5.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* What JSON can hold of a text that may have names of files in it: px_text_fit's. NULL: recorded. */
static char *valid_text(const char *text)
{
    size_t width = strlen(text ? text : "") + 1;
    char *valid = px_alloc(width, "a text of the status");
    if (valid) px_text_fit(valid, width, text ? text : "");
    return valid;
}

static json_t *describe(const px_run_status *status, const char *reason, const char *resume)
{
    return json_pack("{s:s, s:s, s:I, s:i, s:s, s:s}", "state", status->state, "stage", status->stage ? status->stage : "",
                     "iteration", (json_int_t)status->iteration, "exit_code", status->exit_code, "reason", reason, "resume",
                     resume);
}

px_status px_status_write(const char *dir, const px_run_status *status)
{
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, dir, "status.json"));
    char *reason = valid_text(status->reason), *resume = valid_text(status->resume);
    if (!reason || !resume) {
        px_free(reason);
        px_free(resume);
        return px_error_code();
    }
    json_t *json = describe(status, reason, resume);
    px_free(reason);
    px_free(resume);
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(json);
    if (!text) return px_fail(PX_BUG, "%s: the status is no valid text", path);
    PX_FAULT("store.status", path);
    px_status written = px_file_write(path, text, strlen(text));
    free(text);
    return written;
}
