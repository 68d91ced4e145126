/* The input is a tokenizer.json, and what follows a byte 0x1e, if there is one, the tokenizer_config.json beside it. */
#include "fuzz.h"
#include "phalanx/text.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = " The cat's\n12 caf\xc3\xa9 <s> \xe4\xb8\xad";
    px_tokenizer *tokenizer = NULL;
    px_ids ids = {0};
    px_buf back = {0};
    const uint8_t *mark = size > 0 ? memchr(data, 0x1e, size) : NULL;
    size_t length = mark != NULL ? (size_t)(mark - data) : size;
    fuzz_file("tokenizer.json", data, length);
    fuzz_file("tokenizer_config.json", mark != NULL ? mark + 1 : (const uint8_t *)"{}", mark != NULL ? size - length - 1 : 2);
    if (px_tokenizer_load(&tokenizer, fuzz_dir()) == PX_OK) {
        if (px_tokenizer_encode(tokenizer, text, strlen(text), true, &ids) == PX_OK) {
            px_tokenizer_decode(tokenizer, ids.data, ids.length, false, &back);
        }
        px_tokenizer_destroy(tokenizer);
    }
    px_ids_free(&ids);
    px_buf_free(&back);
    return 0;
}
