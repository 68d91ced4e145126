/* Checkpoints: what is loaded is what was saved, damage is recognised before anything is opened, and whatever step of a
 * commit fails, the old state or the new one is there. */
#include "phalanx/store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];

#define assert_ok(call)                                                                                             \
    do {                                                                                                           \
        if ((call) != PX_OK) fail_msg("%s", px_error_text());                                                      \
    } while (0)

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_checkpoint_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

enum { COUNT = 1000 };
typedef struct content {
    float moments[COUNT];
    double sums[3][4];
    int64_t cursor[2];
    uint16_t half[5];
} content;

static void fill(content *c, int seed)
{
    for (int i = 0; i < COUNT; i++) c->moments[i] = (float)(seed * i) * 0.37f;
    for (int i = 0; i < 12; i++) c->sums[i / 4][i % 4] = seed + i * 1e-9;
    c->cursor[0] = INT64_MAX - seed;
    c->cursor[1] = seed;
    for (int i = 0; i < 5; i++) c->half[i] = (uint16_t)(0x3f80 + i + seed);
}

enum { ARRAYS = 4 };
static void describe(content *c, px_array arrays[ARRAYS])
{
    const px_array all[ARRAYS] = {
        {.name = "optimizer/m", .dtype = PX_F32, .dims = 1, .shape = {COUNT}, .data = c->moments},
        {.name = "sums", .dtype = PX_F64, .dims = 2, .shape = {3, 4}, .data = c->sums},
        {.name = "cursor", .dtype = PX_I64, .dims = 1, .shape = {2}, .data = c->cursor},
        {.name = "half", .dtype = PX_BF16, .dims = 1, .shape = {5}, .data = c->half}};
    memcpy(arrays, all, sizeof all);
}

static int64_t fence;

static px_status save(const char *where, const char *name, int64_t iteration)
{
    static content data;
    px_array arrays[ARRAYS];
    px_checkpoint_writer writer;
    char path[PX_PATH_MAX];
    const px_attribute attributes[] = {{.name = "iteration", .type = 'i', .i = iteration},
                                       {.name = "kl_coeff", .type = 'f', .f = 0.1 * (double)iteration},
                                       {.name = "stage", .type = 's', .s = "ppo"}};
    fill(&data, (int)iteration);
    describe(&data, arrays);
    PX_TRY(px_checkpoint_begin(&writer, where, name));
    PX_TRY(px_path_join(path, sizeof path, writer.path, "policy"));
    PX_TRY(px_dir_create(path));
    PX_TRY(px_path_join(path, sizeof path, writer.path, "policy/model.safetensors"));
    PX_TRY(px_file_write(path, data.moments, sizeof data.moments));
    PX_TRY(px_path_join(path, sizeof path, writer.path, "empty"));
    PX_TRY(px_file_write(path, "", 0));
    PX_TRY(px_checkpoint_state(&writer, arrays, ARRAYS, attributes, 3));
    return px_checkpoint_commit(&writer, iteration, fence, NULL);
}

static px_status load(const char *where, int64_t *iteration)
{
    content data, expected;
    px_array arrays[ARRAYS];
    px_attribute attributes[] = {{.name = "iteration", .type = 'i'}, {.name = "kl_coeff", .type = 'f'},
                                 {.name = "stage", .type = 's'}};
    PX_TRY(px_checkpoint_verify(where, iteration));
    memset(&data, 0xee, sizeof data);
    describe(&data, arrays);
    PX_TRY(px_checkpoint_load_state(where, arrays, ARRAYS, attributes, 3));
    memset(&expected, 0xee, sizeof expected);
    fill(&expected, (int)*iteration);
    assert_memory_equal(&data, &expected, sizeof data);
    assert_int_equal(attributes[0].i, *iteration);
    assert_true(attributes[1].f == 0.1 * (double)*iteration);
    assert_string_equal(attributes[2].s, "ppo");
    px_free((void *)(uintptr_t)attributes[2].s);
    return PX_OK;
}

