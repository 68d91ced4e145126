/* Sixteen px_reals that are worked on together, on whatever vector registers the including file is compiled for. A sum
 * over a row keeps sixteen partial sums and adds them in one fixed order, so its bits depend on the row alone.
 * Fused multiply-adds are written out (the room is compiled with -ffp-contract=off): no two code paths of one row differ
 * by what the compiler chose to fuse. */
#ifndef PX_COMPUTE_LANES_H
#define PX_COMPUTE_LANES_H

#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include "phalanx/compute.h"

#if defined(__AVX512F__)
#define PX_PART_BYTES 64
#elif defined(__AVX2__)
#define PX_PART_BYTES 32
#else
#define PX_PART_BYTES 16
#endif
#define PX_LANES 16
#define PX_PART_LANES ((int)(PX_PART_BYTES / sizeof(px_real)))
#define PX_PARTS ((int)(PX_LANES * sizeof(px_real) / PX_PART_BYTES))
#define PX_INLINE static inline __attribute__((always_inline))
#define PX_PRAGMA(text) _Pragma(#text)
#define PX_EACH_PART PX_PRAGMA(GCC unroll 8) for (int i = 0; i < PX_PARTS; i++)

#ifdef PX_DOUBLE
typedef int64_t px_lane_int;
#else
typedef int32_t px_lane_int;
#endif
typedef px_real px_part __attribute__((vector_size(PX_PART_BYTES)));
typedef px_real px_part_any __attribute__((vector_size(PX_PART_BYTES), aligned(sizeof(px_real)), may_alias));
typedef px_lane_int px_part_int __attribute__((vector_size(PX_PART_BYTES)));
typedef struct px_lanes {
    px_part p[PX_PARTS];
} px_lanes;

/* value - 0 is value for every value, so that the compiler broadcasts; 0 + value would be an addition for the sake of -0. */
PX_INLINE px_part px_part_set(px_real value) { return value - (px_part){0}; }

/* a where mask (all bits), else b */
PX_INLINE px_part px_part_select(px_part_int mask, px_part a, px_part b)
{
    return (px_part)((mask & (px_part_int)a) | (~mask & (px_part_int)b));
}

/* A NaN in b comes through, as with maxps. */
PX_INLINE px_part px_part_max(px_part a, px_part b)
{
#if defined(__AVX512F__) && !defined(PX_DOUBLE)
    return (px_part)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(PX_DOUBLE)
    return (px_part)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return px_part_select(a > b, a, b);
#endif
}

PX_INLINE px_part px_part_min(px_part a, px_part b)
{
#if defined(__AVX512F__) && !defined(PX_DOUBLE)
    return (px_part)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(PX_DOUBLE)
    return (px_part)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return px_part_select(a < b, a, b);
#endif
}

/* a * b + c, rounded once where the instruction set can, twice elsewhere */
PX_INLINE px_part px_part_fma(px_part a, px_part b, px_part c)
{
#if defined(__AVX512F__) && defined(PX_DOUBLE)
    return (px_part)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX512F__)
    return (px_part)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(PX_DOUBLE)
    return (px_part)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__AVX2__)
    return (px_part)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

#ifdef PX_DOUBLE
PX_INLINE px_part px_part_exp(px_part x)
{
    px_part y;
    for (int i = 0; i < PX_PART_LANES; i++) y[i] = exp(x[i]);
    return y;
}
#else
/* e^x to about 1 ulp: x = n ln 2 + r, a polynomial of degree 6 in r (coefficients of Cephes expf), times 2^n by its
 * exponent bits. Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits. Arguments beyond
 * the normal range are cut to it; a NaN stays one. */
PX_INLINE px_part px_part_exp(px_part x)
{
    const px_part magic = px_part_set(12582912.0f);
    x = px_part_min(px_part_set(88.02f), px_part_max(px_part_set(-87.33654f), x));
    px_part shifted = px_part_fma(x, px_part_set(1.44269504088896341f), magic), n = shifted - magic;
    px_part r = px_part_fma(n, px_part_set(-0.693359375f), x);
    r = px_part_fma(n, px_part_set(2.12194440e-4f), r);
    px_part p = px_part_set(1.9875691500e-4f);
    p = px_part_fma(p, r, px_part_set(1.3981999507e-3f));
    p = px_part_fma(p, r, px_part_set(8.3334519073e-3f));
    p = px_part_fma(p, r, px_part_set(4.1665795894e-2f));
    p = px_part_fma(p, r, px_part_set(1.6666665459e-1f));
    p = px_part_fma(p, r, px_part_set(5.0000001201e-1f));
    p = px_part_fma(p, r * r, r) + 1.0f;
    return p * (px_part)(((px_part_int)shifted << 23) + (127 << 23));
}
#endif

