/* Saves each golden model again and loads it back with the same bits. With PHALANX_SAVED=DIR the directories stay
 * there, one per model and type of weights, for check_transformers.py. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "phalanx/model.h"

static char out_dir[1024] = "/tmp/px_saved_XXXXXX";

static void check(px_status status)
{
    if (status != PX_OK) fail_msg("%s: %s", px_error_where(), px_error_text());
}

static void save_again(const char *name, px_head head, px_dtype dtype, const char *suffix)
{
    char from[PX_PATH_MAX], to[PX_PATH_MAX];
    px_model a, b;
    bool had_score = false;
    snprintf(from, sizeof from, "%s/tests/golden/models/%s", PX_SOURCE_DIR, name);
    snprintf(to, sizeof to, "%s/%s%s", out_dir, name, suffix);
    check(px_model_load(&a, from, head, &had_score));
    if (head == PX_HEAD_SCALAR && !had_score) px_model_init_score(&a, 3);
    a.config.reward_mean = head == PX_HEAD_SCALAR ? 1.25 : 0;
    check(px_dir_create(to));
    check(px_model_save(&a, to, dtype, NULL));
    check(px_model_load(&b, to, head, &had_score));
    assert_int_equal(had_score, head == PX_HEAD_SCALAR);
    assert_int_equal(a.block, b.block);
    if (dtype == PX_F32) assert_memory_equal(a.weights, b.weights, a.block * sizeof(px_real));
    px_model_free(&a);
    px_model_free(&b);
}

static void test_saved(void **state)
{
    (void)state;
    static const char *const language[] = {
        "gpt2_tied",  "gpt2_untied", "llama_tied_llama3", "llama_untied_bias", "mistral_window", "qwen2_yarn",
        "qwen3_tied", "gemma_tied",  "neox_parallel",     "neox_sequential",   "opt_tied"};
    static const char *const scores[] = {"gpt2_score",  "llama_score", "mistral_score", "qwen2_score",
                                         "qwen3_score", "gemma_score", "neox_score",    "opt_score"};
    for (size_t i = 0; i < sizeof language / sizeof language[0]; i++) {
        save_again(language[i], PX_HEAD_LM, PX_F32, "");
        save_again(language[i], PX_HEAD_LM, PX_BF16, ".bf16");
        save_again(language[i], PX_HEAD_LM, PX_F16, ".f16");
        save_again(language[i], PX_HEAD_SCALAR, PX_F32, ".score");
    }
    for (size_t i = 0; i < sizeof scores / sizeof scores[0]; i++) save_again(scores[i], PX_HEAD_SCALAR, PX_F32, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_saved)};
    const char *keep = getenv("PHALANX_SAVED");
    if (keep) snprintf(out_dir, sizeof out_dir, "%s", keep);
    else if (!mkdtemp(out_dir)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (!keep) px_tree_remove(out_dir);
    return failed;
}
