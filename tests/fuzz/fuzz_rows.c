#include "fuzz.h"
#include "phalanx/text.h"

/* As each kind of rows, all of them ids. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file("rows.jsonl", data, size);
    for (int kind = PX_ROWS_LM; kind <= PX_ROWS_PROMPTS; kind++) {
        px_dataset *dataset = NULL;
        px_data_options options = {.kind = (px_kind)kind, .max_tokens = 8, .vocab_size = 16, .eos_id = 2};
        if (px_dataset_load(&dataset, path, &options) == PX_OK) {
            for (int64_t i = 0; i < px_dataset_count(dataset); i++) {
                px_row row;
                px_dataset_row(dataset, i, &row);
                PX_CHECK(row.length >= 0 && row.length <= 8);
            }
            px_dataset_destroy(dataset);
        }
    }
    return 0;
}
