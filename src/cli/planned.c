/* The plan behind `plan` and `submit`. */
#include "batch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void px_planned_options(px_planned *plan, px_option *options)
{
    const px_option all[PX_PLAN_OPTIONS] = {
        {"set", PX_OPTION_LIST, &plan->sets, "KEY=VALUE", "change a key, or STAGE.KEY=VALUE of one stage", 0, 0},
        {"run-dir", PX_OPTION_TEXT, &plan->run_dir, "DIR", "run directory, instead of run.dir", 0, 0},
        {"stage", PX_OPTION_TEXT, &plan->stage, "NAME", "this stage alone", 0, 0},
        {"nodes", PX_OPTION_INT, &plan->nodes, "N", "nodes; 0: as site.yaml says, else 1", 0, 100000},
        {"ntasks-per-node", PX_OPTION_INT, &plan->ntasks_per_node, "P", "ranks of a node; 0: as site.yaml says, else 1", 0, 4096},
        {"cpus-per-task", PX_OPTION_INT, &plan->cpus_per_task, "T", "cores of a rank; 0: as site.yaml says, else this "
         "machine's", 0, 4096},
        {"het-group", PX_OPTION_LIST, &plan->het_groups, "NxPxT", "one more component of a heterogeneous job: nodes x ranks of a "
         "node x cores of a rank; its ranks come after those of --nodes", 0, 0},
        {"time", PX_OPTION_TEXT, &plan->time, "LIMIT", "time limit of a job; without: from site.yaml or the estimate", 0, 0},
        {"site", PX_OPTION_TEXT, &plan->site_path, "FILE", "instead of ~/.config/phalanx/site.yaml", 0, 0},
    };
    memcpy(options, all, sizeof all);
}

static int64_t choose(int64_t option, int64_t site, int64_t otherwise)
{
    return option > 0 ? option : site > 0 ? site : otherwise;
}

static px_status check_signal(const px_planned *plan, const char *command)
{
    if (px_site_seconds(plan->limit) > (double)plan->site.signal_s) {
        return PX_OK;
    }
    return px_fail(PX_CONFIG, "%s: the time limit %s is not longer than signal_s, %lld s: Slurm would ask the job to stop as soon as it "
                              "starts; give it more time, or put a smaller signal_s into %s", command, plan->limit,
                   (long long)plan->site.signal_s, plan->site_path != NULL ? plan->site_path : "site.yaml");
}

/* Half as much again as was reckoned, and ten minutes; a job that the site's limit ends goes on in the next. */
static px_status choose_limit(px_planned *plan, const char *command)
{
    const char *given = plan->time != NULL ? plan->time : plan->site.time;
    if (plan->time != NULL && px_site_seconds(plan->time) <= 0.0) {
        return px_fail(PX_USAGE, "%s: --time is '%s'; valid is MINUTES, HH:MM:SS or D-HH:MM:SS", command, plan->time);
    }
    if (given != NULL) {
        snprintf(plan->limit, sizeof plan->limit, "%s", given);
        return PX_OK;
    }
    double want = 1.5 * plan->seconds + 600.0, most = plan->site.max_time != NULL ? px_site_seconds(plan->site.max_time) : want;
    long minutes = (long)ceil(fmin(want, most) / 60.0);
    snprintf(plan->limit, sizeof plan->limit, "%ld-%02ld:%02ld:00", minutes / 1440, minutes / 60 % 24, minutes % 60);
    return PX_OK;
}

