#include "cli.h"
#include "phalanx/store.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const px_usage usage = {
    .synopsis = "export RUN_OR_CHECKPOINT --out DIR [options]",
    .what = "Writes a Hugging Face directory (config.json, model.safetensors, tokenizer) from a run, one of its\n"
            "stages, or a checkpoint. Of a finished stage its result is taken, of another the newest checkpoint;\n"
            "--iteration takes the checkpoint after that iteration. A checkpoint's checksums are verified first.",
    .examples = "  phalanx export runs/stories-ppo --out policy\n"
                "  phalanx export runs/stories-ppo/ppo --iteration 20 --module critic --dtype bf16 --out critic-20",
    .exits = "0 done, 64 usage, 65 bad checkpoint or model, 74 input/output",
};

typedef struct settings {
    const char *out, *module, *iteration, *dtype, *stage;
    bool json, helped;
} settings;

static bool has_file(const char *dir, const char *name)
{
    char path[PX_PATH_MAX];
    return snprintf(path, sizeof path, "%s/%s", dir, name) < PX_PATH_MAX && px_file_exists(path);
}

static bool has_dir(const char *dir, const char *name)
{
    char path[PX_PATH_MAX];
    return snprintf(path, sizeof path, "%s/%s", dir, name) < PX_PATH_MAX && px_dir_exists(path);
}

/* The directory of the stage that status.json names last: of a run with stages, the one that is worth exporting. */
static px_status last_stage(const char *run, char *out, size_t size)
{
    char path[PX_PATH_MAX];
    json_t *status;
    PX_TRY(px_path_join(path, sizeof path, run, "status.json"));
    PX_TRY(px_json_read(path, &status));
    const char *stage = json_string_value(json_object_get(status, "stage"));
    px_status result = px_path_join(out, size, run, stage != NULL ? stage : "");
    json_decref(status);
    return result;
}

/* The stage of the run whose result of that module is newest; out stays as it is where none has one. */
static px_status stage_with(const char *run, const char *module, char *out, size_t size)
{
    DIR *entries = opendir(run);
    if (entries == NULL) {
        return px_fail(PX_IO, "%s: cannot be read", run);
    }
    px_status status = PX_OK;
    struct timespec newest = {0};
    for (struct dirent *entry; status == PX_OK && (entry = readdir(entries)) != NULL;) {
        char stage[PX_PATH_MAX], result[PX_PATH_MAX];
        struct stat about;
        bool fits = entry->d_name[0] != '.' && px_path_join(stage, sizeof stage, run, entry->d_name) == PX_OK &&
                    px_path_join(result, sizeof result, stage, module) == PX_OK;
        if (!fits || !has_file(stage, "run.h5") || stat(result, &about) != 0 || !S_ISDIR(about.st_mode)) {
            continue;
        }
        bool newer = about.st_mtim.tv_sec != newest.tv_sec ? about.st_mtim.tv_sec > newest.tv_sec
                                                            : about.st_mtim.tv_nsec > newest.tv_nsec;
        if (newer) {
            newest = about.st_mtim;
            status = px_path_join(out, size, run, entry->d_name);
        }
    }
    closedir(entries);
    return status;
}

/* Where checkpoints and results lie: the directory itself, or that of a stage in it. */
static px_status find_stage(const char *dir, const settings *s, char *out, size_t size)
{
    if (s->stage != NULL) {
        PX_TRY(px_path_join(out, size, dir, s->stage));
        return px_dir_exists(out) ? PX_OK : px_fail(PX_DATA, "%s: no such stage directory", out);
    }
    if (!has_file(dir, "run.h5") && has_file(dir, "status.json")) {
        PX_TRY(last_stage(dir, out, size));
        if (has_file(out, "config.yaml")) {
            bool wanted = s->module != NULL && s->iteration == NULL && !has_dir(out, s->module);
            return wanted ? stage_with(dir, s->module, out, size) : PX_OK;
        }
    }
    snprintf(out, size, "%s", dir);
    return PX_OK;
}

static px_status verified(const char *checkpoint)
{
    int64_t iteration;
    return px_checkpoint_verify(checkpoint, &iteration);
}

