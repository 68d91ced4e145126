/* The time of a stage: how often it runs which kernel, times how long that kernel takes here. */
#include "outlook.h"
#include "split.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PROBES = 24 };
typedef struct crew { /* ranks that share the work of a phase, and what is measured for them */
    px_crew ranks;
    px_dtype precision; /* of what is asked for, unless it says another */
    px_probe list[MAX_PROBES];
    int count;
} crew;

/* A batch is measured with at most so many operations: some seconds even on two cores; what it stands for is scaled. */
static int affordable(const px_model_config *model, int length, int heads)
{
    double layers = 72.0 * 3.0 * (double)model->hidden_size * model->hidden_size * length;
    double head = model->head == PX_HEAD_LM ? 6.0 * (double)model->vocab_size * model->hidden_size * heads : 0.0;
    int sequences = (int)(3e12 / (layers + head));
    return sequences > 1 ? sequences : 1;
}

static px_probe *ask(crew *c, px_probe_kind kind, const px_model_config *model, double sequences, double length, double heads)
{
    PX_CHECK(c->count < MAX_PROBES);
    px_probe *probe = &c->list[c->count++];
    *probe = (px_probe){.kind = kind, .model = *model, .precision = c->precision};
    probe->length = (int)fmin(fmax(2.0, length + 0.5), model->max_positions);
    probe->heads = (int)fmin(fmax(1.0, heads + 0.5), probe->length - 1);
    int most = kind == PX_PROBE_DECODE ? 4096 : affordable(model, probe->length, probe->heads);
    probe->sequences = (int)fmin(fmax(1.0, sequences + 0.5), most);
    return probe;
}

static double per_token(const px_probe *probe)
{
    return probe->seconds / ((double)probe->sequences * probe->length);
}

static px_status run_probes(crew *c)
{
    if (c->count == 0) { /* a role without ranks has no threads either */
        return PX_OK;
    }
    int cores = omp_get_num_procs(), threads = c->ranks.threads < cores ? c->ranks.threads : cores;
    int processes = cores / threads < c->ranks.together ? cores / threads : c->ranks.together;
    PX_TRY(px_probes_run(c->list, c->count, threads, processes));
    for (int i = 0; i < c->count; i++) { /* cores that are not here: as good as those that are */
        c->list[i].seconds *= (double)threads / c->ranks.threads;
    }
    return PX_OK;
}

static void add(px_outlook *outlook, const char *name, double seconds)
{
    px_outlook_add(outlook->time, &outlook->time_count, name, seconds, "");
    outlook->seconds += seconds;
}

/* Until the first step: processes and MPI start, memory is touched, the roof is measured. */
static void add_start(const px_session *session, const px_layout *layout, px_outlook *outlook)
{
    enum { MIB_PER_S = 2000 };
    bool first = session->number == 0;
    double mib = 0.0;
    for (int n = 0; n < px_layout_nodes(layout) && n < 16; n++) {
        mib = fmax(mib, px_outlook_node_bytes(outlook, layout, n) / 1048576.0);
    }
    add(outlook, "start", mib / MIB_PER_S + (first ? 1.0 : 0.0));
}

/* ---- learners ------------------------------------------------------------------------------------------------------------ */

typedef struct learner_cost { /* of one optimizer step on a rank */
    const px_crew *ranks;
    px_probe *train, *pack, *clear, *step;
    double tokens, leaves;    /* of a rank */
    size_t block;
} learner_cost;

/* items: of a minibatch, each of `each` sequences. */
static learner_cost ask_learner(crew *c, const px_session *session, const px_model *model, const px_learner_config *config,
                                double items, int each, double length, double heads)
{
    int size = c->ranks.count, leaves = px_work_leaves(config->exact, size);
    double used = fmin(leaves, items), leaf = items * each * length / used; /* tokens */
    double batches = ceil(leaf / fmax(config->micro_tokens, each * length));
    learner_cost cost = {.ranks = &c->ranks, .leaves = ceil(used / size), .block = model->block};
    cost.tokens = cost.leaves * leaf;
    cost.train = ask(c, PX_PROBE_TRAIN, &model->config, leaf / batches / length, length, heads);
    cost.clear = ask(c, PX_PROBE_CLEAR, &model->config, 1, 2, 1);
    cost.step = ask(c, PX_PROBE_STEP, &model->config, 1, 2, 1);
    if (session->learner_precision == PX_BF16) { /* float32 engines do not pack */
        cost.pack = ask(c, PX_PROBE_PACK, &model->config, 1, 2, 1);
    }
    return cost;
}

