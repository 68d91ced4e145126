#include "h5.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *px_store_version(void)
{
    static char text[32];
    unsigned major = 0, minor = 0, release = 0;
    px_h5_start();
    H5get_libversion(&major, &minor, &release);
    snprintf(text, sizeof text, "HDF5 %u.%u.%u", major, minor, release);
    return text;
}

void px_h5_start(void)
{
    static bool started;
    if (started) return;
    started = true;
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0); /* read once, when the library starts */
    /* After a full disk the library's own tidying at exit crashes; every file is closed here anyway, and one that could
     * not be is as after a kill. */
    H5dont_atexit();
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

typedef struct h5_reason {
    char text[256]; /* the innermost description */
    int number;     /* errno, where a description has one */
} h5_reason;

static herr_t find_reason(unsigned n, const H5E_error2_t *error, void *data)
{
    h5_reason *reason = data;
    (void)n;
    if (!error->desc) return 0;
    if (!reason->text[0]) snprintf(reason->text, sizeof reason->text, "%s", error->desc);
    const char *number = strstr(error->desc, "errno = ");
    if (number && !reason->number) reason->number = atoi(number + strlen("errno = "));
    return 0;
}

px_status px_h5_fail(px_status code, const char *path, const char *format, ...)
{
    h5_reason reason = {{0}, 0};
    char what[512];
    va_list arguments;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, find_reason, &reason);
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (reason.number) return px_fail(PX_IO, "%s: %s: %s", path, what, strerror(reason.number));
    return px_fail(code, "%s: %s: %s", path, what, reason.text[0] ? reason.text : "unknown reason");
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static hid_t access_list(void)
{
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
    /* A reader that meets a half-written block tries again, twice as long each time; about 30 ms in all. */
    H5Pset_metadata_read_attempts(list, 25);
#if (H5_VERS_MAJOR == 1 && H5_VERS_MINOR == 10 && H5_VERS_RELEASE >= 7) || H5_VERSION_GE(1, 12, 1)
    H5Pset_file_locking(list, false, true);
#endif
    return list;
}

px_status px_h5_create(px_h5 *file, const char *path)
{
    px_h5_start();
    PX_FAULT("store.create", path);
    hid_t list = access_list();
    file->path = path;
    unlink(path); /* a link of that name would be written through */
    file->id = H5Fcreate(path, H5F_ACC_EXCL, H5P_DEFAULT, list);
    px_status status = file->id < 0 ? px_h5_fail(PX_IO, path, "cannot create the file") : PX_OK;
    H5Pclose(list);
    return status;
}

px_status px_h5_open_unprobed(px_h5 *file, const char *path)
{
    px_h5_start();
    file->path = path;
    file->id = -1;
    hid_t list = access_list();
    file->id = H5Fopen(path, H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, list);
    if (file->id < 0) file->id = H5Fopen(path, H5F_ACC_RDONLY, list);
    px_status status = file->id < 0 ? px_h5_fail(PX_DATA, path, "is no HDF5 file that can be read") : PX_OK;
    H5Pclose(list);
    return status;
}

px_status px_h5_open(px_h5 *file, const char *path, const char *table)
{
    struct stat info;
    file->path = path;
    file->id = -1;
    if (stat(path, &info) != 0) return px_fail(PX_IO, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) return px_fail(PX_IO, "%s: is not a file", path);
    px_h5_start();
    PX_TRY(px_h5_probe(path, table));
    return px_h5_open_unprobed(file, path);
}

px_status px_h5_sync(const px_h5 *file)
{
    void *handle = NULL;
    PX_FAULT("store.sync", file->path);
    if (H5Fflush(file->id, H5F_SCOPE_GLOBAL) < 0 || H5Fget_vfd_handle(file->id, H5P_DEFAULT, &handle) < 0) {
        return px_h5_fail(PX_IO, file->path, "cannot write");
    }
    if (fdatasync(*(int *)handle) != 0) {
        return px_fail(PX_IO, "%s: cannot write to the disk: %s", file->path, strerror(errno));
    }
    return PX_OK;
}

