/* Bad files and options, each with the place and the words that the message must have. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "config_files.h"

struct bad {
    const char *text, *set, *wanted[3];
};

static const struct bad cases[] = {
    {"", NULL, {":1:1: the file is empty"}},
    {"# nothing\n", NULL, {"the file is empty"}},
    {"[a]\n", NULL, {":1:1: the file must be a map"}},
    {"a: [\n", NULL, {":2:1: not valid YAML"}},
    {"algorithm: sft\n\xff: 1\n", NULL, {":2:1: not UTF-8 (byte 0xFF)"}},
    {SFT "run: {name: \"\xc3\xa9\x01\"}\n", NULL, {":4:15: not valid YAML: control characters are not allowed (U+0001)"}},
    {"\xef\xbb\xbf# a byte order mark\nalgorithm: sftt\n", NULL, {":2:12: unknown algorithm 'sftt'"}},
    {SFT "---\na: 1\n", NULL, {":4:1: a second document"}},
    {"rl_module: {policy: {path: m}}\n", NULL, {":1:1: algorithm is missing"}},
    {"algorithm: grpo\n", NULL, {":1:12: algorithm grpo is not built yet"}},
    {"algorithm: pppo\n", NULL, {":1:12: unknown algorithm 'pppo', did you mean 'ppo'?"}},
    {SFT "trainning: {lr: 1}\n", NULL, {":4:1: unknown key 'trainning'; did you mean 'training'?"}},
    {SFT "training: {lr_shedule: linear}\n", NULL, {":4:12: unknown key 'training.lr_shedule'; did you mean 'training.lr_schedule'?"}},
    {SFT "lr: 1\n", NULL, {":4:1: unknown key 'lr'; valid is 'training.lr'"}},
    {SFT "training.lr: 1\n", NULL, {":4:1: unknown key 'training.lr'; valid is 'training.lr', each name a level of its own"}},
    {SFT "training: {lr: fast}\n", NULL, {":4:16: training.lr: 'fast' is not a number; valid is a number from 0 to 10"}},
    {SFT "training: {lr: 1e999}\n", NULL, {"is too large"}},
    {SFT "training: {lr: 0x10}\n", NULL, {"is not a number"}},
    {SFT "training: {lr: .nan}\n", NULL, {"is not a number"}},
    {SFT "training: {lr: [1]}\n", NULL, {":4:16: training.lr: a list where one value is wanted"}},
    {SFT "training: {batch_size: 1.5}\n", NULL, {":4:24: training.batch_size: '1.5' is not a whole number"}},
    {SFT "training: {batch_size: 0}\n", NULL, {"is out of range; valid is null, or a whole number from 1"}},
    {SFT "training: {warmup_steps: null}\n", NULL, {"training.warmup_steps: 'null' is no value"}},
    {SFT "training: {batch_size: 1, batch_tokens: 2}\n", NULL, {":4:41: training.batch_tokens: contradicts training.batch_size"}},
    {SFT "training: {optimizer: {betas: [0.9]}}\n", NULL, {"has 1 entries; valid is a list of 2"}},
    {SFT "training: {optimizer: {betas: [0.9, 1.0]}}\n", NULL, {":4:37: training.optimizer.betas.1: '1.0' is out of range"}},
    {SFT "training: {lr_schedule: linaer}\n", NULL, {"did you mean 'linear'?; valid is constant, linear, cosine"}},
    {SFT "training: {clip_param: 0.1}\n", NULL, {":4:24: training.clip_param does not apply to algorithm sft; it is for ppo"}},
    {SFT "training: 3\n", NULL, {":4:11: 'training' must be a map"}},
    {SFT "debugging: {timeline: yes}\n", NULL, {"is not a truth value; valid is true or false"}},
    {SFT "stop: {steps: 1, epochs: 1}\n", NULL, {"stop.epochs: contradicts stop.steps"}},
    {SFT "stop: {metrics: {loss: low}}\n", NULL, {":4:24: stop.metrics.loss: not a condition"}},
    {SFT "run: {dir: \"{foo}\"}\n", NULL, {"run.dir: '{foo}' has an unknown place holder"}},
    {SFT "run: {name: \"${PX_TEST_UNSET}\"}\n", NULL, {":4:13: environment variable PX_TEST_UNSET is not set"}},
    {SFT "run: {seed: 1}\nrun: {seed: 2}\n", NULL, {":5:1: duplicate key 'run'; it is already given at line 4"}},
    {SFT "run: &a {name: *a}\n", NULL, {"alias *a lies inside its own anchor"}},
    {SFT "run: {name: *b}\n", NULL, {":4:13: unknown alias *b"}},
    {SFT "run: {seed: !!int 3}\n", NULL, {"tag 'tag:yaml.org,2002:int' is not supported"}},
    {SFT "include: absent.yaml\n", NULL, {":4:10: cannot be included"}},
    {SFT "include: bad.yaml\n", NULL, {"bad.yaml includes itself"}},
    {"algorithm: sft\nrl_module: {policy: {path: m}}\n", NULL, {":1:1: data.train is missing; algorithm sft needs it (a file, or a list of "
     "files and maps {file, weight})"}},
    {"algorithm: sft\nrl_module: {policy: {path: m}}\ndata:\n  max_tokens: 3\n", NULL, {":4:3: data.train is missing; algorithm sft"}},
    {"algorithm: sft\nrl_module: {policy: {path: m}}\ndata:\n  train:\n  shuffle: true\n", NULL,
     {":4:9: data.train: '' is no value; valid is a file, or a list"}},
    {"algorithm: sft\nrl_module: {policy: {path: m}}\ndata: {train: [t, [u, v]]}\n", NULL,
     {":3:19: data.train.1: a list where a file is wanted; valid is a file or a map {file, weight}"}},
    {"algorithm: sft\nrl_module: {policy: {path: m}}\ndata: {train: {fil: t}}\n", NULL,
     {":3:16: unknown key 'data.train.fil'; did you mean 'data.train.file'?", ":3:15: data.train.file is missing; valid is a path"}},
    {"algorithm: sft\nrl_module: {policy: null}\ndata: {train: t}\n", NULL,
     {":2:21: rl_module.policy: 'null' is no value; valid is one of {path: DIR}, {stage: NAME}, {same_as: MODULE}, {new: {...}}"}},
    {"algorithm: reward\nrl_module: {reward: null}\ndata: {train: t}\n", NULL, {":2:21: rl_module.reward: is missing"}},
    {PPO, "rl_module.critic=null", {"rl_module.critic: 'null' is no value"}},
    {PPO, "environment.rewards=null", {"environment.rewards: 'null' is no value; valid is a list of maps {kind: ..., weight: ...}"}},
    {PPO, "environment.rewards=[{kind: exec, command: null}]", {"environment.rewards.0.command: 'null' is no value; valid is text"}},
    {PPO, "environment.rewards=[{kind: exec, command: {a: b}}]", {"environment.rewards.0.command: a map where text or a list of texts "
     "is wanted"}},
    {SFT, "training.optimizer.betas=null", {"training.optimizer.betas: 'null' is no value; valid is a list of 2, each a number from 0 "
     "to below 1"}},
    {SFT, "data.train.1=u", {"data.train has no entry '1'; valid is a name or an index below 1"}},
    {SFT "training: {lr: \"1e-6\"}\n", NULL, {":4:16: training.lr: '1e-6' is text, as it stands in quotes; valid is a number from 0"}},
    {SFT "training: {batch_size: \"null\"}\n", NULL, {"training.batch_size: 'null' is text, as it stands in quotes; valid is null, or"}},
    {SFT "debugging: {timeline: \"true\"}\n", NULL, {"debugging.timeline: 'true' is text, as it stands in quotes; valid is true or false"}},
    {"algorithm: sft\ndata: {train: t}\n", NULL, {"rl_module.policy is missing"}},
    {"algorithm: reward\ndata: {train: t}\n", NULL, {"rl_module.reward: is missing"}},
    {"algorithm: sft\ndata: {train: t}\nrl_module: {policy: {stage: x}}\n", NULL, {":3:29: rl_module.policy.stage: 'x' names a stage"}},
    {"algorithm: sft\ndata: {train: t}\nrl_module: {policy: m}\n", NULL, {":3:21: rl_module.policy must be a map"}},
    {"algorithm: sft\ndata: {train: t}\nrl_module: {policy: {path: a, stage: b}}\n", NULL, {"has several of path, stage, same_as and new"}},
    {"algorithm: pretrain\ndata: {train: t}\nrl_module: {policy: {new: {hidden_size: 10, num_attention_heads: 4}}}\n", NULL,
     {":3:41: rl_module.policy.new.hidden_size: 10 is no multiple of num_attention_heads, 4", "auto needs rl_module.tokenizer"}},
    {"algorithm: pretrain\ndata: {train: t}\nrl_module: {policy: {new: {hiden_size: 10}}}\n", NULL,
     {":3:28: unknown key 'rl_module.policy.new.hiden_size'; did you mean 'rl_module.policy.new.hidden_size'?"}},
    {PPO "training: {minibatch_size: 65}\n", NULL, {":4:28: training.minibatch_size: 65 is above the 64 samples of an iteration"}},
    {PPO "training: {kl: {target: 6, horizon: 12.8}}\n", NULL,
     {":4:37: training.kl.horizon: 12.8 samples could make the coefficient negative in an iteration of 64; valid is more than 12.8"}},
    {PPO "training: {kl: {where: loss}}\n", NULL, {"training.kl.estimator: k1 in the loss has a gradient of 0 on average"}},
    {PPO "placement: {strategy: split}\n", NULL, {":4:23: placement.strategy: split needs env runners"}},
    {PPO "checkpointing: {keep_best: evaluation/x}\n", NULL, {"checkpointing.keep_best: evaluation/x is never measured"}},
    {"algorithm: ppo\nrl_module: {policy: {path: m}}\nenvironment: {prompts: p}\n", NULL, {"a reward of kind model needs rl_module.reward"}},
    {"algorithm: ppo\nrl_module: {policy: {path: m}, reference: {same_as: critic}, critic: {same_as: reference}}\n"
     "environment: {prompts: p, rewards: [{kind: length, target: 3}]}\n", NULL,
     {"the modules name each other in a circle", "rl_module.reference needs a language model"}},
    {"algorithm: ppo\nrl_module: {policy: {path: m}}\nenvironment:\n  prompts: p\n  rewards:\n  - {kind: lexicon}\n  - {kind: regex}\n"
     "  - {kind: length, target: 3, file: x}\n", NULL,
     {":6:5: environment.rewards.0.file is missing", "environment.rewards.1.pattern: is missing",
      ":8:37: environment.rewards.2.file does not apply to kind length; it is for lexicon"}},
    {"algorithm: ppo\nrl_module: {policy: {path: m}}\nenvironment: {prompts: p, rewards: [{kind: length, target: 3}, {kind: length, "
     "target: 4}]}\n", NULL, {"'length' is the name of two rewards"}},
    {"stages:\n  a: {algorithm: sft, data: {train: t}, rl_module: {policy: {stage: b}}}\n  b: {algorithm: sft, data: {train: t}, "
     "rl_module: {policy: {stage: aa}}}\n", NULL,
     {":2:69: rl_module.policy.stage: stage 'b' does not come before 'a'", ":3:69: rl_module.policy.stage: there is no stage 'aa', did you "
      "mean 'a'?"}},
    {"run: {seed: 1}\nstages:\n  training: {algorithm: sft}\n", NULL, {":1:1: 'run' beside 'stages:'", ":3:3: 'training' cannot be a stage's name"}},
    {"stages:\n  cache: {algorithm: sft}\n", NULL, {":2:3: 'cache' cannot be a stage's name"}},
    {"defaults: {training: {gamma: 1}}\nstages:\n  a: {algorithm: sft, data: {train: t}, rl_module: {policy: {path: m}}}\n", NULL,
     {":1:30: training.gamma applies to no stage of this file"}},
    {SFT, "training.lr=fast", {"--set training.lr=fast: training.lr: 'fast' is not a number"}},
    {SFT, "training.lrr=1", {"--set training.lrr=1: unknown key 'training.lrr'; did you mean 'training.lr'?"}},
    {SFT, "run.name=a\xff", {"--set run.name=a: not UTF-8 (byte 0xFF)"}},
    {SFT, "nothing", {"--set nothing: not KEY=VALUE"}},
    {SFT, "training.gamma=1", {"training.gamma does not apply to algorithm sft"}},
    {PPO, "environment.rewards.tone.weight=1", {"environment.rewards has no entry 'tone'"}},
};

static void expect(const struct bad *one)
{
    px_config *config = NULL;
    px_status status = load_with(&config, file_with("bad.yaml", one->text), &one->set, one->set ? 1 : 0);
    if (status != PX_CONFIG) fail_msg("status %d for:\n%s", status, one->text);
    for (int i = 0; i < 3 && one->wanted[i]; i++) {
        if (!strstr(px_error_text(), one->wanted[i])) {
            fail_msg("wanted: %s\ngot: %s\nfor:\n%s", one->wanted[i], px_error_text(), one->text);
        }
    }
    assert_null(config);
    assert_int_equal(px_alloc_live(), 0);
}

static void test_table(void **state)
{
    (void)state;
    unsetenv("PX_TEST_UNSET");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) expect(&cases[i]);
}

static void test_all_at_once(void **state)
{
    (void)state;
    px_config *config = NULL;
    const char *text = SFT "training:\n  lr: x\n  batch_size: y\nstop:\n  stepz: 3\n";
    assert_int_equal(load_with(&config, file_with("bad.yaml", text), NULL, 0), PX_CONFIG);
    const char *first = strstr(px_error_text(), ":5:7:"), *second = strstr(px_error_text(), ":6:15:"),
               *third = strstr(px_error_text(), ":8:3:");
    assert_true(first && second && third && first < second && second < third);
}

static void test_missing_file(void **state)
{
    (void)state;
    px_config *config = NULL;
    assert_int_equal(load_with(&config, "/nonexistent/x.yaml", NULL, 0), PX_IO);
    assert_non_null(strstr(px_error_text(), "/nonexistent/x.yaml"));
}

static void test_floods(void **state)
{
    (void)state;
    px_buf text = {0};
    px_buf_text(&text, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 12; i++) {
        px_buf_printf(&text, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1,
                      i - 1, i - 1);
    }
    px_config *config = NULL;
    assert_int_equal(load_with(&config, file_with("bad.yaml", text.data), NULL, 0), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "aliases unfold"));
    px_buf_clear(&text);
    for (int i = 0; i < 5000; i++) px_buf_text(&text, "[");
    assert_int_equal(load_with(&config, file_with("bad.yaml", text.data), NULL, 0), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "nested more than 32 deep"));
    px_buf_clear(&text);
    px_buf_text(&text, "a0: &a0 x\n");
    for (int i = 1; i < 900; i++) px_buf_printf(&text, "a%d: &a%d [[*a%d]]\n", i, i, i - 1);
    assert_int_equal(load_with(&config, file_with("bad.yaml", text.data), NULL, 0), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "aliases unfold"));
    px_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_all_at_once), cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_floods),
    };
    return cmocka_run_group_tests(tests, files_begin, files_end);
}