static px_status latest(const char *stage, char *out, size_t size)
{
    px_buf skipped = {0};
    int64_t iteration;
    bool found;
    int damaged;
    px_status status = px_checkpoint_latest(stage, out, size, &iteration, &found, &damaged, &skipped);
    if (status == PX_OK && skipped.length > 0) {
        px_log(PX_WARNING, "checkpoints that are not valid were left out:\n%s", skipped.data);
    }
    px_buf_free(&skipped);
    if (status == PX_OK && !found) {
        status = px_fail(PX_DATA, "%s: no checkpoint and no result; valid is a run, a stage or a checkpoint", stage);
    }
    return status;
}

static px_status numbered(const char *stage, const char *text, char *out, size_t size)
{
    char *end, name[64];
    long long iteration = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || iteration < 0) {
        return px_fail(PX_USAGE, "export: --iteration is '%s'; valid are a number, best and latest", text);
    }
    snprintf(name, sizeof name, "checkpoint_%06lld", iteration);
    PX_TRY(px_path_join(out, size, stage, name));
    if (!px_dir_exists(out)) {
        return px_fail(PX_DATA, "%s: no such checkpoint; checkpointing.interval and keep say which are kept", out);
    }
    return verified(out);
}

/* `best` is a text file like `latest`: the name of the checkpoint with the best value of checkpointing.keep_best. */
static px_status best(const char *stage, char *out, size_t size)
{
    char path[PX_PATH_MAX];
    px_buf name = {0};
    PX_TRY(px_path_join(path, sizeof path, stage, "best"));
    if (!px_file_exists(path)) {
        return px_fail(PX_DATA, "%s: no best checkpoint; checkpointing.keep_best makes the run keep one", stage);
    }
    px_status status = px_file_read(path, PX_PATH_MAX, &name);
    if (status == PX_OK) {
        name.data[strcspn(name.data, "\r\n")] = '\0';
        bool plain = name.data[0] != '\0' && name.data[0] != '.' && strchr(name.data, '/') == NULL;
        status = plain ? px_path_join(out, size, stage, name.data)
                       : px_fail(PX_DATA, "%s: names '%.64s'; valid is a checkpoint beside it", path, name.data);
    }
    px_buf_free(&name);
    return status == PX_OK ? verified(out) : status;
}

/* The directory that has the module's directory in it: a checkpoint, or a stage with results. */
static px_status find_source(const char *dir, const settings *s, char *out, size_t size)
{
    if (has_file(dir, "MANIFEST.json")) {
        snprintf(out, size, "%s", dir);
        return s->iteration == NULL ? verified(dir)
                                    : px_fail(PX_USAGE, "export: %s is a checkpoint; --iteration is for runs", dir);
    }
    char stage[PX_PATH_MAX];
    PX_TRY(find_stage(dir, s, stage, sizeof stage));
    if (s->iteration == NULL) {
        if (s->module != NULL ? has_dir(stage, s->module) : has_dir(stage, "policy") || has_dir(stage, "reward")) {
            snprintf(out, size, "%s", stage);
            return PX_OK;
        }
        return latest(stage, out, size);
    }
    if (strcmp(s->iteration, "latest") == 0) {
        return latest(stage, out, size);
    }
    return strcmp(s->iteration, "best") == 0 ? best(stage, out, size) : numbered(stage, s->iteration, out, size);
}

static px_status find_module(const char *dir, const settings *s, char *out, size_t size)
{
    char source[PX_PATH_MAX];
    if (!px_dir_exists(dir) && !px_file_exists(dir)) {
        return px_fail(PX_DATA, "%s: no such directory; valid is a run, a stage, a checkpoint, a model or a .gguf file", dir);
    }
    PX_TRY(px_gguf_find(source, sizeof source, dir));
    if (source[0] != '\0' || has_file(dir, "config.json")) { /* a model's directory already: only the type changes */
        snprintf(out, size, "%s", dir);
        return PX_OK;
    }
    if (!px_dir_exists(dir)) {
        return px_fail(PX_DATA, "%s: is a file; valid is a run, a stage, a checkpoint, a model or a .gguf file", dir);
    }
    PX_TRY(find_source(dir, s, source, sizeof source));
    const char *module = s->module != NULL ? s->module : has_dir(source, "policy") ? "policy" : "reward";
    PX_TRY(px_path_join(out, size, source, module));
    return px_dir_exists(out) ? PX_OK
                              : px_fail(PX_DATA, "%s: no %s there; valid are the modules that the algorithm trains "
                                        "(policy, critic, reward)", source, module);
}

