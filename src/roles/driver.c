/* The driver: prepares a run, goes through its stages, and through the iterations of each. */
#include "split.h"

#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

px_status px_session_check(px_session *session)
{
    PX_TRY(px_placement_make(&session->placement, session->stage, px_world_size()));
    if (session->placement.split && px_dist_size() < px_world_size()) {
        return px_fail(PX_UNHEALTHY, "stage %s gives each rank a role, but %d of %d were lost in an earlier stage; the same command "
                       "goes on from here", px_stage_name(session->stage), px_world_size() - px_dist_size(), px_world_size());
    }
    return px_compute_measure();
}

static bool wants_bf16(const px_session *session, const char *key)
{
    return strcmp(px_stage_text(session->stage, key), "bf16") == 0;
}

void px_session_precision(px_session *session)
{
    bool learner = wants_bf16(session, "learners.precision"), sampler = wants_bf16(session, "env_runners.precision");
    session->no_bf16 = learner || sampler ? px_compute_no_bf16() : NULL;
    session->learner_precision = learner && session->no_bf16 == NULL ? PX_BF16 : PX_F32;
    session->sampler_precision = sampler && session->no_bf16 == NULL ? PX_BF16 : PX_F32;
}

/* ---- one stage ------------------------------------------------------------------------------------------------------------ */

static bool evaluation_due(const px_session *session, int64_t iteration)
{
    int64_t interval = px_stage_int(session->stage, "evaluation.evaluation_interval");
    return interval > 0 && session->validation != NULL &&
           (iteration == 0 || iteration == session->total || iteration % interval == 0);
}

static px_status evaluate(px_session *session, int64_t iteration)
{
    if (!evaluation_due(session, iteration)) {
        return PX_OK;
    }
    double start = px_now(), work = px_compute_flops();
    PX_TRY(session->algorithm->evaluate(&session->trainer, iteration));
    session->evaluation_flops += px_compute_flops() - work;
    PX_TRY(px_session_record_evaluation(session, iteration));
    if (iteration == 0 || iteration == session->total) {
        PX_TRY(px_session_write_examples(session, iteration == 0));
    }
    session->evaluating += px_now() - start;
    return PX_OK;
}

static bool holds(double value, const char *condition)
{
    double bound;
    char operator[3] = "";
    if (sscanf(condition, " %2[<>=] %lf", operator, &bound) != 2) {
        return sscanf(condition, "%lf", &bound) == 1 && value >= bound;
    }
    if (strcmp(operator, ">") == 0) return value > bound;
    if (strcmp(operator, ">=") == 0) return value >= bound;
    if (strcmp(operator, "<") == 0) return value < bound;
    if (strcmp(operator, "<=") == 0) return value <= bound;
    return value == bound;
}

/* The first condition of stop.metrics that the last row of metrics meets; NULL: none. Rank 0's row counts: times and sizes are
 * each rank's own. */
static const char *stop_metric(const px_session *session, const char **condition, double *value)
{
    const px_stage *stage = session->stage;
    for (int i = 0; i < px_stage_map_count(stage, "stop.metrics"); i++) {
        const char *name;
        px_stage_map_entry(stage, "stop.metrics", i, &name, condition);
        int at = px_column_find(session->columns, session->column_count, name);
        if (at >= 0 && holds(session->row[at], *condition)) {
            *value = session->row[at];
            return name;
        }
    }
    return NULL;
}

/* stop.metrics ends the stage. */
static void check_stop(px_session *session, int64_t iteration, bool *done)
{
    const char *condition;
    double value;
    const char *name = px_dist_rank() == 0 ? stop_metric(session, &condition, &value) : NULL;
    bool met = name != NULL;
    px_bcast(&met, sizeof met, 0);
    if (name != NULL) {
        px_trainer_event(&session->trainer, iteration, "stop_metric", "%s is %g: %s", name, value, condition);
    }
    *done = *done || met;
}

static px_status put_status(const px_session *session, const char *state, int64_t iteration, int code, const char *reason)
{
    const char *stage = px_stage_name(session->stage);
    px_run_status status = {.state = state,
                            .stage = stage[0] != '\0' ? stage : session->algorithm->name,
                            .iteration = iteration,
                            .exit_code = code,
                            .reason = reason,
                            .resume = code == PX_STOPPED || code == PX_UNHEALTHY ? session->run->options.command : ""};
    return px_status_write(session->run->dir, &status);
}

static px_status write_status(px_session *session, const char *state, int64_t iteration, int code, const char *reason)
{
    session->reached = iteration;
    return px_dist_rank() == 0 && px_lock_is_ours(session->run->lock) ? put_status(session, state, iteration, code, reason) : PX_OK;
}

static px_session *running; /* of this process; NULL: none */

