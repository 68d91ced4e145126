/* Softmax of one row of logits. The row goes by in chunks that stay in the first-level cache: maximum, then sums relative
 * to it; float sums within a chunk, double across chunks, so that 50k terms cost no accuracy. */
#include "kernels.h"
#include "lanes.h"

typedef struct softmax_sums {
    px_real largest;
    double sum, weighted; /* sum e^u and sum u e^u with u = (z - largest) / T */
    int peak;             /* chunk in which the largest stands first */
} softmax_sums;

/* mass[chunk] (NULL: not wanted) becomes the chunk's share of sum. */
PX_INLINE softmax_sums sum_row(const px_real *z, int V, double temperature, bool want_entropy, double *mass)
{
    const px_lanes inverse = px_lanes_set((px_real)(1 / temperature)), nothing = px_lanes_set((px_real)-INFINITY);
    softmax_sums s = {.largest = (px_real)-INFINITY};
    for (int v0 = 0; v0 < V; v0 += PX_SOFTMAX_CHUNK) {
        int count = V - v0 < PX_SOFTMAX_CHUNK ? V - v0 : PX_SOFTMAX_CHUNK, chunk = v0 / PX_SOFTMAX_CHUNK;
        const px_real *from = z + v0;
        px_lanes high = nothing;
        for (int j = 0; j < count; j += PX_LANES) {
            px_lanes x = px_lanes_read(from, j, count);
            if (count - j < PX_LANES) x = px_lanes_within(x, nothing, 0, count - j);
            high = px_lanes_max(high, x);
        }
        px_real top = px_lanes_largest(high);
        if (!(top <= s.largest)) {
            double shift = s.sum > 0 ? ((double)s.largest - (double)top) / temperature : 0;
            s.weighted = exp(shift) * (s.weighted + (s.sum > 0 ? shift * s.sum : 0));
            s.sum *= exp(shift);
            for (int c = 0; mass && c < chunk; c++) mass[c] *= exp(shift);
            s.largest = top;
            s.peak = chunk;
        }
        px_lanes part = px_lanes_set(0), part_weighted = px_lanes_set(0), base = px_lanes_set(s.largest);
        for (int j = 0; j < count; j += PX_LANES) {
            px_lanes u = px_lanes_mul(px_lanes_sub(px_lanes_read(from, j, count), base), inverse);
            px_lanes e = px_lanes_exp(u);
            if (count - j < PX_LANES) e = px_lanes_within(e, px_lanes_set(0), 0, count - j);
            part = px_lanes_add(part, e);
            if (want_entropy) part_weighted = px_lanes_fma(u, e, part_weighted);
        }
        double share = px_lanes_sum_double(part);
        if (mass) mass[chunk] = share;
        s.sum += share;
        s.weighted += px_lanes_sum_double(part_weighted);
    }
    return s;
}

static void softmax_stats(px_row_stats *stats, const softmax_sums *s, px_real z, double temperature,
                          bool want_entropy)
{
    double lse = log(s->sum); /* relative to the maximum */
    stats->logprob = ((double)z - (double)s->largest) / temperature - lse;
    stats->entropy = want_entropy ? lse - s->weighted / s->sum : NAN;
    stats->lse = (double)s->largest / temperature + lse;
}

static void softmax_row(px_row_stats *stats, const px_real *z, int target, int V, double temperature,
                        bool want_entropy)
{
    softmax_sums s = sum_row(z, V, temperature, want_entropy, NULL);
    softmax_stats(stats, &s, z[target], temperature, want_entropy);
}

/* The exponential ends at about e^-87 and not at 0: what is no more than that has no part in a draw. */
enum { SMALLEST_EXPONENT = -87 };
#define CHUNK_OF_NOTHING 1e-34 /* more than a chunk of such weights */

/* The first of `count` elements at which `running`, going up, exceeds target; the last with weight where rounding
 * leaves none. */
PX_INLINE int draw_within(const px_real *z, int count, px_real largest, double temperature, double running,
                          double target)
{
    const px_lanes inverse = px_lanes_set((px_real)(1 / temperature)), base = px_lanes_set(largest);
    const px_part least = px_part_set(SMALLEST_EXPONENT), zero = px_part_set(0);
    px_real weight[PX_LANES] = {0};
    double before = running; /* the group of lanes whose weights were kept */
    int group = 0, id = 0;
    for (int j = 0; j < count && running <= target; j += PX_LANES) {
        px_lanes u = px_lanes_mul(px_lanes_sub(px_lanes_read(z, j, count), base), inverse), e = px_lanes_exp(u);
        PX_EACH_PART e.p[i] = px_part_select(u.p[i] > least, e.p[i], zero);
        if (count - j < PX_LANES) e = px_lanes_within(e, px_lanes_set(0), 0, count - j);
        double sum = px_lanes_sum_double(e);
        if (!(sum > 0)) continue;
        px_lanes_store(weight, e);
        group = j;
        before = running;
        running += sum;
    }
    for (int j = 0; j < PX_LANES; j++) {
        if (!(weight[j] > 0)) continue;
        id = group + j;
        before += (double)weight[j];
        if (before > target) break;
    }
    return id;
}

static int softmax_draw(px_row_stats *stats, const px_real *z, int V, double temperature, double uniform,
                        double *mass)
{
    double scale = temperature > 0 ? temperature : 1, total = 0, before = 0, running = 0;
    softmax_sums s = sum_row(z, V, scale, false, mass);
    if (!(s.sum < INFINITY)) return -1;
    int chunks = (V + PX_SOFTMAX_CHUNK - 1) / PX_SOFTMAX_CHUNK, chunk = s.peak, id;
    if (temperature > 0) {
        for (int c = 0; c < chunks; c++) total += mass[c] > CHUNK_OF_NOTHING ? mass[c] : 0;
        for (int c = 0; c < chunks && before <= uniform * total; c++) {
            if (!(mass[c] > CHUNK_OF_NOTHING)) continue;
            chunk = c;
            running = before;
            before += mass[c];
        }
    }
    const px_real *from = z + chunk * PX_SOFTMAX_CHUNK;
    if (temperature > 0) {
        int count = chunk + 1 < chunks ? PX_SOFTMAX_CHUNK : V - chunk * PX_SOFTMAX_CHUNK;
        id = draw_within(from, count, s.largest, scale, running, uniform * total);
    } else {
        for (id = 0; from[id] != s.largest;) id++;
    }
    id += chunk * PX_SOFTMAX_CHUNK;
    softmax_stats(stats, &s, z[id], scale, false);
    return id;
}

static void softmax_row_backward(px_real *z, const px_row_stats *stats, int target, double g, double h, int V,
                                 double temperature)
{
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
