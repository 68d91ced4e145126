/* Parts of the byte-level BPE trainer. Private to text. */
#ifndef PX_TEXT_TRAIN_H
#define PX_TEXT_TRAIN_H

#include "phalanx/text.h"
#include "vocab.h"

/* Distinct words (pieces of the pre-tokenizer) and how often each occurs. */
typedef struct px_words {
    px_buf text;        /* the bytes of all words */
    size_t *offset;     /* [count] */
    int32_t *length;
    int64_t *times;
    int32_t *slots;     /* open addressing: word + 1, 0: free */
    uint32_t mask;
    int32_t count, room;
} px_words;
void px_words_free(px_words *words);
/* Adds the words of plain text (a sequence is a line with its end, as the tokenizers library trains on files) or of
 * JSONL (a sequence is a text field). */
px_status px_words_count(px_words *words, const char *path);

/* A merge: tokens `left` and `right` become `id`. */
typedef struct px_learned {
    int32_t left, right, id;
} px_learned;
/* ids of the 256 bytes are byte_id. names is what each token stands for; new tokens are
 * put there. merges[*merge_count] is allocated. */

px_status px_merges_learn(const px_words *words, const int32_t byte_id[256], int vocab_size, int64_t min_frequency,
                          px_vocab *names, px_learned **merges, int *merge_count);

struct json_t;
px_status px_tree_write(struct json_t *tree, const char *dir, const char *name); /* gives the tree back */

#endif
