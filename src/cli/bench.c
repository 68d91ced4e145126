#include "cli.h"
#include "phalanx/dist.h"
#include "phalanx/optim.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const px_usage usage = {
    .synopsis = "bench [gemm|attention|train|sample|allreduce]... [--model DIR | --shape NAME] [options]",
    .what = "What this machine can do and what is reached. The roof is OpenBLAS's float32 product of\n"
            "1024x3072x768 on the same threads in the same run.\n"
            "gemm: products of the sizes of transformers; attention: causal attention of one layer, forward;\n"
            "train: forward, cross-entropy, backward and AdamW on random ids; sample: generation of N tokens\n"
            "a sequence; allreduce: the ordered sum of gradients over the ranks of mpirun. Best of several runs.\n"
            "Without words: gemm, train and sample.",
    .examples = "  phalanx bench gemm --json\n"
                "  phalanx bench train sample --shape gpt2-124m --batch 4 --seq 256",
    .exits = "0 done, 64 usage, 65 bad model, 74 input/output",
};

typedef struct bench {
    const char *dir, *shape, *precision;
    int64_t batch, seq, prompt, new_tokens, threads, trials;
    bool json, helped;
    px_dtype dtype;
    double roof;
    px_model model;
} bench;

static px_status print_row(const bench *b, const char *what, const char *shape, double seconds, double tokens,
                           double flops)
{
    double gflops = flops / seconds / 1e9;
    if (!b->json) {
        char rate[32] = "", part[48] = "";
        if (tokens > 0.0) {
            snprintf(rate, sizeof rate, "%.0f tok/s", tokens / seconds);
        }
        if (b->roof > 0.0) {
            snprintf(part, sizeof part, "%6.1f %% of %.0f", 100.0 * gflops / b->roof, b->roof);
        }
        printf("%-10s %-22s %9.2f ms %14s %8.1f GFLOP/s %s\n", what, shape, seconds * 1e3, rate, gflops, part);
        return px_output_done();
    }
    json_t *rate = tokens > 0.0 ? json_real(tokens / seconds) : json_null();
    json_t *roof = b->roof > 0.0 ? json_real(b->roof) : json_null();
    PX_TRY(px_print_json(json_pack("{s:s, s:s, s:s, s:I, s:f, s:o, s:f, s:o}", "what", what, "shape", shape,
                                   "precision", b->precision, "threads", (json_int_t)b->threads, "ms", seconds * 1e3,
                                   "tok_s", rate, "gflops", gflops, "roof_gflops", roof)));
    return px_output_done();
}

static void fill(px_real *x, size_t count)
{
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (px_real)(state >> 8) / 16777216.0f - 0.5f;
    }
}

/* ---- gemm -------------------------------------------------------------------------------------------------------- */

static px_status one_product(const bench *b, int M, int out, int in)
{
    px_compute ctx = {.threads = 0};
    PX_TRY(px_compute_init(&ctx, (int)b->threads, px_linear_scratch(M, out, in, (int)b->threads)));
    px_real *x = px_alloc_array((size_t)M * (size_t)in, sizeof *x, "a matrix");
    px_real *w = px_alloc_array((size_t)out * (size_t)in, sizeof *w, "a matrix");
    px_real *y = px_alloc_array((size_t)M * (size_t)out, sizeof *y, "a matrix");
    px_status status = x != NULL && w != NULL && y != NULL ? PX_OK : px_error_code();
    if (status == PX_OK) {
        fill(x, (size_t)M * (size_t)in);
        fill(w, (size_t)out * (size_t)in);
        ctx.precision = b->dtype;
        px_weight weight = {.raw = w, .out = out, .in = in};
        double best = INFINITY;
        for (int64_t trial = 0; trial < 4 * b->trials; trial++) {
            double start = px_now();
            px_linear_forward(&ctx, y, out, x, in, &weight, NULL, M);
            best = fmin(best, px_now() - start);
        }
        char shape[64];
        snprintf(shape, sizeof shape, "%dx%dx%d", M, out, in);
        status = print_row(b, "gemm", shape, best, 0.0, 2.0 * M * out * in);
    }
    px_free(x);
    px_free(w);
    px_free(y);
    px_compute_free(&ctx);
    return status;
}

