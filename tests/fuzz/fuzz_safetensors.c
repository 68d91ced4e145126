#include "fuzz.h"
#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    px_tensors tensors = {0};
    if (px_tensors_open_file(&tensors, fuzz_file("model.safetensors", data, size)) == PX_OK) {
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
