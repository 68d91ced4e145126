/* What a run writes down: metrics and events in run.h5, samples beside it. Rank 0 writes; all ranks agree. */
#include "run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const px_metric extra_metrics[] = {
    {"time_this_iter_s", "s", "wall time since the row before: this iteration, evaluation and checkpoint before it"},
    {"time_total_s", "s", "wall time of the stage so far, over all segments"},
    {"core_hours", "h", "time_total_s x cores that the job holds / 3600: those of Slurm's allocation, hyperthreads as Slurm counts them; elsewhere the processors that its ranks may use"},
    {"timers/write_samples", "s", "sample files since the row before"},
    {"timers/evaluate", "s", "evaluation since the row before"},
    {"timers/checkpoint", "s", "checkpoints since the row before, but for what timers/write_samples has of it"},
    {"evaluate_gflop_per_s", "GFLOP/s", "products and attention of all ranks together / timers/evaluate"},
    {"memory_peak", "byte", "most memory that this rank's own allocations held"},
    {"roof_gflop_per_s", "GFLOP/s", "what products reach here in the precision that learns, all ranks at once, at the start: a "
                                    "library's of 512 x 1536 x 768, or multiply-adds on registers (/build@roof)"},
};
enum { EXTRA = (int)(sizeof extra_metrics / sizeof *extra_metrics) };

static px_status describe(px_buf *text, const px_metric *metrics, int count)
{
    PX_TRY(px_buf_text(text, "| name | units | meaning, formula |\n|---|---|---|\n"));
    for (int i = 0; i < count; i++) {
        PX_TRY(px_buf_text(text, "| `"));
        PX_TRY(px_buf_printf(text, "%s` | %s | ", metrics[i].name, metrics[i].units));
        for (const char *c = metrics[i].meaning; *c != '\0'; c++) {
            PX_TRY(px_buf_printf(text, *c == '|' ? "\\%c" : "%c", *c));
        }
        PX_TRY(px_buf_text(text, " |\n"));
    }
    return px_buf_text(text, "\n");
}

px_status px_metrics_markdown(px_buf *text)
{
    static const px_algorithm *const all[] = {&px_algorithm_pretrain, &px_algorithm_reward, &px_algorithm_ppo};
    static const char *const titles[] = {"pretrain and sft", "reward", "ppo"};
    PX_TRY(px_buf_text(text, "# Metrics\n\nWhat /metrics and /evaluation of a run file hold, by algorithm. Made by "
                             "`phalanx config --metrics`. NaN: not measured in that row. Each row begins with `iteration`; in /metrics "
                             "`timestamp` (s since 1970-01-01 UTC) and `segment` (row of /segments) follow.\n\n"));
    for (int a = 0; a < 3; a++) {
        PX_TRY(px_buf_printf(text, "## %s: /metrics\n\n", titles[a]));
        PX_TRY(describe(text, all[a]->metrics, all[a]->metric_count));
        PX_TRY(px_buf_printf(text, "## %s: /evaluation\n\n", titles[a]));
        PX_TRY(describe(text, all[a]->evaluation, all[a]->evaluation_count));
    }
    PX_TRY(px_buf_text(text, "## every algorithm: /metrics\n\n"));
    PX_TRY(describe(text, extra_metrics, EXTRA));
    PX_TRY(px_buf_text(text, "For each NAME`_gflop_per_s` of a phase there is NAME`_roof_share`, the same over `roof_gflop_per_s`.\n\n"));
    return px_buf_text(text, "For each reward source NAME, ppo adds `rewards/NAME/mean` and `rewards/NAME/std` to /metrics and "
                             "the same two to /evaluation: its scores before weights, over samples.\n");
}

static int reward_count(const px_rewards *rewards)
{
    return rewards != NULL ? px_rewards_count(rewards) : 0;
}

static px_status add_column(px_column *column, const char *name, const char *units, const char *meaning)
{
    char *copy = px_strdup(name);
    *column = (px_column){copy, units, meaning, PX_COL_F64, 0, false};
    return copy != NULL ? PX_OK : px_error_code();
}

