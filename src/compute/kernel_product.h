/* Matrix products after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): operands are
 * packed into panels (b, and a where its rows cannot be read in place), and a register tile of TILE_ROWS x TILE_LANES * 16
 * sums runs down the depth. Every element is one chain of multiply-adds in the order of depth, whatever the shape around it.
 * With PX_PAIRS a step of the chain is the product of two pairs, added in float32. */
#include "kernel_pack.h"

/* As many sums as the registers hold beside the loaded panel. */
#if PX_PART_BYTES == 64
#ifdef PX_DOUBLE
enum { TILE_ROWS = 12, TILE_LANES = 1 };
#else
enum { TILE_ROWS = 12, TILE_LANES = 2 };
#endif
#elif PX_PART_BYTES == 32 && !defined(PX_DOUBLE)
enum { TILE_ROWS = 6, TILE_LANES = 1 };
#else
enum { TILE_ROWS = 2, TILE_LANES = 1 };
#endif

#ifdef PX_PAIRS
PX_INLINE px_lanes multiply_add(px_lanes a, px_lanes b, px_lanes sum)
{
    sum.p[0] = (px_part)_mm512_dpbf16_ps((__m512)sum.p[0], (__m512bh)b.p[0], (__m512bh)a.p[0]);
    return sum;
}
#else
PX_INLINE px_lanes multiply_add(px_lanes a, px_lanes b, px_lanes sum) { return px_lanes_fma(a, b, sum); }
#endif

enum { FEW_ROWS = 4 * TILE_ROWS };

static size_t pack_a(px_real *to, px_operand from, int rows, int depth)
{
#ifdef PX_PAIRS /* not worth transposing: read as they lie, once they are rounded */
    if (from.column == 1 && rows <= FEW_ROWS) return round_rows(to, from.data, from.row, rows, depth);
#endif
    pack_panels(to, from, rows, depth, TILE_ROWS);
    return 0;
}

/* One register tile of `rows` rows: c = start + sum over steps k of a(k, row) * b[k][column]. lda 0: a is packed, TILE_ROWS
 * words a step; else it lies where it is used, row by row. b has PX_PANEL words (or halves) a step. */
PX_INLINE void tile(int rows, px_real *c, size_t ldc, const px_real *a, size_t lda, const px_real *b, bool halves,
                    int steps, bool load, const px_real *bias)
{
    size_t a_row = lda ? lda : 1, a_step = lda ? 1 : TILE_ROWS;
    px_lanes sum[TILE_ROWS][TILE_LANES];
    PX_PRAGMA(GCC unroll 16) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++)
            sum[r][v] = load ? px_lanes_load(c + (size_t)r * ldc + v * PX_LANES) : px_lanes_set(0);
    PX_PRAGMA(GCC unroll 16) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++)
            __builtin_prefetch(c + (size_t)r * ldc + v * PX_LANES, 1);
    for (int k = 0; k < steps; k++) {
        px_lanes panel[TILE_LANES];
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++)
            panel[v] = halves ? lanes_of_halves((const uint16_t *)b + v * PX_LANES) : px_lanes_load(b + v * PX_LANES);
        PX_PRAGMA(GCC unroll 16) for (int r = 0; r < rows; r++) {
            px_lanes value = px_lanes_set(a[(size_t)r * a_row]);
            PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++)
                sum[r][v] = multiply_add(value, panel[v], sum[r][v]);
        }
        a += a_step;
        b += halves ? PX_PANEL / 2 : PX_PANEL;
    }
    PX_PRAGMA(GCC unroll 16) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++) {
            if (bias) sum[r][v] = px_lanes_add(sum[r][v], px_lanes_load(bias + v * PX_LANES));
            px_lanes_store(c + (size_t)r * ldc + v * PX_LANES, sum[r][v]);
        }
}

static void tile_full(px_real *c, size_t ldc, const px_real *a, size_t lda, const px_real *b, int steps, bool load,
                      const px_real *bias)
{
    if (lda)
        tile(TILE_ROWS, c, ldc, a, lda, b, false, steps, load, bias);
    else
        tile(TILE_ROWS, c, ldc, a, 0, b, false, steps, load, bias);
}

