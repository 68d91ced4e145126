/* Memory of attention is linear in the length: the peak of a process that runs a forward and a backward over one sequence of
 * 8,192 tokens is within 1.3 times twice that over 4,096. Scores of all pairs would take 4 GiB and 1 GiB. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tiny.h"

static void ones(void *arg, int first, int count, const px_row_stats *chunk, double *dlogprob, double *dentropy)
{
    (void)arg, (void)first, (void)chunk;
    for (int i = 0; i < count; i++) dlogprob[i] = 1, dentropy[i] = 0;
}

/* In a child, whose peak is what is measured. */
static void run(int length, bool recompute)
{
    px_model_config config = tiny_llama(PX_HEAD_LM, true);
    config.heads = 16;
    config.kv_heads = 4;
    config.head_dim = 8;
    config.hidden_size = 64;
    config.intermediate_size = 128;
    config.rope.rotary_dim = 8;
    config.max_positions = length;
    config.initializer_range = 0.02;
    px_model model;
    px_engine_plan plan = {.max_tokens = length, .max_sequences = 1, .max_sequence = length, .train = true, .threads = 2,
                           .recompute = recompute};
    px_engine *engine;
    tiny_model(&model, &config, 3);
    int32_t *ids = calloc((size_t)length * 3, sizeof *ids), *rows = ids + length, *targets = rows + length, starts[2];
    px_real *grads = calloc(model.block, sizeof *grads);
    if (!ids || !grads || px_engine_create(&engine, &config, &plan) != PX_OK) _exit(1);
    px_batch batch = tiny_batch(ids, starts, &length, 1, config.vocab_size);
    int n = tiny_targets(&batch, rows, targets);
    px_engine_forward(engine, &model, &batch);
    px_engine_lm_backward(engine, &model, grads, rows, targets, n, 1, false, ones, NULL);
    px_engine_backward(engine, &model, grads, NULL, NULL);
    _exit(isfinite(grads[0]) ? 0 : 2);
}

static double peak(int length, bool recompute)
{
    struct rusage usage;
    int how;
    pid_t child = fork();
    if (child == 0) run(length, recompute);
    assert_int_equal(wait4(child, &how, 0, &usage), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    return (double)usage.ru_maxrss / 1024.0;
}

#ifdef __SANITIZE_ADDRESS__ /* slow, and takes memory of its own: only that it runs */
enum { LENGTH = 256, MEASURED = 0 };
#else
enum { LENGTH = 4096, MEASURED = 1 };
#endif
static double whole[2]; /* peaks at 2 LENGTH: kept, recomputed */

static void memory_is_linear(void **state)
{
    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        double half = peak(LENGTH, recompute);
        whole[recompute] = peak(2 * LENGTH, recompute);
        printf("peak%s: %.1f MiB at %d tokens, %.1f at %d: %.2f of twice\n", recompute ? ", recomputed" : "", half, LENGTH,
               whole[recompute], 2 * LENGTH, whole[recompute] / (2 * half));
        assert_true(!MEASURED || whole[recompute] <= 1.3 * 2 * half);
    }
}

static void recomputing_takes_less(void **state)
{
    (void)state;
    assert_true(!MEASURED || whole[1] < 0.8 * whole[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_is_linear), cmocka_unit_test(recomputing_takes_less)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
