/* Epochs of minibatches over one rollout: a policy step and a critic step each. */
#include "phalanx/dist.h"
#include "ppo.h"

#include <math.h>
#include <string.h>

static double token_weight(const px_ppo *ppo, const px_rollout *rollout, int i)
{
    return px_token_weight(ppo->config.aggregation, ppo->batch_count, ppo->batch_weight_sum, rollout->length[i],
                           ppo->config.sampling.max_new_tokens);
}

/* Minibatch items [first, first + count) as one ragged batch with a head row for every completion token. */
static void fill(px_ppo *ppo, int64_t first, int64_t count)
{
    const px_rollout *rollout = &ppo->rollout;
    px_ragged *ragged = &ppo->ragged;
    px_ragged_clear(ragged);
    for (int64_t k = first; k < first + count; k++) {
        int i = ppo->batch[k], p = rollout->prompt_length[i], n = rollout->length[i];
        const int32_t *ids = rollout->ids + rollout->start[i];
        int at = px_ragged_add(ragged, ids, p + n);
        for (int t = 0; t < n; t++) {
            ppo->place[ragged->row_count] = (int32_t)k;
            px_ragged_row(ragged, at + p + t - 1, ids[p + t], rollout->first[i] + t);
        }
    }
}

static void policy_rows(void *arg, int first, int count, const px_row_stats *stats, double *dlogprob, double *dentropy)
{
    px_ppo *ppo = arg;
    const px_ppo_config *config = &ppo->config;
    const px_rollout *rollout = &ppo->rollout;
    for (int k = 0; k < count; k++) {
        int64_t token = ppo->ragged.items[first + k], place = ppo->place[first + k];
        double *sums = ppo->sums + place * PX_PPO_STATS, weight = token_weight(ppo, rollout, ppo->batch[place]);
        double lp = stats[k].logprob, old = rollout->old_logprob[token], ref = rollout->ref_logprob[token];
        double gradient, ratio, u = lp - old;
        bool clipped;
        double loss = px_ppo_policy_loss(lp, old, rollout->advantage[token], config->clip_low, config->clip_high,
                                         config->dual_clip, &gradient, &clipped, &ratio);
        if (config->importance_cap > 0.0) {
            double importance = px_importance(old, rollout->sampler_logprob[token], config->importance_cap);
            loss *= importance;
            gradient *= importance;
        }
        if (!config->kl_in_reward) {
            gradient += ppo->kl_coeff * px_kl_gradient(config->kl_estimator, lp, ref);
        }
        dlogprob[k] = weight * gradient;
        dentropy[k] = -weight * config->entropy_coeff;
        sums[PX_SUM_LOSS] += weight * loss;
        sums[PX_SUM_CLIPPED] += clipped;
        sums[PX_SUM_APPROXKL] += 0.5 * u * u;
        sums[PX_SUM_OLD_K3] += expm1(u) - u;
        sums[PX_SUM_RATIO] += ratio;
        sums[PX_SUM_ENTROPY] += stats[k].entropy;
        if (rollout->weights_seq_no[ppo->batch[place]] == (int64_t)ppo->weights_seq_no) {
            sums[PX_SUM_DIFF] = fmax(sums[PX_SUM_DIFF], fabs((float)lp - rollout->sampler_logprob[token]));
        }
    }
}

static void policy_loss(void *arg, px_learner *learner, float *grads, int64_t first, int64_t count)
{
    px_ppo *ppo = arg;
    fill(ppo, first, count);
    px_batch batch = px_ragged_batch(&ppo->ragged);
    px_engine_forward(learner->engine, &learner->model, &batch);
    px_engine_lm_backward(learner->engine, &learner->model, grads, ppo->ragged.rows, ppo->ragged.targets,
                          ppo->ragged.row_count, px_softmax_temperature(ppo->config.sampling.temperature), true, policy_rows,
                          ppo);
    px_learner_backward(learner, grads);
}

