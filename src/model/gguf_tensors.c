/* The tensors of a GGUF file under the names of Hugging Face. The converter that writes such files transposes GPT-2's
 * matrices, sorts GPT-NeoX's rows into all q, k and v, both as memory has them, adds Gemma's 1 to its norms, and lets
 * the two halves of Llama's heads of q and k alternate. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf.h"

typedef enum layout { LLAMA, GPT2, NEOX, LAYOUTS } layout;

/* The part of the name before ".weight" or ".bias". NULL: the layout has no such tensor. */
typedef struct stem {
    const char *gguf, *name[LAYOUTS];
} stem;
static const stem outer[] = {
    {"token_embd", {"model.embed_tokens", "transformer.wte", "gpt_neox.embed_in"}},
    {"position_embd", {NULL, "transformer.wpe", NULL}},
    {"output_norm", {"model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm"}},
    {"output", {"lm_head", "lm_head", "embed_out"}},
};
static const stem inner[] = {
    {"attn_norm", {"input_layernorm", "ln_1", "input_layernorm"}},
    {"attn_q", {"self_attn.q_proj", NULL, NULL}},
    {"attn_k", {"self_attn.k_proj", NULL, NULL}},
    {"attn_v", {"self_attn.v_proj", NULL, NULL}},
    {"attn_qkv", {NULL, "attn.c_attn", "attention.query_key_value"}},
    {"attn_q_norm", {"self_attn.q_norm", NULL, NULL}},
    {"attn_k_norm", {"self_attn.k_norm", NULL, NULL}},
    {"attn_output", {"self_attn.o_proj", "attn.c_proj", "attention.dense"}},
    {"ffn_norm", {"post_attention_layernorm", "ln_2", "post_attention_layernorm"}},
    {"ffn_gate", {"mlp.gate_proj", NULL, NULL}},
    {"ffn_up", {"mlp.up_proj", "mlp.c_fc", "mlp.dense_h_to_4h"}},
    {"ffn_down", {"mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h"}},
};
#define COUNT(table) (sizeof table / sizeof table[0])
static const char *const blocks[LAYOUTS] = {"model.layers", "transformer.h", "gpt_neox.layers"};

static const char *find_stem(const stem *table, size_t count, layout which, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(table[i].gguf) == length && memcmp(table[i].gguf, name, length) == 0) return table[i].name[which];
    }
    return NULL;
}

/* The tensor's name in Hugging Face files; false: it has none. */
static bool translate(layout which, const char *name, char *out, size_t size)
{
    const char *kind = strrchr(name, '.'), *rest = name;
    if (!kind || (strcmp(kind, ".weight") != 0 && strcmp(kind, ".bias") != 0)) return false;
    if (strncmp(name, "blk.", 4) != 0) {
        const char *found = find_stem(outer, COUNT(outer), which, name, (size_t)(kind - name));
        return found && (size_t)snprintf(out, size, "%s%s", found, kind) < size;
    }
    char *end;
    long block = strtol(name + 4, &end, 10);
    if (block < 0 || end == name + 4 || end >= kind) return false;
    rest = end + 1;
    const char *found = find_stem(inner, COUNT(inner), which, rest, (size_t)(kind - rest));
    return found && (size_t)snprintf(out, size, "%s.%ld.%s%s", blocks[which], block, found, kind) < size;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Rows of a head of q or k; 0 when the file's metadata cannot be true, which the configuration says better. */
static int head_rows(const px_gguf *gguf, const char *key, const px_gguf_tensor *tensor)
{
    json_int_t heads = json_integer_value(json_object_get(gguf->meta, key));
    if (heads < 1 || tensor->shape[0] % heads != 0 || tensor->shape[0] / heads % 2 != 0) return 0;
    return (int)(tensor->shape[0] / heads);
}

static void set_layout(const px_gguf *gguf, const char *architecture, const px_gguf_tensor *from, px_tensor *to)
{
    const char *name = from->name;
    to->as_used = true;
    if (strcmp(architecture, "gemma") == 0 && ends_with(name, "norm.weight")) to->norm_offset = 1;
    if (strcmp(architecture, "llama") != 0) return;
    bool has_kv = json_object_get(gguf->meta, "llama.attention.head_count_kv");
    if (strstr(name, ".attn_q.")) to->interleaved = head_rows(gguf, "llama.attention.head_count", from);
    if (strstr(name, ".attn_k.")) {
        const char *key = has_kv ? "llama.attention.head_count_kv" : "llama.attention.head_count";
        to->interleaved = head_rows(gguf, key, from);
    }
}

static px_status add_tensor(px_tensors *tensors, const px_gguf *gguf, const char *architecture, layout which, int i,
                            json_t *names)
{
    const px_gguf_tensor *from = &gguf->tensors[i];
    char name[160];
    if (strcmp(from->name, "rope_freqs.weight") == 0) return PX_OK; /* part of the configuration */
    if (!translate(which, from->name, name, sizeof name)) {
        return px_fail(PX_DATA, "%s: unexpected tensor \"%s\"; valid are the tensors of a %s model", gguf->path,
                       from->name, architecture);
    }
    json_t *owned = json_string(name);
    if (json_array_append_new(names, owned) != 0) return px_fail(PX_IO, "%s: no memory for names", gguf->path);
    px_tensor *to = &tensors->list[tensors->count++];
    *to = (px_tensor){.name = json_string_value(owned),
                      .dtype = from->type,
                      .dims = from->dims,
                      .count = from->count,
                      .bytes = from->bytes,
                      .data = from->data};
    for (int d = 0; d < from->dims; d++) to->shape[d] = from->shape[d];
    set_layout(gguf, architecture, from, to);
    return PX_OK;
}

static px_status add_all(px_tensors *tensors, px_gguf *gguf)
{
    const char *architecture = json_string_value(json_object_get(gguf->meta, "general.architecture"));
    if (!architecture) return px_fail(PX_DATA, "%s: key general.architecture is missing", gguf->path);
    layout which = strcmp(architecture, "gpt2") == 0 ? GPT2 : strcmp(architecture, "gptneox") == 0 ? NEOX : LLAMA;
    json_t *names = json_array();
    tensors->list = px_alloc_array((size_t)gguf->count + 1, sizeof *tensors->list, "tensor list");
    px_status status = tensors->list ? PX_OK : px_error_code();
    for (int i = 0; i < gguf->count && status == PX_OK; i++) {
        status = add_tensor(tensors, gguf, architecture, which, i, names);
    }
    if (status != PX_OK) {
        json_decref(names);
        return status;
    }
    const void *map = gguf->map;
    gguf->map = NULL;
    return px_tensors_adopt(tensors, gguf->path, map, gguf->bytes, names);
}

px_status px_tensors_open_gguf(px_tensors *tensors, const char *path)
{
    px_gguf gguf;
    *tensors = (px_tensors){0};
    PX_TRY(px_gguf_open(&gguf, path));
    px_status status = add_all(tensors, &gguf);
    px_gguf_close(&gguf);
    if (status != PX_OK) px_tensors_close(tensors);
    return status;
}
