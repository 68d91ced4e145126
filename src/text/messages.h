/* The turns of a conversation, gathered from a record's JSON. Private to text. */
#ifndef PX_TEXT_MESSAGES_H
#define PX_TEXT_MESSAGES_H

#include "phalanx/text.h"

#include <jansson.h>

/* Start from {0}. Texts are the record's own where that is possible; the rest is kept here until clear. */
typedef struct px_turns {
    px_message *list;
    int count, capacity;
    void **kept;
    int kept_count, kept_capacity;
} px_turns;

void px_turns_clear(px_turns *turns); /* memory of the list stays */
void px_turns_free(px_turns *turns);
px_status px_turns_push(px_turns *turns, const px_message *message);
/* The messages of a field: a list of them, or one without its list. {"role", "content"} with tool_calls,
 * reasoning_content and weight, or ShareGPT's {"from", "value"}. PX_DATA names field, turn and what cannot be used. */
px_status px_turns_push_field(px_turns *turns, const char *field, const json_t *value);
/* The tools that a record offers (a list, or a string that holds one), as px_message has them; NULL: none. */
px_status px_turns_tools(px_turns *turns, const json_t *record, const char **tools);

#endif
