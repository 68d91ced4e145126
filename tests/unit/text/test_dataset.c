#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "phalanx/text.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A tokenizer of bytes: id = byte, 258 = "ab" (one merge, so that a seam between prompt and completion would show). */
enum { EOS = 256, BOS = 257, AB = 258, IM_START = 259, IM_END = 260, VOCAB = 261 };

static char dir[64];
static px_tokenizer *tokenizer;
static const px_renderer *chatml;

static const char *put(const char *name, const char *text)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(px_file_write(path, text, strlen(text)), PX_OK);
    return path;
}

/* The 256 printable code points of byte-level BPE (GPT-2). */
static int printable(int byte)
{
    int extra = 0;
    for (int b = 0; b <= byte; b++) {
        int itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte) return itself ? b : 256 + extra;
        extra += !itself;
    }
    return 0;
}

static void write_tokenizer(void)
{
    px_buf json = {0};
    static const char *const added[] = {[0] = "<|endoftext|>", [1] = "<s>", [3] = "<|im_start|>", [4] = "<|im_end|>"};
    px_buf_text(&json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"normalizer\":null,"
                       "\"added_tokens\":[");
    for (int i = 0; i < 5; i++)
        if (added[i])
            px_buf_printf(&json,
                          "%s{\"id\":%d,\"content\":\"%s\",\"special\":true,\"single_word\":false,\"lstrip\":false,"
                                 "\"rstrip\":false,\"normalized\":false}", i ? "," : "", EOS + i, added[i]);
    px_buf_text(&json, "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                       "\"use_regex\":true},\"decoder\":{\"type\":\"ByteLevel\"},\"post_processor\":{\"type\":"
                       "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
                       "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":"
                       "{\"id\":\"<s>\",\"ids\":[257],"
                       "\"tokens\":[\"<s>\"]}}},\"model\":{\"type\":\"BPE\",\"merges\":[\"a b\"],\"vocab\":{");
    for (int b = 0; b < 256; b++) px_buf_printf(&json, "\"\\u%04x\":%d,", printable(b), b);
    px_buf_text(&json, "\"ab\":258}}}");
    put("tokenizer.json", json.data);
    put("tokenizer_config.json", "{\"bos_token\":\"<s>\",\"eos_token\":\"<|endoftext|>\"}");
    px_buf_free(&json);
}

static px_data_options options(px_kind kind)
{
    return (px_data_options){.kind = kind, .tokenizer = tokenizer, .vocab_size = VOCAB, .eos_id = EOS};
}

static px_dataset *load(const char *name, const char *text, const px_data_options *with)
{
    px_dataset *dataset;
    if (px_dataset_load(&dataset, put(name, text), with) != PX_OK) fail_msg("%s", px_error_text());
    return dataset;
}

/* Ids as text: bytes as they are, others in brackets. */
static void expect_ids(const int32_t *ids, int from, int to, const char *wanted)
{
    char text[1000];
    size_t used = 0;
    for (int i = from; i < to; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, ids[i] < 128 ? "%c" : "[%d]", ids[i]);
    text[used] = '\0';
    assert_string_equal(text, wanted);
}

static void expect_row(const px_dataset *dataset, int64_t index, const char *prompt, const char *rest,
                       const char *rejected)
{
    px_row row;
    px_dataset_row(dataset, index, &row);
    expect_ids(row.ids, 0, row.prompt_length, prompt);
    expect_ids(row.ids, row.prompt_length, row.length, rest);
    assert_true(!row.rejected == !rejected);
    if (!rejected) return;
    expect_ids(row.rejected, 0, row.prompt_length, prompt);
    expect_ids(row.rejected, row.prompt_length, row.rejected_length, rejected);
}

static void expect_refused(const char *text, const px_data_options *with, const char *part)
{
    px_dataset *dataset = NULL;
    const char *path = put("bad.jsonl", text);
    assert_int_equal(px_dataset_load(&dataset, path, with), PX_DATA);
    assert_null(dataset);
    if (!strstr(px_error_text(), part)) fail_msg("'%s' does not say '%s'", px_error_text(), part);
    if (strncmp(px_error_text(), path, strlen(path)) != 0) fail_msg("'%s' does not name the file", px_error_text());
}

/* ---- language model ---------------------------------------------------------------------------------------------- */

static void texts(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_LM);
    px_dataset *d = load("t.jsonl", "{\"text\":\"xabx\"}\n{\"text\":\"y<|endoftext|>\"}\n", &with);
    expect_row(d, 0, "", "x[258]x[256]", NULL);
    expect_row(d, 1, "", "y[256]", NULL); /* no second end */
    px_row row;
    px_dataset_row(d, 1, &row);
    assert_null(row.mask);
    assert_int_equal(row.record, 1);
    assert_null(row.json); /* kept of prompts alone */
    assert_string_equal(px_dataset_summary(d)->shape, "text");
    px_dataset_destroy(d);
    d = load("t.txt", "one\nline\n\ntwo", &with);
    expect_row(d, 0, "", "one\nline[256]", NULL);
    expect_row(d, 1, "", "two[256]", NULL);
    px_dataset_destroy(d);
    with.eos_id = -1;
    with.add_bos = true;
    d = load("t.jsonl", "{\"text\":\"x\"}\n{\"text\":\"<s>x\"}\n", &with);
    expect_row(d, 0, "", "[257]x", NULL);
    expect_row(d, 1, "", "[257]x", NULL); /* no second beginning */
    px_dataset_destroy(d);
}

static void prompt_and_completion_are_encoded_apart(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_LM);
    px_dataset *d = load("p.jsonl", "{\"prompt\":\"xa\",\"completion\":\"bab\"}\n", &with);
    expect_row(d, 0, "xa", "b[258][256]", NULL);
    px_dataset_destroy(d);
    d = load("p.jsonl", "{\"context\":\"1+1=\",\"continuation\":\" 2\"}", &with);
    expect_row(d, 0, "1+1=", " 2[256]", NULL);
    px_dataset_destroy(d);
    d = load("p.jsonl", "{\"question\":\"Why?\",\"answer\":\"So.\"}", &with);
    expect_row(d, 0, "Question: Why?\n\nAnswer:", " So.[256]", NULL);
    px_dataset_destroy(d);
    d = load("p.jsonl", "{\"instruction\":\"I\",\"input\":\"\",\"output\":\"O\"}", &with);
    expect_row(d, 0, "Below is an instruction that describes a task. Write a response "
               "that appropriately completes the request.\n\n### Instruction:\nI\n\n### Response:\n", "O[256]", NULL);
    px_dataset_destroy(d);
}

static void long_rows_are_cut_and_rows_without_target_dropped(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_LM);
    with.max_tokens = 4;
    px_dataset *d = load("c.jsonl",
                         "{\"prompt\":\"12\",\"completion\":\"34567\"}\n{\"prompt\":\"1234\",\"completion\":\"5\"}\n"
                                    "{\"prompt\":\"12\",\"completion\":\"3\"}\n", &with);
    const px_data_summary *s = px_dataset_summary(d);
    assert_int_equal(px_dataset_count(d), 2);
    expect_row(d, 0, "12", "34", NULL); /* the end is cut, no EOS is made up */
    expect_row(d, 1, "12", "3[256]", NULL);
    px_row row;
    px_dataset_row(d, 1, &row);
    assert_int_equal(row.record, 2);
    assert_int_equal(s->records, 3);
    assert_int_equal(s->rows, 2);
    assert_int_equal(s->cut, 1);
    assert_int_equal(s->dropped, 1);
    assert_int_equal(s->dropped_empty, 1);
    px_dataset_destroy(d);
    expect_refused("{\"prompt\":\"1234\",\"completion\":\"5\"}\n", &with, "none of the 1 records can be used");
}

