/* A file's bytes after decompression, in order, without holding the file: plain, gzip (by its magic) or zstd (by its
 * magic). Private to text. */
#ifndef PX_TEXT_BYTES_H
#define PX_TEXT_BYTES_H

#include "phalanx/base.h"

typedef struct px_bytes px_bytes;
px_status px_bytes_open(px_bytes **bytes, const char *path);
/* The next piece; *length 0 at the end. *data is valid until the next call. PX_DATA when the compression is broken or
 * ends early. */
px_status px_bytes_next(px_bytes *bytes, const char **data, size_t *length);
void px_bytes_close(px_bytes *bytes);

bool px_records_named(const char *path); /* records.c: by its name, or that of what is compressed in it, a file of JSON records */

#endif
