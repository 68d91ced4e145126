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
#include <zlib.h>
#include <zstd.h>

static char dir[64];

static const char *put(const char *name, const void *bytes, size_t length)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(px_file_write(path, bytes, length), PX_OK);
    return path;
}

static const char *put_text(const char *name, const char *text)
{
    return put(name, text, strlen(text));
}

/* What arrives: "record@line:json|" for each. */
static px_status collect(void *arg, int64_t record, int64_t line, const char *json, size_t length)
{
    assert_int_equal(json[length], '\0');
    return px_buf_printf(arg, "%lld@%lld:%s|", (long long)record, (long long)line, json);
}

static void expect(const char *path, const char *wanted)
{
    px_buf got = {0};
    px_status status = px_records_each(path, collect, &got);
    if (status != PX_OK) fail_msg("%s", px_error_text());
    assert_string_equal(got.data, wanted);
    px_buf_free(&got);
}

static void expect_refused(const char *path, px_status code, const char *part)
{
    px_buf got = {0};
    assert_int_equal(px_records_each(path, collect, &got), code);
    if (!strstr(px_error_text(), part)) fail_msg("'%s' does not say '%s'", px_error_text(), part);
    if (!strstr(px_error_text(), path)) fail_msg("'%s' does not name %s", px_error_text(), path);
    px_buf_free(&got);
}

static void lines(void **state)
{
    (void)state;
    expect(put_text("a.jsonl", "{\"a\":1}\n\n  {\"b\":2}\r\n{\"c\":3}"), "0@1:{\"a\":1}|1@3:{\"b\":2}|2@4:{\"c\":3}|");
    expect(put_text("bom.jsonl", "\xef\xbb\xbf{\"a\":1}\n"), "0@1:{\"a\":1}|");
    expect(put_text("wrong-name.json", "\n{\"a\":1}\n{\"b\":2}\n"), "0@2:{\"a\":1}|1@3:{\"b\":2}|");
}

static void arrays(void **state)
{
    (void)state;
    expect(put_text("a.json", "[{\"a\":\"]},{\\\"\"},\n {\"b\":[{}, []]}]\n"),
           "0@1:{\"a\":\"]},{\\\"\"}|1@2:{\"b\":[{}, []]}|");
    expect(put_text("one.json", "[\n{\"a\":\n1}\n]"), "0@2:{\"a\":\n1}|");
    expect_refused(put_text("open.json", "[{\"a\":1},\n{\"b\""), PX_DATA, ":2: the array is not closed");
    expect_refused(put_text("unclosed.json", "[{\"a\":1}"), PX_DATA, "not closed");
    expect_refused(put_text("numbers.json", "[\n1]"), PX_DATA, ":2: '1' where an object is due");
    expect_refused(put_text("comma.json", "[{\"a\":1},]"), PX_DATA, "']' where an object is due");
    expect_refused(put_text("no-comma.json", "[{\"a\":1}{\"b\":1}]"), PX_DATA, "',' or ']' is due");
    expect_refused(put_text("tail.json", "[{\"a\":1}]x"), PX_DATA, "'x' where the end of the file is due");
    expect_refused(put_text("empty.json", "[]"), PX_DATA, "no records");
    expect(put_text("array.jsonl", "[{\"a\":1},\n{\"b\":2}]"), "0@1:{\"a\":1}|1@2:{\"b\":2}|");
}

static void objects_over_several_lines(void **state)
{
    (void)state;
    expect(put_text("one.json", "{\n \"a\": [\"}\",\n \"\\\"{\"]\n}\n"), "0@1:{\n \"a\": [\"}\",\n \"\\\"{\"]\n}|");
    expect(put_text("two.jsonl", "{\n\"a\":1}\n\n{\"b\":\n2} {}"), "0@1:{\n\"a\":1}|1@4:{\"b\":\n2}|2@5:{}|");
    expect_refused(put_text("cut.jsonl", "{\n\"a\":1}\n{\n\"b\":"), PX_DATA, "cut.jsonl:3: the object that begins here");
    expect_refused(put_text("comma.jsonl", "{\n\"a\":1},\n{}"), PX_DATA, "comma.jsonl:2: ',' where an object is due");
    /* one that is open inside a string is a line that was cut */
    expect(put_text("line.jsonl", "{\"a\":\"x\n{\"b\":2}"), "0@1:{\"a\":\"x|1@2:{\"b\":2}|");
}