/* ---- token ids --------------------------------------------------------------------------------------------------- */

static void id_rows_need_no_tokenizer_and_stay_as_they_are(void **state)
{
    (void)state;
    px_data_options with = {.kind = PX_ROWS_LM, .vocab_size = 50, .eos_id = 49, .add_bos = true};
    px_row row;
    px_dataset *d = load("i.jsonl", "{\"ids\":[1,2,3],\"text\":\"not this\"}\n{\"ids\":[0,49]}\n", &with);
    px_dataset_row(d, 0, &row);
    const int32_t first[] = {1, 2, 3};
    assert_int_equal(row.length, 3);
    assert_memory_equal(row.ids, first, sizeof first);
    px_dataset_destroy(d);
    d = load("i.jsonl", "{\"prompt_ids\":[1,2],\"completion_ids\":[3]}\n", &with);
    px_dataset_row(d, 0, &row);
    assert_memory_equal(row.ids, first, sizeof first);
    assert_int_equal(row.prompt_length, 2);
    px_dataset_destroy(d);
    with.kind = PX_ROWS_PAIRS;
    d = load("i.jsonl", "{\"prompt_ids\":[1,2],\"chosen_ids\":[3],\"rejected_ids\":[4,5],\"margin\":0.5}\n", &with);
    px_dataset_row(d, 0, &row);
    const int32_t rejected[] = {1, 2, 4, 5};
    assert_memory_equal(row.ids, first, sizeof first);
    assert_int_equal(row.rejected_length, 4);
    assert_memory_equal(row.rejected, rejected, sizeof rejected);
    assert_true(row.margin == 0.5);
    px_dataset_destroy(d);
    with.kind = PX_ROWS_PROMPTS;
    d = load("i.jsonl", "{\"prompt_ids\":[7],\"answer\":\"x\"}\n", &with);
    px_dataset_row(d, 0, &row);
    assert_int_equal(row.length, 1);
    assert_int_equal(row.prompt_length, 1);
    assert_string_equal(row.json, "{\"prompt_ids\":[7],\"answer\":\"x\"}");
    assert_int_equal(row.json_length, strlen(row.json));
    px_dataset_destroy(d);
}

/* Texts that are learned from their first token to their last; not completions, whose rest would lose its prompt. */
static void whole_texts_are_not_cut(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_LM);
    with.max_tokens = 4;
    with.whole = true;
    px_dataset *d = load("w.jsonl", "{\"text\":\"1234567\"}\n{\"text\":\"1\"}\n", &with);
    expect_row(d, 0, "", "1234567[256]", NULL);
    assert_int_equal(px_dataset_summary(d)->cut, 0);
    px_dataset_destroy(d);
    d = load("c.jsonl", "{\"prompt\":\"12\",\"completion\":\"34567\"}\n", &with);
    expect_row(d, 0, "12", "34", NULL);
    assert_int_equal(px_dataset_summary(d)->cut, 1);
    px_dataset_destroy(d);
}

/* ---- pairs ------------------------------------------------------------------------------------------------------- */

static void pairs_of_texts(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_PAIRS);
    px_row row;
    px_dataset *d = load("p.jsonl", "{\"prompt\":\"xa\",\"chosen\":\"b\",\"rejected\":\"c\",\"margin\":2}\n"
                                    "{\"prompt\":\"q\",\"chosen\":\"c<|endoftext|>\",\"rejected\":\"d\"}\n", &with);
    expect_row(d, 0, "xa", "b[256]", "c[256]");
    expect_row(d, 1, "q", "c[256]", "d[256]");
    px_dataset_row(d, 0, &row);
    assert_true(row.margin == 2.0);
    px_dataset_row(d, 1, &row);
    assert_true(row.margin == 0.0);
    px_dataset_destroy(d);
    with.max_tokens = 3;
    d = load("p.jsonl", "{\"prompt\":\"x\",\"chosen\":\"1\",\"rejected\":\"22\"}\n"
                        "{\"prompt\":\"x\",\"chosen\":\"1\",\"rejected\":\"2\"}\n", &with);
    assert_int_equal(px_dataset_count(d), 1); /* a pair is never cut: its last token is what is scored */
    assert_int_equal(px_dataset_summary(d)->dropped_long, 1);
    expect_row(d, 0, "x", "1[256]", "2[256]");
    px_dataset_destroy(d);
}

static void implicit_prompts(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_PAIRS);
    px_dataset *d = load("h.jsonl", "{\"chosen\":\"\\n\\nHuman: hi\\n\\nAssistant: Yes, so\","
                                    "\"rejected\":\"\\n\\nHuman: hi\\n\\nAssistant: Yes, no\"}\n", &with);
    expect_row(d, 0, "\n\nHuman: hi\n\nAssistant:", " Yes, so[256]", " Yes, no[256]");
    px_dataset_destroy(d);
    d = load("h.jsonl", "{\"chosen\":\"The sky is blue\",\"rejected\":\"The sky is black\"}\n"
                        "{\"chosen\":\"one two\",\"rejected\":\"one two three\"}\n", &with);
    expect_row(d, 0, "The sky is", " blue[256]", " black[256]");
    expect_row(d, 1, "one", " two[256]", " two three[256]");
    px_dataset_destroy(d);
    expect_refused("{\"chosen\":\"yes\",\"rejected\":\"no\"}\n", &with,
                   ":1: fields \"chosen\" and \"rejected\" do not begin");
    /* No spaces: the prompt ends after a character that both share, not inside one (U+84DD, U+84DE), nor in a word. */
    static const struct {
        const char *chosen, *rejected, *prompt;
    } unspaced[] = {
        {"\u95ee\uff1a\u8272\uff1f\u7b54\uff1a\u84dd", "\u95ee\uff1a\u8272\uff1f\u7b54\uff1a\u84de", "\u95ee\uff1a\u8272\uff1f\u7b54\uff1a"},
        {"\u7b54\uff1ablue", "\u7b54\uff1ablack", "\u7b54\uff1a"},
        {"\u5929\u7a7a", "\u5929\u7a7a\u84dd", "\u5929"},
        {"\u5929 red", "\u5929 read", "\u5929"},
    };
    for (size_t i = 0; i < sizeof unspaced / sizeof *unspaced; i++) {
        char record[200];
        snprintf(record, sizeof record, "{\"chosen\":\"%s\",\"rejected\":\"%s\"}\n", unspaced[i].chosen, unspaced[i].rejected);
        d = load("z.jsonl", record, &with);
        px_row row;
        px_dataset_row(d, 0, &row);
        px_buf prompt = {0};
        assert_int_equal(px_tokenizer_decode(tokenizer, row.ids, row.prompt_length, false, &prompt), PX_OK);
        assert_string_equal(prompt.data, unspaced[i].prompt);
        px_buf_free(&prompt);
        px_dataset_destroy(d);
    }
}

