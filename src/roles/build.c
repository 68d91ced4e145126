/* Puts the trainer of a stage together. */
#include "split.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A learner's model comes from directory `name` of the checkpoint when there is one, else from what `module` names. */
static px_status load_learner(const px_session *session, const char *module, const char *name, px_head head, const char *from,
                              px_model *model, bool *had_score)
{
    px_model_free(model);
    if (from[0] == '\0') {
        return px_module_load(session, module, head, model, had_score);
    }
    char dir[PX_PATH_MAX];
    PX_TRY(px_path_join(dir, sizeof dir, from, name));
    return px_model_load(model, dir, head, had_score);
}

static px_status plan_learner(const px_session *session, const char *module, const char *name, px_head head, const char *from,
                              px_model *model)
{
    if (from[0] == '\0') {
        return px_module_plan(session, module, head, model);
    }
    char dir[PX_PATH_MAX];
    px_model_config config;
    PX_TRY(px_path_join(dir, sizeof dir, from, name));
    PX_TRY(px_model_config_read(dir, &config));
    config.head = head;
    return px_model_plan(model, &config);
}

static int longest(const px_dataset *data, bool pairs, int *largest_item)
{
    int most = 0;
    *largest_item = 0;
    for (int64_t i = 0; data != NULL && i < px_dataset_count(data); i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        int item = row.length + (pairs ? row.rejected_length : 0);
        int length = pairs && row.rejected_length > row.length ? row.rejected_length : row.length;
        most = length > most ? length : most;
        *largest_item = item > *largest_item ? item : *largest_item;
    }
    return most;
}

/* The engine must take the largest item of any data set it will see. */
static void fit(px_learner_config *learner, const px_session *session, bool pairs, int limit)
{
    const px_dataset *all[] = {session->train, session->validation, session->demonstrations};
    for (int i = 0; i < 3; i++) {
        int item, length = longest(all[i], pairs && i < 2, &item);
        learner->max_item = item > learner->max_item ? item : learner->max_item;
        learner->max_sequence = length > learner->max_sequence ? length : learner->max_sequence;
    }
    if (!pairs && learner->max_sequence > limit) {
        learner->max_item = learner->max_sequence = limit;
    }
}

static double epochs_of(const px_stage *stage)
{
    return px_stage_is_set(stage, "stop.epochs") ? px_stage_float(stage, "stop.epochs") : 1.0;
}

/* The stage's steps, and the passes that end it: 0, where stop.steps does. */
static double derive_end(px_session *session, int64_t steps_of_epochs)
{
    const px_stage *stage = session->stage;
    bool counted = px_stage_is_set(stage, "stop.steps");
    session->total = counted ? px_stage_int(stage, "stop.steps") : steps_of_epochs;
    return counted ? 0.0 : epochs_of(stage);
}

static int limit_tokens(const px_session *session, const px_model *model)
{
    int limit = (int)px_stage_int(session->stage, "data.max_tokens");
    return limit < model->config.max_positions ? limit : model->config.max_positions;
}

static px_status prepare_lm(px_session *session, const char *from)
{
    const px_stage *stage = session->stage;
    px_lm_config *config = &session->lm;
    PX_TRY(plan_learner(session, "policy", "policy", PX_HEAD_LM, from, &session->model));
    PX_TRY(px_session_data(session, &session->model.config));
    *config = (px_lm_config){.train = session->train,
                             .validation = session->validation,
                             .max_tokens = limit_tokens(session, &session->model),
                             .pieces = session->algorithm == &px_algorithm_pretrain,
                             .packing = px_stage_bool(stage, "data.packing"),
                             .shuffle = px_stage_bool(stage, "data.shuffle"),
                             .max_skipped_steps = (int)px_stage_int(stage, "fault_tolerance.max_skipped_steps")};
    if (px_stage_is_set(stage, "training.batch_size")) {
        config->batch_size = px_stage_int(stage, "training.batch_size");
    } else {
        config->batch_tokens = px_stage_int(stage, "training.batch_tokens");
    }
    int64_t steps;
    PX_TRY(px_lm_steps(config, epochs_of(stage), (uint64_t)px_stage_int(stage, "run.seed"), px_stage_name(stage), &steps));
    config->epochs = derive_end(session, steps);
    px_learner_config *learner = &config->learner;
    *learner = px_settings_learner(session, session->total, px_stage_float(stage, "training.lr"));
    fit(learner, session, false, config->max_tokens);
    int shortest = config->pieces ? 2 : px_dataset_summary(session->train)->min_length; /* a piece predicts a token */
    if (config->batch_size > 0) {
        learner->batch_sequences = config->batch_size;
        learner->batch_tokens = config->batch_size * learner->max_item;
    } else {
        learner->batch_sequences = config->batch_tokens / (shortest > 2 ? shortest : 2) + 1;
        learner->batch_tokens = config->batch_tokens;
    }
    return PX_OK;
}

