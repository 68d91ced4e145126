#include "cli.h"
#include "phalanx/config.h"
#include "phalanx/roles.h"

#include <stdio.h>

static const px_usage usage = {
    .synopsis = "config CONFIG [--set a.b=v]... [--diff] | --schema | --markdown | --metrics | --keys [GROUP]",
    .what = "Prints the configuration as a run would see it: defaults, the file with its includes, then --set.\n"
            "Every problem is named with file, line and column, all at once. The output, JSON as well, loads\n"
            "to the same configuration.",
    .examples = "  phalanx config configs/quickstart.yaml --set training.lr=1e-6 --diff\n"
                "  phalanx config --schema > phalanx.schema.json\n"
                "  phalanx config --keys training",
    .exits = "0 done, 64 usage, 74 the file cannot be read, 78 configuration",
};

static px_status resolved(const char *path, const px_words *sets, bool diff, bool json, px_buf *out)
{
    px_config_source source = {path, sets->word, sets->count};
    px_config *config;
    PX_TRY(px_config_load(&config, &source));
    px_status status = json ? px_config_json(config, out) : px_config_dump(config, diff, out);
    px_config_destroy(config);
    return status;
}

px_status px_command_config(int argc, char **argv)
{
    px_words words = {.count = 0}, sets = {.count = 0};
    bool diff = false, schema = false, markdown = false, metrics = false, keys = false, json = false, helped;
    const px_option options[] = {
        {"set", PX_OPTION_LIST, &sets, "KEY=VALUE", "overrides a key, e.g. training.lr=1e-6", 0, 0},
        {"diff", PX_OPTION_FLAG, &diff, NULL, "only what differs from the defaults", 0, 0},
        {"schema", PX_OPTION_FLAG, &schema, NULL, "the JSON schema of the file, for editors", 0, 0},
        {"markdown", PX_OPTION_FLAG, &markdown, NULL, "all keys as a page of documentation", 0, 0},
        {"metrics", PX_OPTION_FLAG, &metrics, NULL, "all metrics as a page of documentation", 0, 0},
        {"keys", PX_OPTION_FLAG, &keys, NULL, "all keys, or those of the group given as argument", 0, 0},
        {"json", PX_OPTION_FLAG, &json, NULL, "the resolved file as JSON; without a file the schema", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, &words, &helped));
    if (helped) {
        return PX_OK;
    }
    const char *word = words.count > 0 ? words.word[0] : NULL;
    px_buf out = {0};
    px_status status;
    if (words.count > 1) {
        status = px_fail(PX_USAGE, "config: one file at a time, '%s' is too much", words.word[1]);
    } else if (schema || (json && word == NULL)) {
        status = px_config_schema(&out);
    } else if (markdown) {
        status = px_config_markdown(&out);
    } else if (metrics) {
        status = px_metrics_markdown(&out);
    } else if (keys) {
        status = px_config_help(&out, word);
    } else if (word == NULL) {
        status = px_fail(PX_USAGE, "config: which file? e.g. phalanx config configs/quickstart.yaml");
    } else if (json && diff) {
        status = px_fail(PX_USAGE, "config: --diff prints YAML; valid is one of --diff and --json");
    } else {
        status = resolved(word, &sets, diff, json, &out);
    }
    if (status == PX_OK && out.length > 0) {
        fwrite(out.data, 1, out.length, stdout);
        status = px_output_done();
    }
    px_buf_free(&out);
    return status;
}
