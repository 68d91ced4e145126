/* Values of ggml's quantised blocks (ggml-common.h, block_q4_0 to block_q6_K). Each product and sum is rounded to float
 * by itself, in the order of the formulas. */
#include <string.h>

#include "gguf.h"
#include "half.h"

static float half_at(const unsigned char *at)
{
    return px_from_f16((uint16_t)(at[0] | at[1] << 8));
}

/* ---- 32 values -------------------------------------------------------------------------------------------------- */
/* d, 16 bytes: value i is in the low half of byte i, value 16 + i in the high half. */
static void q4_0(const unsigned char *block, float *values)
{
    float d = half_at(block);
    for (int i = 0; i < 16; i++) {
        values[i] = d * (float)((block[2 + i] & 15) - 8);
        values[16 + i] = d * (float)((block[2 + i] >> 4) - 8);
    }
}

/* d, m, the same 16 bytes. */
static void q4_1(const unsigned char *block, float *values)
{
    float d = half_at(block), m = half_at(block + 2);
    for (int i = 0; i < 16; i++) {
        float low = d * (float)(block[4 + i] & 15), high = d * (float)(block[4 + i] >> 4);
        values[i] = low + m;
        values[16 + i] = high + m;
    }
}

/* The fifth bits of all 32 values follow the scales. */
static int five_bits(const unsigned char *high, const unsigned char *low, int i)
{
    int nibble = i < 16 ? low[i] & 15 : low[i - 16] >> 4;
    return nibble | (high[i / 8] >> i % 8 & 1) << 4;
}

static void q5_0(const unsigned char *block, float *values)
{
    float d = half_at(block);
    for (int i = 0; i < 32; i++) values[i] = d * (float)(five_bits(block + 2, block + 6, i) - 16);
}

static void q5_1(const unsigned char *block, float *values)
{
    float d = half_at(block), m = half_at(block + 2);
    for (int i = 0; i < 32; i++) {
        float product = d * (float)five_bits(block + 4, block + 8, i);
        values[i] = product + m;
    }
}

static void q8_0(const unsigned char *block, float *values)
{
    float d = half_at(block);
    for (int i = 0; i < 32; i++) values[i] = d * (float)(int8_t)block[2 + i];
}

/* ---- 256 values ------------------------------------------------------------------------------------------------- */
/* Six-bit scale and minimum of group g (0..7) in 12 bytes: the first four groups' in the low bits of bytes 0-3 and 4-7,
 * the others' low four bits in bytes 8-11 and their high two in what is left of bytes 0-7. */
static void group_scales(const unsigned char *s, int g, int *scale, int *minimum)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *minimum = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
        *minimum = s[g + 4] >> 4 | (s[g] >> 6) << 4;
    }
}

/* d, dmin, scales[12], (high[32],) low[128]: groups 2 c and 2 c + 1 are the halves of bytes 32 c .. 32 c + 31, and bit g of
 * high[i] is the fifth bit of value i of group g. */
static void groups_of_32(const unsigned char *block, const unsigned char *high, const unsigned char *low, float *values)
{
    float d = half_at(block), dmin = half_at(block + 2);
    for (int g = 0; g < 8; g++) {
        int scale, minimum;
        group_scales(block + 4, g, &scale, &minimum);
        float step = d * (float)scale, least = dmin * (float)minimum;
        for (int i = 0; i < 32; i++) {
            int q = low[g / 2 * 32 + i] >> g % 2 * 4 & 15;
            if (high) q |= (high[i] >> g & 1) << 4;
            float product = step * (float)q;
            values[32 * g + i] = product - least;
        }
    }
}

static void q4_k(const unsigned char *block, float *values)
{
    groups_of_32(block, NULL, block + 16, values);
}

static void q5_k(const unsigned char *block, float *values)
{
    groups_of_32(block, block + 16, block + 48, values);
}

/* low[128], high[64], scales[16], d. Row r (0..3) of 32 values of half h has its low bits in a half of bytes
 * low[64 h + 32 (r % 2)], its high two in bits 2 r of high[32 h]; 16 values share a scale. */
static void q6_k(const unsigned char *block, float *values)
{
    const unsigned char *low = block, *high = block + 128, *scales = block + 192;
    float d = half_at(block + 208);
    for (int i = 0; i < 256; i++) {
        int h = i / 128, r = i / 32 % 4, k = i % 32;
        int q = (low[64 * h + r % 2 * 32 + k] >> r / 2 * 4 & 15) | (high[32 * h + k] >> 2 * r & 3) << 4;
        float step = d * (float)(int8_t)scales[i / 16];
        values[i] = step * (float)(q - 32);
    }
}

px_block_values px_block_reader(const char *type)
{
    static const struct {
        const char *type;
        px_block_values values;
    } table[] = {{"Q4_0", q4_0}, {"Q4_1", q4_1}, {"Q5_0", q5_0}, {"Q5_1", q5_1},
                 {"Q8_0", q8_0}, {"Q4_K", q4_k}, {"Q5_K", q5_k}, {"Q6_K", q6_k}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].type, type) == 0) return table[i].values;
    }
    return NULL;
}
