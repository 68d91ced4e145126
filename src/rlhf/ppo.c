/* Proximal policy optimisation from human feedback (Ziegler et al. 2019; Stiennon et al. 2020; Ouyang et al. 2022). */
#include "ppo.h"
#include "phalanx/dist.h"

#include <math.h>

static px_status iterate(px_trainer *trainer, int64_t iteration)
{
    px_ppo *ppo = trainer->self;
    const px_ppo_config *config = &ppo->config;
    px_rollout *rollout = &ppo->rollout;
    px_phase_times times = {0};
    double started = px_now(), mark = started;
    px_trainer_clear(trainer);
    trainer->dirty = false;
    px_sampling sampling = config->sampling;
    sampling.iteration = (uint32_t)iteration;

    PX_TRY(px_prompts_take(ppo, rollout, &ppo->parts.train, (iteration - 1) * config->prompts_per_iteration,
                           config->prompts_per_iteration, config->samples_per_prompt, false));
    px_phase_set("generate", iteration);
    PX_TRY(px_rollout_generate(trainer, rollout, &ppo->parts.train, &sampling));
    times.generate = px_now() - mark, mark += times.generate;

    px_phase_set("logprobs", iteration);
    PX_TRY(px_logprobs(trainer, rollout, px_softmax_temperature(sampling.temperature), !px_compute_row_invariant(), true));
    times.reference = px_now() - mark, mark += times.reference;

    px_phase_set("score", iteration);
    PX_TRY(px_score(trainer, rollout, &ppo->parts.train, iteration));
    px_reward(ppo, rollout);
    px_advantage(ppo, rollout);
    times.score = px_now() - mark, mark += times.score;

    px_phase_set("learn", iteration);
    PX_TRY(px_ppo_update(trainer, rollout, iteration));
    times.learn = px_now() - mark;

    px_ppo_measure(trainer, rollout, iteration, &times, started);
    trainer->dirty = false;
    return PX_OK;
}

/* The same prompts and random numbers each time, so that two evaluations differ by the policy alone. */
static px_status evaluate(px_trainer *trainer, int64_t iteration)
{
    px_ppo *ppo = trainer->self;
    const px_prompt_set *set = &ppo->parts.evaluation;
    px_rollout *rollout = &ppo->evaluation;
    if (set->data == NULL) {
        return PX_OK;
    }
    px_phase_set("evaluate", iteration);
    px_sampling sampling = ppo->config.sampling;
    sampling.rng = px_rng_make(trainer->seed, trainer->stage, PX_RNG_EVALUATE);
    sampling.temperature = ppo->parts.evaluation_temperature;
    PX_TRY(px_prompts_take(ppo, rollout, set, 0, ppo->parts.evaluation_prompts, ppo->parts.evaluation_samples, true));
    PX_TRY(px_rollout_generate(trainer, rollout, set, &sampling));
    PX_TRY(px_logprobs(trainer, rollout, px_softmax_temperature(sampling.temperature), !px_compute_row_invariant(), false));
    PX_TRY(px_score(trainer, rollout, set, iteration));

    double n = 0.0, score = 0.0, kl = 0.0, length = 0.0, stopped = 0.0;
    for (int i = 0; i < rollout->samples; i++) {
        rollout->kl[i] = 0.0;
        for (int64_t t = rollout->first[i]; t < rollout->first[i + 1]; t++) {
            rollout->kl[i] += (double)rollout->old_logprob[t] - (double)rollout->ref_logprob[t];
        }
        kl += rollout->kl[i];
        length += rollout->length[i];
        stopped += rollout->finish[i] == PX_FINISH_STOP;
        n += rollout->valid[i];
        score += rollout->valid[i] ? rollout->score[i] : 0.0;
    }
    double samples = rollout->samples;
    px_trainer_set_evaluation(trainer, "objective/scores", n > 0.0 ? score / n : NAN);
    px_trainer_set_evaluation(trainer, "objective/kl", kl / samples);
    px_trainer_set_evaluation(trainer, "response_length/mean", length / samples);
    px_trainer_set_evaluation(trainer, "frac_eos", stopped / samples);
    return PX_OK;
}

void px_ppo_look(const px_trainer *trainer, px_ppo_view *view)
{
    const px_ppo *ppo = trainer->self;
    *view = (px_ppo_view){.rollout = &ppo->rollout,
                          .evaluation = &ppo->evaluation,
                          .updates = ppo->updates,
                          .update_count = ppo->update_count,
                          .order = ppo->visited,
                          .order_count = ppo->visited_count,
                          .rewards = ppo->parts.train.rewards,
                          .evaluation_rewards = ppo->parts.evaluation.rewards,
                          .weights_seq_no = (int64_t)ppo->weights_seq_no};
}