px_status px_h5_close(px_h5 *file)
{
    if (file->id < 0) return PX_OK;
    herr_t error = H5Fclose(file->id);
    file->id = -1;
    return error < 0 ? px_h5_fail(PX_IO, file->path, "cannot close the file") : PX_OK;
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

/* True when every link on the way is a hard one. */
static bool hard_path(const px_h5 *file, const char *path)
{
    char part[PX_PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part) return false;
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        H5L_info_t info;
        if (H5Lget_info(file->id, part, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD) return false;
    }
    return true;
}

bool px_h5_has(const px_h5 *file, const char *path)
{
    return strcmp(path, "/") == 0 || hard_path(file, path);
}

hid_t px_h5_find(const px_h5 *file, const char *path, H5I_type_t type)
{
    const char *kind = type == H5I_GROUP ? "group" : "data set";
    if (!px_h5_has(file, path)) {
        px_fail(PX_DATA, "%s: has no %s %s of its own", file->path, kind, path);
        return -1;
    }
    hid_t id = H5Oopen(file->id, path, H5P_DEFAULT);
    if (id < 0) {
        px_h5_fail(PX_DATA, file->path, "cannot open %s", path);
        return -1;
    }
    if (H5Iget_type(id) != type) {
        H5Oclose(id);
        px_fail(PX_DATA, "%s: %s is no %s", file->path, path, kind);
        return -1;
    }
    return id;
}

px_status px_h5_check_storage(const px_h5 *file, hid_t dataset, const char *name)
{
    hid_t list = H5Dget_create_plist(dataset);
    if (list < 0) return px_h5_fail(PX_DATA, file->path, "cannot read %s", name);
    px_status status = PX_OK;
    if (H5Pget_external_count(list) != 0 || H5Pget_layout(list) == H5D_VIRTUAL) {
        status = px_fail(PX_DATA, "%s: %s lies in another file, which is not followed", file->path, name);
    }
    int filters = H5Pget_nfilters(list);
    for (int i = 0; status == PX_OK && i < filters; i++) {
        unsigned flags = 0, values[8], config = 0;
        size_t count = 8;
        H5Z_filter_t filter = H5Pget_filter2(list, (unsigned)i, &flags, &count, values, 0, NULL, &config);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE) {
            status = px_fail(PX_DATA, "%s: %s uses filter %d; only gzip and shuffle are read", file->path, name,
                             (int)filter);
        }
    }
    H5Pclose(list);
    return status;
}

px_status px_h5_check_size(const px_h5 *file, hid_t dataset, const char *name, size_t bytes)
{
    enum { DEFLATE_MOST = 1100, FREE = 1 << 20 }; /* zlib's best is 1032 to 1; a short column may not be written yet */
    hsize_t stored = H5Dget_storage_size(dataset);
    if (bytes <= FREE || bytes / DEFLATE_MOST <= stored) return PX_OK;
    return px_fail(PX_DATA, "%s: %s claims %zu bytes, but only %llu are stored", file->path, name, bytes,
                   (unsigned long long)stored);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

hid_t px_h5_text_type(size_t size)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, size);
    H5Tset_cset(type, H5T_CSET_UTF8);
    H5Tset_strpad(type, H5T_STR_NULLTERM);
    return type;
}

void px_text_fit(char *out, size_t width, const char *text)
{
    size_t length = strlen(text), used = 0, at = 0;
    if (width == 0) return;
    while (at < length && used < width - 1) {
        size_t room = width - 1 - used, want = length - at;
        size_t valid = px_utf8_valid(text + at, want < room ? want : room);
        memcpy(out + used, text + at, valid);
        at += valid;
        used += valid;
        if (at >= length || used >= width - 1) break;
        /* A character that is whole in the text but does not fit ends it; a wrong byte becomes a question mark. */
        if (px_utf8_valid(text + at, want - valid < 4 ? want - valid : 4) > 0) break;
        out[used++] = '?';
        at++;
    }
    memset(out + used, 0, width - used);
}
