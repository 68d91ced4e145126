#include "curves.h"
#include "plot.h"
#include "sheet.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char style[] =
    "<style>body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0}th,td{padding:.15em .7em;border-bottom:1px solid "
    "#ddd;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}.plots{display:flex;flex-wrap:wrap;gap:.5em}"
    "code{background:#f4f4f4;padding:0 .2em}</style>";

/* ---- text -------------------------------------------------------------------------------------------------------- */

static px_status add_text(px_buf *html, const char *text)
{
    for (; *text; text++) {
        const char *entity = *text == '&'   ? "&amp;"
                             : *text == '<' ? "&lt;"
                             : *text == '>' ? "&gt;"
                             : *text == '"' ? "&quot;"
                                            : NULL;
        PX_TRY(entity ? px_buf_text(html, entity) : px_buf_add(html, text, 1));
    }
    return PX_OK;
}

static px_status add_cell(px_buf *html, const char *tag, const char *text)
{
    PX_TRY(px_buf_printf(html, "<%s>", tag));
    PX_TRY(add_text(html, text));
    return px_buf_printf(html, "</%.2s>", tag);
}

static px_status add_json(px_buf *html, const json_t *value)
{
    if (!value) return add_cell(html, "td", "");
    if (json_is_string(value)) return add_cell(html, "td", json_string_value(value));
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    px_status status = add_cell(html, "td", text ? text : "");
    free(text);
    return status;
}

static const char *root_text(const px_curves *curves, int run, const char *key)
{
    const char *text = json_string_value(json_object_get(curves->root[run], key));
    return text ? text : "";
}