static void destroy_reward_model(px_reward_model *model)
{
    if (model != NULL) {
        px_engine_destroy(model->engine);
        px_model_free(&model->model);
        px_tokenizer_destroy(model->tokenizer);
        px_free(model);
    }
}

static void destroy(px_trainer *trainer)
{
    px_ppo *ppo = trainer->self;
    px_generator_destroy(ppo->generator);
    px_engine_destroy(ppo->reference);
    px_model_free(&ppo->parts.reference);
    destroy_reward_model(ppo->parts.reward_model);
    px_rollout_free(&ppo->rollout);
    px_rollout_free(&ppo->evaluation);
    px_ragged_free(&ppo->ragged);
    px_order_free(&ppo->order);
    void *const scratch[] = {ppo->place, ppo->stats, ppo->values, ppo->dvalues, ppo->sampled_ids, ppo->sampled_logprobs,
                             ppo->completions, ppo->requests, ppo->wide, ppo->visited, ppo->permutation,
                             ppo->batch_tokens, ppo->sums, ppo->updates};
    for (size_t i = 0; i < sizeof scratch / sizeof *scratch; i++) {
        px_free(scratch[i]);
    }
    px_free(ppo);
}

/* Most samples that one rank holds of a rollout. */
static int most_local(int prompts, int each)
{
    return (prompts + px_dist_size() - 1) / px_dist_size() * each;
}

typedef struct sizes {
    int samples, evaluation, local, tokens; /* tokens: most in one forward */
    px_generator_plan generator;
    px_engine_plan inference;
} sizes;

static sizes derive_sizes(const px_ppo_config *config, int evaluation_prompts, int evaluation_samples)
{
    sizes s = {.samples = config->prompts_per_iteration * config->samples_per_prompt,
               .evaluation = evaluation_prompts * evaluation_samples};
    int train = most_local(config->prompts_per_iteration, config->samples_per_prompt);
    int held_out = most_local(evaluation_prompts, evaluation_samples);
    int length = config->max_prompt_tokens + config->sampling.max_new_tokens;
    s.local = train > held_out ? train : held_out;
    s.tokens = config->inference_tokens;
    const px_learner_config *learners[] = {&config->policy_learner, &config->critic_learner};
    for (int i = 0; i < 2; i++) {
        int most = px_learner_tokens(learners[i]);
        s.tokens = most > s.tokens ? most : s.tokens;
    }
    s.generator = (px_generator_plan){.max_slots = config->max_slots < s.local ? config->max_slots : s.local,
                                      .max_length = length,
                                      .max_prefill = config->inference_tokens,
                                      .threads = config->policy_learner.threads};
    s.inference = (px_engine_plan){.max_tokens = config->inference_tokens,
                                   .max_sequences = config->inference_tokens,
                                   .max_sequence = length,
                                   .threads = config->policy_learner.threads};
    return s;
}

size_t px_ppo_bytes(const px_ppo_config *config, const px_model_config *policy, int reward_count)
{
    px_model model = {0};
    sizes s = derive_sizes(config, 0, 0);
    if (px_model_plan(&model, policy) != PX_OK) {
        return 0;
    }
    size_t bytes = px_generator_bytes(&model, &s.generator) + px_engine_bytes(&model, &s.inference) +
                   px_rollout_bytes(s.samples, config->max_prompt_tokens, config->sampling.max_new_tokens, reward_count) +
                   (size_t)s.samples * (size_t)config->sampling.max_new_tokens * 4 * sizeof(double);
    px_model_free(&model);
    return bytes;
}

