#include "messages.h"

#include "json_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------------------------------ */

void px_turns_clear(px_turns *turns)
{
    for (int i = 0; i < turns->kept_count; i++) px_free(turns->kept[i]);
    turns->kept_count = turns->count = 0;
}

void px_turns_free(px_turns *turns)
{
    px_turns_clear(turns);
    px_free(turns->kept);
    px_free(turns->list);
    *turns = (px_turns){0};
}

/* Takes the memory over; NULL: there was none. */
static px_status keep(px_turns *turns, void *memory)
{
    if (!memory) return px_error_code();
    if (turns->kept_count == turns->kept_capacity) {
        int capacity = turns->kept_capacity ? 2 * turns->kept_capacity : 16;
        void **kept = px_realloc(turns->kept, (size_t)capacity * sizeof *kept, "texts of a conversation");
        if (!kept) {
            px_free(memory);
            return px_error_code();
        }
        turns->kept = kept;
        turns->kept_capacity = capacity;
    }
    turns->kept[turns->kept_count++] = memory;
    return PX_OK;
}

px_status px_turns_push(px_turns *turns, const px_message *message)
{
    if (turns->count == turns->capacity) {
        int capacity = turns->capacity ? 2 * turns->capacity : 16;
        px_message *list = px_realloc(turns->list, (size_t)capacity * sizeof *list, "turns of a conversation");
        if (!list) return px_error_code();
        turns->list = list;
        turns->capacity = capacity;
    }
    turns->list[turns->count++] = *message;
    return PX_OK;
}

/* ---- fields of a message ----------------------------------------------------------------------------------------- */

typedef struct px_place { /* of a message, for what is said about it */
    px_turns *turns;
    const char *field;
    size_t index;
} px_place;

static px_status bad_turn(const px_place *at, const char *format, ...) __attribute__((format(printf, 2, 3)));
static px_status bad_turn(const px_place *at, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return px_fail(PX_DATA, "field \"%s\": turn %zu %s", at->field, at->index, text);
}

/* Missing, null, or a list, string or object with nothing in it. */
static bool says_nothing(const json_t *value)
{
    if (!value || json_is_null(value)) return true;
    if (json_is_string(value)) return json_string_length(value) == 0;
    if (json_is_array(value)) return json_array_size(value) == 0;
    return json_is_object(value) && json_object_size(value) == 0;
}

static px_status keep_text(px_turns *turns, const char *text, const char **kept)
{
    PX_TRY(keep(turns, px_strdup(text)));
    *kept = turns->kept[turns->kept_count - 1];
    return PX_OK;
}

/* [{"type": "text", "text": ...}, ...]: their texts behind each other. */
static px_status join_parts(const px_place *at, const json_t *parts, const char **content)
{
    px_buf text = {0};
    px_status status = px_buf_text(&text, "");
    for (size_t i = 0; status == PX_OK && i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const char *own = json_string_value(json_object_get(part, "text"));
        if (json_is_string(part)) own = json_string_value(part);
        if (own && (!type || !strcmp(type, "text"))) status = px_buf_text(&text, own);
        else status = bad_turn(at, "has a part of the type \"%.40s\" in its content; valid are parts of the type text",
                               type ? type : "");
    }
    if (status == PX_OK) status = keep_text(at->turns, text.length > 0 ? text.data : "", content);
    px_buf_free(&text);
    return status;
}

static px_status read_call(const px_place *at, const json_t *value, px_call *call)
{
    const json_t *function = json_object_get(value, "function");
    if (json_is_object(function)) value = function;
    const json_t *arguments = json_object_get(value, "arguments");
    const char *name = json_string_value(json_object_get(value, "name"));
    if (!name || !arguments)
        return bad_turn(at, "has a tool call without %s; valid is {\"name\": ..., \"arguments\": {...}}, also as the "
                            "field \"function\" of an object", name ? "arguments" : "a name");
    PX_TRY(keep_text(at->turns, name, &call->name));
    if (json_is_string(arguments)) PX_TRY(keep_text(at->turns, json_string_value(arguments), &call->text));
    px_buf json = {0};
    px_status status = px_json_write(&json, arguments);
    if (status == PX_OK) status = keep_text(at->turns, json.data, &call->arguments);
    px_buf_free(&json);
    return status;
}

/* A list of calls, or one without its list. */
static px_status read_calls(const px_place *at, const json_t *value, px_message *message)
{
    size_t count = json_is_object(value) ? 1 : json_array_size(value);
    if (count == 0) return bad_turn(at, "has tool calls that are no list; valid is a list of objects");
    px_call *calls = px_alloc_array(count, sizeof *calls, "tool calls");
    PX_TRY(keep(at->turns, calls));
    for (size_t i = 0; i < count; i++)
        PX_TRY(read_call(at, json_is_object(value) ? value : json_array_get(value, i), &calls[i]));
    message->calls = calls;
    message->call_count = (int)count;
    return PX_OK;
}

