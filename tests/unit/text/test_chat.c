/* Conversations as the published templates render them, and which of their tokens are learned. */
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

/* A shared tokenizer with the special tokens of a case beside it. */
static px_tokenizer *load_for(const char *file, const char *bos, const char *eos)
{
    char dir[] = "/tmp/px_chat_XXXXXX", path[PX_PATH_MAX];
    px_buf text = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, TOKENIZERS "/%s", file);
    want_ok(px_file_read(path, PX_TEXT_MOST, &text));
    snprintf(path, sizeof path, "%s/tokenizer.json%s", dir, strstr(file, ".gz") != NULL ? ".gz" : "");
    want_ok(px_file_write(path, text.data, text.length));
    px_buf_clear(&text);
    want_ok(px_buf_printf(&text, "{\"eos_token\": \"%s\", \"add_bos_token\": false, \"bos_token\": %s%s%s}", eos,
                          *bos != '\0' ? "\"" : "", *bos != '\0' ? bos : "null", *bos != '\0' ? "\"" : ""));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    want_ok(px_file_write(path, text.data, text.length));
    px_buf_free(&text);
    px_tokenizer *t;
    want_ok(px_tokenizer_load(&t, dir));
    want_ok(px_tree_remove(dir));
    return t;
}

static void check_case(px_tokenizer *t, const json_t *one)
{
    const px_renderer *renderer;
    const char *name = json_string_value(json_object_get(one, "renderer"));
    const json_t *want_ids = json_object_get(one, "ids");
    const char *want_text = json_string_value(json_object_get(one, "text"));
    bool prompt = json_is_true(json_object_get(one, "prompt"));
    want_ok(px_renderer_find(&renderer, name, t));
    assert_string_equal(px_renderer_name(renderer), name);
    px_buf text = {0};
    px_ids ids = {0}, mask = {0};
    px_status status = px_chat_record(renderer, t, one, prompt, &text, &ids, &mask);
    if (want_text == NULL) { /* the template raises an error */
        assert_int_equal(status, PX_DATA);
        assert_non_null(strstr(px_error_text(), name));
    } else {
        want_ok(status);
        assert_string_equal(text.data, want_text);
        assert_int_equal(ids.length, json_array_size(want_ids));
        assert_int_equal(mask.length, ids.length);
        for (int64_t i = 0; i < ids.length; i++) {
            assert_int_equal(ids.data[i], json_integer_value(json_array_get(want_ids, (size_t)i)));
        }
    }
    px_buf_free(&text);
    px_ids_free(&ids);
    px_ids_free(&mask);
}

static void published_templates(void **state)
{
    (void)state;
    need_shared();
    json_t *cases, *one;
    size_t i;
    want_ok(px_json_read(PX_SOURCE_DIR "/tests/golden/chat_cases.json", &cases));
    px_tokenizer *t = NULL;
    const char *loaded = "";
    json_array_foreach(cases, i, one) {
        const char *file = json_string_value(json_object_get(one, "tokenizer"));
        if (strcmp(file, loaded) != 0) {
            px_tokenizer_destroy(t);
            t = load_for(file, json_string_value(json_object_get(one, "bos")),
                         json_string_value(json_object_get(one, "eos")));
            loaded = file;
        }
        check_case(t, one);
    }
    px_tokenizer_destroy(t);
    json_decref(cases);
}

/* The learned tokens as one text. */
static void check_learned(const char *renderer_name, px_tokenizer *t, const px_message *messages, int count,
                          const char *want)
{
    const px_renderer *renderer;
    px_ids ids = {0}, mask = {0}, learned = {0};
    px_buf text = {0};
    want_ok(px_renderer_find(&renderer, renderer_name, t));
    want_ok(px_chat_encode(renderer, t, messages, count, false, &ids, &mask));
    for (int64_t i = 0; i < ids.length; i++) {
        want_ok(mask.data[i] ? px_ids_add(&learned, ids.data[i]) : PX_OK);
    }
    want_ok(px_tokenizer_decode(t, learned.data, learned.length, false, &text));
    assert_string_equal(text.data != NULL ? text.data : "", want);
    px_ids_free(&ids);
    px_ids_free(&mask);
    px_ids_free(&learned);
    px_buf_free(&text);
}

