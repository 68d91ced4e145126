#include "trainer.h"

#include <string.h>

px_status px_ragged_alloc(px_ragged *ragged, int max_tokens)
{
    size_t n = (size_t)max_tokens;
    ragged->ids = px_alloc_array(n, sizeof(int32_t), "batch ids");
    ragged->starts = px_alloc_array(n + 1, sizeof(int32_t), "batch starts");
    ragged->rows = px_alloc_array(n, sizeof(int32_t), "batch rows");
    ragged->targets = px_alloc_array(n, sizeof(int32_t), "batch targets");
    ragged->items = px_alloc_array(n, sizeof(int64_t), "batch items");
    bool good = ragged->ids != NULL && ragged->starts != NULL && ragged->rows != NULL && ragged->targets != NULL &&
                ragged->items != NULL;
    return good ? PX_OK : px_error_code();
}

size_t px_ragged_bytes(int max_tokens)
{
    return ((size_t)max_tokens + 1) * (4 * sizeof(int32_t) + sizeof(int64_t));
}

void px_ragged_free(px_ragged *ragged)
{
    px_free(ragged->ids);
    px_free(ragged->starts);
    px_free(ragged->rows);
    px_free(ragged->targets);
    px_free(ragged->items);
    *ragged = (px_ragged){0};
}

void px_ragged_clear(px_ragged *ragged)
{
    ragged->tokens = ragged->sequences = ragged->row_count = 0;
    ragged->starts[0] = 0;
}

int px_ragged_add(px_ragged *ragged, const int32_t *ids, int length)
{
    int at = ragged->tokens;
    memcpy(ragged->ids + at, ids, (size_t)length * sizeof *ids);
    ragged->tokens += length;
    ragged->starts[++ragged->sequences] = ragged->tokens;
    return at;
}

void px_ragged_row(px_ragged *ragged, int row, int32_t target, int64_t item)
{
    ragged->rows[ragged->row_count] = row;
    ragged->targets[ragged->row_count] = target;
    ragged->items[ragged->row_count++] = item;
}

px_batch px_ragged_batch(const px_ragged *ragged)
{
    return (px_batch){.ids = ragged->ids,
                      .starts = ragged->starts,
                      .sequences = ragged->sequences,
                      .tokens = ragged->tokens,
                      .wanted = ragged->rows,
                      .wanted_count = ragged->row_count};
}
