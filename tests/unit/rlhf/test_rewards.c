/* Rule rewards against closed forms and hand-made answers; exec rewards against well- and ill-behaved programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "phalanx/rewards.h"

static char directory[] = "/tmp/phalanx-rewards-XXXXXX";

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12)) {
        fail_msg("got %.15g, want %.15g", got, want);
    }
}

static void path_in(char *out, const char *name)
{
    snprintf(out, 256, "%s/%s", directory, name);
}

static void write_file(const char *name, const char *text, bool program)
{
    char path[256];
    path_in(path, name);
    assert_int_equal(px_file_write(path, text, strlen(text)), PX_OK);
    if (program) {
        char command[300];
        snprintf(command, sizeof command, "chmod +x %s", path);
        assert_int_equal(system(command), 0);
    }
}

static int open_one(px_rewards **rewards, px_reward_spec spec)
{
    spec.name = "r";
    spec.weight = 1.0;
    return px_rewards_open(rewards, &spec, 1);
}

static double score(px_rewards *rewards, const char *completion, const char *record)
{
    px_reward_sample sample = {"prompt", completion, 7, record, 0};
    double raw = -99.0;
    assert_int_equal(px_rewards_score(rewards, &sample, 1, &raw, NULL), PX_OK);
    return raw;
}

static double compound(double sum)
{
    return sum / sqrt(sum * sum + 15.0);
}

static void lexicon_finds_whole_words(void **state)
{
    (void)state;
    write_file("words.txt",
               "good\t2\nbad\t-3\t0.5\t[1, 2]\r\nnot good\t-2\nwon\t2.5\ncan't stand\t-3\n:)\t1.5\n:D\t2\n"
               "caf\xc3\xa9\t1\n\xe5\xa5\xbd\t4\n",
               false);
    char path[256];
    path_in(path, "words.txt");
    px_rewards *r;
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LEXICON, .file = path}), PX_OK);
    near(score(r, "", NULL), 0.0);
    near(score(r, "nothing here", NULL), 0.0);
    near(score(r, "good", NULL), compound(2));
    near(score(r, "A GOOD day, a good-natured day (good!)", NULL), compound(6));
    near(score(r, "goods and badly", NULL), 0.0);
    near(score(r, "It is not good, but bad.", NULL), compound(-5));
    near(score(r, "not  \n good", NULL), compound(-2));
    near(score(r, "I won't, I won\xe2\x80\x99t", NULL), 0.0);
    near(score(r, "we won", NULL), compound(2.5));
    near(score(r, "I can\xe2\x80\x99t stand the good's", NULL), compound(-1));
    near(score(r, "\xe2\x80\x9cgood\xe2\x80\x9d", NULL), compound(2));
    near(score(r, "hi :) and :d.", NULL), compound(3.5));
    near(score(r, "a:)b", NULL), 0.0);
    near(score(r, "CAF\xc3\x89", NULL), compound(1));
    near(score(r, "\xe4\xbd\xa0\xe5\xa5\xbd\xe5\x90\x97", NULL), compound(4));
    near(score(r, "\xff good", NULL), compound(2));
    px_rewards_close(r);
}

static void lexicon_reads_the_published_files(void **state)
{
    (void)state;
    const char *vader = PX_SHARED_DIR "/data/rewards/vader_lexicon.txt";
    const char *afinn = PX_SHARED_DIR "/data/rewards/AFINN-en-165.txt";
    if (!px_file_exists(vader) || !px_file_exists(afinn)) {
        print_message("%s is absent\n", vader);
        skip();
    }
    px_rewards *r;
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LEXICON, .file = vader}), PX_OK);
    near(score(r, "VADER is smart and funny :-)", NULL), compound(1.7 + 1.9 + 1.3)); /* values read in the file */
    px_rewards_close(r);
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LEXICON, .file = afinn}), PX_OK);
    near(score(r, "I abandon what I can't stand; not good.", NULL), compound(-2 - 3 - 2));
    px_rewards_close(r);
}