static void masks(void **state)
{
    (void)state;
    need_shared();
    static const px_message two[] = {{.role = "user", .content = "Hello"}, {.role = "assistant", .content = "Hi there!"},
                                     {.role = "user", .content = "And?"}, {.role = "assistant", .content = " Nothing.\n"}};
    static const px_message second[] = {{.role = "user", .content = "Hello"},
                                        {.role = "assistant", .content = "Hi there!", .unlearned = true},
                                        {.role = "user", .content = "And?"}, {.role = "assistant", .content = "Nothing."}};
    static const struct {
        const char *renderer, *both, *last; /* what is learned of two, and of second */
    } chatml[] = {
        {"chatml", "Hi there!<|im_end|> Nothing.\n<|im_end|>", "Nothing.<|im_end|>"},
        {"qwen2", "Hi there!<|im_end|> Nothing.\n<|im_end|>", "Nothing.<|im_end|>"},
        {"qwen2.5", "Hi there!<|im_end|> Nothing.\n<|im_end|>", "Nothing.<|im_end|>"},
        {"qwen2.5-base", "Hi there!<|im_end|> Nothing.\n<|im_end|>", "Nothing.<|im_end|>"},
        {"smollm2", "Hi there!<|im_end|> Nothing.\n<|im_end|>", "Nothing.<|im_end|>"},
        {"qwen3", "Hi there!<|im_end|><think>\n\n</think>\n\n Nothing.\n<|im_end|>", "<think>\n\n</think>\n\nNothing.<|im_end|>"},
        {"minimind", "<think>\n\n</think>\n\nHi there!<|im_end|><think>\n\n</think>\n\n Nothing.\n<|im_end|>",
         "<think>\n\n</think>\n\nNothing.<|im_end|>"},
        /* "!" and the line ends of the next header are one token here */
        {"plain", " Hi there  Nothing.\n", " Nothing."},
        {"hh", " Hi there  Nothing.\n", " Nothing."},
    }, llama[] = {
        {"llama2", "Hi there! </s> Nothing. </s>", "Nothing. </s>"},
        {"mistral", "Hi there!</s> Nothing.\n</s>", "Nothing.</s>"},
        {"zephyr", "Hi there!</s> Nothing.\n</s>", "Nothing.</s>"},
        {"gemma", "Hi there!<end_of_turn>Nothing.<end_of_turn>", "Nothing.<end_of_turn>"},
    };
    px_tokenizer *t = load_for("qwen3/tokenizer.json.gz", "", "<|im_end|>");
    for (size_t i = 0; i < sizeof chatml / sizeof *chatml; i++) {
        check_learned(chatml[i].renderer, t, two, 4, chatml[i].both);
        check_learned(chatml[i].renderer, t, second, 4, chatml[i].last);
        check_learned(chatml[i].renderer, t, two, 1, "");
    }
    px_tokenizer_destroy(t);
    t = load_for("llama3/tokenizer.json.gz", "<|begin_of_text|>", "<|end_of_text|>");
    check_learned("llama3", t, two, 4, "Hi there!<|eot_id|>Nothing.<|eot_id|>");
    check_learned("llama3", t, second, 4, "Nothing.<|eot_id|>");
    px_tokenizer_destroy(t);
    t = load_for("llama2-phi3/tokenizer.json", "<s>", "</s>");
    for (size_t i = 0; i < sizeof llama / sizeof *llama; i++) {
        check_learned(llama[i].renderer, t, two, 4, llama[i].both);
        check_learned(llama[i].renderer, t, second, 4, llama[i].last);
    }
    px_tokenizer_destroy(t);
}

