/* The time of a stage: how often it runs which kernel, times how long that kernel takes here. */
#include "outlook.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PROBES = 16 };
typedef struct probes {
    px_probe list[MAX_PROBES];
    int count;
} probes;

/* A batch is measured with at most so many tokens: some seconds even on two cores; what it stands for is scaled. */
static int affordable(const px_model_config *model, int length)
{
    double most = 3e12 / (216.0 * (double)model->hidden_size * model->hidden_size);
    int sequences = (int)(most / length);
    return sequences > 1 ? sequences : 1;
}

static px_probe *ask(probes *p, px_probe_kind kind, const px_model_config *model, double sequences, double length, double heads)
{
    PX_CHECK(p->count < MAX_PROBES);
    px_probe *probe = &p->list[p->count++];
    *probe = (px_probe){.kind = kind, .model = *model};
    probe->length = (int)fmin(fmax(2.0, length + 0.5), model->max_positions);
    probe->heads = (int)fmin(fmax(1.0, heads + 0.5), probe->length - 1);
    int most = kind == PX_PROBE_DECODE ? 4096 : affordable(model, probe->length);
    probe->sequences = (int)fmin(fmax(1.0, sequences + 0.5), most);
    return probe;
}

static double per_token(const px_probe *probe)
{
    return probe->seconds / ((double)probe->sequences * probe->length);
}

/* ---- learners ------------------------------------------------------------------------------------------------------------ */

typedef struct learner_cost { /* of one optimizer step on this rank */
    px_probe *train, *clear, *step;
    double tokens, leaves;    /* of this rank */
    size_t block;
} learner_cost;

/* items: of a minibatch, each of `each` sequences. */
static learner_cost ask_learner(probes *p, const px_model *model, const px_learner_config *config, double items, int each,
                                double length, double heads)
{
    int size = px_dist_size(), leaves = px_work_leaves(config->exact, size);
    double used = fmin(leaves, items), leaf = items * each * length / used; /* tokens */
    double batches = ceil(leaf / fmax(config->micro_tokens, each * length));
    learner_cost cost = {.leaves = ceil(used / size), .block = model->block};
    cost.tokens = cost.leaves * leaf;
    cost.train = ask(p, PX_PROBE_TRAIN, &model->config, leaf / batches / length, length, heads);
    cost.clear = ask(p, PX_PROBE_CLEAR, &model->config, 1, 2, 1);
    cost.step = ask(p, PX_PROBE_STEP, &model->config, 1, 2, 1);
    return cost;
}

static double learner_seconds(const learner_cost *cost, const px_layout *layout)
{
    double bytes = (double)cost->block * sizeof(float), local = layout->ranks_per_node, nodes = layout->nodes;
    double sum = 2.0 * (1.0 - 1.0 / local) * cost->clear->seconds + 2.0 * (1.0 - 1.0 / nodes) * bytes / layout->network;
    return cost->tokens * per_token(cost->train) + cost->leaves * cost->clear->seconds + cost->step->seconds + sum;
}

/* ---- what the data are like ------------------------------------------------------------------------------------------------ */

typedef struct lengths {
    double sequences, tokens, heads; /* sums over a data set, long texts in pieces */
} lengths;

static lengths measure_rows(const px_dataset *data, bool pairs, int piece)
{
    lengths sum = {0};
    for (int64_t i = 0; data != NULL && i < px_dataset_count(data); i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        int total = row.length + (pairs ? row.rejected_length : 0);
        double cuts = piece > 0 ? ceil((double)total / piece) : 1.0;
        sum.sequences += pairs ? 2.0 : cuts;
        sum.tokens += total;
        sum.heads += pairs ? 2.0 : total - (row.prompt_length > 0 ? row.prompt_length : cuts);
    }
    return sum;
}

static double evaluations(const px_session *session)
{
    int64_t interval = px_stage_int(session->stage, "evaluation.evaluation_interval"), total = session->total;
    if (interval == 0 || session->validation == NULL) {
        return 0.0;
    }
    return (double)(1 + total / interval + (total % interval != 0));
}

/* ---- stages ---------------------------------------------------------------------------------------------------------------- */