static px_status bench_gemm(const bench *b)
{
    static const int sizes[][3] = {{1024, 3072, 768}, {4096, 1536, 384}, {1024, 50257, 768}, {32, 768, 768},
                                   {8, 3072, 768}, {1, 3072, 768}};
    for (int i = 0; i < PX_COUNT(sizes); i++) {
        PX_TRY(one_product(b, sizes[i][0], sizes[i][1], sizes[i][2]));
    }
    return PX_OK;
}

/* ---- attention: one layer of the shape, forward ------------------------------------------------------------------- */

static double best_attention(const bench *b, px_compute *ctx, px_real *qkv, px_real *out, px_kv kv, px_span *spans)
{
    const px_model_config *c = &b->model.config;
    int q = c->heads * c->head_dim, ld = q + 2 * c->kv_heads * c->head_dim;
    size_t elements = px_kv_elements(c->kv_heads, c->head_dim, (int)b->seq);
    for (int64_t s = 0; s < b->batch; s++) {
        spans[s] = (px_span){.row = (int)(s * b->seq), .rows = (int)b->seq, .kv = kv};
        spans[s].kv.k += (size_t)s * elements;
        spans[s].kv.v += (size_t)s * elements;
    }
    double best = INFINITY;
    for (int64_t trial = 0; trial < 4 * b->trials; trial++) {
        double start = px_now();
        px_kv_store(ctx, spans, (int)b->batch, qkv + q, qkv + q + c->kv_heads * c->head_dim, ld);
        px_attention_forward(ctx, out, q, NULL, qkv, ld, spans, (int)b->batch, c->heads, 1.0 / sqrt(c->head_dim), 0);
        best = fmin(best, px_now() - start);
    }
    return best;
}

static px_status bench_attention(const bench *b)
{
    const px_model_config *c = &b->model.config;
    size_t rows = (size_t)(b->batch * b->seq), q = (size_t)c->heads * (size_t)c->head_dim;
    size_t kv = (size_t)c->kv_heads * (size_t)c->head_dim, T = (size_t)b->seq;
    size_t cached = (size_t)b->batch * px_kv_elements(c->kv_heads, c->head_dim, (int)T);
    px_compute ctx = {.threads = 0};
    PX_TRY(px_compute_init(&ctx, (int)b->threads, px_attention_scratch((int)rows, (int)T, c->heads, c->kv_heads,
                                                                       c->head_dim, (int)b->threads)));
    px_real *qkv = px_alloc_array(rows * (q + 2 * kv), sizeof *qkv, "queries, keys and values");
    px_real *out = px_alloc_array(rows * q, sizeof *out, "attention");
    px_real *cache = px_alloc_array(2 * cached, sizeof *cache, "keys and values");
    px_span *spans = px_alloc_array((size_t)b->batch, sizeof *spans, "spans");
    px_status status = qkv != NULL && out != NULL && cache != NULL && spans != NULL ? PX_OK : px_error_code();
    if (status == PX_OK) {
        fill(qkv, rows * (q + 2 * kv));
        px_kv first = {.k = cache, .v = cache + cached, .kv_heads = c->kv_heads, .D = c->head_dim,
                       .capacity = (int)((T + PX_KEY_BLOCK - 1) / PX_KEY_BLOCK * PX_KEY_BLOCK)};
        double best = best_attention(b, &ctx, qkv, out, first, spans);
        char shape[64];
        snprintf(shape, sizeof shape, "%lldx%lld, %d heads of %d", (long long)b->batch, (long long)b->seq, c->heads,
                 c->head_dim);
        status = print_row(b, "attention", shape, best, (double)rows, 2.0 * (double)rows * (double)(T + 1) * (double)q);
    }
    px_free(qkv);
    px_free(out);
    px_free(cache);
    px_free(spans);
    px_compute_free(&ctx);
    return status;
}

/* ---- train ------------------------------------------------------------------------------------------------------- */

static void cross_entropy(void *arg, int first, int count, const px_row_stats *stats, double *dlogprob,
                          double *dentropy)
{
    (void)first;
    (void)stats;
    (void)dentropy;
    for (int i = 0; i < count; i++) {
        dlogprob[i] = -1.0 / *(const double *)arg;
    }
}

