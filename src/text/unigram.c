#include "characters.h"
#include "tokenizer.h"

#include <stdio.h>
#include <string.h>

/* Score of a character that no piece covers, below the lowest piece (Kudo 2018; SentencePiece's constant). */
static const double unknown_penalty = 10.0;

struct px_best {
    double score;
    size_t start; /* of the piece that ends here; SIZE_MAX: nothing does */
    int32_t id;
};

static uint64_t edge_slot(const px_unigram *u, int32_t node, uint8_t byte)
{
    uint64_t key = ((uint64_t)(uint32_t)node << 8 | byte) + 1;
    uint64_t slot = key * 0x9e3779b97f4a7c15u;
    slot = (slot ^ slot >> 32) & u->mask;
    while (u->edges[slot] != 0 && u->edges[slot] != key) {
        slot = (slot + 1) & u->mask;
    }
    return slot;
}

px_status px_unigram_init(px_unigram *u, const px_vocab *vocab)
{
    size_t room = vocab->text.length + 2; /* a node a byte at most */
    uint64_t slots = 16;
    while (slots < 2 * room) {
        slots *= 2;
    }
    u->mask = slots - 1;
    u->edges = px_alloc_array(slots, sizeof *u->edges, "unigram trie");
    u->target = px_alloc_array(slots, sizeof *u->target, "unigram trie");
    u->token = px_alloc_array(room, sizeof *u->token, "unigram trie");
    if (u->edges == NULL || u->target == NULL || u->token == NULL) {
        return px_error_code();
    }
    u->nodes = 1;
    u->token[0] = -1;
    for (int32_t id = 0; id < vocab->size; id++) {
        size_t length = 0;
        const char *text = px_vocab_text(vocab, id, &length);
        int32_t node = 0;
        for (size_t i = 0; i < length; i++) {
            uint64_t slot = edge_slot(u, node, (uint8_t)text[i]);
            if (u->edges[slot] == 0) {
                u->edges[slot] = ((uint64_t)(uint32_t)node << 8 | (uint8_t)text[i]) + 1;
                u->token[u->nodes] = -1;
                u->target[slot] = u->nodes++;
            }
            node = u->target[slot];
        }
        if (length > 0) {
            u->token[node] = id;
        }
    }
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        u->byte_fallback[b] = px_vocab_find(vocab, text, 6);
    }
    return PX_OK;
}

void px_unigram_free(px_unigram *u)
{
    px_free(u->score);
    px_free(u->edges);
    px_free(u->target);
    px_free(u->token);
    px_free(u->best);
}

static void offer(struct px_best *best, size_t start, double score, int32_t id)
{
    if (best->start == SIZE_MAX || score > best->score) {
        *best = (struct px_best){score, start, id};
    }
}

/* Viterbi: best[i] is the best way to cover the first i bytes. */
static px_status cover(px_unigram *u, const char *word, size_t length)
{
    if (length + 1 > u->best_room) {
        px_free(u->best);
        u->best_room = 0;
        u->best = px_alloc_array(2 * (length + 1), sizeof *u->best, "unigram paths");
        if (u->best == NULL) {
            return px_error_code();
        }
        u->best_room = 2 * (length + 1);
    }
    for (size_t i = 0; i <= length; i++) {
        u->best[i] = (struct px_best){0, SIZE_MAX, -1};
    }
    for (size_t at = 0; at < length;) {
        int step;
        px_char_at(word + at, &step);
        bool single = false;
        int32_t node = 0;
        double here = at > 0 ? u->best[at].score : 0;
        for (size_t end = at; end < length; end++) {
            uint64_t slot = edge_slot(u, node, (uint8_t)word[end]);
            if (u->edges[slot] == 0) {
                break;
            }
            node = u->target[slot];
            if (u->token[node] >= 0) {
                offer(&u->best[end + 1], at, here + u->score[u->token[node]], u->token[node]);
                single = single || end + 1 - at == (size_t)step;
            }
        }
        if (!single) {
            if (u->unk < 0) {
                return px_fail(PX_DATA, "\"%.*s\" is in no piece of the vocabulary and model.unk_id is not set", step,
                               word + at);
            }
            offer(&u->best[at + (size_t)step], at, here + u->lowest - unknown_penalty, u->unk);
        }
        at += (size_t)step;
    }
    return PX_OK;
}

/* A run of unknown characters is one piece: its bytes where all of them have tokens, else one unk. */
static px_status unknown_piece(const px_unigram *u, const px_vocab *vocab, const char *text, size_t length, px_ids *ids)
{
    int32_t id = px_vocab_find(vocab, text, length);
    bool bytes = u->fall_back && id < 0;
    for (size_t i = 0; bytes && i < length; i++) {
        bytes = u->byte_fallback[(uint8_t)text[i]] >= 0;
    }
    for (size_t i = 0; bytes && i < length; i++) {
        PX_TRY(px_ids_add(ids, u->byte_fallback[(uint8_t)text[i]]));
    }
    return bytes ? PX_OK : px_ids_add(ids, id >= 0 ? id : u->unk);
}

px_status px_unigram_encode(px_unigram *u, const px_vocab *vocab, const char *word, size_t length, px_ids *ids)
{
    PX_TRY(cover(u, word, length));
    /* Turn the chain of pieces around: the way back overwrites `start` of each end by the end of the next piece. */
    size_t end = length, after = SIZE_MAX;
    while (end > 0) {
        size_t start = u->best[end].start;
        u->best[end].start = after;
        after = end;
        end = start;
    }
    size_t start = 0;
    while (after != SIZE_MAX) {
        size_t stop = after;
        int32_t id = u->best[stop].id;
        after = u->best[stop].start;
        while (id == u->unk && after != SIZE_MAX && u->best[after].id == u->unk) {
            stop = after;
            after = u->best[stop].start;
        }
        PX_TRY(id == u->unk ? unknown_piece(u, vocab, word + start, stop - start, ids) : px_ids_add(ids, id));
        start = stop;
    }
    return PX_OK;
}
