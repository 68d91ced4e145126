/* What a PPO iteration reports: names after TRL's PPOTrainer and RLlib. */
#include "phalanx/dist.h"
#include "ppo.h"

#include <math.h>
#include <string.h>

const px_metric px_ppo_metrics[PX_PPO_METRIC_COUNT] = {
    {"objective/kl", "nat", "mean over samples of sum_t (old - ref), the k1 estimate of KL(policy || reference)"},
    {"objective/kl_per_token", "nat", "mean over tokens of (old - ref)"},
    {"objective/kl_k3", "nat", "mean over samples of sum_t (exp(ref - old) - 1 + old - ref), the k3 estimate"},
    {"objective/entropy", "nat", "mean over samples of sum_t -old (an estimate from the sampled tokens)"},
    {"objective/non_score_reward", "1", "mean over samples of the summed KL penalty"},
    {"objective/scores", "1", "mean score of the samples, after missing-EOS shaping and clipping"},
    {"objective/scores_std", "1", "standard deviation of the scores over samples"},
    {"objective/rlhf_reward", "1", "objective/scores + objective/non_score_reward"},
    {"policy/approxkl_avg", "nat", "mean over updates of 1/2 mean (new - old)^2"},
    {"policy/kl_old_k3", "nat", "mean over updates of mean (ratio - 1 - ln ratio)"},
    {"policy/clipfrac_avg", "1", "mean over updates of the share of tokens where the clipped loss is larger"},
    {"policy/entropy_avg", "nat", "mean over updates of the exact entropy of softmax(z/T) per token"},
    {"loss/policy_avg", "1", "mean over updates of the clipped policy loss, without entropy bonus and KL"},
    {"loss/value_avg", "1", "mean over updates of the value loss, without vf_loss_coeff"},
    {"val/clipfrac_avg", "1", "mean over updates of the share of tokens where the clipped value loss is larger"},
    {"val/ratio", "1", "mean over updates of the mean probability ratio"},
    {"val/ratio_var", "1", "variance over updates of the mean probability ratio"},
    {"val/var_explained", "1", "1 - var(returns - values) / (var(returns) + 1e-5), values before the update"},
    {"val/num_eos_tokens", "1", "samples that ended with a stop token"},
    {"val/advantage_mean", "1", "mean advantage after whitening"},
    {"val/advantage_std", "1", "standard deviation of the advantages after whitening"},
    {"returns/mean", "1", "mean return per token"},
    {"returns/var", "1", "variance of the returns over tokens"},
    {"val/value_mean", "1", "mean old value per token"},
    {"grad_norm/actor", "1", "mean over updates of the policy's gradient norm before clipping"},
    {"grad_norm/critic", "1", "mean over updates of the critic's gradient norm before clipping"},
    {"kl_coef", "1", "coefficient of the KL penalty used in this iteration"},
    {"lr", "1", "policy learning rate of the last update"},
    {"critic_lr", "1", "critic learning rate of the last update"},
    {"response_length/mean", "token", "mean completion length, stop token included"},
    {"response_length/min", "token", "shortest completion"},
    {"response_length/max", "token", "longest completion"},
    {"response_length/clip_ratio", "1", "share of completions that reached the length limit"},
    {"prompt_length/mean", "token", "mean prompt length"},
    {"frac_invalid", "1", "share of samples that left the batch (score not finite, or masked)"},
    {"rollout/logprob_diff_max", "nat", "largest |sampler - learner| log-probability in the first minibatch, before its step"},
    {"episode", "1", "samples so far"},
    {"eps", "1/s", "samples per second of this iteration"},
    {"num_env_steps_sampled", "token", "completion tokens of this iteration"},
    {"num_env_steps_sampled_lifetime", "token", "completion tokens so far"},
    {"num_episodes_lifetime", "1", "samples so far"},
    {"num_module_steps_trained", "token", "completion tokens passed through the policy loss in this iteration"},
    {"num_module_updates_lifetime", "1", "optimizer steps of the policy so far"},
    {"num_steps_skipped", "1", "minibatches of this iteration whose optimizer step was skipped because the policy's or the critic's gradient was not finite"},
    {"weights_seq_no", "1", "version of the weights that sampled this iteration"},
    {"diff_num_grad_updates_vs_sampler_policy", "1", "mean over samples of the optimizer steps between the weights that sampled and those at the update's start"},
    {"staleness/mean", "1", "mean over samples of the versions between the weights that sampled and those at the update's start"},
    {"staleness/max", "1", "the largest of them"},
    {"sampling/importance_sampling_ratio/min", "1", "smallest exp(old - sampler) over tokens, before the cap"},
    {"sampling/importance_sampling_ratio/mean", "1", "mean exp(old - sampler) over tokens, before the cap"},
    {"sampling/importance_sampling_ratio/max", "1", "largest exp(old - sampler) over tokens, before the cap"},
    {"num_healthy_workers", "1", "ranks that sample and answer"},
    {"num_remote_worker_restarts", "1", "env runners taken back after they had been left out, so far in this segment"},
    {"tokens_per_s", "token/s", "completion tokens / time of the iteration"},
    {"generate_tokens_per_s", "token/s", "completion tokens / timers/generate"},
    {"generate_gflop_per_s", "GFLOP/s", "products and attention of the core ranks together / timers/generate"},
    {"logprobs_gflop_per_s", "GFLOP/s", "the same of timers/logprobs"},
    {"score_gflop_per_s", "GFLOP/s", "the same of timers/score, where a reward model multiplies"},
    {"learn_gflop_per_s", "GFLOP/s", "the same of timers/learn"},
    {"timers/generate", "s", "sampling"},
    {"timers/synch_weights", "s", "publishing the weights for the env runners"},
    {"timers/logprobs", "s", "reference log-probabilities and values"},
    {"timers/score", "s", "rewards, shaping, advantages"},
    {"timers/learn", "s", "epochs of policy and critic updates"},
};
const px_metric px_ppo_evaluation_metrics[PX_PPO_EVALUATION_COUNT] = {
    {"objective/scores", "1", "mean score of the evaluation completions under evaluation.rewards"},
    {"objective/kl", "nat", "mean over evaluation samples of sum_t (policy - reference)"},
    {"response_length/mean", "token", "mean completion length"},
    {"frac_eos", "1", "share of completions that ended with a stop token"},
};

