/* The judge as a program: reads lines {"id": ..., "prompt": "...", "completion": "...", ...} and answers each with
 * {"id": ..., "score": x}, the protocol of Phalanx's exec rewards. With --explain the parts of the score as well. */
#include "gold_score.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct request {
    char *id; /* as it was written, a number or a quoted string */
    char *prompt, *completion;
} request;

static const char *skip_space(const char *p)
{
    while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n') p++;
    return p;
}

static const char *skip_string(const char *p) { /* at the opening quote; behind the closing one, or NULL */
    for (p++; *p && *p != '"'; p++)
        if (*p == '\\' && !*++p) return NULL;
    return *p ? p + 1 : NULL;
}

static const char *skip_value(const char *p)
{
    int depth = 0;
    do {
        if (*p == '"') {
            if (!(p = skip_string(p))) return NULL;
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if (*p == '}' || *p == ']') depth--;
        if (!*p || depth < 0) break;
        p++;
    } while (depth > 0 || (*p && *p != ',' && *p != '}' && *p != ']'));
    return depth == 0 ? p : NULL;
}

static char *copy(const char *from, const char *to)
{
    size_t n = (size_t)(to - from);
    while (n > 0 && from[n - 1] == ' ') n--;
    char *text = malloc(n + 1);
    if (!text) abort();
    memcpy(text, from, n);
    text[n] = '\0';
    return text;
}

/* A JSON string's text. Characters beyond ASCII that are written as \uXXXX become '?': the judge knows none of them. */
static char *unquote(const char *from, const char *to)
{
    char *text = copy(from + 1, to - 1), *out = text;
    for (const char *p = text; *p; p++) {
        if (*p != '\\') {
            *out++ = *p;
            continue;
        }
        p++;
        if (*p == 'u') {
            unsigned code = 0;
            int used = 0;
            if (sscanf(p + 1, "%4x%n", &code, &used) == 1) p += used;
            *out++ = code && code < 128 ? (char)code : '?';
        } else {
            *out++ = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p == 'r' || *p == 'b' || *p == 'f' ? ' ' : *p;
        }
    }
    *out = '\0';
    return text;
}

static int parse(const char *line, request *r)
{
    const char *p = skip_space(line);
    if (*p++ != '{') return 0;
    for (;;) {
        p = skip_space(p);
        if (*p != '"') return 0;
        const char *name = p + 1, *end = skip_string(p);
        if (!end) return 0;
        size_t n = (size_t)(end - 1 - name);
        p = skip_space(end);
        if (*p++ != ':') return 0;
        const char *value = skip_space(p);
        if (!(p = skip_value(value))) return 0;
        if (n == 2 && !memcmp(name, "id", 2) && !r->id) r->id = copy(value, p);
        if (n == 6 && !memcmp(name, "prompt", 6) && *value == '"' && !r->prompt)
            r->prompt = unquote(value, skip_string(value));
        if (n == 10 && !memcmp(name, "completion", 10) && *value == '"' && !r->completion)
            r->completion = unquote(value, skip_string(value));
        p = skip_space(p);
        if (*p == '}') break;
        if (*p++ != ',') return 0;
    }
    return r->id && r->prompt && r->completion;
}

int main(int argc, char **argv)
{
    int explain = argc > 1 && !strcmp(argv[1], "--explain");
    if (argc > 2 || (argc == 2 && !explain)) {
        fprintf(stderr, "usage: %s [--explain] < requests\n", argv[0]);
        return 64;
    }
    qs_gold *gold = qs_gold_new();
    if (!gold) return 70;
    char *line = NULL;
    size_t size = 0;
    long number = 0;
    int bad = 0;
    while (getline(&line, &size, stdin) > 0) {
        request r = {0};
        number++;
        if (!*skip_space(line)) continue;
        if (parse(line, &r)) {
            qs_gold_parts parts;
            double score = qs_gold_score(gold, r.prompt, r.completion, &parts);
            printf("{\"id\": %s, \"score\": %.6f", r.id, score);
            if (explain)
                printf(", \"sentiment\": %.3f, \"topic\": %.3f, \"grammar\": %.3f, \"repetition\": %.3f, "
                       "\"shape\": %.3f",
                       parts.sentiment, parts.topic, parts.grammar, parts.repetition, parts.shape);
            printf("}\n");
            fflush(stdout);
        } else {
            fprintf(stderr, "gold: line %ld: valid is an object with \"id\", \"prompt\" and \"completion\"\n", number);
            bad = 1;
        }
        free(r.id);
        free(r.prompt);
        free(r.completion);
    }
    free(line);
    qs_gold_free(gold);
    return bad ? 65 : 0;
}