static void lexicon_refuses_bad_files(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "good\n", "good\tmuch\n", "a\t1\n\tb\t2\n", "good\t1x\n", "good\tnan\n",
                                      "x\t\n1\t2\n"};
    char path[256];
    path_in(path, "bad.txt");
    px_rewards *r;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file("bad.txt", bad[i], false);
        assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LEXICON, .file = path}), PX_DATA);
        assert_non_null(strstr(px_error_text(), "bad.txt"));
        assert_null(r);
    }
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LEXICON, .file = "/nowhere/at/all"}), PX_IO);
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LEXICON}), PX_CONFIG);
}

static void length_and_regex(void **state)
{
    (void)state;
    px_rewards *r;
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LENGTH, .target = 10}), PX_OK);
    near(score(r, "x", NULL), -0.3); /* 7 tokens */
    px_rewards_close(r);
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_LENGTH}), PX_CONFIG);
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_REGEX, .pattern = "(?i)\\bthe end\\.$"}), PX_OK);
    near(score(r, "This is The End.", NULL), 1.0);
    near(score(r, "The ends.", NULL), 0.0);
    px_rewards_close(r);
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_REGEX, .pattern = "(a"}), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "reward 'r'"));
    px_reward_spec twice[2] = {{.name = "a", .kind = PX_REWARD_MODEL}, {.name = "a", .kind = PX_REWARD_MODEL}};
    assert_int_equal(px_rewards_open(&r, twice, 2), PX_CONFIG);
}

static void patterns_on_long_completions(void **state)
{
    (void)state;
    static char text[100001];
    px_rewards *r;
    for (size_t i = 0; i + 1 < sizeof text; i++) text[i] = "abcde "[i % 6];
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_REGEX, .pattern = "^(?:(?!end).)*$"}), PX_OK);
    near(score(r, text, NULL), 1.0); /* more stack than PCRE2's compiled patterns begin with */
    px_rewards_close(r);
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_REGEX, .pattern = "^(a|b|c|d|e| )+$"}), PX_OK);
    near(score(r, text, NULL), 1.0);
    px_rewards_close(r);
    memset(text, 'a', 40);
    memcpy(text + 40, "!", 2);
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_REGEX, .pattern = "^(a+)+$"}), PX_OK);
    px_buf events = {0};
    double raw = 0;
    px_reward_sample endless = {"p", text, 1, "{}", 3};
    assert_int_equal(px_rewards_score(r, &endless, 1, &raw, &events), PX_OK);
    assert_true(isnan(raw));
    assert_non_null(strstr(events.data, "sample 3: the pattern takes too many steps"));
    px_buf_free(&events);
    px_rewards_close(r);
}

static void exact_compares_answers(void **state)
{
    (void)state;
    static const struct {
        const char *completion, *record;
        double want;
    } cases[] = {
        {"42", "{\"answer\": \"42\"}", 1},          {" 42.0\n", "{\"answer\": \"42\"}", 1},
        {"42", "{\"answer\": 42}", 1},              {"42", "{\"answer\": 42.0}", 1},
        {"421", "{\"answer\": \"42\"}", 0},         {"1,200", "{\"answer\": \"6*200 #### 1200\"}", 1},
        {"so #### 7 #### $42.", "{\"answer\": \"x\\n#### 42\"}", 1}, {"#### 41", "{\"answer\": \"#### 42\"}", 0},
        {"yes", "{\"answer\": \" yes \"}", 1},      {"Yes", "{\"answer\": \"yes\"}", 0},
        {"true", "{\"answer\": true}", 1},          {"b", "{\"answer\": [\"a\", \"b\"]}", 1},
        {"", "{\"answer\": \"0\"}", 0},             {"nan", "{\"answer\": \"NAN\"}", 0},
    };
    px_rewards *r;
    assert_int_equal(open_one(&r, (px_reward_spec){.kind = PX_REWARD_EXACT, .field = "answer"}), PX_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (score(r, cases[i].completion, cases[i].record) != cases[i].want) {
            fail_msg("case %zu: '%s' and %s", i, cases[i].completion, cases[i].record);
        }
    }
    double raw;
    px_reward_sample none = {"p", "c", 1, "{\"question\": 1}", 0}, object = {"p", "c", 1, "{\"answer\": {}}", 0};
    assert_int_equal(px_rewards_score(r, &none, 1, &raw, NULL), PX_DATA);
    assert_non_null(strstr(px_error_text(), "answer"));
    assert_int_equal(px_rewards_score(r, &object, 1, &raw, NULL), PX_DATA);
    px_rewards_close(r);
    static const char *const patterns[] = {"[0-9]+", "is ([0-9]+)", "(?:is )?\\K[0-9]+$|", "[0-9]*"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) { /* the last match counts, and none is met twice */
        px_rewards *last;
        assert_int_equal(open_one(&last, (px_reward_spec){.kind = PX_REWARD_EXACT, .field = "answer", .pattern = patterns[i]}), PX_OK);
        near(score(last, "first it is 7, thén it is 42", "{\"answer\": \"42\"}"), i < 2 ? 1 : 0);
        near(score(last, "first it is 42, then it is 7", "{\"answer\": \"42\"}"), 0);
        near(score(last, "thé end", "{\"answer\": \"42\"}"), 0);
        px_rewards_close(last);
    }
    px_reward_spec boxed = {.kind = PX_REWARD_EXACT, .field = "answer", .pattern = "boxed\\{([^}]*)\\}"};
    assert_int_equal(open_one(&r, boxed), PX_OK);
    near(score(r, "so \\boxed{ 42 } it is", "{\"answer\": \"42.0\"}"), 1.0);
    near(score(r, "so 42 it is", "{\"answer\": \"42.0\"}"), 0.0);
    near(score(r, "", "{\"answer\": \"\"}"), 0.0);
    px_rewards_close(r);
}

