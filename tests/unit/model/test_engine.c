/* The engine in float: what is planned is what is allocated, rows do not depend on their batch, heads agree with each
 * other, gradients arrive in order, and nothing is allocated after create. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tiny.h"

#define MAX_TOKENS 512
static int32_t ids[MAX_TOKENS], starts[65], rows[MAX_TOKENS], targets[MAX_TOKENS];
static px_row_stats stats[MAX_TOKENS], alone[MAX_TOKENS];

static px_dtype precision = PX_F32;

static px_engine *engine_of(const px_model_config *config, bool train, int threads)
{
    px_engine_plan plan = {.max_tokens = MAX_TOKENS, .max_sequences = 64, .max_sequence = 128, .train = train,
                           .threads = threads, .precision = precision};
    px_engine *engine;
    assert_int_equal(px_engine_create(&engine, config, &plan), PX_OK);
    return engine;
}

static void bytes_are_planned(void **state)
{
    (void)state;
    px_model_config configs[] = {tiny_gpt2(PX_HEAD_LM, true), tiny_llama(PX_HEAD_LM, false),
                                 tiny_gpt2(PX_HEAD_SCALAR, true), tiny_llama(PX_HEAD_NONE, false)};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        for (int way = 0; way < 4; way++) {
            px_model model;
            bool train = way % 2 == 1;
            assert_int_equal(px_model_plan(&model, &configs[i]), PX_OK);
            px_engine_plan plan = {.max_tokens = 3000, .max_sequences = 9, .max_sequence = 150, .train = train,
                                   .threads = 2, .packed = way >= 2};
            size_t planned = px_engine_bytes(&model, &plan), live = px_alloc_live();
            px_engine *engine;
            assert_int_equal(px_engine_create(&engine, &configs[i], &plan), PX_OK);
            double taken = (double)(px_alloc_live() - live);
            if (fabs(taken - (double)planned) > .05 * taken) fail_msg("planned %zu, taken %g", planned, taken);
            px_engine_destroy(engine);
            assert_int_equal(px_alloc_live(), live);
            px_model_free(&model);
        }
    }
}

static void all_rows(void *arg, int first, int count, const px_row_stats *chunk, double *dlogprob, double *dentropy)
{
    (void)arg, (void)first, (void)chunk;
    for (int i = 0; i < count; i++) dlogprob[i] = 1, dentropy[i] = 0.1;
}

static size_t gradient(const px_model *model, const px_batch *batch, bool recompute, px_real *grads)
{
    px_engine_plan plan = {.max_tokens = MAX_TOKENS, .max_sequences = 64, .max_sequence = 128, .train = true, .threads = 2,
                           .packed = recompute, .recompute = recompute}; /* packed or not: the same bits too */
    px_engine *engine;
    assert_int_equal(px_engine_create(&engine, &model->config, &plan), PX_OK);
    memset(grads, 0, model->block * sizeof *grads);
    int n = tiny_targets(batch, rows, targets);
    px_engine_forward(engine, model, batch);
    px_engine_lm_backward(engine, model, grads, rows, targets, n, 1, true, all_rows, NULL);
    px_engine_backward(engine, model, grads, NULL, NULL);
    px_engine_destroy(engine);
    plan.packed = false; /* activations alone are compared */
    return px_engine_bytes(model, &plan);
}

static void recomputed_activations(void **state)
{
    (void)state;
    static const int lengths[] = {17, 128, 33, 5, 90};
    static const px_family families[] = {PX_GPT2, PX_LLAMA, PX_MISTRAL, PX_QWEN2, PX_QWEN3, PX_GEMMA, PX_GPT_NEOX, PX_OPT};
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        px_model_config config = tiny_family(families[f], PX_HEAD_LM);
        px_model model;
        config.layers = 4;
        tiny_model(&model, &config, 5);
        px_batch batch = tiny_batch(ids, starts, lengths, 5, config.vocab_size);
        px_real *kept = px_alloc(model.block * sizeof *kept, "gradients"), *again = px_alloc(model.block * sizeof *again, "gradients");
        size_t more = gradient(&model, &batch, false, kept), less = gradient(&model, &batch, true, again);
        assert_memory_equal(kept, again, model.block * sizeof *kept);
        assert_true(kept[0] != 0);
        assert_true(less < more - more / 4);
        px_free(kept);
        px_free(again);
        px_model_free(&model);
    }
}

/* The same bits, where a row's bits are its own. */
static void same_gradients(const px_real *a, const px_real *b, size_t count)
{
    if (px_compute_row_invariant()) {
        assert_memory_equal(a, b, count * sizeof *a);
        return;
    }
    for (size_t i = 0; i < count; i++) assert_true(fabs((double)a[i] - b[i]) < 1e-4);
}

