#include "chat_templates.h"

#include <string.h>

const char px_template_chatml[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

static const struct {
    uint64_t hash;
    const char *renderer;
} known[] = {
    {0xa41d6bae9b9141bcu, "chatml"},
    {0x17fde6ecda9c7c01u, "chatml"},
    {0x8d274e6194883e31u, "chatml"},
    {0x75e88977b2787cd7u, "qwen2"},
    {0x6daf6706ed25369fu, "qwen2.5"},
    {0x7a781ea711d55ccfu, "qwen2.5-base"},
    {0xf344eecf1bd3a427u, "llama2"},
    {0x32844fd43eab01d2u, "llama3"},
    {0x60b6f54caafc7e66u, "llama3"},
    {0x70f3cded3fb90051u, "gemma"},
    {0x8c734b90b4f8d84du, "mistral"},
    {0x3268de61762f7142u, "zephyr"},
    {0x09b5156a5cf6abfcu, "smollm2"},
    {0x46ec9ad61aceaac6u, "qwen3"},
    {0xa041fd9e88ef5317u, "qwen3"},
    {0xcf6899f37b03c51fu, "minimind"},
};

static uint64_t fnv(uint64_t hash, char byte)
{
    return (hash ^ (uint8_t)byte) * 0x100000001b3u;
}

uint64_t px_template_hash(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u;
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL) {
        length--;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n') { /* a line break in a string is written either way */
            hash = fnv(fnv(hash, '\\'), 'n');
        } else if (text[i] != '\r') {
            hash = fnv(hash, text[i]);
        }
    }
    return hash;
}

const char *px_template_renderer(uint64_t hash)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].hash == hash) {
            return known[i].renderer;
        }
    }
    return NULL;
}
