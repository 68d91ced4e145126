/* Generation on random prompts: whole, and a step of decoding. */
#include "bench.h"

#include <math.h>
#include <stdio.h>

typedef struct run {
    px_generator *generator;
    px_request *requests;       /* [batch] */
    px_completion *completions; /* [batch] */
    int32_t *ids, *prompts;
    float *logprobs;
    int batch;
} run;

static px_status prepare(const px_bench *b, run *r, int batch)
{
    size_t n = (size_t)batch, length = (size_t)b->new_tokens;
    r->batch = batch;
    r->requests = px_alloc_array(n, sizeof *r->requests, "requests");
    r->completions = px_alloc_array(n, sizeof *r->completions, "completions");
    r->ids = px_alloc_array(n * length, sizeof *r->ids, "completions");
    r->prompts = px_alloc_array(n * (size_t)b->prompt, sizeof *r->prompts, "prompts");
    r->logprobs = px_alloc_array(n * length, sizeof *r->logprobs, "completions");
    if (r->requests == NULL || r->completions == NULL || r->ids == NULL || r->prompts == NULL || r->logprobs == NULL) {
        return px_error_code();
    }
    px_bench_ids(b, r->prompts, n * (size_t)b->prompt);
    for (int i = 0; i < batch; i++) {
        r->completions[i] = (px_completion){.ids = r->ids + (size_t)i * length, .logprobs = r->logprobs + (size_t)i * length};
        r->requests[i] = (px_request){.prompt = r->prompts + i * b->prompt, .prompt_length = (int)b->prompt,
                                      .slot = (uint32_t)i, .samples = 1};
    }
    int64_t prompts = batch * b->prompt;
    px_generator_plan plan = {.max_slots = batch, .max_length = (int)(b->prompt + b->new_tokens),
                              .max_prefill = (int)(prompts < 2048 ? prompts : 2048), .threads = (int)b->threads,
                              .precision = b->dtype};
    return px_generator_create(&r->generator, &b->model.config, &plan);
}

static void release(run *r)
{
    px_generator_destroy(r->generator);
    px_free(r->requests);
    px_free(r->completions);
    px_free(r->ids);
    px_free(r->prompts);
    px_free(r->logprobs);
}

/* Seconds of the best run, and of its decoding a step in the run that was best at that. */
static px_status best_runs(const px_bench *b, run *r, double *whole, double *step)
{
    px_sampling sampling = {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0,
                            .max_new_tokens = (int)b->new_tokens, .rng = px_rng_make(1, NULL, PX_RNG_SAMPLE)};
    *whole = *step = INFINITY;
    for (int64_t trial = 0; trial < b->trials; trial++) {
        double start = px_now();
        px_generator_stats stats;
        PX_TRY(px_generator_run(r->generator, &b->model, &sampling, r->requests, r->batch, r->completions, NULL, NULL));
        *whole = fmin(*whole, px_now() - start);
        px_generator_last(r->generator, &stats);
        *step = fmin(*step, stats.decode_s / (double)stats.decode_steps);
    }
    return PX_OK;
}

static px_status measure(px_bench *b, int batch, double *whole, double *step)
{
    run r = {.batch = batch};
    PX_TRY(px_bench_weights(b));
    px_status status = prepare(b, &r, batch);
    status = status == PX_OK ? best_runs(b, &r, whole, step) : status;
    release(&r);
    return status;
}

px_status px_bench_sample(px_bench *b)
{
    double whole, step, tokens = (double)(b->batch * b->new_tokens);
    PX_TRY(measure(b, (int)b->batch, &whole, &step));
    px_bench_row row = {.what = "sample", .shape = b->shape, .precision = b->dtype, .seconds = whole, .tokens = tokens};
    row.flops = px_model_flops(&b->model.config, b->batch * (b->prompt + b->new_tokens), (double)(b->prompt + b->new_tokens),
                               b->batch * b->new_tokens);
    return px_bench_print(b, &row);
}

/* What a step reads: every weight that multiplies once, and the keys and values of all sequences, half of them new. */
static double step_bytes(const px_bench *b, int batch)
{
    const px_model_config *c = &b->model.config;
    double weights = 0.0, element = b->dtype == PX_BF16 ? 2.0 : 4.0;
    for (int i = 0; i < b->model.param_count; i++) {
        const px_param *p = &b->model.params[i];
        bool head = c->tied ? p->offset == b->model.embed : p->offset == b->model.lm_head;
        weights += p->dims == 2 && (p->layer >= 0 || head) ? (double)p->count : 0.0;
    }
    double length = (double)b->prompt + 0.5 * (double)b->new_tokens;
    return element * weights + sizeof(px_real) * 2.0 * batch * length * c->layers * c->kv_heads * c->head_dim;
}

static px_status one_decode(px_bench *b, int batch)
{
    double whole, step, length = (double)b->prompt + 0.5 * (double)b->new_tokens;
    PX_TRY(measure(b, batch, &whole, &step));
    char shape[64];
    snprintf(shape, sizeof shape, "%d row%s, %.0f tokens long", batch, batch == 1 ? "" : "s", length);
    px_bench_row row = {.what = "decode", .shape = shape, .precision = b->dtype, .seconds = step, .tokens = batch,
                        .bytes = step_bytes(b, batch), .bytes_roof = px_bench_memory(b, false)};
    row.flops = px_model_flops(&b->model.config, batch, 2.0 * length, batch); /* which takes half of a length */
    return px_bench_print(b, &row);
}

px_status px_bench_decode(px_bench *b)
{
    if (b->new_tokens < 2) { /* the first token comes of the prompt */
        return px_fail(PX_USAGE, "bench decode: --new is %lld; valid is 2 or more", (long long)b->new_tokens);
    }
    PX_TRY(one_decode(b, (int)b->batch));
    return b->batch > 1 ? one_decode(b, 1) : PX_OK;
}
