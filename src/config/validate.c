/* What several keys make wrong together. */
#include "stage.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check {
    const px_stage *stage;
    px_problems *problems;
    const px_node *mark; /* of the whole stage, for keys that nobody wrote */
};

static void wrong(const struct check *c, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void wrong(const struct check *c, const char *key, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    /* a key that nobody wrote has the place of what it lies in */
    char place[128];
    snprintf(place, sizeof place, "%s", key);
    const px_value *value = px_stage_find(c->stage, place);
    for (char *dot; !(value && value->node) && (dot = strrchr(place, '.')) != NULL;) {
        *dot = 0;
        value = px_stage_find(c->stage, place);
    }
    const px_node *node = value && value->node ? value->node : px_node_at(c->stage->tree, place);
    px_problem_node(c->problems, node ? node : c->mark, "%s: %s", key, text);
}

static const px_value *get(const struct check *c, const char *key)
{
    const px_value *value = px_stage_value(c->stage, key);
    return value->applies ? value : NULL;
}

/* true and *out when the key applies and holds a number */
static bool number(const struct check *c, const char *key, double *out)
{
    const px_value *value = get(c, key);
    if (!value || value->form != PX_IS_NUMBER) return false;
    *out = value->f;
    return true;
}

static const char *text(const struct check *c, const char *key)
{
    const px_value *value = get(c, key);
    return value && (value->form == PX_IS_TEXT || value->form == PX_IS_WORD) ? value->text : NULL;
}

static bool given(const struct check *c, const char *key)
{
    const px_value *value = get(c, key);
    return value && !value->preset && value->form != PX_IS_NULL;
}

/* ---- run ---------------------------------------------------------------------------------------------------------------------- */

static void check_placeholders(const struct check *c, const char *dir)
{
    for (const char *at = strchr(dir, '{'); at; at = strchr(at + 1, '{')) {
        if (strncmp(at, "{name}", 6) == 0 || strncmp(at, "{seed}", 6) == 0 || strncmp(at, "{hash}", 6) == 0) continue;
        wrong(c, "run.dir", "'%s' has an unknown place holder; valid are {name}, {seed} and {hash}", dir);
        return;
    }
}

static void check_run(const struct check *c)
{
    const char *name = text(c, "run.name"), *dir = text(c, "run.dir");
    if (!name || !*name) wrong(c, "run.name", "is empty; valid is text");
    if (!dir || !*dir) wrong(c, "run.dir", "is empty; valid is a directory");
    else check_placeholders(c, dir);
    const px_stage *first = &c->stage->config->stages[0];
    if (!name || !dir || c->stage == first || !first->count) return;
    char mine[PX_PATH_MAX], theirs[PX_PATH_MAX];
    if (px_stage_run_dir(c->stage, mine, sizeof mine) != PX_OK || px_stage_run_dir(first, theirs, sizeof theirs) != PX_OK) return;
    if (strcmp(mine, theirs) != 0) {
        wrong(c, "run.dir", "'%s' differs from '%s' of stage '%s'; all stages of a file share one run directory: set run.dir, "
              "run.name (and run.seed with {seed}) under defaults", mine, theirs, first->name);
    }
}

/* ---- rl_module ------------------------------------------------------------------------------------------------------------------ */

static const char *module_key(char out[64], const char *module, const char *field)
{
    snprintf(out, 64, "rl_module.%s%s%s", module, *field ? "." : "", field);
    return out;
}

static bool has_module(const struct check *c, const char *module)
{
    char key[64];
    const px_value *value = get(c, module_key(key, module, ""));
    return value && value->form != PX_IS_NULL;
}

static void check_stage_reference(const struct check *c, const char *module)
{
    char key[64];
    const char *name = text(c, module_key(key, module, "stage"));
    const px_config *config = c->stage->config;
    if (!name || config->resolved) return;
    if (!config->staged) {
        wrong(c, key, "'%s' names a stage, and this file has no stages; valid is {path: DIR}", name);
        return;
    }
    const px_stage *other = px_config_stage_named(config, name);
    if (!other) {
        const char *names[64];
        int n = 0;
        for (int i = 0; i < config->stage_count && n < 64; i++) names[n++] = config->stages[i].name;
        const char *near = px_nearest_name(name, names, n);
        wrong(c, key, "there is no stage '%s'%s%s%s; valid is an earlier stage of this file", name, near ? ", did you mean '" : "",
              near ? near : "", near ? "'?" : "");
    } else if (other >= c->stage) {
        wrong(c, key, "stage '%s' does not come before '%s'; valid is an earlier stage", name, c->stage->name);
    } else if (other->bit) {
        bool scores = other->bit == PX_ON_REWARD, wants = strcmp(module, "reward") == 0 && c->stage->bit == PX_ON_PPO;
        bool language = strcmp(module, "policy") == 0 || strcmp(module, "reference") == 0 || c->stage->bit == PX_ON_REWARD;
        if (wants && !scores) wrong(c, key, "stage '%s' (%s) makes no reward model; valid is a stage with algorithm reward", name,
                                    other->algorithm);
        if (language && scores) wrong(c, key, "stage '%s' makes a reward model, and rl_module.%s needs a language model; valid is a "
                                      "stage with algorithm pretrain, sft or ppo", name, module);
    }
}

static void check_same_as(const struct check *c, const char *module)
{
    char key[64], other_key[64];
    const char *target = text(c, module_key(key, module, "same_as"));
    if (!target) return;
    bool language = strcmp(module, "policy") == 0 || strcmp(module, "reference") == 0;
    bool scores = strcmp(target, "reward") == 0 || strcmp(target, "critic") == 0;
    if (!has_module(c, target)) {
        wrong(c, key, "rl_module.%s is not given; valid is a module of this stage", target);
    } else if (language && scores) {
        wrong(c, key, "rl_module.%s needs a language model, and rl_module.%s is none; valid is policy or reference", module, target);
    }
    for (int step = 0; target; step++) {
        if (strcmp(target, module) == 0 || step > 4) {
            wrong(c, key, "the modules name each other in a circle; valid is a chain that ends at path, stage or new");
            return;
        }
        target = text(c, module_key(other_key, target, "same_as"));
    }
}

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(name, *names) != 0) names++;
    return *names != NULL;
}

