/* An input is a file, or, where its first byte is not 0, the header and as many bytes of weights behind it as that byte
 * says: the header's length is then put in front. */
#include "fuzz.h"
#include "model/safetensors.h"

#include <string.h>

enum { LENGTH_BYTES = 8 };

static const char *write_input(const uint8_t *data, size_t size)
{
    static uint8_t file[1 << 16];
    if (size == 0 || data[0] == 0 || size > sizeof file - LENGTH_BYTES) {
        return fuzz_file("model.safetensors", data + (size > 0), size - (size > 0));
    }
    size_t rest = size - 1, weights = data[0] < rest ? data[0] : rest, header = rest - weights;
    for (int i = 0; i < LENGTH_BYTES; i++) {
        file[i] = (uint8_t)(header >> 8 * i);
    }
    memcpy(file + LENGTH_BYTES, data + 1, rest);
    return fuzz_file("model.safetensors", file, LENGTH_BYTES + rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    px_tensors tensors = {0};
    if (px_tensors_open_file(&tensors, write_input(data, size)) == PX_OK) {
        for (int i = 0; i < tensors.count; i++) {
            PX_CHECK(tensors.list[i].bytes <= size);
            px_real *values = px_alloc_array(tensors.list[i].count, sizeof *values, "values");
            if (values != NULL) {
                px_tensor_read(&tensors.list[i], tensors.list[i].dims == 2, values);
            }
            px_free(values);
        }
        px_tensors_close(&tensors);
    }
    return 0;
}
