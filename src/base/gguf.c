/* Reader of GGUF files: "GGUF", version, number of tensors, number of keys; the keys with their values; each tensor's name,
 * shape, type and offset; padding; the tensors' bytes. (Format: ggml's docs/gguf.md.) */
#include "phalanx/base.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS (1 << 20)
#define MAX_ALIGNMENT ((size_t)1 << 20)

/* ---- types of tensors -------------------------------------------------------------------------------------------- */
typedef struct tensor_type {
    const char *name;
    size_t elements, bytes; /* of a block; 0: not read */
} tensor_type;
/* By the number in the file. */
static const tensor_type types[] = {
    {"F32", 1, 4},       {"F16", 1, 2},       {"Q4_0", 32, 18},   {"Q4_1", 32, 20},  {"Q4_2", 0, 0},     {"Q4_3", 0, 0},
    {"Q5_0", 32, 22},    {"Q5_1", 32, 24},    {"Q8_0", 32, 34},   {"Q8_1", 0, 0},    {"Q2_K", 0, 0},     {"Q3_K", 0, 0},
    {"Q4_K", 256, 144},  {"Q5_K", 256, 176},  {"Q6_K", 256, 210}, {"Q8_K", 0, 0},    {"IQ2_XXS", 0, 0},  {"IQ2_XS", 0, 0},
    {"IQ3_XXS", 0, 0},   {"IQ1_S", 0, 0},     {"IQ4_NL", 0, 0},   {"IQ3_S", 0, 0},   {"IQ2_S", 0, 0},    {"IQ4_XS", 0, 0},
    {"I8", 0, 0},        {"I16", 0, 0},       {"I32", 0, 0},      {"I64", 0, 0},     {"F64", 0, 0},      {"IQ1_M", 0, 0},
    {"BF16", 1, 2},
};
#define TYPES (sizeof types / sizeof types[0])

bool px_gguf_block(const char *type, size_t *elements, size_t *bytes)
{
    for (size_t i = 0; i < TYPES; i++) {
        if (types[i].elements > 0 && strcmp(types[i].name, type) == 0) {
            *elements = types[i].elements;
            *bytes = types[i].bytes;
            return true;
        }
    }
    return false;
}

/* ---- what is left of the file ---------------------------------------------------------------------------------------- */
typedef struct cursor {
    const unsigned char *at, *end;
    const char *path;
} cursor;

static px_status cut(const cursor *c, const char *in)
{
    return px_fail(PX_DATA, "%s: ends within %s; valid is a whole GGUF file", c->path, in);
}

/* Little-endian number of `bytes` bytes. */
static px_status take_number(cursor *c, int bytes, const char *in, uint64_t *value)
{
    if (c->end - c->at < bytes) {
        return cut(c, in);
    }
    *value = 0;
    for (int i = bytes - 1; i >= 0; i--) {
        *value = *value << 8 | c->at[i];
    }
    c->at += bytes;
    return PX_OK;
}

static px_status take_string(cursor *c, const char *in, json_t **string)
{
    uint64_t length = 0;
    PX_TRY(take_number(c, 8, in, &length));
    if (length > (uint64_t)(c->end - c->at)) {
        return cut(c, in);
    }
    const char *text = (const char *)c->at;
    *string = memchr(text, '\0', (size_t)length) == NULL ? json_stringn(text, (size_t)length) : NULL;
    if (*string == NULL) {
        return px_fail(PX_DATA, "%s: a string of %s is not UTF-8 without NUL", c->path, in);
    }
    c->at += length;
    return PX_OK;
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */
enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, KINDS };
static const int kind_bytes[KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8}; /* at least */

/* 1e-5 is stored as 9.99999975e-06: the shortest decimal that gives the same float is what was meant. */
static double shortest(float value)
{
    char text[40];
    double read = value;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        read = strtod(text, NULL);
        if ((float)read == value) {
            break;
        }
    }
    return read;
}

static json_t *number_value(uint64_t kind, uint64_t bits)
{
    float single;
    double real;
    uint32_t word = (uint32_t)bits;
    switch (kind) {
    case I8: return json_integer((int8_t)bits);
    case I16: return json_integer((int16_t)bits);
    case I32: return json_integer((int32_t)bits);
    case BOOL: return json_boolean(bits != 0);
    case F32: memcpy(&single, &word, sizeof single); return isfinite(single) ? json_real(shortest(single)) : NULL;
    case F64: memcpy(&real, &bits, sizeof real); return isfinite(real) ? json_real(real) : NULL;
    default: return bits <= INT64_MAX ? json_integer((json_int_t)bits) : NULL;
    }
}

