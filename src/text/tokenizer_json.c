/* tokenizer.json: vocabulary, model, added tokens and post-processor. The chains of steps are in steps_json.c. */
#include "steps_json.h"
#include "tokenizer.h"

#include <stdio.h>
#include <string.h>

/* ---- vocabulary */
static px_status vocabulary_size(const json_t *vocab, int32_t *size, size_t *bytes)
{
    const char *text;
    json_t *id;
    *size = 0;
    *bytes = 0;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= PX_VOCAB_LIMIT) {
            return px_fail(PX_DATA, "model.vocab[\"%.80s\"] must be an integer of 0 to %d", text, PX_VOCAB_LIMIT - 1);
        }
        int32_t value = (int32_t)json_integer_value(id);
        *size = value >= *size ? value + 1 : *size;
        *bytes += strlen(text) + 1;
    }
    return PX_OK;
}

static px_status parse_vocabulary(px_tokenizer *t, const json_t *model)
{
    const json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_object(vocab) || json_object_size(vocab) == 0) {
        return px_fail(PX_DATA, "model.vocab must be an object of tokens and their ids");
    }
    int32_t size;
    size_t bytes;
    PX_TRY(vocabulary_size(vocab, &size, &bytes));
    PX_TRY(px_vocab_init(&t->vocab, size, bytes));
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, id) {
        px_status status = px_vocab_put(&t->vocab, text, strlen(text), (int32_t)json_integer_value(id));
        if (status != PX_OK) {
            return px_fail_within("model.vocab");
        }
    }
    return PX_OK;
}

static px_status unk_token(const px_tokenizer *t, const json_t *model, int32_t *unk)
{
    const char *text;
    size_t length = 0;
    *unk = -1;
    PX_TRY(px_field_text(model, "model", "unk_token", false, &text, &length));
    if (text == NULL) {
        return PX_OK;
    }
    *unk = px_vocab_find(&t->vocab, text, length);
    if (*unk < 0) {
        return px_fail(PX_DATA, "model.unk_token \"%.80s\" is not in model.vocab", text);
    }
    return PX_OK;
}

/* ---- models */
static px_status parse_merge(px_tokenizer *t, const json_t *merge, size_t index)
{
    const char *left, *right;
    size_t left_length, right_length;
    if (json_is_string(merge)) {
        left = json_string_value(merge);
        const char *space = strchr(left, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL) {
            return px_fail(PX_DATA, "model.merges[%zu] \"%.80s\" must be two tokens with one space between them", index,
                           left);
        }
        left_length = (size_t)(space - left);
        right = space + 1;
        right_length = strlen(right);
    } else if (json_is_array(merge) && json_array_size(merge) == 2 && json_is_string(json_array_get(merge, 0)) &&
               json_is_string(json_array_get(merge, 1))) {
        left = json_string_value(json_array_get(merge, 0));
        left_length = json_string_length(json_array_get(merge, 0));
        right = json_string_value(json_array_get(merge, 1));
        right_length = json_string_length(json_array_get(merge, 1));
    } else {
        return px_fail(PX_DATA, "model.merges[%zu] must be \"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"]", index);
    }
    return px_bpe_merge_add(&t->bpe, &t->vocab, left, left_length, right, right_length, (int32_t)index);
}

static px_status affix(const json_t *model, const char *key, char **out)
{
    const char *text;
    PX_TRY(px_field_text(model, "model", key, false, &text, NULL));
    if (text != NULL && *text != '\0') {
        *out = px_strdup(text);
        return *out != NULL ? PX_OK : px_error_code();
    }
    return PX_OK;
}

