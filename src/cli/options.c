#include "cli.h"
#include "phalanx/dist.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void command_of(const px_usage *usage, char out[64])
{
    size_t length = strcspn(usage->synopsis, " ");
    snprintf(out, 64, "%.*s", (int)(length < 63 ? length : 63), usage->synopsis);
}

/* ---- help -------------------------------------------------------------------------------------------------------- */

static void print_default(const px_option *option)
{
    switch (option->type) {
    case PX_OPTION_TEXT:
        if (*(const char **)option->value != NULL) {
            printf(" [%s]", *(const char **)option->value);
        }
        break;
    case PX_OPTION_INT:
        printf(" [%lld]", (long long)*(int64_t *)option->value);
        break;
    case PX_OPTION_FLOAT:
        if (!isnan(*(double *)option->value)) {
            printf(" [%g]", *(double *)option->value);
        }
        break;
    case PX_OPTION_LIST:
        printf(" (may be repeated)");
        break;
    case PX_OPTION_FLAG:
        break;
    }
}

static void print_usage(const px_usage *usage, const px_option *options, int count)
{
    printf("phalanx %s\n\n%s\n\noptions:\n", usage->synopsis, usage->what);
    for (int i = 0; i < count; i++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", options[i].name, options[i].argument != NULL ? " " : "",
                 options[i].argument != NULL ? options[i].argument : "");
        printf("  %-24s %s", left, options[i].help);
        print_default(&options[i]);
        printf("\n");
    }
    printf("  %-24s %s\n", "--help", "this text");
    printf("\nexamples:\n%s\n\nexit codes: %s\n", usage->examples, usage->exits);
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

static px_status set_number(const char *command, const px_option *option, const char *text)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    bool whole = option->type != PX_OPTION_INT || value == floor(value);
    if (end == text || *end != '\0' || !isfinite(value) || !whole || value < option->low || value > option->high) {
        return px_fail(PX_USAGE, "%s: --%s is '%s'; valid is %s from %.15g to %.15g", command, option->name, text,
                       option->type == PX_OPTION_INT ? "a whole number" : "a number", option->low, option->high);
    }
    if (option->type == PX_OPTION_INT) {
        *(int64_t *)option->value = (int64_t)value;
    } else {
        *(double *)option->value = value;
    }
    return PX_OK;
}

static px_status set_value(const char *command, const px_option *option, const char *text)
{
    px_words *list = option->value;
    switch (option->type) {
    case PX_OPTION_FLAG:
        *(bool *)option->value = true;
        return PX_OK;
    case PX_OPTION_TEXT:
        *(const char **)option->value = text;
        return PX_OK;
    case PX_OPTION_LIST:
        if (list->count == PX_MAX_WORDS) {
            return px_fail(PX_USAGE, "%s: more than %d times --%s", command, PX_MAX_WORDS, option->name);
        }
        list->word[list->count++] = text;
        return PX_OK;
    case PX_OPTION_INT:
    case PX_OPTION_FLOAT:
        break;
    }
    return set_number(command, option, text);
}

static px_status unknown_option(const px_usage *usage, const px_option *options, int count, const char *name,
                                size_t length)
{
    char command[64], copy[64];
    const char *names[64] = {"help"};
    int n = 1;
    command_of(usage, command);
    snprintf(copy, sizeof copy, "%.*s", (int)(length < 63 ? length : 63), name);
    for (int i = 0; i < count && n < PX_COUNT(names); i++) {
        names[n++] = options[i].name;
    }
    const char *nearest = px_nearest_name(copy, names, n);
    if (nearest != NULL) {
        return px_fail(PX_USAGE, "%s: unknown option --%s; did you mean --%s?", command, copy, nearest);
    }
    return px_fail(PX_USAGE, "%s: unknown option --%s; 'phalanx %s --help' lists the valid ones", command, copy,
                   command);
}