static px_status take_scalar(cursor *c, uint64_t kind, const char *key, json_t **value)
{
    uint64_t bits = 0;
    if (kind == STRING) {
        return take_string(c, key, value);
    }
    PX_TRY(take_number(c, kind_bytes[kind], key, &bits));
    *value = number_value(kind, bits);
    return *value != NULL ? PX_OK : px_fail(PX_DATA, "%s: key %s holds a number that is not finite or beyond 63 bits",
                                            c->path, key);
}

static px_status take_array(cursor *c, const char *key, json_t **value)
{
    uint64_t kind = KINDS, count = 0;
    PX_TRY(take_number(c, 4, key, &kind));
    PX_TRY(take_number(c, 8, key, &count));
    if (kind >= KINDS || kind == ARRAY) {
        return px_fail(PX_DATA, "%s: key %s is a list of type %llu; valid are lists of numbers, bools or strings", c->path, key,
                       (unsigned long long)kind);
    }
    if (count > (uint64_t)(c->end - c->at) / (uint64_t)kind_bytes[kind]) {
        return px_fail(PX_DATA, "%s: key %s says that it has %llu values, more than the file holds", c->path, key,
                       (unsigned long long)count);
    }
    *value = json_array();
    for (uint64_t i = 0; i < count; i++) {
        json_t *item = NULL;
        PX_TRY(take_scalar(c, kind, key, &item));
        if (json_array_append_new(*value, item) != 0) {
            return px_fail(PX_CONFIG, "out of memory: %s: key %s", c->path, key);
        }
    }
    return PX_OK;
}

static px_status take_pair(cursor *c, json_t *meta)
{
    json_t *name = NULL, *value = NULL;
    uint64_t kind = KINDS;
    PX_TRY(take_string(c, "a key's name", &name));
    const char *key = json_string_value(name);
    px_status status = take_number(c, 4, key, &kind);
    if (status == PX_OK && json_object_get(meta, key) != NULL) {
        status = px_fail(PX_DATA, "%s: key %s is there twice", c->path, key);
    } else if (status == PX_OK && kind >= KINDS) {
        status = px_fail(PX_DATA, "%s: key %s has the unknown type %llu", c->path, key, (unsigned long long)kind);
    } else if (status == PX_OK) {
        status = kind == ARRAY ? take_array(c, key, &value) : take_scalar(c, kind, key, &value);
    }
    if (status == PX_OK && json_object_set(meta, key, value) != 0) {
        status = px_fail(PX_CONFIG, "out of memory: %s: key %s", c->path, key);
    }
    json_decref(value);
    json_decref(name);
    return status;
}

/* ---- tensors ---------------------------------------------------------------------------------------------------- */
static px_status bad_tensor(const px_gguf *gguf, const px_gguf_tensor *tensor, const char *what)
{
    return px_fail(PX_DATA, "%s: tensor \"%s\": %s", gguf->path, tensor->name, what);
}

static px_status take_shape(const px_gguf *gguf, cursor *c, px_gguf_tensor *tensor)
{
    uint64_t dims = 0, size = 0;
    PX_TRY(take_number(c, 4, tensor->name, &dims));
    if (dims < 1 || dims > PX_MAX_DIMS) {
        return bad_tensor(gguf, tensor, "has no or more than 4 dimensions");
    }
    tensor->dims = (int)dims;
    tensor->count = 1;
    for (int i = tensor->dims - 1; i >= 0; i--) {
        PX_TRY(take_number(c, 8, tensor->name, &size));
        if (size < 1 || size > INT64_MAX || __builtin_mul_overflow(tensor->count, (size_t)size, &tensor->count)) {
            return bad_tensor(gguf, tensor, "its shape is empty or too large");
        }
        tensor->shape[i] = (int64_t)size;
    }
    return PX_OK;
}

static px_status take_type(const px_gguf *gguf, cursor *c, px_gguf_tensor *tensor)
{
    uint64_t number = TYPES;
    PX_TRY(take_number(c, 4, tensor->name, &number));
    if (number >= TYPES || types[number].elements == 0) {
        return px_fail(PX_DATA, "%s: tensor \"%s\" has type %s (%llu); valid are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, "
                       "Q4_K, Q5_K and Q6_K", gguf->path, tensor->name, number < TYPES ? types[number].name : "unknown",
                       (unsigned long long)number);
    }
    const tensor_type *type = &types[number];
    if ((size_t)tensor->shape[tensor->dims - 1] % type->elements != 0) {
        return px_fail(PX_DATA, "%s: tensor \"%s\": rows of %lld values are not whole blocks of %zu, as %s needs", gguf->path,
                       tensor->name, (long long)tensor->shape[tensor->dims - 1], type->elements, type->name);
    }
    tensor->type = type->name;
    return __builtin_mul_overflow(tensor->count / type->elements, type->bytes, &tensor->bytes)
               ? bad_tensor(gguf, tensor, "its shape is too large")
               : PX_OK;
}

