/* How fast this machine runs the kernels of a plan. */
#include "outlook.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <omp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_PROCESSES = 64, NEW_TOKENS = 8 };
static const double enough = 0.3;    /* seconds of repeated runs that a measurement takes */
static const double patience = 600.0; /* seconds until the longest of measurements has ended, however busy the machine is */

/* ---- a model of few layers and what it runs on ------------------------------------------------------------------------ */

typedef struct bench {
    px_model model;
    px_engine *engine;
    px_generator *generator;
    float *grads;
    int32_t *ids, *starts, *rows, *targets;
    double *numbers; /* values or their gradients */
    px_row_stats *stats;
    int tokens, row_count;
} bench;

static void bench_free(bench *b)
{
    px_engine_destroy(b->engine);
    px_generator_destroy(b->generator);
    px_model_free(&b->model);
    void *const all[] = {b->grads, b->ids, b->starts, b->rows, b->targets, b->numbers, b->stats};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        px_free(all[i]);
    }
}

static px_status bench_model(bench *b, const px_probe *probe, int layers)
{
    px_model_config config = probe->model;
    config.layers = layers;
    PX_TRY(px_model_plan(&b->model, &config));
    PX_TRY(px_model_alloc(&b->model));
    px_model_init(&b->model, 1);
    return PX_OK;
}

static px_status bench_batch(bench *b, const px_probe *probe)
{
    px_rng rng = px_rng_make(1, "probe", PX_RNG_NOISE);
    size_t n = (size_t)probe->sequences * (size_t)probe->length;
    b->tokens = (int)n;
    b->ids = px_alloc_array(n, sizeof *b->ids, "a measurement");
    b->rows = px_alloc_array(n, sizeof *b->rows, "a measurement");
    b->targets = px_alloc_array(n, sizeof *b->targets, "a measurement");
    b->numbers = px_alloc_array(n, sizeof *b->numbers, "a measurement");
    b->stats = px_alloc_array(n, sizeof *b->stats, "a measurement");
    b->starts = px_alloc_array((size_t)probe->sequences + 1, sizeof *b->starts, "a measurement");
    if (b->ids == NULL || b->rows == NULL || b->targets == NULL || b->numbers == NULL || b->stats == NULL ||
        b->starts == NULL) {
        return px_error_code();
    }
    for (size_t i = 0; i < n; i++) {
        b->ids[i] = (int32_t)(px_rng_uniform(&rng, (uint32_t)i, 0, 0, 0) * probe->model.vocab_size);
    }
    for (int s = 0; s < probe->sequences; s++) {
        b->starts[s] = s * probe->length;
        for (int h = probe->length - probe->heads; h < probe->length; h++) {
            b->rows[b->row_count] = s * probe->length + h;
            b->targets[b->row_count] = b->ids[s * probe->length + h];
            b->numbers[b->row_count++] = 1e-3;
        }
    }
    b->starts[probe->sequences] = b->tokens;
    return PX_OK;
}

static px_status bench_create(bench *b, const px_probe *probe, int layers, int threads)
{
    *b = (bench){0};
    PX_TRY(bench_model(b, probe, layers));
    if (probe->kind == PX_PROBE_DECODE) {
        px_generator_plan plan = {.max_slots = probe->sequences, .max_length = probe->length + NEW_TOKENS,
                                  .max_prefill = probe->length > 2048 ? probe->length : 2048, .threads = threads,
                                  .precision = probe->precision};
        PX_TRY(bench_batch(b, probe));
        return px_generator_create(&b->generator, &b->model.config, &plan);
    }
    px_engine_plan plan = {.max_tokens = probe->sequences * probe->length, .max_sequences = probe->sequences,
                           .max_sequence = probe->length, .train = probe->kind == PX_PROBE_TRAIN, .threads = threads,
                           .precision = probe->precision, .packed = probe->kind == PX_PROBE_PACK};
    PX_TRY(bench_batch(b, probe));
    if (plan.train) {
        b->grads = px_alloc_array(b->model.block, sizeof *b->grads, "a measurement");
        if (b->grads == NULL) {
            return px_error_code();
        }
    }
    return px_engine_create(&b->engine, &b->model.config, &plan);
}

