/* Writer of safetensors files: header and tensors go to a temporary name in pieces of a fixed size, then to disk, then
 * to the final name, so that a reader sees a whole file or none. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "half.h"
#include "safetensors.h"

#define PIECE ((size_t)1 << 16) /* elements converted between writes */

typedef struct output {
    int fd;
    const char *path;
    px_dtype dtype;
    unsigned char *piece; /* [PIECE * 4] */
    size_t filled;        /* bytes in piece */
} output;

static px_status write_error(const char *path, const char *what)
{
    return px_fail(PX_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static px_status write_bytes(output *out, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t written = write(out->fd, at, length);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return write_error(out->path, "write");
        at += written;
        length -= (size_t)written;
    }
    return PX_OK;
}

static px_status flush(output *out)
{
    size_t filled = out->filled;
    out->filled = 0;
    return write_bytes(out, out->piece, filled);
}

static px_status put(output *out, const char *name, double value)
{
    float single = (float)value;
    unsigned char *at = out->piece + out->filled;
    bool fits = isfinite(single);
    if (out->dtype == PX_F32) {
        memcpy(at, &single, 4);
    } else {
        uint16_t half = out->dtype == PX_F16 ? px_to_f16(single) : px_to_bf16(single);
        fits = fits && isfinite(out->dtype == PX_F16 ? px_from_f16(half) : px_from_bf16(half));
        memcpy(at, &half, 2);
    }
    if (!fits) {
        return px_fail(PX_DATA,
                       "%s: tensor \"%s\" holds %g, which %s cannot hold; valid are finite weights in its range",
                       out->path, name, value,
                       out->dtype == PX_F32   ? "f32"
                       : out->dtype == PX_F16 ? "f16"
                                              : "bf16");
    }
    out->filled += px_dtype_size(out->dtype);
    return out->filled + 4 > PIECE * 4 ? flush(out) : PX_OK;
}

static px_status write_tensor(output *out, const px_tensor_source *source)
{
    size_t rows = (size_t)source->shape[0], columns = source->dims == 2 ? (size_t)source->shape[1] : 1;
    if (source->by_head > 0) {
        size_t group = (size_t)source->by_head * columns, groups = rows / (size_t)source->by_head, heads = groups / 3;
        for (size_t i = 0; i < groups; i++) {
            const px_real *data = source->data + (i % 3 * heads + i / 3) * group;
            for (size_t j = 0; j < group; j++) PX_TRY(put(out, source->name, data[j]));
        }
        return PX_OK;
    }
    if (!source->transposed) {
        for (size_t i = 0; i < rows * columns; i++) PX_TRY(put(out, source->name, source->data[i]));
        return PX_OK;
    }
    for (size_t c = 0; c < columns; c++) {
        for (size_t r = 0; r < rows; r++) PX_TRY(put(out, source->name, source->data[r * columns + c]));
    }
    return PX_OK;
}

/* Tensor names are those of the parameter table: plain ASCII that needs no escape. */
static px_status make_header(px_buf *header, const px_tensor_source *sources, int count, px_dtype dtype)
{
    const char *type = dtype == PX_F32 ? "F32" : dtype == PX_F16 ? "F16" : "BF16";
    size_t offset = 0;
    PX_TRY(px_buf_text(header, "{\"__metadata__\":{\"format\":\"pt\"}"));
    for (int i = 0; i < count; i++) {
        const px_tensor_source *s = &sources[i];
        size_t bytes = (size_t)s->shape[0] * (s->dims == 2 ? (size_t)s->shape[1] : 1) * px_dtype_size(dtype);
        PX_TRY(px_buf_printf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", s->name, type));
        if (s->dims == 2) {
            PX_TRY(px_buf_printf(header, "%lld,%lld", (long long)s->shape[s->transposed ? 1 : 0],
                                 (long long)s->shape[s->transposed ? 0 : 1]));
        } else {
            PX_TRY(px_buf_printf(header, "%lld", (long long)s->shape[0]));
        }
        PX_TRY(px_buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes));
        offset += bytes;
    }
    PX_TRY(px_buf_text(header, "}"));
    while (header->length % 8 != 0) PX_TRY(px_buf_text(header, " ")); /* the data begin aligned */
    return PX_OK;
}

static px_status write_all(output *out, const px_buf *header, const px_tensor_source *sources, int count)
{
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header->length >> (8 * i));
    PX_TRY(write_bytes(out, length, sizeof length));
    PX_TRY(write_bytes(out, header->data, header->length));
    for (int i = 0; i < count; i++) PX_TRY(write_tensor(out, &sources[i]));
    PX_TRY(flush(out));
    return fsync(out->fd) == 0 ? PX_OK : write_error(out->path, "sync");
}

px_status px_safetensors_write(const char *path, const px_tensor_source *sources, int count, px_dtype dtype)
{
    char temporary[PX_PATH_MAX];
    if (dtype != PX_F32 && dtype != PX_F16 && dtype != PX_BF16) {
        return px_fail(PX_USAGE, "%s: unsupported dtype of weights; valid is f32, f16 or bf16", path);
    }
    PX_TRY(px_temporary_path(temporary, sizeof temporary, path));
    PX_TRY(px_temporaries_remove_of(path)); /* a killed process's is as large as the model */
    px_buf header = {0};
    output out = {.fd = -1, .path = temporary, .dtype = dtype};
    out.piece = px_alloc(PIECE * 4, "file buffer");
    px_status status = out.piece ? make_header(&header, sources, count, dtype) : px_error_code();
    if (status == PX_OK) {
        status = px_file_create(temporary, &out.fd);
        if (status == PX_OK) status = write_all(&out, &header, sources, count);
    }
    if (out.fd >= 0 && close(out.fd) != 0 && status == PX_OK) status = write_error(temporary, "close");
    if (status == PX_OK && rename(temporary, path) != 0) status = write_error(path, "rename into place");
    if (status != PX_OK && out.fd >= 0) unlink(temporary);
    px_buf_free(&header);
    px_free(out.piece);
    return status;
}
