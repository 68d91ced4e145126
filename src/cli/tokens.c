#include "cli.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const px_usage usage = {
    .synopsis = "tokens --tokenizer DIR|FILE [--data F.jsonl] [--decode] [--stats] [--chat] [options]",
    .what = "Shows how texts become token ids, and back. Texts are the lines of standard input, or the field text\n"
            "of the records of --data; the answer is one line a text. --decode turns lines of ids (\"1 2 3\",\n"
            "\"[1,2,3]\" or\n"
            "{\"ids\":[...]}) into text. --stats counts the rows of --data as training would see them: the first\n"
            "record says whether they are pairs, rows of a language model or prompts; --as says it where it could be\n"
            "two of them. --chat shows the conversations of --data (messages, conversations or prompt) as the chat\n"
            "template writes them; with --json also their ids, and which of them are learned. Rows for training keep\n"
            "think blocks that a template drops from earlier turns, and end with EOS where it ends answers with no\n"
            "special token.",
    .examples = "  echo 'Once upon a time' | phalanx tokens --tokenizer models/stories260K --json\n"
                "  phalanx tokens --tokenizer models/stories260K --data train.jsonl --stats\n"
                "  phalanx tokens --tokenizer models/Qwen3-0.6B --data chats.jsonl --chat --json",
    .exits = "0 done, 64 usage, 65 bad data or tokenizer, 74 input/output",
};

typedef struct settings {
    const char *path, *data, *field, *template, *as;
    bool decode, stats, chat, prompt, json, no_special, keep_special, helped;
    int64_t max_tokens, memory_mib;
    px_tokenizer *tokenizer;
    const px_renderer *renderer;
    px_ids ids, mask;
    px_buf text;
} settings;

static px_status show_ids(settings *s, const char *text, size_t length)
{
    s->ids.length = 0;
    PX_TRY(px_tokenizer_encode(s->tokenizer, text, length, !s->no_special, &s->ids));
    if (!s->json) {
        for (int64_t i = 0; i < s->ids.length; i++) {
            printf("%s%d", i > 0 ? " " : "", (int)s->ids.data[i]);
        }
        putchar('\n');
        return PX_OK;
    }
    json_t *ids = json_array(), *tokens = json_array();
    for (int64_t i = 0; i < s->ids.length; i++) {
        const char *token = px_tokenizer_token(s->tokenizer, s->ids.data[i]);
        json_array_append_new(ids, json_integer(s->ids.data[i]));
        json_array_append_new(tokens, token != NULL ? json_string(token) : json_null());
    }
    return px_print_json(json_pack("{s:o, s:o}", "ids", ids, "tokens", tokens));
}

static px_status show_text(settings *s)
{
    px_buf_clear(&s->text);
    PX_TRY(px_tokenizer_decode(s->tokenizer, s->ids.data, s->ids.length, !s->keep_special, &s->text));
    const char *text = s->text.data != NULL ? s->text.data : "";
    if (s->json) {
        return px_print_json(json_pack("{s:o}", "text", json_stringn(text, s->text.length)));
    }
    fwrite(text, 1, s->text.length, stdout);
    putchar('\n');
    return PX_OK;
}

/* Every number of the line is an id, whatever stands between: "1 2 3", "[1, 2]" and {"ids":[1,2]} alike. */
static px_status read_ids(settings *s, const char *name, int64_t line, const char *text)
{
    s->ids.length = 0;
    const char *list = strstr(text, "ids\"");
    const char *p = list != NULL ? list + 4 : text;
    for (p += strspn(p, " :[,\t"); *p != '\0' && *p != ']'; p += strspn(p, " ,\t")) {
        char *end;
        long long id = strtoll(p, &end, 10);
        if (end == p || id < 0 || id >= px_tokenizer_size(s->tokenizer)) {
            return px_fail(PX_DATA, "%s:%lld: '%.20s' is no id; valid are numbers from 0 to %d", name, (long long)line,
                           p, px_tokenizer_size(s->tokenizer) - 1);
        }
        PX_TRY(px_ids_add(&s->ids, (int32_t)id));
        p = end;
    }
    return PX_OK;
}

static px_status each_line(settings *s)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    px_status status = PX_OK;
    for (int64_t number = 1; status == PX_OK && (length = getline(&line, &capacity, stdin)) >= 0; number++) {
        if (length > 0 && line[length - 1] == '\n') {
            line[--length] = '\0';
        }
        if (s->decode) {
            status = read_ids(s, "standard input", number, line);
            status = status == PX_OK ? show_text(s) : status;
        } else {
            status = show_ids(s, line, (size_t)length);
            if (status != PX_OK) {
                px_fail_within("standard input:%lld", (long long)number);
            }
        }
    }
    free(line);
    return status == PX_OK && ferror(stdin) ? px_fail(PX_IO, "standard input: %s", strerror(errno)) : status;
}

