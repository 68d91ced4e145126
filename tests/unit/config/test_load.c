/* Layers, paths, --set, includes, stages: what a file becomes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "config_files.h"

static px_config *loaded(const char *text, const char *const *sets, int count)
{
    px_config *config = NULL;
    px_status status = load_with(&config, file_with("one.yaml", text), sets, count);
    if (status != PX_OK) fail_msg("%s", px_error_text());
    return config;
}

static void test_defaults(void **state)
{
    (void)state;
    px_config *config = loaded(PPO, NULL, 0);
    const px_stage *stage = px_config_stage(config, 0);
    char path[PX_PATH_MAX], wanted[PX_PATH_MAX];
    double number;
    assert_false(px_config_has_stages(config));
    assert_string_equal(px_stage_name(stage), "");
    assert_string_equal(px_stage_algorithm(stage), "ppo");
    assert_true(px_stage_float(stage, "training.lr") == 3e-6);
    assert_true(px_stage_float(stage, "training.optimizer.betas.1") == 0.95);
    assert_int_equal(px_stage_int(stage, "training.minibatch_size"), 64); /* derived */
    assert_string_equal(px_stage_text(stage, "environment.missing_eos.mode"), "subtract");
    assert_string_equal(px_stage_text(stage, "environment.rewards.0.name"), "model");
    assert_string_equal(px_stage_text(stage, "rl_module.critic.same_as"), "reward");
    assert_string_equal(px_stage_text(stage, "run.name"), "one");
    assert_false(px_stage_number(stage, "run.time_limit_s", &number));
    assert_string_equal(px_stage_text(stage, "run.time_limit_s"), "auto");
    assert_false(px_stage_is_set(stage, "environment.reward_clip"));
    assert_true(px_stage_float(stage, "environment.reward_clip") == 0);
    assert_null(px_stage_text(stage, "rl_module.tokenizer"));
    assert_string_equal(px_stage_origin(stage, "training.lr"), "default");
    assert_int_equal(px_stage_path(stage, "environment.prompts", path, sizeof path), PX_OK);
    snprintf(wanted, sizeof wanted, "%s/p.jsonl", files_dir);
    assert_string_equal(path, wanted);
    assert_int_equal(px_stage_path(stage, "run.dir", path, sizeof path), PX_OK);
    assert_string_equal(path, "runs/one");
    px_config_destroy(config);
    assert_int_equal(px_alloc_live(), 0);
}

static void test_defaults_by_algorithm(void **state)
{
    (void)state;
    px_config *config = loaded(SFT, NULL, 0);
    const px_stage *stage = px_config_stage(config, 0);
    assert_true(px_stage_float(stage, "training.lr") == 2e-5);
    assert_int_equal(px_stage_int(stage, "training.batch_size"), 32);
    assert_int_equal(px_stage_list_count(stage, "data.train"), 1);
    px_config_destroy(config);
    const char *sets[] = {"training.batch_tokens=512", "stop.steps=3"};
    config = loaded(SFT, sets, 2); /* the default alternative steps back */
    stage = px_config_stage(config, 0);
    assert_false(px_stage_is_set(stage, "training.batch_size"));
    assert_false(px_stage_is_set(stage, "stop.epochs"));
    assert_int_equal(px_stage_int(stage, "stop.steps"), 3);
    px_config_destroy(config);
}

static const char staged[] =
    "defaults:\n  rl_module: {policy: {path: a}, tokenizer: tok}\n  training: {lr: 0.5, batch_tokens: 99}\n  stop: {steps: 5}\n"
    "stages:\n"
    "  sft: {algorithm: sft, data: {train: t.jsonl}, training: {batch_size: 4}, rl_module: {policy: {path: b}}}\n"
    "  ppo: {algorithm: ppo, rl_module: {policy: {stage: sft}}, training: {lr: 0.25, kl: {coeff: 0.5}},\n"
    "        environment: {prompts: p, rewards: [{name: tone, kind: lexicon, file: l}, {kind: length, target: 9}]}}\n";

