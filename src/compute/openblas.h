/* The one place that knows OpenBLAS. */
#ifndef PX_COMPUTE_OPENBLAS_H
#define PX_COMPUTE_OPENBLAS_H

#include "kernels.h"

const px_products *px_products_openblas(void); /* NULL: the library is not here, or the build computes in double */
const char *px_openblas_name(void);            /* with version and processor kernel; "": the library is not here */
int px_openblas_threads(void);                 /* that it has started by itself; 0: the library is not here */
/* GFLOP/s of c[M, out] = a[M, in] w[out, in]^T, best of several. 0: the library is not here. */
double px_openblas_rate(int threads, int M, int out, int in);

#endif