/* Rows to learn: the text of their ids, and what of it is learned. */
static void check_row(const char *name, px_tokenizer *t, const px_message *messages, int count, bool scored,
                      const char *want, const char *want_learned)
{
    const px_renderer *renderer;
    px_ids ids = {0}, mask = {0}, learned = {0};
    px_buf text = {0};
    want_ok(px_renderer_find(&renderer, name, t));
    want_ok(px_chat_row(renderer, t, messages, count, px_tokenizer_eos(t), scored, &ids, &mask));
    assert_int_equal(ids.length, mask.length);
    for (int64_t i = 0; i < ids.length; i++) {
        want_ok(mask.data[i] ? px_ids_add(&learned, ids.data[i]) : PX_OK);
    }
    want_ok(px_tokenizer_decode(t, ids.data, ids.length, false, &text));
    assert_string_equal(text.data, want);
    px_buf_clear(&text);
    want_ok(px_tokenizer_decode(t, learned.data, learned.length, false, &text));
    assert_string_equal(text.data != NULL ? text.data : "", want_learned);
    px_ids_free(&ids);
    px_ids_free(&mask);
    px_ids_free(&learned);
    px_buf_free(&text);
}

#define ENDED(role, text) "<|im_start|>" role "\n" text "<|im_end|>\n"
#define THOUGHT(thought, text) "<think>\n" thought "\n</think>\n\n" text

/* The published template drops what a model thought before the last question: a row whose turns are learned keeps it. */
static void rows_keep_thoughts(void **state)
{
    (void)state;
    need_shared();
    px_message talk[] = {{.role = "user", .content = "Hi"}, {.role = "assistant", .content = THOUGHT("A", "Yes")},
                         {.role = "user", .content = "Bye"}, {.role = "assistant", .content = "No", .reasoning = "B"}};
    px_tokenizer *t = load_for("qwen3/tokenizer.json.gz", "", "<|im_end|>");
    check_row("qwen3", t, talk, 4, false,
              ENDED("user", "Hi") ENDED("assistant", THOUGHT("A", "Yes")) ENDED("user", "Bye")
              ENDED("assistant", THOUGHT("B", "No")),
              THOUGHT("A", "Yes<|im_end|>") THOUGHT("B", "No<|im_end|>"));
    check_learned("qwen3", t, talk, 4, "Yes<|im_end|>" THOUGHT("B", "No<|im_end|>"));
    talk[1].unlearned = true; /* part of the question, as generation sees it */
    check_row("qwen3", t, talk, 4, true,
              ENDED("user", "Hi") ENDED("assistant", "Yes") ENDED("user", "Bye") "<|im_start|>assistant\n"
              THOUGHT("B", "No<|im_end|>"), THOUGHT("B", "No<|im_end|>"));
    px_tokenizer_destroy(t);
}

static void rows_end(void **state)
{
    (void)state;
    need_shared();
    px_message talk[] = {{.role = "user", .content = "Hi"}, {.role = "assistant", .content = "Yes."},
                         {.role = "user", .content = "Bye"}, {.role = "assistant", .content = "No."},
                         {.role = "user", .content = "Why?"}};
    px_tokenizer *t = load_for("qwen3/tokenizer.json.gz", "", "<|endoftext|>");
    for (int i = 0; i < 2; i++) {
        check_row("plain", t, talk, 4, i, "\n\nHuman: Hi\n\nAssistant: Yes.\n\nHuman: Bye\n\nAssistant: No.<|endoftext|>",
                  " Yes No.<|endoftext|>"); /* "." and the line ends of the next header are one token here */
    }
    check_row("hh", t, talk, 5, false, "\n\nHuman: Hi\n\nAssistant: Yes.\n\nHuman: Bye\n\nAssistant: No.<|endoftext|>",
              " Yes No.<|endoftext|>");
    check_row("plain", t, talk, 1, false, "\n\nHuman: Hi", "");
    check_row("chatml", t, talk, 2, false, ENDED("user", "Hi") ENDED("assistant", "Yes."), "Yes.<|im_end|>");
    check_row("chatml", t, talk, 2, true, ENDED("user", "Hi") "<|im_start|>assistant\nYes.<|im_end|>", "Yes.<|im_end|>");
    px_tokenizer_destroy(t);
    t = load_for("gpt2/tokenizer.json", "", "<|endoftext|>"); /* its end of turn is no token of this vocabulary */
    check_row("chatml", t, talk, 2, false, ENDED("user", "Hi") "<|im_start|>assistant\nYes.<|im_end|><|endoftext|>",
              "Yes.<|im_end|><|endoftext|>");
    px_tokenizer_destroy(t);
}

