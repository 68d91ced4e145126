/* What ids say behind others: the text of all of them without the text of the first ones, whatever the decoder. */
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

static const char *text_of(const px_buf *text)
{
    return text->data != NULL ? text->data : "";
}

/* By definition: both texts whole; where the first is no beginning of the second, what they share ends at a character. */
static void want_same(const char *what, px_tokenizer *t, const int32_t *ids, int64_t before, int64_t count, bool skip)
{
    px_buf first = {0}, all = {0}, got = {0};
    want_ok(px_tokenizer_decode(t, ids, before, skip, &first));
    want_ok(px_tokenizer_decode(t, ids, before + count, skip, &all));
    want_ok(px_tokenizer_decode_after(t, ids, before, ids + before, count, skip, &got));
    size_t same = 0;
    while (same < first.length && same < all.length && first.data[same] == all.data[same]) {
        same++;
    }
    while (same > 0 && same < all.length && ((unsigned char)all.data[same] & 0xC0) == 0x80) {
        same--;
    }
    const char *want = text_of(&all) + same;
    if (strcmp(text_of(&got), want) != 0) {
        fail_msg("%s, %lld + %lld ids: \"%s\" behind \"%s\", wanted \"%s\"", what, (long long)before, (long long)count,
                 text_of(&got), text_of(&first), want);
    }
    px_buf_free(&first);
    px_buf_free(&all);
    px_buf_free(&got);
}

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Any ids: half characters on both sides, runs of bytes, spaces, special tokens. `few`: from the first ids of the
 * vocabulary, where bytes and special tokens are. */
static void random_ids(const char *what, px_tokenizer *t, int rounds)
{
    uint32_t state = 7;
    int32_t ids[48];
    for (int round = 0; round < rounds; round++) {
        int few = round % 2 == 0 && px_tokenizer_size(t) > 300 ? 300 : px_tokenizer_size(t);
        int before = (int)(next(&state) % 40), count = (int)(next(&state) % 8);
        for (int i = 0; i < before + count; i++) {
            int among = i + 12 > before && round % 3 == 0 ? few : px_tokenizer_size(t);
            ids[i] = (int32_t)(next(&state) % (uint32_t)among);
        }
        want_same(what, t, ids, before, count, round % 5 != 0);
    }
}

static const char sample[] = "Once upon a time, there   was caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80\xf0\x9f\x91\xa9"
                             "\xe2\x80\x8d\xf0\x9f\x9a\x80 don't  stop\n\n  'll see\t.";

static void cuts_of_a_text(const char *what, px_tokenizer *t)
{
    px_ids ids = {0};
    want_ok(px_tokenizer_encode(t, sample, strlen(sample), true, &ids));
    for (int64_t cut = 0; cut <= ids.length; cut++) {
        for (int64_t count = 0; count <= ids.length - cut && count < 7; count++) {
            want_same(what, t, ids.data, cut, count, true);
            want_same(what, t, ids.data, cut, count, false);
        }
    }
    px_ids_free(&ids);
}

static void shared_tokenizers(void **state)
{
    static const char *const paths[] = {"gpt2", "llama2-phi3", "llama3", "qwen3", "gpt-neox-20b", "minimind-6400",
                                        "tiny-bpe-2000", "../models/stories260K"};
    (void)state;
    if (!px_dir_exists(TOKENIZERS)) {
        print_message("skipped: %s is absent\n", TOKENIZERS);
        skip();
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        char path[PX_PATH_MAX];
        px_tokenizer *t;
        snprintf(path, sizeof path, TOKENIZERS "/%s", paths[i]);
        want_ok(px_tokenizer_load(&t, path));
        cuts_of_a_text(paths[i], t);
        random_ids(paths[i], t, 2000);
        px_tokenizer_destroy(t);
    }
}

/* Unigram with Metaspace as T5 has it, WordPiece, suffixes, Strip, Replace, none: every decoder that is read. */
static void small_tokenizers(void **state)
{
    (void)state;
    json_t *cases;
    const json_t *item;
    size_t i;
    char dir[] = "/tmp/px_decode_after_XXXXXX", path[PX_PATH_MAX];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    want_ok(px_json_read(CASES, &cases));
    json_array_foreach(json_object_get(cases, "small"), i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        const char *text = json_string_value(json_object_get(item, "json"));
        px_tokenizer *t;
        want_ok(px_file_write(path, text, strlen(text)));
        want_ok(px_tokenizer_load(&t, dir));
        random_ids(name, t, 200);
        px_tokenizer_destroy(t);
    }
    json_decref(cases);
    want_ok(px_tree_remove(dir));
}

