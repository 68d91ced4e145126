#include "characters.h"
#include "tokenizer.h"

#include <stdio.h>
#include <string.h>

/* Words seen before and their ids: a direct map that is emptied when one of its stores is full. */
#ifndef PX_BPE_CACHE_BITS /* a fuzzer loads many small tokenizers */
#define PX_BPE_CACHE_BITS 15
#endif
enum { CACHE_SLOTS = 1 << PX_BPE_CACHE_BITS, CACHE_WORD = 96, CACHE_BYTES = 4 << 20, CACHE_IDS = 1 << 20, SHORT_WORD = 40 };
struct px_cached_word {
    uint64_t hash;
    uint32_t word, ids; /* where in cache_words and cache_ids */
    uint8_t length, count;
    bool used;
};

static uint64_t mix(uint64_t key)
{
    key *= 0x9e3779b97f4a7c15u;
    return key ^ key >> 32;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
}

static px_merge *merge_slot(const px_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    uint64_t slot = mix(key) & bpe->mask;
    while (bpe->merges[slot].pair != 0 && bpe->merges[slot].pair != key) {
        slot = (slot + 1) & bpe->mask;
    }
    return &bpe->merges[slot];
}

px_status px_bpe_init(px_bpe *bpe, const px_vocab *vocab, size_t merges)
{
    uint64_t slots = 16;
    while (slots < 2 * merges) {
        slots *= 2;
    }
    bpe->mask = slots - 1;
    bpe->merges = px_alloc_array(slots, sizeof *bpe->merges, "merges");
    bpe->cache = px_alloc_array(CACHE_SLOTS, sizeof *bpe->cache, "word cache");
    if (bpe->merges == NULL || bpe->cache == NULL) {
        return px_error_code();
    }
    bpe->all_bytes = bpe->prefix == NULL && bpe->suffix == NULL;
    for (int b = 0; b < 256; b++) {
        char text[8];
        bpe->byte_char[b] = px_vocab_find(vocab, text, (size_t)px_char_put(px_byte_char((uint8_t)b), text));
        bpe->all_bytes = bpe->all_bytes && bpe->byte_char[b] >= 0;
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        bpe->byte_fallback[b] = px_vocab_find(vocab, text, 6);
    }
    return PX_OK;
}

px_status px_bpe_merge_add(px_bpe *bpe, const px_vocab *vocab, const char *left, size_t left_length, const char *right,
                           size_t right_length, int32_t rank)
{
    int32_t a = px_vocab_find(vocab, left, left_length), b = px_vocab_find(vocab, right, right_length);
    if (a < 0 || b < 0) {
        size_t length = a < 0 ? left_length : right_length;
        return px_fail(PX_DATA, "model.merges[%d] names \"%.*s\", which is not in model.vocab", rank,
                       (int)(length < 128 ? length : 128), a < 0 ? left : right);
    }
    size_t cut = bpe->prefix != NULL ? strlen(bpe->prefix) : 0;
    if (cut > right_length) {
        return px_fail(PX_DATA, "model.merges[%d]: the right side is shorter than continuing_subword_prefix", rank);
    }
    px_buf_clear(&bpe->word);
    PX_TRY(px_buf_add(&bpe->word, left, left_length));
    PX_TRY(px_buf_add(&bpe->word, right + cut, right_length - cut));
    int32_t id = px_vocab_find(vocab, bpe->word.data, bpe->word.length);
    if (id < 0) {
        return px_fail(PX_DATA, "model.merges[%d] makes \"%.80s\", which is not in model.vocab", rank, bpe->word.data);
    }
    *merge_slot(bpe, a, b) = (px_merge){pair_key(a, b), rank, id};
    return PX_OK;
}

void px_bpe_free(px_bpe *bpe)
{
    px_free(bpe->merges);
    px_free(bpe->prefix);
    px_free(bpe->suffix);
    px_free(bpe->cache);
    px_buf_free(&bpe->cache_words);
    px_ids_free(&bpe->cache_ids);
    px_free(bpe->symbols);
    px_free(bpe->next);
    px_free(bpe->previous);
    px_free(bpe->rank);
    px_free(bpe->heap);
    px_buf_free(&bpe->word);
}