/* Also of another rank than the first, which may be the one that is lost. */
static void say_last(int exit_code, const char *reason)
{
    if (running->reached >= 0 && (px_dist_rank() != 0 || px_lock_is_ours(running->run->lock))) {
        put_status(running, "failed", running->reached, exit_code, reason);
    }
}

static void set_running(px_session *session)
{
    running = session;
    px_last_words_set(session != NULL ? say_last : NULL);
}

/* A configuration that is refused leaves the status of an earlier start as it was. */
static void write_refusal(px_session *session)
{
    char path[PX_PATH_MAX];
    px_error why = px_error_keep();
    if (px_path_join(path, sizeof path, session->run->dir, "status.json") == PX_OK && !px_file_exists(path)) {
        write_status(session, "failed", session->start, PX_CONFIG, why.text);
    }
    px_error_restore(&why);
}

/* A stop before the iteration in hand changed any weight loses nothing: the state is still that after `iteration`. */
static px_status save_for_stop(px_session *session, int64_t iteration)
{
    if (session->trainer.dirty || session->saved == iteration || iteration == 0) {
        return PX_OK;
    }
    session->recovery_slot ^= 1;
    return px_session_save(session, iteration, session->recovery_slot ? "recovery_b" : "recovery_a");
}

/* fault_tolerance.kl_limit ends the run, with what it has come to kept. Rank 0's value counts. */
static px_status check_kl(px_session *session, int64_t iteration)
{
    const char *key = "fault_tolerance.kl_limit";
    if (session->algorithm != &px_algorithm_ppo || !px_stage_is_set(session->stage, key)) {
        return PX_OK;
    }
    double kl = px_trainer_get(&session->trainer, "objective/kl"), limit = px_stage_float(session->stage, key);
    px_bcast(&kl, sizeof kl, 0);
    if (kl <= limit) {
        return PX_OK;
    }
    if (px_dist_rank() == 0) {
        px_trainer_event(&session->trainer, iteration, "kl_limit", "objective/kl is %.3g, above %s %.3g", kl, key, limit);
    }
    PX_TRY(save_for_stop(session, iteration));
    return px_fail(PX_DIVERGED, "objective/kl is %.3g after iteration %lld, above %s %.3g; raise training.kl.coeff or lower "
                   "training.lr", kl, (long long)iteration, key, limit);
}

/* *finished counts an iteration as soon as its state could be saved: a stop in the evaluation after it loses nothing. */
static px_status conclude(px_session *session, int64_t iteration, int64_t *finished, bool *done)
{
    *done = iteration == session->total;
    PX_TRY(px_session_record(session, iteration));
    check_stop(session, iteration, done);
    if (*done) {
        session->total = iteration;
    }
    session->trainer.dirty = false;
    *finished = iteration;
    PX_TRY(check_kl(session, iteration));
    PX_TRY(evaluate(session, iteration));
    double start = px_now(), written = session->writing;
    PX_TRY(px_session_save_due(session, iteration, *done));
    session->saving += px_now() - start - (session->writing - written);
    return PX_OK;
}

static px_status iterate(px_session *session, int64_t *finished, bool *done)
{
    int64_t iteration = *finished + 1;
    size_t allocations = px_alloc_count();
    if (px_fault("rank.die")) {
        raise(SIGKILL);
    }
    if (px_fault("rank.hang")) {
        raise(SIGSTOP);
    }
    PX_TRY(session->algorithm->iterate(&session->trainer, iteration));
    px_log(PX_DEBUG, "iteration %lld: %zu allocations", (long long)iteration, px_alloc_count() - allocations);
    session->trainer.dirty = true;
    session->unwritten = px_session_samples_due(session, iteration) ? iteration : 0;
    px_status status = conclude(session, iteration, finished, done);
    if (status != PX_OK) { /* the samples may tell why; a stop has no error */
        px_error why = px_error_keep();
        px_session_save_samples(session);
        px_error_restore(&why);
        return status;
    }
    px_progress_line(session, iteration);
    return px_agree(write_status(session, "running", iteration, 0, ""));
}

static px_status loop(px_session *session, int64_t *iteration)
{
    const char *condition;
    double value;
    bool met = px_dist_rank() == 0 && session->start > 0 && stop_metric(session, &condition, &value) != NULL;
    px_bcast(&met, sizeof met, 0);
    if (met) {
        session->total = session->start;
    }
    bool done = session->start >= session->total;
    session->mark = px_now();
    if (session->evaluated < session->start || session->start == 0) { /* a stop may have come before it was done */
        PX_TRY(evaluate(session, session->start));
    }
    if (session->start == 0 || done) { /* a stop may have come before its last checkpoint, too */
        PX_TRY(px_session_save_due(session, session->start, done));
    }
    while (!done) {
        if (px_stop_agreed() > 0) {
            return PX_STOPPED;
        }
        PX_TRY(iterate(session, iteration, &done));
    }
    return PX_OK;
}

