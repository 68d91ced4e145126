#include "stream.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const px_usage usage = {
    .synopsis = "chat --model DIR [options]",
    .what = "Talks with a model. Each line is a user's turn; answers appear as they are generated. The\n"
            "conversation is kept; when it outgrows the model's context, the oldest turns are forgotten.\n"
            "  /reset forgets the conversation, /system TEXT sets the system message, /quit ends.\n"
            "--json: an answer is a line {\"role\",\"content\",\"tokens\",\"finish_reason\":\"stop|length\"}.",
    .examples = "  phalanx chat --model policy\n  phalanx chat --model policy --system 'Answer briefly.' "
                "--temperature 0.7",
    .exits = "0 done, 64 usage, 65 bad model, 74 input/output",
};

typedef struct settings {
    const char *model, *tokenizer, *template, *system, *precision;
    px_sampling_options sampling;
    px_words stop;
    px_dtype dtype; /* that precision says */
    bool json, helped;
} settings;

static px_status parse(settings *s, int argc, char **argv)
{
    *s = (settings){.template = "auto", .precision = "f32",
                    .sampling = {.max_new_tokens = 512, .temperature = 0.8, .top_p = 0.95, .repetition_penalty = 1.0}};
    const px_option options[] = {
        {"model", PX_OPTION_TEXT, &s->model, "DIR", "Hugging Face directory", 0, 0},
        {"system", PX_OPTION_TEXT, &s->system, "TEXT", "system message", 0, 0},
        {"template", PX_OPTION_TEXT, &s->template, "NAME", "chat template: auto, chatml, llama3, plain, ...", 0, 0},
        {"tokenizer", PX_OPTION_TEXT, &s->tokenizer, "DIR|FILE", "instead of the model's own", 0, 0},
        {"max-new-tokens", PX_OPTION_INT, &s->sampling.max_new_tokens, "N", "longest answer", 1, 1e9},
        {"temperature", PX_OPTION_FLOAT, &s->sampling.temperature, "T", "0 takes the most likely token", 0, 1e6},
        {"top-k", PX_OPTION_INT, &s->sampling.top_k, "K", "only the K most likely tokens; 0: off", 0, 1e9},
        {"top-p", PX_OPTION_FLOAT, &s->sampling.top_p, "P", "only the most likely tokens of mass P; 1: off", 1e-9, 1},
        {"min-p", PX_OPTION_FLOAT, &s->sampling.min_p, "P", "only tokens of P times the most likely one; 0: off", 0, 1},
        {"seed", PX_OPTION_INT, &s->sampling.seed, "S", "other seeds, other answers", 0, 9e15},
        {"stop", PX_OPTION_LIST, &s->stop, "TEXT", "ends an answer before this text, or at this special token", 0, 0},
        {"precision", PX_OPTION_TEXT, &s->precision, "TYPE", "f32 or bf16: of the matrix products", 0, 0},
        {"json", PX_OPTION_FLAG, &s->json, NULL, "an object an answer, when it is whole", 0, 0},
    };
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, NULL, &s->helped));
    if (s->helped) {
        return PX_OK;
    }
    PX_TRY(px_option_required("chat", "model", s->model));
    PX_TRY(px_stops_check("chat", &s->stop));
    return px_precision_read("chat", s->precision, &s->dtype);
}

/* ---- the conversation -------------------------------------------------------------------------------------------- */

enum { MAX_TURNS = 1024 };

typedef struct talk {
    const settings *s;
    px_opened o;
    px_generator *generator;
    int context, room;     /* tokens: of the model, of an answer */
    char *system;
    char *turn[MAX_TURNS]; /* user, assistant, user, ...; owned */
    int turns;
    uint32_t answers;      /* part of the random key, so that equal questions get new answers */
    px_ids ids;
    int32_t *answer;
    float *logprobs;
} talk;

static void forget(talk *t, int count)
{
    for (int i = 0; i < count; i++) {
        px_free(t->turn[i]);
    }
    memmove(t->turn, t->turn + count, (size_t)(t->turns - count) * sizeof *t->turn);
    t->turns -= count;
}

