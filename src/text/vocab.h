/* Strings and their ids, both ways. Private to text. */
#ifndef PX_TEXT_VOCAB_H
#define PX_TEXT_VOCAB_H

#include "phalanx/base.h"

enum { PX_VOCAB_LIMIT = 1 << 22 }; /* ids are below this: keeps a wrong id from asking for the whole memory */

typedef struct px_vocab {
    px_buf text;      /* the strings, each followed by a NUL */
    size_t *offset;   /* [size] of an id's string in text */
    int32_t *length;  /* [size] in bytes; -1: no such id */
    int32_t size;     /* ids are below this */
    int32_t count;    /* of strings */
    int32_t *slots;   /* open addressing by hash of the string; id + 1, 0: free */
    uint32_t mask;    /* slots - 1 */
} px_vocab;

/* size: the largest id plus one; bytes: of all strings, a guess. */
px_status px_vocab_init(px_vocab *vocab, int32_t size, size_t bytes);
void px_vocab_free(px_vocab *vocab);
/* PX_DATA when the id or the string is taken or the id is out of range. */
px_status px_vocab_put(px_vocab *vocab, const char *text, size_t length, int32_t id);
int32_t px_vocab_find(const px_vocab *vocab, const char *text, size_t length); /* -1: none */
const char *px_vocab_text(const px_vocab *vocab, int32_t id, size_t *length);  /* NULL: none */

#endif
