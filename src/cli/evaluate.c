/* phalanx evaluate: what kind of evaluation it is follows from the options and the model. */
#include "evaluate.h"
#include "phalanx/compute.h"
#include "phalanx/dist.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const px_usage usage = {
    .synopsis = "evaluate (--model DIR | --rewards LIST) --data F.jsonl [options]",
    .what = "A language model: mean negative log-likelihood per token of texts; of completions only, where\n"
            "records have a prompt and a completion. A text longer than the model's context (or --max-tokens) is\n"
            "evaluated in pieces, as pretraining's held-out loss is (pieces: how many there are of all rows); a\n"
            "longer completion or conversation loses its end (cut: how many), since the rest of it would stand\n"
            "without its prompt. A reward model with preference pairs: accuracy and margin.\n"
            "--rewards: rule rewards of given completions (fields prompt, completion or text), a list of\n"
            "lexicon:FILE, length:TOKENS, regex:PATTERN, exact:FIELD, exec:COMMAND, separated by commas. Under\n"
            "mpirun the ranks share the records; the result has the same bits on any number of them.",
    .examples = "  phalanx evaluate --model policy --data heldout.jsonl --json\n"
                "  phalanx evaluate --model reward --data pairs.jsonl --per-record scores.jsonl\n"
                "  phalanx evaluate --rewards lexicon:words.txt,length:40 --data samples.jsonl --tokenizer policy",
    .exits = "0 done, 64 usage, 65 bad data or model, 74 input/output, 75 stopped, 78 a reward that cannot be used",
};

static px_status parse(px_evaluation *e, int argc, char **argv)
{
    *e = (px_evaluation){.template = "auto", .precision = "f32", .memory_mib = PX_DATA_MEMORY_MIB};
    const px_option options[] = {
        {"model", PX_OPTION_TEXT, &e->model, "DIR", "language model or reward model, a Hugging Face directory", 0, 0},
        {"data", PX_OPTION_TEXT, &e->data, "F.jsonl", "records", 0, 0},
        {"rewards", PX_OPTION_LIST, &e->rewards, "LIST", "rule rewards of given completions", 0, 0},
        {"per-record", PX_OPTION_TEXT, &e->per_record, "OUT.jsonl", "a line for each row beside the summary", 0, 0},
        {"max-tokens", PX_OPTION_INT, &e->max_tokens, "N", "longest row, texts go on in another; 0: the model's context", 0, 1e9},
        {"memory-mib", PX_OPTION_INT, &e->memory_mib, "N", "token ids of a larger file lie in temporary files", 0, 1e9},
        {"tokenizer", PX_OPTION_TEXT, &e->tokenizer, "DIR|FILE", "instead of the model's own", 0, 0},
        {"template", PX_OPTION_TEXT, &e->template, "NAME", "chat template: auto, none, chatml, llama3, ...", 0, 0},
        {"precision", PX_OPTION_TEXT, &e->precision, "TYPE", "f32 or bf16: of the matrix products", 0, 0},
        {"json", PX_OPTION_FLAG, &e->json, NULL, "one JSON object", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, NULL, &e->helped));
    if (e->helped) {
        return PX_OK;
    }
    PX_TRY(px_option_required("evaluate", "data", e->data));
    if ((e->model == NULL) == (e->rewards.count == 0)) {
        return px_fail(PX_USAGE, "evaluate: give one of --model DIR and --rewards LIST");
    }
    if (e->per_record != NULL && px_same_file(e->per_record, e->data)) {
        return px_fail(PX_USAGE, "evaluate: --per-record %s is the data itself; valid is another file", e->per_record);
    }
    return px_precision_read("evaluate", e->precision, &e->dtype);
}

/* One row of the table, or one member of the object. */
px_status px_evaluation_print(const px_evaluation *e, json_t *summary)
{
    if (px_dist_rank() != 0) {
        json_decref(summary);
        return PX_OK;
    }
    if (e->json || summary == NULL) {
        PX_TRY(px_print_json(summary));
        return px_output_done();
    }
    const char *key;
    json_t *value;
    json_object_foreach(summary, key, value) {
        if (json_is_object(value)) {
            const char *name;
            json_t *row;
            json_object_foreach(value, name, row) {
                json_t *mean = json_object_get(row, "mean"), *std = json_object_get(row, "std");
                json_t *lost = json_object_get(row, "failed");
                printf("%-24s mean %-12.6g std %-12.6g failed %lld\n", name, json_number_value(mean),
                       json_number_value(std), (long long)json_integer_value(lost));
            }
        } else if (json_is_integer(value)) {
            printf("%-24s %lld\n", key, (long long)json_integer_value(value));
        } else if (json_is_number(value)) {
            printf("%-24s %.6g\n", key, json_number_value(value));
        } else if (json_is_string(value)) {
            printf("%-24s %s\n", key, json_string_value(value));
        }
    }
    json_decref(summary);
    return px_output_done();
}

/* The model's part: which kind it is decides what the records must be. */
static px_status evaluate_model(px_evaluation *e)
{
    px_model_config config;
    PX_TRY(px_model_config_read(e->model, &config));
    bool classifier = config.head == PX_HEAD_SCALAR;
    px_opened o;
    PX_TRY(px_opened_load(&o, e->model, classifier ? PX_HEAD_SCALAR : PX_HEAD_LM, e->tokenizer, e->template));
    o.precision = e->dtype;
    px_data_options options = {.kind = classifier ? PX_ROWS_PAIRS : PX_ROWS_LM, .tokenizer = o.tokenizer,
                               .renderer = o.renderer, .vocab_size = config.vocab_size, .add_bos = true,
                               .whole = true, .eos_id = o.tokenizer != NULL ? px_tokenizer_eos(o.tokenizer) : -1};
    if (options.eos_id < 0 && config.eos_count > 0) {
        options.eos_id = config.eos_ids[0];
    }
    bool limited = e->max_tokens > 0 && e->max_tokens < config.max_positions;
    options.max_tokens = e->longest = limited ? (int)e->max_tokens : config.max_positions;
    px_dataset *data;
    px_status status = px_data_load(&data, e->data, &options, e->memory_mib);
    if (status == PX_OK) {
        o.threads = o.threads / px_dist_local_size() > 0 ? o.threads / px_dist_local_size() : 1;
        status = classifier ? px_evaluate_pairs(e, &o, data) : px_evaluate_texts(e, &o, data);
        px_dataset_destroy(data);
    }
    px_opened_free(&o);
    return status;
}

px_status px_command_evaluate(int argc, char **argv)
{
    static px_evaluation e;
    PX_TRY(parse(&e, argc, argv));
    if (e.helped) {
        return PX_OK;
    }
    if (e.rewards.count > 0) {
        return px_launch_rank() == 0 ? px_evaluate_rewards(&e) : PX_OK; /* one process's work */
    }
    PX_TRY(px_dist_start(&argc, &argv));
    double level = px_compute_level();
    px_min_f64(&level, 1); /* all ranks compute the same numbers */
    px_compute_limit((int)level);
    return evaluate_model(&e);
}
