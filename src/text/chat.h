/* A conversation as the segments that a renderer writes. Private to text. */
#ifndef PX_TEXT_CHAT_H
#define PX_TEXT_CHAT_H

#include "phalanx/text.h"

typedef struct px_segment {
    size_t end;    /* in text; a segment begins where the one before ends */
    bool learned;  /* assistant content or its end of turn */
    bool special;  /* the string of one special token */
} px_segment;
typedef struct px_script {
    px_buf text;
    px_segment *segments;
    int count, capacity;
    const char *bos, *eos; /* "" when the tokenizer has none */
    bool row;              /* to learn: see px_chat_row */
} px_script;
px_status px_script_add(px_script *script, const char *text, size_t length, bool learned, bool special);

bool px_message_learned(const px_message *message);

enum { PX_WRITES_TOOLS = 1, PX_WRITES_REASONING = 2 };
struct px_renderer {
    const char *name;
    unsigned writes; /* beside role and content */
    px_status (*render)(px_script *script, const px_message *messages, int count, bool generation_prompt);
};
extern const struct px_renderer px_renderers[];
extern const int px_renderer_count;

#endif
