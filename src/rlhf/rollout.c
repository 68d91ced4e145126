/* The rollout batch and the stage that samples it. */
#include "phalanx/dist.h"
#include "ppo.h"

#include <string.h>

typedef struct field {
    void **where;
    size_t count, size;
} field;

enum { FIELDS = 24 };

static int list_fields(px_rollout *r, int max_samples, int64_t max_ids, int64_t max_tokens, int rewards, field *f)
{
    size_t s = (size_t)max_samples, t = (size_t)max_tokens;
    const field all[] = {
        {(void **)&r->prompt, s, 8},        {(void **)&r->prompt_id, s, 8},      {(void **)&r->group, s, 4},
        {(void **)&r->sample_index, s, 4},  {(void **)&r->rank, s, 4},           {(void **)&r->start, s + 1, 8},
        {(void **)&r->prompt_length, s, 4}, {(void **)&r->length, s, 4},         {(void **)&r->finish, s, 1},
        {(void **)&r->ids, (size_t)max_ids, 4}, {(void **)&r->first, s + 1, 8},  {(void **)&r->sampler_logprob, t, 4},
        {(void **)&r->old_logprob, t, 4},   {(void **)&r->ref_logprob, t, 4},    {(void **)&r->value, t, 4},
        {(void **)&r->last_value, s, 4},    {(void **)&r->raw, s * (size_t)(rewards > 0 ? rewards : 1), 8},
        {(void **)&r->score, s, 8},         {(void **)&r->valid, s, 1},          {(void **)&r->kl, s, 8},
        {(void **)&r->reward, t, 4},        {(void **)&r->advantage, t, 4},      {(void **)&r->returns, t, 4},
        {(void **)&r->weights_seq_no, s, 8},
    };
    memcpy(f, all, sizeof all);
    return (int)(sizeof all / sizeof *all);
}

px_status px_rollout_alloc(px_rollout *rollout, int max_samples, int max_prompt, int max_completion, int reward_count)
{
    int64_t tokens = (int64_t)max_samples * max_completion, ids = tokens + (int64_t)max_samples * max_prompt;
    *rollout = (px_rollout){.max_samples = max_samples, .max_tokens = tokens};
    field fields[FIELDS];
    int count = list_fields(rollout, max_samples, ids, tokens, reward_count, fields);
    for (int i = 0; i < count; i++) {
        *fields[i].where = px_alloc_array(fields[i].count, fields[i].size, "the rollout batch");
        if (*fields[i].where == NULL) {
            return px_error_code();
        }
    }
    return PX_OK;
}

void px_rollout_free(px_rollout *rollout)
{
    field fields[FIELDS];
    int count = list_fields(rollout, 0, 0, 0, 0, fields);
    for (int i = 0; i < count; i++) {
        px_free(*fields[i].where);
    }
    *rollout = (px_rollout){0};
}

size_t px_rollout_bytes(int max_samples, int max_prompt, int max_completion, int reward_count)
{
    int64_t tokens = (int64_t)max_samples * max_completion, ids = tokens + (int64_t)max_samples * max_prompt;
    px_rollout none = {0};
    field fields[FIELDS];
    int count = list_fields(&none, max_samples, ids, tokens, reward_count, fields);
    size_t bytes = 0;
    for (int i = 0; i < count; i++) {
        bytes += fields[i].count * fields[i].size;
    }
    return bytes;
}

static int prompts_of(const px_rollout *rollout)
{
    return rollout->samples == 0 ? 0 : rollout->group[rollout->samples - 1] + 1;
}

void px_rollout_mine(const px_rollout *rollout, int *from, int *to)
{
    int prompts = prompts_of(rollout);
    int64_t first, count;
    px_share(prompts, px_dist_rank(), px_dist_size(), &first, &count);
    int each = prompts > 0 ? rollout->samples / prompts : 0;
    *from = (int)first * each;
    *to = (int)(first + count) * each;
}

void px_rollout_gather(const px_rollout *rollout, void *flat, size_t size, const int64_t *offsets)
{
    int prompts = prompts_of(rollout), ranks = px_dist_size();
    int each = prompts > 0 ? rollout->samples / prompts : 0;
    for (int r = 0; ranks > 1 && r < ranks; r++) {
        int64_t first, count;
        px_share(prompts, r, ranks, &first, &count);
        int64_t from = offsets[first * each], to = offsets[(first + count) * each];
        px_bcast((char *)flat + (size_t)from * size, (size_t)(to - from) * size, r);
    }
}

/* A slot's prompt is a function of the position in the data order alone. */
px_status px_prompts_take(px_ppo *ppo, px_rollout *rollout, const px_prompt_set *set, int64_t first_position, int prompts,
                          int each, bool in_order)
{
    px_status status = PX_OK;
    rollout->samples = prompts * each;
    for (int slot = 0; slot < prompts; slot++) {
        int64_t at = in_order ? first_position + slot : px_order_row(&ppo->order, first_position + slot);
        if (at < 0) {
            status = px_error_code();
            break;
        }
        px_row row;
        px_dataset_row(set->data, at, &row);
        for (int g = 0; g < each; g++) {
            int i = slot * each + g;
            rollout->prompt[i] = at;
            rollout->prompt_id[i] = row.record;
            rollout->group[i] = slot;
            rollout->sample_index[i] = g;
            rollout->prompt_length[i] = row.length;
        }
    }
    for (int r = 0; r < px_dist_size(); r++) {
        int64_t first, count;
        px_share(prompts, r, px_dist_size(), &first, &count);
        for (int64_t i = first * each; i < (first + count) * each; i++) {
            rollout->rank[i] = r;
            rollout->weights_seq_no[i] = (int64_t)ppo->weights_seq_no;
        }
    }
    return px_agree(status);
}

