/* A data set's columns in files: made once by whoever comes first, mapped by everybody, found again by later starts. The
 * directory CACHE/KEY appears whole, by a rename of KEY.building, in which one process works. KEY says all that the rows
 * depend on. */
#include "dataset.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAP_MS 50
#define SILENCE_S 120 /* of naps without growth, after which a builder on another host counts as dead */

static const char magic[8] = "PHXROWS3";
static const char *const names[PX_DATA_COLUMNS] = {"entries", "ids", "masks", "records"};

typedef struct px_cache_head { /* file "head": this, px_data_file[file_count], the hash of both */
    char magic[8];
    uint64_t key, hash, entries_hash;
    int64_t count, lengths[PX_DATA_COLUMNS], file_count;
    px_data_summary summary;
} px_cache_head;

/* ---- the key ----------------------------------------------------------------------------------------------------- */

/* Size, time and sixteen samples of 4 KiB: a file that changed is another file. */
static px_status hash_source(const char *path, uint64_t *key)
{
    enum { SAMPLES = 16, BYTES = 4096 };
    char sample[BYTES];
    struct stat info;
    int fd;
    PX_TRY(px_file_open(path, &fd));
    bool good = fstat(fd, &info) == 0;
    int64_t about[3] = {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
    *key = px_hash(about, sizeof about, *key);
    for (int i = 0; good && i < SAMPLES; i++) {
        ssize_t n = pread(fd, sample, BYTES, (off_t)((double)info.st_size / SAMPLES * i));
        good = n >= 0;
        if (good) *key = px_hash(sample, (size_t)n, *key);
    }
    px_status status = good ? PX_OK : px_fail(PX_IO, "%s: %s", path, strerror(errno));
    close(fd);
    return status;
}

static px_status make_key(const px_dataset *dataset, const px_source *sources, const px_data_options *o, uint64_t *key)
{
    const char *renderer = o->renderer ? px_renderer_name(o->renderer) : "", *system = o->system ? o->system : "";
    px_tokenizer *t = o->tokenizer; /* templates write bos and eos */
    int64_t numbers[] = {o->kind, o->max_tokens, o->vocab_size, o->eos_id, o->add_bos, o->scored + 2 * o->whole, dataset->file_count,
                         t ? (int64_t)px_tokenizer_hash(t) : 0, t ? px_tokenizer_bos(t) : -1,
                         t ? px_tokenizer_eos(t) : -1, (int64_t)sizeof(px_entry)};
    *key = px_hash(numbers, sizeof numbers, px_hash(magic, sizeof magic, 0));
    *key = px_hash(renderer, strlen(renderer) + 1, *key);
    *key = px_hash(system, strlen(system) + 1, *key);
    for (int i = 0; i < dataset->file_count; i++) PX_TRY(hash_source(sources[i].path, key));
    return PX_OK;
}

/* ---- using it ---------------------------------------------------------------------------------------------------- */

static px_status bad(const char *dir, const char *what)
{
    return px_fail(PX_DATA, "%s: %s", dir, what);
}

static bool entry_fits(const px_entry *e, const px_cache_head *head)
{
    int64_t ids = head->lengths[PX_DATA_IDS] / (int64_t)sizeof(int32_t);
    if (e->length < 0 || e->rejected_length < 0 || e->prompt_length < 0 || e->json_length < 0 || e->start < 0) return false;
    if (e->prompt_length > e->length || (int64_t)e->length + e->rejected_length > ids - e->start) return false;
    if (e->mask_start >= 0 && e->length > head->lengths[PX_DATA_MASKS] - e->mask_start) return false;
    return e->json_start < 0 || e->json_length < head->lengths[PX_DATA_RECORDS] - e->json_start;
}

static px_status read_head(px_dataset *dataset, const char *dir, uint64_t key, px_cache_head *head)
{
    char path[PX_PATH_MAX];
    px_buf bytes = {0};
    size_t files = (size_t)dataset->file_count * sizeof(px_data_file), body = sizeof *head + files;
    uint64_t hash;
    PX_TRY(px_path_join(path, sizeof path, dir, "head"));
    px_status status = px_file_read(path, PX_TEXT_MOST, &bytes);
    if (status == PX_OK && bytes.length != body + sizeof hash) status = bad(dir, "the head has another size");
    if (status == PX_OK) {
        memcpy(&hash, bytes.data + body, sizeof hash);
        memcpy(head, bytes.data, sizeof *head);
        memcpy(dataset->files, bytes.data + sizeof *head, files);
        if (hash != px_hash(bytes.data, body, 0) || memcmp(head->magic, magic, sizeof magic) != 0 || head->key != key ||
            head->file_count != dataset->file_count || head->count < 1 ||
            head->count > INT64_MAX / (int64_t)sizeof(px_entry) ||
            head->lengths[PX_DATA_ENTRIES] != head->count * (int64_t)sizeof(px_entry))
            status = bad(dir, "the head is not what was written");
    }
    px_buf_free(&bytes);
    return status;
}

static px_status check_entries(const px_dataset *dataset, const char *dir, const px_cache_head *head)
{
    const px_entry *entries = (const px_entry *)px_column_data(&dataset->columns[PX_DATA_ENTRIES]);
    if (px_hash(entries, (size_t)head->lengths[PX_DATA_ENTRIES], 0) != head->entries_hash)
        return bad(dir, "the entries are not what was written");
    for (int64_t i = 0; i < head->count; i++)
        if (!entry_fits(&entries[i], head)) return bad(dir, "an entry points outside");
    return PX_OK;
}

static px_status open_cache(px_dataset *dataset, const char *dir, uint64_t key)
{
    px_cache_head head;
    PX_TRY(read_head(dataset, dir, key, &head));
    for (int i = 0; i < PX_DATA_COLUMNS; i++) {
        px_column_free(&dataset->columns[i]);
        PX_TRY(px_column_map(&dataset->columns[i], dir, names[i], head.lengths[i]));
    }
    PX_TRY(check_entries(dataset, dir, &head));
    dataset->count = head.count;
    dataset->summary = head.summary;
    dataset->hash = head.hash;
    return PX_OK;
}

/* ---- making it --------------------------------------------------------------------------------------------------- */

static px_status write_head(px_dataset *dataset, const char *dir, uint64_t key)
{
    char path[PX_PATH_MAX];
    px_buf bytes = {0};
    px_cache_head head;
    memset(&head, 0, sizeof head); /* padding too: its bytes are hashed */
    memcpy(head.magic, magic, sizeof magic);
    head.key = key;
    head.hash = dataset->hash;
    head.count = dataset->count;
    head.file_count = dataset->file_count;
    head.summary = dataset->summary;
    for (int i = 0; i < PX_DATA_COLUMNS; i++) head.lengths[i] = dataset->columns[i].length;
    head.entries_hash = px_hash(px_column_data(&dataset->columns[PX_DATA_ENTRIES]),
                                (size_t)head.lengths[PX_DATA_ENTRIES], 0);
    px_status status = px_path_join(path, sizeof path, dir, "head");
    if (status == PX_OK) status = px_buf_add(&bytes, &head, sizeof head);
    if (status == PX_OK)
        status = px_buf_add(&bytes, dataset->files, (size_t)dataset->file_count * sizeof *dataset->files);
    uint64_t hash = px_hash(bytes.data, bytes.length, 0);
    if (status == PX_OK) status = px_buf_add(&bytes, &hash, sizeof hash);
    if (status == PX_OK) status = px_file_write(path, bytes.data, bytes.length);
    px_buf_free(&bytes);
    return status;
}

static px_status write_owner(const char *dir)
{
    char path[PX_PATH_MAX], text[512];
    const px_process self = px_process_self();
    PX_TRY(px_path_join(path, sizeof path, dir, "owner"));
    int n = snprintf(text, sizeof text, "%s %ld %lld %s\n", self.host, self.pid, (long long)self.start, self.place);
    return px_file_write(path, text, (size_t)n);
}

static px_status make(px_dataset *dataset, const px_source *sources, const px_data_options *options, const char *dir,
                      uint64_t key)
{
    PX_TRY(write_owner(dir));
    for (int i = 0; i < PX_DATA_COLUMNS; i++) PX_TRY(px_column_create(&dataset->columns[i], dir, names[i]));
    PX_TRY(px_dataset_build(dataset, sources, options));
    for (int i = 0; i < PX_DATA_COLUMNS; i++) {
        int64_t length = dataset->columns[i].length;
        px_column_free(&dataset->columns[i]);
        PX_TRY(px_column_map(&dataset->columns[i], dir, names[i], length));
    }
    PX_TRY(px_dataset_count_duplicates(dataset));
    return write_head(dataset, dir, key);
}

/* ---- one builder ------------------------------------------------------------------------------------------------- */

static int64_t size_of(const char *dir)
{
    int64_t size = 0;
    for (int i = 0; i < PX_DATA_COLUMNS; i++) {
        char path[PX_PATH_MAX];
        struct stat info;
        if (px_path_join(path, sizeof path, dir, names[i]) == PX_OK && stat(path, &info) == 0) size += info.st_size;
    }
    return size;
}

typedef enum builder { BUILDER_UNSEEN, BUILDER_DEAD, BUILDER_ALIVE } builder; /* unseen: of another host, or not known yet */

static builder find_builder(const char *dir)
{
    char path[PX_PATH_MAX];
    px_process owner = {.pid = 0};
    long long start = -1;
    px_buf text = {0};
    bool known = px_path_join(path, sizeof path, dir, "owner") == PX_OK && px_file_read(path, 1024, &text) == PX_OK &&
                 text.data && sscanf(text.data, "%255s %ld %lld %127[^\n]", owner.host, &owner.pid, &start, owner.place) == 4;
    px_buf_free(&text);
    px_error_clear();
    if (!known || !px_process_is_here(&owner)) return BUILDER_UNSEEN;
    return px_process_lives(owner.pid, start) ? BUILDER_ALIVE : BUILDER_DEAD;
}

/* Until the builder is done or has given up; what a dead one left is taken away. Naps are counted and not the clock: whoever was
 * suspended himself and goes on has not waited. */
static px_status wait_for_builder(const char *building)
{
    const struct timespec pause = {0, NAP_MS * 1000 * 1000};
    int64_t size = -1;
    for (int naps = 0; px_dir_exists(building); naps++) {
        if (px_stop_level() > 0) return px_fail(PX_STOPPED, "%s: stopped while the data set is made", building);
        int64_t now = size_of(building);
        builder state = find_builder(building);
        if (now != size || state == BUILDER_ALIVE) naps = 0;
        size = now;
        if (state == BUILDER_DEAD || naps > SILENCE_S * 1000 / NAP_MS) {
            char aside[PX_PATH_MAX];
            snprintf(aside, sizeof aside, "%.4000s.%ld", building, (long)getpid());
            if (rename(building, aside) == 0) PX_TRY(px_tree_remove(aside)); /* of several that wait, one succeeds */
            return PX_OK;
        }
        nanosleep(&pause, NULL);
    }
    return PX_OK;
}

/* Forgets what a failed try left in memory. */
static void start_over(px_dataset *dataset)
{
    for (int i = 0; i < PX_DATA_COLUMNS; i++) px_column_free(&dataset->columns[i]);
    memset(dataset->files, 0, (size_t)dataset->file_count * sizeof *dataset->files);
    dataset->summary = (px_data_summary){0};
    dataset->count = 0;
    dataset->hash = 0;
}

static px_status build_once(px_dataset *dataset, const px_source *sources, const px_data_options *options,
                            const char *building, const char *dir, uint64_t key)
{
    px_log_rank(PX_INFO, "%s%s: made into token ids once, in %s", sources[0].path,
                dataset->file_count > 1 ? " and others" : "", dir);
    px_status status = make(dataset, sources, options, building, key);
    start_over(dataset);
    if (status != PX_OK) {
        px_tree_remove(building);
        return status;
    }
    if (rename(building, dir) == 0 || px_dir_exists(dir)) return PX_OK;
    return px_fail(PX_IO, "%s: %s", dir, strerror(errno));
}

px_status px_dataset_cached(px_dataset *dataset, const px_source *sources, const px_data_options *options)
{
    char name[32], dir[PX_PATH_MAX], building[PX_PATH_MAX];
    uint64_t key;
    bool made = false;
    PX_TRY(make_key(dataset, sources, options, &key));
    snprintf(name, sizeof name, "%016llx", (unsigned long long)key);
    PX_TRY(px_path_join(dir, sizeof dir, options->cache, name));
    snprintf(name, sizeof name, "%016llx.building", (unsigned long long)key);
    PX_TRY(px_path_join(building, sizeof building, options->cache, name));
    PX_TRY(px_dir_create(options->cache));
    for (;;) {
        if (px_dir_exists(dir)) {
            px_status status = open_cache(dataset, dir, key);
            if (status == PX_OK || made) return status;
            px_log_rank(PX_WARNING, "%s; made again", px_error_text());
            px_error_clear();
            start_over(dataset);
            PX_TRY(px_tree_remove(dir));
        }
        if (mkdir(building, 0777) == 0) {
            PX_TRY(build_once(dataset, sources, options, building, dir, key));
            made = true;
        } else if (errno == EEXIST) {
            PX_TRY(wait_for_builder(building));
        } else {
            return px_fail(PX_IO, "%s: %s", building, strerror(errno));
        }
    }
}
