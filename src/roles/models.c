/* What rl_module names: a directory, the result of an earlier stage, another module, or a new model. */
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *field(char out[160], const char *module, const char *name)
{
    snprintf(out, 160, "rl_module.%s.%s", module, name);
    return out;
}

px_status px_stage_dir(const px_run *run, const px_stage *stage, char *out, size_t size)
{
    if (!px_config_has_stages(run->config)) {
        snprintf(out, size, "%s", run->dir);
        return PX_OK;
    }
    return px_path_join(out, size, run->dir, px_stage_name(stage));
}

static bool is_source(const px_stage *stage, const char *module, const char *kind)
{
    char key[160];
    return px_stage_is_set(stage, field(key, module, kind));
}

/* The entry that says where a module's weights come from: of this stage, or (in a plan) of an earlier one. */
typedef struct source {
    const px_stage *stage;
    const char *module;
} source;

/* A run that branches off RUN/STAGE/checkpoint_N has no results of earlier stages: they are those of RUN, where there are any. */
static void branch_source(const char *from, const char *stage, const char *module, char *result, size_t size)
{
    char relative[PX_PATH_MAX], absolute[PX_PATH_MAX];
    int length = snprintf(relative, sizeof relative, "%s/../../%s/%s", from, stage, module);
    if (length > 0 && (size_t)length < sizeof relative && realpath(relative, absolute) != NULL && strlen(absolute) < size) {
        strcpy(result, absolute);
    }
}

static const px_stage *earlier_stage(const px_session *session, const source *from, char *result, size_t size, px_status *status)
{
    char key[160], dir[PX_PATH_MAX];
    const char *name = px_stage_text(from->stage, field(key, from->module, "stage"));
    const px_stage *earlier = px_config_stage_named(session->run->config, name);
    if (earlier == NULL) { /* a run's config.yaml is of one stage alone */
        *status = px_stage_fail(from->stage, key, "%s: stage '%s' is not in this file; valid is {path: DIR}, such as its result in the "
                                "run's directory, or the file of the whole experiment", key, name);
        return NULL;
    }
    const char *module = strcmp(px_stage_algorithm(earlier), "reward") == 0 ? "reward" : "policy";
    *status = px_stage_dir(session->run, earlier, dir, sizeof dir);
    *status = *status == PX_OK ? px_path_join(result, size, dir, module) : *status;
    if (*status == PX_OK && session->run->options.from != NULL && !px_dir_exists(result)) {
        branch_source(session->run->options.from, name, module, result, size);
    }
    return earlier;
}

/* A result, a checkpoint and a recovery state are replaced in the course of the run, with whatever lies in them. */
static px_status check_place(const px_session *session, const char *key, const char *dir)
{
    static const char *const written[] = {"policy", "critic", "reward", "checkpoint_", "recovery_"};
    char model[PX_PATH_MAX], own[PX_PATH_MAX];
    if (realpath(dir, model) == NULL || realpath(session->dir, own) == NULL) { /* what is not there is not overwritten */
        return PX_OK;
    }
    size_t length = strlen(own);
    for (size_t i = 0; i < sizeof written / sizeof *written && strncmp(model, own, length) == 0 && model[length] == '/'; i++) {
        const char *end = model + length + 1 + strlen(written[i]);
        bool same = strncmp(model + length + 1, written[i], strlen(written[i])) == 0;
        if (same && (*end == '\0' || *end == '/' || end[-1] == '_')) {
            return px_stage_fail(session->stage, key, "%s: %s is where this run writes its own; valid is a model elsewhere, or another "
                                 "run.dir", key, dir);
        }
    }
    return PX_OK;
}

/* dir "": new weights. A plan is made before the stages have run: there a result that is not there yet stands for what its
 * stage starts from, which has the same shape. */
static px_status find_source(const px_session *session, const char *module, source *from, char *dir, size_t size)
{
    char key[160];
    *from = (source){session->stage, module};
    dir[0] = '\0';
    for (int hop = 0; hop < 4 * PX_MAX_STAGES; hop++) {
        if (is_source(from->stage, from->module, "path")) {
            return px_stage_path(from->stage, field(key, from->module, "path"), dir, size);
        }
        if (is_source(from->stage, from->module, "stage")) {
            px_status status;
            const px_stage *earlier = earlier_stage(session, from, dir, size, &status);
            if (status != PX_OK || px_dir_exists(dir)) {
                return status;
            }
            if (!session->run->planning) {
                return px_stage_fail(from->stage, field(key, from->module, "stage"), "stage '%s' has no result yet (%s); run it "
                                     "first", px_stage_name(earlier), dir);
            }
            dir[0] = '\0';
            *from = (source){earlier, strcmp(px_stage_algorithm(earlier), "reward") == 0 ? "reward" : "policy"};
        } else if (is_source(from->stage, from->module, "same_as")) {
            from->module = px_stage_text(from->stage, field(key, from->module, "same_as"));
        } else {
            return PX_OK;
        }
    }
    return PX_OK;
}