/* This rank's prompts with its own sampler; completions of samples from `from` on. */
static px_status sample_mine(px_trainer *trainer, const px_rollout *rollout, const px_prompt_set *set,
                             const px_sampling *sampling, int from, int to, const px_completion **completions)
{
    px_ppo *ppo = trainer->self;
    int each = rollout->samples / prompts_of(rollout);
    px_sampler_clear(&ppo->sampler);
    for (int i = from; i < to; i += each) {
        px_row row;
        px_dataset_row(set->data, rollout->prompt[i], &row);
        px_sampler_add(&ppo->sampler, &row, (uint32_t)rollout->group[i], each);
    }
    *completions = ppo->sampler.completions;
    return px_sampler_run(&ppo->sampler, &trainer->learners[0].learner.model, sampling, NULL, NULL, NULL);
}

/* Rank 0 has all completions when others sample, each rank those of its prompts when every rank does. */
static void spread(const px_rollout *rollout, bool from_first, void *flat, size_t size, const int64_t *offsets)
{
    if (from_first) {
        px_bcast(flat, (size_t)offsets[rollout->samples] * size, 0);
    } else {
        px_rollout_gather(rollout, flat, size, offsets);
    }
}

static void spread_rows(const px_rollout *rollout, bool from_first, void *rows, size_t size)
{
    int prompts = prompts_of(rollout);
    if (from_first) {
        px_bcast(rows, (size_t)rollout->samples * size, 0);
    } else {
        px_gather_shares(rows, size * (size_t)(rollout->samples / prompts), prompts);
    }
}

/* Lengths are there on all ranks: where each sample's ids and columns begin, and its prompt. */
static void lay_out(px_rollout *rollout, const px_prompt_set *set)
{
    rollout->start[0] = rollout->first[0] = 0;
    for (int i = 0; i < rollout->samples; i++) {
        px_row row;
        px_dataset_row(set->data, rollout->prompt[i], &row);
        memcpy(rollout->ids + rollout->start[i], row.ids, (size_t)row.length * sizeof *rollout->ids);
        rollout->first[i + 1] = rollout->first[i] + rollout->length[i];
        rollout->start[i + 1] = rollout->start[i] + rollout->prompt_length[i] + rollout->length[i];
    }
    rollout->tokens = rollout->first[rollout->samples];
}

px_status px_rollout_generate(px_trainer *trainer, px_rollout *rollout, int64_t iteration, bool evaluation)
{
    px_ppo *ppo = trainer->self;
    const px_prompt_set *set = evaluation ? &ppo->parts.evaluation : &ppo->parts.train;
    const px_collect *collect = ppo->parts.collect;
    const px_completion *completions = NULL;
    px_status status = PX_OK;
    int from = 0, to = px_dist_rank() == 0 ? rollout->samples : 0;
    if (collect == NULL) {
        px_sampling sampling = px_ppo_sampling(&ppo->config, trainer->seed, trainer->stage, iteration, evaluation,
                                               ppo->parts.evaluation_temperature);
        px_rollout_mine(rollout, &from, &to);
        status = sample_mine(trainer, rollout, set, &sampling, from, to, &completions);
    } else if (px_dist_rank() == 0) {
        status = collect->run(collect->self, trainer, rollout, iteration, evaluation, (int64_t)ppo->weights_seq_no,
                                 &completions, &ppo->report);
    }
    PX_TRY(px_agree(status));
    bool from_first = collect != NULL;
    if (from_first) {
        px_bcast(&ppo->report, sizeof ppo->report, 0);
        spread_rows(rollout, true, rollout->rank, sizeof *rollout->rank);
        spread_rows(rollout, true, rollout->weights_seq_no, sizeof *rollout->weights_seq_no);
    }
    for (int i = from; i < to; i++) {
        rollout->length[i] = completions[i - from].length;
        rollout->finish[i] = (uint8_t)completions[i - from].finish;
    }
    spread_rows(rollout, from_first, rollout->length, sizeof *rollout->length);
    spread_rows(rollout, from_first, rollout->finish, sizeof *rollout->finish);
    lay_out(rollout, set);
    for (int i = from; i < to; i++) {
        const px_completion *c = &completions[i - from];
        memcpy(rollout->ids + rollout->start[i] + rollout->prompt_length[i], c->ids, (size_t)c->length * sizeof(int32_t));
        memcpy(rollout->sampler_logprob + rollout->first[i], c->logprobs, (size_t)c->length * sizeof(float));
    }
    spread(rollout, from_first, rollout->ids, sizeof *rollout->ids, rollout->start);
    spread(rollout, from_first, rollout->sampler_logprob, sizeof(float), rollout->first);
    return PX_OK;
}
