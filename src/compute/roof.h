/* How roofs are measured, and the one place that knows oneDNN. */
#ifndef PX_COMPUTE_ROOF_H
#define PX_COMPUTE_ROOF_H

#include "phalanx/compute.h"

/* Is one more trial wanted? Two, and as many as begin within a tenth of a second. */
bool px_roof_more(int trial, double began);
/* GFLOP/s of c[M, out] = a[M, in] w[out, in]^T in bf16 with float32 sums and w laid out beforehand, best of several.
 * 0: the program was built without oneDNN's headers, or the library is not here, or has no bf16 here. */
double px_onednn_bf16_rate(int threads, int M, int out, int in);

#endif
