/* A dump loads to the same values; documents made from the table are well formed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
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

/* The text, as a file, loads to the same values, and these are printed as `whole`. */
static void loads_again(const px_config *config, const char *name, const px_buf *text, const px_buf *whole)
{
    px_config *again = NULL;
    px_buf yaml = {0};
    if (load_with(&again, file_with(name, text->data), NULL, 0) != PX_OK) fail_msg("%s\n%s", px_error_text(), text->data);
    assert_int_equal(px_config_stage_count(config), px_config_stage_count(again));
    for (int i = 0; i < px_config_stage_count(config); i++) same_stage(px_config_stage(config, i), px_config_stage(again, i));
    assert_int_equal(px_config_dump(again, false, &yaml), PX_OK);
    assert_string_equal(yaml.data, whole->data);
    px_buf_free(&yaml);
    px_config_destroy(again);
}

static void round_trip(const char *path, const char *const *sets, int count)
{
    px_config *config = NULL;
    px_buf whole = {0}, differences = {0}, json = {0};
    if (load_with(&config, path, sets, count) != PX_OK) fail_msg("%s", px_error_text());
    assert_int_equal(px_config_dump(config, false, &whole), PX_OK);
    assert_int_equal(px_config_dump(config, true, &differences), PX_OK);
    assert_int_equal(px_config_json(config, &json), PX_OK);
    loads_again(config, "again.yaml", &whole, &whole);
    loads_again(config, "again.yaml", &differences, &whole);
    loads_again(config, "again.json", &json, &whole);
    for (int i = 0; i < px_config_stage_count(config); i++) { /* and each stage alone, as a run keeps it */
        px_config *alone = NULL;
        px_buf_clear(&whole);
        px_buf_clear(&json);
        assert_int_equal(px_stage_dump(px_config_stage(config, i), &whole), PX_OK);
        if (load_with(&alone, file_with("stage.yaml", whole.data), NULL, 0) != PX_OK) fail_msg("%s", px_error_text());
        same_stage(px_config_stage(config, i), px_config_stage(alone, 0));
        assert_int_equal(px_config_json(alone, &json), PX_OK);
        loads_again(alone, "stage.json", &json, &whole);
        px_config_destroy(alone);
    }
    px_buf_free(&whole);
    px_buf_free(&differences);
    px_buf_free(&json);
    px_config_destroy(config);
}

static void test_every_file(void **state)
{
    (void)state;
    static const char *const patterns[] = {PX_SOURCE_DIR "/configs/*.yaml", PX_SOURCE_DIR "/experiments/*/*.yaml",
                                           PX_SOURCE_DIR "/tests/golden/steps/*.yaml", PX_SOURCE_DIR "/tests/bench/*.yaml",
                                           PX_SOURCE_DIR "/tests/fuzz/corpus/yaml/*.yaml"};
    setenv("STEPS_POLICY", "m", 1);
    setenv("STEPS_SCORE", "s", 1);
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        glob_t found;
        assert_int_equal(glob(patterns[i], 0, NULL, &found), 0);
        for (size_t f = 0; f < found.gl_pathc; f++) round_trip(found.gl_pathv[f], NULL, 0);
        globfree(&found);
    }
}

#define SMALL "{new: {vocab_size: 64, max_position_embeddings: 64}}"

/* A value that is written out and equals the default is checked as the default. */
static void test_written_defaults(void **state)
{
    (void)state;
    static const char *const small[] = {
        "algorithm: pretrain\nrl_module: {policy: " SMALL "}\ndata: {train: [t, {file: u, weight: 0.5}]}\n",
        "algorithm: sft\nrl_module: {policy: " SMALL "}\ndata: {train: t, max_tokens: 1024}\ntraining: {batch_size: 32}\n",
        "algorithm: reward\nrl_module: {reward: " SMALL "}\ndata: {train: t}\nstop: {steps: 3}\n",
        "stages:\n  a: {algorithm: sft, rl_module: {policy: " SMALL "}, data: {train: t}}\n"
        "  b: {algorithm: reward, rl_module: {reward: {stage: a}}, data: {train: t}}\n"
        "  c: {algorithm: ppo, rl_module: {policy: {stage: a}, reward: {stage: b}}, environment: {prompts: p}}\n",
        "algorithm: ppo\nrl_module: {policy: {path: m}, reference: null, critic: {same_as: policy}}\n"
        "environment: {prompts: p, rewards: [{kind: length, target: 3}, {kind: exact}]}\n",
        PPO,
    };
    for (size_t i = 0; i < sizeof small / sizeof small[0]; i++) round_trip(file_with("small.yaml", small[i]), NULL, 0);
    px_config *config = NULL;
    const char *more[] = {"data.max_tokens=1023"};
    assert_int_equal(load_with(&config, file_with("small.yaml", small[0]), more, 1), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "64 positions are fewer than a sequence of 1023 tokens may need"));
    const char *same[] = {"environment.max_prompt_tokens=512", "rl_module.critic={same_as: reward}"};
    assert_int_equal(load_with(&config, file_with("small.yaml", PPO), same, 2), PX_OK);
    assert_string_equal(px_stage_origin(px_config_stage(config, 0), "environment.max_prompt_tokens"), "default");
    assert_string_equal(px_stage_origin(px_config_stage(config, 0), "rl_module.critic"), "default");
    px_config_destroy(config);
}

static void test_awkward_values(void **state)
{
    (void)state;
    const char *sets[] = {"run.name=\"a \\\"b\\\" $${x} \\n\\t: # null \\x01 \\u0085 \\u2028 \\uFFFE \\U0001F600 \\x7F\"",
                          "environment.chat.system=\"null\"",
                          "environment.stop_strings=[\"\\n\", \"- x\", \"1\", \"true\"]", "training.lr=1.0000000000000002e-7",
                          "stop.metrics={objective/kl: \"> 50\", \"a: b\": 0.5, 0.x/1: 3}", "evaluation.prompts=\"x y.jsonl\"",
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
        cmocka_unit_test(test_every_file), cmocka_unit_test(test_written_defaults),
        cmocka_unit_test(test_awkward_values), cmocka_unit_test(test_differences_are_few),
        cmocka_unit_test(test_run_dir), cmocka_unit_test(test_documents),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