typedef struct batch_sums {
    px_moments scores; /* of valid samples */
    double samples, kl, k3, entropy, penalty, eos, prompt;
    double length_low, length_high;
} batch_sums;

static batch_sums sum_samples(const px_ppo *ppo, const px_rollout *rollout)
{
    batch_sums s = {.samples = rollout->samples, .length_low = INFINITY};
    for (int i = 0; i < rollout->samples; i++) {
        for (int64_t t = rollout->first[i]; t < rollout->first[i + 1]; t++) {
            double old = rollout->old_logprob[t], ref = rollout->ref_logprob[t];
            s.k3 += px_kl_estimate(PX_K3, old, ref);
            s.entropy -= old;
            s.penalty -= ppo->config.kl_in_reward ? ppo->kl_coeff * px_kl_estimate(ppo->config.kl_estimator, old, ref) : 0.0;
        }
        s.kl += rollout->kl[i];
        s.eos += rollout->finish[i] == PX_FINISH_STOP;
        s.prompt += rollout->prompt_length[i];
        s.length_low = fmin(s.length_low, rollout->length[i]);
        s.length_high = fmax(s.length_high, rollout->length[i]);
        if (rollout->valid[i]) {
            s.scores = px_moments_merge(s.scores, (px_moments){1.0, rollout->score[i], 0.0});
        }
    }
    return s;
}

/* Token columns of valid samples, compacted into ppo->wide: returns, values, advantages. */
static int64_t widen(px_ppo *ppo, const px_rollout *rollout)
{
    int64_t n = 0, all = rollout->max_tokens;
    for (int i = 0; i < rollout->samples; i++) {
        for (int64_t t = rollout->first[i]; rollout->valid[i] && t < rollout->first[i + 1]; t++, n++) {
            ppo->wide[n] = rollout->returns[t];
            ppo->wide[all + n] = rollout->value[t];
            ppo->wide[2 * all + n] = rollout->advantage[t];
        }
    }
    return n;
}