static px_status parse_bpe(px_tokenizer *t, const json_t *model)
{
    px_bpe *bpe = &t->bpe;
    const json_t *dropout = json_object_get(model, "dropout");
    if (json_is_number(dropout) && json_number_value(dropout) > 0) {
        return px_fail(PX_DATA, "model.dropout %g is not supported; it must be null", json_number_value(dropout));
    }
    PX_TRY(parse_vocabulary(t, model));
    PX_TRY(unk_token(t, model, &bpe->unk));
    PX_TRY(affix(model, "continuing_subword_prefix", &bpe->prefix));
    PX_TRY(affix(model, "end_of_word_suffix", &bpe->suffix));
    PX_TRY(px_field_bool(model, "model", "fuse_unk", false, &bpe->fuse_unk));
    PX_TRY(px_field_bool(model, "model", "byte_fallback", false, &bpe->fall_back));
    PX_TRY(px_field_bool(model, "model", "ignore_merges", false, &bpe->ignore_merges));
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges)) {
        return px_fail(PX_DATA, "model.merges must be an array of \"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"]");
    }
    PX_TRY(px_bpe_init(bpe, &t->vocab, json_array_size(merges)));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        PX_TRY(parse_merge(t, json_array_get(merges, i), i));
    }
    return PX_OK;
}

static px_status parse_unigram_vocab(px_tokenizer *t, const json_t *pieces)
{
    size_t count = json_array_size(pieces);
    if (count == 0 || count > PX_VOCAB_LIMIT) {
        return px_fail(PX_DATA, "model.vocab must be an array of 1 to %d [piece, score] pairs", PX_VOCAB_LIMIT);
    }
    PX_TRY(px_vocab_init(&t->vocab, (int32_t)count, 16 * count));
    t->unigram.score = px_alloc_array(count, sizeof(double), "unigram scores");
    if (t->unigram.score == NULL) {
        return px_error_code();
    }
    t->unigram.lowest = 0;
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(pieces, i);
        const json_t *piece = json_array_get(pair, 0), *score = json_array_get(pair, 1);
        if (!json_is_string(piece) || !json_is_number(score)) {
            return px_fail(PX_DATA, "model.vocab[%zu] must be [piece, score]", i);
        }
        if (px_vocab_put(&t->vocab, json_string_value(piece), json_string_length(piece), (int32_t)i) != PX_OK) {
            return px_fail_within("model.vocab");
        }
        t->unigram.score[i] = json_number_value(score);
        if (i == 0 || t->unigram.score[i] < t->unigram.lowest) {
            t->unigram.lowest = t->unigram.score[i];
        }
    }
    return PX_OK;
}

static px_status parse_unigram(px_tokenizer *t, const json_t *model)
{
    int64_t unk;
    PX_TRY(parse_unigram_vocab(t, json_object_get(model, "vocab")));
    PX_TRY(px_field_int(model, "model", "unk_id", -1, 0, t->vocab.size - 1, &unk));
    t->unigram.unk = (int32_t)unk;
    PX_TRY(px_field_bool(model, "model", "byte_fallback", false, &t->unigram.fall_back));
    return px_unigram_init(&t->unigram, &t->vocab);
}

/* A word is tried against the vocabulary in a number of steps that grows with the cube of its length. */
enum { WORDPIECE_LIMIT = 1000 };

static px_status parse_wordpiece(px_tokenizer *t, const json_t *model)
{
    int64_t longest;
    const char *prefix;
    PX_TRY(parse_vocabulary(t, model));
    PX_TRY(unk_token(t, model, &t->wordpiece.unk));
    PX_TRY(px_field_int(model, "model", "max_input_chars_per_word", 100, 1, WORDPIECE_LIMIT, &longest));
    PX_TRY(px_field_text(model, "model", "continuing_subword_prefix", false, &prefix, NULL));
    t->wordpiece.longest = (int)longest;
    t->wordpiece.prefix = px_strdup(prefix != NULL ? prefix : "##");
    return t->wordpiece.prefix != NULL ? PX_OK : px_error_code();
}

static px_status parse_model(px_tokenizer *t, json_t *model)
{
    static const char *const names[] = {"BPE", "WordLevel", "Unigram", "WordPiece"};
    int which = 0;
    if (json_is_object(model) && json_object_get(model, "type") == NULL && json_object_get(model, "merges") != NULL) {
        which = 0; /* files of the first versions do not name the model */
    } else {
        PX_TRY(px_field_type(model, "model", names, 4, &which));
    }
    t->kind = (px_model_kind)which;
    if (which == PX_MODEL_BPE) {
        return parse_bpe(t, model);
    }
    if (which == PX_MODEL_UNIGRAM) {
        return parse_unigram(t, model);
    }
    if (which == PX_MODEL_WORDPIECE) {
        return parse_wordpiece(t, model);
    }
    PX_TRY(parse_vocabulary(t, model));
    return unk_token(t, model, &t->unk);
}

