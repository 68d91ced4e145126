/* Matrix products after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): both operands
 * are packed into panels, and a register tile of TILE_ROWS x TILE_PARTS * 16 sums runs down the depth. Every element is one
 * chain of multiply-adds in the order of depth, whatever the shape around it. */
#include "kernels.h"
#include "lanes.h"

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

/* to[panel][k][width] = from(i, k), missing rows of the last panel 0. */
static void pack_panels(px_real *to, px_operand from, int rows, int depth, int width) {
    for (int i0 = 0; i0 < rows; i0 += width) {
        int n = rows - i0 < width ? rows - i0 : width;
        const px_real *base = from.data + (size_t)i0 * from.row;
        if (n < width) memset(to, 0, (size_t)width * (size_t)depth * sizeof *to);
        if (from.row == 1) {
            for (int k = 0; k < depth; k++)
                memcpy(to + (size_t)k * (size_t)width, base + (size_t)k * from.column, (size_t)n * sizeof *to);
        } else {
            for (int k0 = 0; k0 < depth; k0 += 16) {
                int end = depth - k0 < 16 ? depth : k0 + 16;
                for (int i = 0; i < n; i++)
                    for (int k = k0; k < end; k++) to[(size_t)k * (size_t)width + (size_t)i] = base[(size_t)i * from.row + (size_t)k];
            }
        }
        to += (size_t)width * (size_t)depth;
    }
}

/* One register tile of `rows` rows: c = start + sum over k of a[k][row] * b[k][column]. a has TILE_ROWS a step, b PX_PANEL. */
PX_INLINE void tile(int rows, px_real *c, size_t ldc, const px_real *a, const px_real *b, int depth, bool load,
                    const px_real *bias) {
    px_lanes sum[TILE_ROWS][TILE_LANES];
    PX_PRAGMA(GCC unroll 16) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++)
            sum[r][v] = load ? px_lanes_load(c + (size_t)r * ldc + v * PX_LANES) : px_lanes_set(0);
    for (int k = 0; k < depth; k++) {
        px_lanes panel[TILE_LANES];
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++) panel[v] = px_lanes_load(b + v * PX_LANES);
        PX_PRAGMA(GCC unroll 16) for (int r = 0; r < rows; r++) {
            px_lanes value = px_lanes_set(a[r]);
            PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++)
                sum[r][v] = px_lanes_fma(value, panel[v], sum[r][v]);
        }
        a += TILE_ROWS;
        b += PX_PANEL;
    }
    PX_PRAGMA(GCC unroll 16) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++) {
            if (bias) sum[r][v] = px_lanes_add(sum[r][v], px_lanes_load(bias + v * PX_LANES));
            px_lanes_store(c + (size_t)r * ldc + v * PX_LANES, sum[r][v]);
        }
}

static void tile_full(px_real *c, size_t ldc, const px_real *a, const px_real *b, int depth, bool load,
                      const px_real *bias) {
    tile(TILE_ROWS, c, ldc, a, b, depth, load, bias);
}

static void tile_one(px_real *c, size_t ldc, const px_real *a, const px_real *b, int depth, bool load,
                     const px_real *bias) {
    tile(1, c, ldc, a, b, depth, load, bias);
}

/* A tile that sticks out of the matrix goes through a full one on the stack. */
static void tile_edge(int rows, int columns, px_real *c, size_t ldc, const px_real *a, const px_real *b, int depth,
                      bool load, const px_real *bias) {
    enum { WIDTH = TILE_LANES * PX_LANES };
    px_real full[TILE_ROWS * WIDTH] = {0}, full_bias[WIDTH] = {0};
    for (int r = 0; load && r < rows; r++) memcpy(full + r * WIDTH, c + (size_t)r * ldc, (size_t)columns * sizeof *c);
    if (bias) memcpy(full_bias, bias, (size_t)columns * sizeof *bias);
    if (rows == 1)
        tile_one(full, WIDTH, a, b, depth, load, bias ? full_bias : NULL);
    else
        tile_full(full, WIDTH, a, b, depth, load, bias ? full_bias : NULL);
    for (int r = 0; r < rows; r++) memcpy(c + (size_t)r * ldc, full + r * WIDTH, (size_t)columns * sizeof *c);
}

/* One packed block of a against one of b. */
static void block_product(px_real *c, size_t ldc, const px_real *a, const px_real *b, int rows, int columns, int depth,
                          bool load, const px_real *bias) {
    enum { WIDTH = TILE_LANES * PX_LANES };
    for (int i = 0; i < rows; i += TILE_ROWS) {
        int tile_height = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
        const px_real *a_panel = a + (size_t)i * (size_t)depth;
        for (int j = 0; j < columns; j += WIDTH) {
            const px_real *b_panel = b + (size_t)(j / PX_PANEL) * PX_PANEL * (size_t)depth + j % PX_PANEL;
            px_real *to = c + (size_t)i * ldc + j;
            const px_real *bias_here = bias ? bias + j : NULL;
            int width = columns - j < WIDTH ? columns - j : WIDTH;
            if (tile_height == TILE_ROWS && width == WIDTH)
                tile_full(to, ldc, a_panel, b_panel, depth, load, bias_here);
            else
                tile_edge(tile_height, width, to, ldc, a_panel, b_panel, depth, load, bias_here);
        }
    }
}

static void product(const px_product *job, px_real *pack_a, px_real *pack_b) {
    for (int i0 = 0; i0 < job->rows; i0 += PX_ROW_BLOCK) {
        int rows = job->rows - i0 < PX_ROW_BLOCK ? job->rows - i0 : PX_ROW_BLOCK;
        for (int k0 = 0; k0 < job->depth; k0 += PX_DEPTH_BLOCK) {
            int depth = job->depth - k0 < PX_DEPTH_BLOCK ? job->depth - k0 : PX_DEPTH_BLOCK;
            bool load = job->add || k0 > 0, last = k0 + depth == job->depth;
            px_operand a = job->a;
            a.data += (size_t)i0 * a.row + (size_t)k0 * a.column;
            pack_panels(pack_a, a, rows, depth, TILE_ROWS);
            for (int j0 = 0; j0 < job->columns; j0 += PX_COLUMN_BLOCK) {
                int columns = job->columns - j0 < PX_COLUMN_BLOCK ? job->columns - j0 : PX_COLUMN_BLOCK;
                px_operand b = job->b;
                b.data += (size_t)j0 * b.row + (size_t)k0 * b.column;
                pack_panels(pack_b, b, columns, depth, PX_PANEL);
                block_product(job->c + (size_t)i0 * job->ldc + j0, job->ldc, pack_a, pack_b, rows, columns, depth, load,
                              last && job->bias ? job->bias + j0 : NULL);
            }
        }
    }
}