static px_status remember(talk *t, const char *text)
{
    if (t->turns + 1 >= MAX_TURNS) {
        forget(t, 2);
    }
    char *copy = px_strdup(text);
    if (copy == NULL) {
        return px_error_code();
    }
    t->turn[t->turns++] = copy;
    return PX_OK;
}

static px_status encode(talk *t)
{
    px_message messages[MAX_TURNS + 1];
    int count = 0;
    if (t->system != NULL) {
        messages[count++] = (px_message){.role = "system", .content = t->system};
    }
    for (int i = 0; i < t->turns; i++) {
        messages[count++] = (px_message){.role = i % 2 == 0 ? "user" : "assistant", .content = t->turn[i]};
    }
    t->ids.length = 0;
    return px_chat_encode(t->o.renderer, t->o.tokenizer, messages, count, true, &t->ids, NULL);
}

/* Leaves room for an answer by forgetting the oldest question and answer. *fits false: the last question alone is too
 * long. */
static px_status encode_within(talk *t, bool *fits)
{
    PX_TRY(encode(t));
    while (t->ids.length + t->room > t->context && t->turns > 2) {
        forget(t, 2);
        PX_TRY(encode(t));
    }
    *fits = t->ids.length + t->room <= t->context;
    return PX_OK;
}

static px_status print_answer(const talk *t, const px_stream *stream, const px_completion *answer)
{
    if (!t->s->json) {
        putchar('\n');
        return px_output_done();
    }
    PX_TRY(px_print_json(json_pack("{s:s, s:s%, s:i, s:s}", "role", "assistant", "content",
                                   stream->text.data != NULL ? stream->text.data : "", stream->text.length, "tokens",
                                   answer->length, "finish_reason", answer->finish == PX_FINISH_STOP ? "stop" : "length")));
    return px_output_done();
}

static px_status speak(talk *t)
{
    px_stops stops = {.tokenizer = t->o.tokenizer, .words = &t->s->stop};
    px_sampling sampling;
    PX_TRY(px_sampling_make(&sampling, &t->s->sampling, &t->o, &t->s->stop, true));
    sampling.max_new_tokens = t->room;
    sampling.iteration = t->answers++;
    px_request request = {.prompt = t->ids.data, .prompt_length = (int)t->ids.length, .samples = 1};
    px_stream stream = {.tokenizer = t->o.tokenizer, .stops = &stops, .requests = &request, .silent = t->s->json};
    px_completion answer = {.ids = t->answer, .logprobs = t->logprobs};
    double start = px_now();
    px_status status = px_generator_run(t->generator, &t->o.model, &sampling, &request, 1, &answer, px_stream_token,
                                        &stream);
    double seconds = px_now() - start;
    if (status == PX_OK) {
        status = px_stream_end(&stream, 0, &answer);
    }
    if (status == PX_OK) {
        status = print_answer(t, &stream, &answer);
    }
    if (status == PX_OK && px_log_is_terminal()) {
        px_log(PX_INFO, "[%d tokens, %.1f tokens/s%s]", answer.length, answer.length / (seconds > 0.0 ? seconds : 1.0),
               answer.finish == PX_FINISH_LENGTH ? ", cut" : "");
    }
    if (status == PX_OK) {
        status = remember(t, stream.text.data != NULL ? stream.text.data : "");
    }
    px_stream_free(&stream);
    return status;
}

