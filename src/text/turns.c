/* Rows from conversations: turns are gathered, rendered as px_chat_row says, and split where the answer begins. */
#include "rows.h"

#include <string.h>

/* ---- gathering turns --------------------------------------------------------------------------------------------- */

static px_status push_text(px_row_maker *maker, const char *role, const char *text)
{
    return px_turns_push(&maker->turns, &(px_message){.role = role, .content = text});
}

static px_status push_field(px_row_maker *maker, const json_t *record, const char *field)
{
    const json_t *value = json_object_get(record, field);
    if (json_is_array(value) && json_array_size(value) == 0)
        return px_row_empty(maker, "field \"%s\" is empty; valid is one message or more", field);
    return px_turns_push_field(&maker->turns, field, value);
}

static bool says_something(const px_message *message)
{
    return *message->content || message->call_count > 0;
}

/* A system message of the record (a field "system") or of the options goes first, unless the turns bring their own. */
static px_status push_system(px_row_maker *maker, const json_t *record, const char *field)
{
    const json_t *turns = json_object_get(record, field);
    const json_t *first = json_is_array(turns) ? json_array_get(turns, 0) : turns;
    const char *role = json_string_value(json_object_get(first, "role"));
    if (!role) role = json_string_value(json_object_get(first, "from"));
    if (role && !strcmp(role, "system")) return PX_OK;
    const char *system = json_string_value(json_object_get(record, "system"));
    if (!system || !*system) system = maker->options->system;
    return system && *system ? push_text(maker, "system", system) : PX_OK;
}

/* An instruction (with its input) or a question as a user's turn, its answer as an assistant's. */
static px_status push_user(px_row_maker *maker, const json_t *record)
{
    const char *text = json_string_value(json_object_get(record, maker->shape->prompt));
    const char *input = json_string_value(json_object_get(record, "input"));
    if (maker->shape->style != PX_STYLE_ALPACA) input = NULL;
    if (!*text) return px_row_empty(maker, "field \"%s\" is empty; valid is text", maker->shape->prompt);
    px_buf_clear(&maker->text);
    PX_TRY(px_buf_printf(&maker->text, "%s%s%s", text, input && *input ? "\n" : "", input ? input : ""));
    return push_text(maker, "user", maker->text.data);
}

static px_status push_prompt(px_row_maker *maker, const json_t *record)
{
    const char *field = maker->shape->prompt;
    PX_TRY(push_system(maker, record, field));
    return maker->shape->form == PX_FORM_TEXT ? push_user(maker, record) : push_field(maker, record, field);
}

/* Messages, or the text of one by the assistant. */
static px_status push_answer(px_row_maker *maker, const json_t *record, const char *field)
{
    const json_t *value = json_object_get(record, field);
    if (json_is_string(value)) PX_TRY(push_text(maker, "assistant", json_string_value(value)));
    else PX_TRY(push_field(maker, record, field));
    const px_message *last = &maker->turns.list[maker->turns.count - 1];
    if (strcmp(last->role, "assistant") != 0)
        return px_fail(PX_DATA, "field \"%s\" ends with a turn of %.40s; valid is an assistant's turn at the end",
                       field, last->role);
    if (!says_something(last)) return px_row_empty(maker, "field \"%s\": the answer is empty; valid is text", field);
    return PX_OK;
}

/* ---- rendering --------------------------------------------------------------------------------------------------- */

static px_status render_prompt(px_row_maker *maker, int count, px_ids *ids)
{
    ids->length = 0;
    if (count > 0) maker->turns.list[0].tools = maker->tools;
    return px_chat_encode(maker->options->renderer, maker->options->tokenizer, maker->turns.list, count, true, ids, NULL);
}

/* All turns; the mask is the maker's. */
static px_status render_row(px_row_maker *maker, bool scored, px_ids *ids)
{
    ids->length = maker->mask.length = 0;
    if (maker->turns.count > 0) maker->turns.list[0].tools = maker->tools;
    return px_chat_row(maker->options->renderer, maker->options->tokenizer, maker->turns.list, maker->turns.count,
                       maker->options->eos_id, scored, ids, &maker->mask);
}

static int64_t common_prefix(const px_ids *a, const px_ids *b, int64_t limit)
{
    int64_t n = 0;
    while (n < limit && n < a->length && n < b->length && a->data[n] == b->data[n]) n++;
    return n;
}

static int64_t first_target(const px_ids *mask)
{
    for (int64_t i = 0; i < mask->length; i++)
        if (mask->data[i]) return i;
    return -1;
}

