#include "rows.h"

#include "characters.h"

#include <stdio.h>
#include <string.h>

void px_row_maker_free(px_row_maker *maker)
{
    px_ids_free(&maker->ids);
    px_ids_free(&maker->rejected);
    px_ids_free(&maker->mask);
    px_ids_free(&maker->header);
    px_buf_free(&maker->text);
    px_turns_free(&maker->turns);
    *maker = (px_row_maker){0};
}

/* ---- id rows ----------------------------------------------------------------------------------------------------- */

static px_status take_ids(px_row_maker *maker, const json_t *record, const char *field, px_ids *ids)
{
    const json_t *list = json_object_get(record, field);
    size_t count = json_array_size(list);
    int vocab = maker->options->vocab_size;
    int64_t limit = vocab > 0 ? vocab : INT32_MAX;
    if (count == 0) return px_row_empty(maker, "field \"%s\" is empty; valid is one token id or more", field);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_integer(item))
            return px_fail(PX_DATA, "field \"%s\": entry %zu is not an integer; valid is a list of token ids",
                           field, i);
        json_int_t id = json_integer_value(item);
        if (id < 0 || id >= limit)
            return px_fail(PX_DATA, "field \"%s\": entry %zu is %lld; valid is 0 to %lld%s", field, i, (long long)id,
                           (long long)limit - 1, vocab > 0 ? " (the model's vocabulary)" : "");
        PX_TRY(px_ids_add(ids, (int32_t)id));
    }
    return PX_OK;
}

static px_status make_from_ids(px_row_maker *maker, const json_t *record)
{
    const px_shape *shape = maker->shape;
    if (shape->prompt) PX_TRY(take_ids(maker, record, shape->prompt, &maker->ids));
    maker->prompt_length = maker->ids.length;
    if (shape->rejected) {
        PX_TRY(px_ids_append(&maker->rejected, maker->ids.data, maker->ids.length));
        PX_TRY(take_ids(maker, record, shape->rejected, &maker->rejected));
    }
    return shape->answer ? take_ids(maker, record, shape->answer, &maker->ids) : PX_OK;
}

/* ---- text rows --------------------------------------------------------------------------------------------------- */

typedef struct px_span {
    const char *text;
    size_t length;
} px_span;

static px_status text_field(px_row_maker *maker, const json_t *record, const char *field, px_span *span)
{
    const json_t *value = json_object_get(record, field);
    *span = (px_span){json_string_value(value), json_string_length(value)};
    if (span->length == 0) return px_row_empty(maker, "field \"%s\" is empty; valid is text", field);
    return PX_OK;
}

/* The templates of Stanford's Alpaca (with a line end after "Response:") and of TRL's question-answer examples. */
static px_status styled_prompt(px_row_maker *maker, const json_t *record, px_span *span)
{
    px_buf *text = &maker->text;
    px_buf_clear(text);
    if (maker->shape->style == PX_STYLE_QUESTION) {
        PX_TRY(px_buf_printf(text, "Question: %s\n\nAnswer:", span->text));
    } else {
        const char *input = json_string_value(json_object_get(record, "input"));
        bool has_input = input && *input;
        PX_TRY(px_buf_printf(text, "Below is an instruction that describes a task%s. Write a response that "
                                   "appropriately completes the request.\n\n### Instruction:\n%s\n\n",
                             has_input ? ", paired with an input that provides further context" : "", span->text));
        if (has_input) PX_TRY(px_buf_printf(text, "### Input:\n%s\n\n", input));
        PX_TRY(px_buf_text(text, "### Response:\n"));
    }
    *span = (px_span){text->data, text->length};
    return PX_OK;
}

static bool is_space(char c)
{
    return memchr(" \t\n\r", c, 4) != NULL;
}

/* A character of a script that has no spaces between words, or its punctuation: CJK radicals to ideographs with kana,
 * compatibility and full-width forms, the ideographs of the supplementary planes. */
static bool ends_word(uint32_t c)
{
    return (c >= 0x2e80 && c < 0xa000) || (c >= 0xf900 && c < 0xfb00) || (c >= 0xfe30 && c < 0xfe50) ||
           (c >= 0xff00 && c < 0xfff0) || (c >= 0x20000 && c < 0x40000);
}

