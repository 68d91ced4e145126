#include "chat.h"

#include "chat_templates.h"
#include "tokenizer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

px_status px_script_add(px_script *s, const char *text, size_t length, bool learned, bool special)
{
    if (length == 0) {
        return PX_OK;
    }
    PX_TRY(px_buf_add(&s->text, text, length));
    if (s->count > 0 && !special && !s->segments[s->count - 1].special &&
        s->segments[s->count - 1].learned == learned) {
        s->segments[s->count - 1].end = s->text.length;
        return PX_OK;
    }
    if (s->count == s->capacity) {
        int capacity = s->capacity == 0 ? 32 : 2 * s->capacity;
        px_segment *more = px_realloc(s->segments, (size_t)capacity * sizeof *more, "a conversation");
        if (more == NULL) {
            return px_error_code();
        }
        s->segments = more;
        s->capacity = capacity;
    }
    s->segments[s->count++] = (px_segment){s->text.length, learned, special};
    return PX_OK;
}

/* ---- choice */
static px_status find_by_template(const px_renderer **renderer, const px_tokenizer *tokenizer)
{
    const char *text = tokenizer == NULL ? NULL : px_tokenizer_chat_template(tokenizer);
    if (tokenizer != NULL && tokenizer->chat_renderer != NULL) {
        return px_renderer_find(renderer, tokenizer->chat_renderer, tokenizer);
    }
    if (text == NULL) {
        return PX_OK;
    }
    const char *name = px_template_renderer(px_template_hash(text));
    if (name == NULL) {
        return px_fail(PX_CONFIG, "the chat template of %s is not known (hash %016llx); name its renderer: none, chatml, "
                       "qwen2, qwen2.5, qwen2.5-base, qwen3, llama2, llama3, gemma, mistral, zephyr, smollm2, minimind, "
                       "plain or hh", px_tokenizer_dir(tokenizer),
                       (unsigned long long)px_template_hash(text));
    }
    return px_renderer_find(renderer, name, tokenizer);
}

px_status px_renderer_find(const px_renderer **renderer, const char *name, const px_tokenizer *tokenizer)
{
    *renderer = NULL;
    if (strcmp(name, "none") == 0) {
        return PX_OK;
    }
    if (strcmp(name, "auto") == 0) {
        return find_by_template(renderer, tokenizer);
    }
    for (int i = 0; i < px_renderer_count; i++) {
        if (strcmp(name, px_renderers[i].name) == 0) {
            *renderer = &px_renderers[i];
            return PX_OK;
        }
    }
    return px_fail(PX_CONFIG, "there is no chat template \"%.40s\"; valid are auto, none, chatml, qwen2, qwen2.5, "
                   "qwen2.5-base, qwen3, llama2, llama3, gemma, mistral, zephyr, smollm2, minimind, plain and hh", name);
}