typedef struct step {
    px_engine *engine;
    float *grads, *m, *v;
    int32_t *ids, *starts, *rows, *targets;
    int tokens, targets_count; /* every position but a sequence's last has a target */
} step;

static void one_step(bench *b, step *s, int64_t number)
{
    px_batch batch = {.ids = s->ids, .starts = s->starts, .sequences = (int)b->batch, .tokens = s->tokens};
    px_adamw_config adam = {0.9, 0.95, 1e-8, 0.0};
    px_range range = {0, b->model.block, false};
    double count = s->targets_count;
    memset(s->grads, 0, b->model.block * sizeof *s->grads);
    px_engine_forward(s->engine, &b->model, &batch);
    px_engine_lm_backward(s->engine, &b->model, s->grads, s->rows, s->targets, s->targets_count, 1.0, false, cross_entropy,
                          &count);
    px_engine_backward(s->engine, &b->model, s->grads, NULL, NULL);
    px_adamw_step(&adam, b->model.weights, s->grads, s->m, s->v, &range, 1, 1e-6, 1.0, number);
    b->model.version++;
}

static void random_ids(const bench *b, int32_t *ids, size_t count)
{
    px_rng rng = px_rng_make(1, "bench", PX_RNG_NOISE);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)(px_rng_uniform(&rng, (uint32_t)i, 0, 0, 0) * b->model.config.vocab_size);
    }
}

static px_status prepare_step(bench *b, step *s)
{
    size_t block = b->model.block, n = (size_t)(b->batch * b->seq);
    s->tokens = (int)n;
    s->targets_count = (int)(n - (size_t)b->batch);
    s->grads = px_alloc_array(block, sizeof *s->grads, "gradients");
    s->m = px_alloc_array(block, sizeof *s->m, "moments");
    s->v = px_alloc_array(block, sizeof *s->v, "moments");
    s->ids = px_alloc_array(n, sizeof *s->ids, "a batch");
    s->rows = px_alloc_array(n, sizeof *s->rows, "a batch");
    s->targets = px_alloc_array(n, sizeof *s->targets, "a batch");
    s->starts = px_alloc_array((size_t)b->batch + 1, sizeof *s->starts, "a batch");
    if (s->grads == NULL || s->m == NULL || s->v == NULL || s->ids == NULL || s->rows == NULL || s->targets == NULL ||
        s->starts == NULL) {
        return px_error_code();
    }
    random_ids(b, s->ids, n);
    int count = 0;
    for (int i = 0; i + 1 < (int)n; i++) {
        if ((i + 1) % b->seq != 0) {
            s->rows[count] = i;
            s->targets[count++] = s->ids[i + 1];
        }
    }
    for (int64_t i = 0; i <= b->batch; i++) {
        s->starts[i] = (int32_t)(i * b->seq);
    }
    px_engine_plan plan = {.max_tokens = s->tokens, .max_sequences = (int)b->batch, .max_sequence = (int)b->seq,
                           .train = true, .threads = (int)b->threads, .precision = b->dtype};
    return px_engine_create(&s->engine, &b->model.config, &plan);
}

static px_status bench_train(bench *b)
{
    step s = {.tokens = 0};
    px_status status = prepare_step(b, &s);
    double best = INFINITY;
    for (int64_t trial = 1; trial <= b->trials && status == PX_OK && px_stop_level() == 0; trial++) {
        double start = px_now();
        one_step(b, &s, trial);
        best = fmin(best, px_now() - start);
    }
    if (status == PX_OK) { /* 6 for each parameter that multiplies and token, attention at half of its square */
        const px_model_config *c = &b->model.config;
        double used = (double)px_model_parameters(&b->model);
        used -= b->model.position == SIZE_MAX ? 0.0 : (double)c->max_positions * c->hidden_size;
        used -= c->tied ? 0.0 : (double)c->vocab_size * c->hidden_size;
        double flops = s.tokens * (6.0 * used + 6.0 * c->layers * (double)b->seq * c->hidden_size);
        status = print_row(b, "train", b->shape, best, s.tokens, flops);
    }
    px_engine_destroy(s.engine);
    px_free(s.grads);
    px_free(s.m);
    px_free(s.v);
    px_free(s.ids);
    px_free(s.rows);
    px_free(s.targets);
    px_free(s.starts);
    return status;
}