/* The token at which generation stops is the one that the template writes after an answer. */
static void stops(void **state)
{
    (void)state;
    need_shared();
    static const struct {
        const char *file, *bos, *eos, *renderer, *stop;
    } cases[] = {
        {"llama3/tokenizer.json.gz", "<|begin_of_text|>", "<|end_of_text|>", "llama3", "<|eot_id|>"},
        {"llama2-phi3/tokenizer.json", "<s>", "</s>", "llama2", "</s>"},
        {"llama2-phi3/tokenizer.json", "<s>", "</s>", "mistral", "</s>"},
        {"llama2-phi3/tokenizer.json", "<s>", "</s>", "gemma", NULL},
        {"gpt2/tokenizer.json", "", "<|endoftext|>", "chatml", NULL},
        {"qwen3/tokenizer.json.gz", "", "<|endoftext|>", "chatml", "<|im_end|>"},
        {"qwen3/tokenizer.json.gz", "", "<|endoftext|>", "qwen2.5-base", "<|im_end|>"},
        {"qwen3/tokenizer.json.gz", "", "<|endoftext|>", "qwen3", "<|im_end|>"},
        {"qwen3/tokenizer.json.gz", "", "<|endoftext|>", "minimind", "<|im_end|>"},
        {"qwen3/tokenizer.json.gz", "", "<|endoftext|>", "zephyr", "<|endoftext|>"},
        {"qwen3/tokenizer.json.gz", "", "<|endoftext|>", "plain", NULL},
    };
    px_tokenizer *t = NULL;
    int32_t id = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const px_renderer *renderer;
        if (i == 0 || strcmp(cases[i].file, cases[i - 1].file) != 0) {
            px_tokenizer_destroy(t);
            t = load_for(cases[i].file, cases[i].bos, cases[i].eos);
        }
        want_ok(px_renderer_find(&renderer, cases[i].renderer, t));
        want_ok(px_renderer_stop(renderer, t, &id));
        assert_int_equal(id, cases[i].stop != NULL ? px_tokenizer_id(t, cases[i].stop) : -1);
    }
    want_ok(px_tokenizer_stop(t, "<|im_end|>", &id));
    assert_int_equal(id, px_tokenizer_id(t, "<|im_end|>"));
    want_ok(px_tokenizer_stop(t, "hello", &id)); /* a token, but text */
    assert_int_equal(id, -1);
    assert_int_equal(px_tokenizer_stop(t, "<|im_end|>\n", &id), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "special token <|im_end|>"));
    px_tokenizer_destroy(t);
}

