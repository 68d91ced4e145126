#include "phalanx/optim.h"

#include <math.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_ISA __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_ISA
#endif

typedef struct factors {
    float b1, c1, b2, c2, keep, rate, inverse_root2, eps, clip;
} factors;

/* Sums, products, roots and quotients are rounded one by one, so every instruction set gives the same bits. */
FOR_EACH_ISA static void step_share(float *restrict w, const float *restrict g, float *restrict m, float *restrict v,
                                    size_t count, const factors *factor)
{
    const factors f = *factor;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        float gradient = g[i] * f.clip;
        float first = f.b1 * m[i] + f.c1 * gradient;
        float second = f.b2 * v[i] + f.c2 * gradient * gradient;
        m[i] = first;
        v[i] = second;
        w[i] = w[i] * f.keep - f.rate * first / (sqrtf(second) * f.inverse_root2 + f.eps);
    }
}

enum { SHARE = 1 << 14 }; /* elements that a thread takes at a time */

/* Every element is independent, so any split over threads gives the same bits. float32 like torch's fused CPU kernel. */
static void step_range(float *w, const float *g, float *m, float *v, size_t count, const px_adamw_config *config,
                       double lr, double scale, double decay, double bias1, double root2)
{
    const factors f = {.b1 = (float)config->beta1, .c1 = (float)(1.0 - config->beta1), .b2 = (float)config->beta2,
                       .c2 = (float)(1.0 - config->beta2), .keep = (float)(1.0 - lr * decay),
                       .rate = (float)(lr / bias1), .inverse_root2 = (float)(1.0 / root2), .eps = (float)config->eps,
                       .clip = (float)scale};
    size_t shares = (count + SHARE - 1) / SHARE;
#pragma omp parallel for schedule(static) if (shares > 1)
    for (size_t s = 0; s < shares; s++) {
        size_t at = s * SHARE;
        step_share(w + at, g + at, m + at, v + at, count - at < SHARE ? count - at : SHARE, &f);
    }
}

void px_adamw_step(const px_adamw_config *config, float *w, const float *g, float *m, float *v, const px_range *ranges,
                   int range_count, double lr, double scale, int64_t step)
{
    double bias1 = 1.0 - pow(config->beta1, (double)step);
    double root2 = sqrt(1.0 - pow(config->beta2, (double)step));
    for (int r = 0; r < range_count; r++) {
        size_t at = ranges[r].offset;
        step_range(w + at, g + at, m + at, v + at, ranges[r].count, config, lr, scale,
                   ranges[r].decay ? config->weight_decay : 0.0, bias1, root2);
    }
}

enum { BLOCK = 1 << 14, MAX_BLOCKS = 1 << 12 };

FOR_EACH_ISA static double block_squares(const float *g, size_t count)
{
    double lane[16] = {0};
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        for (int k = 0; k < 16; k++) {
            lane[k] += (double)g[i + k] * (double)g[i + k];
        }
    }
    for (; i < count; i++) {
        lane[0] += (double)g[i] * (double)g[i];
    }
    for (int width = 8; width > 0; width /= 2) {
        for (int k = 0; k < width; k++) {
            lane[k] += lane[k + width];
        }
    }
    return lane[0];
}

double px_sum_squares(const float *g, size_t count)
{
    /* At most MAX_BLOCKS partial sums whatever the size, added in order. */
    size_t block = BLOCK;
    while ((count + block - 1) / block > MAX_BLOCKS) {
        block *= 2;
    }
    size_t blocks = (count + block - 1) / block;
    double partial[MAX_BLOCKS];
#pragma omp parallel for schedule(static)
    for (size_t b = 0; b < blocks; b++) {
        size_t first = b * block;
        partial[b] = block_squares(g + first, count - first < block ? count - first : block);
    }
    double sum = 0.0;
    for (size_t b = 0; b < blocks; b++) {
        sum += partial[b];
    }
    return sum;
}

double px_clip_scale(double norm, double limit)
{
    if (limit <= 0.0) {
        return 1.0;
    }
    double scale = limit / (norm + 1e-6);
    return scale < 1.0 ? scale : 1.0;
}
