/* Activations, plain and gated, over threads. */
#include "kernels.h"
#include "split.h"

void px_activation_forward(px_compute *ctx, px_activation kind, px_real *y, const px_real *x, size_t count)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, count, 1 << 13);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t at = px_share(count, threads, share, 64), end = px_share(count, threads, share + 1, 64);
        kernels->activation(kind, y + at, x + at, NULL, end - at);
    }
}

void px_activation_backward(px_compute *ctx, px_activation kind, px_real *dx, const px_real *dy, const px_real *x,
                            size_t count)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, count, 1 << 13);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t at = px_share(count, threads, share, 64), end = px_share(count, threads, share + 1, 64);
        kernels->activation_backward(kind, dx + at, NULL, dy + at, x + at, NULL, end - at);
    }
}

void px_gated_forward(px_compute *ctx, px_activation kind, px_real *h, const px_real *gate_up, int M, int I)
{
    const px_kernels *kernels = px_kernels_get();
    size_t width = (size_t)I;
    int threads = px_threads_for(ctx, (size_t)M * width, 1 << 13);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++) {
        const px_real *gate = gate_up + (size_t)m * 2 * width;
        kernels->activation(kind, h + (size_t)m * width, gate, gate + width, width);
    }
}

void px_gated_backward(px_compute *ctx, px_activation kind, px_real *dgate_up, const px_real *dh,
                       const px_real *gate_up, int M, int I)
{
    const px_kernels *kernels = px_kernels_get();
    size_t width = (size_t)I;
    int threads = px_threads_for(ctx, (size_t)M * width, 1 << 13);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++) {
        const px_real *gate = gate_up + (size_t)m * 2 * width;
        px_real *dgate = dgate_up + (size_t)m * 2 * width;
        kernels->activation_backward(kind, dgate, dgate + width, dh + (size_t)m * width, gate, gate + width, width);
    }
}