/* Calls and reasoning are learned where the template writes them, and refused where it does not. */
static void what_a_template_does_not_write(void **state)
{
    (void)state;
    need_shared();
    static const px_call call = {"f", "{\"a\": 1}", NULL};
    static const px_message calls[] = {{.role = "user", .content = "?"},
                                       {.role = "assistant", .content = "", .calls = &call, .call_count = 1}},
                            tools[] = {{.role = "user", .content = "?", .tools = "{}"}},
                            thoughts[] = {{.role = "user", .content = "?"},
                                          {.role = "assistant", .content = "!", .reasoning = "so"}};
    px_tokenizer *t = load_for("qwen3/tokenizer.json.gz", "", "<|im_end|>");
    static const char learned[] = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call><|im_end|>";
    check_learned("qwen2.5", t, calls, 2, learned);
    check_learned("qwen3", t, thoughts, 2, "<think>\nso\n</think>\n\n!<|im_end|>");
    static const char *const silent[] = {"chatml", "qwen2", "llama2", "llama3", "gemma", "mistral", "zephyr", "smollm2", "plain"};
    for (size_t i = 0; i < sizeof silent / sizeof *silent; i++) {
        const px_renderer *renderer;
        px_ids ids = {0};
        want_ok(px_renderer_find(&renderer, silent[i], t));
        assert_int_equal(px_chat_encode(renderer, t, calls, 2, false, &ids, NULL), PX_DATA);
        assert_non_null(strstr(px_error_text(), "message 2 comes with tool_calls, which the chat template "));
        assert_non_null(strstr(px_error_text(), silent[i]));
        assert_int_equal(px_chat_encode(renderer, t, tools, 1, false, &ids, NULL), PX_DATA);
        assert_non_null(strstr(px_error_text(), "message 1 comes with tools,"));
        assert_int_equal(px_chat_encode(renderer, t, thoughts, 2, false, &ids, NULL), PX_DATA);
        assert_non_null(strstr(px_error_text(), "message 2 has reasoning_content"));
        px_ids_free(&ids);
    }
    px_tokenizer_destroy(t);
}

static void choice(void **state)
{
    (void)state;
    need_shared();
    static const struct {
        const char *dir, *name;
    } known[] = {{TOKENIZERS "/llama3", "llama3"}, {TOKENIZERS "/qwen3", "qwen3"},
                 {TOKENIZERS "/minimind-6400", "minimind"},
                 {TOKENIZERS "/gpt2", NULL}, {PX_SHARED_DIR "/data/models/stories260K", NULL}};
    const px_renderer *renderer;
    px_tokenizer *t;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        want_ok(px_tokenizer_load(&t, known[i].dir));
        want_ok(px_renderer_find(&renderer, "auto", t));
        if (known[i].name == NULL) {
            assert_null(renderer);
        } else {
            assert_string_equal(px_renderer_name(renderer), known[i].name);
        }
        px_tokenizer_destroy(t);
    }
    assert_int_equal(px_renderer_find(&renderer, "chatlm", NULL), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "smollm2"));
    want_ok(px_renderer_find(&renderer, "none", NULL));
    assert_null(renderer);
}

static void unknown_template(void **state)
{
    (void)state;
    char dir[] = "/tmp/px_chat_XXXXXX", path[PX_PATH_MAX];
    static const char tokenizer[] =
        "{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0}, \"unk_token\": \"a\"}}";
    static const char settings[] =
        "{\"model_max_length\": 1000000000000000019884624838656, \"eos_token\": {\"content\": "
        "\"a\"}, \"chat_template\": [{\"name\": \"default\", \"template\": \"{{ own }}\"}]}";
    const px_renderer *renderer;
    px_tokenizer *t;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    want_ok(px_file_write(path, tokenizer, strlen(tokenizer)));
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    want_ok(px_file_write(path, settings, strlen(settings)));
    want_ok(px_tokenizer_load(&t, dir));
    assert_int_equal(px_tokenizer_eos(t), 0);
    assert_string_equal(px_tokenizer_chat_template(t), "{{ own }}");
    assert_int_equal(px_renderer_find(&renderer, "auto", t), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), " is not known (hash "));
    assert_non_null(strstr(px_error_text(), "name its renderer: none, chatml, "));
    px_tokenizer_destroy(t);
    /* a file of its own wins */
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    want_ok(px_file_write(path, "{{ 'mine' }}", 12));
    want_ok(px_tokenizer_load(&t, dir));
    assert_string_equal(px_tokenizer_chat_template(t), "{{ 'mine' }}");
    px_tokenizer_destroy(t);
    want_ok(px_tree_remove(dir));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_templates), cmocka_unit_test(masks), cmocka_unit_test(choice),
        cmocka_unit_test(what_a_template_does_not_write), cmocka_unit_test(rows_keep_thoughts), cmocka_unit_test(rows_end),
        cmocka_unit_test(stops),
        cmocka_unit_test(unknown_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