/* Rows that no head is asked for end in the last block: the others have the same bits, and so have all gradients. */
static void wanted_rows(void **state)
{
    (void)state;
    static const int lengths[] = {17, 128, 33, 5, 90};
    for (int f = 0; f < PX_FAMILIES; f++) {
        px_model_config config = tiny_family((px_family)f, PX_HEAD_LM);
        px_model model;
        px_engine_plan plan = {.max_tokens = MAX_TOKENS, .max_sequences = 64, .max_sequence = 128, .train = true, .threads = 2};
        tiny_model(&model, &config, 5);
        px_batch batch = tiny_batch(ids, starts, lengths, 5, config.vocab_size);
        int n = 0; /* a last row, some in the middle, none of the third, a first, and one before a last */
        rows[n++] = starts[1] - 1;
        for (int r = starts[1] + 70; r < starts[1] + 101; r += 3) rows[n++] = r;
        rows[n++] = starts[3];
        rows[n++] = starts[5] - 2;
        for (int i = 0; i < n; i++) targets[i] = (rows[i] * 7) % config.vocab_size;
        px_real *all = px_alloc(model.block * sizeof *all, "gradients"), *some = px_alloc(model.block * sizeof *some, "gradients");
        for (int way = 0; way < 4; way++) { /* all rows; those wanted; the same once more, and without a backward */
            px_engine *engine;
            px_real *grads = way == 0 ? all : some;
            if (way > 0) batch.wanted = rows, batch.wanted_count = n;
            plan.recompute = way == 2;
            plan.train = way < 3;
            assert_int_equal(px_engine_create(&engine, &config, &plan), PX_OK);
            px_engine_forward(engine, &model, &batch);
            px_engine_logprobs(engine, &model, rows, targets, n, 1, true, way == 0 ? stats : alone);
            for (int i = 0; way > 0 && i < n; i++) {
                assert_true(fabs(stats[i].logprob - alone[i].logprob) < 1e-4);
                if (px_compute_row_invariant()) assert_memory_equal(&stats[i], &alone[i], sizeof *stats);
            }
            if (plan.train) {
                memset(grads, 0, model.block * sizeof *grads);
                px_engine_lm_backward(engine, &model, grads, rows, targets, n, 1, true, all_rows, NULL);
                px_engine_backward(engine, &model, grads, NULL, NULL);
                same_gradients(all, grads, model.block);
            }
            px_engine_destroy(engine);
        }
        px_free(all);
        px_free(some);
        px_model_free(&model);
    }
}

static void add_gradient(px_engine *engine, const px_model *model, const px_batch *batch, px_real *grads)
{
    static double dvalues[MAX_TOKENS];
    int n = tiny_targets(batch, rows, targets);
    for (int i = 0; i < n; i++) dvalues[i] = 1.0 / (i + 1);
    px_engine_forward(engine, model, batch);
    if (model->config.head == PX_HEAD_LM)
        px_engine_lm_backward(engine, model, grads, rows, targets, n, 1, true, all_rows, NULL);
    else
        px_engine_value_backward(engine, model, grads, rows, dvalues, n);
    px_engine_backward(engine, model, grads, NULL, NULL);
}

/* What another batch left in the gradients does not matter: two batches give what they add to zeros. */
static void fresh_gradients_forget(void **state)
{
    (void)state;
    static const int lengths[] = {17, 5, 33}, other[] = {60, 21}, single[] = {1};
    px_model_config configs[] = {tiny_gpt2(PX_HEAD_LM, true), tiny_llama(PX_HEAD_LM, false), tiny_gpt2(PX_HEAD_SCALAR, true),
                                 tiny_family(PX_QWEN3, PX_HEAD_LM)};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        px_model model;
        tiny_model(&model, &configs[i], 3);
        size_t bytes = model.block * sizeof(px_real), V = (size_t)configs[i].vocab_size;
        px_real *zeroed = px_alloc(bytes, "gradients"), *fresh = px_alloc(bytes, "gradients");
        uint8_t *used = px_alloc(V, "rows");
        px_engine *engine = engine_of(&configs[i], true, 2);
        px_batch batch = tiny_batch(ids, starts, other, 2, configs[i].vocab_size);
        px_engine_fresh(engine, model.embed == model.lm_head ? NULL : used);
        add_gradient(engine, &model, &batch, fresh);
        batch = tiny_batch(ids, starts, single, 1, configs[i].vocab_size); /* no targets: the head has nothing to write */
        px_engine_fresh(engine, model.embed == model.lm_head ? NULL : used);
        add_gradient(engine, &model, &batch, fresh);
        assert_true(configs[i].head != PX_HEAD_LM || memcmp(fresh, zeroed, bytes) == 0);
        for (int p = 0; p < 2; p++) {
            batch = tiny_batch(ids, starts, p == 0 ? lengths : other, 2, configs[i].vocab_size - 9);
            add_gradient(engine, &model, &batch, zeroed);
        }
        for (int p = 0; p < 2; p++) {
            batch = tiny_batch(ids, starts, p == 0 ? lengths : other, 2, configs[i].vocab_size - 9);
            if (p == 0) px_engine_fresh(engine, model.embed == model.lm_head ? NULL : used);
            add_gradient(engine, &model, &batch, fresh);
        }
        assert_memory_equal(zeroed, fresh, bytes);
        px_engine_destroy(engine);
        px_free(zeroed);
        px_free(fresh);
        px_free(used);
        px_model_free(&model);
    }
}