/* A policy that learns to end answers as the chat template does says so to whoever samples from it. */
static px_status load_policy(const px_session *session, const char *from, px_model *model)
{
    bool unused;
    int32_t end;
    PX_TRY(load_learner(session, "policy", "policy", PX_HEAD_LM, from, model, &unused));
    PX_TRY(px_settings_end_of_turn(session, &end));
    px_stop_ids_add(model->config.eos_ids, &model->config.eos_count, end); /* without room: as many as there can be */
    return PX_OK;
}

static px_status build_lm(px_session *session, const char *from)
{
    PX_TRY(load_policy(session, from, &session->model));
    return px_lm_create(&session->trainer, session->algorithm, &session->lm, &session->model);
}

static px_status prepare_reward(px_session *session, const char *from)
{
    const px_stage *stage = session->stage;
    px_rm_config *config = &session->rm;
    PX_TRY(plan_learner(session, "reward", "reward", PX_HEAD_SCALAR, from, &session->model));
    PX_TRY(px_session_data(session, &session->model.config));
    *config = (px_rm_config){.train = session->train,
                             .validation = session->validation,
                             .demonstrations = session->demonstrations,
                             .batch_size = px_stage_int(stage, "training.batch_size"),
                             .shuffle = px_stage_bool(stage, "data.shuffle"),
                             .center_coeff = px_stage_float(stage, "training.center_rewards_coefficient"),
                             .max_skipped_steps = (int)px_stage_int(stage, "fault_tolerance.max_skipped_steps")};
    int files;
    const px_part *parts = px_dataset_parts(session->train, &files);
    int64_t visited = px_passes(epochs_of(stage), px_parts_epoch(parts, files));
    config->epochs = derive_end(session, (visited + config->batch_size - 1) / config->batch_size);
    px_learner_config *learner = &config->learner;
    *learner = px_settings_learner(session, session->total, px_stage_float(stage, "training.lr"));
    fit(learner, session, true, limit_tokens(session, &session->model));
    learner->batch_sequences = 2 * config->batch_size;
    learner->batch_tokens = config->batch_size * learner->max_item;
    return PX_OK;
}

static px_status build_reward(px_session *session, const char *from)
{
    px_model *model = &session->model;
    bool had_score;
    PX_TRY(load_learner(session, "reward", "reward", PX_HEAD_SCALAR, from, model, &had_score));
    if (!had_score) {
        px_model_init_score(model, session->trainer.seed);
    }
    PX_TRY(px_rm_create(&session->trainer, &session->rm, model));
    px_rm_uncenter(&session->trainer);
    return PX_OK;
}

/* Prompts that the reward model's template cannot write are known before the first of them was sampled for. */
static px_status check_reading(const px_session *session, const px_dataset *prompts, const px_data_options *reads)
{
    px_ids ids = {0};
    px_row row;
    if (prompts == NULL) {
        return PX_OK;
    }
    px_dataset_row(prompts, 0, &row);
    px_status status = px_answer_encode(reads, row.json, "", "", &ids);
    px_ids_free(&ids);
    return status != PX_DATA ? status : px_stage_fail(session->stage, "rl_module.reward", "rl_module.reward: it cannot read the "
                                                      "first prompt: %s", px_error_text());
}

