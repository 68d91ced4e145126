/* Ids and texts of the shared tokenizers and of small ones, against llama.cpp's pairs and the tokenizers library. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "phalanx/text.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKENIZERS PX_SHARED_DIR "/data/tokenizers"
#define CASES PX_SOURCE_DIR "/tests/golden/tokenizer_cases.json"

static void want_ok(px_status status)
{
    if (status != PX_OK) {
        fail_msg("%s (%s)", px_error_text(), px_error_where());
    }
}

static void need_shared(void)
{
    if (!px_dir_exists(TOKENIZERS)) {
        print_message("skipped: %s is absent\n", TOKENIZERS);
        skip();
    }
}

static px_ids encode(px_tokenizer *t, const char *text, size_t length, bool special)
{
    px_ids ids = {0};
    want_ok(px_tokenizer_encode(t, text, length, special, &ids));
    return ids;
}

/* ---- llama.cpp: texts between marks, one line of ids each */
static void check_pair(px_tokenizer *t, const char *text, size_t length, const char *line)
{
    px_ids ids = encode(t, text, length, false);
    int64_t count = 0;
    for (;; count++) {
        line += strspn(line, " ");
        if (*line == '\n' || *line == '\0') {
            break;
        }
        char *end;
        long want = strtol(line, &end, 10);
        line = end;
        if (count >= ids.length || ids.data[count] != want) {
            fail_msg("text \"%.*s\": id %lld is %d, wanted %ld", (int)length, text, (long long)count,
                     count < ids.length ? ids.data[count] : -1, want);
        }
    }
    assert_int_equal(ids.length, count);
    px_ids_free(&ids);
}

static void check_pairs(const char *name, const char *tokenizer)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    need_shared();
    px_tokenizer *t;
    want_ok(px_tokenizer_load(&t, tokenizer));
    char path[PX_PATH_MAX];
    px_buf texts = {0}, ids = {0};
    snprintf(path, sizeof path, TOKENIZERS "/llamacpp-pairs/ggml-vocab-%s.gguf.inp", name);
    want_ok(px_file_read(path, PX_TEXT_MOST, &texts));
    snprintf(path, sizeof path, TOKENIZERS "/llamacpp-pairs/ggml-vocab-%s.gguf.out", name);
    want_ok(px_file_read(path, PX_TEXT_MOST, &ids));
    const char *text = texts.data, *line = ids.data;
    int count = 0;
    for (const char *end; (end = strstr(text, mark)) != NULL; text = end + strlen(mark), count++) {
        check_pair(t, text, (size_t)(end - text), line);
        line = strchr(line, '\n');
        assert_non_null(line);
        line++;
    }
    assert_in_range(count, 40, 60);
    px_buf_free(&texts);
    px_buf_free(&ids);
    px_tokenizer_destroy(t);
}

static void pairs_gpt2(void **state)
{
    (void)state;
    check_pairs("gpt-2", TOKENIZERS "/gpt2");
}

static void pairs_llama_bpe(void **state)
{
    (void)state;
    check_pairs("llama-bpe", TOKENIZERS "/llama3");
}

static void pairs_llama_spm(void **state)
{
    (void)state;
    check_pairs("llama-spm", TOKENIZERS "/llama2-phi3");
}

static void pairs_phi3(void **state)
{
    (void)state;
    check_pairs("phi-3", TOKENIZERS "/llama2-phi3/tokenizer.json");
}

static void pairs_qwen2(void **state)
{
    (void)state;
    check_pairs("qwen2", TOKENIZERS "/qwen3");
}

/* ---- the tokenizers library */
static void check_ids(const char *what, const char *text, const px_ids *ids, const json_t *want)
{
    for (size_t i = 0; i < json_array_size(want); i++) {
        int id = (int)json_integer_value(json_array_get(want, i));
        if ((int64_t)i >= ids->length || ids->data[i] != id) {
            fail_msg("%s \"%s\": id %zu is %d, wanted %d", what, text, i,
                     (int64_t)i < ids->length ? ids->data[i] : -1, id);
        }
    }
    if ((size_t)ids->length != json_array_size(want)) {
        fail_msg("%s \"%s\": %lld ids, wanted %zu", what, text, (long long)ids->length, json_array_size(want));
    }
}