px_status px_renderer_note(const char *dir, const px_renderer *renderer)
{
    char path[PX_PATH_MAX];
    json_t *root = NULL;
    PX_TRY(px_path_join(path, sizeof path, dir, "tokenizer_config.json"));
    PX_TRY(px_file_exists(path) ? px_json_read(path, &root) : PX_OK);
    root = root != NULL ? root : json_object();
    bool set = json_object_set_new(root, "chat_renderer", json_string(renderer->name)) == 0;
    char *text = set ? json_dumps(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(root);
    px_status status = text != NULL ? px_file_write(path, text, strlen(text)) : px_fail(PX_DATA, "%s: must be an object", path);
    free(text);
    return status;
}

const char *px_renderer_name(const px_renderer *renderer)
{
    return renderer->name;
}

/* ---- text */
/* Renderers step through characters. */
static px_status check_utf8(const px_message *messages, int count)
{
    for (int i = 0; i < count; i++) {
        size_t length = strlen(messages[i].content), valid = px_utf8_valid(messages[i].content, length);
        if (valid < length) {
            return px_fail(PX_DATA, "byte %zu of message %d (0x%02x) is not UTF-8; texts must be UTF-8", valid + 1, i + 1,
                           (unsigned char)messages[i].content[valid]);
        }
    }
    return PX_OK;
}

/* Nothing of a conversation gets lost: what the template does not write is refused. */
static px_status check_written(const px_renderer *renderer, const px_message *messages, int count)
{
    for (int i = 0; i < count; i++) {
        const char *what = messages[i].call_count > 0 ? "tool_calls" : messages[i].tools != NULL ? "tools" : NULL;
        if (what != NULL && !(renderer->writes & PX_WRITES_TOOLS)) {
            return px_fail(PX_DATA, "message %d comes with %s, which the chat template %s does not write; valid there are "
                           "qwen2.5, qwen2.5-base, qwen3 and minimind", i + 1, what, renderer->name);
        }
        if (messages[i].reasoning != NULL && !(renderer->writes & PX_WRITES_REASONING)) {
            return px_fail(PX_DATA, "message %d has reasoning_content, which the chat template %s does not write; valid "
                           "there are qwen3 and minimind", i + 1, renderer->name);
        }
    }
    return PX_OK;
}

static px_status write_script(const px_renderer *renderer, const px_tokenizer *t, const px_message *messages, int count,
                              bool generation_prompt, px_script *s)
{
    PX_TRY(check_utf8(messages, count));
    PX_TRY(check_written(renderer, messages, count));
    s->bos = t->bos >= 0 ? px_tokenizer_token(t, t->bos) : "";
    s->eos = t->eos >= 0 ? px_tokenizer_token(t, t->eos) : "";
    return renderer->render(s, messages, count, generation_prompt);
}

static void script_free(px_script *s)
{
    px_buf_free(&s->text);
    px_free(s->segments);
}

px_status px_chat_text(const px_renderer *renderer, px_tokenizer *tokenizer, const px_message *messages, int count,
                       bool generation_prompt, px_buf *text)
{
    px_script s = {0};
    px_status status = write_script(renderer, tokenizer, messages, count, generation_prompt, &s);
    if (status == PX_OK && s.text.length > 0) {
        status = px_buf_add(text, s.text.data, s.text.length);
    }
    script_free(&s);
    return status;
}

/* ---- ids
 * The text is encoded in stretches that end in a special token. Where the mask changes inside a stretch, the tokens
 * before the change are those that the text before it shares with the whole: a token across the border is content. */
static bool cuts_text(const px_tokenizer *t, const char *text, size_t length)
{
    const px_added_token *token = px_tokenizer_added(t, px_vocab_find(&t->added_vocab, text, length));
    return token != NULL && !token->lstrip && !token->rstrip && !token->single_word &&
           (!token->normalized || t->normal_count == 0);
}

typedef struct stretch {
    int first, last; /* segments */
    size_t start; /* in the text */
} stretch;

static px_status mask_of_stretch(px_tokenizer *t, const px_script *s, stretch at, const px_ids *ids, int64_t from,
                                 px_ids *before, px_ids *mask)
{
    int64_t done = from;
    for (int k = at.first; k <= at.last; k++) {
        int64_t until = ids->length;
        if (k < at.last && s->segments[k].learned == s->segments[k + 1].learned) {
            continue;
        }
        if (k < at.last) {
            before->length = 0;
            PX_TRY(px_tokenizer_encode_part(t, s->text.data + at.start, s->segments[k].end - at.start, at.start == 0,
                                            before));
            until = from;
            while (until < ids->length && until - from < before->length &&
                   ids->data[until] == before->data[until - from]) {
                until++;
            }
        }
        for (; done < until; done++) {
            PX_TRY(px_ids_add(mask, s->segments[k].learned));
        }
    }
    return PX_OK;
}

static px_status encode_script(px_tokenizer *t, const px_script *s, px_ids *ids, px_ids *before, px_ids *mask)
{
    stretch at = {0};
    for (int k = 0; k < s->count; k++) {
        size_t start = k > 0 ? s->segments[k - 1].end : 0, end = s->segments[k].end;
        if (k + 1 < s->count && !(s->segments[k].special && cuts_text(t, s->text.data + start, end - start))) {
            continue;
        }
        at.last = k;
        int64_t from = ids->length;
        PX_TRY(px_tokenizer_encode_part(t, s->text.data + at.start, end - at.start, at.start == 0, ids));
        PX_TRY(mask != NULL ? mask_of_stretch(t, s, at, ids, from, before, mask) : PX_OK);
        at = (stretch){k + 1, 0, end};
    }
    return PX_OK;
}

static px_status encode(const px_renderer *renderer, px_tokenizer *tokenizer, const px_message *messages, int count,
                        bool generation_prompt, bool row, px_ids *ids, px_ids *mask)
{
    px_script s = {.row = row};
    px_ids before = {0};
    px_status status = write_script(renderer, tokenizer, messages, count, generation_prompt, &s);
    if (status == PX_OK) {
        status = encode_script(tokenizer, &s, ids, &before, mask);
    }
    px_ids_free(&before);
    script_free(&s);
    return status;
}

px_status px_chat_encode(const px_renderer *renderer, px_tokenizer *tokenizer, const px_message *messages, int count,
                         bool generation_prompt, px_ids *ids, px_ids *mask)
{
    return encode(renderer, tokenizer, messages, count, generation_prompt, false, ids, mask);
}

/* ---- where an answer ends */
px_status px_renderer_stop(const px_renderer *renderer, const px_tokenizer *tokenizer, int32_t *id)
{
    static const px_message talk[] = {{.role = "user", .content = "a"}, {.role = "assistant", .content = "b"}};
    px_script s = {0};
    *id = -1;
    px_status status = write_script(renderer, tokenizer, talk, 2, false, &s);
    int last = s.count - 1;
    while (last > 0 && !s.segments[last].learned) {
        last--;
    }
    if (status == PX_OK && last > 0 && s.segments[last].special) {
        size_t start = s.segments[last - 1].end;
        int32_t found = px_vocab_find(&tokenizer->added_vocab, s.text.data + start, s.segments[last].end - start);
        *id = px_tokenizer_added(tokenizer, found) != NULL ? found : -1;
    }
    script_free(&s);
    return status;
}

/* What follows the last turn to learn teaches nothing, and would stand between it and its end. */
static int turns_to_learn(const px_message *messages, int count)
{
    while (count > 0 && !px_message_learned(&messages[count - 1])) {
        count--;
    }
    return count;
}

px_status px_chat_row(const px_renderer *renderer, px_tokenizer *tokenizer, const px_message *messages, int count,
                      int32_t eos_id, bool scored, px_ids *ids, px_ids *mask)
{
    int32_t stop = -1;
    int turns = turns_to_learn(messages, count);
    PX_TRY(px_renderer_stop(renderer, tokenizer, &stop));
    bool ends = stop < 0 && eos_id >= 0 && turns > 0;
    PX_TRY(encode(renderer, tokenizer, messages, ends ? turns : count, false, true, ids, mask));
    while ((scored || ends) && mask->length > 0 && !mask->data[mask->length - 1]) {
        mask->length--;
        ids->length--;
    }
    if (!ends || (ids->length > 0 && ids->data[ids->length - 1] == eos_id)) {
        return PX_OK;
    }
    PX_TRY(px_ids_add(ids, eos_id));
    return px_ids_add(mask, 1);
}
