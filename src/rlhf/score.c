/* One score for each completion: a weighted list of sources, reward models among them. */
#include "phalanx/dist.h"
#include "ppo.h"

#include <math.h>
#include <string.h>

/* What a reward model reads of a sample. With a tokenizer of its own: the ids of its texts. */
static px_status read_sample(px_ppo *ppo, const px_reward_model *model, const px_rollout *rollout, int i,
                             const px_reward_sample *text, const int32_t **sequence, int *length)
{
    if (model->tokenizer == NULL) {
        *sequence = rollout->ids + rollout->start[i];
        *length = rollout->prompt_length[i] + rollout->length[i];
        return PX_OK;
    }
    px_status status = px_answer_encode(&model->reads, text->record, text->prompt, text->completion, &ppo->ids);
    *sequence = ppo->ids.data;
    *length = (int)ppo->ids.length;
    return status == PX_OK ? status : px_fail_within("prompt %lld for the reward model", (long long)rollout->prompt_id[i]);
}

/* As many samples from *next on as one forward takes. cut: how many more lost their front. */
static px_status fill_batch(px_ppo *ppo, const px_reward_model *model, const px_rollout *rollout, int from, int to, int *next,
                            double *cut)
{
    px_ragged_clear(&ppo->ragged);
    for (; *next < to; ++*next) {
        const int32_t *sequence;
        int length;
        PX_TRY(read_sample(ppo, model, rollout, *next, &ppo->texts[*next - from], &sequence, &length));
        int over = length > model->max_tokens ? length - model->max_tokens : 0; /* the end is what is scored */
        length -= over;
        if (ppo->ragged.tokens > 0 &&
            !px_engine_fits(model->engine, ppo->ragged.sequences + 1, ppo->ragged.tokens + length)) {
            break;
        }
        *cut += over > 0;
        int at = px_ragged_add(&ppo->ragged, sequence + over, length);
        px_ragged_row(&ppo->ragged, at + length - 1, 0, *next);
    }
    return PX_OK;
}

/* Scores of samples [from, to): the scalar at the last token, less the mean that the model was centred on. */
static px_status score_model(px_ppo *ppo, px_reward_model *model, const px_rollout *rollout, int from, int to,
                             double *raw, double *cut)
{
    *cut = 0.0;
    for (int next = from, begin = from; next < to; begin = next) {
        PX_TRY(fill_batch(ppo, model, rollout, from, to, &next, cut));
        px_batch batch = px_ragged_batch(&ppo->ragged);
        px_engine_forward(model->engine, &model->model, &batch);
        px_engine_values(model->engine, &model->model, ppo->ragged.rows, ppo->ragged.row_count, raw + begin);
        px_poll();
        if (px_stop_level() > 0) {
            return PX_STOPPED;
        }
    }
    return PX_OK;
}

/* The texts of prompts and completions of samples [from, to) in one buffer, which is addressed once it is complete. */
static px_status decode(px_ppo *ppo, const px_rollout *rollout, const px_prompt_set *set, int from, int to)
{
    size_t *places = ppo->places;
    px_buf *text = &ppo->text;
    px_status status = PX_OK;
    px_buf_clear(text);
    for (int i = from; status == PX_OK && i < to; i++) {
        const int32_t *ids = rollout->ids + rollout->start[i];
        int p = rollout->prompt_length[i], n = rollout->length[i];
        for (int half = 0; status == PX_OK && half < 2; half++) {
            places[2 * (i - from) + half] = text->length;
            if (ppo->parts.tokenizer != NULL) {
                status = px_tokenizer_decode_after(ppo->parts.tokenizer, ids, half ? p : 0, half ? ids + p : ids, half ? n : p,
                                                   true, text);
            }
            if (status == PX_OK) {
                status = px_buf_add(text, "", 1);
            }
        }
    }
    for (int i = from; status == PX_OK && i < to; i++) {
        px_row row;
        px_dataset_row(set->data, rollout->prompt[i], &row);
        ppo->texts[i - from] = (px_reward_sample){.prompt = text->data + places[2 * (i - from)],
                                                  .completion = text->data + places[2 * (i - from) + 1],
                                                  .completion_tokens = rollout->length[i],
                                                  .record = row.json != NULL ? row.json : "{}",
                                                  .number = i};
    }
    return status;
}

