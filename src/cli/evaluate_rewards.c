/* Rule rewards of completions that are there already. */
#include "evaluate.h"
#include "phalanx/rewards.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SPECS = 16, MAX_COMMAND = 32 };

typedef struct spec_list {
    px_reward_spec spec[MAX_SPECS];
    const char *command[MAX_SPECS][MAX_COMMAND + 1];
    int count;
} spec_list;

static const struct {
    const char *name;
    px_reward_kind kind;
} kinds[] = {{"lexicon", PX_REWARD_LEXICON}, {"length", PX_REWARD_LENGTH}, {"regex", PX_REWARD_REGEX},
             {"exact", PX_REWARD_EXACT},     {"exec", PX_REWARD_EXEC}};

static int kind_at(const char *text, size_t *after)
{
    for (int i = 0; i < PX_COUNT(kinds); i++) {
        size_t length = strlen(kinds[i].name);
        if (strncmp(text, kinds[i].name, length) == 0 && text[length] == ':') {
            *after = length + 1;
            return i;
        }
    }
    return -1;
}

static px_status set_value(spec_list *list, px_reward_spec *spec, char *value)
{
    char *end;
    switch (spec->kind) {
    case PX_REWARD_LEXICON:
        spec->file = value;
        return PX_OK;
    case PX_REWARD_LENGTH:
        spec->target = strtod(value, &end);
        return *value != '\0' && *end == '\0'
                   ? PX_OK : px_fail(PX_USAGE, "evaluate: length:%s; valid is a number of tokens", value);
    case PX_REWARD_REGEX:
        spec->pattern = value;
        return PX_OK;
    case PX_REWARD_EXACT:
        spec->field = value;
        return PX_OK;
    case PX_REWARD_EXEC:
    case PX_REWARD_MODEL:
        break;
    }
    int words = 0;
    char *rest = value;
    for (char *word; words < MAX_COMMAND && (word = strtok_r(rest, " ", &rest)) != NULL; words++) {
        list->command[list->count][words] = word;
    }
    if (words == MAX_COMMAND && strtok_r(rest, " ", &rest) != NULL) {
        return px_fail(PX_USAGE, "evaluate: exec:%s has more than %d words; valid are fewer, or a script that has them",
                       list->command[list->count][0], MAX_COMMAND);
    }
    spec->command = list->command[list->count];
    spec->timeout_s = 60.0;
    spec->dir = ".";
    return PX_OK;
}

/* "lexicon:a.txt,exact:answer": a comma ends a source only where another kind follows, so patterns may have commas. */
static px_status add_specs(spec_list *list, char *text)
{
    while (*text != '\0') {
        size_t after;
        int kind = kind_at(text, &after);
        if (kind < 0) {
            return px_fail(PX_USAGE, "evaluate: --rewards '%s'; valid are lexicon:FILE, length:TOKENS, regex:PATTERN, "
                           "exact:FIELD, exec:COMMAND, separated by commas", text);
        }
        if (list->count == MAX_SPECS) {
            return px_fail(PX_USAGE, "evaluate: more than %d rewards", MAX_SPECS);
        }
        char *value = text + after, *comma = value;
        size_t unused;
        while ((comma = strchr(comma, ',')) != NULL && kind_at(comma + 1, &unused) < 0) {
            comma++;
        }
        text = comma != NULL ? comma + 1 : value + strlen(value);
        if (comma != NULL) {
            *comma = '\0';
        }
        px_reward_spec *spec = &list->spec[list->count];
        *spec = (px_reward_spec){.name = kinds[kind].name, .kind = kinds[kind].kind, .weight = 1.0};
        PX_TRY(set_value(list, spec, value));
        list->count++;
    }
    return PX_OK;
}