static const char *group_name(const px_curves *curves, int group)
{
    return json_string_value(json_array_get(curves->groups, (size_t)group));
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static px_status add_runs(px_buf *html, const px_curves *curves)
{
    PX_TRY(px_buf_text(html, "<h2>Runs</h2>\n<table><tr><th>run</th><th>group</th><th>algorithm</th><th>started</th>"
                             "<th>iterations</th></tr>\n"));
    for (int run = 0; run < curves->run_count; run++) {
        const px_frame *frame = &curves->metrics[run];
        PX_TRY(px_buf_text(html, "<tr>"));
        PX_TRY(add_cell(html, "td", curves->runs[run].name));
        PX_TRY(add_cell(html, "td", group_name(curves, curves->group[run])));
        PX_TRY(add_cell(html, "td", root_text(curves, run, "algorithm")));
        PX_TRY(add_cell(html, "td", root_text(curves, run, "created")));
        PX_TRY(px_buf_printf(html, "<td class=n>%.0f</td></tr>\n",
                             frame->rows ? px_frame_number(frame, 0, frame->rows - 1) : 0));
    }
    return px_buf_text(html, "</table>\n");
}

static px_status add_differences(px_buf *html, const px_curves *curves)
{
    size_t i;
    json_t *key;
    if (curves->run_count < 2) return PX_OK;
    PX_TRY(px_buf_text(html, "<h2>Configuration that differs</h2>\n"));
    if (json_array_size(curves->differing) == 0) return px_buf_text(html, "<p>None.</p>\n");
    PX_TRY(px_buf_text(html, "<table><tr><th>key</th>"));
    for (int run = 0; run < curves->run_count; run++) PX_TRY(add_cell(html, "th", curves->runs[run].name));
    PX_TRY(px_buf_text(html, "</tr>\n"));
    json_array_foreach(curves->differing, i, key)
    {
        PX_TRY(px_buf_text(html, "<tr>"));
        PX_TRY(add_cell(html, "td", json_string_value(key)));
        for (int run = 0; run < curves->run_count; run++) {
            PX_TRY(add_json(html, json_object_get(curves->config[run], json_string_value(key))));
        }
        PX_TRY(px_buf_text(html, "</tr>\n"));
    }
    return px_buf_text(html, "</table>\n");
}

static px_status add_end_cell(px_buf *html, const px_curves *curves, const char *name, int group)
{
    char mean[32], deviation[32];
    px_point end = px_curves_end(curves, name, group);
    px_number_text(end.mean, mean, sizeof mean);
    PX_TRY(px_buf_printf(html, "<td class=n>%s", mean));
    if (end.runs > 1) {
        px_number_text(end.deviation, deviation, sizeof deviation);
        PX_TRY(px_buf_printf(html, " &plusmn; %s <small>(%d)</small>", deviation, end.runs));
    }
    return px_buf_text(html, "</td>");
}

static px_status add_ends(px_buf *html, const px_curves *curves, const char *only[], int only_count)
{
    int groups = (int)json_array_size(curves->groups);
    size_t i;
    json_t *entry;
    PX_TRY(px_buf_text(html, "<table><tr><th>metric</th>"));
    for (int g = 0; g < groups; g++) PX_TRY(add_cell(html, "th", group_name(curves, g)));
    PX_TRY(px_buf_text(html, "</tr>\n"));
    json_array_foreach(curves->names, i, entry)
    {
        const char *name = json_string_value(entry);
        bool wanted = only_count == 0;
        for (int k = 0; k < only_count; k++) wanted |= strcmp(only[k], name) == 0;
        if (!wanted) continue;
        PX_TRY(px_buf_text(html, "<tr>"));
        PX_TRY(add_cell(html, "td", name));
        for (int g = 0; g < groups; g++) PX_TRY(add_end_cell(html, curves, name, g));
        PX_TRY(px_buf_text(html, "</tr>\n"));
    }
    return px_buf_text(html, "</table>\n");
}

/* ---- for a paper ------------------------------------------------------------------------------------------------- */

static px_status add_setting(px_buf *html, const px_curves *curves, const char *key, const char *words, bool *first)
{
    json_t *value = json_object_get(curves->config[0], key);
    bool varied = false;
    if (!value || json_is_null(value)) return PX_OK;
    for (int run = 1; run < curves->run_count; run++) {
        json_t *other = json_object_get(curves->config[run], key);
        varied |= !other || !json_equal(other, value);
    }
    PX_TRY(px_buf_printf(html, "%s%s ", *first ? "" : ", ", words));
    *first = false;
    if (varied) return px_buf_text(html, "varied");
    if (json_is_string(value)) return add_text(html, json_string_value(value));
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    px_status status = add_text(html, text ? text : "");
    free(text);
    return status;
}

/* Each once, in the order of the runs. */
static px_status add_algorithms(px_buf *html, const px_curves *curves)
{
    for (int run = 0; run < curves->run_count; run++) {
        const char *name = root_text(curves, run, "algorithm");
        int before = 0;
        while (before < run && strcmp(root_text(curves, before, "algorithm"), name) != 0) before++;
        if (before < run) continue;
        PX_TRY(px_buf_text(html, run > 0 ? ", " : ""));
        PX_TRY(add_text(html, name));
    }
    return PX_OK;
}

static px_status add_methods(px_buf *html, const px_curves *curves)
{
    static const char *const settings[][2] = {{"training.prompts_per_iteration", "prompts an iteration"},
                                              {"env_runners.samples_per_prompt", "samples a prompt"},
                                              {"training.num_epochs", "epochs"},
                                              {"training.minibatch_size", "minibatch size"},
                                              {"training.lr", "learning rate"},
                                              {"training.critic_lr", "critic learning rate"},
                                              {"training.kl.coeff", "KL coefficient"},
                                              {"training.clip_param", "clip range"},
                                              {"training.gamma", "discount"},
                                              {"training.lambda_", "GAE lambda"},
                                              {"env_runners.temperature", "sampling temperature"},
                                              {"training.batch_size", "batch size"},
                                              {"training.batch_tokens", "tokens a batch"},
                                              {"stop.iterations", "iterations"}};
    static const char *main_metrics[] = {"objective/scores",
                                         "objective/kl",
                                         "objective/rlhf_reward",
                                         "evaluation/objective/scores",
                                         "loss",
                                         "accuracy",
                                         "evaluation/loss",
                                         "evaluation/accuracy",
                                         "core_hours"};
    bool first = true;
    PX_TRY(px_buf_text(html, "<h2>Methods</h2>\n<p>"));
    PX_TRY(
        px_buf_printf(html, "We trained %d run%s with Phalanx (", curves->run_count, curves->run_count > 1 ? "s" : ""));
    PX_TRY(add_algorithms(html, curves));
    PX_TRY(px_buf_text(html, "): "));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        PX_TRY(add_setting(html, curves, settings[i][0], settings[i][1], &first));
    }
    PX_TRY(px_buf_text(
        html, ". Values are those of the last iteration, mean &plusmn; standard deviation over runs, the number of "
              "runs in brackets.</p>\n"));
    return add_ends(html, curves, main_metrics, (int)(sizeof main_metrics / sizeof *main_metrics));
}