static px_status make_room(px_bpe *bpe, size_t symbols)
{
    if (symbols <= bpe->room) {
        return PX_OK;
    }
    if (symbols >= INT32_MAX / 2) {
        return px_fail(PX_DATA, "a word of %zu bytes is too long; the limit is 1 GiB", symbols);
    }
    size_t room = bpe->room == 0 ? 256 : 2 * bpe->room;
    room = room < symbols ? symbols : room;
    int32_t **arrays[] = {&bpe->symbols, &bpe->next, &bpe->previous, &bpe->rank};
    bpe->room = 0;
    for (int i = 0; i < 4; i++) {
        px_free(*arrays[i]);
        *arrays[i] = px_alloc_array(room, sizeof(int32_t), "symbols of a word");
        if (*arrays[i] == NULL) {
            return px_error_code();
        }
    }
    px_free(bpe->heap);
    bpe->heap = px_alloc_array(3 * room, sizeof *bpe->heap, "symbols of a word");
    if (bpe->heap == NULL) {
        return px_error_code();
    }
    bpe->room = room;
    return PX_OK;
}

/* Short words: the ranks of all neighbours in an array, the smallest found by looking at each. */
static size_t merge_short(px_bpe *bpe, size_t n)
{
    int32_t *s = bpe->symbols, *rank = bpe->rank;
    for (size_t i = 0; i + 1 < n; i++) {
        const px_merge *m = merge_slot(bpe, s[i], s[i + 1]);
        rank[i] = m->pair != 0 ? m->rank : INT32_MAX;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++) {
            best = rank[i] < rank[best] ? i : best;
        }
        if (rank[best] == INT32_MAX) {
            break;
        }
        s[best] = merge_slot(bpe, s[best], s[best + 1])->id;
        memmove(s + best + 1, s + best + 2, (n - best - 2) * sizeof *s);
        if (best + 2 < n) {
            memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        }
        n--;
        for (size_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const px_merge *m = merge_slot(bpe, s[i], s[i + 1]);
            rank[i] = m->pair != 0 ? m->rank : INT32_MAX;
        }
    }
    return n;
}