static px_status score_mine(px_ppo *ppo, px_rollout *rollout, const px_prompt_set *set, px_buf *events, double *cut)
{
    int from, to, rewards = px_rewards_count(set->rewards);
    px_rollout_mine(rollout, &from, &to);
    int count = to - from;
    if (count == 0) {
        return PX_OK;
    }
    double *raw = ppo->raw;
    PX_TRY(decode(ppo, rollout, set, from, to));
    PX_TRY(px_rewards_score(set->rewards, ppo->texts, count, raw, events));
    for (int k = 0; k < rewards; k++) {
        double *row = rollout->raw + (size_t)k * (size_t)rollout->samples;
        if (px_rewards_spec(set->rewards, k)->kind == PX_REWARD_MODEL) {
            PX_TRY(px_model_map_check(&ppo->parts.reward_model->model));
            PX_TRY(score_model(ppo, ppo->parts.reward_model, rollout, from, to, row, cut));
            for (int i = from; i < to; i++) {
                PX_TRY(px_reward_usable(px_rewards_spec(set->rewards, k), i, &row[i], events));
            }
        } else {
            memcpy(row + from, raw + (size_t)k * (size_t)count, (size_t)count * sizeof *row);
        }
    }
    return PX_OK;
}

/* What failed on any rank of the team, in the order of its ranks. */
static px_status gather_events(px_buf *events)
{
    double longest = (double)events->length;
    px_max_f64(&longest, 1);
    if (longest == 0.0) {
        return PX_OK;
    }
    int size = px_dist_size();
    int64_t total = 0, *lengths = px_alloc_array((size_t)size, sizeof *lengths, "lengths of events");
    px_buf all = {0};
    PX_TRY(px_agree(lengths != NULL ? PX_OK : px_error_code()));
    px_gather_i64((int64_t)events->length, lengths);
    for (int i = 0; i < size; i++) {
        total += lengths[i];
    }
    px_status status = px_agree(px_buf_reserve(&all, (size_t)total + 1));
    if (status == PX_OK) {
        px_gather_bytes(events->data, all.data, lengths);
        all.length = (size_t)total;
        all.data[total] = '\0';
        px_buf_free(events);
        *events = all;
    }
    px_free(lengths);
    return status;
}

/* Each scorer's shares, what failed there and what was cut, then to those who do not score. */
static px_status spread_scores(const px_ppo *ppo, px_rollout *rollout, const px_prompt_set *set, px_buf *events, double *cut)
{
    int prompts = rollout->group[rollout->samples - 1] + 1, rewards = px_rewards_count(set->rewards);
    px_status status = PX_OK;
    px_team(true);
    for (int k = 0; k < rewards && ppo->parts.scores; k++) {
        px_gather_shares(rollout->raw + (size_t)k * (size_t)rollout->samples,
                         sizeof(double) * (size_t)(rollout->samples / prompts), prompts);
    }
    if (ppo->parts.scores) {
        px_sum_f64(cut, 1);
        status = gather_events(events);
    }
    px_team(false);
    if (ppo->parts.scorers == 0) {
        return status;
    }
    PX_TRY(px_agree(status));
    int scorer = px_dist_size() - ppo->parts.scorers;
    uint64_t length = events->length;
    px_bcast(rollout->raw, sizeof(double) * (size_t)rewards * (size_t)rollout->samples, scorer);
    px_bcast(&length, sizeof length, scorer);
    px_bcast(cut, sizeof *cut, scorer);
    PX_TRY(px_agree(px_buf_reserve(events, length + 1)));
    px_bcast(events->data, length, scorer);
    events->length = length;
    events->data[length] = '\0';
    return PX_OK;
}

/* The first lines are events of their own: what befell the programs stands before the samples. */
static void report_failed(px_trainer *trainer, int64_t iteration, const px_buf *failed)
{
    enum { LINES = 4 };
    int count = 0;
    for (size_t at = 0; at < failed->length; count++) {
        int length = (int)strcspn(failed->data + at, "\n");
        if (count < LINES) {
            px_trainer_event(trainer, iteration, "reward_failed", "%.*s", length, failed->data + at);
        }
        at += (size_t)length + 1;
    }
    if (count > LINES) {
        px_trainer_event(trainer, iteration, "reward_failed", "and %d more", count - LINES);
    }
}

static void report(px_trainer *trainer, int64_t iteration, const px_rollout *rollout, const px_buf *failed, int large,
                   int cut)
{
    const px_ppo *ppo = trainer->self;
    report_failed(trainer, iteration, failed);
    if (large > 0) {
        px_trainer_event(trainer, iteration, "reward_failed", "the weighted scores of %d samples are beyond %g in size",
                         large, PX_SCORE_MOST);
    }
    if (cut > 0) {
        px_trainer_event(trainer, iteration, "reward_cut", "%d of %d samples have more than the %d tokens that the reward "
                         "model takes: it scored them without their front", cut, rollout->samples,
                         ppo->parts.reward_model->max_tokens);
    }
}

