/* Questions to the table of keys. */
#include "key.h"

#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

unsigned px_algorithm_bit(const char *name)
{
    for (int i = 0; i < PX_ALGORITHMS; i++) {
        if (strcmp(name, px_algorithm_names[i]) == 0) return 1u << i;
    }
    return 0;
}

const px_key *px_key_find(const char *name)
{
    for (int i = 0; i < px_key_count; i++) {
        if (strcmp(px_keys[i].name, name) == 0) return &px_keys[i];
    }
    return NULL;
}

bool px_key_is_group(const char *name)
{
    size_t length = strlen(name);
    for (int i = 0; i < px_key_count; i++) {
        if (strncmp(px_keys[i].name, name, length) == 0 && px_keys[i].name[length] == '.') return true;
    }
    return false;
}

const px_key *px_key_fields(px_key_kind kind, int *count)
{
    switch (kind) {
    case PX_KEY_MODULE: *count = px_module_key_count; return px_module_keys;
    case PX_KEY_REWARDS: *count = px_reward_key_count; return px_reward_keys;
    case PX_KEY_SOURCES: *count = px_source_key_count; return px_source_keys;
    default: *count = 0; return NULL;
    }
}

bool px_word_next(const char **at, char *word, int size)
{
    const char *from = *at;
    if (!from || !*from) return false;
    size_t length = strcspn(from, "|");
    snprintf(word, (size_t)size, "%.*s", (int)length, from);
    *at = from + length + (from[length] == '|');
    return true;
}

static bool is_interval(const char *word)
{
    return word[0] == '[' || word[0] == '(';
}

bool px_valid_word(const char *valid, const char *word)
{
    char one[64];
    for (const char *at = valid; px_word_next(&at, one, sizeof one);) {
        if (!is_interval(one) && strcmp(one, word) == 0) return true;
    }
    return false;
}

bool px_valid_interval(const char *valid, double *low, double *high, bool *low_open, bool *high_open)
{
    char one[64];
    for (const char *at = valid; px_word_next(&at, one, sizeof one);) {
        if (!is_interval(one)) continue;
        char *end = NULL;
        *low = strtod(one + 1, &end);
        *high = strtod(end + 1, &end);
        *low_open = one[0] == '(';
        *high_open = *end == ')';
        return true;
    }
    *low = -INFINITY;
    *high = INFINITY;
    *low_open = *high_open = true;
    return false;
}

const char *px_key_default(const px_key *key, const char *algorithm, char hold[64])
{
    size_t length = algorithm ? strlen(algorithm) : 0;
    for (const char *at = key->others; at && *at; at += strcspn(at, " "), at += *at == ' ') {
        if (length && strncmp(at, algorithm, length) == 0 && at[length] == '=') {
            const char *value = at + length + 1;
            snprintf(hold, 64, "%.*s", (int)strcspn(value, " "), value);
            return hold;
        }
    }
    return key->value;
}