static double learner_seconds(const learner_cost *cost, const px_layout *layout)
{
    double bytes = (double)cost->block * sizeof(float), local = cost->ranks->per_node, nodes = cost->ranks->nodes;
    double sum = 2.0 * (1.0 - 1.0 / local) * cost->clear->seconds + 2.0 * (1.0 - 1.0 / nodes) * bytes / layout->network;
    double pack = cost->pack != NULL ? 2.0 * cost->pack->seconds : 0.0; /* for forward and for backward */
    return cost->tokens * per_token(cost->train) + cost->leaves * cost->clear->seconds + cost->step->seconds + pack + sum;
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
    crew all = {.ranks = px_outlook_crew(session, layout, PX_ROLE_LEARNER), .precision = session->learner_precision};
    learner_cost step = ask_learner(&all, session, &session->model, config, items, each, length, heads);
    px_probe *forward = ask(&all, PX_PROBE_FORWARD, &session->model.config, px_learner_tokens(config) / length, length, heads);
    PX_TRY(run_probes(&all));
    add(outlook, "learn", (double)session->total * learner_seconds(&step, layout));
    add(outlook, "evaluate", evaluations(session) * held.tokens * per_token(forward) / all.ranks.count);
    if (pairs) { /* scores are centred at the end */
        double tokens = session->demonstrations != NULL ? shown.tokens : train.tokens;
        add(outlook, "center", tokens * per_token(forward) / all.ranks.count);
    }
    return PX_OK;
}

typedef struct sampler_cost { /* of a rank that samples */
    px_probe *full, *part, *prefill, *pack;
    double samples, prompts, slots; /* its share of an iteration; decoded at once */
} sampler_cost;

/* Prompts are handed out in requests: a rank's share is whole requests of them. */
static sampler_cost ask_sampler(crew *c, const px_session *session, double prompts, int each, int request, double length,
                                double completion)
{
    const px_ppo_config *config = &session->ppo;
    const px_model_config *policy = &session->parts.policy.config;
    sampler_cost cost = {.prompts = fmin(prompts, request * ceil(ceil(prompts / request) / c->ranks.count))};
    cost.samples = cost.prompts * each;
    cost.slots = fmax(1.0, fmin(config->max_slots, cost.samples));
    if (session->placement.split) {
        px_wire wire;
        px_wire_derive(&wire, session);
        cost.slots = fmin(cost.slots, (double)wire.in_flight * request * each);
    }
    cost.full = ask(c, PX_PROBE_DECODE, policy, cost.slots, length + completion / 2.0, 1);
    cost.part = ask(c, PX_PROBE_DECODE, policy, cost.slots / 4.0, length + completion / 2.0, 1);
    cost.prefill = ask(c, PX_PROBE_FORWARD, policy, fmin(cost.prompts, config->inference_tokens / length), length, 1);
    cost.pack = ask(c, PX_PROBE_PACK, policy, 1, 2, 1);
    px_probe *all[] = {cost.full, cost.part, cost.prefill, cost.pack};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        all[i]->precision = session->sampler_precision;
    }
    return cost;
}

/* A decoding step costs a + b x rows: weights are read once, rows are work. */
static double sample_seconds(const sampler_cost *cost, double prompt, double completion, double longest)
{
    double rows = cost->full->sequences, few = cost->part->sequences, full = cost->full->seconds;
    double b = rows > few ? fmin(fmax(0.0, (full - cost->part->seconds) / (rows - few)), full / rows) : 0.0;
    double a = full - b * rows, tokens = cost->samples * completion;
    double steps = cost->samples <= cost->slots ? longest : tokens / cost->slots + longest - completion;
    return a * steps + b * tokens + cost->prompts * prompt * per_token(cost->prefill) + cost->pack->seconds;
}

/* Programs and rules answer at a pace of their own: some prompts are scored here, as their own completions. */
static px_status time_rewards(const px_session *session, px_rewards *rewards, double *each)
{
    enum { SOME = 4 };
    px_buf text = {0};
    size_t places[SOME + 1] = {0};
    px_reward_sample samples[SOME];
    int count = 0, specs = px_rewards_count(rewards);
    px_status status = PX_OK;
    for (; count < SOME && count < px_dataset_count(session->train) && status == PX_OK; count++) {
        px_row row;
        px_dataset_row(session->train, count, &row);
        samples[count] = (px_reward_sample){.completion_tokens = row.length, .record = row.json != NULL ? row.json : "{}"};
        status = session->tokenizer != NULL ? px_tokenizer_decode(session->tokenizer, row.ids, row.length, true, &text) : PX_OK;
        status = status == PX_OK ? px_buf_add(&text, "", 1) : status;
        places[count + 1] = text.length;
    }
    for (int i = 0; i < count; i++) {
        samples[i].prompt = samples[i].completion = text.data + places[i];
    }
    double *raw = px_alloc_array((size_t)(count * specs) + 1, sizeof *raw, "a measurement");
    status = raw != NULL ? status : px_error_code();
    for (int run = 0; run < 2 && status == PX_OK; run++) { /* the first waits for the programs' start */
        double start = px_now();
        status = px_rewards_score(rewards, samples, count, raw, NULL);
        *each = (px_now() - start) / count;
    }
    px_free(raw);
    px_buf_free(&text);
    return status;
}