/* The same before the model is read. A directory that is not there is the key's fault, whatever is wrong in one is its own. */
static px_status find_model(const px_session *session, const char *module, source *from, char *dir, size_t size)
{
    char key[160];
    PX_TRY(find_source(session, module, from, dir, size));
    if (dir[0] == '\0' || !is_source(from->stage, from->module, "path")) {
        return PX_OK;
    }
    field(key, from->module, "path");
    if (px_model_path_check(dir) != PX_OK) {
        return px_stage_fail_within(from->stage, key);
    }
    return from->stage == session->stage ? check_place(session, key, dir) : PX_OK;
}

px_status px_module_dir(const px_session *session, const char *module, char *out, size_t size)
{
    source from;
    return find_source(session, module, &from, out, size);
}

static double number_or(const px_stage *stage, const char *module, const char *name, double otherwise)
{
    char key[160];
    px_stage_number(stage, field(key, module, name), &otherwise);
    return otherwise;
}

static px_status new_config(const px_session *session, const source *from, px_head head, px_model_config *config)
{
    const px_stage *stage = from->stage;
    const char *module = from->module;
    char key[160];
    px_model_config c;
    px_family family;
    PX_TRY(px_family_parse(px_stage_text(stage, field(key, module, "new.architecture")), &family));
    px_model_config_defaults(&c, family);
    bool learned = c.rope.type == PX_ROPE_NONE, plain = learned || family == PX_GPT_NEOX; /* plain: an MLP without gate */
    c.head = head;
    c.hidden_size = (int)px_stage_int(stage, field(key, module, "new.hidden_size"));
    c.layers = (int)px_stage_int(stage, field(key, module, "new.num_hidden_layers"));
    c.heads = (int)px_stage_int(stage, field(key, module, "new.num_attention_heads"));
    c.kv_heads = (int)number_or(stage, module, "new.num_key_value_heads", c.heads);
    c.head_dim = (int)number_or(stage, module, "new.head_dim", c.hidden_size / c.heads);
    double inner = plain ? 4.0 * c.hidden_size : 32.0 * ceil(8.0 * c.hidden_size / 3.0 / 32.0);
    c.intermediate_size = (int)number_or(stage, module, "new.intermediate_size", inner);
    c.max_positions = (int)px_stage_int(stage, field(key, module, "new.max_position_embeddings"));
    double vocabulary = session->tokenizer != NULL ? px_tokenizer_size(session->tokenizer) : 0.0;
    c.vocab_size = (int)number_or(stage, module, "new.vocab_size", vocabulary);
    if (c.vocab_size == 0) {
        return px_stage_fail(stage, field(key, module, "new.vocab_size"),
                             "%s is auto, but there is no tokenizer; give a number or rl_module.tokenizer", key);
    }
    c.tied = px_stage_bool(stage, field(key, module, "new.tie_word_embeddings"));
    if (family != PX_OPT) c.norm_eps = px_stage_float(stage, field(key, module, "new.rms_norm_eps"));
    if (px_stage_bool(stage, field(key, module, "new.attention_bias"))) c.attention_bias = c.output_bias = true;
    c.window = (int)number_or(stage, module, "new.sliding_window", 0);
    c.initializer_range = px_stage_float(stage, field(key, module, "new.initializer_range"));
    if (!learned) c.rope.theta = px_stage_float(stage, field(key, module, "new.rope_theta"));
    px_model_config_complete(&c);
    if (session->tokenizer != NULL) {
        c.bos_id = px_tokenizer_bos(session->tokenizer);
        c.pad_id = px_tokenizer_pad(session->tokenizer);
        if (px_tokenizer_eos(session->tokenizer) >= 0) {
            c.eos_ids[c.eos_count++] = px_tokenizer_eos(session->tokenizer);
        }
    }
    px_status status = px_model_config_check(&c);
    if (status != PX_OK) {
        return px_stage_fail(stage, field(key, module, "new.hidden_size"), "rl_module.%s.new: %s", module, px_error_text());
    }
    *config = c;
    return PX_OK;
}

px_status px_module_plan(const px_session *session, const char *module, px_head head, px_model *model)
{
    char dir[PX_PATH_MAX];
    px_model_config config;
    source from;
    PX_TRY(find_model(session, module, &from, dir, sizeof dir));
    if (dir[0] == '\0') {
        PX_TRY(new_config(session, &from, head, &config));
    } else {
        PX_TRY(px_model_config_read(dir, &config));
        config.head = head;
    }
    return px_model_plan(model, &config);
}

px_status px_module_load(const px_session *session, const char *module, px_head head, px_model *model, bool *had_score)
{
    char dir[PX_PATH_MAX];
    px_model_config config;
    source from;
    PX_TRY(find_model(session, module, &from, dir, sizeof dir));
    *had_score = false;
    if (dir[0] != '\0') {
        return px_model_load(model, dir, head, had_score);
    }
    PX_TRY(new_config(session, &from, head, &config));
    PX_TRY(px_model_plan(model, &config));
    PX_TRY(px_model_alloc(model));
    px_model_init(model, (uint64_t)px_stage_int(session->stage, "run.seed"));
    return PX_OK;
}