/* The mean of nothing is NaN. */
static px_moments moments(const double *x, int64_t n)
{
    px_moments m = {.mean = n > 0 ? 0.0 : NAN};
    for (int64_t i = 0; i < n; i++) {
        m = px_moments_merge(m, (px_moments){1.0, x[i], 0.0});
    }
    return m;
}

static void measure_values(px_trainer *trainer, const px_rollout *rollout)
{
    px_ppo *ppo = trainer->self;
    int64_t n = widen(ppo, rollout), all = rollout->max_tokens;
    px_moments returns = moments(ppo->wide, n), values = moments(ppo->wide + all, n), adv = moments(ppo->wide + 2 * all, n);
    px_trainer_set(trainer, "val/var_explained", px_explained_variance(ppo->wide, ppo->wide + all, n));
    px_trainer_set(trainer, "returns/mean", returns.mean);
    px_trainer_set(trainer, "returns/var", n > 0 ? returns.m2 / (double)n : NAN);
    px_trainer_set(trainer, "val/value_mean", values.mean);
    px_trainer_set(trainer, "val/advantage_mean", adv.mean);
    px_trainer_set(trainer, "val/advantage_std", n > 0 ? sqrt(adv.m2 / (double)n) : NAN);
}

static void measure_samples(px_trainer *trainer, const px_rollout *rollout)
{
    px_ppo *ppo = trainer->self;
    batch_sums s = sum_samples(ppo, rollout);
    double n = s.samples, mean = s.scores.n > 0.0 ? s.scores.mean : NAN, tokens = (double)rollout->tokens;
    px_trainer_set(trainer, "objective/kl", s.kl / n);
    px_trainer_set(trainer, "objective/kl_per_token", s.kl / tokens);
    px_trainer_set(trainer, "objective/kl_k3", s.k3 / n);
    px_trainer_set(trainer, "objective/entropy", s.entropy / n);
    px_trainer_set(trainer, "objective/non_score_reward", s.penalty / n);
    px_trainer_set(trainer, "objective/scores", mean);
    px_trainer_set(trainer, "objective/scores_std", sqrt(s.scores.m2 / s.scores.n));
    px_trainer_set(trainer, "objective/rlhf_reward", mean + s.penalty / n);
    px_trainer_set(trainer, "val/num_eos_tokens", s.eos);
    px_trainer_set(trainer, "kl_coef", ppo->kl_coeff);
    px_trainer_set(trainer, "response_length/mean", tokens / n);
    px_trainer_set(trainer, "response_length/min", s.length_low);
    px_trainer_set(trainer, "response_length/max", s.length_high);
    px_trainer_set(trainer, "response_length/clip_ratio", 1.0 - s.eos / n);
    px_trainer_set(trainer, "prompt_length/mean", s.prompt / n);
    px_trainer_set(trainer, "frac_invalid", 1.0 - s.scores.n / n);
    if (ppo->config.kl_target > 0.0) { /* used from the next iteration on */
        ppo->kl_coeff = px_kl_adapt(ppo->kl_coeff, s.kl / n, ppo->config.kl_target, ppo->config.kl_horizon, n);
    }
}

/* How far the samples' weights were behind. */
static void measure_staleness(px_trainer *trainer, const px_rollout *rollout)
{
    enum { VERSIONS = sizeof((px_ppo *)NULL)->updates_before / sizeof(double) };
    px_ppo *ppo = trainer->self;
    double updates = 0.0, behind = 0.0, most = 0.0, low = INFINITY, high = 0.0, sum = 0.0;
    int64_t version = (int64_t)ppo->weights_seq_no;
    ppo->updates_before[version % VERSIONS] = ppo->lifetime_updates;
    for (int i = 0; i < rollout->samples; i++) {
        int64_t seq_no = rollout->weights_seq_no[i];
        updates += ppo->lifetime_updates - ppo->updates_before[seq_no % VERSIONS];
        behind += (double)(version - seq_no);
        most = fmax(most, (double)(version - seq_no));
    }
    for (int64_t t = 0; t < rollout->tokens; t++) {
        double ratio = exp((double)rollout->old_logprob[t] - (double)rollout->sampler_logprob[t]);
        low = fmin(low, ratio);
        high = fmax(high, ratio);
        sum += ratio;
    }
    px_trainer_set(trainer, "diff_num_grad_updates_vs_sampler_policy", updates / rollout->samples);
    px_trainer_set(trainer, "staleness/mean", behind / rollout->samples);
    px_trainer_set(trainer, "staleness/max", most);
    px_trainer_set(trainer, "sampling/importance_sampling_ratio/min", low);
    px_trainer_set(trainer, "sampling/importance_sampling_ratio/mean", sum / (double)rollout->tokens);
    px_trainer_set(trainer, "sampling/importance_sampling_ratio/max", high);
}

