#include "phalanx/text.h"

#include <string.h>

static px_status reserve(px_ids *ids, int64_t more)
{
    if (more <= ids->capacity - ids->length) {
        return PX_OK;
    }
    if (more > INT64_MAX / 8 - ids->length) {
        return px_fail(PX_DATA, "%lld token ids are more than fit in memory", (long long)more);
    }
    int64_t capacity = ids->capacity < 32 ? 64 : 2 * ids->capacity;
    while (capacity < ids->length + more) {
        capacity *= 2;
    }
    int32_t *data = px_realloc(ids->data, (size_t)capacity * sizeof *data, "token ids");
    if (data == NULL) {
        return px_error_code();
    }
    ids->data = data;
    ids->capacity = capacity;
    return PX_OK;
}

px_status px_ids_add(px_ids *ids, int32_t id)
{
    if (ids->length == ids->capacity) {
        PX_TRY(reserve(ids, 1));
    }
    ids->data[ids->length++] = id;
    return PX_OK;
}

px_status px_ids_append(px_ids *ids, const int32_t *more, int64_t count)
{
    PX_TRY(reserve(ids, count));
    if (count > 0) {
        memcpy(ids->data + ids->length, more, (size_t)count * sizeof *more);
        ids->length += count;
    }
    return PX_OK;
}

void px_ids_free(px_ids *ids)
{
    px_free(ids->data);
    *ids = (px_ids){0};
}
