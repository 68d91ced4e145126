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
#define NAPS_A_SECOND 10
#define PARTING_S 20   /* what was killed may take to end: hundreds of GiB are some seconds */
#define SILENCE_S 30.0 /* PHALANX_LOCK_SILENCE_S in the environment: another number, for tests */
#define LOCK_MOST 4096 /* bytes */
#define BEAT_FORMAT "{\"heartbeat\": %16.3f, " /* first, with a fixed width: renewed by one write at the start */

typedef struct lock_holder {
    px_process process;
    char job_id[64], token[33];
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

static px_status describe_self(lock_holder *self)
{
    unsigned char random[16];
    memset(self, 0, sizeof *self);
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return px_fail(PX_IO, "no random numbers from the system: %s", strerror(errno));
    }
    for (size_t i = 0; i < sizeof random; i++) snprintf(self->token + 2 * i, 3, "%02x", random[i]);
    self->process = px_process_self();
    const char *job = getenv("SLURM_JOB_ID");
    snprintf(self->job_id, sizeof self->job_id, "%s", job ? job : "");
    self->heartbeat = px_wall_time();
    return PX_OK;
}

/* Whether its process would be seen here. */
static bool is_here(const lock_holder *holder)
{
    return !holder->garbage && px_process_is_here(&holder->process);
}

static bool process_lives(const lock_holder *holder)
{
    return px_process_lives(holder->process.pid, holder->process.start);
}

static void take_text(json_t *json, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(json, key));
    snprintf(out, size, "%s", text ? text : "");
}

static void take_holder(json_t *json, lock_holder *holder)
{
    px_process *process = &holder->process;
    take_text(json, "host", process->host, sizeof process->host);
    take_text(json, "place", process->place, sizeof process->place);
    take_text(json, "job_id", holder->job_id, sizeof holder->job_id);
    take_text(json, "token", holder->token, sizeof holder->token);
    process->pid = (long)json_integer_value(json_object_get(json, "pid"));
    process->start = json_integer_value(json_object_get(json, "start"));
    holder->heartbeat = json_number_value(json_object_get(json, "heartbeat"));
    holder->garbage = !process->host[0] || !holder->token[0];
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
        snprintf(out, size, "process %ld on host %.64s%s%.32s", holder->process.pid, holder->process.host, holder->job_id[0] ? ", job " : "",
                 holder->job_id);
    }
}

static double longest_silence(void)
{
    const char *text = getenv("PHALANX_LOCK_SILENCE_S");
    return text ? strtod(text, NULL) : SILENCE_S;
}

/* Watches until the lock changes, which only somebody alive does, or has been silent for too long. Counts naps and not the
 * clock: suspended together with the holder and woken first, this process has not watched. */
