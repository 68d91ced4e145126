/* Softmax of one row of logits. The row goes by in chunks that stay in the first-level cache: maximum, then sums relative
 * to it; float sums within a chunk, double across chunks, so that 50k terms cost no accuracy. */
#include "kernels.h"
#include "lanes.h"

enum { SOFTMAX_CHUNK = 1024 };

static void softmax_row(px_row_stats *stats, const px_real *z, int target, int V, double temperature,
                        bool want_entropy) {
    const px_lanes inverse = px_lanes_set((px_real)(1 / temperature)), nothing = px_lanes_set((px_real)-INFINITY);
    px_real largest = (px_real)-INFINITY;
    double sum = 0, weighted = 0; /* sum e^u and sum u e^u with u = (z - largest) / T */
    for (int v0 = 0; v0 < V; v0 += SOFTMAX_CHUNK) {
        int count = V - v0 < SOFTMAX_CHUNK ? V - v0 : SOFTMAX_CHUNK;
        const px_real *chunk = z + v0;
        px_lanes high = nothing;
        for (int j = 0; j < count; j += PX_LANES) {
            px_lanes x = px_lanes_read(chunk, j, count);
            if (count - j < PX_LANES) x = px_lanes_within(x, nothing, 0, count - j);
            high = px_lanes_max(high, x);
        }
        px_real top = px_lanes_largest(high);
        if (!(top <= largest)) {
            double shift = sum > 0 ? ((double)largest - (double)top) / temperature : 0;
            weighted = exp(shift) * (weighted + (sum > 0 ? shift * sum : 0));
            sum *= exp(shift);
            largest = top;
        }
        px_lanes part = px_lanes_set(0), part_weighted = px_lanes_set(0), base = px_lanes_set(largest);
        for (int j = 0; j < count; j += PX_LANES) {
            px_lanes u = px_lanes_mul(px_lanes_sub(px_lanes_read(chunk, j, count), base), inverse);
            px_lanes e = px_lanes_exp(u);
            if (count - j < PX_LANES) e = px_lanes_within(e, px_lanes_set(0), 0, count - j);
            part = px_lanes_add(part, e);
            if (want_entropy) part_weighted = px_lanes_fma(u, e, part_weighted);
        }
        sum += px_lanes_sum_double(part);
        weighted += px_lanes_sum_double(part_weighted);
    }
    double lse = log(sum); /* relative to the maximum */
    stats->logprob = ((double)z[target] - (double)largest) / temperature - lse;
    stats->entropy = want_entropy ? lse - weighted / sum : NAN;
    stats->lse = (double)largest / temperature + lse;
}

static void softmax_row_backward(px_real *z, const px_row_stats *stats, int target, double g, double h, int V,
                                 double temperature) {
    const px_lanes inverse = px_lanes_set((px_real)(1 / temperature)), lse = px_lanes_set((px_real)stats->lse);
    const px_lanes slope = px_lanes_set((px_real)(-g / temperature));
    const px_lanes bend = px_lanes_set((px_real)(-h / temperature));
    const px_lanes entropy = px_lanes_set(h != 0 ? (px_real)stats->entropy : 0);
    for (int v = 0; v < V; v += PX_LANES) {
        px_lanes u = px_lanes_sub(px_lanes_mul(px_lanes_read(z, v, V), inverse), lse), p = px_lanes_exp(u);
        px_lanes factor = slope;
        if (h != 0) factor = px_lanes_fma(bend, px_lanes_add(u, entropy), slope);
        px_lanes_write(z, px_lanes_mul(factor, p), v, V);
    }
    z[target] += (px_real)(g / temperature);
}