/* Where the prompt ends in two texts that begin with it: after the last "\n\nAssistant:" they share, else before the
 * last white space they share or after the last Chinese or Japanese character, so that no word is split. */
static size_t shared_prompt(px_span a, px_span b)
{
    static const char turn[] = "\n\nAssistant:";
    size_t turn_length = sizeof turn - 1, shared = 0;
    while (shared < a.length && shared < b.length && a.text[shared] == b.text[shared]) shared++;
    for (size_t end = shared; end >= turn_length; end--)
        if (!memcmp(a.text + end - turn_length, turn, turn_length)) return end;
    if (shared == b.length) a = b; /* the shorter, if one of them is all that they share */
    size_t end = shared;
    while (end > 0 && end < a.length && ((unsigned char)a.text[end] & 0xc0) == 0x80) end--; /* not inside a character */
    for (int step; end > 0; end -= (size_t)step) {
        bool word = ends_word(px_char_before(a.text, end, &step));
        if (word && end < a.length) return end; /* something is left for the answer */
        if (!is_space(a.text[end - 1])) continue;
        while (end > 0 && is_space(a.text[end - 1])) end--;
        return end;
    }
    return 0;
}

static px_status split_implicit(px_row_maker *maker, px_span *prompt, px_span *chosen, px_span *rejected)
{
    const px_shape *shape = maker->shape;
    size_t split = shared_prompt(*chosen, *rejected);
    if (split == 0)
        return px_fail(PX_DATA, "fields \"%s\" and \"%s\" do not begin with the same prompt; valid is a field "
                                "\"prompt\", or two texts that begin with it", shape->answer, shape->rejected);
    if (split == chosen->length || split == rejected->length)
        return px_row_empty(maker, "field \"%s\" has nothing after the shared prompt; valid is two answers",
                            split == chosen->length ? shape->answer : shape->rejected);
    *prompt = (px_span){chosen->text, split};
    *chosen = (px_span){chosen->text + split, chosen->length - split};
    *rejected = (px_span){rejected->text + split, rejected->length - split};
    return PX_OK;
}

static px_status encode_start(px_row_maker *maker, px_span span)
{
    const px_data_options *options = maker->options;
    return options->add_bos ? px_tokenizer_encode_start(options->tokenizer, span.text, span.length, &maker->ids)
                            : px_tokenizer_encode(options->tokenizer, span.text, span.length, false, &maker->ids);
}

static px_status encode_answer(px_row_maker *maker, px_span span, px_ids *ids)
{
    if (maker->shape->style == PX_STYLE_QUESTION) { /* the space after "Answer:" belongs to the answer's first word */
        px_buf_clear(&maker->text);
        PX_TRY(px_buf_printf(&maker->text, " %s", span.text));
        span = (px_span){maker->text.data, maker->text.length};
    }
    if (span.length > 1 && span.text[0] == ' ' && px_tokenizer_prepends_space(maker->options->tokenizer))
        span = (px_span){span.text + 1, span.length - 1};
    return px_tokenizer_encode(maker->options->tokenizer, span.text, span.length, false, ids);
}

/* The id, never the text: a text of the token could be cut differently. */
static px_status end_answer(const px_row_maker *maker, px_ids *ids)
{
    int32_t eos = maker->options->eos_id;
    if (eos < 0 || (ids->length > 0 && ids->data[ids->length - 1] == eos)) return PX_OK;
    return px_ids_add(ids, eos);
}

static px_status add_answer(px_row_maker *maker, px_span span, px_ids *ids)
{
    PX_TRY(encode_answer(maker, span, ids));
    return end_answer(maker, ids);
}

/* The texts of a record; those that it has not stay as they are. */
static px_status take_texts(px_row_maker *maker, const json_t *record, px_span *prompt, px_span *answer,
                            px_span *rejected)
{
    const px_shape *shape = maker->shape;
    if (shape->answer) PX_TRY(text_field(maker, record, shape->answer, answer));
    if (shape->rejected) PX_TRY(text_field(maker, record, shape->rejected, rejected));
    if (shape->prompt) {
        PX_TRY(text_field(maker, record, shape->prompt, prompt));
        return shape->style != PX_STYLE_PLAIN ? styled_prompt(maker, record, prompt) : PX_OK;
    }
    if (!shape->rejected) return PX_OK;
    if (answer->length == rejected->length && !memcmp(answer->text, rejected->text, answer->length)) {
        maker->verdict = PX_ROW_EQUAL;
        return PX_OK;
    }
    return split_implicit(maker, prompt, answer, rejected);
}