static void summarise(px_session *session, int64_t iteration)
{
    px_run *run = session->run;
    px_stage_summary *s = &run->summaries[run->summary_count++];
    *s = (px_stage_summary){.algorithm = session->algorithm, .seconds = session->stage_seconds, .iterations = iteration,
                            .metric_count = session->column_count, .columns = session->columns, .values = session->row,
                            .evaluation_count = session->evaluation_count, .evaluation_columns = session->evaluation_columns,
                            .before = session->first_evaluation, .after = session->evaluation_row};
    snprintf(s->name, sizeof s->name, "%s", px_stage_name(session->stage));
    s->dir = px_strdup(session->dir);
    session->columns = session->evaluation_columns = NULL;
    session->row = session->first_evaluation = session->evaluation_row = NULL;
}

static px_status finish_stage(px_session *session, int64_t iteration)
{
    PX_TRY(px_agree(px_session_results(session)));
    PX_TRY(px_agree(px_session_close_file(session, iteration, PX_OK, "done", true)));
    return px_agree(write_status(session, "done", iteration, PX_OK, "done"));
}

void px_session_free(px_session *session)
{
    px_trainer_free(&session->trainer);
    px_model_free(&session->parts.policy);
    px_model_free(&session->parts.critic);
    px_model_free(&session->parts.reference);
    px_model_free(&session->model);
    if (session->parts.reward_model != NULL) { /* not taken over by a trainer */
        px_model_free(&session->parts.reward_model->model);
        px_tokenizer_destroy(session->parts.reward_model->tokenizer);
        px_free(session->parts.reward_model);
    }
    px_dataset_destroy(session->train);
    px_dataset_destroy(session->validation);
    px_dataset_destroy(session->demonstrations);
    for (int i = 0; i < session->data_count; i++) {
        px_free((void *)session->data[i].file);
    }
    px_free(session->data);
    px_tokenizer_destroy(session->tokenizer);
    px_buf_free(&session->skipped);
    px_buf_free(&session->changed);
    px_free(session->stop_strings);
    px_free(session->ranks);
    px_free(session->row);
    px_free(session->evaluation_row);
    px_free(session->first_evaluation);
    px_free(session->phases);
    px_free(session->columns);
    px_free(session->evaluation_columns);
}

/* Everything before the first iteration; of a stage that is over, what the table at the end shows. */
static px_status prepare_stage(px_session *session)
{
    char from[PX_PATH_MAX];
    PX_TRY(px_agree(px_session_find(session, from, sizeof from)));
    px_bcast(&session->start, sizeof session->start, 0);
    px_bcast(&session->over, sizeof session->over, 0);
    PX_TRY(px_agree(px_session_columns(session)));
    if (session->over) {
        px_status status = px_session_recall(session);
        double seconds = *px_session_metric(session, "time_total_s");
        session->stage_seconds += isfinite(seconds) ? seconds : 0.0; /* a branch that had nothing left to do has no row */
        return status;
    }
    px_bcast(from, sizeof from, 0);
    bool resume = from[0] != '\0';
    session->saved = resume ? session->start : session->saved;
    PX_TRY(px_agree(px_session_settle(session, resume)));
    px_team(true); /* sizes are a learner's or a scorer's share */
    px_status status = px_session_prepare(session, from);
    px_team(false);
    PX_TRY(px_agree(status));
    if (!session->placement.split) {
        px_session_roof(session); /* before the plan: what a library keeps for itself is taken by then */
    }
    size_t have = px_memory_available();
    px_team(true);
    px_plan_fit(session, have);
    px_team(false);
    px_plan_print(session);
    PX_TRY(px_agree(px_plan_check(session, have))); /* all have looked before one allocates */
    PX_TRY(px_agree(px_dist_rank() == 0 ? px_session_frozen(session) : PX_OK));
    PX_TRY(px_agree(px_session_open_frozen(session)));
    px_alloc_eager(true);
    px_team(true);
    status = px_session_build(session, from);
    px_team(false);
    px_alloc_eager(false);
    px_shared_close(&session->frozen); /* what is used of it stays, as the models have it */
    PX_TRY(px_agree(status));          /* and is whole on every rank */
    if (resume) {
        PX_TRY(px_agree(px_session_restore(session, from, session->start)));
        px_log(PX_INFO, "continues after iteration %lld from %s", (long long)session->start, from);
    }
    PX_TRY(px_session_open_file(session, resume));
    PX_TRY(px_agree(px_session_record_start(session)));
    if (resume) {
        PX_TRY(px_session_recall(session));
        px_session_note_schedule(session);
    }
    return PX_OK;
}

