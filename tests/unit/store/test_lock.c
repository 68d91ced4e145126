/* The lock of a run directory: the living keep it, the dead lose it, and only one of many starters wins. */
#include "phalanx/store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char dir[256], path[300];

#define assert_ok(call)                                                                                             \
    do {                                                                                                           \
        if ((call) != PX_OK) fail_msg("%s", px_error_text());                                                      \
    } while (0)

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_lock_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/lock", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

static bool can_take(void)
{
    px_lock *lock;
    px_status status = px_lock_take(&lock, dir);
    if (status == PX_OK) {
        assert_ok(px_lock_check(lock));
        px_lock_release(lock);
        assert_false(px_file_exists(path));
    } else {
        assert_int_equal(status, PX_CONFIG);
        assert_null(lock);
    }
    return status == PX_OK;
}

static char here[128]; /* what locks of this machine say of it */

/* A lock as another run may have left it. host NULL: this one. */
static void leave_at(const char *place, const char *host, long pid, long long start, double heartbeat)
{
    char text[512], name[256] = {0};
    gethostname(name, sizeof name - 1);
    int length = snprintf(text, sizeof text,
                          "{\"heartbeat\": %16.3f, \"host\": \"%s\", \"place\": \"%s\", \"pid\": %ld, \"start\": %lld, "
                          "\"job_id\": \"\", \"token\": \"abc\"}\n", heartbeat, host ? host : name, place, pid, start);
    assert_ok(px_file_write(path, text, (size_t)length));
}

static void leave(const char *host, long pid, long long start, double heartbeat)
{
    leave_at(here, host, pid, start, heartbeat);
}

static long long my_start(void)
{
    json_t *json;
    px_lock *lock;
    assert_ok(px_lock_take(&lock, dir));
    assert_ok(px_json_read(path, &json));
    long long start = json_integer_value(json_object_get(json, "start"));
    snprintf(here, sizeof here, "%s", json_string_value(json_object_get(json, "place")));
    assert_true(here[0] != '\0');
    assert_int_equal(json_integer_value(json_object_get(json, "pid")), getpid());
    assert_true(px_wall_time() - json_number_value(json_object_get(json, "heartbeat")) < 10);
    json_decref(json);
    px_lock_release(lock);
    return start;
}

static void test_living(void **state)
{
    (void)state;
    px_lock *lock;
    assert_true(my_start() > 0);
    assert_ok(px_lock_take(&lock, dir));
    assert_false(can_take());
    assert_non_null(strstr(px_error_text(), path));
    px_lock_release(lock);
    assert_true(can_take());
    leave(NULL, getpid(), my_start(), 0); /* this host: the process decides, however old the heartbeat */
    assert_false(can_take());
}

static void test_dead(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        px_lock *lock;
        raise(px_lock_take(&lock, dir) == PX_OK ? SIGKILL : SIGTERM);
    }
    int status = 0;
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    assert_true(px_file_exists(path));
    assert_true(can_take()); /* a zombie is dead */
    waitpid(child, &status, 0);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    my_start();
    leave(NULL, child, 0, px_wall_time());
    double begin = px_now();
    assert_true(can_take());
    assert_true(px_now() - begin < 0.5); /* it was not watched */
}

/* It was killed, and giving back its memory takes longer than the next one takes to look at the lock. */
static void test_dying(void **state)
{
    (void)state;
    enum { BYTES = 512 << 20 };
    for (int turn = 0; turn < 3; turn++) {
        pid_t child = fork();
        if (child == 0) {
            px_lock *lock;
            char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            madvise(memory, BYTES, MADV_NOHUGEPAGE);
            for (size_t at = 0; memory != MAP_FAILED && at < BYTES; at += 4096) memory[at] = 1;
            if (px_lock_take(&lock, dir) == PX_OK) pause();
            _exit(1);
        }
        for (int i = 0; i < 5000 && !px_file_exists(path); i++) usleep(1000);
        assert_true(px_file_exists(path));
        kill(child, SIGKILL);
        assert_true(can_take());
        waitpid(child, NULL, 0);
    }
}

/* Another process got the number of the dead one. */
static void test_pid_reuse(void **state)
{
    (void)state;
    leave(NULL, getpid(), my_start() - 100, px_wall_time());
    assert_true(can_take());
}

/* Changes the lock every 50 ms, as the process that it names would. */
static pid_t keep_alive(void (*beat)(int n))
{
    pid_t child = fork();
    for (int n = 0; child == 0; n++) {
        usleep(50000);
        beat(n);
    }
    return child;
}

static void beat_elsewhere(int n)
{
    leave("another", 1, 1, n);
}

static void beat_in_container(int n)
{
    leave_at("boot pid:[1]", NULL, 1 << 30, 1, n);
}

