/* Token and learned position embeddings. */
#include "phalanx/compute.h"
#include "split.h"

void px_embedding_forward(px_compute *ctx, px_real *x, const int32_t *ids, const px_real *table, const uint16_t *table16,
                          const int32_t *positions, const px_real *positional, int offset, int M, int C, double scale)
{
    size_t width = (size_t)C;
    px_real factor = (px_real)scale;
    int threads = px_threads_for(ctx, (size_t)M * width, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++) {
        size_t row = (size_t)ids[m] * width;
        px_real *to = x + (size_t)m * width;
        if (table16)
            for (size_t c = 0; c < width; c++) to[c] = factor * (px_real)px_from_bf16(table16[row + c]);
        else
            for (size_t c = 0; c < width; c++) to[c] = factor * table[row + c];
        if (!positional) continue;
        const px_real *place = positional + (size_t)(positions[m] + offset) * width;
        for (size_t c = 0; c < width; c++) to[c] += place[c];
    }
}

static void scatter(px_real *dtable, const int32_t *ids, int offset, const px_real *dx, int M, size_t width, size_t begin,
                    size_t end, px_real factor)
{
    for (int m = 0; m < M; m++) {
        px_real *to = dtable + (size_t)(ids[m] + offset) * width;
        const px_real *from = dx + (size_t)m * width;
        for (size_t c = begin; c < end; c++) to[c] += factor * from[c];
    }
}

/* Threads own columns: no two write the same element, and each adds in row order. */
void px_embedding_backward(px_compute *ctx, px_real *dtable, const int32_t *ids, px_real *dpositional,
                           const int32_t *positions, int offset, const px_real *dx, int M, int C, double scale)
{
    size_t width = (size_t)C;
    int threads = px_threads_for(ctx, (size_t)M * width, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t begin = px_share(width, threads, share, 16), end = px_share(width, threads, share + 1, 16);
        if (dtable) scatter(dtable, ids, 0, dx, M, width, begin, end, (px_real)scale);
        if (dpositional) scatter(dpositional, positions, offset, dx, M, width, begin, end, 1);
    }
}
