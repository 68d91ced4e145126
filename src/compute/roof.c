/* What a product could run at: OpenBLAS's in float32, oneDNN's in bf16, both opened by name when somebody asks; without
 * them, or where OpenBLAS reaches less than half of it, what the arithmetic units do. */
#include <omp.h>
#include "kernels.h"
#include "openblas.h"
#include "roof.h"

bool px_roof_more(int trial, double began) { return trial < 2 || px_now() - began < 0.1; }

double px_library_gemm(px_dtype precision, int threads, int M, int out, int in)
{
    return precision == PX_BF16 ? px_onednn_bf16_rate(threads, M, out, in) : px_openblas_rate(threads, M, out, in);
}

static double loop_rate(px_dtype precision, int threads)
{
    enum { STEPS = 200000, TRIALS = 3 };
    const px_products *products = precision == PX_BF16 ? px_products_get(PX_BF16) : &px_kernels_get()->products;
    double best = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        double start = px_now(), done = 0;
#pragma omp parallel num_threads(threads) reduction(+ : done)
        {
            px_real seed[64];
            for (int i = 0; i < 64; i++) seed[i] = (px_real)(1e-3 * (1 + i % 7));
            done += products->peak(seed, STEPS);
        }
        double rate = 1e-9 * done / (px_now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

double px_product_roof(px_dtype precision, int threads, int M, int out, int in, const char **of)
{
    double rate = px_library_gemm(precision, threads, M, out, in);
    *of = precision == PX_BF16 ? px_compute_onednn() : px_openblas_name();
    if (precision == PX_BF16 && rate > 0) return rate; /* no cache feeds tiles as fast as registers do */
    double registers = loop_rate(precision, threads);
    if (2 * rate > registers) return rate;
    *of = "multiply-adds on registers"; /* no library, or one that does not know this processor */
    return registers;
}