static const px_option *find_option(const px_option *options, int count, const char *name, size_t length)
{
    for (int i = 0; i < count; i++) {
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

/* One argument that begins with "--"; *at is moved over a value of its own. */
static px_status take_option(const px_usage *usage, const px_option *options, int count, int argc, char **argv, int *at)
{
    char command[64];
    const char *name = argv[*at] + 2;
    size_t length = strcspn(name, "=");
    command_of(usage, command);
    const px_option *option = find_option(options, count, name, length);
    if (option == NULL) {
        return unknown_option(usage, options, count, name, length);
    }
    if (option->type == PX_OPTION_FLAG) {
        return name[length] == '=' ? px_fail(PX_USAGE, "%s: --%s takes no value", command, option->name)
                                   : set_value(command, option, NULL);
    }
    if (name[length] == '=') {
        return set_value(command, option, name + length + 1);
    }
    if (*at + 1 >= argc) {
        return px_fail(PX_USAGE, "%s: --%s needs a value: --%s %s", command, option->name, option->name, option->argument);
    }
    return set_value(command, option, argv[++*at]);
}

static bool wants_value(const px_option *options, int count, const char *word)
{
    const px_option *option = strncmp(word, "--", 2) == 0 ? find_option(options, count, word + 2, strlen(word + 2)) : NULL;
    return option != NULL && option->type != PX_OPTION_FLAG;
}

px_status px_options_parse(const px_usage *usage, const px_option *options, int count, int argc, char **argv,
                           px_words *words, bool *helped)
{
    char command[64];
    bool only_words = false;
    command_of(usage, command);
    *helped = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            break;
        }
        if (strcmp(argv[i], "--help") == 0 || (strcmp(argv[i], "-h") == 0 && !wants_value(options, count, argv[i - 1]))) {
            *helped = true;
            if (px_launch_rank() == 0) {
                print_usage(usage, options, count);
            }
            return px_output_done();
        }
    }
    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && strncmp(argv[i], "--", 2) == 0) {
            PX_TRY(take_option(usage, options, count, argc, argv, &i));
        } else if (!only_words && argv[i][0] == '-' && argv[i][1] != '\0') {
            return px_fail(PX_USAGE, "%s: unknown option %s; options begin with two dashes", command, argv[i]);
        } else if (words == NULL) {
            return px_fail(PX_USAGE, "%s: unexpected argument '%s'; 'phalanx %s --help' says what is valid", command,
                           argv[i], command);
        } else if (words->count == PX_MAX_WORDS) {
            return px_fail(PX_USAGE, "%s: more than %d arguments", command, PX_MAX_WORDS);
        } else {
            words->word[words->count++] = argv[i];
        }
    }
    return PX_OK;
}

px_status px_option_required(const char *command, const char *name, const char *value)
{
    if (value != NULL) {
        return PX_OK;
    }
    return px_fail(PX_USAGE, "%s: --%s is missing; 'phalanx %s --help' shows examples", command, name, command);
}

px_status px_one_config(const char *command, const px_words *words)
{
    if (words->count == 1) {
        return PX_OK;
    }
    if (words->count == 0) {
        return px_fail(PX_USAGE, "%s: no configuration file was given; valid is one configuration file, such as phalanx %s "
                       "configs/quickstart.yaml", command, command);
    }
    return px_fail(PX_USAGE, "%s: %d arguments were given, '%s' and '%s'%s; valid is one configuration file", command,
                   words->count, words->word[0], words->word[1], words->count > 2 ? " among them" : "");
}

/* ---- shell ------------------------------------------------------------------------------------------------------- */

/* bash's $'...', for names of files that are no text. */
static px_status quote_bytes(px_buf *out, const char *word)
{
    PX_TRY(px_buf_text(out, "$'"));
    for (; *word != '\0'; word++) {
        unsigned char c = (unsigned char)*word;
        bool plain = c >= ' ' && c < 0x7f && c != '\'' && c != '\\';
        PX_TRY(plain ? px_buf_add(out, word, 1) : px_buf_printf(out, "\\%03o", c));
    }
    return px_buf_text(out, "'");
}

px_status px_shell_quote(px_buf *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-/=:,@%";
    if (px_utf8_valid(word, strlen(word)) < strlen(word)) {
        return quote_bytes(out, word);
    }
    if (*word != '\0' && strspn(word, plain) == strlen(word)) {
        return px_buf_text(out, word);
    }
    PX_TRY(px_buf_text(out, "'"));
    for (; *word != '\0'; word++) {
        PX_TRY(*word == '\'' ? px_buf_text(out, "'\\''") : px_buf_add(out, word, 1));
    }
    return px_buf_text(out, "'");
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

px_status px_print_json(json_t *json)
{
    if (json == NULL) {
        return px_fail(PX_BUG, "a JSON object could not be made");
    }
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(json);
    if (text == NULL) {
        return px_fail(PX_BUG, "a JSON object could not be written");
    }
    bool fine = puts(text) >= 0;
    free(text);
    return fine ? PX_OK : px_fail(PX_IO, "standard output: %s", strerror(errno));
}

px_status px_output_done(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return px_fail(PX_IO, "standard output: %s", strerror(errno));
    }
    return PX_OK;
}
