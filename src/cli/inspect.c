/* phalanx inspect, watch and report: the options of the room report. */
#include "cli.h"
#include "phalanx/report.h"
#include "phalanx/store.h"

#include <string.h>

/* ---- inspect ----------------------------------------------------------------------------------------------------- */

static const px_usage inspect_usage = {
    .synopsis = "inspect RUN... [config|metrics|evaluation|samples|events|ranks|health|timeline] [options]",
    .what = "Looks into runs, living or killed. A run is its directory, a directory of stages or runs, or a run\n"
            "file. Without a view: health. A second run whose name is that of a view is written ./NAME.",
    .examples = "  phalanx inspect runs/stories-ppo metrics\n"
                "  phalanx inspect runs/a runs/b metrics --csv > both.csv\n"
                "  phalanx inspect runs/quickstart/ppo timeline > trace.json    (open it in ui.perfetto.dev)\n"
                "  phalanx inspect runs/stories-ppo/run.h5 --snapshot copy.h5",
    .exits = "0 done, 64 usage, 65 not a run or damaged, 74 input/output",
};

/* The run file of a path that names one run. */
static px_status run_file_of(const char *path, char *out, size_t size)
{
    if (px_dir_exists(path)) {
        PX_TRY(px_path_join(out, size, path, "run.h5"));
    } else {
        PX_TRY(px_path_join(out, size, "", path));
    }
    return px_file_exists(out) ? PX_OK
                               : px_fail(PX_DATA, "%s: no such file; valid is the directory of one run or stage", out);
}

static bool is_path(const char *word)
{
    return strchr(word, '/') != NULL || px_file_exists(word) || px_dir_exists(word);
}

static bool is_view(const char *word)
{
    px_view view;
    bool known = px_view_parse(word, &view) == PX_OK;
    px_error_clear();
    return known;
}

/* One word may be a view, even where a file of that name lies, as long as another word names the run. Of those that are
 * no path and no view, the first is a missing run and another a mistyped view. */
static px_status take_view(px_words *words, px_view *view)
{
    bool taken = false;
    for (int i = words->count - 1; i >= 0; i--) {
        bool clear = !taken && words->count > 1 && is_view(words->word[i]);
        if (!clear && is_path(words->word[i])) {
            continue;
        }
        if (!is_view(words->word[i]) && (taken || i == 0)) {
            return px_fail(PX_DATA, "%s: no such run; valid is the directory of a run or stage, or a run file",
                           words->word[i]);
        }
        if (taken) {
            return px_fail(PX_USAGE, "inspect: '%s' is one view and there is another; valid is one", words->word[i]);
        }
        PX_TRY(px_view_parse(words->word[i], view));
        memmove(&words->word[i], &words->word[i + 1], (size_t)(words->count - i - 1) * sizeof *words->word);
        words->count--;
        taken = true;
    }
    return words->count > 0 ? PX_OK
                            : px_fail(PX_USAGE, "inspect: which run? e.g. phalanx inspect runs/quickstart metrics");
}