px_status px_score(px_trainer *trainer, px_rollout *rollout, const px_prompt_set *set, int64_t iteration)
{
    px_ppo *ppo = trainer->self;
    px_buf events = {0};
    double cut = 0.0;
    px_team(true);
    px_status status = ppo->parts.scores ? score_mine(ppo, rollout, set, &events, &cut) : PX_OK;
    px_team(false);
    status = px_agree(status);
    if (status == PX_OK) {
        status = spread_scores(ppo, rollout, set, &events, &cut);
    }
    if (status == PX_OK) {
        int large = px_score_shape(ppo, rollout, set->rewards);
        report(trainer, iteration, rollout, &events, large, (int)cut);
    }
    px_buf_free(&events);
    return status;
}

/* Order: weighted sum, missing end of sequence, clip (the KL penalty comes after, per token). */
int px_score_shape(const px_ppo *ppo, px_rollout *rollout, const px_rewards *rewards)
{
    const px_ppo_config *config = &ppo->config;
    int large = 0;
    for (int i = 0; i < rollout->samples; i++) {
        double score = 0.0;
        for (int k = 0; k < px_rewards_count(rewards); k++) {
            score += px_rewards_spec(rewards, k)->weight * rollout->raw[(size_t)k * (size_t)rollout->samples + (size_t)i];
        }
        rollout->valid[i] = !isnan(score);
        if (rollout->finish[i] == PX_FINISH_LENGTH) {
            if (config->missing_eos == PX_EOS_SUBTRACT) {
                score -= config->missing_eos_value;
            } else if (config->missing_eos == PX_EOS_SET && rollout->valid[i]) {
                score = config->missing_eos_value;
            } else if (config->missing_eos == PX_EOS_MASK) {
                rollout->valid[i] = 0;
            }
        }
        if (config->reward_clip > 0.0 && !isnan(score)) {
            score = fmax(-config->reward_clip, fmin(config->reward_clip, score));
        }
        if (fabs(score) > PX_SCORE_MOST) {
            large += rollout->valid[i];
            rollout->valid[i] = 0;
            score = NAN;
        }
        rollout->score[i] = score;
    }
    return large;
}

/* r_t = -beta k(old_t, ref_t), plus the score at the last token; kl: the sequence's sum of k1. */
void px_reward(const px_ppo *ppo, px_rollout *rollout)
{
    for (int i = 0; i < rollout->samples; i++) {
        int64_t from = rollout->first[i], to = rollout->first[i + 1];
        double kl = 0.0;
        for (int64_t t = from; t < to; t++) {
            double old = rollout->old_logprob[t], ref = rollout->ref_logprob[t];
            double penalty = ppo->config.kl_in_reward
                                 ? ppo->kl_coeff * px_kl_estimate(ppo->config.kl_estimator, old, ref) : 0.0;
            double r = t == to - 1 ? rollout->score[i] - penalty : -penalty;
            rollout->reward[t] = rollout->valid[i] ? (float)r : NAN;
            kl += old - ref;
        }
        rollout->kl[i] = kl;
    }
}

/* Advantages and returns by sequence, then one whitening over all tokens of all ranks. */
void px_advantage(px_ppo *ppo, px_rollout *rollout)
{
    const px_ppo_config *config = &ppo->config;
    int64_t all = rollout->max_tokens, n = 0;
    double *rewards = ppo->wide, *values = rewards + all, *advantages = values + all, *returns = advantages + all;
    for (int i = 0; i < rollout->samples; i++) {
        int64_t from = rollout->first[i];
        int length = rollout->length[i];
        for (int t = 0; t < length; t++) {
            rewards[t] = rollout->reward[from + t];
            values[t] = rollout->value[from + t];
        }
        bool cut = config->bootstrap_truncated && rollout->finish[i] == PX_FINISH_LENGTH;
        px_gae(advantages + n, returns, rewards, values, NULL, length, config->gamma, config->lambda,
               cut ? rollout->last_value[i] : 0.0);
        for (int t = 0; t < length; t++) {
            rollout->returns[from + t] = (float)returns[t];
        }
        n += rollout->valid[i] ? length : 0;
    }
    if (config->whiten_advantages) {
        px_whiten(advantages, n, true);
    }
    n = 0;
    for (int i = 0; i < rollout->samples; i++) {
        for (int64_t t = rollout->first[i]; t < rollout->first[i + 1]; t++) {
            rollout->advantage[t] = rollout->valid[i] ? (float)advantages[n++] : NAN;
        }
    }
}