/* Too few env runners: nothing is wrong with what was learnt, so it is saved like at a stop. */
static px_status stop_unhealthy(px_session *session, int64_t iteration)
{
    char reason[512];
    snprintf(reason, sizeof reason, "%s", px_error_text());
    PX_TRY(save_for_stop(session, iteration));
    px_session_close_file(session, iteration, PX_UNHEALTHY, reason, false);
    write_status(session, "stopped", iteration, PX_UNHEALTHY, reason);
    return px_fail(PX_UNHEALTHY, "%s", reason);
}

static px_status open_timeline(const px_session *session)
{
    char name[32], path[PX_PATH_MAX];
    if (!px_stage_bool(session->stage, "debugging.timeline")) {
        return PX_OK;
    }
    PX_TRY(px_agree(px_dist_rank() == 0 ? px_dir_create(session->dir) : PX_OK));
    snprintf(name, sizeof name, "timeline-%05d", px_world_rank());
    PX_TRY(px_path_join(path, sizeof path, session->dir, name));
    return px_timeline_open(path, px_role_name(&session->placement, px_world_rank()));
}

static px_status run_stage(px_session *session)
{
    px_status status = prepare_stage(session);
    if (status == PX_CONFIG) {
        write_refusal(session);
        return status;
    }
    int64_t iteration = session->start;
    if (status == PX_OK && session->over) {
        PX_TRY(px_agree(write_status(session, "done", iteration, PX_OK, "done")));
        summarise(session, iteration);
        return PX_OK;
    }
    status = status == PX_OK ? px_agree(write_status(session, "running", iteration, 0, "")) : status;
    status = status == PX_OK ? loop(session, &iteration) : status;
    if (status == PX_STOPPED) {
        px_stop_agreed(); /* the reason, where another rank was asked */
        PX_TRY(px_agree(px_dist_rank() == 0 ? px_lock_check(session->run->lock) : PX_OK));
        PX_TRY(save_for_stop(session, iteration));
        const char *reason = px_stop_reason() != NULL ? px_stop_reason() : "a stop";
        px_session_close_file(session, iteration, PX_STOPPED, reason, false);
        write_status(session, "stopped", iteration, PX_STOPPED, reason);
        if (session->saved <= 0) {
            return px_fail(PX_STOPPED, "stopped by %s before the first state of %s was saved (checkpointing.recovery_interval); "
                           "the same command starts it again", reason, session->algorithm->name);
        }
        return px_fail(PX_STOPPED, "stopped by %s; state after iteration %lld of %s is saved, the same command continues",
                       reason, (long long)session->saved, session->algorithm->name);
    }
    if (status == PX_UNHEALTHY) {
        return stop_unhealthy(session, iteration);
    }
    if (status != PX_OK) {
        px_error why = px_error_keep();
        px_session_close_file(session, iteration, (int)status, why.text, false);
        write_status(session, "failed", iteration, (int)status, why.text);
        return px_error_restore(&why);
    }
    PX_TRY(finish_stage(session, iteration));
    session->stage_seconds += px_now() - session->mark;
    px_phases_print(session);
    summarise(session, iteration);
    return PX_OK;
}

px_status px_session_run(px_session *session)
{
    const px_stage *stage = session->stage;
    session->algorithm = px_algorithm_find(px_stage_algorithm(stage));
    session->best = NAN;
    session->reached = -1;
    session->saved = session->evaluated = session->best_iteration = -1;
    PX_TRY(px_agree(px_session_check(session)));
    px_session_precision(session);
    session->threads = px_startup_threads(session);
    omp_set_num_threads(session->threads); /* not all cores for each rank of the node */
    px_deadline_set(px_stage_float(stage, "fault_tolerance.wait_timeout_s"));
    px_role_set(px_role_name(&session->placement, px_world_rank()), px_placement_core(&session->placement));
    PX_TRY(px_agree(px_stage_dir(session->run, stage, session->dir, sizeof session->dir)));
    double limit = session->run->time_limit;
    PX_TRY(px_agree(px_monitor_start(session->run->dir, session->dir, limit > 0.0 ? session->run->started + limit : 0.0)));
    PX_TRY(px_agree(open_timeline(session)));
    px_usage_reset();
    px_log(PX_INFO, "%s%s%s", px_stage_name(stage)[0] != '\0' ? "== stage " : "== ",
           px_stage_name(stage)[0] != '\0' ? px_stage_name(stage) : session->algorithm->name, " ==");
    set_running(session);
    px_status status = px_session_ranks(session);
    if (status == PX_OK) {
        px_startup_notes(session);
        status = session->placement.split ? px_session_split(session, run_stage) : run_stage(session);
    }
    set_running(NULL);
    px_timeline_close();
    px_monitor_stop();
    px_session_free(session);
    return status;
}
