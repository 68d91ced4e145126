#include "h5.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define MAX_TEXTS 1000000 /* strings of one attribute, attributes of one object */
#define MAX_ATTRIBUTE (64 << 20) /* bytes */

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* count 0: scalar. */
static px_status write_values(const px_h5 *file, hid_t object, const char *name, hid_t file_type, hid_t memory_type,
                              hsize_t count, const void *values)
{
    PX_FAULT("store.attribute", file->path);
    hid_t space = count ? H5Screate_simple(1, &count, NULL) : H5Screate(H5S_SCALAR);
    hid_t id = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    herr_t error = id < 0 ? -1 : H5Awrite(id, memory_type, values);
    px_status status = error < 0 ? px_h5_fail(PX_IO, file->path, "cannot write attribute %s", name) : PX_OK;
    if (id >= 0) H5Aclose(id);
    H5Sclose(space);
    return status;
}

px_status px_h5_write_texts(const px_h5 *file, hid_t object, const char *name, const char *const *texts, int count)
{
    hid_t type = px_h5_text_type(H5T_VARIABLE);
    px_status status = write_values(file, object, name, type, type, (hsize_t)count, texts);
    H5Tclose(type);
    return status;
}

px_status px_h5_write_attribute(const px_h5 *file, hid_t object, const px_attribute *attribute)
{
    const char *text = attribute->s ? attribute->s : "";
    uint8_t flag = attribute->i != 0;
    switch (attribute->type) {
    case 'i':
        return write_values(file, object, attribute->name, H5T_STD_I64LE, H5T_NATIVE_INT64, 0, &attribute->i);
    case 'f':
        return write_values(file, object, attribute->name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, &attribute->f);
    case 'b':
        return write_values(file, object, attribute->name, H5T_STD_U8LE, H5T_NATIVE_UINT8, 0, &flag);
    case 's':
        return px_h5_write_texts(file, object, attribute->name, &text, 0);
    default:
        return px_fail(PX_BUG, "%s: attribute %s has type '%c'; valid are i, f, b, s", file->path, attribute->name,
                       attribute->type);
    }
}

px_status px_h5_write_attributes(const px_h5 *file, hid_t object, const px_attribute *attributes, int count)
{
    for (int i = 0; i < count; i++) PX_TRY(px_h5_write_attribute(file, object, &attributes[i]));
    return PX_OK;
}

px_status px_h5_write_scalar(const px_h5 *file, hid_t group, const char *name, const char *text)
{
    if (!text) text = "";
    PX_FAULT("store.scalar", file->path);
    hid_t type = px_h5_text_type(strlen(text) + 1), space = H5Screate(H5S_SCALAR);
    hid_t id = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    herr_t error = id < 0 ? -1 : H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text);
    px_status status = error < 0 ? px_h5_fail(PX_IO, file->path, "cannot write %s", name) : PX_OK;
    if (id >= 0) H5Dclose(id);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

void px_free_texts(char **texts, int count)
{
    for (int i = 0; texts && i < count; i++) px_free(texts[i]);
    px_free(texts);
}

/* A copy that is valid UTF-8 and ends where the fixed-length string ends. */
static char *copy_text(const char *bytes, size_t length)
{
    char *raw = px_alloc(length + 1, "attribute"), *copy = raw ? px_alloc(length + 1, "attribute") : NULL;
    if (copy) {
        memcpy(raw, bytes, length);
        px_text_fit(copy, length + 1, raw);
    }
    px_free(raw);
    return copy;
}

