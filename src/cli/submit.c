#include "batch.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const px_usage usage = {
    .synopsis = "submit CONFIG [--array KEY=1:5]... [--chain N] [--dry-run] [options]",
    .what = "Plans a run as 'phalanx plan' does, writes its batch script, hands it to sbatch and prints the job's id.\n"
            "Account, partition, modules and the like come from ~/.config/phalanx/site.yaml (docs/hpc.md). Slurm sends a\n"
            "signal before the time limit: the run saves its state, and the job puts itself back into the queue until\n"
            "the run is done. --chain N is for sites that forbid this: N jobs, each of which goes on where the one\n"
            "before stopped. --array runs the product of all its values, each in a run directory of its own.",
    .examples = "  phalanx submit my-ppo.yaml --nodes 4 --ntasks-per-node 2 --cpus-per-task 32\n"
                "  phalanx submit my-ppo.yaml --array run.seed=1:5 --array training.lr=1e-6,3e-6\n"
                "  phalanx submit my-ppo.yaml --chain 4 --time 12:00:00 --dry-run",
    .exits = "0 done: submitted, 64 usage, 65 bad data, 74 sbatch failed, 75 stopped, 78 configuration that cannot run",
};

/* One job; after: the id it waits for, NULL: none. id: "123". */
static px_status submit_one(const px_buf *script, const char *after, bool array, char id[64])
{
    char dependency[128];
    char sbatch[] = "sbatch", parsable[] = "--parsable", kill[] = "--kill-on-invalid-dep=yes";
    snprintf(dependency, sizeof dependency, "--dependency=%s:%s", array ? "aftercorr" : "afterok", after != NULL ? after : "");
    char *argv[] = {sbatch, parsable, after != NULL ? dependency : NULL, kill, NULL};
    px_buf answer = {0};
    px_status status = px_slurm_command(argv, script, &answer, true);
    if (status == PX_IO) {
        px_fail_within("not submitted, 'phalanx submit --dry-run' prints the script");
    } else if (status == PX_OK && answer.length == 0) {
        status = px_fail(PX_IO, "sbatch has not said which job it made; 'squeue --me' tells");
    }
    if (status == PX_OK) { /* "123" or "123;cluster" */
        snprintf(id, 64, "%.*s", (int)strcspn(answer.data, ";\n"), answer.data);
    }
    px_buf_free(&answer);
    return status;
}

static px_status submit_all(const px_planned *plan, const px_words *arrays, int64_t chain, bool json)
{
    char before[64] = "", id[64];
    json_t *ids = json_array();
    px_status status = PX_OK;
    for (int64_t link = 0; status == PX_OK && link < chain; link++) {
        px_on_stop on_stop = link + 1 < chain ? PX_STOP_SUCCEED
                             : chain == 1 && plan->site.requeue ? PX_STOP_REQUEUE : PX_STOP_EXIT;
        px_buf script = {0};
        status = px_batch_script(plan, arrays, on_stop, &script);
        status = status == PX_OK ? submit_one(&script, link > 0 ? before : NULL, arrays->count > 0, id) : status;
        px_buf_free(&script);
        if (status == PX_OK) {
            snprintf(before, sizeof before, "%s", id);
            json_array_append_new(ids, json_string(id));
            if (!json) {
                printf("%s\n", id);
                fflush(stdout);
            }
        }
    }
    if (json && (status == PX_OK || json_array_size(ids) > 0)) { /* those of a chain that broke are in the queue all the same */
        px_error broken = px_error_keep();
        px_status printed = px_print_json(json_pack("{s:O}", "job_ids", ids));
        status = broken.code != PX_OK ? px_error_restore(&broken) : printed;
    }
    json_decref(ids);
    return status;
}

static px_status show_script(const px_planned *plan, const px_words *arrays, int64_t chain)
{
    px_buf script = {0};
    px_on_stop on_stop = chain > 1 ? PX_STOP_SUCCEED : plan->site.requeue ? PX_STOP_REQUEUE : PX_STOP_EXIT;
    px_status status = px_batch_script(plan, arrays, on_stop, &script);
    if (status == PX_OK) {
        fwrite(script.data, 1, script.length, stdout);
    }
    px_buf_free(&script);
    return status;
}

px_status px_command_submit(int argc, char **argv)
{
    enum { OWN = 4 };
    px_planned plan = {.nodes = 0};
    px_words arrays = {.count = 0};
    int64_t chain = 1;
    bool dry_run = false, json = false, helped;
    px_option options[PX_PLAN_OPTIONS + OWN];
    px_planned_options(&plan, options);
    const px_option own[OWN] = {
        {"array", PX_OPTION_LIST, &arrays, "KEY=VALUES", "an array job: KEY=1:5, KEY=1:9:2 or KEY=a,b,c", 0, 0},
        {"chain", PX_OPTION_INT, &chain, "N", "so many jobs one after the other instead of a requeue", 1, 1000},
        {"dry-run", PX_OPTION_FLAG, &dry_run, NULL, "print the script, submit nothing", 0, 0},
        {"json", PX_OPTION_FLAG, &json, NULL, "the ids as one JSON object", 0, 0},
    };
    memcpy(options + PX_PLAN_OPTIONS, own, sizeof own);
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &plan.words, &helped));
    if (helped) {
        return PX_OK;
    }
    px_status status = px_planned_make(&plan, "submit");
    if (status == PX_OK) {
        px_planned_print(&plan, stderr);
        status = dry_run ? show_script(&plan, &arrays, chain) : submit_all(&plan, &arrays, chain, json);
    }
    status = status == PX_OK ? px_output_done() : status;
    px_planned_free(&plan);
    return status;
}
