/* A dump loads to the same values; documents made from the table are well formed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "config_files.h"

static void same_stage(const px_stage *a, const px_stage *b)
{
    char hash_a[17], hash_b[17];
    assert_string_equal(px_stage_name(a), px_stage_name(b));
    assert_int_equal(px_stage_leaf_count(a), px_stage_leaf_count(b));
    for (int i = 0; i < px_stage_leaf_count(a); i++) {
        px_leaf x, y;
        px_stage_leaf(a, i, &x);
        px_stage_leaf(b, i, &y);
        assert_string_equal(x.key, y.key);
        bool text = (!x.text && !y.text) || (x.text && y.text && strcmp(x.text, y.text) == 0);
        if (x.type != y.type || x.i != y.i || x.f != y.f || x.b != y.b || !text) fail_msg("%s differs", x.key);
    }
    px_stage_hash(a, hash_a);
    px_stage_hash(b, hash_b);
    assert_string_equal(hash_a, hash_b);
}

static void round_trip(const char *path, const char *const *sets, int count)
{
    for (int differences = 0; differences < 2; differences++) {
        px_config *config = NULL, *again = NULL;
        px_buf yaml = {0};
        if (load_with(&config, path, sets, count) != PX_OK) fail_msg("%s", px_error_text());
        assert_int_equal(px_config_dump(config, differences, &yaml), PX_OK);
        if (load_with(&again, file_with("again.yaml", yaml.data), NULL, 0) != PX_OK) fail_msg("%s\n%s", px_error_text(), yaml.data);
        assert_int_equal(px_config_stage_count(config), px_config_stage_count(again));
        for (int i = 0; i < px_config_stage_count(config); i++) same_stage(px_config_stage(config, i), px_config_stage(again, i));
        px_config_destroy(again);
        for (int i = 0; i < px_config_stage_count(config); i++) { /* and each stage alone */
            px_buf_clear(&yaml);
            assert_int_equal(px_stage_dump(px_config_stage(config, i), &yaml), PX_OK);
            if (load_with(&again, file_with("stage.yaml", yaml.data), NULL, 0) != PX_OK) fail_msg("%s", px_error_text());
            same_stage(px_config_stage(config, i), px_config_stage(again, 0));
            px_config_destroy(again);
        }
        px_buf_free(&yaml);
        px_config_destroy(config);
    }
}

static void test_examples(void **state)
{
    (void)state;
    static const char *const names[] = {"quickstart", "pretrain", "sft", "reward", "ppo"};
    for (int i = 0; i < 5; i++) {
        char path[PX_PATH_MAX];
        snprintf(path, sizeof path, "%s/configs/%s.yaml", PX_SOURCE_DIR, names[i]);
        round_trip(path, NULL, 0);
    }
}

static void test_awkward_values(void **state)
{
    (void)state;
    const char *sets[] = {"run.name=\"a \\\"b\\\" $${x} \\n\\t: # null \\x01 \\u0085 \\u2028 \\uFFFE\"",
                          "environment.chat.system=\"null\"",
                          "environment.stop_strings=[\"\\n\", \"- x\", \"1\", \"true\"]", "training.lr=1.0000000000000002e-7",
                          "stop.metrics={objective/kl: \"> 50\", \"a: b\": 0.5}", "evaluation.prompts=\"x y.jsonl\"",
                          "environment.rewards=[{kind: exec, command: [python3, a b.py]}, {kind: regex, pattern: \"^[0-9]+ \\\\d$\"}]",
                          "training.grad_clip=0", "rl_module.critic.new.hidden_size=64", "rl_module.tokenizer=t",
                          "run.seed=9007199254740991", "training.optimizer.betas=[0.9, 0.95]",
                          "rl_module.critic.new.max_position_embeddings=2048"};
    round_trip(file_with("one.yaml", PPO), sets, 13);
}

static void test_differences_are_few(void **state)
{
    (void)state;
    px_config *config = NULL;
    px_buf yaml = {0};
    const char *sets[] = {"training.lr=0.000003", "training.gamma=0.5"};
    assert_int_equal(load_with(&config, file_with("one.yaml", PPO), sets, 2), PX_OK);
    assert_int_equal(px_config_dump(config, true, &yaml), PX_OK);
    assert_null(strstr(yaml.data, " lr:")); /* given, and equal to the default */
    assert_non_null(strstr(yaml.data, "gamma: 0.5"));
    assert_null(strstr(yaml.data, "lambda_"));
    px_buf_free(&yaml);
    px_config_destroy(config);
}

static void test_run_dir(void **state)
{
    (void)state;
    px_config *config = NULL;
    char path[PX_PATH_MAX], wanted[PX_PATH_MAX], hash[17];
    const char *sets[] = {"run.dir=out/{name}-{seed}-{hash}", "run.seed=12"};
    assert_int_equal(load_with(&config, file_with("one.yaml", PPO), sets, 2), PX_OK);
    assert_int_equal(px_stage_path(px_config_stage(config, 0), "run.dir", path, sizeof path), PX_OK);
    px_stage_hash(px_config_stage(config, 0), hash);
    snprintf(wanted, sizeof wanted, "out/one-12-%s", hash);
    assert_string_equal(path, wanted);
    px_config_destroy(config);
}

static void test_documents(void **state)
{
    (void)state;
    px_buf text = {0}, file = {0};
    json_t *json = NULL;
    assert_int_equal(px_config_schema(&text), PX_OK);
    assert_int_equal(px_json_parse(text.data, text.length, "schema", 0, &json), PX_OK);
    json_t *stage = json_object_get(json_object_get(json_object_get(json, "$defs"), "stage"), "properties");
    json_t *training = json_object_get(json_object_get(stage, "training"), "properties");
    assert_non_null(json_object_get(json_object_get(json_object_get(training, "kl"), "properties"), "coeff"));
    json_decref(json);
    px_buf_clear(&text);
    assert_int_equal(px_config_help(&text, "training"), PX_OK);
    assert_non_null(strstr(text.data, "training.clip_param: float, default 0.2"));
    assert_int_equal(px_config_help(&text, "trainin"), PX_USAGE);
    px_buf_clear(&text);
    assert_int_equal(px_config_markdown(&text), PX_OK);
    assert_int_equal(px_file_read(PX_SOURCE_DIR "/docs/config.md", PX_TEXT_MOST, &file), PX_OK);
    if (strcmp(text.data, file.data) != 0) fail_msg("docs/config.md is stale: phalanx config --markdown > docs/config.md");
    px_buf_free(&text);
    px_buf_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples), cmocka_unit_test(test_awkward_values), cmocka_unit_test(test_differences_are_few),
        cmocka_unit_test(test_run_dir), cmocka_unit_test(test_documents),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
