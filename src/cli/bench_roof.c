/* Chains of multiply-adds that stay in registers: enough of them to hide the latency, for each vector width. */
#include "bench_roof.h"
#include "phalanx/base.h"

#include <string.h>

enum { STEPS = 1 << 20, TRIALS = 20 };

/* x = x * a + b, CHAINS times side by side; a and b keep the values finite. */
#define ROOF_KERNEL(name, target, width, chains)                                                                    \
    typedef float name##_vector __attribute__((vector_size((width) * 4)));                                          \
    target static float name(long steps)                                                                            \
    {                                                                                                               \
        name##_vector x[chains], a = {0}, b = {0};                                                                  \
        a += 0.999f;                                                                                                \
        b += 0.001f;                                                                                                \
        for (int i = 0; i < (chains); i++) {                                                                        \
            x[i] = b * (float)i;                                                                                    \
        }                                                                                                           \
        for (long s = 0; s < steps; s++) {                                                                          \
            _Pragma("GCC unroll 16") for (int i = 0; i < (chains); i++) {                                           \
                x[i] = x[i] * a + b;                                                                                \
            }                                                                                                       \
        }                                                                                                           \
        float sum = 0.0f;                                                                                           \
        for (int i = 0; i < (chains); i++) {                                                                        \
            sum += x[i][0];                                                                                         \
        }                                                                                                           \
        return sum;                                                                                                 \
    }

typedef struct kernel {
    float (*run)(long steps);
    double flops; /* of one step */
} kernel;

#if defined(__x86_64__)
ROOF_KERNEL(wide, __attribute__((target("avx512f"))), 16, 12)
ROOF_KERNEL(middle, __attribute__((target("avx2,fma"))), 8, 12)
#endif
ROOF_KERNEL(narrow, , 4, 12)

static kernel choose(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) {
        return (kernel){wide, 2.0 * 16 * 12};
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return (kernel){middle, 2.0 * 8 * 12};
    }
#endif
    return (kernel){narrow, 2.0 * 4 * 12};
}

double px_roof_gflops(int threads)
{
    kernel k = choose();
    double best = 0.0;
    volatile float sink = 0.0f;
    for (int trial = 0; trial < TRIALS; trial++) {
        double start = px_now();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
        for (int t = 0; t < threads; t++) {
            sink = k.run(STEPS);
        }
        double rate = k.flops * STEPS * threads / (px_now() - start) / 1e9;
        best = rate > best ? rate : best;
    }
    (void)sink;
    return best;
}
