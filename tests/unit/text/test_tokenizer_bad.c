/* Broken tokenizer.json: one message that names the place, no crash, no hang. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "phalanx/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/px_bad_XXXXXX";

static px_status load_text(const char *text, px_tokenizer **t)
{
    char path[PX_PATH_MAX];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_int_equal(px_file_write(path, text, strlen(text)), PX_OK);
    return px_tokenizer_load(t, dir);
}

#define WORDS "\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0, \"b\": 1}, \"unk_token\": \"a\"}"
#define BPE(vocab, merges) "\"model\": {\"type\": \"BPE\", \"vocab\": {" vocab "}, \"merges\": [" merges "]}"
#define ADDED(tokens) "{" WORDS ", \"added_tokens\": [" tokens "]}"

static const struct {
    const char *json, *want; /* want is in the message */
} broken[] = {
    {"", "JSON"},
    {"{\"model\": ", "JSON"},
    {"[]", "model"},
    {"{}", "model"},
    {"{\"model\": 3}", "model"},
    {"{\"model\": {\"type\": \"Piece\", \"vocab\": {\"a\": 0}}}", "BPE, WordLevel, Unigram, WordPiece"},
    {"{\"model\": {\"type\": 7}}", "model.type"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": [], \"merges\": []}}", "model.vocab"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}", "model.merges"},
    {"{" BPE("\"a\": 0, \"b\": 0", "") "}", "same id 0"},
    {"{" BPE("\"a\": -1", "") "}", "model.vocab[\"a\"]"},
    {"{" BPE("\"a\": 4194304", "") "}", "0 to 4194303"},
    {"{" BPE("\"a\": 99999999999999999999", "") "}", "JSON"},
    {"{" BPE("\"a\": 1.5", "") "}", "integer"},
    {"{" BPE("\"a\": \"0\"", "") "}", "integer"},
    {"{" BPE("\"a\": 0, \"b\": 1", "\"a c\"") "}", "model.merges[0]"},
    {"{" BPE("\"a\": 0, \"b\": 1", "\"a b\"") "}", "\"ab\""},
    {"{" BPE("\"a\": 0, \"b\": 1", "\"ab\"") "}", "one space"},
    {"{" BPE("\"a\": 0, \"b\": 1", "\"a b c\"") "}", "one space"},
    {"{" BPE("\"a\": 0, \"b\": 1", "[\"a\"]") "}", "LEFT"},
    {"{" BPE("\"a\": 0, \"b\": 1", "{}") "}", "LEFT"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [], \"unk_token\": \"x\"}}", "unk_token"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [], \"dropout\": 0.1}}", "dropout"},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [], \"fuse_unk\": 1}}", "fuse_unk"},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\"]]}}", "model.vocab[0]"},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0], [\"a\", 1]]}}", "two ids"},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]], \"unk_id\": 1}}", "unk_id"},
    {"{" WORDS ", \"normalizer\": {\"type\": \"Precompiled\"}}", "NFC"},
    {"{" WORDS ", \"normalizer\": {\"type\": \"Replace\", \"content\": \"\"}}", "pattern"},
    {"{" WORDS ", \"normalizer\": {\"type\": \"Prepend\"}}", "prepend"},
    {"{" WORDS ", \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": 1}}", "normalizers"},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}}", "ByteLevel"},
    {"{" WORDS ", \"pre_tokenizer\": \"ByteLevel\"}", "pre_tokenizer"},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}, \"behavior\": \"Isolated\"}}",
     "\"(\""},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a[b]]\"}}}", "brackets"},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"(*UTF)a\"}}}", "control verb"},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"a\\\\\"}}}", "backslash"},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"Some\"}}",
     "Contiguous"},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\"}}", "replacement"},
    {"{" WORDS ", \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"x\"}}",
     "always"},
    {"{" WORDS ", \"decoder\": {\"type\": \"CTC\"}}", "ByteFallback"},
    {"{" WORDS ", \"decoder\": {\"type\": \"Strip\", \"content\": \"\"}}", "decoder.content"},
    {"{" WORDS ", \"post_processor\": {\"type\": \"TemplateProcessing\"}}", "single"},
    {"{" WORDS ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}]}}",
     "\"x\""},
    {"{" WORDS ", \"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"a\", 7], \"sep\": [\"b\", 1]}}",
     "cls"},
    {ADDED("3"), "added_tokens[0].content"},
    {ADDED("{\"content\": \"x\"}"), "added_tokens[0].id"},
    {ADDED("{\"content\": \"x\", \"id\": 99999999}"), "added_tokens[0].id"},
    {ADDED("{\"content\": \"x\", \"id\": 1}"), "added_tokens[0]"},
    {ADDED("{\"content\": \"b\", \"id\": 2}"), "added_tokens[0]"},
    {ADDED("{\"content\": \"x\", \"id\": 2}, {\"content\": \"y\", \"id\": 2}"), "same id 2"},
    {ADDED("{\"content\": \"x\", \"id\": 2, \"lstrip\": \"no\"}"), "lstrip"},
};

