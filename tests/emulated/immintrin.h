/* The instructions of AVX-512, AVX512-BF16 and AMX that the kernels use, one by one in C on AVX2: their files, compiled with
 * this header before the compiler's own, are tested on processors that have none of it. Semantics: Intel, "Intel 64 and
 * IA-32 Architectures Software Developer's Manual", volume 2. Denormals are kept where bf16 and tiles take them as 0. */
#ifndef EMULATED_IMMINTRIN_H
#define EMULATED_IMMINTRIN_H

#include_next <immintrin.h>
#ifdef EMULATED
#include <math.h>
#include <stdint.h>
#include <string.h>

#undef __AVX512F__
#define __AVX512F__ 1 /* from here on: what the kernels ask for */

typedef union emulated {
    __m512 ps;
    __m512d pd;
    __m512i i;
    __m512bh bh;
    float f[16];
    double d[8];
    uint16_t u16[32];
    uint32_t u32[16];
} emulated;

#define IN_C(type) static inline __attribute__((always_inline, unused)) type
#define LANES(n) for (int l = 0; l < (n); l++)

IN_C(float) emulated_from_bf16(uint32_t half)
{
    float value;
    half <<= 16;
    memcpy(&value, &half, sizeof value);
    return value;
}

/* To nearest, ties to even; a NaN stays one. */
IN_C(uint16_t) emulated_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

IN_C(__m512) emulated_zero(void) { return (__m512){0}; }

IN_C(__m512) emulated_load(__mmask16 mask, const float *from)
{
    emulated y = {.ps = {0}};
    LANES(16) if (mask >> l & 1) y.f[l] = from[l];
    return y.ps;
}

IN_C(void) emulated_store(float *to, __mmask16 mask, __m512 x)
{
    emulated y = {.ps = x};
    LANES(16) if (mask >> l & 1) to[l] = y.f[l];
}

IN_C(__m512) emulated_fma(__m512 a, __m512 b, __m512 c)
{
    emulated x = {.ps = a}, y = {.ps = b}, z = {.ps = c};
    LANES(16) x.f[l] = __builtin_fmaf(x.f[l], y.f[l], z.f[l]);
    return x.ps;
}

/* The second operand where either is a NaN. */
IN_C(__m512) emulated_max(__m512 a, __m512 b)
{
    emulated x = {.ps = a}, y = {.ps = b};
    LANES(16) x.f[l] = x.f[l] > y.f[l] ? x.f[l] : y.f[l];
    return x.ps;
}

IN_C(__m512) emulated_min(__m512 a, __m512 b)
{
    emulated x = {.ps = a}, y = {.ps = b};
    LANES(16) x.f[l] = x.f[l] < y.f[l] ? x.f[l] : y.f[l];
    return x.ps;
}

IN_C(__m512) emulated_blend(__mmask16 mask, __m512 a, __m512 b)
{
    emulated x = {.ps = a}, y = {.ps = b};
    LANES(16) if (mask >> l & 1) x.f[l] = y.f[l];
    return x.ps;
}

/* The one comparison in use: either is a NaN. */
IN_C(__mmask16) emulated_unordered(__m512 a, __m512 b)
{
    emulated x = {.ps = a}, y = {.ps = b};
    unsigned mask = 0;
    LANES(16) mask |= (unsigned)(x.f[l] != x.f[l] || y.f[l] != y.f[l]) << l;
    return (__mmask16)mask;
}

/* Of every four lanes two, `high` or low, each between those of a and b. */
IN_C(__m512) emulated_unpack(__m512 a, __m512 b, int high)
{
    emulated x = {.ps = a}, y = {.ps = b}, z;
    LANES(16) z.f[l] = (l & 1 ? y : x).f[(l & ~3) + 2 * high + (l >> 1 & 1)];
    return z.ps;
}

IN_C(__m512d) emulated_unpack_pd(__m512d a, __m512d b, int high)
{
    emulated x = {.pd = a}, y = {.pd = b}, z;
    LANES(8) z.d[l] = (l & 1 ? y : x).d[(l & ~1) + high];
    return z.pd;
}

