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

/* This rank's share: of the old log-probabilities where it learns, of the rest where it scores. */
static px_status forward_mine(px_trainer *trainer, px_rollout *rollout, double temperature, bool old, bool values)
{
    px_ppo *ppo = trainer->self;
    px_learner *policy = &trainer->learners[0].learner, *critic = &trainer->learners[1].learner;
    if (old && ppo->parts.learns) {
        PX_TRY(forward_logprobs(ppo, policy->engine, &policy->model, rollout, temperature, rollout->old_logprob));
    }
    if (!ppo->parts.scores) {
        return PX_OK;
    }
    PX_TRY(px_model_map_check(&ppo->parts.reference));
    PX_TRY(forward_logprobs(ppo, ppo->reference, &ppo->parts.reference, rollout, temperature, rollout->ref_logprob));
    return values ? forward_values(ppo, critic->engine, &critic->model, rollout) : PX_OK;
}

static void gather_values(px_rollout *rollout)
{
    int prompts = rollout->group[rollout->samples - 1] + 1;
    px_rollout_gather(rollout, rollout->value, sizeof(float), rollout->first);
    px_gather_shares(rollout->last_value, sizeof(float) * (size_t)(rollout->samples / prompts), prompts);
}

/* Between learners and scorers: each has what the other needs. */
static void exchange(const px_ppo *ppo, px_rollout *rollout, bool old, bool values)
{
    int scorer = px_dist_size() - ppo->parts.scorers;
    size_t bytes = (size_t)rollout->tokens * sizeof(float);
    if (old) {
        px_bcast(rollout->old_logprob, bytes, 0);
    }
    px_bcast(rollout->ref_logprob, bytes, scorer);
    if (values) {
        px_bcast(rollout->value, bytes, scorer);
        px_bcast(rollout->last_value, (size_t)rollout->samples * sizeof(float), scorer);
    }
}

px_status px_logprobs(px_trainer *trainer, px_rollout *rollout, double temperature, bool recompute_old, bool values)
{
    px_ppo *ppo = trainer->self;
    if (!recompute_old) { /* one engine: the sampler's are the learner's bits */
        memcpy(rollout->old_logprob, rollout->sampler_logprob, (size_t)rollout->tokens * sizeof(float));
    }
    px_team(true);
    px_status status = forward_mine(trainer, rollout, temperature, recompute_old, values);
    px_team(false);
    PX_TRY(px_agree(status));
    px_team(true);
    if (recompute_old && ppo->parts.learns) {
        px_rollout_gather(rollout, rollout->old_logprob, sizeof(float), rollout->first);
    }
    if (ppo->parts.scores) {
        px_rollout_gather(rollout, rollout->ref_logprob, sizeof(float), rollout->first);
    }
    if (ppo->parts.scores && values) {
        gather_values(rollout);
    }
    px_team(false);
    if (ppo->parts.scorers > 0) {
        exchange(ppo, rollout, recompute_old, values);
    }
    return PX_OK;
}