/* What a PPO iteration is made of, in seconds of a rank that has its share of each. */
typedef struct iteration {
    double generate, publish, logprobs, score, learn, write;
} iteration;

static double share_of(double things, const crew *c)
{
    return ceil(things / c->ranks.count);
}

/* Whole iterations; where sampling goes on beside the rest, the shorter of both is hidden in all but the first. */
static void add_iterations(const px_session *session, const iteration *it, px_outlook *outlook)
{
    double n = (double)session->total, rest = it->logprobs + it->score + it->learn + it->write;
    add(outlook, "generate", n * it->generate);
    if (it->publish > 0.0) {
        add(outlook, "publish", n * it->publish);
    }
    add(outlook, "logprobs", n * it->logprobs);
    add(outlook, "score", n * it->score);
    add(outlook, "learn", n * it->learn);
    add(outlook, "write samples", n * it->write);
    if (session->placement.split && px_stage_int(session->stage, "env_runners.max_staleness") > 0) {
        outlook->hidden = (n - 1.0) * fmin(it->generate, rest);
        outlook->seconds -= outlook->hidden;
    }
}

/* Writing an iteration's samples into a file that is half full on average. */
static double write_seconds(const px_session *session, const px_disk_speed *disk, double samples, double completion)
{
    double every = (double)px_stage_int(session->stage, "reporting.samples.every");
    double per_file = (double)px_stage_int(session->stage, "reporting.samples.iterations_per_file");
    double half = 0.5 * (1.0 + fmin(per_file / fmax(1.0, every), (double)session->total));
    double tokens = px_stage_bool(session->stage, "reporting.samples.tokens") ? samples * completion : 0.0;
    return every > 0.0 ? (disk->append + disk->append_token * half * tokens) / every : 0.0;
}

/* A PPO stage: who does what, what is measured for it, and how much of it there is. */
typedef struct ppo_work {
    crew crews[PX_ROLE_EVALUATOR + 1];
    crew *learners, *scorers, *samplers, *evaluators; /* of crews; one may be several */
    sampler_cost sampler, evaluator;
    px_probe *copy, *reference, *old, *value, *score; /* NULL: not done */
    learner_cost policy, critic;
    double prompt, completion, length, samples, held; /* tokens, tokens, tokens; of an iteration; prompts of an evaluation */
    double rule;                                      /* seconds of the rewards that are no model, for a sample */
} ppo_work;

static void name_crews(const px_session *session, const px_layout *layout, ppo_work *w)
{
    const px_placement *placement = &session->placement;
    for (int role = 0; role <= PX_ROLE_EVALUATOR; role++) {
        w->crews[role].ranks = px_outlook_crew(session, layout, (px_role)role);
        w->crews[role].precision = session->learner_precision;
    }
    w->learners = &w->crews[PX_ROLE_LEARNER];
    w->scorers = placement->scorers > 0 ? &w->crews[PX_ROLE_SCORER] : w->learners;
    w->samplers = placement->split ? &w->crews[PX_ROLE_ENV_RUNNER] : w->learners;
    w->evaluators = placement->evaluators > 0 ? &w->crews[PX_ROLE_EVALUATOR] : w->samplers;
}

static void ask_samplers(const px_session *session, ppo_work *w)
{
    const px_ppo_config *config = &session->ppo;
    px_wire wire = {.prompts = 1, .evaluation_prompts = 1};
    if (session->placement.split) {
        px_wire_derive(&wire, session);
        w->copy = ask(w->learners, PX_PROBE_COPY, &session->parts.policy.config, 1, 2, 1);
    }
    w->sampler = ask_sampler(w->samplers, session, config->prompts_per_iteration, config->samples_per_prompt, wire.prompts,
                             w->prompt, w->completion);
    if (w->held > 0.0) {
        w->evaluator = ask_sampler(w->evaluators, session, w->held, session->parts.evaluation_samples, wire.evaluation_prompts,
                                   w->prompt, w->completion);
    }
}