/* One for each rate of a phase that is there so far. */
static px_status add_share_columns(px_session *session)
{
    int rates = session->column_count;
    for (int c = 0; c < rates; c++) {
        int timer = px_timer_of(session, c);
        if (timer >= 0 && timer != c) {
            const char *rate = session->columns[c].name;
            char name[160];
            snprintf(name, sizeof name, "%.*s_roof_share", (int)(strlen(rate) - strlen("_gflop_per_s")), rate);
            PX_TRY(add_column(&session->columns[session->column_count++], name, "1", "the phase's rate / roof_gflop_per_s"));
        }
    }
    return PX_OK;
}

static px_status add_reward_columns(px_column *columns, int *count, const px_rewards *rewards)
{
    for (int k = 0; k < reward_count(rewards); k++) {
        char name[160];
        snprintf(name, sizeof name, "rewards/%s/mean", px_rewards_spec(rewards, k)->name);
        PX_TRY(add_column(&columns[(*count)++], name, "1", "mean score of this source, unweighted"));
        snprintf(name, sizeof name, "rewards/%s/std", px_rewards_spec(rewards, k)->name);
        PX_TRY(add_column(&columns[(*count)++], name, "1", "standard deviation over samples"));
    }
    return PX_OK;
}

int px_column_find(const px_column *columns, int count, const char *name)
{
    for (int c = 0; c < count; c++) {
        if (strcmp(columns[c].name, name) == 0) {
            return c;
        }
    }
    return -1;
}

const double *px_session_metric(const px_session *session, const char *metric)
{
    static const char front[] = "evaluation/";
    if (strncmp(metric, front, sizeof front - 1) == 0) {
        int at = px_column_find(session->evaluation_columns, session->evaluation_count, metric + sizeof front - 1);
        return at >= 0 ? &session->evaluation_row[at] : NULL;
    }
    int at = px_column_find(session->columns, session->column_count, metric);
    return at >= 0 ? &session->row[at] : NULL;
}

/* A condition on what is never measured would never be met. */
static px_status check_stop_metrics(const px_session *session)
{
    const char *names[PX_MAX_COLUMNS];
    for (int c = 0; c < session->column_count; c++) {
        names[c] = session->columns[c].name;
    }
    for (int i = 0; i < px_stage_map_count(session->stage, "stop.metrics"); i++) {
        const char *name, *condition;
        px_stage_map_entry(session->stage, "stop.metrics", i, &name, &condition);
        if (px_column_find(session->columns, session->column_count, name) < 0) {
            const char *near = px_nearest_name(name, names, session->column_count);
            return px_stage_fail(session->stage, "stop.metrics", "stop.metrics: '%s' is no metric of %s; %s%s%svalid are the columns "
                                 "of /metrics (docs/metrics.md)", name, session->algorithm->name, near != NULL ? "did you mean '" : "",
                                 near != NULL ? near : "", near != NULL ? "'? " : "");
        }
    }
    return PX_OK;
}

/* Nor would a best checkpoint by such a metric ever be one. */
static px_status check_keep_best(const px_session *session)
{
    const char *metric = px_stage_text(session->stage, "checkpointing.keep_best");
    if (metric == NULL || px_session_metric(session, metric) != NULL) {
        return PX_OK;
    }
    return px_stage_fail(session->stage, "checkpointing.keep_best", "checkpointing.keep_best: '%s' is no metric of %s; valid are the "
                         "columns of /metrics, and evaluation/ with one of /evaluation (docs/metrics.md)", metric,
                         session->algorithm->name);
}

