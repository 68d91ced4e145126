/* Reader of safetensors files. They are mapped, and nothing of the header is believed before it is checked. */
#include "safetensors.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf.h"
#include "pickle.h"
#include "half.h"

#define MAX_HEADER ((size_t)100 << 20) /* the format's own limit */
#define MAX_SHARDS 1024

struct px_tensor_file {
    char *path;
    json_t *header; /* owns the names */
    const void *map;
    size_t bytes;
};

/* ---- one entry of the header --------------------------------------------------------------------- */
/* Bytes of an element; 0: not a type of the format. */
static size_t element_size(const char *dtype)
{
    static const struct {
        const char *name;
        size_t size;
    } table[] = {{"F32", 4}, {"BF16", 2},    {"F16", 2},     {"F64", 8}, {"BOOL", 1}, {"U8", 1},
                 {"I8", 1},  {"I16", 2},     {"U16", 2},     {"I32", 4}, {"U32", 4},  {"I64", 8},
                 {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"C64", 8}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(dtype, table[i].name) == 0) return table[i].size;
    }
    return 0;
}

static px_status bad_entry(const px_tensor *tensor, const char *what)
{
    return px_fail(PX_DATA, "%s: tensor \"%s\": %s", tensor->path, tensor->name, what);
}

static px_status parse_shape(px_tensor *tensor, json_t *shape)
{
    if (!json_is_array(shape) || json_array_size(shape) > PX_TENSOR_DIMS) {
        return bad_entry(tensor, "shape is no list of sizes; valid is a list of at most 8 integers from 0");
    }
    tensor->dims = (int)json_array_size(shape);
    tensor->count = 1;
    for (int i = 0; i < tensor->dims; i++) {
        json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0) {
            return bad_entry(tensor, "shape has a size that is no size; valid is an integer from 0");
        }
        tensor->shape[i] = json_integer_value(size);
        if (__builtin_mul_overflow(tensor->count, (size_t)tensor->shape[i], &tensor->count)) {
            return bad_entry(tensor, "shape is too large; valid is what the file has bytes for");
        }
    }
    return PX_OK;
}

static px_status parse_entry(px_tensor *tensor, json_t *entry, const unsigned char *data, size_t data_bytes)
{
    tensor->dtype = json_string_value(json_object_get(entry, "dtype"));
    size_t size = tensor->dtype ? element_size(tensor->dtype) : 0;
    if (size == 0) {
        return px_fail(PX_DATA, "%s: tensor \"%s\": dtype %.32s is unknown; valid is F32, F16 or BF16", tensor->path,
                       tensor->name, tensor->dtype ? tensor->dtype : "(none)");
    }
    PX_TRY(parse_shape(tensor, json_object_get(entry, "shape")));
    json_t *offsets = json_object_get(entry, "data_offsets");
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end)) {
        return bad_entry(tensor, "data_offsets is no range; valid is [BEGIN, END], bytes after the header");
    }
    json_int_t b = json_integer_value(begin), e = json_integer_value(end);
    if (b < 0 || e < b || (uint64_t)e > data_bytes) {
        return px_fail(PX_DATA,
                       "%s: tensor \"%s\": data_offsets %lld .. %lld lie outside the file's %zu bytes of data (is the "
                       "file complete?)",
                       tensor->path, tensor->name, (long long)b, (long long)e, data_bytes);
    }
    if (__builtin_mul_overflow(tensor->count, size, &tensor->bytes) || tensor->bytes != (size_t)(e - b)) {
        return px_fail(PX_DATA,
                       "%s: tensor \"%s\": data_offsets %lld .. %lld do not fit the shape's %zu elements of dtype %s; "
                       "valid are %zu bytes for each",
                       tensor->path, tensor->name, (long long)b, (long long)e, tensor->count, tensor->dtype, size);
    }
    tensor->data = data + b;
    return PX_OK;
}

/* ---- one file --------------------------------------------------------------------- */
static int by_address(const void *a, const void *b)
{
    const px_tensor *x = *(const px_tensor *const *)a, *y = *(const px_tensor *const *)b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty ones first */
}

