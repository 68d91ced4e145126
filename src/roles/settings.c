/* From configuration keys to the plain structs that the algorithms take. */
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *entry_key(char out[160], const char *list, int index, const char *field)
{
    snprintf(out, 160, "%s.%d.%s", list, index, field);
    return out;
}

/* argv of an exec reward; the strings belong to the configuration, the array to nobody but the run. */
static px_status read_command(const px_stage *stage, const char *list, int index, const char *const **command)
{
    char key[160];
    int count = px_stage_list_count(stage, entry_key(key, list, index, "command"));
    const char **argv = px_alloc_array((size_t)count + 1, sizeof *argv, "a command");
    if (argv == NULL) {
        return px_error_code();
    }
    for (int i = 0; i < count; i++) {
        char field[32];
        snprintf(field, sizeof field, "command.%d", i);
        argv[i] = px_stage_text(stage, entry_key(key, list, index, field));
    }
    *command = argv;
    return PX_OK;
}

static px_status read_reward(const px_stage *stage, const char *list, int index, px_reward_spec *spec)
{
    static const char *const kinds[] = {"model", "lexicon", "length", "regex", "exact", "exec"};
    char key[160];
    const char *kind = px_stage_text(stage, entry_key(key, list, index, "kind"));
    for (int k = 0; k < 6; k++) {
        if (strcmp(kind, kinds[k]) == 0) {
            spec->kind = (px_reward_kind)k;
        }
    }
    spec->name = px_stage_text(stage, entry_key(key, list, index, "name"));
    spec->weight = px_stage_float(stage, entry_key(key, list, index, "weight"));
    switch (spec->kind) {
    case PX_REWARD_LEXICON:
        spec->file = px_stage_text(stage, entry_key(key, list, index, "file"));
        break;
    case PX_REWARD_LENGTH:
        spec->target = px_stage_float(stage, entry_key(key, list, index, "target"));
        break;
    case PX_REWARD_EXACT:
        spec->field = px_stage_text(stage, entry_key(key, list, index, "field"));
        spec->pattern = px_stage_text(stage, entry_key(key, list, index, "pattern"));
        break;
    case PX_REWARD_REGEX:
        spec->pattern = px_stage_text(stage, entry_key(key, list, index, "pattern"));
        break;
    case PX_REWARD_EXEC:
        spec->timeout_s = px_stage_float(stage, entry_key(key, list, index, "timeout_s"));
        return read_command(stage, list, index, &spec->command);
    case PX_REWARD_MODEL:
        break;
    }
    return PX_OK;
}

px_status px_settings_rewards(const px_stage *stage, const char *list, px_rewards **rewards)
{
    int count = px_stage_list_count(stage, list);
    if (count > PX_MAX_REWARDS) {
        return px_stage_fail(stage, list, "%s has %d entries; valid is at most %d", list, count, PX_MAX_REWARDS);
    }
    static px_reward_spec specs[PX_MAX_STAGES * 2][PX_MAX_REWARDS]; /* borrowed by the rewards for the run's life */
    static int used;
    PX_CHECK(used < PX_MAX_STAGES * 2);
    px_reward_spec *mine = specs[used++];
    for (int i = 0; i < count; i++) {
        PX_TRY(read_reward(stage, list, i, &mine[i]));
    }
    px_status status = px_rewards_open(rewards, mine, count);
    return status == PX_OK ? status : px_stage_fail_within(stage, list);
}

static px_adamw_config adam(const px_stage *stage)
{
    return (px_adamw_config){.beta1 = px_stage_float(stage, "training.optimizer.betas.0"),
                             .beta2 = px_stage_float(stage, "training.optimizer.betas.1"),
                             .eps = px_stage_float(stage, "training.optimizer.eps"),
                             .weight_decay = px_stage_float(stage, "training.optimizer.weight_decay")};
}

static px_schedule schedule(const px_stage *stage, int64_t total)
{
    const char *kind = px_stage_text(stage, "training.lr_schedule");
    return (px_schedule){.kind = strcmp(kind, "linear") == 0 ? PX_LINEAR : strcmp(kind, "cosine") == 0 ? PX_COSINE : PX_CONSTANT,
                         .warmup = px_stage_int(stage, "training.warmup_steps"),
                         .total = total,
                         .floor = px_stage_float(stage, "training.lr_floor")};
}

px_learner_config px_settings_learner(const px_session *session, int64_t schedule_steps, double lr)
{
    const px_stage *stage = session->stage;
    bool exact = px_stage_bool(stage, "debugging.deterministic");
    double micro = 4096.0;
    if (exact) {
        micro = px_stage_float(stage, "learners.gradient_leaf_tokens");
    } else {
        px_stage_number(stage, "learners.micro_batch_tokens", &micro);
    }
    return (px_learner_config){.adam = adam(stage),
                               .schedule = schedule(stage, schedule_steps),
                               .lr = lr,
                               .grad_clip = px_stage_float(stage, "training.grad_clip"),
                               .exact = exact,
                               .micro_tokens = (int)micro,
                               .threads = session->threads,
                               .precision = session->learner_precision,
                               .recompute = px_stage_bool(stage, "learners.activation_recomputation")};
}