static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        px_tokenizer *t = NULL;
        size_t live = px_alloc_live();
        px_status status = load_text(broken[i].json, &t);
        if (status != PX_DATA || strstr(px_error_text(), broken[i].want) == NULL ||
            strstr(px_error_text(), "tokenizer.json") == NULL) {
            fail_msg("case %zu %s: status %d, message \"%s\" should have \"%s\"", i, broken[i].json, status,
                     px_error_text(), broken[i].want);
        }
        assert_null(t);
        assert_int_equal(px_alloc_live(), live);
    }
}

static void absent(void **state)
{
    (void)state;
    px_tokenizer *t;
    assert_int_equal(px_tokenizer_load(&t, "/no/such/place"), PX_DATA);
    assert_int_equal(px_tokenizer_load(&t, "/tmp"), PX_DATA);
    assert_non_null(strstr(px_error_text(), "tokenizer.json"));
}

static void nested(const char *key, const char *list, int depth)
{
    px_buf text = {0};
    px_tokenizer *t;
    assert_int_equal(px_buf_printf(&text, "{%s, \"%s\": ", WORDS, key), PX_OK);
    for (int i = 0; i < depth; i++) {
        assert_int_equal(px_buf_printf(&text, "{\"type\": \"Sequence\", \"%s\": [", list), PX_OK);
    }
    for (int i = 0; i < depth; i++) {
        assert_int_equal(px_buf_text(&text, "]}"), PX_OK);
    }
    assert_int_equal(px_buf_text(&text, "}"), PX_OK);
    assert_int_equal(load_text(text.data, &t), PX_DATA);
    px_buf_free(&text);
}

static void deep_nesting(void **state)
{
    (void)state;
    for (int depth = 20; depth <= 200000; depth *= 10) {
        nested("normalizer", "normalizers", depth);
        nested("pre_tokenizer", "pretokenizers", depth);
        nested("decoder", "decoders", depth);
        nested("post_processor", "processors", depth);
    }
}

static void catastrophic_regex(void **state)
{
    (void)state;
    static const char *const patterns[] = {"(a+)+$", "(a|a)*b", "(?:a*)*\\\\z(?!)", "(.*)*x"};
    px_buf text = {0};
    px_ids ids = {0};
    for (int i = 0; i < 64; i++) {
        assert_int_equal(px_buf_text(&text, i == 63 ? "!" : "a"), PX_OK);
    }
    double start = px_now();
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        px_tokenizer *t;
        char json[600];
        snprintf(json, sizeof json, "{" WORDS ", \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": \"Isolated\", "
                 "\"pattern\": {\"Regex\": \"%s\"}}}", patterns[i]);
        assert_int_equal(load_text(json, &t), PX_OK);
        px_status status = px_tokenizer_encode(t, text.data, text.length, false, &ids);
        assert_true(status == PX_OK || (status == PX_DATA && strstr(px_error_text(), "backtracks") != NULL));
        px_tokenizer_destroy(t);
    }
    assert_true(px_now() - start < 5.0);
    px_buf_free(&text);
    px_ids_free(&ids);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir) != PX_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table), cmocka_unit_test(absent), cmocka_unit_test(deep_nesting),
        cmocka_unit_test(catastrophic_regex),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