/* ---- exec -------------------------------------------------------------------------------------------------------- */

static px_status ask(const char *const *command, double timeout_s, int count, double *raw, px_buf *events)
{
    px_reward_spec spec = {.name = "tone", .kind = PX_REWARD_EXEC, .weight = 1, .command = command,
                           .timeout_s = timeout_s, .dir = directory};
    px_rewards *rewards;
    PX_TRY(px_rewards_open(&rewards, &spec, 1));
    px_reward_sample sample = {"say \"hi\"\n", "caf\xc3\xa9 \\ \t", 3, "{\n \"level\": 3}", 0};
    px_reward_sample *samples = calloc((size_t)count, sizeof *samples);
    for (int i = 0; i < count; i++) {
        samples[i] = sample;
        samples[i].number = i;
    }
    px_status status = px_rewards_score(rewards, samples, count, raw, events);
    free(samples);
    px_rewards_close(rewards);
    return status;
}

static px_status ask_shell(const char *script, int count, double *raw, px_buf *events)
{
    const char *command[] = {"sh", "-c", script, NULL};
    return ask(command, 1.0, count, raw, events);
}

/* Scores are ids + 1/2, in reverse order within blocks of three. */
static const char answer_threes[] = "id() { x=${1#*:}; x=${x%%,*}; }\n"
                                    "while read -r a && read -r b && read -r c; do\n"
                                    "for l in \"$c\" \"$b\" \"$a\"; do id \"$l\"; "
                                    "echo \"{\\\"score\\\": $x.5, \\\"id\\\": $x}\"; done; done";

static void exec_answers_in_any_order(void **state)
{
    (void)state;
    double raw[9];
    px_buf events = {0};
    assert_int_equal(ask_shell(answer_threes, 9, raw, &events), PX_OK);
    for (int i = 0; i < 9; i++) {
        near(raw[i], i + 0.5);
    }
    assert_int_equal(events.length, 0);
}

static void exec_gets_whole_requests(void **state)
{
    (void)state;
    write_file("echo.sh",
               "#!/bin/sh\nread -r line\nprintf '%s\\n' \"$line\" > seen\npwd >> seen\necho '{\"id\":0,\"score\":1}'\n"
               "cat > /dev/null\n", true);
    const char *command[] = {"./echo.sh", NULL};
    double raw;
    assert_int_equal(ask(command, 5.0, 1, &raw, NULL), PX_OK);
    char path[256];
    path_in(path, "seen");
    px_buf seen = {0};
    assert_int_equal(px_file_read(path, PX_TEXT_MOST, &seen), PX_OK);
    char want[512];
    snprintf(want, sizeof want,
             "{\"id\":0,\"prompt\":\"say \\\"hi\\\"\\n\",\"completion\":\"caf\\u00E9 \\\\ \\t\",\"record\":"
             "{  \"level\": 3}}\n%s\n",
             directory);
    assert_string_equal(seen.data, want);
    px_buf_free(&seen);
}