/* As its own stage read pairs: with its own template, or with the one that the configuration names for all. */
static px_status choose_reading(const px_session *session, px_reward_model *reward, const char *dir)
{
    px_data_options *reads = &reward->reads;
    bool own = px_tokenizer_chat_template(reward->tokenizer) != NULL;
    const char *name = own ? "auto" : px_stage_text(session->stage, "environment.chat.template");
    PX_TRY(px_text_options(reads, reward->tokenizer, dir, &reward->model.config));
    reads->kind = PX_ROWS_PAIRS;
    reads->system = px_stage_text(session->stage, "environment.chat.system");
    if (strcmp(name, "none") != 0) {
        px_status status = px_renderer_find(&reads->renderer, name, reward->tokenizer);
        PX_TRY(status == PX_OK ? status : px_stage_fail_within(session->stage, own ? "rl_module.reward" : "environment.chat.template"));
    }
    PX_TRY(check_reading(session, session->train, reads));
    return check_reading(session, session->validation, reads);
}

static px_status refuse_headless(const px_session *session)
{
    return px_stage_fail(session->stage, "rl_module.reward", "rl_module.reward: the model has no score head; valid is the "
                         "result of a reward stage or a ...ForSequenceClassification directory with num_labels 1");
}

/* The scorer of sources of kind model; it keeps its own tokenizer only where that differs from the policy's. */
static px_status prepare_reward_model(px_session *session, px_reward_model **out)
{
    char dir[PX_PATH_MAX];
    px_reward_model *reward = px_alloc(sizeof *reward, "the reward model");
    if (reward == NULL) {
        return px_error_code();
    }
    *out = reward;
    PX_TRY(px_module_plan(session, "reward", PX_HEAD_SCALAR, &reward->model));
    PX_TRY(px_module_map_plan(session, "reward", &reward->model, &session->reward_weights));
    PX_TRY(px_module_dir(session, "reward", dir, sizeof dir));
    bool named = px_stage_is_set(session->stage, "rl_module.reward.path"); /* a stage that has not run yet will add one */
    if (named && !session->reward_weights.scores) {
        return refuse_headless(session);
    }
    if (session->tokenizer != NULL && dir[0] != '\0' && px_tokenizer_exists(dir)) {
        PX_TRY(px_tokenizer_load(&reward->tokenizer, dir));
        if (px_tokenizer_hash(reward->tokenizer) == px_tokenizer_hash(session->tokenizer)) {
            px_tokenizer_destroy(reward->tokenizer);
            reward->tokenizer = NULL;
        } else {
            PX_TRY(choose_reading(session, reward, dir));
        }
    }
    if (reward->tokenizer == NULL && reward->model.config.vocab_size < session->parts.policy.config.vocab_size) {
        return px_stage_fail(session->stage, "rl_module.reward", "rl_module.reward: its vocabulary (%d) is smaller than the "
                             "policy's (%d) and it brings no tokenizer of its own", reward->model.config.vocab_size,
                             session->parts.policy.config.vocab_size);
    }
    return PX_OK;
}

static px_status load_reward_model(const px_session *session, px_model *model)
{
    bool had_score;
    px_model_free(model);
    PX_TRY(px_module_map(session, "reward", PX_HEAD_SCALAR, session->reference_weights.beside, model, &had_score));
    return had_score ? PX_OK : refuse_headless(session);
}

static bool scores_with_model(const px_rewards *rewards)
{
    for (int k = 0; rewards != NULL && k < px_rewards_count(rewards); k++) {
        if (px_rewards_spec(rewards, k)->kind == PX_REWARD_MODEL) {
            return true;
        }
    }
    return false;
}

/* Does the module's directory bring another tokenizer than the policy's? */
static px_status other_tokenizer(const px_session *session, const char *module, bool *other)
{
    char dir[PX_PATH_MAX];
    *other = false;
    PX_TRY(px_module_dir(session, module, dir, sizeof dir));
    if (session->tokenizer == NULL || dir[0] == '\0' || !px_tokenizer_exists(dir)) {
        return PX_OK;
    }
    px_tokenizer *tokenizer;
    PX_TRY(px_tokenizer_load(&tokenizer, dir));
    *other = px_tokenizer_hash(tokenizer) != px_tokenizer_hash(session->tokenizer);
    px_tokenizer_destroy(tokenizer);
    return PX_OK;
}