static px_status take_tensor(px_gguf *gguf, cursor *c, uint64_t *offset)
{
    px_gguf_tensor *tensor = &gguf->tensors[gguf->count];
    json_t *name = NULL;
    PX_TRY(take_string(c, "a tensor's name", &name));
    if (json_array_append_new(gguf->names, name) != 0) {
        return px_fail(PX_CONFIG, "out of memory: %s: names of tensors", gguf->path);
    }
    *tensor = (px_gguf_tensor){.name = json_string_value(name)};
    PX_TRY(take_shape(gguf, c, tensor));
    PX_TRY(take_type(gguf, c, tensor));
    PX_TRY(take_number(c, 8, tensor->name, offset));
    gguf->count++;
    return PX_OK;
}

static int by_place(const void *a, const void *b)
{
    const px_gguf_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static px_status place_tensors(px_gguf *gguf, const cursor *c, const uint64_t *offsets, size_t alignment)
{
    size_t header = (size_t)(c->at - (const unsigned char *)gguf->map);
    size_t begin = gguf->count > 0 ? (header + alignment - 1) / alignment * alignment : header;
    if (begin > gguf->bytes) {
        return cut(c, "the padding before the tensors");
    }
    const unsigned char *data = (const unsigned char *)gguf->map + begin;
    size_t bytes = gguf->bytes - begin;
    for (int i = 0; i < gguf->count; i++) {
        px_gguf_tensor *tensor = &gguf->tensors[i];
        if (offsets[i] % alignment != 0) {
            return bad_tensor(gguf, tensor, "its offset is not a multiple of the file's alignment");
        }
        if (offsets[i] > bytes || tensor->bytes > bytes - offsets[i]) {
            return px_fail(PX_DATA, "%s: tensor \"%s\": %zu bytes from %llu lie outside the file's %zu bytes of data (is the file "
                           "complete?)", gguf->path, tensor->name, tensor->bytes, (unsigned long long)offsets[i], bytes);
        }
        tensor->data = data + offsets[i];
    }
    qsort(gguf->tensors, (size_t)gguf->count, sizeof *gguf->tensors, by_place);
    for (int i = 1; i < gguf->count; i++) {
        const px_gguf_tensor *before = &gguf->tensors[i - 1];
        if (before->data + before->bytes > gguf->tensors[i].data) {
            return px_fail(PX_DATA, "%s: tensors \"%s\" and \"%s\" overlap", gguf->path, before->name, gguf->tensors[i].name);
        }
    }
    return PX_OK;
}

static px_status check_names(const px_gguf *gguf)
{
    json_t *seen = json_object();
    px_status status = PX_OK;
    for (int i = 0; i < gguf->count && status == PX_OK; i++) {
        if (json_object_get(seen, gguf->tensors[i].name) != NULL) {
            status = bad_tensor(gguf, &gguf->tensors[i], "is there twice");
        }
        json_object_set_new(seen, gguf->tensors[i].name, json_true());
    }
    json_decref(seen);
    return status;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */
static px_status take_header(const px_gguf *gguf, cursor *c, uint64_t *tensors, uint64_t *keys)
{
    uint64_t version = 0;
    if (gguf->bytes < 24 || memcmp(gguf->map, "GGUF", 4) != 0) {
        return px_fail(PX_DATA, "%s: not a GGUF file, or cut: %zu bytes", gguf->path, gguf->bytes);
    }
    const unsigned char *start = gguf->map; /* an empty file has none */
    *c = (cursor){start + 4, start + gguf->bytes, gguf->path};
    PX_TRY(take_number(c, 4, "the version", &version));
    if (version != 2 && version != 3) {
        return px_fail(PX_DATA, "%s: GGUF version %llu; valid are 2 and 3, little-endian", gguf->path,
                       (unsigned long long)version);
    }
    PX_TRY(take_number(c, 8, "the header", tensors));
    PX_TRY(take_number(c, 8, "the header", keys));
    /* a tensor takes at least 8 + 4 + 8 + 4 + 8 bytes, a key 8 + 4 + 1 */
    size_t left = (size_t)(c->end - c->at);
    if (*tensors > left / 32 || *tensors > MAX_TENSORS || *keys > left / 13) {
        return px_fail(PX_DATA, "%s: says that it has %llu tensors and %llu keys, more than the file holds", gguf->path,
                       (unsigned long long)*tensors, (unsigned long long)*keys);
    }
    return PX_OK;
}

static px_status read_alignment(const px_gguf *gguf, size_t *alignment)
{
    json_t *value = json_object_get(gguf->meta, "general.alignment");
    json_int_t n = value != NULL ? json_integer_value(value) : 32;
    if (n < 1 || (size_t)n > MAX_ALIGNMENT || (n & (n - 1)) != 0) {
        return px_fail(PX_DATA, "%s: key general.alignment is not a power of two from 1 to %zu", gguf->path, MAX_ALIGNMENT);
    }
    *alignment = (size_t)n;
    return PX_OK;
}

static px_status read_file(px_gguf *gguf)
{
    uint64_t tensors = 0, keys = 0;
    size_t alignment = 32;
    PX_TRY(px_file_map(gguf->path, &gguf->map, &gguf->bytes));
    cursor c;
    PX_TRY(take_header(gguf, &c, &tensors, &keys));
    gguf->meta = json_object();
    gguf->names = json_array();
    for (uint64_t i = 0; i < keys; i++) {
        PX_TRY(take_pair(&c, gguf->meta));
    }
    PX_TRY(read_alignment(gguf, &alignment));
    gguf->tensors = px_alloc_array((size_t)tensors + 1, sizeof *gguf->tensors, "tensors of a GGUF file");
    uint64_t *offsets = px_alloc_array((size_t)tensors + 1, sizeof *offsets, "offsets of a GGUF file");
    px_status status = gguf->tensors != NULL && offsets != NULL ? PX_OK : px_error_code();
    for (uint64_t i = 0; i < tensors && status == PX_OK; i++) {
        status = take_tensor(gguf, &c, &offsets[i]);
    }
    status = status == PX_OK ? place_tensors(gguf, &c, offsets, alignment) : status;
    px_free(offsets);
    return status == PX_OK ? check_names(gguf) : status;
}

px_status px_gguf_open(px_gguf *gguf, const char *path)
{
    memset(gguf, 0, sizeof *gguf);
    PX_TRY(px_path_join(gguf->path, sizeof gguf->path, "", path));
    px_status status = read_file(gguf);
    if (status != PX_OK) {
        px_gguf_close(gguf);
    }
    return status;
}

void px_gguf_close(px_gguf *gguf)
{
    json_decref(gguf->meta);
    json_decref(gguf->names);
    px_free(gguf->tensors);
    if (gguf->map != NULL) {
        px_file_unmap(gguf->map, gguf->bytes);
    }
    memset(gguf, 0, sizeof *gguf);
}

const px_gguf_tensor *px_gguf_tensor_named(const px_gguf *gguf, const char *name)
{
    for (int i = 0; i < gguf->count; i++) {
        if (strcmp(gguf->tensors[i].name, name) == 0) {
            return &gguf->tensors[i];
        }
    }
    return NULL;
}

/* ---- which file ---------------------------------------------------------------------------------------------------- */
static bool is_gguf_name(const char *name)
{
    size_t length = strlen(name);
    return length > 5 && strcmp(name + length - 5, ".gguf") == 0;
}

static px_status only_one(char *out, size_t size, const char *path)
{
    DIR *dir = opendir(path);
    px_status status = PX_OK;
    for (struct dirent *entry; dir != NULL && status == PX_OK && (entry = readdir(dir)) != NULL;) {
        if (!is_gguf_name(entry->d_name)) {
            continue;
        }
        status = out[0] == '\0' ? px_path_join(out, size, path, entry->d_name)
                                : px_fail(PX_DATA, "%s: has more than one .gguf file; valid is the path of the one that is meant",
                                          path);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return status;
}

px_status px_gguf_find(char *out, size_t size, const char *path)
{
    static const char *const other[] = {"model.safetensors", "model.safetensors.index.json"};
    char file[PX_PATH_MAX];
    out[0] = '\0';
    if (!px_dir_exists(path)) {
        return is_gguf_name(path) ? px_path_join(out, size, "", path) : PX_OK;
    }
    for (int i = 0; i < 2; i++) {
        PX_TRY(px_path_join(file, sizeof file, path, other[i]));
        if (px_file_exists(file)) {
            return PX_OK;
        }
    }
    return only_one(out, size, path);
}
