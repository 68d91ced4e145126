/* What a resumed run may change and what not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "config_files.h"

/* Compares PPO with `set` against PPO; the changed text is in `changed`. */
static px_status compare_set(const char *set, px_buf *changed)
{
    px_config *before = NULL, *after = NULL;
    px_buf yaml = {0};
    char path[PX_PATH_MAX];
    assert_int_equal(load_with(&before, file_with("one.yaml", PPO), NULL, 0), PX_OK);
    if (load_with(&after, file_with("one.yaml", PPO), &set, set ? 1 : 0) != PX_OK) fail_msg("%s", px_error_text());
    assert_int_equal(px_stage_dump(px_config_stage(before, 0), &yaml), PX_OK);
    snprintf(path, sizeof path, "%s", file_with("config.yaml", yaml.data));
    px_status status = px_stage_compare(px_config_stage(after, 0), path, changed);
    char a[17], b[17];
    px_stage_hash(px_config_stage(before, 0), a);
    px_stage_hash(px_config_stage(after, 0), b);
    assert_int_equal(strcmp(a, b) != 0, status != PX_OK); /* hash and comparison agree */
    px_buf_free(&yaml);
    px_config_destroy(before);
    px_config_destroy(after);
    return status;
}

static void test_may_change(void **state)
{
    (void)state;
    static const char *const sets[] = {
        NULL, "stop.iterations=200", "stop.metrics.objective/kl=> 3", "run.time_limit_s=60", "run.name=x", "run.dir=/tmp/x",
        "run.threads_per_rank=2", "evaluation.samples=3", "evaluation.rewards=[{kind: length, target: 3}]", "checkpointing.keep=9",
        "reporting.samples.every=2", "placement.strategy=colocated", "learners.micro_batch_tokens=512", "env_runners.num_env_runners=2",
        "debugging.log_level=debug"};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        px_buf changed = {0};
        if (compare_set(sets[i], &changed) != PX_OK) fail_msg("%s", px_error_text());
        px_buf_free(&changed);
    }
    px_buf changed = {0};
    assert_int_equal(compare_set("stop.iterations=200", &changed), PX_OK);
    assert_string_equal(changed.data, "stop.iterations: 100 -> 200\n");
    px_buf_free(&changed);
}

static void test_may_not_change(void **state)
{
    (void)state;
    static const char *const sets[] = {"run.seed=1", "training.lr=1e-5", "env_runners.temperature=0.5", "environment.rewards.model.weight=2",
                                       "environment.rewards=[{kind: model}, {kind: length, target: 3}]", "learners.precision=bf16",
                                       "training.kl.target=6", "environment.prompts=other.jsonl", "rl_module.reference={path: x}",
                                       "environment.stop_strings=[x]"};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (compare_set(sets[i], NULL) != PX_CONFIG) fail_msg("allowed: %s", sets[i]);
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(sets[i], ".="), sets[i]);
        assert_non_null(strstr(px_error_text(), key));
    }
    assert_int_equal(compare_set("training.lr=1e-5", NULL), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "training.lr: 3.0e-06 -> 1.0e-05"));
}

static void test_moved_input(void **state)
{
    (void)state;
    char dir[PX_PATH_MAX];
    px_buf changed = {0};
    snprintf(dir, sizeof dir, "%s/moved", files_dir);
    assert_int_equal(px_dir_create(dir), PX_OK);
    file_with("p.jsonl", "{}\n");
    file_with("moved/p.jsonl", "{}\n");
    assert_int_equal(compare_set("environment.prompts=moved/p.jsonl", &changed), PX_OK);
    assert_non_null(strstr(changed.data, "environment.prompts: "));
    px_buf_free(&changed);
    file_with("moved/p.jsonl", "{} \n");
    px_config *config = NULL;
    const char *set = "environment.prompts=moved/p.jsonl";
    assert_int_equal(load_with(&config, file_with("one.yaml", PPO), &set, 1), PX_OK);
    char path[PX_PATH_MAX];
    snprintf(path, sizeof path, "%s/config.yaml", files_dir); /* of the comparison before */
    assert_int_equal(px_stage_compare(px_config_stage(config, 0), path, NULL), PX_CONFIG);
    px_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_may_change), cmocka_unit_test(test_may_not_change), cmocka_unit_test(test_moved_input),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
