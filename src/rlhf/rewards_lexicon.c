/* Lexicon rewards: entries are found in the lower-cased text by a hash table, the longest first, on word boundaries. */
#include "rewards_sources.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct entry {
    size_t begin, length; /* in px_lexicon.words; length 0: free place */
    double value;
    bool sign;            /* an emoticon or the like: stands between spaces, not between word boundaries */
} entry;

struct px_lexicon {
    px_buf words;     /* all entries, folded, one after another */
    entry *table;     /* open addressing, `places` is a power of two */
    size_t places, used;
    size_t longest;   /* bytes of the longest entry */
    px_buf text, classes; /* scratch: the folded text and one class per byte */
};

enum class_of_char { SPACE = ' ', WORD = 'w', OTHER = 'o', INSIDE = 'i' }; /* INSIDE: a later byte of a character */

/* Scripts that do not put spaces between words begin here (CJK and after): every place there is a boundary. */
enum { UNSPACED_SCRIPTS = 0x2E80 };

static char class_of(utf8proc_int32_t c)
{
    utf8proc_category_t kind = utf8proc_category(c);
    if (c == '\t' || c == '\n' || c == '\r' || kind == UTF8PROC_CATEGORY_ZS) {
        return SPACE;
    }
    bool letter = kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NO; /* letters, marks, numbers */
    return (letter || c == '_') && c < UNSPACED_SCRIPTS ? WORD : OTHER;
}

/* "won't" is not "won": an apostrophe between letters belongs to the word, but for the one of a genitive. */
static void join_apostrophes(const px_buf *text, px_buf *classes)
{
    for (size_t i = 1; i + 1 < text->length; i++) {
        bool between = classes->data[i - 1] != SPACE && classes->data[i - 1] != OTHER && classes->data[i + 1] == WORD;
        bool genitive = text->data[i + 1] == 's' && (i + 2 >= text->length || classes->data[i + 2] != WORD);
        if (text->data[i] == '\'' && between && !genitive) {
            classes->data[i] = WORD;
        }
    }
}

/* Lower case, runs of space as one space, the curly apostrophe as the straight one. Invalid bytes end a word. */
static px_status fold(const char *text, size_t length, px_buf *out, px_buf *classes)
{
    px_buf_clear(out);
    px_buf_clear(classes);
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
    for (size_t i = 0; i < length;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate(bytes + i, (utf8proc_ssize_t)(length - i), &c);
        if (n <= 0) {
            n = 1;
            c = ' ';
        }
        i += (size_t)n;
        c = c == 0x2019 ? '\'' : utf8proc_tolower(c);
        char kind = class_of(c);
        utf8proc_uint8_t piece[4];
        utf8proc_ssize_t size = utf8proc_encode_char(kind == SPACE ? ' ' : c, piece);
        if (kind == SPACE && out->length > 0 && out->data[out->length - 1] == ' ') {
            continue;
        }
        char kinds[4] = {kind, INSIDE, INSIDE, INSIDE};
        PX_TRY(px_buf_add(out, piece, (size_t)size));
        PX_TRY(px_buf_add(classes, kinds, (size_t)size));
    }
    join_apostrophes(out, classes);
    return PX_OK;
}

static entry *place_of(const px_lexicon *lexicon, const char *word, size_t length)
{
    size_t i = (size_t)px_hash(word, length, 0) & (lexicon->places - 1);
    for (;; i = (i + 1) & (lexicon->places - 1)) {
        entry *e = &lexicon->table[i];
        if (e->length == 0 || (e->length == length && memcmp(lexicon->words.data + e->begin, word, length) == 0)) {
            return e;
        }
    }
}

/* Letters, apostrophes, hyphens and spaces make a word or a phrase; a word begins and ends with a letter. */
static bool is_sign(const px_buf *classes, const px_buf *word)
{
    for (size_t i = 0; i < word->length; i++) {
        bool inner = i > 0 && i + 1 < word->length && strchr("'- .", word->data[i]) != NULL;
        bool ascii_mark = classes->data[i] == OTHER && (unsigned char)word->data[i] < 0x80;
        if (ascii_mark && !inner) {
            return true;
        }
    }
    return false;
}

