/* Byte-pair merges (Sennrich et al. 2016), the most frequent pair first; of equal ones the pair with the smaller ids.
 * Counts are kept up to date by the neighbours of each merge; a heap entry that is out of date is corrected when it
 * comes up. Every entry has the words in which its pair appeared at that time, as the tokenizers library does it: where
 * two ways make the same token, the order of the merges depends on that. */
#include "train.h"

#include "vocab.h"

#include <string.h>

typedef struct pair {
    uint64_t key;  /* left << 32 | right, plus 1; 0: free */
    int64_t times;
    int32_t head;  /* of the list of words where it is new; -1: none */
    int32_t last;  /* the word put there last */
} pair;

typedef struct entry { /* of the heap */
    uint64_t key;
    int64_t times;
    size_t words;  /* where in the pool */
    int32_t count;
} entry;

typedef struct link {
    int32_t word, next;
} link;

typedef struct learner {
    const px_words *words;
    int32_t *symbols;   /* of all words, each at its offset */
    int32_t *left_over; /* [words] symbols left in a word */
    pair *pairs;        /* open addressing */
    uint64_t mask, pair_count;
    entry *heap;
    size_t heap_count, heap_room;
    int32_t *pool;      /* words of heap entries */
    size_t pool_count, pool_room;
    link *links;
    int32_t link_count, link_room;
    uint64_t *touched;  /* keys of pairs with a list */
    size_t touched_count, touched_room;
} learner;

static px_status make_room(void **array, size_t *room, size_t wanted, size_t size)
{
    if (wanted <= *room) {
        return PX_OK;
    }
    size_t fresh = *room < 1024 ? 2048 : 2 * *room;
    fresh = fresh < wanted ? wanted : fresh;
    void *more = px_realloc(*array, fresh * size, "pairs of a tokenizer");
    if (more == NULL) {
        return px_error_code();
    }
    *array = more;
    *room = fresh;
    return PX_OK;
}

static pair *slot_of(const learner *l, uint64_t key)
{
    uint64_t slot = key * 0x9e3779b97f4a7c15u;
    slot = (slot ^ slot >> 32) & l->mask;
    while (l->pairs[slot].key != 0 && l->pairs[slot].key != key) {
        slot = (slot + 1) & l->mask;
    }
    return &l->pairs[slot];
}

static px_status grow_pairs(learner *l)
{
    uint64_t slots = l->mask == 0 ? 1 << 16 : 2 * (l->mask + 1);
    pair *old = l->pairs, *fresh = px_alloc_array(slots, sizeof *fresh, "pairs of a tokenizer");
    if (fresh == NULL) {
        return px_error_code();
    }
    uint64_t old_slots = old == NULL ? 0 : l->mask + 1;
    l->pairs = fresh;
    l->mask = slots - 1;
    for (uint64_t i = 0; i < old_slots; i++) {
        if (old[i].key != 0) {
            *slot_of(l, old[i].key) = old[i];
        }
    }
    px_free(old);
    return PX_OK;
}

/* `change` more of the pair; when it is new in the word, the word goes on the pair's list. */
static px_status count_pair(learner *l, int32_t left, int32_t right, int64_t change, int32_t word)
{
    if (2 * l->pair_count >= l->mask) {
        PX_TRY(grow_pairs(l));
    }
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
    pair *p = slot_of(l, key);
    if (p->key == 0) {
        *p = (pair){key, 0, -1, -1};
        l->pair_count++;
    }
    p->times += change;
    if (change < 0 || (p->head >= 0 && p->last == word)) {
        return PX_OK;
    }
    if (p->head < 0) {
        PX_TRY(make_room((void **)&l->touched, &l->touched_room, l->touched_count + 1, sizeof *l->touched));
        l->touched[l->touched_count++] = key;
    }
    if (l->link_count == INT32_MAX) {
        return px_fail(PX_DATA, "the text has too many pairs to train on; give less of it");
    }
    size_t room = (size_t)l->link_room;
    PX_TRY(make_room((void **)&l->links, &room, (size_t)l->link_count + 1, sizeof *l->links));
    l->link_room = room > INT32_MAX ? INT32_MAX : (int32_t)room;
    l->links[l->link_count] = (link){word, p->head};
    p->head = l->link_count++;
    p->last = word;
    return PX_OK;
}

static bool comes_first(const entry *a, const entry *b)
{
    return a->times != b->times ? a->times > b->times : a->key < b->key;
}

static px_status heap_push(learner *l, entry fresh)
{
    PX_TRY(make_room((void **)&l->heap, &l->heap_room, l->heap_count + 1, sizeof *l->heap));
    size_t i = l->heap_count++;
    while (i > 0 && comes_first(&fresh, &l->heap[(i - 1) / 2])) {
        l->heap[i] = l->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    l->heap[i] = fresh;
    return PX_OK;
}

static entry heap_pop(learner *l)
{
    entry top = l->heap[0], last = l->heap[--l->heap_count];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < l->heap_count) {
        child += child + 1 < l->heap_count && comes_first(&l->heap[child + 1], &l->heap[child]);
        if (!comes_first(&l->heap[child], &last)) {
            break;
        }
        l->heap[i] = l->heap[child];
        i = child;
    }
    l->heap[i] = last;
    return top;
}