/* Together the tensors cover the data exactly once. */
static px_status check_cover(const px_tensor *tensors, int count, const unsigned char *data, size_t bytes,
                             const char *path)
{
    const px_tensor **order = px_alloc_array((size_t)count + 1, sizeof *order, "tensor order");
    if (!order) return px_error_code();
    for (int i = 0; i < count; i++) order[i] = &tensors[i];
    qsort(order, (size_t)count, sizeof *order, by_address);
    px_status status = PX_OK;
    const unsigned char *at = data;
    for (int i = 0; i < count && status == PX_OK; i++) {
        if (order[i]->data < at) {
            status = bad_entry(order[i], "data_offsets overlap another tensor; valid is one after another");
        } else if (order[i]->data > at) {
            status = bad_entry(order[i], "data_offsets leave a hole before the tensor; valid is one after another");
        }
        at = order[i]->data + order[i]->bytes;
    }
    if (status == PX_OK && at != data + bytes) {
        status = px_fail(PX_DATA, "%s: %zu bytes after the last tensor; valid is none", path,
                         (size_t)(data + bytes - at));
    }
    px_free(order);
    return status;
}

static px_status parse_header(px_tensors *tensors, px_tensor_file *file)
{
    const unsigned char *bytes = file->map;
    uint64_t length = 0;
    for (int i = 7; i >= 0 && file->bytes >= 8; i--) length = length << 8 | bytes[i];
    if (file->bytes < 8 || length > file->bytes - 8 || length > MAX_HEADER || length < 2) {
        if (px_is_pickle(bytes, file->bytes)) return px_pickle_fail(file->path, "DIRECTORY");
        return px_fail(PX_DATA, "%s: not a safetensors file, or cut: %zu bytes, header length %llu; valid is a length from 2 "
                       "to what is left of the file, at most %zu", file->path, file->bytes, (unsigned long long)length,
                       MAX_HEADER);
    }
    PX_TRY(px_json_parse((const char *)bytes + 8, (size_t)length, file->path, 0, &file->header));
    if (!json_is_object(file->header)) {
        return px_fail(PX_DATA, "%s: the header is not a JSON object; valid is {NAME: {dtype, shape, data_offsets}, ...}",
                       file->path);
    }
    size_t most = (size_t)tensors->count + json_object_size(file->header);
    if (most > INT32_MAX) return px_fail(PX_DATA, "%s: too many tensors; valid are %d", file->path, INT32_MAX);
    px_tensor *list = px_realloc(tensors->list, most * sizeof *list + 1, "tensor list");
    if (!list) return px_error_code();
    tensors->list = list;

    const unsigned char *data = bytes + 8 + length;
    size_t data_bytes = file->bytes - 8 - (size_t)length;
    int first = tensors->count;
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        px_tensor *tensor = &list[tensors->count];
        *tensor = (px_tensor){.name = name, .path = file->path};
        PX_TRY(parse_entry(tensor, entry, data, data_bytes));
        tensors->count++;
    }
    return check_cover(list + first, tensors->count - first, data, data_bytes, file->path);
}

static px_tensor_file *new_file(px_tensors *tensors, const char *path)
{
    px_tensor_file *files = px_realloc(tensors->files, ((size_t)tensors->file_count + 1) * sizeof *files,
                                       "tensor files");
    if (!files) return NULL;
    tensors->files = files;
    px_tensor_file *file = &files[tensors->file_count];
    *file = (px_tensor_file){.path = px_strdup(path)};
    if (!file->path) return NULL;
    tensors->file_count++;
    return file;
}

static px_status add_file(px_tensors *tensors, const char *path)
{
    px_tensor_file *file = new_file(tensors, path);
    if (!file) return px_error_code();
    PX_TRY(px_file_map(path, &file->map, &file->bytes));
    return parse_header(tensors, file);
}

px_status px_tensors_adopt(px_tensors *tensors, const char *path, const void *map, size_t bytes, json_t *names)
{
    px_tensor_file *file = new_file(tensors, path);
    if (!file) {
        px_file_unmap(map, bytes);
        json_decref(names);
        return px_error_code();
    }
    file->map = map;
    file->bytes = bytes;
    file->header = names;
    for (int i = 0; i < tensors->count; i++) tensors->list[i].path = file->path;
    return PX_OK;
}

px_status px_tensors_open_file(px_tensors *tensors, const char *path)
{
    *tensors = (px_tensors){0};
    px_status status = add_file(tensors, path);
    if (status != PX_OK) px_tensors_close(tensors);
    return status;
}

void px_tensors_close(px_tensors *tensors)
{
    for (int i = 0; i < tensors->file_count; i++) {
        json_decref(tensors->files[i].header);
        px_file_unmap(tensors->files[i].map, tensors->files[i].bytes);
        px_free(tensors->files[i].path);
    }
    px_free(tensors->files);
    px_free(tensors->list);
    *tensors = (px_tensors){0};
}

size_t px_tensors_pages(const px_tensors *tensors)
{
    size_t bytes = 0;
    for (int i = 0; i < tensors->file_count; i++) bytes += px_whole_pages(tensors->files[i].bytes);
    return bytes;
}