/* Prompt and answers are encoded apart and joined: these are the ids that generation sees and makes. */
static px_status make_from_text(px_row_maker *maker, const json_t *record)
{
    px_span prompt = {0}, answer = {0}, rejected = {0};
    PX_TRY(take_texts(maker, record, &prompt, &answer, &rejected));
    if (maker->verdict == PX_ROW_EQUAL) return PX_OK;
    if (!prompt.text) {
        PX_TRY(encode_start(maker, answer));
        return end_answer(maker, &maker->ids);
    }
    PX_TRY(encode_start(maker, prompt));
    maker->prompt_length = maker->ids.length;
    if (maker->options->kind == PX_ROWS_PROMPTS) return PX_OK;
    if (rejected.text) {
        PX_TRY(px_ids_append(&maker->rejected, maker->ids.data, maker->ids.length));
        PX_TRY(add_answer(maker, rejected, &maker->rejected));
    }
    return add_answer(maker, answer, &maker->ids);
}

/* ---- what becomes of the row ------------------------------------------------------------------------------------- */

static bool has_target(const px_row_maker *maker)
{
    int64_t first = maker->prompt_length > 1 ? maker->prompt_length : 1;
    if (!maker->has_mask) return maker->ids.length > first;
    for (int64_t i = 1; i < maker->ids.length; i++)
        if (maker->mask.data[i]) return true;
    return false;
}

static px_verdict judge(px_row_maker *maker)
{
    int64_t limit = maker->options->max_tokens > 0 ? maker->options->max_tokens : INT32_MAX;
    bool is_long = maker->ids.length > limit || maker->rejected.length > limit;
    switch (maker->options->kind) {
    case PX_ROWS_PAIRS:
        if (maker->ids.length == maker->rejected.length &&
            !memcmp(maker->ids.data, maker->rejected.data, (size_t)maker->ids.length * sizeof *maker->ids.data))
            return PX_ROW_EQUAL;
        return is_long ? PX_ROW_TOO_LONG : PX_ROW_KEPT;
    case PX_ROWS_PROMPTS:
        return is_long ? PX_ROW_TOO_LONG : PX_ROW_KEPT;
    case PX_ROWS_LM:
        if (is_long && maker->options->scored) return PX_ROW_TOO_LONG;
        if (maker->options->whole && maker->prompt_length == 0 && !maker->has_mask) is_long = false;
        if (is_long) {
            maker->ids.length = limit;
            if (maker->has_mask) maker->mask.length = limit;
        }
        if (!has_target(maker)) return PX_ROW_NO_TARGET;
        return is_long ? PX_ROW_CUT : PX_ROW_KEPT;
    }
    return PX_ROW_KEPT;
}

static px_status check_vocabulary(const px_row_maker *maker, const px_ids *ids)
{
    int vocab = maker->options->vocab_size;
    for (int64_t i = 0; vocab > 0 && i < ids->length; i++)
        if (ids->data[i] < 0 || ids->data[i] >= vocab)
            return px_fail(PX_DATA, "the tokenizer makes id %d of this text, the model's vocabulary ends at %d; valid "
                                    "is the tokenizer that belongs to the model", ids->data[i], vocab - 1);
    return PX_OK;
}

static px_status read_margin(px_row_maker *maker, const json_t *record)
{
    const json_t *margin = json_object_get(record, "margin");
    maker->margin = 0.0;
    if (maker->options->kind != PX_ROWS_PAIRS || !margin || json_is_null(margin)) return PX_OK;
    if (!json_is_number(margin)) return px_fail(PX_DATA, "field \"margin\" is not a number; valid is a number or none");
    maker->margin = json_number_value(margin);
    return PX_OK;
}