/* Groups of four lanes: two of a, two of b, each chosen by two bits. */
IN_C(__m512) emulated_shuffle(__m512 a, __m512 b, int chosen)
{
    emulated x = {.ps = a}, y = {.ps = b}, z;
    LANES(16) z.f[l] = (l < 8 ? x : y).f[4 * (chosen >> 2 * (l / 4) & 3) + l % 4];
    return z.ps;
}

IN_C(__m512i) emulated_permute16(__m512i order, __m512i a)
{
    emulated x = {.i = order}, y = {.i = a}, z;
    LANES(32) z.u16[l] = y.u16[x.u16[l] & 31];
    return z.i;
}

IN_C(__m512bh) emulated_round(__m512 high, __m512 low)
{
    emulated x = {.ps = high}, y = {.ps = low}, z;
    LANES(32) z.u16[l] = emulated_to_bf16(l < 16 ? y.f[l] : x.f[l - 16]);
    return z.bh;
}

IN_C(__m512) emulated_pairs(__m512 sum, __m512bh a, __m512bh b)
{
    emulated s = {.ps = sum}, x = {.bh = a}, y = {.bh = b};
    LANES(16)
    {
        s.f[l] = __builtin_fmaf(emulated_from_bf16(x.u32[l] >> 16), emulated_from_bf16(y.u32[l] >> 16), s.f[l]);
        s.f[l] = __builtin_fmaf(emulated_from_bf16(x.u32[l] & 0xffff), emulated_from_bf16(y.u32[l] & 0xffff), s.f[l]);
    }
    return s.ps;
}

IN_C(__m256) emulated_half(__m512 a)
{
    __m256 y;
    memcpy(&y, &a, sizeof y);
    return y;
}

IN_C(__m256d) emulated_half_pd(__m512d a, int which)
{
    emulated x = {.pd = a};
    __m256d y;
    memcpy(&y, x.d + 4 * which, sizeof y);
    return y;
}

/* The eight tiles of a thread. Only whole ones, 16 rows of 64 bytes, are configured. */
static _Thread_local __attribute__((unused)) struct { uint32_t word[8][16][16]; int configured; } emulated_tiles;

IN_C(void) emulated_configure(const void *layout)
{
    uint8_t bytes[64]; /* palette, start row, 14 reserved, bytes of a row (16 bits each), from 48 on the rows */
    memcpy(bytes, layout, sizeof bytes);
    emulated_tiles.configured = bytes[0] == 1;
    for (int t = 0; t < 8; t++) emulated_tiles.configured &= bytes[48 + t] == 16 && bytes[16 + 2 * t] == 64;
}

IN_C(void) emulated_load_tile(int tile, const void *base, size_t stride)
{
    if (!emulated_tiles.configured) __builtin_trap();
    LANES(16) memcpy(emulated_tiles.word[tile][l], (const char *)base + (size_t)l * stride, 64);
}

IN_C(void) emulated_store_tile(int tile, void *base, size_t stride)
{
    if (!emulated_tiles.configured) __builtin_trap();
    LANES(16) memcpy((char *)base + (size_t)l * stride, emulated_tiles.word[tile][l], 64);
}