px_status px_tensors_move(px_tensors *tensors, void *to)
{
    char *at = to;
    for (int i = 0; i < tensors->file_count; i++) {
        px_tensor_file *file = &tensors->files[i];
        const unsigned char *old = file->map;
        if (!old) continue;
        PX_TRY(px_file_map_move(&file->map, file->bytes, at));
        for (int k = 0; k < tensors->count; k++) {
            px_tensor *tensor = &tensors->list[k];
            if (tensor->path == file->path) tensor->data = (const unsigned char *)at + (tensor->data - old);
        }
        at += px_whole_pages(file->bytes);
    }
    return PX_OK;
}

void px_tensors_leave(px_tensors *tensors)
{
    for (int i = 0; i < tensors->file_count; i++) tensors->files[i].map = NULL;
}

/* ---- shards --------------------------------------------------------------------- */
static bool has_file(const px_tensors *tensors, const char *path)
{
    for (int i = 0; i < tensors->file_count; i++) {
        if (strcmp(tensors->files[i].path, path) == 0) return true;
    }
    return false;
}

static px_status shard_path(const char *index, const char *dir, json_t *value, char *path)
{
    const char *file = json_string_value(value);
    if (!file || !*file || strchr(file, '/') || strchr(file, '\\') || file[0] == '.') {
        char shown[128];
        snprintf(shown, sizeof shown, "%s", file ? file : "not a string");
        return px_fail(PX_DATA, "%s: weight_map names the file \"%s\"; valid is a file of the same directory", index,
                       shown);
    }
    return px_path_join(path, PX_PATH_MAX, dir, file);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const px_tensor *)a)->name, ((const px_tensor *)b)->name);
}

/* Names are unique over all shards, and each lies in the file that the index says. Sorts the list by name. */
static px_status check_index(px_tensors *tensors, const char *index, const char *dir, json_t *map)
{
    qsort(tensors->list, (size_t)tensors->count, sizeof *tensors->list, by_name);
    for (int i = 1; i < tensors->count; i++) {
        if (strcmp(tensors->list[i - 1].name, tensors->list[i].name) == 0) {
            return bad_entry(&tensors->list[i], "is in more than one shard; valid is one");
        }
    }
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        char path[PX_PATH_MAX];
        PX_TRY(shard_path(index, dir, value, path));
        px_tensor key = {.name = name};
        const px_tensor *found = bsearch(&key, tensors->list, (size_t)tensors->count, sizeof key, by_name);
        if (!found || strcmp(found->path, path) != 0) {
            return px_fail(PX_DATA, "%s: tensor \"%s\" is not in the file that weight_map names, %s; valid is the shard "
                           "that has it", index, name, path);
        }
    }
    return PX_OK;
}

static px_status open_shards(px_tensors *tensors, const char *index, const char *dir, json_t *json)
{
    json_t *map = json_object_get(json, "weight_map");
    if (json_object_size(map) == 0) {
        return px_fail(PX_DATA, "%s: key \"weight_map\" is missing or empty; valid is an object of tensor: file",
                       index);
    }
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value) {
        char path[PX_PATH_MAX];
        PX_TRY(shard_path(index, dir, value, path));
        if (has_file(tensors, path)) continue;
        if (!px_file_exists(path)) {
            return px_fail(PX_DATA, "%s: weight_map names the file \"%s\", which is not there; valid is a shard beside the index",
                           index, json_string_value(value));
        }
        if (tensors->file_count == MAX_SHARDS) {
            return px_fail(PX_DATA, "%s: more than %d shards; valid is fewer", index, MAX_SHARDS);
        }
        PX_TRY(add_file(tensors, path));
    }
    return check_index(tensors, index, dir, map);
}

px_status px_tensors_open(px_tensors *tensors, const char *dir)
{
    char path[PX_PATH_MAX];
    *tensors = (px_tensors){0};
    PX_TRY(px_gguf_find(path, sizeof path, dir));
    if (path[0]) return px_tensors_open_gguf(tensors, path);
    PX_TRY(px_path_join(path, sizeof path, dir, "model.safetensors"));
    if (px_file_exists(path)) return px_tensors_open_file(tensors, path);
    PX_TRY(px_path_join(path, sizeof path, dir, "model.safetensors.index.json"));
    if (px_file_exists(path)) {
        json_t *json = NULL;
        PX_TRY(px_json_read(path, &json));
        px_status status = open_shards(tensors, path, dir, json);
        json_decref(json);
        if (status != PX_OK) px_tensors_close(tensors);
        return status;
    }
    PX_TRY(px_pickle_refuse(dir));
    return px_fail(PX_DATA,
                   "%s: no weights; valid is model.safetensors, model.safetensors.index.json and its shards, or one "
                   ".gguf file",
                   dir);
}

