#include "bytes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#ifndef PX_BYTES_PIECE /* a fuzzer opens many small files */
#define PX_BYTES_PIECE ((size_t)256 << 10)
#endif

typedef enum px_packing { PX_PLAIN, PX_GZIP, PX_ZSTD } px_packing;

struct px_bytes {
    const char *path;
    FILE *file;
    px_packing packing;
    z_stream gzip;
    bool gzip_ready;
    ZSTD_DStream *zstd;
    ZSTD_inBuffer zstd_in;
    bool inside;    /* a compressed member has begun and not ended */
    bool file_done; /* nothing more to read */
    unsigned char in[PX_BYTES_PIECE];
    char out[PX_BYTES_PIECE];
};

static px_status open_decoder(px_bytes *bytes)
{
    if (bytes->packing == PX_GZIP) {
        if (inflateInit2(&bytes->gzip, 15 + 16) != Z_OK) return px_fail(PX_BUG, "%s: zlib does not start", bytes->path);
        bytes->gzip_ready = true;
    } else if (bytes->packing == PX_ZSTD) {
        bytes->zstd = ZSTD_createDStream();
        if (!bytes->zstd || ZSTD_isError(ZSTD_initDStream(bytes->zstd)))
            return px_fail(PX_BUG, "%s: zstd does not start", bytes->path);
    }
    return PX_OK;
}

px_status px_bytes_open(px_bytes **out, const char *path)
{
    static const unsigned char gzip_magic[2] = {0x1f, 0x8b}, zstd_magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    *out = NULL;
    if (px_dir_exists(path)) {
        return px_fail(PX_DATA, "%s: is a directory; valid is a file of records (.jsonl, .json or .txt, also with .gz "
                                "or .zst)", path);
    }
    int fd;
    PX_TRY(px_file_open(path, &fd));
    FILE *file = fdopen(fd, "rb");
    px_bytes *bytes = file ? px_alloc(sizeof *bytes, "reading a data file") : NULL;
    if (!bytes) {
        px_status status = file ? px_error_code() : px_fail(PX_IO, "%s: %s", path, strerror(errno));
        if (file) fclose(file);
        else close(fd);
        return status;
    }
    bytes->path = path;
    bytes->file = file;
    unsigned char head[4] = {0};
    size_t got = fread(head, 1, sizeof head, file);
    if (got >= 2 && !memcmp(head, gzip_magic, 2)) bytes->packing = PX_GZIP;
    if (got == 4 && !memcmp(head, zstd_magic, 4)) bytes->packing = PX_ZSTD;
    rewind(file);
    px_status status = open_decoder(bytes);
    if (status != PX_OK) {
        px_bytes_close(bytes);
        return status;
    }
    *out = bytes;
    return PX_OK;
}

void px_bytes_close(px_bytes *bytes)
{
    if (!bytes) return;
    if (bytes->gzip_ready) inflateEnd(&bytes->gzip);
    ZSTD_freeDStream(bytes->zstd);
    fclose(bytes->file);
    px_free(bytes);
}

static px_status read_piece(px_bytes *bytes, void *piece, size_t *length)
{
    *length = fread(piece, 1, PX_BYTES_PIECE, bytes->file);
    if (ferror(bytes->file)) return px_fail(PX_IO, "%s: %s", bytes->path, strerror(errno));
    if (*length == 0) bytes->file_done = true;
    return PX_OK;
}

static px_status cut_short(const px_bytes *bytes)
{
    return px_fail(PX_DATA, "%s: the compressed file ends early; it was cut short", bytes->path);
}

static px_status gzip_next(px_bytes *bytes, size_t *length)
{
    z_stream *z = &bytes->gzip;
    z->next_out = (unsigned char *)bytes->out;
    z->avail_out = (unsigned)PX_BYTES_PIECE;
    while (z->avail_out == PX_BYTES_PIECE) {
        if (z->avail_in == 0) {
            size_t got;
            PX_TRY(read_piece(bytes, bytes->in, &got));
            if (got == 0) {
                if (bytes->inside) return cut_short(bytes);
                break;
            }
            z->next_in = bytes->in;
            z->avail_in = (unsigned)got;
        }
        bytes->inside = true;
        int code = inflate(z, Z_NO_FLUSH);
        if (code == Z_STREAM_END) { /* another member may follow: gzip files can be concatenated */
            bytes->inside = false;
            inflateReset(z);
        } else if (code != Z_OK && code != Z_BUF_ERROR) {
            return px_fail(PX_DATA, "%s: broken gzip data (%s)", bytes->path, z->msg ? z->msg : "no reason given");
        }
    }
    *length = PX_BYTES_PIECE - z->avail_out;
    return PX_OK;
}

static px_status zstd_next(px_bytes *bytes, size_t *length)
{
    ZSTD_outBuffer out = {bytes->out, PX_BYTES_PIECE, 0};
    while (out.pos == 0) {
        if (bytes->zstd_in.pos == bytes->zstd_in.size) {
            size_t got;
            PX_TRY(read_piece(bytes, bytes->in, &got));
            if (got == 0) {
                if (bytes->inside) return cut_short(bytes);
                break;
            }
            bytes->zstd_in = (ZSTD_inBuffer){bytes->in, got, 0};
        }
        size_t code = ZSTD_decompressStream(bytes->zstd, &out, &bytes->zstd_in);
        if (ZSTD_isError(code))
            return px_fail(PX_DATA, "%s: broken zstd data (%s)", bytes->path, ZSTD_getErrorName(code));
        bytes->inside = code != 0;
    }
    *length = out.pos;
    return PX_OK;
}

px_status px_bytes_next(px_bytes *bytes, const char **data, size_t *length)
{
    *length = 0;
    *data = bytes->out;
    if (bytes->packing == PX_GZIP) return gzip_next(bytes, length);
    if (bytes->packing == PX_ZSTD) return zstd_next(bytes, length);
    return bytes->file_done ? PX_OK : read_piece(bytes, bytes->out, length);
}