/* ShareGPT's function_call: the value is the JSON of a call, or of several. */
static px_status read_quoted_calls(const px_place *at, px_message *message)
{
    json_error_t error;
    json_t *calls = json_loads(message->content, 0, &error);
    if (!calls) return bad_turn(at, "is a function_call whose text is not valid JSON: %.80s", error.text);
    px_status status = read_calls(at, calls, message);
    json_decref(calls);
    message->content = "";
    return status;
}

/* "weight": 0 or 1, "train": a boolean: whether an assistant's turn is learned. */
static px_status read_weight(const px_place *at, const json_t *turn, px_message *message)
{
    const json_t *weight = json_object_get(turn, "weight"), *train = json_object_get(turn, "train");
    bool is_weight = json_is_number(weight) && (json_number_value(weight) == 0.0 || json_number_value(weight) == 1.0);
    if (weight && !json_is_null(weight) && !is_weight)
        return bad_turn(at, "has another weight than 0 and 1: its tokens are learned or are not");
    message->unlearned = (is_weight && json_number_value(weight) == 0.0) || json_is_false(train);
    return PX_OK;
}

static px_status read_extras(const px_place *at, const json_t *turn, px_message *message)
{
    const json_t *calls = json_object_get(turn, "tool_calls"), *reasoning = json_object_get(turn, "reasoning_content");
    if (says_nothing(calls)) calls = json_object_get(turn, "function_call");
    if (!says_nothing(calls)) PX_TRY(read_calls(at, calls, message));
    if (!says_nothing(reasoning) && !json_is_string(reasoning))
        return bad_turn(at, "has a reasoning_content that is no string; valid is text");
    message->reasoning = json_string_value(reasoning);
    static const char *const unknown[] = {"reasoning", "thinking", "images", "audio"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (!says_nothing(json_object_get(turn, unknown[i])))
            return bad_turn(at, "has the field \"%s\", which no chat template here writes; valid are role, content, "
                                "tool_calls, reasoning_content and weight", unknown[i]);
    return read_weight(at, turn, message);
}

/* ShareGPT's names of the roles. */
static const char *role_name(const char *role)
{
    if (!strcmp(role, "human")) return "user";
    if (!strcmp(role, "gpt") || !strcmp(role, "chatgpt") || !strcmp(role, "bing") || !strcmp(role, "bard") ||
        !strcmp(role, "function_call"))
        return "assistant";
    return !strcmp(role, "observation") ? "tool" : role;
}

static px_status push_object(const px_place *at, const json_t *turn)
{
    const json_t *role = json_object_get(turn, "role"), *content = json_object_get(turn, "content");
    if (!role && !content) {
        role = json_object_get(turn, "from");
        content = json_object_get(turn, "value");
    }
    px_message message = {.content = json_string_value(content)};
    if (json_is_object(turn)) PX_TRY(read_extras(at, turn, &message));
    if (json_is_array(content)) PX_TRY(join_parts(at, content, &message.content));
    else if (message.call_count > 0 && !message.content) message.content = "";
    if (!json_is_string(role) || !message.content)
        return bad_turn(at, "has no text; valid is {\"role\": ..., \"content\": ...} or {\"from\": ..., \"value\": ...} "
                            "with two strings");
    if (!*json_string_value(role)) return bad_turn(at, "has an empty role; valid are system, user and assistant");
    message.role = role_name(json_string_value(role));
    if (!strcmp(json_string_value(role), "function_call")) PX_TRY(read_quoted_calls(at, &message));
    return px_turns_push(at->turns, &message);
}

px_status px_turns_push_field(px_turns *turns, const char *field, const json_t *value)
{
    if (json_is_object(value)) return push_object(&(px_place){turns, field, 0}, value);
    for (size_t i = 0; i < json_array_size(value); i++)
        PX_TRY(push_object(&(px_place){turns, field, i}, json_array_get(value, i)));
    return PX_OK;
}

px_status px_turns_tools(px_turns *turns, const json_t *record, const char **tools)
{
    const json_t *value = json_object_get(record, "tools");
    json_t *parsed = NULL;
    px_buf text = {0};
    *tools = NULL;
    if (says_nothing(value)) return PX_OK;
    if (json_is_string(value)) value = parsed = json_loads(json_string_value(value), 0, NULL);
    px_status status = json_is_array(value) ? PX_OK
                       : px_fail(PX_DATA, "field \"tools\" is no list of tools; valid is a list, or a string that holds "
                                          "its JSON");
    for (size_t i = 0; status == PX_OK && i < json_array_size(value); i++) {
        if (i > 0) status = px_buf_text(&text, "\n");
        if (status == PX_OK) status = px_json_write(&text, json_array_get(value, i));
    }
    if (status == PX_OK && text.length > 0) status = keep_text(turns, text.data, tools);
    px_buf_free(&text);
    json_decref(parsed);
    return status;
}
