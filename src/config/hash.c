/* The hash of what must not change on resume, and the run directory that may carry it. */
#include "stage.h"

#include <stdio.h>
#include <string.h>

/* Paths count by their last part: the same experiment has the same hash wherever it lies. */
static uint64_t hash_value(const px_value *value, uint64_t seed)
{
    char text[PX_PATH_MAX + 64];
    uint64_t hash = px_hash(value->key, strlen(value->key) + 1, seed);
    px_value_text(value, text, sizeof text);
    const char *slash = value->row->kind == PX_KEY_PATH ? strrchr(text, '/') : NULL;
    const char *counted = slash ? slash + 1 : text;
    return px_hash(counted, strlen(counted) + 1, hash + (uint64_t)value->form);
}

static uint64_t stage_hash(const px_stage *stage)
{
    uint64_t hash = px_hash(stage->name, strlen(stage->name) + 1, 0);
    for (int i = 0; i < stage->count; i++) {
        const px_value *value = &stage->values[i];
        bool counts = value->applies && px_value_is_leaf(value) && !value->may_change;
        if (counts) hash = hash_value(value, hash);
    }
    return hash;
}

void px_stage_hash(const px_stage *stage, char out[17])
{
    snprintf(out, 17, "%016llx", (unsigned long long)stage_hash(stage));
}

void px_config_hash(const px_config *config, char out[17])
{
    uint64_t hash = 0;
    if (config->stage_count == 1) {
        hash = stage_hash(&config->stages[0]);
    } else {
        for (int i = 0; i < config->stage_count; i++) {
            uint64_t one = stage_hash(&config->stages[i]);
            hash = px_hash(&one, sizeof one, hash);
        }
    }
    snprintf(out, 17, "%016llx", (unsigned long long)hash);
}

px_status px_stage_run_dir(const px_stage *stage, char *out, size_t size)
{
    const char *at = px_stage_value(stage, "run.dir")->text;
    char hash[17];
    px_buf text = {0};
    px_status status = PX_OK;
    while (*at && status == PX_OK) {
        if (strncmp(at, "{name}", 6) == 0) {
            status = px_buf_text(&text, px_stage_text(stage, "run.name"));
            at += 6;
        } else if (strncmp(at, "{seed}", 6) == 0) {
            status = px_buf_printf(&text, "%lld", (long long)px_stage_int(stage, "run.seed"));
            at += 6;
        } else if (strncmp(at, "{hash}", 6) == 0) {
            px_config_hash(stage->config, hash);
            status = px_buf_text(&text, hash);
            at += 6;
        } else {
            status = px_buf_add(&text, at++, 1);
        }
    }
    if (status == PX_OK && (size_t)snprintf(out, size, "%s", text.data ? text.data : "") >= size) {
        status = px_stage_fail(stage, "run.dir", "run.dir: the path is too long");
    }
    px_buf_free(&text);
    return status;
}