static void wrapped_arrays(void **state)
{
    (void)state;
    expect(put_text("w.json", "{\"data\":[{\"a\":1},{\"b\":2}]}"), "0@1:{\"a\":1}|1@1:{\"b\":2}|");
    expect(put_text("v.json", "{\"version\": \"data\",\n \"n\": {\"data\": []},\n \"data\": [\n {\"a\":1}],\n \"x\": [{}]\n}\n"),
           "0@4:{\"a\":1}|");
    expect_refused(put_text("cut.json", "{\"data\":[{\"a\":1},"), PX_DATA, "not closed");
    /* a field of a record, not of the file */
    expect(put_text("r.jsonl", "{\"a\":{\"data\":[{\"b\":1}]}}\n"), "0@1:{\"a\":{\"data\":[{\"b\":1}]}}|");
}

static void paragraphs(void **state)
{
    (void)state;
    expect(put_text("a.txt", "one \"two\"\nthree\\\r\n \t\r\n\n\nfour\tfive\n"),
           "0@1:{\"text\": \"one \\\"two\\\"\\nthree\\\\\"}|1@6:{\"text\": \"four\\tfive\"}|");
}

static void names_that_say_nothing(void **state)
{
    (void)state;
    expect_refused("no-such-file.jsonl", PX_IO, "No such file");
    expect_refused(put_text("a.parquet", "PAR1"), PX_DATA, "pd.read_parquet(");
    expect_refused(put_text("b.jsonl", "PAR1\x15\x04\x15"), PX_DATA, "pd.read_parquet(");
    expect_refused(put_text("b.txt", "PAR1\x15\x04\x15"), PX_DATA, "b.txt");
    expect_refused(put_text("b.json", "ARROW1"), PX_DATA, "pd.read_feather(");
    expect_refused(put_text("a.arrow", "ARROW1"), PX_DATA, "pd.read_feather(");
    expect_refused(put_text("a.csv", "a,b"), PX_DATA, "orient='records', lines=True");
    expect_refused(put_text("a.dat", "x"), PX_DATA, "valid are .jsonl");
    expect_refused(dir, PX_DATA, "valid");
    char sub[80];
    snprintf(sub, sizeof sub, "%s/folder.jsonl", dir);
    assert_int_equal(px_dir_create(sub), PX_OK);
    expect_refused(sub, PX_DATA, "is a directory");
}

static void bad_bytes(void **state)
{
    (void)state;
    expect_refused(put("nul.jsonl", "{\"a\":1}\n{\"b\":\0 1}\n", 19), PX_DATA,
                   "nul.jsonl:2: byte 6 of the record is NUL");
    expect_refused(put_text("latin1.jsonl", "{\"a\":1}\n{\"a\":\"caf\xe9\"}\n"), PX_DATA, "latin1.jsonl:2: byte 10");
    expect_refused(put_text("cut.txt", "one\n\ntwo\nthr\xc3\n"), PX_DATA, "cut.txt:4:");
    expect_refused(put_text("empty.jsonl", ""), PX_DATA, "no records");
    expect_refused(put_text("blank.txt", "\n \n\n"), PX_DATA, "no records");
}

static void put_gzip(const char *name, const char *text, int copies)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (int i = 0; i < copies; i++) {
        gzFile file = gzopen(path, i ? "ab" : "wb");
        assert_int_equal(gzwrite(file, text, (unsigned)strlen(text)), strlen(text));
        gzclose(file);
    }
}

static void gzip(void **state)
{
    (void)state;
    char path[128];
    put_gzip("a.jsonl.gz", "{\"a\":1}\n", 2); /* two members, as cat makes them */
    snprintf(path, sizeof path, "%s/a.jsonl.gz", dir);
    expect(path, "0@1:{\"a\":1}|1@2:{\"a\":1}|");
    px_buf bytes = {0};
    assert_int_equal(px_file_read(path, PX_TEXT_MOST, &bytes), PX_OK);
    expect_refused(put("short.jsonl.gz", bytes.data, bytes.length / 2 - 3), PX_DATA, "ends early");
    bytes.data[12] ^= 0x55;
    expect_refused(put("broken.jsonl.gz", bytes.data, bytes.length), PX_DATA, "gzip");
    px_buf_free(&bytes);
}

