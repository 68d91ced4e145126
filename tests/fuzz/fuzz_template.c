/* A conversation: the first byte chooses the renderer and whether an answer is asked for; then messages, each of a byte for
 * its role and text up to the next byte 0x1f. The whole input is a chat template of its own, too. */
#include "fuzz.h"
#include "phalanx/text.h"
#include "text/chat.h"
#include "text/chat_templates.h"

#include <string.h>

enum { MOST = 16, BYTES = 1024 };

/* Every byte and the special tokens of all families, so that any text has ids. */
static px_tokenizer *tokenizer(void)
{
    static px_tokenizer *made;
    static const char *const special[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
                                          "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>", "<end_of_turn>",
                                          "<|endoftext|>", "[INST]", "[/INST]"};
    enum { COUNT = sizeof special / sizeof *special };
    if (made == NULL) {
        const char *text = fuzz_file("train.txt", (const uint8_t *)"a text\n", 7);
        px_status status = px_tokenizer_train(&text, 1, 256 + COUNT, 1, special, COUNT, fuzz_dir());
        PX_CHECK(status == PX_OK && px_tokenizer_load(&made, fuzz_dir()) == PX_OK);
    }
    return made;
}

static int read_messages(char *text, px_message *messages)
{
    static const char *const roles[] = {"user", "assistant", "system", "tool", "", "a b"};
    int count = 0;
    for (char *part; count < MOST && text != NULL && (part = strsep(&text, "\x1f")) != NULL;) {
        if (part[0] != '\0') {
            messages[count++] = (px_message){.role = roles[(uint8_t)part[0] % (sizeof roles / sizeof *roles)],
                                             .content = part + 1};
        }
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[BYTES + 1] = {0};
    px_message messages[MOST];
    px_ids ids = {0}, mask = {0};
    px_buf shown = {0};
    if (size == 0 || size > BYTES) {
        return 0;
    }
    memcpy(text, data + 1, size - 1);
    px_template_renderer(px_template_hash(text));
    const px_renderer *renderer = &px_renderers[(data[0] >> 1) % px_renderer_count];
    bool ask = data[0] & 1;
    int count = read_messages(text, messages);
    if (px_chat_encode(renderer, tokenizer(), messages, count, ask, &ids, &mask) == PX_OK) {
        PX_CHECK(ids.length == mask.length);
        PX_CHECK(px_chat_text(renderer, tokenizer(), messages, count, ask, &shown) == PX_OK);
        PX_CHECK(px_utf8_valid(shown.data != NULL ? shown.data : "", shown.length) == shown.length);
    }
    px_ids_free(&ids);
    px_ids_free(&mask);
    px_buf_free(&shown);
    return 0;
}