static void ask_core(const px_session *session, ppo_work *w)
{
    const px_ppo_config *config = &session->ppo;
    const px_ppo_parts *parts = &session->parts;
    double length = w->length, forward = config->inference_tokens / length, minibatch = fmin(config->minibatch_size, w->samples);
    double old = px_learner_tokens(&config->policy_learner) / length, value = px_learner_tokens(&config->critic_learner) / length;
    w->reference = ask(w->scorers, PX_PROBE_FORWARD, &parts->reference.config, forward, length, w->completion);
    w->value = ask(w->scorers, PX_PROBE_FORWARD, &parts->critic.config, value, length, w->completion);
    if (px_ppo_recomputes(config) || config->importance_cap > 0.0) {
        w->old = ask(w->learners, PX_PROBE_FORWARD, &parts->policy.config, old, length, w->completion);
    }
    if (parts->reward_model != NULL) {
        w->score = ask(w->scorers, PX_PROBE_FORWARD, &parts->reward_model->model.config, forward, length, 1);
    }
    w->policy = ask_learner(w->learners, session, &parts->policy, &config->policy_learner, minibatch, 1, length, w->completion);
    w->critic = ask_learner(w->learners, session, &parts->critic, &config->critic_learner, minibatch, 1, length, w->completion);
}

static double sequence_seconds(const ppo_work *w, const px_probe *probe)
{
    return probe != NULL ? w->length * per_token(probe) : 0.0;
}

static iteration iteration_of(const px_session *session, const ppo_work *w, const px_layout *layout, const px_disk_speed *disk)
{
    const px_ppo_config *config = &session->ppo;
    double mine = share_of(config->prompts_per_iteration, w->scorers) * config->samples_per_prompt;
    double learnt = share_of(config->prompts_per_iteration, w->learners) * config->samples_per_prompt;
    double old = learnt * sequence_seconds(w, w->old);
    double rest = mine * (sequence_seconds(w, w->reference) + sequence_seconds(w, w->value));
    double steps = config->num_epochs * ceil(w->samples / config->minibatch_size);
    double sent = px_layout_nodes(layout) > 1 ? (double)session->parts.policy.block * sizeof(float) / layout->network : 0.0;
    return (iteration){
        .generate = sample_seconds(&w->sampler, w->prompt, w->completion, config->sampling.max_new_tokens),
        .publish = w->copy != NULL ? w->copy->seconds + sent : 0.0,
        .logprobs = w->scorers == w->learners ? old + rest : fmax(old, rest),
        .score = mine * (w->rule + sequence_seconds(w, w->score)),
        .learn = steps * (learner_seconds(&w->policy, layout) + learner_seconds(&w->critic, layout)),
        .write = write_seconds(session, disk, w->samples, w->completion),
    };
}

/* Samples and their scores under policy and reference; values are not asked for. */
static double evaluation_seconds(const px_session *session, const ppo_work *w)
{
    const px_ppo_config *config = &session->ppo;
    double each = session->parts.evaluation_samples, mine = share_of(w->held, w->scorers) * each;
    double old = px_ppo_recomputes(config) ? share_of(w->held, w->learners) * each * sequence_seconds(w, w->old) : 0.0;
    return sample_seconds(&w->evaluator, w->prompt, w->completion, config->sampling.max_new_tokens) + old +
           mine * (sequence_seconds(w, w->reference) + w->rule + sequence_seconds(w, w->score));
}

static px_status forecast_ppo(px_session *session, const px_layout *layout, const px_disk_speed *disk, px_outlook *outlook)
{
    double held = session->validation != NULL ? (double)px_dataset_count(session->validation) : 0.0, times = evaluations(session);
    ppo_work w = {.prompt = px_dataset_summary(session->train)->mean_length,
                  .completion = outlook->completion_tokens,
                  .samples = session->ppo.prompts_per_iteration * session->ppo.samples_per_prompt,
                  .held = times > 0.0 ? fmin(held, session->parts.evaluation_prompts) : 0.0};
    w.length = w.prompt + w.completion;
    name_crews(session, layout, &w);
    ask_samplers(session, &w);
    ask_core(session, &w);
    for (int role = 0; role <= PX_ROLE_EVALUATOR; role++) {
        PX_TRY(run_probes(&w.crews[role]));
    }
    PX_TRY(time_rewards(session, session->parts.train.rewards, &w.rule));
    iteration it = iteration_of(session, &w, layout, disk);
    add_iterations(session, &it, outlook);
    add(outlook, "evaluate", times > 0.0 ? times * (it.publish + evaluation_seconds(session, &w)) : 0.0);
    return PX_OK;
}

px_status px_forecast(px_session *session, const px_layout *layout, const px_disk_speed *disk, px_outlook *outlook)
{
    add_start(session, layout, outlook);
    if (session->algorithm == &px_algorithm_ppo) {
        return forecast_ppo(session, layout, disk, outlook);
    }
    return forecast_supervised(session, layout, outlook);
}
