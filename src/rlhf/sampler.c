/* What a rank samples with: a generator and room for its completions. */
#include "ppo.h"

#include <string.h>

typedef struct buffer {
    void **where;
    size_t count, size;
} buffer;

enum { BUFFERS = 5 };

static void list_buffers(px_sampler *s, const px_sampler_plan *plan, int room, buffer out[BUFFERS])
{
    size_t samples = (size_t)plan->samples;
    const buffer all[BUFFERS] = {
        {(void **)&s->requests, samples, sizeof(px_request)},
        {(void **)&s->completions, samples, sizeof(px_completion)},
        {(void **)&s->request_of, samples, sizeof(int32_t)},
        {(void **)&s->ids, samples * (size_t)room, sizeof(int32_t)},
        {(void **)&s->logprobs, samples * (size_t)room, sizeof(float)},
    };
    memcpy(out, all, sizeof all);
}

static px_generator_plan generator_plan(const px_sampler_plan *plan, int room)
{
    return (px_generator_plan){.max_slots = plan->slots,
                               .max_length = plan->max_prompt + room,
                               .max_prefill = plan->prefill,
                               .threads = plan->threads,
                               .precision = plan->precision};
}

size_t px_sampler_bytes(const px_sampler_plan *plan, const px_ppo_config *config, const px_model *policy, size_t *cache)
{
    px_sampler none = {0};
    buffer buffers[BUFFERS];
    px_generator_plan generator = generator_plan(plan, config->sampling.max_new_tokens);
    *cache = 2 * (size_t)plan->slots * (size_t)policy->config.layers *
             px_kv_bytes(plan->precision == PX_BF16, policy->config.kv_heads, policy->config.head_dim, generator.max_length);
    size_t bytes = px_generator_bytes(policy, &generator) - *cache;
    list_buffers(&none, plan, config->sampling.max_new_tokens, buffers);
    for (int i = 0; i < BUFFERS; i++) {
        bytes += buffers[i].count * buffers[i].size;
    }
    return bytes;
}

px_status px_sampler_create(px_sampler *s, const px_sampler_plan *plan, const px_ppo_config *config,
                            const px_model_config *policy, px_tokenizer *tokenizer)
{
    *s = (px_sampler){.plan = *plan,
                      .tokenizer = tokenizer,
                      .stop_strings = config->stop_strings,
                      .stop_string_count = config->stop_string_count,
                      .room = config->sampling.max_new_tokens};
    px_generator_plan generator = generator_plan(plan, s->room);
    buffer buffers[BUFFERS];
    list_buffers(s, plan, s->room, buffers);
    for (int i = 0; i < BUFFERS; i++) {
        *buffers[i].where = px_alloc_array(buffers[i].count, buffers[i].size, "the sampler's buffers");
        if (*buffers[i].where == NULL) {
            return px_error_code();
        }
    }
    return px_generator_create(&s->generator, policy, &generator);
}

void px_sampler_free(px_sampler *s)
{
    px_generator_destroy(s->generator);
    px_free(s->requests);
    px_free(s->completions);
    px_free(s->request_of);
    px_free(s->ids);
    px_free(s->logprobs);
    px_buf_free(&s->text);
    *s = (px_sampler){0};
}

void px_sampler_clear(px_sampler *s)
{
    s->count = s->used = 0;
}

int px_sampler_add(px_sampler *s, const px_row *prompt, uint32_t slot, int samples)
{
    int first = s->used;
    PX_CHECK(s->count < s->plan.samples && first + samples <= s->plan.samples);
    s->requests[s->count] = (px_request){prompt->ids, prompt->length, slot, 0, samples};
    for (; s->used < first + samples; s->used++) {
        size_t at = (size_t)s->used * (size_t)s->room;
        s->request_of[s->used] = s->count;
        s->completions[s->used] = (px_completion){.ids = s->ids + at, .logprobs = s->logprobs + at};
    }
    s->count++;
    return first;
}

/* Stop strings are looked for in the text of the completion. */
static bool hits_stop_string(px_sampler *s, const px_request *request, const px_completion *so_far)
{
    px_buf_clear(&s->text);
    if (px_tokenizer_decode_after(s->tokenizer, request->prompt, request->prompt_length, so_far->ids, so_far->length, true,
                                  &s->text) != PX_OK) {
        return false;
    }
    for (int i = 0; i < s->stop_string_count; i++) {
        if (s->text.data != NULL && strstr(s->text.data, s->stop_strings[i]) != NULL) {
            return true;
        }
    }
    return false;
}

typedef struct run_hooks {
    px_sampler *sampler;
    int (*step)(void *arg);
    void (*done)(void *arg, int completion);
    void *arg;
} run_hooks;

static bool on_token(void *arg, int completion, const px_completion *so_far)
{
    px_sampler *s = ((run_hooks *)arg)->sampler;
    return hits_stop_string(s, &s->requests[s->request_of[completion]], so_far);
}

static int on_step(void *arg)
{
    run_hooks *hooks = arg;
    return hooks->step != NULL ? hooks->step(hooks->arg) : hooks->sampler->count;
}

static void on_done(void *arg, int completion)
{
    run_hooks *hooks = arg;
    if (hooks->done != NULL) {
        hooks->done(hooks->arg, completion);
    }
}

px_status px_sampler_run(px_sampler *s, const px_model *policy, const px_sampling *sampling, int (*step)(void *arg),
                         void (*done)(void *arg, int completion), void *arg)
{
    run_hooks hooks = {s, step, done, arg};
    px_feed feed = {.step = on_step, .done = on_done, .on_token = s->stop_string_count > 0 ? on_token : NULL, .arg = &hooks};
    return px_generator_feed(s->generator, policy, sampling, s->requests, s->count, s->completions, &feed);
}
