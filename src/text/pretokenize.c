#include "characters.h"
#include "tokenizer.h"

#include <string.h>

const char px_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static px_status add_span(px_span **spans, size_t *count, size_t *capacity, size_t start, size_t end, bool match)
{
    if (*count == *capacity) {
        size_t room = *capacity == 0 ? 256 : 2 * *capacity;
        px_span *more = px_realloc(*spans, room * sizeof *more, "pieces of a text");
        if (more == NULL) {
            return px_error_code();
        }
        *spans = more;
        *capacity = room;
    }
    (*spans)[(*count)++] = (px_span){start, end, match};
    return PX_OK;
}

static px_status emit(px_pieces *p, size_t start, size_t end)
{
    return start == end ? PX_OK : add_span(&p->next, &p->next_count, &p->next_capacity, start, end, false);
}

static px_status part(px_pieces *p, size_t start, size_t end, bool match)
{
    return add_span(&p->parts, &p->part_count, &p->part_capacity, start, end, match);
}

void px_pieces_free(px_pieces *pieces)
{
    px_buf_free(&pieces->text);
    px_buf_free(&pieces->next_text);
    px_free(pieces->spans);
    px_free(pieces->next);
    px_free(pieces->parts);
    *pieces = (px_pieces){0};
}

/* Matches of a pattern, empty ones too, and the gaps between them, in order. */
static px_status parts_by_pattern(const px_pattern *pattern, const char *text, px_span piece, px_pieces *p)
{
    px_matches m = {.pattern = pattern, .text = text + piece.start, .length = piece.end - piece.start};
    size_t covered = 0;
    for (;;) {
        bool found;
        PX_TRY(px_matches_next(&m, &found));
        size_t gap_end = found ? m.start : m.length;
        PX_TRY(gap_end > covered ? part(p, piece.start + covered, piece.start + gap_end, false) : PX_OK);
        if (!found) {
            return PX_OK;
        }
        PX_TRY(part(p, piece.start + m.start, piece.start + m.end, true));
        covered = m.end;
    }
}

/* Every character of the class is a match of its own. */
static px_status parts_by_class(bool (*is_match)(uint32_t), const char *text, px_span piece, px_pieces *p)
{
    size_t gap = piece.start;
    for (size_t i = piece.start; i < piece.end;) {
        int step;
        if (is_match(px_char_at(text + i, &step))) {
            if (gap < i) {
                PX_TRY(part(p, gap, i, false));
            }
            PX_TRY(part(p, i, i + (size_t)step, true));
            gap = i + (size_t)step;
        }
        i += (size_t)step;
    }
    return gap < piece.end ? part(p, gap, piece.end, false) : PX_OK;
}

static px_status emit_by_behavior(px_pieces *p, px_behavior behavior, bool invert)
{
    size_t n = p->part_count;
    for (size_t i = 0; i < n;) {
        size_t last = i;
        bool match = p->parts[i].match != invert;
        if (behavior == PX_REMOVED && match) {
            i++;
            continue;
        }
        if (behavior == PX_CONTIGUOUS) {
            while (last + 1 < n && (p->parts[last + 1].match != invert) == match) {
                last++;
            }
        } else if (behavior == PX_MERGED_PREVIOUS && !match && last + 1 < n && p->parts[last + 1].match != invert) {
            last++; /* only the first of a row of matches joins what is before it */
        } else if (behavior == PX_MERGED_NEXT && match && last + 1 < n && p->parts[last + 1].match == invert) {
            last++;
        }
        PX_TRY(emit(p, p->parts[i].start, p->parts[last].end));
        i = last + 1;
    }
    p->part_count = 0;
    return PX_OK;
}

/* Word characters together, everything else but spaces together, spaces dropped. */
static px_status split_words(const char *text, px_span piece, px_pieces *p)
{
    size_t start = piece.start;
    int kind = 0; /* of the run at start: 0 space, 1 word, 2 other */
    for (size_t i = piece.start; i < piece.end;) {
        int step;
        uint32_t c = px_char_at(text + i, &step);
        int now = px_char_is_space(c) ? 0 : px_char_is_word(c) ? 1 : 2;
        if (now != kind) {
            PX_TRY(kind == 0 ? PX_OK : emit(p, start, i));
            start = i;
            kind = now;
        }
        i += (size_t)step;
    }
    return kind == 0 ? PX_OK : emit(p, start, piece.end);
}

static px_status split_length(int characters, const char *text, px_span piece, px_pieces *p)
{
    size_t start = piece.start;
    for (size_t i = piece.start, n = 1; i < piece.end; n++) {
        int step;
        px_char_at(text + i, &step);
        i += (size_t)step;
        if (n % (size_t)characters == 0 || i == piece.end) {
            PX_TRY(emit(p, start, i));
            start = i;
        }
    }
    return PX_OK;
}

static px_status emit_parts_isolated(px_pieces *p, const px_pattern *pattern, const char *text, px_span piece)
{
    PX_TRY(parts_by_pattern(pattern, text, piece, p));
    return emit_by_behavior(p, PX_ISOLATED, false);
}

