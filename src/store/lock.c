/* The lock of a run directory: a JSON file that names its holder. It is made by link(2), which only one of two starters
 * can win. The heartbeat is written in place through the descriptor that made the file, so a holder whose lock was
 * taken over keeps touching its own, unlinked file and never the new one. Clocks of two machines are not compared: a
 * holder that cannot be asked is watched, and one whose lock stays as it is for ten heartbeats is dead. */
#include "h5.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEARTBEAT_S 3
#define SILENCE_S 30.0 /* PHALANX_LOCK_SILENCE_S in the environment: another number, for tests */
#define LOCK_MOST 4096 /* bytes */
#define BEAT_FORMAT "{\"heartbeat\": %16.3f, " /* first, with a fixed width: renewed by one write at the start */

typedef struct lock_holder {
    char host[256], job_id[64], token[33];
    char place[128]; /* boot and namespace that its pid belongs to; "": unknown */
    long pid;
    int64_t start; /* clock ticks after boot */
    double heartbeat;
    uint64_t content; /* hash of the file's bytes: another one is a sign of life */
    bool garbage;     /* the file does not say who it is */
} lock_holder;

struct px_lock {
    char path[PX_PATH_MAX];
    lock_holder self;
    int fd;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool ending, lost;
};

/* ---- who is it --------------------------------------------------------------------------------------------------- */

/* Field 22 of /proc/PID/stat; the name in field 2 may hold spaces and brackets. -1: no such
 * process. */
static int64_t process_start(long pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file) return -1;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *at = strrchr(text, ')');
    if (at && (at[2] == 'Z' || at[2] == 'X')) return -1; /* dead, only its parent has not asked yet */
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at ? strtoll(at + 1, NULL, 10) : -1;
}

/* What tells apart two machines, two starts of one and two containers that have the same host name. */
static void describe_place(char *out, size_t size)
{
    char boot[64] = "", space[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file) {
        if (fscanf(file, "%63s", boot) != 1) boot[0] = '\0';
        fclose(file);
    }
    ssize_t length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    snprintf(out, size, length > 0 && boot[0] ? "%s %s" : "", boot, space);
}

static px_status describe_self(lock_holder *self)
{
    unsigned char random[16];
    memset(self, 0, sizeof *self);
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return px_fail(PX_IO, "no random numbers from the system: %s", strerror(errno));
    }
    for (size_t i = 0; i < sizeof random; i++) snprintf(self->token + 2 * i, 3, "%02x", random[i]);
    gethostname(self->host, sizeof self->host - 1);
    describe_place(self->place, sizeof self->place);
    const char *job = getenv("SLURM_JOB_ID");
    snprintf(self->job_id, sizeof self->job_id, "%s", job ? job : "");
    self->pid = (long)getpid();
    self->start = process_start(self->pid);
    self->heartbeat = px_wall_time();
    return PX_OK;
}

/* Whether its process would be seen here. */
static bool is_here(const lock_holder *holder)
{
    char host[256] = {0}, place[128];
    gethostname(host, sizeof host - 1);
    describe_place(place, sizeof place);
    return !holder->garbage && strcmp(host, holder->host) == 0 && place[0] && strcmp(place, holder->place) == 0;
}

static bool process_lives(const lock_holder *holder)
{
    if (holder->pid <= 0 || (kill((pid_t)holder->pid, 0) != 0 && errno == ESRCH)) return false;
    int64_t start = process_start(holder->pid);
    return start >= 0 && (holder->start < 0 || start == holder->start);
}

static void take_text(json_t *json, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(json, key));
    snprintf(out, size, "%s", text ? text : "");
}

static void take_holder(json_t *json, lock_holder *holder)
{
    take_text(json, "host", holder->host, sizeof holder->host);
    take_text(json, "place", holder->place, sizeof holder->place);
    take_text(json, "job_id", holder->job_id, sizeof holder->job_id);
    take_text(json, "token", holder->token, sizeof holder->token);
    holder->pid = (long)json_integer_value(json_object_get(json, "pid"));
    holder->start = json_integer_value(json_object_get(json, "start"));
    holder->heartbeat = json_number_value(json_object_get(json, "heartbeat"));
    holder->garbage = !holder->host[0] || !holder->token[0];
}