static void flat_loss(void *arg, int first, int count, const px_row_stats *stats, double *dlogprob, double *dentropy)
{
    (void)arg, (void)first, (void)stats, (void)dentropy;
    for (int i = 0; i < count; i++) {
        dlogprob[i] = -1e-3;
    }
}

static void run_engine(bench *b, const px_probe *probe)
{
    px_batch batch = {.ids = b->ids, .starts = b->starts, .sequences = probe->sequences, .tokens = b->tokens};
    bool scalar = probe->model.head == PX_HEAD_SCALAR;
    px_engine_forward(b->engine, &b->model, &batch);
    if (probe->kind == PX_PROBE_PACK) {
        return;
    }
    if (probe->kind == PX_PROBE_FORWARD && scalar) {
        px_engine_values(b->engine, &b->model, b->rows, b->row_count, b->numbers);
    } else if (probe->kind == PX_PROBE_FORWARD) {
        px_engine_logprobs(b->engine, &b->model, b->rows, b->targets, b->row_count, 1.0, false, b->stats);
    } else {
        if (scalar) {
            px_engine_value_backward(b->engine, &b->model, b->grads, b->rows, b->numbers, b->row_count);
        } else {
            px_engine_lm_backward(b->engine, &b->model, b->grads, b->rows, b->targets, b->row_count, 1.0, false, flat_loss, NULL);
        }
        px_engine_backward(b->engine, &b->model, b->grads, NULL, NULL);
    }
}