/* Strings of an attribute (object_is_dataset false) or of a scalar data set. */
static px_status read_texts(const px_h5 *file, hid_t id, bool dataset, const char *name, char ***texts, int *count)
{
    hid_t type = dataset ? H5Dget_type(id) : H5Aget_type(id), space = dataset ? H5Dget_space(id) : H5Aget_space(id);
    hssize_t n = H5Sget_simple_extent_npoints(space);
    bool text = H5Tget_class(type) == H5T_STRING, variable = text && H5Tis_variable_str(type) > 0;
    size_t width = text && !variable ? H5Tget_size(type) : 0;
    size_t bytes = variable ? sizeof(char *) : width;
    px_status status = PX_OK;
    char *raw = NULL;
    *texts = NULL;
    *count = 0;
    if (!text || n < 0 || n > MAX_TEXTS) {
        status = px_fail(PX_DATA, "%s: %s is not made of strings", file->path, name);
    } else if (dataset && (status = px_h5_check_size(file, id, name, (size_t)n * bytes)) != PX_OK) {
        ; /* recorded */
    } else if (!dataset && (size_t)n * bytes > MAX_ATTRIBUTE) {
        status = px_fail(PX_DATA, "%s: attribute %s claims %zu bytes; valid is at most %d", file->path, name,
                         (size_t)n * bytes, MAX_ATTRIBUTE);
    } else if (!(raw = px_alloc_array((size_t)n + 1, bytes + 1, name)) ||
               !(*texts = px_alloc_array((size_t)n + 1, sizeof(char *), name))) {
        status = px_error_code();
    } else {
        hid_t memory = px_h5_text_type(variable ? H5T_VARIABLE : width);
        H5Tset_cset(memory, H5Tget_cset(type));
        H5Tset_strpad(memory, H5Tget_strpad(type));
        herr_t error = dataset ? H5Dread(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, raw) : H5Aread(id, memory, raw);
        if (error < 0) status = px_h5_fail(PX_DATA, file->path, "cannot read %s", name);
        for (hssize_t i = 0; status == PX_OK && i < n; i++) {
            const char *at = variable ? ((char **)(void *)raw)[i] : raw + (size_t)i * width;
            size_t length = variable ? (at ? strlen(at) : 0) : strnlen(at, width);
            (*texts)[i] = copy_text(at, length);
            if (!(*texts)[i]) status = px_error_code();
            *count = (int)i + 1;
        }
        if (variable && error >= 0) H5Dvlen_reclaim(memory, space, H5P_DEFAULT, raw);
        H5Tclose(memory);
    }
    if (status != PX_OK) {
        px_free_texts(*texts, *count);
        *texts = NULL;
        *count = 0;
    }
    px_free(raw);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

px_status px_h5_read_texts(const px_h5 *file, hid_t object, const char *name, char ***texts, int *count)
{
    hid_t id = H5Aopen(object, name, H5P_DEFAULT);
    if (id < 0) return px_fail(PX_DATA, "%s: lacks the attribute %s", file->path, name);
    px_status status = read_texts(file, id, false, name, texts, count);
    H5Aclose(id);
    return status;
}

/* A scalar number as JSON; NULL when it is something else. An unsigned byte is a truth value (no enums in these files).
 */
static json_t *number_json(hid_t id, hid_t type)
{
    int64_t integer = 0;
    double real = 0;
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        if (H5Aread(id, H5T_NATIVE_INT64, &integer) < 0) return NULL;
        if (H5Tget_size(type) == 1 && H5Tget_sign(type) == H5T_SGN_NONE) return json_boolean(integer != 0);
        return json_integer(integer);
    case H5T_FLOAT:
        if (H5Aread(id, H5T_NATIVE_DOUBLE, &real) < 0) return NULL;
        return isfinite(real) ? json_real(real) : json_null();
    default:
        return NULL;
    }
}

static json_t *texts_json(char **texts, int count, bool scalar)
{
    if (scalar) return json_string(count ? texts[0] : "");
    json_t *list = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(list, json_string(texts[i]));
    return list;
}

typedef struct attribute_walk {
    const px_h5 *file;
    json_t *json;
    px_status status;
} attribute_walk;

