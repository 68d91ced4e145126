/* UTF-8 and classes of characters as the tokenizers library sees them. Private to text. */
#ifndef PX_TEXT_CHARACTERS_H
#define PX_TEXT_CHARACTERS_H

#include "phalanx/base.h"

/* The character at text; *length bytes. The text must be valid UTF-8 and not empty. */
uint32_t px_char_at(const char *text, int *length);
/* The character that ends before text + end; end > 0. */
uint32_t px_char_before(const char *text, size_t end, int *length);
int px_char_put(uint32_t c, char out[4]); /* bytes written */

bool px_char_is_space(uint32_t c);       /* White_Space */
bool px_char_is_word(uint32_t c);        /* Alphabetic, M, Nd, Pc, Join_Control: \w of UTS 18 */
bool px_char_is_number(uint32_t c);      /* N */
bool px_char_is_punctuation(uint32_t c); /* P, and the ASCII symbols */
bool px_char_is_mark(uint32_t c);        /* M */
bool px_char_is_nonspacing(uint32_t c);  /* Mn */
bool px_char_is_control(uint32_t c);     /* Cc, Cf, Cs and Co, except tab and newlines */
/* characters_late.c: where the tokenizers library's tables are older. */
bool px_char_has_late_form(uint32_t c);
bool px_char_has_late_category(uint32_t c);
bool px_char_is_han(uint32_t c);         /* the blocks of CJK ideographs that BERT isolates */
int px_char_lower(uint32_t c, uint32_t out[2]); /* count */

/* The reversible map of byte-level tokenizers: byte to a printable character and back. */
uint32_t px_byte_char(uint8_t byte);
int px_char_byte(uint32_t c); /* -1: the character stands for no byte */
px_status px_byte_chars(const char *bytes, size_t length, px_buf *out); /* appends the characters */

/* Appends bytes as UTF-8; each maximal part that is not valid becomes U+FFFD. */
px_status px_utf8_repair(const char *bytes, size_t length, px_buf *out);

#endif