static int64_t latest(const char *name)
{
    char path[PX_PATH_MAX], want[PX_PATH_MAX];
    int64_t iteration = -1, again = -1;
    bool found = false;
    int damaged;
    assert_ok(px_checkpoint_latest(dir, path, sizeof path, &iteration, &found, &damaged, NULL));
    if (!found) return -1;
    assert_ok(load(path, &again));
    assert_int_equal(again, iteration);
    if (name) {
        assert_ok(px_path_join(want, sizeof want, dir, name));
        assert_string_equal(path, want);
    }
    return iteration;
}

static void test_round_trip(void **state)
{
    (void)state;
    size_t before = px_alloc_live();
    assert_int_equal(latest(NULL), -1);
    assert_ok(save(dir, "checkpoint_000003", 3));
    assert_int_equal(latest("checkpoint_000003"), 3);
    assert_ok(save(dir, "recovery_a", 5));
    assert_ok(save(dir, "recovery_b", 4));
    assert_int_equal(latest("recovery_a"), 5);
    assert_ok(save(dir, "recovery_b", 6)); /* over the older one */
    assert_int_equal(latest("recovery_b"), 6);
    assert_ok(save(dir, "checkpoint_000006", 6));
    assert_int_equal(latest("checkpoint_000006"), 6);
    assert_ok(save(dir, "checkpoint_1000000", 1000000));
    assert_int_equal(latest("checkpoint_1000000"), 1000000);
    assert_ok(save(dir, "other", 7));
    assert_ok(save(dir, "checkpoint_12345x", 2000000));
    assert_int_equal(latest("checkpoint_1000000"), 1000000);
    assert_ok(px_checkpoint_mark_latest(dir, "checkpoint_000006"));
    assert_int_equal(px_alloc_live(), before);
}

/* The manifest's hashes are plain xxh3 of the files, which other programs can check. */
static void test_hash(void **state)
{
    (void)state;
    json_t *manifest;
    char path[PX_PATH_MAX], text[17];
    uint64_t hash;
    int64_t bytes;
    assert_ok(save(dir, "recovery_a", 1));
    assert_ok(px_path_join(path, sizeof path, dir, "recovery_a/MANIFEST.json"));
    assert_ok(px_json_read(path, &manifest));
    static const char *const files[] = {"state.h5", "policy/model.safetensors", "empty"};
    assert_int_equal(json_object_size(json_object_get(manifest, "files")), 3);
    for (int i = 0; i < 3; i++) {
        json_t *entry = json_object_get(json_object_get(manifest, "files"), files[i]);
        snprintf(path, sizeof path, "%s/recovery_a/%s", dir, files[i]);
        assert_ok(px_hash_file(path, &hash, &bytes));
        snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
        assert_string_equal(json_string_value(json_object_get(entry, "xxh3")), text);
        assert_int_equal(json_integer_value(json_object_get(entry, "bytes")), bytes);
    }
    json_decref(manifest);
}