static herr_t add_attribute(hid_t object, const char *name, const H5A_info_t *info, void *data)
{
    attribute_walk *walk = data;
    (void)info;
    hid_t id = H5Aopen(object, name, H5P_DEFAULT);
    if (id < 0) return 0;
    hid_t type = H5Aget_type(id), space = H5Aget_space(id);
    bool scalar = H5Sget_simple_extent_type(space) == H5S_SCALAR;
    json_t *value = NULL;
    if (H5Tget_class(type) == H5T_STRING) {
        char **texts = NULL;
        int count = 0;
        walk->status = read_texts(walk->file, id, false, name, &texts, &count);
        if (walk->status == PX_OK) value = texts_json(texts, count, scalar);
        px_free_texts(texts, count);
    } else if (scalar) {
        value = number_json(id, type);
    }
    if (value) json_object_set_new(walk->json, name, value);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(id);
    return walk->status == PX_OK ? 0 : -1;
}

px_status px_h5_read_attributes(const px_h5 *file, hid_t object, json_t *json)
{
    attribute_walk walk = {file, json, PX_OK};
    hsize_t position = 0;
    herr_t error = H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, &position, add_attribute, &walk);
    if (walk.status != PX_OK) return walk.status;
    return error < 0 ? px_h5_fail(PX_DATA, file->path, "cannot read the attributes") : PX_OK;
}

px_status px_h5_read_attribute(const px_h5 *file, hid_t object, px_attribute *attribute)
{
    hid_t id = H5Aopen(object, attribute->name, H5P_DEFAULT);
    if (id < 0) return px_fail(PX_DATA, "%s: lacks the attribute %s", file->path, attribute->name);
    hid_t type = H5Aget_type(id), space = H5Aget_space(id);
    H5T_class_t kind = H5Tget_class(type);
    bool scalar = H5Sget_simple_extent_npoints(space) == 1;
    px_status status = PX_OK;
    herr_t error = 0;
    if (scalar && kind == H5T_INTEGER && (attribute->type == 'i' || attribute->type == 'b')) {
        error = H5Aread(id, H5T_NATIVE_INT64, &attribute->i);
    } else if (scalar && kind == H5T_FLOAT && attribute->type == 'f') {
        error = H5Aread(id, H5T_NATIVE_DOUBLE, &attribute->f);
    } else if (scalar && kind == H5T_STRING && attribute->type == 's') {
        char **texts = NULL;
        int count = 0;
        status = read_texts(file, id, false, attribute->name, &texts, &count);
        attribute->s = count ? texts[0] : NULL; /* taken over */
        px_free(texts);
    } else {
        status = px_fail(PX_DATA, "%s: attribute %s is of another type", file->path, attribute->name);
    }
    if (error < 0) status = px_h5_fail(PX_DATA, file->path, "cannot read attribute %s", attribute->name);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(id);
    return status;
}

/* ---- copying ----------------------------------------------------------------------------------------------------- */

typedef struct attribute_copy {
    const px_h5 *from, *to;
    hid_t target;
    const char *except;
    px_status status;
} attribute_copy;

/* What this room writes: px_attribute's type letter; 0: something else. */
static char attribute_type(hid_t id)
{
    hid_t type = H5Aget_type(id), space = H5Aget_space(id);
    H5T_class_t kind = H5Tget_class(type);
    char letter = kind == H5T_FLOAT ? 'f' : kind == H5T_STRING ? 's' : 0;
    if (kind == H5T_INTEGER) letter = H5Tget_size(type) == 1 && H5Tget_sign(type) == H5T_SGN_NONE ? 'b' : 'i';
    if (H5Sget_simple_extent_type(space) != H5S_SCALAR) letter = 0;
    H5Sclose(space);
    H5Tclose(type);
    return letter;
}

static herr_t copy_attribute(hid_t source, const char *name, const H5A_info_t *info, void *data)
{
    attribute_copy *copy = data;
    (void)info;
    hid_t id = H5Aopen(source, name, H5P_DEFAULT);
    if (id < 0 || strcmp(name, copy->except) == 0) {
        if (id >= 0) H5Aclose(id);
        return 0;
    }
    px_attribute attribute = {.name = name, .type = attribute_type(id)};
    H5Aclose(id);
    if (attribute.type == 0) return 0;
    copy->status = px_h5_read_attribute(copy->from, source, &attribute);
    if (copy->status == PX_OK) copy->status = px_h5_write_attribute(copy->to, copy->target, &attribute);
    px_free((void *)(uintptr_t)attribute.s);
    return copy->status == PX_OK ? 0 : -1;
}

