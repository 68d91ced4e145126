#include "phalanx/base.h"

#include <math.h>
#include <string.h>

enum { ROUNDS = 10 };

px_rng px_rng_make(uint64_t seed, const char *stage, px_purpose purpose)
{
    struct {
        uint64_t seed;
        uint64_t purpose;
    } identity = {seed, (uint64_t)purpose};
    uint64_t h = px_hash(&identity, sizeof identity, 0);
    if (stage != NULL) {
        h = px_hash(stage, strlen(stage), h);
    }
    return (px_rng){{(uint32_t)h, (uint32_t)(h >> 32)}};
}

/* Philox4x32-10; constants from Salmon et al. 2011, table 2 and the reference implementation's Weyl keys. */
void px_rng_bits(const px_rng *rng, const uint32_t counter[4], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = rng->key[0], k1 = rng->key[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static double to_unit(uint32_t high, uint32_t low)
{
    uint64_t bits = ((uint64_t)high << 32 | low) >> 11;
    return (double)bits * 0x1.0p-53;
}

double px_rng_uniform(const px_rng *rng, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t out[4];
    px_rng_bits(rng, (uint32_t[4]){a, b, c, d}, out);
    return to_unit(out[0], out[1]);
}

double px_rng_normal(const px_rng *rng, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t out[4];
    px_rng_bits(rng, (uint32_t[4]){a, b, c, d}, out);
    double radius = sqrt(-2.0 * log(1.0 - to_unit(out[0], out[1]))); /* Box and Muller 1958 */
    return radius * cos(6.283185307179586476925 * to_unit(out[2], out[3]));
}

void px_rng_permutation(const px_rng *rng, uint32_t a, uint32_t b, int64_t n, int64_t *out)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = i;
    }
    for (int64_t i = n - 1; i > 0; i--) { /* Fisher and Yates; i + 1 <= 2^32, so one 53-bit uniform is exact enough */
        int64_t j = (int64_t)(px_rng_uniform(rng, a, b, (uint32_t)i, 0) * (double)(i + 1));
        int64_t swap = out[i];
        out[i] = out[j];
        out[j] = swap;
    }
}