/* The lists of all touched pairs become heap entries. */
static px_status lists_to_heap(learner *l)
{
    for (size_t i = 0; i < l->touched_count; i++) {
        pair *p = slot_of(l, l->touched[i]);
        entry fresh = {p->key, p->times, l->pool_count, 0};
        for (int32_t k = p->head; k >= 0; k = l->links[k].next) {
            PX_TRY(make_room((void **)&l->pool, &l->pool_room, l->pool_count + 1, sizeof *l->pool));
            l->pool[l->pool_count++] = l->links[k].word;
            fresh.count++;
        }
        p->head = p->last = -1;
        if (p->times > 0) {
            PX_TRY(heap_push(l, fresh));
        } else {
            l->pool_count = fresh.words;
        }
    }
    l->touched_count = 0;
    l->link_count = 0;
    return PX_OK;
}

static px_status start(learner *l, const int32_t byte_id[256])
{
    const px_words *w = l->words;
    l->symbols = px_alloc_array(w->text.length + 1, sizeof *l->symbols, "symbols of the text");
    l->left_over = px_alloc_array((size_t)w->count + 1, sizeof *l->left_over, "symbols of the text");
    if (l->symbols == NULL || l->left_over == NULL) {
        return px_error_code();
    }
    for (size_t i = 0; i < w->text.length; i++) {
        l->symbols[i] = byte_id[(uint8_t)w->text.data[i]];
    }
    PX_TRY(grow_pairs(l));
    for (int32_t word = 0; word < w->count; word++) {
        const int32_t *s = l->symbols + w->offset[word];
        l->left_over[word] = w->length[word];
        for (int32_t i = 0; i + 1 < w->length[word]; i++) {
            PX_TRY(count_pair(l, s[i], s[i + 1], w->times[word], word));
        }
    }
    return lists_to_heap(l);
}

/* Merges a pair in one word, left to right. */
static px_status merge_word(learner *l, px_learned m, int32_t word)
{
    int32_t *s = l->symbols + l->words->offset[word];
    int32_t n = l->left_over[word], kept = 0;
    int64_t times = l->words->times[word];
    for (int32_t i = 0; i < n; i++) {
        if (i + 1 >= n || s[i] != m.left || s[i + 1] != m.right) {
            s[kept++] = s[i];
            continue;
        }
        if (kept > 0) {
            PX_TRY(count_pair(l, s[kept - 1], m.left, -times, word));
            PX_TRY(count_pair(l, s[kept - 1], m.id, times, word));
        }
        if (i + 2 < n) {
            PX_TRY(count_pair(l, m.right, s[i + 2], -times, word));
            PX_TRY(count_pair(l, m.id, s[i + 2], times, word));
        }
        s[kept++] = m.id;
        i++;
    }
    l->left_over[word] = kept;
    return PX_OK;
}

/* The token that a pair makes, which may be there already. */
static px_status name_merge(px_vocab *names, px_learned *m, px_buf *text)
{
    size_t left_length = 0, right_length = 0;
    const char *left = px_vocab_text(names, m->left, &left_length);
    const char *right = px_vocab_text(names, m->right, &right_length);
    px_buf_clear(text);
    PX_TRY(px_buf_add(text, left, left_length));
    PX_TRY(px_buf_add(text, right, right_length));
    m->id = px_vocab_find(names, text->data, text->length);
    if (m->id < 0) {
        m->id = names->count;
        return px_vocab_put(names, text->data, text->length, m->id);
    }
    return PX_OK;
}

static px_status learn(learner *l, int vocab_size, int64_t min_frequency, px_vocab *names, px_learned **merges,
                       int *merge_count, px_buf *text)
{
    size_t room = 0;
    while (names->count < vocab_size && l->heap_count > 0) {
        entry top = heap_pop(l);
        int64_t now = slot_of(l, top.key)->times;
        if (top.times != now) {
            top.times = now;
            PX_TRY(heap_push(l, top));
            continue;
        }
        if (top.times < 1 || top.times < min_frequency) {
            break;
        }
        px_learned m = {(int32_t)((top.key - 1) >> 32), (int32_t)((top.key - 1) & 0xffffffffu), 0};
        PX_TRY(name_merge(names, &m, text));
        PX_TRY(make_room((void **)merges, &room, (size_t)*merge_count + 1, sizeof m));
        (*merges)[(*merge_count)++] = m;
        for (int32_t i = 0; i < top.count; i++) {
            PX_TRY(merge_word(l, m, l->pool[top.words + (size_t)i]));
        }
        PX_TRY(lists_to_heap(l));
    }
    return PX_OK;
}

px_status px_merges_learn(const px_words *words, const int32_t byte_id[256], int vocab_size, int64_t min_frequency,
                          px_vocab *names, px_learned **merges, int *merge_count)
{
    learner l = {.words = words};
    px_buf text = {0};
    *merges = NULL;
    *merge_count = 0;
    px_status status = start(&l, byte_id);
    if (status == PX_OK) {
        status = learn(&l, vocab_size, min_frequency, names, merges, merge_count, &text);
    }
    px_buf_free(&text);
    px_free(l.symbols);
    px_free(l.left_over);
    px_free(l.pairs);
    px_free(l.heap);
    px_free(l.pool);
    px_free(l.links);
    px_free(l.touched);
    return status;
}
