/* base: what every room stands on. Status and errors, log, memory, counter-based random numbers, named array
 * views, hashes, growing buffers, files, JSON, GGUF, and the stop flag. Knows nothing of MPI, BLAS or HDF5. */
#ifndef PHALANX_BASE_H
#define PHALANX_BASE_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- status -------------------------------------------------------------------------------------------------
 * A status is the exit code of the process that ends with it, so that one number means one thing everywhere. */
#define PX_STATUS_MAP(X)                                                                                            \
    X(PX_OK, 0, "done")                                                                                             \
    X(PX_USAGE, 64, "usage")                                                                                        \
    X(PX_DATA, 65, "bad data, model or checkpoint")                                                                 \
    X(PX_UNHEALTHY, 69, "too few healthy env runners")                                                              \
    X(PX_BUG, 70, "internal error")                                                                                 \
    X(PX_IO, 74, "input/output")                                                                                    \
    X(PX_STOPPED, 75, "stopped, resumable")                                                                         \
    X(PX_CONFIG, 78, "configuration")                                                                               \
    X(PX_DIVERGED, 80, "diverged")

typedef enum px_status {
#define X(name, code, text) name = code,
    PX_STATUS_MAP(X)
#undef X
} px_status;

/* One error record per process: the code, where it was raised, and one message for the user. The code that fails
 * records, everybody above passes the status on, and exactly one rank prints. */