/* What a family has not: these come from the model room's tables, which know the rest. */
static void check_family(const struct check *c, const char *module, const char *family)
{
    static const char *const square[] = {"gpt2", "gpt_neox", "opt", NULL}, *const bare[] = {"mistral", "qwen2", NULL};
    char key[64], heads_key[64];
    double hidden, heads, value;
    if (!number(c, module_key(key, module, "new.hidden_size"), &hidden) ||
        !number(c, module_key(heads_key, module, "new.num_attention_heads"), &heads)) return;
    bool equal = is_one_of(family, square);
    if (equal && number(c, module_key(key, module, "new.head_dim"), &value) && value * heads != hidden) {
        wrong(c, key, "%s has heads of hidden_size / num_attention_heads; valid is auto", family);
    }
    if (equal && number(c, module_key(key, module, "new.num_key_value_heads"), &value) && value != heads) {
        wrong(c, key, "%s has as many key and value heads as query heads; valid is auto", family);
    }
    if (strcmp(family, "mistral") != 0 && number(c, module_key(key, module, "new.sliding_window"), &value)) {
        wrong(c, key, "%s has no sliding window; valid is auto, or architecture: mistral", family);
    }
    if (is_one_of(family, bare) && px_stage_bool(c->stage, module_key(key, module, "new.attention_bias"))) {
        wrong(c, key, "%s has no such biases; valid is false", family);
    }
}

static void check_new(const struct check *c, const char *module)
{
    static const char *const learned[] = {"gpt2", "opt", NULL};
    char key[64];
    double hidden, heads, kv, dim, positions, wanted, completion, vocabulary;
    const char *family = text(c, module_key(key, module, "new.architecture"));
    if (!family) return;
    check_family(c, module, family);
    bool sized = number(c, module_key(key, module, "new.hidden_size"), &hidden) &&
                 number(c, module_key(key, module, "new.num_attention_heads"), &heads);
    if (sized && !number(c, module_key(key, module, "new.head_dim"), &dim)) {
        dim = hidden / heads;
        if (fmod(hidden, heads) != 0) {
            wrong(c, module_key(key, module, "new.hidden_size"), "%g is no multiple of num_attention_heads, %g; valid is a multiple, "
                  "or head_dim", hidden, heads);
            dim = 2;
        }
    }
    bool neox = strcmp(family, "gpt_neox") == 0; /* rotates a quarter of each head */
    if (sized && !is_one_of(family, learned) && fmod(dim, neox ? 8 : 2) != 0) {
        wrong(c, module_key(key, module, "new.hidden_size"), "heads of width %g cannot rotate; valid is %s hidden_size / "
              "num_attention_heads", dim, neox ? "a multiple of 8 for" : "an even");
    }
    if (sized && number(c, module_key(key, module, "new.num_key_value_heads"), &kv)) {
        if (fmod(heads, kv) != 0) wrong(c, key, "%g does not divide num_attention_heads, %g; valid is a divisor", kv, heads);
    }
    if (!number(c, module_key(key, module, "new.vocab_size"), &vocabulary) && !text(c, "rl_module.tokenizer")) {
        wrong(c, key, "auto needs rl_module.tokenizer; valid is a tokenizer, or a number for data of token ids");
    }
    if (!number(c, module_key(key, module, "new.max_position_embeddings"), &positions)) return;
    if (number(c, "environment.max_prompt_tokens", &wanted) && number(c, "environment.max_completion_tokens", &completion)) {
        wanted += completion;
    } else if (!number(c, "data.max_tokens", &wanted) || px_stage_value(c->stage, "data.max_tokens")->preset) {
        return;
    }
    if (wanted > positions) wrong(c, key, "%g positions are fewer than a sequence of %g tokens may need; valid is at least that",
                                  positions, wanted);
}

