/* A run's plan before it runs: schedule, memory, disk and time of every stage. */
#include "outlook.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void px_outlook_add(px_outlook_part *parts, int *count, const char *name, double value, const char *text)
{
    PX_CHECK(*count < PX_OUTLOOK_PARTS);
    px_outlook_part *part = &parts[(*count)++];
    snprintf(part->name, sizeof part->name, "%s", name);
    snprintf(part->text, sizeof part->text, "%s", text);
    part->value = value;
}

/* ---- disk ------------------------------------------------------------------------------------------------------------------ */

typedef struct disk {
    double checkpoint_bytes, checkpoint_files; /* of one */
    double saves;                              /* in the whole stage */
    double bytes, files;                       /* at most at one time */
} disk;

static void add_learner(const px_session *session, const px_model *model, disk *d, double *weights)
{
    double bytes = 4.0 * (double)px_model_parameters(model);
    d->checkpoint_bytes += 3.0 * bytes; /* weights and two moments */
    d->checkpoint_files += 3.0 + (session->tokenizer_dir[0] != '\0' ? 2.0 : 0.0);
    *weights += bytes;
}

/* Checkpoints that are there at once, and how many are written. */
static void count_checkpoints(const px_session *session, disk *d)
{
    const px_stage *stage = session->stage;
    double total = (double)session->total, keep = INFINITY;
    double interval = (double)px_stage_int(stage, "checkpointing.interval");
    double recovery = (double)px_stage_int(stage, "checkpointing.recovery_interval");
    px_stage_number(stage, "checkpointing.keep", &keep);
    double grid = interval > 0.0 ? floor(total / interval) : 0.0, last = interval > 0.0 && fmod(total, interval) == 0.0 ? 0.0 : 1.0;
    double slots = recovery > 0.0 ? floor(total / recovery) - (recovery == 1.0 ? grid : 0.0) : 0.0;
    double initial = px_stage_bool(stage, "checkpointing.initial") ? 1.0 : 0.0;
    double best = px_stage_is_set(stage, "checkpointing.keep_best") ? 1.0 : 0.0;
    double kept = fmin(grid, keep) + last + initial + best + fmin(2.0, slots) + 1.0; /* and the one being written */
    d->saves = grid + last + initial + slots;
    d->bytes += kept * d->checkpoint_bytes;
    d->files += kept * (d->checkpoint_files + 2.0);
}

/* A token's seven float32 hardly compress, its indices all but vanish: 26 bytes, as measured; a text 1.5 bytes a token. */
static void add_samples(const px_session *session, double completion, disk *d)
{
    const px_stage *stage = session->stage;
    double every = (double)px_stage_int(stage, "reporting.samples.every");
    if (session->algorithm != &px_algorithm_ppo || every == 0.0) {
        return;
    }
    double prompt = px_dataset_summary(session->train)->mean_length, iterations = floor((double)session->total / every);
    double samples = session->ppo.prompts_per_iteration * session->ppo.samples_per_prompt;
    double token = px_stage_bool(stage, "reporting.samples.tokens") ? 26.0 : 0.0;
    d->bytes += iterations * samples * (64.0 + 1.5 * (prompt + completion) + completion * token + 2.0 * prompt);
    d->files += ceil((double)session->total / (double)px_stage_int(stage, "reporting.samples.iterations_per_file"));
}

static disk reckon_disk(const px_session *session, double completion)
{
    disk d = {.files = 4.0}; /* run.h5, config.yaml, latest, and examples.json or best */
    double weights = 0.0, columns = session->algorithm->metric_count + PX_EXTRA_METRICS;
    if (session->algorithm == &px_algorithm_ppo) {
        add_learner(session, &session->parts.policy, &d, &weights);
        add_learner(session, &session->parts.critic, &d, &weights);
    } else {
        add_learner(session, &session->model, &d, &weights);
    }
    d.bytes += weights + 65536.0 + (double)session->total * columns * sizeof(double); /* results, run.h5 */
    d.files += d.checkpoint_files;
    count_checkpoints(session, &d);
    add_samples(session, completion, &d);
    return d;
}

/* ---- one stage -------------------------------------------------------------------------------------------------------------- */

/* Tokens of a completion as the demonstrations have them: what a model that learnt them will answer with. */
static double mean_completion(const px_session *session)
{
    double sum = 0.0, rows = (double)px_dataset_count(session->train);
    for (int64_t i = 0; i < px_dataset_count(session->train); i++) {
        px_row row;
        px_dataset_row(session->train, i, &row);
        sum += row.length - row.prompt_length;
    }
    return sum / rows;
}