static void few_equal_pairs_are_left_out_many_are_an_error(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_PAIRS);
    px_buf text = {0};
    for (int i = 0; i < 99; i++)
        px_buf_printf(&text, "{\"prompt\":\"x\",\"chosen\":\"%d\",\"rejected\":\"no\"}\n", i);
    px_buf_text(&text, "{\"prompt\":\"x\",\"chosen\":\"no\",\"rejected\":\"no\"}\n");
    px_dataset *d = load("e.jsonl", text.data, &with);
    assert_int_equal(px_dataset_count(d), 99);
    assert_int_equal(px_dataset_summary(d)->dropped_equal, 1);
    px_dataset_destroy(d);
    for (int i = 0; i < 3; i++) px_buf_text(&text, "{\"prompt\":\"x\",\"chosen\":\"no\",\"rejected\":\"no\"}\n");
    expect_refused(text.data, &with, "bad.jsonl:100: field \"chosen\" equals field \"rejected\" (in 4 of 103 pairs");
    px_buf_free(&text);
    expect_refused("{\"prompt_ids\":[1],\"chosen_ids\":[2],\"rejected_ids\":[2]}\n", &with,
                   ":1: field \"chosen_ids\" equals");
}

static void rows_without_a_text_are_left_out_nearly_all_are_an_error(void **state)
{
    (void)state;
    static const struct {
        px_kind kind;
        const char *good, *empty;
    } sets[] = {
        {PX_ROWS_LM, "{\"text\":\"a\"}\n", "{\"text\":\"\"}\n"},
        {PX_ROWS_LM, "{\"prompt\":\"a\",\"completion\":\"b\"}\n", "{\"prompt\":\"a\",\"completion\":\"\"}\n"},
        {PX_ROWS_LM, "{\"instruction\":\"a\",\"input\":\"\",\"output\":\"b\"}\n",
         "{\"instruction\":\"a\",\"input\":\"\",\"output\":\"\"}\n"},
        {PX_ROWS_LM, "{\"prompt_ids\":[1],\"completion_ids\":[2]}\n", "{\"prompt_ids\":[1],\"completion_ids\":[]}\n"},
        {PX_ROWS_LM, "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"}]}\n",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"\"}]}\n"},
        {PX_ROWS_PAIRS, "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n",
         "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"\"}\n"},
        {PX_ROWS_PAIRS, "{\"chosen\":\"a b\",\"rejected\":\"a c\"}\n", "{\"chosen\":\"a b\",\"rejected\":\"\"}\n"},
        {PX_ROWS_PROMPTS, "{\"prompt\":\"a\"}\n", "{\"prompt\":\"\"}\n"},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        px_data_options with = options(sets[i].kind);
        with.renderer = chatml;
        px_buf text = {0};
        for (int k = 0; k < 10; k++) px_buf_text(&text, k == 1 ? sets[i].good : sets[i].empty);
        px_dataset *d = load("e.jsonl", text.data, &with);
        assert_int_equal(px_dataset_count(d), 1);
        assert_int_equal(px_dataset_summary(d)->dropped_empty, 9);
        assert_int_equal(px_dataset_summary(d)->dropped, 9);
        px_row row;
        px_dataset_row(d, 0, &row);
        assert_int_equal(row.record, 1);
        px_dataset_destroy(d);
        px_buf_text(&text, sets[i].empty);
        expect_refused(text.data, &with, "bad.jsonl:1: ");
        assert_non_null(strstr(px_error_text(), "in 10 of 11 records"));
        px_buf_free(&text);
    }
}

/* ---- conversations ----------------------------------------------------------------------------------------------- */

#define TURN(role, text) "[259]" role "\n" text "[260]\n"
#define ASK "[259]user\nhi[260]\n[259]assistant\n"

static void expect_mask(const px_dataset *dataset, int64_t index, const char *learned)
{
    px_row row;
    int32_t ids[200];
    int n = 0;
    px_dataset_row(dataset, index, &row);
    assert_non_null(row.mask);
    for (int i = 0; i < row.length; i++)
        if (row.mask[i]) ids[n++] = row.ids[i];
    expect_ids(ids, 0, n, learned);
}

static void conversations(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_LM);
    with.renderer = chatml;
    px_dataset *d = load("m.jsonl",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"},"
        "{\"role\":\"user\",\"content\":\"?\"},{\"role\":\"assistant\",\"content\":\"!\"}]}\n", &with);
    expect_row(d, 0, ASK, "yo[260]\n" TURN("user", "?") TURN("assistant", "!"), NULL);
    expect_mask(d, 0, "yo[260]![260]");
    px_dataset_destroy(d);
    d = load("m.jsonl", "{\"conversations\":[{\"from\":\"human\",\"value\":\"hi\"},"
                        "{\"from\":\"gpt\",\"value\":\"yo\"}]}", &with);
    expect_row(d, 0, ASK, "yo[260]\n", NULL);
    expect_mask(d, 0, "yo[260]");
    px_dataset_destroy(d);
    d = load("m.jsonl", /* only the completion is learned, though the prompt has an assistant's turn */
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"},"
        "{\"role\":\"user\",\"content\":\"?\"}],\"completion\":[{\"role\":\"assistant\",\"content\":\"!\"}]}\n", &with);
    expect_row(d, 0, ASK "yo[260]\n" TURN("user", "?") "[259]assistant\n", "![260]\n", NULL);
    expect_mask(d, 0, "![260]");
    px_dataset_destroy(d);
    with.system = "S";
    d = load("m.jsonl", "{\"instruction\":\"hi\",\"input\":\"x\",\"output\":\"yo\"}", &with);
    expect_row(d, 0, TURN("system", "S") TURN("user", "hi\nx") "[259]assistant\n", "yo[260]\n", NULL);
    px_dataset_destroy(d);
    with.renderer = NULL;
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", &with,
                   ":1: a record of the shape messages needs");
}

static void pairs_of_conversations(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_PAIRS);
    with.renderer = chatml;
    static const char *const same[] = {
        "{\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"}],\"chosen\":[{\"role\":\"assistant\",\"content\":\"yo\"}],"
        "\"rejected\":[{\"role\":\"assistant\",\"content\":\"no\"}]}",
        "{\"chosen\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}],"
        "\"rejected\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"no\"}]}",
        "{\"conversations\":[{\"from\":\"human\",\"value\":\"hi\"}],\"chosen\":{\"from\":\"gpt\",\"value\":\"yo\"},"
        "\"rejected\":{\"from\":\"gpt\",\"value\":\"no\"}}",
        "{\"instruction\":\"hi\",\"input\":\"\",\"output\":\"yo\",\"chosen\":\"yo\",\"rejected\":\"no\"}",
        "{\"prompt\":\"hi\","
        "\"chosen\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}],"
        "\"rejected\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"no\"}]}",
    };
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) { /* sides end with the end of turn, as samples do */
        px_dataset *d = load("m.jsonl", same[i], &with);
        expect_row(d, 0, ASK, "yo[260]", "no[260]");
        px_dataset_destroy(d);
    }
    expect_refused("{\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                   "\"chosen\":[{\"role\":\"user\",\"content\":\"yo\"}],"
                   "\"rejected\":[{\"role\":\"assistant\",\"content\":\"no\"}]}", &with,
                   "field \"chosen\" ends with a turn of user");
}