/* Two sources of one kind are told apart by a number. */
static void number_names(spec_list *list, char (*names)[32])
{
    for (int i = 0; i < list->count; i++) {
        int before = 0;
        for (int j = 0; j < i; j++) {
            before += list->spec[j].kind == list->spec[i].kind;
        }
        snprintf(names[i], 32, before > 0 ? "%s_%d" : "%s", list->spec[i].name, before + 1);
    }
    for (int i = 0; i < list->count; i++) {
        list->spec[i].name = names[i];
    }
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

typedef struct texts {
    const px_evaluation *e;
    px_rewards *rewards;
    px_tokenizer *tokenizer; /* NULL: completions are not counted in tokens */
    px_buf bytes;            /* prompt, completion and record of each sample, NUL-terminated */
    size_t *place;           /* [count][3] */
    int *tokens;             /* [count] */
    int64_t count, capacity;
    px_ids ids;
} texts;

static px_status grow(texts *t)
{
    if (t->count < t->capacity) {
        return PX_OK;
    }
    t->capacity = t->capacity > 0 ? 2 * t->capacity : 1024;
    size_t *place = px_realloc(t->place, (size_t)t->capacity * 3 * sizeof *place, "samples");
    t->place = place != NULL ? place : t->place;
    int *tokens = px_realloc(t->tokens, (size_t)t->capacity * sizeof *tokens, "samples");
    t->tokens = tokens != NULL ? tokens : t->tokens;
    return place != NULL && tokens != NULL ? PX_OK : px_error_code();
}

static px_status keep(texts *t, int which, const char *text, size_t length)
{
    t->place[3 * t->count + which] = t->bytes.length;
    PX_TRY(px_buf_add(&t->bytes, text, length));
    return px_buf_add(&t->bytes, "", 1);
}

static px_status take_record(void *arg, int64_t record, int64_t line, const char *json, size_t length)
{
    texts *t = arg;
    json_t *object;
    (void)record;
    PX_TRY(px_json_parse(json, length, t->e->data, line > 0 ? line - 1 : 0, &object));
    const char *prompt = json_string_value(json_object_get(object, "prompt"));
    const char *completion = json_string_value(json_object_get(object, "completion"));
    if (completion == NULL) {
        completion = json_string_value(json_object_get(object, "text"));
    }
    px_status status = grow(t);
    if (completion == NULL) {
        status = px_fail(PX_DATA, "%s:%lld: no completion; valid is a text in the field completion or text", t->e->data,
                         (long long)line);
    }
    if (status == PX_OK && px_rewards_check(t->rewards, json) != PX_OK) {
        status = px_fail_within("%s:%lld", t->e->data, (long long)line);
    }
    prompt = prompt != NULL ? prompt : "";
    status = status == PX_OK ? keep(t, 0, prompt, strlen(prompt)) : status;
    status = status == PX_OK ? keep(t, 1, completion, strlen(completion)) : status;
    status = status == PX_OK ? keep(t, 2, json, length) : status;
    if (status == PX_OK && t->tokenizer != NULL) {
        t->ids.length = 0;
        status = px_tokenizer_encode(t->tokenizer, completion, strlen(completion), false, &t->ids);
        t->tokens[t->count] = (int)t->ids.length;
    }
    t->count += status == PX_OK;
    json_decref(object);
    return status;
}

static void free_texts(texts *t)
{
    px_tokenizer_destroy(t->tokenizer);
    px_buf_free(&t->bytes);
    px_free(t->place);
    px_free(t->tokens);
    px_ids_free(&t->ids);
}

/* ---- summary ----------------------------------------------------------------------------------------------------- */

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *describe(const double *values, int64_t count)
{
    double n = 0.0, mean = 0.0, square = 0.0, low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(values[i])) {
            double delta = values[i] - mean;
            mean += delta / ++n;
            square += delta * (values[i] - mean);
            low = fmin(low, values[i]);
            high = fmax(high, values[i]);
        }
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:I}", "mean", number_or_null(n > 0 ? mean : NAN), "std",
                     number_or_null(n > 1 ? sqrt(square / (n - 1)) : NAN), "min", number_or_null(low), "max",
                     number_or_null(high), "failed", (json_int_t)(count - (int64_t)n));
}

static px_status write_records(const px_evaluation *e, const spec_list *list, const double *raw, int64_t count)
{
    FILE *out = fopen(e->per_record, "we");
    if (out == NULL) {
        return px_fail(PX_IO, "%s: cannot write: %m", e->per_record);
    }
    bool fine = true;
    for (int64_t i = 0; i < count && fine; i++) {
        json_t *scores = json_object();
        for (int k = 0; k < list->count; k++) {
            json_object_set_new(scores, list->spec[k].name, number_or_null(raw[(size_t)k * (size_t)count + (size_t)i]));
        }
        json_t *line = json_pack("{s:o}", "rewards", scores);
        fine = json_dumpf(line, out, JSON_COMPACT) == 0 && fputc('\n', out) != EOF;
        json_decref(line);
    }
    fine = fclose(out) == 0 && fine;
    return fine ? PX_OK : px_fail(PX_IO, "%s: cannot write", e->per_record);
}

