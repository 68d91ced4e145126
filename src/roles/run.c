/* A run: its directory, its lock, and its stages in order. */
#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

px_status px_run_prepare(px_run **out, const px_run_options *options)
{
    px_run *run = px_alloc(sizeof *run, "a run");
    if (run == NULL) {
        return px_error_code();
    }
    *out = run;
    run->options = *options;
    run->started = px_now();
    px_config_source source = {options->config_path, options->sets, options->set_count};
    PX_TRY(px_config_load(&run->config, &source));
    px_deadline_set(px_stage_float(px_config_stage(run->config, 0), "fault_tolerance.wait_timeout_s")); /* MPI starts soon */
    int count = px_config_stage_count(run->config);
    if (count > PX_MAX_STAGES) {
        return px_fail(PX_CONFIG, "%s: %d stages; valid is at most %d", options->config_path, count, PX_MAX_STAGES);
    }
    if (options->stage != NULL && px_config_stage_named(run->config, options->stage) == NULL) {
        return px_fail(PX_USAGE, "--stage %s: %s has no stage of that name", options->stage, options->config_path);
    }
    if (options->from != NULL && px_config_has_stages(run->config) && options->stage == NULL) {
        return px_fail(PX_USAGE, "--from %s: name the stage it belongs to with --stage", options->from);
    }
    for (int i = 0; i < count; i++) {
        const px_stage *stage = px_config_stage(run->config, i);
        bool wanted = options->stage == NULL || strcmp(options->stage, px_stage_name(stage)) == 0;
        if (!wanted || strcmp(px_stage_algorithm(stage), "ppo") != 0) {
            continue;
        }
        px_stage_rewards *rewards = &run->rewards[i];
        PX_TRY(px_settings_rewards(stage, "environment.rewards", &rewards->train));
        if (px_stage_list_count(stage, "evaluation.rewards") > 0) {
            PX_TRY(px_settings_rewards(stage, "evaluation.rewards", &rewards->evaluation));
        } else {
            rewards->evaluation = rewards->train;
        }
    }
    return PX_OK;
}

void px_run_destroy(px_run *run)
{
    if (run == NULL) {
        return;
    }
    for (int i = 0; i < PX_MAX_STAGES; i++) {
        if (run->rewards[i].evaluation != run->rewards[i].train) {
            px_rewards_close(run->rewards[i].evaluation);
        }
        px_rewards_close(run->rewards[i].train);
    }
    px_config_destroy(run->config);
    px_free(run->facts);
    px_free(run);
}

/* Seconds from now until the run must have stopped; 0: no limit. Slurm's end time less a minute for the last save. */
static double find_time_limit(const px_stage *stage)
{
    double seconds;
    if (px_stage_number(stage, "run.time_limit_s", &seconds)) {
        return seconds;
    }
    const char *end = getenv("SLURM_JOB_END_TIME");
    double left = end != NULL ? strtod(end, NULL) - px_wall_time() - 60.0 : 0.0;
    return end != NULL && left < 1.0 ? 1.0 : left;
}

static px_status find_old_name(const char *dir, char *old, size_t size)
{
    int length = (int)strlen(dir);
    while (length > 1 && dir[length - 1] == '/') { /* DIR/.1 would lie in it */
        length--;
    }
    for (int n = 1; n < 10000; n++) {
        if ((size_t)snprintf(old, size, "%.*s.%d", length, dir, n) >= size) {
            return px_fail(PX_IO, "%s: the path is too long", dir);
        }
        if (!px_dir_exists(old) && !px_file_exists(old)) {
            return PX_OK;
        }
    }
    return px_fail(PX_IO, "%s: too many earlier runs beside it", dir);
}

/* Under its lock: what a living run writes to is left where it is. A link to the directory stays, for the new one: both are where
 * the user wanted them. */