static void value_loss(void *arg, px_learner *learner, float *grads, int64_t first, int64_t count)
{
    px_ppo *ppo = arg;
    const px_rollout *rollout = &ppo->rollout;
    fill(ppo, first, count);
    px_batch batch = px_ragged_batch(&ppo->ragged);
    px_engine_forward(learner->engine, &learner->model, &batch);
    px_engine_values(learner->engine, &learner->model, ppo->ragged.rows, ppo->ragged.row_count, ppo->values);
    for (int k = 0; k < ppo->ragged.row_count; k++) {
        int64_t token = ppo->ragged.items[k], place = ppo->place[k];
        double *sums = ppo->sums + place * PX_PPO_STATS, gradient;
        double weight = token_weight(ppo, rollout, ppo->batch[place]);
        bool clipped;
        double loss = px_ppo_value_loss(ppo->values[k], rollout->value[token], rollout->returns[token], ppo->config.vf_clip,
                                        &gradient, &clipped);
        ppo->dvalues[k] = ppo->config.vf_coeff * weight * gradient;
        sums[PX_SUM_VALUE_LOSS] += weight * loss;
        sums[PX_SUM_VALUE_CLIPPED] += clipped;
    }
    px_engine_value_backward(learner->engine, &learner->model, grads, ppo->ragged.rows, ppo->dvalues, ppo->ragged.row_count);
    px_learner_backward(learner, grads);
}

/* The iteration's averages over its optimizer steps. */
typedef struct totals {
    double steps, tokens, policy, value, clipped, value_clipped, approxkl, k3, entropy, ratio, ratio_square;
    double policy_norm, critic_norm, policy_lr, critic_lr, diff;
} totals;

static void add_minibatch(totals *sum, const px_ppo *ppo, const px_step steps[2], px_update_row *row, double *approxkl)
{
    double s[PX_PPO_STATS] = {0}, tokens = ppo->batch_weight_sum;
    for (int k = 0; k < ppo->batch_count; k++) { /* in minibatch order, whoever computed them */
        for (int j = 0; j < PX_PPO_STATS; j++) {
            double x = ppo->sums[k * PX_PPO_STATS + j];
            s[j] = j == PX_SUM_DIFF ? fmax(s[j], x) : s[j] + x;
        }
    }
    sum->steps += 1.0;
    sum->policy += s[PX_SUM_LOSS];
    sum->value += s[PX_SUM_VALUE_LOSS];
    sum->clipped += s[PX_SUM_CLIPPED] / tokens;
    sum->value_clipped += s[PX_SUM_VALUE_CLIPPED] / tokens;
    sum->approxkl += s[PX_SUM_APPROXKL] / tokens;
    sum->k3 += s[PX_SUM_OLD_K3] / tokens;
    sum->entropy += s[PX_SUM_ENTROPY] / tokens;
    sum->ratio += s[PX_SUM_RATIO] / tokens;
    sum->ratio_square += s[PX_SUM_RATIO] / tokens * (s[PX_SUM_RATIO] / tokens);
    sum->policy_norm += steps[0].grad_norm;
    sum->critic_norm += steps[1].grad_norm;
    sum->policy_lr = steps[0].lr;
    sum->critic_lr = steps[1].lr;
    if (sum->steps == 1.0) { /* before any update: what sampler and learner make of the same weights */
        sum->diff = s[PX_SUM_DIFF];
    }
    row->policy_loss = s[PX_SUM_LOSS];
    row->value_loss = s[PX_SUM_VALUE_LOSS];
    *approxkl = s[PX_SUM_APPROXKL] / tokens;
}

static void publish(const px_ppo *ppo, const px_learner *policy)
{
    if (ppo->parts.collect != NULL && px_dist_rank() == 0) {
        ppo->parts.collect->publish(ppo->parts.collect->self, &policy->model, (int64_t)ppo->weights_seq_no + 1);
    }
}

