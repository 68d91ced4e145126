/* WordPiece (Schuster and Nakajima 2012; BERT): the longest piece first, from the left. */
#include "characters.h"
#include "tokenizer.h"

#include <string.h>

void px_wordpiece_free(px_wordpiece *w)
{
    px_free(w->prefix);
    px_buf_free(&w->piece);
}

static bool is_too_long(const px_wordpiece *w, const char *word, size_t length)
{
    int64_t characters = 0;
    for (size_t i = 0; i < length; i++) {
        characters += ((uint8_t)word[i] & 0xc0) != 0x80;
    }
    return characters > w->longest;
}

/* The longest piece that word[0, length) begins with, and *taken bytes of it; id -1: none. Later pieces have the
 * prefix. */
static px_status longest_piece(px_wordpiece *w, const px_vocab *vocab, const char *word, size_t length, bool later,
                               size_t *taken, int32_t *id)
{
    size_t prefix = later ? strlen(w->prefix) : 0;
    px_buf_clear(&w->piece);
    PX_TRY(px_buf_add(&w->piece, w->prefix, prefix));
    PX_TRY(px_buf_add(&w->piece, word, length));
    *id = -1;
    while (length > 0 && *id < 0) {
        *id = px_vocab_find(vocab, w->piece.data, prefix + length);
        *taken = length;
        int step;
        px_char_before(word, length, &step);
        length -= (size_t)step;
    }
    return PX_OK;
}

px_status px_wordpiece_encode(px_wordpiece *w, const px_vocab *vocab, const char *word, size_t length, px_ids *ids)
{
    int64_t before = ids->length;
    bool covered = !is_too_long(w, word, length);
    for (size_t at = 0, taken = 0; covered && at < length; at += taken) {
        int32_t id;
        PX_TRY(longest_piece(w, vocab, word + at, length - at, at > 0, &taken, &id));
        covered = id >= 0;
        PX_TRY(covered ? px_ids_add(ids, id) : PX_OK);
    }
    if (covered) {
        return PX_OK;
    }
    ids->length = before; /* one piece too few makes the whole word unknown */
    if (w->unk < 0) {
        return px_fail(PX_DATA, "the word \"%.*s\" is not made of pieces of the vocabulary, which has no unk_token",
                       (int)(length < 80 ? length : 80), word);
    }
    return px_ids_add(ids, w->unk);
}