static void positions_have_an_end(void **state)
{
    (void)state;
    px_model_config config = tiny_gpt2(PX_HEAD_LM, true);
    px_engine_plan plan = {.max_tokens = 300, .max_sequences = 1, .max_sequence = 161, .threads = 1};
    px_engine *engine;
    assert_int_equal(px_engine_create(&engine, &config, &plan), PX_CONFIG);
    px_error_clear();
}

/* Log-probabilities of a ragged batch, then of each sequence alone: the same bits where GEMM allows it. */
static void check_invariance(const px_model_config *config)
{
    static const int lengths[] = {1, 17, 2, 128, 16, 33, 5, 64, 15, 3, 90, 31};
    const int count = sizeof lengths / sizeof *lengths;
    px_model model;
    tiny_model(&model, config, 5);
    px_batch batch = tiny_batch(ids, starts, lengths, count, config->vocab_size);
    int n = tiny_targets(&batch, rows, targets);
    px_engine *one = engine_of(config, false, 1), *two = engine_of(config, true, 2);
    px_engine_forward(two, &model, &batch);
    px_engine_logprobs(two, &model, rows, targets, n, 0.7, false, stats);
    int done = 0;
    for (int s = 0; s < count; s++) {
        int32_t start[2] = {0, lengths[s]}, own[MAX_TOKENS];
        px_batch single = {.ids = ids + starts[s], .starts = start, .sequences = 1, .tokens = lengths[s]};
        for (int i = 0; i + 1 < lengths[s]; i++) own[i] = i;
        px_engine_forward(one, &model, &single);
        size_t C = (size_t)config->hidden_size;
        if (px_compute_row_invariant()) {
            assert_memory_equal(px_engine_hidden(one), px_engine_hidden(two) + (size_t)starts[s] * C,
                                (size_t)lengths[s] * C * sizeof(px_real));
        }
        px_engine_logprobs(one, &model, own, targets + done, lengths[s] - 1, 0.7, false, alone + done);
        done += lengths[s] - 1;
    }
    assert_int_equal(done, n);
    for (int i = 0; i < n; i++) {
        assert_true(isfinite(stats[i].logprob) && stats[i].logprob < 0);
        if (px_compute_row_invariant()) {
            assert_memory_equal(&stats[i].logprob, &alone[i].logprob, sizeof(double));
        } else {
            assert_true(fabs(stats[i].logprob - alone[i].logprob) < 1e-4);
        }
    }
    px_engine_destroy(one);
    px_engine_destroy(two);
    px_model_free(&model);
}

static void rows_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    px_model_config gpt2 = tiny_gpt2(PX_HEAD_LM, true), llama = tiny_llama(PX_HEAD_LM, false);
    check_invariance(&gpt2);
    check_invariance(&llama);
    if (px_compute_no_bf16()) return;
    precision = PX_BF16;
    check_invariance(&gpt2);
    check_invariance(&llama);
    precision = PX_F32;
}

