/* The input is a .gguf file: its configuration, its tensors with their values, its tokenizer. */
#include "fuzz.h"
#include "model/gguf.h"
#include "phalanx/model.h"
#include "text/gguf.h"

static void read_tensors(const char *path, size_t size)
{
    px_tensors tensors = {0};
    if (px_tensors_open_gguf(&tensors, path) != PX_OK) {
        return;
    }
    for (int i = 0; i < tensors.count; i++) {
        const px_tensor *tensor = &tensors.list[i];
        PX_CHECK(tensor->bytes <= size);
        px_real *values = px_alloc_array(tensor->count, sizeof *values, "values");
        if (values != NULL) {
            px_tensor_read(tensor, false, values);
        }
        px_free(values);
    }
    px_tensors_close(&tensors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file("model.gguf", data, size);
    px_model_config config;
    json_t *tokenizer = NULL, *settings = NULL;
    if (px_model_config_read(fuzz_dir(), &config) == PX_OK) {
        px_model model = {0};
        if (px_model_plan(&model, &config) == PX_OK) {
            px_model_free(&model);
        }
    }
    read_tensors(path, size);
    if (px_gguf_tokenizer(path, &tokenizer, &settings) == PX_OK) {
        json_decref(tokenizer);
        json_decref(settings);
    }
    return 0;
}
