#include "stream.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const px_usage usage = {
    .synopsis = "generate --model DIR (--prompt TEXT | --data F.jsonl) [options]",
    .what = "Completes prompts. With --data each record is a prompt: text, messages, or token ids (prompt_ids),\n"
            "which need no tokenizer. Completions end at the stop ids of the model and the tokenizer; those of prompts\n"
            "in a chat template also at the special token with which it ends an answer. Sampling depends on the seed,\n"
            "the place of the prompt and the number of the sample alone, never on the machine. Text goes to stdout;\n"
            "with --json a line for each sample:\n"
            "{\"prompt_id\",\"sample\",\"ids\",\"text\",\"logprobs\",\"finish_reason\":\"stop|length\"}.",
    .examples = "  phalanx generate --model policy --prompt 'Once upon a time' --temperature 0\n"
                "  phalanx generate --model policy --data prompts.jsonl --samples 4 --json > samples.jsonl",
    .exits = "0 done, 64 usage, 65 bad data or model, 74 input/output, 75 stopped",
};

typedef struct settings {
    const char *model, *prompt, *data, *tokenizer, *template, *system, *precision;
    px_sampling_options sampling;
    int64_t samples;
    px_words stop;
    px_dtype dtype; /* that precision says */
    bool chat, json, helped;
} settings;