static void check_case(const char *what, px_tokenizer *t, const json_t *one, bool skip_special)
{
    const char *text = json_string_value(json_object_get(one, "text"));
    px_ids ids = encode(t, text, strlen(text), true);
    check_ids(what, text, &ids, json_object_get(one, "ids"));
    px_buf decoded = {0};
    want_ok(px_tokenizer_decode(t, ids.data, ids.length, skip_special, &decoded));
    assert_string_equal(decoded.data != NULL ? decoded.data : "", json_string_value(json_object_get(one, "decoded")));
    px_ids_free(&ids);
    px_buf_free(&decoded);
    if (json_object_get(one, "plain") != NULL) {
        ids = encode(t, text, strlen(text), false);
        check_ids(what, text, &ids, json_object_get(one, "plain"));
        px_ids_free(&ids);
    }
}

static void hard_strings(void **state)
{
    (void)state;
    need_shared();
    json_t *cases, *one;
    size_t i, k;
    want_ok(px_json_read(CASES, &cases));
    const json_t *item;
    json_array_foreach(json_object_get(cases, "shared"), i, item) {
        char path[PX_PATH_MAX];
        const char *name = json_string_value(json_object_get(item, "tokenizer"));
        snprintf(path, sizeof path, TOKENIZERS "/%s", name);
        px_tokenizer *t;
        want_ok(px_tokenizer_load(&t, path));
        json_array_foreach(json_object_get(item, "cases"), k, one) {
            check_case(name, t, one, false);
        }
        px_tokenizer_destroy(t);
    }
    json_decref(cases);
}

static void small_tokenizers(void **state)
{
    (void)state;
    json_t *cases, *one;
    const json_t *item;
    size_t i, k;
    char dir[] = "/tmp/px_tokenizer_XXXXXX", path[PX_PATH_MAX];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    want_ok(px_json_read(CASES, &cases));
    json_array_foreach(json_object_get(cases, "small"), i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        const char *text = json_string_value(json_object_get(item, "json"));
        want_ok(px_file_write(path, text, strlen(text)));
        px_tokenizer *t;
        want_ok(px_tokenizer_load(&t, dir));
        json_array_foreach(json_object_get(item, "cases"), k, one) {
            check_case(name, t, one, true);
        }
        px_tokenizer_destroy(t);
    }
    json_decref(cases);
    want_ok(px_tree_remove(dir));
}

static void answers(void **state)
{
    (void)state;
    need_shared();
    px_tokenizer *t, *same;
    want_ok(px_tokenizer_load(&t, PX_SHARED_DIR "/data/models/stories260K"));
    want_ok(px_tokenizer_load(&same, PX_SHARED_DIR "/data/models/stories260K/tokenizer.json"));
    assert_int_equal(px_tokenizer_size(t), 512);
    assert_int_equal(px_tokenizer_bos(t), 1);
    assert_int_equal(px_tokenizer_eos(t), 2);
    assert_int_equal(px_tokenizer_pad(t), -1);
    assert_true(px_tokenizer_adds_bos(t));
    assert_true(px_tokenizer_is_special(t, 1));
    assert_false(px_tokenizer_is_special(t, 300));
    assert_string_equal(px_tokenizer_token(t, 2), "</s>");
    assert_null(px_tokenizer_token(t, 512));
    assert_null(px_tokenizer_token(t, -1));
    assert_int_equal(px_tokenizer_id(t, "<s>"), 1);
    assert_int_equal(px_tokenizer_id(t, "no such token"), -1);
    assert_true(px_tokenizer_hash(t) == px_tokenizer_hash(same));
    int32_t ids[] = {400, 900, -5};
    px_buf text = {0};
    want_ok(px_tokenizer_decode(t, ids, 3, false, &text));
    assert_non_null(strstr(text.data, "<unk:900><unk:-5>"));
    px_ids none = {0};
    assert_int_equal(px_tokenizer_encode(t, "a\xff", 2, false, &none), PX_DATA);
    assert_non_null(strstr(px_error_text(), "byte 1"));
    px_ids_free(&none);
    px_buf_free(&text);
    px_tokenizer_destroy(t);
    px_tokenizer_destroy(same);
}

