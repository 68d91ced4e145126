/* Defaults that follow from other keys. What the table calls "auto" here becomes a value, so that readers of a stage never
 * see the word; what only the machine can answer (threads, slots, micro-batches) stays "auto". */
#include "stage.h"

#include <stdio.h>
#include <string.h>

static void derive_name(px_stage *stage)
{
    px_value *name = px_stage_find(stage, "run.name");
    if (name->form != PX_IS_NULL) return;
    const char *path = stage->config->path, *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    name->text = px_pool_format(&stage->config->pool, "%.*s", dot && dot > base ? (int)(dot - base) : (int)strlen(base), base);
    name->form = PX_IS_TEXT;
    name->preset = false; /* it depends on the file, so it is always written out */
}

/* Two rewards of one kind need names; the others are called as their kind. */
static void derive_reward_names(px_stage *stage, const char *list)
{
    int count = px_stage_list_count(stage, list);
    for (int i = 0; i < count; i++) {
        px_pool *pool = &stage->config->pool;
        px_value *name = px_stage_find(stage, px_pool_format(pool, "%s.%d.name", list, i));
        const px_value *kind = px_stage_find(stage, px_pool_format(pool, "%s.%d.kind", list, i));
        if (!name || name->form != PX_IS_NULL || kind->form != PX_IS_WORD) continue;
        name->form = PX_IS_TEXT;
        name->text = kind->text;
    }
}

static bool model_scores(const px_stage *stage)
{
    int count = px_stage_list_count(stage, "environment.rewards");
    for (int i = 0; i < count; i++) {
        char key[64];
        snprintf(key, sizeof key, "environment.rewards.%d.kind", i);
        const px_value *kind = px_stage_find(stage, key);
        if (kind && kind->form == PX_IS_WORD && strcmp(kind->text, "model") == 0) return true;
    }
    return false;
}

static bool is_auto(const px_value *value)
{
    return value->form == PX_IS_WORD && strcmp(value->text, "auto") == 0;
}

void px_stage_derive(px_stage *stage)
{
    derive_name(stage);
    derive_reward_names(stage, "environment.rewards");
    derive_reward_names(stage, "evaluation.rewards");
    px_value *mode = px_stage_find(stage, "environment.missing_eos.mode");
    if (is_auto(mode)) mode->text = model_scores(stage) ? "subtract" : "none";
    px_value *minibatch = px_stage_find(stage, "training.minibatch_size");
    const px_value *prompts = px_stage_find(stage, "training.prompts_per_iteration");
    const px_value *samples = px_stage_find(stage, "env_runners.samples_per_prompt");
    if (is_auto(minibatch) && prompts->form == PX_IS_NUMBER && samples->form == PX_IS_NUMBER) {
        minibatch->form = PX_IS_NUMBER;
        minibatch->text = NULL;
        minibatch->i = prompts->i * samples->i;
        minibatch->f = (double)minibatch->i;
    }
    px_value *precision = px_stage_find(stage, "env_runners.precision");
    if (is_auto(precision)) precision->text = px_stage_find(stage, "learners.precision")->text;
    px_value *strategy = px_stage_find(stage, "placement.strategy");
    if (is_auto(strategy)) {
        bool nodes = px_stage_find(stage, "placement.env_runner_nodes")->form != PX_IS_NULL;
        strategy->text = nodes || px_stage_find(stage, "env_runners.num_env_runners")->i > 0 ? "split" : "colocated";
    }
}
