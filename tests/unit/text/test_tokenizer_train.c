/* The trainer: merges by hand, the tokenizers library's merges on Tiny Shakespeare, the files it writes. */
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

static char dir[] = "/tmp/px_train_XXXXXX";

static void want_ok(px_status status)
{
    if (status != PX_OK) {
        fail_msg("%s (%s)", px_error_text(), px_error_where());
    }
}

static const char *in_dir(const char *name)
{
    static char path[PX_PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static px_status train(const char *name, const char *text, int vocab_size, int min_frequency,
                       const char *const *special, int special_count)
{
    char file[PX_PATH_MAX];
    snprintf(file, sizeof file, "%s/%s", dir, name);
    if (text != NULL) {
        want_ok(px_file_write(file, text, strlen(text)));
    }
    const char *files[] = {file};
    return px_tokenizer_train(files, 1, vocab_size, min_frequency, special, special_count, in_dir("out"));
}

static void check_merges(const char *const *want, size_t count)
{
    json_t *tree;
    want_ok(px_json_read(in_dir("out/tokenizer.json"), &tree));
    const json_t *merges = json_object_get(json_object_get(tree, "model"), "merges");
    for (size_t i = 0; i < count && i < json_array_size(merges); i++) {
        assert_string_equal(json_string_value(json_array_get(merges, i)), want[i]);
    }
    assert_int_equal(json_array_size(merges), count);
    json_decref(tree);
}

/* Words: "low" x5, "lower" x2, "newest" x6, "widest" x3 of Sennrich et al. 2016. e s and s t have 9 each: the smaller
 * ids first. */
static void sennrich(void **state)
{
    (void)state;
    static const char *const want[] = {"e s", "es t", "l o", "lo w", "e w", "n ew", "new est"};
    want_ok(train("a.txt", "low\nlow\nlow\nlow\nlow\nlower\nlower\nnewest\nnewest\nnewest\nnewest\nnewest\nnewest\n"
                  "widest\nwidest\nwidest", 256 + 7, 2, NULL, 0));
    check_merges(want, 7);
}

static void rare_pairs_stay_apart(void **state)
{
    (void)state;
    static const char *const want[] = {"a b"};
    want_ok(train("b.txt", "ab ab ab cd", 300, 3, NULL, 0));
    check_merges(want, 1);
}

static void records(void **state)
{
    (void)state;
    static const char *const want[] = {"a b", "ab c"};
    want_ok(train("c.jsonl", "{\"text\": \"abc\"}\n\n{\"prompt\": \"abc\", \"completion\": \"abc\"}\n"
                  "{\"messages\": [{\"role\": \"user\", \"content\": \"abc\"}]}\n", 300, 2, NULL, 0));
    check_merges(want, 2);
    want_ok(train("c.jsonl.txt", "no JSON: abc abc\n", 300, 2, NULL, 0)); /* the end of the name says what it is */
    assert_int_equal(train("d.jsonl", "{\"text\": \"abc\"}\n{\"other\": 1}\n", 300, 2, NULL, 0), PX_DATA);
    assert_non_null(strstr(px_error_text(), "d.jsonl:2"));
    assert_int_equal(train("e.txt", "fine\n\xff\n", 300, 2, NULL, 0), PX_DATA);
    assert_non_null(strstr(px_error_text(), "e.txt:2"));
    assert_int_equal(train("f.txt", "", 300, 2, NULL, 0), PX_DATA);
    assert_int_equal(train("f.txt", "abc", 255, 2, NULL, 0), PX_CONFIG);
}

static void special_tokens(void **state)
{
    (void)state;
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    px_tokenizer *t;
    want_ok(train("g.txt", "hello hello", 300, 2, special, 1));
    want_ok(px_tokenizer_load(&t, in_dir("out")));
    assert_int_equal(px_tokenizer_eos(t), 0);
    assert_int_equal(px_tokenizer_bos(t), 0);
    assert_false(px_tokenizer_adds_bos(t));
    px_ids ids = {0};
    px_buf text = {0};
    static const char hard[] = "<|endoftext|> h\xc3\xa9llo\n\n\xf0\x9f\xa6\x99 hello";
    want_ok(px_tokenizer_encode(t, hard, strlen(hard), true, &ids));
    assert_int_equal(ids.data[0], 0);
    want_ok(px_tokenizer_decode(t, ids.data, ids.length, false, &text));
    assert_string_equal(text.data, hard);
    px_ids_free(&ids);
    px_buf_free(&text);
    px_tokenizer_destroy(t);
    want_ok(train("g.txt", NULL, 300, 2, special, 3));
    want_ok(px_tokenizer_load(&t, in_dir("out")));
    assert_int_equal(px_tokenizer_eos(t), 2);
    const px_renderer *renderer;
    want_ok(px_renderer_find(&renderer, "auto", t));
    assert_string_equal(px_renderer_name(renderer), "chatml");
    px_tokenizer_destroy(t);
}

/* A fingerprint of the vocabulary that BpeTrainer(vocab_size=1000, min_frequency=2, special_tokens=["<|endoftext|>"],
 * initial_alphabet=ByteLevel.alphabet()) of tokenizers 0.23 makes: FNV-1a over "token\n" in order of ids. */
static void shakespeare(void **state)
{
    (void)state;
    static const char *const special[] = {"<|endoftext|>"};
    const char *files[] = {PX_SHARED_DIR "/data/text/tinyshakespeare.txt"};
    if (!px_file_exists(files[0])) {
        print_message("skipped: %s is absent\n", files[0]);
        skip();
    }
    want_ok(px_tokenizer_train(files, 1, 1000, 2, special, 1, in_dir("out")));
    px_tokenizer *t;
    want_ok(px_tokenizer_load(&t, in_dir("out")));
    assert_int_equal(px_tokenizer_size(t), 1000);
    uint64_t hash = 0xcbf29ce484222325u;
    for (int32_t id = 0; id < 1000; id++) {
        for (const char *c = px_tokenizer_token(t, id); *c != '\0'; c++) {
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
        }
        hash = (hash ^ '\n') * 0x100000001b3u;
    }
    assert_true(hash == 0x011a9726f7656919u);
    px_tokenizer_destroy(t);
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
        cmocka_unit_test(sennrich), cmocka_unit_test(rare_pairs_stay_apart), cmocka_unit_test(records),
        cmocka_unit_test(special_tokens), cmocka_unit_test(shakespeare),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