static px_status watch(const char *path, const lock_holder *holder, bool *alive)
{
    const struct timespec nap = {.tv_nsec = 1000000000 / NAPS_A_SECOND};
    double silence = longest_silence();
    char name[512];
    name_holder(holder, name, sizeof name);
    px_log(PX_INFO, "%s: was left by %s, which cannot be seen from here; taken over unless it changes within %g s", path,
           name, silence);
    *alive = false;
    for (int naps = 0; !*alive && naps < silence * NAPS_A_SECOND; naps++) {
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

/* On this host. One that was killed a moment ago may not have ended yet. */
static px_status wait_for_end(const char *path, const lock_holder *holder, bool *alive)
{
    const struct timespec nap = {.tv_nsec = 1000000000 / NAPS_A_SECOND};
    *alive = process_lives(holder);
    for (int naps = 0; *alive && px_process_is_ending(holder->process.pid) && naps < PARTING_S * NAPS_A_SECOND; naps++) {
        nanosleep(&nap, NULL);
        if (px_stop_level() > 0) return px_fail(PX_STOPPED, "stopped (%s) while %s was watched", px_stop_reason(), path);
        *alive = process_lives(holder);
    }
    return PX_OK;
}

static px_status judge(const char *path, const lock_holder *holder, bool *alive)
{
    *alive = false;
    return is_here(holder) ? wait_for_end(path, holder, alive) : watch(path, holder, alive);
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
    json_t *rest = json_pack("{s:s, s:s, s:I, s:I, s:s, s:s}", "host", self->process.host, "place", self->process.place,
                             "pid", (json_int_t)self->process.pid, "start", (json_int_t)self->process.start, "job_id",
                             self->job_id, "token", self->token);
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

/* One that is swept away with the run directory's other temporaries. The token makes it unique also among containers whose
 * host names and pids are the same. */
static px_status temporary_name(char out[PX_PATH_MAX], const char *path, const char *token, const char *suffix)
{
    char name[PX_PATH_MAX];
    if (snprintf(name, sizeof name, "%s.%s%s", path, token, suffix) >= (int)sizeof name) {
        return px_fail(PX_IO, "%s: the path is too long", path);
    }
    return px_temporary_path(out, PX_PATH_MAX, name);
}

/* Moves a dead holder's lock away. Somebody else may have done so and taken the lock since it was read: then what was
 * moved is put back. */
static px_status remove_stale(const char *path, const char *token, const lock_holder *dead)
{
    char aside[PX_PATH_MAX];
    lock_holder moved;
    PX_TRY(temporary_name(aside, path, token, ".old"));
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
        if (errno != EEXIST && errno != ENOENT) return px_fail(PX_IO, "%s: cannot link: %s", lock->path, strerror(errno));
        if (access(temporary, F_OK) != 0) { /* a run that has just begun here has swept our file away */
            close(lock->fd);
            lock->fd = -1;
            PX_TRY(write_holder(lock, temporary));
        }
        PX_TRY(read_holder(lock->path, &holder, &found));
        if (!found) continue;
        PX_TRY(judge(lock->path, &holder, &alive));
        if (alive) {
            PX_TRY(read_holder(lock->path, &holder, &found)); /* another one may have taken it meanwhile */
            if (!found) continue;
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

/* Known to be another's. Where the file system does not answer, what it says later counts. */
static bool is_lost(const px_lock *lock)
{
    errno = 0;
    return !still_ours(lock) && (errno == 0 || errno == ENOENT || errno == ESTALE);
}

static void *beat(void *data)
{
    px_lock *lock = data;
    pthread_mutex_lock(&lock->mutex);
    while (!lock->ending) {
        px_condition_wait(&lock->wake, &lock->mutex, HEARTBEAT_S);
        if (lock->ending) break;
        char text[64];
        int length = snprintf(text, sizeof text, BEAT_FORMAT, px_wall_time());
        /* Others see it once it is on the disk. A full one must not end the run here, an old heartbeat tells; of a lock that
         * was taken over, NFS says no more than that the file is stale. */
        if (pwrite(lock->fd, text, (size_t)length, 0) == length) (void)fdatasync(lock->fd);
        if (!lock->lost && is_lost(lock)) {
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
    px_condition_init(&lock->wake);
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
    if (status == PX_OK) status = temporary_name(temporary, lock->path, lock->self.token, "");
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

px_status px_lock_move(px_lock *lock, const char *to)
{
    char from[PX_PATH_MAX], path[PX_PATH_MAX];
    px_path_parent(from, sizeof from, lock->path);
    PX_TRY(px_path_join(path, sizeof path, to, "lock"));
    PX_TRY(px_lock_check(lock));
    pthread_mutex_lock(&lock->mutex); /* the heartbeat looks for its file under the one name or the other */
    bool moved = rename(from, to) == 0;
    if (moved) snprintf(lock->path, sizeof lock->path, "%s", path);
    pthread_mutex_unlock(&lock->mutex);
    return moved ? PX_OK : px_fail(PX_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
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
