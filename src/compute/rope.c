/* Rotary position embeddings, rotate-half pairs (Su et al. 2021, in the layout of Hugging Face checkpoints). */
#include <math.h>
#include "phalanx/compute.h"
#include "split.h"

void px_rope_table(px_real *cosine, px_real *sine, const double *frequency, int max_positions, int rotary_dim,
                   double magnitude)
{
    size_t half = (size_t)rotary_dim / 2;
    for (size_t p = 0; p < (size_t)max_positions; p++)
        for (size_t j = 0; j < half; j++) {
            double angle = (double)p * frequency[j];
            cosine[p * half + j] = (px_real)(cos(angle) * magnitude);
            sine[p * half + j] = (px_real)(sin(angle) * magnitude);
        }
}

static void rotate(px_real *x, const px_real *cosine, const px_real *sine, int heads, int D, int half, bool inverse)
{
    px_real sign = inverse ? -1 : 1;
    for (int h = 0; h < heads; h++, x += D)
        for (int j = 0; j < half; j++) {
            px_real a = x[j], b = x[j + half], s = sign * sine[j];
            x[j] = a * cosine[j] - b * s;
            x[j + half] = b * cosine[j] + a * s;
        }
}

void px_rope_apply(px_compute *ctx, px_real *x, int ldx, const int32_t *positions, const px_real *cosine,
                   const px_real *sine, int M, int heads, int D, int rotary_dim, bool inverse)
{
    int half = rotary_dim / 2;
    int threads = px_threads_for(ctx, (size_t)M * (size_t)heads * (size_t)rotary_dim, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++) {
        size_t at = (size_t)positions[m] * (size_t)half;
        rotate(x + (size_t)m * (size_t)ldx, cosine + at, sine + at, heads, D, half, inverse);
    }
}