px_status px_module_map(const px_session *session, const char *module, px_head head, size_t offset, px_model *model,
                        bool *had_score)
{
    double start = px_now();
    char dir[PX_PATH_MAX];
    px_model_config config;
    source from;
    bool fill = px_placement_first_to_score(&session->placement, px_world_rank()) == px_world_rank();
    px_model_memory shared = {session->frozen.fd, offset, fill};
    const px_model_memory *memory = session->frozen.data != NULL ? &shared : NULL;
    PX_TRY(find_model(session, module, &from, dir, sizeof dir));
    if (dir[0] != '\0') {
        PX_TRY(px_model_map(model, dir, head, memory, had_score));
    } else if (memory == NULL) {
        PX_TRY(px_module_load(session, module, head, model, had_score));
    } else {
        *had_score = false;
        PX_TRY(new_config(session, &from, head, &config));
        PX_TRY(px_model_plan(model, &config));
        PX_TRY(px_model_init_shared(model, (uint64_t)px_stage_int(session->stage, "run.seed"), memory));
    }
    px_log_rank(PX_DEBUG, "%s: frozen, in place after %.1f ms", module, 1e3 * (px_now() - start));
    return PX_OK;
}

px_status px_module_map_plan(const px_session *session, const char *module, const px_model *model, px_map_bytes *bytes)
{
    char dir[PX_PATH_MAX];
    *bytes = (px_map_bytes){.beside = px_whole_pages(model->block * sizeof(px_real))};
    PX_TRY(px_module_dir(session, module, dir, sizeof dir));
    return dir[0] != '\0' ? px_model_map_plan(model, dir, bytes) : PX_OK;
}

const char *px_reference_module(const px_session *session)
{
    return px_stage_is_set(session->stage, "rl_module.reference") ? "reference" : "policy";
}

px_status px_session_frozen(px_session *session)
{
    bool reward = session->parts.reward_model != NULL;
    const char *const modules[PX_FROZEN] = {px_reference_module(session), reward ? "reward" : NULL};
    for (int which = 0; which < PX_FROZEN && session->algorithm == &px_algorithm_ppo; which++) {
        char dir[PX_PATH_MAX] = "";
        source from;
        PX_TRY(modules[which] != NULL ? find_model(session, modules[which], &from, dir, sizeof dir) : PX_OK);
        PX_TRY(dir[0] != '\0' ? px_model_hash(dir, &session->frozen_hash[which]) : PX_OK);
    }
    return PX_OK;
}

static bool starts_from(const px_stage *stage, const char *earlier)
{
    static const char *const modules[] = {"policy", "reference", "critic", "reward"};
    for (int i = 0; i < 4; i++) {
        char key[160];
        if (is_source(stage, modules[i], "stage") && strcmp(px_stage_text(stage, field(key, modules[i], "stage")), earlier) == 0) {
            return true;
        }
    }
    return false;
}

const char *px_stage_begun_from(const px_session *session)
{
    const px_config *config = session->run->config;
    for (int i = 0; i < px_config_stage_count(config); i++) {
        char dir[PX_PATH_MAX], file[PX_PATH_MAX];
        const px_stage *later = px_config_stage(config, i);
        if (later != session->stage && starts_from(later, px_stage_name(session->stage)) &&
            px_stage_dir(session->run, later, dir, sizeof dir) == PX_OK &&
            px_path_join(file, sizeof file, dir, "run.h5") == PX_OK && px_file_exists(file)) {
            return px_stage_name(later);
        }
    }
    return NULL;
}

px_status px_session_tokenizer(px_session *session)
{
    static const char *const modules[] = {"policy", "reward"};
    const px_stage *stage = session->stage;
    const char *module = modules[strcmp(px_stage_algorithm(stage), "reward") == 0];
    char dir[PX_PATH_MAX];
    bool given = px_stage_is_set(stage, "rl_module.tokenizer");
    if (!given) {
        source from;
        PX_TRY(find_source(session, module, &from, dir, sizeof dir));
        given = from.stage != stage && px_stage_is_set(from.stage, "rl_module.tokenizer");
        stage = from.stage;
    }
    if (given) {
        PX_TRY(px_stage_path(stage, "rl_module.tokenizer", dir, sizeof dir));
    }
    session->tokenizer_dir[0] = '\0';
    if (dir[0] == '\0') {
        return PX_OK;
    }
    bool there = px_tokenizer_exists(dir);
    if (!given && (!there || px_model_path_check(dir) != PX_OK)) { /* id rows need none; text rows, and who reads the model, say so */
        px_error_clear();
        return PX_OK;
    }
    if (px_tokenizer_load(&session->tokenizer, dir) != PX_OK) {
        return there ? px_error_code() : px_stage_fail_within(stage, "rl_module.tokenizer");
    }
    snprintf(session->tokenizer_dir, sizeof session->tokenizer_dir, "%s", px_tokenizer_dir(session->tokenizer));
    return PX_OK;
}