/* The nodes of --nodes and its like, then those of each --het-group. */
static px_status make_layout(px_planned *plan, const char *command)
{
    enum { MOST = 1000000 };
    const px_site *site = &plan->site;
    px_layout *layout = &plan->layout;
    plan->nodes = choose(plan->nodes, site->nodes, 1);
    plan->ntasks_per_node = choose(plan->ntasks_per_node, site->ntasks_per_node, 1);
    int share = px_cores() / (int)plan->ntasks_per_node;
    plan->cpus_per_task = choose(plan->cpus_per_task, site->cpus_per_task, share > 0 ? share : 1);
    *layout = (px_layout){.groups = {{(int)plan->nodes, (int)plan->ntasks_per_node, (int)plan->cpus_per_task}},
                          .group_count = 1,
                          .node_memory = (size_t)(site->memory_gib * 1073741824.0),
                          .network = site->network_gbit_s * 1e9 / 8.0};
    double ranks = (double)plan->nodes * (double)plan->ntasks_per_node;
    for (int i = 0; i < plan->het_groups.count; i++) {
        px_node_group *g = &layout->groups[layout->group_count++];
        const char *text = plan->het_groups.word[i];
        int used = 0;
        bool good = layout->group_count < PX_MAX_NODE_GROUPS &&
                    sscanf(text, "%6dx%4dx%4d%n", &g->nodes, &g->ranks_per_node, &g->cores, &used) == 3 && text[used] == '\0' &&
                    g->nodes > 0 && g->ranks_per_node > 0 && g->cores > 0;
        if (!good) {
            return px_fail(PX_USAGE, "%s: --het-group is '%s'; valid is NODESxRANKSxCORES such as 4x2x8, at most %d times", command,
                           text, PX_MAX_NODE_GROUPS - 1);
        }
        ranks += (double)g->nodes * g->ranks_per_node;
    }
    return ranks <= MOST ? PX_OK : px_fail(PX_USAGE, "%s: a job of %.0f ranks; valid is at most %d", command, ranks, MOST);
}

px_status px_planned_make(px_planned *plan, const char *command)
{
    PX_TRY(px_one_config(command, &plan->words));
    px_run_options options = {.config_path = plan->words.word[0], .sets = plan->sets.word, .set_count = plan->sets.count,
                              .run_dir = plan->run_dir, .stage = plan->stage, .commit = px_program_commit()};
    PX_TRY(px_site_load(&plan->site, plan->site_path));
    PX_TRY(px_run_prepare(&plan->run, &options));
    PX_TRY(make_layout(plan, command));
    plan->stages = px_alloc_array((size_t)px_config_stage_count(px_run_config(plan->run)), sizeof *plan->stages, "a plan");
    if (plan->stages == NULL) {
        return px_error_code();
    }
    PX_TRY(px_run_outlook(plan->run, &plan->layout, plan->stages, &plan->stage_count));
    for (int i = 0; i < plan->stage_count; i++) {
        plan->seconds += plan->stages[i].seconds;
        plan->disk_bytes += plan->stages[i].disk_bytes;
        plan->disk_files += plan->stages[i].disk_files;
        for (int n = 0; n < px_layout_nodes(&plan->layout); n++) {
            plan->node_bytes = fmax(plan->node_bytes, px_outlook_node_bytes(&plan->stages[i], &plan->layout, n));
        }
    }
    PX_TRY(choose_limit(plan, command));
    return check_signal(plan, command);
}

void px_planned_free(px_planned *plan)
{
    px_free(plan->stages);
    px_run_destroy(plan->run);
    px_site_free(&plan->site);
}

double px_planned_core_hours(const px_planned *plan)
{
    return plan->seconds / 3600.0 * px_layout_cores(&plan->layout);
}

static const char *clock_text(double seconds, char out[32])
{
    long s = lround(seconds);
    snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return out;
}

/* "0-3" or "4" */
static const char *range_text(int first, int count, char out[32])
{
    snprintf(out, 32, count == 1 ? "%d" : "%d-%d", first, first + count - 1);
    return out;
}

static void print_role(const px_outlook_role *role, const px_outlook_role *before, FILE *out)
{
    char range[32];
    fprintf(out, "  %s: rank%s %s, %d thread%s\n", role->name, role->count == 1 ? "" : "s", range_text(role->first, role->count, range),
            role->threads, role->threads == 1 ? "" : "s");
    bool same = before != NULL && before->memory_count == role->memory_count && before->memory_bytes == role->memory_bytes;
    for (int i = 0; i < role->memory_count && !same; i++) {
        fprintf(out, "    %-13s%9.1f MiB  %s\n", role->memory[i].name, role->memory[i].value / 1048576.0, role->memory[i].text);
    }
    fprintf(out, "    %-13s%9.1f MiB%s\n", "a rank", role->memory_bytes / 1048576.0, same ? "  as those before" : "");
}

