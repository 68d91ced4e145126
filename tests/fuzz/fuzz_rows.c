#include "fuzz.h"
#include "phalanx/text.h"

/* All ids, as a kind of rows that the first byte chooses. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    px_dataset *dataset = NULL;
    px_data_options options = {.max_tokens = 8, .vocab_size = 16, .eos_id = 2};
    if (size == 0) {
        return 0;
    }
    options.kind = (px_kind)(data[0] % (PX_ROWS_PROMPTS + 1));
    if (px_dataset_load(&dataset, fuzz_file("rows.jsonl", data + 1, size - 1), &options) == PX_OK) {
        for (int64_t i = 0; i < px_dataset_count(dataset); i++) {
            px_row row;
            px_dataset_row(dataset, i, &row);
            PX_CHECK(row.length >= 0 && row.length <= 8);
        }
        px_dataset_destroy(dataset);
    }
    return 0;
}