px_status px_settings_end_of_turn(const px_session *session, int32_t *id)
{
    const px_dataset *const sets[] = {session->train, session->validation};
    bool talks = false;
    *id = -1;
    for (int i = 0; i < 2; i++) {
        talks = talks || (sets[i] != NULL && px_dataset_summary(sets[i])->rendered);
    }
    return session->renderer != NULL && talks ? px_renderer_stop(session->renderer, session->tokenizer, id) : PX_OK;
}

/* Where prompts are conversations, answers end as the template ends them, whether or not that is the EOS too. */
static px_status read_stop_ids(const px_session *session, px_sampling *sampling, const px_model_config *policy)
{
    int32_t end;
    for (int i = 0; i < policy->eos_count; i++) {
        PX_TRY(px_sampling_stop_at(sampling, policy->eos_ids[i]));
    }
    if (session->tokenizer == NULL) {
        return PX_OK;
    }
    PX_TRY(px_sampling_stop_at(sampling, px_tokenizer_eos(session->tokenizer)));
    PX_TRY(px_settings_end_of_turn(session, &end));
    return px_sampling_stop_at(sampling, end);
}

/* Texts that are special tokens become stop ids: they are not in the text that is searched. */
static px_status read_stop_strings(px_session *session, px_sampling *sampling)
{
    static const char list[] = "environment.stop_strings";
    const px_stage *stage = session->stage;
    int count = px_stage_list_count(stage, list);
    if (count > 0 && session->tokenizer == NULL) {
        return px_stage_fail(stage, list, "%s needs a tokenizer", list);
    }
    session->stop_strings = px_alloc_array((size_t)count + 1, sizeof *session->stop_strings, "stop strings");
    if (session->stop_strings == NULL) {
        return px_error_code();
    }
    for (int i = 0; i < count; i++) {
        char key[64];
        int32_t id = -1;
        snprintf(key, sizeof key, "%s.%d", list, i);
        const char *text = px_stage_text(stage, key);
        px_status status = px_tokenizer_stop(session->tokenizer, text, &id);
        status = status == PX_OK ? px_sampling_stop_at(sampling, id) : status;
        if (status != PX_OK) {
            return px_stage_fail(stage, key, "%s: %s", key, px_error_text());
        }
        if (id < 0) {
            session->stop_strings[session->stop_string_count++] = (char *)(uintptr_t)text;
        }
    }
    return PX_OK;
}

static px_status tell_stops(const px_session *session, const px_sampling *sampling)
{
    px_buf line = {0};
    px_status status = px_buf_printf(&line, "%d tokens", sampling->max_new_tokens);
    for (int i = 0; i < sampling->stop_count && status == PX_OK; i++) {
        int id = sampling->stop_ids[i];
        const char *token = session->tokenizer != NULL ? px_tokenizer_token(session->tokenizer, id) : NULL;
        status = token != NULL ? px_buf_printf(&line, ", %s (%d)", token, id) : px_buf_printf(&line, ", id %d", id);
    }
    for (int i = 0; i < session->stop_string_count && status == PX_OK; i++) {
        status = px_buf_printf(&line, ", the text \"%s\"", session->stop_strings[i]);
    }
    if (status == PX_OK) {
        px_log(PX_INFO, "%-12s at %s", "samples stop", line.data);
    }
    px_buf_free(&line);
    return status;
}

static px_status read_sampling(px_session *session, px_sampling *sampling, const px_model_config *policy)
{
    const px_stage *stage = session->stage;
    *sampling = (px_sampling){.temperature = px_stage_float(stage, "env_runners.temperature"),
                              .top_k = (int)px_stage_int(stage, "env_runners.top_k"),
                              .top_p = px_stage_float(stage, "env_runners.top_p"),
                              .min_p = px_stage_float(stage, "env_runners.min_p"),
                              .repetition_penalty = px_stage_float(stage, "env_runners.repetition_penalty"),
                              .max_new_tokens = (int)px_stage_int(stage, "environment.max_completion_tokens"),
                              .min_new_tokens = (int)px_stage_int(stage, "environment.min_completion_tokens")};
    if (sampling->top_k != 0 || sampling->top_p < 1.0 || sampling->min_p > 0.0 || sampling->repetition_penalty != 1.0 ||
        sampling->min_new_tokens > 0) {
        px_log(PX_WARNING, "env_runners: top_k, top_p, min_p, repetition_penalty or min_completion_tokens is on: samples come from "
                           "a filtered distribution, but log-probabilities are those of the full one, so the updates are biased");
    }
    PX_TRY(read_stop_ids(session, sampling, policy));
    PX_TRY(read_stop_strings(session, sampling));
    return tell_stops(session, sampling);
}

static double or_zero(const px_stage *stage, const char *key)
{
    return px_stage_is_set(stage, key) ? px_stage_float(stage, key) : 0.0;
}