static void exec_marks_missing_scores(void **state)
{
    (void)state;
    double raw[6];
    px_buf events = {0};
    assert_int_equal(ask_shell("echo '{\"id\":2,\"score\":0.25}'; echo '{\"id\": 0, \"score\": NaN}';"
                               "echo '{\"id\":1,\"score\":null}'; echo '{\"id\":4,\"score\":-1e39}';"
                               "echo '{\"id\":5,\"score\":1e18}'; cat >/dev/null", 6, raw, &events), PX_OK);
    assert_true(isnan(raw[0]) && isnan(raw[1]) && isnan(raw[3]));
    near(raw[2], 0.25);
    assert_non_null(strstr(events.data, "sample 0: the score is no finite number up to 1e+18"));
    assert_non_null(strstr(events.data, "sample 1: the score is no finite number up to 1e+18"));
    assert_non_null(strstr(events.data, "sample 3: no reply within 1 s"));
    assert_true(isnan(raw[4]) && raw[5] == 1e18); /* finite in double, infinite in float32 */
    assert_non_null(strstr(events.data, "sample 4: the score is no finite number up to 1e+18"));
    assert_null(strstr(events.data, "sample 2"));
    px_buf_free(&events);
}

/* A program whose every start ends without a reply is no reward; what it said last is told, on both its outputs. */
static void exec_names_failures(void **state)
{
    (void)state;
    static const struct {
        const char *script, *want;
    } cases[] = {
        {"exit 3", "exit status 3"},
        {"echo last words; exit 0", "last words"},
        {"kill -9 $$", "signal 9"},
        {"printf unfinished; exit 5", "unfinished"},
        {"read a; echo 'no module named judge' >&2; exit 1", "no module named judge"},
    };
    double raw[4];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double start = px_now();
        assert_int_equal(ask_shell(cases[i].script, 4, raw, NULL), PX_DATA);
        if (strstr(px_error_text(), cases[i].want) == NULL || strstr(px_error_text(), "reward 'tone'") == NULL) {
            fail_msg("case %zu: %s", i, px_error_text());
        }
        assert_true(px_now() - start < 4.0);
    }
}