static px_status each_record(void *arg, int64_t record, int64_t line, const char *json, size_t length)
{
    settings *s = arg;
    json_t *object;
    (void)record;
    PX_TRY(px_json_parse(json, length, s->data, line > 0 ? line - 1 : 0, &object));
    json_t *value = json_object_get(object, s->decode ? "ids" : s->field);
    px_status status;
    if (s->decode && json_is_array(value)) {
        char *text = json_dumps(value, JSON_COMPACT);
        status = text != NULL ? read_ids(s, s->data, line, text) : px_fail(PX_BUG, "ids cannot be written");
        status = status == PX_OK ? show_text(s) : status;
        free(text);
    } else if (!s->decode && json_is_string(value)) {
        status = show_ids(s, json_string_value(value), json_string_length(value));
    } else {
        status = px_fail(PX_DATA, "%s:%lld: no field '%s' with %s", s->data, (long long)line,
                         s->decode ? "ids" : s->field,
                         s->decode ? "a list of ids" : "a text; --field names another");
    }
    json_decref(object);
    return status;
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static const char *const kind_names[] = {[PX_ROWS_LM] = "lm", [PX_ROWS_PAIRS] = "pairs", [PX_ROWS_PROMPTS] = "prompts"};

static px_status choose_kind(const settings *s, px_kind *kind)
{
    if (s->as == NULL) {
        return px_dataset_kind(s->data, kind);
    }
    for (int i = 0; i < PX_COUNT(kind_names); i++) {
        if (strcmp(s->as, kind_names[i]) == 0) {
            *kind = (px_kind)i;
            return PX_OK;
        }
    }
    return px_fail(PX_USAGE, "tokens: --as %s; valid are lm, pairs and prompts", s->as);
}

static px_status print_stats(const settings *s, px_kind kind, const px_data_summary *d)
{
    int last = PX_COUNT(d->histogram);
    while (last > 0 && d->histogram[last - 1] == 0) {
        last--;
    }
    if (s->json) {
        json_t *histogram = json_array();
        for (int i = 0; i < last; i++) {
            json_array_append_new(histogram, json_integer(d->histogram[i]));
        }
        return px_print_json(json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:f, s:I, s:o}", "kind", kind_names[kind],
                                       "shape", d->shape, "records", (json_int_t)d->records, "rows", (json_int_t)d->rows, "cut", (json_int_t)d->cut,
                                       "dropped_long", (json_int_t)d->dropped_long, "dropped_equal",
                                       (json_int_t)d->dropped_equal, "dropped_empty",
                                       (json_int_t)d->dropped_empty, "tokens", (json_int_t)d->tokens,
                                       "min_length", d->min_length, "max_length", d->max_length, "mean_length",
                                       d->mean_length, "duplicate_prompts", (json_int_t)d->duplicate_prompts,
                                       "histogram", histogram));
    }
    printf("kind               %s\nshape              %s\nrecords            %lld\nrows               %lld\n", kind_names[kind],
           d->shape, (long long)d->records, (long long)d->rows);
    printf("cut                %lld\ndropped            %lld: %lld too long, %lld with equal sides, %lld with nothing to "
           "learn\ntokens             %lld\n", (long long)d->cut, (long long)d->dropped, (long long)d->dropped_long,
           (long long)d->dropped_equal, (long long)d->dropped_empty, (long long)d->tokens);
    printf("length             %d to %d, mean %.1f\nduplicate prompts  %lld\n\nlength of rows     count\n",
           d->min_length,
           d->max_length, d->mean_length, (long long)d->duplicate_prompts);
    for (int i = 0; i < last; i++) {
        printf("%7lld - %-8lld %6lld  ", 1LL << i, (2LL << i) - 1, (long long)d->histogram[i]);
        int bar = d->rows > 0 ? (int)(50 * d->histogram[i] / d->rows) : 0;
        for (int k = 0; k < bar; k++) {
            putchar('#');
        }
        putchar('\n');
    }
    return PX_OK;
}

static px_status show_stats(settings *s)
{
    px_dataset *data;
    px_data_options options = {.tokenizer = s->tokenizer, .renderer = s->renderer, .eos_id = -1, .add_bos = true,
                               .max_tokens = (int)s->max_tokens};
    if (s->tokenizer != NULL) {
        options.eos_id = px_tokenizer_eos(s->tokenizer);
    }
    PX_TRY(choose_kind(s, &options.kind));
    PX_TRY(px_data_load(&data, s->data, &options, s->memory_mib));
    px_status status = print_stats(s, options.kind, px_dataset_summary(data));
    px_dataset_destroy(data);
    return status;
}

/* ---- conversations ----------------------------------------------------------------------------------------------- */