static int choice(const px_stage *stage, const char *key, const char *const *names, int count)
{
    const char *text = px_stage_text(stage, key);
    for (int i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    return 0;
}

static void read_losses(const px_stage *stage, px_ppo_config *config)
{
    static const char *const estimators[] = {"k1", "k2", "k3"};
    static const char *const aggregations[] = {"token-mean", "seq-mean-token-mean", "seq-mean-token-sum",
                                               "seq-mean-token-sum-norm"};
    static const char *const missing[] = {"none", "subtract", "set", "mask"};
    config->gamma = px_stage_float(stage, "training.gamma");
    config->lambda = px_stage_float(stage, "training.lambda_");
    config->clip_low = px_stage_float(stage, "training.clip_param");
    config->clip_high = px_stage_is_set(stage, "training.clip_param_high") ? px_stage_float(stage, "training.clip_param_high")
                                                                           : config->clip_low;
    config->dual_clip = or_zero(stage, "training.dual_clip");
    config->vf_clip = or_zero(stage, "training.vf_clip_param");
    config->vf_coeff = px_stage_float(stage, "training.vf_loss_coeff");
    config->entropy_coeff = px_stage_float(stage, "training.entropy_coeff");
    config->kl_coeff = px_stage_float(stage, "training.kl.coeff");
    config->kl_target = or_zero(stage, "training.kl.target");
    config->kl_horizon = px_stage_float(stage, "training.kl.horizon");
    config->kl_estimator = (px_kl_estimator)choice(stage, "training.kl.estimator", estimators, 3);
    config->kl_in_reward = strcmp(px_stage_text(stage, "training.kl.where"), "reward") == 0;
    config->whiten_advantages = px_stage_bool(stage, "training.whiten_advantages");
    config->bootstrap_truncated = px_stage_bool(stage, "training.bootstrap_truncated");
    config->aggregation = (px_aggregation)choice(stage, "training.loss_aggregation", aggregations, 4);
    config->missing_eos = (px_missing_eos)choice(stage, "environment.missing_eos.mode", missing, 4);
    config->missing_eos_value = px_stage_float(stage, "environment.missing_eos.value");
    config->reward_clip = or_zero(stage, "environment.reward_clip");
    config->early_stop_kl = or_zero(stage, "training.early_stop_kl");
}

/* Of both prompt sets: buffers need not hold what the limit would allow. */
static int longest_prompt(const px_session *session)
{
    int train = px_dataset_summary(session->train)->max_length;
    int held_out = session->validation != NULL ? px_dataset_summary(session->validation)->max_length : 0;
    return train > held_out ? train : held_out;
}

px_status px_settings_ppo(px_session *session, px_ppo_config *config, const px_model_config *policy)
{
    const px_stage *stage = session->stage;
    *config = (px_ppo_config){.prompts_per_iteration = (int)px_stage_int(stage, "training.prompts_per_iteration"),
                              .samples_per_prompt = (int)px_stage_int(stage, "env_runners.samples_per_prompt"),
                              .minibatch_size = (int)px_stage_int(stage, "training.minibatch_size"),
                              .num_epochs = (int)px_stage_int(stage, "training.num_epochs"),
                              .max_prompt_tokens = longest_prompt(session),
                              .shuffle = px_stage_bool(stage, "environment.shuffle"),
                              .max_skipped_steps = (int)px_stage_int(stage, "fault_tolerance.max_skipped_steps")};
    read_losses(stage, config);
    PX_TRY(read_sampling(session, &config->sampling, policy));
    config->stop_strings = (const char *const *)session->stop_strings;
    config->stop_string_count = session->stop_string_count;

    int length = config->max_prompt_tokens + config->sampling.max_new_tokens;
    int samples = config->prompts_per_iteration * config->samples_per_prompt;
    int64_t steps = (int64_t)config->num_epochs * ((samples + config->minibatch_size - 1) / config->minibatch_size);
    config->policy_learner = px_settings_learner(session, session->total * steps, px_stage_float(stage, "training.lr"));
    config->critic_learner = px_settings_learner(session, session->total * steps, px_stage_float(stage, "training.critic_lr"));
    config->policy_learner.max_item = config->policy_learner.max_sequence = length;
    config->critic_learner.max_item = config->critic_learner.max_sequence = length;
    if (session->placement.split && px_stage_int(stage, "env_runners.max_staleness") > 0) {
        config->importance_cap = px_stage_float(stage, "training.importance_sampling_cap");
    }
    px_learner_config *learners[] = {&config->policy_learner, &config->critic_learner};
    for (int i = 0; i < 2; i++) {
        learners[i]->batch_sequences = config->minibatch_size < samples ? config->minibatch_size : samples;
        learners[i]->batch_tokens = learners[i]->batch_sequences * length;
    }
    double slots = 64.0;
    px_stage_number(stage, "env_runners.max_slots", &slots);
    config->max_slots = (int)slots;
    config->sampler_precision = session->sampler_precision;
    config->inference_tokens = 2048 > length ? 2048 : length;
    return PX_OK;
}