/* ---- sample ------------------------------------------------------------------------------------------------------ */

static px_status run_samples(const bench *b, px_generator *generator, px_request *requests, px_completion *completions,
                             int32_t *prompts)
{
    px_sampling sampling = {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0,
                            .max_new_tokens = (int)b->new_tokens, .rng = px_rng_make(1, NULL, PX_RNG_SAMPLE)};
    random_ids(b, prompts, (size_t)(b->batch * b->prompt));
    for (int64_t i = 0; i < b->batch; i++) {
        requests[i] = (px_request){.prompt = prompts + i * b->prompt, .prompt_length = (int)b->prompt,
                                   .slot = (uint32_t)i, .samples = 1};
    }
    double best = INFINITY;
    for (int64_t trial = 0; trial < b->trials; trial++) {
        double start = px_now();
        PX_TRY(px_generator_run(generator, &b->model, &sampling, requests, (int)b->batch, completions, NULL, NULL));
        best = fmin(best, px_now() - start);
    }
    double tokens = (double)(b->batch * b->new_tokens);
    double flops = px_model_flops(&b->model.config, b->batch * (b->prompt + b->new_tokens),
                                  (double)(b->prompt + b->new_tokens), b->batch * b->new_tokens);
    return print_row(b, "sample", b->shape, best, tokens, flops);
}

static px_status bench_sample(const bench *b)
{
    size_t n = (size_t)b->batch, length = (size_t)b->new_tokens;
    px_request *requests = px_alloc_array(n, sizeof *requests, "requests");
    px_completion *completions = px_alloc_array(n, sizeof *completions, "completions");
    int32_t *ids = px_alloc_array(n * length, sizeof *ids, "completions");
    int32_t *prompts = px_alloc_array(n * (size_t)b->prompt, sizeof *prompts, "prompts");
    float *logprobs = px_alloc_array(n * length, sizeof *logprobs, "completions");
    px_generator *generator = NULL;
    bool fine = requests != NULL && completions != NULL && ids != NULL && prompts != NULL && logprobs != NULL;
    px_status status = fine ? PX_OK : px_error_code();
    for (size_t i = 0; i < n && fine; i++) {
        completions[i] = (px_completion){.ids = ids + i * length, .logprobs = logprobs + i * length};
    }
    px_generator_plan plan = {.max_slots = (int)b->batch, .max_length = (int)(b->prompt + b->new_tokens),
                              .max_prefill = (int)(b->batch * b->prompt < 2048 ? b->batch * b->prompt : 2048),
                              .threads = (int)b->threads, .precision = b->dtype};
    if (status == PX_OK) {
        status = px_generator_create(&generator, &b->model.config, &plan);
    }
    if (status == PX_OK) {
        status = run_samples(b, generator, requests, completions, prompts);
    }
    px_generator_destroy(generator);
    px_free(requests);
    px_free(completions);
    px_free(ids);
    px_free(prompts);
    px_free(logprobs);
    return status;
}

/* ---- allreduce --------------------------------------------------------------------------------------------------- */

