/* The whole input is the manifest; one that begins with a space gets the hash of its own that it must have, so that what
 * lies behind that check is reached. state.h5 is there, with eight bytes. */
#include "store/manifest.c"

#include "fuzz.h"

static void write_hashed(const uint8_t *data, size_t size)
{
    char hash[17];
    json_t *manifest = json_loadb((const char *)data, size, 0, NULL);
    if (json_is_object(manifest) && own_hash(manifest, "", hash) == PX_OK) {
        json_object_set_new(manifest, "xxh3", json_string(hash));
        char *text = json_dumps(manifest, 0);
        if (text != NULL) {
            fuzz_file(NAME, (const uint8_t *)text, strlen(text));
        }
        free(text);
    }
    json_decref(manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool there;
    if (!there) {
        fuzz_file("state.h5", (const uint8_t *)"12345678", 8);
        there = true;
    }
    int64_t iteration;
    fuzz_file(NAME, data, size);
    if (size > 0 && data[0] == ' ') {
        write_hashed(data, size);
    }
    px_checkpoint_verify(fuzz_dir(), &iteration);
    return 0;
}