/* A template that ends answers with no token of its own: rows end with EOS, prompts do not. */
static void answers_without_an_end_of_turn(void **state)
{
    (void)state;
    static const char talk[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}",
                      pair[] = "{\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                               "\"chosen\":[{\"role\":\"assistant\",\"content\":\"yo\"}],"
                               "\"rejected\":[{\"role\":\"assistant\",\"content\":\"no\"}]}",
                      text[] = "{\"prompt\":\"hi\"}";
    px_data_options with = options(PX_ROWS_LM);
    assert_int_equal(px_renderer_find(&with.renderer, "plain", tokenizer), PX_OK);
    px_dataset *d = load("m.jsonl", talk, &with);
    expect_row(d, 0, "\n\nHuman: hi\n\nAssistant:", " yo[256]", NULL);
    expect_mask(d, 0, " yo[256]");
    px_dataset_destroy(d);
    with.kind = PX_ROWS_PAIRS;
    d = load("m.jsonl", pair, &with);
    expect_row(d, 0, "\n\nHuman: hi\n\nAssistant:", " yo[256]", " no[256]");
    px_dataset_destroy(d);
    with.kind = PX_ROWS_PROMPTS;
    d = load("m.jsonl", pair, &with);
    expect_row(d, 0, "\n\nHuman: hi\n\nAssistant:", "", NULL);
    assert_true(px_dataset_summary(d)->rendered);
    px_dataset_destroy(d);
    d = load("m.jsonl", text, &with);
    assert_false(px_dataset_summary(d)->rendered);
    px_dataset_destroy(d);
}

/* Demonstrations as a reward model reads them: to the end of turn, not to the line end behind it, and whole or not at all. */
static void rows_that_are_scored(void **state)
{
    (void)state;
    static const char talk[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}\n"
                               "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":"
                               "\"a longer answer than fits\"}]}";
    px_data_options with = options(PX_ROWS_LM);
    assert_int_equal(px_renderer_find(&with.renderer, "chatml", tokenizer), PX_OK);
    px_dataset *d = load("m.jsonl", talk, &with);
    px_row learned, scored;
    px_dataset_row(d, 0, &learned);
    with.scored = true;
    with.max_tokens = learned.length;
    px_dataset *e = load("m.jsonl", talk, &with);
    assert_int_equal(px_dataset_count(e), 1);
    assert_int_equal(px_dataset_summary(e)->dropped_long, 1);
    px_dataset_row(e, 0, &scored);
    assert_true(scored.length < learned.length && scored.mask[scored.length - 1]);
    assert_memory_equal(scored.ids, learned.ids, (size_t)scored.length * sizeof *scored.ids);
    for (int i = scored.length; i < learned.length; i++) assert_false(learned.mask[i]);
    px_dataset_destroy(d);
    px_dataset_destroy(e);
}

/* ---- sampled answers --------------------------------------------------------------------------------------------- */

/* A prompt's record and an answer, against the chosen side of the pair that says the same. */
static void expect_answer(const char *prompt, const char *answer, px_data_options with)
{
    px_ids ids = {0};
    px_row row;
    char pair[600], record[600];
    with.kind = PX_ROWS_PAIRS;
    snprintf(pair, sizeof pair, "{%s,\"chosen\":\"%s\",\"rejected\":\"zz\"}\n", prompt, answer);
    snprintf(record, sizeof record, "{%s,\"more\":1}", prompt);
    px_dataset *d = load("a.jsonl", pair, &with);
    px_dataset_row(d, 0, &row);
    if (px_answer_encode(&with, record, "not this", answer, &ids) != PX_OK) fail_msg("%s", px_error_text());
    assert_int_equal(ids.length, row.length);
    assert_memory_equal(ids.data, row.ids, (size_t)row.length * sizeof *row.ids);
    px_ids_free(&ids);
    px_dataset_destroy(d);
}

static void sampled_answers_are_sides_of_pairs(void **state)
{
    (void)state;
    static const char *const turns[] = {
        "\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"}]",
        "\"prompt\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"1\"},"
        "{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0},{\"role\":\"user\",\"content\":\"2\"}]",
        "\"conversations\":[{\"from\":\"human\",\"value\":\"hi\"}]",
        "\"instruction\":\"I\",\"input\":\"x\"",
        "\"question\":\"Why?\"",
    };
    static const char *const texts[] = {"\"prompt\":\"xa\"", "\"instruction\":\"I\"", "\"question\":\"Why?\""};
    px_data_options with = options(PX_ROWS_PAIRS);
    with.add_bos = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        expect_answer(texts[i], "bab", with);
        expect_answer(texts[i], " bab", with);
    }
    with.renderer = chatml;
    expect_answer(texts[0], "b", with);
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        with.system = i == 0 ? "default" : NULL;
        expect_answer(turns[i], "yo", with);
    }
}

static void expect_answer_ids(const char *record, const char *answer, const px_data_options *with, const char *wanted)
{
    px_ids ids = {0};
    assert_int_equal(px_ids_add(&ids, 77), PX_OK); /* of another sample */
    if (px_answer_encode(with, record, "hi", answer, &ids) != PX_OK) fail_msg("%s", px_error_text());
    expect_ids(ids.data, 0, (int)ids.length, wanted);
    px_ids_free(&ids);
}

static void sampled_answers_end_where_they_are_scored(void **state)
{
    (void)state;
    static const char turn[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"no\"}]}";
    px_data_options with = options(PX_ROWS_PAIRS);
    with.renderer = chatml;
    expect_answer_ids(turn, "yo", &with, ASK "yo[260]");
    expect_answer_ids(turn, "", &with, ASK "[260]");
    expect_answer_ids("{\"prompt\":\"hi\"}", "", &with, "hi[256]");
    expect_answer_ids("{\"prompt_ids\":[1,2]}", "yo", &with, "hiyo[256]"); /* ids of another tokenizer: their text */
    with.renderer = NULL;
    expect_answer_ids(turn, "yo", &with, "hiyo[256]");
    px_ids ids = {0};
    with.vocab_size = EOS;
    assert_int_equal(px_answer_encode(&with, turn, "hi", "yo", &ids), PX_DATA);
    assert_non_null(strstr(px_error_text(), "vocabulary ends at 255"));
    px_ids_free(&ids);
}

/* Fields of a message beside its role and content. */
static void messages_with_more_than_text(void **state)
{
    (void)state;
    static const char ask[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",", end[] = "}]}";
    static const struct {
        const char *rest, *learned, *refused; /* of an answer to ask */
    } cases[] = {
        {"\"content\":[{\"type\":\"text\",\"text\":\"y\"},\"o\",{\"text\":\"!\"}]", "yo![260]", NULL},
        {"\"content\":\"yo\",\"weight\":1,\"train\":true,\"tool_calls\":[],\"reasoning_content\":null", "yo[260]", NULL},
        {"\"content\":\"yo\"},{\"role\":\"assistant\",\"content\":\"no\",\"weight\":0", "yo[260]", NULL},
        {"\"content\":\"yo\"},{\"role\":\"assistant\",\"content\":\"no\",\"train\":false", "yo[260]", NULL},
        {"\"content\":\"yo\",\"weight\":0", NULL, "no assistant's turn to learn"},
        {"\"content\":\"yo\",\"weight\":0.5", NULL, "turn 1 has another weight than 0 and 1"},
        {"\"content\":[{\"type\":\"image_url\",\"text\":\"y\"}]", NULL, "turn 1 has a part of the type \"image_url\""},
        {"\"content\":null,\"tool_calls\":[{\"name\":\"f\",\"arguments\":{}}]", NULL, "message 2 comes with tool_calls"},
        {"\"content\":\"yo\",\"tool_calls\":[{\"arguments\":{}}]", NULL, "turn 1 has a tool call without a name"},
        {"\"content\":\"yo\",\"tool_calls\":\"f()\"", NULL, "turn 1 has tool calls that are no list"},
        {"\"content\":\"yo\",\"reasoning_content\":\"so\"", NULL, "message 2 has reasoning_content"},
        {"\"content\":\"yo\",\"thinking\":\"so\"", NULL, "turn 1 has the field \"thinking\""},
        {"\"content\":\"yo\"}],\"tools\":[{\"name\":\"f\"}],\"x\":[{", NULL, "message 1 comes with tools"},
        {"\"content\":\"yo\"}],\"tools\":\"[]\",\"x\":[{", "yo[260]", NULL},
        {"\"content\":\"yo\"}],\"tools\":\"f\",\"x\":[{", NULL, "field \"tools\" is no list"},
    };
    px_data_options with = options(PX_ROWS_LM);
    with.renderer = chatml;
    char text[500];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "%s%s%s\n", ask, cases[i].rest, end);
        if (cases[i].refused) {
            expect_refused(text, &with, cases[i].refused);
            continue;
        }
        px_dataset *d = load("m.jsonl", text, &with);
        expect_mask(d, 0, cases[i].learned);
        px_dataset_destroy(d);
    }
    px_dataset *d = load("m.jsonl", "{\"conversations\":[{\"from\":\"human\",\"value\":\"hi\"},{\"from\":\"observation\","
                                    "\"value\":\"ok\"},{\"from\":\"gpt\",\"value\":\"yo\"}]}\n", &with);
    expect_row(d, 0, TURN("user", "hi") TURN("tool", "ok") "[259]assistant\n", "yo[260]\n", NULL);
    px_dataset_destroy(d);
    expect_refused("{\"conversations\":[{\"from\":\"function_call\",\"value\":\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}\"}]}",
                   &with, "message 1 comes with tool_calls");
    expect_refused("{\"conversations\":[{\"from\":\"function_call\",\"value\":\"f()\"}]}", &with,
                   "turn 0 is a function_call whose text is not valid JSON");
}

