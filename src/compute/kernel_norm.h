/* LayerNorm and RMSNorm of rows, and the column sums of their backward. */
#include "kernels.h"
#include "lanes.h"

/* Lanes from c on of x += residual, or of x. */
PX_INLINE px_lanes summed(px_real *x, const px_real *residual, int c, int C)
{
    px_lanes v = px_lanes_read(x, c, C);
    if (!residual) return v;
    v = px_lanes_add(v, px_lanes_read(residual, c, C));
    px_lanes_write(x, v, c, C);
    return v;
}

static void layernorm(px_real *y, px_real *mean, px_real *rstd, px_real *x, const px_real *residual, const px_real *w,
                      const px_real *b, int rows, int C, double eps)
{
    for (int m = 0; m < rows; m++, x += C, y += C) {
        px_lanes sum = px_lanes_set(0), square = px_lanes_set(0);
        const px_real *more = residual ? residual + (size_t)m * (size_t)C : NULL;
        for (int c = 0; c < C; c += PX_LANES) sum = px_lanes_add(sum, summed(x, more, c, C));
        px_real mu = px_lanes_sum(sum) / (px_real)C;
        px_lanes center = px_lanes_set(mu);
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes d = px_lanes_sub(px_lanes_read(x, c, C), center);
            if (C - c < PX_LANES) d = px_lanes_within(d, px_lanes_set(0), 0, C - c);
            square = px_lanes_fma(d, d, square);
        }
        px_real scale = (px_real)(1.0 / sqrt((double)(px_lanes_sum(square) / (px_real)C) + eps));
        px_lanes factor = px_lanes_set(scale);
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes n = px_lanes_mul(px_lanes_sub(px_lanes_read(x, c, C), center), factor);
            px_lanes bias = b ? px_lanes_read(b, c, C) : px_lanes_set(0);
            px_lanes_write(y, px_lanes_fma(n, px_lanes_read(w, c, C), bias), c, C);
        }
        if (mean) mean[m] = mu;
        if (rstd) rstd[m] = scale;
    }
}

static void layernorm_backward(px_real *dx, const px_real *dy, const px_real *x, const px_real *mean,
                               const px_real *rstd, const px_real *w, int rows, int C, bool accumulate)
{
    for (int m = 0; m < rows; m++, x += C, dy += C, dx += C) {
        px_lanes sum = px_lanes_set(0), dot = px_lanes_set(0);
        px_lanes center = px_lanes_set(mean[m]), scale = px_lanes_set(rstd[m]);
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes g = px_lanes_mul(px_lanes_read(dy, c, C), px_lanes_read(w, c, C));
            px_lanes n = px_lanes_mul(px_lanes_sub(px_lanes_read(x, c, C), center), scale);
            sum = px_lanes_add(sum, g);
            dot = px_lanes_fma(g, n, dot);
        }
        px_lanes g_mean = px_lanes_set(px_lanes_sum(sum) / (px_real)C);
        px_lanes gn_mean = px_lanes_set(px_lanes_sum(dot) / (px_real)C);
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes g = px_lanes_mul(px_lanes_read(dy, c, C), px_lanes_read(w, c, C));
            px_lanes n = px_lanes_mul(px_lanes_sub(px_lanes_read(x, c, C), center), scale);
            px_lanes d = px_lanes_sub(px_lanes_sub(g, g_mean), px_lanes_mul(n, gn_mean));
            d = px_lanes_mul(d, scale);
            if (accumulate) d = px_lanes_add(d, px_lanes_read(dx, c, C));
            px_lanes_write(dx, d, c, C);
        }
    }
}

static void rmsnorm(px_real *y, px_real *rstd, px_real *x, const px_real *residual, const px_real *w, int rows, int C,
                    double eps, double w_offset)
{
    px_lanes offset = px_lanes_set((px_real)w_offset);
    for (int m = 0; m < rows; m++, x += C, y += C) {
        px_lanes square = px_lanes_set(0);
        const px_real *more = residual ? residual + (size_t)m * (size_t)C : NULL;
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes v = summed(x, more, c, C);
            square = px_lanes_fma(v, v, square);
        }
        px_real scale = (px_real)(1.0 / sqrt((double)(px_lanes_sum(square) / (px_real)C) + eps));
        px_lanes factor = px_lanes_set(scale);
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes n = px_lanes_mul(px_lanes_read(x, c, C), factor);
            px_lanes_write(y, px_lanes_mul(n, px_lanes_add(px_lanes_read(w, c, C), offset)), c, C);
        }
        if (rstd) rstd[m] = scale;
    }
}

static void rmsnorm_backward(px_real *dx, const px_real *dy, const px_real *x, const px_real *rstd, const px_real *w,
                             int rows, int C, double w_offset, bool accumulate)
{
    px_lanes offset = px_lanes_set((px_real)w_offset);
    for (int m = 0; m < rows; m++, x += C, dy += C, dx += C) {
        px_lanes dot = px_lanes_set(0), scale = px_lanes_set(rstd[m]);
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes g = px_lanes_mul(px_lanes_read(dy, c, C), px_lanes_add(px_lanes_read(w, c, C), offset));
            dot = px_lanes_fma(g, px_lanes_mul(px_lanes_read(x, c, C), scale), dot);
        }
        px_lanes gn_mean = px_lanes_set(px_lanes_sum(dot) / (px_real)C);
        for (int c = 0; c < C; c += PX_LANES) {
            px_lanes g = px_lanes_mul(px_lanes_read(dy, c, C), px_lanes_add(px_lanes_read(w, c, C), offset));
            px_lanes n = px_lanes_mul(px_lanes_read(x, c, C), scale);
            px_lanes d = px_lanes_mul(px_lanes_sub(g, px_lanes_mul(n, gn_mean)), scale);
            if (accumulate) d = px_lanes_add(d, px_lanes_read(dx, c, C));
            px_lanes_write(dx, d, c, C);
        }
    }
}

static void column_sums(px_real *dw, px_real *db, const px_real *dy, size_t lddy, const px_real *x, const px_real *mean,
                        const px_real *rstd, int rows, int C, int begin, int end)
{
    for (int m = 0; m < rows; m++) {
        const px_real *g = dy + (size_t)m * lddy, *row = x ? x + (size_t)m * (size_t)C : NULL;
        px_lanes center = px_lanes_set(mean ? mean[m] : 0), scale = px_lanes_set(rstd ? rstd[m] : 1);
        for (int c = begin; c < end; c += PX_LANES) {
            px_lanes d = px_lanes_read(g, c, end);
            if (row) {
                px_lanes n = px_lanes_mul(px_lanes_sub(px_lanes_read(row, c, end), center), scale);
                px_lanes_write(dw, px_lanes_fma(d, n, px_lanes_read(dw, c, end)), c, end);
            }
            if (db) px_lanes_write(db, px_lanes_add(px_lanes_read(db, c, end), d), c, end);
        }
    }
}

static void add(px_real *x, const px_real *y, size_t count)
{
    for (size_t i = 0; i < count; i++) x[i] += y[i];
}