/* A critic reads the policy's ids, so a body that was trained on other ids cannot be one. */
static px_status choose_critic(px_session *session, const char *from)
{
    bool other;
    session->critic_module = "critic";
    PX_TRY(other_tokenizer(session, "critic", &other));
    if (other && strcmp(px_stage_origin(session->stage, "rl_module.critic"), "default") != 0) {
        return px_stage_fail(session->stage, "rl_module.critic", "rl_module.critic: its tokenizer is not the policy's; valid is a "
                             "model that reads the policy's ids, such as {same_as: policy}");
    }
    if (other && from[0] == '\0') {
        px_log(PX_NOTE, "the reward model has another tokenizer than the policy: the critic starts as the policy instead");
        session->critic_module = "policy";
    }
    return PX_OK;
}

static px_status prepare_models(px_session *session, const char *from)
{
    px_ppo_parts *parts = &session->parts;
    const px_stage *stage = session->stage;
    PX_TRY(plan_learner(session, "policy", "policy", PX_HEAD_LM, from, &parts->policy));
    PX_TRY(choose_critic(session, from));
    PX_TRY(plan_learner(session, session->critic_module, "critic", PX_HEAD_SCALAR, from, &parts->critic));
    PX_TRY(px_module_plan(session, px_reference_module(session), PX_HEAD_LM, &parts->reference));
    PX_TRY(px_module_map_plan(session, px_reference_module(session), &parts->reference, &session->reference_weights));
    if (parts->reference.config.vocab_size != parts->policy.config.vocab_size) {
        return px_stage_fail(stage, "rl_module.reference", "rl_module.reference: its vocabulary (%d) is not the policy's (%d)",
                             parts->reference.config.vocab_size, parts->policy.config.vocab_size);
    }
    if (parts->critic.config.vocab_size < parts->policy.config.vocab_size) {
        return px_stage_fail(stage, "rl_module.critic", "rl_module.critic: its vocabulary (%d) is smaller than the policy's (%d)",
                             parts->critic.config.vocab_size, parts->policy.config.vocab_size);
    }
    return PX_OK;
}

static px_status prepare_ppo(px_session *session, const char *from)
{
    px_ppo_parts *parts = &session->parts;
    const px_stage *stage = session->stage;
    session->total = px_stage_int(stage, "stop.iterations");
    PX_TRY(prepare_models(session, from));
    PX_TRY(px_session_data(session, &parts->policy.config));
    parts->tokenizer = session->tokenizer;
    parts->train = (px_prompt_set){session->train, session->rewards->train};
    parts->evaluation = (px_prompt_set){session->validation, session->rewards->evaluation};
    parts->evaluation_prompts = px_stage_is_set(stage, "evaluation.num_prompts")
                                    ? (int)px_stage_int(stage, "evaluation.num_prompts") : 1 << 20;
    parts->evaluation_samples = (int)px_stage_int(stage, "evaluation.samples");
    parts->evaluation_temperature = px_stage_float(stage, "evaluation.temperature");
    parts->collect = session->placement.split ? &session->collect : NULL;
    parts->scorers = session->placement.scorers;
    parts->learns = px_placement_role(&session->placement, px_world_rank()) == PX_ROLE_LEARNER;
    parts->scores = px_placement_scores(&session->placement, px_world_rank());
    PX_TRY(px_settings_ppo(session, &session->ppo, &parts->policy.config));
    if (scores_with_model(parts->train.rewards) || scores_with_model(parts->evaluation.rewards)) {
        return prepare_reward_model(session, &parts->reward_model);
    }
    return PX_OK;
}

static px_status build_ppo(px_session *session, const char *from)
{
    px_ppo_parts *parts = &session->parts;
    bool unused;
    if (parts->learns) {
        PX_TRY(load_policy(session, from, &parts->policy));
    }
    PX_TRY(load_learner(session, session->critic_module, "critic", PX_HEAD_SCALAR, from, &parts->critic, &unused));
    if (parts->scores) {
        px_model_free(&parts->reference);
        PX_TRY(px_module_map(session, px_reference_module(session), PX_HEAD_LM, 0, &parts->reference, &unused));
    }
    if (parts->scores && parts->reward_model != NULL) {
        PX_TRY(load_reward_model(session, &parts->reward_model->model));
    }
    if (session->collector != NULL) {
        PX_TRY(px_shared_reserve(&session->weights.shared));
        PX_TRY(px_collector_prepare(session->collector));
    }
    return px_ppo_create(&session->trainer, &session->ppo, parts);
}

