/* Rotary frequencies: theta^(-2j/d) and its rescalings for longer contexts. */
#include <math.h>

#include "block.h"

/* Llama 3: wavelengths over original / low are stretched by factor, those under original / high stay, a ramp
 * between. */
static double llama3_frequency(const px_rope *rope, double f)
{
    double wavelength = 2 * M_PI / f;
    if (wavelength < rope->original_positions / rope->high_freq) return f;
    if (wavelength > rope->original_positions / rope->low_freq) return f / rope->factor;
    double s = (rope->original_positions / wavelength - rope->low_freq) / (rope->high_freq - rope->low_freq);
    return (1 - s) * f / rope->factor + s * f;
}

/* YaRN (Peng et al. 2023): the dimension that makes `rotations` turns over the original context. */
static double yarn_dimension(const px_rope *rope, double rotations)
{
    return rope->rotary_dim * log(rope->original_positions / (rotations * 2 * M_PI)) / (2 * log(rope->theta));
}

static double yarn_frequency(const px_rope *rope, double f, int j)
{
    double low = fmax(floor(yarn_dimension(rope, rope->beta_fast)), 0);
    double high = fmin(ceil(yarn_dimension(rope, rope->beta_slow)), rope->rotary_dim - 1);
    if (low == high) high += 0.001;
    double ramp = fmin(fmax((j - low) / (high - low), 0), 1);
    return f / rope->factor * ramp + f * (1 - ramp);
}

void px_rope_frequencies(const px_rope *rope, double *frequency, double *magnitude)
{
    *magnitude = 1;
    if (rope->type == PX_ROPE_YARN) {
        *magnitude = rope->attention_factor > 0 ? rope->attention_factor
                     : rope->factor > 1         ? 0.1 * log(rope->factor) + 1
                                                : 1;
    }
    for (int j = 0; j < rope->rotary_dim / 2; j++) {
        double f = pow(rope->theta, -2.0 * j / rope->rotary_dim);
        switch (rope->type) {
        case PX_ROPE_LINEAR: f /= rope->factor; break;
        case PX_ROPE_LLAMA3: f = llama3_frequency(rope, f); break;
        case PX_ROPE_YARN: f = yarn_frequency(rope, f, j); break;
        case PX_ROPE_NONE:
        case PX_ROPE_DEFAULT: break;
        }
        frequency[j] = f;
    }
}
