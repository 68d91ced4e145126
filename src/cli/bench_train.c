/* A training step on random ids, whole and by the parts that stand on their own: head with loss, optimizer. */
#include "bench.h"
#include "phalanx/optim.h"

#include <math.h>
#include <stdio.h>

typedef struct step {
    px_engine *engine;
    float *grads, *m, *v; /* [block] */
    int32_t *ids, *starts, *rows, *targets;
    int tokens, targets_count; /* every position but a sequence's last has a target */
    int64_t number;            /* optimizer steps taken */
} step;

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

static void forward(px_bench *b, step *s)
{
    px_batch batch = {.ids = s->ids, .starts = s->starts, .sequences = (int)b->batch, .tokens = s->tokens};
    px_engine_forward(s->engine, &b->model, &batch);
}

static void head(px_bench *b, step *s)
{
    double count = s->targets_count;
    px_engine_lm_backward(s->engine, &b->model, s->grads, s->rows, s->targets, s->targets_count, 1.0, false, cross_entropy,
                          &count);
}

static void optimize(px_bench *b, step *s)
{
    px_adamw_config adam = {0.9, 0.95, 1e-8, 0.0};
    px_range range = {0, b->model.block, false};
    px_adamw_step(&adam, b->model.weights, s->grads, s->m, s->v, &range, 1, 1e-6, 1.0, ++s->number);
    b->model.version++;
}

static void whole(px_bench *b, step *s)
{
    px_engine_fresh(s->engine, NULL); /* as a learner's first leaf */
    forward(b, s);
    head(b, s);
    px_engine_backward(s->engine, &b->model, s->grads, NULL, NULL);
    optimize(b, s);
}

static px_status make_batch(const px_bench *b, step *s)
{
    size_t n = (size_t)(b->batch * b->seq);
    s->tokens = (int)n;
    s->targets_count = (int)(n - (size_t)b->batch);
    s->ids = px_alloc_array(n, sizeof *s->ids, "a batch");
    s->rows = px_alloc_array(n, sizeof *s->rows, "a batch");
    s->targets = px_alloc_array(n, sizeof *s->targets, "a batch");
    s->starts = px_alloc_array((size_t)b->batch + 1, sizeof *s->starts, "a batch");
    if (s->ids == NULL || s->rows == NULL || s->targets == NULL || s->starts == NULL) {
        return px_error_code();
    }
    px_bench_ids(b, s->ids, n);
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
    return PX_OK;
}

static px_status make_moments(const px_bench *b, step *s)
{
    size_t block = b->model.block;
    s->grads = px_alloc_array(block, sizeof *s->grads, "gradients");
    s->m = px_alloc_array(block, sizeof *s->m, "moments");
    s->v = px_alloc_array(block, sizeof *s->v, "moments");
    return s->grads != NULL && s->m != NULL && s->v != NULL ? PX_OK : px_error_code();
}

static px_status make_engine(px_bench *b, step *s)
{
    PX_TRY(make_batch(b, s));
    px_engine_plan plan = {.max_tokens = s->tokens, .max_sequences = (int)b->batch, .max_sequence = (int)b->seq,
                           .train = true, .threads = (int)b->threads, .precision = b->dtype};
    return px_engine_create(&s->engine, &b->model.config, &plan);
}

static void free_step(step *s)
{
    px_engine_destroy(s->engine);
    void *const arrays[] = {s->grads, s->m, s->v, s->ids, s->starts, s->rows, s->targets};
    for (int i = 0; i < PX_COUNT(arrays); i++) {
        px_free(arrays[i]);
    }
}

static double best_seconds(px_bench *b, step *s, void (*part)(px_bench *, step *))
{
    double best = INFINITY;
    for (int64_t trial = 0; trial < b->trials && px_stop_level() == 0; trial++) {
        double start = px_now();
        part(b, s);
        best = fmin(best, px_now() - start);
    }
    return best;
}

/* 6 operations for each parameter that multiplies and token, attention at half of its square. */
static double step_flops(const px_bench *b, int tokens)
{
    const px_model_config *c = &b->model.config;
    double used = (double)px_model_parameters(&b->model);
    used -= b->model.position == SIZE_MAX ? 0.0 : (double)c->max_positions * c->hidden_size;
    used -= c->tied ? 0.0 : (double)c->vocab_size * c->hidden_size;
    return tokens * (6.0 * used + 6.0 * c->layers * (double)b->seq * c->hidden_size);
}

px_status px_bench_train(px_bench *b)
{
    step s = {.tokens = 0};
    PX_TRY(px_bench_weights(b));
    px_status status = make_moments(b, &s);
    status = status == PX_OK ? make_engine(b, &s) : status;
    if (status == PX_OK) {
        px_bench_row row = {.what = "train", .shape = b->shape, .precision = b->dtype, .tokens = s.tokens,
                            .flops = step_flops(b, s.tokens), .seconds = best_seconds(b, &s, whole)};
        status = px_bench_print(b, &row);
    }
    free_step(&s);
    return status;
}

px_status px_bench_head(px_bench *b)
{
    const px_model_config *c = &b->model.config;
    step s = {.tokens = 0};
    PX_TRY(px_bench_weights(b));
    px_status status = make_moments(b, &s);
    status = status == PX_OK ? make_engine(b, &s) : status;
    if (status == PX_OK) {
        forward(b, &s);
        char shape[64];
        snprintf(shape, sizeof shape, "%dx%dx%d", s.targets_count, c->vocab_size, c->hidden_size);
        px_bench_row row = {.what = "head + loss", .shape = shape, .precision = b->dtype, .tokens = s.targets_count,
                            .flops = 6.0 * s.targets_count * (double)c->vocab_size * c->hidden_size,
                            .seconds = best_seconds(b, &s, head)};
        status = px_bench_print(b, &row);
    }
    free_step(&s);
    return status;
}

px_status px_bench_adamw(px_bench *b)
{
    enum { OPERATIONS = 14, READ = 4, WRITTEN = 3 }; /* of a parameter: w, g, m, v are read and all but g written */
    step s = {.tokens = 0};
    PX_TRY(px_bench_weights(b));
    px_status status = make_moments(b, &s);
    if (status == PX_OK) {
        double n = (double)b->model.block;
        char shape[64];
        px_bench_fill(s.grads, b->model.block); /* so that no moment is denormal */
        snprintf(shape, sizeof shape, "%.1f M parameters", 1e-6 * n);
        px_bench_row row = {.what = "adamw", .shape = shape, .flops = OPERATIONS * n,
                            .bytes = (READ + WRITTEN) * sizeof(float) * n, .bytes_roof = px_bench_memory(b, true),
                            .seconds = best_seconds(b, &s, optimize)};
        status = px_bench_print(b, &row);
    }
    free_step(&s);
    return status;
}
