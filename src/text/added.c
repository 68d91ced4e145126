#include "characters.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

static int by_first_byte_then_longer(const void *a, const void *b)
{
    const px_added_token *x = *(const px_added_token *const *)a, *y = *(const px_added_token *const *)b;
    int first = (int)(uint8_t)x->match[0] - (int)(uint8_t)y->match[0];
    if (first != 0) {
        return first;
    }
    if (x->match_length != y->match_length) {
        return x->match_length > y->match_length ? -1 : 1;
    }
    return x < y ? -1 : x > y;
}

px_status px_finder_init(px_finder *finder, const px_added_token *tokens, int count, bool normalized)
{
    *finder = (px_finder){0};
    finder->tokens = px_alloc_array((size_t)count + 1, sizeof *finder->tokens, "added tokens");
    if (finder->tokens == NULL) {
        return px_error_code();
    }
    for (int i = 0; i < count; i++) {
        if (tokens[i].normalized == normalized && tokens[i].match_length > 0) {
            finder->tokens[finder->count++] = &tokens[i];
        }
    }
    qsort(finder->tokens, (size_t)finder->count, sizeof *finder->tokens, by_first_byte_then_longer);
    int at = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (at < finder->count && (uint8_t)finder->tokens[at]->match[0] < byte) {
            at++;
        }
        finder->first[byte] = at;
    }
    return PX_OK;
}

void px_finder_free(px_finder *finder)
{
    px_free(finder->tokens);
    *finder = (px_finder){0};
}

/* Leftmost, then longest. */
static const px_added_token *find(const px_finder *finder, const char *text, size_t length, size_t from, size_t *where)
{
    for (size_t i = from; i < length; i++) {
        uint8_t byte = (uint8_t)text[i];
        for (int k = finder->first[byte]; k < finder->first[byte + 1]; k++) {
            const px_added_token *token = finder->tokens[k];
            if (token->match_length <= length - i && memcmp(text + i, token->match, token->match_length) == 0) {
                *where = i;
                return token;
            }
        }
    }
    return NULL;
}

static bool stands_alone(const char *text, size_t length, size_t start, size_t stop)
{
    int step;
    return (start == 0 || !px_char_is_word(px_char_before(text, start, &step))) &&
           (stop == length || !px_char_is_word(px_char_at(text + stop, &step)));
}

const px_added_token *px_finder_next(const px_finder *finder, const char *text, size_t length, size_t *from,
                                     size_t *done, size_t *gap_start, size_t *gap_end)
{
    size_t start;
    *gap_start = *done;
    const px_added_token *token;
    while ((token = find(finder, text, length, *from, &start)) != NULL) {
        size_t stop = start + token->match_length;
        *from = stop;
        if (token->single_word && !stands_alone(text, length, start, stop)) {
            continue;
        }
        int step;
        while (token->lstrip && start > *done && px_char_is_space(px_char_before(text, start, &step))) {
            start -= (size_t)step;
        }
        while (token->rstrip && stop < length && px_char_is_space(px_char_at(text + stop, &step))) {
            stop += (size_t)step;
        }
        *gap_end = start > *done ? start : *done;
        *done = stop;
        return token;
    }
    *gap_end = length > *done ? length : *done;
    *done = length;
    return NULL;
}
