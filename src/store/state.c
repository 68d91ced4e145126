/* state.h5 of a checkpoint: named arrays and attributes. */
#include "h5.h"

#include <stdio.h>
#include <string.h>

#define NAME "state.h5"
#define FORMAT "phalanx-state"

/* Half floats have no type of their own in most readers: their bits are stored, attribute dtype says what they are. */
static hid_t array_type(px_dtype dtype, bool memory)
{
    switch (dtype) {
    case PX_F32:
        return memory ? H5T_NATIVE_FLOAT : H5T_IEEE_F32LE;
    case PX_F64:
        return memory ? H5T_NATIVE_DOUBLE : H5T_IEEE_F64LE;
    case PX_I32:
        return memory ? H5T_NATIVE_INT32 : H5T_STD_I32LE;
    case PX_I64:
        return memory ? H5T_NATIVE_INT64 : H5T_STD_I64LE;
    case PX_U8:
        return memory ? H5T_NATIVE_UINT8 : H5T_STD_U8LE;
    default:
        return memory ? H5T_NATIVE_UINT16 : H5T_STD_U16LE;
    }
}

static const char *dtype_name(px_dtype dtype)
{
    static const char *const names[] = {"f32", "f64", "f16", "bf16", "i32", "i64", "u8"};
    return (size_t)dtype < sizeof names / sizeof *names ? names[dtype] : "";
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static px_status write_array(const px_h5 *file, const px_array *array)
{
    hsize_t shape[PX_MAX_DIMS] = {0};
    PX_FAULT("store.state", file->path);
    if (array->dims < 1 || array->dims > PX_MAX_DIMS) {
        return px_fail(PX_BUG, "%s: array %s has %d dimensions", file->path, array->name, array->dims);
    }
    for (int d = 0; d < array->dims; d++) shape[d] = (hsize_t)array->shape[d];
    hid_t space = H5Screate_simple(array->dims, shape, NULL), links = H5Pcreate(H5P_LINK_CREATE);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    H5Pset_fill_time(list, H5D_FILL_TIME_NEVER);
    hid_t id = H5Dcreate2(file->id, array->name, array_type(array->dtype, false), space, links, list, H5P_DEFAULT);
    herr_t error = id < 0 ? -1 : 0;
    if (error >= 0 && px_array_count(array) > 0) {
        error = H5Dwrite(id, array_type(array->dtype, true), H5S_ALL, H5S_ALL, H5P_DEFAULT, array->data);
    }
    px_status status = error < 0 ? px_h5_fail(PX_IO, file->path, "cannot write %s", array->name) : PX_OK;
    const px_attribute dtype = {.name = "dtype", .type = 's', .s = dtype_name(array->dtype)};
    if (status == PX_OK) status = px_h5_write_attribute(file, id, &dtype);
    if (id >= 0) H5Dclose(id);
    H5Pclose(list);
    H5Pclose(links);
    H5Sclose(space);
    return status;
}

px_status px_checkpoint_state(const px_checkpoint_writer *writer, const px_array *arrays, int array_count,
                              const px_attribute *attributes, int attribute_count)
{
    char path[PX_PATH_MAX];
    px_h5 file;
    const px_attribute format[] = {{.name = "format", .type = 's', .s = FORMAT},
                                   {.name = "format_version", .type = 'i', .i = 1}};
    PX_TRY(px_path_join(path, sizeof path, writer->path, NAME));
    PX_TRY(px_h5_create(&file, path));
    hid_t root = H5Gopen2(file.id, "/", H5P_DEFAULT);
    px_status status = px_h5_write_attributes(&file, root, format, 2);
    if (status == PX_OK) status = px_h5_write_attributes(&file, root, attributes, attribute_count);
    H5Gclose(root);
    for (int i = 0; status == PX_OK && i < array_count; i++) status = write_array(&file, &arrays[i]);
    px_status closed = px_h5_close(&file);
    return status == PX_OK ? closed : status;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static px_status check_array(const px_h5 *file, hid_t id, const px_array *array)
{
    hsize_t shape[PX_MAX_DIMS] = {0};
    PX_TRY(px_h5_check_storage(file, id, array->name));
    px_attribute dtype = {.name = "dtype", .type = 's'};
    PX_TRY(px_h5_read_attribute(file, id, &dtype));
    bool same = dtype.s && strcmp(dtype.s, dtype_name(array->dtype)) == 0;
    px_status status = same ? PX_OK
                            : px_fail(PX_DATA, "%s: %s is %s; %s is wanted", file->path, array->name,
                                      dtype.s ? dtype.s : "of no type", dtype_name(array->dtype));
    px_free((void *)(uintptr_t)dtype.s);
    if (status != PX_OK) return status;
    hid_t type = H5Dget_type(id), space = H5Dget_space(id);
    bool fits = H5Tequal(type, array_type(array->dtype, false)) > 0;
    int dims = H5Sget_simple_extent_ndims(space);
    if (dims == array->dims) H5Sget_simple_extent_dims(space, shape, NULL);
    H5Sclose(space);
    H5Tclose(type);
    if (!fits) return px_fail(PX_DATA, "%s: %s is stored in another type than its dtype says", file->path, array->name);
    bool shaped = dims == array->dims;
    for (int d = 0; shaped && d < dims; d++) shaped = shape[d] == (hsize_t)array->shape[d];
    if (!shaped) {
        return px_fail(PX_DATA, "%s: %s has shape [%llu, ...] of %d; [%lld, ...] of %d is wanted", file->path,
                       array->name, (unsigned long long)shape[0], dims, (long long)array->shape[0], array->dims);
    }
    return PX_OK;
}

static px_status read_array(const px_h5 *file, const px_array *array)
{
    char path[PX_PATH_MAX];
    if (snprintf(path, sizeof path, "/%s", array->name[0] == '/' ? array->name + 1 : array->name) >= (int)sizeof path) {
        return px_fail(PX_BUG, "%s: array name %s is too long", file->path, array->name);
    }
    hid_t id = px_h5_find(file, path, H5I_DATASET);
    if (id < 0) return px_error_code();
    px_status status = check_array(file, id, array);
    if (status == PX_OK && px_array_count(array) > 0 &&
        H5Dread(id, array_type(array->dtype, true), H5S_ALL, H5S_ALL, H5P_DEFAULT, array->data) < 0) {
        status = px_h5_fail(PX_DATA, file->path, "cannot read %s", array->name);
    }
    H5Dclose(id);
    return status;
}

px_status px_checkpoint_load_state(const char *dir, const px_array *arrays, int array_count, px_attribute *attributes,
                                   int attribute_count)
{
    char path[PX_PATH_MAX];
    px_h5 file;
    PX_TRY(px_path_join(path, sizeof path, dir, NAME));
    PX_TRY(px_h5_open_unprobed(&file, path));
    hid_t root = H5Gopen2(file.id, "/", H5P_DEFAULT);
    px_attribute format = {.name = "format", .type = 's'}, version = {.name = "format_version", .type = 'i'};
    px_status status = px_h5_read_attribute(&file, root, &format);
    if (status == PX_OK) status = px_h5_read_attribute(&file, root, &version);
    if (status == PX_OK && (!format.s || strcmp(format.s, FORMAT) != 0 || version.i != 1)) {
        status = px_fail(PX_DATA, "%s: is format %s %lld; this version reads " FORMAT " 1", path,
                         format.s ? format.s : "", (long long)version.i);
    }
    px_free((void *)(uintptr_t)format.s);
    int done = 0;
    for (; status == PX_OK && done < attribute_count; done++) {
        attributes[done].s = NULL;
        status = px_h5_read_attribute(&file, root, &attributes[done]);
    }
    for (int i = 0; status == PX_OK && i < array_count; i++) status = read_array(&file, &arrays[i]);
    for (int i = 0; status != PX_OK && i < done; i++) {
        if (attributes[i].type == 's') px_free((void *)(uintptr_t)attributes[i].s);
        attributes[i].s = NULL;
    }
    H5Gclose(root);
    H5Fclose(file.id);
    return status;
}