static px_status parse(settings *s, int argc, char **argv)
{
    *s = (settings){.template = "auto", .precision = "f32", .samples = 1,
                    .sampling = {.seed = 0, .temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0}};
    const px_option options[] = {
        {"model", PX_OPTION_TEXT, &s->model, "DIR", "Hugging Face directory", 0, 0},
        {"prompt", PX_OPTION_TEXT, &s->prompt, "TEXT", "one prompt", 0, 0},
        {"data", PX_OPTION_TEXT, &s->data, "F.jsonl", "a file of prompts", 0, 0},
        {"max-new-tokens", PX_OPTION_INT, &s->sampling.max_new_tokens, "N",
         "longest completion; 0: 128, or what the context leaves", 0, 1e9},
        {"temperature", PX_OPTION_FLOAT, &s->sampling.temperature, "T", "0 takes the most likely token", 0, 1e6},
        {"top-k", PX_OPTION_INT, &s->sampling.top_k, "K", "only the K most likely tokens; 0: off", 0, 1e9},
        {"top-p", PX_OPTION_FLOAT, &s->sampling.top_p, "P", "only the most likely tokens of mass P; 1: off", 1e-9, 1},
        {"min-p", PX_OPTION_FLOAT, &s->sampling.min_p, "P", "only tokens of P times the most likely one; 0: off", 0, 1},
        {"repetition-penalty", PX_OPTION_FLOAT, &s->sampling.repetition_penalty, "X", "above 1 avoids repeats", 1e-3,
         1e3},
        {"samples", PX_OPTION_INT, &s->samples, "G", "completions of each prompt", 1, 1e6},
        {"seed", PX_OPTION_INT, &s->sampling.seed, "S", "other seeds, other samples", 0, 9e15},
        {"stop", PX_OPTION_LIST, &s->stop, "TEXT", "ends a completion before this text, or at this special token", 0, 0},
        {"chat", PX_OPTION_FLAG, &s->chat, NULL, "prompts are a user's turn, in the model's chat template", 0, 0},
        {"system", PX_OPTION_TEXT, &s->system, "TEXT", "system message, with --chat or messages", 0, 0},
        {"template", PX_OPTION_TEXT, &s->template, "NAME", "chat template: auto, none, chatml, llama3, ...", 0, 0},
        {"tokenizer", PX_OPTION_TEXT, &s->tokenizer, "DIR|FILE", "instead of the model's own", 0, 0},
        {"precision", PX_OPTION_TEXT, &s->precision, "TYPE", "f32 or bf16: of the matrix products", 0, 0},
        {"json", PX_OPTION_FLAG, &s->json, NULL, "a JSON object for each sample", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, NULL, &s->helped));
    if (s->helped) {
        return PX_OK;
    }
    PX_TRY(px_option_required("generate", "model", s->model));
    if ((s->prompt == NULL) == (s->data == NULL)) {
        return px_fail(PX_USAGE, "generate: give one of --prompt TEXT and --data F.jsonl");
    }
    PX_TRY(px_stops_check("generate", &s->stop));
    return px_precision_read("generate", s->precision, &s->dtype);
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

typedef struct prompts {
    px_ids ids;       /* all, one after another */
    px_ids starts;    /* count + 1 */
    int64_t *record;  /* [count] prompt_id */
    int64_t count;
    int longest;
    bool rendered;    /* some are conversations, in the chat template */
} prompts;

static px_status begin_prompts(prompts *p, int64_t count)
{
    p->record = px_alloc_array((size_t)(count > 0 ? count : 1), sizeof *p->record, "prompt numbers");
    return p->record != NULL ? px_ids_add(&p->starts, 0) : px_error_code();
}

static px_status end_prompt(prompts *p, int64_t record)
{
    int64_t length = p->ids.length - p->starts.data[p->count];
    if (length == 0) {
        return px_fail(PX_DATA, "prompt %lld has no tokens; valid are one or more", (long long)record);
    }
    if (p->ids.length > INT32_MAX) {
        return px_fail(PX_DATA, "the prompts have more than 2^31 tokens; cut the file");
    }
    p->longest = length > p->longest ? (int)length : p->longest;
    p->record[p->count++] = record;
    return px_ids_add(&p->starts, (int32_t)p->ids.length);
}

static px_status encode_text(prompts *p, const settings *s, const px_opened *o, const char *text)
{
    if (o->tokenizer == NULL) {
        return px_fail(PX_DATA, "%s: no tokenizer.json there; give --tokenizer, or --data with prompt_ids", s->model);
    }
    if (!s->chat) {
        PX_TRY(px_tokenizer_encode_start(o->tokenizer, text, strlen(text), &p->ids));
        int32_t bos = px_tokenizer_bos(o->tokenizer);
        bool empty = p->ids.length == p->starts.data[p->count];
        return empty && bos >= 0 ? px_ids_add(&p->ids, bos) : PX_OK;
    }
    if (o->renderer == NULL) {
        return px_fail(PX_USAGE, "generate: --chat needs a chat template and %s has none; --template names one, e.g. --template "
                       "chatml", s->model);
    }
    px_message messages[2] = {{.role = "system", .content = s->system}, {.role = "user", .content = text}};
    int first = s->system == NULL;
    p->rendered = true;
    return px_chat_encode(o->renderer, o->tokenizer, messages + first, 2 - first, true, &p->ids, NULL);
}

/* With --chat a record's text is a user's turn; every other row is taken as the data set makes it. */
static px_status add_row(prompts *p, const settings *s, const px_opened *o, const px_row *row)
{
    if (s->chat && row->json != NULL) {
        json_t *record;
        PX_TRY(px_json_parse(row->json, (size_t)row->json_length, s->data, 0, &record));
        const char *text = json_string_value(json_object_get(record, "prompt"));
        px_status status = text != NULL ? encode_text(p, s, o, text) : PX_OK;
        json_decref(record);
        if (status != PX_OK || text != NULL) {
            return status != PX_OK ? status : end_prompt(p, row->record);
        }
    }
    PX_TRY(px_ids_append(&p->ids, row->ids, row->length));
    return end_prompt(p, row->record);
}

static px_status read_prompts(prompts *p, const settings *s, const px_opened *o)
{
    if (s->prompt != NULL) {
        PX_TRY(begin_prompts(p, 1));
        PX_TRY(encode_text(p, s, o, s->prompt));
        return end_prompt(p, 0);
    }
    px_data_options options = {.kind = PX_ROWS_PROMPTS, .tokenizer = o->tokenizer, .renderer = o->renderer,
                               .system = s->system, .vocab_size = o->model.config.vocab_size, .eos_id = -1,
                               .add_bos = true};
    px_dataset *data;
    PX_TRY(px_dataset_load(&data, s->data, &options));
    int64_t count = px_dataset_count(data);
    const px_data_summary *summary = px_dataset_summary(data);
    px_status status = begin_prompts(p, count);
    p->rendered = summary->rendered;
    if (summary->dropped > 0) {
        px_log(PX_NOTE, "%s: %lld of %lld prompts have no token and are left out", s->data, (long long)summary->dropped,
               (long long)summary->records);
    }
    for (int64_t i = 0; i < count && status == PX_OK; i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        status = add_row(p, s, o, &row);
    }
    px_dataset_destroy(data);
    return status;
}

static void free_prompts(prompts *p)
{
    px_ids_free(&p->ids);
    px_ids_free(&p->starts);
    px_free(p->record);
}

static px_status check_ids(const prompts *p, const settings *s, int vocab_size)
{
    for (int64_t i = 0; i < p->ids.length; i++) {
        if (p->ids.data[i] < 0 || p->ids.data[i] >= vocab_size) {
            return px_fail(PX_DATA, "%s: the tokenizer gives id %d, the model has %d; they do not belong together",
                                    s->model,
                           (int)p->ids.data[i], vocab_size);
        }
    }
    return PX_OK;
}

/* The first prompt that leaves a completion no room. */
static px_status refuse_long(const settings *s, const prompts *p, int context)
{
    const int32_t *starts = p->starts.data;
    int64_t i = 0;
    while (starts[i + 1] - starts[i] < context) {
        i++;
    }
    px_fail(PX_DATA, "the prompt has %d tokens; valid are at most %d, for the model's context is %d", (int)(starts[i + 1] - starts[i]),
            context - 1, context);
    return s->data != NULL ? px_fail_within("%s:%lld", s->data, (long long)px_record_line(s->data, p->record[i])) : PX_DATA;
}

static px_status fit_context(settings *s, const prompts *p, int context)
{
    int left = context - p->longest;
    if (left < 1) {
        return refuse_long(s, p, context);
    }
    if (s->sampling.max_new_tokens > left) {
        return px_fail(PX_USAGE, "generate: --max-new-tokens is %lld; the longest prompt has %d tokens and the "
                       "model's context is %d, so at most %d fit", (long long)s->sampling.max_new_tokens, p->longest, context,
                       left);
    }
    if (s->sampling.max_new_tokens == 0) {
        s->sampling.max_new_tokens = left < 128 ? left : 128;
    }
    return PX_OK;
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

enum { CHUNK_SAMPLES = 512, MAX_SLOTS = 64 };

typedef struct work {
    const settings *s;
    const px_opened *o;
    const prompts *p;
    px_sampling sampling;
    px_generator *generator;
    px_stops stops;
    px_stream stream;
    int64_t chunk;             /* prompts run together */
    px_request *requests;      /* [chunk] */
    px_completion *completions; /* [chunk * samples] */
    int32_t *ids;              /* [chunk * samples, max_new_tokens] */
    float *logprobs;
    int64_t tokens;
    double seconds;
} work;

/* at: among the completions of the chunk, whose first prompt is `first`. */
static px_status print_sample(work *w, int at, int64_t first)
{
    const px_completion *c = &w->completions[at];
    int64_t prompt = first + at / w->s->samples, sample = at % w->s->samples;
    bool many = w->p->count * w->s->samples > 1;
    bool text = w->o->tokenizer != NULL;
    for (int i = 0; i < c->length; i++) {
        if (!isfinite(c->logprobs[i])) {
            return px_fail(PX_DATA, "prompt %lld, sample %lld: token %d of the completion has the log-probability %g: the model's logits "
                                    "are not finite, or become so at temperature %g", (long long)w->p->record[prompt],
                           (long long)sample, i, (double)c->logprobs[i], w->s->sampling.temperature);
        }
    }
    if (text) {
        PX_TRY(px_stream_end(&w->stream, at, c));
    }
    if (w->s->json) {
        json_t *ids = json_array(), *logprobs = json_array();
        for (int i = 0; i < c->length; i++) {
            json_array_append_new(ids, json_integer(c->ids[i]));
            json_array_append_new(logprobs, json_real((double)c->logprobs[i]));
        }
        json_t *value = text ? json_stringn(w->stream.text.data != NULL ? w->stream.text.data : "",
                                            w->stream.text.length)
                             : json_null();
        return px_print_json(json_pack("{s:I, s:I, s:o, s:o, s:o, s:s}", "prompt_id", (json_int_t)w->p->record[prompt],
                                       "sample", (json_int_t)sample, "ids", ids, "text", value, "logprobs", logprobs,
                                       "finish_reason", c->finish == PX_FINISH_STOP ? "stop" : "length"));
    }
    if (many) {
        printf("== prompt %lld, sample %lld\n", (long long)w->p->record[prompt], (long long)sample);
    }
    if (text && w->stream.silent) {
        fwrite(w->stream.text.data != NULL ? w->stream.text.data : "", 1, w->stream.text.length, stdout);
    }
    for (int i = 0; !text && i < c->length; i++) {
        printf("%s%d", i > 0 ? " " : "", (int)c->ids[i]);
    }
    putchar('\n');
    return PX_OK;
}

static px_status run_chunk(work *w, int64_t first, int64_t count)
{
    int64_t samples = w->s->samples;
    size_t longest = (size_t)w->sampling.max_new_tokens;
    for (int64_t i = 0; i < count; i++) {
        const int32_t *start = w->p->starts.data + first + i;
        w->requests[i] = (px_request){.prompt = w->p->ids.data + start[0], .prompt_length = (int)(start[1] - start[0]),
                                      .slot = (uint32_t)(first + i), .samples = (int)samples};
    }
    for (int64_t i = 0; i < count * samples; i++) {
        w->completions[i] = (px_completion){.ids = w->ids + (size_t)i * longest,
                                            .logprobs = w->logprobs + (size_t)i * longest};
    }
    bool watched = w->s->stop.count > 0 || !w->stream.silent;
    double start = px_now();
    PX_TRY(px_generator_run(w->generator, &w->o->model, &w->sampling, w->requests, (int)count, w->completions,
                            watched ? px_stream_token : NULL, &w->stream));
    w->seconds += px_now() - start;
    for (int64_t i = 0; i < count * samples; i++) {
        w->tokens += w->completions[i].length;
        PX_TRY(print_sample(w, (int)i, first));
    }
    return px_output_done();
}

static px_status prepare(work *w)
{
    int64_t samples = w->s->samples, all = w->p->count * samples;
    w->chunk = samples < CHUNK_SAMPLES ? CHUNK_SAMPLES / samples : 1;
    w->chunk = w->chunk < w->p->count ? w->chunk : w->p->count;
    size_t together = (size_t)(w->chunk * samples), longest = (size_t)w->sampling.max_new_tokens;
    w->requests = px_alloc_array((size_t)w->chunk, sizeof *w->requests, "requests");
    w->completions = px_alloc_array(together, sizeof *w->completions, "completions");
    w->ids = px_alloc_array(together, longest * sizeof *w->ids, "completions");
    w->logprobs = px_alloc_array(together, longest * sizeof *w->logprobs, "completions");
    if (w->requests == NULL || w->completions == NULL || w->ids == NULL || w->logprobs == NULL) {
        return px_error_code();
    }
    int64_t prompt_tokens = w->p->ids.length < 2048 ? w->p->ids.length : 2048;
    px_generator_plan plan = {.max_slots = (int)(all < MAX_SLOTS ? all : MAX_SLOTS),
                              .max_length = w->p->longest + w->sampling.max_new_tokens,
                              .max_prefill = (int)(prompt_tokens > w->p->longest ? prompt_tokens : w->p->longest),
                              .threads = w->o->threads, .precision = w->o->precision};
    w->stream.requests = w->requests;
    return px_generator_create(&w->generator, &w->o->model.config, &plan);
}

static px_status complete(const settings *s, const px_opened *o, const prompts *p)
{
    work w = {.s = s, .o = o, .p = p,
              .stops = {.tokenizer = o->tokenizer, .words = &s->stop}};
    bool live = !s->json && p->count * s->samples == 1 && isatty(STDOUT_FILENO) == 1;
    w.stream = (px_stream){.tokenizer = o->tokenizer, .stops = &w.stops, .silent = !live};
    px_status status = px_sampling_make(&w.sampling, &s->sampling, o, &s->stop, p->rendered);
    status = status == PX_OK ? prepare(&w) : status;
    for (int64_t i = 0; i < p->count && status == PX_OK; i += w.chunk) {
        int64_t rest = p->count - i;
        px_progress("%lld of %lld prompts", (long long)i, (long long)p->count);
        status = run_chunk(&w, i, rest < w.chunk ? rest : w.chunk);
    }
    px_progress(NULL);
    if (status == PX_OK && px_log_is_terminal()) {
        px_log(PX_INFO, "%lld tokens in %.2f s, %.0f tokens/s", (long long)w.tokens, w.seconds,
               (double)w.tokens / (w.seconds > 0.0 ? w.seconds : 1.0));
    }
    px_stream_free(&w.stream);
    px_generator_destroy(w.generator);
    px_free(w.requests);
    px_free(w.completions);
    px_free(w.ids);
    px_free(w.logprobs);
    return status;
}

px_status px_command_generate(int argc, char **argv)
{
    static settings s;
    PX_TRY(parse(&s, argc, argv));
    if (s.helped) {
        return PX_OK;
    }
    px_opened o;
    PX_TRY(px_opened_load(&o, s.model, PX_HEAD_LM, s.tokenizer, s.template));
    o.precision = s.dtype;
    prompts p = {.count = 0};
    px_status status = PX_OK;
    if (s.stop.count > 0 && o.tokenizer == NULL) {
        status = px_fail(PX_USAGE, "generate: --stop looks into text, but %s has no tokenizer", s.model);
    }
    status = status == PX_OK ? read_prompts(&p, &s, &o) : status;
    status = status == PX_OK ? check_ids(&p, &s, o.model.config.vocab_size) : status;
    status = status == PX_OK ? fit_context(&s, &p, o.model.config.max_positions) : status;
    status = status == PX_OK ? complete(&s, &o, &p) : status;
    free_prompts(&p);
    px_opened_free(&o);
    return status;
}