/* A list of messages before an answer that is a string. */
static void texts_answer_messages(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_LM);
    with.renderer = chatml;
    px_dataset *d = load("m.jsonl", "{\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"}],\"completion\":\"yo\"}\n", &with);
    expect_row(d, 0, ASK, "yo[260]\n", NULL);
    assert_string_equal(px_dataset_summary(d)->shape, "prompt+completion (messages)");
    px_dataset_destroy(d);
    with.kind = PX_ROWS_PAIRS;
    d = load("m.jsonl", "{\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"}],\"chosen\":\"yo\",\"rejected\":\"no\"}\n", &with);
    expect_row(d, 0, ASK, "yo[260]", "no[260]");
    px_dataset_destroy(d);
}

static void kinds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        px_kind kind;
    } sets[] = {
        {"{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n{\"text\":\"a\"}\n", PX_ROWS_PAIRS},
        {"{\"text\":\"\"}\n", PX_ROWS_LM}, {"{\"prompt\":\"a\",\"completion\":\"b\"}", PX_ROWS_LM},
        {"{\"messages\":[]}", PX_ROWS_LM}, {"{\"prompt\":\"a\",\"answer\":\"b\"}", PX_ROWS_PROMPTS}, {"{\"txt\":\"a\"}", PX_ROWS_LM},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        px_kind kind;
        assert_int_equal(px_dataset_kind(put("k.jsonl", sets[i].text), &kind), PX_OK);
        assert_int_equal(kind, sets[i].kind);
        assert_string_equal(px_error_text(), "");
    }
    px_kind kind;
    assert_int_equal(px_dataset_kind(put("k.jsonl", "{\"a\":"), &kind), PX_DATA);
}

static void prompts(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_PROMPTS);
    with.renderer = chatml;
    px_row row;
    px_dataset *d = load("q.jsonl", "{\"prompt\":\"xab\",\"answer\": 4}\n"
                                    "{\"prompt\":\"longer than that\",\"answer\":5}\n"
                                    "{\"prompt\":\"xab\",\"answer\":6}\n", &with);
    expect_row(d, 0, "x[258]", "", NULL); /* no end: the model goes on */
    assert_int_equal(px_dataset_summary(d)->duplicate_prompts, 1);
    px_dataset_row(d, 2, &row);
    assert_string_equal(row.json, "{\"prompt\":\"xab\",\"answer\":6}");
    px_dataset_destroy(d);
    with.max_tokens = 5;
    d = load("q.jsonl", "{\"prompt\":\"xab\"}\n{\"prompt\":\"longer than that\"}\n{\"prompt\":\"yab\"}\n", &with);
    assert_int_equal(px_dataset_summary(d)->dropped_long, 1);
    expect_row(d, 1, "y[258]", "", NULL);
    px_dataset_row(d, 1, &row);
    assert_int_equal(row.record, 2);
    px_dataset_destroy(d);
    with.max_tokens = 0;
    d = load("q.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},"
                        "{\"role\":\"assistant\",\"content\":\"x\"}]}", &with);
    expect_row(d, 0, ASK, "", NULL);
    px_dataset_destroy(d);
}

/* ---- summary, hash ----------------------------------------------------------------------------------------------- */

static void summary_counts(void **state)
{
    (void)state;
    px_data_options with = {.kind = PX_ROWS_LM, .eos_id = -1};
    px_dataset *d = load("s.jsonl", "{\"ids\":[1,2]}\n{\"ids\":[1,2,3]}\n{\"ids\":[1,2,3,4]}\n{\"ids\":[1,2,3]}\n",
                         &with);
    const px_data_summary *s = px_dataset_summary(d);
    assert_int_equal(s->tokens, 12);
    assert_int_equal(s->min_length, 2);
    assert_int_equal(s->max_length, 4);
    assert_true(s->mean_length == 3.0);
    assert_int_equal(s->histogram[1], 3);
    assert_int_equal(s->histogram[2], 1);
    assert_int_equal(s->duplicate_prompts, 1);
    px_dataset_destroy(d);
}

static uint64_t hash_of(const char *text, px_kind kind)
{
    px_data_options with = options(kind);
    px_dataset *d = load("x.jsonl", text, &with);
    uint64_t hash = px_dataset_hash(d);
    px_dataset_destroy(d);
    return hash;
}

static void the_hash_sees_what_learning_sees(void **state)
{
    (void)state;
    uint64_t hash = hash_of("{\"prompt\":\"xy\",\"completion\":\"z\"}", PX_ROWS_LM);
    assert_true(hash == hash_of("{\"completion\":\"z\", \"prompt\":\"xy\",\"other\":1}", PX_ROWS_LM));
    assert_true(hash != hash_of("{\"prompt\":\"xy\",\"completion\":\"w\"}", PX_ROWS_LM));
    assert_true(hash != hash_of("{\"prompt\":\"x\",\"completion\":\"yz\"}", PX_ROWS_LM)); /* same ids, another seam */
    assert_true(hash_of("{\"ids\":[1,2,3]}\n{\"ids\":[4,5]}", PX_ROWS_LM) !=
                hash_of("{\"ids\":[1,2]}\n{\"ids\":[3,4,5]}", PX_ROWS_LM));
    assert_true(hash_of("{\"prompt\":\"x\",\"chosen\":\"a\",\"rejected\":\"b\"}", PX_ROWS_PAIRS) !=
                hash_of("{\"prompt\":\"x\",\"chosen\":\"a\",\"rejected\":\"b\",\"margin\":1}", PX_ROWS_PAIRS));
    assert_true(hash_of("{\"prompt\":\"x\",\"answer\":1}", PX_ROWS_PROMPTS) !=
                hash_of("{\"prompt\":\"x\",\"answer\":2}", PX_ROWS_PROMPTS)); /* rewards read it */
}

/* ---- several files ------------------------------------------------------------------------------------------------ */