static void check_modules(const struct check *c)
{
    static const char *const modules[] = {"policy", "reference", "reward", "critic"};
    if (c->stage->bit == PX_ON_REWARD && px_node_is_null(px_node_at(c->stage->tree, "rl_module.reward"))) {
        wrong(c, "rl_module.reward", "is missing; algorithm reward trains it ({path: DIR} or {stage: NAME} of a language model)");
    }
    for (int i = 0; i < 4; i++) {
        char key[64];
        if (!has_module(c, modules[i])) continue;
        check_stage_reference(c, modules[i]);
        check_same_as(c, modules[i]);
        const char *source = text(c, module_key(key, modules[i], ""));
        if (source && strcmp(source, "new") == 0) check_new(c, modules[i]);
    }
}

/* ---- environment ------------------------------------------------------------------------------------------------------------------ */

static void check_rewards(const struct check *c, const char *list)
{
    if (!get(c, list)) return;
    int count = px_stage_list_count(c->stage, list);
    for (int i = 0; i < count; i++) {
        char key[96], other[96];
        snprintf(key, sizeof key, "%s.%d.kind", list, i);
        const px_value *kind = px_stage_find(c->stage, key);
        if (!kind || kind->form != PX_IS_WORD) continue;
        if (strcmp(kind->text, "model") == 0 && !has_module(c, "reward")) {
            wrong(c, key, "a reward of kind model needs rl_module.reward; valid is {path: DIR} or {stage: NAME} there, or rewards of "
                  "other kinds here");
        }
        snprintf(key, sizeof key, "%s.%d.pattern", list, i);
        if (strcmp(kind->text, "regex") == 0 && !text(c, key)) wrong(c, key, "is missing; kind regex needs a regular expression");
        snprintf(key, sizeof key, "%s.%d.name", list, i);
        const char *name = text(c, key);
        if (!name) continue;
        size_t fine = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
        if (!*name || name[fine] || strlen(name) > 48) {
            wrong(c, key, "'%s' cannot be part of a metric's name; valid are up to 48 letters, digits, _ and -", name);
        }
        for (int j = 0; j < i; j++) {
            snprintf(other, sizeof other, "%s.%d.name", list, j);
            const px_value *earlier = px_stage_find(c->stage, other);
            if (!earlier || !earlier->text || strcmp(earlier->text, name) != 0) continue;
            wrong(c, key, "'%s' is the name of two rewards; valid is a name of its own for each", name);
            break;
        }
    }
}

static void check_environment(const struct check *c)
{
    double least, most, samples, prompts, size;
    if (px_stage_list_count(c->stage, "environment.rewards") == 0 && get(c, "environment.rewards")) {
        wrong(c, "environment.rewards", "is empty; valid is at least one reward");
    }
    check_rewards(c, "environment.rewards");
    check_rewards(c, "evaluation.rewards");
    if (number(c, "environment.min_completion_tokens", &least) && number(c, "environment.max_completion_tokens", &most) &&
        least > most) {
        wrong(c, "environment.min_completion_tokens", "%g is above max_completion_tokens, %g; valid is at most that", least, most);
    }
    if (number(c, "training.minibatch_size", &size) && number(c, "training.prompts_per_iteration", &prompts) &&
        number(c, "env_runners.samples_per_prompt", &samples) && size > prompts * samples) {
        wrong(c, "training.minibatch_size", "%g is above the %g samples of an iteration (prompts_per_iteration x "
              "samples_per_prompt); valid is at most that", size, prompts * samples);
    }
}

