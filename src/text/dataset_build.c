/* Files into rows: every record is parsed, made into token ids and added to the columns, one at a time. */
#include "dataset.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 1 << 21 }; /* hashes that are sorted together */

typedef struct px_loader {
    px_dataset *dataset;
    px_data_file *file;
    const char *path;
    px_row_maker maker;
    int64_t equal_line; /* of the first pair with equal sides; 0: none */
    int64_t empty_count, empty_line; /* rows without a text; the first and what it lacked */
    char empty_reason[sizeof((px_row_maker *)0)->reason];
} px_loader;

static px_status add_mask(px_column *masks, const px_ids *mask)
{
    for (int64_t i = 0; i < mask->length; i++) {
        char bit = mask->data[i] != 0;
        PX_TRY(px_column_add(masks, &bit, 1));
    }
    return PX_OK;
}

/* What learning depends on: ids, where targets begin, masks, margins; for prompts the record too, whose other fields
 * rewards may read. */
static void hash_row(px_dataset *dataset, const px_row_maker *maker, const char *json, size_t length)
{
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

static void count_row(px_data_summary *summary, const px_entry *entry)
{
    int length = entry->length > entry->rejected_length ? entry->length : entry->rejected_length, bin = 0;
    while (length >> (bin + 1) && bin < 23) bin++;
    summary->histogram[bin]++;
    summary->tokens += (int64_t)entry->length + entry->rejected_length;
    summary->mean_length += length; /* a sum until the end */
    if (length > summary->max_length) summary->max_length = length;
    if (summary->rows == 0 || length < summary->min_length) summary->min_length = length;
    summary->rows++;
}

static uint64_t hash_prompt(const px_row_maker *maker)
{
    int64_t length = maker->prompt_length > 0 ? maker->prompt_length : maker->ids.length;
    if (length > maker->ids.length) length = maker->ids.length;
    return px_hash(maker->ids.data, (size_t)length * sizeof(int32_t), 0);
}

static px_status store(px_loader *loader, int64_t record, const char *json, size_t length)
{
    px_dataset *dataset = loader->dataset;
    px_column *columns = dataset->columns;
    const px_row_maker *maker = &loader->maker;
    px_entry entry = {.record = record, .start = columns[PX_DATA_IDS].length / (int64_t)sizeof(int32_t),
                      .mask_start = -1, .json_start = -1, .prompt_hash = hash_prompt(maker),
                      .length = (int32_t)maker->ids.length, .rejected_length = (int32_t)maker->rejected.length,
                      .prompt_length = (int32_t)maker->prompt_length, .margin = maker->margin};
    PX_TRY(px_column_add(&columns[PX_DATA_IDS], maker->ids.data, (size_t)maker->ids.length * sizeof(int32_t)));
    PX_TRY(px_column_add(&columns[PX_DATA_IDS], maker->rejected.data, (size_t)maker->rejected.length * sizeof(int32_t)));
    if (maker->has_mask && maker->options->kind == PX_ROWS_LM) {
        entry.mask_start = columns[PX_DATA_MASKS].length;
        PX_TRY(add_mask(&columns[PX_DATA_MASKS], &maker->mask));
    }
    if (maker->options->kind == PX_ROWS_PROMPTS) {
        entry.json_start = columns[PX_DATA_RECORDS].length;
        entry.json_length = (int32_t)length;
        PX_TRY(px_column_add(&columns[PX_DATA_RECORDS], json, length));
        PX_TRY(px_column_add(&columns[PX_DATA_RECORDS], "", 1));
    }
    PX_TRY(px_column_add(&columns[PX_DATA_ENTRIES], &entry, sizeof entry));
    dataset->count++;
    hash_row(dataset, maker, json, length);
    count_row(&loader->file->summary, &entry);
    return PX_OK;
}

static px_status add_record(px_loader *loader, const json_t *record, int64_t number, int64_t line, const char *json,
                            size_t length)
{
    px_data_summary *summary = &loader->file->summary;
    px_kind kind = loader->maker.options->kind;
    if (!loader->maker.shape) PX_TRY(px_shape_find(&loader->maker.shape, record, kind));
    else PX_TRY(px_shape_check(loader->maker.shape, record, kind));
    PX_TRY(px_row_make(&loader->maker, record));
    summary->records++;
    switch (loader->maker.verdict) {
    case PX_ROW_TOO_LONG: summary->dropped_long++; break;
    case PX_ROW_EMPTY:
        if (loader->empty_count++ == 0) {
            loader->empty_line = line;
            memcpy(loader->empty_reason, loader->maker.reason, sizeof loader->empty_reason);
        } /* fall through */
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

static px_status on_record(void *arg, int64_t number, int64_t line, const char *json, size_t length)
{
    px_loader *loader = arg;
    json_t *record;
    if (px_stop_level() > 0) return px_fail(PX_STOPPED, "%s: stopped while it was read", loader->path);
    if (number > 0 && number % 100000 == 0) px_progress("%s: %lld records", loader->path, (long long)number);
    PX_TRY(px_json_parse(json, length, loader->path, line - 1, &record));
    px_status status = add_record(loader, record, number, line, json, length);
    json_decref(record);
    return status == PX_OK || status == PX_IO ? status : px_fail_within("%s:%lld", loader->path, (long long)line);
}

typedef struct px_seen {
    uint64_t hash;
    int64_t row;
} px_seen;

static int compare_seen(const void *a, const void *b)
{
    const px_seen *x = a, *y = b;
    if (x->hash != y->hash) return x->hash > y->hash ? 1 : -1;
    return (x->row > y->row) - (x->row < y->row);
}

static void add_duplicate(px_dataset *dataset, int64_t row)
{
    int file = 0;
    for (; row >= dataset->files[file].summary.rows; file++) row -= dataset->files[file].summary.rows;
    dataset->files[file].summary.duplicate_prompts++;
    dataset->summary.duplicate_prompts++;
}

/* Rows whose prompt (whole row where there is none) an earlier row had, of whichever file: equal hashes, a slice of them
 * after another, so that little memory is enough. */
px_status px_dataset_count_duplicates(px_dataset *dataset)
{
    const px_entry *entries = (const px_entry *)px_column_data(&dataset->columns[PX_DATA_ENTRIES]);
    uint64_t slices = (uint64_t)(dataset->count / (AT_ONCE / 2)) + 1;
    int64_t room = slices > 1 ? AT_ONCE : dataset->count;
    px_seen *seen = px_alloc_array((size_t)room, sizeof *seen, "hashes of prompts");
    if (!seen) return px_error_code();
    for (uint64_t slice = 0; slice < slices; slice++) {
        int64_t n = 0;
        for (int64_t i = 0; i < dataset->count && n < room; i++)
            if (entries[i].prompt_hash % slices == slice) seen[n++] = (px_seen){entries[i].prompt_hash, i};
        qsort(seen, (size_t)n, sizeof *seen, compare_seen);
        for (int64_t i = 1; i < n; i++)
            if (seen[i].hash == seen[i - 1].hash) add_duplicate(dataset, seen[i].row);
    }
    px_free(seen);
    return PX_OK;
}

/* A stray pair with equal sides or row without an answer is left out and counted; many of them mean that the file is not
 * what it should be. */
static px_status check_usable(const px_loader *loader)
{
    const px_data_summary *summary = &loader->file->summary;
    if (summary->dropped_equal * 50 > summary->records)
        return px_fail(PX_DATA, "%s:%lld: field \"%s\" equals field \"%s\" (in %lld of %lld pairs; up to 2 %% are left "
                                "out); valid is two different answers", loader->path, (long long)loader->equal_line,
                       loader->maker.shape->answer, loader->maker.shape->rejected, (long long)summary->dropped_equal,
                       (long long)summary->records);
    if (loader->empty_count * 10 > summary->records * 9)
        return px_fail(PX_DATA, "%s:%lld: %s (so in %lld of %lld records; up to 90 %% are left out)", loader->path,
                       (long long)loader->empty_line, loader->empty_reason, (long long)loader->empty_count,
                       (long long)summary->records);
    if (summary->rows > 0) return PX_OK;
    return px_fail(PX_DATA, "%s: none of the %lld records can be used: %lld longer than max_tokens %d, %lld with no "
                            "token to learn within it; raise max_tokens or shorten the texts", loader->path,
                   (long long)summary->records, (long long)summary->dropped_long, loader->maker.options->max_tokens,
                   (long long)summary->dropped_empty);
}

static px_status load_file(px_dataset *dataset, int at, const px_source *source, const px_data_options *options)
{
    px_loader loader = {.dataset = dataset, .file = &dataset->files[at], .path = source->path,
                        .maker = {.options = options}};
    px_data_summary *summary = &loader.file->summary;
    loader.file->first_record = dataset->summary.records;
    px_status status = px_records_each(source->path, on_record, &loader);
    if (status == PX_OK) status = check_usable(&loader);
    if (status == PX_OK) {
        snprintf(summary->shape, sizeof summary->shape, "%s", loader.maker.shape->name);
        summary->rendered = px_row_rendered(&loader.maker);
    }
    px_row_maker_free(&loader.maker);
    return status;
}

/* sum: mean_length still a sum of lengths, in both. */
static void add_summary(px_data_summary *sum, const px_data_summary *file)
{
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
    sum->rendered = sum->rendered || file->rendered;
}

px_status px_dataset_build(px_dataset *dataset, const px_source *sources, const px_data_options *options)
{
    for (int i = 0; i < dataset->file_count; i++) {
        px_data_summary *summary = &dataset->files[i].summary;
        PX_TRY(load_file(dataset, i, &sources[i], options));
        add_summary(&dataset->summary, summary);
        summary->mean_length /= (double)summary->rows;
    }
    dataset->summary.mean_length /= (double)dataset->summary.rows;
    for (int i = 0; i < PX_DATA_COLUMNS; i++) PX_TRY(px_column_finish(&dataset->columns[i]));
    return PX_OK;
}
