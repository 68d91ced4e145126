/* Packing of matrix operands into panels: to[panel][step][width] = from(i, k), missing rows of the last panel 0. A step
 * of the depth is one element; with PX_PAIRS (float32 operands, rounded here) it is a pair of them. */
#ifndef PX_COMPUTE_KERNEL_PACK_H
#define PX_COMPUTE_KERNEL_PACK_H

#include "kernels.h"
#include "lanes.h"

#ifdef PX_PAIRS
enum { STEP = 2 };
#else
enum { STEP = 1 };
#endif

PX_INLINE int steps_of(int depth) { return (depth + STEP - 1) / STEP; }

#if defined(__AVX512F__) && !defined(PX_DOUBLE)
/* to[k * stride] = lane k of the 16 rows; `width` <= 16 elements of each are written, for k < depth. */
PX_INLINE void transpose_rows(px_real *to, size_t stride, int width, int depth, __m512 *r)
{
    __m512 t[16];
    PX_PRAGMA(GCC unroll 8) for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    PX_PRAGMA(GCC unroll 4) for (int i = 0; i < 16; i += 4)
        PX_PRAGMA(GCC unroll 2) for (int j = 0; j < 2; j++) { /* rows i .. i + 3 of columns 4 l + 2 j and + 1, lane l */
            __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
            r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    __mmask16 mask = (__mmask16)((1u << width) - 1);
    PX_PRAGMA(GCC unroll 4) for (int c = 0; c < 4; c++) {
        __m512 even = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), odd = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        __m512 even2 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        __m512 odd2 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        px_real *at = to + (size_t)c * stride;
        if (c < depth) _mm512_mask_storeu_ps(at, mask, _mm512_shuffle_f32x4(even, even2, 0x88));
        if (c + 4 < depth) _mm512_mask_storeu_ps(at + 4 * stride, mask, _mm512_shuffle_f32x4(odd, odd2, 0x88));
        if (c + 8 < depth) _mm512_mask_storeu_ps(at + 8 * stride, mask, _mm512_shuffle_f32x4(even, even2, 0xdd));
        if (c + 12 < depth) _mm512_mask_storeu_ps(at + 12 * stride, mask, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
    }
}
#endif

#ifdef PX_PAIRS
/* A step is a pair: the elements 2k and 2k + 1 of the depth, rounded to bf16, in one word; an odd depth ends with a 0. */
PX_INLINE __m512 pairs(__m512 even, __m512 odd)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                           5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even)));
}

/* Pairs of a row: lane l holds the elements 2l and 2l + 1 of `count` <= 32. */
PX_INLINE __m512 row_of_pairs(const px_real *from, int count)
{
    if (count == 32) return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from)));
    uint32_t mask = (1u << count) - 1;
    return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(mask >> 16), from + 16),
                                                            _mm512_maskz_loadu_ps((__mmask16)mask, from)));
}

/* Pairs of rows, one row below the other; returns their distance. */
PX_INLINE size_t round_rows(px_real *to, const px_real *from, size_t row, int rows, int depth)
{
    int steps = steps_of(depth);
    for (int r = 0; r < rows; r++, to += steps, from += row) {
        int k = 0;
        for (; k + 32 <= depth; k += 32) _mm512_storeu_ps(to + k / 2, row_of_pairs(from + k, 32));
        __mmask16 last = (__mmask16)((1u << steps_of(depth - k)) - 1);
        if (k < depth) _mm512_mask_storeu_ps(to + k / 2, last, row_of_pairs(from + k, depth - k));
    }
    return (size_t)steps;
}

/* 16 pairs of `there` rows, the rest 0, to `width` <= 16 words a step. */
PX_INLINE void pack_square(px_real *to, size_t stride, int width, const px_real *from, size_t row, int there, int depth)
{
    __m512 r[16];
    PX_PRAGMA(GCC unroll 16) for (int i = 0; i < 16; i++)
        r[i] = i < there ? row_of_pairs(from + (size_t)i * row, depth) : _mm512_setzero_ps();
    transpose_rows(to, stride, width, (depth + 1) / 2, r);
}

PX_INLINE void pack_rows(px_real *to, const px_real *from, size_t row, int rows, int depth, int width)
{
    for (int k = 0; k < depth; k += 32, to += (size_t)16 * (size_t)width, from += 32) {
        int left = depth - k < 32 ? depth - k : 32;
        for (int i = 0; i < width; i += 16) {
            int here = width - i < 16 ? width - i : 16, there = rows - i < here ? rows - i : here;
            if (there == here && left == 32)
                pack_square(to + i, (size_t)width, here, from + (size_t)i * row, row, here, 32);
            else
                pack_square(to + i, (size_t)width, here, from + (size_t)i * row, row, there, left);
        }
    }
}