static void zstd(void **state)
{
    (void)state;
    const char *text = "{\"a\":1}\n{\"b\":2}\n";
    char packed[256];
    size_t n = ZSTD_compress(packed, sizeof packed, text, strlen(text), 1);
    assert_false(ZSTD_isError(n));
    expect(put("a.jsonl.zst", packed, n), "0@1:{\"a\":1}|1@2:{\"b\":2}|");
    expect_refused(put("short.jsonl.zst", packed, n - 2), PX_DATA, "ends early");
    memset(packed + 5, 0xff, n - 5);
    expect_refused(put("broken.jsonl.zst", packed, n), PX_DATA, "zstd");
}

/* Pieces of 256 KiB must not show: a record of 700 KB with a character on each side of every border. */
static void long_records(void **state)
{
    (void)state;
    size_t n = 700000;
    char *text = malloc(n + 32);
    strcpy(text, "{\"a\":\"");
    for (size_t i = 6; i < n; i += 2) memcpy(text + i, "\xc3\xa9", 2);
    strcpy(text + n, "\"}\n{\"b\":2}\n");
    put_gzip("long.jsonl.gz", text, 1);
    const char *path = put_text("long.jsonl", text);
    text[n + 2] = '\0';
    px_buf wanted = {0}, got = {0};
    assert_int_equal(px_buf_printf(&wanted, "0@1:%s|1@2:{\"b\":2}|", text), PX_OK);
    assert_int_equal(px_records_each(path, collect, &got), PX_OK);
    assert_string_equal(got.data, wanted.data);
    px_buf_clear(&got);
    char zipped[128];
    snprintf(zipped, sizeof zipped, "%s/long.jsonl.gz", dir);
    assert_int_equal(px_records_each(zipped, collect, &got), PX_OK);
    assert_string_equal(got.data, wanted.data);
    px_buf_free(&wanted);
    px_buf_free(&got);
    free(text);
}

static void a_line_of_more_than_64_mib_is_refused(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/huge.jsonl.gz", dir); /* 65 MB of one letter are 65 KB of gzip */
    gzFile file = gzopen(path, "wb1");
    char *piece = malloc(1 << 20);
    memset(piece, 'x', 1 << 20);
    gzputs(file, "{}\n");
    for (int i = 0; i < 65; i++) gzwrite(file, piece, 1 << 20);
    gzclose(file);
    free(piece);
    expect_refused(path, PX_DATA, ":2: one record of more than 64 MiB");
    unlink(path);
}

static px_status stop_at_two(void *arg, int64_t record, int64_t line, const char *json, size_t length)
{
    (void)line, (void)json, (void)length;
    ++*(int *)arg;
    return record == 1 ? px_fail(PX_DATA, "enough") : PX_OK;
}

static void the_callers_status_ends_it(void **state)
{
    (void)state;
    int calls = 0;
    assert_int_equal(px_records_each(put_text("three.jsonl", "{}\n{}\n{}\n"), stop_at_two, &calls), PX_DATA);
    assert_int_equal(calls, 2);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/phalanx-records-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    size_t live = px_alloc_live();
    px_tree_remove(dir);
    return live == 0 ? 0 : -1; /* nothing is left behind, after errors neither */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),        cmocka_unit_test(arrays),
        cmocka_unit_test(objects_over_several_lines), cmocka_unit_test(wrapped_arrays),
        cmocka_unit_test(paragraphs),   cmocka_unit_test(names_that_say_nothing),
        cmocka_unit_test(bad_bytes),    cmocka_unit_test(gzip),
        cmocka_unit_test(zstd),         cmocka_unit_test(long_records),
        cmocka_unit_test(a_line_of_more_than_64_mib_is_refused),
        cmocka_unit_test(the_callers_status_ends_it),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