/* A source that scores nothing at all is no result. */
static px_status check_scored(const spec_list *list, const double *raw, int64_t count, const px_buf *events)
{
    for (int k = 0; k < list->count; k++) {
        int64_t i = 0;
        while (i < count && isnan(raw[k * count + i])) {
            i++;
        }
        if (i == count && count > 0) {
            return px_fail(PX_DATA, "reward '%s' gave none of %lld records a score: %.*s", list->spec[k].name,
                           (long long)count, (int)strcspn(events->data, "\n"), events->data);
        }
    }
    return PX_OK;
}

static px_status score(const px_evaluation *e, const spec_list *list, const texts *t)
{
    size_t count = (size_t)t->count;
    px_reward_sample *samples = px_alloc_array(count + 1, sizeof *samples, "samples");
    double *raw = px_alloc_array((count + 1) * (size_t)list->count, sizeof *raw, "scores");
    px_buf events = {0};
    px_status status = samples != NULL && raw != NULL ? PX_OK : px_error_code();
    for (size_t i = 0; i < count && status == PX_OK; i++) {
        samples[i] = (px_reward_sample){t->bytes.data + t->place[3 * i], t->bytes.data + t->place[3 * i + 1],
                                        t->tokens[i], t->bytes.data + t->place[3 * i + 2], (int)i};
    }
    if (status == PX_OK) {
        status = px_rewards_score(t->rewards, samples, (int)count, raw, &events);
    }
    if (status == PX_OK && events.length > 0) {
        status = check_scored(list, raw, t->count, &events);
    }
    if (status == PX_OK && events.length > 0) {
        px_log(PX_WARNING, "not all went well, first: %.*s", (int)strcspn(events.data, "\n"), events.data);
    }
    if (status == PX_OK && e->per_record != NULL) {
        status = write_records(e, list, raw, t->count);
    }
    if (status == PX_OK) {
        json_t *all = json_object();
        for (int k = 0; k < list->count; k++) {
            json_object_set_new(all, list->spec[k].name, describe(raw + (size_t)k * count, t->count));
        }
        status = px_evaluation_print(e, json_pack("{s:o, s:I}", "rewards", all, "records", (json_int_t)t->count));
    }
    px_buf_free(&events);
    px_free(samples);
    px_free(raw);
    return status;
}

static px_status read_specs(const px_evaluation *e, spec_list *list, char **copies)
{
    for (int i = 0; i < e->rewards.count; i++) {
        copies[i] = px_strdup(e->rewards.word[i]);
        if (copies[i] == NULL) {
            return px_error_code();
        }
        PX_TRY(add_specs(list, copies[i]));
    }
    if (list->count == 0) {
        return px_fail(PX_USAGE, "evaluate: --rewards is empty; valid is a list such as lexicon:FILE,length:TOKENS");
    }
    for (int i = 0; i < list->count; i++) {
        if (list->spec[i].kind == PX_REWARD_LENGTH && e->tokenizer == NULL) {
            return px_fail(PX_USAGE, "evaluate: length counts tokens; give --tokenizer DIR|FILE");
        }
    }
    return PX_OK;
}

px_status px_evaluate_rewards(const px_evaluation *e)
{
    static spec_list list;
    static char *copies[PX_MAX_WORDS], names[MAX_SPECS][32];
    texts t = {.e = e};
    px_status status = read_specs(e, &list, copies);
    if (status == PX_OK) {
        number_names(&list, names);
        status = px_rewards_open(&t.rewards, list.spec, list.count);
    }
    if (status == PX_OK && e->tokenizer != NULL) {
        status = px_tokenizer_load(&t.tokenizer, e->tokenizer);
    }
    status = status == PX_OK ? px_records_each(e->data, take_record, &t) : status;
    status = status == PX_OK ? score(e, &list, &t) : status;
    px_rewards_close(t.rewards);
    free_texts(&t);
    for (int i = 0; i < e->rewards.count; i++) {
        px_free(copies[i]);
    }
    return status;
}
