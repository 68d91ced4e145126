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
        {"time", PX_OPTION_TEXT, &plan->time, "LIMIT", "time limit of a job; without: from site.yaml or the estimate", 0, 0},
        {"site", PX_OPTION_TEXT, &plan->site_path, "FILE", "instead of ~/.config/phalanx/site.yaml", 0, 0},
    };
    memcpy(options, all, sizeof all);
}

static int64_t choose(int64_t option, int64_t site, int64_t otherwise)
{
    return option > 0 ? option : site > 0 ? site : otherwise;
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

px_status px_planned_make(px_planned *plan, const char *command)
{
    if (plan->words.count != 1) {
        return px_fail(PX_USAGE, "%s takes one configuration file; 'phalanx %s CONFIG' gives %d", command, command,
                       plan->words.count);
    }
    px_run_options options = {.config_path = plan->words.word[0], .sets = plan->sets.word, .set_count = plan->sets.count,
                              .run_dir = plan->run_dir, .stage = plan->stage, .commit = px_program_commit()};
    PX_TRY(px_site_load(&plan->site, plan->site_path));
    PX_TRY(px_run_prepare(&plan->run, &options));
    const px_site *site = &plan->site;
    plan->nodes = choose(plan->nodes, site->nodes, 1);
    plan->ntasks_per_node = choose(plan->ntasks_per_node, site->ntasks_per_node, 1);
    int share = px_cores() / (int)plan->ntasks_per_node;
    plan->cpus_per_task = choose(plan->cpus_per_task, site->cpus_per_task, share > 0 ? share : 1);
    plan->layout = (px_layout){.nodes = (int)plan->nodes,
                               .ranks_per_node = (int)plan->ntasks_per_node,
                               .threads = (int)plan->cpus_per_task,
                               .node_memory = (size_t)(site->memory_gib * 1073741824.0),
                               .network = site->network_gbit_s * 1e9 / 8.0};
    plan->stages = px_alloc_array((size_t)px_config_stage_count(px_run_config(plan->run)), sizeof *plan->stages, "a plan");
    if (plan->stages == NULL) {
        return px_error_code();
    }
    PX_TRY(px_run_outlook(plan->run, &plan->layout, plan->stages, &plan->stage_count));
    for (int i = 0; i < plan->stage_count; i++) {
        plan->seconds += plan->stages[i].seconds;
        plan->disk_bytes += plan->stages[i].disk_bytes;
        plan->disk_files += plan->stages[i].disk_files;
        plan->memory_bytes = fmax(plan->memory_bytes, plan->stages[i].memory_bytes);
    }
    return choose_limit(plan, command);
}

void px_planned_free(px_planned *plan)
{
    px_free(plan->stages);
    px_run_destroy(plan->run);
    px_site_free(&plan->site);
}

double px_planned_core_hours(const px_planned *plan)
{
    return plan->seconds / 3600.0 * (double)(plan->nodes * plan->ntasks_per_node * plan->cpus_per_task);
}

static const char *clock_text(double seconds, char out[32])
{
    long s = lround(seconds);
    snprintf(out, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    return out;
}

static void print_stage(const px_outlook *stage, FILE *out)
{
    char time[32];
    fprintf(out, "== %s ==\n  schedule     %s\n  each rank    %s\n", stage->stage[0] != '\0' ? stage->stage : stage->algorithm,
            stage->schedule, stage->shares);
    for (int i = 0; i < stage->memory_count; i++) {
        fprintf(out, "  %-13s%9.1f MiB  %s\n", stage->memory[i].name, stage->memory[i].value / 1048576.0, stage->memory[i].text);
    }
    fprintf(out, "  %-13s%9.1f MiB\n", "a rank", stage->memory_bytes / 1048576.0);
    fprintf(out, "  disk         %9.1f MiB in %.0f files at most\n", stage->disk_bytes / 1048576.0, stage->disk_files);
    if (stage->completion_tokens > 0.0) {
        fprintf(out, "  completions  %.1f tokens: %s\n", stage->completion_tokens,
                stage->completion_known ? "as the demonstrations of the sft stage" : "the limit; shorter ones take less time");
    }
    fprintf(out, "  time         %s (", clock_text(stage->seconds, time));
    for (int i = 0; i < stage->time_count; i++) {
        fprintf(out, "%s%s %.1f s", i > 0 ? ", " : "", stage->time[i].name, stage->time[i].value);
    }
    fprintf(out, ")\n");
}

px_status px_planned_print(const px_planned *plan, FILE *out)
{
    char time[32];
    long long ranks = plan->nodes * plan->ntasks_per_node;
    fprintf(out, "%s: %lld node%s x %lld rank%s x %lld core%s\n", plan->words.word[0], (long long)plan->nodes,
            plan->nodes == 1 ? "" : "s", (long long)plan->ntasks_per_node, plan->ntasks_per_node == 1 ? "" : "s",
            (long long)plan->cpus_per_task, plan->cpus_per_task == 1 ? "" : "s");
    for (int i = 0; i < plan->stage_count; i++) {
        print_stage(&plan->stages[i], out);
    }
    fprintf(out, "ranks\n");
    for (long long n = 0; n < plan->nodes; n++) {
        fprintf(out, "  node %-7lld ranks %lld to %lld: learner, env runner, scorer%s\n", n, n * plan->ntasks_per_node,
                (n + 1) * plan->ntasks_per_node - 1, n == 0 ? "; rank 0 drives and writes" : "");
        if (n == 15 && plan->nodes > 17) {
            fprintf(out, "  ...          and so on to rank %lld\n", ranks - 1);
            break;
        }
    }
    fprintf(out, "in all\n  time         %s, %.2f core-hours; job limit %s\n  memory       %.1f MiB a node\n"
                 "  disk         %.1f MiB in %.0f files, in %s\n",
            clock_text(plan->seconds, time), px_planned_core_hours(plan), plan->limit,
            plan->memory_bytes * (double)plan->ntasks_per_node / 1048576.0, plan->disk_bytes / 1048576.0, plan->disk_files + 3.0,
            px_run_directory(plan->run));
    return PX_OK;
}