/* last: no minibatch of the iteration comes after it. */
static px_status minibatch(px_trainer *trainer, px_rollout *rollout, int64_t iteration, bool last, px_update_row *row, totals *sum,
                           double *approxkl)
{
    px_ppo *ppo = trainer->self;
    ppo->batch = ppo->visited + row->first;
    ppo->batch_count = (int)(row->last - row->first + 1);
    ppo->batch_weight_sum = 0.0;
    for (int k = 0; k < ppo->batch_count; k++) {
        int i = ppo->batch[k];
        ppo->batch_tokens[k] = rollout->prompt_length[i] + rollout->length[i];
        ppo->batch_weight_sum += rollout->length[i];
    }
    memset(ppo->sums, 0, sizeof(double) * PX_PPO_STATS * (size_t)ppo->batch_count);
    px_step steps[2] = {{0}};
    px_loss losses[2] = {{policy_loss, ppo}, {value_loss, ppo}};
    for (int l = 0; l < 2; l++) {
        px_learner *learner = &trainer->learners[l].learner;
        px_work_plan(&ppo->work, ppo->batch_tokens, ppo->batch_count, learner->config.exact, px_dist_rank(), px_dist_size());
        PX_TRY(px_learner_step(learner, &ppo->work, ppo->batch_tokens, &losses[l], &steps[l]));
        trainer->dirty = true;
        if (l == 0 && last) {
            publish(ppo, learner);
        }
    }
    px_work_gather(&ppo->work, ppo->sums, PX_PPO_STATS);
    PX_TRY(px_trainer_skipped(trainer, iteration, steps[0].skipped ? "policy" : "critic",
                              steps[0].skipped || steps[1].skipped, ppo->config.max_skipped_steps));
    add_minibatch(sum, ppo, steps, row, approxkl);
    row->policy_norm = steps[0].grad_norm;
    row->critic_norm = steps[1].grad_norm;
    row->policy_lr = steps[0].lr;
    row->critic_lr = steps[1].lr;
    return PX_OK;
}

static void report(px_trainer *trainer, const totals *sum)
{
    double n = sum->steps, mean = sum->ratio / n;
    px_trainer_set(trainer, "loss/policy_avg", sum->policy / n);
    px_trainer_set(trainer, "loss/value_avg", sum->value / n);
    px_trainer_set(trainer, "policy/clipfrac_avg", sum->clipped / n);
    px_trainer_set(trainer, "policy/approxkl_avg", sum->approxkl / n);
    px_trainer_set(trainer, "policy/kl_old_k3", sum->k3 / n);
    px_trainer_set(trainer, "policy/entropy_avg", sum->entropy / n);
    px_trainer_set(trainer, "val/clipfrac_avg", sum->value_clipped / n);
    px_trainer_set(trainer, "val/ratio", mean);
    px_trainer_set(trainer, "val/ratio_var", fmax(0.0, sum->ratio_square / n - mean * mean));
    px_trainer_set(trainer, "grad_norm/actor", sum->policy_norm / n);
    px_trainer_set(trainer, "grad_norm/critic", sum->critic_norm / n);
    px_trainer_set(trainer, "lr", sum->policy_lr);
    px_trainer_set(trainer, "critic_lr", sum->critic_lr);
    px_trainer_set(trainer, "rollout/logprob_diff_max", sum->diff);
}

/* An iteration without any score is a step that was skipped: a reward source that stays broken must not look like a run. */
static px_status batch_empty(px_trainer *trainer, int64_t iteration, int limit)
{
    px_trainer_event(trainer, iteration, "batch_empty", "no sample has a usable score: nothing was learnt");
    trainer->skipped_in_row++;
    if (limit > 0 && trainer->skipped_in_row >= limit) {
        return px_fail(PX_DIVERGED, "no sample had a usable score %lld times in a row (fault_tolerance.max_skipped_steps is "
                       "%d); the events of the run say why (phalanx inspect RUN events), valid is a finite score a sample",
                       (long long)trainer->skipped_in_row, limit);
    }
    return PX_OK;
}