static void heap_push(uint64_t *heap, size_t *count, uint64_t key)
{
    size_t i = (*count)++;
    while (i > 0 && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    uint64_t top = heap[0], last = heap[--*count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *count) {
            break;
        }
        child += child + 1 < *count && heap[child + 1] < heap[child];
        if (heap[child] >= last) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* rank[i] of the pair that begins at symbol i; in the heap too when there is a merge for it. Every merge removes one
 * symbol and makes at most two pairs, so 3n entries are enough. */
static void refresh_pair(px_bpe *bpe, int32_t i, size_t *count)
{
    int32_t j = bpe->next[i];
    const px_merge *m = j < 0 ? NULL : merge_slot(bpe, bpe->symbols[i], bpe->symbols[j]);
    bpe->rank[i] = m != NULL && m->pair != 0 ? m->rank : INT32_MAX;
    if (bpe->rank[i] != INT32_MAX) {
        heap_push(bpe->heap, count, (uint64_t)(uint32_t)bpe->rank[i] << 32 | (uint32_t)i);
    }
}

/* Long words (a whole text, where there is no pre-tokenizer): a heap by rank and place over a linked list. */
static size_t merge_long(px_bpe *bpe, size_t n)
{
    int32_t *s = bpe->symbols, *next = bpe->next, *previous = bpe->previous;
    size_t entries = 0, kept = 0;
    for (size_t i = 0; i < n; i++) {
        next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        previous[i] = (int32_t)i - 1;
    }
    for (size_t i = 0; i < n; i++) {
        refresh_pair(bpe, (int32_t)i, &entries);
    }
    while (entries > 0) {
        uint64_t top = heap_pop(bpe->heap, &entries);
        int32_t i = (int32_t)(uint32_t)top;
        if (s[i] < 0 || bpe->rank[i] != (int32_t)(top >> 32)) {
            continue; /* the pair is gone */
        }
        int32_t j = next[i];
        s[i] = merge_slot(bpe, s[i], s[j])->id;
        s[j] = -1;
        next[i] = next[j];
        if (next[j] >= 0) {
            previous[next[j]] = i;
        }
        bpe->rank[i] = INT32_MAX;
        if (previous[i] >= 0) {
            refresh_pair(bpe, previous[i], &entries);
        }
        refresh_pair(bpe, i, &entries);
    }
    for (size_t i = 0; i < n; i++) {
        if (s[i] >= 0) {
            s[kept++] = s[i];
        }
    }
    return kept;
}

/* Symbols of characters that are not in the vocabulary: bytes, or unk, or nothing. */
static void missing_character(px_bpe *bpe, const char *text, size_t length, size_t *n, bool *pending)
{
    bool bytes = bpe->fall_back;
    for (size_t i = 0; bytes && i < length; i++) {
        bytes = bpe->byte_fallback[(uint8_t)text[i]] >= 0;
    }
    if (bytes) {
        for (size_t i = 0; i < length; i++) {
            bpe->symbols[(*n)++] = bpe->byte_fallback[(uint8_t)text[i]];
        }
    } else if (bpe->unk >= 0) {
        if (*pending && !bpe->fuse_unk) {
            bpe->symbols[(*n)++] = bpe->unk;
        }
        *pending = true;
    }
}

/* One symbol a character. A pending unk stands before the next known character, as the tokenizers library has it. */
static px_status symbols_of_characters(px_bpe *bpe, const px_vocab *vocab, const char *word, size_t length, size_t *n)
{
    bool pending = false;
    size_t extra = (bpe->prefix != NULL ? strlen(bpe->prefix) : 0) + (bpe->suffix != NULL ? strlen(bpe->suffix) : 0);
    PX_TRY(make_room(bpe, (length + 1) * (1 + extra)));
    for (size_t i = 0; i < length;) {
        int step;
        px_char_at(word + i, &step);
        const char *text = word + i;
        size_t text_length = (size_t)step;
        if (extra > 0) {
            px_buf_clear(&bpe->word);
            PX_TRY(i > 0 && bpe->prefix != NULL ? px_buf_text(&bpe->word, bpe->prefix) : PX_OK);
            PX_TRY(px_buf_add(&bpe->word, text, text_length));
            PX_TRY(i + text_length == length && bpe->suffix != NULL ? px_buf_text(&bpe->word, bpe->suffix) : PX_OK);
            text = bpe->word.data;
            text_length = bpe->word.length;
        }
        int32_t id = px_vocab_find(vocab, text, text_length);
        if (id >= 0) {
            if (pending) {
                bpe->symbols[(*n)++] = bpe->unk;
                pending = false;
            }
            bpe->symbols[(*n)++] = id;
        } else {
            missing_character(bpe, text, text_length, n, &pending);
        }
        i += (size_t)step;
    }
    if (pending) {
        bpe->symbols[(*n)++] = bpe->unk;
    }
    return PX_OK;
}

static px_status encode_word(px_bpe *bpe, const px_vocab *vocab, const char *word, size_t length, bool bytes,
                             px_ids *ids)
{
    if (bpe->ignore_merges) {
        const char *text = word;
        size_t text_length = length;
        if (bytes) {
            px_buf_clear(&bpe->word);
            PX_TRY(px_byte_chars(word, length, &bpe->word));
            text = bpe->word.data;
            text_length = bpe->word.length;
        }
        int32_t id = px_vocab_find(vocab, text, text_length);
        if (id >= 0) {
            return px_ids_add(ids, id);
        }
    }
    size_t n = 0;
    if (bytes) {
        PX_TRY(make_room(bpe, length));
        for (; n < length; n++) {
            bpe->symbols[n] = bpe->byte_char[(uint8_t)word[n]];
        }
    } else {
        PX_TRY(symbols_of_characters(bpe, vocab, word, length, &n));
    }
    n = n <= SHORT_WORD ? merge_short(bpe, n) : merge_long(bpe, n);
    return px_ids_append(ids, bpe->symbols, (int64_t)n);
}

static px_status cache_put(px_bpe *bpe, px_cached_word *entry, uint64_t hash, const char *word, size_t length,
                           const int32_t *ids, int64_t count)
{
    if (bpe->cache_words.length + length > CACHE_BYTES || bpe->cache_ids.length + count > CACHE_IDS) {
        memset(bpe->cache, 0, CACHE_SLOTS * sizeof *bpe->cache);
        bpe->cache_words.length = 0;
        bpe->cache_ids.length = 0;
    }
    *entry = (px_cached_word){hash, (uint32_t)bpe->cache_words.length, (uint32_t)bpe->cache_ids.length,
                              (uint8_t)length, (uint8_t)count, true};
    PX_TRY(px_buf_add(&bpe->cache_words, word, length));
    return px_ids_append(&bpe->cache_ids, ids, count);
}

px_status px_bpe_encode(px_bpe *bpe, const px_vocab *vocab, const char *word, size_t length, bool bytes, px_ids *ids)
{
    if (length > CACHE_WORD) {
        return encode_word(bpe, vocab, word, length, bytes, ids);
    }
    uint64_t hash = px_hash(word, length, bytes);
    px_cached_word *entry = &bpe->cache[hash & (CACHE_SLOTS - 1)];
    if (entry->used && entry->hash == hash && entry->length == length &&
        memcmp(bpe->cache_words.data + entry->word, word, length) == 0) {
        return px_ids_append(ids, bpe->cache_ids.data + entry->ids, entry->count);
    }
    int64_t before = ids->length;
    PX_TRY(encode_word(bpe, vocab, word, length, bytes, ids));
    int64_t count = ids->length - before;
    return count == 0 || count > UINT8_MAX ? PX_OK : cache_put(bpe, entry, hash, word, length, ids->data + before, count);
}