/* A pattern over the text of all ids may reach from its beginning to its end. */
static void a_pattern_that_reaches_far(void **state)
{
    (void)state;
    static const char json[] = "{\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Fuse\"}, {\"type\": \"Replace\", "
                               "\"pattern\": {\"Regex\": \"ca*\"}, \"content\": \"x\"}]}, \"model\": {\"type\": \"BPE\", "
                               "\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2}, \"merges\": []}}";
    char dir[] = "/tmp/px_decode_after_XXXXXX", path[PX_PATH_MAX];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    want_ok(px_file_write(path, json, strlen(json)));
    px_tokenizer *t;
    want_ok(px_tokenizer_load(&t, dir));
    const int32_t ids[32] = {2, [30] = 1};
    want_same("far", t, ids, 29, 3, true);
    px_tokenizer_destroy(t);
    want_ok(px_tree_remove(dir));
}

static void answer(px_tokenizer *t, const char *prompt, const char *completion, const char *want)
{
    px_ids before = {0}, ids = {0};
    px_buf text = {0};
    want_ok(px_tokenizer_encode(t, prompt, strlen(prompt), true, &before));
    want_ok(px_tokenizer_encode(t, completion, strlen(completion), false, &ids));
    want_ok(px_buf_text(&text, "kept:"));
    want_ok(px_tokenizer_decode_after(t, before.data, before.length, ids.data, ids.length, true, &text));
    assert_string_equal(text.data + 5, want);
    px_ids_free(&before);
    px_ids_free(&ids);
    px_buf_free(&text);
}

/* This tokenizer puts a space before every text, and its decoder takes the first one of all away. */
static void the_first_space(void **state)
{
    (void)state;
    px_tokenizer *t;
    if (!px_dir_exists(TOKENIZERS)) {
        print_message("skipped: %s is absent\n", TOKENIZERS);
        skip();
    }
    want_ok(px_tokenizer_load(&t, TOKENIZERS "/llama2-phi3"));
    answer(t, "Once upon a time", "there was", " there was");
    answer(t, "Once upon a time", " there was", "  there was");
    answer(t, "", "there was", "there was"); /* behind BOS alone a text begins */
    px_tokenizer_destroy(t);
}

/* 1,000,000 ids before and one behind, a thousand times: only the last of them are looked at. */
static void a_long_prompt_costs_nothing(void **state)
{
    enum { LONG = 1000000 };
    (void)state;
    if (!px_dir_exists(TOKENIZERS)) {
        print_message("skipped: %s is absent\n", TOKENIZERS);
        skip();
    }
    px_tokenizer *t;
    int32_t *ids = malloc(sizeof *ids * LONG);
    static const char *const paths[] = {"gpt2", "llama2-phi3"};
    for (int i = 0; i < LONG; i++) {
        ids[i] = 400 + i % 1000;
    }
    for (int k = 0; k < 2; k++) {
        char path[PX_PATH_MAX];
        snprintf(path, sizeof path, TOKENIZERS "/%s", paths[k]);
        want_ok(px_tokenizer_load(&t, path));
        px_buf text = {0};
        double start = px_now();
        for (int i = 0; i < 1000; i++) {
            px_buf_clear(&text);
            want_ok(px_tokenizer_decode_after(t, ids, LONG - 1, ids + LONG - 1, 1, true, &text));
        }
        assert_true(px_now() - start < 2.0); /* whole, each takes some 0.05 s */
        px_buf_free(&text);
        px_tokenizer_destroy(t);
    }
    free(ids);
}

static int nothing_left(void **state)
{
    (void)state;
    px_error_clear();
    return px_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_tokenizers),
        cmocka_unit_test(small_tokenizers),
        cmocka_unit_test(a_pattern_that_reaches_far),
        cmocka_unit_test(the_first_space),
        cmocka_unit_test(a_long_prompt_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, nothing_left);
}