/* ---- page -------------------------------------------------------------------------------------------------------- */

static px_status add_plots(px_buf *html, const px_curves *curves, const char *csv_name)
{
    size_t count = json_array_size(curves->names);
    bool drawn = false;
    px_buf *svgs = px_alloc_array(count + 1, sizeof *svgs, "plots");
    if (!svgs) return px_error_code();
    px_status status = px_plot_all(curves, svgs, &drawn);
    if (status == PX_OK)
        status = px_buf_text(html, "<h2>Curves</h2>\n<p>Bands are one standard deviation. Data: <a href=\"");
    if (status == PX_OK) status = add_text(html, csv_name);
    if (status == PX_OK) status = px_buf_text(html, "\">");
    if (status == PX_OK) status = add_text(html, csv_name);
    if (status == PX_OK) status = px_buf_text(html, "</a></p>\n<div class=plots>\n");
    if (status == PX_OK && !drawn) {
        status =
            px_buf_text(html, "<p>No plots: gnuplot was not found, or failed. The data file has every value.</p>\n");
    }
    for (size_t i = 0; i < count; i++) {
        if (status == PX_OK && svgs[i].length) status = px_buf_printf(html, "<div>%s</div>\n", svgs[i].data);
        px_buf_free(&svgs[i]);
    }
    px_free(svgs);
    return status == PX_OK ? px_buf_text(html, "</div>\n") : status;
}

static px_status add_page(px_buf *html, const px_curves *curves, const px_report_options *options, const char *csv_name)
{
    PX_TRY(px_buf_printf(
        html,
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8><title>Phalanx report</title>%s</head><body>\n"
        "<h1>Report of %d run%s</h1>\n",
        style, curves->run_count, curves->run_count == 1 ? "" : "s"));
    PX_TRY(add_runs(html, curves));
    PX_TRY(add_differences(html, curves));
    if (options->methods) PX_TRY(add_methods(html, curves));
    PX_TRY(add_plots(html, curves, csv_name));
    PX_TRY(px_buf_text(html, "<h2>At the end</h2>\n"));
    PX_TRY(add_ends(html, curves, NULL, 0));
    return px_buf_text(html, "</body></html>\n");
}

static px_status print_written(const px_curves *curves, const px_report_options *options, const char *csv_path)
{
    json_t *object = json_pack("{s:s, s:s, s:i}", "out", options->out, "csv", csv_path, "runs", curves->run_count);
    bool fine = object && json_dumpf(object, options->json, JSON_COMPACT) == 0;
    json_decref(object);
    return fine && fputc('\n', options->json) != EOF ? PX_OK : px_fail(PX_IO, "cannot print: %s", strerror(errno));
}

static px_status write_all(const px_curves *curves, const px_report_options *options, px_buf *html, px_buf *csv)
{
    char path[PX_PATH_MAX];
    size_t length = strlen(options->out);
    if (length > 5 && strcmp(options->out + length - 5, ".html") == 0) length -= 5;
    if (snprintf(path, sizeof path, "%.*s.csv", (int)length, options->out) >= (int)sizeof path) {
        return px_fail(PX_IO, "%s: the path is too long", options->out);
    }
    const char *slash = strrchr(path, '/');
    PX_TRY(px_curves_csv(curves, csv));
    PX_TRY(add_page(html, curves, options, slash ? slash + 1 : path));
    PX_TRY(px_file_write(options->out, html->data, html->length));
    PX_TRY(px_file_write(path, csv->data, csv->length));
    return options->json ? print_written(curves, options, path) : PX_OK;
}

px_status px_report(const px_report_options *options)
{
    px_curves curves;
    px_buf html = {0}, csv = {0};
    if (!options->out || !options->out[0]) return px_fail(PX_USAGE, "report needs --out F.html");
    px_status status = px_curves_read(&curves, options);
    if (status == PX_OK) status = write_all(&curves, options, &html, &csv);
    px_buf_free(&html);
    px_buf_free(&csv);
    px_curves_free(&curves);
    return status;
}
