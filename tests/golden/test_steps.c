/* Ten full-batch steps of supervised fine-tuning, reward model and PPO by the finished program, on one rank and on two,
 * against PyTorch's (tests/golden/steps, written by make_steps.py in float64): AdamW, clipping, schedules. Each tensor's
 * difference is a part of how far PyTorch moved it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "phalanx/model.h"

#include "model/safetensors.h"

#define LIMIT 1e-4

typedef struct kind {
    const char *name, *policy, *score; /* directories of tests/golden/models */
} kind;
static const kind kinds[] = {{"gpt2", "gpt2_tied", "gpt2_score"}, {"llama", "llama_untied_bias", "llama_score"}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static char dir[64];

static void check(px_status status)
{
    if (status != PX_OK) fail_msg("%s: %s", px_error_where(), px_error_text());
}

static float *values_of(const px_tensors *file, const char *name, size_t *count)
{
    for (int i = 0; i < file->count; i++) {
        if (strcmp(file->list[i].name, name) != 0) continue;
        float *values = px_alloc_array(file->list[i].count, sizeof *values, "a tensor");
        assert_non_null(values);
        check(px_tensor_read(&file->list[i], false, values));
        *count = file->list[i].count;
        return values;
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

/* What PyTorch did not move has a gradient of 0 in exact arithmetic: a bias that all keys share moves all scores of a row
 * alike, one behind the last norm moves both sides of a pair alike. Adam makes steps of the rounding that stands for it
 * here, so that its difference is measured as it is. */
static double compare(const px_tensors *start, const px_tensors *torch, const px_tensors *ours, const char *name,
                      double *unmoved)
{
    size_t n, n_torch, n_ours;
    float *a = values_of(start, name, &n), *b = values_of(torch, name, &n_torch), *c = values_of(ours, name, &n_ours);
    double change = 0, difference = 0;
    assert_int_equal(n, n_torch);
    assert_int_equal(n, n_ours);
    for (size_t i = 0; i < n; i++) {
        double away = (double)b[i] - c[i], moved = (double)b[i] - a[i];
        if (moved == 0) {
            *unmoved = fmax(*unmoved, fabs(away));
        } else {
            change += moved * moved;
            difference += away * away;
        }
    }
    px_free(a);
    px_free(b);
    px_free(c);
    return change > 0 ? sqrt(difference / change) : 0;
}

static void open_tensors(px_tensors *tensors, const char *format, ...)
{
    char path[PX_PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof path, format, arguments);
    va_end(arguments);
    check(px_tensors_open_file(tensors, path));
}

static void compare_module(const char *algorithm, const kind *k, const char *module, const char *start_name)
{
    px_tensors start, torch, ours;
    open_tensors(&start, "%s/tests/golden/models/%s/model.safetensors", PX_SOURCE_DIR, start_name);
    open_tensors(&torch, "%s/tests/golden/steps/%s_%s_%s.safetensors", PX_SOURCE_DIR, algorithm, k->name, module);
    open_tensors(&ours, "%s/run/%s/model.safetensors", dir, module);
    double worst = 0, unmoved = 0;
    const char *where = "";
    for (int i = 0; i < torch.count; i++) {
        double difference = compare(&start, &torch, &ours, torch.list[i].name, &unmoved);
        if (difference > worst) {
            worst = difference;
            where = torch.list[i].name;
        }
    }
    print_message("    %s, %s, %s: %d tensors, largest difference %.1e of the change (%s), %.1e where there is none\n",
                  algorithm, k->name, module, torch.count, worst, where, unmoved);
    assert_true(worst < LIMIT);
    assert_true(unmoved < LIMIT);
    px_tensors_close(&start);
    px_tensors_close(&torch);
    px_tensors_close(&ours);
}

/* `launch`: what starts the program's ranks. */
static void train(const char *algorithm, const kind *k, const char *launch)
{
    char path[PX_PATH_MAX], command[3 * PX_PATH_MAX];
    snprintf(path, sizeof path, "%s/tests/golden/models/%s", PX_SOURCE_DIR, k->policy);
    setenv("STEPS_POLICY", path, 1);
    snprintf(path, sizeof path, "%s/tests/golden/models/%s", PX_SOURCE_DIR, k->score);
    setenv("STEPS_SCORE", path, 1);
    snprintf(command, sizeof command,
             "cd %s && rm -rf run && { %s '%s' train '%s/tests/golden/steps/%s.yaml' --run-dir run > out 2>&1 < /dev/null"
             " || { cat out; exit 1; }; }", dir, launch, PX_PROGRAM, PX_SOURCE_DIR, algorithm);
    assert_int_equal(system(command), 0);
}

static void test_all(const char *launch)
{
    for (size_t i = 0; i < KINDS; i++) {
        train("sft", &kinds[i], launch);
        compare_module("sft", &kinds[i], "policy", kinds[i].policy);
        train("reward", &kinds[i], launch);
        compare_module("reward", &kinds[i], "reward", kinds[i].score);
        train("ppo", &kinds[i], launch);
        compare_module("ppo", &kinds[i], "policy", kinds[i].policy);
        compare_module("ppo", &kinds[i], "critic", kinds[i].score);
    }
}

static void test_one_rank(void **state)
{
    (void)state;
    test_all("");
}

static void test_more_ranks(void **state)
{
    (void)state;
    if (system("command -v mpirun > /dev/null") != 0) skip();
    test_all("mpirun -n 2");
    test_all("mpirun -n 4");
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_steps_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_rank), cmocka_unit_test(test_more_ranks)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