/* Lines that are no reply are told, and cost no score. */
static void exec_passes_over_stray_lines(void **state)
{
    (void)state;
    static const struct {
        const char *script, *want;
    } cases[] = {
        {"echo 'Loading the model ...'", "no JSON object: \"Loading the model ...\""},
        {"echo '[1]'; echo more", "no JSON object: \"[1]\", and 1 more"},
        {"echo '{\"id\":9,\"score\":1}'", "nobody asked"},
        {"echo '{\"id\":-1,\"score\":1}'", "nobody asked"},
        {"echo '{\"id\":\"0\",\"score\":1}'", "integer id"},
        {"echo '{\"id\":0,\"score\":0}'; echo '{\"id\":0,\"score\":7}'", "second reply"},
        {"head -c 2500000 /dev/zero | tr '\\0' x; echo", "more than a mebibyte: \"xxx"},
        {"printf '\\033[1m\\377'; echo", "no JSON object: \""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char script[512];
        double raw[4];
        px_buf events = {0};
        snprintf(script, sizeof script, "%s; for i in 0 1 2 3; do echo \"{\\\"id\\\":$i,\\\"score\\\":$i}\"; done; cat > /dev/null",
                 cases[i].script);
        assert_int_equal(ask_shell(script, 4, raw, &events), PX_OK);
        for (int k = 0; k < 4; k++) {
            near(raw[k], k);
        }
        if (strstr(events.data, cases[i].want) == NULL || strchr(events.data, '\n') != events.data + events.length - 1 ||
            px_utf8_valid(events.data, events.length) != events.length) {
            fail_msg("case %zu: %s", i, events.data);
        }
        px_buf_free(&events);
    }
}

enum { BATCH = 3 };

static void open_shell(px_rewards **rewards, const char *script)
{
    static const char *command[] = {"sh", "-c", NULL, NULL};
    command[2] = script;
    px_reward_spec spec = {.name = "tone", .kind = PX_REWARD_EXEC, .command = command, .timeout_s = 1.0, .dir = directory};
    assert_int_equal(px_rewards_open(rewards, &spec, 1), PX_OK);
}

static px_status ask_batch(px_rewards *rewards, double *raw, px_buf *events)
{
    px_reward_sample samples[BATCH] = {{"p", "c", 1, "{}", 0}, {"p", "c", 1, "{}", 1}, {"p", "c", 1, "{}", 2}};
    px_buf_clear(events);
    return px_rewards_score(rewards, samples, BATCH, raw, events);
}

/* Answers each request with its id. */
#define ANSWER "while read -r l; do x=${l#*:}; x=${x%%,*}; echo \"{\\\"id\\\":$x,\\\"score\\\":$x}\"; done"

static void exec_starts_again_after_silence(void **state)
{
    (void)state;
    px_rewards *r;
    px_buf events = {0};
    double raw[BATCH], start = px_now();
    open_shell(&r, "if mkdir silent 2> /dev/null; then trap '' TERM HUP INT; for i in 0 1 2; do read a; echo \"{\\\"id\\\":$i,\\\"score\\\":5}\"; "
                   "done; echo stuck >&2; read a; sleep 100 & wait; fi; " ANSWER);
    assert_int_equal(ask_batch(r, raw, &events), PX_OK);
    near(raw[2], 5);
    start = px_now();
    assert_int_equal(ask_batch(r, raw, &events), PX_OK);
    assert_true(px_now() - start > 0.9 && px_now() - start < 3.0);
    assert_true(isnan(raw[0]) && isnan(raw[1]) && isnan(raw[2]));
    assert_non_null(strstr(events.data, "no reply within 1 s (each must be flushed): the program 'sh' was killed and was started again"));
    assert_non_null(strstr(events.data, "stuck"));
    assert_non_null(strstr(events.data, "sample 2: no reply"));
    for (int k = 2; k < 4; k++) {
        assert_int_equal(ask_batch(r, raw, &events), PX_OK);
        assert_int_equal(events.length, 0);
        near(raw[0], BATCH * k);
        near(raw[2], BATCH * k + 2);
    }
    px_rewards_close(r);
    px_buf_free(&events);
}

/* What never gave a reply is no program for scores; one that prints something else a request is known as such at once. */
static void exec_that_never_replies_is_refused(void **state)
{
    (void)state;
    static const char *const scripts[] = {"cat > /dev/null", "while read -r l; do echo fine; done; sleep 9"};
    static const char *const wants[] = {"answered none of 3 requests within 1 s", "it printed something that is no JSON object: \"fine\""};
    for (int i = 0; i < 2; i++) {
        px_rewards *r;
        px_buf events = {0};
        double raw[BATCH], start = px_now();
        open_shell(&r, scripts[i]);
        assert_int_equal(ask_batch(r, raw, &events), PX_DATA);
        assert_non_null(strstr(px_error_text(), wants[i]));
        assert_true(px_now() - start < 4.0);
        px_rewards_close(r);
        px_buf_free(&events);
    }
}

static void exec_starts_again_after_a_death(void **state)
{
    (void)state;
    px_rewards *r;
    px_buf events = {0};
    double raw[BATCH];
    open_shell(&r, "if mkdir tired 2> /dev/null; then read a; echo '{\"id\":0,\"score\":1}'; echo too tired; exit 4; fi; " ANSWER);
    assert_int_equal(ask_batch(r, raw, &events), PX_OK);
    assert_true(raw[0] == 1.0 && isnan(raw[1]) && isnan(raw[2]));
    assert_non_null(strstr(events.data, "ended with exit status 4 after 1 of 3 replies and was started again"));
    assert_non_null(strstr(events.data, "too tired"));
    assert_int_equal(ask_batch(r, raw, &events), PX_OK);
    near(raw[0], 3);
    near(raw[2], 5);
    px_rewards_close(r);
    px_buf_free(&events);
}

/* One process a batch: it is gone when the next batch comes, which loses nothing. */
static void exec_may_end_between_batches(void **state)
{
    (void)state;
    px_rewards *r;
    px_buf events = {0};
    double raw[BATCH];
    open_shell(&r, "for i in 1 2 3; do read -r l; x=${l#*:}; x=${x%%,*}; echo \"{\\\"id\\\":$x,\\\"score\\\":$x}\"; done");
    for (int k = 0; k < 4; k++) {
        assert_int_equal(ask_batch(r, raw, &events), PX_OK);
        near(raw[0], BATCH * k);
        near(raw[2], BATCH * k + 2);
        usleep(200000);
    }
    px_rewards_close(r);
    px_buf_free(&events);
}

static void exec_gives_up_after_starts_without_a_reply(void **state)
{
    (void)state;
    px_rewards *r;
    px_buf events = {0};
    double raw[BATCH], start = px_now();
    px_status status = PX_OK;
    int batches = 0;
    open_shell(&r, "mkdir first 2> /dev/null || { echo 'out of memory' >&2; exit 9; }; read a; echo '{\"id\":0,\"score\":1}'; exit 0");
    for (; status == PX_OK && batches < 10; batches++) {
        status = ask_batch(r, raw, &events);
    }
    assert_int_equal(status, PX_DATA);
    assert_in_range(batches, 2, 4);
    assert_non_null(strstr(px_error_text(), "exit status 9"));
    assert_non_null(strstr(px_error_text(), "out of memory"));
    assert_true(px_now() - start < 5.0);
    px_rewards_close(r);
    px_buf_free(&events);
}

/* Its standard error is passed on, and a program that talks much there is not held up by us, nor we by it. */
static void exec_may_talk_on_its_standard_error(void **state)
{
    (void)state;
    int kept = dup(STDERR_FILENO), out = open("/dev/null", O_WRONLY);
    double raw[BATCH];
    dup2(out, STDERR_FILENO);
    px_status status = ask_shell("read a; head -c 3000000 /dev/zero | tr '\\0' x >&2; echo '{\"id\":0,\"score\":1}';"
                                 "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo '{\"id\":1,\"score\":1}'; cat > /dev/null;"
                                 "head -c 3000000 /dev/zero | tr '\\0' x >&2", 2, raw, NULL);
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(out);
    assert_int_equal(status, PX_OK);
    assert_true(raw[0] == 1.0 && raw[1] == 1.0);
}

static void exec_refuses_programs_that_are_not_there(void **state)
{
    (void)state;
    double raw;
    const char *missing[] = {"no-such-program-anywhere", NULL}, *relative[] = {"./none.sh", NULL}, *empty[] = {NULL};
    assert_int_equal(ask(missing, 1, 1, &raw, NULL), PX_CONFIG);
    assert_non_null(strstr(px_error_text(), "no-such-program-anywhere"));
    assert_int_equal(ask(relative, 1, 1, &raw, NULL), PX_CONFIG);
    assert_int_equal(ask(empty, 1, 1, &raw, NULL), PX_CONFIG);
    write_file("bad-interpreter.sh", "#!/no/such/interpreter\n", true);
    const char *bad[] = {"./bad-interpreter.sh", NULL};
    assert_int_equal(ask(bad, 1, 1, &raw, NULL), PX_CONFIG);
    const char *fine[] = {"cat", NULL};
    assert_int_equal(ask(fine, 0, 1, &raw, NULL), PX_CONFIG);
}

/* Neither side may wait for the other: one program answers in small steps, one reads everything before it answers. */
static void exec_moves_ten_thousand_requests(void **state)
{
    (void)state;
    enum { COUNT = 10000 };
    const char *each = "while read -r l; do x=${l#*:}; x=${x%%,*};"
                       " printf '{\"id\": %s, \"score\": %s, \"pad\": \"%0200d\"}\\n' $x $x 0; done";
    const char *late = "i=0; while [ $i -lt 10000 ]; do read -r l; i=$((i + 1)); done; sleep 0.3;"
                       " while [ $i -gt 0 ]; do i=$((i - 1)); echo \"{\\\"id\\\": $i, \\\"score\\\": $i}\"; done; cat";
    const char *const scripts[] = {each, late};
    double *raw = calloc(COUNT, sizeof *raw);
    for (int k = 0; k < 2; k++) {
        const char *command[] = {"sh", "-c", scripts[k], NULL};
        assert_int_equal(ask(command, 20.0, COUNT, raw, NULL), PX_OK);
        for (int i = 0; i < COUNT; i++) {
            near(raw[i], i);
        }
    }
    free(raw);
}

/* A reply that comes after its batch was given up belongs to no sample of the next one. */
static void exec_knows_late_replies(void **state)
{
    (void)state;
    const char *script = "read a; echo '{\"id\":0,\"score\":1}'; sleep 1.3; echo '{\"id\":1,\"score\":2}'; read a;"
                         "read a; echo '{\"id\":2,\"score\":3}'; read a; echo '{\"id\":3,\"score\":4}';"
                         "cat > /dev/null";
    const char *command[] = {"sh", "-c", script, NULL};
    px_reward_spec spec = {.name = "tone", .kind = PX_REWARD_EXEC, .command = command, .timeout_s = 1.0, .dir = "/"};
    px_rewards *r;
    assert_int_equal(px_rewards_open(&r, &spec, 1), PX_OK);
    px_reward_sample samples[2] = {{"p", "c", 1, "{}", 0}, {"p", "c", 1, "{}", 0}};
    double raw[2];
    assert_int_equal(px_rewards_score(r, samples, 2, raw, NULL), PX_OK);
    assert_true(raw[0] == 1.0 && isnan(raw[1]));
    assert_int_equal(px_rewards_score(r, samples, 2, raw, NULL), PX_OK);
    near(raw[0], 3);
    near(raw[1], 4);
    px_rewards_close(r);
}

static void rows_of_models_stay(void **state)
{
    (void)state;
    px_reward_spec specs[2] = {{.name = "model", .kind = PX_REWARD_MODEL, .weight = 1.0},
                               {.name = "length", .kind = PX_REWARD_LENGTH, .weight = 0.5, .target = 2}};
    px_rewards *r;
    assert_int_equal(px_rewards_open(&r, specs, 2), PX_OK);
    assert_int_equal(px_rewards_count(r), 2);
    assert_string_equal(px_rewards_spec(r, 1)->name, "length");
    px_reward_sample samples[3] = {{"p", "c", 2, "{}", 0}, {"p", "c", 4, "{}", 0}, {"p", "c", 1, "{}", 0}};
    double raw[6] = {5, 6, 7, 0, 0, 0};
    assert_int_equal(px_rewards_score(r, samples, 3, raw, NULL), PX_OK);
    near(raw[0], 5);
    near(raw[2], 7);
    near(raw[3], 0);
    near(raw[4], -1);
    near(raw[5], -0.5);
    px_rewards_close(r);
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int nothing_left(void **state)
{
    (void)state;
    px_error_clear();
    return px_tree_remove(directory) == PX_OK && px_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lexicon_finds_whole_words),
        cmocka_unit_test(lexicon_reads_the_published_files),
        cmocka_unit_test(lexicon_refuses_bad_files),
        cmocka_unit_test(length_and_regex),
        cmocka_unit_test(patterns_on_long_completions),
        cmocka_unit_test(exact_compares_answers),
        cmocka_unit_test(exec_answers_in_any_order),
        cmocka_unit_test(exec_gets_whole_requests),
        cmocka_unit_test(exec_marks_missing_scores),
        cmocka_unit_test(exec_names_failures),
        cmocka_unit_test(exec_passes_over_stray_lines),
        cmocka_unit_test(exec_that_never_replies_is_refused),
        cmocka_unit_test(exec_starts_again_after_silence),
        cmocka_unit_test(exec_starts_again_after_a_death),
        cmocka_unit_test(exec_may_end_between_batches),
        cmocka_unit_test(exec_gives_up_after_starts_without_a_reply),
        cmocka_unit_test(exec_may_talk_on_its_standard_error),
        cmocka_unit_test(exec_refuses_programs_that_are_not_there),
        cmocka_unit_test(exec_moves_ten_thousand_requests),
        cmocka_unit_test(exec_knows_late_replies),
        cmocka_unit_test(rows_of_models_stay),
    };
    return cmocka_run_group_tests(tests, make_directory, nothing_left);
}