static px_status run_decode(bench *b, const px_probe *probe, double *seconds)
{
    px_sampling sampling = {.temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0, .max_new_tokens = NEW_TOKENS,
                            .rng = px_rng_make(1, NULL, PX_RNG_SAMPLE)};
    size_t n = (size_t)probe->sequences;
    px_completion *completions = px_alloc_array(n, sizeof *completions, "a measurement");
    int32_t *ids = px_alloc_array(n * NEW_TOKENS, sizeof *ids, "a measurement");
    float *logprobs = px_alloc_array(n * NEW_TOKENS, sizeof *logprobs, "a measurement");
    px_status status = completions != NULL && ids != NULL && logprobs != NULL ? PX_OK : px_error_code();
    for (size_t i = 0; status == PX_OK && i < n; i++) {
        completions[i] = (px_completion){.ids = ids + i * NEW_TOKENS, .logprobs = logprobs + i * NEW_TOKENS};
    }
    if (status == PX_OK) { /* samples of one prompt: they decode all together from the second step on */
        px_request request = {b->ids, probe->length, 0, 0, probe->sequences};
        px_generator_stats stats;
        status = px_generator_run(b->generator, &b->model, &sampling, &request, 1, completions, NULL, NULL);
        px_generator_last(b->generator, &stats);
        *seconds = stats.decode_s / (double)(stats.decode_steps > 0 ? stats.decode_steps : 1);
    }
    px_free(completions);
    px_free(ids);
    px_free(logprobs);
    return status;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- time that this machine would take were it idle otherwise -------------------------------------------------------------- */

/* Plans are made on busy login nodes for nodes that a job has alone: what the scheduler has kept a thread from running does not
 * count. Linux tells it for each thread, in ns; without that, all time counts. */
enum { MAX_THREADS = 256 };
typedef struct stopwatch {
    double start;
    int count;
    double waited[MAX_THREADS]; /* of this process's threads, seconds since they exist */
} stopwatch;

static void look(stopwatch *w)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    w->count = 0;
    while (tasks != NULL && w->count < MAX_THREADS && (entry = readdir(tasks)) != NULL) {
        char path[300];
        unsigned long long ran, waited;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", entry->d_name);
        FILE *file = entry->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (file != NULL && fscanf(file, "%llu %llu", &ran, &waited) == 2) {
            w->waited[w->count++] = 1e-9 * (double)waited;
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    if (tasks != NULL) {
        closedir(tasks);
    }
    w->start = px_now();
}

/* The part of the time since then in which no thread was kept from running, at least. */
static double share_run(const stopwatch *then)
{
    stopwatch now;
    double wall = px_now() - then->start, most = 0.0;
    look(&now);
    for (int i = 0; i < now.count && i < then->count; i++) {
        most = fmax(most, now.waited[i] - then->waited[i]);
    }
    return wall > 0.0 ? fmax(0.05, 1.0 - most / wall) : 1.0;
}

/* One run, timed. Packing is what the first forward after a change of the weights takes longer than the same without. */
static px_status run_once(bench *b, const px_probe *probe, double *took)
{
    stopwatch watch;
    b->model.version += probe->kind == PX_PROBE_PACK;
    look(&watch);
    if (probe->kind == PX_PROBE_DECODE) {
        PX_TRY(run_decode(b, probe, took));
    } else {
        run_engine(b, probe);
        *took = px_now() - watch.start;
    }
    if (probe->kind == PX_PROBE_PACK) {
        double begun = px_now();
        run_engine(b, probe);
        *took = fmax(0.0, *took - (px_now() - begun));
    }
    *took *= share_run(&watch);
    return PX_OK;
}

/* One of the fastest runs of those that together take `enough`, after one that warms up (and after which a generator has its
 * packed weights): others that use the machine for a moment only ever make a run longer. */
static px_status measure_layers(const px_probe *probe, int layers, int threads, double *seconds)
{
    enum { FEWEST = 5, MOST = 25 };
    double runs[MOST], started = 0.0;
    int count = 0;
    bench b;
    px_status status = bench_create(&b, probe, layers, threads);
    for (int run = 0; status == PX_OK && count < MOST && (count < FEWEST || px_now() - started < enough); run++) {
        double start = px_now(), took = 0.0;
        status = run_once(&b, probe, &took);
        if (run == 0) {
            started = px_now();
            if (started - start < 2.0) {
                continue;
            }
        }
        runs[count++] = took;
        if (px_now() - start > 1.0) {
            break;
        }
    }
    bench_free(&b);
    PX_TRY(status);
    qsort(runs, (size_t)count, sizeof *runs, by_size);
    *seconds = runs[count / 5];
    return PX_OK;
}

static px_status measure_model(px_probe *probe, int threads)
{
    enum { FEW = 1, MORE = 3 };
    int layers = probe->model.layers;
    if (layers <= MORE) {
        return measure_layers(probe, layers, threads, &probe->seconds);
    }
    double few, more;
    PX_TRY(measure_layers(probe, FEW, threads, &few));
    PX_TRY(measure_layers(probe, MORE, threads, &more));
    double each = fmin(fmax(0.0, (more - few) / (MORE - FEW)), more / MORE); /* noise must not grow with the depth */
    probe->seconds = more + each * (layers - MORE);
    return PX_OK;
}

/* ---- flat blocks ---------------------------------------------------------------------------------------------------------- */

static void add_to(float *restrict to, const float *restrict from, size_t count)
{
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < count; i++) {
        to[i] += from[i];
    }
}

static px_status measure_block(px_probe *probe)
{
    enum { MOST = 1 << 24 };
    px_model model = {0};
    PX_TRY(px_model_plan(&model, &probe->model));
    size_t block = model.block, count = block < MOST ? block : MOST;
    px_model_free(&model);
    float *blocks = px_alloc_array(4 * count, sizeof *blocks, "a measurement");
    if (blocks == NULL) {
        return px_error_code();
    }
    px_adamw_config adam = {0.9, 0.95, 1e-8, 0.0};
    px_range range = {0, count, false};
    double best = INFINITY, square = 0.0;
    for (int run = 1; run <= 5; run++) {
        stopwatch watch;
        look(&watch);
        if (probe->kind == PX_PROBE_COPY) {
            memcpy(blocks, blocks + count, count * sizeof *blocks);
            square += (double)(px_hash(blocks, count * sizeof *blocks, 0) ^ px_hash(blocks, count * sizeof *blocks, 0));
        } else if (probe->kind == PX_PROBE_CLEAR) {
            memset(blocks, 0, count * sizeof *blocks);
            add_to(blocks + count, blocks, count);
        } else {
            square += px_sum_squares(blocks + count, count);
            px_adamw_step(&adam, blocks, blocks + count, blocks + 2 * count, blocks + 3 * count, &range, 1, 1e-6,
                          px_clip_scale(square, 1.0), run);
        }
        double took = px_now() - watch.start;
        best = fmin(best, took * share_run(&watch));
    }
    px_free(blocks);
    probe->seconds = best * (double)block / (double)count;
    return PX_OK;
}

static px_status measure(px_probe *probe, int threads)
{
    bool flat = probe->kind == PX_PROBE_CLEAR || probe->kind == PX_PROBE_STEP || probe->kind == PX_PROBE_COPY;
    return flat ? measure_block(probe) : measure_model(probe, threads);
}

/* ---- processes --------------------------------------------------------------------------------------------------------------- */

typedef struct answer { /* to one probe */
    px_status status;
    char text[1024];
    double seconds;
} answer;

static bool tell(int fd, const answer *a)
{
    for (size_t at = 0; at < sizeof *a;) {
        ssize_t n = write(fd, (const char *)a + at, sizeof *a - at);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* The first process answers; the others, without a pipe, keep the machine as busy as ranks do until they are ended. */
static _Noreturn void child(px_probe *probes, int count, int threads, int fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    omp_set_num_threads(threads);
    bool wanted = true;
    for (int i = 0; wanted && i < count && getppid() == parent; i = fd < 0 ? (i + 1) % count : i + 1) {
        answer a = {.status = measure(&probes[i], threads), .seconds = probes[i].seconds};
        snprintf(a.text, sizeof a.text, "%s", px_error_text());
        wanted = (fd < 0 || tell(fd, &a)) && a.status == PX_OK;
    }
    _exit(0);
}

/* Waits no longer than for the slowest of measurements, and not at all once the program is told to end. */
static px_status hear(int fd, answer *a)
{
    double started = px_now();
    for (size_t at = 0; at < sizeof *a;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait, 1, 100);
        if (px_stop_level() > 0) {
            return px_fail(PX_STOPPED, "stopped by %s while speed was measured", px_stop_reason());
        }
        ssize_t n = ready > 0 ? read(fd, (char *)a + at, sizeof *a - at) : -1;
        if (n == 0 || (ready > 0 && n < 0 && errno != EINTR)) {
            return px_fail(PX_IO, "the process that measures speed was lost; was there memory for it?");
        }
        if (px_now() - started > patience) {
            return px_fail(PX_IO, "a measurement of speed did not end within %.0f s", patience);
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return a->status == PX_OK ? PX_OK : px_fail(a->status, "%s", a->text);
}

px_status px_probes_run(px_probe *probes, int count, int threads, int processes)
{
    pid_t children[MAX_PROCESSES], self = getpid();
    int pipes[2], started = 0;
    if (pipe2(pipes, O_CLOEXEC) != 0) {
        return px_fail(PX_IO, "a pipe to measure speed: %s", strerror(errno));
    }
    fflush(NULL);
    omp_pause_resource_all(omp_pause_hard); /* a team's threads do not outlive a fork: children make teams of their own */
    for (; started < processes && started < MAX_PROCESSES; started++) {
        children[started] = fork();
        if (children[started] == 0) {
            close(pipes[0]);
            if (started > 0) {
                close(pipes[1]); /* so that the parent sees the first one's end */
            }
            child(probes, count, threads, started == 0 ? pipes[1] : -1, self);
        } else if (children[started] < 0) {
            break;
        }
    }
    close(pipes[1]);
    px_status status = started > 0 ? PX_OK : px_fail(PX_IO, "no process to measure speed: %s", strerror(errno));
    for (int i = 0; status == PX_OK && i < count; i++) {
        answer a = {.status = PX_OK};
        status = hear(pipes[0], &a);
        probes[i].seconds = a.seconds;
    }
    close(pipes[0]);
    for (int i = 0; i < started; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    return status;
}

/* ---- disk ------------------------------------------------------------------------------------------------------------------ */

static px_status time_file(const char *path, const void *bytes, size_t size, double *seconds)
{
    uint64_t hash;
    int64_t length;
    double start = px_now();
    PX_TRY(px_file_write(path, bytes, size));
    px_status status = px_hash_file(path, &hash, &length);
    *seconds = px_now() - start;
    unlink(path);
    return status;
}

/* Tables as wide as those of a sample file, with so many tokens of 28 bytes that hardly compress and 24 that do. */
static px_status append(const char *path, int64_t tokens)
{
    enum { WIDEST = 17, WHOLE = 4 };
    static const char *const names[WIDEST] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"};
    static const struct {
        const char *name;
        int columns;
    } shapes[] = {{"/tokens", 11}, {"/samples", 17}, {"/updates", 12}, {"/order", 2}, {"/prompt_tokens", 3}};
    enum { TABLES = sizeof shapes / sizeof *shapes };
    px_column columns[WIDEST];
    px_table_data tables[TABLES];
    const void *values[WIDEST];
    int64_t *rows = px_alloc_array((size_t)tokens, sizeof *rows, "a measurement");
    float *numbers = px_alloc_array((size_t)tokens, sizeof *numbers, "a measurement");
    px_status status = rows != NULL && numbers != NULL ? PX_OK : px_error_code();
    px_rng rng = px_rng_make(1, "probe", PX_RNG_NOISE);
    for (int64_t i = 0; status == PX_OK && i < tokens; i++) {
        rows[i] = i / 50;
        numbers[i] = (float)px_rng_uniform(&rng, (uint32_t)i, 0, 0, 0);
    }
    for (int c = 0; c < WIDEST; c++) {
        columns[c] = (px_column){names[c], "1", "", c < WHOLE ? PX_COL_I64 : PX_COL_F32, 0, false};
        values[c] = c < WHOLE ? (const void *)rows : numbers;
    }
    for (int t = 0; t < TABLES; t++) {
        tables[t] = (px_table_data){shapes[t].name, columns, shapes[t].columns, t == 0 ? tokens : 1, values};
    }
    status = status == PX_OK ? px_samples_append(path, tables, TABLES, INT64_MAX, NULL) : status;
    px_free(rows);
    px_free(numbers);
    return status;
}

/* What an iteration does: looks up where its rows start, then appends, which writes the whole file anew. */
static px_status time_append(const char *path, int64_t tokens, double *seconds)
{
    static const char *const looked_up[] = {"/samples", "/updates", "/order"};
    double start = px_now();
    for (int t = 0; t < 3; t++) {
        px_frame frame;
        PX_TRY(px_frame_read(path, looked_up[t], &frame));
        px_frame_free(&frame);
    }
    px_status status = append(path, tokens);
    *seconds = px_now() - start;
    return status;
}

static px_status time_samples(const char *path, px_disk_speed *speed)
{
    enum { FEW = 100, MANY = 50000, RUNS = 3 };
    double few = INFINITY, many = INFINITY, took = 0.0;
    px_status status = append(path, FEW);
    for (int run = 0; run < RUNS && status == PX_OK; run++) {
        status = time_append(path, FEW, &took);
        few = fmin(few, took);
    }
    status = status == PX_OK ? time_append(path, MANY, &many) : status;
    unlink(path);
    speed->append_token = fmax(0.0, many - few) / MANY;
    speed->append = few;
    return status;
}

px_status px_probe_disk(const char *dir, px_disk_speed *speed)
{
    enum { LARGE = 8 << 20, SMALL = 512 };
    char parent[PX_PATH_MAX], path[PX_PATH_MAX], name[64];
    snprintf(parent, sizeof parent, "%s", dir);
    while (!px_dir_exists(parent)) {
        snprintf(path, sizeof path, "%s", parent);
        px_path_parent(parent, sizeof parent, path);
    }
    snprintf(name, sizeof name, ".phalanx-plan-%d", (int)getpid());
    PX_TRY(px_path_join(path, sizeof path, parent, name));
    char *bytes = px_alloc(LARGE, "a measurement");
    if (bytes == NULL) {
        return px_error_code();
    }
    double large = INFINITY, small = INFINITY, took = 0.0;
    px_status status = PX_OK;
    for (int run = 0; run < 3 && status == PX_OK; run++) { /* another's sync makes one longer, never shorter */
        status = time_file(path, bytes, SMALL, &took);
        small = fmin(small, took);
        status = status == PX_OK ? time_file(path, bytes, LARGE, &took) : status;
        large = fmin(large, took);
    }
    px_free(bytes);
    PX_TRY(status);
    speed->file = small;
    speed->byte = fmax(0.0, large - small) / LARGE;
    return time_samples(path, speed);
}
