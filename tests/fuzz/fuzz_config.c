#include "fuzz.h"
#include "phalanx/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    px_model_config config;
    fuzz_file("config.json", data, size);
    if (px_model_config_read(fuzz_dir(), &config) == PX_OK) {
        px_model model = {0};
        if (px_model_plan(&model, &config) == PX_OK) {
            px_model_free(&model);
        }
    }
    return 0;
}