/* Who is on a node, and what they take there. */
static void print_nodes(const px_planned *plan, const px_outlook *stage, FILE *out)
{
    enum { SHOWN = 16 };
    int nodes = px_layout_nodes(&plan->layout);
    for (int n = 0; n < nodes; n++) {
        int first, named = 0;
        if (n == SHOWN - 1 && nodes > SHOWN) {
            fprintf(out, "  ...          and so on to node %d\n", nodes - 2);
            n = nodes - 1;
        }
        const px_node_group *group = px_layout_node(&plan->layout, n, &first);
        fprintf(out, "  node %-7d %9.1f MiB  ", n, px_outlook_node_bytes(stage, &plan->layout, n) / 1048576.0);
        for (int i = 0; i < stage->role_count; i++) {
            const px_outlook_role *role = &stage->roles[i];
            int from = role->first > first ? role->first : first, end = role->first + role->count;
            int node_end = first + group->ranks_per_node, to = end < node_end ? end : node_end;
            char range[32];
            if (to > from) {
                fprintf(out, "%s%s %s", named++ > 0 ? ", " : "", role->name, range_text(from, to - from, range));
            }
        }
        fprintf(out, "\n");
    }
    if (stage->shared_bytes > 0.0) {
        fprintf(out, "               %9.1f MiB  of each node: the policy's weights for those that sample\n",
                stage->shared_bytes / 1048576.0);
    }
    double bytes = 0.0;
    for (int i = 0; i < stage->role_count; i++) {
        bytes = fmax(bytes, stage->roles[i].frozen_bytes);
    }
    if (bytes > 0.0) {
        fprintf(out, "               %9.1f MiB  of a node that scores: weights of the reference and the reward model\n", bytes / 1048576.0);
    }
}

static void print_stage(const px_planned *plan, const px_outlook *stage, FILE *out)
{
    char time[32];
    fprintf(out, "== %s ==\n  schedule     %s\n  shares       %s\n", stage->stage[0] != '\0' ? stage->stage : stage->algorithm,
            stage->schedule, stage->shares);
    for (int i = 0; i < stage->role_count; i++) {
        print_role(&stage->roles[i], i > 0 ? &stage->roles[i - 1] : NULL, out);
    }
    print_nodes(plan, stage, out);
    fprintf(out, "  disk         %9.1f MiB in %.0f files at most\n", stage->disk_bytes / 1048576.0, stage->disk_files);
    if (stage->completion_tokens > 0.0) {
        fprintf(out, "  completions  %.1f tokens: %s\n", stage->completion_tokens,
                stage->completion_known ? "as the demonstrations of the sft stage" : "the limit; shorter ones take less time");
    }
    fprintf(out, "  time         %s (", clock_text(stage->seconds, time));
    for (int i = 0; i < stage->time_count; i++) {
        fprintf(out, "%s%s %.1f s", i > 0 ? ", " : "", stage->time[i].name, stage->time[i].value);
    }
    if (stage->hidden > 0.0) {
        fprintf(out, "; %.1f s of these at the same time", stage->hidden);
    }
    fprintf(out, ")\n");
}

static void print_group(const px_node_group *g, const char *before, FILE *out)
{
    fprintf(out, "%s%d node%s x %d rank%s x %d core%s", before, g->nodes, g->nodes == 1 ? "" : "s", g->ranks_per_node,
            g->ranks_per_node == 1 ? "" : "s", g->cores, g->cores == 1 ? "" : "s");
}

px_status px_planned_print(const px_planned *plan, FILE *out)
{
    char time[32];
    fprintf(out, "%s", plan->words.word[0]);
    for (int g = 0; g < plan->layout.group_count; g++) {
        print_group(&plan->layout.groups[g], g == 0 ? ": " : ", then ", out);
    }
    fprintf(out, "\n");
    for (int i = 0; i < plan->stage_count; i++) {
        print_stage(plan, &plan->stages[i], out);
    }
    fprintf(out, "in all\n  time         %s, %.2f core-hours of %d cores; job limit %s\n"
                 "  memory       %.1f MiB on the fullest node\n  disk         %.1f MiB in %.0f files, in %s\n",
            clock_text(plan->seconds, time), px_planned_core_hours(plan), px_layout_cores(&plan->layout), plan->limit,
            plan->node_bytes / 1048576.0, plan->disk_bytes / 1048576.0, plan->disk_files + 3.0, px_run_directory(plan->run));
    return PX_OK;
}
