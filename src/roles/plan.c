/* What a run tells a person: the plan before a stage starts, and a line for each iteration. */
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static double mib(size_t bytes)
{
    return (double)bytes / 1048576.0;
}

static void plan_learners(const px_session *session)
{
    for (int l = 0; l < session->trainer.learner_count; l++) {
        const px_named_learner *named = &session->trainer.learners[l];
        const px_learner *learner = &named->learner;
        px_log(PX_INFO, "  %-10s %s, %lld parameters: %.1f MiB a rank (weights, %d x gradients, 2 x moments, activations of %d tokens)",
               named->name, learner->model.config.family == PX_GPT2 ? "gpt2" : "llama",
               (long long)px_model_parameters(&learner->model), mib(px_learner_bytes(&learner->model, &learner->config)),
               learner->depth, px_learner_tokens(&learner->config));
    }
}

static void plan_ppo(const px_session *session)
{
    const px_stage *stage = session->stage;
    int64_t prompts = px_stage_int(stage, "training.prompts_per_iteration");
    int64_t each = px_stage_int(stage, "env_runners.samples_per_prompt"), samples = prompts * each;
    int64_t minibatch = px_stage_int(stage, "training.minibatch_size"), epochs = px_stage_int(stage, "training.num_epochs");
    int64_t steps = epochs * ((samples + minibatch - 1) / minibatch);
    px_log(PX_INFO, "  iteration  %lld prompts x %lld samples = %lld samples; %lld epochs x %lld minibatches of %lld = %lld "
                    "optimizer steps; %lld iterations", (long long)prompts, (long long)each, (long long)samples,
           (long long)epochs, (long long)(steps / epochs), (long long)minibatch, (long long)steps, (long long)session->total);
    px_log(PX_INFO, "  a rank     samples %lld prompts an iteration, scores its own samples, learns %s of each minibatch",
           (long long)((prompts + px_dist_size() - 1) / px_dist_size()), px_dist_size() > 1 ? "its share" : "all");
}

void px_plan_print(const px_session *session)
{
    const px_stage *stage = session->stage;
    px_log(PX_INFO, "plan: %s, %d rank%s x %d thread%s, %s", session->algorithm->name, px_dist_size(),
           px_dist_size() == 1 ? "" : "s", session->threads, session->threads == 1 ? "" : "s",
           px_stage_bool(stage, "debugging.deterministic") ? "the same bits on 1, 2, 4, 8 ranks" : "not bit-exact across ranks");
    if (session->algorithm == &px_algorithm_ppo) {
        plan_ppo(session);
    } else {
        px_log(PX_INFO, "  steps      %lld optimizer steps", (long long)session->total);
    }
    plan_learners(session);
    px_log(PX_INFO, "  memory     %.1f MiB allocated on this rank", mib(px_alloc_live()));
    if (!px_compute_row_invariant()) {
        px_log(PX_NOTE, "the forward is not batch-invariant on this processor: old log-probabilities are recomputed by the learner");
    }
}

static double shown(const px_session *session, const char *name)
{
    for (int c = 0; c < session->column_count; c++) {
        if (strcmp(session->columns[c].name, name) == 0) {
            return session->row[c];
        }
    }
    return NAN;
}

void px_phases_print(const px_session *session)
{
    char line[512];
    double all = 0.0, last = px_now() - session->mark; /* the final evaluation, checkpoint and results have no row */
    int n = 0;
    for (int c = 0; c < session->column_count; c++) {
        all += session->phases[c];
    }
    all += last;
    for (int c = 0; c < session->column_count && n < (int)sizeof line - 64; c++) {
        if (session->phases[c] > 0.0005 * all) {
            n += snprintf(line + n, sizeof line - (size_t)n, "%s %.1f %%, ", session->columns[c].name + strlen("timers/"),
                          100.0 * session->phases[c] / all);
        }
    }
    snprintf(line + n, sizeof line - (size_t)n, "last evaluation and results %.1f %%", 100.0 * last / all);
    px_log(PX_INFO, "wall time: %s", line);
}

/* A batch log gets about a hundred lines a stage, a terminal the newest line in place as well. */
void px_progress_line(const px_session *session, int64_t iteration)
{
    char line[256];
    double left = shown(session, "time_total_s") / (double)iteration * (double)(session->total - iteration);
    if (session->algorithm == &px_algorithm_ppo) {
        snprintf(line, sizeof line, "ppo %lld/%lld  score %.3f  kl %.2f  length %.1f  eos %.0f%%  %.0f tok/s  %.0f s left",
                 (long long)iteration, (long long)session->total, shown(session, "objective/scores"),
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
