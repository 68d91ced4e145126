#include "fuzz.h"
#include "phalanx/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    px_config *config = NULL;
    px_config_source source = {.path = fuzz_file("config.yaml", data, size)};
    if (px_config_load(&config, &source) == PX_OK) {
        px_config_destroy(config);
    }
    return 0;
}