/* ---- added tokens */
static px_status parse_added_token(const px_tokenizer *t, const json_t *item, size_t index, px_added_token *token)
{
    char of[40];
    snprintf(of, sizeof of, "added_tokens[%zu]", index);
    const char *content;
    int64_t id;
    PX_TRY(px_field_text(item, of, "content", true, &content, NULL));
    PX_TRY(px_field_int(item, of, "id", -1, 0, PX_VOCAB_LIMIT - 1, &id));
    if (id < 0) {
        return px_fail(PX_DATA, "%s.id is missing", of);
    }
    int32_t known = px_vocab_find(&t->vocab, content, strlen(content));
    size_t taken_length;
    const char *taken = px_vocab_text(&t->vocab, (int32_t)id, &taken_length);
    if ((known >= 0 && known != id) || (taken != NULL && strcmp(taken, content) != 0)) {
        return px_fail(PX_DATA, "%s \"%.80s\" has id %d, but in model.vocab %s is %d", of, content, (int)id,
                       known >= 0 ? "it" : "another token", known >= 0 ? known : (int)id);
    }
    token->id = (int32_t)id;
    token->content = token->match = px_strdup(content);
    if (token->content == NULL) {
        return px_error_code();
    }
    token->match_length = strlen(content);
    PX_TRY(px_field_bool(item, of, "single_word", false, &token->single_word));
    PX_TRY(px_field_bool(item, of, "lstrip", false, &token->lstrip));
    PX_TRY(px_field_bool(item, of, "rstrip", false, &token->rstrip));
    PX_TRY(px_field_bool(item, of, "special", false, &token->special));
    return px_field_bool(item, of, "normalized", !token->special, &token->normalized);
}

/* A token that is looked for in normalised text is looked for in its own normal form. */
static px_status normal_match(px_tokenizer *t, px_added_token *token)
{
    if (!token->normalized || t->normal_count == 0 || token->match_length == 0) {
        return PX_OK;
    }
    t->gap.length = 0;
    PX_TRY(px_buf_text(&t->gap, token->content));
    PX_TRY(px_normalize(t->normals, t->normal_count, &t->gap, &t->spare));
    token->match = px_strdup(t->gap.data);
    token->match_length = t->gap.length;
    return token->match != NULL ? PX_OK : px_error_code();
}

static px_status parse_added(px_tokenizer *t, const json_t *list)
{
    if (list != NULL && !json_is_null(list) && !json_is_array(list)) {
        return px_fail(PX_DATA, "added_tokens must be an array");
    }
    size_t count = json_array_size(list), bytes = 0;
    int32_t size = 0;
    if (count > PX_VOCAB_LIMIT) {
        return px_fail(PX_DATA, "added_tokens has %zu entries; the limit is %d", count, PX_VOCAB_LIMIT);
    }
    t->added = px_alloc_array(count + 1, sizeof *t->added, "added tokens");
    if (t->added == NULL) {
        return px_error_code();
    }
    for (size_t i = 0; i < count; i++) {
        px_added_token *token = &t->added[t->added_count++];
        PX_TRY(parse_added_token(t, json_array_get(list, i), i, token));
        PX_TRY(normal_match(t, token));
        size = token->id >= size ? token->id + 1 : size;
        bytes += strlen(token->content) + 1;
    }
    PX_TRY(px_vocab_init(&t->added_vocab, size, bytes));
    t->added_at = px_alloc_array((size_t)size + 1, sizeof *t->added_at, "added tokens");
    if (t->added_at == NULL) {
        return px_error_code();
    }
    for (int32_t id = 0; id < size; id++) {
        t->added_at[id] = -1;
    }
    for (int i = 0; i < t->added_count; i++) {
        t->added_at[t->added[i].id] = i;
        if (px_vocab_put(&t->added_vocab, t->added[i].content, strlen(t->added[i].content), t->added[i].id) != PX_OK) {
            return px_fail_within("added_tokens");
        }
    }
    PX_TRY(px_finder_init(&t->raw, t->added, t->added_count, false));
    return px_finder_init(&t->normal, t->added, t->added_count, true);
}