/* Pieces of a step that rewrites: each goes to next_text, is split there, and next_text takes over at the end. */
static px_status byte_level(const px_split *step, bool defer, px_pieces *p)
{
    p->next_text.length = 0;
    bool rewrite = step->prefix_space;
    const char *text = p->text.data;
    for (size_t i = 0; i < p->count; i++) {
        px_span piece = p->spans[i];
        if (rewrite) {
            size_t start = p->next_text.length;
            if (p->text.data[piece.start] != ' ') {
                PX_TRY(px_buf_add(&p->next_text, " ", 1));
            }
            PX_TRY(px_buf_add(&p->next_text, p->text.data + piece.start, piece.end - piece.start));
            piece = (px_span){start, p->next_text.length, false};
            text = p->next_text.data;
        }
        PX_TRY(step->use_pattern ? emit_parts_isolated(p, &step->pattern, text, piece)
                                 : emit(p, piece.start, piece.end));
    }
    if (rewrite) {
        px_buf swap = p->text;
        p->text = p->next_text;
        p->next_text = swap;
    }
    if (defer) {
        p->bytes = true;
        return PX_OK;
    }
    p->next_text.length = 0;
    for (size_t i = 0; i < p->next_count; i++) {
        size_t start = p->next_text.length;
        PX_TRY(px_byte_chars(p->text.data + p->next[i].start, p->next[i].end - p->next[i].start, &p->next_text));
        p->next[i] = (px_span){start, p->next_text.length, false};
    }
    px_buf swap = p->text;
    p->text = p->next_text;
    p->next_text = swap;
    return PX_OK;
}

static px_status metaspace(const px_split *step, px_pieces *p)
{
    p->next_text.length = 0;
    const px_pattern *mark = &step->pattern;
    for (size_t i = 0; i < p->count; i++) {
        px_span piece = p->spans[i];
        const char *at = p->text.data + piece.start, *end = p->text.data + piece.end;
        size_t start = p->next_text.length;
        bool marked = at < end && (*at == ' ' || ((size_t)(end - at) >= mark->length &&
                                                  memcmp(at, mark->source, mark->length) == 0));
        if (!marked && (step->prepend == PX_PREPEND_ALWAYS ||
                        (step->prepend == PX_PREPEND_FIRST && p->at_start && piece.start == 0))) {
            PX_TRY(px_buf_add(&p->next_text, mark->source, mark->length));
        }
        while (at < end) {
            const char *space = memchr(at, ' ', (size_t)(end - at));
            const char *stop = space != NULL ? space : end;
            PX_TRY(px_buf_add(&p->next_text, at, (size_t)(stop - at)));
            PX_TRY(space == NULL ? PX_OK : px_buf_add(&p->next_text, mark->source, mark->length));
            at = space != NULL ? space + 1 : end;
        }
        px_span fresh = {start, p->next_text.length, false};
        if (step->use_pattern) {
            PX_TRY(parts_by_pattern(mark, p->next_text.data, fresh, p));
            PX_TRY(emit_by_behavior(p, PX_MERGED_NEXT, false));
        } else {
            PX_TRY(emit(p, fresh.start, fresh.end));
        }
    }
    px_buf swap = p->text;
    p->text = p->next_text;
    p->next_text = swap;
    return PX_OK;
}

static px_status split_each(const px_split *step, px_pieces *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (step->kind == PX_SPLIT_WORDS || step->kind == PX_SPLIT_LENGTH) {
            PX_TRY(step->kind == PX_SPLIT_WORDS ? split_words(p->text.data, p->spans[i], p)
                                                : split_length(step->characters, p->text.data, p->spans[i], p));
            continue;
        }
        if (step->kind == PX_SPLIT_PATTERN) {
            PX_TRY(parts_by_pattern(&step->pattern, p->text.data, p->spans[i], p));
        } else {
            PX_TRY(parts_by_class(step->is_match, p->text.data, p->spans[i], p));
        }
        PX_TRY(emit_by_behavior(p, step->behavior, step->invert));
    }
    return PX_OK;
}

px_status px_split_text(const px_split *steps, int count, bool defer, px_pieces *p)
{
    p->count = p->next_count = p->part_count = 0;
    p->bytes = false;
    if (p->text.length == 0) {
        return PX_OK;
    }
    PX_TRY(add_span(&p->spans, &p->count, &p->capacity, 0, p->text.length, false));
    for (int s = 0; s < count; s++) {
        p->next_count = 0;
        if (steps[s].kind == PX_SPLIT_BYTE_LEVEL) {
            PX_TRY(byte_level(&steps[s], defer && s == count - 1, p));
        } else if (steps[s].kind == PX_SPLIT_METASPACE) {
            PX_TRY(metaspace(&steps[s], p));
        } else {
            PX_TRY(split_each(&steps[s], p));
        }
        px_span *swap = p->spans;
        size_t room = p->capacity;
        p->spans = p->next;
        p->capacity = p->next_capacity;
        p->count = p->next_count;
        p->next = swap;
        p->next_capacity = room;
    }
    return PX_OK;
}