static void several_files(void **state)
{
    (void)state;
    px_data_options with = options(PX_ROWS_LM);
    with.max_tokens = 4;
    char paths[3][128];
    const char *texts[] = {"{\"text\":\"x\"}\n{\"text\":\"xxxxxxxx\"}\n", "[{\"prompt\":\"p\",\"completion\":\"q\"}]",
                           "{\"text\":\"x\"}\n"};
    const char *names[] = {"one.jsonl", "two.json", "three.jsonl"};
    px_source sources[3];
    for (int i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s", put(names[i], texts[i]));
        sources[i] = (px_source){paths[i], i == 1 ? 2.0 : 1.0};
    }
    px_dataset *d;
    assert_int_equal(px_dataset_load_files(&d, sources, 3, &with), PX_OK);
    const px_data_summary *all = px_dataset_summary(d), *second = px_dataset_file_summary(d, 1);
    assert_string_equal(all->shape, "text; prompt+completion");
    assert_string_equal(second->shape, "prompt+completion");
    assert_int_equal(all->rows, 4);
    assert_int_equal(all->cut, 1);
    assert_int_equal(all->tokens, 2 + 4 + 3 + 2);
    assert_int_equal(all->min_length, 2);
    assert_int_equal(all->max_length, 4);
    assert_true(all->mean_length == 11.0 / 4.0 && second->mean_length == 3.0);
    assert_int_equal(all->duplicate_prompts, 1); /* of a row in another file */
    assert_int_equal(second->duplicate_prompts, 0);
    assert_int_equal(px_dataset_file_summary(d, 2)->duplicate_prompts, 1);
    int count;
    const px_part *parts = px_dataset_parts(d, &count);
    assert_int_equal(count, 3);
    assert_int_equal(parts[0].count, 2);
    assert_true(parts[1].weight == 2.0);
    assert_int_equal(px_parts_epoch(parts, count), 5);
    assert_true(px_dataset_epoch_tokens(d) == 14.0);
    expect_row(d, 2, "p", "q[256]", NULL);
    px_row row;
    px_dataset_row(d, 3, &row);
    assert_int_equal(row.record, 3);
    px_dataset_destroy(d);
    put("three.jsonl", "{\"text\":3}\n");
    assert_int_equal(px_dataset_load_files(&d, sources, 3, &with), PX_DATA);
    assert_non_null(strstr(px_error_text(), "three.jsonl:1: field \"text\""));
}

/* ---- rows in files ----------------------------------------------------------------------------------------------- */

static void expect_same(const px_dataset *a, const px_dataset *b)
{
    assert_int_equal(px_dataset_count(a), px_dataset_count(b));
    assert_true(px_dataset_hash(a) == px_dataset_hash(b));
    assert_memory_equal(px_dataset_summary(a), px_dataset_summary(b), sizeof(px_data_summary));
    for (int64_t i = 0; i < px_dataset_count(a); i++) {
        px_row x, y;
        px_dataset_row(a, i, &x);
        px_dataset_row(b, i, &y);
        assert_int_equal(x.record, y.record);
        assert_int_equal(x.length, y.length);
        assert_int_equal(x.prompt_length, y.prompt_length);
        assert_int_equal(x.rejected_length, y.rejected_length);
        assert_memory_equal(x.ids, y.ids, (size_t)x.length * sizeof *x.ids);
        assert_true(!x.mask == !y.mask && !x.rejected == !y.rejected && !x.json == !y.json && x.margin == y.margin);
        if (x.mask) assert_memory_equal(x.mask, y.mask, (size_t)x.length);
        if (x.rejected) assert_memory_equal(x.rejected, y.rejected, (size_t)x.rejected_length * sizeof *x.ids);
        if (x.json) assert_string_equal(x.json, y.json);
    }
}

static int files_below(const char *path, char *one, size_t size)
{
    int count = 0;
    DIR *list = opendir(path);
    for (struct dirent *e; list && (e = readdir(list));)
        if (e->d_name[0] != '.') {
            count++;
            snprintf(one, size, "%s/%.40s", path, e->d_name);
        }
    if (list) closedir(list);
    return count;
}

static void spoil(const char *cache, const char *name, long at, const char *bytes, bool shorter)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", cache, name);
    if (shorter) {
        assert_int_equal(truncate(path, at), 0);
        return;
    }
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, at, SEEK_SET);
    fwrite(bytes, 1, strlen(bytes), file);
    fclose(file);
}

static void rows_in_files_are_the_rows_in_memory(void **state)
{
    (void)state;
    static const struct {
        px_kind kind;
        const char *name, *text;
    } sets[] = {
        {PX_ROWS_LM, "c.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"abab\"}]}\n"
                                "{\"messages\":[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"x\"}]}\n"},
        {PX_ROWS_LM, "t.txt", "one\n\ntwo\nlines\n\none\n"},
        {PX_ROWS_PAIRS, "p.jsonl", "{\"prompt\":\"x\",\"chosen\":\"a\",\"rejected\":\"bb\",\"margin\":2}\n"},
        {PX_ROWS_PROMPTS, "q.jsonl", "{\"prompt\":\"x\",\"answer\":1}\n{\"prompt\":\"x\",\"answer\":2}\n"},
    };
    char cache[128], made[300];
    snprintf(cache, sizeof cache, "%s/cache", dir);
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        px_data_options with = options(sets[i].kind);
        with.renderer = i == 0 ? chatml : NULL;
        px_dataset *memory = load(sets[i].name, sets[i].text, &with), *first, *second;
        char path[128];
        snprintf(path, sizeof path, "%s/%s", dir, sets[i].name);
        with.cache = cache;
        for (int round = 0; round < 5; round++) { /* made; found; made again where it was spoilt, thrice */
            assert_int_equal(px_dataset_load(&first, path, &with), PX_OK);
            assert_int_equal(px_dataset_load(&second, path, &with), PX_OK);
            expect_same(memory, first);
            expect_same(memory, second);
            px_dataset_destroy(first);
            px_dataset_destroy(second);
            assert_int_equal(files_below(cache, made, sizeof made), 1);
            if (round == 1) spoil(made, "ids", 4, NULL, true);
            if (round == 2) spoil(made, "head", 20, "x", false);
            if (round == 3) spoil(made, "entries", 40, "zzzz", false);
        }
        px_dataset_destroy(memory);
        with.max_tokens = 1000; /* other rows could come of it */
        assert_int_equal(px_dataset_load(&first, path, &with), PX_OK);
        px_dataset_destroy(first);
        assert_int_equal(files_below(cache, made, sizeof made), 2);
        assert_int_equal(px_tree_remove(cache), PX_OK);
    }
}

static void own(const char *building, pid_t pid)
{
    char path[420], text[512];
    px_process self = px_process_self();
    snprintf(path, sizeof path, "%s/owner", building);
    snprintf(text, sizeof text, "%s %ld -1 %s\n", self.host, (long)pid, self.place);
    assert_int_equal(px_file_write(path, text, strlen(text)), PX_OK);
}

static int seconds_a_look; /* by which the clock goes on whenever it is looked at */

/* In the place of the C library's. */
int clock_gettime(clockid_t id, struct timespec *time)
{
    static time_t ahead;
    int result = (int)syscall(SYS_clock_gettime, id, time);
    time->tv_sec += ahead += seconds_a_look;
    return result;
}

