/* A data set in memory: all ids in one array, a small entry per row, the records' own JSON behind each other. */
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct px_entry {
    int64_t record, start, mask_start, json_start; /* places in ids, masks and json; mask_start -1: no mask */
    int length, rejected_length, prompt_length, json_length;
    double margin;
} px_entry;

typedef struct px_data_file {
    int64_t first_record; /* number of its first record in the whole */
    px_data_summary summary;
} px_data_file;

struct px_dataset {
    px_data_file *files;
    px_part *parts;     /* [file_count] */
    int file_count;
    px_ids ids;         /* row by row: the row, then its rejected side */
    px_buf masks, json; /* a byte per id of masked rows; NUL-terminated records */
    px_entry *entries;
    int64_t count, capacity;
    px_data_summary summary;
    uint64_t hash;
};

typedef struct px_loader {
    px_dataset *dataset;
    px_data_file *file;
    const char *path;
    px_row_maker maker;
    int64_t equal_line; /* of the first pair with equal sides; 0: none */
} px_loader;

static px_status grow(px_dataset *dataset) {
    if (dataset->count < dataset->capacity) return PX_OK;
    int64_t capacity = dataset->capacity ? 2 * dataset->capacity : 256;
    px_entry *entries = px_realloc(dataset->entries, (size_t)capacity * sizeof *entries, "rows of a data set");
    if (!entries) return px_error_code();
    dataset->entries = entries;
    dataset->capacity = capacity;
    return PX_OK;
}

static px_status add_mask(px_dataset *dataset, const px_ids *mask) {
    PX_TRY(px_buf_reserve(&dataset->masks, dataset->masks.length + (size_t)mask->length));
    for (int64_t i = 0; i < mask->length; i++) {
        char bit = mask->data[i] != 0;
        PX_TRY(px_buf_add(&dataset->masks, &bit, 1));
    }
    return PX_OK;
}

/* What learning depends on: ids, where targets begin, masks, margins; for prompts the record too, whose other fields
 * rewards may read. */
static void hash_row(px_dataset *dataset, const px_row_maker *maker, const char *json, size_t length) {
    int64_t shape[3] = {maker->ids.length, maker->rejected.length, maker->prompt_length};
    uint64_t hash = px_hash(shape, sizeof shape, dataset->hash);
    hash = px_hash(maker->ids.data, (size_t)maker->ids.length * sizeof(int32_t), hash);
    if (maker->rejected.length > 0)
        hash = px_hash(maker->rejected.data, (size_t)maker->rejected.length * sizeof(int32_t), hash);
    if (maker->has_mask) hash = px_hash(maker->mask.data, (size_t)maker->mask.length * sizeof(int32_t), hash);
    hash = px_hash(&maker->margin, sizeof maker->margin, hash);
    if (maker->options->kind == PX_ROWS_PROMPTS) hash = px_hash(json, length, hash);
    dataset->hash = hash;
}

static void count_row(px_data_summary *summary, const px_entry *entry) {
    int length = entry->length > entry->rejected_length ? entry->length : entry->rejected_length, bin = 0;
    while (length >> (bin + 1) && bin < 23) bin++;
    summary->histogram[bin]++;
    summary->tokens += (int64_t)entry->length + entry->rejected_length;
    summary->mean_length += length; /* a sum until the end */
    if (length > summary->max_length) summary->max_length = length;
    if (summary->rows == 0 || length < summary->min_length) summary->min_length = length;
    summary->rows++;
}

static px_status store(px_loader *loader, int64_t record, const char *json, size_t length) {
    px_dataset *dataset = loader->dataset;
    const px_row_maker *maker = &loader->maker;
    PX_TRY(grow(dataset));
    px_entry entry = {.record = record, .start = dataset->ids.length, .mask_start = -1,
                      .json_start = (int64_t)dataset->json.length, .length = (int)maker->ids.length,
                      .rejected_length = (int)maker->rejected.length, .prompt_length = (int)maker->prompt_length,
                      .json_length = (int)length, .margin = maker->margin};
    PX_TRY(px_ids_append(&dataset->ids, maker->ids.data, maker->ids.length));
    PX_TRY(px_ids_append(&dataset->ids, maker->rejected.data, maker->rejected.length));
    if (maker->has_mask && maker->options->kind == PX_ROWS_LM) {
        entry.mask_start = (int64_t)dataset->masks.length;
        PX_TRY(add_mask(dataset, &maker->mask));
    }
    PX_TRY(px_buf_add(&dataset->json, json, length));
    PX_TRY(px_buf_add(&dataset->json, "", 1));
    dataset->entries[dataset->count++] = entry;
    hash_row(dataset, maker, json, length);
    count_row(&loader->file->summary, &entry);
    return PX_OK;
}

