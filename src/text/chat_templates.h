/* Chat templates that are known, by the hash of their text. Private to text. */
#ifndef PX_TEXT_CHAT_TEMPLATES_H
#define PX_TEXT_CHAT_TEMPLATES_H

#include "phalanx/base.h"

extern const char px_template_chatml[]; /* what a tokenizer trained here carries */
/* FNV-1a of a template, line breaks spelt as an escape, without white space at its end. */
uint64_t px_template_hash(const char *text);
const char *px_template_renderer(uint64_t hash); /* the renderer's name; NULL: not known */

#endif