PX_INLINE void pack_columns(px_real *to, const px_real *from, size_t column, int rows, int depth, int width)
{
    for (int k = 0; k < depth; k += 2, to += width, from += 2 * column) {
        for (int i = 0; i < width; i += 16) {
            int here = width - i < 16 ? width - i : 16, there = rows - i < here ? rows - i : here;
            if (there == 16 && k + 1 < depth) {
                _mm512_storeu_ps(to + i, pairs(_mm512_loadu_ps(from + i), _mm512_loadu_ps(from + column + i)));
                continue;
            }
            __mmask16 all = (__mmask16)((1u << here) - 1), some = there > 0 ? (__mmask16)((1u << there) - 1) : 0;
            __m512 odd = k + 1 < depth ? _mm512_maskz_loadu_ps(some, from + column + i) : _mm512_setzero_ps();
            _mm512_mask_storeu_ps(to + i, all, pairs(_mm512_maskz_loadu_ps(some, from + i), odd));
        }
    }
}
#else
#if defined(__AVX512F__) && !defined(PX_DOUBLE)
enum { TRANSPOSED = 16 };

/* to[k * stride] = column k of 16 columns of `rows` <= 16 rows, the rest 0; `width` <= 16 elements of it are written. */
PX_INLINE void transpose(px_real *to, size_t stride, int width, const px_real *from, size_t row, int rows)
{
    __m512 r[16];
    PX_PRAGMA(GCC unroll 16) for (int i = 0; i < 16; i++)
        r[i] = i < rows ? _mm512_loadu_ps(from + (size_t)i * row) : _mm512_setzero_ps();
    transpose_rows(to, stride, width, 16, r);
}
#elif defined(__SSE2__) && !defined(PX_DOUBLE)
#include <xmmintrin.h>
enum { TRANSPOSED = 4 };

PX_INLINE void transpose(px_real *to, size_t stride, int width, const px_real *from, size_t row, int rows)
{
    __m128 r[4];
    PX_PRAGMA(GCC unroll 4) for (int i = 0; i < 4; i++) r[i] = i < rows ? _mm_loadu_ps(from + (size_t)i * row) : _mm_setzero_ps();
    _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
    PX_PRAGMA(GCC unroll 4) for (int k = 0; k < 4; k++) {
        if (width >= 4)
            _mm_storeu_ps(to + (size_t)k * stride, r[k]);
        else
            memcpy(to + (size_t)k * stride, &r[k], (size_t)width * sizeof *to);
    }
}
#else
enum { TRANSPOSED = 1 };

PX_INLINE void transpose(px_real *to, size_t stride, int width, const px_real *from, size_t row, int rows)
{
    (void)stride;
    (void)width;
    (void)row;
    *to = rows > 0 ? *from : 0;
}
#endif

/* Rows that are contiguous in k are transposed square by square. */
PX_INLINE void pack_rows(px_real *to, const px_real *from, size_t row, int rows, int depth, int width)
{
    int k = 0;
    for (; k + TRANSPOSED <= depth; k += TRANSPOSED) {
        for (int i = 0; i < width; i += TRANSPOSED) {
            int left = width - i < TRANSPOSED ? width - i : TRANSPOSED, there = rows - i < left ? rows - i : left;
            px_real *at = to + (size_t)k * (size_t)width + i;
            const px_real *square = from + (size_t)i * row + k;
            if (there == TRANSPOSED)
                transpose(at, (size_t)width, TRANSPOSED, square, row, TRANSPOSED);
            else
                transpose(at, (size_t)width, left, square, row, there);
        }
    }
    for (; k < depth; k++)
        for (int i = 0; i < width; i++) to[(size_t)k * (size_t)width + (size_t)i] = i < rows ? from[(size_t)i * row + (size_t)k] : 0;
}

/* Rows that are contiguous in i are copied. */
PX_INLINE void pack_columns(px_real *to, const px_real *from, size_t column, int rows, int depth, int width)
{
    for (int k = 0; k < depth; k++) {
        px_real *at = to + (size_t)k * (size_t)width;
        const px_real *one = from + (size_t)k * column;
        if (rows >= width) {
            memcpy(at, one, (size_t)width * sizeof *to);
        } else {
            for (int i = 0; i < width; i++) at[i] = i < rows ? one[i] : 0;
        }
    }
}

#endif

/* Columns far apart are on a page each: all panels of a group take what they need of a few before they go on. */
enum { PANELS_AT_ONCE = 4, COLUMNS_AT_ONCE = 16 };

PX_INLINE void pack_group(px_real *to, const px_real *from, size_t column, int rows, int depth, int width)
{
    size_t panel = (size_t)width * (size_t)steps_of(depth);
    for (int k = 0; k < depth; k += COLUMNS_AT_ONCE, from += COLUMNS_AT_ONCE * column) {
        int some = depth - k < COLUMNS_AT_ONCE ? depth - k : COLUMNS_AT_ONCE;
        px_real *at = to + (size_t)(k / STEP) * (size_t)width;
        for (int i = 0; i < rows; i += width, at += panel)
            pack_columns(at, from + i, column, rows - i < width ? rows - i : width, some, width);
    }
}

