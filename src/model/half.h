/* The two 16-bit formats of weight files. To 16 bits: round to nearest, ties to even; overflow becomes an infinity. */
#ifndef PX_MODEL_HALF_H
#define PX_MODEL_HALF_H

#include <stdint.h>
#include <string.h>

#include "phalanx/compute.h" /* px_from_bf16 */

static inline float px_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t px_bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline uint16_t px_to_bf16(float value)
{
    uint32_t bits = px_bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u); /* stays NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* IEEE 754 binary16: 5 bits of exponent (bias 15), 10 of mantissa. Subnormals are multiples of 2^-24. */
static inline float px_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, mantissa = h & 0x3ffu;
    if (exponent == 31) return px_float_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent > 0) return px_float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f;
    return sign ? -value : value;
}

static inline uint16_t px_to_f16(float value)
{
    uint32_t bits = px_bits_of_float(value), size = bits & 0x7fffffffu;
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    if (size > 0x7f800000u) return sign | 0x7e00u;
    if (size >= 0x47800000u) return sign | 0x7c00u; /* 65536 and more */
    if (size < 0x38800000u) {                       /* under 2^-14: adding 0.5 rounds to a multiple of 2^-24 */
        return sign | (uint16_t)(px_bits_of_float(px_float_of_bits(size) + 0.5f) - 0x3f000000u);
    }
    return sign | (uint16_t)((size - 0x38000000u + 0xfffu + ((size >> 13) & 1u)) >> 13);
}

#endif