px_status px_h5_copy_attributes(const px_h5 *from, hid_t source, const px_h5 *to, hid_t target, const char *except)
{
    attribute_copy copy = {from, to, target, except, PX_OK};
    hsize_t position = 0;
    herr_t error = H5Aiterate2(source, H5_INDEX_NAME, H5_ITER_INC, &position, copy_attribute, &copy);
    if (copy.status != PX_OK) return copy.status;
    return error < 0 ? px_h5_fail(PX_DATA, from->path, "cannot read the attributes") : PX_OK;
}

px_status px_h5_copy_scalar(const px_h5 *from, const px_h5 *to, hid_t target, const char *path, const char *name)
{
    char **texts = NULL;
    int count = 0;
    hid_t id = px_h5_find(from, path, H5I_DATASET);
    px_status status = id < 0 ? px_error_code() : px_h5_check_storage(from, id, path);
    if (status == PX_OK) status = read_texts(from, id, true, path, &texts, &count);
    if (status == PX_OK) status = px_h5_write_scalar(to, target, name, count ? texts[0] : "");
    px_free_texts(texts, count);
    if (id >= 0) H5Dclose(id);
    return status;
}

/* ---- a group as JSON --------------------------------------------------------------------------------------------- */

static px_status add_scalar(const px_h5 *file, const char *path, const char *name, json_t *json)
{
    hid_t id = px_h5_find(file, path, H5I_DATASET);
    if (id < 0) return px_error_code();
    hid_t space = H5Dget_space(id), type = H5Dget_type(id);
    px_status status = PX_OK;
    if (H5Sget_simple_extent_type(space) == H5S_SCALAR && H5Tget_class(type) == H5T_STRING) {
        char **texts = NULL;
        int count = 0;
        status = px_h5_check_storage(file, id, path);
        if (status == PX_OK) status = read_texts(file, id, true, path, &texts, &count);
        if (status == PX_OK && count == 1) json_object_set_new(json, name, json_string(texts[0]));
        px_free_texts(texts, count);
    }
    H5Tclose(type);
    H5Sclose(space);
    H5Dclose(id);
    return status;
}

/* The strings that lie in the group as data sets (yaml, source). */
static px_status add_scalars(const px_h5 *file, hid_t id, const char *group, json_t *json)
{
    H5G_info_t info;
    if (H5Gget_info(id, &info) < 0) return px_h5_fail(PX_DATA, file->path, "cannot list %s", group);
    for (hsize_t i = 0; i < info.nlinks && i < MAX_TEXTS; i++) {
        char name[256], path[PX_PATH_MAX];
        ssize_t length =
            H5Lget_name_by_idx(id, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT);
        if (length <= 0 || (size_t)length >= sizeof name) continue;
        PX_TRY(px_path_join(path, sizeof path, group, name));
        hid_t object = px_h5_has(file, path) ? H5Oopen(file->id, path, H5P_DEFAULT) : -1;
        bool dataset = object >= 0 && H5Iget_type(object) == H5I_DATASET;
        if (object >= 0) H5Oclose(object);
        if (dataset) PX_TRY(add_scalar(file, path, name, json));
    }
    return PX_OK;
}

px_status px_h5_read_group(const px_h5 *file, hid_t id, const char *group, json_t *json)
{
    PX_TRY(px_h5_read_attributes(file, id, json));
    return add_scalars(file, id, group, json);
}

px_status px_attributes_read(const char *path, const char *group, struct json_t **object)
{
    px_h5 file;
    *object = NULL;
    PX_TRY(px_h5_open(&file, path, NULL));
    json_t *json = json_object();
    hid_t id = px_h5_find(&file, group, H5I_GROUP);
    px_status status = id < 0 ? px_error_code() : px_h5_read_group(&file, id, group, json);
    H5Fclose(file.id);
    if (status == PX_OK) {
        *object = json;
    } else {
        json_decref(json);
    }
    return status;
}
