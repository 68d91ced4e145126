/* Proximal policy optimisation from human feedback (Ziegler et al. 2019; Stiennon et al. 2020; Ouyang et al. 2022). */
#include "ppo.h"
#include "phalanx/dist.h"

#include <math.h>
#include <string.h>

bool px_ppo_recomputes(const px_ppo_config *config)
{
    return !px_compute_row_invariant() || config->sampler_precision != config->policy_learner.precision;
}

static px_status iterate(px_trainer *trainer, int64_t iteration)
{
    px_ppo *ppo = trainer->self;
    const px_ppo_config *config = &ppo->config;
    px_rollout *rollout = &ppo->rollout;
    px_phase_times times = {0};
    double started = px_now(), mark = started, work = px_compute_flops();
    px_trainer_clear(trainer);
    trainer->dirty = false;

    PX_TRY(px_prompts_take(ppo, rollout, &ppo->parts.train, (iteration - 1) * config->prompts_per_iteration,
                           config->prompts_per_iteration, config->samples_per_prompt, false));
    px_phase_set("generate", iteration);
    PX_TRY(px_rollout_generate(trainer, rollout, iteration, false));
    times.generate = px_now() - mark, mark += times.generate;
    times.generate_flops = px_compute_flops() - work, work += times.generate_flops;

    px_phase_set("logprobs", iteration);
    bool recompute = config->importance_cap > 0.0 || px_ppo_recomputes(config);
    PX_TRY(px_logprobs(trainer, rollout, px_softmax_temperature(config->sampling.temperature), recompute, true));
    times.reference = px_now() - mark, mark += times.reference;
    times.reference_flops = px_compute_flops() - work, work += times.reference_flops;

    px_phase_set("score", iteration);
    PX_TRY(px_score(trainer, rollout, &ppo->parts.train, iteration));
    px_reward(ppo, rollout);
    px_advantage(ppo, rollout);
    times.score = px_now() - mark, mark += times.score;
    times.score_flops = px_compute_flops() - work, work += times.score_flops;

    px_phase_set("learn", iteration);
    PX_TRY(px_ppo_update(trainer, rollout, iteration));
    times.learn = px_now() - mark;
    times.learn_flops = px_compute_flops() - work;

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
    double temperature = px_softmax_temperature(ppo->parts.evaluation_temperature);
    PX_TRY(px_prompts_take(ppo, rollout, set, 0, ppo->parts.evaluation_prompts, ppo->parts.evaluation_samples, true));
    PX_TRY(px_rollout_generate(trainer, rollout, iteration, true));
    PX_TRY(px_logprobs(trainer, rollout, temperature, px_ppo_recomputes(&ppo->config), false));
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
    px_sampler_free(&ppo->sampler);
    px_engine_destroy(ppo->reference);
    px_model_free(&ppo->parts.reference);
    destroy_reward_model(ppo->parts.reward_model);
    px_rollout_free(&ppo->rollout);
    px_rollout_free(&ppo->evaluation);
    px_ragged_free(&ppo->ragged);
    px_order_free(&ppo->order);
    px_buf_free(&ppo->text);
    px_ids_free(&ppo->ids);
    void *const scratch[] = {ppo->texts, ppo->places, ppo->raw,
                             ppo->place, ppo->stats, ppo->values, ppo->dvalues, ppo->wide, ppo->visited, ppo->permutation,
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
    int rewards;                            /* more of training's and evaluation's */
    px_sampler_plan sampler;                /* samples 0: others sample */
    px_engine_plan reference, reward;
} sizes;

static int smaller(int64_t a, int64_t b)
{
    return (int)(a < b ? a : b);
}

/* Prompts of one evaluation: no more than there are. */
static int evaluation_prompts(const px_ppo_parts *parts)
{
    int64_t held_out = parts->evaluation.data != NULL ? px_dataset_count(parts->evaluation.data) : 0;
    return smaller(parts->evaluation_prompts, held_out);
}

static px_engine_plan plan_reward(const px_ppo_config *config, const px_reward_model *reward, const px_engine_plan *reference)
{
    px_engine_plan plan = *reference;
    if (reward->tokenizer != NULL) { /* its ids of the same text may be more */
        plan.max_tokens = config->inference_tokens;
    }
    plan.max_sequence = smaller(plan.max_tokens, reward->model.config.max_positions);
    return plan;
}

static sizes derive_sizes(const px_ppo_config *config, const px_ppo_parts *parts)
{
    int held_out_prompts = evaluation_prompts(parts);
    sizes s = {.samples = config->prompts_per_iteration * config->samples_per_prompt,
               .evaluation = held_out_prompts * parts->evaluation_samples};
    int train = most_local(config->prompts_per_iteration, config->samples_per_prompt);
    int held_out = most_local(held_out_prompts, parts->evaluation_samples);
    int length = config->max_prompt_tokens + config->sampling.max_new_tokens;
    s.local = train > held_out ? train : held_out;
    s.sampler = parts->collect == NULL ? px_ppo_sampler(config, s.local) : (px_sampler_plan){0};
    int tokens = smaller(config->inference_tokens, (int64_t)s.local * length);
    s.reference = (px_engine_plan){.max_tokens = tokens,
                                   .max_sequences = smaller(tokens, s.local),
                                   .max_sequence = length,
                                   .threads = config->policy_learner.threads,
                                   .precision = config->policy_learner.precision};
    int train_rewards = px_rewards_count(parts->train.rewards);
    int held_out_rewards = s.evaluation > 0 ? px_rewards_count(parts->evaluation.rewards) : 0;
    s.rewards = train_rewards > held_out_rewards ? train_rewards : held_out_rewards;
    s.tokens = tokens;
    if (parts->reward_model != NULL) {
        s.reward = plan_reward(config, parts->reward_model, &s.reference);
        s.tokens = s.reward.max_tokens > s.tokens ? s.reward.max_tokens : s.tokens;
    }
    const px_learner_config *learners[] = {&config->policy_learner, &config->critic_learner};
    for (int i = 0; i < 2; i++) {
        int most = px_learner_tokens(learners[i]);
        s.tokens = most > s.tokens ? most : s.tokens;
    }
    return s;
}

typedef struct buffer {
    void **where;
    size_t count, size;
} buffer;

enum { BUFFERS = 13 };

static void list_buffers(px_ppo *ppo, const px_ppo_config *config, const sizes *s, buffer out[BUFFERS])
{
    size_t room = (size_t)config->sampling.max_new_tokens, local = (size_t)s->local, tokens = (size_t)s->tokens;
    size_t epochs = (size_t)config->num_epochs, samples = (size_t)s->samples;
    size_t steps = epochs * (samples / (size_t)config->minibatch_size + 1);
    const buffer all[BUFFERS] = {
        {(void **)&ppo->place, tokens, sizeof(int32_t)},
        {(void **)&ppo->stats, tokens, sizeof(px_row_stats)},
        {(void **)&ppo->values, tokens, sizeof(double)},
        {(void **)&ppo->dvalues, tokens, sizeof(double)},
        {(void **)&ppo->wide, samples * room * 4, sizeof(double)},
        {(void **)&ppo->texts, local, sizeof(px_reward_sample)},
        {(void **)&ppo->places, local * 2, sizeof(size_t)},
        {(void **)&ppo->raw, local * (size_t)s->rewards, sizeof(double)},
        {(void **)&ppo->visited, epochs * samples, sizeof(int32_t)},
        {(void **)&ppo->permutation, samples, sizeof(int64_t)},
        {(void **)&ppo->batch_tokens, samples, sizeof(int32_t)},
        {(void **)&ppo->sums, samples * PX_PPO_STATS, sizeof(double)},
        {(void **)&ppo->updates, steps, sizeof(px_update_row)},
    };
    memcpy(out, all, sizeof all);
}

px_status px_ppo_rows(px_trainer *trainer, int64_t iteration, int64_t *rows)
{
    px_ppo *ppo = trainer->self;
    int prompts = ppo->config.prompts_per_iteration;
    for (int slot = 0; slot < prompts; slot++) {
        rows[slot] = px_order_row(&ppo->order, (iteration - 1) * prompts + slot);
        if (rows[slot] < 0) {
            return px_error_code();
        }
    }
    return PX_OK;
}

px_sampler_plan px_ppo_sampler(const px_ppo_config *config, int samples)
{
    int slots = smaller(config->max_slots, samples);
    return (px_sampler_plan){.samples = samples,
                             .max_prompt = config->max_prompt_tokens,
                             .slots = slots,
                             .prefill = smaller(config->inference_tokens, (int64_t)slots * config->max_prompt_tokens),
                             .threads = config->policy_learner.threads,
                             .precision = config->sampler_precision};
}

px_sampling px_ppo_sampling(const px_ppo_config *config, uint64_t seed, const char *stage, int64_t iteration, bool evaluation,
                            double evaluation_temperature)
{
    px_sampling sampling = config->sampling;
    sampling.rng = px_rng_make(seed, stage, evaluation ? PX_RNG_EVALUATE : PX_RNG_SAMPLE);
    if (evaluation) { /* the same random numbers each time */
        sampling.iteration = 0;
        sampling.temperature = evaluation_temperature;
    } else {
        sampling.iteration = (uint32_t)iteration;
    }
    return sampling;
}

px_ppo_memory px_ppo_plan(const px_ppo_config *config, const px_ppo_parts *parts)
{
    sizes s = derive_sizes(config, parts);
    px_ppo none = {0};
    buffer buffers[BUFFERS];
    px_ppo_memory memory = {.scratch = px_ragged_bytes(s.tokens)};
    list_buffers(&none, config, &s, buffers);
    for (int i = 0; i < BUFFERS; i++) {
        memory.scratch += buffers[i].count * buffers[i].size;
    }
    if (s.sampler.samples > 0) {
        memory.generator = px_sampler_bytes(&s.sampler, config, &parts->policy, &memory.cache);
    }
    memory.reference = parts->scores ? px_engine_bytes(&parts->reference, &s.reference) : 0;
    memory.reward = parts->scores && parts->reward_model != NULL ? px_engine_bytes(&parts->reward_model->model, &s.reward) : 0;
    memory.rollout = px_rollout_bytes(s.samples, config->max_prompt_tokens, config->sampling.max_new_tokens,
                                      px_rewards_count(parts->train.rewards));
    if (s.evaluation > 0) {
        memory.rollout += px_rollout_bytes(s.evaluation, config->max_prompt_tokens, config->sampling.max_new_tokens,
                                           px_rewards_count(parts->evaluation.rewards));
    }
    return memory;
}

static px_status alloc_scratch(px_ppo *ppo, const sizes *s)
{
    buffer buffers[BUFFERS];
    list_buffers(ppo, &ppo->config, s, buffers);
    for (int i = 0; i < BUFFERS; i++) {
        *buffers[i].where = px_alloc_array(buffers[i].count, buffers[i].size, "ppo buffers");
        if (*buffers[i].where == NULL) {
            return px_error_code();
        }
    }
    return px_ragged_alloc(&ppo->ragged, s->tokens);
}

/* What runs a forward without learning: the sampler, and the engines of the frozen models. */
static px_status create_engines(px_ppo *ppo, const px_model_config *policy, const sizes *s)
{
    px_reward_model *reward = ppo->parts.reward_model;
    if (s->sampler.samples > 0) {
        PX_TRY(px_sampler_create(&ppo->sampler, &s->sampler, &ppo->config, policy, ppo->parts.tokenizer));
    }
    if (reward != NULL) {
        reward->max_tokens = s->reward.max_sequence;
    }
    if (!ppo->parts.scores) {
        return PX_OK;
    }
    PX_TRY(px_engine_create(&ppo->reference, &ppo->parts.reference.config, &s->reference));
    return reward != NULL ? px_engine_create(&reward->engine, &reward->model.config, &s->reward) : PX_OK;
}

/* A scorer needs the critic's values, and of the policy nothing but its shape. */
static px_status create_learners(px_trainer *trainer, const px_ppo_config *config, px_ppo_parts *parts)
{
    px_learner *policy = &trainer->learners[0].learner, *critic = &trainer->learners[1].learner;
    px_learner_config values = config->critic_learner;
    values.frozen = !parts->learns;
    if (parts->learns) {
        PX_TRY(px_learner_create(policy, &parts->policy, &config->policy_learner));
    } else {
        *policy = (px_learner){.model = parts->policy, .config = config->policy_learner};
        parts->policy = (px_model){0};
    }
    return px_learner_create(critic, &parts->critic, &values);
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
    ppo->permute = px_rng_make(trainer->seed, trainer->stage, PX_RNG_PERMUTE);
    ppo->kl_coeff = config->kl_coeff;

    ppo->parts.evaluation_prompts = evaluation_prompts(&ppo->parts);
    sizes s = derive_sizes(config, &ppo->parts);
    int part_count;
    const px_part *prompts = px_dataset_parts(parts->train.data, &part_count);
    PX_TRY(px_order_init(&ppo->order, prompts, part_count, config->shuffle,
                         px_rng_make(trainer->seed, trainer->stage, PX_RNG_ORDER)));
    PX_TRY(alloc_scratch(ppo, &s));
    PX_TRY(px_rollout_alloc(&ppo->rollout, s.samples, config->max_prompt_tokens, config->sampling.max_new_tokens,
                            px_rewards_count(parts->train.rewards)));
    if (s.evaluation > 0) {
        PX_TRY(px_rollout_alloc(&ppo->evaluation, s.evaluation, config->max_prompt_tokens, config->sampling.max_new_tokens,
                                px_rewards_count(parts->evaluation.rewards)));
    }
    PX_TRY(create_engines(ppo, &parts->policy.config, &s));
    trainer->learners[0].name = "policy";
    trainer->learners[1].name = "critic";
    trainer->learner_count = 2;
    PX_TRY(create_learners(trainer, config, parts));
    px_trainer_count(trainer, "kl_coeff", &ppo->kl_coeff);
    px_trainer_count(trainer, "num_env_steps_sampled_lifetime", &ppo->lifetime_tokens);
    px_trainer_count(trainer, "num_episodes_lifetime", &ppo->lifetime_samples);
    px_trainer_count(trainer, "num_module_updates_lifetime", &ppo->lifetime_updates);
    px_trainer_count(trainer, "weights_seq_no", &ppo->weights_seq_no);
    return PX_OK;
}

const px_algorithm px_algorithm_ppo = {"ppo", px_ppo_metrics, px_ppo_evaluation_metrics, PX_PPO_METRIC_COUNT,
                                       PX_PPO_EVALUATION_COUNT, iterate, evaluate, destroy};
