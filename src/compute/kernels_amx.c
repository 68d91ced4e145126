/* Matrix products with operands in bf16 and sums in float32 on AMX tiles: an instruction multiplies 16 rows by 16 columns
 * over 16 pairs of the depth. An element's bits depend on its row and column alone: tiles run down the depth in one order,
 * and rows that a matrix has not are zero rows of a tile. */
#include "phalanx/compute.h"
#if defined(PX_KERNELS_X86) && !defined(PX_DOUBLE)
#define PX_PAIRS
#include "kernel_pack.h"

enum { SIDE = 16, TILE_ROWS = SIDE, TILE_WORDS = SIDE * SIDE, ROW_BYTES = SIDE * (int)sizeof(px_real) }; /* a tile: 16 rows of 16 words */
/* Pairs of the depth that a 2 x 2 square of tiles goes down at once: panels of both operands fit the first-level cache. */
enum { DEPTH_RUN = 192 };

/* The layout of all eight tiles, as LDTILECFG reads it (Intel, "Architecture Instruction Set Extensions", TILECFG). */
typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_shapes;

/* to[16 rows][16 pairs of the depth], one tile after another: 16 rows all along the depth, then the next 16. What the
 * matrix has not is 0. */
static size_t pack_a(px_real *to, px_operand from, int rows, int depth)
{
    for (int i = 0; i < rows; i += SIDE) {
        int there = rows - i < SIDE ? rows - i : SIDE;
        for (int k = 0; k < depth; k += 2 * SIDE, to += TILE_WORDS) {
            int left = depth - k < 2 * SIDE ? depth - k : 2 * SIDE;
            const px_real *at = from.data + (size_t)i * from.row + (size_t)k * from.column;
            __m512 r[SIDE];
            if (from.row != 1) { /* contiguous along the depth: as a tile wants them */
                PX_PRAGMA(GCC unroll 16) for (int row = 0; row < SIDE; row++) {
                    r[row] = row < there ? row_of_pairs(at + (size_t)row * from.row, left) : _mm512_setzero_ps();
                    _mm512_storeu_ps(to + row * SIDE, r[row]);
                }
                continue;
            }
            __mmask16 some = (__mmask16)((1u << there) - 1);
            PX_PRAGMA(GCC unroll 16) for (int pair = 0; pair < SIDE; pair++) {
                const px_real *even = at + (size_t)(2 * pair) * from.column;
                __m512 first = 2 * pair < left ? _mm512_maskz_loadu_ps(some, even) : _mm512_setzero_ps();
                __m512 second = 2 * pair + 1 < left ? _mm512_maskz_loadu_ps(some, even + from.column) : _mm512_setzero_ps();
                r[pair] = pairs(first, second);
            }
            transpose_rows(to, SIDE, SIDE, SIDE, r);
        }
    }
    return 0;
}

/* The compiler does not know that loading a tile reads memory: what was stored before is to be there. */
#define STORED() __asm__ volatile("" ::: "memory")