/* Long words take the path with the heap, short ones the other: both must agree with a text cut into pieces. */
static void long_text(void **state)
{
    (void)state;
    need_shared();
    px_tokenizer *t;
    want_ok(px_tokenizer_load(&t, TOKENIZERS "/gpt2"));
    px_buf text = {0}, back = {0};
    want_ok(px_file_read(PX_SHARED_DIR "/data/text/tinyshakespeare.txt", PX_TEXT_MOST, &text));
    px_ids ids = encode(t, text.data, text.length, false);
    assert_int_equal(ids.length, 338025); /* the count that nanoGPT's data/shakespeare prepares */
    want_ok(px_tokenizer_decode(t, ids.data, ids.length, false, &back));
    assert_int_equal(back.length, text.length);
    assert_memory_equal(back.data, text.data, text.length);
    px_ids_free(&ids);
    px_buf_free(&text);
    px_buf_free(&back);
    px_tokenizer_destroy(t);
}

/* ---- equal tokenizers */
static char scratch[] = "/tmp/px_tokenizer_hash_XXXXXX";

static uint64_t hash_of(const char *path)
{
    px_tokenizer *t;
    want_ok(px_tokenizer_load(&t, path));
    uint64_t hash = px_tokenizer_hash(t);
    px_tokenizer_destroy(t);
    return hash;
}

static uint64_t hash_of_text(const char *text)
{
    char path[PX_PATH_MAX];
    snprintf(path, sizeof path, "%s/tokenizer.json", scratch);
    want_ok(px_file_write(path, text, strlen(text)));
    return hash_of(path);
}

static uint64_t hash_of_tree(const json_t *tree, size_t flags)
{
    char *text = json_dumps(tree, flags);
    assert_non_null(text);
    uint64_t hash = hash_of_text(text);
    free(text);
    return hash;
}

/* Merges as pairs, not as texts with a space, and a key that means nothing here. */
static void spell_otherwise(json_t *tree)
{
    json_t *merges = json_object_get(json_object_get(tree, "model"), "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *both = json_string_value(json_array_get(merges, i)), *space = both != NULL ? strchr(both, ' ') : NULL;
        if (space != NULL) {
            json_array_set_new(merges, i, json_pack("[s%, s]", both, (size_t)(space - both), space + 1));
        }
    }
    json_object_set_new(tree, "truncation", json_pack("{s:i}", "max_length", 512));
}

static void another_program_wrote_it(void **state)
{
    (void)state;
    json_t *cases, *tree;
    const json_t *item;
    size_t i;
    want_ok(px_json_read(CASES, &cases));
    json_array_foreach(json_object_get(cases, "small"), i, item) {
        const char *text = json_string_value(json_object_get(item, "json"));
        uint64_t hash = hash_of_text(text);
        want_ok(px_json_parse(text, strlen(text), "case", 0, &tree));
        assert_true(hash_of_tree(tree, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENSURE_ASCII) == hash);
        spell_otherwise(tree);
        assert_true(hash_of_tree(tree, JSON_COMPACT) == hash);
        json_decref(tree);
    }
    json_decref(cases);
}

#define BPE(normalizer, splitter, lstrip, more, merge, id)                                                                 \
    "{\"normalizer\":" normalizer ",\"pre_tokenizer\":" splitter ",\"added_tokens\":[{\"id\":5,\"content\":\"<s>\","            \
    "\"special\":true,\"lstrip\":" lstrip "}],\"model\":{\"type\":\"BPE\"" more ",\"merges\":[\"a b\"" merge "],"              \
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":" id "}}}"
#define DIGITS "{\"type\":\"Digits\"}"

static void another_tokenizer_has_another_hash(void **state)
{
    (void)state;
    static const char *const others[] = {
        BPE("{\"type\":\"NFC\"}", DIGITS, "false", "", "", "4"),
        BPE("null", "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "false", "", "", "4"),
        BPE("null", "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"c\"}", "false", "", "", "4"),
        BPE("null", DIGITS, "true", "", "", "4"),
        BPE("null", DIGITS, "false", ",\"ignore_merges\":true", "", "4"),
        BPE("null", DIGITS, "false", "", ",\"b c\"", "4"),
        BPE("null", DIGITS, "false", "", "", "6"),
    };
    uint64_t one = hash_of_text(BPE("null", DIGITS, "false", "", "", "4"));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_true(hash_of_text(others[i]) != one);
    }
    char path[PX_PATH_MAX];
    static const char settings[] = "{\"bos_token\":\"<s>\",\"add_bos_token\":true}";
    snprintf(path, sizeof path, "%s/tokenizer_config.json", scratch);
    want_ok(px_file_write(path, settings, strlen(settings)));
    assert_true(hash_of_text(BPE("null", DIGITS, "false", "", "", "4")) != one);
    want_ok(px_tree_remove(path));
}

