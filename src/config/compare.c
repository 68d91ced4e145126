/* What differs from the configuration of an earlier start, and whether a resumed run may differ in it. */
#include "stage.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool counts(const px_value *value)
{
    return value && value->applies && px_value_is_leaf(value);
}

/* An input that moved is the same input: equal files, or directories of equal files. */
static bool same_file(const char *a, const char *b)
{
    uint64_t hash_a, hash_b;
    int64_t bytes_a, bytes_b;
    bool same = px_hash_file(a, &hash_a, &bytes_a) == PX_OK && px_hash_file(b, &hash_b, &bytes_b) == PX_OK &&
                hash_a == hash_b && bytes_a == bytes_b;
    px_error_clear();
    return same;
}

static int files_in(const char *path, struct dirent ***names)
{
    return scandir(path, names, NULL, alphasort);
}

static bool same_directory(const char *a, const char *b)
{
    struct dirent **in_a = NULL, **in_b = NULL;
    int count_a = files_in(a, &in_a), count_b = files_in(b, &in_b);
    bool same = count_a == count_b && count_a >= 0;
    for (int i = 0; i < count_a && same; i++) {
        char one[PX_PATH_MAX], two[PX_PATH_MAX];
        same = strcmp(in_a[i]->d_name, in_b[i]->d_name) == 0 && px_path_join(one, sizeof one, a, in_a[i]->d_name) == PX_OK &&
               px_path_join(two, sizeof two, b, in_b[i]->d_name) == PX_OK &&
               (px_dir_exists(one) ? px_dir_exists(two) : same_file(one, two));
    }
    for (int i = 0; i < count_a; i++) free(in_a[i]);
    for (int i = 0; i < count_b; i++) free(in_b[i]);
    free(in_a);
    free(in_b);
    return same;
}

/* Moved: both hold the same, or the old one is gone and the last part of the path is equal. */
static bool same_input(const char *a, const char *b)
{
    if (px_dir_exists(a)) return px_dir_exists(b) && same_directory(a, b);
    if (px_file_exists(a)) return px_file_exists(b) && same_file(a, b);
    const char *last_a = strrchr(a, '/'), *last_b = strrchr(b, '/');
    return last_a && last_b && strcmp(last_a, last_b) == 0;
}

static bool same_value(const px_value *a, const px_value *b)
{
    if (!counts(a) || !counts(b)) return !counts(a) && !counts(b);
    if (a->form != b->form || a->i != b->i || a->f != b->f) return false;
    return a->form != PX_IS_TEXT ? a->form != PX_IS_WORD || strcmp(a->text, b->text) == 0 : strcmp(a->text, b->text) == 0;
}

struct comparison {
    px_buf *allowed;  /* may be NULL */
    px_buf forbidden;
    int count;
};

static px_status note(struct comparison *c, const px_value *old, const px_value *now)
{
    if (same_value(old, now)) return PX_OK;
    const px_value *one = counts(now) ? now : old;
    char before[PX_PATH_MAX], after[PX_PATH_MAX];
    if (counts(old)) px_value_text(old, before, sizeof before);
    else snprintf(before, sizeof before, "absent");
    if (counts(now)) px_value_text(now, after, sizeof after);
    else snprintf(after, sizeof after, "absent");
    bool moved = one->row->kind == PX_KEY_PATH && counts(old) && counts(now) && old->form == PX_IS_TEXT &&
                 now->form == PX_IS_TEXT && same_input(old->text, now->text);
    if (one->may_change || moved) {
        return c->allowed ? px_buf_printf(c->allowed, "%s: %s -> %s\n", one->key, before, after) : PX_OK;
    }
    c->count++;
    const char *origin = counts(now) ? now->origin : "default";
    return px_buf_printf(&c->forbidden, "\n%s: %s: %s -> %s", origin, one->key, before, after);
}

static px_status compare(struct comparison *c, const px_stage *old, const px_stage *now)
{
    if (!old->algorithm || strcmp(old->algorithm, now->algorithm) != 0) {
        return note(c, px_stage_find(old, "algorithm"), px_stage_find(now, "algorithm"));
    }
    for (int i = 0; i < now->count; i++) {
        if (counts(&now->values[i])) PX_TRY(note(c, px_stage_find(old, now->values[i].key), &now->values[i]));
    }
    for (int i = 0; i < old->count; i++) {
        const px_value *value = &old->values[i];
        if (counts(value) && !counts(px_stage_find(now, value->key))) PX_TRY(note(c, value, NULL));
    }
    return PX_OK;
}

px_status px_stage_compare(const px_stage *stage, const char *earlier_yaml_path, px_buf *changed)
{
    px_config *earlier = NULL;
    px_config_source source = {.path = earlier_yaml_path};
    PX_TRY(px_config_read(&earlier, &source, false));
    const px_stage *old = px_config_stage_named(earlier, stage->name);
    if (!old) old = px_config_stage(earlier, 0);
    struct comparison c = {.allowed = changed};
    px_status status = compare(&c, old, stage);
    if (status == PX_OK && c.count) {
        status = px_fail(PX_CONFIG, "%s: %d key%s may not change on resume; valid is the old value, another run.dir, or --fresh:%s",
                         earlier_yaml_path, c.count, c.count == 1 ? "" : "s", c.forbidden.data);
    }
    px_buf_free(&c.forbidden);
    px_config_destroy(earlier);
    return status;
}
