/* Makes the quickstart's data sets: make_data OUT_DIR [SEED]. The same seed gives the same files. */
#include "gold_score.h"
#include "grammar.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { OPENING = 400, BODY = 1200 };
#define CORPUS_BYTES 5000000L
#define VALIDATION_BYTES 200000L
#define LABEL_TEMPERATURE 0.7 /* of the labeller's Bradley-Terry choice, in units of the gold score */

static FILE *open_file(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    if (!file) {
        fprintf(stderr, "make_data: %s: %s\n", path, strerror(errno));
        exit(74);
    }
    return file;
}

static void close_file(FILE *file, const char *name)
{
    if (ferror(file) | fclose(file)) {
        fprintf(stderr, "make_data: %s: %s\n", name, strerror(errno));
        exit(74);
    }
}

static void put_string(FILE *file, const char *key, const char *text) { /* the texts have no control characters */
    fprintf(file, "\"%s\": \"", key);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', file);
        fputc(*text, file);
    }
    fputc('"', file);
}

/* Reviews and, for a quarter, stories: a text a paragraph. */
static void write_corpus(const char *dir, const char *name, long bytes, qs_rng rng)
{
    FILE *file = open_file(dir, name);
    char opening[OPENING], body[BODY];
    for (long done = 0; done < bytes;) {
        if (qs_chance(&rng, 0.25)) {
            qs_write_story(&rng, body, sizeof body);
            done += fprintf(file, "%s\n\n", body);
            continue;
        }
        qs_subject subject = qs_make_subject(&rng, 0);
        qs_style style = {qs_normal(&rng) * 0.7, qs_chance(&rng, 0.1) ? 0.03 : 0.0};
        qs_write_opening(&rng, &subject, opening, sizeof opening);
        qs_write_body(&rng, &subject, &style, body, sizeof body);
        done += fprintf(file, "%s %s\n\n", opening, body);
    }
    close_file(file, name);
}

/* People write reviews of mixed quality: one in five is careless. */
static void write_person(qs_rng *rng, const qs_subject *subject, char *body)
{
    qs_style style = {0.2 + 0.6 * qs_normal(rng), qs_chance(rng, 0.2) ? 0.12 : 0.015};
    body[0] = ' ';
    qs_write_body(rng, subject, &style, body + 1, BODY - 1);
}

static void write_demos(const char *dir, const char *name, int count, int heldout, qs_rng rng)
{
    FILE *file = open_file(dir, name);
    char opening[OPENING], body[BODY];
    for (int i = 0; i < count; i++) {
        qs_subject subject = qs_make_subject(&rng, heldout);
        qs_write_opening(&rng, &subject, opening, sizeof opening);
        write_person(&rng, &subject, body);
        fputc('{', file);
        put_string(file, "prompt", opening);
        fputs(", ", file);
        put_string(file, "completion", body);
        fputs("}\n", file);
    }
    close_file(file, name);
}

/* Of two reviews the one with the higher gold score is chosen with probability logistic(difference / temperature). */
static void write_pairs(const char *dir, const char *name, int count, int heldout, qs_rng rng, const qs_gold *gold)
{
    FILE *file = open_file(dir, name);
    char opening[OPENING], first[BODY], second[BODY];
    int agreed = 0;
    for (int i = 0; i < count; i++) {
        qs_subject subject = qs_make_subject(&rng, heldout);
        qs_write_opening(&rng, &subject, opening, sizeof opening);
        write_person(&rng, &subject, first);
        do write_person(&rng, &subject, second);
        while (!strcmp(first, second));
        double difference = qs_gold_score(gold, opening, first, NULL) - qs_gold_score(gold, opening, second, NULL);
        int first_wins = qs_chance(&rng, 1.0 / (1.0 + exp(-difference / LABEL_TEMPERATURE)));
        agreed += first_wins == (difference > 0);
        fputc('{', file);
        put_string(file, "prompt", opening);
        fputs(", ", file);
        put_string(file, "chosen", first_wins ? first : second);
        fputs(", ", file);
        put_string(file, "rejected", first_wins ? second : first);
        fputs("}\n", file);
    }
    close_file(file, name);
    printf("%s: %d pairs; the labels agree with the gold score in %.1f %%\n", name, count, 100.0 * agreed / count);
}

/* Different openings, each once. */
static void write_prompts(const char *dir, const char *name, int count, int heldout, qs_rng rng)
{
    FILE *file = open_file(dir, name);
    char (*openings)[OPENING] = malloc((size_t)count * OPENING);
    if (!openings) exit(70);
    for (int i = 0; i < count; i++) {
        qs_subject subject = qs_make_subject(&rng, heldout);
        qs_write_opening(&rng, &subject, openings[i], OPENING);
        int known = 0;
        for (int k = 0; k < i && !known; k++) known = !strcmp(openings[k], openings[i]);
        if (known) {
            i--;
            continue;
        }
        fputc('{', file);
        put_string(file, "prompt", openings[i]);
        fputs("}\n", file);
    }
    free(openings);
    close_file(file, name);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    unsigned long long seed = argc > 2 ? strtoull(argv[2], &end, 10) : 1;
    if (argc < 2 || argc > 3 || (end && *end)) {
        fprintf(stderr, "usage: %s OUT_DIR [SEED]\n", argv[0]);
        return 64;
    }
    const char *dir = argv[1];
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        fprintf(stderr, "make_data: %s: %s\n", dir, strerror(errno));
        return 74;
    }
    qs_gold *gold = qs_gold_new();
    if (!gold) return 70;
    qs_rng streams[8];
    qs_rng root = {seed};
    for (int i = 0; i < 8; i++) streams[i].state = qs_bits(&root);
    write_corpus(dir, "corpus.txt", CORPUS_BYTES, streams[0]);
    write_corpus(dir, "validation.txt", VALIDATION_BYTES, streams[1]);
    write_demos(dir, "demos.jsonl", 4000, 0, streams[2]);
    write_demos(dir, "demos-validation.jsonl", 400, 1, streams[3]);
    write_pairs(dir, "pairs.jsonl", 4000, 0, streams[4], gold);
    write_pairs(dir, "pairs-validation.jsonl", 500, 1, streams[5], gold);
    write_prompts(dir, "prompts.jsonl", 2000, 0, streams[6]);
    write_prompts(dir, "prompts-heldout.jsonl", 200, 1, streams[7]);
    qs_gold_free(gold);
    return 0;
}