px_status px_session_columns(px_session *session)
{
    const px_algorithm *algorithm = session->algorithm;
    size_t room = PX_MAX_COLUMNS;
    session->columns = px_alloc_array(room, sizeof(px_column), "columns");
    session->evaluation_columns = px_alloc_array(room, sizeof(px_column), "columns");
    session->row = px_alloc_array(room, sizeof(double), "a row of metrics");
    session->evaluation_row = px_alloc_array(room, sizeof(double), "a row of metrics");
    session->first_evaluation = px_alloc_array(room, sizeof(double), "a row of metrics");
    session->phases = px_alloc_array(room, sizeof(double), "a row of metrics");
    if (session->phases == NULL || session->columns == NULL || session->evaluation_columns == NULL || session->row == NULL ||
        session->evaluation_row == NULL || session->first_evaluation == NULL) {
        return px_error_code();
    }
    for (int i = 0; i < algorithm->metric_count; i++) {
        const px_metric *m = &algorithm->metrics[i];
        PX_TRY(add_column(&session->columns[session->column_count++], m->name, m->units, m->meaning));
    }
    for (int i = 0; i < EXTRA; i++) {
        const px_metric *m = &extra_metrics[i];
        PX_TRY(add_column(&session->columns[session->column_count++], m->name, m->units, m->meaning));
    }
    PX_TRY(add_share_columns(session));
    for (int i = 0; i < algorithm->evaluation_count; i++) {
        const px_metric *m = &algorithm->evaluation[i];
        PX_TRY(add_column(&session->evaluation_columns[session->evaluation_count++], m->name, m->units, m->meaning));
    }
    PX_TRY(add_reward_columns(session->columns, &session->column_count, session->rewards->train));
    PX_TRY(add_reward_columns(session->evaluation_columns, &session->evaluation_count, session->rewards->evaluation));
    for (int i = 0; i < PX_MAX_COLUMNS; i++) {
        session->row[i] = session->evaluation_row[i] = session->first_evaluation[i] = NAN;
    }
    PX_TRY(check_stop_metrics(session));
    return check_keep_best(session);
}

static px_status list_config(const px_stage *stage, px_attribute **attributes, int *count)
{
    *count = px_stage_leaf_count(stage);
    *attributes = px_alloc_array((size_t)*count + 1, sizeof **attributes, "configuration attributes");
    if (*attributes == NULL) {
        return px_error_code();
    }
    for (int i = 0; i < *count; i++) {
        static const char types[] = {[PX_TYPE_INT] = 'i', [PX_TYPE_FLOAT] = 'f', [PX_TYPE_BOOL] = 'b', [PX_TYPE_TEXT] = 's'};
        px_leaf leaf;
        px_stage_leaf(stage, i, &leaf);
        (*attributes)[i] = (px_attribute){.name = leaf.key, .type = types[leaf.type], .f = leaf.f, .s = leaf.text,
                                          .i = leaf.type == PX_TYPE_BOOL ? leaf.b : leaf.i};
    }
    return PX_OK;
}

static px_status list_tokens(const px_session *session, const char ***tokens, int *count)
{
    *tokens = NULL;
    *count = session->tokenizer != NULL ? px_tokenizer_size(session->tokenizer) : 0;
    if (*count == 0) {
        return PX_OK;
    }
    *tokens = px_alloc_array((size_t)*count, sizeof **tokens, "token names");
    if (*tokens == NULL) {
        return px_error_code();
    }
    for (int i = 0; i < *count; i++) {
        const char *text = px_tokenizer_token(session->tokenizer, i);
        (*tokens)[i] = text != NULL ? text : "";
    }
    return PX_OK;
}

