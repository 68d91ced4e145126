/* The generator against the engine: the log-probability of a sampled token has the same bits as the engine's for the
 * same ids; samples do not depend on slots, threads, prefill chunks or order. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tiny.h"

#define REQUESTS 7
#define NEW 24
#define MAX_SAMPLES 64
static int32_t prompts[REQUESTS][64];
static const int prompt_lengths[REQUESTS] = {1, 17, 33, 2, 16, 50, 5};

typedef struct result {
    int32_t ids[MAX_SAMPLES][NEW];
    float logprobs[MAX_SAMPLES][NEW];
    px_completion completions[MAX_SAMPLES];
    int count;
} result;
static result first_result, second_result;
static px_dtype precision = PX_F32; /* of generators and engines */

static px_generator_plan plan_of(int slots, int length, int prefill, int threads)
{
    return (px_generator_plan){slots, length, prefill, threads, precision};
}

static px_sampling sampling_of(double temperature)
{
    px_sampling s = {.temperature = temperature, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = NEW,
                     .stop_ids = {3}, .stop_count = 1, .iteration = 4};
    s.rng = px_rng_make(21, "test", PX_RNG_SAMPLE);
    return s;
}

static void make_requests(px_request *requests, int samples, int vocab)
{
    px_rng rng = px_rng_make(8, "prompts", PX_RNG_NOISE);
    for (int r = 0; r < REQUESTS; r++) {
        for (int i = 0; i < prompt_lengths[r]; i++) {
            prompts[r][i] = (int32_t)(px_rng_uniform(&rng, (uint32_t)r, (uint32_t)i, 0, 0) * vocab);
        }
        requests[r] = (px_request){.prompt = prompts[r], .prompt_length = prompt_lengths[r], .slot = (uint32_t)r,
                                   .samples = samples};
    }
}

static void generate(result *out, const px_model *model, const px_sampling *sampling, const px_request *requests,
                     int count, px_generator_plan plan)
{
    px_generator *g;
    assert_int_equal(px_generator_create(&g, &model->config, &plan), PX_OK);
    memset(out, 0, sizeof *out);
    for (int r = 0; r < count; r++) out->count += requests[r].samples;
    assert_true(out->count <= MAX_SAMPLES);
    for (int i = 0; i < out->count; i++) {
        out->completions[i] = (px_completion){.ids = out->ids[i], .logprobs = out->logprobs[i]};
    }
    assert_int_equal(px_generator_run(g, model, sampling, requests, count, out->completions, NULL, NULL), PX_OK);
    px_generator_destroy(g);
}

static void same(const result *a, const result *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->ids, b->ids, sizeof a->ids);
    for (int i = 0; i < a->count; i++) {
        assert_int_equal(a->completions[i].length, b->completions[i].length);
        assert_int_equal(a->completions[i].finish, b->completions[i].finish);
    }
    if (px_compute_row_invariant()) assert_memory_equal(a->logprobs, b->logprobs, sizeof a->logprobs);
}

/* The engine's log-probabilities of every completion, each sequence as one of a ragged batch of all. */
static void compare_with_engine(const px_model *model, const result *got, const px_request *requests, int samples,
                                double temperature)
{
    static int32_t ids[MAX_SAMPLES * 80], starts[MAX_SAMPLES + 1], rows[MAX_SAMPLES * NEW], targets[MAX_SAMPLES * NEW];
    static px_row_stats stats[MAX_SAMPLES * NEW];
    int tokens = 0, n = 0;
    for (int i = 0; i < got->count; i++) {
        const px_request *request = &requests[i / samples];
        int length = got->completions[i].length;
        starts[i] = tokens;
        memcpy(ids + tokens, request->prompt, (size_t)request->prompt_length * sizeof *ids);
        memcpy(ids + tokens + request->prompt_length, got->ids[i], (size_t)length * sizeof *ids);
        for (int k = 0; k < length; k++) {
            rows[n] = tokens + request->prompt_length + k - 1;
            targets[n++] = got->ids[i][k];
        }
        tokens += request->prompt_length + length;
    }
    starts[got->count] = tokens;
    px_engine_plan plan = {.max_tokens = tokens, .max_sequences = got->count, .max_sequence = 80, .train = true,
                           .threads = 2, .precision = precision};
    px_engine *engine;
    assert_int_equal(px_engine_create(&engine, &model->config, &plan), PX_OK);
    px_batch batch = {.ids = ids, .starts = starts, .sequences = got->count, .tokens = tokens};
    px_engine_forward(engine, model, &batch);
    px_engine_logprobs(engine, model, rows, targets, n, temperature, false, stats);
    px_engine_destroy(engine);
    n = 0;
    for (int i = 0; i < got->count; i++) {
        for (int k = 0; k < got->completions[i].length; k++) {
            float expected = (float)stats[n++].logprob;
            if (px_compute_row_invariant()) {
                assert_memory_equal(&got->logprobs[i][k], &expected, sizeof expected);
            } else {
                assert_true(fabsf(got->logprobs[i][k] - expected) < 1e-4f);
            }
        }
    }
}