/* TDPBF16PS: the elements of even and of odd depth are summed apart. */
static __attribute__((unused)) void emulated_multiply_tiles(int c, int a, int b)
{
    if (!emulated_tiles.configured) __builtin_trap();
    for (int m = 0; m < 16; m++) {
        float even[16] = {0}, odd[16] = {0}, sum[16];
        for (int k = 0; k < 16; k++) {
            uint32_t left = emulated_tiles.word[a][m][k];
            LANES(16)
            {
                uint32_t right = emulated_tiles.word[b][k][l];
                even[l] = __builtin_fmaf(emulated_from_bf16(left & 0xffff), emulated_from_bf16(right & 0xffff), even[l]);
                odd[l] = __builtin_fmaf(emulated_from_bf16(left >> 16), emulated_from_bf16(right >> 16), odd[l]);
            }
        }
        memcpy(sum, emulated_tiles.word[c][m], sizeof sum);
        LANES(16) sum[l] += even[l] + odd[l];
        memcpy(emulated_tiles.word[c][m], sum, sizeof sum);
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(layout) emulated_configure(layout)
#define _tile_release() ((void)(emulated_tiles.configured = 0))
#define _tile_zero(tile) memset(emulated_tiles.word[tile], 0, sizeof emulated_tiles.word[tile])
#define _tile_loadd(tile, base, stride) emulated_load_tile(tile, base, stride)
#define _tile_stored(tile, base, stride) emulated_store_tile(tile, base, stride)
#define _tile_dpbf16ps(c, a, b) emulated_multiply_tiles(c, a, b)
#undef _mm512_shuffle_f32x4
#undef _mm512_extractf64x4_pd
#undef _mm512_cmp_ps_mask
#define _mm512_setzero_ps() emulated_zero()
#define _mm512_loadu_ps(from) emulated_load(0xffff, from)
#define _mm512_maskz_loadu_ps(mask, from) emulated_load(mask, from)
#define _mm512_storeu_ps(to, x) emulated_store(to, 0xffff, x)
#define _mm512_mask_storeu_ps(to, mask, x) emulated_store(to, mask, x)
#define _mm512_fmadd_ps(a, b, c) emulated_fma(a, b, c)
#define _mm512_max_ps(a, b) emulated_max(a, b)
#define _mm512_min_ps(a, b) emulated_min(a, b)
#define _mm512_mask_blend_ps(mask, a, b) emulated_blend(mask, a, b)
#define _mm512_cmp_ps_mask(a, b, kind) emulated_unordered(a, b)
#define _mm512_unpacklo_ps(a, b) emulated_unpack(a, b, 0)
#define _mm512_unpackhi_ps(a, b) emulated_unpack(a, b, 1)
#define _mm512_unpacklo_pd(a, b) emulated_unpack_pd(a, b, 0)
#define _mm512_unpackhi_pd(a, b) emulated_unpack_pd(a, b, 1)
#define _mm512_shuffle_f32x4(a, b, chosen) emulated_shuffle(a, b, chosen)
#define _mm512_permutexvar_epi16(order, a) emulated_permute16(order, a)
#define _mm512_castps_pd(a) ((__m512d)(a))
#define _mm512_castpd_ps(a) ((__m512)(a))
#define _mm512_castsi512_ps(a) ((__m512)(a))
#define _mm512_castps512_ps256(a) emulated_half(a)
#define _mm512_extractf64x4_pd(a, which) emulated_half_pd(a, which)
#define _mm512_cvtne2ps_pbh(high, low) emulated_round(high, low)
#define _mm512_dpbf16_ps(sum, a, b) emulated_pairs(sum, a, b)
IN_C(__m512i) emulated_widen(__m256i a)
{
    emulated y;
    uint16_t halves[16];
    memcpy(halves, &a, sizeof halves);
    LANES(16) y.u32[l] = halves[l];
    return y.i;
}
IN_C(__m512i) emulated_shift_left(__m512i a, unsigned count)
{
    emulated y = {.i = a};
    LANES(16) y.u32[l] <<= count;
    return y.i;
}
#define _mm512_cvtepu16_epi32(a) emulated_widen(a)
#define _mm512_slli_epi32(a, count) emulated_shift_left(a, count)
/* Elements from the last to the first, as _mm512_set_epi16 takes them. */
IN_C(__m512i) emulated_set16(const uint16_t last_first[32])
{
    emulated y;
    LANES(32) y.u16[l] = last_first[31 - l];
    return y.i;
}
#define _mm512_set_epi16(...) emulated_set16((const uint16_t[32]){__VA_ARGS__})
#endif
#endif