/* It has all the time that it takes, and the time in which nobody ran is nobody's silence. */
static void a_living_builder_is_waited_for(void **state)
{
    (void)state;
    char cache[128], made[300], building[400], path[420];
    snprintf(cache, sizeof cache, "%s/cache", dir);
    px_data_options with = options(PX_ROWS_LM);
    with.cache = cache;
    px_dataset *d;
    snprintf(path, sizeof path, "%s", put("w.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n"));
    assert_int_equal(px_dataset_load(&d, path, &with), PX_OK);
    px_dataset_destroy(d);
    assert_int_equal(files_below(cache, made, sizeof made), 1);
    snprintf(building, sizeof building, "%s.building", made);
    assert_int_equal(rename(made, building), 0);
    pid_t child = fork();
    if (child == 0) {
        usleep(400000);
        _exit(rename(building, made) == 0 ? 0 : 1);
    }
    own(building, child);
    seconds_a_look = 100;
    assert_int_equal(px_dataset_load(&d, path, &with), PX_OK);
    seconds_a_look = 0;
    px_dataset_destroy(d);
    int status = -1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0); /* what it made was still there */
    assert_int_equal(px_tree_remove(cache), PX_OK);
}

static void a_failed_or_dead_builder_leaves_nothing(void **state)
{
    (void)state;
    char cache[128], made[300], building[400], path[420];
    snprintf(cache, sizeof cache, "%s/cache", dir);
    px_data_options with = options(PX_ROWS_LM);
    with.cache = cache;
    px_dataset *d;
    snprintf(path, sizeof path, "%s", put("f.jsonl", "{\"text\":\"a\"}\n{\"text\":3}\n"));
    assert_int_equal(px_dataset_load(&d, path, &with), PX_DATA);
    assert_non_null(strstr(px_error_text(), "f.jsonl:2:"));
    assert_int_equal(files_below(cache, made, sizeof made), 0);
    put("f.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n");
    assert_int_equal(px_dataset_load(&d, path, &with), PX_OK);
    px_dataset_destroy(d);
    assert_int_equal(files_below(cache, made, sizeof made), 1);
    /* As a builder leaves it that was killed: a child that is gone. */
    snprintf(building, sizeof building, "%s.building", made);
    assert_int_equal(rename(made, building), 0);
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
    own(building, child);
    snprintf(path, sizeof path, "%s/f.jsonl", dir);
    assert_int_equal(px_dataset_load(&d, path, &with), PX_OK);
    assert_int_equal(px_dataset_count(d), 2);
    px_dataset_destroy(d);
    assert_int_equal(files_below(cache, building, sizeof building), 1);
    assert_string_equal(building, made);
    assert_int_equal(px_tree_remove(cache), PX_OK);
}

/* ---- bad inputs -------------------------------------------------------------------------------------------------- */

