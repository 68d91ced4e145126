/* What a product could run at: OpenBLAS, opened by name when somebody asks, so that nothing else carries it. */
#include <dlfcn.h>
#include "phalanx/compute.h"

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 }; /* CBLAS */
enum { M = 1024, N = 3072, K = 768, TRIALS = 12 };

typedef void sgemm(int order, int transa, int transb, int m, int n, int k, float alpha, const float *a, int lda,
                   const float *b, int ldb, float beta, float *c, int ldc);
typedef void set_threads(int threads);

static double best_rate(sgemm *product, float *a, float *b, float *c) {
    for (int i = 0; i < M * K; i++) a[i] = (float)(i % 251) / 251 - 0.5f;
    for (int i = 0; i < N * K; i++) b[i] = (float)(i % 241) / 241 - 0.5f;
    double best = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        double start = px_now();
        product(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, M, N, K, 1, a, K, b, K, 0, c, N);
        double rate = 2.0 * M * N * K / (px_now() - start) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

double px_blas_gemm_roof(int threads) {
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
    if (!library) return 0;
    sgemm *product = NULL;
    set_threads *set = NULL;
    *(void **)&product = dlsym(library, "cblas_sgemm"); /* POSIX's way to a function's address */
    *(void **)&set = dlsym(library, "openblas_set_num_threads");
    float *a = px_alloc_array((size_t)M * K, sizeof *a, "a matrix"), *b = px_alloc_array((size_t)N * K, sizeof *b, "a matrix");
    float *c = px_alloc_array((size_t)M * N, sizeof *c, "a matrix");
    double rate = 0;
    if (product && set && a && b && c) {
        set(threads);
        rate = best_rate(product, a, b, c);
        set(1);
    }
    px_free(a);
    px_free(b);
    px_free(c);
    return rate; /* the library stays: its threads do */
}