/* *found false: no lock. What is no regular file is an error, what cannot be understood is garbage. */
static px_status read_holder(const char *path, lock_holder *holder, bool *found)
{
    struct stat info;
    px_buf text = {0};
    memset(holder, 0, sizeof *holder);
    *found = lstat(path, &info) == 0;
    if (!*found) return PX_OK;
    px_status status = px_file_read(path, LOCK_MOST, &text);
    if (status == PX_IO) {
        px_buf_free(&text);
        *found = lstat(path, &info) == 0;
        if (*found) return px_fail_within("the lock of the run directory");
        px_error_clear();
        return PX_OK;
    }
    json_t *json = NULL;
    const uint64_t changed = (uint64_t)info.st_mtim.tv_sec * 1000000000 + (uint64_t)info.st_mtim.tv_nsec;
    holder->garbage = true;
    holder->heartbeat = (double)info.st_mtim.tv_sec;
    holder->content = px_hash(text.data ? text.data : "", text.length, 0);
    if (status == PX_OK) status = px_json_parse(text.data ? text.data : "", text.length, path, 0, &json);
    px_buf_free(&text);
    if (status == PX_OK) take_holder(json, holder);
    if (holder->garbage) holder->content ^= changed;
    json_decref(json);
    px_error_clear();
    return PX_OK;
}

static void name_holder(const lock_holder *holder, char *out, size_t size)
{
    if (holder->garbage) {
        snprintf(out, size, "an unknown process (the lock is empty or was damaged)");
    } else {
        snprintf(out, size, "process %ld on host %.64s%s%.32s", holder->pid, holder->host, holder->job_id[0] ? ", job " : "",
                 holder->job_id);
    }
}

static double longest_silence(void)
{
    const char *text = getenv("PHALANX_LOCK_SILENCE_S");
    return text ? strtod(text, NULL) : SILENCE_S;
}

/* Watches until the lock changes, which only somebody alive does, or has been silent for too long. */
static px_status watch(const char *path, const lock_holder *holder, bool *alive)
{
    const struct timespec nap = {0, 100000000};
    double silence = longest_silence(), end = px_now() + silence;
    char name[512];
    name_holder(holder, name, sizeof name);
    px_log(PX_INFO, "%s: was left by %s, which cannot be seen from here; taken over unless it changes within %g s", path,
           name, silence);
    *alive = false;
    while (!*alive && px_now() < end) {
        lock_holder now;
        bool found;
        nanosleep(&nap, NULL);
        if (px_stop_level() > 0) return px_fail(PX_STOPPED, "stopped (%s) while %s was watched", px_stop_reason(), path);
        PX_TRY(read_holder(path, &now, &found));
        if (!found) return PX_OK;
        *alive = now.content != holder->content;
    }
    return PX_OK;
}

static px_status judge(const char *path, const lock_holder *holder, bool *alive)
{
    *alive = is_here(holder) && process_lives(holder);
    return is_here(holder) ? PX_OK : watch(path, holder, alive);
}

static px_status held_lock(const char *dir, char path[PX_PATH_MAX], lock_holder *holder, bool *found)
{
    PX_TRY(px_path_join(path, PX_PATH_MAX, dir, "lock"));
    return read_holder(path, holder, found);
}

/* Without an error: a lock that cannot be read is nobody's. */
static bool look(const char *dir, lock_holder *holder, bool *found)
{
    char path[PX_PATH_MAX];
    bool fine = held_lock(dir, path, holder, found) == PX_OK;
    if (!fine) px_error_clear();
    return fine;
}