static void beat_garbage(int n)
{
    (void)n;
    px_file_write(path, "", 0);
}

static void refused_while_it_changes(void (*beat)(int n), const char *text)
{
    beat(0);
    pid_t child = keep_alive(beat);
    bool taken = can_take();
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_false(taken);
    assert_non_null(strstr(px_error_text(), text));
    double begin = px_now();
    assert_true(can_take());
    assert_true(px_now() - begin >= 0.9); /* it was watched */
}

/* Whatever its clock says. */
static void test_other_host(void **state)
{
    (void)state;
    my_start();
    refused_while_it_changes(beat_elsewhere, "process 1 on host another");
    leave("another", 1, 1, px_wall_time() + 1e9);
    assert_true(can_take());
}

/* Whoever looks again and again goes by changes alone, and by his own clock. */
static void test_watch(void **state)
{
    (void)state;
    px_lock_watch watch = {.looked = false};
    char holder[256] = "";
#define ALIVE(now) px_lock_is_alive(&watch, dir, now, holder, sizeof holder)
    my_start();
    assert_false(ALIVE(0.0)); /* no lock */
    leave("another", 1, 1, 5.0);
    assert_true(ALIVE(0.5)); /* taken since */
    assert_string_equal(holder, "process 1 on host another");
    assert_true(ALIVE(1.4));
    assert_false(ALIVE(1.6)); /* silent for longer than a second */
    leave("another", 1, 1, px_wall_time() + 1e9);
    assert_true(ALIVE(9.0));
    watch = (px_lock_watch){.looked = false};
    assert_false(ALIVE(9.0)); /* left by somebody: nothing has been seen yet, whatever its clock says */
    watch = (px_lock_watch){.looked = false};
    assert_false(ALIVE(0.5)); /* nor right after the watch began */
    leave("another", 1, 1, -1e9);
    assert_true(ALIVE(9.5));
    assert_int_equal(unlink(path), 0);
    assert_false(ALIVE(9.6));
    leave(NULL, getpid(), my_start(), 0);
    assert_true(ALIVE(1000.0)); /* of this host: the process decides */
    leave(NULL, 1 << 30, 1, px_wall_time());
    assert_false(ALIVE(1001.0));
#undef ALIVE
}

/* The same host name and another pid namespace: the pid means nothing here. */
static void test_container(void **state)
{
    (void)state;
    refused_while_it_changes(beat_in_container, "a run is going on here");
    leave_at("boot pid:[1]", NULL, getpid(), my_start(), 0);
    assert_true(can_take());
}

static void test_garbage(void **state)
{
    (void)state;
    px_lock *lock;
    refused_while_it_changes(beat_garbage, "the lock is empty or was damaged");
    assert_ok(px_file_write(path, "{\"host\"", 7));
    assert_true(can_take());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(px_lock_take(&lock, dir), PX_IO);
    assert_non_null(strstr(px_error_text(), "is a pipe"));
    assert_int_equal(unlink(path) | mkdir(path, 0700), 0);
    assert_int_equal(px_lock_take(&lock, dir), PX_IO);
    assert_non_null(strstr(px_error_text(), "is a directory"));
}

/* The winners live until everybody has tried: a dead winner's lock would be the next starter's by right. */
static void start_one(int go, int tried, int end)
{
    char byte = 0;
    px_lock *lock;
    if (read(go, &byte, 1) < 0) _exit(3);
    px_status status = px_lock_take(&lock, dir);
    if (write(tried, &byte, 1) != 1 || read(end, &byte, 1) < 0) _exit(3);
    if (status != PX_OK) _exit(1);
    _exit(px_lock_check(lock) == PX_OK ? 0 : 2);
}

/* Many start over a dead run's lock at once. */
static void test_race(void **state)
{
    (void)state;
    enum { STARTERS = 8 };
    for (int round = 0; round < 10; round++) {
        int go[2], tried[2], end[2];
        char byte;
        leave(NULL, 1 << 30, 0, 0);
        assert_int_equal(pipe(go) | pipe(tried) | pipe(end), 0);
        for (int i = 0; i < STARTERS; i++) {
            pid_t child = fork();
            assert_true(child >= 0);
            if (child) continue;
            close(go[1]), close(tried[0]), close(end[1]);
            start_one(go[0], tried[1], end[0]);
        }
        close(go[0]), close(tried[1]), close(end[0]);
        usleep(20000);
        close(go[1]);
        for (int i = 0; i < STARTERS; i++) assert_int_equal(read(tried[0], &byte, 1), 1);
        close(end[1]), close(tried[0]);
        int winners = 0, status = 0;
        while (wait(&status) > 0) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 2);
            winners += WEXITSTATUS(status) == 0;
        }
        assert_int_equal(winners, 1);
        unlink(path);
    }
}