/* Tiles 0 to 3: sums of two by two; 4, 5: rows of a; 6, 7: columns of b. */
PX_INLINE void multiply_step(bool two, const px_real *a, const px_real *a_below, const px_real *b, size_t b_row_bytes)
{
    _tile_loadd(6, b, b_row_bytes);
    _tile_loadd(7, b + SIDE, b_row_bytes);
    _tile_loadd(4, a, ROW_BYTES);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (!two) return;
    _tile_loadd(5, a_below, ROW_BYTES);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* c[16 or 32 rows, 32 columns] = (or +=, load) a b over `steps` pairs. a: its tiles of the first 16 rows, those of the next
 * 16 at a_below; b: a panel. The last pairs of a panel are fewer than a tile has: what follows them is not read. */
PX_INLINE void square(bool two, px_real *c, size_t ldc, const px_real *a, const px_real *a_below, const px_real *b, int steps,
                      bool load)
{
    size_t row_bytes = ldc * sizeof *c, below = SIDE * ldc;
    STORED();
    if (load) {
        _tile_loadd(0, c, row_bytes);
        _tile_loadd(1, c + SIDE, row_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (two && load) {
        _tile_loadd(2, c + below, row_bytes);
        _tile_loadd(3, c + below + SIDE, row_bytes);
    } else if (two) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (; steps >= SIDE; steps -= SIDE) {
        multiply_step(two, a, a_below, b, PX_PANEL * sizeof *b);
        a += TILE_WORDS;
        a_below += TILE_WORDS;
        b += SIDE * PX_PANEL;
    }
    if (steps > 0) {
        _Alignas(64) px_real end[SIDE * PX_PANEL] = {0};
        memcpy(end, b, (size_t)steps * PX_PANEL * sizeof *b);
        STORED();
        multiply_step(two, a, a_below, end, PX_PANEL * sizeof *end);
    }
    _tile_stored(0, c, row_bytes);
    _tile_stored(1, c + SIDE, row_bytes);
    if (!two) return;
    _tile_stored(2, c + below, row_bytes);
    _tile_stored(3, c + below + SIDE, row_bytes);
}

static void add_bias(px_real *c, size_t ldc, const px_real *bias, int rows, int columns)
{
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < columns; j++) c[(size_t)r * ldc + (size_t)j] += bias[j];
}

/* A square that sticks out of the matrix goes through a whole one on the stack. */
static void square_edge(int rows, int columns, px_real *c, size_t ldc, const px_real *a, const px_real *a_below,
                        const px_real *b, int steps, bool load)
{
    _Alignas(64) px_real whole[2 * SIDE * PX_PANEL] = {0};
    for (int r = 0; load && r < rows; r++) memcpy(whole + r * PX_PANEL, c + (size_t)r * ldc, (size_t)columns * sizeof *c);
    if (rows > SIDE)
        square(true, whole, PX_PANEL, a, a_below, b, steps, load);
    else
        square(false, whole, PX_PANEL, a, a, b, steps, load);
    for (int r = 0; r < rows; r++) memcpy(c + (size_t)r * ldc, whole + r * PX_PANEL, (size_t)columns * sizeof *c);
}

/* One packed block of a against one of b. Few rows: they stay in the first-level cache and b goes by once. */
static void block_product(px_real *c, size_t ldc, const px_real *a, size_t lda, const px_real *b, bool halves, int rows,
                          int columns, int steps, bool load, const px_real *bias)
{
    (void)lda, (void)halves; /* 0 and false: words of pairs are always packed, and whole */
    size_t stripe = (size_t)((steps + SIDE - 1) / SIDE) * TILE_WORDS; /* 16 rows of a */
    for (int k = 0; k < steps; k += DEPTH_RUN) {
        int run = steps - k < DEPTH_RUN ? steps - k : DEPTH_RUN;
        bool again = load || k > 0, last = k + run == steps;
        for (int i = 0; i < rows; i += 2 * SIDE) {
            int height = rows - i < 2 * SIDE ? rows - i : 2 * SIDE;
            const px_real *a_here = a + (size_t)(i / SIDE) * stripe + (size_t)(k / SIDE) * TILE_WORDS;
            for (int j = 0; j < columns; j += PX_PANEL) {
                int width = columns - j < PX_PANEL ? columns - j : PX_PANEL;
                const px_real *b_here = b + (size_t)j * (size_t)steps + (size_t)k * PX_PANEL;
                px_real *to = c + (size_t)i * ldc + j;
                if (height == 2 * SIDE && width == PX_PANEL)
                    square(true, to, ldc, a_here, a_here + stripe, b_here, run, again);
                else if (height == SIDE && width == PX_PANEL)
                    square(false, to, ldc, a_here, a_here, b_here, run, again);
                else
                    square_edge(height, width, to, ldc, a_here, a_here + stripe, b_here, run, again);
                if (last && bias) add_bias(to, ldc, bias + j, height, width);
            }
        }
    }
}

#include "kernel_blocks.h"

/* Tiles are state of a thread: taken for one product, and given back, so that a switch of threads does not save them. */
static void take_tiles(void)
{
    tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.rows[i] = SIDE;
        shapes.row_bytes[i] = ROW_BYTES;
    }
    STORED();
    _tile_loadconfig(&shapes);
}

static void product_on_tiles(const px_product *job, px_real *block_a, px_real *block_b)
{
    take_tiles();
    product(job, block_a, block_b);
    _tile_release();
}

/* Products of tiles that stay in registers: what the unit does when nothing is loaded. */
static double peak(px_real *seed, long steps)
{
    take_tiles();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (long i = 0; i < steps; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    px_real whole[TILE_WORDS];
    _tile_stored(0, whole, ROW_BYTES);
    *seed += whole[0];
    _tile_release();
    return (double)steps * 4 * 2 * TILE_WORDS * 2 * SIDE;
}

const px_products px_products_amx = {"AMX", SIDE, STEP, product_on_tiles, pack_b, pack_b16, peak, HALVE};
#endif