/* The holder's name where it lives: on this host its process decides, on another what was seen of it. */
static bool tell_living(const lock_holder *holder, bool seen, char *out, size_t size)
{
    if (!(is_here(holder) ? process_lives(holder) : seen)) return false;
    name_holder(holder, out, size);
    return true;
}

bool px_lock_is_held(const char *dir, char *out, size_t size)
{
    lock_holder holder;
    bool found;
    if (!look(dir, &holder, &found) || !found) return false;
    return tell_living(&holder, fabs(px_wall_time() - holder.heartbeat) < SILENCE_S, out, size);
}

bool px_lock_is_alive(px_lock_watch *watch, const char *dir, double now, char *out, size_t size)
{
    lock_holder holder;
    bool found;
    if (!look(dir, &holder, &found)) return false;
    const uint64_t content = found ? holder.content : 0;
    if (found && watch->looked && content != watch->content) {
        watch->moved = true;
        watch->changed = now;
    }
    watch->moved = watch->moved && found;
    watch->looked = true;
    watch->content = content;
    return found && tell_living(&holder, watch->moved && now - watch->changed < longest_silence(), out, size);
}

px_status px_lock_refuse_held(const char *dir, const char *what)
{
    char path[PX_PATH_MAX], name[512];
    lock_holder holder;
    bool found, alive = false;
    PX_TRY(held_lock(dir, path, &holder, &found));
    if (found) PX_TRY(judge(path, &holder, &alive));
    if (!alive) return PX_OK;
    name_holder(&holder, name, sizeof name);
    return px_fail(PX_IO, "%s: is being written by %s; wait for its end, or take a snapshot", what, name);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static px_status write_holder(px_lock *lock, const char *path)
{
    char text[1024];
    const lock_holder *self = &lock->self;
    json_t *rest = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s}", "host", self->host, "place", self->place, "pid",
                             (json_int_t)self->pid, "start", (json_int_t)self->start, "job_id", self->job_id, "token",
                             self->token);
    char *dump = rest ? json_dumps(rest, 0) : NULL;
    json_decref(rest);
    if (!dump) return px_fail(PX_BUG, "%s: cannot be described as JSON", path);
    int length = snprintf(text, sizeof text, BEAT_FORMAT "%s\n", self->heartbeat, dump + 1);
    free(dump);
    PX_FAULT("store.lock", path);
    lock->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (lock->fd < 0 || write(lock->fd, text, (size_t)length) != length || fsync(lock->fd) != 0) {
        return px_fail(PX_IO, "%s: cannot write: %s", path, strerror(errno));
    }
    return PX_OK;
}

/* Moves a dead holder's lock away. Somebody else may have done so and taken the lock since it was read: then what was
 * moved is put back. */
static px_status remove_stale(const char *path, const char *token, const lock_holder *dead)
{
    char aside[PX_PATH_MAX];
    lock_holder moved;
    if (snprintf(aside, sizeof aside, "%s.%s.old", path, token) >= (int)sizeof aside) {
        return px_fail(PX_IO, "%s: the path is too long", path);
    }
    if (rename(path, aside) != 0) {
        return errno == ENOENT ? PX_OK : px_fail(PX_IO, "%s: cannot rename: %s", path, strerror(errno));
    }
    bool found, same = read_holder(aside, &moved, &found) == PX_OK && found && moved.content == dead->content;
    if (!same && link(aside, path) != 0 && errno != EEXIST) px_log(PX_WARNING, "%s: could not be put back", path);
    unlink(aside);
    return PX_OK;
}

static px_status link_lock(px_lock *lock, const char *temporary)
{
    for (int attempt = 0; attempt < 10; attempt++) {
        lock_holder holder;
        char name[512];
        bool found, alive;
        if (link(temporary, lock->path) == 0) return PX_OK;
        if (errno != EEXIST) return px_fail(PX_IO, "%s: cannot link: %s", lock->path, strerror(errno));
        PX_TRY(read_holder(lock->path, &holder, &found));
        if (!found) continue;
        PX_TRY(judge(lock->path, &holder, &alive));
        if (alive) {
            name_holder(&holder, name, sizeof name);
            return px_fail(PX_CONFIG, "%s: a run is going on here, %s; wait for its end or choose another run.dir",
                           lock->path, name);
        }
        PX_TRY(remove_stale(lock->path, lock->self.token, &holder));
    }
    return px_fail(PX_CONFIG, "%s: other runs start here at the same moment; try again", lock->path);
}

