/* Rotary position embeddings, rotate-half pairs (Su et al. 2021, in the layout of Hugging Face checkpoints). */
#include <math.h>
#include "kernels.h"
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

void px_rope_row(px_real *x, int position, const px_rotary *rotary, int heads, int D, bool inverse)
{
    int half = rotary->dim / 2;
    const px_real *cosine = rotary->cosine + (size_t)position * (size_t)half;
    const px_real *sine = rotary->sine + (size_t)position * (size_t)half;
    px_real sign = inverse ? -1 : 1;
    for (int h = 0; h < heads; h++, x += D)
        for (int j = 0; j < half; j++) {
            px_real a = x[j], b = x[j + half], s = sign * sine[j];
            x[j] = a * cosine[j] - b * s;
            x[j + half] = b * cosine[j] + a * s;
        }
}

void px_rope_apply(px_compute *ctx, px_real *x, int ldx, const int32_t *positions, const px_rotary *rotary, int M,
                   int heads, int D, bool inverse)
{
    int threads = px_threads_for(ctx, (size_t)M * (size_t)heads * (size_t)rotary->dim, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int m = 0; m < M; m++) px_rope_row(x + (size_t)m * (size_t)ldx, positions[m], rotary, heads, D, inverse);
}
