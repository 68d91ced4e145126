/* OpenBLAS's product in float32, opened by name when it is asked for, so that nothing else carries it. */
#include "openblas.h"
#include "roof.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 }; /* CBLAS */

static struct {
    bool found;
    void (*sgemm)(int order, int transa, int transb, int m, int n, int k, float alpha, const float *a, int lda,
                  const float *b, int ldb, float beta, float *c, int ldc);
    void (*set_num_threads)(int threads);
    int (*get_num_threads)(void);
    int threads; /* that it began with */
    const char *(*get_config)(void);
    const char *(*get_corename)(void);
} blas;

/* With one thread: where many ranks share a node, a pool of all its cores in each would only be in the way. */
static void *open_quietly(void)
{
    static const char threads[] = "OPENBLAS_NUM_THREADS";
    bool chosen = getenv(threads) != NULL;
    if (!chosen) setenv(threads, "1", 1);
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) library = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
    if (!chosen) unsetenv(threads);
    return library;
}

static bool open_library(void)
{
    if (blas.found) return true;
    void *library = open_quietly();
    if (!library) return false;
    *(void **)&blas.sgemm = dlsym(library, "cblas_sgemm"); /* POSIX's way to a function's address */
    *(void **)&blas.set_num_threads = dlsym(library, "openblas_set_num_threads");
    *(void **)&blas.get_num_threads = dlsym(library, "openblas_get_num_threads");
    *(void **)&blas.get_config = dlsym(library, "openblas_get_config");
    *(void **)&blas.get_corename = dlsym(library, "openblas_get_corename");
    if (!blas.sgemm || !blas.set_num_threads || !blas.get_num_threads || !blas.get_config || !blas.get_corename) return false;
    blas.threads = blas.get_num_threads();
    blas.set_num_threads(1);   /* the split over threads is ours */
    return blas.found = true;  /* the library stays: its threads do */
}

#ifdef PX_DOUBLE
const px_products *px_products_openblas(void) { return NULL; }
#else
/* Rows or columns may lie side by side; a leading dimension is never less than what it strides over. */
static int leading(px_operand a, int rows, int depth)
{
    size_t least = (size_t)(a.column == 1 ? depth : rows), stride = a.column == 1 ? a.row : a.column;
    return (int)(stride > least ? stride : least);
}

static void product(const px_product *job, px_real *pack_a, px_real *pack_b)
{
    (void)pack_a, (void)pack_b;
    for (size_t r = 0; job->bias && r < (size_t)job->rows; r++) {
        px_real *row = job->c + r * job->ldc;
        for (int j = 0; j < job->columns; j++) row[j] = job->bias[j] + (job->add ? row[j] : 0);
    }
    blas.sgemm(ROW_MAJOR, job->a.column == 1 ? NO_TRANSPOSE : TRANSPOSE, job->b.column == 1 ? TRANSPOSE : NO_TRANSPOSE,
               job->rows, job->columns, job->depth, 1, job->a.data, leading(job->a, job->rows, job->depth), job->b.data,
               leading(job->b, job->columns, job->depth), job->add || job->bias ? 1 : 0, job->c, (int)job->ldc);
}

const px_products *px_products_openblas(void)
{
    static const px_products products = {.name = "OpenBLAS", .tile_rows = 16, .step = 1, .product = product}; /* it packs by itself */
    return open_library() ? &products : NULL;
}
#endif

const char *px_openblas_name(void)
{
    static char name[96]; /* "OpenBLAS 0.3.21 ...": its version is the second word of its configuration */
    char version[32] = "";
    if (open_library() && sscanf(blas.get_config(), "OpenBLAS %31s", version) == 1) {
        snprintf(name, sizeof name, "OpenBLAS %s, %s kernels", version, blas.get_corename());
    }
    return name;
}

int px_openblas_threads(void) { return open_library() ? blas.threads : 0; }

static double best_rate(int M, int out, int in, float *a, float *b, float *c)
{
    for (size_t i = 0; i < (size_t)M * (size_t)in; i++) a[i] = (float)(i % 251) / 251 - 0.5f;
    for (size_t i = 0; i < (size_t)out * (size_t)in; i++) b[i] = (float)(i % 241) / 241 - 0.5f;
    double best = 0, began = px_now();
    for (int trial = 0; px_roof_more(trial, began); trial++) {
        double start = px_now();
        blas.sgemm(ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, M, out, in, 1, a, in, b, in, 0, c, out);
        double rate = 2.0 * M * out * in / (px_now() - start) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

double px_openblas_rate(int threads, int M, int out, int in)
{
    if (!open_library()) return 0;
    float *a = px_alloc_array((size_t)M * (size_t)in, sizeof *a, "a matrix");
    float *b = px_alloc_array((size_t)out * (size_t)in, sizeof *b, "a matrix");
    float *c = px_alloc_array((size_t)M * (size_t)out, sizeof *c, "a matrix");
    double rate = 0;
    if (a && b && c) {
        blas.set_num_threads(threads);
        rate = best_rate(M, out, in, a, b, c);
        blas.set_num_threads(1);
    }
    px_free(a);
    px_free(b);
    px_free(c);
    return rate;
}
