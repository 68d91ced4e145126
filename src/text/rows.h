/* One record at a time into token ids. Private to text. */
#ifndef PX_TEXT_ROWS_H
#define PX_TEXT_ROWS_H

#include "messages.h"
#include "shapes.h"

typedef enum px_verdict {
    PX_ROW_KEPT,
    PX_ROW_CUT,       /* kept, without its end */
    PX_ROW_TOO_LONG,  /* dropped */
    PX_ROW_EQUAL,     /* dropped: chosen and rejected are the same */
    PX_ROW_EMPTY,     /* dropped: a prompt or an answer is empty; the reason says which */
    PX_ROW_NO_TARGET, /* dropped: nothing to learn within max_tokens */
} px_verdict;

/* The row of the latest record, and scratch that is used again for the next. Start from {options, shape}. */
typedef struct px_row_maker {
    const px_data_options *options;
    const px_shape *shape;
    px_ids ids, rejected;
    px_ids mask; /* one 0/1 per id when has_mask */
    bool has_mask;
    int64_t prompt_length;
    double margin;
    px_verdict verdict;
    char reason[200]; /* of PX_ROW_EMPTY */
    /* scratch */
    px_ids header; /* a prompt of messages up to the assistant's turn */
    px_buf text;
    px_turns turns;
    const char *tools; /* of the record's conversation */
} px_row_maker;

px_status px_row_make(px_row_maker *maker, const json_t *record); /* the record has maker->shape */
/* What is below px_row_make returns this where the record is right and only lacks text; px_row_make turns it into the
 * verdict. */
#define px_row_empty(maker, ...) ((maker)->verdict = PX_ROW_EMPTY, px_fail(PX_DATA, __VA_ARGS__))
bool px_row_rendered(const px_row_maker *maker); /* do the records of this shape go through the chat template? */
void px_row_maker_free(px_row_maker *maker);

/* Turns of a conversation, turns.c: fills ids (and rejected, mask, prompt_length) of maker from a record of messages,
 * or of an instruction or question that is rendered as a conversation. */
px_status px_turns_make(px_row_maker *maker, const json_t *record);
/* ids: the prompt's turns and the answer, as a side of a pair of conversations. record: of a prompt that was kept. */
px_status px_turns_answer(px_row_maker *maker, const json_t *record, const char *answer);

#endif