static px_status set_aside(const char *named)
{
    char old[PX_PATH_MAX], dir[PX_PATH_MAX];
    px_lock *lock;
    if (realpath(named, dir) == NULL) {
        return px_fail(PX_IO, "%s: %s", named, strerror(errno));
    }
    PX_TRY(px_lock_take(&lock, dir));
    px_status status = find_old_name(dir, old, sizeof old);
    if (status == PX_OK) {
        status = px_lock_move(lock, old);
    }
    if (status == PX_OK) {
        status = px_dir_create(dir);
        px_log(PX_INFO, "--fresh: the earlier run is now %s", old);
    }
    px_lock_release(lock);
    return status;
}

static px_status open_directory(px_run *run)
{
    char path[PX_PATH_MAX];
    if (px_dist_rank() != 0) {
        return PX_OK;
    }
    if (run->options.fresh && px_dir_exists(run->dir)) {
        PX_TRY(set_aside(run->dir));
    }
    PX_TRY(px_dir_create(run->dir));
    PX_TRY(px_lock_take(&run->lock, run->dir));
    PX_TRY(px_temporaries_remove(run->dir));
    PX_TRY(px_path_join(path, sizeof path, run->dir, "log.txt"));
    return px_log_file(path);
}

static px_level log_level(const char *name)
{
    static const char *const names[] = {"error", "warning", "note", "info", "debug"};
    for (int i = 0; i < 5; i++) {
        if (strcmp(name, names[i]) == 0) {
            return (px_level)i;
        }
    }
    return PX_INFO;
}

static px_status run_stages(px_run *run)
{
    for (int i = 0; i < px_config_stage_count(run->config); i++) {
        const px_stage *stage = px_config_stage(run->config, i);
        if (run->options.stage != NULL && strcmp(run->options.stage, px_stage_name(stage)) != 0) {
            continue;
        }
        px_session *session = px_alloc(sizeof *session, "a stage");
        PX_TRY(px_agree(session != NULL ? PX_OK : px_error_code()));
        session->run = run;
        session->stage = stage;
        session->number = i;
        session->rewards = &run->rewards[i];
        px_status status = px_session_run(session);
        px_free(session);
        PX_TRY(status);
    }
    return PX_OK;
}

/* Files STOP have done what they are for. One that comes while the run waits in a queue stays, and stops its next start. */
static void remove_stop_files(const px_run *run)
{
    char dir[PX_PATH_MAX], path[PX_PATH_MAX];
    px_error why = px_error_keep();
    for (int i = -1; i < px_config_stage_count(run->config); i++) {
        snprintf(dir, sizeof dir, "%s", run->dir);
        if ((i < 0 || px_stage_dir(run, px_config_stage(run->config, i), dir, sizeof dir) == PX_OK) &&
            px_path_join(path, sizeof path, dir, "STOP") == PX_OK) {
            px_tree_remove(path);
        }
    }
    px_error_restore(&why);
}

px_status px_run_locate(px_run *run)
{
    if (run->options.run_dir == NULL) {
        return px_stage_path(px_config_stage(run->config, 0), "run.dir", run->dir, sizeof run->dir);
    }
    snprintf(run->dir, sizeof run->dir, "%s", run->options.run_dir);
    return PX_OK;
}

const char *px_run_directory(const px_run *run)
{
    return run->dir;
}

const px_config *px_run_config(const px_run *run)
{
    return run->config;
}

px_status px_run_execute(px_run *run)
{
    const px_stage *first = px_config_stage(run->config, 0);
    px_log_level(log_level(px_stage_text(first, "debugging.log_level")));
    PX_TRY(px_agree(px_run_locate(run)));
    run->time_limit = find_time_limit(first);
    px_stop_install();
    px_status status = px_agree(open_directory(run));
    if (status == PX_OK) {
        status = px_startup_agree(run);
    }
    if (status == PX_OK) {
        status = run_stages(run);
    }
    if (status == PX_OK && px_dist_rank() == 0) {
        status = px_table_print(run);
    }
    if (run->lock != NULL) {
        if (status == PX_OK || status == PX_STOPPED) {
            remove_stop_files(run);
        }
        px_lock_release(run->lock);
    }
    px_log_file(NULL);
    return px_agree(status);
}