static px_status add_record(px_loader *loader, const json_t *record, int64_t number, int64_t line, const char *json,
                            size_t length) {
    px_data_summary *summary = &loader->file->summary;
    px_kind kind = loader->maker.options->kind;
    if (!loader->maker.shape) PX_TRY(px_shape_find(&loader->maker.shape, record, kind));
    else PX_TRY(px_shape_check(loader->maker.shape, record, kind));
    PX_TRY(px_row_make(&loader->maker, record));
    summary->records++;
    switch (loader->maker.verdict) {
    case PX_ROW_TOO_LONG: summary->dropped_long++; break;
    case PX_ROW_NO_TARGET: summary->dropped_empty++; break;
    case PX_ROW_EQUAL:
        summary->dropped_equal++;
        if (!loader->equal_line) loader->equal_line = line;
        break;
    case PX_ROW_CUT: summary->cut++; /* fall through */
    case PX_ROW_KEPT: return store(loader, loader->file->first_record + number, json, length);
    }
    summary->dropped++;
    return PX_OK;
}

static px_status on_record(void *arg, int64_t number, int64_t line, const char *json, size_t length) {
    px_loader *loader = arg;
    json_t *record;
    PX_TRY(px_json_parse(json, length, loader->path, line - 1, &record));
    px_status status = add_record(loader, record, number, line, json, length);
    json_decref(record);
    return status == PX_OK ? PX_OK : px_fail_within("%s:%lld", loader->path, (long long)line);
}