/* Rank 0's part: run.h5 with everything that describes the run. */
static px_status open_file(px_session *session, bool resume)
{
    px_attribute *config = NULL, build[64];
    const char **tokens = NULL;
    int size = px_world_size();
    px_rank_entry *ranks = px_alloc_array((size_t)size, sizeof *ranks, "the rank map");
    px_buf yaml = {0}, source = {0};
    char hash[17], path[PX_PATH_MAX];
    int config_count, token_count;
    px_stage_hash(session->stage, hash);
    px_status status = ranks != NULL ? px_stage_dump(session->stage, &yaml) : px_error_code();
    if (status == PX_OK) status = px_file_read(px_config_path(session->run->config), PX_TEXT_MOST, &source);
    if (status == PX_OK) status = list_config(session->stage, &config, &config_count);
    if (status == PX_OK) status = list_tokens(session, &tokens, &token_count);
    if (status == PX_OK) status = px_path_join(path, sizeof path, session->dir, "run.h5");
    if (status == PX_OK) {
        for (int r = 0; r < size; r++) {
            const px_rank_info *info = &session->ranks[r];
            ranks[r] = (px_rank_entry){r, info->cpus, info->pid, info->host, px_role_name(&session->placement, r)};
        }
        const char *job = getenv("SLURM_JOB_ID");
        px_run_header header = {.run_name = px_stage_text(session->stage, "run.name"),
                                .algorithm = session->algorithm->name,
                                .config = config, .config_count = config_count, .config_hash = hash,
                                .yaml = yaml.data, .source = source.data,
                                .build = build, .build_count = px_build_describe(build, 61, session->run->options.commit),
                                .metrics = session->columns, .metric_count = session->column_count,
                                .evaluation = session->evaluation_columns, .evaluation_count = session->evaluation_count,
                                .tokens = tokens, .token_count = token_count,
                                .data = session->data, .data_count = session->data_count,
                                .bos_id = session->tokenizer != NULL ? px_tokenizer_bos(session->tokenizer) : -1,
                                .eos_id = session->tokenizer != NULL ? px_tokenizer_eos(session->tokenizer) : -1};
        build[header.build_count++] = (px_attribute){.name = "learner_precision", .type = 's',
                                                     .s = session->learner_precision == PX_BF16 ? "bf16" : "f32"};
        build[header.build_count++] = (px_attribute){.name = "sampler_precision", .type = 's',
                                                     .s = session->sampler_precision == PX_BF16 ? "bf16" : "f32"};
        build[header.build_count++] = (px_attribute){.name = "roof", .type = 's', .s = session->roof_of};
        px_segment segment = {session->start + 1, size, job != NULL ? job : "", session->run->options.commit};
        status = px_run_file_open(&session->file, path, &header, resume, session->start, &segment, ranks, size);
    }
    px_free(ranks);
    px_free(config);
    px_free(tokens);
    px_buf_free(&yaml);
    px_buf_free(&source);
    return status;
}

static void write_event(void *arg, int64_t iteration, int rank, const char *kind, const char *text)
{
    px_session *session = arg;
    px_log(PX_NOTE, "%s: %s (iteration %lld)", kind, text, (long long)iteration);
    px_event_note(text);
    if (session->file != NULL) {
        px_run_file_event(session->file, iteration, rank, kind, text);
    }
}

px_status px_session_open_file(px_session *session, bool resume)
{
    px_status status = px_agree(px_dist_rank() == 0 ? open_file(session, resume) : PX_OK);
    session->trainer.events = (px_event_sink){write_event, session};
    if (status == PX_OK) {
        status = px_agree(px_dist_rank() == 0 && resume ? px_session_settle_samples(session) : PX_OK);
    }
    if (status == PX_OK && session->no_bf16 != NULL) {
        px_trainer_event(&session->trainer, session->start, "precision", "bf16 is configured, float32 is used: %s",
                         session->no_bf16);
    }
    if (status == PX_OK && session->isa_before[0] != '\0' && strcmp(session->isa_before, px_compute_isa()) != 0) {
        px_trainer_event(&session->trainer, session->start, "instruction_set", "%s until here, %s from here on: it sums in another "
                         "order, so results differ in their last bits", session->isa_before, px_compute_isa());
    }
    return status;
}

static void reward_moments(const px_rollout *rollout, const px_rewards *rewards, double *out)
{
    for (int k = 0; k < reward_count(rewards); k++) {
        px_moments m = {0};
        for (int i = 0; i < rollout->samples; i++) {
            double x = rollout->raw[(size_t)k * (size_t)rollout->samples + (size_t)i];
            if (isfinite(x)) {
                m = px_moments_merge(m, (px_moments){1.0, x, 0.0});
            }
        }
        out[2 * k] = m.n > 0.0 ? m.mean : NAN;
        out[2 * k + 1] = sqrt(m.m2 / m.n);
    }
}

