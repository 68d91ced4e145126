/* What a data set is made of. Private to text. */
#ifndef PX_TEXT_DATASET_H
#define PX_TEXT_DATASET_H

#include "columns.h"
#include "phalanx/text.h"

typedef struct px_entry { /* of a row */
    int64_t record, start, mask_start, json_start; /* places in ids, masks and records; mask_start -1: no mask */
    uint64_t prompt_hash;                          /* of the prompt's ids; of the row's where there is no prompt */
    int32_t length, rejected_length, prompt_length, json_length;
    double margin;
} px_entry;

typedef struct px_data_file {
    int64_t first_record; /* number of its first record in the whole */
    px_data_summary summary;
} px_data_file;

/* ids: row by row: the row, then its rejected side. masks: a byte per id of masked rows. records: NUL-terminated JSON, of
 * prompts alone (rewards read it). */
enum { PX_DATA_ENTRIES, PX_DATA_IDS, PX_DATA_MASKS, PX_DATA_RECORDS, PX_DATA_COLUMNS };

struct px_dataset {
    px_column columns[PX_DATA_COLUMNS];
    int64_t count;
    px_data_file *files; /* [file_count] */
    px_part *parts;      /* [file_count] */
    int file_count;
    px_data_summary summary;
    uint64_t hash;
};

/* Reads and tokenises the files into the columns, which are empty. */
px_status px_dataset_build(px_dataset *dataset, const px_source *sources, const px_data_options *options);
px_status px_dataset_count_duplicates(px_dataset *dataset); /* reads the entries */
/* The same from files below options->cache, which are made unless they are there. */
px_status px_dataset_cached(px_dataset *dataset, const px_source *sources, const px_data_options *options);

#endif
