#include "batch.h"

#include <jansson.h>

static const px_usage usage = {
    .synopsis = "plan CONFIG [--nodes N --ntasks-per-node P --cpus-per-task T] [--het-group NxPxT] [--sbatch FILE] [options]",
    .what = "What a run will take, before it takes it: the schedule of every stage, which rank does what, memory of a\n"
            "rank by role and of each node, disk, number of files, and time. Nothing is trained: data sets are read, kernels of the\n"
            "models' shapes are measured here (seconds for small models, minutes for large ones), by as many processes as a node will have ranks (cores\n"
            "that this machine lacks are taken to be as fast as those it has, and time that other programs took from\n"
            "them does not count: a job has its nodes alone). What cannot run is refused with the line\n"
            "of the file. --sbatch writes the script that 'phalanx submit' would hand to Slurm.",
    .examples = "  phalanx plan configs/quickstart.yaml --ntasks-per-node 2 --cpus-per-task 1\n"
                "  phalanx plan my-ppo.yaml --nodes 4 --ntasks-per-node 2 --cpus-per-task 32 --sbatch my-ppo.sbatch\n"
                "  phalanx plan my-ppo.yaml --nodes 1 --ntasks-per-node 2 --cpus-per-task 32 --het-group 4x2x8 \\\n"
                "      --set placement.env_runner_nodes=het-group:1",
    .exits = "0 done, 64 usage, 65 bad data, 74 input/output, 75 stopped, 78 configuration that cannot run",
};

static json_t *parts_json(const px_outlook_part *parts, int count)
{
    json_t *object = json_object();
    for (int i = 0; i < count; i++) {
        json_object_set_new(object, parts[i].name, json_real(parts[i].value));
    }
    return object;
}

static json_t *roles_json(const px_outlook *stage)
{
    json_t *array = json_array();
    for (int i = 0; i < stage->role_count; i++) {
        const px_outlook_role *r = &stage->roles[i];
        json_array_append_new(array, json_pack("{s:s, s:i, s:i, s:i, s:o, s:f, s:f}", "role", r->name, "first_rank", r->first,
                                               "ranks", r->count, "threads", r->threads, "memory",
                                               parts_json(r->memory, r->memory_count), "memory_bytes", r->memory_bytes,
                                               "frozen_bytes", r->frozen_bytes));
    }
    return array;
}

static json_t *stages_json(const px_planned *plan)
{
    json_t *array = json_array();
    for (int i = 0; i < plan->stage_count; i++) {
        const px_outlook *s = &plan->stages[i];
        json_t *nodes = json_array();
        for (int n = 0; n < px_layout_nodes(&plan->layout); n++) {
            json_array_append_new(nodes, json_real(px_outlook_node_bytes(s, &plan->layout, n)));
        }
        json_t *stage = json_pack("{s:s, s:s, s:I, s:s, s:s, s:o, s:o, s:f}", "stage", s->stage, "algorithm", s->algorithm,
                                  "iterations", (json_int_t)s->iterations, "schedule", s->schedule, "shares", s->shares, "roles",
                                  roles_json(s), "node_memory_bytes", nodes, "shared_bytes", s->shared_bytes);
        json_t *rest = json_pack("{s:o, s:f, s:f, s:f, s:f, s:o}", "time", parts_json(s->time, s->time_count), "hidden_seconds",
                                 s->hidden, "seconds", s->seconds, "disk_bytes", s->disk_bytes, "files", s->disk_files,
                                 "completion_tokens", s->completion_tokens > 0.0 ? json_real(s->completion_tokens) : json_null());
        json_object_update(stage, rest);
        json_decref(rest);
        json_array_append_new(array, stage);
    }
    return array;
}

/* What a rank is in each stage; a stage without a name goes by its algorithm. */
static json_t *duties_json(const px_planned *plan, int rank)
{
    json_t *object = json_object();
    for (int i = 0; i < plan->stage_count; i++) {
        const px_outlook *s = &plan->stages[i];
        int role = 0;
        while (rank >= s->roles[role].first + s->roles[role].count) {
            role++;
        }
        json_object_set_new(object, s->stage[0] != '\0' ? s->stage : s->algorithm, json_string(s->roles[role].name));
    }
    return object;
}

static json_t *ranks_json(const px_planned *plan)
{
    json_t *array = json_array();
    for (int n = 0, first; n < px_layout_nodes(&plan->layout); n++) {
        const px_node_group *group = px_layout_node(&plan->layout, n, &first);
        for (int r = first; r < first + group->ranks_per_node; r++) {
            json_array_append_new(array, json_pack("{s:i, s:i, s:i, s:o}", "rank", r, "node", n, "cores", group->cores, "roles",
                                                   duties_json(plan, r)));
        }
    }
    return array;
}

static json_t *groups_json(const px_layout *layout)
{
    json_t *array = json_array();
    for (int g = 0; g < layout->group_count; g++) {
        json_array_append_new(array, json_pack("{s:i, s:i, s:i}", "nodes", layout->groups[g].nodes, "ntasks_per_node",
                                               layout->groups[g].ranks_per_node, "cpus_per_task", layout->groups[g].cores));
    }
    return array;
}

static px_status print_json(const px_planned *plan)
{
    return px_print_json(json_pack("{s:s, s:o, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:s}", "run_dir", px_run_directory(plan->run),
                                   "layout", groups_json(&plan->layout), "stages", stages_json(plan), "ranks", ranks_json(plan),
                                   "seconds", plan->seconds, "core_hours", px_planned_core_hours(plan),
                                   "node_memory_bytes", plan->node_bytes, "disk_bytes", plan->disk_bytes, "files", plan->disk_files + 3.0,
                                   "time_limit", plan->limit));
}

static px_status write_script(const px_planned *plan, const char *path)
{
    px_words none = {.count = 0};
    px_buf script = {0};
    px_status status = px_batch_script(plan, &none, plan->site.requeue ? PX_STOP_REQUEUE : PX_STOP_EXIT, &script);
    if (status == PX_OK) {
        status = px_file_write(path, script.data, script.length);
    }
    px_buf_free(&script);
    return status;
}

px_status px_command_plan(int argc, char **argv)
{
    px_planned plan = {.nodes = 0};
    const char *sbatch = NULL;
    bool json = false, helped;
    px_option options[PX_PLAN_OPTIONS + 2];
    px_planned_options(&plan, options);
    options[PX_PLAN_OPTIONS] = (px_option){"sbatch", PX_OPTION_TEXT, &sbatch, "FILE", "write the batch script", 0, 0};
    options[PX_PLAN_OPTIONS + 1] = (px_option){"json", PX_OPTION_FLAG, &json, NULL, "one JSON object", 0, 0};
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &plan.words, &helped));
    if (helped) {
        return PX_OK;
    }
    if (sbatch != NULL && plan.words.count > 0 && px_same_file(sbatch, plan.words.word[0])) {
        return px_fail(PX_USAGE, "plan: --sbatch %s is the configuration itself; valid is another file", sbatch);
    }
    px_status status = px_planned_make(&plan, "plan");
    if (status == PX_OK && sbatch != NULL) {
        status = write_script(&plan, sbatch);
    }
    if (status == PX_OK) {
        status = json ? print_json(&plan) : px_planned_print(&plan, stdout);
    }
    status = status == PX_OK ? px_output_done() : status;
    px_planned_free(&plan);
    return status;
}