PX_INLINE px_lanes px_lanes_set(px_real value)
{
    px_lanes y;
    PX_EACH_PART y.p[i] = px_part_set(value);
    return y;
}
PX_INLINE px_lanes px_lanes_load(const px_real *from)
{
    px_lanes y;
    PX_EACH_PART y.p[i] = *(const px_part_any *)(from + i * PX_PART_LANES);
    return y;
}
PX_INLINE void px_lanes_store(px_real *to, px_lanes x)
{
    PX_EACH_PART *(px_part_any *)(to + i * PX_PART_LANES) = x.p[i];
}
/* The first n of 16 elements, the rest 0. */
PX_INLINE px_lanes px_lanes_load_some(const px_real *from, int n)
{
    px_real all[PX_LANES] = {0};
    for (int j = 0; j < n; j++) all[j] = from[j];
    return px_lanes_load(all);
}
PX_INLINE void px_lanes_store_some(px_real *to, px_lanes x, int n)
{
    px_real all[PX_LANES];
    px_lanes_store(all, x);
    for (int j = 0; j < n; j++) to[j] = all[j];
}
/* A row of count elements is read as whole lanes and one last, partly filled one. */
PX_INLINE px_lanes px_lanes_read(const px_real *row, int at, int count)
{
    return count - at >= PX_LANES ? px_lanes_load(row + at) : px_lanes_load_some(row + at, count - at);
}
PX_INLINE void px_lanes_write(px_real *row, px_lanes x, int at, int count)
{
    if (count - at >= PX_LANES)
        px_lanes_store(row + at, x);
    else
        px_lanes_store_some(row + at, x, count - at);
}
PX_INLINE px_lanes px_lanes_add(px_lanes a, px_lanes b)
{
    PX_EACH_PART a.p[i] += b.p[i];
    return a;
}
PX_INLINE px_lanes px_lanes_sub(px_lanes a, px_lanes b)
{
    PX_EACH_PART a.p[i] -= b.p[i];
    return a;
}
PX_INLINE px_lanes px_lanes_mul(px_lanes a, px_lanes b)
{
    PX_EACH_PART a.p[i] *= b.p[i];
    return a;
}
PX_INLINE px_lanes px_lanes_div(px_lanes a, px_lanes b)
{
    PX_EACH_PART a.p[i] /= b.p[i];
    return a;
}
PX_INLINE px_lanes px_lanes_fma(px_lanes a, px_lanes b, px_lanes c)
{
    PX_EACH_PART c.p[i] = px_part_fma(a.p[i], b.p[i], c.p[i]);
    return c;
}
PX_INLINE px_lanes px_lanes_max(px_lanes a, px_lanes b)
{
    PX_EACH_PART a.p[i] = px_part_max(a.p[i], b.p[i]);
    return a;
}
PX_INLINE px_lanes px_lanes_exp(px_lanes a)
{
    PX_EACH_PART a.p[i] = px_part_exp(a.p[i]);
    return a;
}
PX_INLINE double px_lanes_sum_double(px_lanes a)
{
    px_real v[PX_LANES];
    px_lanes_store(v, a);
    double sum = 0;
    for (int j = 0; j < PX_LANES; j++) sum += (double)v[j];
    return sum;
}
/* px_lanes_within(a, b, low, high): lane j is a where low <= j < high, else b. px_lanes_sum: of halves of the lanes, of
 * halves of those, and so on. px_lanes_largest: NaN where a lane is. */
#if defined(__AVX512F__) && !defined(PX_DOUBLE)
PX_INLINE px_lanes px_lanes_within(px_lanes a, px_lanes b, int low, int high)
{
    uint32_t from = low < 0 ? 0 : low > PX_LANES ? PX_LANES : (uint32_t)low;
    uint32_t to = high < 0 ? 0 : high > PX_LANES ? PX_LANES : (uint32_t)high;
    __mmask16 mask = (__mmask16)(((1u << to) - 1) & ~((1u << from) - 1));
    a.p[0] = (px_part)_mm512_mask_blend_ps(mask, (__m512)b.p[0], (__m512)a.p[0]);
    return a;
}
#define PX_FOLD(a, OP) \
    __m512 all = (__m512)(a).p[0]; \
    __m256 half = OP(_mm256, _mm512_castps512_ps256(all), \
                     _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1))); \
    __m128 few = OP(_mm, _mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)); \
    few = OP(_mm, few, _mm_movehl_ps(few, few)); \
    few = OP(_mm, few, _mm_movehdup_ps(few)); \
    return _mm_cvtss_f32(few)
#define PX_FOLD_ADD(width, x, y) width##_add_ps(x, y)
#define PX_FOLD_MAX(width, x, y) width##_max_ps(x, y)
PX_INLINE px_real px_lanes_sum(px_lanes a) { PX_FOLD(a, PX_FOLD_ADD); }
PX_INLINE px_real px_lanes_largest(px_lanes a)
{
    if (_mm512_cmp_ps_mask((__m512)a.p[0], (__m512)a.p[0], _CMP_UNORD_Q)) return NAN;
    PX_FOLD(a, PX_FOLD_MAX);
}
#undef PX_FOLD
#undef PX_FOLD_ADD
#undef PX_FOLD_MAX
#else
PX_INLINE px_lanes px_lanes_within(px_lanes a, px_lanes b, int low, int high)
{
    px_real mask[PX_LANES];
    for (int j = 0; j < PX_LANES; j++) mask[j] = (px_real)j;
    px_lanes index = px_lanes_load(mask);
    px_part lo = px_part_set((px_real)low), hi = px_part_set((px_real)high);
    PX_EACH_PART a.p[i] = px_part_select((index.p[i] >= lo) & (index.p[i] < hi), a.p[i], b.p[i]);
    return a;
}
PX_INLINE px_real px_lanes_sum(px_lanes a)
{
    px_real v[PX_LANES];
    px_lanes_store(v, a);
    for (int width = PX_LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++) v[j] += v[j + width];
    return v[0];
}
PX_INLINE px_real px_lanes_largest(px_lanes a)
{
    px_real v[PX_LANES];
    px_lanes_store(v, a);
    for (int width = PX_LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++) v[j] = v[j + width] > v[j] || v[j + width] != v[j + width] ? v[j + width] : v[j];
    return v[0];
}
#endif

#endif