static px_status bench_allreduce(const bench *b)
{
    size_t count = (size_t)1 << 24; /* floats: 64 MiB of gradients */
    float *values = px_alloc_array(count, sizeof *values, "gradients");
    PX_TRY(px_agree(values != NULL ? px_sum_f32_tree_open() : px_error_code()));
    double best = INFINITY;
    for (int64_t trial = 0; trial < b->trials; trial++) {
        px_barrier();
        double start = px_now(), seconds;
        px_sum_f32_tree(values, count);
        seconds = px_now() - start;
        px_max_f64(&seconds, 1);
        best = fmin(best, seconds);
    }
    px_free(values);
    char shape[64];
    snprintf(shape, sizeof shape, "64MiB, %d ranks", px_dist_size());
    return px_dist_rank() == 0 ? print_row(b, "allreduce", shape, best, 0.0,
                                           (double)count * (px_dist_size() - 1)) : PX_OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static px_status open_model(bench *b)
{
    bool had_score;
    if (b->dir != NULL) {
        b->shape = b->dir;
        PX_TRY(px_model_load(&b->model, b->dir, PX_HEAD_LM, &had_score));
    } else {
        px_model_config config;
        PX_TRY(px_model_config_shape(b->shape, &config));
        PX_TRY(px_model_plan(&b->model, &config));
        PX_TRY(px_model_alloc(&b->model));
        px_model_init(&b->model, 1);
    }
    int context = b->model.config.max_positions;
    if (b->seq > context || b->prompt + b->new_tokens > context) {
        return px_fail(PX_USAGE, "bench: --seq %lld or --prompt %lld and --new %lld do not fit the context of %d "
                                 "tokens",
                       (long long)b->seq, (long long)b->prompt, (long long)b->new_tokens, context);
    }
    return PX_OK;
}

static px_status read_precision(bench *b)
{
    PX_TRY(px_precision_read("bench", b->precision, &b->dtype));
    b->precision = b->dtype == PX_BF16 ? "bf16" : "f32";
    return PX_OK;
}

static px_status run(bench *b, const px_words *words, int argc, char **argv)
{
    static const char *const names[] = {"gemm", "attention", "train", "sample", "allreduce"};
    enum { GEMM, ATTENTION, TRAIN, SAMPLE, ALLREDUCE, KINDS };
    bool wanted[KINDS] = {[GEMM] = words->count == 0, [TRAIN] = words->count == 0, [SAMPLE] = words->count == 0};
    for (int i = 0; i < words->count; i++) {
        int k = 0;
        while (k < KINDS && strcmp(words->word[i], names[k]) != 0) {
            k++;
        }
        if (k == KINDS) {
            return px_fail(PX_USAGE, "bench: '%s' is unknown; valid are gemm, attention, train, sample, allreduce",
                           words->word[i]);
        }
        wanted[k] = true;
    }
    PX_TRY(read_precision(b));
    b->roof = px_library_gemm(b->dtype, (int)b->threads, 1024, 3072, 768);
    if (wanted[ATTENTION] || wanted[TRAIN] || wanted[SAMPLE]) {
        PX_TRY(open_model(b));
    }
    px_status status = wanted[GEMM] ? bench_gemm(b) : PX_OK;
    status = status == PX_OK && wanted[ATTENTION] ? bench_attention(b) : status;
    status = status == PX_OK && wanted[TRAIN] ? bench_train(b) : status;
    status = status == PX_OK && wanted[SAMPLE] ? bench_sample(b) : status;
    if (status == PX_OK && wanted[ALLREDUCE]) {
        status = px_dist_start(&argc, &argv);
        status = status == PX_OK ? bench_allreduce(b) : status;
    }
    return status;
}

px_status px_command_bench(int argc, char **argv)
{
    px_words words = {.count = 0};
    bench b = {.shape = "nano10m", .precision = "f32", .batch = 8, .seq = 256, .prompt = 32, .new_tokens = 64,
               .threads = px_cores(), .trials = 5};
    const px_option options[] = {
        {"shape", PX_OPTION_TEXT, &b.shape, "NAME", "gpt2-124m, nano10m, smollm2-135m, stories15m: random weights",
         0, 0},
        {"model", PX_OPTION_TEXT, &b.dir, "DIR", "a Hugging Face directory instead", 0, 0},
        {"batch", PX_OPTION_INT, &b.batch, "B", "sequences", 1, 4096},
        {"seq", PX_OPTION_INT, &b.seq, "T", "tokens of a training sequence", 1, 1 << 17},
        {"prompt", PX_OPTION_INT, &b.prompt, "P", "tokens of a prompt", 1, 1 << 17},
        {"new", PX_OPTION_INT, &b.new_tokens, "N", "tokens generated", 1, 1 << 17},
        {"precision", PX_OPTION_TEXT, &b.precision, "TYPE", "f32 or bf16: of the matrix products", 0, 0},
        {"threads", PX_OPTION_INT, &b.threads, "N", "threads", 1, 1024},
        {"trials", PX_OPTION_INT, &b.trials, "N", "runs of which the best counts", 1, 1000},
        {"json", PX_OPTION_FLAG, &b.json, NULL, "an object a line", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &words, &b.helped));
    if (b.helped) {
        return PX_OK;
    }
    px_status status = run(&b, &words, argc, argv);
    px_model_free(&b.model);
    return status;
}
