/* The renderers: each writes what its family's published template writes. */
#include "chat.h"

#include "characters.h"

#include <string.h>

typedef struct view {
    const char *text;
    size_t length;
} view;

static view view_of(const char *text)
{
    return (view){text, strlen(text)};
}

/* What Python's str.strip takes away. */
static bool is_stripped(uint32_t c)
{
    return px_char_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static view trimmed(view v)
{
    int step;
    while (v.length > 0 && is_stripped(px_char_at(v.text, &step))) {
        v.text += step;
        v.length -= (size_t)step;
    }
    while (v.length > 0 && is_stripped(px_char_before(v.text, v.length, &step))) {
        v.length -= (size_t)step;
    }
    return v;
}

static view without_newlines(view v, bool left, bool right)
{
    while (left && v.length > 0 && *v.text == '\n') {
        v.text++;
        v.length--;
    }
    while (right && v.length > 0 && v.text[v.length - 1] == '\n') {
        v.length--;
    }
    return v;
}

static px_status plain(px_script *s, const char *text)
{
    return px_script_add(s, text, strlen(text), false, false);
}

static px_status special(px_script *s, const char *text, bool learned)
{
    return px_script_add(s, text, strlen(text), learned, true);
}

static px_status content(px_script *s, view v, bool learned)
{
    return px_script_add(s, v.text, v.length, learned, false);
}

static bool is_role(const px_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

bool px_message_learned(const px_message *message)
{
    return is_role(message, "assistant") && !message->unlearned;
}

static px_status bad_role(const px_message *message, int index, const char *renderer, const char *valid)
{
    return px_fail(PX_DATA, "message %d has the role \"%.40s\"; the chat template %s wants %s", index + 1,
                   message->role, renderer, valid);
}

/* user, assistant, user, ... as several templates insist on. */
static px_status alternating(const px_message *messages, int count, int first, const char *renderer)
{
    for (int i = first; i < count; i++) {
        const char *wanted = (i - first) % 2 == 0 ? "user" : "assistant";
        if (!is_role(&messages[i], wanted)) {
            return bad_role(&messages[i], i, renderer, "user and assistant in turn, user first");
        }
    }
    return PX_OK;
}

/* ---- ChatML and its relatives */
static px_status chatml_header(px_script *s, const char *role)
{
    PX_TRY(special(s, "<|im_start|>", false));
    PX_TRY(plain(s, role));
    return plain(s, "\n");
}

static px_status chatml_end(px_script *s, bool learned)
{
    PX_TRY(special(s, "<|im_end|>", learned));
    return plain(s, "\n");
}

static px_status chatml_turn(px_script *s, const px_message *message)
{
    PX_TRY(chatml_header(s, message->role));
    PX_TRY(content(s, view_of(message->content), px_message_learned(message)));
    return chatml_end(s, px_message_learned(message));
}

static px_status chatml_prompt(px_script *s, bool wanted)
{
    return wanted ? chatml_header(s, "assistant") : PX_OK;
}

static px_status chatml(px_script *s, const px_message *messages, int count, bool prompt)
{
    for (int i = 0; i < count; i++) {
        PX_TRY(chatml_turn(s, &messages[i]));
    }
    return chatml_prompt(s, prompt);
}

static px_status chatml_with(px_script *s, const char *system, const px_message *messages, int count, bool prompt)
{
    if (count > 0 && !is_role(&messages[0], "system")) {
        PX_TRY(chatml_turn(s, &(px_message){.role = "system", .content = system}));
    }
    return chatml(s, messages, count, prompt);
}

static px_status smollm2(px_script *s, const px_message *messages, int count, bool prompt)
{
    return chatml_with(s, "You are a helpful AI assistant named SmolLM, trained by Hugging Face", messages, count, prompt);
}

static px_status qwen2(px_script *s, const px_message *messages, int count, bool prompt)
{
    return chatml_with(s, "You are a helpful assistant.", messages, count, prompt);
}

/* ---- Tools, as Qwen2.5, Qwen3 and what is made like them write them */
/* system NULL: none */
static px_status tools_turn(px_script *s, const char *system, const char *tools)
{
    PX_TRY(chatml_header(s, "system"));
    PX_TRY(plain(s, system != NULL ? system : ""));
    PX_TRY(plain(s, system != NULL ? "\n\n" : ""));
    PX_TRY(plain(s, "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
                    "function signatures within <tools></tools> XML tags:\n<tools>\n"));
    PX_TRY(plain(s, tools));
    PX_TRY(plain(s, "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
                    "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
                    "<args-json-object>}\n</tool_call>"));
    return chatml_end(s, false);
}

/* A string of arguments is written as it is, or quoted as JSON. */
static px_status tool_calls(px_script *s, const px_message *message, bool after_text, bool quoted)
{
    bool learned = px_message_learned(message);
    for (int i = 0; i < message->call_count; i++) {
        const px_call *call = &message->calls[i];
        PX_TRY(content(s, view_of(after_text || i > 0 ? "\n" : ""), learned));
        PX_TRY(content(s, view_of("<tool_call>\n{\"name\": \""), learned));
        PX_TRY(content(s, view_of(call->name), learned));
        PX_TRY(content(s, view_of("\", \"arguments\": "), learned));
        PX_TRY(content(s, view_of(call->text != NULL && !quoted ? call->text : call->arguments), learned));
        PX_TRY(content(s, view_of("}\n</tool_call>"), learned));
    }
    return PX_OK;
}

static px_status tool_turn(px_script *s, const px_message *messages, int count, int i)
{
    if (i == 0 || !is_role(&messages[i - 1], "tool")) {
        PX_TRY(special(s, "<|im_start|>", false));
        PX_TRY(plain(s, "user"));
    }
    PX_TRY(plain(s, "\n<tool_response>\n"));
    PX_TRY(plain(s, messages[i].content));
    PX_TRY(plain(s, "\n</tool_response>"));
    return i + 1 == count || !is_role(&messages[i + 1], "tool") ? chatml_end(s, false) : PX_OK;
}

static px_status qwen25_with(px_script *s, const char *system, const px_message *messages, int count, bool prompt)
{
    bool own = count > 0 && is_role(&messages[0], "system");
    system = own ? messages[0].content : system;
    if (count > 0 && messages[0].tools != NULL) {
        PX_TRY(tools_turn(s, system, messages[0].tools));
    } else if (count > 0) {
        PX_TRY(chatml_turn(s, &(px_message){.role = "system", .content = system}));
    }
    for (int i = own; i < count; i++) {
        if (is_role(&messages[i], "tool")) {
            PX_TRY(tool_turn(s, messages, count, i));
            continue;
        }
        PX_TRY(chatml_header(s, messages[i].role));
        PX_TRY(content(s, view_of(messages[i].content), px_message_learned(&messages[i])));
        PX_TRY(tool_calls(s, &messages[i], *messages[i].content != '\0', true));
        PX_TRY(chatml_end(s, px_message_learned(&messages[i])));
    }
    return chatml_prompt(s, prompt);
}

static px_status qwen25(px_script *s, const px_message *messages, int count, bool prompt)
{
    return qwen25_with(s, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", messages, count, prompt);
}

static px_status qwen25_base(px_script *s, const px_message *messages, int count, bool prompt)
{
    return qwen25_with(s, "You are a helpful assistant.", messages, count, prompt);
}

/* ---- Qwen3: a think block belongs to the answers after the last question, and is dropped from earlier ones,
 * but for those that a row has to teach */
static view last_part(view text, const char *mark)
{
    size_t width = strlen(mark);
    for (size_t i = text.length; i + 1 > width; i--) {
        if (memcmp(text.text + i - width, mark, width) == 0) {
            return (view){text.text + i, text.length - i};
        }
    }
    return text;
}

static void split_thinking(view text, view *thinking, view *answer)
{
    const char *mark = "</think>";
    const char *end = memmem(text.text, text.length, mark, strlen(mark));
    *thinking = (view){"", 0};
    *answer = text;
    if (end != NULL) {
        *answer = without_newlines(last_part(text, mark), true, false);
        view before = without_newlines((view){text.text, (size_t)(end - text.text)}, false, true);
        *thinking = without_newlines(last_part(before, "<think>"), true, false);
    }
}

static px_status thinking_turn(px_script *s, const px_message *message, view thinking, view answer, bool with_block)
{
    bool learned = px_message_learned(message);
    view written = with_block ? without_newlines(answer, true, false) : answer;
    PX_TRY(chatml_header(s, "assistant"));
    if (with_block) {
        PX_TRY(content(s, view_of("<think>\n"), learned));
        PX_TRY(content(s, without_newlines(thinking, true, true), learned));
        PX_TRY(content(s, view_of("\n</think>\n\n"), learned));
    }
    PX_TRY(content(s, written, learned));
    PX_TRY(tool_calls(s, message, answer.length > 0, false));
    return chatml_end(s, learned);
}

static bool is_between(const char *text, const char *start, const char *end)
{
    size_t n = strlen(text), a = strlen(start), b = strlen(end);
    return n >= a && n >= b && memcmp(text, start, a) == 0 && memcmp(text + n - b, end, b) == 0;
}

static px_status thinking_chat(px_script *s, const px_message *messages, int count, bool prompt, bool always_block)
{
    int query = count - 1;
    for (int i = count - 1; i >= 0; i--) {
        if (is_role(&messages[i], "user") &&
            !is_between(messages[i].content, "<tool_response>", "</tool_response>")) {
            query = i;
            break;
        }
    }
    bool tools = count > 0 && messages[0].tools != NULL, own = tools && is_role(&messages[0], "system");
    PX_TRY(tools ? tools_turn(s, own ? messages[0].content : NULL, messages[0].tools) : PX_OK);
    for (int i = own; i < count; i++) {
        if (is_role(&messages[i], "assistant")) {
            view thinking = view_of(messages[i].reasoning != NULL ? messages[i].reasoning : "");
            view answer = view_of(messages[i].content);
            if (messages[i].reasoning == NULL) {
                split_thinking(answer, &thinking, &answer);
            }
            bool block = always_block || (i > query && (i + 1 == count || thinking.length > 0)) ||
                         (s->row && px_message_learned(&messages[i]) && thinking.length > 0);
            PX_TRY(thinking_turn(s, &messages[i], thinking, answer, block));
        } else if (is_role(&messages[i], "tool")) {
            PX_TRY(tool_turn(s, messages, count, i));
        } else if (is_role(&messages[i], "user") || is_role(&messages[i], "system")) {
            PX_TRY(chatml_turn(s, &messages[i]));
        } else {
            return bad_role(&messages[i], i, "qwen3", "system, user, assistant and tool");
        }
    }
    return chatml_prompt(s, prompt);
}

static px_status qwen3(px_script *s, const px_message *messages, int count, bool prompt)
{
    return thinking_chat(s, messages, count, prompt, false);
}

static px_status minimind(px_script *s, const px_message *messages, int count, bool prompt)
{
    PX_TRY(thinking_chat(s, messages, count, prompt, true));
    return prompt ? plain(s, "<think>\n\n</think>\n\n") : PX_OK;
}

/* ---- Llama 3 */
static px_status llama3_header(px_script *s, const char *role)
{
    PX_TRY(special(s, "<|start_header_id|>", false));
    PX_TRY(plain(s, role));
    PX_TRY(special(s, "<|end_header_id|>", false));
    return plain(s, "\n\n");
}

static px_status llama3(px_script *s, const px_message *messages, int count, bool prompt)
{
    PX_TRY(special(s, s->bos, false));
    for (int i = 0; i < count; i++) {
        bool learned = px_message_learned(&messages[i]);
        PX_TRY(llama3_header(s, messages[i].role));
        PX_TRY(content(s, trimmed(view_of(messages[i].content)), learned));
        PX_TRY(special(s, "<|eot_id|>", learned));
    }
    return prompt ? llama3_header(s, "assistant") : PX_OK;
}

/* ---- Llama 2, Mistral */
/* The question, which has the system message in front of it before it is trimmed as a whole. */
static px_status llama2_user(px_script *s, const char *system, view text)
{
    px_buf whole = {0};
    px_status status = PX_OK;
    if (system != NULL) {
        status = px_buf_printf(&whole, "<<SYS>>\n%s\n<</SYS>>\n\n%.*s", system, (int)text.length, text.text);
        text = (view){whole.data, whole.length};
    }
    status = status == PX_OK ? special(s, s->bos, false) : status;
    status = status == PX_OK ? plain(s, "[INST] ") : status;
    status = status == PX_OK ? content(s, trimmed(text), false) : status;
    px_buf_free(&whole);
    return status == PX_OK ? plain(s, " [/INST]") : status;
}

static px_status llama2(px_script *s, const px_message *messages, int count, bool prompt)
{
    (void)prompt; /* the end of a user turn is the header of the answer */
    int first = count > 0 && is_role(&messages[0], "system");
    PX_TRY(alternating(messages, count, first, "llama2"));
    for (int i = first; i < count; i++) {
        view text = view_of(messages[i].content);
        if (is_role(&messages[i], "user")) {
            PX_TRY(llama2_user(s, i == first && first == 1 ? messages[0].content : NULL, text));
        } else {
            bool learned = px_message_learned(&messages[i]);
            PX_TRY(content(s, view_of(" "), learned));
            PX_TRY(content(s, trimmed(text), learned));
            PX_TRY(content(s, view_of(" "), learned));
            PX_TRY(special(s, s->eos, learned));
        }
    }
    return PX_OK;
}

static px_status mistral(px_script *s, const px_message *messages, int count, bool prompt)
{
    (void)prompt;
    PX_TRY(alternating(messages, count, 0, "mistral"));
    PX_TRY(special(s, s->bos, false));
    for (int i = 0; i < count; i++) {
        if (is_role(&messages[i], "user")) {
            PX_TRY(plain(s, "[INST] "));
            PX_TRY(plain(s, messages[i].content));
            PX_TRY(plain(s, " [/INST]"));
        } else {
            PX_TRY(content(s, view_of(messages[i].content), px_message_learned(&messages[i])));
            PX_TRY(special(s, s->eos, px_message_learned(&messages[i])));
        }
    }
    return PX_OK;
}

/* ---- Gemma */
static px_status gemma(px_script *s, const px_message *messages, int count, bool prompt)
{
    PX_TRY(alternating(messages, count, 0, "gemma"));
    PX_TRY(special(s, s->bos, false));
    for (int i = 0; i < count; i++) {
        bool learned = px_message_learned(&messages[i]);
        PX_TRY(special(s, "<start_of_turn>", false));
        PX_TRY(plain(s, is_role(&messages[i], "assistant") ? "model\n" : "user\n"));
        PX_TRY(content(s, trimmed(view_of(messages[i].content)), learned));
        PX_TRY(special(s, "<end_of_turn>", learned));
        PX_TRY(plain(s, "\n"));
    }
    PX_TRY(prompt ? special(s, "<start_of_turn>", false) : PX_OK);
    return prompt ? plain(s, "model\n") : PX_OK;
}

/* ---- Zephyr */
static px_status zephyr(px_script *s, const px_message *messages, int count, bool prompt)
{
    for (int i = 0; i < count; i++) {
        bool learned = px_message_learned(&messages[i]);
        const char *header = is_role(&messages[i], "assistant") ? "<|assistant|>\n"
                             : is_role(&messages[i], "user") ? "<|user|>\n"
                             : is_role(&messages[i], "system") ? "<|system|>\n"
                                                               : NULL;
        if (header == NULL) {
            return bad_role(&messages[i], i, "zephyr", "system, user and assistant");
        }
        PX_TRY(plain(s, header));
        PX_TRY(content(s, view_of(messages[i].content), learned));
        PX_TRY(special(s, s->eos, learned));
        PX_TRY(plain(s, "\n"));
    }
    return prompt ? plain(s, "<|assistant|>\n") : PX_OK;
}

/* ---- plain dialogue (Bai et al. 2022): no special tokens at all; a system message goes in front as it is */
static px_status dialogue(px_script *s, const px_message *messages, int count, bool prompt)
{
    for (int i = 0; i < count; i++) {
        bool learned = px_message_learned(&messages[i]);
        if (is_role(&messages[i], "system")) {
            PX_TRY(plain(s, messages[i].content));
            continue;
        }
        bool answer = is_role(&messages[i], "assistant");
        if (!answer && !is_role(&messages[i], "user")) {
            return bad_role(&messages[i], i, "plain", "system, user and assistant");
        }
        PX_TRY(plain(s, answer ? "\n\nAssistant:" : "\n\nHuman:"));
        PX_TRY(content(s, view_of(" "), learned));
        PX_TRY(content(s, view_of(messages[i].content), learned));
    }
    return prompt ? plain(s, "\n\nAssistant:") : PX_OK;
}

const struct px_renderer px_renderers[] = {
    {"chatml", 0, chatml},
    {"qwen2", 0, qwen2},
    {"qwen2.5", PX_WRITES_TOOLS, qwen25},
    {"qwen2.5-base", PX_WRITES_TOOLS, qwen25_base},
    {"qwen3", PX_WRITES_TOOLS | PX_WRITES_REASONING, qwen3},
    {"llama2", 0, llama2},
    {"llama3", 0, llama3},
    {"gemma", 0, gemma},
    {"mistral", 0, mistral},
    {"zephyr", 0, zephyr},
    {"smollm2", 0, smollm2},
    {"minimind", PX_WRITES_TOOLS | PX_WRITES_REASONING, minimind},
    {"plain", 0, dialogue},
    {"hh", 0, dialogue},
};
const int px_renderer_count = sizeof px_renderers / sizeof *px_renderers;