/* Fills the columns after row n that follow from those before it; returns how many. */
static int record_shares(const px_session *session, double *row, int n)
{
    int shares = 0;
    for (int c = 0; c < n; c++) {
        int timer = px_timer_of(session, c);
        if (timer >= 0 && timer != c) {
            row[n + shares++] = row[c] / session->roof;
        }
    }
    return shares;
}

px_status px_session_record(px_session *session, int64_t iteration)
{
    px_trainer *trainer = &session->trainer;
    int n = session->algorithm->metric_count;
    px_sum_f64(&session->evaluation_flops, 1);
    double now = px_now(), seconds = now - session->mark;
    session->mark = now;
    memcpy(session->row, trainer->values, (size_t)n * sizeof(double));
    session->stage_seconds += seconds;
    session->row[n++] = seconds;
    session->row[n++] = session->stage_seconds;
    session->row[n++] = session->stage_seconds * session->cores / 3600.0;
    session->row[n++] = session->writing;
    session->row[n++] = session->evaluating;
    session->row[n++] = session->saving;
    session->row[n++] = session->evaluating > 0.0 ? 1e-9 * session->evaluation_flops / session->evaluating : NAN;
    session->row[n++] = (double)px_alloc_peak();
    session->row[n++] = session->roof;
    n += record_shares(session, session->row, n);
    session->writing = session->evaluating = session->saving = session->evaluation_flops = 0.0;
    if (session->algorithm == &px_algorithm_ppo) {
        px_ppo_view view;
        px_ppo_look(trainer, &view);
        reward_moments(view.rollout, view.rewards, session->row + n);
    }
    for (int c = 0; c < session->column_count; c++) {
        int timer = px_timer_of(session, c);
        if (timer == c) {
            session->phases[c] += session->row[c];
        } else if (timer >= 0 && isfinite(session->row[c])) {
            session->phases[c] += session->row[c] * session->row[timer];
        }
    }
    if (px_dist_rank() != 0) {
        return px_agree(PX_OK);
    }
    return px_agree(px_run_file_metrics(session->file, iteration, session->row));
}

int px_timer_of(const px_session *session, int column)
{
    static const char prefix[] = "timers/", suffix[] = "_gflop_per_s";
    const char *name = session->columns[column].name;
    size_t length = strlen(name), cut = sizeof suffix - 1;
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        return column;
    }
    if (length <= cut || strcmp(name + length - cut, suffix) != 0) {
        return -1;
    }
    for (int c = 0; c < session->column_count; c++) {
        const char *timer = session->columns[c].name;
        if (strncmp(timer, prefix, sizeof prefix - 1) == 0 && strlen(timer) == sizeof prefix - 1 + length - cut &&
            strncmp(timer + sizeof prefix - 1, name, length - cut) == 0) {
            return c;
        }
    }
    return -1;
}

px_status px_session_record_evaluation(px_session *session, int64_t iteration)
{
    int n = session->algorithm->evaluation_count;
    memcpy(session->evaluation_row, session->trainer.evaluated, (size_t)n * sizeof(double));
    if (session->algorithm == &px_algorithm_ppo) {
        px_ppo_view view;
        px_ppo_look(&session->trainer, &view);
        reward_moments(view.evaluation, view.evaluation_rewards, session->evaluation_row + n);
    }
    if (iteration == 0) {
        memcpy(session->first_evaluation, session->evaluation_row, (size_t)session->evaluation_count * sizeof(double));
    }
    if (px_dist_rank() != 0) {
        return px_agree(PX_OK);
    }
    return px_agree(px_run_file_evaluation(session->file, iteration, session->evaluation_row));
}

px_status px_session_close_file(px_session *session, int64_t iteration, int exit_code, const char *reason, bool finished)
{
    if (session->file == NULL) {
        return PX_OK;
    }
    px_status status = px_run_file_close(session->file, iteration, exit_code, reason, finished);
    session->file = NULL;
    return status;
}
