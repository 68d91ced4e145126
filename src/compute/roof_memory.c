/* How fast memory can be passed over: two plain loops after STREAM (McCalpin 1995), on arrays far larger than the caches. */
#include "phalanx/compute.h"

enum { TRIALS = 5, BLOCK = 1 << 14 };
static const size_t ELEMENTS = (size_t)1 << 25; /* 128 MiB of floats */

static float read_block(const float *x)
{
    float sum[64] = {0}; /* as many chains as hide an addition's latency */
    for (int i = 0; i < BLOCK; i += 64)
        for (int j = 0; j < 64; j++) sum[j] += x[i + j];
    for (int j = 1; j < 64; j++) sum[0] += sum[j];
    return sum[0];
}

static void update_block(float *restrict x, const float *restrict y)
{
    for (int i = 0; i < BLOCK; i++) x[i] += 0.5f * y[i];
}

static double pass_seconds(int threads, float *x, float *y, bool update)
{
    long blocks = (long)(ELEMENTS / BLOCK);
    double start = px_now();
    float sum = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
    for (long b = 0; b < blocks; b++) {
        if (update)
            update_block(x + b * BLOCK, y + b * BLOCK);
        else
            sum += read_block(x + b * BLOCK);
    }
    double seconds = px_now() - start;
    x[0] = sum * 1e-30f; /* a sum that nobody reads would not be taken */
    return seconds;
}

double px_memory_rate(int threads, bool update)
{
    float *x = px_alloc_array(ELEMENTS, sizeof *x, "a pass over memory");
    float *y = x && update ? px_alloc_array(ELEMENTS, sizeof *y, "a pass over memory") : NULL;
    double best = 0, bytes = (double)ELEMENTS * sizeof *x * (update ? 3 : 1);
    bool fine = x && (y || !update);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size_t i = 0; i < (fine ? ELEMENTS : 0); i++) { /* pages near the threads that will use them */
        x[i] = 1;
        if (update) y[i] = 1;
    }
    for (int trial = 0; trial < TRIALS && fine; trial++) {
        double rate = 1e-9 * bytes / pass_seconds(threads, x, y, update);
        best = rate > best ? rate : best;
    }
    px_free(x);
    px_free(y);
    return best;
}
