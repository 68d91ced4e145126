/* Softmax over the vocabulary: rows over threads. */
#include "kernels.h"
#include "split.h"

void px_softmax_rows(px_compute *ctx, px_row_stats *stats, const px_real *z, int ldz, const int32_t *targets, int M, int V,
                     double temperature, bool want_entropy)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)V, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++)
        kernels->softmax_row(stats + m, z + (size_t)m * (size_t)ldz, targets[m], V, temperature, want_entropy);
}

int px_softmax_draw(px_row_stats *stats, const px_real *z, int V, double temperature, double uniform, double *mass)
{
    return px_kernels_get()->softmax_draw(stats, z, V, temperature, uniform, mass);
}

void px_softmax_rows_backward(px_compute *ctx, px_real *z, int ldz, const px_row_stats *stats, const int32_t *targets,
                              const double *dlogprob, const double *dentropy, int M, int V, double temperature)
{
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)V, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++)
        kernels->softmax_row_backward(z + (size_t)m * (size_t)ldz, stats + m, targets[m], dlogprob ? dlogprob[m] : 0,
                                      dentropy ? dentropy[m] : 0, V, temperature);
}
