#include "vocab.h"

#include <string.h>

px_status px_vocab_init(px_vocab *vocab, int32_t size, size_t bytes)
{
    *vocab = (px_vocab){.size = size};
    uint32_t slots = 16;
    while (slots < 2u * (uint32_t)size) {
        slots *= 2;
    }
    vocab->mask = slots - 1;
    vocab->offset = px_alloc_array((size_t)size + 1, sizeof *vocab->offset, "vocabulary");
    vocab->length = px_alloc_array((size_t)size + 1, sizeof *vocab->length, "vocabulary");
    vocab->slots = px_alloc_array(slots, sizeof *vocab->slots, "vocabulary");
    if (vocab->offset == NULL || vocab->length == NULL || vocab->slots == NULL) {
        return px_error_code();
    }
    for (int32_t id = 0; id < size; id++) {
        vocab->length[id] = -1;
    }
    return px_buf_reserve(&vocab->text, bytes + 1);
}

void px_vocab_free(px_vocab *vocab)
{
    px_buf_free(&vocab->text);
    px_free(vocab->offset);
    px_free(vocab->length);
    px_free(vocab->slots);
    *vocab = (px_vocab){0};
}

static uint32_t find_slot(const px_vocab *vocab, const char *text, size_t length)
{
    uint32_t slot = (uint32_t)px_hash(text, length, 0) & vocab->mask;
    while (vocab->slots[slot] != 0) {
        int32_t id = vocab->slots[slot] - 1;
        if ((size_t)vocab->length[id] == length && memcmp(vocab->text.data + vocab->offset[id], text, length) == 0) {
            break;
        }
        slot = (slot + 1) & vocab->mask;
    }
    return slot;
}

px_status px_vocab_put(px_vocab *vocab, const char *text, size_t length, int32_t id)
{
    if (id < 0 || id >= vocab->size) {
        return px_fail(PX_DATA, "token \"%.80s\" has id %d; ids are 0 to %d", text, id, vocab->size - 1);
    }
    if (vocab->length[id] >= 0) {
        return px_fail(PX_DATA, "tokens \"%.80s\" and \"%.80s\" have the same id %d; an id belongs to one token",
                       vocab->text.data + vocab->offset[id], text, id);
    }
    uint32_t slot = find_slot(vocab, text, length);
    if (vocab->slots[slot] != 0) {
        return px_fail(PX_DATA, "token \"%.80s\" has two ids, %d and %d", text, vocab->slots[slot] - 1, id);
    }
    if (length > INT32_MAX / 2) {
        return px_fail(PX_DATA, "token %d has %zu bytes; tokens are shorter than 1 GiB", id, length);
    }
    size_t offset = vocab->text.length;
    PX_TRY(px_buf_add(&vocab->text, text, length));
    PX_TRY(px_buf_add(&vocab->text, "", 1));
    vocab->offset[id] = offset;
    vocab->length[id] = (int32_t)length;
    vocab->slots[slot] = id + 1;
    vocab->count++;
    return PX_OK;
}

int32_t px_vocab_find(const px_vocab *vocab, const char *text, size_t length)
{
    return vocab->slots == NULL ? -1 : vocab->slots[find_slot(vocab, text, length)] - 1;
}

const char *px_vocab_text(const px_vocab *vocab, int32_t id, size_t *length)
{
    if (id < 0 || id >= vocab->size || vocab->length[id] < 0) {
        return NULL;
    }
    if (length != NULL) {
        *length = (size_t)vocab->length[id];
    }
    return vocab->text.data + vocab->offset[id];
}
