#include "fuzz.h"
#include "phalanx/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t iteration;
    fuzz_file("MANIFEST.json", data, size);
    px_checkpoint_verify(fuzz_dir(), &iteration);
    return 0;
}