/* ---- values --------------------------------------------------------------------- */
typedef enum file_type { FILE_F32, FILE_F16, FILE_BF16 } file_type;

static inline uint32_t bits_at(const unsigned char *data, file_type type, size_t i)
{
    uint32_t word;
    uint16_t half;
    if (type == FILE_F32) {
        memcpy(&word, data + 4 * i, sizeof word);
        return word;
    }
    memcpy(&half, data + 2 * i, sizeof half);
    return px_bits_of_float(type == FILE_F16 ? px_from_f16(half) : px_from_bf16(half));
}

/* An infinity or NaN has all bits of its exponent set. */
static inline uint32_t is_bad(uint32_t bits)
{
    return (bits & 0x7f800000u) == 0x7f800000u;
}

/* The same of bf16, in words of 16 bits: twice as many fit a register. */
static bool are_finite16(const unsigned char *data, size_t from, size_t to)
{
    uint16_t carried = 0;
    for (size_t i = from; i < to; i++) {
        uint16_t half;
        memcpy(&half, data + 2 * i, sizeof half);
        carried |= (uint16_t)((half & 0x7f80u) + 0x0080u); /* a full exponent carries into the sign's place */
    }
    return !(carried & 0x8000u);
}

/* Elements [from, to) into out (NULL: only looked at); true when all are finite. */
static inline bool convert(px_real *restrict out, const unsigned char *restrict data, file_type type, size_t from,
                           size_t to)
{
    uint32_t bad = 0;
    if (!out) {
        for (size_t i = from; i < to; i++) bad |= is_bad(bits_at(data, type, i));
        return !bad;
    }
    for (size_t i = from; i < to; i++) {
        uint32_t bits = bits_at(data, type, i);
        out[i] = px_float_of_bits(bits);
        bad |= is_bad(bits);
    }
    return !bad;
}

/* The type is a constant in each call, so that each loop is compiled for its own. */
static bool convert_share(px_real *out, const unsigned char *data, file_type type, size_t from, size_t to)
{
    switch (type) {
    case FILE_F32: return convert(out, data, FILE_F32, from, to);
    case FILE_F16: return convert(out, data, FILE_F16, from, to);
    default: return out ? convert(out, data, FILE_BF16, from, to) : are_finite16(data, from, to);
    }
}

enum { SHARE = 1 << 16, TILE = 32 }; /* elements of a thread's share; a transposed tile stays in the cache */

static bool read_straight(px_real *out, const px_tensor *tensor, file_type type)
{
    size_t count = tensor->count, shares = (count + SHARE - 1) / SHARE;
    bool good = true;
#pragma omp parallel for schedule(static) reduction(&& : good) if (shares > 1)
    for (size_t s = 0; s < shares; s++) {
        size_t from = s * SHARE, to = count - from < SHARE ? count : from + SHARE;
        good = convert_share(out, tensor->data, type, from, to) && good;
    }
    return good;
}

static bool read_transposed(px_real *out, const px_tensor *tensor, file_type type)
{
    size_t rows = (size_t)tensor->shape[0], columns = (size_t)tensor->shape[1];
    uint32_t bad = 0;
#pragma omp parallel for schedule(static) reduction(| : bad) if (tensor->count > SHARE)
    for (size_t c0 = 0; c0 < columns; c0 += TILE) {
        for (size_t r0 = 0; r0 < rows; r0 += TILE) {
            for (size_t c = c0; c < columns && c < c0 + TILE; c++) {
                for (size_t r = r0; r < rows && r < r0 + TILE; r++) {
                    uint32_t bits = bits_at(tensor->data, type, r * columns + c);
                    out[c * rows + r] = px_float_of_bits(bits);
                    bad |= is_bad(bits);
                }
            }
        }
    }
    return !bad;
}

static px_status type_of(const px_tensor *tensor, file_type *type)
{
    static const char *const names[] = {[FILE_F32] = "F32", [FILE_F16] = "F16", [FILE_BF16] = "BF16"};
    for (int i = FILE_F32; i <= FILE_BF16; i++) {
        *type = (file_type)i;
        if (strcmp(tensor->dtype, names[i]) == 0) return PX_OK;
    }
    return px_fail(PX_DATA, "%s: tensor \"%s\" has dtype %s; valid is F32, F16 or BF16", tensor->path, tensor->name,
                   tensor->dtype);
}