/* The last rows of a matrix: what a few rows cost is what decoding costs. */
static void tile_some(int rows, px_real *c, size_t ldc, const px_real *a, size_t lda, const px_real *b, bool halves,
                      int steps, bool load, const px_real *bias)
{
#define ROWS(n) \
    case n: \
        if (halves) \
            tile(n < TILE_ROWS ? n : TILE_ROWS, c, ldc, a, lda, b, true, steps, load, bias); \
        else if (lda) \
            tile(n < TILE_ROWS ? n : TILE_ROWS, c, ldc, a, lda, b, false, steps, load, bias); \
        else \
            tile(n < TILE_ROWS ? n : TILE_ROWS, c, ldc, a, 0, b, false, steps, load, bias); \
        break;
    switch (rows) {
        ROWS(1)
        ROWS(2)
        ROWS(3)
        ROWS(4)
        ROWS(5)
        ROWS(6)
        ROWS(7)
        ROWS(8)
        ROWS(9)
        ROWS(10)
        ROWS(11)
    default: tile_full(c, ldc, a, lda, b, steps, load, bias);
    }
#undef ROWS
}

/* A tile that sticks out of the matrix to the right goes through a whole one on the stack. */
static void tile_edge(int rows, int columns, px_real *c, size_t ldc, const px_real *a, size_t lda, const px_real *b,
                      bool halves, int steps, bool load, const px_real *bias)
{
    enum { WIDTH = TILE_LANES * PX_LANES };
    px_real full[TILE_ROWS * WIDTH] = {0}, full_bias[WIDTH] = {0};
    for (int r = 0; load && r < rows; r++) memcpy(full + r * WIDTH, c + (size_t)r * ldc, (size_t)columns * sizeof *c);
    if (bias) memcpy(full_bias, bias, (size_t)columns * sizeof *bias);
    tile_some(rows, full, WIDTH, a, lda, b, halves, steps, load, bias ? full_bias : NULL);
    for (int r = 0; r < rows; r++) memcpy(c + (size_t)r * ldc, full + r * WIDTH, (size_t)columns * sizeof *c);
}

/* Of the next tile where `rows` are left. Where rows lie as they are the last two tiles share theirs: a tile of one or two
 * rows has too few chains of sums to fill the units. */
static int height_of(int rows, bool in_place)
{
    if (rows <= TILE_ROWS) return rows;
    return in_place && rows < 2 * TILE_ROWS ? (rows + 1) / 2 : TILE_ROWS;
}

/* One block of a against one packed block of b. Few rows: a stays in the first-level cache and b goes by once. Many: a
 * panel of a stays there and the block of b in the second level. */
static void block_product(px_real *c, size_t ldc, const px_real *a, size_t lda, const px_real *b, bool halves, int rows,
                          int columns, int steps, bool load, const px_real *bias)
{
    enum { WIDTH = TILE_LANES * PX_LANES };
    int across = rows <= FEW_ROWS ? WIDTH : columns;
    for (int j0 = 0; j0 < columns; j0 += across) {
        int end = columns - j0 < across ? columns : j0 + across;
        for (int i = 0, height; i < rows; i += height) {
            height = height_of(rows - i, lda != 0);
            const px_real *a_panel = a + (size_t)i * (lda ? lda : (size_t)steps);
            for (int j = j0; j < end; j += WIDTH) {
                const px_real *b_panel = b + (size_t)(j / PX_PANEL) * PX_PANEL * (size_t)steps + j % PX_PANEL / (halves ? 2 : 1);
                px_real *to = c + (size_t)i * ldc + j;
                const px_real *bias_here = bias ? bias + j : NULL;
                if (columns - j < WIDTH)
                    tile_edge(height, columns - j, to, ldc, a_panel, lda, b_panel, halves, steps, load, bias_here);
                else if (height == TILE_ROWS)
                    tile_full(to, ldc, a_panel, lda, b_panel, steps, load, bias_here);
                else
                    tile_some(height, to, ldc, a_panel, lda, b_panel, halves, steps, load, bias_here);
            }
        }
    }
}

#include "kernel_blocks.h"
