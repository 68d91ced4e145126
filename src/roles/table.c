/* The table at the end of a run, for people, or as one JSON object for programs. */
#include "run.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double value_of(const px_column *columns, const double *values, int count, const char *name)
{
    int at = px_column_find(columns, count, name);
    return at >= 0 ? values[at] : NAN;
}

static void set_number(json_t *object, const char *name, double value)
{
    json_object_set_new(object, name, isfinite(value) ? json_real(value) : json_null());
}

static px_status print_json(const px_run *run)
{
    json_t *root = json_object(), *stages = json_object();
    for (int i = 0; i < run->summary_count; i++) {
        const px_stage_summary *s = &run->summaries[i];
        json_t *object = json_object(), *metrics = json_object(), *before = json_object(), *after = json_object();
        for (int c = 0; c < s->metric_count; c++) {
            set_number(metrics, s->columns[c].name, s->values[c]);
        }
        for (int c = 0; c < s->evaluation_count; c++) {
            set_number(before, s->evaluation_columns[c].name, s->before[c]);
            set_number(after, s->evaluation_columns[c].name, s->after[c]);
        }
        json_object_set_new(object, "algorithm", json_string(s->algorithm->name));
        json_object_set_new(object, "iterations", json_integer(s->iterations));
        set_number(object, "seconds", s->seconds);
        json_object_set_new(object, "metrics", metrics);
        json_object_set_new(object, "evaluation_before", before);
        json_object_set_new(object, "evaluation", after);
        json_object_set_new(stages, s->name[0] != '\0' ? s->name : s->algorithm->name, object);
    }
    json_object_set_new(root, "run_dir", json_string(run->dir));
    json_object_set_new(root, "stages", stages);
    char *text = json_dumps(root, 0);
    json_decref(root);
    if (text == NULL) {
        return px_fail(PX_BUG, "the end table cannot be written as JSON");
    }
    bool said = puts(text) >= 0 && fflush(stdout) == 0;
    free(text);
    return said ? PX_OK : px_fail(PX_IO, "standard output: %s; the run is done, run.h5 has what the end table says", strerror(errno));
}

/* A column of the table; '-' for what was not measured. */
static void print_cell(int width, bool sign, double value)
{
    char text[32] = "-";
    if (isfinite(value)) {
        snprintf(text, sizeof text, sign ? "%+.3f" : "%.3f", value);
    }
    printf(" %*s", width, text);
}

static void print_pair(const px_stage_summary *s, const char *label, const char *name, double scale, const char *unit)
{
    double before = scale * value_of(s->evaluation_columns, s->before, s->evaluation_count, name);
    double after = scale * value_of(s->evaluation_columns, s->after, s->evaluation_count, name);
    if (isfinite(before) || isfinite(after)) {
        printf("  %-24s", label);
        print_cell(10, false, before);
        print_cell(10, false, after);
        print_cell(10, true, after - before);
        printf(" %s\n", unit);
    }
}

static void print_training(const px_stage_summary *s, const char *label, const char *name, const char *unit)
{
    printf("  %-24s", label);
    print_cell(21, false, value_of(s->columns, s->values, s->metric_count, name));
    printf("%s\n", unit);
}

static void print_ppo(const px_stage_summary *s)
{
    printf("\n  %-24s %10s %10s %10s\n", "held-out prompts", "before", "after", "change");
    for (int c = 0; c < s->evaluation_count; c++) {
        const char *name = s->evaluation_columns[c].name, *front = "rewards/";
        size_t length = strlen(name);
        if (strncmp(name, front, strlen(front)) == 0 && length > 5 && strcmp(name + length - 5, "/mean") == 0) {
            char label[64];
            snprintf(label, sizeof label, "%.*s", (int)(length - strlen(front) - 5), name + strlen(front));
            print_pair(s, label, name, 1.0, "");
        }
    }
    print_pair(s, "KL to the reference", "objective/kl", 1.0, "nat");
    print_pair(s, "completion length", "response_length/mean", 1.0, "tokens");
    print_pair(s, "ends with EOS", "frac_eos", 100.0, "%");
    print_training(s, "training score", "objective/scores", "");
    print_training(s, "training KL", "objective/kl", " nat");
}

static void print_line(const char *label, const char *text)
{
    printf("    %-7s", label);
    for (const char *p = text; *p != '\0'; p++) {
        putchar(*p == '\n' ? ' ' : *p);
    }
    putchar('\n');
}

static void print_examples(const px_stage_summary *s)
{
    char path[PX_PATH_MAX];
    json_t *list, *example;
    size_t i;
    if (s->dir == NULL || px_path_join(path, sizeof path, s->dir, "examples.json") != PX_OK || !px_file_exists(path) ||
        px_json_read(path, &list) != PX_OK) {
        return;
    }
    json_array_foreach (list, i, example) {
        const char *prompt = json_string_value(json_object_get(example, "prompt"));
        const char *before = json_string_value(json_object_get(example, "before"));
        const char *after = json_string_value(json_object_get(example, "after"));
        putchar('\n');
        print_line("prompt", prompt != NULL ? prompt : "");
        print_line("before", before != NULL ? before : "");
        print_line("after", after != NULL ? after : "");
    }
    json_decref(list);
}

static void print_stage(const px_stage_summary *s)
{
    printf("  %-12s %-9s %6lld %s %8.1f s", s->name[0] != '\0' ? s->name : s->algorithm->name, s->algorithm->name,
           (long long)s->iterations, s->algorithm == &px_algorithm_ppo ? "iterations" : "steps     ", s->seconds);
    double loss = value_of(s->evaluation_columns, s->after, s->evaluation_count, "loss");
    double accuracy = value_of(s->evaluation_columns, s->after, s->evaluation_count, "accuracy");
    double score = value_of(s->columns, s->values, s->metric_count, "objective/scores");
    if (isfinite(loss)) {
        printf("   held-out loss %.4f%s", loss, s->algorithm == &px_algorithm_reward ? "" : " nat a token");
    }
    if (isfinite(accuracy)) {
        printf(", accuracy %.3f", accuracy);
    }
    if (isfinite(score)) {
        printf("   score %.3f", score);
    }
    putchar('\n');
}

static void free_summary(px_stage_summary *s)
{
    for (int c = 0; c < s->metric_count; c++) {
        px_free((void *)(uintptr_t)s->columns[c].name);
    }
    for (int c = 0; c < s->evaluation_count; c++) {
        px_free((void *)(uintptr_t)s->evaluation_columns[c].name);
    }
    px_free(s->columns);
    px_free(s->evaluation_columns);
    px_free(s->values);
    px_free(s->before);
    px_free(s->after);
    px_free(s->dir);
}

px_status px_table_print(px_run *run)
{
    px_status status = PX_OK;
    px_progress(NULL);
    if (run->options.json) {
        status = print_json(run);
    } else {
        printf("\n%s\n", run->dir);
        for (int i = 0; i < run->summary_count; i++) {
            print_stage(&run->summaries[i]);
        }
        for (int i = 0; i < run->summary_count; i++) {
            if (run->summaries[i].algorithm == &px_algorithm_ppo) {
                print_ppo(&run->summaries[i]);
                print_examples(&run->summaries[i]);
            }
        }
        for (int i = 0; i < run->summary_count; i++) {
            const char *dir = run->summaries[i].dir;
            printf("%s%s/run.h5\n", i == 0 ? "\nrun files: " : "           ", dir != NULL ? dir : "...");
        }
    }
    fflush(stdout);
    for (int i = 0; i < run->summary_count; i++) {
        free_summary(&run->summaries[i]);
    }
    run->summary_count = 0;
    return status;
}
