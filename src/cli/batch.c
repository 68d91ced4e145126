#include "batch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

enum { MAX_AXES = 8 };
typedef struct axis { /* a key and the values it takes */
    char key[160];
    const char *leaf; /* the key's last part */
    char (*values)[64];
    int count;
} axis;

static px_status add_value(axis *a, const char *option, const char *text, size_t length)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-";
    if (length == 0 || length >= sizeof *a->values || strspn(text, allowed) < length) {
        return px_fail(PX_USAGE, "submit: --array %s: '%.*s' cannot be a value here; valid are letters, digits and ._+-", option,
                       (int)length, text);
    }
    if (a->count == PX_MAX_CELLS) {
        return px_fail(PX_USAGE, "submit: --array %s has more than %d values", option, PX_MAX_CELLS);
    }
    snprintf(a->values[a->count], sizeof *a->values, "%.*s", (int)length, text);
    for (int i = 0; i < a->count; i++) {
        if (strcmp(a->values[i], a->values[a->count]) == 0) {
            return px_fail(PX_USAGE, "submit: --array %s has '%s' twice: two jobs would share a run directory", option, a->values[i]);
        }
    }
    a->count++;
    return PX_OK;
}

static px_status read_range(axis *a, const char *option, const char *text, bool *is_range)
{
    long long first, last, step = 1;
    int used = 0;
    *is_range = sscanf(text, "%lld:%lld%n:%lld%n", &first, &last, &used, &step, &used) >= 2 && text[used] == '\0';
    if (!*is_range) {
        return PX_OK;
    }
    if (step < 1 || last < first || (last - first) / step >= PX_MAX_CELLS) {
        return px_fail(PX_USAGE, "submit: --array %s: valid is FIRST:LAST[:STEP], rising, at most %d values", option, PX_MAX_CELLS);
    }
    for (long long v = first; v <= last; v += step) {
        snprintf(a->values[a->count++], sizeof *a->values, "%lld", v);
    }
    return PX_OK;
}

static px_status read_axis(axis *a, const char *option)
{
    const char *equals = strchr(option, '=');
    size_t length = equals != NULL ? (size_t)(equals - option) : 0;
    if (length == 0 || length >= sizeof a->key || equals[1] == '\0') {
        return px_fail(PX_USAGE, "submit: --array %s: valid is KEY=FIRST:LAST[:STEP] or KEY=VALUE,VALUE,...", option);
    }
    snprintf(a->key, sizeof a->key, "%.*s", (int)length, option);
    a->leaf = strrchr(a->key, '.') != NULL ? strrchr(a->key, '.') + 1 : a->key;
    a->values = px_alloc_array(PX_MAX_CELLS, sizeof *a->values, "an array of jobs");
    if (a->values == NULL) {
        return px_error_code();
    }
    bool range;
    PX_TRY(read_range(a, option, equals + 1, &range));
    for (const char *at = equals + 1; !range;) {
        size_t n = strcspn(at, ",");
        PX_TRY(add_value(a, option, at, n));
        if (at[n] == '\0') {
            break;
        }
        at += n + 1;
    }
    return PX_OK;
}

/* The options of one cell of the product: an index into each axis. */
static px_status cell_sets(const axis *axes, int count, int cell, px_buf sets[MAX_AXES])
{
    for (int a = 0; a < count; a++) {
        px_buf_clear(&sets[a]);
        PX_TRY(px_buf_printf(&sets[a], "%s=%s", axes[a].key, axes[a].values[cell % axes[a].count]));
        cell /= axes[a].count;
    }
    return PX_OK;
}

/* What a job of the array would refuse when it starts is refused here. */
static px_status check_cell(const px_planned *plan, const px_buf *sets, int count)
{
    const char *all[PX_MAX_WORDS + MAX_AXES];
    px_config_source source = {plan->words.word[0], all, plan->sets.count + count};
    px_config *config;
    memcpy(all, plan->sets.word, (size_t)plan->sets.count * sizeof *all);
    for (int a = 0; a < count; a++) {
        all[plan->sets.count + a] = sets[a].data;
    }
    px_status status = px_config_load(&config, &source);
    if (status != PX_OK) {
        return px_fail_within("submit: --array");
    }
    px_config_destroy(config);
    return PX_OK;
}