static int compare_hashes(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Rows whose prompt (whole row where there is none) an earlier row had. */
static px_status count_duplicates(px_dataset *dataset) {
    uint64_t *hashes = px_alloc_array((size_t)dataset->count, sizeof *hashes, "hashes of prompts");
    if (!hashes) return px_error_code();
    for (int64_t i = 0; i < dataset->count; i++) {
        const px_entry *entry = &dataset->entries[i];
        int length = entry->prompt_length > 0 ? entry->prompt_length : entry->length;
        if (length > entry->length) length = entry->length;
        hashes[i] = px_hash(dataset->ids.data + entry->start, (size_t)length * sizeof(int32_t), 0);
    }
    qsort(hashes, (size_t)dataset->count, sizeof *hashes, compare_hashes);
    for (int64_t i = 1; i < dataset->count; i++) dataset->summary.duplicate_prompts += hashes[i] == hashes[i - 1];
    px_free(hashes);
    return PX_OK;
}

/* A stray pair with equal sides is left out and counted; many of them mean that the file is not what it should be. */
static px_status check_usable(const px_loader *loader) {
    const px_data_summary *summary = &loader->file->summary;
    if (summary->dropped_equal * 50 > summary->records)
        return px_fail(PX_DATA, "%s:%lld: field \"%s\" equals field \"%s\" (in %lld of %lld pairs; up to 2 %% are left "
                                "out); valid is two different answers", loader->path, (long long)loader->equal_line,
                       loader->maker.shape->answer, loader->maker.shape->rejected, (long long)summary->dropped_equal,
                       (long long)summary->records);
    if (summary->rows > 0) return PX_OK;
    return px_fail(PX_DATA, "%s: none of the %lld records can be used: %lld longer than max_tokens %d, %lld with no "
                            "token to learn within it; raise max_tokens or shorten the texts", loader->path,
                   (long long)summary->records, (long long)summary->dropped_long, loader->maker.options->max_tokens,
                   (long long)summary->dropped_empty);
}

static px_status load_file(px_dataset *dataset, int at, const px_source *source, const px_data_options *options) {
    px_loader loader = {.dataset = dataset, .file = &dataset->files[at], .path = source->path,
                        .maker = {.options = options}};
    px_data_summary *summary = &loader.file->summary;
    loader.file->first_record = dataset->summary.records;
    px_status status = px_records_each(source->path, on_record, &loader);
    if (status == PX_OK) status = check_usable(&loader);
    if (status == PX_OK) snprintf(summary->shape, sizeof summary->shape, "%s", loader.maker.shape->name);
    px_row_maker_free(&loader.maker);
    return status;
}

/* sum: mean_length still a sum of lengths, in both. */
static void add_summary(px_data_summary *sum, const px_data_summary *file) {
    size_t used = strlen(sum->shape);
    bool named = used > 0 && strstr(sum->shape, file->shape);
    if (!named)
        snprintf(sum->shape + used, sizeof sum->shape - used, "%s%s", used ? "; " : "", file->shape);
    if (sum->rows == 0 || file->min_length < sum->min_length) sum->min_length = file->min_length;
    if (file->max_length > sum->max_length) sum->max_length = file->max_length;
    sum->records += file->records;
    sum->rows += file->rows;
    sum->cut += file->cut;
    sum->dropped += file->dropped;
    sum->dropped_long += file->dropped_long;
    sum->dropped_equal += file->dropped_equal;
    sum->dropped_empty += file->dropped_empty;
    sum->tokens += file->tokens;
    sum->mean_length += file->mean_length;
    for (int i = 0; i < 24; i++) sum->histogram[i] += file->histogram[i];
}

static px_status load(px_dataset *dataset, const px_source *sources, const px_data_options *options) {
    for (int i = 0; i < dataset->file_count; i++) {
        px_data_summary *summary = &dataset->files[i].summary;
        PX_TRY(load_file(dataset, i, &sources[i], options));
        add_summary(&dataset->summary, summary);
        summary->mean_length /= (double)summary->rows;
        dataset->parts[i] = (px_part){summary->rows, sources[i].weight};
    }
    dataset->summary.mean_length /= (double)dataset->summary.rows;
    return count_duplicates(dataset);
}

px_status px_dataset_load_files(px_dataset **out, const px_source *sources, int count, const px_data_options *options) {
    *out = NULL;
    PX_CHECK(count > 0);
    px_dataset *dataset = px_alloc(sizeof *dataset, "a data set");
    if (!dataset) return px_error_code();
    dataset->files = px_alloc_array((size_t)count, sizeof *dataset->files, "files of a data set");
    dataset->parts = px_alloc_array((size_t)count, sizeof *dataset->parts, "files of a data set");
    dataset->file_count = count;
    px_status status = dataset->files && dataset->parts ? load(dataset, sources, options) : px_error_code();
    if (status != PX_OK) px_dataset_destroy(dataset);
    else *out = dataset;
    return status;
}

px_status px_dataset_load(px_dataset **dataset, const char *path, const px_data_options *options) {
    return px_dataset_load_files(dataset, &(px_source){path, 1.0}, 1, options);
}

void px_dataset_destroy(px_dataset *dataset) {
    if (!dataset) return;
    px_ids_free(&dataset->ids);
    px_buf_free(&dataset->masks);
    px_buf_free(&dataset->json);
    px_free(dataset->entries);
    px_free(dataset->files);
    px_free(dataset->parts);
    px_free(dataset);
}

int64_t px_dataset_count(const px_dataset *dataset) {
    return dataset->count;
}

void px_dataset_row(const px_dataset *dataset, int64_t index, px_row *row) {
    PX_CHECK(index >= 0 && index < dataset->count);
    const px_entry *entry = &dataset->entries[index];
    const int32_t *ids = dataset->ids.data + entry->start;
    *row = (px_row){.record = entry->record, .ids = ids, .length = entry->length, .prompt_length = entry->prompt_length,
                    .rejected_length = entry->rejected_length, .margin = entry->margin,
                    .json = dataset->json.data + entry->json_start, .json_length = entry->json_length};
    if (entry->mask_start >= 0) row->mask = (const uint8_t *)dataset->masks.data + entry->mask_start;
    if (entry->rejected_length > 0) row->rejected = ids + entry->length;
}

const px_data_summary *px_dataset_summary(const px_dataset *dataset) {
    return &dataset->summary;
}

const px_data_summary *px_dataset_file_summary(const px_dataset *dataset, int file) {
    PX_CHECK(file >= 0 && file < dataset->file_count);
    return &dataset->files[file].summary;
}

const px_part *px_dataset_parts(const px_dataset *dataset, int *count) {
    *count = dataset->file_count;
    return dataset->parts;
}

double px_dataset_epoch_tokens(const px_dataset *dataset) {
    double tokens = 0.0;
    for (int i = 0; i < dataset->file_count; i++) {
        double passes = (double)px_parts_epoch(&dataset->parts[i], 1) / (double)dataset->parts[i].count;
        tokens += passes * (double)dataset->files[i].summary.tokens;
    }
    return tokens;
}

uint64_t px_dataset_hash(const px_dataset *dataset) {
    return dataset->hash;
}