static px_status extract_tokenizer(const char *from, const char *out)
{
    char file[PX_PATH_MAX];
    PX_TRY(px_gguf_find(file, sizeof file, from));
    return px_tokenizer_extract(file, out);
}

static px_status print_export(const char *from, const settings *s, int64_t parameters)
{
    PX_TRY(px_print_json(json_pack("{s:s, s:s, s:s, s:I}", "out", s->out, "from", from, "dtype", s->dtype, "parameters",
                                   (json_int_t)parameters)));
    return px_output_done();
}

static px_status write_model(const char *from, const settings *s, px_dtype dtype)
{
    const char *out = s->out;
    px_model_config config;
    px_model model = {0};
    bool had_score;
    PX_TRY(px_model_config_read(from, &config));
    PX_TRY(px_model_load(&model, from, config.head, &had_score));
    px_status status = px_dir_create(out);
    if (status == PX_OK) {
        status = px_model_save(&model, out, dtype, has_file(from, "tokenizer.json") ? from : NULL);
    }
    if (status == PX_OK && px_tokenizer_exists(from) && !has_file(from, "tokenizer.json")) {
        status = extract_tokenizer(from, out);
    }
    if (status == PX_OK) {
        px_log(PX_INFO, "%s: %s, %.4g million parameters, %s", out, from, (double)px_model_parameters(&model) / 1e6,
               dtype == PX_F32 ? "f32" : dtype == PX_BF16 ? "bf16" : "f16");
    }
    int64_t parameters = (int64_t)px_model_parameters(&model);
    px_model_free(&model);
    return status == PX_OK && s->json ? print_export(from, s, parameters) : status;
}

static px_status check(const settings *s, px_dtype *dtype)
{
    static const char *const modules[] = {"policy", "critic", "reward"};
    bool known = s->module == NULL;
    for (int i = 0; i < PX_COUNT(modules) && !known; i++) {
        known = strcmp(s->module, modules[i]) == 0;
    }
    if (!known) {
        return px_fail(PX_USAGE, "export: --module is '%s'; valid are policy, critic, reward", s->module);
    }
    *dtype = strcmp(s->dtype, "f32") == 0 ? PX_F32 : strcmp(s->dtype, "bf16") == 0 ? PX_BF16 : PX_F16;
    if (*dtype == PX_F16 && strcmp(s->dtype, "f16") != 0) {
        return px_fail(PX_USAGE, "export: --dtype is '%s'; valid are f32, bf16, f16", s->dtype);
    }
    return px_option_required("export", "out", s->out);
}

static px_status refuse_same(const char *from, const char *out)
{
    return px_same_file(from, out) ? px_fail(PX_USAGE, "export: --out %s is the model itself; valid is another directory", out) : PX_OK;
}

px_status px_command_export(int argc, char **argv)
{
    px_words words = {.count = 0};
    settings s = {.dtype = "f32"};
    const px_option options[] = {
        {"out", PX_OPTION_TEXT, &s.out, "DIR", "where the model is written", 0, 0},
        {"module", PX_OPTION_TEXT, &s.module, "NAME", "policy, critic or reward", 0, 0},
        {"iteration", PX_OPTION_TEXT, &s.iteration, "N|best|latest", "a checkpoint instead of the result", 0, 0},
        {"stage", PX_OPTION_TEXT, &s.stage, "NAME", "stage of a run; without: the last one that ran, or that trained the module", 0, 0},
        {"dtype", PX_OPTION_TEXT, &s.dtype, "TYPE", "f32, bf16 or f16", 0, 0},
        {"json", PX_OPTION_FLAG, &s.json, NULL, "what was written as one JSON object", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &words, &s.helped));
    if (s.helped) {
        return PX_OK;
    }
    if (words.count != 1) {
        return px_fail(PX_USAGE, "export: which run, stage or checkpoint? e.g. phalanx export runs/a --out a");
    }
    px_dtype dtype = PX_F32;
    char from[PX_PATH_MAX];
    PX_TRY(check(&s, &dtype));
    PX_TRY(find_module(words.word[0], &s, from, sizeof from));
    PX_TRY(refuse_same(from, s.out));
    return write_model(from, &s, dtype);
}