static px_status alloc_scratch(px_ppo *ppo, const sizes *s)
{
    const px_ppo_config *config = &ppo->config;
    size_t room = (size_t)config->sampling.max_new_tokens, local = (size_t)s->local, tokens = (size_t)s->tokens;
    size_t most = (size_t)(s->samples > s->evaluation ? s->samples : s->evaluation);
    size_t epochs = (size_t)config->num_epochs, samples = (size_t)s->samples;
    size_t steps = epochs * (samples / (size_t)config->minibatch_size + 1);
    const struct {
        void **where;
        size_t count, size;
    } wanted[] = {
        {(void **)&ppo->place, tokens, sizeof(int32_t)},
        {(void **)&ppo->stats, tokens, sizeof(px_row_stats)},
        {(void **)&ppo->values, tokens, sizeof(double)},
        {(void **)&ppo->dvalues, tokens, sizeof(double)},
        {(void **)&ppo->sampled_ids, local * room, sizeof(int32_t)},
        {(void **)&ppo->sampled_logprobs, local * room, sizeof(float)},
        {(void **)&ppo->completions, local, sizeof(px_completion)},
        {(void **)&ppo->requests, local, sizeof(px_request)},
        {(void **)&ppo->wide, most * room * 4, sizeof(double)},
        {(void **)&ppo->visited, epochs * samples, sizeof(int32_t)},
        {(void **)&ppo->permutation, samples, sizeof(int64_t)},
        {(void **)&ppo->batch_tokens, samples, sizeof(int32_t)},
        {(void **)&ppo->sums, samples * PX_PPO_STATS, sizeof(double)},
        {(void **)&ppo->updates, steps, sizeof(px_update_row)},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        *wanted[i].where = px_alloc_array(wanted[i].count, wanted[i].size, "ppo buffers");
        if (*wanted[i].where == NULL) {
            return px_error_code();
        }
    }
    return px_ragged_alloc(&ppo->ragged, s->tokens);
}

px_status px_ppo_create(px_trainer *trainer, const px_ppo_config *config, px_ppo_parts *parts)
{
    PX_TRY(px_trainer_begin(trainer, &px_algorithm_ppo));
    px_ppo *ppo = px_alloc(sizeof *ppo, "the PPO trainer");
    if (ppo == NULL) {
        return px_error_code();
    }
    trainer->self = ppo;
    ppo->config = *config;
    ppo->parts = *parts;
    parts->reference = (px_model){0};
    parts->reward_model = NULL;
    ppo->config.sampling.rng = px_rng_make(trainer->seed, trainer->stage, PX_RNG_SAMPLE);
    ppo->permute = px_rng_make(trainer->seed, trainer->stage, PX_RNG_PERMUTE);
    ppo->kl_coeff = config->kl_coeff;

    int64_t held_out = parts->evaluation.data != NULL ? px_dataset_count(parts->evaluation.data) : 0;
    if (ppo->parts.evaluation_prompts > held_out) {
        ppo->parts.evaluation_prompts = (int)held_out;
    }
    sizes s = derive_sizes(config, ppo->parts.evaluation_prompts, parts->evaluation_samples);
    PX_TRY(px_order_init(&ppo->order, px_dataset_count(parts->train.data), config->shuffle,
                         px_rng_make(trainer->seed, trainer->stage, PX_RNG_ORDER)));
    PX_TRY(alloc_scratch(ppo, &s));
    PX_TRY(px_rollout_alloc(&ppo->rollout, s.samples, config->max_prompt_tokens, config->sampling.max_new_tokens,
                            px_rewards_count(parts->train.rewards)));
    if (s.evaluation > 0) {
        PX_TRY(px_rollout_alloc(&ppo->evaluation, s.evaluation, config->max_prompt_tokens, config->sampling.max_new_tokens,
                                px_rewards_count(parts->evaluation.rewards)));
    }
    PX_TRY(px_generator_create(&ppo->generator, &parts->policy.config, &s.generator));
    PX_TRY(px_engine_create(&ppo->reference, &ppo->parts.reference.config, &s.inference));
    trainer->learners[0].name = "policy";
    trainer->learners[1].name = "critic";
    trainer->learner_count = 2;
    PX_TRY(px_learner_create(&trainer->learners[0].learner, &parts->policy, &config->policy_learner));
    PX_TRY(px_learner_create(&trainer->learners[1].learner, &parts->critic, &config->critic_learner));
    px_trainer_count(trainer, "kl_coeff", &ppo->kl_coeff);
    px_trainer_count(trainer, "num_env_steps_sampled_lifetime", &ppo->lifetime_tokens);
    px_trainer_count(trainer, "num_episodes_lifetime", &ppo->lifetime_samples);
    px_trainer_count(trainer, "num_module_updates_lifetime", &ppo->lifetime_updates);
    px_trainer_count(trainer, "weights_seq_no", &ppo->weights_seq_no);
    return PX_OK;
}

const px_algorithm px_algorithm_ppo = {"ppo", px_ppo_metrics, px_ppo_evaluation_metrics, PX_PPO_METRIC_COUNT,
                                       PX_PPO_EVALUATION_COUNT, iterate, evaluate, destroy};