/* As from a file in bf16: the generator packs them as 16 bits, an engine that learns does not. */
static void halve_weights(px_model *model)
{
    for (size_t i = 0; i < model->block; i++) {
        uint32_t word;
        memcpy(&word, model->weights + i, sizeof word);
        word &= 0xffff0000u;
        memcpy(model->weights + i, &word, sizeof word);
    }
    model->version++;
}

/* Returns how many samples met the stop id. */
static int check_family(const px_model_config *config, bool halves)
{
    px_model model;
    tiny_model(&model, config, 13);
    if (halves) halve_weights(&model);
    px_request requests[REQUESTS];
    make_requests(requests, 9, config->vocab_size); /* 63 samples */
    px_sampling sampling = sampling_of(0.8);
    generate(&first_result, &model, &sampling, requests, REQUESTS, plan_of(64, 80, 256, 2));
    compare_with_engine(&model, &first_result, requests, 9, 0.8);
    int stopped = 0;
    for (int i = 0; i < first_result.count; i++) {
        const px_completion *c = &first_result.completions[i];
        assert_true(c->length >= 1 && c->length <= NEW);
        for (int k = 0; k + 1 < c->length; k++) assert_true(c->ids[k] != 3);
        assert_int_equal(c->finish, c->ids[c->length - 1] == 3 ? PX_FINISH_STOP : PX_FINISH_LENGTH);
        stopped += c->finish == PX_FINISH_STOP;
    }
    print_message("    %s: %d of %d stopped\n", px_family_name(config->family), stopped, first_result.count);
    assert_true(stopped < first_result.count);
    /* slots, prefill chunk, threads */
    const px_generator_plan plans[] = {plan_of(1, 80, 256, 1), plan_of(3, 80, 7, 2), plan_of(64, 74, 1, 1),
                                       plan_of(20, 96, 40, 2)};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        generate(&second_result, &model, &sampling, requests, REQUESTS, plans[i]);
        same(&first_result, &second_result);
    }
    px_model_free(&model);
    return stopped;
}

static void logprobs_are_the_engines(void **state)
{
    (void)state;
    px_model_config configs[] = {tiny_gpt2(PX_HEAD_LM, true), tiny_llama(PX_HEAD_LM, false),
                                 tiny_llama(PX_HEAD_LM, true)};
    configs[2].attention_bias = configs[2].output_bias = configs[2].mlp_bias = true;
    int precisions = px_compute_no_bf16() ? 1 : 2;
    for (int p = 0; p < precisions; p++) {
        precision = p == 0 ? PX_F32 : PX_BF16;
        for (int i = 0; i < 3; i++) assert_true(check_family(&configs[i], i == 2) > 0);
        for (int family = PX_MISTRAL; family < PX_FAMILIES; family++) {
            px_model_config config = tiny_family((px_family)family, PX_HEAD_LM);
            check_family(&config, family == PX_GEMMA);
        }
    }
    precision = PX_F32;
}

/* A sample is a function of (iteration, slot, sample, position): parts of the work give parts of the result. */
static void work_can_be_divided(void **state)
{
    (void)state;
    px_model_config config = tiny_llama(PX_HEAD_LM, true);
    px_model model;
    tiny_model(&model, &config, 13);
    px_request requests[REQUESTS];
    make_requests(requests, 4, config.vocab_size);
    px_sampling sampling = sampling_of(1);
    generate(&first_result, &model, &sampling, requests, REQUESTS, plan_of(5, 80, 64, 2));
    px_request part = requests[5];
    part.first_sample = 2;
    part.samples = 2;
    generate(&second_result, &model, &sampling, &part, 1, plan_of(8, 80, 64, 2));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(second_result.completions[i].length, first_result.completions[22 + i].length);
        assert_memory_equal(second_result.ids[i], first_result.ids[22 + i], sizeof second_result.ids[i]);
    }
    assert_memory_not_equal(second_result.ids[0], second_result.ids[1], sizeof second_result.ids[0]);
    sampling.iteration++;
    generate(&second_result, &model, &sampling, requests, REQUESTS, plan_of(5, 80, 64, 2));
    assert_memory_not_equal(first_result.ids, second_result.ids, sizeof first_result.ids);
    px_model_free(&model);
}