static void measure_counters(px_trainer *trainer, const px_rollout *rollout)
{
    px_ppo *ppo = trainer->self;
    double trained = 0.0;
    for (int64_t k = 0; k < ppo->visited_count; k++) {
        trained += rollout->length[ppo->visited[k]];
    }
    px_trainer_set(trainer, "weights_seq_no", ppo->weights_seq_no);
    ppo->lifetime_tokens += (double)rollout->tokens;
    ppo->lifetime_samples += rollout->samples;
    ppo->lifetime_updates = (double)trainer->learners[0].learner.steps; /* without those that were skipped */
    ppo->weights_seq_no += 1.0;
    px_trainer_set(trainer, "num_env_steps_sampled", (double)rollout->tokens);
    px_trainer_set(trainer, "num_env_steps_sampled_lifetime", ppo->lifetime_tokens);
    px_trainer_set(trainer, "num_episodes_lifetime", ppo->lifetime_samples);
    px_trainer_set(trainer, "episode", ppo->lifetime_samples);
    px_trainer_set(trainer, "num_module_steps_trained", trained);
    px_trainer_set(trainer, "num_module_updates_lifetime", ppo->lifetime_updates);
    bool remote = ppo->parts.collect != NULL;
    px_trainer_set(trainer, "num_healthy_workers", remote ? ppo->report.healthy : px_dist_size());
    px_trainer_set(trainer, "num_remote_worker_restarts", ppo->report.restored);
    px_trainer_set(trainer, "timers/synch_weights", ppo->report.synch_s);
}

void px_ppo_measure(px_trainer *trainer, const px_rollout *rollout, int64_t iteration, const px_phase_times *times,
                    double started)
{
    double seconds = px_now() - started, generate = times->generate - ((const px_ppo *)trainer->self)->report.within_s;
    measure_samples(trainer, rollout);
    measure_values(trainer, rollout);
    measure_staleness(trainer, rollout);
    measure_counters(trainer, rollout);
    px_trainer_set(trainer, "eps", rollout->samples / seconds);
    px_trainer_set(trainer, "tokens_per_s", (double)rollout->tokens / seconds);
    px_trainer_set(trainer, "generate_tokens_per_s", (double)rollout->tokens / generate);
    px_trainer_set(trainer, "timers/generate", generate);
    px_trainer_set(trainer, "timers/logprobs", times->reference);
    px_trainer_set(trainer, "timers/score", times->score);
    px_trainer_set(trainer, "timers/learn", times->learn);
    double work[] = {times->generate_flops, times->reference_flops, times->score_flops, times->learn_flops};
    px_sum_f64(work, 4);
    px_trainer_set(trainer, "generate_gflop_per_s", 1e-9 * work[0] / generate);
    px_trainer_set(trainer, "logprobs_gflop_per_s", 1e-9 * work[1] / times->reference);
    px_trainer_set(trainer, "score_gflop_per_s", 1e-9 * work[2] / times->score);
    px_trainer_set(trainer, "learn_gflop_per_s", 1e-9 * work[3] / times->learn);
    double diff = px_trainer_get(trainer, "rollout/logprob_diff_max");
    if (diff > 0.0) {
        px_trainer_event(trainer, iteration, "logprob_diff", "sampler and learner differ by up to %.3g nat%s", diff,
                         px_compute_row_invariant() ? "" : " (the forward is not batch-invariant on this processor)");
    }
}