/* ---- script ------------------------------------------------------------------------------------------------------ */

/* sbatch has quotes of its own: within double ones a backslash stands before a double quote or a backslash. */
static px_status header_text(px_buf *out, const char *option, const char *value)
{
    if (value == NULL) {
        return PX_OK;
    }
    if (strchr(value, '\n') != NULL) {
        return px_fail(PX_CONFIG, "--%s of sbatch would be '%s': a line break ends the option; valid is a name without", option,
                       value);
    }
    const char *quote = strpbrk(value, " \t\v\f\r\"'\\#") != NULL ? "\"" : "";
    PX_TRY(px_buf_printf(out, "#SBATCH --%s=%s", option, quote));
    for (; *value != '\0'; value++) {
        PX_TRY(px_buf_printf(out, "%s%c", *value == '"' || *value == '\\' ? "\\" : "", *value));
    }
    return px_buf_printf(out, "%s\n", quote);
}

/* What each component of a job has of its own. */
static px_status header_group(const px_planned *plan, const px_node_group *group, px_buf *out)
{
    const px_site *site = &plan->site;
    PX_TRY(px_buf_printf(out, "#SBATCH --nodes=%d\n#SBATCH --ntasks-per-node=%d\n#SBATCH --cpus-per-task=%d\n", group->nodes,
                         group->ranks_per_node, group->cores));
    PX_TRY(header_text(out, "time", plan->limit));
    PX_TRY(header_text(out, "account", site->account));
    PX_TRY(header_text(out, "partition", site->partition));
    PX_TRY(header_text(out, "qos", site->qos));
    return header_text(out, "constraint", site->constraint);
}

static px_status header(const px_planned *plan, int cells, px_on_stop on_stop, px_buf *out)
{
    const px_site *site = &plan->site;
    const px_stage *first = px_config_stage(px_run_config(plan->run), 0);
    char cwd[PX_PATH_MAX], name[128];
    if (getcwd(cwd, sizeof cwd) == NULL) {
        return px_fail(PX_IO, "the working directory cannot be found");
    }
    snprintf(name, sizeof name, "%s", px_stage_text(first, "run.name"));
    for (char *c = name; *c != '\0'; c++) {
        *c = strchr(" \t\n'\"/%", *c) != NULL ? '_' : *c;
    }
    PX_TRY(px_buf_text(out, "#!/bin/bash\n"));
    PX_TRY(header_text(out, "job-name", name));
    PX_TRY(header_text(out, "chdir", cwd));
    PX_TRY(px_buf_printf(out, "#SBATCH --output=%s\n#SBATCH --open-mode=append\n", cells > 0 ? "%x-%A_%a.out" : "%x-%j.out"));
    PX_TRY(header_group(plan, &plan->layout.groups[0], out));
    PX_TRY(px_buf_printf(out, "#SBATCH --signal=B:USR1@%lld\n#SBATCH --%srequeue\n", (long long)site->signal_s,
                         on_stop == PX_STOP_REQUEUE ? "" : "no-"));
    for (int i = 0; i < site->sbatch.count; i++) {
        PX_TRY(px_buf_printf(out, "#SBATCH %s\n", site->sbatch.line[i]));
    }
    for (int g = 1; g < plan->layout.group_count; g++) {
        PX_TRY(px_buf_text(out, "#SBATCH hetjob\n"));
        PX_TRY(header_group(plan, &plan->layout.groups[g], out));
    }
    return cells > 0 ? px_buf_printf(out, "#SBATCH --array=0-%d\n", cells - 1) : PX_OK;
}