/* Greedy: every token is the argmax of the engine's logits, and its log-probability that of z. */
static void greedy_follows_the_argmax(void **state)
{
    (void)state;
    px_model_config config = tiny_gpt2(PX_HEAD_LM, false);
    px_model model;
    tiny_model(&model, &config, 17);
    px_request requests[REQUESTS];
    make_requests(requests, 1, config.vocab_size);
    px_sampling sampling = sampling_of(0);
    sampling.stop_count = 0;
    generate(&first_result, &model, &sampling, requests, REQUESTS, plan_of(2, 80, 64, 2));
    compare_with_engine(&model, &first_result, requests, 1, 1);
    px_engine_plan plan = {.max_tokens = 80, .max_sequences = 1, .max_sequence = 80, .threads = 1};
    px_engine *engine;
    assert_int_equal(px_engine_create(&engine, &config, &plan), PX_OK);
    px_real logits[64];
    int32_t ids[80];
    for (int r = 0; r < REQUESTS; r++) {
        for (int k = 0; k < NEW; k++) {
            int length = prompt_lengths[r] + k, best = 0;
            memcpy(ids, prompts[r], (size_t)prompt_lengths[r] * sizeof *ids);
            memcpy(ids + prompt_lengths[r], first_result.ids[r], (size_t)k * sizeof *ids);
            int32_t starts[2] = {0, length}, row = length - 1;
            px_engine_forward(engine, &model, &(px_batch){.ids = ids, .starts = starts, .sequences = 1, .tokens = length});
            px_engine_logits(engine, &model, &row, 1, logits);
            for (int v = 1; v < config.vocab_size; v++) best = logits[v] > logits[best] ? v : best;
            assert_int_equal(first_result.ids[r][k], best);
        }
    }
    px_engine_destroy(engine);
    px_model_free(&model);
}

static bool stop_at_third(void *arg, int completion, const px_completion *so_far)
{
    int *calls = arg;
    (*calls)++;
    return completion == 1 && so_far->length == 3;
}

static void callback_min_tokens_and_counters(void **state)
{
    (void)state;
    px_model_config config = tiny_gpt2(PX_HEAD_LM, true);
    px_model model;
    tiny_model(&model, &config, 13);
    px_request requests[REQUESTS];
    make_requests(requests, 2, config.vocab_size);
    px_sampling sampling = sampling_of(1);
    sampling.min_new_tokens = 10;
    px_generator_plan plan = {.max_slots = 4, .max_length = 80, .max_prefill = 32, .threads = 2};
    size_t live = px_alloc_live(), planned = px_generator_bytes(&model, &plan);
    px_generator *g;
    assert_int_equal(px_generator_create(&g, &config, &plan), PX_OK);
    double taken = (double)(px_alloc_live() - live);
    assert_true(fabs(taken - (double)planned) <= .05 * taken);
    size_t allocations = 0;
    for (int run = 0; run < 2; run++) {
        int calls = 0, tokens = 0;
        for (int i = 0; i < 2 * REQUESTS; i++) {
            first_result.completions[i] = (px_completion){.ids = first_result.ids[i],
                                                            .logprobs = first_result.logprobs[i]};
        }
        assert_int_equal(px_generator_run(g, &model, &sampling, requests, REQUESTS, first_result.completions,
                                          stop_at_third, &calls), PX_OK);
        assert_int_equal(first_result.completions[1].length, 3);
        assert_int_equal(first_result.completions[1].finish, PX_FINISH_STOP);
        for (int i = 0; i < 2 * REQUESTS; i++) {
            if (i != 1) assert_true(first_result.completions[i].length >= 11 || first_result.completions[i].finish);
            if (i != 1) assert_true(first_result.completions[i].length > 10);
            tokens += first_result.completions[i].length;
        }
        px_generator_stats stats;
        px_generator_last(g, &stats);
        assert_int_equal(calls, tokens);
        assert_int_equal(stats.decode_tokens, tokens);
        int prefill = 0;
        for (int r = 0; r < REQUESTS; r++) prefill += prompt_lengths[r] - 1;
        assert_int_equal(stats.prefill_tokens, prefill); /* each prompt once, whatever its samples */
        if (run == 0) allocations = px_alloc_count();
    }
    assert_int_equal(px_alloc_count(), allocations);
    px_generator_destroy(g);
    assert_int_equal(px_alloc_live(), live);
    px_model_free(&model);
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    px_model_config config = tiny_gpt2(PX_HEAD_LM, true);
    px_model model;
    tiny_model(&model, &config, 13);
    px_generator_plan plan = {.max_slots = 2, .max_length = 40, .max_prefill = 8, .threads = 1};
    px_generator *g;
    assert_int_equal(px_generator_create(&g, &config, &plan), PX_OK);
    px_sampling sampling = sampling_of(1);
    int32_t prompt[20] = {1, 2, 37};
    px_request bad[] = {{.prompt = prompt, .prompt_length = 0, .samples = 1},
                        {.prompt = prompt, .prompt_length = 17, .samples = 1},
                        {.prompt = prompt, .prompt_length = 3, .samples = 1}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(px_generator_run(g, &model, &sampling, &bad[i], 1, first_result.completions, NULL, NULL),
                         PX_DATA);
        assert_true(strlen(px_error_text()) > 0);
        px_error_clear();
    }
    px_generator_destroy(g);
    config.head = PX_HEAD_SCALAR;
    assert_int_equal(px_generator_create(&g, &config, &plan), PX_CONFIG);
    px_error_clear();
    px_model_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logprobs_are_the_engines),         cmocka_unit_test(work_can_be_divided),
        cmocka_unit_test(greedy_follows_the_argmax),        cmocka_unit_test(callback_min_tokens_and_counters),
        cmocka_unit_test(bad_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
