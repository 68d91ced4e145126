/* What the files of this room share of HDF5: opening and closing, messages, attributes, scalar strings. */
#ifndef PX_STORE_H5_H
#define PX_STORE_H5_H

#include "phalanx/store.h"

#include <hdf5.h>

typedef struct px_h5 { /* an open file */
    hid_t id;
    const char *path; /* borrowed; for messages */
} px_h5;

/* A place where tests make the disk fail. */
#define PX_FAULT(site, where)                                                                                      \
    do {                                                                                                           \
        if (px_fault(site)) return px_fail(PX_IO, "%s: input/output error (injected at %s)", (where), (site));     \
    } while (0)

/* Before the first call of the library: silences its printer, turns file locks off. */
void px_h5_start(void);
/* Records "PATH: what: HDF5's reason". PX_IO when the system gave an error number, else `code`. */
px_status px_h5_fail(px_status code, const char *path, const char *format, ...) __attribute__((format(printf, 3, 4)));

px_status px_h5_create(px_h5 *file, const char *path);
/* For reading: living, killed and finished files alike; one table of it, or anything when that is NULL. PX_DATA when the
 * library would crash on the file. */
px_status px_h5_open(px_h5 *file, const char *path, const char *table);
px_status px_h5_open_unprobed(px_h5 *file, const char *path); /* one that this process wrote, or whose hash holds */
px_status px_h5_probe(const char *path, const char *table);   /* PX_DATA when reading the file crashes or never ends */
px_status px_h5_sync(const px_h5 *file);  /* everything written so far is on the disk */
px_status px_h5_close(px_h5 *file);       /* closes every object of the file too */

/* H5T_VARIABLE or a fixed number of bytes, UTF-8, NUL-terminated. */
hid_t px_h5_text_type(size_t size);
px_status px_h5_write_attribute(const px_h5 *file, hid_t object, const px_attribute *attribute);
px_status px_h5_write_attributes(const px_h5 *file, hid_t object, const px_attribute *attributes, int count);
px_status px_h5_write_texts(const px_h5 *file, hid_t object, const char *name, const char *const *texts, int count);
/* Scalar string data set. */
px_status px_h5_write_scalar(const px_h5 *file, hid_t group, const char *name, const char *text);

/* Opens an object by path, following hard links alone: no external file is ever touched. Negative: recorded. */
hid_t px_h5_find(const px_h5 *file, const char *path, H5I_type_t type);
bool px_h5_has(const px_h5 *file, const char *path);
/* Refuses external storage, virtual data sets and filters other than gzip and shuffle. */
px_status px_h5_check_storage(const px_h5 *file, hid_t dataset, const char *name);
/* The strings of a 1-D or scalar string attribute; free with px_free_texts. */
px_status px_h5_read_texts(const px_h5 *file, hid_t object, const char *name, char ***texts, int *count);
void px_free_texts(char **texts, int count);
/* All attributes of an object that JSON can hold, added to `object`. */
px_status px_h5_read_attributes(const px_h5 *file, hid_t object, struct json_t *json);
/* Those of a group, and the data sets in it that are one text. */
px_status px_h5_read_group(const px_h5 *file, hid_t id, const char *group, struct json_t *json);
/* One attribute by name and type; a text is px_strdup'ed. */
px_status px_h5_read_attribute(const px_h5 *file, hid_t object, px_attribute *attribute);
/* Scalar numbers, truth values and texts of one object to another of another file, but for the one named `except`. */
px_status px_h5_copy_attributes(const px_h5 *from, hid_t source, const px_h5 *to, hid_t target, const char *except);
/* The scalar string data set `path` of one file as `name` of a group of another. */
px_status px_h5_copy_scalar(const px_h5 *from, const px_h5 *to, hid_t target, const char *path, const char *name);
/* Refuses to read more bytes than what is stored could ever unpack to: a few bytes can claim terabytes. */
px_status px_h5_check_size(const px_h5 *file, hid_t dataset, const char *name, size_t bytes);

/* Copies as much of `text` as fits with its NUL, whole characters only; what is not UTF-8 becomes '?'. */
void px_text_fit(char *out, size_t width, const char *text);

/* lock.c: PX_IO when a living run writes `what` below dir; who cannot be asked is watched. */
px_status px_lock_refuse_held(const char *dir, const char *what);

#endif