/* ---- post-processor */
static px_status template_item(px_tokenizer *t, const json_t *processor, const json_t *item, bool *sequence_seen)
{
    const json_t *special = json_object_get(item, "SpecialToken"), *sequence = json_object_get(item, "Sequence");
    const char *id;
    if (sequence != NULL) {
        if (*sequence_seen) {
            return px_fail(PX_DATA, "post_processor.single has two sequences; one is supported");
        }
        *sequence_seen = true;
        return PX_OK;
    }
    if (special == NULL) {
        return px_fail(PX_DATA, "post_processor.single: an item must have SpecialToken or Sequence");
    }
    PX_TRY(px_field_text(special, "post_processor.single SpecialToken", "id", true, &id, NULL));
    const json_t *ids = json_object_get(json_object_get(json_object_get(processor, "special_tokens"), id), "ids");
    if (!json_is_array(ids)) {
        return px_fail(PX_DATA, "post_processor.special_tokens has no ids for \"%.80s\"", id);
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *value = json_array_get(ids, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= t->size) {
            return px_fail(PX_DATA, "post_processor.special_tokens[\"%.80s\"].ids must be integers of 0 to %d", id,
                           t->size - 1);
        }
        PX_TRY(px_ids_add(*sequence_seen ? &t->after : &t->before, (int32_t)json_integer_value(value)));
    }
    return PX_OK;
}

static px_status template_processing(px_tokenizer *t, const json_t *processor)
{
    const json_t *single = json_object_get(processor, "single");
    if (!json_is_array(single)) {
        return px_fail(PX_DATA, "post_processor.single must be an array");
    }
    bool seen = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        PX_TRY(template_item(t, processor, json_array_get(single, i), &seen));
    }
    return seen ? PX_OK : px_fail(PX_DATA, "post_processor.single has no Sequence");
}

static px_status bert_token(const px_tokenizer *t, const json_t *processor, const char *key, px_ids *out)
{
    const json_t *id = json_array_get(json_object_get(processor, key), 1);
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= t->size) {
        return px_fail(PX_DATA, "post_processor.%s must be [token, id] with an id of 0 to %d", key, t->size - 1);
    }
    return px_ids_add(out, (int32_t)json_integer_value(id));
}

static px_status parse_processor(px_tokenizer *t, const json_t *processor, int depth)
{
    static const char *const names[] = {"TemplateProcessing", "ByteLevel", "BertProcessing", "RobertaProcessing",
                                        "Sequence"};
    int which = 0;
    if (processor == NULL || json_is_null(processor)) {
        return PX_OK;
    }
    PX_TRY(px_field_type(processor, "post_processor", names, 5, &which));
    if (which == 0) {
        return template_processing(t, processor);
    }
    if (which == 2 || which == 3) {
        PX_TRY(bert_token(t, processor, "cls", &t->before));
        return bert_token(t, processor, "sep", &t->after);
    }
    const json_t *list = json_object_get(processor, "processors");
    if (which == 4 && (depth > 8 || !json_is_array(list))) {
        return px_fail(PX_DATA, "post_processor.processors must be an array, and nest at most 8 deep");
    }
    for (size_t i = 0; which == 4 && i < json_array_size(list); i++) {
        PX_TRY(parse_processor(t, json_array_get(list, i), depth + 1));
    }
    return PX_OK;
}

px_status px_tokenizer_parse(px_tokenizer *t, const json_t *root)
{
    if (!json_is_object(root)) {
        return px_fail(PX_DATA, "must be an object with the key model");
    }
    PX_TRY(parse_model(t, json_object_get(root, "model")));
    PX_TRY(px_normals_parse(t, json_object_get(root, "normalizer")));
    PX_TRY(px_splits_parse(t, json_object_get(root, "pre_tokenizer")));
    PX_TRY(px_decodes_parse(t, json_object_get(root, "decoder")));
    PX_TRY(parse_added(t, json_object_get(root, "added_tokens")));
    t->size = t->vocab.size > t->added_vocab.size ? t->vocab.size : t->added_vocab.size;
    return parse_processor(t, json_object_get(root, "post_processor"), 0);
}