/* A holder that was taken for dead learns it, and does not disturb the new one. */
static void test_fence(void **state)
{
    (void)state;
    px_lock *lock;
    px_buf before = {0}, after = {0};
    assert_ok(px_lock_take(&lock, dir));
    assert_int_equal(unlink(path), 0);
    leave("another", 1, 1, 12345);
    assert_ok(px_file_read(path, PX_TEXT_MOST, &before));
    assert_int_equal(px_lock_check(lock), PX_IO);
    px_lock_release(lock);
    assert_ok(px_file_read(path, PX_TEXT_MOST, &after));
    assert_string_equal(before.data, after.data);
    px_buf_free(&before);
    px_buf_free(&after);
}

static int wall_ahead; /* seconds */

/* In the place of the C library's. */
int clock_gettime(clockid_t id, struct timespec *time)
{
    int result = (int)syscall(SYS_clock_gettime, id, time);
    time->tv_sec += id == CLOCK_REALTIME ? wall_ahead : 0;
    return result;
}

static void beats(void)
{
    px_lock *lock;
    json_t *json;
    assert_ok(px_lock_take(&lock, dir));
    assert_ok(px_json_read(path, &json));
    double first = json_number_value(json_object_get(json, "heartbeat")), later = first;
    json_decref(json);
    for (int i = 0; i < 60 && later == first; i++) {
        usleep(100000);
        assert_ok(px_json_read(path, &json)); /* whole at every moment */
        later = json_number_value(json_object_get(json, "heartbeat"));
        json_decref(json);
    }
    assert_true(later > first + 1);
    px_lock_release(lock);
}

static void test_heartbeat(void **state)
{
    (void)state;
    beats();
}

/* An hour that the system's own clock has still to reach, as after a step back. */
static void test_heartbeat_after_step(void **state)
{
    (void)state;
    wall_ahead = 3600;
    beats();
    wall_ahead = 0;
}

/* Where a heartbeat can no longer be written, the holder looks all the same whether the lock is its own. */
static void test_fence_unwritable(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        px_lock *lock;
        signal(SIGXFSZ, SIG_IGN);
        if (px_lock_take(&lock, dir) != PX_OK || unlink(path) != 0) _exit(2);
        leave("another", 1, 1, 12345);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0});
        for (int i = 0; i < 60 && px_stop_level() == 0; i++) usleep(100000);
        _exit(px_stop_level() > 0 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* The directory goes under another name, and the lock with it. */
static void test_move(void **state)
{
    (void)state;
    px_lock *lock;
    char old[270], file[300];
    snprintf(old, sizeof old, "%s.1", dir);
    snprintf(file, sizeof file, "%s/lock", old);
    assert_ok(px_lock_take(&lock, dir));
    assert_ok(px_lock_move(lock, old));
    assert_false(px_dir_exists(dir));
    assert_true(px_file_exists(file));
    assert_ok(px_lock_check(lock));
    px_lock_release(lock);
    assert_false(px_file_exists(file));
    assert_ok(px_tree_remove(old));
}

static void test_status(void **state)
{
    (void)state;
    json_t *json;
    char name[300];
    const px_run_status status = {.state = "stopped", .stage = "ppo", .iteration = 12, .exit_code = 75,
                                  .reason = "SIGTERM", .resume = NULL};
    assert_ok(px_status_write(dir, &status));
    snprintf(name, sizeof name, "%s/status.json", dir);
    assert_ok(px_json_read(name, &json));
    assert_string_equal(json_string_value(json_object_get(json, "state")), "stopped");
    assert_int_equal(json_integer_value(json_object_get(json, "iteration")), 12);
    assert_int_equal(json_integer_value(json_object_get(json, "exit_code")), 75);
    assert_string_equal(json_string_value(json_object_get(json, "resume")), "");
    json_decref(json);
    const px_run_status odd = {.state = "failed", .exit_code = 74, .reason = "a\xff" "b: cannot open", .resume = "\xc3"};
    assert_ok(px_status_write(dir, &odd)); /* names of files may be anything */
    assert_ok(px_json_read(name, &json));
    assert_string_equal(json_string_value(json_object_get(json, "reason")), "a?b: cannot open");
    assert_string_equal(json_string_value(json_object_get(json, "resume")), "?");
    json_decref(json);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {TEST(test_living), TEST(test_dead), TEST(test_dying), TEST(test_pid_reuse), TEST(test_other_host), TEST(test_watch),
                                       TEST(test_container),
                                       TEST(test_garbage), TEST(test_race), TEST(test_fence),
                                       TEST(test_fence_unwritable), TEST(test_move), TEST(test_heartbeat),
                                       TEST(test_heartbeat_after_step),
                                       TEST(test_status)};
    setenv("PHALANX_LOCK_SILENCE_S", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
