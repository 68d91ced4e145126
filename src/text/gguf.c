/* GGUF keeps a tokenizer as lists of tokens, their types, and merges or scores. What lies around the model, normalizer,
 * pre-tokenizer and decoder, it only names. */
#include "gguf.h"

#include "train.h"
#include "vocab.h"
#include "phalanx/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNKNOWN = 2, CONTROL = 3, USER = 4 }; /* types of tokens */
enum { LONGEST_PIECE = 512 };                /* bytes; each is cut at every place */

typedef struct source {
    const char *path;
    json_t *meta;
    json_t *tokens, *types, *scores; /* types and scores: NULL or as long as tokens */
} source;

static json_t *meta(const source *s, const char *key)
{
    char name[80];
    snprintf(name, sizeof name, "tokenizer.ggml.%s", key);
    return json_object_get(s->meta, name);
}

static bool is_set(const source *s, const char *key, bool otherwise)
{
    json_t *value = meta(s, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static int type_of(const source *s, size_t i)
{
    return s->types != NULL ? (int)json_integer_value(json_array_get(s->types, i)) : 1;
}

/* ---- lists ---------------------------------------------------------------------------------------------------------- */
static px_status read_list(const source *s, const char *key, json_t **list)
{
    *list = meta(s, key);
    if (*list != NULL && (!json_is_array(*list) || json_array_size(*list) != json_array_size(s->tokens))) {
        return px_fail(PX_DATA, "%s: key tokenizer.ggml.%s is not a list of one value a token", s->path, key);
    }
    return PX_OK;
}

static px_status read_lists(source *s)
{
    s->tokens = meta(s, "tokens");
    size_t count = json_array_size(s->tokens);
    if (count == 0 || count > PX_VOCAB_LIMIT) {
        return px_fail(PX_DATA, "%s: key tokenizer.ggml.tokens is not a list of 1 to %d tokens", s->path, PX_VOCAB_LIMIT);
    }
    for (size_t i = 0; i < count; i++) {
        if (!json_is_string(json_array_get(s->tokens, i))) {
            return px_fail(PX_DATA, "%s: key tokenizer.ggml.tokens holds what is no string", s->path);
        }
    }
    PX_TRY(read_list(s, "token_type", &s->types));
    return read_list(s, "scores", &s->scores);
}

static json_t *vocabulary(const source *s)
{
    json_t *vocab = json_object();
    size_t i;
    json_t *token;
    json_array_foreach(s->tokens, i, token) {
        json_object_set_new(vocab, json_string_value(token), json_integer((json_int_t)i));
    }
    return vocab;
}

static json_t *added_tokens(const source *s)
{
    json_t *added = json_array(), *token;
    size_t i;
    json_array_foreach(s->tokens, i, token) {
        int type = type_of(s, i);
        if (type != UNKNOWN && type != CONTROL && type != USER) {
            continue;
        }
        json_array_append_new(added, json_pack("{s:I, s:O, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content", token,
                                               "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special",
                                               type != USER));
    }
    return added;
}

/* ---- byte-level BPE --------------------------------------------------------------------------------------------------- */
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static json_t *byte_level(bool own_pattern)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 0, "use_regex",
                     own_pattern);
}

static json_t *pattern_then_bytes(const char *pattern)
{
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Split",
                     "pattern", "Regex", pattern, "behavior", "Isolated", "invert", 0, byte_level(false));
}

static px_status pre_tokenizer(const source *s, json_t **steps, bool *nfc, bool *whole_words)
{
    const char *pre = json_string_value(meta(s, "pre")), *architecture;
    architecture = json_string_value(json_object_get(s->meta, "general.architecture"));
    if ((pre == NULL || strcmp(pre, "default") == 0) && architecture != NULL && strcmp(architecture, "gpt2") == 0) {
        pre = "gpt-2";
    }
    *nfc = *whole_words = false;
    if (pre != NULL && strcmp(pre, "gpt-2") == 0) {
        *steps = byte_level(true);
    } else if (pre != NULL && strcmp(pre, "smollm") == 0) {
        *steps = json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits",
                           "individual_digits", 1, byte_level(true));
    } else if (pre != NULL && strcmp(pre, "llama-bpe") == 0) {
        *steps = pattern_then_bytes(WORDS "\\p{N}{1,3}" REST);
        *whole_words = true;
    } else if (pre != NULL && strcmp(pre, "qwen2") == 0) {
        *steps = pattern_then_bytes(WORDS "\\p{N}" REST);
        *nfc = true;
    } else {
        return px_fail(PX_DATA, "%s: key tokenizer.ggml.pre is \"%.40s\"; valid are gpt-2, smollm, llama-bpe and qwen2, or a "
                       "tokenizer.json beside the file", s->path, pre != NULL ? pre : "not there");
    }
    return PX_OK;
}