/* ---- the rest --------------------------------------------------------------------------------------------------------------------- */

static void check_either(const struct check *c, const char *one, const char *two, const char *why)
{
    if (given(c, one) && given(c, two)) {
        wrong(c, two, "contradicts %s; valid is one of the two", one);
    } else if ((get(c, one) || get(c, two)) && (!get(c, one) || get(c, one)->form == PX_IS_NULL) &&
               (!get(c, two) || get(c, two)->form == PX_IS_NULL)) {
        wrong(c, one, "%s", why);
    }
}

static void check_placement(const struct check *c)
{
    static const char *const split_only[] = {"env_runners.max_staleness", "placement.num_scorers", "placement.num_evaluators"};
    const char *strategy = text(c, "placement.strategy");
    double runners = 0;
    if (!strategy || !number(c, "env_runners.num_env_runners", &runners)) return;
    bool split = strcmp(strategy, "split") == 0;
    bool nodes = given(c, "placement.env_runner_nodes");
    if (!split && nodes) {
        wrong(c, "placement.env_runner_nodes", "needs strategy split; valid is null with strategy colocated");
    }
    if (split && runners == 0 && !nodes) {
        wrong(c, "placement.strategy", "split needs env runners; valid is env_runners.num_env_runners above 0, or colocated");
    } else if (!split && runners > 0) {
        wrong(c, "placement.strategy", "colocated contradicts env_runners.num_env_runners %g; valid is split, or 0 env runners",
              runners);
    }
    for (int i = 0; i < 3 && !split; i++) {
        double value;
        if (number(c, split_only[i], &value) && value > 0) {
            wrong(c, split_only[i], "%g needs strategy split; valid is 0 with strategy colocated", value);
        }
    }
}

static void check_evaluation(const struct check *c)
{
    const char *best = text(c, "checkpointing.keep_best");
    double interval = 0, target, coeff;
    number(c, "evaluation.evaluation_interval", &interval);
    bool data = text(c, c->stage->bit == PX_ON_PPO ? "evaluation.prompts" : "data.validation") != NULL;
    if (best && strncmp(best, "evaluation/", 11) == 0 && (!data || interval == 0)) {
        wrong(c, "checkpointing.keep_best", "%s is never measured; valid with %s and an evaluation_interval above 0", best,
              c->stage->bit == PX_ON_PPO ? "evaluation.prompts" : "data.validation");
    }
    if (number(c, "training.kl.target", &target) && number(c, "training.kl.coeff", &coeff) && coeff == 0) {
        wrong(c, "training.kl.target", "cannot steer a coefficient of 0; valid is training.kl.coeff above 0");
    }
}

/* A factor of 1 - 0.2 n / horizon (Ziegler et al. 2019) is to stay above 0; the gradient of k1, a token's own log-probability,
 * is 0 in expectation. */
static void check_kl(const struct check *c)
{
    double target, horizon, prompts, samples;
    if (number(c, "training.kl.target", &target) && number(c, "training.kl.horizon", &horizon) &&
        number(c, "training.prompts_per_iteration", &prompts) && number(c, "env_runners.samples_per_prompt", &samples) &&
        0.2 * prompts * samples >= horizon) {
        wrong(c, "training.kl.horizon", "%g samples could make the coefficient negative in an iteration of %g; valid is more than "
              "%g", horizon, prompts * samples, 0.2 * prompts * samples);
    }
    const char *where = text(c, "training.kl.where"), *estimator = text(c, "training.kl.estimator");
    double coeff;
    if (where && estimator && strcmp(where, "loss") == 0 && strcmp(estimator, "k1") == 0 &&
        number(c, "training.kl.coeff", &coeff) && coeff > 0) {
        wrong(c, "training.kl.estimator", "k1 in the loss has a gradient of 0 on average; valid with training.kl.where: loss are "
              "k2 (the gradient of the KL to the reference), k3");
    }
}

void px_stage_check(px_stage *stage, px_problems *problems)
{
    if (!stage->bit || !stage->count) return;
    struct check c = {stage, problems, stage->tree};
    check_run(&c);
    check_modules(&c);
    check_environment(&c);
    check_either(&c, "training.batch_size", "training.batch_tokens", "is null, and so is batch_tokens; valid is one of the two");
    check_either(&c, "stop.steps", "stop.epochs", "is null, and so is epochs; valid is one of the two");
    check_placement(&c);
    check_evaluation(&c);
    check_kl(&c);
}