static void describe(const px_session *session, const px_layout *layout, double completion, px_outlook *o)
{
    snprintf(o->stage, sizeof o->stage, "%s", px_stage_name(session->stage));
    o->algorithm = session->algorithm->name;
    o->iterations = session->total;
    px_plan_schedule(session, o->schedule, sizeof o->schedule);
    px_plan_shares(session, o->shares, sizeof o->shares);
    for (int i = 0; i < session->plan.count; i++) {
        px_outlook_add(o->memory, &o->memory_count, session->plan.rows[i].role, (double)session->plan.rows[i].bytes,
                       session->plan.rows[i].parts);
    }
    if (session->placement.scorers > 0) {
        px_outlook_add(o->memory, &o->memory_count, "scorer", (double)session->scorer_plan.total, "a rank that only scores");
    }
    if (session->placement.split) {
        px_outlook_add(o->memory, &o->memory_count, "env runner", (double)session->runner_plan.total, "a rank that only samples");
    }
    o->memory_bytes = (double)session->plan.total;
    if (session->algorithm == &px_algorithm_ppo) {
        int limit = session->ppo.sampling.max_new_tokens;
        o->completion_known = completion > 0.0 && completion < limit;
        o->completion_tokens = o->completion_known ? completion : limit;
    }
    (void)layout;
}

static px_status check_memory(const px_session *session, const px_layout *layout)
{
    size_t have = layout->node_memory;
    if (have == 0) {
        have = px_memory_available() + px_alloc_live();
    }
    return px_plan_check(session, have);
}

/* With the sizes of the layout: everything that a run reckons before it allocates. */
static px_status size_stage(px_session *session, const px_layout *layout, double completion, px_outlook *outlook)
{
    double started = px_now();
    PX_TRY(px_session_check(session));
    px_dist_assume(px_world_size(), layout->ranks_per_node, session->placement.learners);
    PX_TRY(px_session_prepare(session, ""));
    describe(session, layout, completion, outlook);
    PX_TRY(check_memory(session, layout));
    px_outlook_add(outlook->time, &outlook->time_count, "data", px_now() - started, "");
    outlook->seconds += px_now() - started;
    return PX_OK;
}

static px_status time_stage(px_session *session, const px_layout *layout, px_outlook *outlook)
{
    double byte, file;
    disk d = reckon_disk(session, outlook->completion_tokens);
    outlook->disk_bytes = d.bytes;
    outlook->disk_files = d.files;
    PX_TRY(px_forecast(session, layout, outlook->completion_tokens, outlook));
    PX_TRY(px_probe_disk(session->dir, &byte, &file));
    double seconds = d.saves * (d.checkpoint_bytes * byte + (d.checkpoint_files + 2.0) * file);
    px_outlook_add(outlook->time, &outlook->time_count, "checkpoint", seconds, "");
    outlook->seconds += seconds;
    return PX_OK;
}

static px_status plan_stage(px_run *run, int index, const px_layout *layout, double *completion, px_outlook *outlook)
{
    px_session *session = px_alloc(sizeof *session, "a stage");
    if (session == NULL) {
        return px_error_code();
    }
    session->run = run;
    session->stage = px_config_stage(run->config, index);
    session->rewards = &run->rewards[index];
    session->algorithm = px_algorithm_find(px_stage_algorithm(session->stage));
    session->threads = layout->threads;
    double threads;
    if (px_stage_number(session->stage, "run.threads_per_rank", &threads)) {
        session->threads = (int)threads;
    }
    px_session_precision(session);
    px_status status = px_stage_dir(run, session->stage, session->dir, sizeof session->dir);
    if (status == PX_OK) {
        px_dist_assume(layout->nodes * layout->ranks_per_node, layout->ranks_per_node, layout->nodes * layout->ranks_per_node);
        status = size_stage(session, layout, *completion, outlook);
        status = status == PX_OK ? time_stage(session, layout, outlook) : status;
        px_dist_assume(1, 1, 1);
    }
    if (status == PX_OK && session->algorithm == &px_algorithm_sft) {
        *completion = mean_completion(session);
    }
    px_session_free(session);
    px_free(session);
    return status;
}

px_status px_run_outlook(px_run *run, const px_layout *layout, px_outlook *outlooks, int *count)
{
    double completion = 0.0;
    *count = 0;
    run->planning = true;
    px_log_level(PX_WARNING);
    PX_TRY(px_run_locate(run));
    for (int i = 0; i < px_config_stage_count(run->config); i++) {
        const char *name = px_stage_name(px_config_stage(run->config, i));
        if (run->options.stage != NULL && strcmp(run->options.stage, name) != 0) {
            continue;
        }
        outlooks[*count] = (px_outlook){.iterations = 0};
        PX_TRY(plan_stage(run, i, layout, &completion, &outlooks[(*count)++]));
    }
    return PX_OK;
}