px_status px_command_inspect(int argc, char **argv)
{
    px_words words = {.count = 0};
    const char *snapshot = NULL;
    bool csv = false, json = false, repair = false, helped;
    const px_option options[] = {
        {"csv", PX_OPTION_FLAG, &csv, NULL, "all rows, with a column run", 0, 0},
        {"json", PX_OPTION_FLAG, &json, NULL, "an array of objects", 0, 0},
        {"snapshot", PX_OPTION_TEXT, &snapshot, "F.h5", "a copy of the run file that every HDF5 reader opens", 0, 0},
        {"repair", PX_OPTION_FLAG, &repair, NULL, "clears what a killed writer left in the run file", 0, 0},
    };
    PX_TRY(px_options_parse(&inspect_usage, options, PX_COUNT(options), argc, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    if (csv && json) {
        return px_fail(PX_USAGE, "inspect: --csv and --json; valid is one of them");
    }
    px_view view = PX_VIEW_HEALTH;
    PX_TRY(take_view(&words, &view));
    if (view == PX_VIEW_TIMELINE) {
        if (words.count != 1) {
            return px_fail(PX_USAGE, "inspect: timeline takes one run");
        }
        PX_TRY(px_timeline_print(words.word[0], stdout));
        return px_output_done();
    }
    if (snapshot != NULL || repair) {
        char path[PX_PATH_MAX];
        if (words.count != 1) {
            return px_fail(PX_USAGE, "inspect: --snapshot and --repair take one run");
        }
        PX_TRY(run_file_of(words.word[0], path, sizeof path));
        if (repair) {
            PX_TRY(px_run_file_repair(path));
        }
        return snapshot != NULL ? px_run_file_snapshot(path, snapshot) : PX_OK;
    }
    px_inspect_options inspect = {.paths = words.word, .path_count = words.count, .view = view, .out = stdout,
                                  .form = csv ? PX_FORM_CSV : json ? PX_FORM_JSON : PX_FORM_TABLE};
    PX_TRY(px_inspect(&inspect));
    return px_output_done();
}

/* ---- watch ------------------------------------------------------------------------------------------------------- */

static const px_usage watch_usage = {
    .synopsis = "watch DIR [--metrics a,b] [--once] [--json]",
    .what = "Prints a line for each iteration of a run until it ends. Ctrl-C leaves; the run goes on.",
    .examples = "  phalanx watch runs/stories-ppo\n"
                "  phalanx watch runs/stories-ppo --metrics objective/kl,objective/scores --once",
    .exits = "0 done, 64 usage, 65 not a run, 74 input/output",
};

px_status px_command_watch(int argc, char **argv)
{
    px_words words = {.count = 0};
    const char *metrics = NULL;
    double interval = 1.0;
    bool once = false, json = false, helped;
    const px_option options[] = {
        {"metrics", PX_OPTION_TEXT, &metrics, "a,b", "which ones; without: the usual ones", 0, 0},
        {"once", PX_OPTION_FLAG, &once, NULL, "what is there now", 0, 0},
        {"interval", PX_OPTION_FLOAT, &interval, "S", "seconds between looks", 0.05, 3600},
        {"json", PX_OPTION_FLAG, &json, NULL, "an object a line, with all metrics where --metrics names none", 0, 0},
    };
    PX_TRY(px_options_parse(&watch_usage, options, PX_COUNT(options), argc, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    if (words.count != 1) {
        return px_fail(PX_USAGE, "watch: one run, please, e.g. phalanx watch runs/quickstart");
    }
    px_watch_options watch = {.path = words.word[0], .metrics = metrics, .once = once, .json = json, .interval_s = interval,
                              .out = stdout};
    px_status status = px_watch(&watch);
    PX_TRY(status == PX_STOPPED ? PX_OK : status);
    return px_output_done();
}

/* ---- report ------------------------------------------------------------------------------------------------------ */

static const px_usage report_usage = {
    .synopsis = "report DIR... --out F.html [--group-by KEY] [--methods] [--json]",
    .what = "One HTML page of one or several runs: plots (their data in a CSV file beside it), the keys in which\n"
            "the runs differ, means and spreads of groups; --methods adds a paragraph and a table for a paper.",
    .examples = "  phalanx report runs/stories-ppo --out stories.html\n"
                "  phalanx report runs/seed-* --group-by run.seed --methods --out seeds.html",
    .exits = "0 done, 64 usage, 65 not a run, 74 input/output",
};

px_status px_command_report(int argc, char **argv)
{
    px_words words = {.count = 0};
    const char *out = NULL, *group_by = NULL;
    bool methods = false, json = false, helped;
    const px_option options[] = {
        {"out", PX_OPTION_TEXT, &out, "F.html", "the page; plots' data go to F.csv", 0, 0},
        {"group-by", PX_OPTION_TEXT, &group_by, "KEY", "a curve a value; run.seed: seeds are a group", 0, 0},
        {"methods", PX_OPTION_FLAG, &methods, NULL, "a paragraph and a table for a paper", 0, 0},
        {"json", PX_OPTION_FLAG, &json, NULL, "names what was written, as one object", 0, 0},
    };
    PX_TRY(px_options_parse(&report_usage, options, PX_COUNT(options), argc, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    if (words.count == 0) {
        return px_fail(PX_USAGE, "report: which runs? e.g. phalanx report runs/quickstart --out quickstart.html");
    }
    PX_TRY(px_option_required("report", "out", out));
    px_report_options report = {.paths = words.word, .path_count = words.count, .out = out, .group_by = group_by,
                                .methods = methods, .json = json ? stdout : NULL};
    PX_TRY(px_report(&report));
    return px_output_done();
}
