/* The shapes a record can have: which fields it has and what they hold. Private to text. */
#ifndef PX_TEXT_SHAPES_H
#define PX_TEXT_SHAPES_H

#include "phalanx/text.h"

#include <jansson.h>

typedef enum px_form { PX_FORM_TEXT, PX_FORM_MESSAGES, PX_FORM_IDS } px_form;

/* How a text prompt is made of its field: as it is, by Alpaca's template of instruction and input, or as
 * "Question: ...\n\nAnswer:". With a renderer the last two become a user's turn and the answer an assistant's. */
typedef enum px_style { PX_STYLE_PLAIN, PX_STYLE_ALPACA, PX_STYLE_QUESTION } px_style;

typedef struct px_shape {
    const char *name;
    unsigned kinds; /* bit 1 << px_kind: who can use it */
    px_form form;
    px_style style;
    /* Field names; NULL: none. Pairs without a prompt: chosen and rejected both begin with it. */
    const char *prompt;
    const char *answer; /* completion, chosen, or the whole row */
    const char *rejected;
} px_shape;

/* The shape of a record for rows of this kind. PX_DATA says what the record is and what is valid. */
px_status px_shape_find(const px_shape **shape, const json_t *record, px_kind kind);
/* PX_OK when the record has the shape too; else PX_DATA names the field, or the other shape. */
px_status px_shape_check(const px_shape *shape, const json_t *record, px_kind kind);

#endif