/* Optional fields that would change what the row says, so that their type matters too. */
static px_status check_extras(const px_row_maker *maker, const json_t *record)
{
    const json_t *input = json_object_get(record, "input"), *history = json_object_get(record, "history");
    if (maker->shape->style != PX_STYLE_ALPACA) return PX_OK;
    if (input && !json_is_string(input) && !json_is_null(input))
        return px_fail(PX_DATA, "field \"input\" is not a string; valid is a string or none");
    if (json_array_size(history) > 0)
        return px_fail(PX_DATA, "field \"history\" is not supported; valid is the whole conversation in \"messages\"");
    return PX_OK;
}

bool px_row_rendered(const px_row_maker *maker)
{
    const px_shape *shape = maker->shape;
    return shape->form == PX_FORM_MESSAGES ||
           (shape->form == PX_FORM_TEXT && shape->style != PX_STYLE_PLAIN && maker->options->renderer);
}

static px_status make(px_row_maker *maker, const json_t *record)
{
    const px_shape *shape = maker->shape;
    PX_TRY(read_margin(maker, record));
    PX_TRY(check_extras(maker, record));
    if (shape->form != PX_FORM_IDS && !maker->options->tokenizer)
        return px_fail(PX_DATA, "a record of the shape %s needs a tokenizer, and there is none; valid without one are "
                                "token ids: \"ids\", \"prompt_ids\" with \"completion_ids\", or \"prompt_ids\" with "
                                "\"chosen_ids\" and \"rejected_ids\"", shape->name);
    if (shape->form == PX_FORM_IDS) {
        PX_TRY(make_from_ids(maker, record));
    } else {
        PX_TRY(px_row_rendered(maker) ? px_turns_make(maker, record) : make_from_text(maker, record));
        PX_TRY(check_vocabulary(maker, &maker->ids));
        PX_TRY(check_vocabulary(maker, &maker->rejected));
        if (maker->verdict == PX_ROW_KEPT && maker->ids.length == 0)
            return px_row_empty(maker, "the text gives no token at all; valid is text that the tokenizer knows");
    }
    if (maker->verdict == PX_ROW_KEPT) maker->verdict = judge(maker);
    return PX_OK;
}

px_status px_row_make(px_row_maker *maker, const json_t *record)
{
    maker->ids.length = maker->rejected.length = maker->mask.length = 0;
    maker->has_mask = false;
    maker->prompt_length = 0;
    maker->verdict = PX_ROW_KEPT;
    px_status status = make(maker, record);
    if (status != PX_DATA || maker->verdict != PX_ROW_EMPTY) return status;
    snprintf(maker->reason, sizeof maker->reason, "%s", px_error_text());
    px_error_clear();
    return PX_OK;
}

/* ---- sampled answers --------------------------------------------------------------------------------------------- */

/* Ids, and messages that no template renders, have no text of their own. */
static px_status make_answer(px_row_maker *maker, const json_t *record, const char *prompt, const char *answer)
{
    static const px_shape text = {.name = "text", .form = PX_FORM_TEXT};
    px_span start = {prompt, strlen(prompt)}, chosen = {0}, rejected = {0};
    PX_TRY(px_shape_find(&maker->shape, record, PX_ROWS_PROMPTS));
    if (maker->options->renderer && px_row_rendered(maker)) return px_turns_answer(maker, record, answer);
    if (maker->shape->form == PX_FORM_TEXT) PX_TRY(take_texts(maker, record, &start, &chosen, &rejected));
    else maker->shape = &text;
    PX_TRY(encode_start(maker, start));
    return add_answer(maker, (px_span){answer, strlen(answer)}, &maker->ids);
}

px_status px_answer_encode(const px_data_options *options, const char *record, const char *prompt, const char *answer,
                           px_ids *ids)
{
    px_row_maker maker = {.options = options, .ids = *ids};
    json_t *root;
    maker.ids.length = 0;
    px_status status = px_json_parse(record, strlen(record), "a prompt's record", 0, &root);
    if (status == PX_OK) {
        status = make_answer(&maker, root, prompt, answer);
        json_decref(root);
    }
    if (status == PX_OK) status = check_vocabulary(&maker, &maker.ids);
    *ids = maker.ids;
    maker.ids = (px_ids){0};
    px_row_maker_free(&maker);
    return status;
}
