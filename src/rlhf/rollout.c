/* The rollout batch and the stage that samples it. */
#include "phalanx/dist.h"
#include "ppo.h"

#include <string.h>

typedef struct field {
    void **where;
    size_t count, size;
} field;

enum { FIELDS = 25 };

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
    };
    memcpy(f, all, sizeof all);
    return (int)(sizeof all / sizeof *all);
}

px_status px_rollout_alloc(px_rollout *rollout, int max_samples, int max_prompt, int max_completion, int reward_count)
{
    int64_t tokens = (int64_t)max_samples * max_completion, ids = tokens + (int64_t)max_samples * max_prompt;
    *rollout = (px_rollout){.max_samples = max_samples, .max_tokens = tokens, .reward_count = reward_count};
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
    rollout->samples = prompts * each;
    for (int slot = 0; slot < prompts; slot++) {
        int64_t at = in_order ? first_position + slot : px_order_row(&ppo->order, first_position + slot);
        if (at < 0) {
            return px_error_code();
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
        }
    }
    return PX_OK;
}

/* Stop strings are looked for in the decoded completion. */
static bool hits_stop_string(void *arg, int completion, const px_completion *so_far)
{
    px_ppo *ppo = arg;
    px_buf *text = &ppo->text;
    (void)completion;
    px_buf_clear(text);
    if (px_tokenizer_decode(ppo->parts.tokenizer, so_far->ids, so_far->length, true, text) != PX_OK) {
        return false;
    }
    for (int i = 0; i < ppo->config.stop_string_count; i++) {
        if (text->data != NULL && strstr(text->data, ppo->config.stop_strings[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* Samples this rank's prompts into its own buffers. */
static px_status sample_mine(px_trainer *trainer, px_rollout *rollout, const px_prompt_set *set, const px_sampling *sampling,
                             int from, int to)
{
    px_ppo *ppo = trainer->self;
    int each = rollout->samples / prompts_of(rollout), requests = 0, room = ppo->config.sampling.max_new_tokens;
    for (int i = from; i < to; i += each) {
        px_row row;
        px_dataset_row(set->data, rollout->prompt[i], &row);
        ppo->requests[requests++] = (px_request){row.ids, row.length, (uint32_t)rollout->group[i], 0, each};
    }
    for (int i = 0; i < to - from; i++) {
        size_t at = (size_t)i * (size_t)room;
        ppo->completions[i] = (px_completion){.ids = ppo->sampled_ids + at, .logprobs = ppo->sampled_logprobs + at};
    }
    return px_generator_run(ppo->generator, &trainer->learners[0].learner.model, sampling, ppo->requests, requests,
                            ppo->completions, ppo->config.stop_string_count > 0 ? hits_stop_string : NULL, ppo);
}

px_status px_rollout_generate(px_trainer *trainer, px_rollout *rollout, const px_prompt_set *set, const px_sampling *sampling)
{
    px_ppo *ppo = trainer->self;
    int from, to, prompts = prompts_of(rollout), each = rollout->samples / prompts;
    px_rollout_mine(rollout, &from, &to);
    PX_TRY(px_agree(sample_mine(trainer, rollout, set, sampling, from, to)));
    for (int i = from; i < to; i++) {
        rollout->length[i] = ppo->completions[i - from].length;
        rollout->finish[i] = (uint8_t)ppo->completions[i - from].finish;
    }
    px_gather_shares(rollout->length, (size_t)each * sizeof *rollout->length, prompts);
    px_gather_shares(rollout->finish, (size_t)each * sizeof *rollout->finish, prompts);
    rollout->start[0] = rollout->first[0] = 0;
    for (int i = 0; i < rollout->samples; i++) {
        rollout->first[i + 1] = rollout->first[i] + rollout->length[i];
        rollout->start[i + 1] = rollout->start[i] + rollout->prompt_length[i] + rollout->length[i];
    }
    rollout->tokens = rollout->first[rollout->samples];
    for (int i = from; i < to; i++) {
        const px_completion *c = &ppo->completions[i - from];
        px_row row;
        px_dataset_row(set->data, rollout->prompt[i], &row);
        int32_t *ids = rollout->ids + rollout->start[i];
        memcpy(ids, row.ids, (size_t)row.length * sizeof *ids);
        memcpy(ids + row.length, c->ids, (size_t)c->length * sizeof *ids);
        memcpy(rollout->sampler_logprob + rollout->first[i], c->logprobs, (size_t)c->length * sizeof(float));
    }
    px_rollout_gather(rollout, rollout->ids, sizeof *rollout->ids, rollout->start);
    px_rollout_gather(rollout, rollout->sampler_logprob, sizeof(float), rollout->first);
    return PX_OK;
}
