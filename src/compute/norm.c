/* LayerNorm, RMSNorm and addition over threads: rows for outputs, columns for sums over rows. */
#include "kernels.h"
#include "split.h"

static void sum_columns(px_compute *ctx, px_real *dw, px_real *db, const px_real *dy, const px_real *x,
                        const px_real *mean, const px_real *rstd, int M, int C)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)C, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++)
        kernels->column_sums(dw, db, dy, (size_t)C, x, mean, rstd, M, C, (int)px_share((size_t)C, threads, share, 16),
                             (int)px_share((size_t)C, threads, share + 1, 16));
}

void px_layernorm_forward(px_compute *ctx, px_real *y, px_real *mean, px_real *rstd, px_real *x, const px_real *residual,
                          const px_real *w, const px_real *b, int M, int C, double eps)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)C, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t m = px_share((size_t)M, threads, share, 1), end = px_share((size_t)M, threads, share + 1, 1);
        size_t at = m * (size_t)C;
        kernels->layernorm(y + at, mean ? mean + m : NULL, rstd ? rstd + m : NULL, x + at, residual ? residual + at : NULL,
                           w, b, (int)(end - m), C, eps);
    }
}

void px_layernorm_backward(px_compute *ctx, px_real *dx, px_real *dw, px_real *db, const px_real *dy, const px_real *x,
                           const px_real *mean, const px_real *rstd, const px_real *w, int M, int C, bool accumulate)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)C, 1 << 14);
    /* before dx, which may stand where dy does */
    sum_columns(ctx, dw, db, dy, x, mean, rstd, M, C);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t m = px_share((size_t)M, threads, share, 1), end = px_share((size_t)M, threads, share + 1, 1);
        size_t at = m * (size_t)C;
        kernels->layernorm_backward(dx + at, dy + at, x + at, mean + m, rstd + m, w, (int)(end - m), C, accumulate);
    }
}

void px_rmsnorm_forward(px_compute *ctx, px_real *y, px_real *rstd, px_real *x, const px_real *residual, const px_real *w,
                        int M, int C, double eps, double w_offset)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)C, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t m = px_share((size_t)M, threads, share, 1), end = px_share((size_t)M, threads, share + 1, 1);
        size_t at = m * (size_t)C;
        kernels->rmsnorm(y + at, rstd ? rstd + m : NULL, x + at, residual ? residual + at : NULL, w, (int)(end - m), C, eps,
                         w_offset);
    }
}

void px_rmsnorm_backward(px_compute *ctx, px_real *dx, px_real *dw, const px_real *dy, const px_real *x,
                         const px_real *rstd, const px_real *w, int M, int C, double w_offset, bool accumulate)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)C, 1 << 14);
    sum_columns(ctx, dw, NULL, dy, x, NULL, rstd, M, C);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t m = px_share((size_t)M, threads, share, 1), end = px_share((size_t)M, threads, share + 1, 1);
        size_t at = m * (size_t)C;
        kernels->rmsnorm_backward(dx + at, dy + at, x + at, rstd + m, w, (int)(end - m), C, w_offset, accumulate);
    }
}

void px_rmsnorm_heads(px_compute *ctx, px_real *x, int ldx, px_real *rstd, int ldrstd, const px_real *w, int M,
                      int heads, int D, double eps, double w_offset)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)(heads * D), 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++) {
        px_real *row = x + (size_t)m * (size_t)ldx;
        kernels->rmsnorm(row, rstd ? rstd + (size_t)m * (size_t)ldrstd : NULL, row, NULL, w, heads, D, eps, w_offset);
    }
}

/* dw is summed in row order by whoever owns its columns. */
static void sum_head_columns(px_compute *ctx, px_real *dw, const px_real *dy, size_t lddy, const px_real *x, size_t ldx,
                             const px_real *rstd, size_t ldrstd, int M, int heads, int D)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)(heads * D), 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        int begin = (int)px_share((size_t)D, threads, share, 16);
        int end = (int)px_share((size_t)D, threads, share + 1, 16);
        for (size_t m = 0; m < (size_t)M; m++)
            kernels->column_sums(dw, NULL, dy + m * lddy, (size_t)D, x + m * ldx, NULL, rstd + m * ldrstd, heads, D, begin,
                                 end);
    }
}

void px_rmsnorm_heads_backward(px_compute *ctx, px_real *dy, int lddy, px_real *dw, const px_real *x, int ldx,
                               const px_real *rstd, int ldrstd, const px_real *w, int M, int heads, int D,
                               double w_offset)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)(heads * D), 1 << 14);
    sum_head_columns(ctx, dw, dy, (size_t)lddy, x, (size_t)ldx, rstd, (size_t)ldrstd, M, heads, D);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++) {
        px_real *row = dy + (size_t)m * (size_t)lddy;
        kernels->rmsnorm_backward(row, row, x + (size_t)m * (size_t)ldx, rstd + (size_t)m * (size_t)ldrstd, w, heads, D,
                                  w_offset, false);
    }
}

void px_add(px_compute *ctx, px_real *x, const px_real *y, size_t count)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, count, 1 << 15);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t at = px_share(count, threads, share, 64), end = px_share(count, threads, share + 1, 64);
        kernels->add(x + at, y + at, end - at);
    }
}