static px_status update(px_trainer *trainer, px_rollout *rollout, int64_t iteration)
{
    px_ppo *ppo = trainer->self;
    totals sum = {0};
    int64_t usable = 0;
    for (int i = 0; i < rollout->samples; i++) {
        usable += rollout->valid[i];
    }
    ppo->visited_count = ppo->update_count = 0;
    if (usable == 0) {
        return batch_empty(trainer, iteration, ppo->config.max_skipped_steps);
    }
    bool stop = false;
    for (int epoch = 0; epoch < ppo->config.num_epochs && !stop; epoch++) {
        int64_t begin = ppo->visited_count;
        px_rng_permutation(&ppo->permute, (uint32_t)iteration, (uint32_t)epoch, rollout->samples, ppo->permutation);
        for (int k = 0; k < rollout->samples; k++) {
            if (rollout->valid[ppo->permutation[k]]) {
                ppo->visited[ppo->visited_count++] = (int32_t)ppo->permutation[k];
            }
        }
        for (int64_t at = begin; at < ppo->visited_count && !stop; at += ppo->config.minibatch_size) {
            int64_t end = at + ppo->config.minibatch_size;
            px_update_row *row = &ppo->updates[ppo->update_count];
            double approxkl;
            *row = (px_update_row){.epoch = epoch, .minibatch = (int32_t)((at - begin) / ppo->config.minibatch_size),
                                   .first = at, .last = (end < ppo->visited_count ? end : ppo->visited_count) - 1};
            bool last = epoch == ppo->config.num_epochs - 1 && end >= ppo->visited_count;
            PX_TRY(minibatch(trainer, rollout, iteration, last, row, &sum, &approxkl));
            ppo->update_count++;
            stop = ppo->config.early_stop_kl > 0.0 && approxkl > 1.5 * ppo->config.early_stop_kl;
        }
        if (stop) {
            px_trainer_event(trainer, iteration, "early_stop", "approximate KL to the sampling policy exceeds 1.5 x %g",
                             ppo->config.early_stop_kl);
        }
    }
    report(trainer, &sum);
    return PX_OK;
}

/* What the learners come to, for the scorers: how it ended, the counts, and the critic that values the next samples. */
static px_status hand_over(px_trainer *trainer, px_status status)
{
    px_ppo *ppo = trainer->self;
    px_learner *critic = &trainer->learners[1].learner;
    struct {
        int64_t skipped_in_row, visited, steps[2];
        int32_t updates, dirty;
    } now = {trainer->skipped_in_row, ppo->visited_count, {trainer->learners[0].learner.steps, critic->steps},
             ppo->update_count, trainer->dirty};
    px_bcast(&now, sizeof now, 0);
    trainer->dirty = now.dirty != 0;
    PX_TRY(px_agree(status));
    trainer->skipped_in_row = now.skipped_in_row;
    ppo->visited_count = now.visited;
    ppo->update_count = now.updates;
    trainer->learners[0].learner.steps = now.steps[0];
    critic->steps = now.steps[1];
    px_bcast(ppo->visited, sizeof *ppo->visited * (size_t)now.visited, 0);
    px_bcast(trainer->values, sizeof *trainer->values * (size_t)trainer->algorithm->metric_count, 0);
    px_bcast(critic->model.weights, sizeof *critic->model.weights * critic->model.block, 0);
    critic->model.version += !ppo->parts.learns;
    return PX_OK;
}

px_status px_ppo_update(px_trainer *trainer, px_rollout *rollout, int64_t iteration)
{
    px_ppo *ppo = trainer->self;
    px_status status = PX_OK;
    px_team(true);
    if (ppo->parts.learns) {
        status = update(trainer, rollout, iteration);
    }
    px_team(false);
    return ppo->parts.scorers > 0 ? hand_over(trainer, status) : status;
}
