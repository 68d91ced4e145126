#include "train.h"

#include "characters.h"
#include "chat_templates.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- vocabulary: special tokens, then the 256 bytes in the order of their characters, then the merges */
static px_status start_vocabulary(px_vocab *names, int vocab_size, const char *const *special, int special_count,
                                  int32_t byte_id[256])
{
    if (vocab_size < 256 + special_count || vocab_size > PX_VOCAB_LIMIT) {
        return px_fail(PX_CONFIG, "a vocabulary of %d is not possible; with %d special tokens it is %d to %d",
                       vocab_size, special_count, 256 + special_count, PX_VOCAB_LIMIT);
    }
    PX_TRY(px_vocab_init(names, vocab_size, 16 * (size_t)vocab_size));
    for (int i = 0; i < special_count; i++) {
        if (*special[i] == '\0' || px_utf8_valid(special[i], strlen(special[i])) != strlen(special[i])) {
            return px_fail(PX_CONFIG, "special token %d is empty or not UTF-8", i + 1);
        }
        if (px_vocab_put(names, special[i], strlen(special[i]), i) != PX_OK) {
            return px_fail(PX_CONFIG, "special token \"%.80s\" is given twice", special[i]);
        }
    }
    for (uint32_t c = 0; c < 324; c++) {
        int byte = px_char_byte(c);
        if (byte < 0) {
            continue;
        }
        char text[4];
        size_t length = (size_t)px_char_put(c, text);
        byte_id[byte] = px_vocab_find(names, text, length);
        if (byte_id[byte] < 0) {
            byte_id[byte] = names->count;
            PX_TRY(px_vocab_put(names, text, length, byte_id[byte]));
        }
    }
    return PX_OK;
}

/* ---- files */
static json_t *added_token(const char *content, int id)
{
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", content, "single_word", 0, "lstrip", 0,
                     "rstrip", 0, "normalized", 0, "special", 1);
}

static json_t *byte_level(void)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     1);
}

static json_t *merge_list(const px_vocab *names, const px_learned *merges, int count)
{
    json_t *list = json_array();
    for (int i = 0; list != NULL && i < count; i++) {
        json_array_append_new(list, json_sprintf("%s %s", px_vocab_text(names, merges[i].left, NULL),
                                                 px_vocab_text(names, merges[i].right, NULL)));
    }
    return list;
}

static json_t *tokenizer_tree(const px_vocab *names, const px_learned *merges, int merge_count, int special_count)
{
    json_t *vocab = json_object(), *added = json_array();
    for (int32_t id = 0; id < names->count; id++) {
        json_object_set_new(vocab, px_vocab_text(names, id, NULL), json_integer(id));
    }
    for (int i = 0; i < special_count; i++) {
        json_array_append_new(added, added_token(px_vocab_text(names, i, NULL), i));
    }
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                              "unk_token",
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0,
                              "ignore_merges", 0, "vocab", vocab, "merges", merge_list(names, merges, merge_count));
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:n, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added, "normalizer", "pre_tokenizer", byte_level(), "post_processor", "decoder",
                     byte_level(), "model", model);
}

/* The first of the names that is a special token. */
static const char *first_of(const px_vocab *names, int special_count, const char *const *wanted)
{
    for (; *wanted != NULL; wanted++) {
        int32_t id = px_vocab_find(names, *wanted, strlen(*wanted));
        if (id >= 0 && id < special_count) {
            return *wanted;
        }
    }
    return NULL;
}

static json_t *settings_tree(const px_vocab *names, int special_count)
{
    static const char *const eos[] = {"<|im_end|>", "</s>", "<eos>", "<|endoftext|>", NULL};
    static const char *const bos[] = {"<s>", "<bos>", "<|endoftext|>", NULL};
    static const char *const pad[] = {"<pad>", "<|pad|>", NULL};
    static const char *const turn[] = {"<|im_start|>", NULL};
    json_t *tree = json_pack("{s:s, s:b, s:b, s:s*, s:s*, s:s*}", "tokenizer_class", "PreTrainedTokenizerFast",
                             "add_prefix_space", 0, "clean_up_tokenization_spaces", 0, "bos_token",
                             first_of(names, special_count, bos), "eos_token", first_of(names, special_count, eos),
                             "pad_token", first_of(names, special_count, pad));
    if (first_of(names, special_count, turn) != NULL && first_of(names, special_count, eos) == eos[0]) {
        json_object_set_new(tree, "chat_template", json_string(px_template_chatml));
    }
    return tree;
}

px_status px_tree_write(json_t *tree, const char *dir, const char *name)
{
    char path[PX_PATH_MAX];
    char *text = tree == NULL ? NULL : json_dumps(tree, JSON_INDENT(1));
    json_decref(tree);
    if (text == NULL) {
        return px_fail(PX_CONFIG, "out of memory: %s", name);
    }
    px_status status = px_path_join(path, sizeof path, dir, name);
    if (status == PX_OK) {
        status = px_file_write(path, text, strlen(text));
    }
    free(text);
    return status;
}

static px_status train(px_words *words, px_vocab *names, px_learned **merges, const char *const *files, int file_count,
                       int vocab_size, int min_frequency, const char *const *special, int special_count,
                       const char *dir)
{
    int32_t byte_id[256];
    int merge_count;
    PX_TRY(start_vocabulary(names, vocab_size, special, special_count, byte_id));
    for (int i = 0; i < file_count; i++) {
        PX_TRY(px_words_count(words, files[i]));
    }
    if (words->count == 0) {
        return px_fail(PX_DATA, "%s: no text to train on", file_count > 0 ? files[0] : "no file");
    }
    PX_TRY(px_merges_learn(words, byte_id, vocab_size, min_frequency, names, merges, &merge_count));
    PX_TRY(px_dir_create(dir));
    PX_TRY(px_tree_write(tokenizer_tree(names, *merges, merge_count, special_count), dir, "tokenizer.json"));
    return px_tree_write(settings_tree(names, special_count), dir, "tokenizer_config.json");
}

px_status px_tokenizer_train(const char *const *files, int file_count, int vocab_size, int min_frequency,
                             const char *const *special, int special_count, const char *dir)
{
    px_words words = {0};
    px_vocab names = {0};
    px_learned *merges = NULL;
    px_status status = train(&words, &names, &merges, files, file_count, vocab_size, min_frequency, special,
                             special_count, dir);
    px_words_free(&words);
    px_vocab_free(&names);
    px_free(merges);
    return status;
}