static px_status byte_bpe(const source *s, json_t **tree)
{
    json_t *merges = meta(s, "merges"), *steps = NULL;
    bool nfc = false, whole_words = false;
    if (!json_is_array(merges)) {
        return px_fail(PX_DATA, "%s: key tokenizer.ggml.merges is missing", s->path);
    }
    PX_TRY(pre_tokenizer(s, &steps, &nfc, &whole_words));
    *tree = json_pack("{s:o, s:o?, s:o, s:o, s:{s:s, s:b, s:o, s:O}}", "added_tokens", added_tokens(s), "normalizer",
                      nfc ? json_pack("{s:s}", "type", "NFC") : NULL, "pre_tokenizer", steps, "decoder", byte_level(true),
                      "model", "type", "BPE", "ignore_merges", whole_words, "vocab", vocabulary(s), "merges", merges);
    return PX_OK;
}

/* ---- SentencePiece BPE ---------------------------------------------------------------------------------------------------
 * The pieces with the best scores are merged first, so a piece is a merge of any two that make it, in the order of scores;
 * equal scores in the order of transformers' conversion: the longer left part, then the longer right one, first. */
typedef struct merge {
    double score;
    int32_t left_characters, right_characters, left, right;
    size_t order;
} merge;
typedef struct merges {
    merge *list;
    size_t count, capacity;
} merges;

static int by_score(const void *a, const void *b)
{
    const merge *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    if (x->left_characters != y->left_characters) {
        return x->left_characters > y->left_characters ? -1 : 1;
    }
    if (x->right_characters != y->right_characters) {
        return x->right_characters > y->right_characters ? -1 : 1;
    }
    return x->order < y->order ? -1 : x->order > y->order;
}

static int32_t characters(const char *text, size_t length)
{
    int32_t count = 0;
    for (size_t i = 0; i < length; i++) {
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    }
    return count;
}

static px_status add_merge(merges *m, merge one)
{
    if (m->count == m->capacity) {
        m->capacity = m->capacity == 0 ? 4096 : 2 * m->capacity;
        merge *more = px_realloc(m->list, m->capacity * sizeof *more, "merges");
        if (more == NULL) {
            return px_error_code();
        }
        m->list = more;
    }
    one.order = m->count;
    m->list[m->count++] = one;
    return PX_OK;
}

static px_status add_splits(const source *s, const px_vocab *vocab, size_t i, merges *m)
{
    const char *piece = json_string_value(json_array_get(s->tokens, i));
    size_t length = strlen(piece);
    if (length > LONGEST_PIECE) {
        return px_fail(PX_DATA, "%s: token %zu has %zu bytes; valid are at most %d", s->path, i, length, LONGEST_PIECE);
    }
    for (size_t cut = 1; cut < length; cut++) {
        if (((unsigned char)piece[cut] & 0xC0) == 0x80) {
            continue;
        }
        int32_t left = px_vocab_find(vocab, piece, cut), right = px_vocab_find(vocab, piece + cut, length - cut);
        if (left >= 0 && right >= 0) {
            PX_TRY(add_merge(m, (merge){json_number_value(json_array_get(s->scores, i)), characters(piece, cut),
                                        characters(piece + cut, length - cut), left, right, 0}));
        }
    }
    return PX_OK;
}

static px_status list_merges(const source *s, json_t **out)
{
    px_vocab vocab = {0};
    merges m = {0};
    size_t count = json_array_size(s->tokens);
    px_status status = px_vocab_init(&vocab, (int32_t)count, 16 * count);
    for (size_t i = 0; i < count && status == PX_OK; i++) {
        const char *token = json_string_value(json_array_get(s->tokens, i));
        status = px_vocab_put(&vocab, token, strlen(token), (int32_t)i);
    }
    for (size_t i = 0; i < count && status == PX_OK; i++) {
        status = type_of(s, i) == 1 ? add_splits(s, &vocab, i, &m) : PX_OK;
    }
    if (status == PX_OK) {
        if (m.count > 0) {
            qsort(m.list, m.count, sizeof *m.list, by_score);
        }
        *out = json_array();
        for (size_t i = 0; i < m.count; i++) {
            json_array_append_new(*out, json_pack("[O, O]", json_array_get(s->tokens, (size_t)m.list[i].left),
                                                  json_array_get(s->tokens, (size_t)m.list[i].right)));
        }
    }
    px_free(m.list);
    px_vocab_free(&vocab);
    return status;
}

#define SPACE "\xE2\x96\x81"

static px_status sentencepiece_bpe(const source *s, json_t **tree)
{
    json_t *merged = NULL, *normal, *decoder;
    bool prefix = is_set(s, "add_space_prefix", true);
    int64_t unk = json_is_integer(meta(s, "unknown_token_id")) ? json_integer_value(meta(s, "unknown_token_id")) : -1;
    if (s->scores == NULL) {
        return px_fail(PX_DATA, "%s: key tokenizer.ggml.scores is missing", s->path);
    }
    for (size_t i = 0; i < json_array_size(s->tokens) && unk < 0; i++) {
        unk = type_of(s, i) == UNKNOWN ? (int64_t)i : -1;
    }
    PX_TRY(list_merges(s, &merged));
    normal = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", SPACE);
    decoder = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String", SPACE, "content", " ",
                        "type", "ByteFallback", "type", "Fuse");
    if (prefix) {
        normal = json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend", SPACE,
                           normal);
        json_array_append_new(decoder, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    }
    json_t *unknown = unk >= 0 ? json_array_get(s->tokens, (size_t)unk) : NULL;
    *tree = json_pack("{s:o, s:o, s:n, s:{s:s, s:o}, s:{s:s, s:O?, s:b, s:b, s:o, s:o}}", "added_tokens", added_tokens(s),
                      "normalizer", normal, "pre_tokenizer", "decoder", "type", "Sequence", "decoders", decoder, "model",
                      "type", "BPE", "unk_token", unknown, "fuse_unk", 1, "byte_fallback", 1, "vocab", vocabulary(s), "merges",
                      merged);
    return PX_OK;
}

