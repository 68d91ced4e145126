/* How a kernel's work is cut over threads: fixed shares, so that no result depends on which thread was faster. */
#ifndef PX_COMPUTE_SPLIT_H
#define PX_COMPUTE_SPLIT_H

#include <omp.h>
#include "phalanx/compute.h"

/* Threads worth starting for `work` elements when one thread should have at least `grain` of them. */
static inline int px_threads_for(const px_compute *ctx, size_t work, size_t grain)
{
    size_t useful = work / grain;
    if (useful < 1) return 1;
    return useful < (size_t)ctx->threads ? (int)useful : ctx->threads;
}

/* First element of share `index` of `shares`, in multiples of `unit`; share `shares` begins at count. */
static inline size_t px_share(size_t count, int shares, int index, size_t unit)
{
    size_t units = (count + unit - 1) / unit;
    size_t at = units * (size_t)index / (size_t)shares * unit;
    return at < count ? at : count;
}

#endif