/* What a step or an iteration shares out must reach every rank, or the job is larger than the batch. */
static px_status check_share(const px_session *session, const char *key, double shares, const char *what)
{
    int ranks = session->placement.learners;
    if (shares >= (double)ranks) {
        return PX_OK;
    }
    return px_stage_fail(session->stage, key, "%s is %lld: %.0f %s for %d ranks that learn, so that some would have nothing to "
                         "do; valid is a larger one, or at most %.0f ranks", key,
                         (long long)px_stage_int(session->stage, key), floor(shares), what, ranks, fmax(1.0, floor(shares)));
}

static px_status check_ranks(const px_session *session)
{
    const px_stage *stage = session->stage;
    if (session->algorithm == &px_algorithm_ppo) {
        const px_ppo_config *config = &session->ppo;
        if (!session->placement.split) {
            PX_TRY(check_share(session, "training.prompts_per_iteration", config->prompts_per_iteration, "prompts"));
        }
        return check_share(session, "training.minibatch_size", config->minibatch_size, "samples");
    }
    if (px_stage_is_set(stage, "training.batch_size")) {
        return check_share(session, "training.batch_size", (double)px_stage_int(stage, "training.batch_size"), "rows");
    }
    double row = px_dataset_summary(session->train)->mean_length;
    row = row < session->lm.max_tokens ? row : session->lm.max_tokens;
    return check_share(session, "training.batch_tokens", (double)session->lm.batch_tokens / row, "rows of mean length");
}

px_status px_session_prepare(px_session *session, const char *from)
{
    session->trainer.seed = (uint64_t)px_stage_int(session->stage, "run.seed");
    session->trainer.stage = px_stage_name(session->stage);
    session->trainer.threads = session->threads;
    if (session->tokenizer == NULL) { /* a split stage has it already */
        PX_TRY(px_session_tokenizer(session));
    }
    if (session->algorithm == &px_algorithm_ppo) {
        PX_TRY(prepare_ppo(session, from));
    } else {
        PX_TRY(session->algorithm == &px_algorithm_reward ? prepare_reward(session, from) : prepare_lm(session, from));
    }
    PX_TRY(check_ranks(session));
    px_plan_fill(session);
    return PX_OK;
}

px_sampler_plan px_session_sampler(const px_session *session)
{
    const px_ppo_parts *parts = &session->parts;
    int64_t held_out = parts->evaluation.data != NULL ? px_dataset_count(parts->evaluation.data) : 0;
    int prompts = held_out < parts->evaluation_prompts ? (int)held_out : parts->evaluation_prompts;
    int train = session->ppo.prompts_per_iteration * session->ppo.samples_per_prompt, evaluation = prompts * parts->evaluation_samples;
    return px_ppo_sampler(&session->ppo, train > evaluation ? train : evaluation);
}

/* Do two ranks of any node have the same frozen models? */
static bool frozen_twice(const px_placement *placement)
{
    for (int r = 0; r < placement->ranks; r++) {
        if (px_placement_scores(placement, r) && px_placement_first_to_score(placement, r) != r) {
            return true;
        }
    }
    return false;
}

size_t px_session_converted(const px_session *session, bool *shared)
{
    size_t bytes = session->reference_weights.beside + session->reward_weights.beside;
    *shared = bytes > 0 && frozen_twice(&session->placement);
    return bytes;
}

px_status px_session_open_frozen(px_session *session)
{
    bool shared;
    size_t bytes = px_session_converted(session, &shared);
    if (!shared) {
        return PX_OK;
    }
    PX_TRY(px_shared_open(&session->frozen, bytes));
    return px_placement_scores(&session->placement, px_world_rank()) ? px_shared_reserve(&session->frozen) : PX_OK;
}

px_status px_session_build(px_session *session, const char *from)
{
    if (session->algorithm == &px_algorithm_ppo) {
        return build_ppo(session, from);
    }
    return session->algorithm == &px_algorithm_reward ? build_reward(session, from) : build_lm(session, from);
}
