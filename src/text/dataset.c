/* Rows of a data set, and where they lie: all ids in one array, an entry per row, the records' own JSON behind each other. */
#include "dataset.h"
#include "shapes.h"

#include <string.h>

px_status px_dataset_load_files(px_dataset **out, const px_source *sources, int count, const px_data_options *options)
{
    *out = NULL;
    PX_CHECK(count > 0);
    px_dataset *dataset = px_alloc(sizeof *dataset, "a data set");
    if (!dataset) return px_error_code();
    dataset->files = px_alloc_array((size_t)count, sizeof *dataset->files, "files of a data set");
    dataset->parts = px_alloc_array((size_t)count, sizeof *dataset->parts, "files of a data set");
    dataset->file_count = count;
    px_status status = dataset->files && dataset->parts ? PX_OK : px_error_code();
    if (status == PX_OK && options->cache) {
        status = px_dataset_cached(dataset, sources, options);
    } else if (status == PX_OK) {
        status = px_dataset_build(dataset, sources, options);
        if (status == PX_OK) status = px_dataset_count_duplicates(dataset);
    }
    for (int i = 0; status == PX_OK && i < count; i++)
        dataset->parts[i] = (px_part){dataset->files[i].summary.rows, sources[i].weight};
    if (status != PX_OK) px_dataset_destroy(dataset);
    else *out = dataset;
    return status;
}

px_status px_dataset_load(px_dataset **dataset, const char *path, const px_data_options *options)
{
    return px_dataset_load_files(dataset, &(px_source){path, 1.0}, 1, options);
}

typedef struct px_first {
    const char *path;
    px_kind kind;
    bool known;
} px_first;

static px_status look_at_first(void *arg, int64_t number, int64_t line, const char *json, size_t length)
{
    static const px_kind kinds[] = {PX_ROWS_PAIRS, PX_ROWS_LM, PX_ROWS_PROMPTS};
    px_first *first = arg;
    json_t *record;
    const px_shape *shape;
    (void)number;
    PX_TRY(px_json_parse(json, length, first->path, line - 1, &record));
    first->kind = PX_ROWS_LM; /* whose reader says what is wrong with a record that is none of them */
    for (int i = 2; i >= 0; i--)
        if (px_shape_find(&shape, record, kinds[i]) == PX_OK) first->kind = kinds[i];
    px_error_clear();
    json_decref(record);
    first->known = true;
    return PX_STOPPED; /* enough */
}

px_status px_dataset_kind(const char *path, px_kind *kind)
{
    px_first first = {.path = path};
    px_status status = px_records_each(path, look_at_first, &first);
    *kind = first.kind;
    return first.known ? PX_OK : status;
}

void px_dataset_destroy(px_dataset *dataset)
{
    if (!dataset) return;
    for (int i = 0; i < PX_DATA_COLUMNS; i++) px_column_free(&dataset->columns[i]);
    px_free(dataset->files);
    px_free(dataset->parts);
    px_free(dataset);
}

int64_t px_dataset_count(const px_dataset *dataset)
{
    return dataset->count;
}

void px_dataset_row(const px_dataset *dataset, int64_t index, px_row *row)
{
    PX_CHECK(index >= 0 && index < dataset->count);
    const px_column *columns = dataset->columns;
    const px_entry *entry = (const px_entry *)px_column_data(&columns[PX_DATA_ENTRIES]) + index;
    const int32_t *ids = (const int32_t *)px_column_data(&columns[PX_DATA_IDS]) + entry->start;
    *row = (px_row){.record = entry->record, .ids = ids, .length = entry->length, .prompt_length = entry->prompt_length,
                    .rejected_length = entry->rejected_length, .margin = entry->margin,
                    .json_length = entry->json_length};
    if (entry->json_start >= 0) row->json = px_column_data(&columns[PX_DATA_RECORDS]) + entry->json_start;
    if (entry->mask_start >= 0)
        row->mask = (const uint8_t *)px_column_data(&columns[PX_DATA_MASKS]) + entry->mask_start;
    if (entry->rejected_length > 0) row->rejected = ids + entry->length;
}

const px_data_summary *px_dataset_summary(const px_dataset *dataset)
{
    return &dataset->summary;
}

const px_data_summary *px_dataset_file_summary(const px_dataset *dataset, int file)
{
    PX_CHECK(file >= 0 && file < dataset->file_count);
    return &dataset->files[file].summary;
}

const px_part *px_dataset_parts(const px_dataset *dataset, int *count)
{
    *count = dataset->file_count;
    return dataset->parts;
}

double px_dataset_epoch_tokens(const px_dataset *dataset)
{
    double tokens = 0.0;
    for (int i = 0; i < dataset->file_count; i++) {
        double passes = (double)px_parts_epoch(&dataset->parts[i], 1) / (double)dataset->parts[i].count;
        tokens += passes * (double)dataset->files[i].summary.tokens;
    }
    return tokens;
}

uint64_t px_dataset_hash(const px_dataset *dataset)
{
    return dataset->hash;
}