static px_status environment(const px_site *site, px_buf *out)
{
    if (site->modules.count > 0) {
        PX_TRY(px_buf_text(out, "module load"));
        for (int i = 0; i < site->modules.count; i++) {
            PX_TRY(px_buf_text(out, " "));
            PX_TRY(px_shell_quote(out, site->modules.line[i]));
        }
        PX_TRY(px_buf_text(out, "\n"));
    }
    for (int i = 0; i < site->setup.count; i++) {
        PX_TRY(px_buf_printf(out, "%s\n", site->setup.line[i]));
    }
    return PX_OK;
}

/* One cell: its keys, and a run directory of its own. */
static px_status add_cell(const px_planned *plan, const axis *axes, int count, int cell, const px_buf *sets, px_buf *dir, px_buf *out)
{
    PX_TRY(px_buf_text(dir, px_run_directory(plan->run)));
    PX_TRY(px_buf_printf(out, "%d) cell=(", cell));
    for (int a = 0; a < count; a++) {
        PX_TRY(px_buf_text(out, "--set "));
        PX_TRY(px_shell_quote(out, sets[a].data));
        PX_TRY(px_buf_text(out, " "));
        PX_TRY(px_buf_printf(dir, "-%s%s", axes[a].leaf, sets[a].data + strlen(axes[a].key) + 1));
    }
    PX_TRY(px_buf_text(out, "); dir="));
    PX_TRY(px_shell_quote(out, dir->data));
    return px_buf_text(out, " ;;\n");
}

static px_status cells(const px_planned *plan, const axis *axes, int count, int total, px_buf *out)
{
    px_buf sets[MAX_AXES] = {{0}}, dir = {0};
    px_status status = px_buf_text(out, "case $SLURM_ARRAY_TASK_ID in\n");
    for (int cell = 0; status == PX_OK && cell < total; cell++) {
        px_buf_clear(&dir);
        status = cell_sets(axes, count, cell, sets);
        status = status == PX_OK ? check_cell(plan, sets, count) : status;
        status = status == PX_OK ? add_cell(plan, axes, count, cell, sets, &dir, out) : status;
    }
    for (int a = 0; a < MAX_AXES; a++) {
        px_buf_free(&sets[a]);
    }
    px_buf_free(&dir);
    return status == PX_OK ? px_buf_text(out, "esac\n") : status;
}

/* The program and what it does, the same on every rank. */
static px_status train(const px_planned *plan, const char *program, bool array, px_buf *out)
{
    char config[PX_PATH_MAX];
    if (realpath(plan->words.word[0], config) == NULL) {
        return px_fail(PX_IO, "%s: its full path cannot be found", plan->words.word[0]);
    }
    PX_TRY(px_shell_quote(out, program));
    PX_TRY(px_buf_text(out, " train "));
    PX_TRY(px_shell_quote(out, config));
    PX_TRY(px_buf_text(out, " --run-dir \"$dir\""));
    if (plan->stage != NULL) {
        PX_TRY(px_buf_text(out, " --stage "));
        PX_TRY(px_shell_quote(out, plan->stage));
    }
    for (int i = 0; i < plan->sets.count; i++) {
        PX_TRY(px_buf_text(out, " --set "));
        PX_TRY(px_shell_quote(out, plan->sets.word[i]));
    }
    return array ? px_buf_text(out, " \"${cell[@]}\"") : PX_OK;
}

static px_status launch(const px_planned *plan, const char *program, bool array, px_buf *out)
{
    const px_layout *layout = &plan->layout;
    if (strcmp(plan->site.launcher, "mpirun") == 0) {
        PX_TRY(px_buf_printf(out, "    mpirun -n %d ", px_layout_ranks(layout)));
        return train(plan, program, array, out);
    }
    for (int g = 0; g < layout->group_count; g++) { /* -K: a dead rank ends the step */
        const px_node_group *group = &layout->groups[g];
        PX_TRY(px_buf_text(out, g == 0 ? "    srun -K" : " : \\\n    "));
        PX_TRY(layout->group_count > 1 ? px_buf_printf(out, "%s--het-group=%d", g == 0 ? " " : "", g) : PX_OK);
        PX_TRY(px_buf_printf(out, " --mpi=%s --nodes=%d --ntasks=%d --cpus-per-task=%d ", plan->site.mpi, group->nodes,
                             group->nodes * group->ranks_per_node, group->cores)); /* cores are not inherited from the job */
        PX_TRY(train(plan, program, array, out));
    }
    return PX_OK;
}

