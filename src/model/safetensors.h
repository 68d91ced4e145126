/* The safetensors format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then
 * the tensors' bytes, row-major and little-endian, without holes. */
#ifndef PX_MODEL_SAFETENSORS_H
#define PX_MODEL_SAFETENSORS_H

#include "phalanx/base.h"
#include "phalanx/model.h"

#define PX_TENSOR_DIMS 8

typedef struct px_tensor { /* one tensor of an open file; everything is borrowed from the file */
    const char *name;
    const char *path; /* of the file */
    const char *dtype;
    int dims;
    int64_t shape[PX_TENSOR_DIMS];
    size_t count, bytes;
    const unsigned char *data; /* mapped, any alignment */
    bool as_used;              /* rows in the order of memory, whatever the parameter says of its file */
    int interleaved;           /* over 0: rows of a head, of whose two halves the file has a row each in turn */
    int norm_offset;           /* what the file has added to each value */
} px_tensor;

typedef struct px_tensor_file px_tensor_file;
typedef struct px_tensors { /* all tensors of a file or of the shards of a directory */
    px_tensor *list;
    int count;
    px_tensor_file *files;
    int file_count;
} px_tensors;

px_status px_tensors_open_file(px_tensors *tensors, const char *path);
/* model.safetensors, else the shards of model.safetensors.index.json; or the GGUF file that `dir` is or has. */
px_status px_tensors_open(px_tensors *tensors, const char *dir);
/* Takes over a mapped file whose tensors the caller puts on the list; `names` owns their names. Neither is the caller's
 * any more, whatever the result. */
struct json_t;
px_status px_tensors_adopt(px_tensors *tensors, const char *path, const void *map, size_t bytes, struct json_t *names);
void px_tensors_close(px_tensors *tensors);
/* Bytes that all maps take one after another, and moves them so to a reserved range. leave: the maps stay there, for whoever
 * owns the range, when the tensors are closed. */
size_t px_tensors_pages(const px_tensors *tensors);
px_status px_tensors_move(px_tensors *tensors, void *to);
void px_tensors_leave(px_tensors *tensors);

/* Converts F32, F16, BF16 or a quantised type of GGUF into out[count]; transposed: the file holds shape [n, m] of what becomes [m, n]. A tensor
 * of another type or with a value that is not finite is refused. */
px_status px_tensor_read(const px_tensor *tensor, bool transposed, px_real *out);

/* As px_tensor_read, into the order that the parameter has in memory; the shapes agree. */
px_status px_tensor_read_param(const px_tensor *tensor, const px_param *param, px_real *out);

/* Can its bytes in the file, of this type (PX_F32 or PX_BF16), be used as they are? And do they hold nothing but finite
 * values? */
bool px_tensor_in_place(const px_tensor *tensor, const px_param *param, px_dtype dtype);
px_status px_tensor_check(const px_tensor *tensor);

/* What a file is written from; a transposed one is written as [shape[1], shape[0]], one by head (see px_param) in
 * groups of by_head rows. */
typedef struct px_tensor_source {
    const char *name;
    int dims; /* 1 or 2 */
    int64_t shape[2];
    bool transposed;
    const px_real *data;
    int by_head;
} px_tensor_source;
/* dtype: PX_F32, PX_F16 or PX_BF16. The file appears under its name when it is whole and on disk. */
px_status px_safetensors_write(const char *path, const px_tensor_source *sources, int count, px_dtype dtype);

#endif
