/* Log-probabilities under policy and reference, values of the critic, for every completion token of the rollout. Row
 * prompt_length + t - 1 of a sample is the state before token t; row prompt_length + length - 1 the state after the last. */
#include "phalanx/dist.h"
#include "ppo.h"

#include <string.h>

/* Fills the batch with samples from *next up to `to`, as many as the engine takes. */
static void fill(px_ragged *ragged, const px_engine *engine, const px_rollout *rollout, int *next, int to, bool last_row)
{
    px_ragged_clear(ragged);
    for (; *next < to; (*next)++) {
        int i = *next, p = rollout->prompt_length[i], n = rollout->length[i];
        if (ragged->tokens > 0 && !px_engine_fits(engine, ragged->sequences + 1, ragged->tokens + p + n)) {
            break;
        }
        const int32_t *ids = rollout->ids + rollout->start[i];
        int at = px_ragged_add(ragged, ids, p + n);
        for (int t = 0; t < n; t++) {
            px_ragged_row(ragged, at + p + t - 1, ids[p + t], rollout->first[i] + t);
        }
        if (last_row) {
            px_ragged_row(ragged, at + p + n - 1, 0, -1 - i);
        }
    }
}

static px_status forward_logprobs(px_ppo *ppo, px_engine *engine, const px_model *model, const px_rollout *rollout,
                                  double temperature, float *out)
{
    int next, to;
    px_rollout_mine(rollout, &next, &to);
    while (next < to) {
        px_poll();
        if (px_stop_level() > 0) {
            return PX_STOPPED;
        }
        px_ragged *ragged = &ppo->ragged;
        fill(ragged, engine, rollout, &next, to, false);
        px_batch batch = px_ragged_batch(ragged);
        px_engine_forward(engine, model, &batch);
        px_engine_logprobs(engine, model, ragged->rows, ragged->targets, ragged->row_count, temperature, false, ppo->stats);
        for (int k = 0; k < ragged->row_count; k++) {
            out[ragged->items[k]] = (float)ppo->stats[k].logprob;
        }
    }
    return PX_OK;
}

static px_status forward_values(px_ppo *ppo, px_engine *engine, const px_model *model, px_rollout *rollout)
{
    int next, to;
    px_rollout_mine(rollout, &next, &to);
    while (next < to) {
        px_poll();
        if (px_stop_level() > 0) {
            return PX_STOPPED;
        }
        px_ragged *ragged = &ppo->ragged;
        fill(ragged, engine, rollout, &next, to, true);
        px_batch batch = px_ragged_batch(ragged);
        px_engine_forward(engine, model, &batch);
        px_engine_values(engine, model, ragged->rows, ragged->row_count, ppo->values);
        for (int k = 0; k < ragged->row_count; k++) {
            if (ragged->items[k] >= 0) {
                rollout->value[ragged->items[k]] = (float)ppo->values[k];
            } else {
                rollout->last_value[-1 - ragged->items[k]] = (float)ppo->values[k];
            }
        }
    }
    return PX_OK;
}

px_status px_logprobs(px_trainer *trainer, px_rollout *rollout, double temperature, bool recompute_old, bool values)
{
    px_ppo *ppo = trainer->self;
    px_learner *policy = &trainer->learners[0].learner, *critic = &trainer->learners[1].learner;
    px_status status = PX_OK;
    if (recompute_old) {
        status = forward_logprobs(ppo, policy->engine, &policy->model, rollout, temperature, rollout->old_logprob);
    } else { /* one engine: the sampler's are the learner's bits */
        memcpy(rollout->old_logprob, rollout->sampler_logprob, (size_t)rollout->tokens * sizeof(float));
    }
    if (status == PX_OK) {
        status = px_model_map_check(&ppo->parts.reference);
    }
    if (status == PX_OK) {
        status = forward_logprobs(ppo, ppo->reference, &ppo->parts.reference, rollout, temperature, rollout->ref_logprob);
    }
    if (status == PX_OK && values) {
        status = forward_values(ppo, critic->engine, &critic->model, rollout);
    }
    PX_TRY(px_agree(status));
    if (recompute_old) {
        px_rollout_gather(rollout, rollout->old_logprob, sizeof(float), rollout->first);
    }
    px_rollout_gather(rollout, rollout->ref_logprob, sizeof(float), rollout->first);
    if (values) {
        px_rollout_gather(rollout, rollout->value, sizeof(float), rollout->first);
        int prompts = rollout->group[rollout->samples - 1] + 1;
        px_gather_shares(rollout->last_value, sizeof(float) * (size_t)(rollout->samples / prompts), prompts);
    }
    return PX_OK;
}