/* One line: word<TAB>value, further columns are left alone. */
static px_status add_line(px_lexicon *lexicon, const char *path, int line, const char *text, size_t length)
{
    const char *tab = memchr(text, '\t', length);
    char *end = NULL;
    double value = tab != NULL ? strtod(tab + 1, &end) : 0.0;
    if (tab == NULL || end == tab + 1 || end > text + length || !(fabs(value) <= PX_SCORE_MOST) ||
        (end < text + length && *end != '\t' && *end != ' ' && *end != '\r')) {
        return px_fail(PX_DATA, "%s:%d: no number after the word; valid is word<TAB>value", path, line);
    }
    const char *last = tab;
    while (text < last && *text == ' ') {
        text++;
    }
    while (text < last && last[-1] == ' ') {
        last--;
    }
    PX_TRY(fold(text, (size_t)(last - text), &lexicon->text, &lexicon->classes));
    const px_buf *word = &lexicon->text;
    if (word->length == 0) {
        return px_fail(PX_DATA, "%s:%d: the word is empty; valid is word<TAB>value", path, line);
    }
    entry *e = place_of(lexicon, word->data, word->length);
    if (e->length == 0) {
        e->begin = lexicon->words.length;
        e->length = word->length;
        lexicon->used++;
        PX_TRY(px_buf_add(&lexicon->words, word->data, word->length));
    }
    e->value = value;
    e->sign = is_sign(&lexicon->classes, word);
    lexicon->longest = word->length > lexicon->longest ? word->length : lexicon->longest;
    return PX_OK;
}

static px_status add_file(px_lexicon *lexicon, const char *path, const px_buf *file)
{
    size_t lines = 1;
    for (size_t i = 0; i < file->length; i++) {
        lines += file->data[i] == '\n';
    }
    for (lexicon->places = 16; lexicon->places < 2 * lines;) {
        lexicon->places *= 2;
    }
    lexicon->table = px_alloc_array(lexicon->places, sizeof *lexicon->table, "lexicon");
    if (lexicon->table == NULL) {
        return px_error_code();
    }
    const char *text = file->data, *end = text + file->length;
    for (int line = 1; text < end; line++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        stop = stop != NULL ? stop : end;
        size_t length = (size_t)(stop - text);
        if (length > 0 && text[length - 1] == '\r') {
            length--;
        }
        if (length > 0) {
            PX_TRY(add_line(lexicon, path, line, text, length));
        }
        text = stop + 1;
    }
    return lexicon->used > 0 ? PX_OK : px_fail(PX_DATA, "%s: no entry; valid are lines word<TAB>value", path);
}

px_status px_lexicon_open(px_lexicon **lexicon, const char *path)
{
    px_lexicon *l = px_alloc(sizeof *l, "lexicon");
    if (l == NULL) {
        return px_error_code();
    }
    px_buf file = {0};
    px_status status = px_file_read(path, PX_VOCABULARY_MOST, &file);
    if (status == PX_OK) {
        status = file.length > 0 ? add_file(l, path, &file)
                                 : px_fail(PX_DATA, "%s: empty; valid are lines word<TAB>value", path);
    }
    px_buf_free(&file);
    if (status != PX_OK) {
        px_lexicon_close(l);
        return status;
    }
    *lexicon = l;
    return PX_OK;
}

void px_lexicon_close(px_lexicon *lexicon)
{
    if (lexicon != NULL) {
        px_buf_free(&lexicon->words);
        px_buf_free(&lexicon->text);
        px_buf_free(&lexicon->classes);
        px_free(lexicon->table);
        px_free(lexicon);
    }
}

/* No boundary between two characters of a word, nor inside a character. */
static bool boundary(const px_lexicon *lexicon, size_t at)
{
    const char *classes = lexicon->classes.data;
    if (at == 0 || at >= lexicon->text.length) {
        return true;
    }
    if (classes[at] == INSIDE) {
        return false;
    }
    size_t before = at - 1;
    while (classes[before] == INSIDE) {
        before--;
    }
    return classes[before] != WORD || classes[at] != WORD;
}

/* Signs stand between spaces; the full stop of a sentence may follow. */
static bool stands_alone(const px_lexicon *lexicon, size_t begin, size_t end)
{
    const px_buf *text = &lexicon->text;
    return (begin == 0 || text->data[begin - 1] == ' ') &&
           (end >= text->length || strchr(" .,!?", text->data[end]) != NULL);
}

static const entry *longest_at(const px_lexicon *lexicon, size_t begin)
{
    const px_buf *text = &lexicon->text;
    size_t last = begin + lexicon->longest < text->length ? begin + lexicon->longest : text->length;
    for (size_t end = last; end > begin; end--) {
        if (!boundary(lexicon, end)) {
            continue;
        }
        const entry *e = place_of(lexicon, text->data + begin, end - begin);
        if (e->length > 0 && (!e->sign || stands_alone(lexicon, begin, end))) {
            return e;
        }
    }
    return NULL;
}

px_status px_lexicon_score(px_lexicon *lexicon, const char *text, double *score)
{
    PX_TRY(fold(text, strlen(text), &lexicon->text, &lexicon->classes));
    double sum = 0.0;
    for (size_t i = 0; i < lexicon->text.length;) {
        const entry *e = NULL;
        if (boundary(lexicon, i) && lexicon->text.data[i] != ' ') {
            e = longest_at(lexicon, i);
        }
        sum += e != NULL ? e->value : 0.0;
        i += e != NULL ? e->length : 1;
    }
    *score = sum / sqrt(sum * sum + 15.0);
    return PX_OK;
}