static void logits_values_and_logprobs_agree(void **state)
{
    (void)state;
    static const int lengths[] = {20, 7};
    static px_real logits[MAX_TOKENS * 64];
    px_model_config config = tiny_llama(PX_HEAD_LM, true);
    px_model model;
    tiny_model(&model, &config, 6);
    px_engine *engine = engine_of(&config, false, 2);
    px_batch batch = tiny_batch(ids, starts, lengths, 2, config.vocab_size);
    int n = tiny_targets(&batch, rows, targets), V = config.vocab_size;
    px_engine_forward(engine, &model, &batch);
    px_engine_logprobs(engine, &model, rows, targets, n, 2, true, stats);
    px_engine_logits(engine, &model, rows, n, logits);
    for (int i = 0; i < n; i++) {
        double sum = 0, entropy = 0;
        for (int v = 0; v < V; v++) sum += exp(logits[i * V + v] / 2.0);
        for (int v = 0; v < V; v++) {
            double lp = logits[i * V + v] / 2.0 - log(sum);
            entropy -= exp(lp) * lp;
        }
        assert_true(fabs(stats[i].logprob - (logits[i * V + targets[i]] / 2.0 - log(sum))) < 1e-5);
        assert_true(fabs(stats[i].entropy - entropy) < 1e-5);
    }
    px_engine_destroy(engine);
    px_model_free(&model);

    config = tiny_gpt2(PX_HEAD_SCALAR, true);
    tiny_model(&model, &config, 6);
    engine = engine_of(&config, false, 2);
    px_engine_forward(engine, &model, &batch);
    double values[4];
    const int32_t chosen[] = {26, 0, 19, 3};
    px_engine_values(engine, &model, chosen, 4, values);
    for (int i = 0; i < 4; i++) {
        const px_real *hidden = px_engine_hidden(engine) + chosen[i] * config.hidden_size;
        double expected = 0;
        const px_real *score = model.weights + model.score;
        for (int c = 0; c < config.hidden_size; c++) expected += (double)score[c] * hidden[c];
        assert_true(fabs(values[i] - expected) < 1e-6);
    }
    px_engine_destroy(engine);
    px_model_free(&model);
}

typedef struct ready_log {
    size_t begin; /* of what was reported so far */
    int calls;
} ready_log;

static void on_ready(void *arg, size_t offset, size_t count)
{
    ready_log *log = arg;
    assert_int_equal(offset + count, log->begin); /* from the end of the block to its start, without gaps */
    log->begin = offset;
    log->calls++;
}

static void sum_loss(void *arg, int first, int count, const px_row_stats *chunk, double *dlogprob, double *dentropy)
{
    double *loss = arg;
    (void)first;
    for (int i = 0; i < count; i++) {
        *loss -= chunk[i].logprob;
        dlogprob[i] = -1;
        assert_true(dentropy[i] == 0);
    }
}

/* All of the block is reported once, last layer first; running twice from zero gives the same bits; no allocation. */
static void gradients_arrive_in_order(void **state)
{
    (void)state;
    static const int lengths[] = {128, 40, 3, 90, 61};
    px_model_config configs[] = {tiny_gpt2(PX_HEAD_LM, true), tiny_llama(PX_HEAD_LM, false)};
    for (int i = 0; i < 2; i++) {
        px_model model;
        tiny_model(&model, &configs[i], 9);
        px_engine *engine = engine_of(&configs[i], true, 2);
        px_batch batch = tiny_batch(ids, starts, lengths, 5, configs[i].vocab_size);
        int n = tiny_targets(&batch, rows, targets);
        px_real *grads[2];
        for (int run = 0; run < 2; run++) grads[run] = px_alloc_array(model.block, sizeof(px_real), "gradients");
        double loss[2] = {0, 0};
        size_t allocations = 0;
        for (int run = 0; run < 2; run++) {
            ready_log log = {.begin = model.block};
            px_engine_forward(engine, &model, &batch);
            px_engine_lm_backward(engine, &model, grads[run], rows, targets, n, 1, false, sum_loss, &loss[run]);
            px_engine_backward(engine, &model, grads[run], on_ready, &log);
            assert_int_equal(log.begin, 0);
            assert_int_equal(log.calls, configs[i].layers + 2);
            if (run == 0) allocations = px_alloc_count();
        }
        assert_int_equal(px_alloc_count(), allocations);
        assert_true(loss[0] == loss[1] && loss[0] > 0);
        assert_memory_equal(grads[0], grads[1], model.block * sizeof(px_real));
        for (size_t k = 0; k < model.block; k++) assert_true(isfinite(grads[0][k]));
        px_free(grads[0]);
        px_free(grads[1]);
        px_engine_destroy(engine);
        px_model_free(&model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_planned), cmocka_unit_test(recomputed_activations),
        cmocka_unit_test(wanted_rows),
        cmocka_unit_test(fresh_gradients_forget),
        cmocka_unit_test(positions_have_an_end),
        cmocka_unit_test(rows_do_not_depend_on_the_batch),
        cmocka_unit_test(logits_values_and_logprobs_agree),
        cmocka_unit_test(gradients_arrive_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