PX_INLINE void pack_panels(px_real *to, px_operand from, int rows, int depth, int width)
{
    int group = from.row == 1 ? PANELS_AT_ONCE * width : width;
    for (int i = 0; i < rows; i += group) {
        const px_real *base = from.data + (size_t)i * from.row;
        int n = rows - i < group ? rows - i : group;
        if (from.row == 1)
            pack_group(to, base, from.column, n, depth, width);
        else
            pack_rows(to, base, from.row, n, depth, width);
        to += (size_t)group * (size_t)steps_of(depth);
    }
}

static void pack_b(px_real *to, px_operand from, int rows, int depth)
{
    pack_panels(to, from, rows, depth, PX_PANEL);
}

static const uint16_t *row16(const px_rows16 *from, size_t in, int row)
{
    int p = 0;
    while (row >= from->rows[p]) row -= from->rows[p++];
    return from->piece[p] + (size_t)row * in;
}

static void pack_b16(px_real *to, const px_rows16 *from, size_t in, int first, int rows, int k, int depth)
{
    enum { SOME = 64 }; /* of the depth: widened in the first-level cache */
    px_real wide[PX_PANEL * SOME];
    for (int i = 0; i < rows; i += PX_PANEL) {
        int there = rows - i < PX_PANEL ? rows - i : PX_PANEL;
        const uint16_t *row[PX_PANEL];
        for (int r = 0; r < there; r++) row[r] = row16(from, in, first + i + r) + k;
        for (int d = 0; d < depth; d += SOME) {
            int some = depth - d < SOME ? depth - d : SOME;
            for (int r = 0; r < there; r++)
                for (int c = 0; c < some; c++) wide[r * SOME + c] = (px_real)px_from_bf16(row[r][d + c]);
            pack_rows(to, wide, SOME, there, some, PX_PANEL);
            to += (size_t)PX_PANEL * (size_t)steps_of(some);
        }
    }
}

/* Panels of weights that bf16 holds exactly keep the upper 16 bits of each word: half the memory goes by for the same
 * words. What is kept lies at the beginning of the room of the whole panel. */
#if defined(PX_PAIRS) || defined(PX_DOUBLE)
#define HALVE NULL
PX_INLINE px_lanes lanes_of_halves(const uint16_t *from) { return (void)from, px_lanes_set(0); }
#ifdef PX_DOUBLE
static void narrow(uint16_t *to, const px_real *x, size_t count) { (void)to, (void)x, (void)count; }
static void round_bf16(px_real *x, size_t count) { (void)x, (void)count; }
#endif
#else
#define HALVE halve
typedef uint16_t part_halves __attribute__((vector_size(PX_PART_BYTES / 2), aligned(2), may_alias));
typedef uint32_t part_words __attribute__((vector_size(PX_PART_BYTES), aligned(4), may_alias));

PX_INLINE px_lanes lanes_of_halves(const uint16_t *from)
{
    px_lanes x;
#ifdef __AVX512F__ /* GCC 12 makes six instructions of the vectors below */
    x.p[0] = (px_part)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16);
#else
    PX_EACH_PART {
        part_halves halves = *(const part_halves *)(from + i * PX_PART_LANES);
        x.p[i] = (px_part)(__builtin_convertvector(halves, part_words) << 16);
    }
#endif
    return x;
}

/* to may be where x is. */
static void narrow(uint16_t *to, const px_real *x, size_t count)
{
    size_t i = 0;
    for (; i + PX_PART_LANES <= count; i += (size_t)PX_PART_LANES) {
        part_words bits = *(const part_words *)(x + i) >> 16;
        *(part_halves *)(to + i) = __builtin_convertvector(bits, part_halves);
    }
    for (; i < count; i++) memcpy(to + i, (const char *)(x + i) + 2, 2);
}

static void halve(px_real *packed, int panels, int depth)
{
    size_t words = PX_PANEL * (size_t)depth;
    for (int p = 0; p < panels; p++, packed += words) narrow((uint16_t *)packed, packed, words);
}

PX_INLINE part_words rounded_words(part_words bits)
{
    part_words up = bits + 0x7fffu + ((bits >> 16) & 1u), nan = (part_words)((bits & 0x7fffffffu) > 0x7f800000u);
    return ((up & ~nan) | ((bits | 0x400000u) & nan)) & 0xffff0000u;
}

static void round_bf16(px_real *x, size_t count)
{
    size_t i = 0;
    for (; i + PX_PART_LANES <= count; i += (size_t)PX_PART_LANES) *(part_words *)(x + i) = rounded_words(*(part_words *)(x + i));
    if (i == count) return;
    px_real last[PX_PART_LANES] = {0};
    memcpy(last, x + i, (count - i) * sizeof *x);
    *(part_words *)last = rounded_words(*(part_words *)last);
    memcpy(x + i, last, (count - i) * sizeof *x);
}
#endif

PX_INLINE void widen(px_real *to, const px_real *panels, int columns, int steps)
{
    size_t words = PX_PANEL * (size_t)steps;
    for (int j = 0; j < columns; j += PX_PANEL, to += words, panels += words)
        for (size_t i = 0; i < words; i += PX_LANES) px_lanes_store(to + i, lanes_of_halves((const uint16_t *)panels + i));
}

#endif