/* The state is refused when it is not what is asked for. */
static void test_mismatch(void **state)
{
    (void)state;
    static content data;
    char path[PX_PATH_MAX];
    px_array arrays[ARRAYS];
    assert_ok(save(dir, "recovery_a", 1));
    assert_ok(px_path_join(path, sizeof path, dir, "recovery_a"));
    describe(&data, arrays);
    arrays[0].shape[0] = COUNT - 1;
    assert_int_equal(px_checkpoint_load_state(path, arrays, ARRAYS, NULL, 0), PX_DATA);
    assert_non_null(strstr(px_error_text(), "optimizer/m"));
    describe(&data, arrays);
    arrays[3].dtype = PX_F16; /* the same bits in the file, another meaning */
    assert_int_equal(px_checkpoint_load_state(path, arrays, ARRAYS, NULL, 0), PX_DATA);
    describe(&data, arrays);
    arrays[2].name = "nothing";
    assert_int_equal(px_checkpoint_load_state(path, arrays, ARRAYS, NULL, 0), PX_DATA);
    assert_non_null(strstr(px_error_text(), "nothing"));
    px_attribute attribute = {.name = "kl_coeff", .type = 'i'};
    assert_int_equal(px_checkpoint_load_state(path, NULL, 0, &attribute, 1), PX_DATA);
    attribute.name = "absent";
    assert_int_equal(px_checkpoint_load_state(path, NULL, 0, &attribute, 1), PX_DATA);
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static long size_of(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return (long)info.st_size;
}

static void flip(const char *path, long at)
{
    int fd = open(path, O_RDWR);
    unsigned char byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void test_damage(void **state)
{
    (void)state;
    static const char *const files[] = {"state.h5", "policy/model.safetensors", "MANIFEST.json"};
    int64_t iteration;
    char path[PX_PATH_MAX], checkpoint[PX_PATH_MAX];
    assert_ok(save(dir, "recovery_a", 8));
    assert_ok(px_path_join(checkpoint, sizeof checkpoint, dir, "recovery_a"));
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        assert_ok(px_path_join(path, sizeof path, checkpoint, files[f]));
        long size = size_of(path), step = size / 150 + 1;
        for (long at = 0; at < size; at += step) {
            flip(path, at);
            px_status status = px_checkpoint_verify(checkpoint, &iteration);
            if (status == PX_OK) {
                /* White space of the manifest alone may change without a trace. */
                assert_string_equal(files[f], "MANIFEST.json");
                assert_int_equal(iteration, 8);
            } else {
                assert_int_equal(status, PX_DATA);
                assert_non_null(strstr(px_error_text(), files[f]));
            }
            flip(path, at);
            assert_ok(px_checkpoint_verify(checkpoint, &iteration));
        }
    }
    px_error_clear();
}

/* Torn, missing and swapped files; the search goes on to the older one and says why. */
static void test_torn(void **state)
{
    (void)state;
    static const char *const files[] = {"state.h5", "policy/model.safetensors", "MANIFEST.json"};
    char path[PX_PATH_MAX];
    assert_ok(save(dir, "checkpoint_000001", 1));
    for (size_t f = 0; f < 2 * sizeof files / sizeof *files; f++) {
        px_buf skipped = {0};
        int64_t iteration;
        bool found;
        int damaged;
        assert_ok(save(dir, "recovery_a", 2));
        assert_int_equal(latest("recovery_a"), 2);
        snprintf(path, sizeof path, "%s/recovery_a/%s", dir, files[f / 2]);
        if (f % 2) {
            assert_int_equal(truncate(path, size_of(path) / 2), 0);
        } else {
            assert_int_equal(unlink(path), 0);
        }
        assert_ok(px_checkpoint_latest(dir, path, sizeof path, &iteration, &found, &damaged, &skipped));
        assert_true(found);
        assert_int_equal(damaged, 1);
        assert_int_equal(iteration, 1);
        assert_non_null(strstr(skipped.data, "recovery_a: "));
        px_buf_free(&skipped);
    }
    assert_string_equal(px_error_text(), "");
    snprintf(path, sizeof path, "%s/checkpoint_000001/policy/model.safetensors", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(latest(NULL), -1);
}

/* A directory of the checkpoint that is a link to one outside is refused, though all in it is as the manifest says. */
static void test_directory_outside(void **state)
{
    (void)state;
    char path[PX_PATH_MAX], outside[PX_PATH_MAX];
    int64_t iteration;
    assert_ok(save(dir, "checkpoint_000001", 1));
    snprintf(path, sizeof path, "%s/checkpoint_000001/policy", dir);
    snprintf(outside, sizeof outside, "%s/elsewhere", dir);
    assert_int_equal(rename(path, outside), 0);
    assert_int_equal(symlink("../elsewhere", path), 0);
    snprintf(path, sizeof path, "%s/checkpoint_000001", dir);
    assert_int_equal(px_checkpoint_verify(path, &iteration), PX_DATA);
    assert_non_null(strstr(px_error_text(), "is no directory of the checkpoint's own"));
    px_error_clear();
}

/* ---- who may publish ----------------------------------------------------------------------------------------------- */

/* A start of the run: a row of /segments, which continues from `start`. */
static void begin_segment(int64_t start)
{
    char path[PX_PATH_MAX];
    px_run_file *file;
    const px_run_header header = {.run_name = "x", .algorithm = "ppo", .config_hash = "", .yaml = "", .source = ""};
    const px_segment segment = {.first_iteration = start + 1, .num_ranks = 1, .job_id = "", .commit = ""};
    const px_rank_entry rank = {.host = "", .role = ""};
    assert_ok(px_path_join(path, sizeof path, dir, "run.h5"));
    assert_ok(px_run_file_open(&file, path, &header, true, start, &segment, &rank, 1));
    fence = px_run_file_segment(file);
    assert_ok(px_run_file_close(file, start, 0, "", false));
}

/* A writer that was taken for dead publishes after its successor has begun: the run goes on without that. */
static void test_late(void **state)
{
    (void)state;
    px_buf skipped = {0};
    char path[PX_PATH_MAX];
    int64_t iteration;
    bool found;
    int damaged;
    begin_segment(0);
    assert_ok(save(dir, "recovery_a", 4));
    assert_int_equal(latest(NULL), 4);
    begin_segment(4);
    assert_int_equal(fence, 1);
    assert_int_equal(latest(NULL), 4);
    fence = 0;
    assert_ok(save(dir, "recovery_b", 5)); /* the old one, late */
    assert_ok(px_checkpoint_latest(dir, path, sizeof path, &iteration, &found, &damaged, &skipped));
    assert_true(found && iteration == 4 && damaged == 0);
    assert_non_null(strstr(skipped.data, "recovery_b: "));
    assert_non_null(strstr(skipped.data, "segment 1"));
    fence = 1;
    assert_ok(save(dir, "recovery_b", 5));
    assert_int_equal(latest("recovery_b"), 5);
    px_buf_free(&skipped);
    fence = 0;
}

/* A lock that was taken over keeps a finished directory from its name. */
static void test_lost_lock(void **state)
{
    (void)state;
    px_checkpoint_writer writer;
    px_lock *lock;
    char path[PX_PATH_MAX];
    assert_ok(px_lock_take(&lock, dir));
    assert_ok(save(dir, "recovery_a", 1));
    assert_ok(px_checkpoint_begin(&writer, dir, "recovery_a"));
    assert_ok(px_path_join(path, sizeof path, dir, "lock"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(px_checkpoint_commit(&writer, 2, 0, lock), PX_IO);
    assert_int_equal(latest("recovery_a"), 1);
    px_lock_release(lock);
    px_error_clear();
}

static bool is_two(void *arg, int64_t iteration)
{
    (void)arg;
    return iteration == 2;
}

static void test_prune(void **state)
{
    (void)state;
    static const int numbers[] = {0, 2, 3, 7, 1000000};
    char name[64], path[PX_PATH_MAX];
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "checkpoint_%06d", numbers[i]);
        assert_ok(save(dir, name, numbers[i]));
    }
    assert_ok(save(dir, "recovery_a", 1));
    assert_ok(px_checkpoint_prune(dir, 2, is_two, NULL));
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/checkpoint_%06d", dir, numbers[i]);
        assert_int_equal(px_dir_exists(path), numbers[i] == 2 || numbers[i] >= 7);
    }
    snprintf(path, sizeof path, "%s/recovery_a", dir);
    assert_true(px_dir_exists(path));
}

/* A manifest that names files outside, though its own hash is right. */
static void test_foreign_manifest(void **state)
{
    (void)state;
    static const char *const names[] = {"../x", "/etc/passwd", "a/../../x", "", ".."};
    int64_t iteration;
    char path[PX_PATH_MAX], text[512], body[400];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(
            body, sizeof body,
            "{\"files\":{\"%s\":{\"bytes\":0,\"xxh3\":\"0\"}},\"format\":\"phalanx-checkpoint\",\"format_version\":1,"
            "\"iteration\":1",
            names[i]);
        snprintf(text, sizeof text, "%s}", body);
        unsigned long long hash = px_hash(text, strlen(text), 0);
        snprintf(text, sizeof text, "%s,\"xxh3\":\"%016llx\"}", body, hash);
        assert_ok(px_path_join(path, sizeof path, dir, "MANIFEST.json"));
        assert_ok(px_file_write(path, text, strlen(text)));
        assert_int_equal(px_checkpoint_verify(dir, &iteration), PX_DATA);
        assert_non_null(strstr(px_error_text(), "impossible entry"));
    }
    px_error_clear();
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

/* PHALANX_FAULT is read once in a process: the save that fails is another run of this program. */
static int save_with_fault(const char *site, int pass, const char *iteration)
{
    char fault[64];
    int status = 0;
    snprintf(fault, sizeof fault, "%s:%d:-1", site, pass);
    pid_t child = fork();
    if (child == 0) {
        setenv("PHALANX_FAULT", fault, 1);
        execl("/proc/self/exe", "test_checkpoint", "--save", dir, iteration, (char *)NULL);
        _exit(127);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_faults(void **state)
{
    (void)state;
    static const char *const sites[] = {"store.begin", "store.create", "store.attribute", "store.state", "store.hash",
                                        "store.fsync", "store.manifest", "store.dirsync", "store.rename"};
    int tried = 0;
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        int code = PX_IO;
        for (int pass = 1; code != PX_OK; pass++) {
            assert_ok(save(dir, "recovery_a", 1));
            assert_int_equal(latest("recovery_a"), 1);
            code = save_with_fault(sites[i], pass, "2");
            int64_t now = latest(NULL);
            if (code == PX_OK) {
                assert_int_equal(now, 2);
                if (pass == 1) fail_msg("%s is never passed", sites[i]);
            } else {
                assert_int_equal(code, PX_IO);
                if (now != 1 && now != 2) fail_msg("%s pass %d: state %d", sites[i], pass, (int)now);
                tried++;
            }
            /* And the next attempt succeeds whatever was left. */
            assert_ok(save(dir, "recovery_a", 3));
            assert_int_equal(latest("recovery_a"), 3);
        }
    }
    assert_true(tried > 15);
}

/* A replaced checkpoint that cannot be removed is no failure of the one that took its name, nor of the next. */
static void test_old_stays(void **state)
{
    (void)state;
    char old[400];
    snprintf(old, sizeof old, "%s/recovery_a.old", dir);
    assert_ok(save(dir, "recovery_a", 1));
    assert_int_equal(save_with_fault("store.remove", 1, "2"), PX_OK);
    assert_true(px_dir_exists(old));
    assert_int_equal(latest("recovery_a"), 2);
    assert_int_equal(save_with_fault("store.remove", 1, "3"), PX_OK); /* still held: it makes room, and stays elsewhere */
    assert_int_equal(latest("recovery_a"), 3);
    assert_false(px_dir_exists(old));
    assert_ok(px_temporaries_remove(dir));
    assert_ok(save(dir, "recovery_a", 4));
    assert_int_equal(latest("recovery_a"), 4);
    assert_false(px_dir_exists(old));
}

/* SIGKILL at many moments of an endless series of saves. */
static void test_kill(void **state)
{
    (void)state;
    int64_t before = 1;
    volatile int64_t *saved = mmap(NULL, sizeof *saved, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(saved != MAP_FAILED);
    assert_ok(save(dir, "recovery_a", 1));
    for (int round = 0; round < 25; round++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (int i = (int)before + 1; i < 1000000; i++) {
                if (save(dir, "recovery_a", i) != PX_OK) _exit(1);
                *saved = i;
            }
            _exit(0);
        }
        /* Every third is killed early, the others after a save or two. */
        for (int wait_ms = 0; round % 3 && *saved < before + round % 3 && wait_ms < 5000; wait_ms++) usleep(1000);
        usleep((useconds_t)((round * 7919) % 20000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        int64_t now = latest(NULL);
        if (now < *saved || now < before) {
            fail_msg("round %d: iteration %d, %d was saved", round, (int)now, (int)*saved);
        }
        before = now;
    }
    assert_true(before > 10);
    munmap((void *)(uintptr_t)saved, sizeof *saved);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--save") == 0) return save(argv[2], "recovery_a", atoi(argv[3]));
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {TEST(test_round_trip), TEST(test_hash), TEST(test_mismatch),
                                       TEST(test_damage),     TEST(test_torn), TEST(test_foreign_manifest),
                                       TEST(test_faults), TEST(test_old_stays), TEST(test_kill), TEST(test_late),
                                       TEST(test_lost_lock),  TEST(test_prune), TEST(test_directory_outside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