/* A GGUF file of a tokenizer alone; what lies in it is little-endian, as this machine is. */
static void put_number(px_buf *out, uint64_t number, size_t bytes)
{
    want_ok(px_buf_add(out, &number, bytes));
}

static void put_text(px_buf *out, const char *text)
{
    put_number(out, strlen(text), 8);
    want_ok(px_buf_text(out, text));
}

enum { GGUF_UINT32 = 4, GGUF_INT32, GGUF_FLOAT32, GGUF_TEXT = 8, GGUF_ARRAY };

static void put_key(px_buf *out, const char *key, int type, int of, size_t count)
{
    put_text(out, key);
    put_number(out, (uint64_t)type, 4);
    if (type == GGUF_ARRAY) {
        put_number(out, (uint64_t)of, 4);
        put_number(out, count, 8);
    }
}

static void a_gguf_file_and_what_is_written_of_it(void **state)
{
    (void)state;
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "\xE2\x96\x81", "a", "b", "ab", "\xE2\x96\x81" "a"};
    static const int types[] = {2, 3, 3, 1, 1, 1, 1, 1};
    enum { COUNT = sizeof tokens / sizeof *tokens };
    px_buf file = {0};
    want_ok(px_buf_text(&file, "GGUF"));
    put_number(&file, 3, 4);
    put_number(&file, 0, 8);
    put_number(&file, 6, 8);
    put_key(&file, "tokenizer.ggml.model", GGUF_TEXT, 0, 0);
    put_text(&file, "llama");
    put_key(&file, "tokenizer.ggml.bos_token_id", GGUF_UINT32, 0, 0);
    put_number(&file, 1, 4);
    put_key(&file, "tokenizer.ggml.eos_token_id", GGUF_UINT32, 0, 0);
    put_number(&file, 2, 4);
    put_key(&file, "tokenizer.ggml.tokens", GGUF_ARRAY, GGUF_TEXT, COUNT);
    for (int i = 0; i < COUNT; i++) {
        put_text(&file, tokens[i]);
    }
    put_key(&file, "tokenizer.ggml.token_type", GGUF_ARRAY, GGUF_INT32, COUNT);
    for (int i = 0; i < COUNT; i++) {
        put_number(&file, (uint64_t)types[i], 4);
    }
    put_key(&file, "tokenizer.ggml.scores", GGUF_ARRAY, GGUF_FLOAT32, COUNT);
    for (int i = 0; i < COUNT; i++) {
        want_ok(px_buf_add(&file, &(float){(float)-i}, sizeof(float)));
    }
    char path[PX_PATH_MAX], dir[PX_PATH_MAX];
    snprintf(path, sizeof path, "%s/model.gguf", scratch);
    snprintf(dir, sizeof dir, "%s/extracted", scratch);
    want_ok(px_file_write(path, file.data, file.length));
    want_ok(px_dir_create(dir));
    want_ok(px_tokenizer_extract(path, dir));
    assert_true(hash_of(path) == hash_of(dir));
    px_buf_free(&file);
}

static int make_scratch(void **state)
{
    (void)state;
    return mkdtemp(scratch) != NULL ? 0 : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    return px_tree_remove(scratch) == PX_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_gpt2), cmocka_unit_test(pairs_llama_bpe), cmocka_unit_test(pairs_llama_spm),
        cmocka_unit_test(pairs_phi3), cmocka_unit_test(pairs_qwen2), cmocka_unit_test(hard_strings),
        cmocka_unit_test(small_tokenizers), cmocka_unit_test(answers), cmocka_unit_test(long_text),
        cmocka_unit_test(another_program_wrote_it), cmocka_unit_test(another_tokenizer_has_another_hash),
        cmocka_unit_test(a_gguf_file_and_what_is_written_of_it),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