static json_t *ids_json(const px_ids *ids)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < ids->length; i++) {
        json_array_append_new(list, json_integer(ids->data[i]));
    }
    return list;
}

static px_status show_conversation(settings *s, const json_t *record)
{
    s->ids.length = s->mask.length = 0;
    px_buf_clear(&s->text);
    PX_TRY(px_chat_record(s->renderer, s->tokenizer, record, s->prompt, &s->text, &s->ids, &s->mask));
    if (s->json) {
        return px_print_json(json_pack("{s:s%, s:o, s:o}", "text", s->text.data != NULL ? s->text.data : "", s->text.length,
                                       "ids", ids_json(&s->ids), "mask", ids_json(&s->mask)));
    }
    fwrite(s->text.data, 1, s->text.length, stdout);
    putchar('\n');
    return PX_OK;
}

static px_status each_conversation(void *arg, int64_t number, int64_t line, const char *json, size_t length)
{
    settings *s = arg;
    json_t *record;
    (void)number;
    PX_TRY(px_json_parse(json, length, s->data, line - 1, &record));
    px_status status = show_conversation(s, record);
    json_decref(record);
    return status == PX_OK ? status : px_fail_within("%s:%lld", s->data, (long long)line);
}

static px_status show_conversations(settings *s)
{
    if (s->renderer == NULL) {
        return px_fail(PX_USAGE, "tokens: --chat needs a chat template and %s has none; --template names one, e.g. --template "
                       "chatml", s->path);
    }
    return px_records_each(s->data, each_conversation, s);
}

static px_status show(settings *s)
{
    if (s->path == NULL && !(s->stats && s->data != NULL)) {
        return px_option_required("tokens", "tokenizer", s->path);
    }
    if ((s->stats || s->chat) && s->data == NULL) {
        return px_fail(PX_USAGE, "tokens: --%s reads the records of a file; give --data F.jsonl", s->stats ? "stats" : "chat");
    }
    if (s->path != NULL) {
        PX_TRY(px_tokenizer_load(&s->tokenizer, s->path));
    }
    if (s->tokenizer != NULL && (s->stats || s->chat)) {
        PX_TRY(px_template_read(&s->renderer, s->template, s->tokenizer));
    }
    if (s->stats || s->chat) {
        return s->stats ? show_stats(s) : show_conversations(s);
    }
    return s->data != NULL ? px_records_each(s->data, each_record, s) : each_line(s);
}

px_status px_command_tokens(int argc, char **argv)
{
    settings s = {.field = "text", .template = "auto", .memory_mib = PX_DATA_MEMORY_MIB};
    const px_option options[] = {
        {"tokenizer", PX_OPTION_TEXT, &s.path, "DIR|FILE", "tokenizer.json, or a directory that has one", 0, 0},
        {"data", PX_OPTION_TEXT, &s.data, "F.jsonl", "records instead of standard input", 0, 0},
        {"field", PX_OPTION_TEXT, &s.field, "NAME", "the text of a record", 0, 0},
        {"decode", PX_OPTION_FLAG, &s.decode, NULL, "ids to text", 0, 0},
        {"stats", PX_OPTION_FLAG, &s.stats, NULL, "lengths of the rows of --data", 0, 0},
        {"no-special", PX_OPTION_FLAG, &s.no_special, NULL, "do not add BOS and the like", 0, 0},
        {"keep-special", PX_OPTION_FLAG, &s.keep_special, NULL, "--decode shows special tokens too", 0, 0},
        {"as", PX_OPTION_TEXT, &s.as, "KIND", "--stats: rows to make of the records: lm, pairs or prompts", 0, 0},
        {"chat", PX_OPTION_FLAG, &s.chat, NULL, "conversations of --data as the chat template writes them", 0, 0},
        {"generation-prompt", PX_OPTION_FLAG, &s.prompt, NULL, "--chat: end with the header of an answer", 0, 0},
        {"template", PX_OPTION_TEXT, &s.template, "NAME", "--stats, --chat: chat template of conversations", 0, 0},
        {"max-tokens", PX_OPTION_INT, &s.max_tokens, "N", "--stats: as data.max_tokens; 0: no limit", 0, 10000000},
        {"memory-mib", PX_OPTION_INT, &s.memory_mib, "N", "--stats: ids of a larger file lie in temporary files", 0, 1e9},
        {"json", PX_OPTION_FLAG, &s.json, NULL, "{\"ids\",\"tokens\"} a line", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, NULL, &s.helped));
    px_status status = s.helped ? PX_OK : show(&s);
    px_tokenizer_destroy(s.tokenizer);
    px_ids_free(&s.ids);
    px_ids_free(&s.mask);
    px_buf_free(&s.text);
    return status == PX_OK ? px_output_done() : status;
}
