/* What a run tells a person: the plan before a stage starts, and a line for each iteration. */
#include "split.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static double mib(size_t bytes)
{
    return (double)bytes / 1048576.0;
}

static void add(px_plan *plan, const char *role, size_t bytes, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void add(px_plan *plan, const char *role, size_t bytes, const char *format, ...)
{
    PX_CHECK(plan->count < PX_PLAN_ROWS);
    va_list args;
    va_start(args, format);
    snprintf(plan->rows[plan->count].role, sizeof plan->rows->role, "%s", role);
    vsnprintf(plan->rows[plan->count].parts, sizeof plan->rows->parts, format, args);
    va_end(args);
    plan->rows[plan->count++].bytes = bytes;
    plan->total += bytes;
}

static void add_learner(px_plan *plan, const char *role, const px_model *model, const px_learner_config *config)
{
    px_learner_memory m = px_learner_plan(model, config);
    double block = mib(m.weights);
    add(plan, role, m.weights + m.gradients + m.moments + m.engine,
        "weights %.1f, gradients %d x %.1f, moments %d x %.1f, activations%s %.1f (%d tokens)", block, m.gradient_blocks, block,
        m.moments > 0 ? 2 : 0, block, m.packed ? " and packed weights" : "", mib(m.engine), px_learner_tokens(config));
}

static void add_frozen(px_plan *plan, const char *role, px_map_bytes weights, size_t engine)
{
    plan->frozen += weights.files + weights.beside;
    add(plan, role, engine, "activations; weights are the node's: %.1f of the file, %.1f converted", mib(weights.files),
        mib(weights.beside));
}

/* role: of the rank, a learner's (which scores too where there are no scorers) or a scorer's. */
static size_t add_ppo(px_plan *plan, const px_session *session, px_role role)
{
    px_ppo_parts here = session->parts;
    const px_ppo_parts *parts = &here;
    const px_ppo_config *config = &session->ppo;
    px_learner_config critic = config->critic_learner;
    here.learns = role == PX_ROLE_LEARNER;
    here.scores = role == PX_ROLE_SCORER || here.scorers == 0;
    critic.frozen = !here.learns;
    px_ppo_memory m = px_ppo_plan(config, parts);
    if (here.learns) {
        add_learner(plan, "policy", &parts->policy, &config->policy_learner);
    }
    add_learner(plan, "critic", &parts->critic, &critic);
    if (here.scores) {
        add_frozen(plan, "reference", session->reference_weights, m.reference);
    }
    if (here.scores && parts->reward_model != NULL) {
        add_frozen(plan, "reward model", session->reward_weights, m.reward);
    }
    if (parts->collect == NULL) {
        add(plan, "sampler", m.cache + m.generator, "keys and values %.1f, the rest %.1f", mib(m.cache), mib(m.generator));
    } else if (px_world_rank() == 0 && here.learns) {
        add(plan, "collector", px_collector_bytes(session) + (session->collector == NULL ? px_collector_boxes(session) : 0),
            "samples of the env runners");
    }
    add(plan, "rollout", m.rollout, "samples, log-probabilities, values, advantages");
    if (px_world_rank() == 0 && here.learns && px_session_samples_bytes(session) > 0) {
        add(plan, "sample file", px_session_samples_bytes(session), "columns of an iteration, rows of the file on their way");
    }
    return m.scratch;
}

/* What a rank that only samples takes; the weights it reads belong to the node. */
static void add_runner(px_plan *plan, const px_session *session)
{
    px_sampler_plan sampler = px_session_sampler(session);
    size_t cache, rest = px_sampler_bytes(&sampler, &session->ppo, &session->parts.policy, &cache);
    add(plan, "sampler", cache + rest, "keys and values %.1f, the rest %.1f", mib(cache), mib(rest));
    add(plan, "messages", px_env_runner_bytes(session), "to and from the driver");
}

static void add_core(px_plan *plan, const px_session *session, px_role role)
{
    size_t buffers = px_sum_f32_tree_bytes();
    if (session->algorithm == &px_algorithm_ppo) {
        buffers += add_ppo(plan, session, role);
    } else if (session->algorithm == &px_algorithm_reward) {
        add_learner(plan, "reward", &session->model, &session->rm.learner);
        buffers += px_rm_bytes(&session->rm);
    } else {
        add_learner(plan, "policy", &session->model, &session->lm.learner);
        buffers += px_lm_bytes(&session->lm);
    }
    add(plan, "buffers", buffers, "batches, sums over ranks");
}

void px_plan_fill(px_session *session)
{
    px_plan *plan = &session->plan, *runner = &session->runner_plan, *scorer = &session->scorer_plan;
    *plan = *runner = *scorer = (px_plan){0};
    add_core(plan, session, PX_ROLE_LEARNER);
    add(plan, "data", px_alloc_live(), "token ids, tokenizer, configuration: already there");
    if (session->placement.scorers > 0) {
        add_core(scorer, session, PX_ROLE_SCORER);
        add(scorer, "data", px_alloc_live(), "token ids, tokenizer, configuration: already there");
    }
    if (session->placement.split) {
        add_runner(runner, session);
        add(runner, "data", px_alloc_live() - (session->collector != NULL ? px_collector_boxes(session) : 0),
            "token ids, tokenizer, configuration: already there");
    }
}

/* A plan without what is there already. */
static size_t missing(const px_plan *plan)
{
    return plan->count > 0 ? plan->total - plan->rows[plan->count - 1].bytes : 0;
}

/* Ranks of this node by what they take: learners, scorers, and those that only sample. */
enum { LEARNING, SCORING, SAMPLING, KINDS };

static void count_roles(const px_session *session, size_t counts[KINDS])
{
    memset(counts, 0, KINDS * sizeof *counts);
    for (int r = 0; r < session->placement.ranks; r++) {
        px_role role = px_placement_role(&session->placement, r);
        if (px_world_node(r) == px_world_node(px_world_rank())) {
            counts[role == PX_ROLE_LEARNER ? LEARNING : role == PX_ROLE_SCORER ? SCORING : SAMPLING]++;
        }
    }
}

size_t px_plan_shared(const px_session *session)
{
    return session->placement.split ? px_weights_bytes(session->parts.policy.block * sizeof(px_real), px_session_buffers(session)) : 0;
}

/* What the ranks of this node still have to allocate, and what they have in the end. */
static size_t wanted(const px_session *session, size_t *all)
{
    const px_plan *plans[KINDS] = {&session->plan, &session->scorer_plan, &session->runner_plan};
    size_t counts[KINDS], want = px_plan_shared(session);
    count_roles(session, counts);
    for (int k = 0; k < SAMPLING; k++) {
        want += counts[k] > 0 ? plans[k]->frozen : 0;
    }
    *all = want;
    for (int k = 0; k < KINDS; k++) {
        *all += plans[k]->total * counts[k];
        want += missing(plans[k]) * counts[k];
    }
    return want;
}

/* own: bytes of frozen weights that the rank has for itself. */
static void print_rows(const px_plan *plan, const char *what, size_t own)
{
    for (int i = 0; i < plan->count; i++) {
        px_log(PX_INFO, "  %-13s%9.1f MiB  %s", plan->rows[i].role, mib(plan->rows[i].bytes), plan->rows[i].parts);
    }
    if (own > 0) {
        px_log(PX_INFO, "  %-13s%9.1f MiB  converted weights of the reference and the reward model", "frozen", mib(own));
    }
    px_log(PX_INFO, "  %-13s%9.1f MiB", what, mib(plan->total + own));
}

static void print_memory(const px_session *session)
{
    size_t all, want = wanted(session, &all);
    bool split = session->placement.split, scorers = session->placement.scorers > 0, shared;
    size_t converted = px_session_converted(session, &shared), own = shared ? 0 : converted;
    print_rows(&session->plan, split ? "a learner" : "a rank", scorers ? 0 : own);
    if (scorers) {
        print_rows(&session->scorer_plan, "a scorer", own);
    }
    if (split) {
        print_rows(&session->runner_plan, "an env runner", 0);
        px_log(PX_INFO, "  %-13s%9.1f MiB  the policy's weights for its env runners, once a node", "shared",
               mib(px_plan_shared(session)));
    }
    size_t frozen = session->plan.frozen + session->scorer_plan.frozen - own;
    if (frozen > 0) {
        px_log(PX_INFO, "  %-13s%9.1f MiB  weights of the reference and the reward model, once a node", "frozen", mib(frozen));
    }
    px_log(PX_INFO, "  %-13s%9.1f MiB  %d rank%s, of them %.1f MiB to be taken; %.1f MiB are free", "this node", mib(all),
           px_dist_local_size(), px_dist_local_size() == 1 ? "" : "s", mib(want), mib(px_memory_available()));
}

/* The key that decides what a row of the plan takes. */
static const char *key_of(const px_session *session, const char *role)
{
    static const char *const keys[][2] = {
        {"policy", "rl_module.policy"}, {"critic", "rl_module.critic"},     {"reference", "rl_module.reference"},
        {"reward", "rl_module.reward"}, {"reward model", "rl_module.reward"}, {"sampler", "env_runners.max_slots"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(role, keys[i][0]) == 0) {
            return keys[i][1];
        }
    }
    return session->algorithm == &px_algorithm_ppo ? "training.prompts_per_iteration" : "data.train";
}

px_status px_plan_refuse(const px_session *session, const px_plan *plan, const char *node, int ranks, size_t want, size_t have)
{
    int largest = 0;
    for (int i = 1; i < plan->count; i++) {
        largest = plan->rows[i].bytes > plan->rows[largest].bytes ? i : largest;
    }
    return px_stage_fail(session->stage, key_of(session, plan->rows[largest].role),
                         "out of memory: the plan wants %.1f MiB (%zu bytes) for %d rank%s of node %s, %.1f MiB (%zu bytes) "
                         "are free; most of it is for %s: %.1f MiB a rank (%s). Fewer ranks a node, smaller models, fewer tokens "
                         "(learners.gradient_leaf_tokens, env_runners.max_slots) or debugging.deterministic: false take less",
                         mib(want), want, ranks, ranks == 1 ? "" : "s", node, mib(have), have, plan->rows[largest].role,
                         mib(plan->rows[largest].bytes), plan->rows[largest].parts);
}

void px_plan_unpack(px_session *session)
{
    session->ppo.policy_learner.unpacked = session->ppo.critic_learner.unpacked = true;
    session->lm.learner.unpacked = session->rm.learner.unpacked = true;
    px_plan_fill(session);
}

void px_plan_fit(px_session *session, size_t have)
{
    size_t all;
    if (wanted(session, &all) > have) {
        px_plan_unpack(session);
    }
}

px_status px_plan_check(const px_session *session, size_t have)
{
    size_t all, want = wanted(session, &all);
    return want <= have ? PX_OK : px_plan_refuse(session, &session->plan, px_dist_host(), px_dist_local_size(), want, have);
}

void px_plan_schedule(const px_session *session, char *text, size_t size)
{
    const px_stage *stage = session->stage;
    if (session->algorithm != &px_algorithm_ppo) {
        snprintf(text, size, "%lld optimizer steps", (long long)session->total);
        return;
    }
    int64_t prompts = px_stage_int(stage, "training.prompts_per_iteration");
    int64_t each = px_stage_int(stage, "env_runners.samples_per_prompt"), samples = prompts * each;
    int64_t minibatch = px_stage_int(stage, "training.minibatch_size"), epochs = px_stage_int(stage, "training.num_epochs");
    int64_t steps = epochs * ((samples + minibatch - 1) / minibatch);
    snprintf(text, size, "%lld prompts x %lld samples = %lld samples; %lld epochs x %lld minibatches of %lld = %lld optimizer "
             "steps; %lld iterations", (long long)prompts, (long long)each, (long long)samples, (long long)epochs,
             (long long)(steps / epochs), (long long)minibatch, (long long)steps, (long long)session->total);
}

void px_plan_shares(const px_session *session, char *text, size_t size)
{
    int64_t prompts = session->algorithm == &px_algorithm_ppo ? px_stage_int(session->stage, "training.prompts_per_iteration") : 0;
    const char *share = px_dist_size() > 1 ? "its share" : "all";
    if (session->algorithm != &px_algorithm_ppo) {
        snprintf(text, size, "learns %s of each batch", share);
        return;
    }
    if (session->placement.split) {
        const px_placement *p = &session->placement;
        px_wire wire;
        px_wire_derive(&wire, session);
        int n = snprintf(text, size, "%d env runner%s: requests of up to %d prompt%s, %d at a time each; ", p->env_runners,
                         p->env_runners == 1 ? "" : "s", wire.prompts, wire.prompts == 1 ? "" : "s", wire.in_flight);
        n += p->scorers > 0 ? snprintf(text + n, size - (size_t)n, "%d scorer%s: all samples; ", p->scorers,
                                       p->scorers == 1 ? "" : "s") : 0;
        n += snprintf(text + n, size - (size_t)n, "%d learner%s: %severy minibatch", p->learners, p->learners == 1 ? "" : "s",
                      p->scorers > 0 ? "" : "the scores of all samples, and ");
        if (wire.staleness > 0) {
            snprintf(text + n, size - (size_t)n, "; sampled up to %d iteration%s ahead, while others score and learn",
                     wire.staleness, wire.staleness == 1 ? "" : "s");
        }
        return;
    }
    snprintf(text, size, "samples %lld prompts an iteration, scores its own samples, learns %s of each minibatch",
             (long long)((prompts + px_dist_size() - 1) / px_dist_size()), share);
}

void px_plan_print(const px_session *session)
{
    const px_stage *stage = session->stage;
    char products[128] = "float32";
    if (strncmp(px_compute_blas(), "none", 4) != 0) {
        snprintf(products, sizeof products, "float32 through %s", px_compute_blas());
    }
    px_log(PX_INFO, "plan: %s, %d rank%s x %d thread%s, %s, %s", session->algorithm->name, px_world_size(),
           px_world_size() == 1 ? "" : "s", session->threads, session->threads == 1 ? "" : "s",
           session->learner_precision == PX_BF16 ? "bf16" : products,
           px_stage_bool(stage, "debugging.deterministic") ? "the same bits on 1, 2, 4, 8 ranks" : "not bit-exact across ranks");
    char schedule[256], shares[256];
    px_plan_schedule(session, schedule, sizeof schedule);
    px_plan_shares(session, shares, sizeof shares);
    px_log(PX_INFO, "  %-12s %s", session->algorithm == &px_algorithm_ppo ? "iteration" : "steps", schedule);
    px_log(PX_INFO, "  %-12s %s", session->placement.split ? "shares" : "each rank", shares);
    print_memory(session);
    if (!px_compute_row_invariant()) {
        px_log(PX_NOTE, "the forward is not batch-invariant on this processor: old log-probabilities are recomputed by the learner");
    }
}

static double shown(const px_session *session, const char *name)
{
    int at = px_column_find(session->columns, session->column_count, name);
    return at >= 0 ? session->row[at] : NAN;
}

/* Cores that the ranks kept busy in each phase. Collective. */
static void print_busy_cores(const px_session *session)
{
    static const char *const names[] = {"generate", "logprobs", "score", "learn", "evaluate", "write samples", "checkpoint"};
    enum { COUNT = sizeof names / sizeof *names };
    double wall[COUNT], cpu[COUNT];
    char line[256];
    int n = 0;
    px_phase_set("done", 0);
    for (int i = 0; i < COUNT; i++) {
        px_usage_of(names[i], &wall[i], &cpu[i]);
    }
    px_max_f64(wall, COUNT);
    px_sum_f64(cpu, COUNT);
    for (int i = 0; i < COUNT; i++) {
        if (wall[i] > 0.1) { /* of less the clock says little */
            n += snprintf(line + n, sizeof line - (size_t)n, "%s%s %.2f", n > 0 ? ", " : "", names[i], cpu[i] / wall[i]);
        }
    }
    if (n > 0) {
        px_log(PX_INFO, "busy cores: %s, of %d", line, session->threads * px_dist_size());
    }
}

/* What the arithmetic reached, against a large product alone. */
static void print_speed(const px_session *session)
{
    char line[256];
    int n = 0;
    for (int c = 0; c < session->column_count; c++) {
        int timer = px_timer_of(session, c);
        if (timer >= 0 && timer != c && session->phases[timer] > 0.1 && session->phases[c] > 0.0) {
            double rate = session->phases[c] / session->phases[timer];
            n += snprintf(line + n, sizeof line - (size_t)n, "%s%s %.0f (%.0f %%)", n > 0 ? ", " : "",
                          session->columns[timer].name + strlen("timers/"), rate, 100.0 * rate / session->roof);
        }
    }
    if (n > 0 && session->roof > 0.0) {
        px_log(PX_INFO, "GFLOP/s: %s of %.0f (%s)", line, session->roof, session->roof_of);
    }
}

void px_phases_print(const px_session *session)
{
    char line[512];
    double all = 0.0, last = px_now() - session->mark; /* the final evaluation, checkpoint and results have no row */
    int n = 0;
    for (int c = 0; c < session->column_count; c++) {
        all += px_timer_of(session, c) == c ? session->phases[c] : 0.0;
    }
    all += last;
    for (int c = 0; c < session->column_count && n < (int)sizeof line - 64; c++) {
        if (px_timer_of(session, c) == c && session->phases[c] > 0.0005 * all) {
            n += snprintf(line + n, sizeof line - (size_t)n, "%s %.1f %%, ", session->columns[c].name + strlen("timers/"),
                          100.0 * session->phases[c] / all);
        }
    }
    snprintf(line + n, sizeof line - (size_t)n, "last evaluation and results %.1f %%", 100.0 * last / all);
    px_log(PX_INFO, "wall time: %s", line);
    print_busy_cores(session);
    print_speed(session);
}

/* A batch log gets about a hundred lines a stage, a terminal the newest line in place as well. */
void px_progress_line(const px_session *session, int64_t iteration)
{
    char line[256];
    double left = shown(session, "time_total_s") / (double)iteration * (double)(session->total - iteration);
    if (session->algorithm == &px_algorithm_ppo) {
        char score[32] = "-"; /* no sample had one */
        if (isfinite(shown(session, "objective/scores"))) {
            snprintf(score, sizeof score, "%.3f", shown(session, "objective/scores"));
        }
        snprintf(line, sizeof line, "ppo %lld/%lld  score %s  kl %.2f  length %.1f  eos %.0f%%  %.0f tok/s  %.0f s left",
                 (long long)iteration, (long long)session->total, score,
                 shown(session, "objective/kl"), shown(session, "response_length/mean"),
                 100.0 * (1.0 - shown(session, "response_length/clip_ratio")), shown(session, "tokens_per_s"), left);
    } else if (session->algorithm == &px_algorithm_reward) {
        snprintf(line, sizeof line, "reward %lld/%lld  loss %.4f  accuracy %.3f  %.0f tok/s  %.0f s left", (long long)iteration,
                 (long long)session->total, shown(session, "loss"), shown(session, "accuracy"), shown(session, "tokens_per_s"),
                 left);
    } else {
        snprintf(line, sizeof line, "%s %lld/%lld  loss %.4f  %.0f tok/s  %.0f s left", session->algorithm->name,
                 (long long)iteration, (long long)session->total, shown(session, "loss"), shown(session, "tokens_per_s"), left);
    }
    int64_t every = session->total / 100 > 1 ? session->total / 100 : 1;
    if (iteration % every == 0 || iteration == session->total) {
        px_log(PX_INFO, "%s", line);
    } else {
        px_progress("%s", line);
    }
}
