/* What the arithmetic units of a core can do: multiply-adds of the register tile, without its loads and stores. */

/* `steps` multiply-adds on every sum of a tile that begins as seed[TILE_LANES * PX_LANES] and ends there; returns the
 * floating-point operations done. */
static double peak(px_real *seed, long steps)
{
    px_lanes sum[TILE_ROWS][TILE_LANES], factor = px_lanes_load(seed);
    PX_PRAGMA(GCC unroll 16) for (int r = 0; r < TILE_ROWS; r++)
        PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++) /* no two chains alike, or the compiler makes them one */
            sum[r][v] = px_lanes_add(px_lanes_load(seed + v * PX_LANES), px_lanes_set((px_real)r));
    for (long k = 0; k < steps; k++)
        PX_PRAGMA(GCC unroll 16) for (int r = 0; r < TILE_ROWS; r++)
            PX_PRAGMA(GCC unroll 2) for (int v = 0; v < TILE_LANES; v++)
                sum[r][v] = multiply_add(factor, factor, sum[r][v]);
    for (int v = 0; v < TILE_LANES; v++) {
        px_lanes total = sum[0][v];
        for (int r = 1; r < TILE_ROWS; r++) total = px_lanes_add(total, sum[r][v]);
        px_lanes_store(seed + v * PX_LANES, total);
    }
    return 2.0 * (double)steps * TILE_ROWS * TILE_LANES * PX_LANES * STEP;
}