static void test_layers(void **state)
{
    (void)state;
    px_config *config = loaded(staged, NULL, 0);
    assert_int_equal(px_config_stage_count(config), 2);
    const px_stage *sft = px_config_stage_named(config, "sft"), *ppo = px_config_stage_named(config, "ppo");
    assert_true(px_stage_float(sft, "training.lr") == 0.5);
    assert_true(px_stage_float(ppo, "training.lr") == 0.25);
    assert_int_equal(px_stage_int(sft, "training.batch_size"), 4);
    assert_false(px_stage_is_set(sft, "training.batch_tokens")); /* exclusive with the stage's batch_size */
    assert_string_equal(px_stage_text(ppo, "rl_module.policy"), "stage");
    assert_false(px_stage_is_set(ppo, "rl_module.policy.path"));
    assert_string_equal(px_stage_text(ppo, "rl_module.critic.same_as"), "policy"); /* no reward model */
    assert_string_equal(px_stage_text(ppo, "environment.missing_eos.mode"), "none");
    assert_null(px_config_stage_named(config, "other"));
    px_config_destroy(config);
}

static void test_set(void **state)
{
    (void)state;
    const char *sets[] = {"training.lr=1e-3", "ppo.training.lr=1e-6", "environment.rewards.tone.weight=0.25",
                          "ppo.environment.rewards.1.target=7", "stop.metrics.objective/kl=> 50", "run.name=a: b # c",
                          "training.optimizer.betas=[0.5, 0.75]", "training.kl={estimator: k3}",
                          "ppo.rl_module.policy.path=c"};
    px_config *config = loaded(staged, sets, 9);
    const px_stage *sft = px_config_stage_named(config, "sft"), *ppo = px_config_stage_named(config, "ppo");
    const char *name, *value;
    assert_true(px_stage_float(sft, "training.lr") == 1e-3);
    assert_true(px_stage_float(ppo, "training.lr") == 1e-6);
    assert_true(px_stage_float(ppo, "environment.rewards.0.weight") == 0.25);
    assert_int_equal(px_stage_int(ppo, "environment.rewards.1.target"), 7);
    px_stage_map_entry(ppo, "stop.metrics", 0, &name, &value);
    assert_string_equal(name, "objective/kl");
    assert_string_equal(value, "> 50");
    assert_string_equal(px_stage_text(ppo, "run.name"), "a: b # c");
    assert_true(px_stage_float(ppo, "training.optimizer.betas.0") == 0.5);
    assert_string_equal(px_stage_text(ppo, "training.kl.estimator"), "k3");
    assert_true(px_stage_float(ppo, "training.kl.coeff") == 0.5); /* a map is merged */
    assert_false(px_stage_is_set(ppo, "rl_module.policy.stage"));
    assert_string_equal(px_stage_origin(ppo, "training.lr"), "--set");
    px_config_destroy(config);
}

static void test_include_and_variables(void **state)
{
    (void)state;
    char dir[PX_PATH_MAX], wanted[PX_PATH_MAX + 32];
    snprintf(dir, sizeof dir, "%s/sub", files_dir);
    assert_int_equal(px_dir_create(dir), PX_OK);
    setenv("PX_TEST_LR", "0.125", 1);
    file_with("base.yaml", "training: {lr: 9, grad_clip: 2}\nrun: {seed: 3}\n");
    file_with("sub/more.yaml", "include: ../base.yaml\ndata: {train: near.jsonl}\nrun: {seed: 4}\n");
    px_config *config = loaded("include: [sub/more.yaml]\nalgorithm: sft\nrl_module: {policy: {path: \"$${x}\"}}\n"
                               "training:\n  lr: ${PX_TEST_LR}\n", NULL, 0);
    const px_stage *stage = px_config_stage(config, 0);
    assert_true(px_stage_float(stage, "training.lr") == 0.125);
    assert_true(px_stage_float(stage, "training.grad_clip") == 2);
    assert_int_equal(px_stage_int(stage, "run.seed"), 4);
    snprintf(wanted, sizeof wanted, "%s/sub/near.jsonl", files_dir); /* relative to the file that names it */
    assert_string_equal(px_stage_text(stage, "data.train"), wanted);
    snprintf(wanted, sizeof wanted, "%s/${x}", files_dir);
    assert_string_equal(px_stage_text(stage, "rl_module.policy.path"), wanted);
    px_config_destroy(config);
}

