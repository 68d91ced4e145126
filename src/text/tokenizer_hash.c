/* What a tokenizer makes of texts, as one number: its parts as they are in use, so that it does not matter which program
 * wrote the file, in which order and with which spaces. Nothing that only the decoder uses is in it: models read ids. */
#include "characters.h"
#include "tokenizer.h"

#include <string.h>

static void add_number(uint64_t *hash, int64_t number)
{
    *hash = px_hash(&number, sizeof number, *hash);
}

/* Its length comes first, so that two texts are not one; NULL is another than "". */
static void add_text(uint64_t *hash, const char *text, size_t length)
{
    add_number(hash, text != NULL ? (int64_t)length : -1);
    if (text != NULL) {
        *hash = px_hash(text, length, *hash);
    }
}

static void add_string(uint64_t *hash, const char *text)
{
    add_text(hash, text, text != NULL ? strlen(text) : 0);
}

static void add_pattern(uint64_t *hash, const px_pattern *pattern)
{
    add_text(hash, pattern->source, pattern->length);
    add_number(hash, pattern->code != NULL);
}

static void add_ids(uint64_t *hash, const px_ids *ids)
{
    add_number(hash, ids->length);
    for (int64_t i = 0; i < ids->length; i++) {
        add_number(hash, ids->data[i]);
    }
}

static void add_normals(uint64_t *hash, const px_tokenizer *t)
{
    add_number(hash, t->normal_count);
    for (int i = 0; i < t->normal_count; i++) {
        const px_normal *step = &t->normals[i];
        add_number(hash, step->kind);
        add_pattern(hash, &step->pattern);
        add_string(hash, step->content);
        add_number(hash, 2 * step->left + step->right);
    }
}

/* The same in every process, as the function's address is not. */
static int64_t class_number(bool (*is_match)(uint32_t c))
{
    return is_match == px_char_is_number ? 1 : is_match == px_char_is_space ? 2 : is_match == px_char_is_punctuation ? 3 : 0;
}

static void add_splits(uint64_t *hash, const px_tokenizer *t)
{
    add_number(hash, t->split_count);
    for (int i = 0; i < t->split_count; i++) {
        const px_split *step = &t->splits[i];
        const int64_t numbers[] = {step->kind, class_number(step->is_match), step->behavior, step->invert,
                                   step->prefix_space, step->use_pattern, step->prepend, step->characters};
        *hash = px_hash(numbers, sizeof numbers, *hash);
        add_pattern(hash, &step->pattern);
    }
}

/* Whether a file has an added token in its model's vocabulary too is all one: it is found before the model is asked. */
static void add_tokens(uint64_t *hash, const px_tokenizer *t)
{
    add_number(hash, t->size);
    for (int32_t id = 0; id < t->size; id++) {
        const px_added_token *added = px_tokenizer_added(t, id);
        size_t length = 0;
        const char *text = added != NULL ? added->content : px_vocab_text(&t->vocab, id, &length);
        add_text(hash, text, added != NULL ? strlen(text) : length);
        if (added != NULL) {
            add_text(hash, added->match, added->match_length);
            add_number(hash, 8 * added->single_word + 4 * added->lstrip + 2 * added->rstrip + added->normalized);
        }
    }
}

/* A sum, because where a merge lies in the table depends on the order in which they came. */
static void add_bpe(uint64_t *hash, const px_bpe *bpe)
{
    uint64_t sum = 0;
    for (uint64_t slot = 0; slot <= bpe->mask; slot++) {
        const px_merge *m = &bpe->merges[slot];
        const uint64_t numbers[] = {m->pair, (uint64_t)m->rank, (uint64_t)m->id};
        sum += m->pair != 0 ? px_hash(numbers, sizeof numbers, 0) : 0;
    }
    add_number(hash, (int64_t)sum);
    add_number(hash, 4 * bpe->fall_back + 2 * bpe->fuse_unk + bpe->ignore_merges);
    add_number(hash, bpe->unk);
    add_string(hash, bpe->prefix);
    add_string(hash, bpe->suffix);
}

static void add_model(uint64_t *hash, const px_tokenizer *t)
{
    add_number(hash, t->kind);
    switch (t->kind) {
    case PX_MODEL_BPE: add_bpe(hash, &t->bpe); return;
    case PX_MODEL_UNIGRAM:
        *hash = px_hash(t->unigram.score, (size_t)t->vocab.size * sizeof *t->unigram.score, *hash);
        add_number(hash, t->unigram.fall_back);
        add_number(hash, t->unigram.unk);
        return;
    case PX_MODEL_WORDPIECE:
        add_string(hash, t->wordpiece.prefix);
        add_number(hash, t->wordpiece.longest);
        add_number(hash, t->wordpiece.unk);
        return;
    case PX_MODEL_WORDLEVEL: add_number(hash, t->unk); return;
    }
}

uint64_t px_tokenizer_hash(const px_tokenizer *t)
{
    uint64_t hash = 0;
    add_tokens(&hash, t);
    add_normals(&hash, t);
    add_splits(&hash, t);
    add_model(&hash, t);
    add_ids(&hash, &t->before);
    add_ids(&hash, &t->after);
    return hash;
}
