/* What a product could run at: OpenBLAS's in float32, oneDNN's in bf16. Both are opened by name when somebody asks, so
 * that nothing else carries them. */
#include <dlfcn.h>
#include "roof.h"

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 }; /* CBLAS */
enum { TRIALS = 12 };

typedef void sgemm(int order, int transa, int transb, int m, int n, int k, float alpha, const float *a, int lda,
                   const float *b, int ldb, float beta, float *c, int ldc);
typedef void set_threads(int threads);

static double best_rate(sgemm *product, int M, int out, int in, float *a, float *b, float *c) {
    for (size_t i = 0; i < (size_t)M * (size_t)in; i++) a[i] = (float)(i % 251) / 251 - 0.5f;
    for (size_t i = 0; i < (size_t)out * (size_t)in; i++) b[i] = (float)(i % 241) / 241 - 0.5f;
    double best = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        double start = px_now();
        product(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, M, out, in, 1, a, in, b, in, 0, c, out);
        double rate = 2.0 * M * out * in / (px_now() - start) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

static double openblas_rate(int threads, int M, int out, int in) {
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
    if (!library) return 0;
    sgemm *product = NULL;
    set_threads *set = NULL;
    *(void **)&product = dlsym(library, "cblas_sgemm"); /* POSIX's way to a function's address */
    *(void **)&set = dlsym(library, "openblas_set_num_threads");
    float *a = px_alloc_array((size_t)M * (size_t)in, sizeof *a, "a matrix");
    float *b = px_alloc_array((size_t)out * (size_t)in, sizeof *b, "a matrix");
    float *c = px_alloc_array((size_t)M * (size_t)out, sizeof *c, "a matrix");
    double rate = 0;
    if (product && set && a && b && c) {
        set(threads);
        rate = best_rate(product, M, out, in, a, b, c);
        set(1);
    }
    px_free(a);
    px_free(b);
    px_free(c);
    return rate; /* the library stays: its threads do */
}

double px_library_gemm(px_dtype precision, int threads, int M, int out, int in) {
    return precision == PX_BF16 ? px_onednn_bf16_rate(threads, M, out, in, TRIALS)
                                : openblas_rate(threads, M, out, in);
}