#define px_fail(code, ...) px_fail_at(__FILE__, __LINE__, (code), __VA_ARGS__)
px_status px_fail_at(const char *file, int line, px_status code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Puts "text: " before the recorded message; for the caller that knows which file or key it was. Returns the code. */
px_status px_fail_within(const char *format, ...) __attribute__((format(printf, 1, 2)));
px_status px_error_code(void);
const char *px_error_text(void);  /* the message; "" when there is none. Valid until the next px_fail. */
const char *px_error_where(void); /* "src/room/file.c:123" */
void px_error_clear(void);
/* Takes over an error that another rank recorded. */
void px_error_set(px_status code, const char *where, const char *text);
/* Sets the record aside while the caller tidies up, which may fail too: what went wrong first is what people need. */
typedef struct px_error {
    px_status code;
    char where[160];
    char *text;
} px_error;
px_error px_error_keep(void);
px_status px_error_restore(px_error *kept); /* returns its code */

#define PX_TRY(call)                                                                                                \
    do {                                                                                                            \
        px_status px_try_status = (call);                                                                           \
        if (px_try_status != PX_OK) return px_try_status;                                                           \
    } while (0)

/* Our own bugs. PX_ASSERT is for debug builds and must have no side effect; PX_CHECK stays in release builds. Both
 * print rank, file and line and call the abort hook (dist points it at MPI_Abort), which does not return. */
#define PX_CHECK(condition)                                                                                         \
    do {                                                                                                            \
        if (!(condition)) px_bug(__FILE__, __LINE__, "check failed: " #condition);                                  \
    } while (0)
#ifdef NDEBUG
#define PX_ASSERT(condition) ((void)sizeof(condition))
#else
#define PX_ASSERT(condition) PX_CHECK(condition)
#endif
_Noreturn void px_bug(const char *file, int line, const char *text);
void px_bug_hook_set(void (*hook)(int exit_code));

/* Fault injection for tests: PHALANX_FAULT=site:n:rank makes the n-th pass (from 1; "n+": every pass from the n-th on)
 * of `site` fail on that rank (-1: on all). Costs two comparisons of bytes when the variable is not set. */
bool px_fault(const char *site);

/* ---- log ----------------------------------------------------------------------------------------------------
 * People read stderr; programs read stdout. Messages of px_log appear on rank 0 alone, those of px_log_rank on every
 * rank with the rank in front. All go to the log file as well once it is set. */
typedef enum px_level { PX_ERROR, PX_WARNING, PX_NOTE, PX_INFO, PX_DEBUG } px_level;
void px_log_identity(int rank, int size);
int px_log_rank_number(void);
void px_log_role(const char *role); /* what this rank does: part of messages that concern one rank alone */
const char *px_log_role_name(void);
void px_log_level(px_level level);
px_status px_log_file(const char *path); /* appends; NULL closes */
void px_log(px_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void px_log_rank(px_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* One line that is rewritten in place on a terminal and never shown in a batch log. NULL ends it. */
void px_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool px_log_is_terminal(void);

/* ---- time, stop ---------------------------------------------------------------------------------------------- */
double px_now(void);      /* seconds, monotonic */
double px_wall_time(void); /* seconds since 1970 */
/* Conditions whose waits a step of the wall clock neither cuts short nor draws out. */
void px_condition_init(pthread_cond_t *condition);
void px_condition_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, double seconds); /* for that long at most */

/* Signals TERM, USR1 and INT raise the stop level: 1 asks for a checkpoint and exit 75, 2 (a second signal) ends the
 * process at once with what is already saved. Long loops poll px_stop_level; it is async-signal-safe. */
void px_stop_install(void);
void px_stop_request(const char *reason); /* reason: a string that outlives the call */
int px_stop_level(void);
const char *px_stop_reason(void); /* "SIGTERM", "time limit", ...; NULL when nobody asked */

/* ---- processes -----------------------------------------------------------------------------------------------
 * How a file names the process that holds it, so that others can ask whether that one still lives. */
typedef struct px_process {
    char host[256];
    char place[128]; /* boot and namespace that its pid belongs to; "": unknown */
    long pid;
    int64_t start; /* clock ticks after boot; -1: unknown */
} px_process;
px_process px_process_self(void);
bool px_process_is_here(const px_process *process); /* its pid is one of those seen from here */
/* Of a pid of this place. A zombie is dead, and so is one whose pid has another process now; start -1: any. */
bool px_process_lives(long pid, int64_t start);
/* One that lives, but was killed or is on its way out: with much memory that takes a while. */
bool px_process_is_ending(long pid);

/* ---- processors ----------------------------------------------------------------------------------------------
 * That a process may use, a bit each (pid 0: this one); where the system does not say, the first alone. */
enum { PX_MOST_CPUS = 4096 };
void px_cpus_read(int pid, uint64_t mask[PX_MOST_CPUS / 64]);
int px_cpus_count(const uint64_t mask[PX_MOST_CPUS / 64]);

/* ---- memory --------------------------------------------------------------------------------------------------
 * Zeroed, 64-byte aligned. A failure is recorded with `what` and the bytes wanted, and NULL comes back. The counters
 * let tests show that nothing is allocated after the first step and that everything is freed. */
void *px_alloc(size_t bytes, const char *what);
void *px_alloc_array(size_t count, size_t size, const char *what); /* overflow-checked count * size */
void *px_realloc(void *pointer, size_t bytes, const char *what);  /* keeps the content; new bytes are zero */
void px_free(void *pointer);                                       /* NULL is fine */
char *px_strdup(const char *text);                                 /* free with px_free */
size_t px_alloc_count(void); /* allocations so far */
size_t px_alloc_live(void);  /* bytes alive now */
size_t px_alloc_peak(void);  /* most bytes ever alive */
/* While on, large blocks get their pages at once: what was planned is there later, however late it is first touched. */
void px_alloc_eager(bool on);
/* Bytes that the process can still get: of the machine's memory, or of a batch job's share of it. */
size_t px_memory_available(void);

/* Scratch that is planned once and used as a stack: mark and release in the same function. Pushing over the plan is a
 * bug, not an error. */
typedef struct px_arena {
    char *base;
    size_t size, used; /* bytes */
} px_arena;
px_status px_arena_init(px_arena *arena, size_t bytes, const char *what);
void px_arena_free(px_arena *arena);
void *px_arena_push(px_arena *arena, size_t bytes); /* 64-byte aligned, not zeroed */
#define px_arena_mark(arena) ((arena)->used)
#define px_arena_release(arena, mark) ((arena)->used = (mark))

/* Growing byte buffer; `data` is always followed by a NUL. Start from {0}; px_buf_free gives it back. */
typedef struct px_buf {
    char *data;
    size_t length, capacity;
} px_buf;
px_status px_buf_add(px_buf *buf, const void *bytes, size_t length);
px_status px_buf_text(px_buf *buf, const char *text);
px_status px_buf_printf(px_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
px_status px_buf_reserve(px_buf *buf, size_t capacity);
void px_buf_clear(px_buf *buf); /* length 0, memory kept */
void px_buf_free(px_buf *buf);

/* ---- random numbers --------------------------------------------------------------------------------------------
 * Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a number is a function of its
 * key and counter alone, never of the rank, the thread or how many were drawn before. */
typedef enum px_purpose { /* values are part of every run's identity: append only */
    PX_RNG_SAMPLE = 1,    /* counter: iteration, slot in the iteration's batch, sample, position */
    PX_RNG_EVALUATE,      /* the same, for evaluation */
    PX_RNG_ORDER,         /* data order: epoch */
    PX_RNG_PERMUTE,       /* minibatch order: iteration, epoch */
    PX_RNG_INIT,          /* new weights: tensor */
    PX_RNG_NOISE,
} px_purpose;
typedef struct px_rng {
    uint32_t key[2];
} px_rng;
px_rng px_rng_make(uint64_t seed, const char *stage, px_purpose purpose); /* stage NULL: "" */
void px_rng_bits(const px_rng *rng, const uint32_t counter[4], uint32_t out[4]);
double px_rng_uniform(const px_rng *rng, uint32_t a, uint32_t b, uint32_t c, uint32_t d); /* [0, 1), 53 bits */
double px_rng_normal(const px_rng *rng, uint32_t a, uint32_t b, uint32_t c, uint32_t d);  /* mean 0, std 1 */
/* out[0..n) becomes a random permutation of 0..n-1 that is a function of (rng, a, b) alone. n < 2^32. */
void px_rng_permutation(const px_rng *rng, uint32_t a, uint32_t b, int64_t n, int64_t *out);

/* ---- named arrays ---------------------------------------------------------------------------------------------
 * How weights, moments and columns are handed to a room that stores or compares them. Borrowed, never owned. */
typedef enum px_dtype { PX_F32, PX_F64, PX_F16, PX_BF16, PX_I32, PX_I64, PX_U8 } px_dtype;
size_t px_dtype_size(px_dtype dtype);
#define PX_MAX_DIMS 4
typedef struct px_array {
    const char *name;
    px_dtype dtype;
    int dims;
    int64_t shape[PX_MAX_DIMS];
    void *data;
} px_array;
int64_t px_array_count(const px_array *array); /* elements */

/* ---- hash (xxh3, 64 bits) -------------------------------------------------------------------------------------- */
uint64_t px_hash(const void *bytes, size_t length, uint64_t seed);
px_status px_hash_file(const char *path, uint64_t *hash, int64_t *bytes);

/* ---- files ----------------------------------------------------------------------------------------------------- */
/* Of a regular file, for reading. A pipe, a device or a directory is PX_IO and never waited for. */
px_status px_file_open(const char *path, int *fd);
/* Bytes that are read whole: of settings, templates, lists of tensors; of tokenizers (Gemma's has 33 MiB), word lists. */
#define PX_TEXT_MOST ((size_t)16 << 20)
#define PX_VOCABULARY_MOST ((size_t)256 << 20)
/* Whole, appended; PX_IO names the path and the reason, PX_DATA one of more than `most` bytes. */
px_status px_file_read(const char *path, size_t most, px_buf *buf);
/* Where a new version of path is made before it is renamed to path: "PATH.px-HOST-PID.tmp", which no other process
 * that takes itself for the writer uses. */
px_status px_temporary_path(char *out, size_t size, const char *path);
/* Removes what killed processes left under such names in dir. Only while no other process writes there. */
px_status px_temporaries_remove(const char *dir);
px_status px_temporaries_remove_of(const char *path); /* of one file; only while no other process writes it */
/* A new file, for writing. Nothing is written through a link or into a pipe of that name: it goes. */
px_status px_file_create(const char *path, int *fd);
/* Writes a temporary file, fsyncs, renames: a reader sees the old content or the new, never half. */
px_status px_file_write(const char *path, const void *bytes, size_t length);
/* Read-only map of a whole file; *data is NULL for an empty one. Where the file is cut under a map, the process ends with
 * PX_DATA's exit code and a message. */
px_status px_file_map(const char *path, const void **data, size_t *bytes);
void px_file_unmap(const void *data, size_t bytes);
px_status px_file_map_move(const void **data, size_t bytes, void *to); /* to: whole pages of a reserved range */
/* PX_DATA when a file that is mapped in the range has been written to since. */
px_status px_file_maps_check(const void *from, size_t bytes);
/* A range of addresses without memory, for maps that have to lie together. A part of whole pages becomes zeroed memory by
 * px_address_use, or shows an open file's bytes from `offset` (whole pages too), which others may see as well, by
 * px_address_share; release ends the whole range, with the maps that were moved there. */
size_t px_whole_pages(size_t bytes); /* rounded up */
void *px_address_reserve(size_t bytes, const char *what);
px_status px_address_use(void *at, size_t bytes, const char *what);
px_status px_address_share(void *at, size_t bytes, int fd, size_t offset, bool writable, const char *what);
void px_address_release(void *at, size_t bytes);
bool px_file_exists(const char *path);
bool px_dir_exists(const char *path);
bool px_same_file(const char *a, const char *b); /* both are there and are one, by whatever names */
px_status px_dir_create(const char *path);      /* with parents; an existing one is fine */
px_status px_dir_sync(const char *path);        /* fsync of the directory itself, after renames in it */
px_status px_tree_remove(const char *path);     /* a file or directory tree; absent is fine; follows no symlinks */
/* Joins with one '/', an absolute b wins; result in out, PX_IO if it does not fit. */
px_status px_path_join(char *out, size_t size, const char *a, const char *b);
void px_path_parent(char *out, size_t size, const char *path); /* "." for a bare name */
#define PX_PATH_MAX 4096

/* ---- JSON (jansson) ---------------------------------------------------------------------------------------------
 * Objects are jansson's (<jansson.h>); these add messages that name file, line and column, and a depth limit. */
struct json_t;
px_status px_json_read(const char *path, struct json_t **json); /* caller json_decref's */
/* `line` is added to jansson's own line number (0-based) in messages. */
px_status px_json_parse(const char *text, size_t length, const char *path, int64_t line, struct json_t **json);

/* ---- GGUF -------------------------------------------------------------------------------------------------------
 * A file of metadata and tensors, mapped (versions 2 and 3, little-endian). Nothing of it is believed before it is checked. */
typedef struct px_gguf_tensor {
    const char *name; /* of `names` */
    const char *type; /* F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K */
    int dims;
    int64_t shape[PX_MAX_DIMS]; /* rows first: the reverse of the file's order */
    size_t count, bytes;
    const unsigned char *data; /* mapped, any alignment */
} px_gguf_tensor;
typedef struct px_gguf {
    char path[PX_PATH_MAX];
    const void *map;
    size_t bytes;
    struct json_t *meta;  /* key: number, bool, string or list of them; a float32 as its shortest decimal */
    struct json_t *names; /* list: owns the tensors' names */
    px_gguf_tensor *tensors;
    int count;
} px_gguf;
/* The file that `path` stands for: itself when it ends in .gguf, or the only .gguf file of a directory without
 * safetensors. out "" when there is none; several are PX_DATA. */
px_status px_gguf_find(char *out, size_t size, const char *path);
px_status px_gguf_open(px_gguf *gguf, const char *path);
void px_gguf_close(px_gguf *gguf);
const px_gguf_tensor *px_gguf_tensor_named(const px_gguf *gguf, const char *name); /* NULL: none */
/* Elements and bytes of a block of the type; false: not one that is read. */
bool px_gguf_block(const char *type, size_t *elements, size_t *bytes);

/* UTF-8: length in bytes of the valid prefix of text (equals length when all is valid). */
size_t px_utf8_valid(const char *text, size_t length);

/* Distance of two names for "did you mean": insertions, deletions, substitutions, swaps. */
int px_edit_distance(const char *a, const char *b);
/* The nearest of `count` names within a third of the length, else NULL. */
const char *px_nearest_name(const char *name, const char *const *names, int count);

#endif