/* A whole conversation: turns of the assistant that say nothing are history, as long as another one says something. */
static px_status check_answers(px_row_maker *maker)
{
    const char *field = maker->shape->answer;
    bool any = false;
    for (int i = 0; i < maker->turns.count; i++) {
        if (strcmp(maker->turns.list[i].role, "assistant") != 0) continue;
        if (says_something(&maker->turns.list[i])) return PX_OK;
        any = true;
    }
    if (any) return px_row_empty(maker, "field \"%s\": the answer is empty; valid is text", field);
    return px_row_empty(maker, "field \"%s\" has no assistant's turn to learn; valid is one or more", field);
}

/* prompt (or none) + completion: a language-model row whose targets are the assistant's turns of the completion. */
static px_status make_lm(px_row_maker *maker, const json_t *record)
{
    int prompt_turns = 0;
    if (maker->shape->prompt) {
        PX_TRY(push_prompt(maker, record));
        prompt_turns = maker->turns.count;
        for (int i = 0; i < prompt_turns; i++) maker->turns.list[i].unlearned = true;
        PX_TRY(push_answer(maker, record, maker->shape->answer));
    } else {
        PX_TRY(push_system(maker, record, maker->shape->answer));
        PX_TRY(push_field(maker, record, maker->shape->answer));
        PX_TRY(check_answers(maker));
    }
    PX_TRY(render_row(maker, maker->options->scored, &maker->ids));
    maker->has_mask = true;
    if (prompt_turns > 0) {
        PX_TRY(render_prompt(maker, prompt_turns, &maker->header));
        int64_t split = common_prefix(&maker->header, &maker->ids, INT64_MAX);
        for (int64_t i = 0; i < split; i++) maker->mask.data[i] = 0;
    }
    int64_t first = first_target(&maker->mask);
    if (first < 0)
        return px_row_empty(maker, "field \"%s\" has no assistant's turn to learn; valid is one or more whose weight is "
                                   "not 0", maker->shape->answer);
    maker->prompt_length = first;
    return PX_OK;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static bool same_turn(const px_message *a, const px_message *b)
{
    if (strcmp(a->role, b->role) != 0 || strcmp(a->content, b->content) != 0 || a->call_count != b->call_count ||
        !same_text(a->reasoning, b->reasoning))
        return false;
    for (int i = 0; i < a->call_count; i++)
        if (strcmp(a->calls[i].name, b->calls[i].name) != 0 || strcmp(a->calls[i].arguments, b->calls[i].arguments) != 0)
            return false;
    return true;
}

/* Whole turns that chosen and rejected share are the prompt. */
static px_status shared_turns(px_row_maker *maker, const json_t *record, int *count)
{
    const px_shape *shape = maker->shape;
    PX_TRY(push_system(maker, record, shape->answer));
    int start = maker->turns.count;
    PX_TRY(push_field(maker, record, shape->answer));
    int middle = maker->turns.count;
    PX_TRY(push_field(maker, record, shape->rejected));
    const px_message *a = maker->turns.list + start, *b = maker->turns.list + middle;
    int a_count = middle - start, b_count = maker->turns.count - middle, n = 0;
    while (n < a_count && n < b_count && same_turn(&a[n], &b[n])) n++;
    if (n == a_count && n == b_count) {
        maker->verdict = PX_ROW_EQUAL;
        return PX_OK;
    }
    if (n == 0)
        return px_fail(PX_DATA, "fields \"%s\" and \"%s\" do not begin with the same turn; valid is a field "
                                "\"prompt\", or two conversations that begin with it", shape->answer, shape->rejected);
    if (n == a_count || n == b_count)
        return px_row_empty(maker, "field \"%s\" has no turn after the shared prompt; valid is two answers",
                            n == a_count ? shape->answer : shape->rejected);
    *count = start + n;
    return PX_OK;
}

/* The turns gathered so far, those behind the prompt scored at their end: ids after the last target (a line end behind the end
 * of turn) are never sampled. */
static px_status render_scored(px_row_maker *maker, int prompt_turns, px_ids *ids)
{
    for (int i = 0; i < maker->turns.count; i++) maker->turns.list[i].unlearned = i < prompt_turns;
    return render_row(maker, true, ids);
}

static px_status make_side(px_row_maker *maker, const json_t *record, const char *field, int prompt_turns,
                           px_ids *ids)
{
    if (maker->shape->prompt) {
        maker->turns.count = prompt_turns;
    } else { /* the field holds the prompt as well */
        maker->turns.count = 0;
        PX_TRY(push_system(maker, record, field));
    }
    PX_TRY(push_answer(maker, record, field));
    return render_scored(maker, prompt_turns, ids);
}

static px_status make_pair(px_row_maker *maker, const json_t *record)
{
    const px_shape *shape = maker->shape;
    int prompt_turns = 0;
    if (shape->prompt) {
        PX_TRY(push_prompt(maker, record));
        prompt_turns = maker->turns.count;
    } else {
        PX_TRY(shared_turns(maker, record, &prompt_turns));
        if (maker->verdict == PX_ROW_EQUAL) return PX_OK;
    }
    PX_TRY(render_prompt(maker, prompt_turns, &maker->header));
    PX_TRY(make_side(maker, record, shape->answer, prompt_turns, &maker->ids));
    PX_TRY(make_side(maker, record, shape->rejected, prompt_turns, &maker->rejected));
    maker->prompt_length = common_prefix(&maker->header, &maker->ids, INT64_MAX);
    maker->prompt_length = common_prefix(&maker->header, &maker->rejected, maker->prompt_length);
    return PX_OK;
}

/* A prompt ends before the assistant's turn; answers at its end are what the model is to make itself. */
static px_status gather_prompt(px_row_maker *maker, const json_t *record)
{
    int count = 0;
    if (maker->shape->prompt) {
        PX_TRY(push_prompt(maker, record));
        count = maker->turns.count;
    } else {
        PX_TRY(shared_turns(maker, record, &count));
        if (maker->verdict == PX_ROW_EQUAL) return PX_OK;
    }
    while (count > 0 && !strcmp(maker->turns.list[count - 1].role, "assistant")) count--;
    if (count == 0 || !says_something(&maker->turns.list[count - 1]))
        return px_row_empty(maker, "the prompt is empty; valid is a user's turn before the assistant's");
    maker->turns.count = count;
    return PX_OK;
}

static px_status make_prompt(px_row_maker *maker, const json_t *record)
{
    PX_TRY(gather_prompt(maker, record));
    if (maker->verdict == PX_ROW_EQUAL) return PX_OK;
    PX_TRY(render_prompt(maker, maker->turns.count, &maker->ids));
    maker->prompt_length = maker->ids.length;
    return PX_OK;
}

px_status px_turns_answer(px_row_maker *maker, const json_t *record, const char *answer)
{
    px_turns_clear(&maker->turns);
    PX_TRY(px_turns_tools(&maker->turns, record, &maker->tools));
    PX_TRY(gather_prompt(maker, record));
    PX_TRY(push_text(maker, "assistant", answer));
    return render_scored(maker, maker->turns.count - 1, &maker->ids);
}

px_status px_turns_make(px_row_maker *maker, const json_t *record)
{
    if (!maker->options->renderer)
        return px_fail(PX_DATA, "a record of the shape %s needs a chat template, and the tokenizer has none; name one "
                                "(environment.chat.template: chatml, llama3, plain, ...) or give texts",
                       maker->shape->name);
    px_turns_clear(&maker->turns);
    PX_TRY(px_turns_tools(&maker->turns, record, &maker->tools));
    switch (maker->options->kind) {
    case PX_ROWS_LM: return make_lm(maker, record);
    case PX_ROWS_PAIRS: return make_pair(maker, record);
    case PX_ROWS_PROMPTS: return make_prompt(maker, record);
    }
    return PX_OK;
}

px_status px_chat_record(const px_renderer *renderer, px_tokenizer *tokenizer, const json_t *record,
                         bool generation_prompt, px_buf *text, px_ids *ids, px_ids *mask)
{
    static const char *const fields[] = {"messages", "conversations", "prompt"};
    const px_data_options options = {.kind = PX_ROWS_LM, .tokenizer = tokenizer, .renderer = renderer};
    px_row_maker maker = {.options = &options};
    const char *field = NULL;
    for (int i = 2; i >= 0; i--)
        if (json_is_array(json_object_get(record, fields[i]))) field = fields[i];
    px_status status = field ? px_turns_tools(&maker.turns, record, &maker.tools)
                       : px_fail(PX_DATA, "the record has no conversation; valid is a list of messages in \"messages\", "
                                          "\"conversations\" or \"prompt\"");
    if (status == PX_OK) status = push_system(&maker, record, field);
    if (status == PX_OK) status = push_field(&maker, record, field);
    if (status == PX_OK && maker.turns.count > 0) maker.turns.list[0].tools = maker.tools;
    const px_message *turns = maker.turns.list;
    if (status == PX_OK)
        status = px_chat_encode(renderer, tokenizer, turns, maker.turns.count, generation_prompt, ids, mask);
    if (status == PX_OK) status = px_chat_text(renderer, tokenizer, turns, maker.turns.count, generation_prompt, text);
    px_row_maker_free(&maker);
    return status;
}