static px_status not_finite(const px_tensor *tensor, file_type type)
{
    size_t i = 0;
    while (i + 1 < tensor->count && !is_bad(bits_at(tensor->data, type, i))) i++;
    return px_fail(PX_DATA, "%s: tensor \"%s\" holds %f; valid are finite weights", tensor->path, tensor->name,
                   (double)px_float_of_bits(bits_at(tensor->data, type, i)));
}

/* A block's scale may be what is not finite. */
static px_status read_blocks(px_real *out, const px_tensor *tensor, px_block_values values, size_t elements,
                             size_t bytes)
{
    size_t blocks = tensor->count / elements;
    uint32_t bad = 0;
#pragma omp parallel for schedule(static) reduction(| : bad) if (tensor->count > SHARE)
    for (size_t b = 0; b < blocks; b++) {
        float of_block[PX_BLOCK_MAX];
        values(tensor->data + b * bytes, of_block);
        for (size_t i = 0; i < elements; i++) {
            out[b * elements + i] = of_block[i];
            bad |= is_bad(px_bits_of_float(of_block[i]));
        }
    }
    return bad ? px_fail(PX_DATA, "%s: tensor \"%s\" has a block whose scale is not finite; valid are finite weights",
                         tensor->path, tensor->name)
               : PX_OK;
}

px_status px_tensor_read(const px_tensor *tensor, bool transposed, px_real *out)
{
    file_type type;
    size_t elements, bytes;
    px_block_values values = px_block_reader(tensor->dtype);
    if (values && px_gguf_block(tensor->dtype, &elements, &bytes)) {
        return read_blocks(out, tensor, values, elements, bytes);
    }
    PX_TRY(type_of(tensor, &type));
    bool good = transposed && tensor->dims == 2 ? read_transposed(out, tensor, type) : read_straight(out, tensor, type);
    return good ? PX_OK : not_finite(tensor, type);
}

bool px_tensor_in_place(const px_tensor *tensor, const px_param *param, px_dtype dtype)
{
    const char *name = dtype == PX_BF16 ? "BF16" : "F32";
    size_t size = dtype == PX_BF16 ? sizeof(uint16_t) : sizeof(float);
    bool ordered = tensor->as_used ? tensor->interleaved == 0 && tensor->norm_offset == 0
                                   : param->by_head == 0 && !(param->transposed && tensor->dims == 2);
    return ordered && strcmp(tensor->dtype, name) == 0 && sizeof(px_real) == sizeof(float) &&
           (uintptr_t)tensor->data % size == 0;
}

px_status px_tensor_check(const px_tensor *tensor)
{
    file_type type;
    PX_TRY(type_of(tensor, &type));
    return read_straight(NULL, tensor, type) ? PX_OK : not_finite(tensor, type);
}

/* Row 2 i + h of a head in the file is row i of its half h. */
static px_status separate_halves(const px_tensor *tensor, px_real *out)
{
    size_t rows = (size_t)tensor->interleaved, width = tensor->count / (size_t)tensor->shape[0], half = rows / 2;
    px_real *head = px_alloc_array(rows * width, sizeof *head, "rows of a head");
    if (!head) return px_error_code();
    for (size_t first = 0; first < (size_t)tensor->shape[0]; first += rows) {
        px_real *to = out + first * width;
        memcpy(head, to, rows * width * sizeof *head);
        for (size_t r = 0; r < rows; r++) {
            memcpy(to + (r % 2 * half + r / 2) * width, head + r * width, width * sizeof *head);
        }
    }
    px_free(head);
    return PX_OK;
}

static px_status read_as_used(const px_tensor *tensor, px_real *out)
{
    PX_TRY(px_tensor_read(tensor, false, out));
    for (size_t i = 0; tensor->norm_offset && i < tensor->count; i++) out[i] -= (px_real)tensor->norm_offset;
    return tensor->interleaved ? separate_halves(tensor, out) : PX_OK;
}

/* The file's groups of by_head rows go q, k, v, q, k, v, ...; those of memory all q, all k, all v. */
px_status px_tensor_read_param(const px_tensor *tensor, const px_param *param, px_real *out)
{
    if (tensor->as_used) return read_as_used(tensor, out);
    if (param->by_head == 0) return px_tensor_read(tensor, param->transposed, out);
    size_t groups = (size_t)param->shape[0] / (size_t)param->by_head, heads = groups / 3;
    px_tensor group = *tensor;
    group.count = tensor->count / groups;
    group.bytes = tensor->bytes / groups;
    for (size_t i = 0; i < groups; i++) {
        group.data = tensor->data + i * group.bytes;
        PX_TRY(px_tensor_read(&group, false, out + (i % 3 * heads + i / 3) * group.count));
    }
    return PX_OK;
}