static px_status command(const px_planned *plan, bool array, px_on_stop on_stop, px_buf *out)
{
    static const char *const names[] = {"exit", "requeue", "succeed"};
    char program[PX_PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0) {
        return px_fail(PX_IO, "the program's full path cannot be found");
    }
    program[length] = '\0';
    if (strcmp(plan->site.launcher, "mpirun") == 0) { /* threads of a rank must not share one core; time to save after a TERM */
        PX_TRY(px_buf_text(out, "export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none\n"
                                "export OMPI_MCA_odls_base_sigkill_timeout=15 PRTE_MCA_odls_base_sigkill_timeout=15\n"));
    }
    if (!array) {
        PX_TRY(px_buf_text(out, "dir="));
        PX_TRY(px_shell_quote(out, px_run_directory(plan->run)));
        PX_TRY(px_buf_text(out, "\n"));
    }
    PX_TRY(px_buf_text(out, "exec "));
    PX_TRY(px_shell_quote(out, program));
    PX_TRY(px_buf_printf(out, " supervise --run-dir \"$dir\" --on-stop %s -- \\\n", names[on_stop]));
    PX_TRY(launch(plan, program, array, out));
    return px_buf_text(out, "\n");
}

/* What Slurm cannot do with a heterogeneous job. */
static px_status check_groups(const px_planned *plan, bool array)
{
    if (plan->layout.group_count == 1 || (!array && strcmp(plan->site.launcher, "mpirun") != 0)) {
        return PX_OK;
    }
    return array ? px_fail(PX_USAGE, "submit: --array with --het-group: Slurm has no arrays of heterogeneous jobs; submit them one "
                                     "by one")
                 : px_fail(PX_CONFIG, "--het-group with launcher mpirun: it sees one component of the job alone; valid in site.yaml "
                                      "is launcher: srun");
}

static px_status write_script(const px_planned *plan, const axis *axes, int count, px_on_stop on_stop, px_buf *script)
{
    int total = count > 0 ? 1 : 0;
    for (int a = 0; a < count; a++) {
        if (total > PX_MAX_CELLS / axes[a].count) {
            return px_fail(PX_USAGE, "submit: the --array options have more than %d combinations", PX_MAX_CELLS);
        }
        total *= axes[a].count;
    }
    PX_TRY(check_groups(plan, total > 0));
    PX_TRY(header(plan, total, on_stop, script));
    PX_TRY(px_buf_printf(script, "# %.2f h and %.1f core-hours were reckoned\n", plan->seconds / 3600.0, px_planned_core_hours(plan)));
    PX_TRY(environment(&plan->site, script));
    if (total > 0) {
        PX_TRY(cells(plan, axes, count, total, script));
    }
    return command(plan, total > 0, on_stop, script);
}

px_status px_batch_script(const px_planned *plan, const px_words *arrays, px_on_stop on_stop, px_buf *script)
{
    axis axes[MAX_AXES] = {{.count = 0}};
    px_status status = arrays->count <= MAX_AXES ? PX_OK
                                                 : px_fail(PX_USAGE, "submit: more than %d times --array", MAX_AXES);
    for (int i = 0; status == PX_OK && i < arrays->count; i++) {
        status = read_axis(&axes[i], arrays->word[i]);
    }
    if (status == PX_OK) {
        status = write_script(plan, axes, arrays->count, on_stop, script);
    }
    for (int i = 0; i < MAX_AXES; i++) {
        px_free(axes[i].values);
    }
    return status;
}