static void bad_records(void **state)
{
    (void)state;
    static const struct {
        px_kind kind;
        const char *text, *message;
    } bad[] = {
        {PX_ROWS_LM, "{\"text\":\"a\"}\n{\"text\": \"b\"\n", "bad.jsonl:2:"},
        {PX_ROWS_LM, "{\"text\":\"a\"}\n{\"text\":\"a\\u0000b\"}\n", "bad.jsonl:2:18: not valid JSON: \\u0000 in a string"},
        {PX_ROWS_LM, "{\"text\":\"\\ud800b\"}\n", ":1:17: not valid JSON: half of a pair of surrogates"},
        {PX_ROWS_LM, "{\"text\":\"b\\udc00\"}\n", "half of a pair of surrogates"},
        {PX_ROWS_LM, "[1]\n", ":1: the record is a list; valid is an object"},
        {PX_ROWS_LM, "{}\n", ":1: the record has no known shape: its fields are none at all; valid is {\"text\"}"},
        {PX_ROWS_LM, "{\"prompt\":1,\"completion\":\"x\"}\n", ":1: field \"prompt\" is an integer; valid is a string "
                     "(shape prompt+completion)"},
        {PX_ROWS_LM, "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n", ":2: field \"text\" is missing"},
        {PX_ROWS_LM, "{\"text\":\"a\"}\n{\"text\":null}\n", ":2: field \"text\" is null; valid is a string"},
        {PX_ROWS_LM, "\n\n{\"text\":\"\"}\n", ":3: field \"text\" is empty"},
        {PX_ROWS_LM, "{\"text\":\"a\"}\n{\"text\":\"a\",\"prompt\":\"b\",\"completion\":\"c\"}\n",
         ":2: a record of the shape prompt+completion; every record must have the shape of the first, text"},
        {PX_ROWS_LM, "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\",\"completion\":3}\n",
         ":2: field \"completion\" is an integer; valid is a string"},
        {PX_ROWS_LM, "{\"prompt\":\"\",\"completion\":\"b\"}\n", ":1: field \"prompt\" is empty"},
        {PX_ROWS_LM, "{\"prompt\":\"a\",\"completion\":\"\"}\n", ":1: field \"completion\" is empty"},
        {PX_ROWS_LM, "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n",
         ":1: a record of the shape prompt+chosen+rejected cannot be used here; valid is {\"text\"}"},
        {PX_ROWS_LM, "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":true}\n", ":1: an unpaired record"},
        {PX_ROWS_PAIRS, "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":false}\n", ":1: an unpaired record"},
        {PX_ROWS_LM, "{\"ids\":[]}\n", ":1: field \"ids\" is empty"},
        {PX_ROWS_LM, "{\"ids\":[1,2]}\n{\"ids\":[1,261]}\n", ":2: field \"ids\": entry 1 is 261; valid is 0 to 260"},
        {PX_ROWS_LM, "{\"ids\":[1,-2]}\n", ":1: field \"ids\": entry 1 is -2; valid is 0 to 260"},
        {PX_ROWS_LM, "{\"ids\":[1,4294967296]}\n", "entry 1 is 4294967296"},
        {PX_ROWS_LM, "{\"ids\":[1,2.5]}\n", ":1: field \"ids\": entry 1 is not an integer"},
        {PX_ROWS_LM, "{\"ids\":\"1 2\"}\n", ":1: field \"ids\" is a string; valid is a list of token ids"},
        {PX_ROWS_LM, "{\"txt\":1,\"b\":[]}\n", ":1: the record has no known shape: its fields are txt (an integer), b "
                     "(a list)"},
        {PX_ROWS_LM, "{\"prompt\":\"a\"}\n", ":1: field \"completion\" is missing"},
        {PX_ROWS_PROMPTS, "{\"prompt\":7}\n", ":1: field \"prompt\" is an integer"},
        {PX_ROWS_LM, "{\"prompt_ids\":[1],\"completion_ids\":[]}\n", ":1: field \"completion_ids\" is empty"},
        {PX_ROWS_LM, "{\"messages\":[]}\n", ":1: field \"messages\" is empty"},
        {PX_ROWS_LM, "{\"messages\":[{\"role\":\"user\"}]}\n", ":1: field \"messages\": turn 0 has no text"},
        {PX_ROWS_LM, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}\n", "has no assistant's turn"},
        {PX_ROWS_LM, "{\"messages\":[{\"role\":\"\",\"content\":\"x\"}]}\n", "turn 0 has an empty role"},
        {PX_ROWS_LM, "{\"instruction\":\"x\",\"output\":\"y\",\"input\":3}\n", ":1: field \"input\" is not a string"},
        {PX_ROWS_LM, "{\"instruction\":\"x\",\"output\":\"y\",\"history\":[[\"a\",\"b\"]]}\n", ":1: field \"history\""},
        {PX_ROWS_PAIRS, "{\"prompt\":\"a\",\"chosen\":\"b\"}\n", ":1: field \"rejected\" is missing; valid is a record "
                        "of the shape prompt+chosen+rejected"},
        {PX_ROWS_PAIRS, "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"b\"}\n", ":1: field \"chosen\" equals"},
        {PX_ROWS_PAIRS, "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"\"}\n", ":1: field \"rejected\" is empty"},
        {PX_ROWS_PAIRS, "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\",\"margin\":\"2\"}\n",
         "field \"margin\""},
        {PX_ROWS_PAIRS, "{\"text\":\"a\"}\n", ":1: a record of the shape text cannot be used here"},
        {PX_ROWS_PROMPTS, "{\"prompt\":\"a\"}\n{\"prompt\":[1]}\n", ":2: field \"prompt\" is a list; valid is a "
                          "string"},
        {PX_ROWS_PROMPTS, "{\"prompt\":\"\"}\n", ":1: field \"prompt\" is empty"},
        {PX_ROWS_PROMPTS, "{\"question_\":\"a\"}\n", ":1: the record has no known shape"},
        {PX_ROWS_PROMPTS, "", "no records"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        px_data_options with = options(bad[i].kind);
        with.renderer = chatml;
        expect_refused(bad[i].text, &with, bad[i].message);
    }
    px_data_options bare = {.kind = PX_ROWS_LM};
    expect_refused("{\"text\":\"a\"}\n", &bare, ":1: a record of the shape text needs a tokenizer");
    px_data_options small = options(PX_ROWS_LM);
    small.vocab_size = 100;
    expect_refused("{\"text\":\"az\"}\n", &small, ":1: the tokenizer makes id 122 of this text");
}

/* ---- real files -------------------------------------------------------------------------------------------------- */

static void shared_data_loads(void **state)
{
    (void)state;
    static const struct {
        const char *name, *shape;
        px_kind kind;
        bool chat;
        int rows, dropped;
    } files[] = {
        {"preference/hh-harmless-test.jsonl.gz", "chosen+rejected (implicit prompt)", PX_ROWS_PAIRS, false, 2312, 0},
        {"preference/rasbt-instruction-data-with-preference.json", "instruction+chosen+rejected", PX_ROWS_PAIRS, false,
         1094, 6},
        {"preference/rasbt-instruction-data-with-preference.json", "instruction+output", PX_ROWS_LM, true, 1100, 0},
        {"preference/llamafactory-dpo_en_demo.json", "conversations+chosen+rejected", PX_ROWS_PAIRS, true, 300, 0},
        {"preference/llamafactory-dpo_zh_demo.json", "conversations (ShareGPT)", PX_ROWS_PROMPTS, true, 300, 0},
        {"preference/hh_rlhf_tiny.json", "chosen+rejected (implicit prompt, messages)", PX_ROWS_PAIRS, true, 1, 0},
        {"preference/stack_exchange_paired_tiny.json", "question+response_j+response_k", PX_ROWS_PAIRS, false, 25, 0},
        {"text/tinystories-sample.txt", "text", PX_ROWS_LM, false, 4667, 0},
        {"math/gsm8k-test.jsonl", "question", PX_ROWS_PROMPTS, false, 1319, 0},
    };
    if (!px_dir_exists(PX_SHARED_DIR "/data")) {
        print_message("skipped: no " PX_SHARED_DIR "/data\n");
        skip();
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[512];
        snprintf(path, sizeof path, PX_SHARED_DIR "/data/%s", files[i].name);
        px_data_options with = options(files[i].kind);
        with.renderer = files[i].chat ? chatml : NULL;
        px_dataset *d;
        if (px_dataset_load(&d, path, &with) != PX_OK) fail_msg("%s", px_error_text());
        assert_string_equal(px_dataset_summary(d)->shape, files[i].shape);
        assert_int_equal(px_dataset_count(d), files[i].rows);
        assert_int_equal(px_dataset_summary(d)->dropped, files[i].dropped);
        px_dataset_destroy(d);
    }
}

/* "prompt" + " completion" has one space between them, as in the whole text, also where the normalizer prepends one. */
static void one_space_before_a_completion(void **state)
{
    (void)state;
    const char *path = PX_SHARED_DIR "/data/models/stories260K";
    px_tokenizer *llama;
    if (!px_dir_exists(path)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    assert_int_equal(px_tokenizer_load(&llama, path), PX_OK);
    px_data_options with = options(PX_ROWS_LM);
    with.tokenizer = llama;
    with.add_bos = true;
    with.vocab_size = px_tokenizer_size(llama);
    with.eos_id = px_tokenizer_eos(llama);
    px_ids whole = {0};
    static const char text[] = "Tim ran. He saw a dog.";
    assert_int_equal(px_tokenizer_encode(llama, text, strlen(text), true, &whole), PX_OK);
    assert_int_equal(px_ids_add(&whole, with.eos_id), PX_OK);
    px_dataset *d = load("space.jsonl", "{\"prompt\":\"Tim ran.\",\"completion\":\" He saw a dog.\"}\n", &with);
    px_row row;
    px_dataset_row(d, 0, &row);
    assert_int_equal(row.length, whole.length);
    assert_memory_equal(row.ids, whole.data, (size_t)whole.length * sizeof *whole.data);
    px_dataset_destroy(d);
    expect_answer("\"prompt\":\"Tim ran.\"", " He saw a dog.", with);
    px_ids_free(&whole);
    px_tokenizer_destroy(llama);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/phalanx-dataset-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    write_tokenizer();
    if (px_tokenizer_load(&tokenizer, dir) != PX_OK || px_renderer_find(&chatml, "chatml", tokenizer) != PX_OK) {
        print_error("%s\n", px_error_text());
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    px_tokenizer_destroy(tokenizer);
    px_tree_remove(dir);
    if (px_alloc_live()) print_error("%zu bytes are still alive\n", px_alloc_live());
    return px_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(prompt_and_completion_are_encoded_apart),
        cmocka_unit_test(long_rows_are_cut_and_rows_without_target_dropped),
        cmocka_unit_test(whole_texts_are_not_cut),
        cmocka_unit_test(id_rows_need_no_tokenizer_and_stay_as_they_are),
        cmocka_unit_test(pairs_of_texts),
        cmocka_unit_test(implicit_prompts),
        cmocka_unit_test(few_equal_pairs_are_left_out_many_are_an_error),
        cmocka_unit_test(rows_without_a_text_are_left_out_nearly_all_are_an_error),
        cmocka_unit_test(conversations),
        cmocka_unit_test(pairs_of_conversations),
        cmocka_unit_test(answers_without_an_end_of_turn), cmocka_unit_test(rows_that_are_scored),
        cmocka_unit_test(sampled_answers_are_sides_of_pairs),
        cmocka_unit_test(sampled_answers_end_where_they_are_scored),
        cmocka_unit_test(prompts), cmocka_unit_test(kinds),
        cmocka_unit_test(messages_with_more_than_text), cmocka_unit_test(texts_answer_messages),
        cmocka_unit_test(summary_counts),
        cmocka_unit_test(the_hash_sees_what_learning_sees),
        cmocka_unit_test(several_files),
        cmocka_unit_test(rows_in_files_are_the_rows_in_memory),
        cmocka_unit_test(a_living_builder_is_waited_for),
        cmocka_unit_test(a_failed_or_dead_builder_leaves_nothing),
        cmocka_unit_test(bad_records),
        cmocka_unit_test(one_space_before_a_completion),
        cmocka_unit_test(shared_data_loads),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