/* ---- tokenizer_config.json */
static px_status named_token(px_tokenizer *t, const json_t *root, const char *key, int32_t *id)
{
    const json_t *value = json_object_get(root, key);
    if (json_is_object(value)) {
        value = json_object_get(value, "content");
    }
    if (value == NULL || json_is_null(value)) {
        return PX_OK;
    }
    if (!json_is_string(value)) {
        return px_fail(PX_DATA, "%s must be a string or an object with a string \"content\"", key);
    }
    *id = px_tokenizer_id(t, json_string_value(value));
    if (*id < 0 && strcmp(key, "pad_token") != 0) { /* a pad token of its own is often added later: filler alone */
        return px_fail(PX_DATA, "%s \"%.80s\" is not a token of %s", key, json_string_value(value), t->path);
    }
    return PX_OK;
}

static px_status template_text(px_tokenizer *t, const json_t *value)
{
    size_t count = json_array_size(value);
    const char *text = json_string_value(value);
    for (size_t i = 0; text == NULL && i < count; i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            text = json_string_value(json_object_get(item, "template"));
        }
    }
    if (text == NULL) {
        return value == NULL || json_is_null(value) || json_is_array(value)
                   ? PX_OK
                   : px_fail(PX_DATA, "chat_template must be a string or a list of {\"name\", \"template\"}");
    }
    t->chat_template = px_strdup(text);
    return t->chat_template != NULL ? PX_OK : px_error_code();
}

/* Without a configuration: what the file itself says beyond doubt. */
static void tokens_from_file(px_tokenizer *t)
{
    int specials = 0;
    for (int i = 0; i < t->added_count; i++) {
        specials += t->added[i].special;
    }
    int32_t only = px_tokenizer_id(t, "<|endoftext|>");
    if (specials == 1 && only >= 0 && px_tokenizer_is_special(t, only)) {
        t->bos = t->eos = only;
    } else if (px_tokenizer_id(t, "<s>") >= 0 && px_tokenizer_id(t, "</s>") >= 0) {
        t->bos = px_tokenizer_id(t, "<s>");
        t->eos = px_tokenizer_id(t, "</s>");
    }
}

static px_status renderer_name(px_tokenizer *t, const json_t *value)
{
    if (value == NULL || json_is_null(value)) {
        return PX_OK;
    }
    if (!json_is_string(value)) {
        return px_fail(PX_DATA, "chat_renderer must be a string");
    }
    t->chat_renderer = px_strdup(json_string_value(value));
    return t->chat_renderer != NULL ? PX_OK : px_error_code();
}

px_status px_tokenizer_settings(px_tokenizer *t, const json_t *root)
{
    if (root == NULL) {
        tokens_from_file(t);
        return PX_OK;
    }
    if (!json_is_object(root)) {
        return px_fail(PX_DATA, "must be an object");
    }
    PX_TRY(named_token(t, root, "bos_token", &t->bos));
    PX_TRY(named_token(t, root, "eos_token", &t->eos));
    PX_TRY(named_token(t, root, "pad_token", &t->pad));
    PX_TRY(template_text(t, json_object_get(root, "chat_template")));
    PX_TRY(renderer_name(t, json_object_get(root, "chat_renderer")));
    bool adds = px_tokenizer_adds_bos(t), wanted;
    PX_TRY(px_field_bool(root, "tokenizer_config", "add_bos_token", adds, &wanted));
    if (wanted && !adds && t->bos >= 0) {
        px_ids before = {0};
        PX_TRY(px_ids_add(&before, t->bos));
        px_status status = px_ids_append(&before, t->before.data, t->before.length);
        px_ids_free(&t->before);
        t->before = before;
        return status;
    }
    if (!wanted && adds) {
        memmove(t->before.data, t->before.data + 1, (size_t)--t->before.length * sizeof(int32_t));
    }
    return PX_OK;
}