static px_status run_probes(const px_session *session, probes *p, const px_layout *layout)
{
    for (int i = 0; i < p->count; i++) {
        p->list[i].precision = p->list[i].kind == PX_PROBE_DECODE ? session->sampler_precision : session->learner_precision;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = session->threads < cores ? session->threads : (int)cores;
    int processes = (int)cores / threads < layout->ranks_per_node ? (int)cores / threads : layout->ranks_per_node;
    PX_TRY(px_probes_run(p->list, p->count, threads, processes));
    for (int i = 0; i < p->count; i++) { /* cores that are not here: as good as those that are */
        p->list[i].seconds *= (double)threads / session->threads;
    }
    return PX_OK;
}

static void add(px_outlook *outlook, const char *name, double seconds)
{
    px_outlook_add(outlook->time, &outlook->time_count, name, seconds, "");
    outlook->seconds += seconds;
}

static px_status forecast_supervised(px_session *session, const px_layout *layout, px_outlook *outlook)
{
    bool pairs = session->algorithm == &px_algorithm_reward;
    const px_learner_config *config = pairs ? &session->rm.learner : &session->lm.learner;
    int piece = session->algorithm == &px_algorithm_pretrain ? session->lm.max_tokens : 0, each = pairs ? 2 : 1;
    lengths train = measure_rows(session->train, pairs, piece), held = measure_rows(session->validation, pairs, piece);
    lengths shown = measure_rows(session->demonstrations, false, 0);
    double length = train.tokens / train.sequences, heads = train.heads / train.sequences;
    double items = pairs ? (double)session->rm.batch_size : (double)session->lm.batch_size;
    if (items == 0.0) {
        items = fmax(1.0, (double)session->lm.batch_tokens / length);
    }
    probes p = {.count = 0};
    learner_cost step = ask_learner(&p, &session->model, config, items, each, length, heads);
    px_probe *forward = ask(&p, PX_PROBE_FORWARD, &session->model.config, px_learner_tokens(config) / length, length, heads);
    PX_TRY(run_probes(session, &p, layout));
    add(outlook, "learn", (double)session->total * learner_seconds(&step, layout));
    add(outlook, "evaluate", evaluations(session) * held.tokens * per_token(forward) / px_dist_size());
    if (pairs) { /* scores are centred at the end */
        double tokens = session->demonstrations != NULL ? shown.tokens : train.tokens;
        add(outlook, "center", tokens * per_token(forward) / px_dist_size());
    }
    return PX_OK;
}

typedef struct sampler_cost {
    px_probe *full, *part, *prefill;
    double slots;
} sampler_cost;

/* A decoding step costs a + b x rows: weights are read once, rows are work. */
static double sample_seconds(const sampler_cost *cost, double samples, double prompts, double prompt, double completion,
                             double longest)
{
    double rows = cost->full->sequences, few = cost->part->sequences;
    double b = rows > few ? fmax(0.0, (cost->full->seconds - cost->part->seconds) / (rows - few)) : 0.0;
    double a = cost->full->seconds - b * rows, tokens = samples * completion;
    double steps = samples <= cost->slots ? longest : tokens / cost->slots + longest - completion;
    return a * steps + b * tokens + prompts * prompt * per_token(cost->prefill);
}

static double share_of(double things)
{
    return ceil(things / px_dist_size());
}

static px_status forecast_ppo(px_session *session, const px_layout *layout, double completion, px_outlook *outlook)
{
    const px_ppo_config *config = &session->ppo;
    const px_ppo_parts *parts = &session->parts;
    const px_model_config *policy = &parts->policy.config, *critic = &parts->critic.config;
    double prompt = px_dataset_summary(session->train)->mean_length, each = config->samples_per_prompt;
    double samples = config->prompts_per_iteration * each, length = prompt + completion;
    double local = share_of(config->prompts_per_iteration) * each, longest = config->sampling.max_new_tokens;
    double held = session->validation != NULL ? (double)px_dataset_count(session->validation) : 0.0;
    double held_local = share_of(fmin(held, parts->evaluation_prompts)) * parts->evaluation_samples;
    double forward = config->inference_tokens / length;
    sampler_cost sampler = {.slots = fmin(config->max_slots, fmax(local, held_local))};
    probes p = {.count = 0};
    sampler.full = ask(&p, PX_PROBE_DECODE, policy, fmin(sampler.slots, local), prompt + completion / 2.0, 1);
    sampler.part = ask(&p, PX_PROBE_DECODE, policy, fmin(sampler.slots, local) / 4.0, prompt + completion / 2.0, 1);
    sampler.prefill = ask(&p, PX_PROBE_FORWARD, policy, fmin(local, config->inference_tokens / prompt), prompt, 1);
    px_probe *reference = ask(&p, PX_PROBE_FORWARD, &parts->reference.config, forward, length, completion);
    px_probe *value = ask(&p, PX_PROBE_FORWARD, critic, px_learner_tokens(&config->critic_learner) / length, length, completion);
    px_probe *score = parts->reward_model != NULL
                          ? ask(&p, PX_PROBE_FORWARD, &parts->reward_model->model.config, forward, length, 1) : NULL;
    double minibatch = fmin(config->minibatch_size, samples);
    learner_cost policy_step = ask_learner(&p, &parts->policy, &config->policy_learner, minibatch, 1, length, completion);
    learner_cost critic_step = ask_learner(&p, &parts->critic, &config->critic_learner, minibatch, 1, length, completion);
    PX_TRY(run_probes(session, &p, layout));

    double iterations = (double)session->total, reference_s = length * per_token(reference);
    double score_s = score != NULL ? length * per_token(score) : 0.0;
    double old_s = px_ppo_recomputes(config) ? reference_s : 0.0;
    double steps = config->num_epochs * ceil(samples / config->minibatch_size);
    add(outlook, "generate", iterations * sample_seconds(&sampler, local, local / each, prompt, completion, longest));
    add(outlook, "logprobs", iterations * local * (reference_s + old_s + length * per_token(value)));
    add(outlook, "score", iterations * local * score_s);
    add(outlook, "learn", iterations * steps * (learner_seconds(&policy_step, layout) + learner_seconds(&critic_step, layout)));
    double once = sample_seconds(&sampler, held_local, held_local / parts->evaluation_samples, prompt, completion, longest);
    add(outlook, "evaluate", evaluations(session) * (once + held_local * (reference_s + old_s + score_s)));
    return PX_OK;
}

px_status px_forecast(px_session *session, const px_layout *layout, double completion, px_outlook *outlook)
{
    if (session->algorithm == &px_algorithm_ppo) {
        return forecast_ppo(session, layout, completion, outlook);
    }
    return forecast_supervised(session, layout, outlook);
}