/* ---- heartbeat --------------------------------------------------------------------------------------------------- */

/* Whether the lock under our name is still the file we made. */
static bool still_ours(const px_lock *lock)
{
    struct stat ours, named;
    if (fstat(lock->fd, &ours) != 0 || stat(lock->path, &named) != 0) return false;
    return ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

static void *beat(void *data)
{
    px_lock *lock = data;
    pthread_mutex_lock(&lock->mutex);
    while (!lock->ending) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += HEARTBEAT_S;
        pthread_cond_timedwait(&lock->wake, &lock->mutex, &until);
        if (lock->ending) break;
        char text[64];
        int length = snprintf(text, sizeof text, BEAT_FORMAT, px_wall_time());
        /* A full disk must not end the run here; an old heartbeat tells. Others see it once it is on the disk. */
        if (pwrite(lock->fd, text, (size_t)length, 0) != length || fdatasync(lock->fd) != 0) continue;
        if (!still_ours(lock) && !lock->lost) {
            lock->lost = true;
            px_stop_request("the run directory was taken over by another run");
        }
    }
    pthread_mutex_unlock(&lock->mutex);
    return NULL;
}

static px_status start_thread(px_lock *lock)
{
    sigset_t all, before;
    pthread_mutex_init(&lock->mutex, NULL);
    pthread_cond_init(&lock->wake, NULL);
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&lock->thread, NULL, beat, lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? px_fail(PX_IO, "%s: cannot start the heartbeat: %s", lock->path, strerror(error)) : PX_OK;
}

/* ---- contract ---------------------------------------------------------------------------------------------------- */

px_status px_lock_take(px_lock **out, const char *dir)
{
    char temporary[PX_PATH_MAX];
    *out = NULL;
    px_lock *lock = px_alloc(sizeof *lock, "lock");
    if (!lock) return px_error_code();
    lock->fd = -1;
    px_status status = px_path_join(lock->path, sizeof lock->path, dir, "lock");
    if (status == PX_OK) status = describe_self(&lock->self);
    if (status == PX_OK &&
        snprintf(temporary, sizeof temporary, "%s.%s", lock->path, lock->self.token) >= (int)sizeof temporary) {
        status = px_fail(PX_IO, "%s: the path is too long", dir);
    }
    if (status == PX_OK) {
        status = write_holder(lock, temporary);
        if (status == PX_OK) status = link_lock(lock, temporary);
        unlink(temporary);
    }
    if (status == PX_OK) {
        status = start_thread(lock);
        if (status != PX_OK) unlink(lock->path);
    }
    if (status != PX_OK) {
        if (lock->fd >= 0) close(lock->fd);
        px_free(lock);
        return status;
    }
    *out = lock;
    return PX_OK;
}

bool px_lock_is_ours(const px_lock *lock)
{
    return still_ours(lock);
}

px_status px_lock_check(const px_lock *lock)
{
    if (still_ours(lock)) return PX_OK;
    return px_fail(PX_IO, "%s: the run directory was taken over by another run; this one stops", lock->path);
}

void px_lock_release(px_lock *lock)
{
    if (!lock) return;
    pthread_mutex_lock(&lock->mutex);
    lock->ending = true;
    pthread_cond_signal(&lock->wake);
    pthread_mutex_unlock(&lock->mutex);
    pthread_join(lock->thread, NULL);
    if (still_ours(lock)) unlink(lock->path);
    close(lock->fd);
    pthread_cond_destroy(&lock->wake);
    pthread_mutex_destroy(&lock->mutex);
    px_free(lock);
}