/* ---- settings ----------------------------------------------------------------------------------------------------------- */
static px_status named_token(const source *s, const char *key, const char *name, json_t *out)
{
    char id_key[48];
    snprintf(id_key, sizeof id_key, "%s_token_id", key);
    json_t *id = meta(s, id_key);
    if (id == NULL) {
        return PX_OK;
    }
    json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
    if (value < 0 || (size_t)value >= json_array_size(s->tokens)) {
        return px_fail(PX_DATA, "%s: key tokenizer.ggml.%s is not one of the %zu tokens", s->path, id_key,
                       json_array_size(s->tokens));
    }
    json_object_set(out, name, json_array_get(s->tokens, (size_t)value));
    return PX_OK;
}

static px_status read_settings(const source *s, bool adds_bos, json_t *out)
{
    PX_TRY(named_token(s, "bos", "bos_token", out));
    PX_TRY(named_token(s, "eos", "eos_token", out));
    PX_TRY(named_token(s, "padding", "pad_token", out));
    json_object_set_new(out, "add_bos_token", json_boolean(is_set(s, "add_bos_token", adds_bos)));
    json_t *template = json_object_get(s->meta, "tokenizer.chat_template");
    if (json_is_string(template)) {
        json_object_set(out, "chat_template", template);
    }
    return PX_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */
static px_status read_model(const source *s, json_t **tree, bool *adds_bos)
{
    const char *model = json_string_value(meta(s, "model")), *pre = json_string_value(meta(s, "pre"));
    json_t *whole = json_object_get(s->meta, "tokenizer.huggingface.json");
    *adds_bos = pre != NULL && strcmp(pre, "llama-bpe") == 0;
    if (json_is_string(whole)) {
        return px_json_parse(json_string_value(whole), json_string_length(whole), s->path, 0, tree);
    }
    if (model != NULL && strcmp(model, "gpt2") == 0) {
        return byte_bpe(s, tree);
    }
    if (model != NULL && strcmp(model, "llama") == 0) {
        *adds_bos = true;
        return sentencepiece_bpe(s, tree);
    }
    return px_fail(PX_DATA, "%s: key tokenizer.ggml.model is \"%.40s\"; valid are gpt2 (byte-level BPE) and llama "
                   "(SentencePiece BPE), or a tokenizer.json beside the file", s->path, model != NULL ? model : "not there");
}

px_status px_gguf_tokenizer(const char *path, json_t **tokenizer, json_t **settings)
{
    px_gguf gguf;
    bool adds_bos;
    *tokenizer = *settings = NULL;
    PX_TRY(px_gguf_open(&gguf, path));
    *settings = json_object();
    source s = {.path = path, .meta = gguf.meta};
    px_status status = read_lists(&s);
    status = status == PX_OK ? read_model(&s, tokenizer, &adds_bos) : status;
    status = status == PX_OK ? read_settings(&s, adds_bos, *settings) : status;
    if (status == PX_OK && *tokenizer == NULL) {
        status = px_fail(PX_CONFIG, "out of memory: %s: its tokenizer", path);
    }
    px_gguf_close(&gguf);
    if (status != PX_OK) {
        json_decref(*tokenizer);
        json_decref(*settings);
        *tokenizer = *settings = NULL;
    }
    return status;
}

px_status px_tokenizer_extract(const char *from, const char *dir)
{
    json_t *tokenizer, *settings;
    size_t length = strlen(from);
    if (length < 5 || strcmp(from + length - 5, ".gguf") != 0) {
        return PX_OK;
    }
    PX_TRY(px_gguf_tokenizer(from, &tokenizer, &settings));
    px_status status = px_tree_write(tokenizer, dir, "tokenizer.json");
    if (status != PX_OK) {
        json_decref(settings);
        return status;
    }
    return px_tree_write(settings, dir, "tokenizer_config.json");
}

bool px_tokenizer_exists(const char *path)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.json.gz"};
    char file[PX_PATH_MAX];
    px_gguf gguf;
    for (int i = 0; i < 2; i++) {
        if (px_path_join(file, sizeof file, path, names[i]) == PX_OK && px_file_exists(file)) {
            return true;
        }
    }
    if (px_gguf_find(file, sizeof file, path) != PX_OK || file[0] == '\0' || px_gguf_open(&gguf, file) != PX_OK) {
        px_error_clear();
        return px_file_exists(path);
    }
    bool found = json_is_array(json_object_get(gguf.meta, "tokenizer.ggml.tokens"));
    px_gguf_close(&gguf);
    return found;
}