static void test_aliases(void **state)
{
    (void)state;
    px_config *config = loaded("algorithm: ppo\nrl_module: {policy: &p {path: m}, reference: *p}\n"
                               "environment:\n  prompts: p\n  rewards:\n  - &r {kind: length, target: 4}\n"
                               "  - {<<: *r, name: other, target: 5}\n", NULL, 0);
    const px_stage *stage = px_config_stage(config, 0);
    assert_string_equal(px_stage_text(stage, "rl_module.reference"), "path");
    assert_string_equal(px_stage_text(stage, "environment.rewards.1.kind"), "length");
    assert_int_equal(px_stage_int(stage, "environment.rewards.1.target"), 5);
    px_config_destroy(config);
}

/* Quotes make text of everything but the words of the table: JSON has no other way to write these. */
static void test_quotes(void **state)
{
    (void)state;
    const char *text = "{\"algorithm\": \"ppo\", \"run\": {\"time_limit_s\": \"auto\", \"name\": \"12\"},\n"
                       " \"rl_module\": {\"policy\": {\"path\": \"auto\"}, \"reward\": null, \"tokenizer\": \"null\"},\n"
                       " \"environment\": {\"prompts\": \"p\", \"chat\": {\"template\": \"none\", \"system\": \"null\"},\n"
                       "  \"rewards\": [{\"kind\": \"length\", \"target\": 3}]}}\n";
    px_config *config = loaded(text, NULL, 0);
    const px_stage *stage = px_config_stage(config, 0);
    char path[PX_PATH_MAX], wanted[PX_PATH_MAX];
    double number;
    assert_false(px_stage_number(stage, "run.time_limit_s", &number));
    assert_string_equal(px_stage_text(stage, "run.time_limit_s"), "auto");
    assert_string_equal(px_stage_text(stage, "run.name"), "12");
    assert_string_equal(px_stage_text(stage, "environment.chat.template"), "none");
    assert_string_equal(px_stage_text(stage, "environment.chat.system"), "null");
    assert_false(px_stage_is_set(stage, "rl_module.reward"));
    assert_int_equal(px_stage_path(stage, "rl_module.tokenizer", path, sizeof path), PX_OK);
    snprintf(wanted, sizeof wanted, "%s/null", files_dir);
    assert_string_equal(path, wanted);
    px_config_destroy(config);
}

/* One data set may be given without a list, and is its entry 0 all the same. */
static void test_set_of_one_source(void **state)
{
    (void)state;
    const char *sets[] = {"data.train.0=u.jsonl", "data.train.0.weight=2"};
    char path[PX_PATH_MAX], wanted[PX_PATH_MAX];
    px_config *config = loaded(SFT, sets, 1);
    snprintf(wanted, sizeof wanted, "%s/u.jsonl", files_dir);
    assert_int_equal(px_stage_path(px_config_stage(config, 0), "data.train", path, sizeof path), PX_OK);
    assert_string_equal(path, wanted);
    px_config_destroy(config);
    config = loaded(SFT, sets + 1, 1);
    snprintf(wanted, sizeof wanted, "%s/t.jsonl", files_dir);
    assert_int_equal(px_stage_path(px_config_stage(config, 0), "data.train", path, sizeof path), PX_OK);
    assert_string_equal(path, wanted);
    assert_true(px_stage_float(px_config_stage(config, 0), "data.train.0.weight") == 2);
    px_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_defaults_by_algorithm), cmocka_unit_test(test_layers),
        cmocka_unit_test(test_set), cmocka_unit_test(test_include_and_variables), cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_quotes), cmocka_unit_test(test_set_of_one_source),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