/* One line of input. *over: the user wants to leave. */
static px_status take_line(talk *t, const char *line, bool *over)
{
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) {
        *over = true;
    } else if (strcmp(line, "/reset") == 0) {
        forget(t, t->turns);
        px_log(PX_INFO, "[the conversation is forgotten]");
    } else if (strcmp(line, "/system") == 0 || strncmp(line, "/system ", 8) == 0) {
        px_free(t->system);
        t->system = line[7] != '\0' ? px_strdup(line + 8) : NULL;
        px_log(PX_INFO, t->system != NULL ? "[the system message is set]" : "[no system message]");
    } else if (line[0] == '/') {
        px_log(PX_INFO, "[unknown: %s; valid are /reset, /system TEXT, /quit]", line);
    } else if (px_utf8_valid(line, strlen(line)) < strlen(line)) {
        px_log(PX_INFO, "[that is not UTF-8]");
    } else if (line[0] != '\0') {
        bool fits;
        PX_TRY(remember(t, line));
        PX_TRY(encode_within(t, &fits));
        if (fits) {
            return speak(t);
        }
        px_log(PX_INFO, "[that does not fit: %lld tokens, the model's context is %d]", (long long)t->ids.length,
               t->context);
        px_free(t->turn[--t->turns]);
    }
    return PX_OK;
}

static px_status prepare(talk *t)
{
    if (t->o.tokenizer == NULL) {
        return px_fail(PX_DATA, "%s: no tokenizer.json there; give --tokenizer", t->s->model);
    }
    if (t->o.renderer == NULL) {
        return px_fail(PX_DATA, "%s: no chat template; choose one with --template, e.g. --template chatml",
                                t->s->model);
    }
    t->context = t->o.model.config.max_positions < 32768 ? t->o.model.config.max_positions : 32768;
    int64_t room = t->s->sampling.max_new_tokens;
    t->room = (int)(room < t->context / 2 ? room : t->context / 2);
    t->system = t->s->system != NULL ? px_strdup(t->s->system) : NULL;
    t->answer = px_alloc_array((size_t)t->room, sizeof *t->answer, "an answer");
    t->logprobs = px_alloc_array((size_t)t->room, sizeof *t->logprobs, "an answer");
    if (t->answer == NULL || t->logprobs == NULL) {
        return px_error_code();
    }
    px_generator_plan plan = {.max_slots = 1, .max_length = t->context, .max_prefill = t->context,
                              .threads = t->o.threads, .precision = t->s->dtype};
    return px_generator_create(&t->generator, &t->o.model.config, &plan);
}

/* A signal that asks for the end shall also end the wait for a line: getline comes back without one. */
static void let_signals_wake(void)
{
    static const int asking[] = {SIGINT, SIGTERM, SIGUSR1};
    for (int i = 0; i < PX_COUNT(asking); i++) {
        struct sigaction action;
        if (sigaction(asking[i], NULL, &action) == 0) {
            action.sa_flags &= ~SA_RESTART;
            sigaction(asking[i], &action, NULL);
        }
    }
}

static px_status converse(talk *t)
{
    char *line = NULL;
    size_t capacity = 0;
    bool over = false, terminal = isatty(STDIN_FILENO) == 1;
    px_status status = PX_OK;
    let_signals_wake();
    while (status == PX_OK && !over && px_stop_level() == 0) {
        if (terminal) {
            fputs("> ", stderr);
        }
        ssize_t length = getline(&line, &capacity, stdin);
        if (length < 0 || px_stop_level() > 0) {
            break;
        }
        while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r')) {
            line[--length] = '\0';
        }
        status = take_line(t, line, &over);
    }
    free(line);
    if (status == PX_OK && ferror(stdin) && px_stop_level() == 0) {
        return px_fail(PX_IO, "standard input: %s", strerror(errno));
    }
    return status == PX_STOPPED ? PX_OK : status; /* nothing is lost by leaving a conversation */
}

px_status px_command_chat(int argc, char **argv)
{
    settings s;
    PX_TRY(parse(&s, argc, argv));
    if (s.helped) {
        return PX_OK;
    }
    talk t = {.s = &s};
    PX_TRY(px_opened_load(&t.o, s.model, PX_HEAD_LM, s.tokenizer, s.template));
    px_status status = prepare(&t);
    if (status == PX_OK) {
        status = converse(&t);
    }
    forget(&t, t.turns);
    px_free(t.system);
    px_ids_free(&t.ids);
    px_free(t.answer);
    px_free(t.logprobs);
    px_generator_destroy(t.generator);
    px_opened_free(&t.o);
    return status;
}
